"""Runs and metrics of real MLflow stores."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from ml_assets.contracts import STREAMS
from ml_assets.intake import ledger, mlflow_reader, quarantine
from ml_assets.intake.artifacts import FileRules
from ml_assets.intake.tracking import pending_runs, take_in_mlflow

START = 1_777_629_600_000  # 2026-05-01T10:00:00Z
DAY = date(2026, 5, 1)


def new_store(folder) -> MlflowClient:
    uri = f"sqlite:///{folder}/mlflow.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def log_run(client, experiment, name, points=3, status="FINISHED", **tags) -> str:
    run = client.create_run(experiment, start_time=START, run_name=name)
    client.log_batch(
        run.info.run_id,
        [Metric("loss", 1.0 / (step + 1), START + step * 1000, step) for step in range(points)],
        [Param("depth", "3"), Param("model_type", "tree")],
        [RunTag(key.replace("__", "."), value) for key, value in tags.items()],
    )
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status, end_time=START + 60_000)
    return run.info.run_id


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store without runs; making one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("empty")
    new_store(folder).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path)
    client = new_store(tmp_path)
    return client, client.create_experiment("mine", artifact_location=(tmp_path / "artifacts").as_uri())


@pytest.fixture
def take_in(room):
    def both(client):
        return [
            take_in_mlflow(stream, client, "store", room.lake, room.postgres, room.bounds)
            for stream in ("runs", "metrics")
        ]

    return both


def test_a_run_becomes_a_row(room, store, take_in):
    client, experiment = store
    parent = log_run(client, experiment, "parent")
    run_id = log_run(client, experiment, "child", mlflow__parentRunId=parent, mlflow__note__content="a note")
    dataset = Dataset("iris", "abc", "local", "{}", None, None)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    client.create_registered_model("forest")
    client.create_model_version("forest", source="/models/forest", run_id=run_id)
    client.set_registered_model_alias("forest", "champion", "1")

    take_in(client)

    columns = [
        column.name for column in STREAMS["runs"].columns if column.name not in ("tags", "artifact_uri")
    ]
    (row,) = [r for r in room.raw("runs", *columns) if r[0] == run_id]
    times = [moment.isoformat() for moment in row[-2:]]
    assert row[:-2] == (
        run_id,
        parent,
        "mine",
        "child",
        "forest",
        "1",
        "tree",
        "iris",
        "completed",
        '{"depth":"3","model_type":"tree"}',
        '{"loss":0.3333333333333333}',
        "a note",
        None,
    )
    assert times == ["2026-05-01T10:00:00+00:00", "2026-05-01T10:01:00+00:00"]
    (tags,) = [json.loads(t) for i, t in room.raw("runs", "run_id", "tags") if i == run_id]
    assert tags["mlflow.datasets"] == [
        {"context": "training", "digest": "abc", "name": "iris", "source": "local"}
    ]
    assert tags["mlflow.registered_models"] == [{"aliases": ["champion"], "name": "forest", "version": "1"}]


def test_every_state_has_its_status(room, store, take_in):
    client, experiment = store
    for status in ("FINISHED", "FAILED", "KILLED", "RUNNING"):
        log_run(client, experiment, status, status=status, error="out of memory")
    take_in(client)
    assert sorted(room.raw("runs", "name", "status", "error")) == [
        ("FAILED", "failed", "out of memory"),
        ("FINISHED", "completed", "out of memory"),
        ("KILLED", "cancelled", "out of memory"),
        ("RUNNING", "running", "out of memory"),
    ]


def test_the_whole_history_of_every_metric(room, store, take_in):
    client, experiment = store
    run_id = log_run(client, experiment, "run", points=0)
    values = [(0, 0.5), (1, math.nan), (2, math.inf), (2, -math.inf)]
    for step, value in values:
        client.log_metric(run_id, "loss", value, timestamp=START, step=step)
    client.log_metric(run_id, "system/cpu", 7.0, timestamp=START + 86_400_000, step=0)

    take_in(client)

    rows = room.raw("metrics", "key", "step", "value", "timestamp")
    assert [(key, step, str(value)) for key, step, value, _ in rows if step < 2] == [
        ("loss", 0, "0.5"),
        ("loss", 1, "nan"),
        ("system/cpu", 0, "7.0"),
    ]
    # Two values of one step at one time are two points: MLflow's own key has the value in it.
    assert [value for _, step, value, _ in rows if step == 2] == [-math.inf, math.inf]
    assert len(rows) == 5
    assert room.due("metrics") == ["2026-05-01", "2026-05-02"]
    assert room.raw("runs", "metrics")[0].count("loss") == 1


def test_points_of_one_millisecond_are_all_loaded(room, store, take_in):
    client, experiment = store
    run_id = log_run(client, experiment, "run", points=0)
    losses = [Metric("loss", 1 / n, START + n % 2, 0) for n in range(1, 61)]
    client.log_batch(run_id, losses)
    take_in(client)
    assert sorted(room.raw("metrics", "value")) == sorted(1 / n for n in range(1, 61))

    # The same points once more, out of another store, are the same points.
    take_in_mlflow("metrics", client, "another", room.lake, room.postgres, room.bounds)
    room.rebuild("metrics")
    assert len(room.table("metrics")) == 60
    with room.postgres.connect() as connection:
        assert ledger.day_counts(connection, "metrics", DAY, DAY) == (60, 0)


def test_a_landed_point_corrects_mlflows_unless_it_repeats_one(room, store, take_in):
    client, experiment = store
    run_id = log_run(client, experiment, "run", points=0)
    client.log_batch(run_id, [Metric("loss", value, START, 0) for value in (0.5, 0.25, math.inf)])
    take_in(client)

    def landed(*values: str) -> list[float]:
        row = f'{{"run_id": "{run_id}", "key": "loss", "step": 0, "timestamp": {START}, "value": %s}}\n'
        room.put("metrics", "a.jsonl", "".join(row % value for value in values))
        room.take_in("metrics")
        return room.raw("metrics", "value")

    assert landed("0.25", '"inf"') == [0.25, 0.5, math.inf]
    assert landed("0.25", "0.125") == [0.125]
    assert landed("0.125") == [0.125]
    assert landed("null") == [None]


def test_only_what_changed_is_read_again(room, store, take_in):
    client, experiment = store
    first, second = (log_run(client, experiment, name) for name in ("first", "second"))
    assert [report.contents for report in take_in(client)] == [2, 2]
    assert [report.contents for report in take_in(client)] == [0, 0]
    assert pending_runs(client, "store", room.postgres) == {"runs": 0, "metrics": 0}

    client.log_metric(first, "loss", 0.01, timestamp=START + 5000, step=1)  # late: before the last step
    client.set_tag(second, "team", "blue")
    assert pending_runs(client, "store", room.postgres) == {"runs": 1, "metrics": 1}
    assert [report.contents for report in take_in(client)] == [1, 1]

    assert len(room.raw("metrics")) == 7
    assert [json.loads(tags).get("team") for tags in room.raw("runs", "tags")].count("blue") == 1


def test_a_deleted_run_is_withdrawn_and_a_restored_one_comes_back(room, store, take_in):
    client, experiment = store
    kept, deleted = (log_run(client, experiment, name) for name in ("kept", "deleted"))
    take_in(client)
    for stream in ("runs", "metrics"):
        room.settle(stream)

    client.delete_run(deleted)
    assert pending_runs(client, "store", room.postgres) == {"runs": 1, "metrics": 1}
    assert [report.retired for report in take_in(client)] == [1, 1]
    assert room.raw("runs", "run_id") == [kept]
    assert set(room.raw("metrics", "run_id")) == {kept}
    assert (room.due("runs"), room.due("metrics")) == (["2026-05-01"], ["2026-05-01"])

    client.restore_run(deleted)
    assert [report.rows_read for report in take_in(client)] == [0, 0]
    assert sorted(room.raw("runs", "run_id")) == sorted([kept, deleted])
    assert len(room.raw("metrics")) == 6


def test_runs_that_were_taken_in_without_their_files_are_read_again(room, store, take_in, tmp_path):
    client, experiment = store
    allowed = replace(room.bounds, files=FileRules((tmp_path / "artifacts",)))
    run_id = log_run(client, experiment, "run")
    client.log_text(run_id, "hello", "a.txt")
    take_in_mlflow("runs", client, "store", room.lake, room.postgres, allowed)
    (entry,) = json.loads(room.raw("runs", "tags")[0])["ml_assets.artifacts"]
    assert (entry["path"], entry["size_bytes"]) == ("a.txt", 5)

    # As they stood in the ledger before there were lists.
    with room.postgres.connect(write=True) as connection:
        connection.execute("UPDATE ledger.places SET fingerprint = replace(fingerprint, 'files ', '')")
    client.log_text(run_id, "hello", "b.txt")
    assert pending_runs(client, "store", room.postgres)["runs"] == 1
    take_in_mlflow("runs", client, "store", room.lake, room.postgres, allowed)
    (tags,) = room.raw("runs", "tags")
    assert [entry["path"] for entry in json.loads(tags)["ml_assets.artifacts"]] == ["a.txt", "b.txt"]
    assert pending_runs(client, "store", room.postgres)["runs"] == 0


def test_runs_of_another_store_are_left_alone(room, store, take_in, tmp_path, empty_store):
    client, experiment = store
    log_run(client, experiment, "run")
    take_in(client)
    (tmp_path / "other").mkdir()
    shutil.copy(empty_store, tmp_path / "other")
    other = new_store(tmp_path / "other")
    log_run(other, other.create_experiment("theirs"), "run")
    report = take_in_mlflow("runs", other, "other store", room.lake, room.postgres, room.bounds)
    assert (report.contents, report.retired) == (1, 0)
    assert room.raw("runs", "experiment") == ["mine", "theirs"]


def test_a_landing_row_and_a_run_of_the_same_id_are_one_run(room, store, take_in):
    client, experiment = store
    run_id = log_run(client, experiment, "run")
    take_in(client)
    row = {
        "run_id": run_id,
        "experiment": "corrected",
        "status": "completed",
        "created_at": "2026-05-01T10:00:00Z",
        "completed_at": "2026-05-01T11:00:00Z",
    }
    room.put("runs", "a.jsonl", json.dumps(row))
    room.take_in("runs")
    assert room.raw("runs", "experiment") == ["corrected"]


def test_a_run_whose_start_is_out_of_range_is_quarantined(room, store, take_in):
    client, experiment = store
    run = client.create_run(experiment, start_time=1_000)
    client.log_metric(run.info.run_id, "loss", 1.0, timestamp=1_000, step=0)
    reports = take_in(client)
    assert [report.rows_quarantined for report in reports] == [1, 1]
    ((item_name, line, reason),) = room.quarantine("runs")
    assert (item_name, line) == (run.info.run_id, 1)
    assert "before the first daily partition" in reason


def test_times_in_nanoseconds_are_quarantined_and_stop_no_other_run(room, store, take_in):
    client, experiment = store
    good = log_run(client, experiment, "good")
    bad = client.create_run(experiment, start_time=START * 1_000_000).info.run_id
    client.log_metric(good, "accuracy", 0.5, timestamp=START * 1_000_000, step=0)

    assert [report.rows_quarantined for report in take_in(client)] == [1, 1]

    assert room.raw("runs", "run_id") == [good]
    assert room.raw("metrics", "key") == ["loss"] * 3
    for stream, item_name, column in (("runs", bad, "created_at"), ("metrics", good, "timestamp")):
        ((reason, text),) = room.intake(stream, "quarantine_reason, raw_text", "raw_text IS NOT NULL")
        assert reason == (
            f"{item_name} line 1: {column} is 1777629600000000000, no time in milliseconds since 1970; "
            "log it in milliseconds."
        )
        assert json.loads(text)[column] == START * 1_000_000  # as it was logged


def test_a_run_that_begins_while_others_are_listed_stops_nothing(room, store, take_in, monkeypatch):
    client, experiment = store
    monkeypatch.setattr(mlflow_reader, "PAGE", 2)
    monkeypatch.setattr(mlflow_reader, "_FEW_RUNS", 1)
    ids = [log_run(client, experiment, f"run {n}") for n in range(3)]
    search = client.search_runs

    def search_runs(*given, **named):
        page = search(*given, **named)
        if named["page_token"] is None:
            client.create_run(experiment, start_time=START + 1_000)  # newest, so it moves all others back
        return page

    monkeypatch.setattr(client, "search_runs", search_runs)
    runs, _ = take_in(client)
    assert runs.rows_read == 3
    assert sorted(room.raw("runs", "run_id")) == sorted(ids)


def test_a_retry_reads_runs_of_this_store_only_again(room, store, take_in):
    client, experiment = store
    run_id = log_run(client, experiment, "run")
    client.log_metric(run_id, "accuracy", 0.5, timestamp=1_000, step=0)
    take_in(client)
    landing_folder = room.folder / "landing"
    for root, count in ((None, 0), ("another", 0), ("store", 1)):
        given = (room.postgres, room.lake, "metrics", landing_folder, {}, root)
        assert quarantine.reopen(*given) == count
    assert room.raw("metrics", "key") == ["loss"] * 3
    assert [(report.rows_read, report.rows_quarantined) for report in take_in(client)] == [(0, 0), (4, 1)]
    assert len(room.intake("metrics", "line")) == 4


@pytest.fixture
def server(tmp_path):
    """URL of a real tracking server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_server_tells_the_same_as_its_store(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_reader, "_FEW_RUNS", 1)
    monkeypatch.setattr(mlflow_reader, "_POINTS_A_HISTORY", 8)
    client = MlflowClient(tracking_uri=server, registry_uri=server)
    experiment = client.create_experiment("mine")
    ids = [log_run(client, experiment, name, points=4) for name in ("a", "b", "c")]
    client.log_metric(ids[0], "loss", math.nan, timestamp=START, step=9)
    client.log_metric(ids[0], "loss", math.inf, timestamp=START, step=10)
    direct = new_store(tmp_path)

    asked, read = (list(mlflow_reader.read_histories(c, ids)) for c in (client, direct))
    assert [h.content_hash for h in asked] == [h.content_hash for h in read]
    assert [len(h.keys) for h in asked] == [6, 4, 4]

    marks = mlflow_reader.run_marks(client)
    assert {r.run_id: r.content_hash for r in mlflow_reader.read_runs(direct, ids)} == marks
    before = mlflow_reader.history_marks(client)
    client.log_metric(ids[1], "loss", 0.1, timestamp=START, step=99)
    after = mlflow_reader.history_marks(client)
    assert [run_id for run_id in ids if before[run_id] != after[run_id]] == [ids[1]]
