"""A small demo, really trained: what it leaves behind, and that kills and repetitions change nothing."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from ml_assets.contracts import STREAMS
from ml_assets.demo import Manifest, Plan, make_demo
from ml_assets.demo.plan import Mistake
from ml_assets.demo.uninvited import why_uninvited
from ml_assets.demo.withdrawal import erase_former
from ml_assets.errors import Refusal
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.intake.tracking import take_in_mlflow
from ml_assets.settings import Settings
from ml_assets.stores import touched_days

END = date(2026, 3, 10)
SMALL = Plan(
    days=3,
    shift_day=3,
    datasets=("iris", "digits"),
    families=("knn", "naive_bayes"),
    seeds=(0, 1),
    mistakes=(Mistake(2, "iris", "knn", {"n_neighbors": 5000}),),
)
MEASURED = {"inference_time_ms", "memory_usage_mb"}

TAGGED = """
SELECT r.run_uuid, r.name, r.status, k.value AS key, r.start_time, r.end_time, r.artifact_uri
FROM runs r JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'demo_key'
WHERE r.lifecycle_stage = 'active'
"""

# Sweeps have a table of their trials, retrainings a model, the mistake its traceback.
WITH_FILES = f"SELECT * FROM ({TAGGED}) WHERE key NOT LIKE '%seed%'"

CURVE = """
SELECT step, value FROM metrics JOIN runs USING (run_uuid)
WHERE name = ? AND key = 'loss' ORDER BY start_time, step
"""


def settings(home, end=END):
    return Settings(home=home, demo_end=end)


def query(home, sql, *values):
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(sql, values).fetchall()


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a landing file with JSON and times parsed, "" in CSV as None."""
    columns = {column.name: column.type for column in STREAMS[path.parent.name].columns}
    if path.suffix == ".jsonl":
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    else:
        rows = pq.read_table(path).to_pylist()
    for row in rows:
        for name, value in row.items():
            if value is None:
                continue
            if columns[name] == "timestamp" and isinstance(value, str):
                row[name] = datetime.fromisoformat(value)
            elif columns[name] == "json" and path.suffix != ".jsonl":
                row[name] = json.loads(value)
            elif columns[name] in ("int64", "float64"):
                row[name] = float(value)
    return rows


def stream(home, name):
    return [row for path in sorted((home / "landing" / name).iterdir()) for row in read(path)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Home of a small demo, its report and what its progress was told; MLflow's own settings mislead."""
    home, elsewhere = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("elsewhere")
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
        patch.chdir(elsewhere)
        report = make_demo(settings(home), lambda *step: told.append(step), SMALL)
    assert list(elsewhere.iterdir()) == []
    return home, report, told


def test_the_report_counts_what_is_there(made):
    home, report, told = made
    plain = stream(home, "runs")
    assert (report.start, report.end, report.trained) == (date(2026, 3, 8), END, True)
    # 4 sweeps of 4 trials, 4 models on 3 days, a mistake; and 2 models of the team without MLflow.
    assert len(query(home, TAGGED)) == 4 * 5 + 12 + 1
    assert report.runs == len(query(home, TAGGED)) + len(plain) == 33 + 6
    assert report.failed == 1
    for name, count in (("performance", "events"), ("predictions",) * 2, ("documents",) * 2):
        assert len(stream(home, name)) == getattr(report, count) > 0
    assert told[0] == ("training", 0, 29) and told[-1] == ("training", 29, 29)
    assert set(report.seconds) == {"loading", "logging", "training", "serving", "writing"}


def test_a_run_of_others_beside_the_demo_is_noticed(made, tmp_path):
    from mlflow import MlflowClient

    home, *_ = made
    assert why_uninvited(settings(home)) is None
    shutil.copytree(home / "mlflow", tmp_path / "mlflow", ignore=shutil.ignore_patterns("artifacts"))
    theirs = MlflowClient(settings(tmp_path).embedded_mlflow_uri).create_run("0").info.run_id
    assert why_uninvited(settings(tmp_path)) == f"run {theirs} in the home's MLflow is not the demo's"


@pytest.mark.parametrize("name", STREAMS)
def test_landing_files_keep_their_contract(made, name):
    home, *_ = made
    contract, rows = STREAMS[name], stream(home, name)
    assert {path.suffix for path in (home / "landing" / name).iterdir()} <= {".jsonl", ".csv", ".parquet"}
    for row in rows:
        assert list(row) == [column.name for column in contract.columns]
        for column in contract.columns:
            value = row[column.name]
            assert value is not None or column.nullable, (column.name, row)
            if value is None:
                continue
            if column.type == "timestamp":
                assert value.utcoffset() == timedelta(0)
                assert date(2026, 3, 8) <= value.date() <= END
            elif column.type == "string":
                assert isinstance(value, str) and value in (column.choices or (value,))
            elif column.type in ("int64", "float64"):
                assert (column.minimum is None or value >= column.minimum) and (
                    column.maximum is None or value <= column.maximum
                )
    keys = Counter(tuple(row[part] for part in contract.key) for row in rows)
    assert max(keys.values()) == 1


def test_runs_are_whole(made):
    home, *_ = made
    tags = {(row["run_uuid"], row["key"]): row["value"] for row in query(home, "SELECT * FROM tags")}
    runs = {row["run_uuid"]: row for row in query(home, TAGGED)}
    points = Counter(row["run_uuid"] for row in query(home, "SELECT run_uuid FROM metrics"))
    inputs = Counter(row["destination_id"] for row in query(home, "SELECT destination_id FROM inputs"))
    for run_id, run in runs.items():
        assert tags[run_id, "replayed"] == "true"
        assert tags[run_id, "mlflow.note.content"]
        started = datetime.fromtimestamp(run["start_time"] / 1000, UTC)
        assert started.date().isoformat() == tags[run_id, "replay_day"]
        assert run["end_time"] > run["start_time"]
        assert tags[run_id, "dataset"] in SMALL.datasets
        match tags[run_id, "role"]:
            case "mistake":
                assert run["status"] == "FAILED"
                assert tags[run_id, "error"].startswith("ValueError: Expected n_neighbors <= n_samples_fit")
            case "trial":
                parent = runs[tags[run_id, "mlflow.parentRunId"]]
                assert parent["start_time"] <= run["start_time"] <= run["end_time"] <= parent["end_time"]
            case "sweep":
                assert run["status"] == "FINISHED"
            case "retraining":
                folder = run["artifact_uri"].removeprefix("file://")
                assert sorted(path.name for path in Path(folder).iterdir()) == ["model.joblib", "report.json"]
                assert points[run_id] >= 8
        if tags[run_id, "role"] != "sweep":
            assert inputs[run_id] == 2  # training and validation


def test_learning_curves_are_logged_step_by_step(made):
    home, *_ = made
    curve = query(home, CURVE, "digits mlp retraining")
    assert [row["step"] for row in curve] == [*range(15)] * 3
    losses = [row["value"] for row in curve[:15]]
    assert losses[-1] < 0.1 * losses[0]


def test_retrainings_are_versions_of_their_model(made):
    home, *_ = made
    versions = query(
        home,
        "SELECT v.name, v.version, t.key FROM model_versions v JOIN ("
        + TAGGED
        + ") t ON t.run_uuid = v.run_id",
    )
    assert {(row["name"], row["version"], row["key"].split(":")[0]) for row in versions} == {
        (name, day, f"day {day}")
        for name in ("iris-logistic_regression", "iris-knn", "digits-random_forest", "digits-mlp")
        for day in (1, 2, 3)
    }
    aliases = query(home, "SELECT name, alias, version FROM registered_model_aliases")
    assert {row["name"]: row["version"] for row in aliases if row["alias"] == "challenger"} == dict.fromkeys(
        {row["name"] for row in versions}, 3
    )
    assert sum(row["alias"] == "champion" for row in aliases) == 4


def test_models_fall_where_their_input_changes(made):
    home, *_ = made
    judged = {
        (row["model_name"], row["timestamp"].date()): row["accuracy"]
        for row in stream(home, "performance")
        if row["kind"] == "evaluation"
    }
    assert len(judged) == 4 * 2
    for model in ("digits-random_forest", "digits-mlp"):
        assert judged[model, date(2026, 3, 9)] > 0.85
        assert judged[model, date(2026, 3, 10)] < judged[model, date(2026, 3, 9)] - 0.2
    assert judged["iris-knn", date(2026, 3, 10)] > 0.8


def test_events_and_predictions_agree(made):
    home, *_ = made
    events, predictions = stream(home, "performance"), stream(home, "predictions")
    for event in events:
        if event["kind"] == "inference":
            assert (
                event["inference_time_ms"] > 0 and event["memory_usage_mb"] > 10 and event["accuracy"] is None
            )
            continue
        mine = [
            row
            for row in predictions
            if row["model_name"] == event["model_name"]
            and row["created_at"].date() == event["timestamp"].date()
        ]
        assert len(mine) == event["batch_size"]
        right = sum(row["prediction"] == row["label"] for row in mine) / len(mine)
        assert event["accuracy"] == pytest.approx(right)
    assert len({event["timestamp"].hour for event in events}) > 10


def test_the_team_without_mlflow_has_files(made):
    home, *_ = made
    runs = stream(home, "runs")
    assert {row["run_id"] for row in runs} == {
        f"diabetes-{family}-2026-03-{day:02}" for family in ("ridge", "sgd_regressor") for day in (8, 9, 10)
    }
    for row in runs:
        assert row["status"] == "completed" and row["metrics"]["mae"] < 60
        folder = row["artifact_uri"].removeprefix("file://")
        assert sorted(path.name for path in Path(folder).iterdir()) == ["data.json", "model.joblib"]


def test_documents_are_the_library_s_and_the_notes(made):
    home, report, _ = made
    documents = {row["document_id"]: row for row in stream(home, "documents")}
    assert "Iris plants dataset" in documents["dataset:iris"]["text"]
    assert documents["estimator:RandomForestClassifier"]["text"].startswith("A random forest classifier.")
    notes = [row for key, row in documents.items() if key.startswith("note:")]
    assert len(notes) == report.runs


def test_a_second_call_changes_nothing(made):
    home, report, _ = made
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    again = make_demo(Settings(home=home), plan=SMALL)
    assert not again.trained and (again.runs, again.end) == (report.runs, END)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before


def test_a_future_or_too_early_fortnight_is_refused(tmp_path):
    for end in (datetime.now(UTC).date(), date(2014, 1, 2)):
        with pytest.raises(Refusal, match="set ML_ASSETS_DEMO_END to a day before today"):
            make_demo(settings(tmp_path, end), plan=SMALL)
    assert Manifest.read(tmp_path) is None


KILLED = """
import os, signal, sys
from datetime import date
from pathlib import Path
from typing import Any
from mlflow import MlflowClient
from ml_assets.demo import landing_files, make_demo
from ml_assets.settings import Settings
from ml_assets_tests_plan import SMALL

owner = {"client": MlflowClient, "landing_files": landing_files}[sys.argv[2]]
name, count = sys.argv[3], int(sys.argv[4])
original = getattr(owner, name)

def deadly(*args, **kw):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kw)

setattr(owner, name, deadly)
make_demo(Settings(home=Path(sys.argv[1]), demo_end=date(2026, 3, 10)), plan=SMALL)
"""


def test_kills_leave_nothing_doubled_and_change_nothing(made, tmp_path):
    plan = tmp_path / "ml_assets_tests_plan.py"
    plan.write_text(f"from ml_assets.demo.plan import Mistake, Plan\nSMALL = {SMALL!r}\n")
    home = tmp_path / "home"
    moments = [
        ("client", "log_artifacts", 2),  # a run of the first day is half logged
        ("client", "set_registered_model_alias", 3),  # a run of the first day is half registered
        ("landing_files", "write", 7),  # the second day's files are half written
    ]
    for owner, name, count in moments:
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(home), owner, name, str(count)],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    manifest = Manifest.read(home)
    assert manifest and list(manifest.finished) == [1]
    report = make_demo(settings(home), plan=SMALL)
    assert report.trained and (report.runs, report.failed) == (39, 1)
    assert content(home) == content(made[0])
    assert not list(home.rglob("*.partial"))
    folders = {path.name for path in (home / "mlflow" / "artifacts").glob("*/*")}
    assert folders == {row["run_uuid"] for row in query(home, WITH_FILES)}
    assert not (home / "demo" / "staging").exists()


def content(home):
    """All that a demo holds, without ids that MLflow gives and without what was measured."""
    runs = {row["run_uuid"]: row["key"] for row in query(home, TAGGED)}
    assert len(set(runs.values())) == len(runs)

    def known(row):
        return row["run_uuid"] in runs

    metrics = query(home, "SELECT * FROM metrics")
    params = query(home, "SELECT * FROM params")
    tags = query(home, "SELECT * FROM tags")
    versions = query(home, "SELECT name, version, run_id FROM model_versions")
    return {
        "runs": sorted((row["key"], row["status"], row["start_time"]) for row in query(home, TAGGED)),
        "metrics": sorted(
            (runs[row["run_uuid"]], row["key"], row["step"], row["value"])
            for row in metrics
            if known(row) and row["key"] not in MEASURED
        ),
        "params": sorted((runs[row["run_uuid"]], row["key"], row["value"]) for row in params if known(row)),
        "tags": sorted(
            (runs[row["run_uuid"]], row["key"], runs.get(row["value"], row["value"]))
            for row in tags
            if known(row)
        ),
        "versions": sorted((row["name"], row["version"], runs[row["run_id"]]) for row in versions),
        "aliases": sorted(
            map(tuple, query(home, "SELECT name, alias, version FROM registered_model_aliases"))
        ),
        **{name: sorted(map(str, map(_stable, stream(home, name)))) for name in STREAMS},
    }


def _stable(row):
    dropped = {*MEASURED, "completed_at", "judged_at", "updated_at", "artifact_uri"}
    if len(row.get("run_id") or "") == 32:
        dropped.add("run_id")
    if set(row) == {column.name for column in STREAMS["metrics"].columns}:
        dropped |= {"timestamp"} | ({"value"} if row["key"] in MEASURED else set())
    stable = {name: value for name, value in row.items() if name not in dropped}
    for nested in ("metadata", "metrics"):
        if isinstance(stable.get(nested), dict):
            inner = stable[nested]
            stable[nested] = {
                name: value for name, value in inner.items() if name not in {"run_id", *MEASURED}
            }
    return stable


TINY = Plan(days=1, datasets=("iris",), families=("knn",), seeds=(0,), mistakes=())


def test_another_fortnight_replaces_the_demo(tmp_path):
    tiny = TINY
    first = make_demo(settings(tmp_path), plan=tiny)
    second = make_demo(settings(tmp_path, date(2026, 2, 1)), plan=tiny)
    assert second.trained and second.runs == first.runs
    assert {row["start_time"] // 86_400_000 for row in query(tmp_path, TAGGED)} == {20485}
    assert [row["version"] for row in query(tmp_path, "SELECT version FROM model_versions")] == [1, 1]
    days = {path.stem for path in (tmp_path / "landing").glob("*/*")}
    assert days == {"demo-2026-02-01"}
    assert {path.name[-10:] for path in (tmp_path / "demo" / "files").iterdir()} == {"2026-02-01"}


def test_a_version_that_somebody_registered_survives_another_fortnight_as_champion(tmp_path):
    make_demo(settings(tmp_path), plan=TINY)
    uri = settings(tmp_path).embedded_mlflow_uri
    client = MlflowClient(uri, uri)
    name = client.search_registered_models()[0].name
    run = client.create_run("0").info.run_id
    mine = client.create_model_version(name, source="file:///mine", run_id=run)
    client.set_registered_model_alias(name, "champion", mine.version)
    make_demo(settings(tmp_path, date(2026, 2, 1)), plan=TINY)
    versions = client.search_model_versions(f"name = '{name}'")
    assert sorted(version.run_id == run for version in versions) == [False, True]
    assert client.get_model_version_by_alias(name, "champion").run_id == run


def test_files_of_others_survive_the_demo_whatever_their_names(tmp_path):
    landing = tmp_path / "landing"
    theirs = [landing / "documents" / "demo-notes.jsonl", landing / "runs" / "demo-2026-01-01.csv"]
    folder = landing / "runs" / "demo-of-mine"
    folder.mkdir(parents=True)
    for file in theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("theirs\n")
    make_demo(settings(tmp_path), plan=TINY)
    make_demo(settings(tmp_path, date(2026, 2, 1)), plan=TINY)
    assert [file.read_text() for file in theirs] == ["theirs\n"] * 2
    assert folder.is_dir()


def test_the_demo_writes_over_nothing_that_it_did_not_write(tmp_path):
    make_demo(settings(tmp_path, date(2026, 2, 1)), plan=TINY)
    theirs = tmp_path / "landing" / "runs" / f"demo-{END}.csv"
    theirs.write_text("theirs\n")
    with pytest.raises(Refusal, match=f"demo-{END}.csv, and something of that name is there"):
        make_demo(settings(tmp_path), plan=TINY)
    assert theirs.read_text() == "theirs\n"
    manifest = Manifest.read(tmp_path)
    assert manifest and (manifest.end, manifest.complete) == (date(2026, 2, 1), True)


def test_another_fortnight_takes_the_place_of_what_the_graph_holds(tmp_path, lake, postgres, mlflow):
    """Days overlap by one, on which the files have other formats and so other names."""
    plan = Plan(days=2, datasets=("iris",), families=("knn",), seeds=(0,), mistakes=())
    other = END - timedelta(days=1)
    make_demo(settings(tmp_path), plan=plan)
    take_in(tmp_path, lake, postgres, mlflow)
    first = live_days(postgres)
    make_demo(settings(tmp_path, other), plan=plan)
    erase_former(settings(tmp_path, other), lake, postgres)
    take_in(tmp_path, lake, postgres, mlflow)
    assert live_days(postgres) == {
        stream: {
            day if day == touched_days.WHOLE else day - timedelta(days=1): rows for day, rows in days.items()
        }
        for stream, days in first.items()
    }
    with postgres.connect() as connection:
        for stream, days in first.items():
            assert set(touched_days.due_days(connection, stream)) >= set(days), stream
    manifest = Manifest.read(tmp_path)
    assert manifest and manifest.former == []


def take_in(home, lake, postgres, mlflow):
    bounds = Bounds(date(2014, 1, 1), datetime.now(UTC))
    for name, stream in STREAMS.items():
        take_in_files(name, list_files(home / "landing" / name), lake, postgres, bounds)
        if stream.from_mlflow:
            take_in_mlflow(name, mlflow.client(), mlflow.tracking_uri(), lake, postgres, bounds)


def live_days(postgres):
    """Rows that count by stream and day."""
    found = {stream: {} for stream in STREAMS}
    with postgres.connect() as connection:
        for stream, day, rows in connection.execute(
            "SELECT stream, day, sum(rows_good)::bigint FROM ledger.units JOIN ledger.unit_days "
            "USING (stream, unit_hash) WHERE state = 'live' GROUP BY 1, 2"
        ):
            found[stream][day] = rows
    assert all(found.values())
    return found
