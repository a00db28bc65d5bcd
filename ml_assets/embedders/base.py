"""What an embedder promises. No model and no library belongs here: importing this costs nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ml_assets.lib.reader import Reader

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Embedder(Reader, Protocol):
    """Turns texts into vectors of unit length, so that the inner product is the cosine.

    Its name tells model and revision: vectors of different names must never be compared.
    """

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """float32 of shape (len(texts), dimension), rows in the order of `texts`.

        A text of more than `max_tokens` is cut off, or refused by a server. A text's vector does not depend on its
        neighbours (but for the last bits of a float). Raises `EmbedderError`.
        """
        ...
