"""What an embedder promises. No model and no library belongs here: importing this costs nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of unit length, so that the inner product is the cosine."""

    @property
    def name(self) -> str:
        """Model and revision. Vectors of different names must never be compared."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """float32 of shape (len(texts), dimension), rows in the order of `texts`.

        A text longer than the model reads is cut off. A text's vector does not depend on its
        neighbours (but for the last bits of a float). Raises `EmbedderError`.
        """
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without the model's start and end marks.

        Additive over white space: the count of `a + " " + b` is the sum of both.
        """
        ...
