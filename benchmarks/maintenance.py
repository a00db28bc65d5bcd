"""A month of hourly overwrites, then maintenance: at most 1.5 times the disk of one fresh load.

30 days of one table, each overwritten 24 times with other rows, in each store that keeps files. Nothing is
tidied meanwhile, so this is the worst case; then maintenance runs as it does on the night after the retention
has passed, and on the night after that, when what was in use is deleted, too. The peer is the same store,
loaded once with the rows that are there at the end.

Repeat with `python -m benchmarks maintenance`.
"""

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ml_assets import services
from ml_assets.contracts import Column, Contract
from ml_assets.maintenance import run
from ml_assets.resources import store_resources
from ml_assets.settings import Settings
from ml_assets.stores.files import folder_bytes
from ml_assets.stores.registry import stores
from ml_assets.tables.staging import stage
from ml_assets.tables.store import Retention
from ml_assets.tables.validation import Window

LIMIT = 1.5
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
"""Long ago: Dagster has no partitions of days to come, and `benchmarks.soak` passes a year of them."""

RETENTION = Retention(versions=timedelta(days=7))
VECTOR = Column("vector", "vector", nullable=False, dimension=16)
COLUMNS = (
    Column("id", "string", nullable=False),
    Column("happened_at", "timestamp", nullable=False),
    Column("version", "int64", nullable=False),
    Column("text", "string", nullable=False),
)
ROWS = {"duckdb": 2_000, "postgres": 2_000, "clickhouse": 2_000, "sqlite": 2_000, "chroma": 300}
"""Rows of one day. Chroma keeps up to 1,000 changes in a log, which would be most of a smaller collection."""


@dataclass
class Site:
    """One store in a home of its own.

    Args:
        store: its name.
        resources: as `build.store_resources` gives them.
    """

    store: str
    resources: dict[str, Any]

    @property
    def contract(self) -> Contract:
        """Of the table that is overwritten."""
        columns = (*COLUMNS, VECTOR) if self.store == "chroma" else COLUMNS
        return Contract(
            f"{self.store}/hourly", "an event", columns, key=("id",), partition_column="happened_at"
        )

    @property
    def manager(self) -> Any:
        """Its IO manager."""
        from ml_assets.io_managers.chroma import ChromaIOManager
        from ml_assets.io_managers.clickhouse import ClickHouseIOManager
        from ml_assets.io_managers.duckdb import DuckLakeIOManager
        from ml_assets.io_managers.postgres import PostgresIOManager
        from ml_assets.io_managers.sqlite import SQLiteIOManager

        of = self.resources
        makers: dict[str, Callable[[], Any]] = {
            "duckdb": lambda: DuckLakeIOManager(lake=of["lake"]),
            "postgres": lambda: PostgresIOManager(postgres=of["postgres"]),
            "clickhouse": lambda: ClickHouseIOManager(clickhouse=of["clickhouse"]),
            "chroma": lambda: ChromaIOManager(chroma=of["chroma"], postgres=of["postgres"]),
            "sqlite": lambda: SQLiteIOManager(sqlite=of["sqlite"]),
        }
        return makers[self.store]()

    def write(self, days: Iterable[int], version: int, count: int | None = None) -> None:
        """Overwrite these days, which follow each other, with rows of a version; `ROWS` of them a day if None."""
        chosen = list(days)
        window = Window(FIRST + timedelta(days=chosen[0]), FIRST + timedelta(days=chosen[-1] + 1))
        count = count or ROWS[self.store]
        data = pa.concat_tables(rows(day, version, count, self.contract) for day in chosen)
        with stage(data, self.contract, self.manager.limits, window) as staged:
            self.manager.table_store().write(self.contract, staged)

    def bytes(self) -> int:
        """What the store takes on disk."""
        home = Path(self.resources["lake"].home)
        match self.store:
            case "duckdb":
                return folder_bytes(Path(self.resources["lake"].data))
            case "postgres":
                with self.resources["postgres"].connect() as connection:
                    found = connection.execute("SELECT pg_total_relation_size('hourly')").fetchone()
                return int(found[0])
            case "clickhouse":
                return folder_bytes(home / "services" / "clickhouse")
            case "chroma":
                return folder_bytes(services.describe(home)["chroma"].data)
            case _:
                return folder_bytes(home / "sqlite")

    def maintain(self, retention: Retention = RETENTION) -> list[str]:
        """Maintenance of this store; what it did."""
        [store] = [each for each in stores(self.resources) if each.name == self.store]
        report = run(store, retention)
        assert not report.fault, report.fault
        return list(report.done)

    def let_time_pass(self, passed: timedelta) -> None:
        """Make everything that maintenance judges by its age so much older."""
        import os

        import psycopg

        home = Path(self.resources["lake"].home)
        if self.store == "duckdb":
            with psycopg.connect(self.resources["lake"].resolved_catalog_url()) as catalog:
                catalog.execute("UPDATE ducklake_snapshot SET snapshot_time = snapshot_time - %s", [passed])
                catalog.execute(
                    "UPDATE ducklake_files_scheduled_for_deletion SET schedule_start = schedule_start - %s",
                    [passed],
                )
        if self.store == "chroma":
            with self.resources["chroma"].client(write=True) as client:
                for collection in client.list_collections():
                    if replaced := (collection.metadata or {}).get("replaced_at"):
                        earlier = datetime.fromisoformat(str(replaced)) - passed
                        collection.modify(metadata={"replaced_at": earlier.isoformat()})
            for index in services.describe(home)["chroma"].data.iterdir():
                was = index.stat().st_mtime
                os.utime(index, (was, was - passed.total_seconds()))


def rows(day: int, version: int, count: int, contract: Contract) -> pa.Table:
    """One day's rows of one version: the same keys, other values."""
    chance = np.random.default_rng((day, version))
    columns = {
        "id": [f"{day}-{n}" for n in range(count)],
        "happened_at": pa.array(
            [FIRST + timedelta(days=day, seconds=n) for n in range(count)], pa.timestamp("us", "UTC")
        ),
        "version": pa.array([version] * count, pa.int64()),
        "text": [chance.bytes(40).hex() for _ in range(count)],
        "vector": pa.array(list(chance.random((count, 16), dtype=np.float32)), pa.list_(pa.float32())),
    }
    return pa.table({name: columns[name] for name in contract.names})


def overwritten(site: Site, days: int, times: int) -> None:
    """Every day, one after the other, overwritten so many times."""
    for day in range(days):
        for version in range(times):
            site.write([day], version)


def nights_later(site: Site) -> list[str]:
    """Maintenance once the retention has passed, and again a night later; what it did."""
    site.let_time_pass(RETENTION.versions)
    done = site.maintain()
    site.let_time_pass(RETENTION.grace)
    return done + site.maintain()


def main() -> None:
    """Each store: fresh, after the month, after maintenance."""
    print(f"{'store':<12}{'fresh':>12}{'a month':>12}{'tidied':>12}{'ratio':>8}{'writes s':>10}{'tidy s':>8}")
    # A process each: chDB leaves threads with open files behind at every opening.
    spawn = multiprocessing.get_context("spawn")
    for store in ROWS:
        process = spawn.Process(target=_one_store, args=(store,))
        process.start()
        process.join()


def _one_store(store: str) -> None:
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        measure(store, home)
    finally:
        for name in ("fresh", "month"):
            services.stop_all(home / name)
        shutil.rmtree(home)


def measure(store: str, home: Path) -> None:
    """Print one store's line."""
    fresh, month = (Site(store, store_resources(Settings(home=home / name))) for name in ("fresh", "month"))
    fresh.write(range(30), 23)
    once = fresh.bytes()
    start = time.perf_counter()
    overwritten(month, 30, 24)
    written, loose = time.perf_counter() - start, month.bytes()
    start = time.perf_counter()
    done = nights_later(month)
    tidied, tight = time.perf_counter() - start, month.bytes()
    verdict = "" if tight <= LIMIT * once else f"  ABOVE the limit of {LIMIT}"
    print(
        f"{store:<12}{once:>12,}{loose:>12,}{tight:>12,}{tight / once:>8.2f}{written:>10.1f}{tidied:>8.1f}{verdict}",
        flush=True,
    )
    print("".join(f"    {sentence}\n" for sentence in done), end="", flush=True)


if __name__ == "__main__":
    main()
