"""Files and datasets of real MLflow runs."""

import json
import time

import pytest
from mlflow.entities import LoggedModelOutput

from ml_assets.lib.artifacts import RunDataset
from ml_assets.lib.intake.mlflow_reader import read_runs, run_marks
from ml_assets.resources.mlflow import MLflowResource


@pytest.fixture
def mlflow(tmp_path) -> MLflowResource:
    return MLflowResource(home=str(tmp_path))


@pytest.fixture
def run(mlflow, tmp_path) -> dict[str, str | None]:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, InputTag

    (tmp_path / "mlflow").mkdir()
    client = MlflowClient(mlflow.tracking_uri())
    experiment = client.create_experiment("files", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment, start_time=int(time.time() * 1000))
    client.log_text(run.info.run_id, "hello", "notes/a.txt")
    dataset = Dataset(
        "iris", "abc123", "local", '{"uri": "sklearn:iris"}', None, '{"num_rows": 150, "num_features": 4}'
    )
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    return {"id": run.info.run_id, "artifact_uri": run.info.artifact_uri, "dataset": "iris", "tags": None}


def test_files_on_this_machine_are_read_and_others_are_listed(mlflow, run):
    (local,) = mlflow.run_files(run)
    assert (local.path, local.size_bytes) == ("notes/a.txt", 5)
    assert local.sha256 is not None
    (listed,) = mlflow.run_files({**run, "artifact_uri": "mlflow-artifacts:/1/x"})
    assert (listed.path, listed.size_bytes, listed.sha256) == ("notes/a.txt", 5, None)
    assert listed.location == "mlflow-artifacts:/1/x/notes/a.txt"


def test_files_of_logged_models_are_among_those_of_their_run(mlflow, run, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(mlflow.tracking_uri())
    before = run_marks(client)
    experiment = client.get_run(run["id"]).info.experiment_id
    logged = [client.create_logged_model(experiment, name, source_run_id=run["id"]) for name in ("a", "b")]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}")
    for model in logged:
        client.log_model_artifacts(model.model_id, str(tmp_path / "model"))
    client.log_outputs(run["id"], [LoggedModelOutput(model.model_id, step=0) for model in logged])
    assert run_marks(client) != before
    client.delete_logged_model(logged[1].model_id)

    (row,) = read_runs(client, [run["id"]])
    assert json.loads(row.row["tags"])["mlflow.logged_models"] == sorted(m.model_id for m in logged)
    own, file = mlflow.run_files({**run, "tags": row.row["tags"]})
    assert own.path == "notes/a.txt"
    assert (file.path, file.size_bytes) == (f"models/{logged[0].model_id}/MLmodel", 11)
    assert file.metadata == {"model": "a"}
    assert file.location == f"{tmp_path}/artifacts/models/{logged[0].model_id}/artifacts/MLmodel"


def test_datasets_come_from_the_inputs_of_the_run(mlflow, run):
    assert list(mlflow.run_datasets(run)) == [
        RunDataset("iris", "sklearn:iris", "training", "abc123", row_count=150, feature_count=4)
    ]


def test_a_run_that_mlflow_does_not_know_has_the_dataset_that_its_row_names(mlflow, run):
    assert list(mlflow.run_datasets({"id": "not/an id", "dataset": "wine"})) == [RunDataset("wine", "wine")]
    assert list(mlflow.run_datasets({"id": "f" * 32, "dataset": None})) == []


def test_without_a_store_there_are_no_files(mlflow):
    run = {"id": "x", "artifact_uri": "s3://bucket/x", "tags": '{"mlflow.logged_models":["m"]}'}
    assert list(mlflow.run_files(run)) == []
