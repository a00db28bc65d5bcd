"""How fresh are the stores? A file lands while `ml-assets up` serves, and is waited for in one store after the other.

In every store within 30 s at the median, on two idle cores. Repeat with `python -m benchmarks freshness`. The peer is
`ml-assets refresh` in the same home: the same work without sensors, daemon and processes of their own.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.limits import finish, verdict
from ml_assets import connect, services
from ml_assets.contracts import tables
from ml_assets.errors import Refusal
from ml_assets.resources import store_resources
from ml_assets.stack import Stack
from ml_assets.stores.registry import stores

FILES = int(os.environ.get("ML_ASSETS_BENCH_FILES", "5"))
LIMIT_S = 30.0
PATIENCE_S = 600.0

ARRIVED = (
    ("postgres", "SELECT 1 FROM ml_experiments WHERE id = '{run}'"),
    ("sqlite", "SELECT 1 FROM ml_experiments WHERE id = '{run}'"),
    ("duckdb", "SELECT 1 FROM features.experiment_cards WHERE run_id = '{run}'"),
    ("postgres", "SELECT 1 FROM experiment_embeddings WHERE run_id = '{run}'"),
)
"""Store and question, in the order in which a run comes by; Chroma's entry is asked for last, by its id."""


def main() -> None:
    """Files that land with `up` running, one after the other, then one that `refresh` takes in."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        took = _served(home)
        names = list(took[0])
        for name in names:
            print(f"{name:42} {statistics.median(each[name] for each in took):7.1f} s at the median")
        last = names[-1]
        median = statistics.median(each[last] for each in took)
        told = verdict("fresh in every store", median, LIMIT_S)
        print(f"{last}: {told} the limit of {LIMIT_S:.0f} s; {FILES} files")
        _land(home, "by hand")
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "ml_assets.cli", "refresh"], env=_environment(home), check=True)
        print(f"{'ml-assets refresh':42} {time.monotonic() - started:7.1f} s")
    finally:
        services.stop_all(home)
        shutil.rmtree(home)
    finish()


def _served(home: Path) -> list[dict[str, float]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "screen.log").open("w") as screen:
        up = subprocess.Popen(
            [sys.executable, "-m", "ml_assets.cli", "up", "--empty"],
            env={**_environment(home), "ML_ASSETS_PORT": str(port)},
            stdout=screen,
            stderr=subprocess.STDOUT,
        )
        try:
            stack = connect(home)
            _seconds(stack, home, "to begin with")  # the tables are made, the code server is warm
            return [_seconds(stack, home, f"file {number}") for number in range(FILES)]
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)


def _seconds(stack: Stack, home: Path, run: str) -> dict[str, float]:
    """From the moment a file lands to the moment at which each store answers with its run."""
    _land(home, run)
    started = time.monotonic()
    took = {}
    for store, question in ARRIVED:
        name = f"{store}: {question.split()[3]}"
        while not _answers(stack, store, question.format(run=run)):
            assert time.monotonic() - started < PATIENCE_S, (home / "screen.log").read_text()
            time.sleep(0.25)
        took[name] = time.monotonic() - started
    index = next(store for store in stores(store_resources(stack.settings)) if store.name == "chroma")
    contract = tables(stack.settings)["chroma/experiment_index"]
    while run not in (index.keys(contract) or ()):
        assert time.monotonic() - started < PATIENCE_S, (home / "screen.log").read_text()
        time.sleep(0.25)
    took["chroma: experiment_index"] = time.monotonic() - started
    return took


def _answers(stack: Stack, store: str, question: str) -> bool:
    try:
        return bool(stack.sql(store, question).num_rows)
    except Refusal:  # the first file makes the table
        return False


def _land(home: Path, run: str) -> None:
    """A run and a metric of it, complete under their names at once."""
    now = datetime.now(UTC).isoformat()
    rows = {
        "runs": {
            "run_id": run,
            "experiment": "fresh",
            "model_name": "m",
            "status": "completed",
            "created_at": now,
        },
        "metrics": {"run_id": run, "key": "accuracy", "step": 0, "value": 0.9, "timestamp": now},
    }
    for stream, row in rows.items():
        folder = home / "landing" / stream
        folder.mkdir(parents=True, exist_ok=True)
        draft = home / "draft"
        draft.write_text(json.dumps(row) + "\n")
        draft.replace(folder / f"{run}.jsonl")


def _environment(home: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
    return {**inherited, "ML_ASSETS_HOME": str(home)}


if __name__ == "__main__":
    main()
