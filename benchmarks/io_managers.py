"""How fast the IO managers are, each number a ratio to something measured in the same run on the same rows.

    transport   our way of bringing Arrow batches into the store, without checks, to the raw client's best
    write       the whole of it, with checks, content hash and ledger, to the raw client's best
    by row      the same to one INSERT a row
    read        reading back as Arrow, to the raw client's best
    memory      peak above rest while a stream of rows is written, whatever its length

DuckLake is also set against dagster-duckdb's own IO manager writing a native DuckDB file: one day of many,
and the whole table; then what is left of the old rows when a write fails half-way.

Where a client has several ways to load in bulk, the fastest of them in this run is `raw`.

ML_ASSETS_BENCH_ROWS sets the rows (1,000,000 by default), ML_ASSETS_BENCH_STREAM those of the memory run
(10,000,000 for each of three stores). The exit status is 1 if a goal is missed.
"""

import io
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import dagster as dg
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
from dagster._core.storage.db_io_manager import DbTypeHandler
from dagster_duckdb import DuckDBIOManager
from rich.console import Console
from rich.table import Table

from benchmarks.limits import finish, within
from ml_assets import services
from ml_assets.contracts import PERFORMANCE_COLUMNS, Column, Contract
from ml_assets.io_managers import chroma, clickhouse, duckdb, postgres, redis, sqlite
from ml_assets.io_managers.base import TableIOManager
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.stores import postgres_table
from ml_assets.stores.chroma.collections import ChromaCollections, ensure_collection
from ml_assets.stores.clickhouse import ddl as clickhouse_ddl
from ml_assets.stores.clickhouse import write as clickhouse_write
from ml_assets.stores.duckdb.ddl import create_statements, table_sql
from ml_assets.stores.duckdb.rows import insert
from ml_assets.stores.redis import copies
from ml_assets.stores.sqlite.write import ensure_table as sqlite_ensure_table
from ml_assets.stores.sqlite.write import insert as sqlite_insert
from ml_assets.stores.vectors.write import bring
from ml_assets.tables.arrow_types import BATCH_ROWS, arrow_schema
from ml_assets.tables.staging import PartitionState, Staged, stage
from ml_assets.tables.validation import WHOLE

ROWS = int(os.environ.get("ML_ASSETS_BENCH_ROWS", "1000000"))
STREAM_ROWS = int(os.environ.get("ML_ASSETS_BENCH_STREAM", "10000000"))
DAYS = 10
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
REPEATS = 5
"""Single runs scatter by a tenth on an idle machine."""
PEER_REPEATS = 9
"""Single runs of one day scatter by a fifth."""
MEMORY_MB = 600.0
BY_ROW = 100


def main() -> None:
    """Run everything and print one table."""
    report = Table("store", "what", "rows/s", "against", "rows/s", "ratio", "goal")
    with tempfile.TemporaryDirectory(prefix="mla-bench-") as home:
        try:
            for bench in _benches(home):
                bench.run(report)
            _against_dagster_duckdb(home, report)
            _streams(home, report)
        finally:
            services.stop_all(Path(home))
    Console(width=120).print(report)


@dataclass
class Bench:
    """One store.

    Args:
        manager: what is measured.
        rows: how many; the slow stores get fewer.
        raw: the client's ways in bulk by name: each takes a table and a fresh contract, ends committed.
        transport: our way, from batches to committed, without checks and ledger.
        by_row: one INSERT a row, for some rows.
        raw_read: everything as Arrow, the client's best way.
        columns: of the table.
    """

    manager: TableIOManager
    rows: int
    raw: dict[str, Callable[[pa.Table, Contract], None]]
    transport: Callable[[pa.Table, Contract], None]
    by_row: Callable[[list[dict[str, Any]], Contract], None]
    raw_read: Callable[[Contract], int]
    columns: tuple[Column, ...] = PERFORMANCE_COLUMNS

    def run(self, report: Table) -> None:
        """Measure, each thing in turn, a different one first each time, and take the median of the ratios' parts."""
        rows = _table(self.rows, self.columns)
        speeds: dict[str, list[float]] = {}

        def measure(what: str, work: Callable[[], Any]) -> None:
            speeds.setdefault(what, []).append(_speed(self.rows, work))

        ways = {**self.raw, "transport": self.transport, "write": self._write}
        names = list(ways)
        for n in range(REPEATS):
            made = {name: self._contract(f"way{number}_{n}") for number, name in enumerate(names)}
            # Whoever comes later finds more tables, and what the one before has left to be done.
            for name in names[n % len(names) :] + names[: n % len(names)]:
                measure(name, lambda way=ways[name], c=made[name]: way(rows, c))
            measure("raw read", lambda c=made["write"]: self.raw_read(c))
            measure("read", lambda c=made["write"]: self._read(c))
        few = rows.slice(0, BY_ROW).to_pylist()
        single = _speed(BY_ROW, lambda: self.by_row(few, self._contract("by_row")))
        middle = {name: statistics.median(found) for name, found in speeds.items()}
        store, best = self.manager.store, max(self.raw, key=middle.__getitem__)
        _line(report, store, "transport", middle["transport"], best, middle[best], 0.9)
        _line(report, store, "write", middle["write"], best, middle[best], 0.6)
        _line(report, store, "write", middle["write"], "one INSERT a row", single, 200)
        _line(report, store, "read", middle["read"], "raw client", middle["raw read"], 0.9)

    def _contract(self, name: str) -> Contract:
        table = f"bench_{self.manager.store}_{name}"
        # Rows that are looked up by their key alone lie in a table without days.
        daily = self.columns is PERFORMANCE_COLUMNS and self.manager.store != "serving"
        key, day = self.columns[0].name, "timestamp" if daily else None
        order = ("model_name", "timestamp") if day else ()
        return Contract(f"{self.manager.store}/{table}", "", self.columns, (key,), day, order)

    def _write(self, rows: pa.Table, contract: Contract) -> None:
        with stage(rows, contract, self.manager.limits) as staged:
            assert self.manager.table_store().write(contract, staged)

    def _read(self, contract: Contract) -> int:
        reader = self.manager.table_store().read(contract, contract.names, WHOLE)
        return sum(batch.num_rows for batch in reader)


def _speed(rows: int, work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return rows / (time.perf_counter() - start)


def _line(report: Table, store: str, what: str, ours: float, peer: str, theirs: float, goal: float) -> None:
    ratio = ours / theirs
    reached = within(f"{store} {what} against {peer}", ratio, goal, at_least=True)
    verdict = f">= {goal:g}" if reached else f"[red]>= {goal:g} missed"
    report.add_row(store, what, f"{ours:,.0f}", peer, f"{theirs:,.0f}", f"{ratio:.2f}", verdict)


def _table(rows: int, columns: tuple[Column, ...] = PERFORMANCE_COLUMNS) -> pa.Table:
    """Rows like real ones: ids that are all different, models that are few, ten days."""
    import duckdb as engine

    with engine.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sql = _EVENTS if columns is PERFORMANCE_COLUMNS else _VECTORS
        return connection.execute(sql, {"rows": rows, "step": DAYS * 86_400_000_000 // rows}).to_arrow_table()


_EVENTS = """
SELECT uuid()::VARCHAR AS event_id, ['evaluation', 'inference'][1 + i % 2] AS kind,
    TIMESTAMPTZ '2026-01-01' + to_microseconds(i * $step) AS timestamp, 'model_' || i % 20 AS model_name,
    'v' || i % 5 AS model_version, 'experiment_' || i % 7 AS experiment, md5((i % 1000)::VARCHAR) AS run_id,
    random() AS accuracy, random() AS "precision", random() AS recall, random() AS f1_score,
    random() * 100 AS inference_time_ms, random() * 1000 AS memory_usage_mb, i % 64 AS batch_size
FROM range($rows) AS numbers (i)
"""
_VECTORS = """
SELECT 'chunk-' || i AS id, [random()::FLOAT + $step * 0 FOR x IN range(384)] AS embedding,
    'a passage of text, number ' || i AS text, '{"section":"' || i % 9 || '"}' AS metadata
FROM range($rows) AS numbers (i)
"""
VECTOR_COLUMNS = (
    Column("id", "string", nullable=False),
    Column("embedding", "vector", nullable=False, dimension=384),
    Column("text", "string", nullable=False),
    Column("metadata", "json"),
)


# --- the stores -------------------------------------------------------------------------------------


def _benches(home: str) -> list[Bench]:
    server = PostgresResource(home=home)
    return [
        _ducklake(DuckLakeResource(home=home)),
        _clickhouse(ClickHouseResource(home=home)),
        _postgres(server),
        _sqlite(SQLiteResource(home=home)),
        _chroma(ChromaResource(home=home), server),
        _serving(RedisResource(home=home), server),
    ]


def _unchecked(rows: pa.Table, contract: Contract) -> Staged:
    """Rows as if they had been staged."""
    states = {0: PartitionState(rows.num_rows, 0, "")}
    batches = rows.cast(arrow_schema(contract)).to_batches(max_chunksize=BATCH_ROWS)
    return Staged(contract, WHOLE, states, cast("Any", batches))


def _ducklake(lake: DuckLakeResource) -> Bench:
    def raw(rows: pa.Table, contract: Contract) -> None:
        with lake.get_connection(write=True) as connection:
            connection.execute("BEGIN")
            for statement in create_statements(contract):
                connection.execute(statement)
            connection.execute(f"INSERT INTO {table_sql(contract)} BY NAME SELECT * FROM rows")
            connection.execute("COMMIT")

    def transport(rows: pa.Table, contract: Contract) -> None:
        with lake.get_connection(write=True) as connection:
            connection.execute("BEGIN")
            for statement in create_statements(contract):
                connection.execute(statement)
            insert(connection, contract, _unchecked(rows, contract), {0})
            connection.execute("COMMIT")

    def by_row(rows: list[dict[str, Any]], contract: Contract) -> None:
        marks = ", ".join("?" * len(contract.columns))
        with lake.get_connection(write=True) as connection:
            for statement in create_statements(contract):
                connection.execute(statement)
            for row in rows:
                connection.execute(f"INSERT INTO {table_sql(contract)} VALUES ({marks})", list(row.values()))

    def read(contract: Contract) -> int:
        with lake.get_connection() as connection:
            return connection.execute(f"FROM {table_sql(contract)}").to_arrow_table().num_rows

    return Bench(duckdb.DuckLakeIOManager(lake=lake), ROWS, {"raw client": raw}, transport, by_row, read)


def _clickhouse(store: ClickHouseResource) -> Bench:
    # `insert_df` is left out: measured a third of `insert_arrow`.
    def arrow(rows: pa.Table, contract: Contract) -> None:
        with store.client(write=True) as client:
            client.command(clickhouse_ddl.create_statement(contract))
            client.insert_arrow(contract.table, rows)

    def file(kind: str, write: Callable[[pa.Table, str], None], rows: pa.Table, contract: Contract) -> None:
        """Only the embedded engine has files in common with us."""
        with store.client(write=True) as client, tempfile.NamedTemporaryFile() as target:
            client.command(clickhouse_ddl.create_statement(contract))
            write(rows, target.name)
            client.command(f"INSERT INTO {contract.table} SELECT * FROM file('{target.name}', {kind})")

    raw = {
        "insert_arrow": arrow,
        "Parquet by file()": partial(file, "Parquet", pyarrow.parquet.write_table),
        "Arrow by file()": partial(
            file, "Arrow", partial(pyarrow.feather.write_feather, compression="uncompressed")
        ),
    }

    def transport(rows: pa.Table, contract: Contract) -> None:
        with store.client(write=True) as client:
            client.command(clickhouse_ddl.create_statement(contract))
            clickhouse_write.fill(store, client, contract.table, contract, _unchecked(rows, contract), {0})

    def by_row(rows: list[dict[str, Any]], contract: Contract) -> None:
        with store.client(write=True) as client:
            client.command(clickhouse_ddl.create_statement(contract))
            for row in rows:
                client.insert(contract.table, [list(row.values())], column_names=list(row))

    def read(contract: Contract) -> int:
        with store.client(write=True) as client:
            return client.query_arrow(f"SELECT * FROM {contract.table}", use_strings=True).num_rows

    return Bench(clickhouse.ClickHouseIOManager(clickhouse=store), ROWS, raw, transport, by_row, read)


def _create(connection: Any, contract: Contract) -> None:
    for statement in postgres_table.create_statements(contract):
        connection.execute(statement)


def _postgres_raw(connection: Any, rows: pa.Table, contract: Contract) -> None:
    """The fastest bulk load through psycopg that we know: all rows as CSV by pyarrow, then one COPY."""
    _create(connection, contract)
    text = io.BytesIO()
    pyarrow.csv.write_csv(rows, text, pyarrow.csv.WriteOptions(include_header=False))
    statement = f"COPY {contract.table} FROM STDIN (FORMAT csv)".encode()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(text.getbuffer())


def _postgres_read(store: PostgresResource, contract: Contract) -> int:
    schema = arrow_schema(contract)
    statement = f"COPY {contract.table} TO STDOUT (FORMAT csv)".encode()
    with (
        store.connect(write=True) as connection,
        connection.cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        text = b"".join(copy)
    options = pyarrow.csv.ConvertOptions(column_types=schema, strings_can_be_null=True, null_values=[""])
    names = pyarrow.csv.ReadOptions(column_names=schema.names)
    return pyarrow.csv.read_csv(io.BytesIO(text), names, convert_options=options).num_rows


def _postgres(store: PostgresResource) -> Bench:
    def raw(rows: pa.Table, contract: Contract) -> None:
        with store.connect(write=True) as connection:
            _postgres_raw(connection, rows, contract)

    def transport(rows: pa.Table, contract: Contract) -> None:
        with store.connect(write=True) as connection:
            _create(connection, contract)
            postgres_table.copy_in(
                connection, contract.table, contract, rows.to_batches(max_chunksize=BATCH_ROWS)
            )

    def by_row(rows: list[dict[str, Any]], contract: Contract) -> None:
        with store.connect(write=True) as connection:
            _create(connection, contract)
            connection.commit()
            marks = ", ".join(["%s"] * len(contract.columns))
            for row in rows:
                postgres_table.run(
                    connection, f"INSERT INTO {contract.table} VALUES ({marks})", list(row.values())
                )
                connection.commit()

    manager = postgres.PostgresIOManager(postgres=store)
    return Bench(
        manager, ROWS // 4, {"raw client": raw}, transport, by_row, lambda c: _postgres_read(store, c)
    )


def _sqlite(store: SQLiteResource) -> Bench:
    def create(connection: Any, contract: Contract) -> str:
        sqlite_ensure_table(connection, contract)
        return f"INSERT INTO {contract.table} VALUES ({', '.join('?' * len(contract.columns))})"

    def raw(rows: pa.Table, contract: Contract) -> None:
        plain = rows.set_column(
            2,
            "timestamp",
            pc.call_function("strftime", [rows["timestamp"]], pc.StrftimeOptions("%Y-%m-%dT%H:%M:%SZ")),
        )
        with store.connect(write=True) as connection:
            columns = [column.to_pylist() for column in plain.columns]
            connection.executemany(create(connection, contract), zip(*columns, strict=True))

    def transport(rows: pa.Table, contract: Contract) -> None:
        with store.connect(write=True) as connection:
            create(connection, contract)
            sqlite_insert(connection, contract.table, contract, _unchecked(rows, contract), None)

    def by_row(rows: list[dict[str, Any]], contract: Contract) -> None:
        import sqlite3

        with store.connect(write=True) as connection:
            insert = create(connection, contract)
        with sqlite3.connect(store.path, isolation_level=None) as connection:
            for row in rows:
                connection.execute(insert, [str(v) if isinstance(v, datetime) else v for v in row.values()])

    def read(contract: Contract) -> int:
        with store.connect() as connection:
            cells = connection.execute(f"SELECT * FROM {contract.table}").fetchall()
        arrays = [pa.array(list(column)) for column in zip(*cells, strict=True)]
        arrays[2] = pc.cast(arrays[2], pa.timestamp("us", "UTC"))
        return len(arrays[0])

    return Bench(
        sqlite.SQLiteIOManager(sqlite=store), ROWS // 4, {"raw client": raw}, transport, by_row, read
    )


def _chroma(store: ChromaResource, server: PostgresResource) -> Bench:
    def raw(rows: pa.Table, contract: Contract) -> None:
        client = store.client(write=True)
        collection = ensure_collection(client, contract)
        for batch in rows.to_batches(max_chunksize=client.get_max_batch_size()):
            flat = batch.column("embedding").flatten().to_numpy()
            collection.add(
                ids=batch.column("id").to_pylist(),
                embeddings=flat.reshape(batch.num_rows, -1),
                documents=batch.column("text").to_pylist(),
                metadatas=[{"metadata": text} for text in batch.column("metadata").to_pylist()],
            )

    def transport(rows: pa.Table, contract: Contract) -> None:
        collection = ChromaCollections(store.client(write=True)).ensure(contract)
        for _ in bring(collection, contract, _unchecked(rows, contract), {0}, set(), set()):
            pass

    def by_row(rows: list[dict[str, Any]], contract: Contract) -> None:
        collection = ensure_collection(store.client(write=True), contract)
        for row in rows:
            collection.add(ids=[row["id"]], embeddings=[row["embedding"]], documents=[row["text"]])

    def read(contract: Contract) -> int:
        collection = ensure_collection(store.client(write=True), contract)
        got = collection.get(include=["embeddings", "documents", "metadatas"])
        return len(pa.array(list(got["embeddings"] if got["embeddings"] is not None else [])))

    manager = chroma.ChromaIOManager(chroma=store, postgres=server)
    return Bench(manager, min(ROWS, 10_000), {"raw client": raw}, transport, by_row, read, VECTOR_COLUMNS)


def _serving(store: RedisResource, server: PostgresResource) -> Bench:
    def fill(connection: Any, contract: Contract) -> None:
        if (cache := store.client()) is not None:
            copies.copy_rows(cache, copies.pointer_of(contract), connection, contract)

    def raw(rows: pa.Table, contract: Contract) -> None:
        with server.connect(write=True) as connection:
            _postgres_raw(connection, rows, contract)
        cache = store.client()
        if cache is None:
            return
        for start in range(0, rows.num_rows, 5_000):
            part = rows.slice(start, 5_000).to_pylist()
            cache.hset("raw", mapping={row["event_id"]: json.dumps(row, default=str) for row in part})

    def transport(rows: pa.Table, contract: Contract) -> None:
        with server.connect(write=True) as connection:
            _create(connection, contract)
            postgres_table.copy_in(
                connection, contract.table, contract, rows.to_batches(max_chunksize=BATCH_ROWS)
            )
            fill(connection, contract)

    manager = redis.RedisIOManager(redis=store, postgres=server)
    by_row = _postgres(server).by_row
    return Bench(
        manager,
        min(ROWS, 50_000),
        {"raw client": raw},
        transport,
        by_row,
        lambda c: _postgres_read(server, c),
    )


# --- dagster-duckdb ---------------------------------------------------------------------------------


class _Pandas(DbTypeHandler):
    """What dagster-duckdb-pandas does, statement for statement; the package itself is not a dependency."""

    def handle_output(self, context: dg.OutputContext, table_slice: Any, obj: Any, connection: Any) -> None:
        name = f"{table_slice.schema}.{table_slice.table}"
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name} AS SELECT * FROM obj")
        if not connection.fetchall():
            connection.execute(f"INSERT INTO {name} SELECT * FROM obj")

    def load_input(self, context: dg.InputContext, table_slice: Any, connection: Any) -> Any:
        raise NotImplementedError  # its writes alone are measured

    @property
    def supported_types(self) -> list[type]:
        import pandas as pd

        return [pd.DataFrame]


class _Native(DuckDBIOManager):
    @staticmethod
    def type_handlers() -> list[DbTypeHandler]:
        return [_Pandas()]


def _against_dagster_duckdb(home: str, report: Table) -> None:
    """One day of many and all of them, from the same DataFrame; then what failures leave behind."""
    frame = _table(ROWS).to_pandas()
    day = frame[(frame["timestamp"] >= FIRST) & (frame["timestamp"] < FIRST + timedelta(days=1))]
    lake = DuckLakeResource(home=home)
    contract = Contract(
        "duckdb/peer", "", PERFORMANCE_COLUMNS, ("event_id",), "timestamp", ("model_name", "timestamp")
    )
    managers = {
        "ours": duckdb.DuckLakeIOManager(lake=lake, contracts={contract.asset: contract}),
        "peer": _Native(database=str(Path(home) / "peer.duckdb")),
    }
    speeds: dict[tuple[str, str], list[float]] = {}
    for n in range(PEER_REPEATS):
        for name, manager in managers.items():
            # Other values each time: what has not changed is not written again by ours.
            for what, rows, days in (("whole load", frame, DAYS), ("one day", day, 1)):
                changed = rows.assign(memory_usage_mb=rows["memory_usage_mb"] + n + 1 + days)
                with dg.DagsterInstance.ephemeral() as instance:
                    work = partial(_materialize, manager, changed, days, instance)
                    speeds.setdefault((name, what), []).append(_speed(len(rows), work))
    for what, goal in (("one day", 1.0), ("whole load", 0.7)):
        ours, theirs = (statistics.median(speeds[name, what]) for name in ("ours", "peer"))
        _line(report, "duckdb", f"{what}, as an asset", ours, "dagster-duckdb", theirs, goal)
    _failures(managers, day, report)


def _materialize(manager: Any, rows: Any, days: int, instance: dg.DagsterInstance) -> bool:
    @dg.asset(
        key=["duckdb", "peer"],
        partitions_def=dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-02-01", timezone="UTC"),
        metadata={"partition_expr": "timestamp"},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def peer() -> Any:
        return rows

    last = (FIRST + timedelta(days=days - 1)).date().isoformat()
    tags = {"dagster/asset_partition_range_start": "2026-01-01", "dagster/asset_partition_range_end": last}
    return dg.materialize(
        [peer], resources={"io_manager": manager}, instance=instance, tags=tags, raise_on_error=False
    ).success


def _failures(managers: dict[str, Any], day: Any, report: Table) -> None:
    """Rows of the first day after a write that should have changed nothing, or should have emptied it."""
    cases = {
        "a value of the wrong type": (day.assign(batch_size="many"), len(day)),
        "columns in another order": (day[list(reversed(day.columns))], len(day)),
        "an empty result": (day.head(0), 0),
    }
    for label, (rows, expected) in cases.items():
        for name, manager in managers.items():
            with dg.DagsterInstance.ephemeral() as instance:
                _materialize(manager, day, 1, instance)
                success = _materialize(manager, rows, 1, instance)
            count, models = _first_day(name, manager)
            good = count == expected and models
            outcome = f"{count:,} rows, {'run fails' if not success else 'run passes'}"
            who = "ours" if name == "ours" else "dagster-duckdb"
            if name == "ours":
                within(f"duckdb after {label}: right", float(good), 1, at_least=True)
            report.add_row("duckdb", label, "", who, outcome, "", "right" if good else "[red]wrong")


def _first_day(name: str, manager: Any) -> tuple[int, bool]:
    """Rows of the first day, and whether model names still stand in their column."""
    where = "timestamp::VARCHAR >= '2026-01-01' AND timestamp::VARCHAR < '2026-01-02'"
    select = (
        "SELECT count(*), coalesce(bool_and(model_name::VARCHAR LIKE 'model_%'), true) FROM {} WHERE " + where
    )
    if name == "ours":
        with manager.lake.get_connection() as connection:
            return connection.execute(select.format("lake.features.peer")).fetchall()[0]
    import duckdb as engine

    # As dagster-duckdb opens it: its connections stay open after an error, and all must be configured alike.
    with engine.connect(manager.database, config={"custom_user_agent": "dagster"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(select.format("duckdb.peer")).fetchall()[0]


# --- memory -----------------------------------------------------------------------------------------


def _streams(home: str, report: Table) -> None:
    """Peak memory above rest while a stream of rows is written, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    rows = STREAM_ROWS
    for store in ("duckdb", "clickhouse", "postgres"):
        ours, theirs = context.Pipe()
        process = context.Process(target=_write_stream, args=(home, store, rows, theirs))
        process.start()
        theirs.close()
        peak, seconds = ours.recv()
        process.join()
        kept = within(f"{store} memory of a stream of {rows:,}, MB", peak, MEMORY_MB)
        verdict = f"<= {MEMORY_MB:g}" if kept else f"[red]<= {MEMORY_MB:g} missed"
        report.add_row(
            store,
            f"stream of {rows:,}",
            f"{rows / seconds:,.0f}",
            "MB above rest",
            f"{peak:,.0f}",
            "",
            verdict,
        )


def _write_stream(home: str, store: str, rows: int, pipe: Any) -> None:
    manager: TableIOManager = {
        "duckdb": lambda: duckdb.DuckLakeIOManager(lake=DuckLakeResource(home=home)),
        "clickhouse": lambda: clickhouse.ClickHouseIOManager(clickhouse=ClickHouseResource(home=home)),
        "postgres": lambda: postgres.PostgresIOManager(postgres=PostgresResource(home=home)),
    }[store]()
    contract = Contract(
        f"{store}/stream", "", PERFORMANCE_COLUMNS, ("event_id",), "timestamp", ("model_name", "timestamp")
    )
    few = _table(BATCH_ROWS)
    # Everything is imported and opened once, and nothing of size was written: this is rest.
    with stage(few.slice(0, 10), contract, manager.limits) as staged:
        manager.table_store().write(contract, staged)
    rest = psutil.Process().memory_info().rss
    peak, done = [rest], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], psutil.Process().memory_info().rss)

    threading.Thread(target=watch, daemon=True).start()
    start = time.perf_counter()
    reader = pa.RecordBatchReader.from_batches(few.schema, _stream(few, rows))
    with stage(reader, contract, manager.limits) as staged:
        manager.table_store().write(contract, staged)
    seconds = time.perf_counter() - start
    done.set()
    pipe.send(((peak[0] - rest) / 2**20, seconds))


def _stream(few: pa.Table, rows: int) -> Iterator[pa.RecordBatch]:
    """The same batch with new ids and later times, so that the source itself costs little."""
    (batch,) = few.combine_chunks().to_batches()
    first_us, step_us = int(FIRST.timestamp()) * 1_000_000, DAYS * 86_400_000_000 // rows
    for start in range(0, rows, BATCH_ROWS):
        count = min(BATCH_ROWS, rows - start)
        numbers = pa.array(np.arange(start, start + count))
        ids = pc.cast(numbers, pa.string())
        times = pa.array(np.arange(start, start + count) * step_us + first_us).cast(pa.timestamp("us", "UTC"))
        arrays = [
            ids,
            batch.column(1).slice(0, count),
            times,
            *(c.slice(0, count) for c in batch.columns[3:]),
        ]
        yield pa.RecordBatch.from_arrays(arrays, names=few.schema.names)


if __name__ == "__main__":
    main()
    finish()
