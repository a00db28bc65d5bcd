"""What a partition is: an hour as well as a day, with keys of its own unless the contract says otherwise."""

from datetime import UTC, date, datetime, timedelta

import pytest

from ml_assets.lib.arrow_types import ContractViolation

SECOND = date(2026, 1, 2)


def hour(n: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n)


def at(row, identity: str, n: int, **values):
    """A good row in the n-th hour."""
    return row(identity, happened_at=hour(n) + timedelta(minutes=59), **values)


def test_an_hour_is_overwritten_and_a_range_of_hours_is_read(case, row):
    case.hourly()
    case.write(case.table(at(row, "a", 22), at(row, "b", 23), at(row, "c", 24)), first=hour(22), days=3)
    case.write(case.table(at(row, "d", 23), at(row, "e", 23)), first=hour(23))
    assert case.ids() == ["a", "c", "d", "e"]
    found = case.read(columns=["id"], day=hour(23), until=hour(24))
    assert sorted(found["id"].to_pylist()) == ["c", "d", "e"]
    case.write(case.table(), first=hour(24))
    assert case.ids() == ["a", "d", "e"]
    assert case.recorded(case.contract).rows == case.measured(case.contract).rows == 3


def test_a_key_may_stand_on_two_days(case, row):
    case.write(case.table(row("one"), row("one", day=1, amount=2.0)), days=2)
    case.write(case.table(row("one", day=1, amount=3.0)), first=SECOND)
    assert sorted(case.read(columns=["amount"])["amount"].to_pylist()) == [1.5, 3.0]
    assert case.recorded(case.contract) == case.measured(case.contract)


def test_a_key_that_is_unique_across_days_is_refused_twice(case, row):
    case.change(unique_across_days=True)
    case.write(case.table(row("old")))
    with pytest.raises(ContractViolation, match=r"key id is not unique: 'one' \(2 times\)"):
        case.write(case.table(row("one"), row("one", day=1)), days=2)
    assert case.ids() == ["old"]


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
    assert case.recorded(case.contract) == case.measured(case.contract)


@pytest.mark.parametrize("case", ["postgres", "sqlite", "serving"], indirect=True)
def test_a_key_in_two_hours_of_a_day_is_refused_where_an_index_sees_it(case, row):
    case.hourly()
    case.write(case.table(at(row, "one", 1)), first=hour(1))
    with pytest.raises(ContractViolation, match=r"/events: key id is unique within a day, and a partition"):
        case.write(case.table(at(row, "one", 2)), first=hour(2))
    assert case.read(columns=["happened_at"])["happened_at"].to_pylist() == [hour(1) + timedelta(minutes=59)]
