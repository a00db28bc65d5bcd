"""Series that have no episode, told for many of them at once.

What belongs here: the arithmetic of lib/episodes.py as it is as long as there is no episode, over the rows of a matrix.
Where a sum comes far enough to open one, lib/episodes.py has to look at the series; of many models it hardly ever does.
"""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ml_assets.lib.episodes import HOURS, MEDIAN_ERRORS, NORMAL_DEVIATIONS, Direction, Sensitivity

Matrix = NDArray[np.float64]


def quiet(
    times: Sequence[datetime],
    values: Matrix,
    direction: Direction | None = None,
    sensitivity: Sensitivity | None = None,
) -> NDArray[np.bool_]:
    """Which series surely have no episode.

    Args:
        times: UTC, ascending, those of all series.
        values: a row for each series, finite.
        direction: as `episodes` has it.
        sensitivity: as `episodes` has it.
    """
    how = sensitivity or Sensitivity()
    signs = {"up": (1.0,), "down": (-1.0,), None: (1.0, -1.0)}[direction]
    hours = np.array([time.hour for time in times], np.int16)
    still = np.ones(len(values), bool)
    sums = [np.zeros(len(values)) for _ in signs]
    first, at, learnt = 0, how.least, -1
    level: _Levels | None = None
    while at < len(times):
        count = at - first
        if level is None or at - learnt >= max(how.least // 4, count // 10):
            oldest = bisect_left(times, times[at] - how.memory)
            first += min(max(oldest - first, 0), count - how.least)
            level, learnt = _learn(values[:, first:at], hours[first:at]), at
        end, count = at + 1, at - first + 1
        while end < len(times) and end - learnt < max(how.least // 4, count // 10):
            end, count = end + 1, count + 1
        z = _deviations(level, hours[at:end], values[:, at:end])
        slack = how.slack + 2 * MEDIAN_ERRORS / np.sqrt(level.rests.shape[1])
        for which, sign in enumerate(signs):
            total = sums[which][:, None] + np.cumsum(sign * z - slack, axis=1)
            total -= np.minimum(np.minimum.accumulate(total, axis=1), 0.0)
            still &= ~(total > how.threshold).any(axis=1)
            sums[which] = total[:, -1]
        at = end
    return still


class _Levels(NamedTuple):
    """What is normal for each series: by hour of the day, the rests of it in ascending order, how far they spread."""

    by_hour: Matrix
    rests: Matrix
    widened: NDArray[np.float64]


def _deviations(level: _Levels, hours: NDArray[np.int16], values: Matrix) -> Matrix:
    rests = values - level.by_hour[:, hours]
    ranks = np.array(
        [
            known.searchsorted(rest, "left") + known.searchsorted(rest, "right")
            for known, rest in zip(level.rests, rests, strict=True)
        ]
    )
    return ndtri((ranks / 2 + 0.5) / (level.rests.shape[1] + 1)) / level.widened[:, None]


def _learn(values: Matrix, hours: NDArray[np.int16]) -> _Levels:
    by_hour = np.repeat(_middle(np.sort(values, axis=1))[:, None], HOURS, axis=1)
    counts = np.bincount(hours, minlength=HOURS)
    if counts[counts > 0].min() >= 4 and (counts > 0).sum() >= HOURS // 2:
        unseen, rhythm = np.empty_like(values), by_hour.copy()
        for hour in np.flatnonzero(counts):
            places = np.flatnonzero(hours == hour)
            rhythm[:, hour] = _middle(np.sort(values[:, places], axis=1))
            for learnt, other in ((places[::2], places[1::2]), (places[1::2], places[::2])):
                unseen[:, other] = values[:, other] - _middle(np.sort(values[:, learnt], axis=1))[:, None]
        by_hour = np.where((_spread(unseen) < 0.8 * _spread(values))[:, None], rhythm, by_hour)
    rests = values - by_hour[:, hours]
    return _Levels(by_hour, np.sort(rests, axis=1), _widened(rests))


def _middle(ascending: Matrix) -> NDArray[np.float64]:
    count = ascending.shape[1]
    return (ascending[:, (count - 1) // 2] + ascending[:, count // 2]) / 2


def _spread(rests: Matrix) -> NDArray[np.float64]:
    off = np.abs(rests - _middle(np.sort(rests, axis=1))[:, None])
    robust = NORMAL_DEVIATIONS * _middle(np.sort(off, axis=1))
    return np.where(robust > 0, robust, np.std(rests, axis=1))


def _widened(rests: Matrix) -> NDArray[np.float64]:
    count = rests.shape[1]
    order = np.argsort(rests, axis=1)
    ascending = np.take_along_axis(rests, order, axis=1)
    # Values that are alike share the ranks from the first of them to the last.
    new = np.ones(rests.shape, bool)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    at = np.arange(count)
    first = np.maximum.accumulate(np.where(new, at, 0), axis=1)
    ends = np.ones(rests.shape, bool)
    ends[:, :-1] = new[:, 1:]
    last = np.minimum.accumulate(np.where(ends, at, count)[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(rests.shape)
    np.put_along_axis(ranks, order, (first + last + 1 - count) / 2, axis=1)
    power = np.sum(ranks**2, axis=1)
    alike = np.sum(ranks[:, 1:] * ranks[:, :-1], axis=1) / np.where(power > 0, power, 1.0)
    alike = np.minimum(np.where(alike > 2 / np.sqrt(count), alike, 0.0), 0.95)
    return np.sqrt((1 + alike) / (1 - alike))
