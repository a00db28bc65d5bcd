"""Intake from MLflow: 2,000 runs of 100 points each in at most 30 s, 10 changed ones in at most 2 s.

Repeat with `python -m benchmarks mlflow_runs`. The peer is MLflow itself, which logs the same runs through its
own API into the same store.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.limits import finish, verdict
from ml_assets import services
from ml_assets.intake.judge import Bounds
from ml_assets.intake.tracking import take_in_mlflow
from ml_assets.resources import store_resources
from ml_assets.settings import Settings, redact_url

RUNS, POINTS, CHANGED = 2_000, 100, 10
LIMITS_S = {"all": 30.0, "changed": 2.0}
STREAMS = ("runs", "metrics")
FIRST = datetime(2026, 5, 1, tzinfo=UTC)


def main() -> None:
    """Log, take in, change a few, take in again."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        resources = store_resources(Settings(home=home))
        report = Table("what", "runs", "logging", "intake", "limit", "")
        client = resources["mlflow"].client()
        logging, run_ids = _timed(lambda: _log(client))
        taken, rows = _timed(lambda: _take_in(resources))
        assert rows == RUNS * (1 + POINTS), rows
        report.add_row(f"{POINTS} points each", f"{RUNS:,}", *_told(logging, taken, LIMITS_S["all"]))
        logging, _ = _timed(lambda: [client.log_metric(r, "loss", 0.5) for r in run_ids[:CHANGED]])
        taken, rows = _timed(lambda: _take_in(resources))
        assert rows == CHANGED * (1 + POINTS), rows
        report.add_row("one more point each", f"{CHANGED}", *_told(logging, taken, LIMITS_S["changed"]))
        Console(width=100).print(report)
    finally:
        services.stop_all(home)
        shutil.rmtree(home)


def _log(client: Any) -> list[str]:
    """Runs one minute apart; the runs' ids."""
    from mlflow.entities import Metric, Param

    experiment = client.create_experiment("benchmark")
    run_ids = []
    for n in range(RUNS):
        start = int((FIRST + timedelta(minutes=n)).timestamp() * 1000)
        run_id = client.create_run(experiment, start_time=start, run_name=f"run {n}").info.run_id
        keys = ("loss", "accuracy")
        metrics = [Metric(keys[i % 2], 1 / (i + 1), start + i, i // 2) for i in range(POINTS)]
        client.log_batch(run_id, metrics=metrics, params=[Param("lr", "0.1"), Param("model", "mlp")])
        client.set_terminated(run_id, end_time=start + 5_000)
        run_ids.append(run_id)
    return run_ids


def _take_in(resources: dict[str, Any]) -> int:
    """What `ml-assets refresh` does first; rows read."""
    root = redact_url(resources["mlflow"].tracking_uri())
    client = resources["mlflow"].client()
    bounds = Bounds(date(2014, 1, 1), datetime.now(UTC))
    reports = [
        take_in_mlflow(stream, client, root, resources["lake"], resources["postgres"], bounds)
        for stream in STREAMS
    ]
    return sum(report.rows_read for report in reports)


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def _told(logging: float, taken: float, limit: float) -> tuple[str, str, str, str]:
    told = verdict("intake from MLflow", taken, limit)
    return f"{logging:.1f} s", f"{taken:.2f} s", f"{limit:.0f} s", told


if __name__ == "__main__":
    main()
    finish()
