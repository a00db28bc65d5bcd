"""Performance events by the million, generated in the engine: how fast they are recorded and loaded, and what they take.

    record  events a second of CPU time through `stack.performance.record`, on one core
    load    a month of events into ClickHouse, a day a partition
              bare        INSERT SELECT into a MergeTree of the same order with ClickHouse's own codecs: no check, no
                          staging, no hash, and nothing to undo it
              arrow       the same rows out of the engine and in again through clickhouse-connect's insert_arrow
              ours        our write: every row checked, hashed, spooled, staged, counted, and swapped in day by day
              again       our write of the same rows, which changes nothing
            all from one table of generated events, one after the other on one engine, with the bytes a row of each
    trend, refresh   see benchmarks/performance_trends.py; they run on their own as well

    python -m benchmarks.performance [SECTION ...]      record and load if none is named

Drift has benchmarks/drift.py, which takes a Python that has Evidently, and regressions benchmarks/regressions.py.

ML_ASSETS_BENCH_EVENTS sets the events of a load (5,000,000 by default; 100,000,000 need 60 GB of disk below TMPDIR, 4 GB
of memory and most of an hour), ML_ASSETS_BENCH_RECORDED those that are recorded (300,000).
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks import performance_trends
from benchmarks.limits import finish, within
from ml_assets.contracts import Contract, tables
from ml_assets.lib.sql import quote_identifier
from ml_assets.operations.performance_record import Recorder
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.stores.clickhouse.ddl import create_statement
from ml_assets.stores.clickhouse.stream import arrow_stream
from ml_assets.tables.arrow_types import arrow_schema, recast
from ml_assets.tables.staging import stage

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

EVENTS = int(os.environ.get("ML_ASSETS_BENCH_EVENTS", "5000000"))
RECORDED = int(os.environ.get("ML_ASSETS_BENCH_RECORDED", "300000"))
DAYS = 30
MODELS = 20
LEAST_RECORDED = 100_000
"""Events a second of one core, in calls of 100."""

_EPOCH_US = 1_764_547_200_000_000

GENERATED = {
    "event_id": "lower(hex(MD5(toString(number))))",
    "kind": "if(dice % 100 = 0, 'evaluation', 'inference')",
    "timestamp": (
        f"fromUnixTimestamp64Micro(toInt64({_EPOCH_US} + intDiv(number * 86400000000 * {{days}}, {{events}}) "
        "+ dice % 900000), 'UTC')"
    ),
    "model_name": "concat('model-', toString(model))",
    "model_version": "concat('v', toString(intDiv(number * 6, {events}) + model % 3))",
    "experiment": "concat('experiment-', toString(model % 5))",
    "run_id": "concat('run-', lower(hex(MD5(concat(model_name, model_version)))))",
    "accuracy": "toFloat64OrNull(if(kind = 'evaluation', toString(round(0.9 + randNormal(0, 0.01), 4)), ''))",
    "precision": "accuracy",
    "recall": "accuracy",
    "f1_score": "accuracy",
    "inference_time_ms": "round(randLogNormal(1, 0.5) * (1 + model * 0.1), 4)",
    "memory_usage_mb": "round(200 + model * 10 + randNormal(0, 3), 1)",
    "batch_size": "toInt64([1, 8, 16, 32, 64][1 + other_dice % 5])",
    "model_type": "['random_forest', 'mlp', 'boosting', 'linear'][1 + model % 4]",
    "dataset": "['digits', 'wine', 'iris', 'cifar10', 'diabetes', 'news'][1 + model % 6]",
    "trained_accuracy": "0.9 + model * 0.001",
    "model_age_s": f"(toUnixTimestamp64Micro(timestamp) - {_EPOCH_US}) / 1e6 + 86400",
}
"""What is known of an event, in ClickHouse's SQL; some models are asked much more than others."""


def generated(contract: Contract, events: int, days: int = DAYS) -> str:
    """A SELECT that makes events in the columns of a contract, evenly over some days, the first of them 2025-12-01."""
    made = ", ".join(
        f"{sql.format(events=events, days=days)} AS {name}"
        for name, sql in GENERATED.items()
        if name in contract.by_name
    )
    chosen = ", ".join(name if name in GENERATED else f"NULL AS {name}" for name in contract.names)
    numbers = (
        f"SELECT number, rand(1) AS dice, rand(2) AS other_dice, "
        f"toUInt8({MODELS} * pow(rand(3) / 4294967296, 2)) AS model FROM numbers({events})"
    )
    return f"SELECT {chosen} FROM (SELECT {made} FROM ({numbers}))"


@dataclass(frozen=True)
class Load:
    """One way to load, measured."""

    name: str
    seconds: float
    bytes_a_row: float | None
    memory_mb: float


def record() -> None:
    """Events a second of CPU time, by how many are given in a call."""
    table = Table(
        "events a call", "with ids", "without", title=f"Recorded a second of one core, {RECORDED:,} events"
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for size in (1, 100, 10_000):
        rates = []
        for ids in (True, False):
            events = [
                {
                    "kind": "inference",
                    "timestamp": at + timedelta(milliseconds=n),
                    "model_name": "forest",
                    "model_version": "3",
                    "run_id": "run-1",
                    "inference_time_ms": n % 977 / 7,
                    "memory_usage_mb": 120.5,
                    "batch_size": 8,
                    **({"event_id": f"{n:032x}"} if ids else {}),
                }
                for n in range(RECORDED if size > 1 else RECORDED // 3)
            ]
            with (
                tempfile.TemporaryDirectory(prefix="mla-bench-") as folder,
                Recorder(Path(folder)) as recorder,
            ):
                start = time.process_time()
                for first in range(0, len(events), size):
                    recorder.record(events[first : first + size])
                recorder.flush()
                rates.append(len(events) / (time.process_time() - start))
            if size == 100:
                within(f"recorded{' with ids' if ids else ''}", rates[-1], LEAST_RECORDED, at_least=True)
        table.add_row(f"{size:,}", *(f"{rate:,.0f}" for rate in rates))
    Console().print(table)


def load() -> None:
    """Rows a second and bytes a row of each way to load."""
    contract = tables(Settings())["clickhouse/ml_model_performance"]
    with tempfile.TemporaryDirectory(prefix="mla-bench-") as folder:
        clickhouse = ClickHouseResource(home=folder, write_timeout_s=36_000)
        with clickhouse.client(write=True) as client:
            client.command("SET max_partitions_per_insert_block = 0")
            columns = create_statement(contract)
            client.command(columns)  # the form of all others; ours is the last to be filled
            for name in ("source", "bare", "arrow"):
                plain = f"CREATE TABLE {name} AS {contract.table}"
                client.command(plain)
                _reset_codecs(client, name)
            start = time.perf_counter()
            client.command(f"INSERT INTO source {generated(contract, EVENTS)}")
            print(f"generated {EVENTS:,} events in {time.perf_counter() - start:.1f} s", flush=True)
            found = [
                _measured(client, "bare", lambda: client.command("INSERT INTO bare SELECT * FROM source")),
                _measured(client, "arrow", lambda: _insert_arrow(client, contract)),
            ]
        store = ClickHouseStore(clickhouse)

        def write(expected: bool) -> None:
            with (
                clickhouse.client(write=True) as client,
                arrow_stream(client, "SELECT * FROM source") as batches,
            ):
                schema = arrow_schema(contract)
                rows = (row for each in batches for row in recast(_reader(each), schema))
                with closing(
                    stage(pa.RecordBatchReader.from_batches(schema, rows), contract, store.limits)
                ) as staged:
                    assert store.write(contract, staged).changed == expected

        with clickhouse.client(write=True) as client:
            found.append(_measured(client, "ours", lambda: write(True), contract.table))
            found.append(_measured(client, "again", lambda: write(False), contract.table))
            assert store.live_state(contract).rows == EVENTS
    table = Table("load", "seconds", "rows a second", "of bare", "bytes a row", "memory, MB")
    for each in found:
        table.add_row(
            each.name,
            f"{each.seconds:.1f}",
            f"{EVENTS / each.seconds:,.0f}",
            f"{found[0].seconds / each.seconds:.2f}",
            f"{each.bytes_a_row:.1f}",
            f"{each.memory_mb:,.0f}",
        )
    Console().print(table)


def _reset_codecs(client: "Client", table: str) -> None:
    given = client.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
        "AND compression_codec <> ''",
        parameters={"table": table},
    ).result_rows
    removed = [f"MODIFY COLUMN {quote_identifier(name)} REMOVE CODEC" for (name,) in given]
    client.command(f"ALTER TABLE {table} {', '.join(removed)}, RESET SETTING default_compression_codec")


def _insert_arrow(client: "Client", contract: Contract) -> None:
    with arrow_stream(client, "SELECT * FROM source") as batches:
        for batch in batches:
            rows = pa.Table.from_batches(list(recast(_reader(batch), arrow_schema(contract))))
            client.insert_arrow("arrow", rows, settings={"max_partitions_per_insert_block": 0})


def _reader(batch: pa.RecordBatch) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(batch.schema, [batch])


def _measured(client: "Client", name: str, work: Callable[[], Any], table: str = "") -> Load:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    memory = psutil.Process().memory_info().rss / 1e6
    for (partition,) in client.query(
        "SELECT DISTINCT partition_id FROM system.parts WHERE database = currentDatabase() AND active "
        "AND table = {table:String}",
        parameters={"table": table or name},
    ).result_rows:
        client.command(f"OPTIMIZE TABLE {table or name} PARTITION ID '{partition}' FINAL")
    found = client.query(
        "SELECT sum(data_compressed_bytes) FROM system.parts WHERE database = currentDatabase() AND active "
        "AND table = {table:String}",
        parameters={"table": table or name},
    ).result_rows
    print(f"{name}: {seconds:.1f} s", flush=True)
    return Load(name, seconds, found[0][0] / EVENTS, memory)


OWN = ("record", "load")
SECTIONS: dict[str, Callable[[], None]] = {
    "record": record,
    "load": load,
    "trend": lambda: performance_trends.main(["trend"]),
    "refresh": lambda: performance_trends.main(["refresh"]),
}


def main(names: list[str]) -> None:
    """Run some sections, or those of this module."""
    if unknown := [name for name in names if name not in SECTIONS]:
        sys.exit(f"There is no section {unknown[0]!r}: choose from {', '.join(SECTIONS)}.")
    for name in names or OWN:
        SECTIONS[name]()
    finish()


if __name__ == "__main__":
    main(sys.argv[1:])
