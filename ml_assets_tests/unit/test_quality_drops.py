from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from ml_assets.lib.quality_drops import Days, drops, judged

FIRST = date(2026, 1, 1)
NORMAL_DAYS = 28


def series(values: np.ndarray, rows: float = np.nan, first: date = FIRST) -> Days:
    """Days with as many evaluations as the values have columns."""
    days, count = values.shape
    means = values.mean(axis=1)
    squares = ((values - means[:, None]) ** 2).sum(axis=1)
    dates = [first + timedelta(days=day) for day in range(days)]
    return Days.of(dates, np.full(days, count), means, squares, np.full(days, rows))


def resembling(rng: np.random.Generator, days: int) -> np.ndarray:
    values = rng.normal(size=days)
    for day in range(1, days):
        values[day] += 0.5 * values[day - 1]
    return 0.9 + 0.02 * values[:, None]


STATIONARY: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "one evaluation a day": (lambda rng, n: 0.9 + 0.02 * rng.normal(size=(n, 1)), np.nan),
    "four": (lambda rng, n: 0.9 + 0.02 * rng.normal(size=(n, 4)), np.nan),
    "days that differ": (
        lambda rng, n: 0.9 + 0.02 * (rng.normal(size=(n, 4)) + rng.normal(size=(n, 1))),
        np.nan,
    ),
    "days like the one before": (resembling, np.nan),
    "seven rows": (lambda rng, n: rng.binomial(7, 0.97, (n, 1)) / 7, 7.0),
    "seven rows, untold": (lambda rng, n: rng.binomial(7, 0.97, (n, 1)) / 7, np.nan),
    "ninety rows": (lambda rng, n: rng.binomial(90, 0.96, (n, 1)) / 90, 90.0),
    "mostly right": (lambda rng, n: rng.beta(20, 1, (n, 1)), np.nan),
}
"""Qualities of models that do not change, and how many rows a day was evaluated on."""


@pytest.mark.parametrize("name", STATIONARY)
def test_models_that_do_not_change_are_left_alone(name):
    """At most one false episode in 1,000 series-days."""
    make, rows = STATIONARY[name]
    rng, looked = np.random.default_rng(18), 0
    false = []
    for _ in range(50):
        days = series(make(rng, 65), rows)
        false += drops(days)
        looked += len(judged(days))
    print(f"{name}: {len(false)} false episodes in {looked:,} series-days")
    assert len(false) <= looked / 1000


@pytest.mark.parametrize("count", [8, 16, 32])
def test_a_drop_of_one_deviation_is_found_within_two_days(count):
    """In nine of ten series, where a day has 32 evaluations; of fewer, chance lets less be told apart."""
    rng, found = np.random.default_rng(3), 0
    for _ in range(20):
        values = 0.8 + 0.05 * rng.normal(size=(NORMAL_DAYS + 2, count))
        values[NORMAL_DAYS:] -= 0.05
        found += any(e.opened_at.date() >= FIRST + timedelta(days=NORMAL_DAYS) for e in drops(series(values)))
    print(f"{count} evaluations a day: {found} of 20 found")
    assert found >= 18 or count < 32


def test_weekends_are_as_they_are():
    """Two of them tell it at the latest; what is worse than weekends are is a drop."""
    rng, days = np.random.default_rng(8), 70
    weekend = np.array([(FIRST + timedelta(days=day)).weekday() >= 5 for day in range(days)])
    for _ in range(10):
        values = 0.9 - 0.05 * weekend[:, None] + 0.01 * rng.normal(size=(days, 4))
        learnt = FIRST + timedelta(days=14)
        assert not [e for e in drops(series(values)) if e.opened_at.date() > learnt]
        for first in (47, 51):  # a Tuesday, and a Saturday
            worse = values.copy()
            worse[first : first + 2] -= 0.2
            (late,) = [e for e in drops(series(worse)) if e.opened_at.date() > learnt]
            assert late.opened_at.date() == FIRST + timedelta(days=first)


def test_a_drop_opens_goes_on_and_ends():
    rng = np.random.default_rng(1)
    values = 0.9 + 0.01 * rng.normal(size=(30, 3))
    values[15:20] -= 0.1
    (episode,) = drops(series(values))
    opened = datetime(2026, 1, 16, tzinfo=UTC)
    assert (episode.began_at, episode.opened_at, episode.direction) == (opened, opened, "down")
    assert episode.last_seen_at == opened + timedelta(days=4)
    assert episode.closed_at == opened + timedelta(days=7)
    assert episode.before == pytest.approx(0.9, abs=0.01) and episode.change == pytest.approx(-0.11, abs=0.02)
    assert episode.low < -0.1 < episode.high < 0
    assert episode.confidence > 0.999 and episode.deviations < -4 and episode.count == 15
    assert [e.at.day for e in episode.evidence] == [16, 17, 18, 19, 20]


def test_a_lower_level_that_stays_is_the_normal_one_in_the_end():
    values = 0.9 + 0.01 * np.random.default_rng(2).normal(size=(60, 2))
    values[20:] -= 0.2
    (episode,) = drops(series(values))
    assert episode.closed_at and episode.closed_at - episode.began_at == timedelta(days=14)


def test_one_wrong_row_in_seven_is_no_drop_and_half_of_ninety_are():
    right = np.ones((12, 1))
    right[11] = 6 / 7
    assert not drops(series(right, rows=7))
    right[11] = 0.5
    assert len(drops(series(right, rows=90))) == 1


def test_a_rise_and_a_trifle_are_no_drops():
    values = 0.9 + 0.0001 * np.random.default_rng(4).normal(size=(20, 5))
    values[15:] += 0.05
    assert not drops(series(values))
    values[15:] -= 0.06
    assert not drops(series(values))


def of(means: list[Any]) -> Days:
    count = len(means)
    dates = [FIRST + timedelta(days=day) for day in range(count)]
    return Days.of(dates, [1.0] * count, np.array(means, float), [0.0] * count, [np.nan] * count)


@pytest.mark.parametrize("means", [[], [0.9], [None] * 40, [1.0] * 40, [0.0] * 40, [0.0, 1.0] * 20], ids=str)
def test_series_that_say_little_have_no_drop(means):
    assert drops(of(means)) == []


def test_a_gap_of_a_month_is_a_gap():
    values = 0.9 + 0.01 * np.random.default_rng(6).normal(size=(40, 1))
    whole = series(values)
    days = [*whole.days[:20], *(day + timedelta(days=31) for day in whole.days[20:])]
    assert not drops(Days.of(days, whole.counts, whole.means, whole.squares, whole.rows))
    values[20:] -= 0.2
    (episode,) = drops(Days.of(days, whole.counts, values[:, 0], whole.squares, whole.rows))
    assert episode.began_at.date() == days[20], "what a model was before the gap is still known"


def test_days_have_to_ascend():
    with pytest.raises(ValueError, match="do not ascend"):
        Days.of([FIRST, FIRST], [1, 1], [0.5, 0.5], [0, 0], [1, 1])
