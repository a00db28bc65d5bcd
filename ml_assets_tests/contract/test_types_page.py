"""docs/types.md says what the code does."""

import json
import math
import re
from datetime import UTC, date, datetime
from typing import get_args

import pytest

from ml_assets.contracts import Column, ColumnType, Contract
from ml_assets.io_managers import chroma, clickhouse, duckdb, postgres, redis, sqlite
from ml_assets.settings import PROJECT_ROOT
from ml_assets.stores.clickhouse import ddl as clickhouse_ddl
from ml_assets.stores.postgres_table import ddl as postgres_ddl
from ml_assets.stores.sqlite import ddl as sqlite_ddl
from ml_assets.tables.arrow_types import ARROW_TYPES
from ml_assets.tables.duckdb_types import DUCKDB_TYPES

PAGE = (PROJECT_ROOT / "docs" / "types.md").read_text()
MANAGERS = {
    "DuckLake": duckdb.DuckLakeIOManager,
    "PostgreSQL": postgres.PostgresIOManager,
    "ClickHouse": clickhouse.ClickHouseIOManager,
    "Chroma": chroma.ChromaIOManager,
    "SQLite": sqlite.SQLiteIOManager,
    "Redis": redis.RedisIOManager,
}


def table_under(heading: str) -> dict[str, dict[str, str]]:
    """The table below a heading: rows by their first cell, cells by their column's name."""
    lines = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    header, _, *rows = [_cells(line) for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


KEPT = table_under("How each store keeps it")


def test_every_type_and_every_store_is_there():
    assert list(KEPT) == list(get_args(ColumnType))
    assert all(list(row) == list(MANAGERS) for row in KEPT.values())


def test_arrow_types():
    told = {name: row["in Arrow"] for name, row in table_under("What a value may be").items()}
    assert told == {name: str(kind) for name, kind in ARROW_TYPES.items()}


@pytest.mark.parametrize(
    ("store", "types"),
    [
        ("PostgreSQL", postgres_ddl.TYPES),
        ("DuckLake", DUCKDB_TYPES),
        ("SQLite", sqlite_ddl.TYPES),
        ("ClickHouse", clickhouse_ddl.TYPES),
    ],
)
def test_columns_are_declared_as_the_page_says(store, types):
    """The modules hold these against the real tables at every write: see test_changes."""
    assert {name: row[store] for name, row in KEPT.items()} == types


@pytest.mark.parametrize("store", MANAGERS)
def test_limits(store):
    limits = MANAGERS[store].limits
    told = {name: row[store] for name, row in table_under("What a store cannot hold").items()}
    words = {True: "yes", False: "no"}
    assert told == {
        "U+0000 in text": words[limits.nul],
        "NaN": words[limits.nan],
        "infinities": words[limits.infinity],
        "a vector that is null": words[limits.null_vector],
        "length of a vector": f"up to {limits.vector_length:g}".replace("up to inf", "any").replace(
            "e+", "e"
        ),
        "years": f"{limits.first_year} to {limits.last_year}",
        "columns of a table": "any" if limits.columns is None else f"up to {limits.columns:,}",
        "bytes of a row": "any" if limits.row_bytes == math.inf else f"up to {limits.row_bytes:,}",
    }


EVERY_TYPE = (
    Column("id", "string", nullable=False),
    Column("happened_at", "timestamp", nullable=False),
    Column("text", "string", nullable=False),
    *(Column(name, name, dimension=3 if name == "vector" else None) for name in get_args(ColumnType)),
)
VALUES = {
    "string": "x",
    "int64": 7,
    "float64": 0.5,
    "bool": True,
    "timestamp": datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
    "date": date(2026, 1, 31),
    "json": '{"a":1}',
    "vector": [0.5, 1.0, -2.0],
}
ROW = {"id": "one", "happened_at": datetime(2026, 1, 1, tzinfo=UTC), "text": "words", **VALUES}


@pytest.mark.parametrize("case", ["chroma"], indirect=True)
def test_chroma_keeps_values_as_the_page_says(case):
    case.change(columns=EVERY_TYPE)
    case.write(case.table(ROW))
    collection = case.manager.chroma.client().get_collection("events", embedding_function=None)
    entry = collection.get(include=["metadatas", "documents", "embeddings"])
    (metadata,) = entry["metadatas"]
    found = {name: type(metadata[name]).__name__ for name in VALUES if name in metadata}
    assert {**found, "vector": "embedding"} == {name: row["Chroma"] for name, row in KEPT.items()}
    assert (entry["documents"], len(entry["embeddings"][0])) == (["words"], 3)
    assert (metadata["json.a"], metadata["date"]) == (1, "2026-01-31")


@pytest.mark.parametrize("case", ["serving"], indirect=True)
def test_redis_keeps_values_as_the_page_says(case):
    case.change(columns=EVERY_TYPE, unique_across_days=True)
    case.write(case.table(ROW))
    client = case.manager.redis.client()
    _, version = client.get("ml-assets:serving/events").decode().split()
    kept = json.loads(client.hget(f"ml-assets:serving/events:{version}", "one"))
    assert {name: type(kept[name]).__name__ for name in VALUES} == {
        n: row["Redis"] for n, row in KEPT.items()
    }
    assert (kept["date"], kept["vector"]) == ("2026-01-31", [0.5, 1.0, -2.0])


@pytest.mark.parametrize("case", ["sqlite"], indirect=True)
def test_sqlite_text_is_as_the_page_says(case):
    case.change(columns=EVERY_TYPE)
    case.write(case.table(ROW))
    with case.manager.sqlite.connect() as connection:
        kept = connection.execute(
            'SELECT "timestamp", "date", "vector", "json", "bool" FROM events'
        ).fetchone()
    assert kept == ("2026-01-31T09:30:00.000000Z", "2026-01-31", "[0.5,1,-2]", '{"a":1}', 1)


@pytest.mark.parametrize("case", ["clickhouse-server", "chroma"], indirect=True)
def test_null_vectors_are_refused_where_there_are_none(case, row):
    case.change(columns=EVERY_TYPE)
    with pytest.raises(
        ValueError, match=r"column 'vector' holds None in 1 row, but .* cannot hold a vector that is"
    ):
        case.write(case.table({**ROW, "vector": None}))


@pytest.mark.parametrize("case", ["postgres"], indirect=True)
@pytest.mark.parametrize(("dimension", "indexes"), [(2000, 1), (2001, 1), (4001, 0), (16_000, 0)])
def test_long_vectors_in_postgres(case, dimension, indexes):
    case.change(columns=tuple(c for c in EVERY_TYPE if c.name != "vector"))
    case.change(columns=(*case.contract.columns, Column("vector", "vector", dimension=dimension)))
    case.write(case.table({**ROW, "vector": [0.25] * dimension}))
    assert case.read(columns=["vector"])["vector"].to_pylist() == [[0.25] * dimension]
    with case.manager.postgres.connect() as connection:
        found = connection.execute("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%hnsw%'").fetchone()
    assert found == (indexes,)


@pytest.mark.parametrize(
    ("asset", "columns", "said"),
    [
        ("duckdb/t", ["x", "X"], "columns 'x' and 'X' differ in upper and lower case only"),
        ("sqlite/t", ["a\\b"], r"'a\\\\b' cannot be the name of a table or column"),
        ("postgres/t", ["\u00e9" * 32], "has 64 bytes, and PostgreSQL cuts it off after 63"),
        ("serving/" + "t" * 64, ["x"], "has 64 bytes, and PostgreSQL cuts it off after 63"),
        ("duckdb/t", ["_ducklake_internal_row_id"], "DuckLake keeps names such as"),
        ("postgres/t", ["xmin"], "each table of PostgreSQL has a column 'xmin' of its own"),
        ("clickhouse/door__lock", ["x"], "a table of ClickHouse cannot have the name 'door__lock'"),
        ("clickhouse/" + "t" * 161, ["x"], "has 161 characters in a file's name, .* 160 are the most"),
        ("clickhouse/" + "\u00e9" * 27, ["x"], "has 162 characters in a file's name"),
        ("duckdb/" + "t" * 256, ["x"], "has 256 bytes, and the folder that DuckLake gives it may have 255"),
        ("chroma/ab", ["x"], "a collection of Chroma cannot have the name 'ab'"),
        ("chroma/a b c", ["x"], "a collection of Chroma cannot have the name 'a b c'"),
        ("chroma/abc--old", ["x"], "a collection of Chroma cannot have the name 'abc--old'"),
        ("chroma/abc", ["$x"], "Chroma keeps names such as '\\$x'"),
        ("chroma/abc", ["x", "x.y"], "column 'x.y' would be taken for a part of the column 'x'"),
    ],
)
def test_names_that_the_page_refuses(asset, columns, said):
    with pytest.raises(ValueError, match=f"contract {asset}: .*{said}.*; rename it"):
        Contract(asset, "", tuple(Column(name, "json") for name in columns), key=())


@pytest.mark.parametrize(
    ("case", "table", "column"),
    [
        ("chroma", "a.0", "!"),
        ("chroma", "a" * 500, "sepal.length"),
        ("postgres", "t" * 63, 'a "b"; c'),
        ("clickhouse", "t" * 160, "\u00e9" * 100),
        ("duckdb", "t" * 255, "c" * 300),
        ("serving", "t" * 63, "\u00e9" * 31 + "t"),
    ],
    indirect=["case"],
)
def test_names_that_the_page_allows(case, row, table, column, monkeypatch):
    case.contracts[f"{case.name}/{table}"] = case.contract
    case.change(
        asset=f"{case.name}/{table}",
        columns=(*case.contract.columns, Column(column, "float64")),
        unique_across_days=True,
    )
    case.write(case.table(row("one", **{column: 2.5})))
    assert case.read(columns=[column])[column].to_pylist() == [2.5]
