"""Regressions outlive the events that they were found in."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ml_assets.operations.performance_regressions import with_expired

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEPT_FROM = NOW - timedelta(days=60)


def row(began: int, days: int, closed: bool = True, **more: Any) -> dict[str, Any]:
    """An episode that began some days ago."""
    began_at = NOW - timedelta(days=began)
    last = began_at + timedelta(days=days)
    names = {"model_name": "m", "metric": "accuracy", "slice": "all", "slice_value": ""}
    times = {"began_at": began_at, "last_seen_at": last, "closed_at": last if closed else None}
    return names | times | {"runs_before": "[1]"} | more


def test_what_expired_stays_as_it_was_told():
    old, cut_off = row(100, 5), row(62, 5)
    less = row(60, 3, runs_before="[]")  # what is left of the second one
    new = row(3, 2, closed=False)
    assert with_expired([less, new], [old, cut_off, row(4, 1)], KEPT_FROM, NOW) == [old, cut_off, new]


def test_what_can_still_be_judged_is_what_is_found():
    """Late events may show that there was nothing, or that it was another series."""
    assert with_expired([], [row(20, 5)], KEPT_FROM, NOW) == []
    other = row(50, 3, metric="recall")
    assert with_expired([other], [row(50, 3)], KEPT_FROM, NOW) == [row(50, 3), other]


def test_one_that_goes_on_is_over_once_its_level_is_normal():
    """Events are kept for a week: too few days to judge what began before."""
    kept_from = NOW - timedelta(days=7)
    going_on = row(10, 9, closed=False)
    assert with_expired([], [going_on], kept_from, NOW) == [going_on]
    (ended,) = with_expired([], [row(20, 9, closed=False)], kept_from, NOW)
    assert ended["closed_at"] == NOW - timedelta(days=6)
    longer = row(10, 10, closed=False)
    assert with_expired([longer], [going_on], kept_from, NOW) == [longer]
