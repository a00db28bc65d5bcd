"""Comparisons of neighbouring tables, in real DuckDB and SQLite; the other stores answer in the tests of the graph."""

import json
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ml_assets.contracts import tables
from ml_assets.errors import ContractViolation
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.operations.agreements import AGREEMENTS, Agreement
from ml_assets.operations.carried import Sources
from ml_assets.operations.reconcile import Listed, compare, compare_sides, compare_values, stored_keys
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.settings import Settings
from ml_assets.tables.arrow_types import arrow_schema

TABLES = tables(Settings())

AT = datetime(2026, 3, 1, 8, tzinfo=UTC)
RUNS = [
    {"id": f"r{n}", "experiment": "e", "status": "completed", "created_at": AT, "dataset": "wine"}
    for n in range(1000)
]


@pytest.fixture
def stores(tmp_path):
    """Runs in the lake's raw table and in SQLite: a function that executes, and one that fetches."""
    lake = duckdb.connect()
    lake.execute("SET TimeZone='UTC'")
    lake.execute("CREATE SCHEMA raw")
    names = [name for name in TABLES["duckdb/raw_runs"].names if name != "run_id"]
    columns = ", ".join(f"{name} {'TIMESTAMPTZ' if name.endswith('_at') else 'VARCHAR'}" for name in names)
    lake.execute(f"CREATE TABLE raw.raw_runs (run_id VARCHAR, {columns})")
    rows = [[row.get(name) for name in ("id", *names)] for row in RUNS]
    lake.executemany(f"INSERT INTO raw.raw_runs VALUES ({', '.join('?' * len(rows[0]))})", rows)
    sqlite = SQLiteResource(url=f"sqlite:///{tmp_path}/x.db")
    with sqlite.connect(write=True) as connection:
        connection.execute(f"CREATE TABLE ml_experiments (id TEXT, {', '.join(f'{n} TEXT' for n in names)})")
        for row in rows:
            told = [value.isoformat() if isinstance(value, datetime) else value for value in row]
            connection.execute(f"INSERT INTO ml_experiments VALUES ({', '.join('?' * len(told))})", told)
        connection.execute(
            "CREATE TABLE ml_model_artifacts (experiment_id, metadata, size_bytes, sha256, day)"
        )

    def execute(store, statement):
        if store == "duckdb":
            return lake.execute(statement).fetchall()
        with sqlite.connect(write=True) as connection:
            return connection.execute(statement).fetchall()

    def fetch(store, statement):
        if store == "duckdb":
            return lake.execute(statement).fetchall()
        with sqlite.asking() as ask:
            return ask(statement)

    return execute, fetch


def carried(fetch, days=None):
    return compare(TABLES, "sqlite/ml_experiments", Agreement("duckdb/raw_runs"), fetch, days)


def test_the_same_rows_agree_in_both_stores(stores):
    _, fetch = stores
    found = carried(fetch)
    assert (found.agrees, found.told) == (True, "1,000 here, 1,000 in duckdb/raw_runs.")
    assert carried(fetch, (date(2026, 3, 1), date(2026, 3, 1))).actual == 1000
    assert carried(fetch, (date(2026, 3, 2), date(2026, 3, 2))).told == "0 here, 0 in duckdb/raw_runs."
    assert compare_sides(
        "a", "b", Listed([run["id"] for run in RUNS]), stored_keys(fetch, TABLES["duckdb/raw_runs"])
    ).agrees


def test_another_row_in_the_place_of_one_is_no_agreement(stores):
    execute, fetch = stores
    execute("sqlite", "UPDATE ml_experiments SET id = 'other' WHERE id = 'r7'")
    found = carried(fetch)
    assert (found.actual, found.expected, found.agrees) == (1000, 1000, False)
    assert "Not here: 'r7'" in found.told or "Here alone: 'other'" in found.told
    execute("sqlite", "DELETE FROM ml_experiments WHERE id = 'other'")
    assert carried(fetch).told == "999 here, 1,000 in duckdb/raw_runs. Not here: 'r7'."
    execute("sqlite", "INSERT INTO ml_experiments SELECT * FROM ml_experiments WHERE id = 'r8'")
    assert not carried(fetch).agrees


def test_a_column_that_became_null_is_no_agreement(stores):
    execute, fetch = stores
    execute("sqlite", "UPDATE ml_experiments SET dataset = NULL WHERE id <> 'r7'")
    assert carried(fetch).differences == ("1 rows have a value of 'dataset' here, 1,000 in duckdb/raw_runs.",)


def test_files_that_are_gone_are_no_agreement(stores):
    execute, fetch = stores
    (agreement,) = AGREEMENTS["sqlite/ml_model_artifacts"]
    files = [
        {"path": "a", "size_bytes": 1, "sha256": "x"},
        {"path": "b", "reason": "not read", "size_bytes": "many"},
        {"path": "a", "size_bytes": 2},  # the first one counts
    ]
    tags = json.dumps({"ml_assets.artifacts": files})
    execute("sqlite", f"UPDATE ml_experiments SET tags = '{tags}' WHERE id = 'r1'")

    def told():
        return compare(TABLES, "sqlite/ml_model_artifacts", agreement, fetch).told

    assert "Not here: 'r1 " in told()
    for path, size, digest in (("a", "1", "'x'"), ("b", "NULL", "NULL")):
        row = f"""('r1', '{{"path": "{path}"}}', {size}, {digest}, '2026-03-01')"""
        execute("sqlite", f"INSERT INTO ml_model_artifacts VALUES {row}")
    # Of a run without a list, whatever was found; but on its day.
    execute(
        "sqlite", """INSERT INTO ml_model_artifacts VALUES ('r2', '{"path": "c"}', 3, 'y', '2026-03-01')"""
    )
    assert told() == "3 here, 3 in sqlite/ml_experiments."
    execute("sqlite", "UPDATE ml_model_artifacts SET sha256 = NULL WHERE experiment_id = 'r1'")
    assert "Not here: 'r1 a, 1 bytes, sha256 x'. Here alone: 'r1 a, 1 bytes'." in told()
    execute("sqlite", "UPDATE ml_model_artifacts SET day = '2026-03-02' WHERE experiment_id = 'r2'")
    assert told().endswith("Here alone: 'r1 a, 1 bytes', 'r2 c, 3 bytes, sha256 y'.")


class Held:
    """A store as the comparison of values reads it, with rows in memory."""

    def __init__(self, rows=(), fault=None, prefix=""):
        self.rows, self.fault, self.prefix, self.name = rows, fault, prefix, prefix

    def last_contract(self, asset):
        return TABLES[asset] if self.rows or self.fault else None

    def held(self, contract, columns, window):
        if self.fault:
            raise self.fault
        yield pa.RecordBatch.from_pylist(
            [{name: row.get(name) for name in columns} for row in self.rows],
            schema=arrow_schema(contract, columns),
        )

    def copied(self, contract):
        return None


def values(here, there):
    """Comparisons of the runs in SQLite with those in PostgreSQL."""
    held: Any = {"sqlite": here, "postgres": there}
    nothing: Any = None
    return compare_values(Sources(held, nothing, nothing, MetricRules()), TABLES, {"sqlite/ml_experiments"})


def test_values_that_differ_are_told_with_both_sides():
    runs = [{**run, "origin": "graph", "parameters": "{}"} for run in RUNS]
    [found] = values(Held(runs), Held(runs))
    assert (found.agrees, found.told) == (True, "1,000 here, 1,000 in postgres/ml_experiments.")
    changed = [{**run, "notes": "n" * 200} if run["id"] == "r7" else run for run in runs]
    [found] = values(Held(changed), Held(runs))
    assert found.told == (
        "1,000 here, 1,000 in postgres/ml_experiments. The values of 1 key differ. "
        f"'notes' of 'r7' is '{'n' * 79}... here, null in postgres/ml_experiments."
    )
    # What an application recorded is carried on like all others.
    [found] = values(Held(runs), Held([*runs, {**runs[0], "id": "a1", "origin": "api"}]))
    assert found.told.endswith("The values of 1 key differ. Not here: 'a1'.")
    assert (
        values(Held([]), Held([{**run, "status": "failed"} for run in runs])) == []
    )  # nothing was ever carried here
    [found] = values(Held([{**run, "status": "failed"} for run in runs]), Held(runs))
    assert "The values of 1,000 keys differ." in found.told
    assert "The first 20 values are listed." in found.told
    assert len(found.cells) == 20


def test_a_table_that_cannot_be_read_is_told_and_stops_no_other():
    [found] = values(
        Held(RUNS), Held(fault=ContractViolation("postgres/ml_experiments: a column is missing"))
    )
    assert not found.agrees
    assert found.told.endswith("It cannot be compared: postgres/ml_experiments: a column is missing.")
