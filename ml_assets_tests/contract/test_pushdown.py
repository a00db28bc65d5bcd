"""A consumer's columns and partitions reach the engine: told by what the engine was asked, or says that it read."""

import re
import sqlite3
from datetime import date
from typing import Any

import pytest

from ml_assets.stores.clickhouse import rows as clickhouse_rows

SECOND = date(2026, 1, 2)
DAYS, ROWS = 3, 50


@pytest.fixture
def written(case, row):
    case.write(case.table(*(row(f"{d}-{n}", day=d) for d in range(DAYS) for n in range(ROWS))), days=DAYS)
    return case


def read_one_day(case) -> None:
    assert case.read(columns=["id"], day=SECOND).column_names == ["id"]


def spied(monkeypatch, owner: Any, name: str) -> list[tuple[tuple, dict]]:
    """The calls of a method of a driver, which go on to do what they do."""
    calls, original = [], getattr(owner, name)

    def spy(*given: Any, **named: Any) -> Any:
        calls.append((given, named))
        return original(*given, **named)

    monkeypatch.setattr(owner, name, spy)
    return calls


@pytest.mark.parametrize("case", ["postgres", "serving"], indirect=True)
def test_postgres_is_asked_for_a_column_of_a_day(written, monkeypatch):
    """The server's own record of what it is doing, taken while the rows are on their way."""
    import psycopg

    from ml_assets.stores.postgres_table import rows

    seen, original = [], rows._parsed

    def look(*given: Any) -> Any:
        with psycopg.connect(written.manager.postgres.connection_url()) as other:
            asked = (
                "SELECT query FROM pg_stat_activity WHERE query LIKE 'COPY%' AND datname = current_database()"
            )
            seen.extend(other.execute(asked).fetchall())
        return original(*given)

    monkeypatch.setattr(rows, "_parsed", look)
    read_one_day(written)
    ((query,),) = set(seen)
    assert query.startswith('COPY (SELECT "id" FROM')
    assert "2026-01-02 00:00" in query
    assert "2026-01-03 00:00" in query


@pytest.mark.parametrize("case", ["sqlite"], indirect=True)
def test_sqlite_is_asked_for_a_column_of_a_day(written, monkeypatch):
    statements: list[str] = []
    original = sqlite3.connect

    def traced(*given: Any, **named: Any) -> sqlite3.Connection:
        connection = original(*given, **named)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    read_one_day(written)
    (query,) = [each for each in statements if 'FROM "main"."events"' in each]
    assert query.startswith('SELECT "held"."id" FROM')
    with written.manager.sqlite.connect() as connection:
        plan = " ".join(str(line) for line in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert "SEARCH held USING INDEX events.happened_at" in plan


@pytest.mark.parametrize("case", ["clickhouse", "clickhouse-server"], indirect=True)
def test_clickhouse_reads_the_rows_of_one_day(written, monkeypatch):
    calls = spied(monkeypatch, clickhouse_rows, "arrow_stream")
    read_one_day(written)
    ((given, _),) = calls
    assert given[1].startswith("SELECT `id` FROM") or given[1].startswith('SELECT "id" FROM')
    with written.manager.clickhouse.client() as client:
        found = client.query(f"EXPLAIN ESTIMATE {given[1]}")
    assert [dict(zip(found.column_names, line, strict=True))["rows"] for line in found.result_rows] == [ROWS]


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_the_lake_reads_the_file_of_one_day(written, monkeypatch):
    from ml_assets.resources.duckdb import DuckLakeResource

    calls = spied(monkeypatch, DuckLakeResource, "reader")
    read_one_day(written)
    ((given, _),) = calls
    assert given[1].startswith('SELECT "id" FROM')
    assert files_read(written, given[1]) == 1
    assert files_read(written, given[1].partition(" WHERE ")[0]) == DAYS


def files_read(case, query: str) -> int:
    with case.manager.lake.get_connection() as connection:
        ((_, plan),) = connection.execute(f"EXPLAIN ANALYZE {query}").fetchall()
    (count,) = re.findall(r"Total Files Read: (\d+)", plan)
    return int(count)


@pytest.mark.parametrize("case", ["chroma"], indirect=True)
def test_chroma_is_asked_for_the_entries_of_one_day(written, monkeypatch):
    from chromadb.api.models.Collection import Collection

    calls = spied(monkeypatch, Collection, "get")
    read_one_day(written)
    (named,) = [named for _, named in calls]
    assert len(named["ids"]) == ROWS
    assert all(entry.startswith("2026-01-02 ") or entry.startswith("1-") for entry in named["ids"])
    assert set(named["include"]) <= {"metadatas"}
