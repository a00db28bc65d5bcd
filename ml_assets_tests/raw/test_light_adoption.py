"""What the light registry hands over is what the graph takes in: runs, their files and their data."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ml_assets.contracts import STREAMS
from ml_assets.intake.artifacts import FileRules, kept_datasets, kept_files
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.operations.light import LightStack
from ml_assets.settings import Settings

DAY = datetime(2026, 5, 1, 10, tzinfo=UTC)


def take_in(room, settings):
    for file in room.landing("runs").rglob("*.jsonl"):
        room.age(file)
    bounds = replace(room.bounds, files=FileRules(settings.artifact_folders))
    listing = list_files(room.landing("runs"), STREAMS["runs"].whole_files)
    return take_in_files("runs", listing, room.lake, room.postgres, bounds)


def test_adopted_runs_are_taken_in_changed_and_withdrawn(room, tmp_path):
    settings = Settings(home=room.folder)
    light = LightStack(settings)
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights")
    for n in range(3):
        light.experiments.create("cats", run_id=f"r{n}", created_at=DAY + timedelta(days=n), status="running")
    row = light.artifacts.add("r0", file, "scaler")
    light.training_data.add("r0", "cifar10", "s3://b/cifar10", row_count=5, context="training")
    light.adopt()
    report = take_in(room, settings)
    assert (report.rows_read, report.rows_quarantined) == (3, 0)
    columns = ("run_id", "status", "metrics", "artifact_uri", "tags")
    (run_id, status, _, uri, tags), *_ = room.raw("runs", *columns)
    assert (run_id, status) == ("r0", "running")
    run = {"id": run_id, "artifact_uri": uri, "dataset": None, "tags": tags}
    (listed,) = kept_files(run, FileRules())
    assert (listed.path, listed.sha256, listed.size_bytes) == ("model.onnx", row["sha256"], 7)
    assert listed.location == str(light.artifacts.content.view("r0") / "model.onnx")
    (data,) = kept_datasets(run)
    assert (data.name, data.source, data.row_count, data.context) == (
        "cifar10",
        "s3://b/cifar10",
        5,
        "training",
    )
    assert json.loads(tags)["ml_assets.light"]["artifacts"][0]["artifact_type"] == "scaler"

    assert light.adopt().files_changed == 0
    ended = {"status": "completed", "completed_at": DAY + timedelta(days=2)}
    light.experiments.update("r1", metrics={"accuracy": 0.5}, **ended)
    light.experiments.delete("r2")
    assert light.adopt().files_changed == 2
    assert take_in(room, settings).rows_quarantined == 0
    found = {run_id: (status, metrics) for run_id, status, metrics, *_ in room.raw("runs", *columns)}
    assert found == {"r0": ("running", None), "r1": ("completed", '{"accuracy":0.5}')}
