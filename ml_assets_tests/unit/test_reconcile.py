"""Comparisons of neighbouring tables, in real DuckDB and SQLite; the other stores answer in the tests of the graph."""

import json
from datetime import UTC, date, datetime

import duckdb
import pytest

from ml_assets.contracts import tables
from ml_assets.operations.agreements import AGREEMENTS, Agreement
from ml_assets.operations.reconcile import Listed, compare, compare_sides, stored_keys
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.settings import Settings

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
    files = [{"path": "a", "size_bytes": 1, "sha256": "x"}, {"path": "b", "reason": "not read"}]
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
    assert "'sha256'" in told()
    execute("sqlite", "UPDATE ml_model_artifacts SET day = '2026-03-02' WHERE experiment_id = 'r2'")
    assert "Here alone: 'r2 c'" in told()
