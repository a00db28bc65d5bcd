"""What has to be known of an embedding model to cut texts for it. Importing this costs nothing."""

from collections.abc import Sequence
from typing import Protocol


class Reader(Protocol):
    """What has to be known of an embedding model to cut texts for it. An `Embedder` is one."""

    @property
    def name(self) -> str:
        """Model and revision."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that the model reads, without its start and end marks."""
        ...

    @property
    def estimates_tokens(self) -> bool:
        """Whether `count_tokens` is no more than an estimate, as that of a server that tells none."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without the model's start and end marks.

        Additive over white space: the count of `a + " " + b` is the sum of both.
        """
        ...

    def most_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has at most, whatever it holds; `count_tokens` if that is no estimate."""
        ...
