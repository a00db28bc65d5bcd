"""Episodes of real series with labelled anomaly windows: precision, recall, delay, and the score of their benchmark.

The score is that of the Numenta Anomaly Benchmark (Lavin & Ahmad 2015, arXiv 1510.03336), standard profile: a window's
first detection counts by how early in it it comes, one outside of all windows costs by its distance from the last, and
a window without any costs one; 0 is what a detector has that says nothing, 100 one that is right at every window's
first moment. Its leaders have 52 to 75 over all of its 58 series; these are four of them, and nothing is tuned here.
"""

import csv
import json
import math
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.lib.episodes import episodes

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "nab"
FALSE_WEIGHT = 0.11
PROBATION = 0.15
"""Share of a series in which nothing is judged, of its first 5,000 values at most."""

Windows = list[tuple[datetime, datetime]]


def sigmoid(place: float) -> float:
    """The value of a detection at a place relative to a window: -1 its beginning, 0 its end, above that behind it."""
    return 2 / (1 + math.exp(5 * place)) - 1


def score(times: list[datetime], detections: list[datetime], windows: Windows) -> float:
    """The score of one series, before it is set between a silent and a perfect detector."""
    total = 0.0
    spans = [(bisect_left(times, first), bisect_right(times, last) - 1) for first, last in windows]
    places = [bisect_left(times, moment) for moment in detections]
    for left, right in spans:
        within = [sigmoid(-(right - at + 1) / (right - left + 1)) for at in places if left <= at <= right]
        total += max(within) / sigmoid(-1) if within else -1
    for at in places:
        if any(left <= at <= right for left, right in spans):
            continue
        before = [(left, right) for left, right in spans if right < at]
        if not before:
            total -= FALSE_WEIGHT
            continue
        left, right = before[-1]
        total += FALSE_WEIGHT * sigmoid(min((at - right) / (right - left), 3.0))
    return total


def test_the_score_is_that_of_the_paper():
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(100)]
    windows = [(times[20], times[29]), (times[60], times[69])]
    assert score(times, [], windows) == -2
    assert score(times, [times[20], times[60]], windows) == pytest.approx(2)
    late = score(times, [times[29], times[60]], windows)
    assert 1 < late < 1.5
    assert score(times, [times[20], times[60], times[5]], windows) == pytest.approx(2 - FALSE_WEIGHT)
    near, far = (score(times, [times[20], times[60], times[at]], windows) for at in (31, 58))
    assert 2 - FALSE_WEIGHT <= far < near < 2


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the series are not part of the project")
def test_real_series_are_judged():
    labelled = json.loads((FOLDER / "windows.json").read_text())
    totals, windows_there, hit, false = 0.0, 0, 0, 0
    for file in sorted(FOLDER.glob("*.csv")):
        with file.open() as rows:
            values = {
                datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC): float(row["value"])
                for row in csv.DictReader(rows)
            }
        times = sorted(values)
        judged = times[int(PROBATION * min(len(times), 5000))]
        windows: Windows = [
            (
                datetime.fromisoformat(first).replace(tzinfo=UTC),
                datetime.fromisoformat(last).replace(tzinfo=UTC),
            )
            for name, spans in labelled.items()
            if name.endswith(file.name)
            for first, last in spans
        ]
        found = [
            episode.opened_at
            for episode in episodes(times, [values[time] for time in times])
            if episode.opened_at >= judged
        ]
        inside = [[at for at in found if first <= at <= last] for first, last in windows]
        delays = [str(min(ats) - first) for ats, (first, _) in zip(inside, windows, strict=True) if ats]
        outside = [at for at in found if not any(first <= at <= last for first, last in windows)]
        totals += score(times, found, windows)
        windows_there += len(windows)
        hit += len(delays)
        false += len(outside)
        print(f"{file.stem}: {len(delays)} of {len(windows)} windows, after {delays}, {len(outside)} false")
    told = 100 * (totals + windows_there) / (2 * windows_there)
    precision = hit / max(hit + false, 1)
    print(f"precision {precision:.2f}, recall {hit / windows_there:.2f}, NAB's standard score {told:.1f}")
    assert windows_there == 7
    assert hit >= 3 and told > 25
