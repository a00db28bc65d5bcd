from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from ml_assets.lib.episodes import Episode, Evidence, day_p
from ml_assets.lib.false_discoveries import believed

DAY = datetime(2026, 1, 1, tzinfo=UTC)
EPISODE = Episode("up", DAY, DAY, DAY, None, 1.0, 2.0, 0.5, 1.5, 3.0, 0.99, 5)


def episode(*ps: float) -> Episode:
    """One with a p value on each of the days from the first on."""
    return replace(EPISODE, evidence=tuple(Evidence(DAY + timedelta(days=n), p) for n, p in enumerate(ps)))


def families(count: int) -> dict:
    return {(DAY + timedelta(days=n)).date(): count for n in range(10)}


def test_the_more_series_are_looked_at_the_more_an_episode_has_to_say():
    assert [each.corrected_p for each in believed([episode(0.001)], families(10))] == [0.01]
    assert believed([episode(0.001)], families(1000)) == []


def test_many_at_once_support_each_other():
    many = [episode(0.001)] * 30
    assert len(believed(many, families(500))) == 30
    assert believed(many[:1], families(500)) == []


def test_an_episode_is_believed_later_if_it_goes_on():
    (one,) = believed([episode(0.001, 1e-9)], families(10_000))
    assert one.episode.opened_at == DAY + timedelta(days=1)
    (early,) = believed([episode(1e-9, 1e-12)], families(10_000))
    assert early.episode.opened_at == DAY


def test_of_ten_thousand_models_that_do_not_change_hardly_any_is_told():
    rng = np.random.default_rng(18)
    false = 0
    for day in range(100):
        ps = rng.random(10_000)
        at = DAY + timedelta(days=day)
        # What opens an episode has a p value below a thousandth.
        candidates = [replace(EPISODE, evidence=(Evidence(at, p),)) for p in ps[ps < 0.001].tolist()]
        false += len(believed(candidates, {at.date(): 10_000}))
    print(
        f"{false} false episodes in 100 days of 10,000 models, without the correction {100 * 10_000 // 1000}"
    )
    assert false <= 10


def test_a_sum_of_a_series_that_does_not_change_comes_as_far_as_its_p_value_says():
    rng = np.random.default_rng(7)
    sums = np.zeros(20_000)
    highest = np.zeros((20_000, 3))
    for hour in range(72):
        sums = np.maximum(sums + rng.normal(size=len(sums)) - 0.5, 0)
        highest[:, hour // 24] = np.maximum(highest[:, hour // 24], sums)
    for total in (4.0, 5.0, 6.0, 7.0):
        share, p = float((highest[:, 2] >= total).mean()), day_p(total, 24)
        print(f"sum {total}: {share:.5f} of the days, p {p:.5f}")
        assert 0.7 * p < share < 1.3 * p + 3 * (p / 20_000) ** 0.5
    assert day_p(2.0, 1e9) == 1.0 and 0 <= day_p(1e6, 24) < 1e-200
