"""How long drift takes: 50 columns of 10M rows, and beside Evidently on a sample that it can do within minutes.

Repeat with `python -m benchmarks drift`; for the comparison with `python -m benchmarks.drift --evidently PYTHON`, the
Python of an environment that has Evidently 0.7 (its dependencies are older than ours). Both are asked for
Kolmogorov-Smirnov, Wasserstein, PSI and Jensen-Shannon of every column, both within a process of its own; rows are made
in the engine before the clock starts. The machine may do other things, so processor time is told as well.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import scipy.stats  # noqa: F401 - before the clock starts, as Evidently has it
from rich.console import Console
from rich.table import Table

from benchmarks.limits import finish, within
from ml_assets.operations.performance_samples import compare_samples

COLUMNS, SAMPLE, ROWS = 50, 200_000, 10_000_000
FASTER = 20.0
_OURS = (sys.executable, "-m", "benchmarks.drift")
MEMORY_MB = 2_500
CLOSE = 1e-6

_NORMAL = "sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())"
_KINDS = (_NORMAL, f"exp({_NORMAL})", f"round({_NORMAL}, 1)", "floor(random() * 7)", "-ln(1 - random())")
"""Columns of the samples in turn: normal, skewed, tied, of few values, with a tail."""

_EVIDENTLY = """
import json, resource, sys, time, warnings
warnings.filterwarnings("ignore")
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift
reference, current = (pd.read_parquet(path) for path in sys.argv[1:])
definition = DataDefinition(numerical_columns=list(reference.columns))
methods = ("ks", "wasserstein", "psi", "jensenshannon")
start, before = time.perf_counter(), time.process_time()
report = Report([ValueDrift(column=name, method=method) for name in reference.columns for method in methods])
both = [Dataset.from_pandas(frame, definition) for frame in (current, reference)]
found = [float(metric["value"]) for metric in report.run(*both).dict()["metrics"] if "value" in metric]
print(json.dumps({
    "seconds": time.perf_counter() - start, "processor_s": time.process_time() - before,
    "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "found": found,
}))
"""


def main() -> None:
    """Measure, compare, print."""
    options = argparse.ArgumentParser()
    options.add_argument("--evidently", help="a Python that has Evidently")
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--sample", type=int, default=SAMPLE)
    options.add_argument("--columns", type=int, default=COLUMNS)
    options.add_argument("--ours", nargs=2, help=argparse.SUPPRESS)  # a process of its own
    options.add_argument("--in-memory", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(_ours(given.ours[0], given.ours[1], given.in_memory)))
        return
    report = Table("what", "rows", "seconds", "processor s", "peak memory", "")
    with tempfile.TemporaryDirectory() as folder:
        if given.evidently:
            paths = _made(Path(folder), given.sample, given.columns)
            ours = _run(*_OURS, "--in-memory", "--ours", *paths)
            theirs = _run(given.evidently, "-c", _EVIDENTLY, *paths)
            _add(report, "ours", f"{given.sample:,} x {given.columns}", ours)
            _add(report, "Evidently", f"{given.sample:,} x {given.columns}", theirs)
            for name in ("seconds", "processor_s"):
                times = theirs[name] / ours[name]
                told = within(f"Evidently's {name} by ours", times, FASTER, at_least=True)
                report.add_row(f"{name}: times faster", "", f"{times:.0f}", "", "", "" if told else "BELOW")
            _compare(ours["found"], theirs["found"])
        paths = _made(Path(folder), given.rows, given.columns)
        ours = _run(*_OURS, "--ours", *paths)
        kept = within("peak memory in MB", ours["memory_mb"], MEMORY_MB)
        _add(report, "ours", f"{given.rows:,} x {given.columns}", ours, "" if kept else "ABOVE")
    Console(width=110).print(report)


def _made(folder: Path, rows: int, number: int) -> list[str]:
    """Two samples in files; every third column of the second one is shifted a bit."""
    paths = []
    with duckdb.connect() as engine:
        engine.execute("SET memory_limit = '2GB'; SELECT setseed(0.18)")
        for name, shift in (("reference", 0.0), ("current", 0.1)):
            columns = ", ".join(
                f"{_KINDS[n % len(_KINDS)]} + {shift * (n % 3 == 0)} AS f{n:02d}" for n in range(number)
            )
            paths.append(str(folder / f"{name}.parquet"))
            engine.execute(f"COPY (SELECT {columns} FROM range({rows})) TO '{paths[-1]}'")
    return paths


def _ours(reference: str, current: str, in_memory: bool) -> dict[str, Any]:
    """Measured where the samples lie: in files, or in memory, as Evidently has its frames before its clock starts."""
    samples: list[Any] = [pq.read_table(path) if in_memory else path for path in (reference, current)]
    start, before = time.perf_counter(), time.process_time()
    found = compare_samples(samples[0], samples[1])
    seconds, processor = time.perf_counter() - start, time.process_time() - before
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with duckdb.connect() as engine:
        deviations = engine.execute(f"SELECT stddev_pop(COLUMNS(*)) FROM '{reference}'").fetchone() or ()
    distances = [
        (row["ks"], row["wasserstein"] / deviation)
        for row, deviation in zip(found.to_pylist(), deviations, strict=True)
    ]
    return {"seconds": seconds, "processor_s": processor, "memory_mb": memory, "found": distances}


def _run(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _add(report: Table, what: str, rows: str, found: dict[str, Any], told: str = "") -> None:
    seconds, processor = (f"{found[name]:.1f}" for name in ("seconds", "processor_s"))
    report.add_row(what, rows, seconds, processor, f"{found['memory_mb']:,.0f} MB", told)


def _compare(ours: list[list[float]], theirs: list[float]) -> None:
    """Wasserstein of every column by Evidently's convention, so that both did the same work."""
    far = max(math.fabs(wasserstein - theirs[4 * n + 1]) for n, (_, wasserstein) in enumerate(ours))
    within("largest difference of Wasserstein from Evidently's", far, CLOSE)


if __name__ == "__main__":
    main()
    finish()
