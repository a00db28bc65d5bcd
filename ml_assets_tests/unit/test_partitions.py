from datetime import UTC, date, datetime

from ml_assets.lib.days import DayRange, bridge
from ml_assets.partitions import daily_partitions


def day(number: int) -> date:
    return date(2026, 3, number)


def test_bridge_joins_days_over_short_gaps_and_no_longer_ones():
    assert bridge([day(9), day(1), day(2), day(4), day(2)], max_gap=1) == [
        DayRange(day(1), day(4)),
        DayRange(day(9), day(9)),
    ]


def test_bridge_with_no_gap_allowed_keeps_neighbours_together():
    assert bridge([day(1), day(2), day(4)], max_gap=0) == [
        DayRange(day(1), day(2)),
        DayRange(day(4), day(4)),
    ]


def test_bridge_of_nothing_is_nothing():
    assert bridge([], max_gap=7) == []


def test_range_is_half_open_in_utc():
    span = DayRange(day(1), day(3))
    assert span.start == datetime(2026, 3, 1, tzinfo=UTC)
    assert span.end == datetime(2026, 3, 4, tzinfo=UTC)
    assert span.days() == [day(1), day(2), day(3)]
    assert len(span) == 3


def test_today_is_a_partition():
    noon = datetime(2026, 3, 5, 12, tzinfo=UTC)
    keys = daily_partitions(date(2014, 1, 1)).get_partition_keys(current_time=noon)
    assert (keys[0], keys[-1]) == ("2014-01-01", "2026-03-05")
