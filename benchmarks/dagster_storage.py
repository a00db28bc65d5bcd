"""What does Dagster's history cost for each day of an asset? SQLite and PostgreSQL, with and without batches.

One run over a range of days of an asset that writes nothing, so what is left are Dagster's events: one materialization
a day, and the events 'planned' before the run. Less a run of one day, which holds what a run costs as such. Limit: 6 ms
an asset-day in PostgreSQL as the project sets it, and the same materializations read back from all. The peer is Dagster
with neither variable set. Beside the time, which other work on the machine lengthens: the processor's time in the run's
own process, and PostgreSQL's transactions for each asset-day. Repeat with `python -m benchmarks dagster_storage`;
PostgreSQL is the embedded one.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
from psycopg import sql

from benchmarks.limits import finish, verdict
from ml_assets import services
from ml_assets.cli.refresh import QUIET
from ml_assets.resources.base import with_database
from ml_assets.settings import DAGSTER_EVENTS

DAYS = int(os.environ.get("ML_ASSETS_BENCH_DAYS", "300"))
ROUNDS = int(os.environ.get("ML_ASSETS_BENCH_ROUNDS", "3"))
LIMITS_MS = {"postgres": 6.0}
"""SQLite's storage writes day by day, whatever it is told; docs/servers.md says why that is left."""

FIRST = date(2024, 1, 1)
PLANNED, BATCH = "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "DAGSTER_EVENT_BATCH_SIZE"

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "neither": (),
    "days planned at once": (PLANNED,),
    "batches": (BATCH,),
    "both, as here": (PLANNED, BATCH),
}
"""Which of the variables that this project sets are set."""


def main() -> None:
    """A table of milliseconds an asset-day, a line a storage and variant."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    read_back = set()
    print(
        f"{'storage':<12}{'variant':<24}{'ms an asset-day':>16}{'of it CPU here':>16}{'commits':>9}{'one day s':>11}"
    )
    try:
        for storage in ("sqlite", "postgres"):
            for number, (variant, chosen) in enumerate(VARIANTS.items()):
                instance = home / f"{storage}-{number}"
                with _configured(instance, storage, home) as environment:
                    told = _measured(instance, environment, chosen)
                read_back.add(told["read_back"])
                line = f"{storage:<12}{variant:<24}{told['ms']:>16.1f}{told['cpu_ms']:>16.1f}"
                line += f"{told['commits']:>9}{told['one_day_s']:>11.2f}"
                if len(chosen) == len(DAGSTER_EVENTS) and (limit := LIMITS_MS.get(storage)):
                    line += f"  {verdict(f'an asset-day in {storage}', told['ms'], limit)} the limit of {limit} ms"
                print(line, flush=True)
        if len(read_back) != 1:
            sys.exit("The materializations that were read back differ between the variants.")
        print(f"The same {DAYS} materializations were read back from each; {ROUNDS} rounds, the median.")
    finally:
        services.stop_all(home)
        shutil.rmtree(home)
    finish()


@contextmanager
def _configured(instance: Path, storage: str, home: Path) -> Iterator[dict[str, str]]:
    """A new instance's dagster.yaml; what its processes need in their environment."""
    instance.mkdir()
    if storage == "sqlite":
        (instance / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        yield {}
        return
    (instance / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nstorage: {postgres: {postgres_url: {env: DAGSTER_POSTGRES_URL}}}\n"
    )
    url, name = services.ensure("postgres", home), instance.name.replace("-", "_")
    with psycopg.connect(with_database(url, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield {"DAGSTER_POSTGRES_URL": with_database(url, name)}


def _measured(instance: Path, environment: dict[str, str], chosen: tuple[str, ...]) -> dict[str, Any]:
    """Milliseconds an asset-day, seconds of a run of one day, and what was read back; in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DAGSTER_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.dagster_storage", str(instance)],
        env={**inherited, **environment, **{name: DAGSTER_EVENTS[name] for name in chosen}},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout)


warnings.filterwarnings("ignore", message=".*backfill_policy.*", category=dg.BetaWarning)


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(FIRST.isoformat()),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def events_alone(context: dg.AssetExecutionContext) -> None:
    """Nothing but its events."""
    for key in context.partition_keys:
        context.add_asset_metadata({"rows": int(key[-2:]), "content_hash": key}, partition_key=key)


def _measure(folder: str) -> None:
    with dg.DagsterInstance.from_config(folder) as instance:
        _run(instance, 1)  # makes the tables
        one_day = [_run(instance, 1) for _ in range(ROUNDS)]
        all_days = [_run(instance, DAYS) for _ in range(ROUNDS)]
        found = instance.fetch_materializations(events_alone.key, limit=DAYS).records
        told = {}
        for record in found:
            event = record.asset_materialization
            assert event is not None
            told[event.partition] = {name: value.value for name, value in event.metadata.items()}
        assert len(told) == DAYS, f"{len(told)} of {DAYS} days were read back"
    base, whole = (
        [statistics.median(values) for values in zip(*runs, strict=True)] for runs in (one_day, all_days)
    )
    ms, cpu_ms, commits = ((large - small) / (DAYS - 1) for small, large in zip(base, whole, strict=True))
    print(
        json.dumps(
            {
                "ms": 1000 * ms,
                "cpu_ms": 1000 * cpu_ms,
                "commits": f"{commits:.1f}" if "DAGSTER_POSTGRES_URL" in os.environ else "-",
                "one_day_s": base[0],
                "read_back": json.dumps(told, sort_keys=True),
            }
        )
    )


def _run(instance: dg.DagsterInstance, days: int) -> tuple[float, float, int]:
    """Seconds, the processor's seconds in this process, and PostgreSQL's transactions of one run."""
    last = FIRST + timedelta(days=days - 1)
    before = _transactions()
    started, worked = time.perf_counter(), time.process_time()
    done = dg.materialize(
        [events_alone],
        instance=instance,
        run_config=QUIET,
        tags={
            "dagster/asset_partition_range_start": FIRST.isoformat(),
            "dagster/asset_partition_range_end": last.isoformat(),
        },
    )
    took = time.perf_counter() - started, time.process_time() - worked
    assert done.success
    return *took, _transactions() - before


def _transactions() -> int:
    """Of this instance's database so far; 0 without one. A session tells of its own when it ends, as Dagster's do."""
    url = os.environ.get("DAGSTER_POSTGRES_URL")
    if url is None:
        return 0
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        )
        [count] = found.fetchone() or (0,)
    return int(count)


if __name__ == "__main__":
    if sys.argv[1:]:
        _measure(sys.argv[1])
    else:
        main()
