from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ml_assets.lib.episodes import Sensitivity, episodes
from ml_assets.lib.quiet_series import quiet

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("direction", [None, "up", "down"])
def test_a_series_is_quiet_if_it_has_no_episode_and_only_then(direction):
    """Series of all kinds: skewed, tied, with a rhythm, wandering, shifted, constant, with gaps."""
    rng = np.random.default_rng(18)
    hours = [hour for hour in range(900) if rng.random() < 0.9]
    times = [START + timedelta(hours=hour) for hour in hours]
    count = len(times)
    rhythm = 5 * np.sin(np.array(hours) * 2 * np.pi / 24)
    rows = []
    for _ in range(2):
        shifted = 5 + rng.normal(size=count)
        shifted[300:350] -= 3
        shifted[600:700] += 3
        rows += [
            np.exp(rng.normal(size=count)),
            rng.poisson(2, count).astype(float),
            20 + rhythm + rng.normal(size=count),
            100 + np.cumsum(rng.normal(size=count)),
            np.full(count, 3.0),
            shifted,
        ]
    for how in (Sensitivity(least_effect=0.0), Sensitivity(least_effect=0.0, threshold=4.0)):
        wanted = [not episodes(times, row, direction, how) for row in rows]
        assert quiet(times, np.array(rows), direction, how).tolist() == wanted
        assert any(wanted) and not all(wanted)


def test_of_too_few_values_nothing_is_said():
    times = [START + timedelta(hours=hour) for hour in range(40)]
    assert quiet(times, np.ones((3, 40))).tolist() == [True] * 3
