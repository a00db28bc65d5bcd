"""A backlog put in at once: 1,500 runs with 2.6 million metric points on 100 days scattered over two years.

Through the whole graph in at most 10 minutes on two cores. Repeat with `python -m benchmarks backlog`. The
peer is the same refresh once more, with nothing new: what looking costs.
"""

import shutil
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.limits import finish, verdict
from ml_assets import services
from ml_assets.cli.refresh import Report, refresh_graph
from ml_assets.settings import Settings

RUNS, DAYS, STEPS, KEYS = 1_500, 100, 867, ("loss", "accuracy")
LAST = date(2026, 6, 30)
LIMIT_S = 600.0


def main() -> None:
    """Two refreshes of a home of their own."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        _land(home / "landing")
        settings = Settings(home=home)
        first, again = (refresh_graph(settings, lambda phase, done, total: None) for _ in range(2))
        loaded = {stream: first.streams[stream]["loaded"] for stream in ("runs", "metrics")}
        assert loaded == {"runs": RUNS, "metrics": RUNS * STEPS * len(KEYS)}, loaded
        assert again.days == [], again.days
        told = verdict("backlog", first.seconds, LIMIT_S)
        print(f"{loaded['runs']:,} runs and {loaded['metrics']:,} points on {DAYS} days")
        print(f"first {first.seconds:7.1f} s  ({told} the limit of {LIMIT_S:.0f} s)  {_phases(first)}")
        print(f"again {again.seconds:7.1f} s")
    finally:
        services.stop_all(home)
        shutil.rmtree(home)


def _phases(report: Report) -> str:
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.phases.items())
    return f"{phases}; {len(report.days)} days in {len(report.runs)} runs"


def _land(landing: Path) -> None:
    """One Parquet file of runs, one of metrics."""
    random = np.random.default_rng(1)
    chosen = sorted(random.choice(730, DAYS, replace=False).tolist())
    days = [datetime(LAST.year, LAST.month, LAST.day, 8, tzinfo=UTC) - timedelta(days=n) for n in chosen]
    started = [days[n % DAYS] + timedelta(minutes=10 * (n // DAYS)) for n in range(RUNS)]
    created_at = pa.array(started, pa.timestamp("us", "UTC"))
    runs = {
        "run_id": [f"run {n}" for n in range(RUNS)],
        "experiment": [f"experiment {n % 7}" for n in range(RUNS)],
        "model_name": [f"model {n % 20}" for n in range(RUNS)],
        "model_type": ["mlp"] * RUNS,
        "status": ["completed"] * RUNS,
        "parameters": [f'{{"hidden_units": {8 * (n % 9 + 1)}}}' for n in range(RUNS)],
        "notes": [f"Run {n} tried a wider net." for n in range(RUNS)],
        "created_at": created_at,
        "completed_at": pa.array([start + timedelta(minutes=9) for start in started], created_at.type),
    }
    run, key, step = (
        axis.ravel() for axis in np.meshgrid(range(RUNS), range(len(KEYS)), range(STEPS), indexing="ij")
    )
    starts = created_at.cast(pa.int64()).to_numpy()
    metrics = {
        "run_id": pa.array(runs["run_id"]).take(pa.array(run)),
        "key": pa.array(KEYS).take(pa.array(key)),
        "step": step,
        "value": random.random(len(step)),
        "timestamp": pa.array(starts[run] + step * 300_000, pa.timestamp("us", "UTC")),
    }
    for stream, table in {"runs": runs, "metrics": metrics}.items():
        (landing / stream).mkdir(parents=True)
        pq.write_table(pa.table(table), landing / stream / "backlog.parquet")


if __name__ == "__main__":
    main()
    finish()
