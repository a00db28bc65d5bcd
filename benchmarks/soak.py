"""A simulated year of daily refreshes at equal live data: no store, and no history, grows by more than 10 %.

Each simulated day is one Dagster run that writes a table of 30 days in every store: the newest day
is new, the day before it is overwritten, and the oldest goes. Then all that is judged by its age is made a day older, and
maintenance runs as it does every night. The first partition moves along with the oldest day. What a store takes is
told every 60 days, and compared with what it took when every retention had passed once.

Only stores and Dagster's history: intake keeps what was delivered for ever, and grows with that.

`python -m benchmarks.soak [--days 365] [--stores duckdb,sqlite] [--ticks 2000]`; `make soak` does all of it. --ticks
watches the memory of Dagster's daemon and code server over so many ticks of the sensors; 0 leaves that out.
"""

import argparse
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from benchmarks import limits
from benchmarks.maintenance import FIRST, ROWS, Site
from ml_assets import services
from ml_assets.maintenance import run
from ml_assets.maintenance.history import DagsterHistory
from ml_assets.resources import store_resources
from ml_assets.settings import PROJECT_ROOT, Settings
from ml_assets.stores.registry import stores
from ml_assets.tables.store import Retention

LIMIT = 1.1
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pace:
    """How long things are kept, in days.

    Args:
        live: data.
        history: Dagster's runs.
        versions: of the lake.
        share: of the rows of a day in `benchmarks.maintenance`.
    """

    live: int = 30
    history: int = 14
    versions: int = 3
    share: float = 0.25

    @property
    def settled(self) -> int:
        """The day on which there is as much of everything as there ever should be."""
        return self.live + self.history


_RUN_DATES = ("start_time", "end_time")
_RUN_MOMENTS = ("create_timestamp", "update_timestamp")


class Soak:
    """A home whose days pass in seconds.

    Args:
        home: its folder.
        names: of the stores, as in `benchmarks.maintenance.ROWS`.
        pace: how long things are kept.
    """

    def __init__(self, home: Path, names: list[str], pace: Pace) -> None:
        self.settings = Settings(home=home, history_days=pace.history)
        self._pace = pace
        self._retention = Retention(versions=pace.versions * DAY)
        self.sites = {name: Site(name, store_resources(self.settings)) for name in names}
        self.settings.dagster_home.mkdir(parents=True, exist_ok=True)
        link = self.settings.dagster_home / "dagster.yaml"
        if not link.exists():
            link.symlink_to(PROJECT_ROOT / "dagster.yaml")
        self.instance = dg.DagsterInstance.from_config(str(self.settings.dagster_home))

    def day(self, today: int) -> None:
        """One day: a run, a day's ageing, a night's maintenance."""
        oldest = max(0, today - self._pace.live + 1)
        first = (FIRST + oldest * DAY).date()
        days = dg.DailyPartitionsDefinition(
            first.isoformat(), end_date=(FIRST + (today + 1) * DAY).date().isoformat()
        )
        selected = {
            "dagster/asset_partition_range_start": (FIRST + max(oldest, today - 1) * DAY).date().isoformat(),
            "dagster/asset_partition_range_end": (FIRST + today * DAY).date().isoformat(),
        }
        made = [self._asset(name, days, today) for name in self.sites]
        assert dg.materialize(made, instance=self.instance, tags=selected).success
        if oldest:
            self._expire(oldest - 1)
        self._age()
        self._maintain(first)

    def _asset(self, name: str, days: dg.DailyPartitionsDefinition, today: int) -> dg.AssetsDefinition:
        site, count = self.sites[name], max(1, int(ROWS[name] * self._pace.share))

        @dg.asset(
            key=[name, "hourly"],
            partitions_def=days,
            backfill_policy=dg.BackfillPolicy.single_run(),
            check_specs=[dg.AssetCheckSpec("has_rows", asset=[name, "hourly"])],
        )
        def hourly(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            chosen = [(date.fromisoformat(key) - FIRST.date()).days for key in context.partition_keys]
            site.write(chosen, today, count)
            passed = dg.AssetCheckResult(passed=True, metadata={"rows": count * len(chosen)})
            return dg.MaterializeResult(metadata={"rows": count}, check_results=[passed])

        return hourly

    def _expire(self, day: int) -> None:
        """Write no rows to the day that goes."""
        import pyarrow as pa

        from ml_assets.tables.arrow_types import arrow_schema
        from ml_assets.tables.staging import stage
        from ml_assets.tables.validation import Window

        for site in self.sites.values():
            store = site.manager.table_store()
            written = store.last_contract(site.contract.asset)
            window = Window(FIRST + day * DAY, FIRST + (day + 1) * DAY)
            nothing: pa.Table = arrow_schema(written).empty_table()
            with stage(nothing, written, site.manager.limits, window) as staged:
                store.write(written, staged)

    def _age(self) -> None:
        """Make all that maintenance judges by its age a day older."""
        for site in self.sites.values():
            site.let_time_pass(DAY)
        history = self.settings.dagster_home / "history"
        with closing(sqlite3.connect(history / "runs.db", timeout=20)) as runs, runs:
            told = ", ".join(
                [f"{name} = {name} - 86400" for name in _RUN_DATES]
                + [f"{name} = strftime('%Y-%m-%d %H:%M:%f', {name}, '-1 day')" for name in _RUN_MOMENTS]
            )
            runs.execute(f"UPDATE runs SET {told}")
        for each in [*(history / "runs").glob("*-*.db"), *(self.settings.dagster_home / "storage").glob("*")]:
            was = each.stat().st_mtime - DAY.total_seconds()
            os.utime(each, (was, was))

    def _maintain(self, first: date) -> None:
        settings = self.settings.model_copy(update={"partitions_start": first})
        resources = next(iter(self.sites.values())).resources
        looked_after = [
            part
            for store in reversed(stores(resources))
            if store.name in self.sites or store.name == "postgres"
            for part in store.maintained()
        ]
        for part in [*looked_after, DagsterHistory(settings, self.instance)]:
            report = run(part, self._retention)
            assert not report.fault, f"{report.store}: {report.fault}"

    def sizes(self) -> dict[str, int]:
        """Bytes by store, and of Dagster's history."""
        return {
            **{name: site.bytes() for name, site in self.sites.items()},
            "dagster": DagsterHistory(self.settings, self.instance).size(),
        }


def soak(home: Path, names: list[str], days: int, every: int = 60, pace: Pace | None = None) -> None:
    """Let days pass and hold each size against the one of the day when everything had settled."""
    pace = pace or Pace()
    lived, settled = Soak(home, names, pace), pace.settled
    columns = [*names, "dagster"]
    print(f"{'day':>5}" + "".join(f"{name:>14}" for name in columns) + f"{'s a day':>9}", flush=True)
    base: dict[str, int] = {}
    began, since = time.perf_counter(), 0
    with lived.instance:
        for day in range(1, days + 1):
            lived.day(day - 1)
            if day not in (settled, days) and day % every:
                continue
            sizes = lived.sizes()
            took, began, since = (time.perf_counter() - began) / (day - since), time.perf_counter(), day
            if day == settled:
                base = sizes
            print(
                f"{day:>5}" + "".join(f"{sizes[name]:>14,}" for name in columns) + f"{took:>9.1f}", flush=True
            )
            if base and day > settled:
                for name in columns:
                    limits.within(f"{name} on day {day} over day {settled}", sizes[name] / base[name], LIMIT)


def watch_memory(home: Path, ticks: int) -> None:
    """Memory of the daemon and the code server, with this project's graph, over so many ticks, served as by `up`."""
    settings = Settings(home=home)
    environment = {**os.environ, **settings.child_environment()}
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    (settings.dagster_home / "dagster.yaml").symlink_to(PROJECT_ROOT / "dagster.yaml")
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(PROJECT_ROOT / "workspace.yaml")]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        command += ["-h", "127.0.0.1", "-p", str(probe.getsockname()[1])]
    # Made here: two processes that make it at once fail.
    with dg.DagsterInstance.from_config(str(settings.dagster_home)):
        served = subprocess.Popen(
            command, cwd=home, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            base, memory, told = 0.0, 0.0, 0
            print(f"{'ticks':>7}{'daemon, MB':>14}{'code server, MB':>18}", flush=True)
            while told < ticks:
                if served.poll() is not None:
                    sys.exit(f"Dagster ended by itself with status {served.returncode}.")
                time.sleep(5)
                done = _ticks(settings)
                if done - told < ticks // 10:
                    continue
                told = done
                each = [
                    _memory(served.pid, *parts)
                    for parts in (["dagster._daemon"], ["code-server start", "api grpc"])
                ]
                memory = sum(each)
                # Libraries are loaded and caches filled by the first ticks.
                base = base or (memory if told >= ticks // 5 else 0.0)
                print(f"{told:>7,}{each[0]:>14,.0f}{each[1]:>18,.0f}", flush=True)
            limits.within("memory at the last tick over the first", memory / base, LIMIT)
        finally:
            served.send_signal(signal.SIGINT)
            served.wait()


def _memory(pid: int, *parts: str) -> float:
    """MB of what a process has started that has any of these words in its command; runs are others."""
    import psutil

    family = psutil.Process(pid).children(recursive=True)
    told = {each: " ".join(each.cmdline()) for each in family}
    counted = [each for each, words in told.items() if any(part in words for part in parts)]
    return sum(each.memory_info().rss for each in counted) / 2**20


def _ticks(settings: Settings) -> int:
    """Ticks that were ever made; old ones are purged."""
    file = settings.dagster_home / "schedules" / "schedules.db"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM job_ticks").fetchone()[0])


def main(arguments: list[str]) -> None:
    """Both parts; exit status 1 if something grew by more than 10 %."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--days", type=int, default=365)
    asked.add_argument("--stores", default=",".join(ROWS))
    asked.add_argument("--ticks", type=int, default=2_000)
    given = asked.parse_args(arguments)
    warnings.simplefilter("ignore")
    home = Path(tempfile.mkdtemp(prefix="mla-soak-"))
    try:
        if given.days:
            soak(home / "year", given.stores.split(","), given.days)
        if given.ticks:
            watch_memory(home / "ticks", given.ticks)
    finally:
        for each in ("year", "ticks"):
            services.stop_all(home / each)
        shutil.rmtree(home)
    limits.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
