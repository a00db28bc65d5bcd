"""How fast intake is, each number a ratio to DuckDB reading and writing the same file bare in the same run.

    parquet, jsonl, csv   one large file of performance events: rows/s, peak memory of the process
    one among thousands   the cost of one new file among 5,000 known ones, to that of one among 10

Bare is a `CREATE TABLE AS` into the same lake, without checks, ledger or account. The two take turns, each time
in a process of its own, and the medians are compared. ML_ASSETS_BENCH_PARQUET, _JSONL and _CSV set the rows
(10,000,000, 1,000,000 and 1,000,000).
"""

import json
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.limits import finish, within
from ml_assets import services
from ml_assets.intake.files import take_in_files
from ml_assets.intake.ingest import IntakeReport, ensure_tables
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.touched_days import ensure_schema

ROWS = {
    "parquet": int(os.environ.get("ML_ASSETS_BENCH_PARQUET", "10000000")),
    "jsonl": int(os.environ.get("ML_ASSETS_BENCH_JSONL", "1000000")),
    "csv": int(os.environ.get("ML_ASSETS_BENCH_CSV", "1000000")),
}
GOALS = {"parquet": 0.6, "jsonl": 0.5}
MEMORY_GOAL_GB = 1.5
KNOWN = (10, 5_000)
KNOWN_GOAL = 2.0
TURNS = 3
REPEATS = 15

EVENTS = """
    SELECT
        'event ' || i AS event_id,
        if(i % 3 = 0, 'evaluation', 'inference') AS kind,
        TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_microseconds((i * 864000000000 // {rows})::BIGINT) AS timestamp,
        'model ' || (i % 20) AS model_name,
        '1' AS model_version,
        'benchmark' AS experiment,
        'run ' || (i % 500) AS run_id,
        random() AS accuracy,
        random() AS precision,
        random() AS recall,
        random() AS f1_score,
        random() * 100 AS inference_time_ms,
        random() * 1000 AS memory_usage_mb,
        (i % 128)::BIGINT AS batch_size
    FROM range({rows}) AS t(i)
"""
COPY = {
    "parquet": "COPY ({events}) TO '{path}'",
    "csv": "COPY (SELECT * REPLACE (strftime(timestamp, '%Y-%m-%dT%H:%M:%S.%fZ') AS timestamp) FROM ({events})) "
    "TO '{path}'",
    "jsonl": "COPY (SELECT * REPLACE (strftime(timestamp, '%Y-%m-%dT%H:%M:%S.%fZ') AS timestamp) FROM ({events})) "
    "TO '{path}' (FORMAT json)",
}
READ = {
    "parquet": "read_parquet('{path}')",
    "csv": "read_csv('{path}')",
    "jsonl": "read_json('{path}', format = 'newline_delimited')",
}


def main() -> None:
    """Run everything and print one table."""
    report = Table("what", "rows", "bare", "intake", "ratio", "goal", "peak memory", "goal")
    with tempfile.TemporaryDirectory(prefix="mla-bench-") as home:
        try:
            for kind, rows in ROWS.items():
                report.add_row(*_one_large_file(home, kind, rows))
            report.add_row(*_one_among_thousands(home))
        finally:
            services.stop_all(Path(home))
    Console(width=120).print(report)


def _one_large_file(home: str, kind: str, rows: int) -> list[str]:
    folder = Path(home) / "landing" / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.{kind}"
    _in_process(_write, kind, rows, str(path))
    runs = []
    for number in range(TURNS):
        fresh = Path(home) / f"{kind} {number}"
        fresh.mkdir()
        bare, _ = _in_process(_bare, home, kind, str(path))
        runs.append((bare, *_in_process(_intake, str(fresh), home, str(folder), rows)))
        shutil.rmtree(fresh)
    path.unlink()
    bare, ours, memory = (statistics.median(column) for column in zip(*runs, strict=True))
    goal, ratio = GOALS.get(kind), bare / ours
    fast = goal is None or within(f"rate of {kind}", ratio, goal, at_least=True)
    small = within(f"memory of {kind}, GB", memory / 1e9, MEMORY_GOAL_GB)
    return [
        f"one {kind} file",
        f"{rows:,}",
        f"{rows / bare:,.0f} rows/s",
        f"{rows / ours:,.0f} rows/s",
        f"{ratio:.2f}",
        f"{'' if goal is None else goal}{'' if fast else ' MISSED'}",
        f"{memory / 1e9:.2f} GB",
        f"{MEMORY_GOAL_GB} GB{'' if small else ' MISSED'}",
    ]


def _one_among_thousands(home: str) -> list[str]:
    seconds = {}
    for known in KNOWN:
        folder = Path(home) / f"among {known}" / "landing" / "performance"
        folder.mkdir(parents=True)
        for number in range(known):
            _event_file(folder / f"{number}.jsonl")
        seconds[known], _ = _in_process(_one_more, str(folder.parents[1]), home, str(folder))
    few, many = (seconds[known] for known in KNOWN)
    what = f"one new file among {KNOWN[1]:,}, to one among {KNOWN[0]}"
    goal = f"at most {KNOWN_GOAL:g}{'' if within(what, many / few, KNOWN_GOAL) else ' MISSED'}"
    return [what, "1", f"{few:.2f} s", f"{many:.2f} s", f"{many / few:.2f}", goal, "", ""]


# --- what runs in a process of its own --------------------------------------------------------------


def _write(kind: str, rows: int, path: str) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(COPY[kind].format(events=EVENTS.format(rows=rows), path=path))
    _make_old(Path(path))


def _bare(home: str, kind: str, path: str) -> float:
    with DuckLakeResource(home=home).get_connection(write=True) as connection:
        start = time.perf_counter()
        connection.execute(f"CREATE TABLE raw.bare_{kind} AS SELECT * FROM {READ[kind].format(path=path)}")
        seconds = time.perf_counter() - start
        connection.execute(f"DROP TABLE raw.bare_{kind}")
    return seconds


def _intake(home: str, servers: str, folder: str, rows: int) -> float:
    lake, postgres = _stores(home, servers)
    # Made once, by the first intake of all.
    ensure_tables(lake)
    ensure_schema(postgres)
    start = time.perf_counter()
    report = _take_in(lake, postgres, Path(folder))
    assert (report.rows_read, report.rows_quarantined) == (rows, 0)
    return time.perf_counter() - start


def _one_more(home: str, servers: str, folder: str) -> float:
    """Median seconds of an intake that finds one new file."""
    lake, postgres = _stores(home, servers)
    _take_in(lake, postgres, Path(folder))
    seconds = []
    for number in range(REPEATS):
        _event_file(Path(folder) / f"more {number}.jsonl")
        start = time.perf_counter()
        assert _take_in(lake, postgres, Path(folder)).rows_read == 1
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _stores(home: str, servers: str) -> tuple[DuckLakeResource, PostgresResource]:
    """A lake and a ledger of the home's own, in databases of the one server."""
    database = Path(home).name.replace(" ", "_")
    ledger, catalog = (_database(servers, f"{database}_{part}") for part in ("ledger", "lake"))
    return DuckLakeResource(home=home, catalog_url=catalog.url, data_path=f"{home}/lake"), ledger


def _take_in(lake: DuckLakeResource, postgres: PostgresResource, folder: Path) -> IntakeReport:
    bounds = Bounds(date(2014, 1, 1), datetime.now(UTC) + timedelta(days=1))
    return take_in_files("performance", list_files(folder), lake, postgres, bounds)


def _database(servers: str, name: str) -> PostgresResource:
    import psycopg
    from psycopg import sql

    server = PostgresResource(home=servers)
    with psycopg.connect(server.connection_url("postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return PostgresResource(home=servers, url=server.connection_url(name))


def _event_file(path: Path) -> None:
    event = {
        "event_id": str(path),
        "kind": "inference",
        "timestamp": "2026-05-01T10:00:00Z",
        "model_name": "m",
        "inference_time_ms": 1.5,
    }
    path.write_text(json.dumps(event) + "\n")
    _make_old(path)


def _make_old(path: Path) -> None:
    """Intake waits until a file has been quiet for a while; that is not what is measured."""
    then = time.time() - 60
    os.utime(path, (then, then))


def _in_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Result and peak memory in bytes of a function run in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool:
        return pool.apply(_measured, (function, arguments))


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, int]:
    # DuckDB does so once a process, at the first value that is bound; bare statements bind none.
    import pandas  # noqa: F401

    os.sync()  # or what was written before is written out meanwhile
    result = function(*arguments)
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
    finish()
