"""Drops of quality: days on which a model is worse than what its normal days let one expect.

What belongs here: a series of days in, episodes out, as lib/episodes.py has them for values by the hour. Few values a day
are too few to add up ranks, so a drop is judged by what a day is made of.

The evaluations of a day are replicates of each other. The last one, two, three, five and seven days are each set against
the normal days before them by a t test, one-sided. Shares are compared as the arcsines of their square roots, which
spread alike wherever they lie and less to one side. A day spreads as far as the normal days do among each other, and no
less than the replicates of a day or the number of evaluated rows bring about by chance; where neighbouring days resemble
each other, several days tell less. Where the rows are known, too many of them have to be wrong by a beta-binomial
distribution as well: one wrong row in seven is no drop. The p values of the windows are corrected by their weights
(Bonferroni): a single day has to be far off, for now and then a day is. Where the same days of the weeks before were as
low, there is no drop: weekends may well be harder.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from ml_assets.lib.episodes import LEAST_WEEKS, USUAL, WEEKS, Episode, Evidence

WINDOWS = {1: 0.02, 2: 0.14, 3: 0.28, 5: 0.28, 7: 0.28}
"""Days, the last one among them, that are compared with those before, and the share of the level that each may spend."""


_FEW_ROWS = 5.0
"""Taken for the rows of a day, at least, where nobody says how many there were."""


_MANY_ROWS = 2_000
"""Rows of a window from which on they need not be counted: the t test knows how far chance makes shares spread."""


@dataclass(frozen=True)
class Strictness:
    """When a drop is believed.

    Args:
        level: p value of a day, after the correction for the windows, at which an episode opens. It is the share of
            stationary days that open one, at most.
        least: normal days that are needed to know what is normal.
        memory: normal days that are compared with, the last ones.
        least_effect: share of the normal level below which no drop matters.
        settled: normal days in a row after which an episode has ended.
        accepted: time after which a new level is the normal one.
    """

    level: float = 0.0005
    least: int = 5
    memory: int = 28
    least_effect: float = 0.02
    settled: int = 3
    accepted: timedelta = timedelta(days=14)


@dataclass(frozen=True)
class Days:
    """One series: the evaluations of a model by day.

    Args:
        days: UTC, ascending, those that have a value.
        counts: values of each day, one at least.
        means: of the values of each day, 0 to 1, higher is better.
        squares: sum of the squared distances of a day's values from its mean.
        rows: evaluated rows of each day; NaN where they are not known.
    """

    days: Sequence[date]
    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    squares: NDArray[np.float64]
    rows: NDArray[np.float64]

    @classmethod
    def of(
        cls, days: Sequence[date], counts: ArrayLike, means: ArrayLike, squares: ArrayLike, rows: ArrayLike
    ) -> "Days":
        """A series of days that may lack a mean: such days are left out.

        Raises:
            ValueError: days do not ascend.
        """
        numbers = [np.asarray(each, float) for each in (counts, means, squares, rows)]
        kept = np.isfinite(numbers[1])
        chosen = [day for day, keep in zip(days, kept, strict=True) if keep]
        if any(later <= earlier for earlier, later in pairwise(chosen)):
            raise ValueError("days do not ascend; sort them, with one row each")
        return cls(chosen, *(each[kept] for each in numbers))


class _Tests(NamedTuple):
    """Windows set against the normal days before them.

    Args:
        p: one-sided, of a drop.
        matters: whether it is far enough.
        deviations: after minus before, in standard deviations of a day.
        lowest: the angle of a day that alone would be believed.
    """

    p: NDArray[np.float64]
    matters: NDArray[np.bool_]
    deviations: NDArray[np.float64]
    lowest: NDArray[np.float64]


@dataclass(frozen=True)
class _Test:
    """A window set against the normal days before it.

    Args:
        p: one-sided, of a drop.
        before, after: mean of the normal days, and of the window.
        deviations: after minus before, in standard deviations of a day.
    """

    p: float
    before: float
    after: float
    deviations: float


def drops(series: Days, how: Strictness | None = None) -> list[Episode]:
    """The episodes of one series, in order, each a drop; the last may be open.

    Args:
        series: the days.
        how: when a drop is believed.
    """
    wanted = how or Strictness()
    moments = _moments(series)
    if not _may_drop(moments[:, None], wanted)[0]:
        return []
    watch = _Watch(series, moments, wanted)
    for at in range(len(series.days)):
        watch.see(at)
    return watch.found


def steady(every: Sequence[Days], how: Strictness | None = None) -> list[bool]:
    """Which series surely have no drop, told for those of as many days at once."""
    found = [True] * len(every)
    same: dict[int, list[int]] = defaultdict(list)
    for place, series in enumerate(every):
        same[len(series.days)].append(place)
    for places in same.values():
        moments = np.stack([_moments(every[place]) for place in places], axis=1)
        for place, may in zip(places, _may_drop(moments, how or Strictness()).tolist(), strict=True):
            found[place] = not may
    return found


def judged(series: Days, how: Strictness | None = None) -> Sequence[date]:
    """The days that are compared with others: there have to be normal ones before."""
    return series.days[(how or Strictness()).least :]


def _may_drop(moments: NDArray[np.float64], how: Strictness) -> NDArray[np.bool_]:
    """Whether any day of a series passes the t test while there is no episode yet: exact, and all days at once.

    Args:
        moments: of some series of as many days: moments x series x days.
    """
    _, count, n = moments.shape
    may = np.zeros(count, bool)
    if n <= how.least:
        return may
    none = np.zeros((len(moments), count, 1))
    sums = np.concatenate([none, np.cumsum(moments, axis=2)], axis=2)
    # Of neighbours the next one is part of the sum as well.
    angles = moments[_ANGLE]
    together = np.concatenate([none[0], np.cumsum(angles[:, :-1] * angles[:, 1:], axis=1)], axis=1)
    for width, weight in WINDOWS.items():
        starts = np.arange(how.least, n - width + 1)
        if not len(starts):
            break
        firsts = np.maximum(starts - how.memory, 0)
        normal = sums[..., starts] - sums[..., firsts]
        window = sums[..., starts + width] - sums[..., starts]
        neighbours = together[:, starts - 1] - together[:, firsts]
        found = _tests(normal, window, neighbours, angles[:, firsts] + angles[:, starts - 1], width, how)
        may |= (found.matters & (found.p <= how.level * weight)).any(axis=1)
    return may


_DAYS, _MEAN, _ANGLE, _SQUARE, _COUNT, _WITHIN, _ROWS, _UNKNOWN = range(8)
"""What the test of some days needs of each of them, to be added up."""


def _moments(series: Days) -> NDArray[np.float64]:
    """A row for each of the above, a column for each day."""
    unknown = ~np.isfinite(series.rows)
    angles = _angle(series.means)
    angles -= (
        angles.mean() if len(angles) else 0.0
    )  # of sums of squares of small numbers more digits are left
    return np.array(
        [
            np.ones(len(angles)),
            series.means,
            angles,
            angles**2,
            series.counts,
            series.squares,
            np.where(unknown, 0.0, series.rows),
            unknown,
        ]
    )


def _angle(share: ArrayLike) -> NDArray[np.float64]:
    return np.arcsin(np.sqrt(np.clip(share, 0.0, 1.0)))


def _tests(
    normal: NDArray[np.float64],
    window: NDArray[np.float64],
    neighbours: ArrayLike,
    ends: ArrayLike,
    width: int,
    how: Strictness,
) -> _Tests:
    """Several windows, each against its normal days, by the t test alone.

    Args:
        normal, window: sums of moments.
        neighbours: sum of the products of the angles of each normal day and the next.
        ends: sum of the angles of the first and the last normal day.
        width: days of the window.
    """
    days = normal[_DAYS]
    before, after = normal[_ANGLE] / days, window[_ANGLE] / width
    mean, mean_after = normal[_MEAN] / days, window[_MEAN] / width
    squares = np.maximum(normal[_SQUARE] - days * before**2, 0.0)
    # Of a share of n rows chance alone makes its angle spread by 1 / 4n; replicates tell the same of themselves.
    known = (normal[_UNKNOWN] == 0) & (window[_UNKNOWN] == 0) & (window[_ROWS] > 0)
    chance = np.where(known, width / (4 * np.maximum(window[_ROWS], 1)), 0.0)
    steepness = 1 / (4 * np.clip(mean * (1 - mean), 0.01, None))
    replicates = np.maximum(normal[_COUNT] - days, 1)
    within = normal[_WITHIN] / replicates / (window[_COUNT] / width) * steepness
    least = ((_angle(mean) - _angle(mean * (1 - how.least_effect))) / 2) ** 2 + 1e-24
    between = np.maximum(squares / (days - 1), 1e-24)
    variance = np.maximum.reduce([between, within, chance, least])
    spread = np.sqrt(variance)
    # What is known of chance is not as uncertain as what a few days tell (Satterthwaite's approximation).
    freedom = np.minimum((days - 1) * (variance / between) ** 2, 200)
    # The share of the spread that a day has in common with its neighbour, which chance makes less than it is.
    products = neighbours - before * (2 * normal[_ANGLE] - ends) + (days - 1) * before**2
    alike = np.where(squares > 0, products / np.maximum(squares, 1e-24), 0.0)
    alike = np.clip(alike + (2 + 3 * np.maximum(alike, 0)) / days, 0.0, 0.8)
    several = 1 + 2 * sum((1 - lag / width) * alike**lag for lag in range(1, width))
    error = spread * np.sqrt((1 + alike) / (1 - alike) / days + several / width)
    return _Tests(
        p=stdtr(freedom, (after - before) / error),
        matters=mean - mean_after >= how.least_effect * mean,
        deviations=(after - before) / spread,
        lowest=before + stdtrit(freedom, how.level * WINDOWS[1]) * spread,
    )


class _Watch:
    def __init__(self, series: Days, moments: NDArray[np.float64], how: Strictness) -> None:
        self._series, self._moments, self._how = series, moments, how
        self.found: list[Episode] = []
        self._normal: list[int] = []
        self._places = {day: place for place, day in enumerate(series.days)}
        self._restart()

    def _restart(self) -> None:
        self._inside: list[int] = []
        self._near: list[int] = []

    def see(self, at: int) -> None:
        if self.found and self.found[-1].is_open:
            self._go_on(at)
            return
        found: list[tuple[float, int, _Test]] = []
        for width, weight in WINDOWS.items():
            cut = len(self._normal) - width + 1
            if cut >= self._how.least:
                window = [*self._normal[cut:], at]
                test = self._test(self._normal[:cut], window, self._how.level * weight)
                found.append((test.p / weight, cut, test))
        p, cut, test = min(found, key=lambda each: each[0], default=(1.0, 0, None))
        if test is None or p > self._how.level or self._is_usual(cut, [*self._normal[cut:], at]):
            self._normal.append(at)
            return
        self._inside, self._normal = [*self._normal[cut:], at], self._normal[:cut]
        evidence = (Evidence(self._time(at), p),)
        self.found.append(self._described(test, self._time(at), None, evidence))

    def _is_usual(self, cut: int, window: Sequence[int]) -> bool:
        """Whether the same days of the weeks before were lower by half as much at least, whatever was said then."""
        angles = self._moments[_ANGLE]
        normal = float(angles[self._normal[:cut][-self._how.memory :]].mean())
        now: list[float] = []
        usual: list[float] = []
        for at in window:
            same = (self._series.days[at] - timedelta(weeks=weeks) for weeks in range(1, WEEKS + 1))
            places = [place for day in same if (place := self._places.get(day, at)) < window[0]]
            if len(places) >= LEAST_WEEKS:
                now.append(float(angles[at]))
                usual.append(float(angles[places].mean()))
        if 2 * len(now) < len(window):
            return False
        return normal - float(np.mean(usual)) >= USUAL * (normal - float(np.mean(now)))

    def _go_on(self, at: int) -> None:
        episode, how = self.found[-1], self._how
        alone = self._test(self._normal, [at], 0.01)
        means = self._series.means
        middle = (alone.before + float(np.mean(means[self._inside]))) / 2
        if means[at] > middle and alone.p > 0.01:
            self._near.append(at)
        else:
            self._inside += [at]
            self._near = []
        test = self._test(self._normal, self._inside, 1.0)
        evidence = episode.evidence
        if not self._near:
            evidence = (*evidence, Evidence(self._time(at), min(1.0, test.p / min(WINDOWS.values()))))
        closed = len(self._near) >= how.settled
        taken = self._time(at) - episode.began_at >= how.accepted
        ended = self._time(at) if closed or taken else None
        self.found[-1] = self._described(test, episode.opened_at, ended, evidence)
        if closed:
            self._normal.extend(self._near)
        elif taken:
            self._normal = [*self._inside, *self._near]
        if ended:
            self._restart()

    def _test(self, normal: Sequence[int], window: Sequence[int], level: float) -> _Test:
        """A window against the last normal days; rows are counted where the t test alone speaks of a drop.

        Args:
            level: p value up to which rows are counted.
        """
        at, of = list(normal[-self._how.memory :]), list(window)
        angles = self._moments[_ANGLE, at]
        normal_days, days = self._moments[:, at].sum(axis=1), self._moments[:, of]
        beside = float(angles[:-1] @ angles[1:]), float(angles[0] + angles[-1])
        found = _tests(normal_days, days.sum(axis=1), *beside, len(of), self._how)
        if len(of) > 1 and found.p <= level:
            # A day that is beyond belief tells no more of the others than one that is believed.
            days[_ANGLE] = np.maximum(days[_ANGLE], found.lowest)
            found = _tests(normal_days, days.sum(axis=1), *beside, len(of), self._how)
        p = float(found.p) if found.matters else 1.0
        if p <= level:
            p = max(p, self._too_few_right(at, of))
        means = self._series.means
        return _Test(p, float(means[at].mean()), float(means[of].mean()), float(found.deviations))

    def _too_few_right(self, at: list[int], of: list[int]) -> float:
        """How probable so few right rows are, by what the normal days had."""
        from scipy.stats import betabinom

        means = self._series.means
        rows = np.where(np.isfinite(self._series.rows), self._series.rows, self._likely_rows(means[at + of]))
        right, every = float(rows[at] @ means[at]), float(rows[at].sum())
        asked, hit = round(float(rows[of].sum())), round(float(rows[of] @ means[of]))
        if asked > _MANY_ROWS:
            return 0.0
        return float(betabinom.cdf(hit, asked, right + 1, every - right + 1))

    def _likely_rows(self, means: NDArray[np.float64]) -> float:
        """Of each day, where nobody says: means of n rows are steps of 1 / n apart."""
        steps = np.diff(np.unique(means))
        return max(1 / float(steps.min()), _FEW_ROWS) if len(steps) else _FEW_ROWS

    def _time(self, at: int) -> datetime:
        return datetime.combine(self._series.days[at], time(), UTC)

    def _described(
        self, test: _Test, opened: datetime, closed: datetime | None, evidence: tuple[Evidence, ...]
    ) -> Episode:
        shift = test.after - test.before
        normal = self._series.means[self._normal[-self._how.memory :]]
        # By the spread of the normal days, and no less than the p value says.
        error = float(np.std(normal, ddof=1)) * math.sqrt(1 / len(normal) + 1 / len(self._inside))
        error = max(error, abs(shift / float(stdtrit(len(normal) - 1, min(max(test.p, 1e-300), 0.4)))))
        far = float(stdtrit(len(normal) - 1, 0.975)) * error
        return Episode(
            direction="down",
            began_at=self._time(self._inside[0]),
            opened_at=opened,
            last_seen_at=self._time(self._inside[-1]),
            closed_at=closed,
            before=test.before,
            after=test.after,
            low=shift - far,
            high=shift + far,
            deviations=test.deviations,
            confidence=1 - test.p,
            count=round(float(self._series.counts[self._inside].sum())),
            evidence=evidence,
        )
