"""The generated statements, run in DuckDB and SQLite on planted faults."""

import sqlite3
from dataclasses import replace
from datetime import date

import duckdb
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.stores.sqlite import SQLiteStore
from ml_assets.tables.contract_sql import count_broken, doubled_keys, rows_of, rules

SQL = SQLiteStore.checks
CONTRACT = Contract(
    "sqlite/things",
    "a thing",
    (
        Column("id", "string", nullable=False),
        Column("share", "float64", minimum=0, maximum=1),
        Column("cost", "float64", minimum=0),
        Column("kind", "string", choices=("a", "b")),
        Column("at", "timestamp", nullable=False),
    ),
    key=("id",),
    partition_column="at",
    unique_across_days=True,
)
GOOD = ("x", 0.5, 1.0, "a", "2026-03-01T10:00:00.000000Z")


@pytest.fixture
def database():
    connection = sqlite3.connect(":memory:")
    connection.execute('CREATE TABLE things (id TEXT, share REAL, cost REAL, kind TEXT, "at" TEXT)')
    connection.execute("INSERT INTO things VALUES (?, ?, ?, ?, ?)", GOOD)
    yield connection
    connection.close()


def broken(connection) -> dict[str, int]:
    _, *counts = connection.execute(count_broken(SQL, CONTRACT)).fetchone()
    return {rule.text: n for rule, n in zip(rules(CONTRACT), counts, strict=True) if n}


def test_good_rows_break_nothing(database):
    assert broken(database) == {}
    assert database.execute(doubled_keys(SQL, CONTRACT)).fetchall() == []


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ((None, 0.5, 1.0, "a", GOOD[4]), "id is there"),
        (("y", 1.5, 1.0, "a", GOOD[4]), "share is between 0 and 1"),
        (("y", 0.5, -1.0, "a", GOOD[4]), "cost is at least 0"),
        (("y", 0.5, 1.0, "c", GOOD[4]), "kind is one of a, b"),
        (("y", 0.5, 1.0, "a", None), "at is there"),
    ],
)
def test_a_bad_row_breaks_its_rule(database, row, rule):
    database.execute("INSERT INTO things VALUES (?, ?, ?, ?, ?)", row)
    assert broken(database) == {rule: 1}


def test_nulls_in_nullable_columns_break_nothing(database):
    database.execute("INSERT INTO things VALUES ('y', NULL, NULL, NULL, ?)", [GOOD[4]])
    assert broken(database) == {}


def test_nan_is_outside_every_range():
    with duckdb.connect() as connection:
        connection.execute('CREATE TABLE things (id TEXT, share DOUBLE, cost DOUBLE, kind TEXT, "at" TEXT)')
        connection.execute("INSERT INTO things VALUES ('x', 'nan', 'nan', 'a', 'now')")
        assert set(broken(connection)) == {
            "share is between 0 and 1",
            "cost is at least 0",
        }


def test_a_doubled_key_is_named(database):
    database.execute("INSERT INTO things VALUES (?, ?, ?, ?, ?)", GOOD)
    assert database.execute(doubled_keys(SQL, CONTRACT)).fetchall() == [("x", 2)]


def test_count_looks_at_the_days_asked_for(database):
    database.execute("INSERT INTO things VALUES ('y', 0.5, 1, 'a', '2026-03-02T00:00:00.000000Z')")
    first = (date(2026, 3, 1), date(2026, 3, 1))
    assert len(database.execute(rows_of(SQL, CONTRACT, days=first)).fetchall()) == 1
    assert len(database.execute(rows_of(SQL, CONTRACT)).fetchall()) == 2


def test_a_key_may_stand_again_on_another_day(database):
    """SQLite would make the year of a text that is cast to a date."""
    by_day = replace(CONTRACT, unique_across_days=False)
    database.execute("INSERT INTO things VALUES ('x', 0.5, 1, 'a', '2026-03-02T10:00:00.000000Z')")
    assert database.execute(doubled_keys(SQL, by_day)).fetchall() == []
    database.execute("INSERT INTO things VALUES ('x', 0.5, 1, 'a', '2026-03-02T23:59:59.999999Z')")
    assert database.execute(doubled_keys(SQL, by_day)).fetchall() == [("x", "2026-03-02", 2)]


def test_keys_are_looked_for_on_the_days_that_were_written_where_equal_ones_lie_on_one(database):
    day = "2026-03-02"
    database.executemany(
        "INSERT INTO things VALUES (?, 0.5, 1, 'a', ?)",
        [(name, f"{at}T10:00:00.000000Z") for name, at in (("y", day), ("y", day), ("x", day))],
    )
    written = (date.fromisoformat(day), date.fromisoformat(day))
    other = (date(2026, 3, 1), date(2026, 3, 1))
    by_day = replace(CONTRACT, unique_across_days=False)
    in_key = replace(CONTRACT, key=("id", "at"))

    def doubled(contract, days):
        found = database.execute(doubled_keys(SQL, contract, days=days)).fetchall()
        return sorted((row[0], row[-1]) for row in found)

    assert doubled(by_day, written) == doubled(in_key, written) == [("y", 2)]
    assert doubled(by_day, other) == doubled(in_key, other) == []
    # A key that is to be unique in the whole table is looked for in all of it.
    assert doubled(CONTRACT, written) == doubled(CONTRACT, other) == [("x", 2), ("y", 2)]
