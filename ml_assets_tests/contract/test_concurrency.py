"""Several writers of one store at the same time, each with connections of its own, as runs have them."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from ml_assets.contracts import Column
from ml_assets.errors import WriteBusy
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.stores.duckdb import write as lake_write
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.conflicts import TRIES, retried
from ml_assets.tables.staging import Staged, stage
from ml_assets.tables.validation import WHOLE, Window

WRITERS = 4
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def window(day: int) -> Window:
    return Window(FIRST + timedelta(days=day), FIRST + timedelta(days=day + 1))


def write(case: Any, rows: list[dict[str, Any]], day: int = 0, contract: Any = None) -> bool:
    """One run's write of one day, from rows to commit."""
    contract = contract or case.contract
    table = pa.Table.from_pylist(rows, arrow_schema(contract))
    slice_ = window(day) if contract.partition_column else WHOLE
    with stage(table, contract, case.manager.limits, slice_) as staged:
        return case.manager.table_store().write(contract, staged).changed


def at_once(*writes: Callable[[], Any]) -> list[Any]:
    """Run all of them side by side; the first failure is raised."""
    start = threading.Barrier(len(writes))

    def run(one: Callable[[], Any]) -> Any:
        start.wait()
        return one()

    with ThreadPoolExecutor(len(writes)) as pool:
        return list(pool.map(run, writes))


def test_writers_of_different_partitions_all_succeed(case, row):
    """From the very first write on, when there is neither a table nor a ledger."""
    rows = [[row(f"{day}-{n}", day=day) for n in range(50)] for day in range(WRITERS)]
    at_once(*(lambda day=day: write(case, rows[day], day) for day in range(WRITERS)))
    assert case.ids() == sorted(one["id"] for part in rows for one in part)
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.embedded
def test_writers_of_one_partition_take_turns(case, row):
    versions = [[row(str(n), amount=float(version)) for n in range(50)] for version in range(WRITERS)]
    at_once(*(lambda version=version: write(case, versions[version]) for version in range(WRITERS)))
    found = case.read(columns=["id", "amount"]).to_pylist()
    assert len(found) == 50
    assert len({one["amount"] for one in found}) == 1, "the rows are those of one writer"
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("partitioned", [True, False])
def test_a_reader_sees_the_old_rows_or_the_new_ones(case, row, partitioned):
    """All of them and no others, at every moment, however often they are overwritten meanwhile."""
    if not partitioned:
        case.change(partition_column=None)
    # Some keys stay and some do not, and the numbers of rows differ.
    versions = [
        [row(f"{n}-{version * (n % 2)}", amount=float(version)) for n in range(40 + 10 * version)]
        for version in range(2)
    ]
    whole = [sorted((one["id"], one["amount"]) for one in rows) for rows in versions]
    seen: list[list[tuple[str, float]]] = []
    done = threading.Event()
    write(case, versions[0])

    def read() -> None:
        while not done.is_set():
            found = case.manager.table_store().read(case.contract, ["id", "amount"], WHOLE).read_all()
            seen.append(sorted(zip(found["id"].to_pylist(), found["amount"].to_pylist(), strict=True)))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for n in itertools.count(1):
                write(case, versions[n % 2])
                if n >= 6 and (len(seen) >= 12 or reading.done()):
                    break
        finally:
            done.set()
    reading.result()
    assert [found for found in seen if found not in whole] == []
    assert len(seen) >= 12


def test_writers_of_different_tables_do_not_meet(case, row, monkeypatch):
    contracts = [replace(case.contract, asset=f"{case.contract.asset}_{n}") for n in range(3)]
    for contract in contracts:
        case.contracts[contract.asset] = contract
    at_once(*(lambda c=c: write(case, [row("one"), row("two")], contract=c) for c in contracts))
    assert [case.store.live_state(contract).rows for contract in contracts] == [2, 2, 2]
    assert [case.store.ledger_state(c) for c in contracts] == [case.store.live_state(c) for c in contracts]


@pytest.mark.parametrize("case", ["duckdb", "postgres", "chroma", "serving"], indirect=True)
def test_whoever_waits_too_long_is_told_so(case, row):
    """Somebody holds the table's lock and does not let go."""
    import psycopg

    write(case, [row("old")])
    manager = case.manager
    if case.name == "duckdb":
        url = manager.lake.resolved_catalog_url()
        hasty = type(manager)(lake=_hasty(manager.lake))
    else:
        url = manager.postgres.connection_url()
        fields = {name: getattr(manager, name) for name in type(manager).model_fields}
        hasty = type(manager)(**{**fields, "postgres": _hasty(manager.postgres)})
    with psycopg.connect(url) as holder:
        holder.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", ["ml-assets " + case.contract.asset]
        )
        with (
            stage(case.table(row("new")), case.contract, manager.limits, window(0)) as staged,
            pytest.raises(
                WriteBusy, match=f"{case.contract.asset}: another process has been writing to it for longer"
            ),
        ):
            hasty.table_store().write(case.contract, staged)
    assert case.ids() == ["old"]
    assert write(case, [row("new")])


def _hasty(resource: Any) -> Any:
    fields = {name: getattr(resource, name) for name in type(resource).model_fields}
    return type(resource)(**{**fields, "write_timeout_s": 0.3})


@pytest.mark.parametrize("case", ["sqlite"], indirect=True)
def test_whoever_waits_too_long_for_the_file_is_told_so(case, row):
    write(case, [row("old")])
    hasty = type(case.manager)(
        sqlite=type(case.manager.sqlite)(home=case.manager.sqlite.home, lock_timeout_s=0.2)
    )
    with (
        case.manager.sqlite.connect(write=True),
        stage(case.table(row("new")), case.contract, case.manager.limits, window(0)) as staged,
        pytest.raises(RuntimeError, match=r"is being written by process .* for more than 0.2 s: wait"),
    ):
        hasty.table_store().write(case.contract, staged)
    assert case.ids() == ["old"]
    assert write(case, [row("new")])


@pytest.fixture
def disturbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[int], None]], list[int]]]:
    """Lets something be done in the middle of each attempt to write, when the transaction is open."""

    def disturb(what: Callable[[int], None]) -> list[int]:
        attempts: list[int] = []
        original = Staged.batches

        def batches(self: Staged, buckets: set[int] | None = None) -> Iterator[pa.RecordBatch]:
            attempts.append(len(attempts) + 1)
            what(attempts[-1])
            yield from original(self, buckets)

        monkeypatch.setattr(Staged, "batches", batches)
        return attempts

    yield disturb


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
@pytest.mark.parametrize("conflicts", [2, TRIES])
def test_conflicts_in_the_lake_are_tried_again_and_then_reported(case, row, disturbed, conflicts):
    """Somebody who does not take our lock changes the same rows, after our snapshot and before our commit."""
    write(case, [row("old"), row("gone")])

    def interfere(attempt: int) -> None:
        if attempt <= conflicts:
            with case.manager.lake.get_connection(write=True) as connection:
                connection.execute(f"UPDATE features.events SET count = {attempt} WHERE id = 'old'")

    attempts = disturbed(interfere)
    if conflicts < TRIES:
        assert write(case, [row("new")])
        assert attempts == [1, 2, 3]
        assert case.ids() == ["new"]
        assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
    else:
        with pytest.raises(
            WriteBusy, match=r"duckdb/events: somebody else changed the same rows during each of 5 "
        ):
            write(case, [row("new")])
        assert attempts == [1, 2, 3, 4, 5]
        assert case.read(columns=["id", "count"]).sort_by("id").to_pylist() == [
            {"id": "gone", "count": 3},
            {"id": "old", "count": 5},
        ]


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_a_conflict_about_the_ledger_is_not_about_the_rows(case, row, disturbed):
    """As maintenance meets it, which forgets old entries while others append theirs."""
    write(case, [row("old")])

    def interfere(attempt: int) -> None:
        if attempt == 1:
            with case.manager.lake.get_connection(write=True) as connection:
                connection.execute("INSERT INTO ledger.writes (table_name) VALUES ('other.table')")
                connection.execute("DELETE FROM ledger.writes WHERE table_name = 'other.table'")

    attempts = disturbed(interfere)
    with (
        case.manager.lake.get_connection(write=True) as connection,
        stage(case.table(row("new")), case.contract, case.manager.limits, window(0)) as staged,
    ):
        with pytest.raises(duckdb.TransactionException) as caught:
            lake_write.write_once(connection, case.contract, staged)
        assert lake_write.is_conflict(caught.value)
        assert not lake_write.is_about(caught.value, connection, case.contract)
    assert write(case, [row("new")])
    assert attempts == [1, 2]


def test_conflicts_about_other_things_do_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    met: list[str] = [*["others"] * 2 * TRIES, *["rows"] * (TRIES - 1)]

    def attempt() -> int:
        if met:
            raise RuntimeError(met.pop())
        return 7

    arguments = ("duckdb/x", lambda fault: True, attempt, lambda fault: str(fault) == "others")
    assert retried(*arguments) == 7
    met += ["rows"] * TRIES
    with pytest.raises(WriteBusy, match="during each of 5 attempts"):
        retried(*arguments)


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_a_commit_that_ducklake_gives_up_is_a_conflict(case):
    """It says that it tried too often, since others committed to other tables meanwhile, and names no conflict."""
    lake = case.manager.lake
    with lake.get_connection(write=True) as one, lake.get_connection(write=True) as two:
        one.execute("CREATE TABLE features.a (x INT); CREATE TABLE features.b (x INT)")
        two.execute("SET ducklake_max_retry_count = 1")
        one.execute("BEGIN; INSERT INTO features.a VALUES (1)")
        two.execute("BEGIN; INSERT INTO features.b VALUES (1)")
        one.execute("COMMIT")
        with pytest.raises(duckdb.TransactionException, match="Exceeded the maximum retry count") as caught:
            two.execute("COMMIT")
    assert lake_write.is_conflict(caught.value)
    with lake.get_connection() as connection:
        assert not lake_write.is_about(caught.value, connection, case.contract)


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_a_write_that_takes_too_long_ends_and_leaves_the_old_rows(case):
    case.change(columns=(Column("amount", "float64"),), key=(), partition_column=None)
    case.write(pa.table({"amount": [-1.0]}), first=None)
    hasty = DuckLakeIOManager(lake=case.manager.lake.model_copy(update={"write_timeout_s": 0.1}))
    amounts = pa.array(np.random.default_rng(0).random(12_000_000))
    with (
        stage(pa.table({"amount": amounts}), case.contract, hasty.limits) as staged,
        pytest.raises(
            TimeoutError, match=r"writing duckdb/events took longer than 0\.1 s.*ML_ASSETS_WRITE_TIMEOUT"
        ),
    ):
        hasty.table_store().write(case.contract, staged)
    assert case.read()["amount"].to_pylist() == [-1.0]


@pytest.mark.embedded_only("chooses the victim by a setting that takes a superuser")
@pytest.mark.parametrize("case", ["postgres", "serving"], indirect=True)
def test_a_deadlock_with_a_stranger_is_tried_again(case, row):
    """We have deleted the rows that a stranger asks for; he changes one that we would delete next."""
    import psycopg

    postgres = case.manager.postgres
    write(case, [row(str(n)) for n in range(3)])
    url = postgres.connection_url()
    with psycopg.connect(url) as stranger, psycopg.connect(url, autocommit=True) as watcher:
        # The victim is who finds the deadlock: let that be us.
        stranger.execute("SET deadlock_timeout = '60s'")
        stranger.execute("UPDATE events SET count = 4 WHERE id = '2'")

        def ask_for_ours() -> None:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE%'"
            while watcher.execute(waiting).fetchone() != (1,):
                time.sleep(0.01)
            stranger.execute("UPDATE events SET count = 4 WHERE id = '0'")
            stranger.rollback()

        asking = threading.Thread(target=ask_for_ours)
        asking.start()
        assert write(case, [row("new")])
        asking.join()
    assert case.ids() == ["new"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
