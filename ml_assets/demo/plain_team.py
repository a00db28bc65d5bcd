"""A team that has no MLflow: it writes its runs, their metrics and files where landing files are read.

It predicts the progress of diabetes, so its models have errors and no accuracy.

Imports scikit-learn: import it where the demo is made and nowhere else.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ml_assets.demo.data import Dataset, Split
from ml_assets.demo.models import Curve, train_regressor
from ml_assets.demo.record import RunRecord, dump, last_line, resident_mb
from ml_assets.demo.trials import data_uses, experiment_name, spoiled

DATASET = "diabetes"
MODELS: dict[str, dict[str, Any]] = {
    "ridge": {"alpha": 1.0},
    "sgd_regressor": {"eta0": 0.01, "penalty": "l2"},
}
STARTS_AT = timedelta(hours=22)
FAILS_ON = 8
"""Day on which a source delivers gaps, which ridge does not take."""


@dataclass(frozen=True)
class PlainRun:
    """A run of the team; `model` is None if it failed."""

    run_id: str
    record: RunRecord
    model: Any


def train_day(dataset: Dataset, day: int, midnight: datetime) -> list[PlainRun]:
    """The team's runs of a day that began at `midnight`."""
    return [
        _train(family, dataset, day, midnight, STARTS_AT + timedelta(minutes=11 * number))
        for number, family in enumerate(MODELS)
    ]


def run_row(run: PlainRun, folder: Path) -> dict:
    """The run as a row of the stream runs; its files lie in `folder`."""
    record = run.record
    return {
        "run_id": run.run_id,
        "experiment": record.experiment,
        "name": record.name,
        "model_name": record.model_name,
        "model_version": str(record.created_at.date()),
        "model_type": record.model_type,
        "dataset": record.dataset,
        "status": record.status,
        "parameters": record.parameters,
        "metrics": record.curve.last,
        "tags": {"replayed": "true", "team": "without MLflow"},
        "notes": record.notes,
        "error": record.error,
        "artifact_uri": folder.as_uri(),
        "created_at": record.created_at,
        "completed_at": record.completed_at,
    }


def metric_rows(run: PlainRun) -> Iterator[dict]:
    """The run's learning curve as rows of the stream metrics."""
    for point in run.record.curve.points:
        yield {
            "run_id": run.run_id,
            "key": point.key,
            "step": point.step,
            "value": point.value,
            "timestamp": run.record.time_of(point.elapsed_s),
        }


def write_files(run: PlainRun, folder: Path) -> None:
    """The run's files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in run.record.files.items():
        (folder / name).write_bytes(content)


def _train(family: str, dataset: Dataset, day: int, midnight: datetime, start: timedelta) -> PlainRun:
    gaps = "missing values" if (day, family) == (FAILS_ON, "ridge") else None
    split = spoiled(dataset.split(day, seed=0), gaps)
    curve = Curve()
    model, error = None, None
    try:
        model = train_regressor(family, MODELS[family], 0, split, curve)
        curve.record(curve.last_step, **_errors(model, split), memory_usage_mb=resident_mb())
    except Exception as fault:  # noqa: BLE001 - whatever a training raises is the outcome of the run
        error = last_line(fault)
    seconds = curve.elapsed_s
    name = f"{dataset.name}-{family}"
    record = RunRecord(
        key=f"day {day}: {dataset.name} {family} retraining",
        name=f"{dataset.name} {family} retraining",
        experiment=experiment_name(dataset.name),
        dataset=dataset.name,
        model_type=family,
        model_name=name,
        role="retraining",
        created_at=midnight + start,
        seconds=seconds,
        curve=curve,
        parameters={**MODELS[family], "seed": 0},
        error=error,
        data=data_uses(dataset, split, day),
    )
    files = {"data.json": json.dumps([vars(use) for use in record.data], indent=1).encode()}
    if model is not None:
        files["model.joblib"] = dump(model)
    record = replace(record, notes=_notes(record, split), files=files)
    return PlainRun(f"{name}-{midnight.date()}", record, model)


def _errors(model: Any, split: Split) -> dict[str, float]:
    """Errors on the held-out rows; the share of the variance that is explained (r2) may be negative."""
    residual = split.y_held_out - model.predict(split.x_held_out)
    return {
        "mae": float(np.abs(residual).mean()),
        "rmse": float(np.sqrt((residual**2).mean())),
        "r2": float(1 - (residual**2).mean() / split.y_held_out.var()),
    }


def _notes(record: RunRecord, split: Split) -> str:
    rows = f"{len(split.y_train)} rows to train on and {len(split.y_held_out)} held out"
    begin = f"Daily retraining: {record.model_type} on {record.dataset}, {rows}."
    if record.error:
        return f"{begin} It failed with {record.error}"
    return f"{begin} Mean absolute error on the held-out rows: {record.curve.last['mae']:.2f}."
