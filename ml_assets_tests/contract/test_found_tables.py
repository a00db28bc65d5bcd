"""Tables that another tool made are inputs, too: of what the store has a contract is made, or a sentence says why not."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.cli.refresh import QUIET
from ml_assets.errors import ContractViolation
from ml_assets.io_managers.chroma import ChromaIOManager
from ml_assets.io_managers.clickhouse import ClickHouseIOManager
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.io_managers.postgres import PostgresIOManager
from ml_assets.io_managers.redis import RedisIOManager
from ml_assets.io_managers.sqlite import SQLiteIOManager

DAILY = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-04")
AT = datetime(2026, 1, 2, 9, 30, tzinfo=UTC)
ROW = {"id": 7, "name": "Ada", "share": 0.25, "good": True, "day": AT.date(), "at": AT, "doc": '{"a":1}'}
"""What each of the tables holds, in the types of a contract."""

VALUES = "7 AS id, 'Ada' AS name, {share} AS share, true AS good, DATE '2026-01-02' AS day"
TABLES = {
    "postgres": "CREATE {what} {name} AS SELECT "
    + VALUES.format(share="0.25::numeric(10,4)")
    + ", '2026-01-02 10:30+01'::timestamptz AS at, '{{\"a\": 1}}'::json AS doc, '{{1,2}}'::int[] AS other",
    "duckdb": "CREATE {what} lake.{name} AS SELECT "
    + VALUES.format(share="0.25::DECIMAL(10,4)")
    + ", TIMESTAMPTZ '2026-01-02 09:30:00+00' AS at, '{{\"a\": 1}}'::JSON AS doc, INTERVAL 1 DAY AS other",
    "clickhouse": "CREATE TABLE {name} ENGINE = MergeTree ORDER BY id AS SELECT toUInt32(7) AS id, "
    "toLowCardinality('Ada') AS name, toDecimal64(0.25, 4) AS share, true AS good, toDate('2026-01-02') AS day, "
    "toDateTime('2026-01-02 10:30:00', 'Europe/Berlin') AS at, "
    "CAST(map('a', 1), 'Map(String, UInt8)') AS doc, toIPv4('127.0.0.1') AS other",
    "sqlite": "CREATE {what} {name} AS SELECT 7 AS id, 'Ada' AS name, 0.25 AS share, 1 AS good, '2026-01-02' AS day, "
    "'2026-01-02T09:30:00Z' AS at, '{{\"a\":1}}' AS doc, x'00' AS other",
}
IN_SQLITE = {**ROW, "good": 1, "day": "2026-01-02", "at": "2026-01-02T09:30:00Z"}
"""SQLite has no type for truth and time."""


class Stores:
    """Runs a statement in a store, and reads an asset of it."""

    def __init__(self, get: Callable[[str], Any]) -> None:
        self._get = get

    def manager(self, store: str) -> dg.ConfigurableIOManager:
        get = self._get
        match store:
            case "postgres":
                return PostgresIOManager(postgres=get("postgres"))
            case "serving":
                return RedisIOManager(redis=get("redis"), postgres=get("postgres"))
            case "duckdb":
                return DuckLakeIOManager(lake=get("lake"))
            case "clickhouse":
                return ClickHouseIOManager(clickhouse=get("clickhouse"))
            case "chroma":
                return ChromaIOManager(chroma=get("chroma"), postgres=get("postgres"))
        return SQLiteIOManager(sqlite=get("sqlite"))

    def run(self, store: str, statement: str) -> None:
        match store:
            case "duckdb":
                with self._get("lake").get_connection(write=True) as connection:
                    connection.execute(statement)
            case "clickhouse":
                with self._get("clickhouse").client(write=True) as client:
                    client.command(statement)
            case _:
                name = "sqlite" if store == "sqlite" else "postgres"
                with self._get(name).connect(write=True) as connection:
                    connection.execute(statement)

    def read(
        self,
        store: str,
        columns: list[str] | None = None,
        day: str | None = None,
        wanted: Any = pa.Table,
        **metadata: Any,
    ) -> Any:
        found = []
        partitions = DAILY if day else None
        orders = dg.AssetSpec("orders", partitions_def=partitions, metadata=metadata)

        def consume(orders: Any) -> None:
            found.append(orders)

        consume.__annotations__["orders"] = wanted
        consumer = dg.asset(
            key="consumer",
            partitions_def=partitions,
            ins={"orders": dg.AssetIn("orders", metadata={"columns": columns} if columns else {})},
        )(consume)
        dg.materialize(
            [orders.with_io_manager_key("io_manager"), consumer],
            selection=[consumer],
            resources={"io_manager": self.manager(store)},
            partition_key=day,
            run_config=QUIET,
        )
        return found[0]


@pytest.fixture
def stores(request: pytest.FixtureRequest) -> Stores:
    return Stores(request.getfixturevalue)


PLACES = {
    "postgres": ("public.orders", "mart.stuff", "CREATE SCHEMA mart"),
    "duckdb": ("features.orders", "mart.stuff", "CREATE SCHEMA lake.mart"),
    "clickhouse": ("orders", "mart.stuff", "CREATE DATABASE mart"),
    "sqlite": ("orders", "stuff", "SELECT 1"),
}


@pytest.mark.parametrize("store", TABLES)
def test_a_table_that_another_tool_made_is_read(stores, store):
    usual, named, before = PLACES[store]
    with pytest.raises(
        LookupError, match=rf"{store}/orders has never been written here: materialize it first; or"
    ):
        stores.read(store)
    stores.run(store, TABLES[store].format(what="TABLE", name=usual))
    columns = list(ROW)
    rows = stores.read(store, columns)
    assert rows.to_pylist() == [IN_SQLITE if store == "sqlite" else ROW]
    assert stores.read(store, ["name", "id"]).to_pylist() == [{"name": "Ada", "id": 7}]
    with pytest.raises(ContractViolation, match=r"column 'other' is .*, which no contract has a type for"):
        stores.read(store)
    stores.run(store, before)
    stores.run(store, TABLES[store].format(what="VIEW", name=named).replace("7", "8", 1))
    where = f"anything.{named}" if "." in named else named
    assert stores.read(store, ["id"], **{"dagster/table_name": where})["id"].to_pylist() == [8]


@pytest.mark.parametrize("store", ["postgres", "duckdb", "clickhouse"])
def test_its_partitions_are_read_by_the_column_that_the_asset_names(stores, store):
    stores.run(store, TABLES[store].format(what="TABLE", name=PLACES[store][0]))
    with pytest.raises(
        ValueError, match="orders is partitioned, and nothing says which rows a partition has"
    ):
        stores.read(store, ["id"], "2026-01-02")
    for column, day, rows in (("at", "2026-01-02", 1), ("day", "2026-01-02", 1), ("day", "2026-01-03", 0)):
        assert stores.read(store, ["id"], day, partition_expr=column).num_rows == rows


@pytest.mark.parametrize(
    ("store", "made", "said"),
    [
        (
            "postgres",
            "0.123456789012345678 AS n",
            "more digits than a double holds in n: 0.123456789012345678",
        ),
        ("postgres", "'infinity'::date AS n", "its rows have no form in the contract's types"),
        (
            "postgres",
            "'2026-01-01'::timestamp AS n",
            "column 'n' is timestamp without time zone, which no contract",
        ),
        (
            "duckdb",
            "18446744073709551616::HUGEINT AS n",
            r"column 'n' is decimal.*; it holds .*18446744073709551616",  # Parquet has doubles for them
        ),
        ("duckdb", "TIMESTAMP '2026-01-01' AS n", r"column 'n' is timestamp\[us\], which no contract"),
        ("clickhouse", "toUInt64(18446744073709551615) AS n", r"column 'n' is uint64.*18446744073709551615"),
        (
            "clickhouse",
            "toDateTime64('2026-01-01 00:00:00.123456789', 9, 'UTC') AS n",
            "column 'n' is timestamp",
        ),
        ("sqlite", "1 AS n UNION SELECT 'a'", "column 'n' is .*integer and text, which no contract"),
        ("sqlite", "9007199254740993 AS n UNION SELECT 0.5", "its rows have no form in the contract's types"),
    ],
)
def test_values_that_would_be_bent_are_refused_in_a_sentence(stores, store, made, said):
    engine = " ENGINE = MergeTree ORDER BY tuple()" if store == "clickhouse" else ""
    place = f"{'lake.' if store == 'duckdb' else ''}{PLACES[store][0]}"
    stores.run(store, f"CREATE TABLE {place}{engine} AS SELECT {made}")
    with pytest.raises(ContractViolation, match=said) as refused:
        stores.read(store)
    assert "Nothing was written" not in str(refused.value)


def test_a_collection_that_another_tool_made_is_told_apart(stores, chroma):
    with chroma.client(write=True) as client:
        client.create_collection("orders")
    with pytest.raises(
        LookupError, match="chroma/orders: another tool made the collection 'orders', and only entries"
    ):
        stores.read("chroma")


def test_truth_behind_redis_may_be_another_tools(stores):
    stores.run("postgres", TABLES["postgres"].format(what="VIEW", name="orders"))
    assert stores.read("serving", ["id"]).to_pylist() == [{"id": 7}]


def test_a_sum_of_integers_is_one(stores):
    stores.run(
        "duckdb", "CREATE TABLE lake.features.orders AS SELECT sum(n) AS n FROM (VALUES (1), (2)) AS t(n)"
    )
    frame = stores.read("duckdb", wanted=pd.DataFrame)
    assert (str(frame["n"].dtype), frame["n"].tolist()) == ("int64", [3])
