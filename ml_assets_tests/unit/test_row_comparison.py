"""Rows compared by hashes, and named where these differ."""

import math
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.tables import comparison
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.comparison import Cell, compare_rows
from ml_assets.tables.staging import DAY_US
from ml_assets.tables.validation import Window

START = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
EVENTS = Contract(
    "clickhouse/events",
    "one event",
    (
        Column("event_id", "string", nullable=False),
        Column("timestamp", "timestamp", nullable=False),
        Column("value", "float64"),
        Column("tags", "json"),
        Column("vector", "vector", dimension=2),
    ),
    key=("event_id",),
    partition_column="timestamp",
)
ROWS = [
    {
        "event_id": f"e{n % 700}",  # again on another day
        "timestamp": START + timedelta(hours=n),
        "value": math.nan if n % 7 == 0 else n / 3,
        "tags": f'{{"n":{n}}}',
        "vector": [float(n), 0.5],
    }
    for n in range(1000)
]


class Source:
    """Rows as a store gives them, in small batches and any order."""

    def __init__(self, rows, contract=EVENTS, knows_windows=True):
        self.rows, self.contract, self.knows_windows, self.asked = rows, contract, knows_windows, []

    def __call__(self, window):
        self.asked.append(window)
        chosen = [
            row
            for row in self.rows
            if not (self.knows_windows and window.start)
            or window.start <= row["timestamp"] < (window.end or END)
        ]
        for at in range(0, len(chosen), 300):
            yield pa.RecordBatch.from_pylist(chosen[at : at + 300], schema=arrow_schema(self.contract))


def compared(here, there, contract=EVENTS, **more):
    return compare_rows(contract, Source(here, contract), Source(there, contract), **more)


def changed(place, **values):
    return [{**row, **values} if n == place else row for n, row in enumerate(ROWS)]


def test_the_same_rows_in_another_order_are_read_once():
    here, there = Source(ROWS[::-1]), Source(ROWS)
    found = compare_rows(EVENTS, here, there)
    assert (found.here, found.there, found.keys, found.cells) == (1000, 1000, 0, ())
    assert (len(here.asked), len(there.asked)) == (1, 1)


@pytest.mark.parametrize("knows_windows", [True, False])
def test_one_changed_value_is_named_and_only_its_day_is_read_again(knows_windows):
    here = Source(changed(501, value=1.5), knows_windows=knows_windows)
    found = compare_rows(EVENTS, here, Source(ROWS))
    assert found.cells == (Cell("e501", "value", 1.5, 167.0),)
    assert (found.keys, found.whole) == (1, True)
    assert [window.start for window in here.asked] == [None, datetime(2026, 3, 21, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ({"value": None}, Cell("e501", "value", None, 167.0)),
        ({"value": math.inf}, Cell("e501", "value", math.inf, 167.0)),
        ({"tags": "{}"}, Cell("e501", "tags", "{}", '{"n":501}')),
        ({"vector": [501.0, 0.25]}, Cell("e501", "vector", [501.0, 0.25], [501.0, 0.5])),
    ],
)
def test_a_value_of_any_type_is_named(values, cell):
    assert compared(changed(501, **values), ROWS).cells == (cell,)


def test_rows_that_are_gone_new_or_twice_are_told_by_how_often_they_stand():
    assert compared(ROWS[:-1], ROWS).cells == (Cell("e299", "", 0, 1),)
    assert compared(ROWS, ROWS[1:]).cells == (Cell("e0", "", 1, 0),)
    assert compared([*ROWS, ROWS[5]], ROWS).cells == (Cell("e5", "", 2, 1),)
    moved = compared(changed(5, timestamp=START + timedelta(days=80)), ROWS)
    assert moved.keys == 2
    assert set(moved.cells) == {Cell("e5", "", 1, 0), Cell("e5", "", 0, 1)}


def test_of_many_differences_the_first_are_told():
    found = compared([{**row, "value": 0.0} for row in ROWS], ROWS)
    assert (len(found.cells), found.whole) == (20, False)
    assert found.keys > 20
    assert {cell.column for cell in found.cells} == {"value"}
    assert compared([], ROWS).here == 0


def test_partitions_can_be_left_out():
    day = 20 * DAY_US + int(START.timestamp()) * 1_000_000
    assert compared(changed(501, value=1.5), ROWS, left_out={day}).keys == 0


def test_a_table_without_partitions_is_read_again_in_part(monkeypatch):
    contract = Contract("sqlite/t", "a row", EVENTS.columns, key=("event_id", "timestamp"))
    found = compared(changed(501, tags=None), ROWS, contract)
    assert [(cell.column, cell.here) for cell in found.cells] == [("tags", None)]
    monkeypatch.setattr(comparison, "_LOOKED_AT", 1)
    found = compared([{**row, "value": 0.0} for row in ROWS], ROWS, contract)
    assert not found.whole
    assert 0 < found.keys < 20


@pytest.mark.parametrize("knows_windows", [True, False])
def test_what_has_expired_on_one_side_is_not_compared(knows_windows):
    kept = Window(START + timedelta(days=20))
    here, there = Source(ROWS[480:]), Source(ROWS, knows_windows=knows_windows)
    found = compare_rows(EVENTS, here, there, window=kept)
    assert (found.here, found.there, found.keys) == (520, 520, 0)
    assert compare_rows(EVENTS, here, there).there == 1000
    found = compare_rows(EVENTS, Source(changed(501, value=1.5)), there, window=kept)
    assert [cell.key for cell in found.cells] == ["e501"]
