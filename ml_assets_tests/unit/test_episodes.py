from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ml_assets.lib.episodes import Sensitivity, episodes
from ml_assets.lib.quiet_series import quiet

START = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = 24

SERIES: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "normal": (lambda rng, n: 10 + rng.normal(size=n), 1.0),
    "skewed": (lambda rng, n: np.exp(rng.normal(size=n)), 2.16),
    "heavy tails": (lambda rng, n: 5 + rng.standard_t(3, n), 3**0.5),
    "counts": (lambda rng, n: rng.poisson(2, n).astype(float), 2**0.5),
    "daily rhythm": (
        lambda rng, n: 20 + 5 * np.sin(np.arange(n) * 2 * np.pi / HOURS) + rng.normal(size=n),
        1.0,
    ),
}
"""Stationary series of a value an hour, each with the standard deviation of one value about its rhythm."""


def hours(n):
    return [START + timedelta(hours=hour) for hour in range(n)]


@pytest.mark.parametrize("name", SERIES)
def test_stationary_series_are_left_alone(name):
    """At most one false episode in 1,000 series-days."""
    make, _ = SERIES[name]
    rng, times = np.random.default_rng(18), hours(50 * HOURS)
    values = np.array([make(rng, len(times)) for _ in range(60)])
    # As the table is made: only those that may have an episode are looked through one by one.
    loud = values[~quiet(times, values)]
    false = [each for series in loud for each in episodes(times, series)]
    print(
        f"{name}: {len(false)} false episodes in 3,000 series-days, {len(loud)} of 60 series looked through"
    )
    assert len(false) <= 3


@pytest.mark.parametrize("name", SERIES)
def test_a_shift_of_one_deviation_is_found_within_two_days(name):
    """In nine of ten series."""
    make, deviation = SERIES[name]
    rng, days, found = np.random.default_rng(3), [], 0
    shifted = START + timedelta(days=30)
    for _ in range(20):
        values = make(rng, 34 * HOURS)
        values[30 * HOURS :] += deviation
        (episode, *_) = [*episodes(hours(34 * HOURS), values, "up"), None]
        if episode is not None and episode.opened_at >= shifted:
            days.append((episode.opened_at - shifted) / timedelta(days=1))
            found += days[-1] <= 2
            assert abs(episode.began_at - shifted) < timedelta(days=1.5)
    print(f"{name}: {found} of 20 found, after {np.median(days):.1f} days at the median")
    assert found >= 18


def weekly(rng: np.random.Generator, weeks: int) -> np.ndarray:
    """Values an hour that are higher by a third on Saturdays and Sundays."""
    day = np.array([time.weekday() for time in hours(weeks * 7 * HOURS)])
    return 100 * (1 + 0.3 * (day >= 5)) + 5 * rng.normal(size=len(day))


def test_weekends_are_as_they_are():
    """Two of them tell it; a change of weekdays is one, and so is a weekend that is worse than the others."""
    rng = np.random.default_rng(8)
    for values in (weekly(rng, 10), -weekly(rng, 10)):
        late = [e for e in episodes(hours(len(values)), values) if e.opened_at > START + timedelta(days=14)]
        assert not late
    tuesday, saturday = 40 * HOURS, 44 * HOURS
    for shifted, days in ((tuesday, 3), (saturday, 2)):
        values = weekly(rng, 8)
        values[shifted : shifted + days * HOURS] += 40
        found = [e for e in episodes(hours(len(values)), values) if e.opened_at > START + timedelta(days=14)]
        at = START + timedelta(hours=shifted)
        assert [at <= e.opened_at < at + timedelta(days=1) for e in found] == [True], found


def test_what_was_once_a_week_before_is_no_rhythm():
    values = 100 + 5 * np.random.default_rng(9).normal(size=36 * HOURS)
    for first in (25, 32):
        values[first * HOURS : (first + 1) * HOURS] += 40
    assert len(episodes(hours(len(values)), values)) == 2


def test_an_episode_opens_goes_on_and_ends():
    rng = np.random.default_rng(1)
    values = 100 + rng.normal(size=40 * HOURS)
    values[20 * HOURS : 23 * HOURS] -= 8
    (episode,) = episodes(hours(len(values)), values)
    assert (episode.direction, episode.is_open) == ("down", False)
    assert abs(episode.began_at - (START + timedelta(days=20))) <= timedelta(hours=2)
    assert timedelta(0) < episode.opened_at - episode.began_at < timedelta(hours=12)
    assert abs(episode.last_seen_at - (START + timedelta(days=23))) <= timedelta(hours=3)
    assert episode.closed_at and episode.closed_at - episode.last_seen_at < timedelta(hours=30)
    assert episode.change == pytest.approx(-0.08, abs=0.01)
    assert episode.low < -8 < episode.high and episode.high < 0
    assert episode.confidence > 0.999 and episode.deviations < -5


def test_an_episode_that_goes_on_is_told_with_all_its_values():
    rng = np.random.default_rng(1)
    values = 100 + rng.normal(size=25 * HOURS)
    values[20 * HOURS :] += 8
    (episode,) = episodes(hours(len(values)), values)
    assert episode.is_open and episode.count > 110 and episode.last_seen_at > START + timedelta(days=24.8)
    assert episode.low < 8 < episode.high


def test_an_episode_of_the_first_week_ends_though_there_is_no_rhythm_to_learn():
    for seed in range(10):
        values = 100 + np.random.default_rng(seed).normal(size=200)
        values[100:140] += 10
        (episode, *more) = episodes(hours(len(values)), values)
        assert not more and episode.closed_at, seed


def test_a_new_level_that_stays_becomes_the_normal_one():
    rng = np.random.default_rng(2)
    values = 100 + rng.normal(size=60 * HOURS)
    values[20 * HOURS :] += 20
    (episode,) = episodes(hours(len(values)), values)
    assert episode.closed_at and episode.closed_at - episode.began_at >= timedelta(days=14)


def test_a_single_outlier_is_no_change_and_a_trifle_does_not_matter():
    rng = np.random.default_rng(4)
    values = 100 + rng.normal(size=30 * HOURS)
    values[[100, 300, 301, 500]] = 1e9
    assert not episodes(hours(len(values)), values)
    steady = np.full(30 * HOURS, 100.0)
    steady[20 * HOURS :] = 100.1
    assert not episodes(hours(len(steady)), steady)
    steady[20 * HOURS :] = 110
    assert len(episodes(hours(len(steady)), steady)) == 1


def test_only_the_direction_that_is_asked_for():
    rng = np.random.default_rng(5)
    values = 10 + rng.normal(size=30 * HOURS)
    values[20 * HOURS :] += 4
    assert not episodes(hours(len(values)), values, "down")
    assert len(episodes(hours(len(values)), values, "up")) == 1


@pytest.mark.parametrize(
    "values", [[], [1.0], [None] * 500, [np.nan] * 500, [3.0] * 500, [np.inf, 1.0] * 300], ids=str
)
def test_series_that_say_little_have_no_episode(values):
    assert episodes(hours(len(values)), np.array(values, float)) == []


def test_a_gap_of_a_month_is_a_gap():
    rng = np.random.default_rng(6)
    times = [*hours(20 * HOURS), *(time + timedelta(days=51) for time in hours(20 * HOURS))]
    assert not episodes(times, 10 + rng.normal(size=len(times)))


def test_times_have_to_ascend():
    with pytest.raises(ValueError, match="2 times and 1 values"):
        episodes(hours(2), [1.0])
    with pytest.raises(ValueError, match="do not ascend"):
        episodes([START, START], [1.0, 2.0], sensitivity=Sensitivity())
