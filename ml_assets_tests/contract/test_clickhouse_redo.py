"""ClickHouse's redo log: what was committed is finished by whoever comes next, once, or set aside and told.

A writer that was killed between its commit and the swap is played by `commit` alone.
"""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client

from ml_assets.contracts import Column, Contract
from ml_assets.lib.current_run import run_id
from ml_assets.lib.sql import quote_identifier, quote_json
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.stores.clickhouse.ddl import ensure_table
from ml_assets.stores.clickhouse.lock import writing
from ml_assets.stores.clickhouse.recovery import finish_writes, set_aside
from ml_assets.stores.clickhouse.redo import publish, recover
from ml_assets.stores.clickhouse.write import commit, write
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import Staged, stage
from ml_assets.tables.validation import WHOLE

LIMITS = ClickHouseStore.limits
COLUMNS = (
    Column("id", "string", nullable=False),
    Column("at", "timestamp", nullable=False),
    Column("version", "int64", nullable=False),
)
WHOLE_TABLE = Contract("clickhouse/events", "", COLUMNS, key=("id",))
DAILY = replace(WHOLE_TABLE, partition_column="at")


@pytest.fixture(params=["clickhouse", "shared_clickhouse_server"])
def store(request: pytest.FixtureRequest) -> ClickHouseResource:
    return request.getfixturevalue(request.param)


def staged(contract: Contract, version: int, days: int = 2) -> Staged:
    rows = [
        {"id": f"{day}", "at": datetime(2026, 1, 1 + day, tzinfo=UTC), "version": version}
        for day in range(days)
    ]
    return stage(pa.Table.from_pylist(rows, arrow_schema(contract)), contract, LIMITS, WHOLE)


def written(store: ClickHouseResource, contract: Contract, version: int, days: int = 2) -> None:
    with writing(store, contract.table) as client, closing(staged(contract, version, days)) as rows:
        assert write(store, client, contract, rows)


def committed(store: ClickHouseResource, contract: Contract, version: int) -> str:
    """What a writer leaves who is killed right after its commit; returns the name of the table."""
    with store.client(write=True) as client, closing(staged(contract, version)) as rows:
        ensure_table(client, contract)
        identity = commit(store, client, contract, rows, set(rows.buckets))
    return f"{contract.table}__ready__{identity}"


def versions(client: Any, contract: Contract) -> list[int]:
    name = quote_identifier(contract.table)
    return [v for (v,) in client.query(f"SELECT version FROM {name} ORDER BY id").result_rows]


def tables(client: Any) -> set[str]:
    found = client.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
    return {name for (name,) in found} - {"write_ledger", "write_contracts"}


@pytest.mark.parametrize("contract", [WHOLE_TABLE, DAILY], ids=["whole", "daily"])
def test_the_next_writer_or_recover_finishes_a_committed_write(store, contract):
    written(store, contract, 1)
    ready = committed(store, contract, 2)
    assert finish_writes(store) == [ready]
    assert finish_writes(store) == []
    with store.client() as client:
        assert versions(client, contract) == [2, 2]
        assert tables(client) == {contract.table}
    committed(store, contract, 3)
    written(store, contract, 4)
    with store.client() as client:
        assert versions(client, contract) == [4, 4]
        assert tables(client) == {contract.table}


def test_a_new_column_does_not_stand_in_the_way_of_an_older_commit(store):
    written(store, DAILY, 1)
    with store.client():  # the embedded engine stays open: nobody else finishes it
        committed(store, DAILY, 2)
        wider = replace(DAILY, columns=(*COLUMNS, Column("note", "string")))
        written(store, wider, 3)
        with store.client() as client:
            assert versions(client, wider) == [3, 3]
            assert tables(client) == {wider.table}


def test_what_a_former_version_committed_names_no_run(store):
    """Its ledger has no column for it and its plan does not tell it; the ledger gains the column by itself."""
    written(store, DAILY, 1)
    with store.client(write=True) as client:
        ready = committed(store, DAILY, 2)
        client.command("ALTER TABLE write_ledger DROP COLUMN run_id")
        plan = client.command(f"SELECT comment FROM system.tables WHERE name = '{ready}'")
        former = {name: part for name, part in json.loads(plan).items() if name != "run_id"}
        client.command(f"ALTER TABLE {ready} MODIFY COMMENT {quote_json(former)}")
        assert recover(client, DAILY.table) == [ready]
        assert versions(client, DAILY) == [2, 2]
        client.command("ALTER TABLE write_ledger DROP COLUMN run_id")
        token = run_id.set("abc")
        try:
            written(store, replace(DAILY, mode="upsert"), 3, days=1)
        finally:
            run_id.reset(token)
        runs = client.query("SELECT partition, run_id FROM write_ledger FINAL ORDER BY partition").result_rows
        assert runs == [("2026-01-01", "abc"), ("2026-01-02", None)]


@pytest.mark.parametrize("name", ['quo"ted', "it's an ümläut of 5%\nor so"])
def test_any_name_of_a_table_can_stand_in_a_plan(clickhouse, name):
    contract = replace(DAILY, asset=f"clickhouse/{name}")
    with clickhouse.client() as client:
        for version in (1, 2):
            written(clickhouse, contract, version)
            assert versions(client, contract) == [version] * 2
        ready = committed(clickhouse, contract, 3)
        assert recover(client, alone=True) == [ready]
        assert versions(client, contract) == [3, 3]


def test_a_plan_whose_rows_are_not_all_staged_is_not_committed(store):
    written(store, DAILY, 1)
    with store.client(write=True) as client, closing(staged(DAILY, 2)) as rows:
        with pytest.raises(RuntimeError, match="0 of the 1 rows of partition 20260102 are staged"):
            commit(store, client, DAILY, rows, {min(rows.buckets)})
        assert tables(client) == {"events"}
        assert versions(client, DAILY) == [1, 1]


def test_a_write_that_cannot_be_finished_is_set_aside_and_told(store, caplog):
    """Neither the engine nor any other table is kept from being used, and neither is the table itself."""
    lacking, unreadable, other = (
        replace(DAILY, asset=f"clickhouse/{name}") for name in ("lacking", "odd", "other")
    )
    with store.client(write=True) as client:
        for contract in (lacking, unreadable, other):
            written(store, contract, 1)
        first, second, _ = (committed(store, contract, 2) for contract in (lacking, unreadable, other))
        client.command(f"ALTER TABLE {first} DROP PARTITION ID '20260102'")
        client.command(f'ALTER TABLE {second} MODIFY COMMENT \'{{"id": "{second[-16:]}"\'')
    aside = [name.replace("__ready__", "__failed__") for name in (first, second)]
    found = ClickHouseStore(store).recover({})
    assert found.state == "failed"
    assert set(aside) < set(found.dealt_with)
    assert all(name in found.detail and name in caplog.text for name in aside)
    with store.client(write=True) as client:
        assert versions(client, other) == [2, 2]
        assert versions(client, lacking)[-1] == 1
        assert tables(client) == {"lacking", "odd", "other", *aside}
        health = store.health()
        assert (health.state, aside[0] in health.detail) == ("healthy", True)
        written(store, lacking, 3)
        assert versions(client, lacking) == [3, 3]
        assert ClickHouseStore(store).recover({}).state == "failed", "as long as they lie there"
        for name in aside:
            client.command(f"DROP TABLE {name}")
        assert set_aside(store) == []


def test_a_table_that_was_dropped_by_hand_does_not_block_the_engine(store):
    with store.client(write=True) as client:
        written(store, DAILY, 1)
        committed(store, DAILY, 2)
        client.command("DROP TABLE events SYNC")
    with store.client() as client:
        written(store, DAILY, 3)
        assert versions(client, DAILY) == [3, 3]
        assert len(set_aside(store)) == 1


class Disturbed:
    """A client before whose n-th command something else happens."""

    def __init__(self, client: Any, nth: int, what: Callable[[], None]) -> None:
        self._client, self._left, self._what = client, nth, what

    def command(self, statement: str) -> Any:
        self._left -= 1
        if self._left == 0:
            self._what()
        return self._client.command(statement)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize(("contract", "statements"), [(WHOLE_TABLE, 3), (DAILY, 5)], ids=["whole", "daily"])
def test_two_who_publish_at_once_do_it_once(clickhouse, contract, statements):
    """The second one overtakes the first before its n-th statement, and goes on to write something newer."""
    overtaken = []
    with clickhouse.client(write=True) as client:
        for nth in range(1, statements + 1):
            one = replace(contract, asset=f"clickhouse/events_{nth}")
            written(clickhouse, one, 1, days=3)
            identity = committed(clickhouse, one, 2)[-16:]

            def overtake(table: Contract = one) -> None:
                recover(client, table.table)
                written(clickhouse, table, 3)
                overtaken.append(table.table)

            publish(cast(Client, Disturbed(client, nth, overtake)), one.table, identity)
            assert versions(client, one) == [3, 3], nth
        assert tables(client) == set(overtaken)
        assert len(overtaken) == statements
