"""A writer is killed by SIGKILL at seeded random points of its write while readers read.

Afterwards a reader sees the old rows or the new ones, and after the next look at the store (recover, or the
next write) the whole table is old or new and agrees with its ledger. 8 kills a store of an overwrite of
three days; `make faults` does 100. A quarter as many of the overwrite of a table
without partitions and of an upsert, which some stores commit in another way. The end of the test run says
how many kills fell inside a write.

A writer is a process of its own, forked from a server that has imported everything. It says when it begins
to write and when it is done, so the test knows which kills fell inside. So is the reader, except where the
engine lets in one process only: there it is a thread of the writer.
"""

import itertools
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.io_managers.chroma import ChromaIOManager
from ml_assets.io_managers.clickhouse import ClickHouseIOManager
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.io_managers.postgres import PostgresIOManager
from ml_assets.io_managers.redis import RedisIOManager
from ml_assets.io_managers.sqlite import SQLiteIOManager
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.stores.clickhouse.redo import interrupted, recover
from ml_assets.stores.postgres import PostgresStore
from ml_assets.tables.staging import TableState, stage
from ml_assets.tables.store import TableStore
from ml_assets.tables.validation import WHOLE, Window
from ml_assets_tests.scale import KILLS, LONG

DAYS = 3
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = Window(FIRST, FIRST + timedelta(days=DAYS))
COLUMNS = (
    Column("id", "string", nullable=False),
    Column("happened_at", "timestamp", nullable=False),
    Column("version", "int64", nullable=False),
    Column("text", "string", nullable=False),
    Column("vector", "vector", nullable=False, dimension=8),
)
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "ml_assets.tables.staging",
        "ml_assets.stores.postgres_table",
        "dagster",
        "duckdb",
        "psycopg",
        "chromadb",
        "redis",
    ]
    + [
        f"ml_assets.io_managers.{name}"
        for name in ("duckdb", "postgres", "clickhouse", "chroma", "sqlite", "redis")
    ]
)


@dataclass
class Store:
    """A store under fire.

    Args:
        manager: its IO manager.
        rows: of one day; enough for a write to take a while.
        whole: whether a reader sees the whole write at once; False if partition by partition.
        inside: whether readers are threads of the writer (embedded ClickHouse lets in one process).
        recover: what finishes an interrupted write where the next write would.
        unfinished: whether a write is committed that nobody has finished yet. An embedded engine finishes it
            when it is opened.
        environment: variables that the writer needs.
    """

    manager: TableIOManager
    contract: Contract
    rows: int
    whole: bool = True
    inside: bool = False
    recover: Callable[[], Any] = lambda: None
    unfinished: Callable[[], bool] = lambda: False
    window: Window = WINDOW
    environment: dict[str, str] = field(default_factory=dict)
    seen: list[set[tuple[int, int, int]]] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        """What the writer needs of it. Dagster's objects cannot be pickled: they are made again there."""
        given = {name: getattr(self.manager, name) for name in type(self.manager).model_fields}
        made_of = {
            name: (type(one), {f: getattr(one, f) for f in type(one).model_fields})
            for name, one in given.items()
            if isinstance(one, dg.ConfigurableResource)
        }
        return {
            **self.__dict__,
            "manager": (type(self.manager), made_of),
            "recover": None,
            "unfinished": None,
            "seen": [],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.environ.update(state["environment"])
        kind, made_of = state["manager"]
        resources = {name: one(**fields) for name, (one, fields) in made_of.items()}
        self.__dict__ = {**state, "manager": kind(**resources)}

    def recorded(self) -> TableState:
        """What the ledger says."""
        return self._truth().ledger_state(self.contract)

    def measured(self) -> TableState | None:
        """What is there."""
        return self._truth().live_state(self.contract)

    def _truth(self) -> TableStore:
        """The online store is judged by PostgreSQL."""
        if isinstance(self.manager, RedisIOManager):
            return PostgresStore(self.manager.postgres)
        return self.manager.table_store()


def table(version: int, rows: int) -> pa.Table:
    """The rows of one version: the same keys, every value of `version` the same."""
    ids = [f"{day}-{n}" for day in range(DAYS) for n in range(rows)]
    moments = [FIRST + timedelta(days=day, seconds=n % 86_400) for day in range(DAYS) for n in range(rows)]
    return pa.table(
        {
            "id": ids,
            "happened_at": pa.array(moments, pa.timestamp("us", "UTC")),
            "version": [version] * len(ids),
            "text": [f"text {version}"] * len(ids),
            "vector": pa.array([[float(version % 97 + 1)] * 8] * len(ids), pa.list_(pa.float32())),
        },
    )


def write_until_killed(store: Store, first: int, pipe: Any) -> None:
    """Write one version after the other, saying when each begins and ends."""
    if store.inside:
        threading.Thread(target=_tell_what_is_seen, args=(store, pipe), daemon=True).start()
    for version in itertools.count(first):
        with stage(table(version, store.rows), store.contract, store.manager.limits, store.window) as staged:
            pipe.send(("begin", version, 0.0))
            begin = time.monotonic()
            store.manager.table_store().write(store.contract, staged)
            pipe.send(("end", version, time.monotonic() - begin))


def _tell_what_is_seen(store: Store, pipe: Any) -> None:
    while True:
        pipe.send(("seen", seen(store), 0.0))


def seen(store: Store) -> set[tuple[int, int, int]]:
    """What a reader sees now: (day, version, rows). Nothing if the table is not there yet."""
    try:
        read = store.manager.table_store().read(store.contract, ["happened_at", "version"], WHOLE).read_all()
    except LookupError:
        return set()
    days = [(moment - FIRST).days for moment in read["happened_at"].to_pylist()]
    pairs = list(zip(days, read["version"].to_pylist(), strict=True))
    return {(day, version, pairs.count((day, version))) for day, version in set(pairs)}


def is_sound(found: set[tuple[int, int, int]], rows: int, whole: bool, fresh: bool) -> bool:
    """Whether every day is there once, with all its rows, and all of one version if `whole`.

    Args:
        fresh: nothing was written before, so nothing may be seen; nor may a day, unless `whole`.
    """
    days = sorted(day for day, _, _ in found)
    complete = days == list(range(DAYS)) or (fresh and (not found or not whole))
    versions = {version for _, version, _ in found}
    return (
        complete
        and len(days) == len(set(days))
        and all(n == rows for _, _, n in found)
        and (len(versions) <= 1 or not whole)
    )


def read_when_told(store: Store, pipe: Any) -> None:
    """Between two messages read all the time, then send what was seen."""
    while True:
        pipe.recv()
        found = []
        while not pipe.poll():
            found.append(seen(store))
        pipe.recv()
        pipe.send(found)


@contextmanager
def reader(store: Store) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """A process that reads while a block is carried out; what it sees is kept."""
    if store.inside:
        yield nullcontext
        return
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=read_when_told, args=(store, theirs))
    process.start()
    theirs.close()

    @contextmanager
    def reading() -> Iterator[None]:
        ours.send("go")
        yield
        ours.send("stop")
        try:
            store.seen += ours.recv()
        except EOFError:
            pytest.fail("the reader died by itself; its message is above")

    try:
        yield reading
    finally:
        process.kill()
        process.join()


@dataclass
class Killed:
    """A writer's end.

    Args:
        begun, ended: the last version that it began to write, and the last one that it had written.
        duration: seconds that its last whole write took; 0 if there was none.
    """

    begun: int
    ended: int
    duration: float = 0.0

    @property
    def inside(self) -> bool:
        """Whether it was killed between begin and end of a write."""
        return self.begun > self.ended


def kill_one(store: Store, first: int, which: int, share: float, usual: float) -> Killed:
    """Start a writer and kill it in its write number `which`, after this share of a write's usual time."""
    ours, theirs = FORK.Pipe()
    writer = FORK.Process(target=write_until_killed, args=(store, first, theirs))
    writer.start()
    theirs.close()
    killed = Killed(first - 1, first - 1)
    try:
        begin = _follow(store, ours, killed, until=first + which)
        usual = killed.duration or usual
        while (rest := begin + share * usual - time.monotonic()) > 0 and ours.poll(rest):
            _note(store, ours.recv(), killed)
    except EOFError:
        pytest.fail("the writer died by itself; its message is above")
    finally:
        writer.kill()
        writer.join()
    with suppress(EOFError, OSError):  # the last message may be cut off
        while ours.poll():
            _note(store, ours.recv(), killed)
    return killed


def _follow(store: Store, pipe: Any, killed: Killed, until: int) -> float:
    """Take in messages until a version begins; returns when that was."""
    while killed.begun < until:
        assert pipe.poll(60), "the writer says nothing"
        _note(store, pipe.recv(), killed)
    return time.monotonic()


def _note(store: Store, message: tuple[str, Any, float], killed: Killed) -> None:
    kind, what, duration = message
    match kind:
        case "seen":
            store.seen.append(what)
        case "begin":
            killed.begun = what
        case _:
            killed.ended, killed.duration = what, duration


@pytest.fixture(
    params=[
        *("duckdb", "postgres", "clickhouse", "clickhouse_server", "chroma", "sqlite", "serving"),
        *(("clickhouse_month", "duckdb_s3") if LONG else ()),
    ]
)
def store(request: pytest.FixtureRequest) -> Store:
    get = request.getfixturevalue
    name = request.param.partition("_")[0]
    looked_up = name == "serving"  # by the key alone
    contract = Contract(
        f"{name}/attacked", "", COLUMNS, ("id",), partition_column="happened_at", unique_across_days=looked_up
    )
    match request.param:
        case "duckdb":
            return Store(DuckLakeIOManager(lake=get("lake")), contract, 500)
        case "duckdb_s3":
            manager = DuckLakeIOManager(lake=get("s3_lake"))
            return Store(manager, contract, 500, environment=get("object_store").environment)
        case "postgres":
            return Store(PostgresIOManager(postgres=get("postgres")), contract, 300)
        case "clickhouse" | "clickhouse_month":
            embedded = get("clickhouse")
            manager = ClickHouseIOManager(clickhouse=embedded)
            # The days are of one month, which is swapped in at once.
            month = request.param == "clickhouse_month"
            contract = replace(contract, stored_by_month=month)
            return Store(manager, contract, 2_000, month, True, recover=lambda: _recover(embedded))
        case "clickhouse_server":
            server = get("clickhouse_server")
            manager = ClickHouseIOManager(clickhouse=server)
            redo = {"recover": lambda: _recover(server), "unfinished": lambda: _unfinished(server)}
            return Store(manager, contract, 2_000, False, **redo)
        case "chroma":
            return Store(ChromaIOManager(chroma=get("chroma"), postgres=get("postgres")), contract, 50)
        case "sqlite":
            return Store(SQLiteIOManager(sqlite=get("sqlite")), contract, 2_000)
        case _:
            return Store(RedisIOManager(redis=get("redis"), postgres=get("postgres")), contract, 300)


def _recover(clickhouse: ClickHouseResource) -> None:
    with clickhouse.client(write=True) as client:
        recover(client, "attacked")


def _unfinished(clickhouse: ClickHouseResource) -> bool:
    with clickhouse.client() as client:
        return "attacked" in interrupted(client)


@pytest.mark.timeout(60 + 6 * KILLS)
def test_a_killed_write_leaves_old_or_new(store: Store, record_property: Any) -> None:
    inside = kill_writers(store, KILLS, record_property)
    assert inside > KILLS / 2


@pytest.mark.timeout(60 + 6 * KILLS)
@pytest.mark.parametrize("shape", ["unpartitioned", "upsert"])
def test_so_does_one_of_another_shape(store: Store, shape: str, record_property: Any) -> None:
    """One EXCHANGE TABLES in ClickHouse; MERGE, ON CONFLICT or rows that stay where others delete and insert."""
    if shape == "upsert":
        # Both modes end in the given rows here, as the keys are always the same ones.
        mode = "upsert_delete" if store.contract.store in ("postgres", "sqlite", "serving") else "upsert"
        store.contract = replace(store.contract, mode=mode)
    else:
        store.contract = replace(store.contract, partition_column=None, stored_by_month=False)
        store.window, store.whole = WHOLE, True
    assert kill_writers(store, max(3, KILLS // 4), record_property)


def kill_writers(store: Store, kills: int, record_property: Callable[[str, object], None]) -> int:
    """Kill so many writers, looking after each; returns how many were inside a write."""
    rng = random.Random(20261123)  # noqa: S311
    version, standing, usual, inside, reads = 1, 0, 0.3, 0, 0
    with reader(store) as reading:
        for _ in range(kills):
            with reading():
                killed = kill_one(store, version, rng.choice([0, 1, 1]), 0.8 * rng.random(), usual)
            inside, usual = inside + killed.inside, killed.duration or usual
            allowed = {killed.ended if killed.ended >= version else standing, killed.begun}
            reads += len(store.seen)
            assert [f for f in store.seen if not is_sound(f, store.rows, store.whole, not standing)] == []
            store.seen.clear()
            expect_sound(store, allowed, store.whole)
            store.recover()
            assert not store.unfinished()
            standing = expect_sound(store, allowed, True)
            version = killed.begun + 1
    with stage(table(version, store.rows), store.contract, store.manager.limits, store.window) as staged:
        store.manager.table_store().write(store.contract, staged)
        expect_sound(store, {version}, True)
    record_property("kills", f"{inside} of {kills} inside the write, {reads} reads meanwhile")
    assert reads > kills
    return inside


def expect_sound(store: Store, versions: set[int], whole: bool) -> int:
    """A reader sees one of these versions, 0 standing for no rows yet, and the ledger says the same.

    The ledger may be ahead of its table while a redo log holds the write.
    """
    found = seen(store)
    assert is_sound(found, store.rows, whole, 0 in versions), found
    shown = {version for _, version, _ in found} or {0}
    assert shown <= versions, (found, versions)
    if whole:
        assert store.recorded() == store.measured() or store.unfinished()
    return max(shown)
