"""How fast features are looked up as they were known, and what a new day of a feature table takes.

    feast   2,000,000 rows x 200,000 labels, with a ttl of 7 days: ours beside Feast's DuckDB store, each in a process
            of its own; equal values row for row, at least 50 times faster, at a twentieth of the memory
    bare    the same labels: ours to DuckDB's bare ASOF join on the same table, at most 1.2 times its time (goal)
    big     20,000,000 rows x 1,000,000 labels: peak memory of the process at most 2 GB (goal)
    days    a new day of a daily table that has 1,000 days, to one of a table that has 10: at most 1.5 times

Repeat with `python -m benchmarks features`, or with some of the parts: `python -m benchmarks.features bare days`. What
is online has a benchmark of its own. ML_ASSETS_BENCH_ROWS and ML_ASSETS_BENCH_LABELS make fewer rows and labels, in
`big` ten and five times as many; ML_ASSETS_BENCH_DAYS fewer days. Feast is installed from the registry into an
environment that is thrown away, or is that of the Python that ML_ASSETS_BENCH_FEAST names.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.limits import finish, verdict, within
from ml_assets import connect, services
from ml_assets.contracts import Column, Contract
from ml_assets.contracts.feature_files import pin_of
from ml_assets.contracts.text import pinned_text
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.settings import Settings
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.duckdb.ddl import create_statements
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import Window

ROWS = int(os.environ.get("ML_ASSETS_BENCH_ROWS", "2000000"))
LABELS = int(os.environ.get("ML_ASSETS_BENCH_LABELS", "200000"))
DAYS = int(os.environ.get("ML_ASSETS_BENCH_DAYS", "1000"))
FEW_DAYS = 10
FEAST = "feast[duckdb]==0.67.0"
"""Pinned: without a version a resolver falls back to 0.1."""

REPEATS = 5
SPAN_DAYS = 30
ROWS_OF_ENTITY = 2_000
TTL = timedelta(days=7)
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
FEATURES = ("clicks", "score", "weight")

TIMES_FASTER, MEMORY_SHARE, TIMES_BARE, BIG_MB, TIMES_DAYS = 50.0, 1 / 20, 1.2, 2_000.0, 1.5

COLUMNS = (
    Column("model_name", "string", nullable=False),
    Column("at", "timestamp", nullable=False),
    Column("clicks", "int64"),
    Column("score", "float64"),
    Column("weight", "float64"),
)
VIEW = (
    "-- Features to measure with.\n-- entity: model_name\n-- event_time: at\n-- key: model_name, at\n"
    f"-- ttl: {TTL.days}d\n"
)


def main(parts: list[str]) -> None:
    """Measure some of the parts, or all."""
    for name in parts or PARTS:
        print(f"-- {name}", flush=True)
        PARTS[name]()
    finish()


def beside_feast() -> None:
    """Ours and Feast's time, memory and values."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        lake = _home(home, ROWS, LABELS)
        _copy_for_feast(lake, home / "features.parquet")
        python = os.environ.get("ML_ASSETS_BENCH_FEAST") or _with_feast(home)
        ours = _child([sys.executable, "-m", "benchmarks.features", "--child", "ours", str(home)])
        theirs = _child([python, "-c", _FEAST, str(home), str(TTL.days), *FEATURES])
        equal = _same(home / "ours.parquet", home / "feast.parquet")
        print(f"Feast {theirs['seconds']:8.2f} s  {theirs['mb']:8.0f} MB")
        print(f"ours  {ours['seconds']:8.2f} s  {ours['mb']:8.0f} MB, {equal:,} of {LABELS:,} rows equal")
        times, share = theirs["seconds"] / ours["seconds"], ours["mb"] / theirs["mb"]
        within("rows equal to Feast's", equal, LABELS, at_least=True)
        told = "within" if within("times faster than Feast", times, TIMES_FASTER, at_least=True) else "BELOW"
        print(f"{times:.0f} times faster ({told} {TIMES_FASTER:.0f})")
        print(f"{share:.3f} of the memory ({verdict('memory to Feast', share, MEMORY_SHARE)} {MEMORY_SHARE})")
    finally:
        _discard(home)


def beside_the_bare_join() -> None:
    """Ours, from the call to the last row in memory, and the join alone, by turns."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        _home(home, ROWS, LABELS)
        found = _child([sys.executable, "-m", "benchmarks.features", "--child", "bare", str(home)])
        print(f"bare ASOF join {found['bare']:6.2f} s")
        told = verdict("ours to the bare join", found["ratio"], TIMES_BARE)
        print(f"ours           {found['ours']:6.2f} s: {found['ratio']:.2f} times ({told} {TIMES_BARE})")
    finally:
        _discard(home)


def big() -> None:
    """Peak memory of a process that looks many labels up among many rows, and writes them to a file."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        _home(home, 10 * ROWS, 5 * LABELS)
        found = _child([sys.executable, "-m", "benchmarks.features", "--child", "ours", str(home)])
        told = verdict("peak MB", found["mb"], BIG_MB)
        print(
            f"{10 * ROWS:,} x {5 * LABELS:,}: {found['seconds']:.1f} s, {found['mb']:.0f} MB ({told} {BIG_MB:,.0f} MB)"
        )
    finally:
        _discard(home)


def days() -> None:
    """A day more in tables of few and many days: reading its rows, checks, content hash, ledger and commit."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        lake = DuckLakeResource(home=str(home))
        took = {count: _new_days(lake, count) for count in (FEW_DAYS, DAYS)}
        ratio = took[DAYS] / took[FEW_DAYS]
        for count, seconds in took.items():
            print(f"a day among {count:6,} {1000 * seconds:8.1f} ms")
        print(
            f"{ratio:.2f} times ({verdict('a new day among many to one among few', ratio, TIMES_DAYS)} {TIMES_DAYS})"
        )
    finally:
        _discard(home)


PARTS: dict[str, Callable[[], None]] = {
    "feast": beside_feast,
    "bare": beside_the_bare_join,
    "big": big,
    "days": days,
}


# --- data -------------------------------------------------------------------------------------------


def _contract(table: str) -> Contract:
    return Contract(f"duckdb/{table}", "", COLUMNS, ("model_name", "at"), partition_column="at")


def _home(home: Path, rows: int, labels: int) -> DuckLakeResource:
    """A home with a view `measured` of so many rows, and labels in a Parquet file, both in no order of time."""
    lake, contract = DuckLakeResource(home=str(home)), _contract("measured")
    folder = home / "team"
    folder.mkdir()
    (home / "landing").mkdir()
    file = folder / "measured.sql"
    file.write_text(f"{VIEW}SELECT * FROM raw.raw_measured")
    pin_of(file).write_text(pinned_text(contract))
    # As many rows of an entity as a model has that is watched for weeks: what Feast does with each pair of them counts.
    values = {"entities": max(1, rows // ROWS_OF_ENTITY), "first": FIRST, "us": SPAN_DAYS * 86_400_000_000}
    moment = "$first + to_microseconds((hash({n}) % $us::UBIGINT)::BIGINT)"
    with lake.get_connection(write=True) as connection:
        for statement in create_statements(contract):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO features.measured SELECT 'model ' || hash(i) % $entities::UBIGINT, "
            f"{moment.format(n='i + 7')}, i % 100, random(), random() FROM range($rows) AS numbers (i)",
            {**values, "rows": rows},
        )
        connection.execute(
            "COPY (SELECT i AS label, 'model ' || hash(i + 11) % $entities::UBIGINT AS model_name, "
            f"{moment.format(n='i + 13')} AS event_timestamp FROM range($labels) AS numbers (i)) "
            f"TO '{home / 'labels.parquet'}'",
            {**values, "labels": labels},
        )
    return lake


def _discard(home: Path) -> None:
    services.stop_all(home)
    shutil.rmtree(home)


def _new_days(lake: DuckLakeResource, count: int) -> float:
    """Median seconds of a day more."""
    contract, store = _contract(f"daily_{count}"), DuckLakeStore(lake)
    every_day = (
        "SELECT 'model ' || i % 100 AS model_name, $first + to_days((i // 100)::INTEGER) AS at, "
        "i AS clicks, i / 7 AS score, i / 9 AS weight FROM range($start, $end) AS numbers (i)"
    )

    def write(first: int, last: int) -> None:
        window = Window(FIRST + timedelta(days=first), FIRST + timedelta(days=last))
        values = {"first": FIRST, "start": 100 * first, "end": 100 * last}
        with stage(lake.reader(every_day, values), contract, store.limits, window) as staged:
            assert store.write(contract, staged).changed

    write(0, count)
    took = []
    for day in range(count, count + REPEATS + 1):
        start = time.perf_counter()
        write(day, day + 1)
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


# --- what runs in a process of its own --------------------------------------------------------------


def _child(command: list[str]) -> dict[str, Any]:
    """What a process told in its last line."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "TZ": "UTC"}
    )
    return json.loads(done.stdout.splitlines()[-1])


def _child_main(what: str, home: Path) -> dict[str, float]:
    stack = connect(settings=Settings(home=home, feature_folders=(home / "team",)))
    asked = [f"measured:{name}" for name in FEATURES]
    labels = home / "labels.parquet"
    # What is made once in a process, such as the connection, is no part of a measurement.
    stack.features.historical(pq.read_table(labels).slice(0, 1), asked).table()

    def ours() -> None:
        stack.features.historical(labels, asked).to_parquet(home / "ours.parquet", overwrite=True)

    if what == "ours":
        return {"seconds": _seconds(ours), "mb": _peak_mb()}

    frame = pq.read_table(labels)

    def bare() -> None:
        columns = ", ".join(f"found.{name}" for name in FEATURES)
        with stack.features._lake.get_connection() as connection:
            connection.register("given", frame)
            # Of a table DuckDB knows the rows; for what it takes for a few, it joins row by row.
            connection.execute("CREATE TEMP TABLE frame AS FROM given")
            connection.execute(
                f"SELECT label.*, {columns} FROM frame AS label ASOF LEFT JOIN features.measured AS found "
                "ON label.model_name = found.model_name AND label.event_timestamp >= found.at"
            ).to_arrow_table()

    def whole() -> None:
        assert stack.features.historical(frame, asked).table().num_rows == frame.num_rows

    took = [(_seconds(bare), _seconds(whole)) for _ in range(REPEATS + 1)][1:]
    joins, wholes = zip(*took, strict=True)
    ratio = statistics.median(whole / join for join, whole in took)
    return {"bare": statistics.median(joins), "ours": statistics.median(wholes), "ratio": ratio}


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# --- Feast ------------------------------------------------------------------------------------------


def _with_feast(home: Path) -> str:
    """A Python of its own with Feast."""
    place = home / "feast-environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", FEAST], check=True)
    return str(python)


def _copy_for_feast(lake: DuckLakeResource, path: Path) -> None:
    with lake.get_connection() as connection:
        connection.execute(f"COPY features.measured TO '{path}'")


def _same(ours: Path, theirs: Path) -> int:
    """How many labels have the same values in both."""
    columns = ["label", *FEATURES]
    tables = [pq.read_table(path, columns=columns).sort_by("label") for path in (ours, theirs)]
    if tables[0].num_rows != tables[1].num_rows:
        return 0
    schema = tables[0].schema
    return sum(a == b for a, b in zip(*(_rows(table.cast(schema)) for table in tables), strict=True))


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


_FEAST = """
import json, resource, sys, time
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

home, days, features = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
folder = home / "feast"
folder.mkdir()
(folder / "feature_store.yaml").write_text(
    "project: bench\\nprovider: local\\nregistry: registry.db\\noffline_store: {type: duckdb}\\nonline_store: null\\n"
    "entity_key_serialization_version: 3\\n"
)
store = FeatureStore(repo_path=str(folder))
model = Entity(name="model_name", join_keys=["model_name"], value_type=ValueType.STRING)
view = FeatureView(
    name="measured", entities=[model], ttl=timedelta(days=days), online=False,
    schema=[Field(name=name, dtype=Int64 if name == "clicks" else Float64) for name in features],
    source=FileSource(path=str(home / "features.parquet"), timestamp_field="at"),
)
store.apply([model, view])
labels = pd.read_parquet(home / "labels.parquet")
start = time.perf_counter()
found = store.get_historical_features(labels, [f"measured:{name}" for name in features]).to_df()
seconds = time.perf_counter() - start
found.to_parquet(home / "feast.parquet")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "mb": peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)}))
"""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_child_main(sys.argv[2], Path(sys.argv[3]))))
    else:
        main(sys.argv[1:])
