"""How fast a trend is answered, and whether a day is rebuilt as fast among a thousand days as among ten.

    trend     30 days of one model by the day, from the rollup and from the events; the client is held open
    refresh   one day of the rollups and trends computed and written, with 10 days present and with 1,000

    python -m benchmarks.performance_trends [trend|refresh]      both if none is named

ML_ASSETS_BENCH_EVENTS sets the events of the 30 days (100,000,000 by default), made in the engine for 20 models of
which the busiest has more than a third, and ML_ASSETS_BENCH_DAYS the many days (1,000). The exit status is 1 if a goal
is missed: with fewer events the trend of the rollup, which takes some milliseconds whatever their number, is not 50
times faster than theirs.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.limits import finish, verdict, within
from ml_assets.contracts import tables
from ml_assets.lib.days import DayRange
from ml_assets.operations.performance_pictures import numbers_of_days
from ml_assets.operations.performance_rollups import (
    DAILY,
    EVENTS,
    HOURLY,
    SKETCHES,
    TRENDS,
    microseconds,
    rollup_sql,
)
from ml_assets.operations.performance_trend import grid, trend
from ml_assets.operations.performance_trends import trends
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.stores.clickhouse.ddl import create_statement
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import Window

EVENTS_COUNT = int(os.environ.get("ML_ASSETS_BENCH_EVENTS", "100000000"))
FEW, MANY = 10, int(os.environ.get("ML_ASSETS_BENCH_DAYS", "1000"))
EVENTS_A_DAY = 50_000
MODELS, BUSIEST = 20, "model_0"
REPEATS = 21
TREND_MS, FASTER, SLOWER = 20.0, 50.0, 1.5

TABLES = tables(Settings())
LAST = datetime(2026, 6, 15, tzinfo=UTC).date()
"""The 30 days up to it lie in two months, which are two parts of the rollup, as on most days."""

_MADE = """
INSERT INTO ml_model_performance
    (event_id, kind, timestamp, model_name, model_version, dataset, run_id, accuracy, f1_score, inference_time_ms,
     memory_usage_mb)
SELECT toString(number), if(number % 50 = 0, 'evaluation', 'inference'),
    fromUnixTimestamp64Micro({start_us:Int64} + intDiv(number * 86400000000, {rows:Int64}), 'UTC'),
    'model_' || toString(toUInt32({models:Int64} * pow(randCanonical(), 3))), '1', 'digits',
    'run_' || toString(number % 100),
    if(number % 50 = 0, randUniform(0.8, 0.9), NULL), if(number % 50 = 0, randUniform(0.8, 0.9), NULL),
    exp(randNormal(3, 1)), randUniform(100, 200)
FROM numbers({rows:UInt64})
"""


def main(names: list[str]) -> None:
    """Measure one or both, and print a table of each."""
    sections = {"trend": _trend, "refresh": _refresh}
    if unknown := [name for name in names if name not in sections]:
        sys.exit(f"There is no section {unknown[0]!r}: choose from {', '.join(sections)}.")
    for name in names or sections:
        report = Table(name, "ms", "beside", "ms", "ratio", "goal")
        with tempfile.TemporaryDirectory(prefix="ml-bench-") as home:
            sections[name](ClickHouseResource(home=home), report)
        Console().print(report)


def _trend(clickhouse: ClickHouseResource, report: Table) -> None:
    days = DayRange(LAST - timedelta(days=29), LAST)
    with clickhouse.client(write=True) as client:
        _make(client, days, EVENTS_COUNT // len(days), (DAILY,))
        # Events by the day, as the trend would be answered without rollups.
        raw = read_sql("clickhouse/trend_of_events.sql").replace("{slice}", "''")
        cells = grid("30d", "1d", days.end)
        bound = {**cells.bound, "model_name": BUSIEST}
        own = f"SELECT count() FROM ml_model_performance WHERE model_name = '{BUSIEST}'"
        events = int(client.query(own).result_rows[0][0])
        _settled(client)
        ours = _median(lambda: trend(client, BUSIEST, cells, None, False), REPEATS)
        theirs = _median(lambda: client.query_arrow(raw, bound, use_strings=True), 5)
    kept = within("trend, times faster than the events", theirs / ours, FASTER, at_least=True)
    goal = f"{TREND_MS:g} ms {verdict('trend of 30 days, ms', ours, TREND_MS)}"
    goal += f", {FASTER:g} times {'kept' if kept else 'MISSED'}"
    _row(
        report,
        "30 days of the busiest model",
        ours,
        f"from its {events:,} events of {EVENTS_COUNT:,}",
        theirs,
        theirs / ours,
        goal,
    )


def _refresh(clickhouse: ClickHouseResource, report: Table) -> None:
    few = DayRange(LAST - timedelta(days=FEW - 1), LAST)
    before = DayRange(LAST - timedelta(days=MANY - 1), few.first - timedelta(days=1))
    took: dict[int, dict[str, float]] = {}
    with clickhouse.client(write=True) as client:
        _make(client, few, EVENTS_A_DAY, (HOURLY, DAILY, SKETCHES))
        took[FEW] = _rebuilt(clickhouse, client)
        _make(client, before, EVENTS_A_DAY, (HOURLY, DAILY, SKETCHES))
        took[MANY] = _rebuilt(clickhouse, client)
    for asset, ours in took[MANY].items():
        goal = f"{SLOWER:g} {verdict(f'refresh of {asset}, ratio', ours / took[FEW][asset], SLOWER)}"
        ratio = ours / took[FEW][asset]
        what = f"{asset.removeprefix('performance_')}: a day of {MANY:,}"
        _row(report, what, ours, f"of {FEW}", took[FEW][asset], ratio, goal)


def _rebuilt(clickhouse: ClickHouseResource, client: Any) -> dict[str, float]:
    """The median of computing and writing the last day, by table and of all of them, in milliseconds."""
    day = DayRange(LAST, LAST)
    store = ClickHouseStore(clickhouse)
    single: dict[str, list[float]] = {}

    def write(asset: str, rows: Any, turn: int) -> None:
        # Other rows each time: what is there already is not written again.
        with stage(
            rows.slice(0, rows.num_rows - 1 - turn % 2),
            TABLES[asset],
            store.limits,
            Window(day.start, day.end),
        ) as staged:
            store.write(TABLES[asset], staged)

    for turn in range(9):
        total = 0.0
        for asset in (HOURLY, DAILY, SKETCHES, TRENDS):
            start = time.perf_counter()
            rows = (
                trends(client, {}, day)
                if asset == TRENDS
                else client.query_arrow(rollup_sql(asset), microseconds(day), use_strings=True)
            )
            if asset == HOURLY:
                numbers_of_days(client, day)  # for the page of the asset, which is not drawn here
            write(asset, rows, turn)
            took = time.perf_counter() - start
            single.setdefault(asset.partition("/")[2], []).append(took)
            total += took
        single.setdefault("all of them", []).append(total)
    return {name: statistics.median(each[1:]) * 1_000 for name, each in single.items()}


def _make(client: Any, days: DayRange, rows: int, assets: tuple[str, ...]) -> None:
    """Events of each day, and their rollups, within the engine."""
    many = {"max_partitions_per_insert_block": 0}
    for asset in (EVENTS, *assets, *((TRENDS,) if SKETCHES in assets else ())):
        client.command(create_statement(TABLES[asset]))
    for day in days.days():
        start_us = microseconds(DayRange(day, day))["start_us"]
        client.command(_MADE, {"start_us": start_us, "rows": rows, "models": MODELS})
    for at in range(0, len(days), 30):
        last = min(days.last, days.first + timedelta(days=at + 29))
        span = DayRange(days.first + timedelta(days=at), last)
        for asset in assets:
            names = ", ".join(TABLES[asset].names)
            insert = f"INSERT INTO {TABLES[asset].table} ({names}) {rollup_sql(asset)}"
            client.command(insert, microseconds(span), settings=many)


def _settled(client: Any) -> None:
    """Wait until the engine has merged what was inserted: it works for nobody who asks otherwise."""
    deadline = time.monotonic() + 300
    while client.query("SELECT count() FROM system.merges").result_rows != [(0,)]:
        if time.monotonic() > deadline:
            sys.exit("ClickHouse was still merging parts after 5 minutes: repeat with fewer events.")
        time.sleep(0.5)


def _median(work: Callable[[], Any], repeats: int) -> float:
    """Milliseconds at the median, after one run that warms up."""
    work()
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1_000


def _row(report: Table, what: str, ours: float, beside: str, theirs: float, ratio: float, goal: str) -> None:
    report.add_row(what, f"{ours:,.1f}", beside, f"{theirs:,.1f}", f"{ratio:.2f}", goal)


if __name__ == "__main__":
    main(sys.argv[1:])
    finish()
