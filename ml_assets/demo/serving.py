"""A day in the life of a model: it is asked over the hours, and judged when the day's truth is known.

Imports scikit-learn: import it where the demo is made and nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np

from ml_assets.demo.data import Dataset
from ml_assets.demo.models import scores
from ml_assets.demo.record import resident_mb

JUDGED_AT = timedelta(hours=20, minutes=30)
"""Time of day at which the truth about the day's rows is known; before the day's retraining."""

FIRST_HOUR, LAST_HOUR = 1, 19


@dataclass(frozen=True)
class Served:
    """A model in service.

    Args:
        model: fitted; a classifier if its dataset has classes.
        version: registered version, None if there is no registry.
    """

    model: Any
    name: str
    version: str | None
    experiment: str
    run_id: str


@dataclass(frozen=True)
class _Batch:
    rows: np.ndarray
    time: datetime


def serve(served: Served, dataset: Dataset, day: int, midnight: datetime) -> tuple[list[dict], list[dict]]:
    """Ask a model about the rows of a day, in the batches in which they arrive.

    Returns:
        Rows of the streams performance and predictions. A regression has inference events only.
    """
    events, predictions, answers = [], [], []
    for number, batch in enumerate(_batches(dataset, day, midnight)):
        answer, cost = _ask(served.model, dataset.x[batch.rows])
        events.append(_event(served, "inference", batch.time, f"{number}", **cost))
        if dataset.classes:
            predictions += _predictions(served, dataset, batch, answer)
            answers.append((batch.rows, answer.argmax(axis=1)))
    if answers:
        rows, answered = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        _, cost = _ask(served.model, dataset.x[rows])
        quality = scores(dataset.y[rows], answered)
        events.append(_event(served, "evaluation", midnight + JUDGED_AT, "judged", **quality, **cost))
    return events, predictions


def _batches(dataset: Dataset, day: int, midnight: datetime) -> Iterator[_Batch]:
    """The rows of each hour; both models of a dataset are asked at the same times."""
    rows = dataset.arrived_on(day)
    generator = np.random.default_rng(crc32(f"hours {dataset.name} {day}".encode()))
    hours = np.sort(generator.integers(FIRST_HOUR, LAST_HOUR + 1, len(rows)))
    for hour in np.unique(hours):
        seconds = int(generator.integers(0, 3600))
        yield _Batch(rows[hours == hour], midnight + timedelta(hours=int(hour), seconds=seconds))


def _ask(model: Any, x: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """The answer, and what it cost: wall time and the process's memory right after."""
    ask = getattr(model, "predict_proba", model.predict)
    start = perf_counter()
    answer = ask(x)
    elapsed = perf_counter() - start
    cost = {"inference_time_ms": elapsed * 1000, "memory_usage_mb": resident_mb(), "batch_size": len(x)}
    return answer, cost


def _event(served: Served, kind: str, time: datetime, number: str, **measures: float) -> dict:
    return {
        "event_id": f"{served.name}:{time.date()}:{number}",
        "kind": kind,
        "timestamp": time,
        "model_name": served.name,
        "model_version": served.version,
        "experiment": served.experiment,
        "run_id": served.run_id,
        **measures,
    }


def _predictions(served: Served, dataset: Dataset, batch: _Batch, answer: np.ndarray) -> Iterator[dict]:
    for row, probabilities in zip(batch.rows, answer, strict=True):
        best = int(probabilities.argmax())
        yield {
            "prediction_id": f"{served.name}:{batch.time.date()}:{row}",
            "run_id": served.run_id,
            "model_name": served.name,
            "model_version": served.version,
            "input_features": dict(zip(dataset.features, dataset.x[row].tolist(), strict=True)),
            "prediction": dataset.classes[best],
            # Probabilities of a model sum to 1 but for the last bits.
            "confidence": min(1.0, float(probabilities[best])),
            "label": dataset.classes[dataset.y[row]],
            "created_at": batch.time,
        }
