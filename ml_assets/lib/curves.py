"""Curves of runs: how they are smoothed, averaged over groups and drawn in a terminal.

What belongs here: arithmetic on points that are few already. What does not: reading points, and thinning them out; the
engine that holds them does that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[np.floating] | npt.NDArray[np.integer]

CONFIDENCE = 0.95
"""Of the band around a group's mean."""

_DOTS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))
"""Bits of a braille character by column, from the lowest dot up."""

_BRAILLE = 0x2800
_BROKEN = "✗"


def smoothed(decayed: Sequence[float], counts: Sequence[int], weight: float) -> Floats:
    """The debiased exponential moving average, as TensorBoard computes it, at the end of each part of a curve.

    A part is one point, or several that were added up where they lie. What is not finite is no part of the average.

    Args:
        decayed: by part, the sum of its finite values v, each as (1 - weight) * weight ** (finite values after it in
            the part) * v.
        counts: by part, how many finite values it has.
        weight: of what was before, from 0 to below 1.

    Returns:
        By part, the average of all finite values up to its end; NaN before the first of them.
    """
    averages = np.full(len(counts), np.nan)
    last, seen = 0.0, 0
    for place, (more, count) in enumerate(zip(decayed, counts, strict=True)):
        if count:
            last = last * weight**count + more
            seen += count
        if seen:
            averages[place] = last / (1.0 - weight**seen)
    return averages


@dataclass(frozen=True)
class Band:
    """A group's curve: the mean of its runs at each place, and how sure it is.

    Args:
        mean: of the runs that are there; NaN where none is.
        low, high: the 95 % interval of the mean by Student's t; NaN where fewer than two runs are.
        n: how many runs are there.
    """

    mean: Floats
    low: Floats
    high: Floats
    n: npt.NDArray[np.int64]


def band(values: Floats) -> Band:
    """The mean of several curves with its interval.

    Args:
        values: a row a run, a column a place; what is not finite is not there.
    """
    from scipy.special import stdtrit

    there = np.isfinite(values)
    n = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(there, values, 0.0).sum(axis=0) / n
        squares = np.where(there, values - mean, 0.0) ** 2
        error = np.sqrt(squares.sum(axis=0) / (n - 1) / n)
        margin = np.where(n > 1, stdtrit(np.maximum(n - 1, 1), (1 + CONFIDENCE) / 2) * error, np.nan)
    return Band(mean, mean - margin, mean + margin, n.astype(np.int64))


def aligned(
    places: Numbers,
    xs: Numbers,
    values: Numbers,
    common: Numbers,
    common_xs: Numbers,
) -> Floats:
    """One curve at the places of an axis that several curves have in common.

    Between two of its own points it is a straight line, since a run that logs every tenth step is there at the other
    nine as well. Before its first point, after its last, and beside a point that is not finite it is not there.

    Args:
        places: its own ones, ascending, all of them among the common ones.
        xs, values: at its own places.
        common: ascending.
        common_xs: at the common places.

    Returns:
        Its value at each common place; NaN where it is not there.
    """
    own = np.asarray(values, dtype=np.float64)
    own = np.where(np.isfinite(own), own, np.nan)
    found = np.atleast_1d(np.interp(common_xs, xs, own, left=np.nan, right=np.nan))
    found[np.searchsorted(common, places)] = own
    return found


def drawn(
    xs: Sequence[float],
    values: Sequence[float],
    width: int = 60,
    height: int = 4,
    limits: tuple[float, float] | None = None,
    broken: str = _BROKEN,
) -> list[str]:
    """A curve in braille dots, two by four a character, its lowest value at the bottom.

    Args:
        xs: ascending.
        values: at these places. Where one is not finite, the topmost line has a mark, and the curve a gap.
        width, height: in characters.
        limits: the values at the bottom and the top; the least and greatest if None.
        broken: the mark; none if empty.

    Returns:
        The lines from the top down; all of them as wide.
    """
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    columns, rows = 2 * width, 4 * height
    grid = np.zeros((rows, columns), dtype=bool)
    finite = np.isfinite(y)
    column = _scaled(x, columns)
    if finite.any():
        row = np.zeros(len(y), dtype=np.int64)
        row[finite] = _scaled(y[finite], rows, limits)
        _join(grid, column[finite], row[finite], np.flatnonzero(finite))
    lines = [
        [
            chr(
                _BRAILLE
                + sum(
                    _DOTS[right][up]
                    for right in (0, 1)
                    for up in range(4)
                    if grid[4 * line + up, 2 * place + right]
                )
            )
            for place in range(width)
        ]
        for line in reversed(range(height))
    ]
    for place in column[~finite] // 2 if broken else ():
        lines[0][place] = broken
    return ["".join(line) for line in lines]


def _scaled(values: Floats, cells: int, limits: tuple[float, float] | None = None) -> npt.NDArray[np.int64]:
    """The cell of each value, where the least (or the lower limit) is in the first one and the greatest in the last."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    low, high = limits or (float(values.min()), float(values.max()))
    # Halves, since the whole span of two large numbers may be no number any more.
    span = high / 2 - low / 2
    if not span > 0:
        return np.zeros(len(values), dtype=np.int64)
    shares = (values / 2 - low / 2) / span
    return np.minimum((shares * cells).astype(np.int64), cells - 1)


def _join(
    grid: npt.NDArray[np.bool_],
    column: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    index: npt.NDArray[np.intp],
) -> None:
    """Draw points, and a line between two that follow each other with nothing broken between them."""
    grid[row, column] = True
    for place in range(1, len(index)):
        if index[place] != index[place - 1] + 1:
            continue
        x0, x1, y0, y1 = column[place - 1], column[place], row[place - 1], row[place]
        steps = int(max(x1 - x0, abs(y1 - y0)))
        for step in range(1, steps):
            share = step / steps
            grid[math.floor(y0 + (y1 - y0) * share + 0.5), math.floor(x0 + (x1 - x0) * share + 0.5)] = True
