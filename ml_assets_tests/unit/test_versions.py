"""Which version was current at a time, and which ones may go."""

from datetime import UTC, datetime, timedelta

import pytest

from ml_assets.lib.versions import oldest_of_all_later, outlived, shown, version_at

START = datetime(2026, 11, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def test_the_version_of_a_time_is_the_last_one_before_it():
    versions = {number: day(number) for number in range(4)}
    assert [version_at(versions, day(at), {}) for at in (0, 0.5, 1, 2.9, 3, 99)] == [0, 0, 1, 2, 3, 3]


def test_before_the_lake_there_is_none():
    with pytest.raises(
        LookupError, match=r"no lake yet at 2026-10-31T00:00:00Z: it was made at 2026-11-01T00"
    ):
        version_at({0: day(0), 1: day(1)}, day(-1), {})


@pytest.mark.parametrize("at", [2.5, 4.9, 0.5])
def test_a_version_that_was_cleaned_up_is_told_and_no_other_one_given(at: float):
    """Version 2 is pinned: until when it was current nobody knows any more."""
    versions = {2: day(2), 5: day(5), 6: day(6)}
    with pytest.raises(LookupError, match=r"cleaned up: every time from 2026-11-06T00:00:00Z on") as told:
        version_at(versions, day(at), {"paper": 2, "new": 6})
    assert "the pins paper (2026-11-03T00:00:00Z)." in str(told.value)
    assert "features pin NAME" in str(told.value)


def test_at_the_time_of_a_pinned_version_it_is_current():
    assert version_at({2: day(2), 5: day(5)}, day(2), {}) == 2


def test_the_version_that_is_current_when_the_retention_begins_stays():
    versions = {number: day(number) for number in range(6)}
    assert outlived(versions, {1}, day(3.5)) == [0, 2]
    assert outlived(versions, set(), day(99)) == [0, 1, 2, 3, 4]
    assert outlived(versions, set(), day(-1)) == []


def test_no_version_is_missing_since():
    assert oldest_of_all_later({0: day(0), 3: day(3), 4: day(4)}) == 3
    assert oldest_of_all_later({7: day(0)}) == 7


def test_times_are_shown_in_utc():
    assert shown(datetime.fromisoformat("2026-11-01T02:00:00.120+02:00")) == "2026-11-01T00:00:00.12Z"
