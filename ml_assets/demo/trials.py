"""One trial: train it, keep what came of it, be it a model or an error.

Imports scikit-learn: import it where the demo is made and nowhere else.
"""

import csv
import io
import json
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from ml_assets.demo.data import Dataset, Split, digest
from ml_assets.demo.models import Curve, scores, train
from ml_assets.demo.plan import Trial
from ml_assets.demo.record import DataUse, RunRecord, dump, last_line, resident_mb

NOTABLE_SHIFT = 0.75
"""A feature whose mean moved by so many standard deviations is worth a note."""


@dataclass(frozen=True)
class Attempt:
    """A trial that was made; `model` is None if it failed."""

    trial: Trial
    record: RunRecord
    model: Any


def attempt(trial: Trial, dataset: Dataset, day: int, midnight: datetime) -> Attempt:
    """Train a trial on what had arrived by the end of a day that began at `midnight`."""
    split = spoiled(dataset.split(day, trial.seed), trial.spoil)
    curve = Curve()
    model, error, files = None, None, {}
    try:
        model = train(trial.family, trial.parameters, trial.seed, split, len(dataset.classes), curve)
        answer = _measure(model, split, curve)
    except Exception as fault:  # noqa: BLE001 - whatever a training raises is the outcome of the run
        error, answer = last_line(fault), None
        files["traceback.txt"] = traceback.format_exc().encode()
    seconds = curve.elapsed_s
    if answer is not None and trial.role == "retraining":
        files |= {"model.joblib": dump(model), "report.json": _report(dataset, split, answer)}
    record = RunRecord(
        key=trial.key,
        name=trial.key.partition(": ")[2],
        experiment=experiment_name(trial.dataset),
        dataset=trial.dataset,
        model_type=trial.family,
        model_name=trial.model_name,
        role=trial.role,
        created_at=midnight + trial.start,
        seconds=seconds,
        curve=curve,
        parameters={**trial.parameters, "seed": trial.seed},
        error=error,
        files=files,
        data=data_uses(dataset, split, day),
    )
    return Attempt(trial, replace(record, notes=_notes(record, dataset, split, answer, day)), model)


def experiment_name(dataset: str) -> str:
    """The experiment of everything that is trained on a dataset."""
    return f"demo-{dataset}"


def sweep_record(children: Sequence[Attempt]) -> RunRecord:
    """The run that the trials of a sweep are nested in."""
    records = [child.record for child in children]
    first, last = records[0], max(records, key=lambda record: record.completed_at)
    best = max(records, key=_accuracy)
    curve = Curve()
    curve.record(0, best_accuracy=_accuracy(best), trials=len(records))
    name = str(children[0].trial.sweep)
    return RunRecord(
        key=name,
        name=name.partition(": ")[2],
        experiment=first.experiment,
        dataset=first.dataset,
        model_type=first.model_type,
        role="sweep",
        created_at=first.created_at,
        seconds=(last.completed_at - first.created_at).total_seconds(),
        curve=curve,
        notes=(
            f"Sweep of {len(records)} trials of {first.model_type} on {first.dataset}. Best: {best.name}, "
            f"with an accuracy of {_accuracy(best):.4f} on the held-out rows."
        ),
        files={"trials.csv": _table(records)},
    )


def spoiled(split: Split, spoil: str | None) -> Split:
    """The split after what happened to its data."""
    if spoil == "missing values":
        x = split.x_train.copy()
        x[::7, 0] = np.nan
        return replace(split, x_train=x)
    if spoil == "lost column":
        return replace(split, x_held_out=split.x_held_out[:, :-1])
    return split


def data_uses(dataset: Dataset, split: Split, day: int) -> list[DataUse]:
    """What a run was trained and validated on."""
    source = {"loader": f"sklearn.datasets.load_{dataset.name}", "rows": f"arrived by day {day}"}
    parts = (("training", split.x_train, split.y_train), ("validation", split.x_held_out, split.y_held_out))
    return [
        DataUse(dataset.name, digest(x, y), context, len(x), x.shape[1], source) for context, x, y in parts
    ]


def _measure(model: Any, split: Split, curve: Curve) -> np.ndarray:
    """Quality and cost on the held-out rows, reported at the last step. Returns the answers."""
    start = perf_counter()
    answer = model.predict_proba(split.x_held_out).argmax(axis=1)
    elapsed = perf_counter() - start
    quality = scores(split.y_held_out, answer)
    quality.pop("accuracy")  # stands in the curve
    curve.record(curve.last_step, **quality, inference_time_ms=elapsed * 1000, memory_usage_mb=resident_mb())
    return answer


def _report(dataset: Dataset, split: Split, answer: np.ndarray) -> bytes:
    matrix = confusion_matrix(split.y_held_out, answer, labels=np.arange(len(dataset.classes)))
    return json.dumps({"classes": dataset.classes, "confusion_matrix": matrix.tolist()}, indent=1).encode()


def _accuracy(record: RunRecord) -> float:
    """On the held-out rows; a trial that failed is below all others."""
    return -1.0 if record.error else record.curve.last["accuracy"]


def _table(records: Sequence[RunRecord]) -> bytes:
    text = io.StringIO()
    names = sorted({name for record in records for name in record.parameters})
    writer = csv.writer(text)
    writer.writerow(["trial", *names, "accuracy", "f1_score"])
    for record in records:
        last = record.curve.last
        writer.writerow(
            [record.name, *map(record.parameters.get, names), last.get("accuracy"), last.get("f1_score")]
        )
    return text.getvalue().encode()


def _notes(record: RunRecord, dataset: Dataset, split: Split, answer: np.ndarray | None, day: int) -> str:
    purpose = {"retraining": "Daily retraining", "trial": "Trial of a sweep", "mistake": "Attempt"}[
        record.role
    ]
    lines = [
        f"{purpose}: {record.model_type} on {dataset.name}, {len(split.y_train)} rows to train on and "
        f"{len(split.y_held_out)} held out."
    ]
    if answer is None:
        reached = record.curve.last_step + 1 if record.curve.points else 0
        lines.append(f"It failed after {reached} steps with {record.error}")
    else:
        lines.append(f"Accuracy on the held-out rows: {record.curve.last['accuracy']:.4f}.")
        lines.append(_confusion(dataset, split, answer))
    if record.role == "retraining":
        lines.append(_shift(dataset, day))
    return " ".join(line for line in lines if line)


def _confusion(dataset: Dataset, split: Split, answer: np.ndarray) -> str:
    """What was taken for what most often."""
    matrix = confusion_matrix(split.y_held_out, answer, labels=np.arange(len(dataset.classes)))
    np.fill_diagonal(matrix, 0)
    if not matrix.any():
        return "Every one of them was told right."
    truth, taken = np.unravel_index(matrix.argmax(), matrix.shape)
    names = f"{dataset.classes[truth]} taken for {dataset.classes[taken]}"
    return f"Most frequent confusion: {names}, {matrix.max()} times."


def _shift(dataset: Dataset, day: int) -> str:
    """How far the rows of the day lie from all before, if it is far."""
    today, before = dataset.x[dataset.arrived_on(day)], dataset.x[dataset.arrival < day]
    spread = before.std(axis=0)
    moved = np.divide(
        today.mean(axis=0) - before.mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 0
    )
    # The mean of few rows strays by itself.
    notable = np.abs(moved) > max(NOTABLE_SHIFT, 4 / np.sqrt(len(today)))
    if not notable.any():
        return ""
    most = int(np.abs(moved).argmax())
    return (
        f"The rows of the day differ from those before in {notable.sum()} of {len(moved)} features, most in "
        f"{dataset.features[most]}: mean {today[:, most].mean():.3g} after {before[:, most].mean():.3g}."
    )
