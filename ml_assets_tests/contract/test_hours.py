"""What a partition is: an hour as well as a day, with keys of its own unless the contract says otherwise."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from ml_assets.errors import ContractViolation

SECOND = date(2026, 1, 2)
MICROSECOND = timedelta(microseconds=1)


BY_DAY = ("duckdb", "postgres", "clickhouse", "clickhouse-server", "chroma", "sqlite")
"""Stores in which a key may stand on two days; where rows are looked up by the key alone it may not."""


def hour(n: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n)


def at(row, identity: str, n: int, **values):
    """A good row in the n-th hour."""
    return row(identity, happened_at=hour(n) + timedelta(minutes=59), **values)


@pytest.mark.embedded
def test_an_hour_is_overwritten_and_a_range_of_hours_is_read(case, row):
    case.hourly()
    case.write(case.table(at(row, "a", 22), at(row, "b", 23), at(row, "c", 24)), first=hour(22), days=3)
    case.write(case.table(at(row, "d", 23), at(row, "e", 23)), first=hour(23))
    assert case.ids() == ["a", "c", "d", "e"]
    found = case.read(columns=["id"], day=hour(23), until=hour(24))
    assert sorted(found["id"].to_pylist()) == ["c", "d", "e"]
    case.write(case.table(), first=hour(24))
    assert case.ids() == ["a", "d", "e"]
    assert case.store.ledger_state(case.contract).rows == case.store.live_state(case.contract).rows == 3


def test_a_table_of_hours_is_replaced_by_a_run_without_partitions(case, row):
    case.hourly()
    case.write(case.table(at(row, "a", 1), at(row, "b", 2)), first=hour(1), days=2)
    case.write(case.table(at(row, "a", 1), at(row, "c", 30)), first=None)
    case.write(case.table(at(row, "d", 1)), first=hour(1))
    assert case.ids() == ["c", "d"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


ODD = {
    "ten past the hour": (
        dg.HourlyPartitionsDefinition("2026-01-01-00:10", minute_offset=10),
        "2026-01-01-08:10",
    ),
    "five past midnight": (dg.DailyPartitionsDefinition("2026-01-01", minute_offset=5), "2026-01-03"),
    "five minutes": (
        dg.TimeWindowPartitionsDefinition("2026-01-01-00:00", "%Y-%m-%d-%H:%M", cron_schedule="*/5 * * * *"),
        "2026-01-01-08:35",
    ),
    "London": (dg.DailyPartitionsDefinition("2025-01-01", timezone="Europe/London"), "2025-06-01"),
    "Lord Howe": (dg.DailyPartitionsDefinition("2025-01-01", timezone="Australia/Lord_Howe"), "2025-06-01"),
    "Caracas": (dg.DailyPartitionsDefinition("2016-01-01", timezone="America/Caracas"), "2016-06-01"),
}
"""Partitions that do not begin with an hour of UTC, and the key of one."""


@pytest.mark.parametrize(
    ("odd", "case"),
    # All stores use the same lengths of stored partitions.
    [
        *((odd, "sqlite") for odd in ODD),
        *(("Lord Howe", store) for store in (*BY_DAY, "serving") if store != "sqlite"),
    ],
    indirect=["case"],
)
def test_neighbours_of_a_partition_stay_wherever_it_begins(case, row, odd):
    """In the summer of London, Lord Howe and Caracas, whose partitions begin at other times in winter."""
    case.partitions, start = ODD[odd]
    middle = next(iter(case.partitions.time_windows_for_partition_keys(frozenset([start]))))
    before = case.partitions.get_prev_partition_window(middle.start)
    after = case.partitions.get_next_partition_window(middle.end)
    for window, name in ((before, "before"), (middle, "middle"), (after, "after")):
        first = row(f"{name} first", happened_at=window.start)
        last = row(f"{name} last", happened_at=window.end - MICROSECOND)
        case.write(case.table(first, last), first=window.start)
    case.write(case.table(row("new", happened_at=middle.start)), first=middle.start)
    assert case.ids() == ["after first", "after last", "before first", "before last", "new"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def test_partitions_that_begin_within_a_minute_are_refused(case, row):
    case.partitions = dg.DailyPartitionsDefinition("1900-01-01", timezone="Europe/Amsterdam")
    with pytest.raises(ValueError, match="do not begin with a minute of UTC"):
        case.write(case.table(row("one")))


@pytest.mark.parametrize("case", BY_DAY, indirect=True)
def test_a_key_may_stand_on_two_days(case, row):
    case.write(case.table(row("one"), row("one", day=1, amount=2.0)), days=2)
    case.write(case.table(row("one", day=1, amount=3.0)), first=SECOND)
    assert sorted(case.read(columns=["amount"])["amount"].to_pylist()) == [1.5, 3.0]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def test_a_key_that_is_unique_across_days_is_refused_twice(case, row):
    case.change(unique_across_days=True)
    case.write(case.table(row("old")))
    with pytest.raises(ContractViolation, match=r"key id is not unique: 'one' \(2 times\)"):
        case.write(case.table(row("one"), row("one", day=1)), days=2)
    assert case.ids() == ["old"]


@pytest.mark.parametrize("case", BY_DAY, indirect=True)
def test_an_upsert_within_a_day_leaves_the_same_key_on_another_day(case, row):
    case.change(mode="upsert")
    case.write(case.table(row("one"), row("two"), row("one", day=1)), days=2)
    case.write(case.table(row("one", day=1, amount=9.0), row("three", day=1)), first=SECOND)
    found = case.read(columns=["id", "happened_at", "amount"]).to_pylist()
    assert sorted((r["id"], r["happened_at"].day, r["amount"]) for r in found) == [
        ("one", 1, 1.5),
        ("one", 2, 9.0),
        ("three", 2, 1.5),
        ("two", 1, 1.5),
    ]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


MODES = ("overwrite", "upsert_delete", "upsert")


@pytest.mark.parametrize("case", BY_DAY, indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_a_key_in_two_hours_of_a_day_is_refused(case, row, mode):
    case.hourly()
    case.change(mode=mode)
    case.write(case.table(at(row, "one", 1)), first=hour(1))
    taken = r"/events: key id is unique within a day, and a partition .* \('one' in 2026-01-01-01:00\)"
    with pytest.raises(ContractViolation, match=taken):
        case.write(case.table(at(row, "two", 2), at(row, "one", 3)), first=hour(2), days=2)
    twice = r"key id is not unique within a day of UTC: 'two' \(2 times\)"
    with pytest.raises(ContractViolation, match=twice):
        case.write(case.table(at(row, "two", 2), at(row, "two", 3)), first=hour(2), days=2)
    assert case.read(columns=["happened_at"])["happened_at"].to_pylist() == [hour(1) + timedelta(minutes=59)]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_key_moves_between_the_hours_that_are_written(case, row, mode):
    case.hourly()
    case.change(mode=mode)
    case.write(case.table(at(row, "moves", 1), at(row, "far", 25)), first=hour(1), days=25)
    case.write(case.table(at(row, "moves", 2)), first=hour(1), days=2)
    found = case.read(columns=["id", "happened_at"]).to_pylist()
    assert sorted((r["id"], r["happened_at"].hour) for r in found) == [("far", 1), ("moves", 2)]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", BY_DAY, indirect=True)
def test_a_day_of_new_york_holds_two_days_of_a_key(case, row):
    """It is stored in hours, and a key is unique within a day of UTC none the less, in all stores alike."""
    case.partitions = dg.DailyPartitionsDefinition("2026-01-01", timezone="America/New_York")
    evening = datetime(2026, 1, 1, 23, tzinfo=UTC)
    with pytest.raises(ContractViolation, match=r"not unique within a day of UTC: 'one' \(2 times\)"):
        case.write(case.table(row("one"), row("one", happened_at=evening)))
    case.write(case.table(row("one"), row("one", happened_at=evening + timedelta(hours=2))))
    assert case.ids() == ["one", "one"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_a_date_lies_in_the_partition_of_its_midnight(case, row, zone):
    """However the partitions lie to the days of UTC: each date is in one of them, and is replaced and read with it."""
    case.partitions = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-02-01", timezone=zone)
    case.change(partition_column="due")
    shift = 0 if zone == "Europe/Berlin" else 1  # the midnight that lies within the fifth day of the zone
    for version in (1.0, 2.0):
        for day in (5, 6):
            case.write(
                case.table(row(f"{day}", amount=version, due=date(2026, 1, day + shift))), date(2026, 1, day)
            )
    for day in (5, 6):
        [found] = case.read(day=date(2026, 1, day)).to_pylist()
        assert (found["id"], found["amount"], found["due"]) == (f"{day}", 2.0, date(2026, 1, day + shift))
    assert case.ids() == ["5", "6"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
    with pytest.raises(ContractViolation, match=r"'due' holds .* outside the partitions being written"):
        case.write(case.table(row("x", due=date(2026, 1, 7 + shift))), date(2026, 1, 5))
