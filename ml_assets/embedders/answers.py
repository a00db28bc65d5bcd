"""What embedders over HTTP have in common: texts go by batches, answers are judged, and tokens are estimated, since
servers tell none before they are given a text.
"""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_assets.errors import EmbedderError

if TYPE_CHECKING:
    import numpy as np

BATCH = 64
"""Texts of a request."""

_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def estimated_tokens(texts: Sequence[str]) -> list[int]:
    """About the tokens of each text: a mark or four letters of a word are one."""
    return [sum(-(-len(piece) // 4) for piece in _WORD_OR_MARK.findall(text)) for text in texts]


def most_tokens(texts: Sequence[str]) -> list[int]:
    """As many as there can be: no tokenizer in use makes more than one of a byte, of the text or of its usual form."""
    return [
        max(
            len(text.encode("utf-8", "surrogatepass")),
            len(unicodedata.normalize("NFKC", text).encode("utf-8", "replace")),
        )
        for text in texts
    ]


def require_texts(texts: Sequence[str]) -> None:
    """Refuse what cannot be sent to a model.

    Raises:
        EmbedderError: a lone surrogate stands in a text.
    """
    for n, text in enumerate(texts, start=1):
        if found := _SURROGATE.search(text):
            raise EmbedderError(
                f"Text {n} of {len(texts)} has a lone surrogate (U+{ord(found[0]):04X}) at character {found.start():,}: "
                "it is half a character, and no model can be given it. Write the text as UTF-8 anew."
            )


def unit_vectors(answered: Any, count: int, dimension: int, who: str, setting: str) -> "np.ndarray":
    """The vectors of an answer, of unit length.

    Args:
        answered: a list of lists of numbers, one for each text.
        who: the model, as it begins a sentence.
        setting: that says the dimension.

    Raises:
        EmbedderError: there are more or fewer, they are of another dimension, or one has no direction.
    """
    import numpy as np

    given = len(answered) if isinstance(answered, list) else 0
    if given != count:
        raise EmbedderError(
            f"{who} was given {count} texts and answered with {given} vectors: nothing of it is kept. Look at what the "
            "server logs, and try again."
        )
    lengths = {len(each) if isinstance(each, list) else 0 for each in answered}
    if lengths != {dimension}:
        raise EmbedderError(
            f"{who} gave vectors of {', '.join(map(str, sorted(lengths)))} numbers where {dimension} were expected: set "
            f"{setting} to the length of its vectors, or use a model of dimension {dimension}."
        )
    try:
        vectors = np.array(answered, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as fault:
        raise EmbedderError(f"{who} gave a vector that does not hold numbers alone: {fault}.") from fault
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    for n, each in enumerate(length[:, 0].tolist(), start=1):
        if not 0 < each < np.inf:
            why = "only zeros" if each == 0 else "NaN or infinite numbers"
            raise EmbedderError(
                f"{who} gave a vector without a direction for text {n} of {count}: it holds {why}. Nothing of the answer "
                "is kept."
            )
    return (vectors / length).astype(np.float32)


class ServerEmbedder(ABC):
    """An embedder whose model a server runs. See `Embedder` for what it promises.

    Args:
        dimension: length of its vectors, checked on every answer.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    @property
    def estimates_tokens(self) -> bool:
        """True: the server tells no token counts before it is given a text."""
        return True

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """Unit vectors, float32 of shape (len(texts), dimension)."""
        import numpy as np

        require_texts(texts)
        out = np.empty((len(texts), self._dimension), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            out[start : start + len(batch)] = self._vectors(batch)
        return out

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """An estimate: a mark or four letters of a word are one token."""
        return estimated_tokens(texts)

    def most_tokens(self, texts: Sequence[str]) -> list[int]:
        """The bytes of each text."""
        return most_tokens(texts)

    @abstractmethod
    def _vectors(self, batch: list[str]) -> "np.ndarray":
        """The vectors of one request, by `unit_vectors`."""
