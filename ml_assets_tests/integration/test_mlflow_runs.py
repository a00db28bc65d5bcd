"""Files and datasets of real MLflow runs, as their rows keep them and as the tables have them."""

import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput

from ml_assets.intake.artifacts import FileRules, RunDataset, RunFile, kept_datasets, kept_files
from ml_assets.intake.mlflow_files import FileLister
from ml_assets.intake.mlflow_reader import read_runs, run_marks, with_files
from ml_assets.resources.mlflow import MLflowResource


@pytest.fixture
def mlflow(tmp_path) -> MLflowResource:
    return MLflowResource(home=str(tmp_path))


@pytest.fixture
def client(mlflow, tmp_path, monkeypatch) -> MlflowClient:
    monkeypatch.chdir(tmp_path)  # where such a store has its artifacts
    (tmp_path / "mlflow").mkdir()
    return MlflowClient(mlflow.tracking_uri())


@pytest.fixture
def run_id(client, tmp_path) -> str:
    experiment = client.create_experiment("files", artifact_location=(tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment, start_time=int(time.time() * 1000)).info.run_id
    client.log_text(run_id, "hello", "notes/a.txt")
    profile = '{"num_rows": 150, "num_features": 4}'
    dataset = Dataset("iris", "abc123", "local", '{"uri": "sklearn:iris"}', None, profile)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    return run_id


def taken_in(client, run_id, *roots: Path) -> dict:
    """The run's row with the list of its files, as intake has it."""
    (run,) = read_runs(client, [run_id])
    return dict(with_files(run, FileLister(client, FileRules(roots)).files_of(run)).row)


def files(row) -> list[RunFile]:
    """The files as they are told without MLflow, and without looking at any folder."""
    return list(kept_files(row, FileRules()))


def test_files_are_listed_when_the_run_is_taken_in_and_stay_known(client, run_id, tmp_path):
    row = taken_in(client, run_id, tmp_path)
    (file,) = files(row)
    assert (file.path, file.size_bytes) == ("notes/a.txt", 5)
    assert file.sha256 is not None
    assert file.location == f"{row['artifact_uri'].removeprefix('file://')}/notes/a.txt"
    Path(file.location).unlink()
    assert files(row) == [file]


def test_a_folder_that_is_not_allowed_is_not_looked_at(client, run_id, tmp_path):
    (file,) = files(taken_in(client, run_id, tmp_path / "elsewhere"))
    assert (file.path, file.size_bytes, file.sha256) == ("", None, None)
    assert "ML_ASSETS_ARTIFACT_ROOTS" in str(file.reason)


def test_the_folder_of_the_store_itself_is_allowed(mlflow, client):
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "hello", "a.txt")
    (file,) = files(taken_in(client, run_id))
    assert (file.path, file.size_bytes) == ("a.txt", 5)
    assert Path(file.location).is_relative_to(mlflow.artifact_root())


def test_files_of_logged_models_are_among_those_of_their_run(client, run_id, tmp_path):
    before = run_marks(client)
    experiment = client.get_run(run_id).info.experiment_id
    logged = [client.create_logged_model(experiment, name, source_run_id=run_id) for name in ("a", "b")]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}")
    for model in logged:
        client.log_model_artifacts(model.model_id, str(tmp_path / "model"))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0) for model in logged])
    assert run_marks(client) != before
    client.delete_logged_model(logged[1].model_id)

    row = taken_in(client, run_id, tmp_path)
    assert json.loads(row["tags"])["mlflow.logged_models"] == sorted(m.model_id for m in logged)
    own, file = files(row)
    assert own.path == "notes/a.txt"
    assert (file.path, file.size_bytes) == (f"models/{logged[0].model_id}/MLmodel", 11)
    assert file.model == "a"
    assert file.location == f"{tmp_path}/artifacts/models/{logged[0].model_id}/artifacts/MLmodel"


def test_a_store_of_artifacts_that_does_not_answer_is_a_reason(client):
    experiment = client.create_experiment("far", artifact_location="mlflow-artifacts:/1")
    runs = [client.create_run(experiment).info.run_id for _ in range(5)]
    lister = FileLister(client, FileRules())
    reasons = [
        str(file.reason)
        for run_id in runs
        for run in read_runs(client, [run_id])
        for file in lister.files_of(run)
    ]
    assert [reason.partition(" (")[0] for reason in reasons[:3]] == ["cannot be listed"] * 3
    assert reasons[3:] == ["not asked for: mlflow-artifacts:// did not list those of other runs"] * 2


def test_datasets_come_from_the_inputs_of_the_run(client, run_id):
    assert list(kept_datasets(taken_in(client, run_id))) == [
        RunDataset("iris", "sklearn:iris", "training", "abc123", row_count=150, feature_count=4)
    ]
