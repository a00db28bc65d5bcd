"""`ml-assets demo --remove`: the demo goes, what is one's own stays. Very small demos, really trained."""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ml_assets import services
from ml_assets.cli import demo as demo_command
from ml_assets.cli.demo import run_demo
from ml_assets.contracts import STREAMS
from ml_assets.demo import Manifest, Plan, make_demo, removal, replay
from ml_assets.demo.documents import library_documents
from ml_assets.demo.manifest import Day
from ml_assets.demo.uninvited import why_uninvited
from ml_assets.errors import Refusal
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.intake.tracking import take_in_mlflow
from ml_assets.lib.run_health import Finding
from ml_assets.operations import run_watch
from ml_assets.settings import Settings
from ml_assets.stores import touched_days
from ml_assets_tests.scale import LONG

pytestmark = pytest.mark.timeout(900)  # whole refreshes, on machines that do other things as well

END = date(2026, 3, 10)
EXPIRED = {("postgres", "model_daily_features"), ("redis", "model_daily_features")}
"""Served for a week from their day on."""
TINY = Plan(days=2, shift_day=2, datasets=("iris",), families=("knn",), seeds=(0,), mistakes=())
AT = "2026-03-10T10:00:00Z"  # on a day of the demo
OWN = {
    "runs/own.jsonl": {
        "run_id": "own",
        "experiment": "mine",
        "model_name": "cats",
        "status": "completed",
        "created_at": AT,
        "metrics": {"accuracy": 0.93},
    },
    "metrics/own.jsonl": {"run_id": "own", "key": "loss", "step": 1, "value": 0.5, "timestamp": AT},
    "performance/own.jsonl": {
        "event_id": "own",
        "kind": "inference",
        "timestamp": AT,
        "model_name": "cats",
        "run_id": "own",
        "inference_time_ms": 2.5,
        "batch_size": 1,
    },
    "predictions/own.jsonl": {
        "prediction_id": "own",
        "model_name": "cats",
        "input_features": {"legs": 4},
        "prediction": "cat",
        "created_at": AT,
    },
    "documents/own.jsonl": {"document_id": "own", "title": "Cats", "text": "Cats purr.", "updated_at": AT},
}


def land(home: Path) -> None:
    for name, row in OWN.items():
        file = home / "landing" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{json.dumps(row)}\n")


def landed(home: Path) -> set[str]:
    landing = home / "landing"
    return {path.relative_to(landing).as_posix() for path in landing.rglob("*") if path.is_file()}


def log_run(client: MlflowClient, experiment: str) -> str:
    run_id = client.create_run(experiment, start_time=1_773_136_800_000).info.run_id
    client.log_metric(run_id, "accuracy", 0.9)
    client.set_terminated(run_id)
    return run_id


def mlflow_rows(home: Path, table: str, columns: str) -> list[tuple]:
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as connection:
        return sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall())


def take_in(home, lake, postgres, mlflow):
    bounds = Bounds(date(2014, 1, 1), datetime.now(UTC))
    for name, stream in STREAMS.items():
        take_in_files(name, list_files(home / "landing" / name), lake, postgres, bounds)
        if stream.from_mlflow:
            take_in_mlflow(name, mlflow.client(), mlflow.tracking_uri(), lake, postgres, bounds)


def held(lake, postgres) -> dict[str, list[tuple]]:
    """What intake holds of each stream by content, with what the ledger says of it."""
    with postgres.connect() as connection:
        states = dict(connection.execute("SELECT unit_hash, state FROM ledger.units").fetchall())
    with lake.get_connection() as connection:
        found = {
            stream: connection.execute(
                f"SELECT unit_hash, count(*) FROM intake.intake_{stream} GROUP BY ALL"
            ).fetchall()
            for stream in STREAMS
        }
    assert {content for rows in found.values() for content, _ in rows} == set(states)
    return {stream: sorted((*row, states[row[0]]) for row in rows) for stream, rows in found.items()}


def test_files_and_runs_go_and_those_of_others_stay(tmp_path, lake, postgres, mlflow, monkeypatch):
    settings = Settings(home=tmp_path, demo_end=END)
    land(tmp_path)
    client = MlflowClient(settings.embedded_mlflow_uri, settings.embedded_mlflow_uri)
    mine = [log_run(client, "0")]
    take_in(tmp_path, lake, postgres, mlflow)
    own = held(lake, postgres)
    make_demo(settings, plan=TINY)
    theirs = client.get_experiment_by_name("demo-iris")
    assert theirs
    mine.append(log_run(client, theirs.experiment_id))
    client.create_model_version("iris-knn", source="file:///mine", run_id=mine[1])
    [file] = (tmp_path / "landing" / "documents").glob("demo-2026-03-09.*")
    copy = Path(shutil.copy(file, file.with_stem("copy")))
    take_in(tmp_path, lake, postgres, mlflow)
    before = held(lake, postgres)
    assert all(len(before[stream]) > len(own[stream]) for stream in STREAMS)

    # Killed when files and runs are gone from outside, and again in the middle of intake.
    for name in ("erase_files", "erase_runs"):
        with monkeypatch.context() as patch:
            patch.setattr(removal, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                removal.remove_input(settings, lake, postgres)
    assert "taken out" in (why_uninvited(settings) or "")
    with pytest.raises(Refusal, match="demo --remove"):
        make_demo(settings, plan=TINY)
    done = removal.remove_input(settings, lake, postgres)
    assert (done.files, done.changed, done.unknown, done.tracked["run"]) == (0, [], [], 0)

    assert landed(tmp_path) == {*OWN, f"documents/{copy.name}"}
    assert [run for (run,) in mlflow_rows(tmp_path, "runs", "run_uuid")] == sorted(mine)
    assert {run for (run,) in mlflow_rows(tmp_path, "metrics", "run_uuid")} == set(mine)
    assert mlflow_rows(tmp_path, "experiments", "name") == [("Default",), ("demo-iris",)]
    [version] = client.search_model_versions()
    assert (version.name, version.run_id) == ("iris-knn", mine[1])
    assert not list(settings.embedded_mlflow_artifacts.rglob("*.joblib"))
    after = held(lake, postgres)
    for stream in STREAMS:
        assert set(own[stream]) <= set(after[stream]) <= set(before[stream])
        mine_besides = STREAMS[stream].from_mlflow or stream == "documents"
        assert len(after[stream]) == len(own[stream]) + mine_besides, stream
    with postgres.connect() as connection:
        assert connection.execute(
            "SELECT count(*) FROM ledger.places WHERE unit LIKE 'demo-%'"
        ).fetchone() == (0,)
        for stream in STREAMS:
            assert touched_days.due_days(connection, stream), stream
    now = datetime.now(UTC)
    manifest = Manifest.read(tmp_path)
    assert manifest and len(manifest.tracked) > 1
    plain = f"diabetes-ridge-{END}"
    watched = [Finding(run, "nan", now, "all of it") for run in (manifest.tracked[0], plain, "own")]
    run_watch.ensure_schema(postgres)
    with postgres.connect(write=True) as connection:
        run_watch.keep(connection, watched, now)
        run_watch.keep(connection, [], now)
    removal.remove_rest(settings, postgres)
    with postgres.connect() as connection:
        assert connection.execute("SELECT run_id FROM ml_run_findings").fetchall() == [("own",)]
    assert not Manifest.folder(tmp_path).exists()
    with pytest.raises(Refusal, match="There is no demo in"):
        removal.require_demo(settings)


def test_a_demo_whose_model_is_nobody_else_s_leaves_nothing_in_mlflow(tmp_path):
    from ml_assets.demo.tracking import Tracker

    settings = Settings(home=tmp_path, demo_end=END)
    make_demo(settings, plan=TINY)
    make_demo(
        Settings(home=tmp_path, demo_end=date(2026, 2, 1)), plan=TINY
    )  # MLflow marks the former as deleted
    runs = len(mlflow_rows(tmp_path, "runs", "run_uuid"))
    told = Tracker(settings).erase()
    assert told == {"run": runs, "model": 2, "experiment": 1}
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as connection:
        of_runs = [
            table
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if table not in ("alembic_version", "experiments", "workspaces")
        ]
    assert {"runs", "metrics", "tags", "inputs", "datasets", "model_versions"} <= set(of_runs)
    for table in of_runs:
        assert mlflow_rows(tmp_path, table, "count(*)") == [(0,)], table
    assert mlflow_rows(tmp_path, "experiments", "name") == [("Default",)]
    assert list(settings.embedded_mlflow_artifacts.iterdir()) == []


def test_files_that_may_be_one_s_own_stay_and_are_named(tmp_path, lake, postgres):
    """A changed one, and those of a demo that noted no hashes; what a killed call was about to write goes."""
    settings = Settings(home=tmp_path)
    runs = tmp_path / "landing" / "runs"
    runs.mkdir(parents=True)
    names = ("same", "changed", "unknown")
    for name in names:
        (runs / name).write_text(name)
    files = [f"runs/{name}" for name in (*names, "missing")]
    hashes = {f"runs/{name}": removal.hash_file(runs / name) for name in ("same", "changed")}
    manifest = Manifest(
        END, 2, {1: Day({}, {}, files, {**hashes, "runs/missing": "-"})}, former=["runs/former"]
    )
    (runs / "changed").write_text("mine")
    begun = next(name for name in manifest.written() if name not in files)
    for name in ("runs/former", "runs/same.partial", begun):
        (tmp_path / "landing" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "landing" / name).write_text("")
    manifest.write(tmp_path)
    removed = removal.remove_input(settings, lake, postgres)
    assert (removed.files, removed.changed, removed.unknown) == (3, ["runs/changed"], ["runs/unknown"])
    assert landed(tmp_path) == {"runs/changed", "runs/unknown"}
    assert removed.tracked == {} and not (tmp_path / "mlflow").exists()
    told = "\n".join(demo_command._told(settings, removed, {"redis": 3, "sqlite": 2}, {"sqlite": 1}))
    assert f"{runs}/changed was changed since" in told
    assert "Removed 3 landing files, and of MLflow nothing." in told
    assert "1 landing file stays with its rows" in told and "then delete it: runs/unknown." in told
    assert "redis: 3 rows before, and it does not answer now." in told
    assert "sqlite: 2 rows before, 1 now." in told


def test_without_a_home_nothing_is_made(cli, tmp_path):
    done = cli(tmp_path / "none", "demo", "--remove")
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.fixture
def home() -> Iterator[Path]:
    """A fresh home; of this name, so that the next session stops its servers if this one is killed."""
    folder = Path(tempfile.mkdtemp(prefix=f"mla-test-{os.getpid()}-"))
    yield folder
    services.stop_all(folder)
    shutil.rmtree(folder)


def tables(cli, home: Path) -> dict[tuple[str, str], tuple[int, str | None]]:
    done = cli(home, "status", "--json", "--verify")
    assert done.returncode == 0, done.stderr
    stores = json.loads(done.stdout)["stores"]
    return {
        (store, name): (table["rows"], table["content_hash"])
        for store, told in stores.items()
        for name, table in told["tables"].items()
    }


@pytest.mark.embedded_only("works in a home of its own, whose stores are all embedded")
@pytest.mark.skipif(not LONG, reason="four whole refreshes: part of make test-all")
def test_one_s_own_rows_are_in_every_store_as_if_there_had_been_no_demo(cli, home, monkeypatch):
    land(home)
    assert cli(home, "refresh", "--json").returncode == 0
    own = tables(cli, home)
    settings = Settings(home=home, demo_end=END)
    with monkeypatch.context() as patch:  # all of them are embedded for longer than the rest takes
        patch.setattr(replay, "library_documents", lambda midnight: islice(library_documents(midnight), 3))
        run_demo(settings, lambda *step: None, TINY)
    made = tables(cli, home)
    assert {name for name, (rows, _) in own.items() if made[name][0] <= rows} <= EXPIRED

    # Killed when the input is gone and nothing is rebuilt yet.
    with monkeypatch.context() as patch:
        patch.setattr(
            demo_command, "refresh_graph", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert cli(home, "demo", "--remove").returncode == 130
    assert "--remove" in cli(home, "demo").stderr
    done = cli(home, "demo", "--remove")
    assert done.returncode == 0, done.stderr
    assert tables(cli, home) == own
    assert landed(home) == set(OWN)
    assert not Manifest.folder(home).exists()
    refreshed = cli(home, "refresh", "--json")
    assert (refreshed.returncode, json.loads(refreshed.stdout)["runs"]) == (0, [])
    again = cli(home, "demo", "--remove")
    assert again.returncode == 1
    assert "There is no demo in" in again.stderr
