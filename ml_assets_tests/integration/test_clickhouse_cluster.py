"""Every statement by which the graph's tables are written to a cluster: it holds on all replicas, and can be parsed.

No cluster can run here. The server notes what it is told, and carries it out as a single server would.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import chdb
import pyarrow as pa
import pytest

import ml_assets_tests
from ml_assets.contracts import Column, Contract, tables
from ml_assets.resources.clickhouse import _ENGINE, ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.store import Retention
from ml_assets.tables.validation import WHOLE, Window

CLUSTER = "my cluster"
DAY = datetime(2026, 3, 2, tzinfo=UTC)
CONTRACTS = {
    asset: contract for asset, contract in tables(Settings()).items() if contract.store == "clickhouse"
}

CHANGING = re.compile(
    r"\s*(CREATE|ALTER|DROP|RENAME|EXCHANGE|OPTIMIZE|TRUNCATE|SYSTEM|DELETE|ATTACH|DETACH)\b"
)

REPLICATED_BY_THE_ENGINE = re.compile(
    r"ALTER TABLE \"\w+\" (REPLACE PARTITION ID '\w+' FROM \"\w+\"|DROP PARTITION ID '\w+')|SYSTEM SYNC REPLICA \"\w+\""
)
"""What the replica that is asked does for all of them."""


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[ClickHouseResource, Path]]:
    """A server that takes itself for a cluster, and the file of what it was told."""
    noted = tmp_path / "told.jsonl"
    front = Path(ml_assets_tests.__path__[0]) / "clickhouse_front.py"
    command = [sys.executable, str(front), str(tmp_path / "server"), "s3cret", "--noted", str(noted)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        try:
            url = f"clickhouse://ml:s3cret@127.0.0.1:{port}"
            yield ClickHouseResource(home=str(tmp_path), url=url, cluster=CLUSTER), noted
        finally:
            server.kill()


def value(column: Column, turn: int) -> Any:
    match column.type:
        case "string":
            return column.choices[0] if column.choices else "a"
        case "int64" | "float64":
            least = column.minimum if column.minimum is not None else 0
            number = least if column.maximum is not None else least + turn
            return int(number) if column.type == "int64" else float(number)
        case "timestamp":
            return DAY
        case "date":
            return DAY.date()
        case "json":
            return "{}"
        case "bool":
            return True
        case _:
            return [1.0] * (column.dimension or 1)


def write(store: ClickHouseStore, contract: Contract, turn: int) -> None:
    """A row of the same key, whose other values change from turn to turn where they may."""
    row = {each.name: value(each, 0 if each.name in contract.key else turn) for each in contract.columns}
    data = pa.Table.from_pylist([row], arrow_schema(contract))
    window = Window(DAY, DAY + timedelta(days=1)) if contract.partition_column else WHOLE
    with stage(data, contract, store.limits, window) as staged:
        store.write(contract, staged)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    _ENGINE.close_if_idle()
    connection = chdb.connect(":memory:")
    yield connection
    connection.close()


def test_every_statement_of_every_table_holds_on_the_cluster(
    told: tuple[ClickHouseResource, Path], engine: Any
) -> None:
    resource, noted = told
    store = ClickHouseStore(resource)
    for contract in CONTRACTS.values():
        for turn in range(2):
            write(store, contract, turn)
        # A column that came later, and rows that stay while others come.
        more = replace(contract, columns=(*contract.columns, Column("added_later", "string")))
        write(store, replace(more, mode="upsert"), 2)
    list(store.maintain(Retention(timedelta(0), timedelta(0))))
    for contract in CONTRACTS.values():
        assert store.ledger_state(contract, any_version=True).rows == 1

    statements = [json.loads(line) for line in noted.read_text().splitlines()]
    changing = list(dict.fromkeys(each for each in statements if CHANGING.match(each)))
    alone = [
        each
        for each in changing
        if f'ON CLUSTER "{CLUSTER}"' not in each and not REPLICATED_BY_THE_ENGINE.fullmatch(each.strip())
    ]
    assert alone == []
    made = [each for each in changing if each.startswith("CREATE TABLE") and "Memory" not in each]
    assert {re.match(r'CREATE TABLE (?:IF NOT EXISTS )?"?(\w+)"?', each)[1] for each in made} >= {  # pyright: ignore[reportOptionalSubscript]
        contract.table for contract in CONTRACTS.values()
    }
    assert [each for each in made if "MergeTree" in each and "Replicated" not in each] == []
    for each in changing:
        engine.query(f"EXPLAIN AST {each}", "TabSeparated")
    kinds = {CHANGING.match(each)[1] for each in changing}  # pyright: ignore[reportOptionalSubscript]
    assert kinds >= {"CREATE", "ALTER", "DROP", "RENAME", "SYSTEM"}
