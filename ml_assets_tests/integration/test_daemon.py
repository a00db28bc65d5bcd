"""`ml-assets up` as a person uses it: sensors and automation carry new rows through, Ctrl-C ends it cleanly."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from shutil import rmtree

import dagster as dg
import psutil
import pytest

from ml_assets import services
from ml_assets.build import build_defs
from ml_assets.cli.journal import log_file
from ml_assets.cli.refresh import Refresher
from ml_assets.demo.manifest import Day, Manifest
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.settings import PROJECT_ROOT, Settings

pytestmark = pytest.mark.embedded_only("starts, stops or kills servers of its own")

TODAY = datetime.now(UTC).replace(microsecond=0)
EARLIER = TODAY - timedelta(days=5)
DAYS = {TODAY.date().isoformat(), EARLIER.date().isoformat()}

ARRIVAL_S = 420
"""Sensors look every 5 s, and each of a few runs is a process of its own; on a loaded machine."""

TOLD = r"Taken in: [24] rows of runs\..*Rebuilt: \d+ tables? \([^)]*\) on \d+ days?\."

LINES = (
    (
        "duckdb/raw_runs",
        "duckdb/run_features",
        "duckdb/experiment_cards",
        "postgres/experiment_embeddings",
        "chroma/experiment_index",
    ),
    (
        "duckdb/raw_performance",
        "duckdb/model_performance_events",
        "clickhouse/ml_model_performance",
        "clickhouse/performance_hourly",
    ),
    ("duckdb/raw_runs", "postgres/ml_experiments", "sqlite/ml_experiments", "sqlite/ml_model_artifacts"),
    ("duckdb/raw_runs", "duckdb/run_features", "serving/online_features"),
    ("duckdb/run_features", "duckdb/model_performance_events"),
)
"""From raw to the ends of the graph."""

OF_THE_HOUR = {"quality/reconciliation", "quality/promotion_gate"}
"""What the daemon makes once an hour."""

UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


def until(condition: Callable[[], bool], seconds: float, server: subprocess.Popen[str], log: Path) -> None:
    """Wait for something that the running server brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert server.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(1)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home whose demo is said to be made, so that `up` comes straight to the point."""
    # Of this name, so that the next session stops the servers if this one is killed.
    folder = Path(tempfile.mkdtemp(prefix=f"mla-test-{os.getpid()}-"))
    Manifest(date.today() - timedelta(days=1), 1, {1: Day({}, {}, [])}).write(folder)
    yield folder
    for process in belonging(folder):
        process.kill()
    services.stop_all(folder)
    rmtree(folder)


def belonging(home: Path) -> list[psutil.Process]:
    """Processes of Dagster that work for this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DAGSTER_HOME") == str(home / "dagster"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone meanwhile, or somebody else's
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as response:
            return "dagster_version" in json.load(response)
    except OSError:
        return False


def arrive(settings: Settings) -> None:
    """A file of runs, runs in MLflow and a file of events, of today and of 5 days ago; no metric at all."""
    land(
        settings,
        "runs",
        *(
            {
                "run_id": f"file-{n}",
                "experiment": "mine",
                "model_name": "cats",
                "status": "completed",
                "created_at": start.isoformat(),
            }
            for n, start in enumerate((TODAY, EARLIER))
        ),
    )
    land(
        settings,
        "performance",
        *(
            {
                "event_id": f"event-{n}",
                "kind": "inference",
                "timestamp": start.isoformat(),
                "model_name": "cats",
                "run_id": f"file-{n}",
                "inference_time_ms": 1.5,
            }
            for n, start in enumerate((TODAY, EARLIER))
        ),
    )
    client = MLflowResource(home=str(settings.home)).client()
    experiment = client.create_experiment("theirs")
    for start in (TODAY, EARLIER):
        started = int(start.timestamp() * 1000)
        run = client.create_run(experiment, start_time=started)
        client.set_terminated(run.info.run_id, end_time=started + 1)


def land(settings: Settings, stream: str, *rows: dict) -> None:
    folder = settings.landing / stream
    folder.mkdir(parents=True)
    (folder / "new.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def carried_through(instance: dg.DagsterInstance) -> bool:
    """Whether each table was built after the one upstream, day by day, and nothing is under way."""
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert failed == [], [run.run_id for run in failed]
    built = {asset: events_by_day(instance, asset) for line in LINES for asset in line}
    return (
        all(newer(built[child], built[parent]) for line in LINES for parent, child in pairwise(line))
        and all(built[asset].keys() >= DAYS for asset in ("duckdb/raw_runs", *LINES[1]))
        and not instance.get_runs_count(dg.RunsFilter(statuses=list(UNDER_WAY)))
    )


def nothing_stale(refresher: Refresher) -> bool:
    """Whether a refresh would find nothing to rebuild but what has hours of its own."""
    whole = {asset.to_user_string() for asset in refresher.stale_tables(refresher.due_tables())}
    return whole <= OF_THE_HOUR and not (refresher.stale_days() or refresher.stale_windows())


def events_by_day(instance: dg.DagsterInstance, asset: str) -> Mapping[str, int]:
    """Number of the last event that built each day of a table; one without days has the day ''."""
    asset_key = dg.AssetKey.from_user_string(asset)
    event = dg.DagsterEventType.ASSET_MATERIALIZATION
    if days := instance.get_latest_storage_id_by_partition(asset_key, event):
        return days
    records = instance.fetch_materializations(asset_key, limit=1).records
    return {"": records[0].storage_id} if records else {}


def newer(child: Mapping[str, int], parent: Mapping[str, int]) -> bool:
    """Whether what a table holds was built after what it was built from."""
    if not child or not parent:
        return False
    if "" in child or "" in parent:
        return max(parent.values()) < max(child.values())
    return all(at < child.get(day, 0) for day, at in parent.items())


@contextmanager
def started(home: Path, port: int, log: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`ml-assets up` as a process of its own, once its UI answers."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "ml_assets.cli", "up", *options],
            cwd=PROJECT_ROOT,
            env={**inherited, "ML_ASSETS_HOME": str(home), "ML_ASSETS_PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            until(lambda: answers(port), 180, server, log)
            yield server
        finally:
            server.kill()
            server.wait()


@pytest.mark.timeout(300)
def test_there_is_one_up_and_down_stops_all_of_it(cli, home):
    """It may start empty; after `down` no sensor starts a store again."""
    Manifest.path(home).unlink()
    port = free_port()
    log = home / "up.log"
    with started(home, port, log, "--empty") as server:
        assert "No demo is made, because --empty was given; `ml-assets demo` makes it." in log.read_text()
        assert not Manifest.path(home).exists()
        second = cli(home, "up", "--empty", ML_ASSETS_PORT=str(free_port()))
        assert second.returncode == 1
        assert f"(process {server.pid}, http://127.0.0.1:{port})" in second.stderr
        stopped = cli(home, "down")
        assert stopped.returncode == 0, stopped.stderr
        first, then = stopped.stdout.splitlines()
        assert first.startswith(
            f"Stopped `ml-assets up` (process {server.pid}) with UI at http://127.0.0.1:{port}"
        )
        assert then.startswith("Stopped postgres, chroma")
        assert server.wait(10) == 0, log.read_text()[-4000:]
        assert belonging(home) == []
        assert "running" not in {state.state for state in services.describe(home).values()}
    assert "Traceback" not in log.read_text()


@pytest.mark.timeout(900)
def test_new_rows_arrive_by_themselves_and_ctrl_c_ends_it(cli, home):
    settings = Settings(home=home)
    port = free_port()
    log = home / "up.log"
    with started(home, port, log) as server:
        assert f"Dagster is at http://127.0.0.1:{port}" in log.read_text()
        arrive(settings)
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            refresher = Refresher(settings, build_defs(settings), instance, lambda *_: None)
            until(lambda: carried_through(instance) and nothing_stale(refresher), ARRIVAL_S, server, log)
        # It looks every 2 s.
        until(lambda: bool(re.search(TOLD, log.read_text(), re.DOTALL)), 30, server, log)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0, log.read_text()[-4000:]
    assert "Traceback" not in log.read_text() + log_file(home).read_text()
    assert belonging(home) == []
    assert not answers(port)

    # The stores run on, and hold every row.
    done = cli(home, "status", "--json", "--verify")
    assert done.returncode == 0, done.stderr
    stores = json.loads(done.stdout)["stores"]
    for store, table, rows in (
        ("postgres", "ml_experiments", 4),
        ("sqlite", "ml_experiments", 4),
        ("chroma", "experiment_index", 4),
        ("clickhouse", "ml_model_performance", 2),
        ("clickhouse", "performance_hourly", 2),
    ):
        assert stores[store]["tables"][table]["rows"] == rows, (store, table)

    # Nothing was left to do but what the daemon does once an hour; and the history of Dagster is there for the
    # next start.
    again = cli(home, "refresh", "--json")
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert report["days"] == []
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        made = [instance.get_run_by_id(run_id) for run_id in report["runs"]]
        assert instance.get_runs_count() > len(made)
    selected = {asset.to_user_string() for run in made if run for asset in run.asset_selection or ()}
    assert selected <= OF_THE_HOUR

    stopped = cli(home, "down")
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.startswith("Stopped postgres, chroma")
    assert "running" not in {state.state for state in services.describe(home).values()}
