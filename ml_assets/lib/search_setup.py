"""What decides how documents are cut and how their vectors are indexed, beside the model: plain numbers, judged.

What belongs here: the parameters that `ml-assets search-switch` changes and that the alias keeps. What does not: cutting
(chunking.py), making an index (stores/postgres_table/vector_indexes.py).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ml_assets.errors import Refusal
from ml_assets.lib.chunking import MAX_TOKENS, OVERLAP_TOKENS, VERSION
from ml_assets.lib.reader import Reader

Precision = Literal["full", "half"]

FEWEST_TOKENS, MOST_TOKENS = 16, 8_192


@dataclass(frozen=True)
class Passages:
    """How documents are cut.

    Args:
        tokens: of a passage, at most.
        overlap_tokens: of the passage before it that one begins with, at most.

    Raises:
        Refusal: no document can be cut so.
    """

    tokens: int = MAX_TOKENS
    overlap_tokens: int = OVERLAP_TOKENS

    def __post_init__(self) -> None:
        _require("A passage has", self.tokens, "tokens", FEWEST_TOKENS, MOST_TOKENS)
        _require(
            f"A passage of {self.tokens:,} tokens begins with",
            self.overlap_tokens,
            "of the one before",
            0,
            self.tokens // 2,
        )

    def __str__(self) -> str:
        return f"passages of {self.tokens:,} tokens, {self.overlap_tokens:,} of them overlapping"


@dataclass(frozen=True)
class VectorIndex:
    """How pgvector's HNSW index is made and asked; the names are pgvector's.

    Args:
        m: neighbours of a vector in a layer.
        ef_construction: candidates that are looked at when a vector is let in.
        ef_search: candidates that are looked at for an answer; None for four a hit, and at least 400.
        precision: `half` indexes each number with 16 bits (halfvec). Vectors of 2,001 to 4,000 numbers always are.

    Raises:
        Refusal: pgvector makes no such index.
    """

    m: int = 16
    ef_construction: int = 64
    ef_search: int | None = None
    precision: Precision = "full"

    def __post_init__(self) -> None:
        _require("An HNSW index has m", self.m, "", 2, 100)
        _require("An HNSW index has ef_construction", self.ef_construction, "", 4, 1_000)
        if self.ef_construction < 2 * self.m:
            raise Refusal(
                f"ef_construction is {self.ef_construction:,}, and with m {self.m:,} pgvector asks for at least "
                f"{2 * self.m:,}: give a larger one, or a smaller m."
            )
        if self.ef_search is not None:
            _require("An HNSW index is asked with ef_search", self.ef_search, "", 1, 1_000)
        if self.precision not in get_args(Precision):
            raise Refusal(
                f"There is no precision {self.precision!r}: it is one of {', '.join(get_args(Precision))}."
            )

    def candidates(self, most: int, limit: int) -> int:
        """`hnsw.ef_search` of a query that asks for so many rows.

        Args:
            limit: the most that pgvector looks at.
        """
        wanted = max(_CANDIDATES, 4 * most) if self.ef_search is None else max(self.ef_search, most)
        return min(limit, wanted)

    def __str__(self) -> str:
        asked = "" if self.ef_search is None else f", ef_search {self.ef_search:,}"
        return f"an index with m {self.m:,}, ef_construction {self.ef_construction:,}{asked}, {self.precision} precision"


_CANDIDATES = 400
"""What the index looks at for an answer, at least: with pgvector's own 40 it misses some of the nearest."""


def _require(what: str, value: int, unit: str, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        unit = f" {unit}" if unit else ""
        raise Refusal(
            f"{what} {value!r}{unit}, which is not possible: give a number from {least:,} to {most:,}."
        )


def cut_for(model: Reader, passages: Passages) -> str:
    """What documents are cut for, in words; passages that were cut for something else are other ones."""
    return f"{model.name}, {passages}, chunker {VERSION}"


def passages_of(settings: Mapping[str, Any]) -> Passages:
    """How documents are cut by the settings that the alias keeps; as ever where these say nothing."""
    return Passages(**settings.get("passages", {}))


def index_of(settings: Mapping[str, Any]) -> VectorIndex:
    """The index by the settings that the alias keeps; pgvector's own where these say nothing."""
    return VectorIndex(**settings.get("index", {}))


def as_settings(passages: Passages, index: VectorIndex) -> dict[str, Any]:
    """What the alias keeps of both."""
    return {"passages": asdict(passages), "index": asdict(index)}


def with_changes(
    passages: Passages, index: VectorIndex, changes: Mapping[str, Any]
) -> tuple[Passages, VectorIndex]:
    """Both with some parameters changed; those that are None stay.

    Args:
        changes: by name; `passage_tokens` for the tokens of a passage. An `ef_search` of 0 is as ever again.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if given.get("ef_search") == 0:
        given["ef_search"] = None
    of_passages = {"tokens": "passage_tokens", "overlap_tokens": "overlap_tokens"}
    cut = {name: given.pop(said) for name, said in of_passages.items() if said in given}
    return replace(passages, **cut), replace(index, **given)
