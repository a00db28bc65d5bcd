"""Large samples of numbers in bins of equal width: what lib/drift.py measures without sorting them.

What belongs here: counting. Values come in pieces, as often as they are asked for, and memory does not grow with them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml_assets.lib.drift import Segments

BINS = 32_768
"""Bins over the range in which most values lie; two more are for what lies outside."""

_FEW_NEGATIVE = 0.001
"""Share of values below 0 that a grid for positive ones leaves to its first bin."""

_SKEWED = 64.0
"""Times the lowest value that the highest one is where bins of equal width would be too wide for most."""

Values = NDArray[np.float64]


class Counted(NamedTuple):
    """A sample in bins.

    Args:
        total: how many values there are.
        by_bin: how many in each bin.
        sums: of their distances from the grid's origin, by bin.
        low, high: the lowest and the highest value; infinite where there is none.
    """

    total: int
    by_bin: Values
    sums: Values
    low: float
    high: float


@dataclass(frozen=True)
class Grid:
    """Bins from an origin on, of equal width.

    Args:
        origin: where the first bin begins.
        scale: bins in one unit of the values.
    """

    origin: float
    scale: float

    def places(self, values: Values) -> NDArray[np.intp]:
        """The bin of each value: 0 below the range, the last one above. A higher value is never in a lower bin."""
        with np.errstate(over="ignore"):
            at = values - self.origin
            at *= self.scale
        # Cut first: what is beyond integers would turn around.
        np.clip(at, -1.0, float(BINS), out=at)
        np.floor(at, out=at)
        at += 1.0
        return at.astype(np.intp)

    def edges(self) -> Values:
        """Where the bins within the range begin, and where the last of them ends."""
        return self.origin + np.arange(BINS + 1) / self.scale

    def counted(self, values: Iterable[Values]) -> Counted:
        """A sample in bins; its values are finite."""
        by_bin, sums = np.zeros(BINS + 2), np.zeros(BINS + 2)
        low, high, count = math.inf, -math.inf, 0
        for some in values:
            if not len(some):
                continue
            places = self.places(some)
            by_bin += np.bincount(places, minlength=BINS + 2)
            with np.errstate(over="ignore", invalid="ignore"):
                sums += np.bincount(places, some - self.origin, BINS + 2)
            low, high = min(low, float(some.min())), max(high, float(some.max()))
            count += len(some)
        return Counted(count, by_bin, sums, low, high)

    def segments(self, reference: Counted, current: Counted) -> tuple[NDArray[np.intp], Segments]:
        """The bins that have values, and the same as segments: from one end of a bin to the other."""
        there = np.flatnonzero(reference.by_bin + current.by_bin)
        edges = self.edges()
        low = min(reference.low, current.low, edges[0])
        high = max(reference.high, current.high, edges[-1])
        ends = np.concatenate([[low], edges, [high]])
        sides = (reference.by_bin, current.by_bin, reference.sums, current.sums)
        return there, Segments(ends[there], ends[there + 1], *(side[there] for side in sides))

    def distinct(self, values: Iterable[Values], bins: NDArray[np.intp]) -> tuple[Values, Values]:
        """The different values in some bins, ascending, and how often each is there."""
        wanted = np.zeros(BINS + 2, bool)
        wanted[bins] = True
        found, counts = np.empty(0), np.empty(0)
        for some in values:
            chosen = some[wanted[self.places(some)]]
            if len(chosen):
                new, times = np.unique(chosen, return_counts=True)
                found, counts = _added(found, counts, new, times)
        return found, counts


@dataclass(frozen=True)
class FloatGrid(Grid):
    """Bins of as many floating-point numbers each, above 0: as fine for small values as for large ones.

    The bits of positive doubles are integers in the order of the numbers; those of all others are below.

    Args:
        shift: bits that numbers of one bin do not have in common.
    """

    shift: int

    def places(self, values: Values) -> NDArray[np.intp]:
        """As of any grid; all that is not above 0 is in the first bin."""
        at = np.ascontiguousarray(values).view(np.int64) - np.float64(self.origin).view(np.int64)
        # The difference of a negative number's bits turns around.
        at[values <= 0] = -1
        at >>= self.shift
        np.clip(at, -1, BINS, out=at)
        at += 1
        return at

    def edges(self) -> Values:
        """As of any grid."""
        return (np.float64(self.origin).view(np.int64) + (np.arange(BINS + 1) << self.shift)).view(np.float64)


def grid_over(low: float, high: float, above: tuple[float, float] | None, negative: float) -> Grid:
    """The grid for a column.

    Args:
        low, high: between which most of its values lie.
        above: between which most of those above 0 lie; None if there are none.
        negative: share of values below 0.
    """
    if above is not None and negative < _FEW_NEGATIVE and above[1] > _SKEWED * above[0]:
        first, last = (int(np.float64(end).view(np.int64)) for end in above)
        return FloatGrid(above[0], 1.0, max((last - first).bit_length() - BINS.bit_length() + 1, 0))
    width = high - low
    # A column that is nearly constant, or wider than numbers go, has all of its values in a few bins.
    scale = BINS / width if 0 < width < math.inf else 1.0
    return Grid(low, scale if math.isfinite(scale) else 1.0)


def _added(found: Values, counts: Values, new: Values, times: NDArray[np.intp]) -> tuple[Values, Values]:
    """Values with how often they are there, and more of them, each once."""
    both = np.concatenate([found, new])
    order = np.argsort(both, kind="stable")  # two ascending runs are merged
    both, number = both[order], np.concatenate([counts, times])[order]
    first = np.flatnonzero(np.append(True, both[1:] != both[:-1]))
    return both[first], np.add.reduceat(number, first)


def of_values(reference: tuple[Values, Values], current: tuple[Values, Values]) -> Segments:
    """Different values of two samples, each a segment."""
    values = np.union1d(reference[0], current[0])
    r, c, nothing = (np.zeros(len(values)) for _ in range(3))
    for side, (own, times) in ((r, reference), (c, current)):
        side[np.searchsorted(values, own)] = times
    return Segments(values, values, r, c, nothing, nothing)
