"""Runs of the demo in the embedded MLflow store, through MLflow's own API.

A run is FINISHED or FAILED only when all of it is there, and a model version is registered only after that:
so what a killed call left half-done is a RUNNING run, or a run without its version.

Imports mlflow: import it where the demo is made and nowhere else.
"""

import json
import logging
import math
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ml_assets.demo.record import DataUse, RunRecord
from ml_assets.settings import Settings

# MLflow reads these when it is imported: no telemetry, no word about a missing git.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
    Run,
    ViewType,
)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
)

PAGE = 1000
METRICS_A_CALL = 1000
"""MLflow's limit of `log_batch`."""

MODEL_TAG = "demo"
ACCURACY_TAG = "accuracy"

_INPUTS = "SELECT input_uuid FROM inputs WHERE destination_id IN (SELECT value FROM json_each(?))"
"""The uses of datasets by runs, whose ids are given as a JSON array."""


@dataclass(frozen=True)
class Logged:
    """A run that is in the store; `version` is the registered one, None if it has none."""

    run_id: str
    artifact_uri: str
    version: str | None = None


class Tracker:
    """The embedded store; `MLFLOW_TRACKING_URI` has no say in it."""

    def __init__(self, settings: Settings) -> None:
        self._artifacts = settings.embedded_mlflow_artifacts
        self._staging = settings.home / "demo" / "staging"
        self._artifacts.mkdir(parents=True, exist_ok=True)
        for chatty in ("alembic", "mlflow"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        self._uri = uri = settings.embedded_mlflow_uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        # Halves the time of a write and lets others read meanwhile; the file remembers it.
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        self._experiments: dict[str, str] = {}
        self._champions: dict[str, float | None] = {}
        self._kept: dict[str, Logged] = {}

    def clean(self, day: date) -> None:
        """Remove what a killed call left of a day; runs whose version is registered are kept and used again.

        Versions are numbered by the registry and a number is never given twice: were such a run made
        anew, its version would not be the one that an undisturbed call gives.
        """
        self._kept = {}
        for run in self._runs(f"tags.replay_day = '{day.isoformat()}'"):
            versions = self._client.search_model_versions(f"run_id = '{run.info.run_id}'")
            if versions:
                logged = Logged(run.info.run_id, str(run.info.artifact_uri), str(versions[0].version))
                self._kept[run.data.tags["demo_key"]] = logged
            else:
                self._delete(run)

    def withdraw(self) -> None:
        """Remove every run of the demo, their versions, and models that have no others."""
        self._erase_models(set(self.run_ids()))
        for run in self._runs("tags.replayed = 'true'"):
            self._delete(run)

    def run_ids(self) -> list[str]:
        """The ids of all runs of the demo, those that were deleted and can be restored among them."""
        return [run.info.run_id for run in self._runs("tags.replayed = 'true'", ViewType.ALL)]

    def erase(self) -> dict[str, int]:
        """Remove every run, registered model and experiment of the demo for good; how many there were of each.

        What others put beside them stays: their runs, with the experiment, and versions that they registered.
        """
        runs = self._runs("tags.replayed = 'true'", ViewType.ALL)
        # Before the runs, which tell whose a version is.
        models = self._erase_models({run.info.run_id for run in runs})
        self._erase_inputs([run.info.run_id for run in runs])
        # As `mlflow gc` does: MLflow's client only marks what it deletes.
        store = SqlAlchemyStore(self._uri, self._artifacts.as_uri())
        for run in runs:
            self._delete(run)
            store._hard_delete_run(run.info.run_id)
        experiments = self._emptied()
        for experiment in experiments:
            if experiment.lifecycle_stage == LifecycleStage.ACTIVE:
                self._client.delete_experiment(experiment.experiment_id)
            store._hard_delete_experiment(experiment.experiment_id)
            shutil.rmtree(self._artifacts / experiment.name, ignore_errors=True)
        return {"run": len(runs), "model": models, "experiment": len(experiments)}

    def _erase_models(self, run_ids: set[str]) -> int:
        """Delete the versions that these runs made, and models that have no others; how many models."""
        models = 0
        for model in self._client.search_registered_models(filter_string=f"tags.{MODEL_TAG} = 'true'"):
            versions = self._client.search_model_versions(f"name = '{model.name}'")
            ours = [version for version in versions if version.run_id in run_ids]
            if len(ours) == len(versions):
                self._client.delete_registered_model(model.name)
                models += 1
                continue
            for version in ours:
                self._client.delete_model_version(model.name, version.version)
        return models

    def _erase_inputs(self, run_ids: list[str]) -> None:
        """Delete what says which datasets these runs used; `mlflow gc` leaves it behind."""
        with closing(sqlite3.connect(self._uri.removeprefix("sqlite:///"))) as connection, connection:
            for table in ("input_tags", "inputs"):
                connection.execute(
                    f"DELETE FROM {table} WHERE input_uuid IN ({_INPUTS})", (json.dumps(run_ids),)
                )

    def _emptied(self) -> list[Experiment]:
        """Experiments that the demo made, which has its own place for their files, and in which nothing is left."""
        found = self._client.search_experiments(ViewType.ALL, filter_string="name LIKE 'demo-%'")
        # By its end: a home that was moved has had another path.
        own = [each for each in found if each.artifact_location.endswith(f"/mlflow/artifacts/{each.name}")]
        return [each for each in own if not self._holds_anything(each.experiment_id)]

    def _holds_anything(self, experiment_id: str) -> bool:
        return bool(
            self._client.search_runs([experiment_id], "", ViewType.ALL, max_results=1)
            or self._client.search_logged_models([experiment_id], max_results=1)
            or self._client.search_traces(locations=[experiment_id], max_results=1)
        )

    def log(self, record: RunRecord, day: date) -> Logged:
        """Write a run, whole; one that was kept by `clean` is left as it is."""
        if record.key in self._kept:
            return self._kept[record.key]
        run = self._client.create_run(
            self._experiment(record.experiment),
            start_time=_milliseconds(record.created_at),
            run_name=record.name,
            tags=_tags(record, day),
        )
        run_id = run.info.run_id
        self._log_values(run_id, record)
        if record.data:
            self._client.log_inputs(run_id, [_input(use) for use in record.data])
        if record.files:
            self._log_files(run_id, record.files)
        status = "FAILED" if record.error else "FINISHED"
        self._client.set_terminated(run_id, status, end_time=_milliseconds(record.completed_at))
        return Logged(run_id, str(run.info.artifact_uri))

    def register(self, record: RunRecord, logged: Logged) -> Logged:
        """Make a finished run the next version of its model.

        Its alias is `challenger`, and `champion` too if no version before had its accuracy.
        """
        name, accuracy = str(record.model_name), record.curve.last["accuracy"]
        best = self._best(name, record)
        version = logged.version
        if version is None:
            created = self._client.create_model_version(
                name,
                source=logged.artifact_uri,
                run_id=logged.run_id,
                tags={ACCURACY_TAG: repr(accuracy)},
            )
            version = str(created.version)
        # Each of these may be repeated: a version that was kept may lack them.
        self._client.set_tag(logged.run_id, "model_version", version)
        self._client.set_registered_model_alias(name, "challenger", version)
        if best is None or accuracy > best:
            self._client.set_registered_model_alias(name, "champion", version)
            self._champions[name] = accuracy
        return Logged(logged.run_id, logged.artifact_uri, version)

    def _log_values(self, run_id: str, record: RunRecord) -> None:
        points = [
            Metric(point.key, point.value, _milliseconds(record.time_of(point.elapsed_s)), point.step)
            for point in record.curve.points
        ]
        parameters = [Param(name, str(value)) for name, value in record.parameters.items()]
        self._client.log_batch(run_id, metrics=points[:METRICS_A_CALL], params=parameters)
        for start in range(METRICS_A_CALL, len(points), METRICS_A_CALL):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_A_CALL])

    def _log_files(self, run_id: str, files: dict[str, bytes]) -> None:
        # One folder for all, so that a killed call leaves one at most.
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(parents=True)
        for name, content in files.items():
            (self._staging / name).write_bytes(content)
        self._client.log_artifacts(run_id, str(self._staging))
        shutil.rmtree(self._staging)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            known = self._client.get_experiment_by_name(name)
            self._experiments[name] = (
                known.experiment_id
                if known
                else self._client.create_experiment(name, artifact_location=(self._artifacts / name).as_uri())
            )
        return self._experiments[name]

    def _best(self, name: str, record: RunRecord) -> float | None:
        """Accuracy of the champion of a model, None if it has none; registers the model if need be."""
        if name not in self._champions:
            known = self._client.search_registered_models(filter_string=f"name = '{name}'")
            if not known:
                self._client.create_registered_model(
                    name,
                    tags={MODEL_TAG: "true", "dataset": record.dataset, "model_type": record.model_type},
                    description=f"{record.model_type} on {record.dataset}, retrained every day.",
                )
            champion = known[0].aliases.get("champion") if known else None
            self._champions[name] = self._accuracy(name, champion) if champion else None
        return self._champions[name]

    def _accuracy(self, name: str, version: str) -> float:
        """Of a version; no other takes the place of one that somebody else has registered."""
        return float(self._client.get_model_version(name, version).tags.get(ACCURACY_TAG, math.inf))

    def _runs(self, condition: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        experiments = self._client.search_experiments(view, filter_string="name LIKE 'demo-%'")
        ids = [experiment.experiment_id for experiment in experiments]
        found: list[Run] = []
        token = None
        while ids:
            page = self._client.search_runs(
                ids, condition, run_view_type=view, max_results=PAGE, page_token=token
            )
            found += page
            token = page.token
            if not token:
                break
        return found

    def _delete(self, run: Run) -> None:
        folder = Path(unquote(urlsplit(str(run.info.artifact_uri)).path)).parent
        if run.info.lifecycle_stage == LifecycleStage.ACTIVE:
            self._client.delete_run(run.info.run_id)
        if folder.is_relative_to(self._artifacts) and folder.exists():
            shutil.rmtree(folder)


def _tags(record: RunRecord, day: date) -> dict[str, Any]:
    tags = {
        "replayed": "true",
        "replay_day": day.isoformat(),
        "demo_key": record.key,
        "role": record.role,
        "dataset": record.dataset,
        "model_type": record.model_type,
        "model_name": record.model_name,
        "error": record.error,
        MLFLOW_RUN_NOTE: record.notes,
        MLFLOW_PARENT_RUN_ID: record.parent_run_id,
    }
    return {name: value for name, value in tags.items() if value is not None}


def _input(use: DataUse) -> DatasetInput:
    dataset = Dataset(
        name=use.name,
        digest=use.digest,
        source_type="code",
        source=json.dumps(use.source),
        profile=json.dumps({"num_rows": use.rows, "num_features": use.features}),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, use.context)])


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
