"""Episodes: spans in which a series of measurements is not what it was, each of them one finding.

What belongs here: numbers in, episodes out. Which series there are, and who is told, is decided elsewhere.

How a change is found: the values up to now are what is normal, about the median of each hour of the day where the series
has a daily rhythm. A new value is taken by its rank among them, as the deviation that a normal distribution has there:
so a skewed series needs no logarithm, and no outlier is a change. Two cumulative sums (Page 1954) add up those
deviations, less half of one and what is not known of the median yet; where neighbours resemble each other, a deviation
counts less. A sum beyond its threshold opens an episode that began where the sum last was nought, unless the same hours
of the weeks before were as far off: weekends may well differ. It ends when the values have been near normal as long as it
takes to believe that; a new level that stays is normal in the end.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Direction = Literal["up", "down"]

NORMAL_DEVIATIONS = 1.4826
"""Standard deviations of normal values in one median absolute deviation."""

MEDIAN_ERRORS = 1.2533
"""Standard errors of the mean of normal values in one of their median."""

HOURS = 24

WEEKS, LEAST_WEEKS = 4, 2
"""Weeks back whose same hours tell a rhythm of the week, at most and at least: what was once is no rhythm."""

USUAL = 0.5
"""Share of a deviation that the same hours of the weeks before had on average, where it is usual."""

_WEEK_S = 7 * 24 * 3600


@dataclass(frozen=True)
class Sensitivity:
    """When a change is believed.

    Args:
        slack: deviations that a value may lie off without adding to the sum; half the shift that is looked for.
        threshold: sum of deviations at which an episode opens. 9 lets a stationary series of independent values run
            for more than a hundred thousand of them.
        least: values that are needed to know what is normal.
        memory: how far back normal values are known.
        least_effect: share of the normal level below which no change matters.
        settled: values near normal after which an episode has ended.
        accepted: time after which a new level is the normal one.
    """

    slack: float = 0.5
    threshold: float = 9.0
    least: int = 48
    memory: timedelta = timedelta(days=28)
    least_effect: float = 0.02
    settled: int = 12
    accepted: timedelta = timedelta(days=14)


class Evidence(NamedTuple):
    """What spoke for an episode on one of its days.

    Args:
        at: when on that day most did, UTC; on the first day, when the episode opened.
        p: how probable it is that a series that does not change comes as far on any one day.
    """

    at: datetime
    p: float


@dataclass(frozen=True)
class Episode:
    """A span in which the series was not what it was.

    Args:
        direction: whether it rose or fell.
        began_at: the first value that belongs to it.
        opened_at: the value at which it was believed: nobody could have been told earlier.
        last_seen_at: the last value so far that lay off.
        closed_at: the value at which it was over; None while it goes on.
        before, after: median of the normal values before it, and of those within it.
        low, high: 95 % interval of after minus before, by the spread of both medians.
        deviations: after minus before, in deviations of a single value.
        confidence: 1 minus the p value of the shift, corrected for nothing; by Mann and Whitney's test here.
        count: values within it.
        evidence: what spoke for it on each day until it ended.
    """

    direction: Direction
    began_at: datetime
    opened_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    before: float
    after: float
    low: float
    high: float
    deviations: float
    confidence: float
    count: int
    evidence: tuple["Evidence", ...] = ()

    @property
    def change(self) -> float:
        """after minus before as a share of before; NaN where that is nought."""
        return (self.after - self.before) / abs(self.before) if self.before else math.nan

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self.closed_at is None


def day_p(total: float, count: float, slack: float = Sensitivity.slack) -> float:
    """How probable it is that the sum of a series that does not change comes as far among some values (Siegmund 1985).

    Args:
        total: the cumulative sum.
        count: values that it may come as far at: those of a day.
        slack: deviations that each value adds less.
    """
    # The mean number of values until a sum gets there; it overshoots by 1.166 on either side.
    reach = 2 * slack * (total + 1.166)
    return min(1.0, count * 2 * slack**2 / (math.expm1(min(reach, 700.0)) - min(reach, 700.0)))


def episodes(
    times: Sequence[datetime],
    values: ArrayLike,
    direction: Direction | None = None,
    sensitivity: Sensitivity | None = None,
) -> list[Episode]:
    """The episodes of one series, in order; the last may be open.

    Args:
        times: UTC, ascending; gaps are gaps.
        values: one each; what is not finite is left out.
        direction: look for changes in this direction only; None for both.

    Raises:
        ValueError: times and values are not as many, or times do not ascend.
    """
    numbers = np.asarray(values, float)
    if len(times) != len(numbers):
        raise ValueError(f"{len(times)} times and {len(numbers)} values; give one time each")
    kept = np.isfinite(numbers)
    moments = [time for time, keep in zip(times, kept, strict=True) if keep]
    if any(later <= earlier for earlier, later in pairwise(moments)):
        raise ValueError("times do not ascend; sort them, with one value each")
    watch = _Watch(moments, numbers[kept], direction, sensitivity or Sensitivity())
    watch.see_all()
    return watch.told()


@dataclass
class _Level:
    """What is normal: by hour of the day where that tells more."""

    by_hour: NDArray[np.float64]
    rests: NDArray[np.float64]
    median: float
    scale: float
    widened: float

    def deviations(self, hours: NDArray[np.int16], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """By the rank of what its hour leaves of each value; the middle one where several are alike."""
        rests = values - self.by_hour[hours]
        ranks = (np.searchsorted(self.rests, rests, "left") + np.searchsorted(self.rests, rests, "right")) / 2
        return ndtri((ranks + 0.5) / (len(self.rests) + 1)) / self.widened


def _middle(ascending: NDArray[np.float64]) -> float:
    """The median of sorted values."""
    count = len(ascending)
    return float(ascending[(count - 1) // 2] + ascending[count // 2]) / 2


class _Watch:
    def __init__(
        self,
        times: list[datetime],
        values: NDArray[np.float64],
        direction: Direction | None,
        how: Sensitivity,
    ) -> None:
        self._times, self._values, self._how = times, values, how
        self._hours = np.array([time.hour for time in times], np.int16)
        self._seconds = np.array([round(time.timestamp()) for time in times], np.int64)
        self._wanted: tuple[Direction, ...] = (direction,) if direction else ("up", "down")
        self.found: list[Episode] = []
        self._normal = np.empty(0, int)
        self._level: _Level | None = None
        self._learnt = 0
        self._restart()

    def _restart(self) -> None:
        self._highest: dict[date, tuple[float, datetime]] = {}
        self._sums: dict[Direction, float] = {"up": 0.0, "down": 0.0}
        self._since: dict[Direction, int | None] = {"up": None, "down": None}
        self._inside: list[int] = []
        self._near: list[int] = []

    def see_all(self) -> None:
        """See one value after the other within an episode, and as many as are judged alike outside of one."""
        at = 0
        while at < len(self._times):
            level = self._known(at)
            if level is None:
                self._normal = np.append(self._normal, at)
                at += 1
            elif self.found and self.found[-1].is_open:
                self._go_on(level, at)
                at += 1
            else:
                at = self._look(level, at)

    def told(self) -> list[Episode]:
        """The episodes; the figures of one that goes on are those of all its values."""
        if self.found and self.found[-1].is_open and self._level is not None:
            last = self.found.pop()
            self.found.append(self._described(self._level, last.direction, None, None, last))
        return self.found

    def _known(self, at: int) -> _Level | None:
        """What is normal, learnt anew once a tenth of it is new."""
        count = len(self._normal)
        if count < self._how.least:
            return None
        if self._level is None or at - self._learnt >= self._stale_after(count):
            oldest = bisect_left(self._times, self._times[at] - self._how.memory)
            first = int(np.searchsorted(self._normal, oldest))
            self._normal = self._normal[min(first, count - self._how.least) :]
            self._level, self._learnt = self._learn(self._normal), at
        return self._level

    def _stale_after(self, count: int) -> int:
        return max(self._how.least // 4, count // 10)

    def _slack(self, level: _Level) -> float:
        # Two standard errors of what is taken for normal.
        return self._how.slack + 2 * MEDIAN_ERRORS / math.sqrt(len(level.rests))

    def _look(self, level: _Level, at: int) -> int:
        """Look for an episode from a value on, as long as what is known is not stale; the value to go on with."""
        end, count = at + 1, len(self._normal) + 1
        while end < len(self._times) and end - self._learnt < self._stale_after(count):
            end, count = end + 1, count + 1
        z = level.deviations(self._hours[at:end], self._values[at:end])
        slack = self._slack(level)
        crossings: list[tuple[int, Direction]] = []
        sums: dict[Direction, NDArray[np.float64]] = {}
        started_at: dict[Direction, NDArray[np.int_]] = {}
        for direction in self._wanted:
            # A sum that starts anew at nought whenever it falls below is the distance from its lowest point so far.
            total = self._sums[direction] + np.cumsum((z if direction == "up" else -z) - slack)
            lowest = np.minimum(np.minimum.accumulate(total), 0.0)
            sums[direction] = total - lowest
            started = np.where(sums[direction] > 0, -1, np.arange(at + 1, end + 1))
            before = self._since[direction]
            started_at[direction] = np.maximum(
                np.maximum.accumulate(started), at if before is None else before
            )
            over = np.flatnonzero(sums[direction] > self._how.threshold)
            crossings.extend((place, direction) for place in over.tolist())
        for place, direction in sorted(crossings, key=lambda each: (each[0], self._wanted.index(each[1]))):
            first, last = int(started_at[direction][place]), at + place
            since = range(first, last + 1)
            if self._matters(level, since) and not self._is_usual(level, since, direction):
                self._normal = np.concatenate([self._normal, np.arange(at, last)])
                self._sums[direction] = float(sums[direction][place])
                self._open(level, last, direction, first)
                return last + 1
        for direction in self._wanted:
            self._sums[direction] = float(sums[direction][-1])
            self._since[direction] = int(started_at[direction][-1]) if self._sums[direction] > 0 else None
        self._normal = np.concatenate([self._normal, np.arange(at, end)])
        return end

    def _learn(self, at: NDArray[np.int_]) -> _Level:
        values, hours = self._values[at], self._hours[at]
        median = _middle(np.sort(values))
        by_hour = np.full(HOURS, median)
        counts = np.bincount(hours, minlength=HOURS)
        # A rhythm takes four days to be told from chance, and has to explain some of the spread of days that it was not
        # learnt from: of few days any noise has a rhythm.
        if counts[counts > 0].min() >= 4 and (counts > 0).sum() >= HOURS // 2:
            turns = self._turns(hours, counts)
            by_value = np.argsort(values)
            order = by_value[np.argsort(hours[by_value], kind="stable")]
            unseen = np.empty(len(values))
            for half in (0, 1):
                rhythm = self._rhythm(values, hours, order[turns[order] == half], median)
                unseen[turns != half] = (values - rhythm[hours])[turns != half]
            if self._spread(unseen) < 0.8 * self._spread(values):
                by_hour = self._rhythm(values, hours, order, median)
        rests = values - by_hour[hours]
        ascending = np.sort(rests)
        scale = max(self._spread(rests), 1e-12)
        return _Level(by_hour, ascending, median, scale, self._widened(rests, ascending))

    def _turns(self, hours: NDArray[np.int16], counts: NDArray[np.int_]) -> NDArray[np.int_]:
        """0 and 1 by turns for the values of each hour of the day."""
        order = np.argsort(hours, kind="stable")
        starts = np.cumsum(counts) - counts
        turns = np.empty(len(hours), int)
        turns[order] = (np.arange(len(hours)) - starts[hours[order]]) % 2
        return turns

    def _rhythm(
        self, values: NDArray[np.float64], hours: NDArray[np.int16], order: NDArray[np.int_], median: float
    ) -> NDArray[np.float64]:
        """The median of some of the values by hour of the day; they are given by hour, and by value within each."""
        counts = np.bincount(hours[order], minlength=HOURS)
        there = np.flatnonzero(counts)
        starts, counts = (np.cumsum(counts) - counts)[there], counts[there]
        ascending = values[order]
        found = np.full(HOURS, median)
        found[there] = (ascending[starts + (counts - 1) // 2] + ascending[starts + counts // 2]) / 2
        return found

    def _spread(self, rests: NDArray[np.float64]) -> float:
        """Deviation of one value."""
        robust = NORMAL_DEVIATIONS * _middle(np.sort(np.abs(rests - _middle(np.sort(rests)))))
        return robust or float(np.std(rests))

    def _widened(self, rests: NDArray[np.float64], ascending: NDArray[np.float64]) -> float:
        """By how much sums of neighbours spread further than if they had nothing to do with each other."""
        places = np.searchsorted(ascending, rests, "left") + np.searchsorted(ascending, rests, "right")
        ranks = (places - len(rests)) / 2
        power = float(np.sum(ranks**2))
        alike = float(np.sum(ranks[1:] * ranks[:-1])) / power if power else 0.0
        # Chance alone gives as much as this.
        alike = min(alike if alike > 2 / math.sqrt(len(rests)) else 0.0, 0.95)
        return math.sqrt((1 + alike) / (1 - alike))

    def _matters(self, level: _Level, since: range) -> bool:
        rest = self._values[since] - level.by_hour[self._hours[since]]
        return abs(float(np.median(rest))) >= self._how.least_effect * abs(level.median)

    def _is_usual(self, level: _Level, since: range, direction: Direction) -> bool:
        """Whether the same hours of the weeks before lay off by half as much at least, whatever was said of them then."""
        if self._seconds[since.start] - LEAST_WEEKS * _WEEK_S < self._seconds[0]:
            return False
        wanted = self._seconds[since, None] - _WEEK_S * np.arange(1, WEEKS + 1)
        at = np.searchsorted(self._seconds, wanted)
        # What is judged cannot speak for itself.
        there = (self._seconds[at] == wanted) & (at < since.start)
        counts = there.sum(axis=1)
        known = counts >= LEAST_WEEKS
        if 2 * known.sum() < len(since):
            return False
        now = level.deviations(self._hours[since], self._values[since])[known]
        before = np.zeros(there.shape)
        before[there] = level.deviations(self._hours[at[there]], self._values[at[there]])
        usual = before.sum(axis=1)[known] / counts[known]
        sign = 1 if direction == "up" else -1
        return bool(sign * usual.sum() >= USUAL * sign * now.sum())

    def _open(self, level: _Level, at: int, direction: Direction, first: int) -> None:
        self._inside = list(range(first, at + 1))
        self._normal = self._normal[: int(np.searchsorted(self._normal, first))]
        self._near = []
        self._weigh(at, direction)
        self.found.append(self._described(level, direction, at, None))

    def _weigh(self, at: int, direction: Direction) -> None:
        """Note how far the sum came on this day."""
        day, total = self._times[at].date(), self._sums[direction]
        if total > self._highest.get(day, (self._how.threshold, None))[0]:
            self._highest[day] = total, self._times[at]

    def _evidence(self) -> tuple[Evidence, ...]:
        counts = Counter(time.date() for time in self._times) if self._highest else {}
        return tuple(
            Evidence(at, day_p(total, counts[day] * len(self._wanted), self._how.slack))
            for day, (total, at) in self._highest.items()
        )

    def _go_on(self, level: _Level, at: int) -> None:
        episode = self.found[-1]
        z = float(level.deviations(self._hours[at : at + 1], self._values[at : at + 1])[0])
        off = z if episode.direction == "up" else -z
        self._sums[episode.direction] = max(self._sums[episode.direction] + off - self._slack(level), 0.0)
        self._weigh(at, episode.direction)
        self._near = [*self._near, at] if off < 2 * self._how.slack else self._near[:-2] if self._near else []
        if off >= 2 * self._how.slack:
            self._inside.append(at)
        closed = len(self._near) >= self._how.settled
        taken = self._times[at] - episode.began_at >= self._how.accepted
        if not (closed or taken):
            if off >= 2 * self._how.slack:
                self.found[-1] = replace(episode, last_seen_at=self._times[at])
            return
        self.found[-1] = self._described(level, episode.direction, None, at, episode)
        if taken:
            self._normal, self._level = np.array(self._inside), None
        else:
            self._normal = np.concatenate([self._normal, self._near])
        self._restart()

    def _described(
        self,
        level: _Level,
        direction: Direction,
        opened: int | None,
        closed: int | None,
        of: Episode | None = None,
    ) -> Episode:
        from scipy.stats import mannwhitneyu

        before, inside = self._values[self._normal], self._values[self._inside]
        shift = float(np.median(inside) - np.median(before))
        error = MEDIAN_ERRORS * level.scale * math.sqrt(1 / len(before) + 1 / len(inside))
        p = float(mannwhitneyu(inside, before).pvalue)
        return Episode(
            direction=direction,
            began_at=self._times[self._inside[0]],
            opened_at=of.opened_at if of else self._times[opened or 0],
            last_seen_at=self._times[self._inside[-1]],
            closed_at=None if closed is None else self._times[closed],
            before=float(np.median(before)),
            after=float(np.median(inside)),
            low=shift - 1.96 * error,
            high=shift + 1.96 * error,
            deviations=shift / level.scale,
            confidence=1 - p,
            count=len(self._inside),
            evidence=self._evidence(),
        )
