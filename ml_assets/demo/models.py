"""Model families and how each learns, step by step.

Imports scikit-learn: import it where the demo is made and nowhere else.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from sklearn.metrics import precision_recall_fscore_support
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ml_assets.demo.data import Split

EPOCHS = 15
SOLVER_STEPS = 8
"""Steps of a solver that runs to convergence by itself, each of `ITERATIONS` iterations."""
ITERATIONS = 4
FOREST_STEPS = 6
BAYES_STEPS = 5


@dataclass(frozen=True)
class Point:
    """A value of a metric at a step, `elapsed_s` seconds after the start of the training."""

    key: str
    step: int
    value: float
    elapsed_s: float


@dataclass
class Curve:
    """What a training reports on its way; it keeps what was reported before a failure."""

    points: list[Point] = field(default_factory=list)
    started: float = field(default_factory=perf_counter)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self.started

    @property
    def last(self) -> dict[str, float]:
        """Last value of every metric."""
        return {point.key: point.value for point in self.points}

    @property
    def last_step(self) -> int:
        """Highest step, 0 if nothing was reported."""
        return max((point.step for point in self.points), default=0)

    def record(self, step: int, **values: float) -> None:
        """Report values of a step."""
        elapsed = self.elapsed_s
        self.points += [Point(key, step, float(value), elapsed) for key, value in values.items()]


Probabilities = tuple[np.ndarray, np.ndarray]
"""Of the training rows and of the held-out rows."""

Learning = Callable[[Any, Split, np.ndarray], Iterator[Probabilities]]
"""Trains an estimator on scaled data; yields after every step."""


def train(
    family: str, parameters: dict[str, Any], seed: int, split: Split, classes: int, curve: Curve
) -> Pipeline:
    """Train a classifier, reporting loss and accuracy of every step.

    Raises:
        Exception: whatever scikit-learn makes of bad parameters or data.
    """
    build, learn = _CLASSIFIERS[family]
    scaler = StandardScaler()
    x_train, x_held_out = scaler.fit_transform(split.x_train), scaler.transform(split.x_held_out)
    scaled = Split(np.asarray(x_train), split.y_train, np.asarray(x_held_out), split.y_held_out)
    estimator = build(parameters, seed)
    labels = np.arange(classes)
    # Stopping a solver early and diverging are what the curves show; they need no warning on top.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for step, (train_probabilities, held_out) in enumerate(learn(estimator, scaled, labels)):
            curve.record(
                step,
                loss=_log_loss(scaled.y_train, train_probabilities),
                train_accuracy=_accuracy(scaled.y_train, train_probabilities),
                val_loss=_log_loss(scaled.y_held_out, held_out),
                accuracy=_accuracy(scaled.y_held_out, held_out),
            )
    return make_pipeline(scaler, estimator)


def train_regressor(
    family: str, parameters: dict[str, Any], seed: int, split: Split, curve: Curve
) -> Pipeline:
    """Train a regressor, reporting mean squared errors of every step. Raises like `train`."""
    scaler, estimator = StandardScaler(), _REGRESSORS[family](parameters, seed)
    x, held_out = scaler.fit_transform(split.x_train), scaler.transform(split.x_held_out)
    steps = EPOCHS if hasattr(estimator, "partial_fit") else 1
    for step in range(steps):
        fit = estimator.partial_fit if steps > 1 else estimator.fit
        fit(x, split.y_train)
        curve.record(
            step,
            loss=np.mean((estimator.predict(x) - split.y_train) ** 2),
            val_loss=np.mean((estimator.predict(held_out) - split.y_held_out) ** 2),
        )
    return make_pipeline(scaler, estimator)


def scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy and macro precision, recall and F1; a class that is never predicted has precision 0."""
    precision, recall, f1_score, _ = precision_recall_fscore_support(
        truth,
        predicted,
        average="macro",
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )
    return {
        "accuracy": float(np.mean(truth == predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1_score": float(f1_score),
    }


def _accuracy(truth: np.ndarray, probabilities: np.ndarray) -> float:
    return float(np.mean(truth == probabilities.argmax(axis=1)))


def _log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean cross entropy. Scikit-learn's own spends most of its time on validating small inputs."""
    given = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(given, np.finfo(float).eps, 1.0)).mean())


def _both(estimator: Any, split: Split) -> Probabilities:
    return estimator.predict_proba(split.x_train), estimator.predict_proba(split.x_held_out)


def _at_once(estimator: Any, split: Split, labels: np.ndarray) -> Iterator[Probabilities]:
    estimator.fit(split.x_train, split.y_train)
    yield _both(estimator, split)


def _by_epoch(estimator: Any, split: Split, labels: np.ndarray) -> Iterator[Probabilities]:
    for _ in range(EPOCHS):
        estimator.partial_fit(split.x_train, split.y_train, classes=labels)
        yield _both(estimator, split)


def _by_portion(estimator: Any, split: Split, labels: np.ndarray) -> Iterator[Probabilities]:
    """Each step sees further rows, each row once."""
    for rows in np.array_split(np.arange(len(split.y_train)), BAYES_STEPS):
        estimator.partial_fit(split.x_train[rows], split.y_train[rows], classes=labels)
        yield _both(estimator, split)


def _by_iterations(estimator: Any, split: Split, labels: np.ndarray) -> Iterator[Probabilities]:
    """Each step goes on from where the last one stopped."""
    for _ in range(SOLVER_STEPS):
        estimator.fit(split.x_train, split.y_train)
        yield _both(estimator, split)


def _by_trees(estimator: Any, split: Split, labels: np.ndarray) -> Iterator[Probabilities]:
    trees = estimator.n_estimators
    for step in range(1, FOREST_STEPS + 1):
        estimator.n_estimators = trees * step // FOREST_STEPS
        estimator.fit(split.x_train, split.y_train)
        yield _both(estimator, split)


def _by_stage(estimator: Any, split: Split, labels: np.ndarray) -> Iterator[Probabilities]:
    estimator.fit(split.x_train, split.y_train)
    train, held_out = (
        estimator.staged_predict_proba(split.x_train),
        estimator.staged_predict_proba(split.x_held_out),
    )
    # Copies: scikit-learn may hand out the same array at every stage.
    yield from ((np.array(a), np.array(b)) for a, b in zip(train, held_out, strict=True))


_CLASSIFIERS: dict[str, tuple[Callable[[dict[str, Any], int], Any], Learning]] = {
    "gradient_boosting": (lambda p, seed: GradientBoostingClassifier(**p, random_state=seed), _by_stage),
    "knn": (lambda p, seed: KNeighborsClassifier(**p), _at_once),
    "logistic_regression": (
        lambda p, seed: LogisticRegression(**p, warm_start=True, max_iter=ITERATIONS, random_state=seed),
        _by_iterations,
    ),
    "mlp": (lambda p, seed: MLPClassifier(**p, random_state=seed), _by_epoch),
    "naive_bayes": (lambda p, seed: GaussianNB(**p), _by_portion),
    "random_forest": (
        lambda p, seed: RandomForestClassifier(**p, warm_start=True, random_state=seed),
        _by_trees,
    ),
    "sgd": (lambda p, seed: SGDClassifier(**p, random_state=seed), _by_epoch),
    # Calibrated, because an SVC by itself has no probabilities.
    "svc": (
        lambda p, seed: CalibratedClassifierCV(
            SVC(**p, random_state=seed),
            ensemble=False,  # pyright: ignore[reportArgumentType]
            cv=3,
        ),
        _at_once,
    ),
}

_REGRESSORS: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "ridge": lambda p, seed: Ridge(**p, random_state=seed),
    "sgd_regressor": lambda p, seed: SGDRegressor(**p, random_state=seed),
}
