"""Ranked lists: the best parts of each whole, and several lists fused into one.

What belongs here: what is done with ranks. What does not: how a list is made.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

WORDS_SHARE = 0.6
"""Of a score that words and meaning make together. docs/search.md has how it was chosen, on a half of the judgments."""


@dataclass(frozen=True)
class Ranked:
    """A part that was found.

    Args:
        key: of the part, such as a chunk.
        owner: what it is a part of, such as a document.
        score: in the list that it was found in; the greater, the better.
    """

    key: str
    owner: str
    score: float


@dataclass(frozen=True)
class Listed:
    """A ranked list, and what its scores mean.

    Args:
        found: best first.
        least, most: the scores of what has nothing of what was asked for, and of what has all of it.
        share: of the list in the fused score; those of all lists add up to 1.
        whole: whether all else has the least score. If not, the list was cut, and what is missing may have as much as the
            last that is in it.
    """

    found: Sequence[Ranked]
    least: float
    most: float
    share: float
    whole: bool = False

    def part(self, score: float) -> float:
        """What a score adds to the fused one, from 0 to the list's share."""
        return self.share * (score - self.least) / (self.most - self.least)

    @property
    def missing(self) -> float:
        """What the list adds to the score of what it does not hold."""
        return 0.0 if self.whole or not self.found else self.part(self.found[-1].score)


@dataclass(frozen=True)
class Fused:
    """A part with its rank in each list, from 1; None where it is in none."""

    key: str
    owner: str
    score: float
    ranks: tuple[int | None, ...]


def best_of_each(found: Sequence[Ranked], parts: int) -> list[Ranked]:
    """The first so many parts of each owner, in their order."""
    seen = Counter[str]()
    kept = []
    for each in found:
        seen[each.owner] += 1
        if seen[each.owner] <= parts:
            kept.append(each)
    return kept


def fuse(lists: Sequence[Listed], parts: int = 1) -> list[Fused]:
    """One list out of several: each score on the scale of its list, and their weighted mean.

    Ranks are not enough: of a dozen texts that are alike the first and the twelfth differ by nothing in one list, and by
    as much as the right one and a wrong one in the other (docs/search.md has the figures).

    With one part of each owner owners are ranked, and the part is that of the list in which its owner stands higher; with
    several, parts are ranked. Ties are ordered by their best rank, then by key.
    """
    by_unit: dict[str, Fused] = {}
    beforehand = sum(each.missing for each in lists)
    for place, listed in enumerate(lists):
        for rank, each in enumerate(best_of_each(listed.found, parts), start=1):
            unit = each.owner if parts == 1 else each.key
            known = by_unit.get(unit, Fused(each.key, each.owner, beforehand, (None,) * len(lists)))
            higher = min((other for other in known.ranks if other is not None), default=rank + 1)
            ranks = (*known.ranks[:place], rank, *known.ranks[place + 1 :])
            key = each.key if rank < higher else known.key
            score = known.score - listed.missing + listed.part(each.score)
            by_unit[unit] = replace(known, key=key, score=score, ranks=ranks)
    order = sorted(
        by_unit.values(),
        # Sums of the same parts in another order differ in their last bits.
        key=lambda each: (-round(each.score, 12), min(r for r in each.ranks if r is not None), each.key),
    )
    if parts == 1:
        return order
    seen = Counter[str]()
    kept = []
    for each in order:
        seen[each.owner] += 1
        if seen[each.owner] <= parts:
            kept.append(each)
    return kept
