"""Maintenance of the lake beside writers of other tables, some of which are killed: every row stays as it was written.

A round overwrites a day of a table with one to three rows, as small as DuckLake would keep them in its catalog if it
were let, and maintains the lake; three processes overwrite tables of their own meanwhile. In the second half of the
rounds one of them is killed in each round. `make faults` does five times as many.
"""

import multiprocessing
import random
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from typing import Any

import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.duckdb.inlining import inlined
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.store import Retention
from ml_assets.tables.validation import Window
from ml_assets_tests.scale import ROUNDS

OTHERS = 3
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
TERMS = Retention(timedelta(days=7), timedelta(days=1))
SPAWN = multiprocessing.get_context("spawn")


def contract(table: str) -> Contract:
    columns = (
        Column("id", "int64", nullable=False),
        Column("at", "timestamp", nullable=False),
        Column("v", "int64", nullable=False),
    )
    return Contract(f"duckdb/{table}", "", columns, key=("id",), partition_column="at")


def overwrite(lake: DuckLakeResource, table: str, day: int, rows: int, value: int) -> None:
    of, at = contract(table), FIRST + timedelta(days=day)
    data = pa.Table.from_pylist([{"id": n, "at": at, "v": value} for n in range(rows)], arrow_schema(of))
    manager = DuckLakeIOManager(lake=lake)
    with stage(data, of, manager.limits, Window(at, at + timedelta(days=1))) as staged:
        manager.table_store().write(of, staged)


def hammer(fields: dict[str, Any], table: str) -> None:
    """Overwrite one day after the other of a table, for ever."""
    lake, turn = DuckLakeResource(**fields, threads=1), 0
    while True:
        turn += 1
        overwrite(lake, table, turn % 3, 2 + turn % 3, turn)


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_rows_stay_as_they_were_written(lake: DuckLakeResource, postgres: PostgresResource):
    fields: dict[str, Any] = {"home": lake.home, "catalog_url": lake.catalog_url, "data_path": lake.data_path}
    store = DuckLakeStore(lake, postgres)
    overwrite(lake, "watched", 0, 3, 0)
    written = {0: (3, 0)}

    def start(n: int) -> BaseProcess:
        process = SPAWN.Process(target=hammer, args=(fields, f"other_{n}"), daemon=True)
        process.start()
        return process

    others = [start(n) for n in range(OTHERS)]
    chance = random.Random(1)  # noqa: S311 - the same rounds every time
    try:
        for turn in range(1, ROUNDS + 1):
            day, rows = chance.choice([0, 1]), chance.choice([1, 2, 3])
            overwrite(lake, "watched", day, rows, turn)
            written[day] = (rows, turn)
            if turn > ROUNDS // 2 and (n := turn % (2 * OTHERS)) < OTHERS:
                others[n].kill()
                others[n].join()
                others[n] = start(n)
            list(store.maintain(TERMS))
            wanted = sorted((day, n, v) for day, (rows, v) in written.items() for n in range(rows))
            with lake.get_connection() as connection:
                found = connection.execute(
                    'SELECT day("at") - 1, id, v FROM features.watched ORDER BY ALL'
                ).fetchall()
                held = inlined(connection)
            assert found == wanted, f"in round {turn}"
            assert store.damage(contract("watched")) == ""
            assert held == {}
    finally:
        for process in others:
            process.kill()
            process.join()
    list(store.maintain(TERMS))
    for table in ("watched", *(f"other_{n}" for n in range(OTHERS))):
        assert store.damage(contract(table)) == ""
        assert store.ledger_state(contract(table)) == store.live_state(contract(table))
