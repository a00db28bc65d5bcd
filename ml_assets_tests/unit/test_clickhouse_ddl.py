"""ClickHouse's statements as text, on one server and on a cluster, each of them read by the engine's own parser."""

import re
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import chdb
import pytest

from ml_assets.contracts import Column, Contract, tables
from ml_assets.errors import StoreUnavailable
from ml_assets.resources.clickhouse import _ENGINE, ClickHouseResource, _use_database
from ml_assets.settings import Settings
from ml_assets.sql_files import read_statements
from ml_assets.stores.clickhouse import cluster, ledger, lock, maintenance, redo
from ml_assets.stores.clickhouse.ddl import create_statement, fit_columns, fit_months, stage_statement

CONTRACT = Contract(
    "clickhouse/doors",
    "",
    (
        Column("id", "string", nullable=False),
        Column("at", "timestamp", nullable=False),
        Column("width", "int64"),
        Column("weight", "float64"),
    ),
    key=("id",),
    partition_column="at",
)

REPLICATED = "ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')"
IDENTITY = "0123456789abcdef"


@pytest.fixture(scope="module")
def engine():
    _ENGINE.close_if_idle()  # a process has one folder open, and that of a test before stays so for a while
    connection = chdb.connect(":memory:")
    yield connection
    connection.close()


class Told:
    """A client of a cluster that keeps what it is told, and answers as a server with one committed write would."""

    def __init__(self, name: str) -> None:
        self.statements: list[str] = []
        cluster.join(self, name)  # pyright: ignore[reportArgumentType]

    def command(self, statement: str, settings: Any = None) -> int:
        self.statements.append(statement)
        return 0

    def query(self, statement: str, parameters: Any = None) -> SimpleNamespace:
        plan = f'{{"id": "{IDENTITY}", "swaps": {{"20260101": 2, "20260102": 0}}, "ledger": []}}'
        rows = {
            "SELECT name FROM": [(redo.ready_name("doors", IDENTITY),)],
            "SELECT comment": [(plan,)],
            "SELECT partition_key": [("",)],
            "SELECT startsWith(partition_key": [(0,)],
            "SELECT count()": [(1,)],
            "SELECT replaceAll": [("f" * 32, '{"pid": 1}', 0)],
        }
        return SimpleNamespace(result_rows=next((rows[k] for k in rows if statement.startswith(k)), []))


def said(name: str) -> list[str]:
    """Every statement by which tables are made, changed, exchanged and dropped."""
    client: Any = Told(name)
    _use_database(client)
    ledger.ensure(client)
    client.command(create_statement(CONTRACT, name))
    fit_columns(client, CONTRACT, {"id": "String", "at": "DateTime64(6, 'UTC')", "width": "Nullable(Int64)"})
    client.command(stage_statement(CONTRACT, "doors__stage", name))
    redo.publish(client, "doors", IDENTITY)
    redo._dealt_with(client, redo.Left("doors__stage", "doors", "", 0))
    ledger.forget(client, CONTRACT)
    lock._create(client, "doors")
    lock._release(client, "doors", "f" * 32)

    @contextmanager
    def held(write: bool = False):
        yield client

    maintenance._merge(SimpleNamespace(client=held), ledger.LEDGER, ["all"])  # pyright: ignore[reportArgumentType]
    return client.statements


def test_one_server_is_told_of_no_cluster(engine):
    statements = said("")
    assert not [
        each for each in statements if "CLUSTER" in each or "Replicated" in each or "SYNC REPLICA" in each
    ]
    assert statements[2:5] == list(read_statements("clickhouse/ledger/schema.sql"))
    assert all(parsed(engine, each) for each in statements)


def test_all_replicas_of_a_cluster_are_told(engine):
    """But for the partitions that are swapped and dropped, which the engine replicates itself."""
    statements = said("my cluster")
    alone = [each for each in statements if 'ON CLUSTER "my cluster"' not in each and "EXISTS D" not in each]
    own = re.escape(redo.ready_name("doors", IDENTITY)) + "__[0-9a-f]{16}"
    for told, pattern in zip(
        alone,
        (
            f'SYSTEM SYNC REPLICA "{own}"',
            f'ALTER TABLE "doors" REPLACE PARTITION ID \'20260101\' FROM "{own}"',
            "ALTER TABLE \"doors\" DROP PARTITION ID '20260102'",
        ),
        strict=True,
    ):
        assert re.fullmatch(pattern, told)
    made = [each for each in statements if "CREATE TABLE" in each and "Memory" not in each]
    assert len(made) == 4
    assert all("ENGINE = Replicated" in each for each in made)
    assert f"ENGINE = {REPLICATED} PARTITION BY" in create_statement(CONTRACT, "my cluster")
    assert REPLICATED.replace("Merge", "ReplacingMerge").replace("')", "', sequence)") in made[0]
    places = [statements.index(each) for each in statements if each.startswith(("SYSTEM SYNC", "EXCHANGE"))]
    assert "SYSTEM SYNC REPLICA ON CLUSTER" in statements[places[-2]]
    assert statements[places[-1]].startswith("EXCHANGE")
    assert all(parsed(engine, each) for each in statements)


@pytest.mark.parametrize("name", ["", "my cluster"])
def test_a_table_by_the_month_is_made_anew_on_all_replicas(engine, name, monkeypatch):
    """From all rows that the others know, and when all have the copy."""
    client: Any = Told(name)
    monkeypatch.setattr(lock, "_HELD", {"f" * 32})
    fit_months(client, replace(CONTRACT, stored_by_month=True))
    where = ' ON CLUSTER "my cluster"' if name else ""
    copy = '"doors__stage__[0-9a-f]{16}"'
    expected = [
        f'CREATE TABLE {copy}{where} AS "doors" ENGINE = .*MergeTree.* PARTITION BY toYYYYMM\\("at"\\) ORDER BY .*',
        f'INSERT INTO {copy} .* SELECT .* FROM "doors"',
        f'EXCHANGE TABLES {copy} AND "doors"{where}',
        f"DROP TABLE IF EXISTS {copy}{where} SYNC",
    ]
    if name:
        expected.insert(0, 'SYSTEM SYNC REPLICA "doors"')
        expected.insert(3, f"SYSTEM SYNC REPLICA{where} {copy}")
    for told, pattern in zip(client.statements, expected, strict=True):
        assert re.fullmatch(pattern, told)
        assert parsed(engine, told)


def parsed(engine: Any, statement: str) -> str:
    """What the engine's parser makes of a statement; it raises for what it cannot read."""
    return str(engine.query(f"EXPLAIN AST {statement}", "TabSeparated"))


def test_the_embedded_engine_has_no_cluster(tmp_path):
    embedded = ClickHouseResource(home=str(tmp_path), cluster="mine")
    with pytest.raises(StoreUnavailable, match="Embedded ClickHouse has no cluster"), embedded.client():
        pass


def test_columns_are_compressed_by_what_they_are(engine):
    statement = create_statement(CONTRACT)
    assert (
        '"at" DateTime64(6, \'UTC\') CODEC(Delta, ZSTD(1)), "width" Nullable(Int64) CODEC(T64, ZSTD(1))'
        in statement
    )
    assert statement.endswith("ORDER BY (\"id\") SETTINGS default_compression_codec = 'ZSTD(1)'")
    for contract in tables(Settings()).values():
        if contract.store == "clickhouse":
            assert parsed(engine, create_statement(contract))
