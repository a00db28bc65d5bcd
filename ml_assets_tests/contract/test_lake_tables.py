"""What only the lake's tables have: versions with a message, and a ledger that a former version of this project made."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.lib import current_run
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.stores.duckdb import write as lake_write
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.store import Written
from ml_assets.tables.validation import Window

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def contract(table: str) -> Contract:
    columns = (Column("id", "int64", nullable=False), Column("at", "timestamp", nullable=False))
    return Contract(f"duckdb/{table}", "", columns, key=("id",), partition_column="at")


def staged(table: str, *ids: int) -> Any:
    of = contract(table)
    data = pa.Table.from_pylist([{"id": n, "at": FIRST} for n in ids], arrow_schema(of))
    return stage(data, of, DuckLakeIOManager.limits, Window(FIRST, FIRST + timedelta(days=1)))


def write(lake: DuckLakeResource, table: str, *ids: int) -> Written:
    with staged(table, *ids) as rows:
        return DuckLakeIOManager(lake=lake).table_store().write(contract(table), rows)


def asked(lake: DuckLakeResource, statement: str) -> list[tuple[Any, ...]]:
    with lake.get_connection() as connection:
        return connection.execute(statement).fetchall()


def test_a_version_says_which_run_made_it_and_for_which_table(shared_lake: DuckLakeResource):
    def newest() -> list[tuple[Any, ...]]:
        return asked(
            shared_lake,
            "SELECT snapshot_id, author, commit_message FROM lake.snapshots() ORDER BY 1 DESC LIMIT 1",
        )

    def written(value: int, run: str | None) -> bool:
        token = current_run.run_id.set(run)
        try:
            return write(shared_lake, "told", value).changed
        finally:
            current_run.run_id.reset(token)

    assert written(1, "r-1")
    [(version, *told)] = newest()
    assert told == ["ml-assets", "ml-assets run r-1: duckdb/told"]
    assert not written(1, None)
    assert newest()[0][0] == version  # a write that changes nothing makes none
    assert written(2, None)
    assert newest()[0] == (version + 1, "ml-assets", "ml-assets: duckdb/told")
    assert asked(shared_lake, "SELECT run_id FROM ledger.writes ORDER BY sequence") == [("r-1",), (None,)]


def former_ledger(lake: DuckLakeResource) -> None:
    """Make the ledger what it was before it named runs."""
    with lake.get_connection(write=True) as connection:
        connection.execute("ALTER TABLE lake.ledger.writes DROP COLUMN run_id")


def test_a_former_ledger_is_read_and_gains_the_run(shared_lake: DuckLakeResource):
    store = DuckLakeIOManager(lake=shared_lake).table_store()
    write(shared_lake, "older", 1)
    before = store.ledger_state(contract("older"))
    former_ledger(shared_lake)
    assert store.ledger_state(contract("older")) == before == store.live_state(contract("older"))
    token = current_run.run_id.set("r-2")
    try:
        write(shared_lake, "older", 1, 2)
    finally:
        current_run.run_id.reset(token)
    assert asked(shared_lake, "SELECT rows, run_id FROM ledger.writes ORDER BY sequence") == [
        (1, None),
        (2, "r-2"),
    ]
    assert store.ledger_state(contract("older")) == store.live_state(contract("older"))


def test_two_writers_who_both_mend_a_former_ledger(
    shared_lake: DuckLakeResource, monkeypatch: pytest.MonkeyPatch
):
    """The second one's conflict is about the ledger, so however often it comes, nobody competes for the rows."""
    write(shared_lake, "one", 1)
    write(shared_lake, "two", 1)
    former_ledger(shared_lake)
    about: list[bool] = []
    original, met = lake_write.is_about, []

    def is_about(fault: BaseException, connection: Any, of: Contract) -> bool:
        about.append(original(fault, connection, of))
        return about[-1]

    class Disturbed(lake_write.DuckLakeTransaction):
        def record(self, held: Any, buckets: set[int] | None) -> None:
            if not met:
                met.append(True)
                write(shared_lake, "one", 1, 2)
            super().record(held, buckets)

    monkeypatch.setattr(lake_write, "is_about", is_about)
    monkeypatch.setattr(lake_write, "DuckLakeTransaction", Disturbed)
    assert write(shared_lake, "two", 1, 2).changed
    assert about == [False]
    store = DuckLakeIOManager(lake=shared_lake).table_store()
    for table in ("one", "two"):
        assert store.ledger_state(contract(table)) == store.live_state(contract(table))
        assert store.ledger_state(contract(table)).rows == 2
