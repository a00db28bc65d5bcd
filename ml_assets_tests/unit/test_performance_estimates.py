"""Accuracy by the day where labels are missing: real models, days whose inputs shift, labels that come late or lie."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ml_assets.lib.days import DayRange
from ml_assets.operations.performance_baselines import Baseline, first_week
from ml_assets.operations.performance_estimates import estimates, first_days

FIRST = date(2026, 3, 1)
REFERENCE = first_week(FIRST)
LATER = DayRange(FIRST + timedelta(days=7), FIRST + timedelta(days=9))


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE SCHEMA features")
        connection.execute(
            "CREATE TABLE features.ml_predictions (model_name VARCHAR, model_version VARCHAR, confidence DOUBLE, "
            "is_correct BOOLEAN, created_at TIMESTAMPTZ)"
        )
        yield connection


def answer(
    connection: duckdb.DuckDBPyConnection,
    day: date,
    confidence: Any,
    correct: Any,
    model: str = "m",
    version: str | None = "1",
) -> None:
    n = len(confidence)
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    rows = {
        "model_name": pa.array([model] * n),
        "model_version": pa.array([version] * n, pa.string()),
        "confidence": pa.array(confidence, pa.float64()),
        "is_correct": pa.array(correct, pa.bool_()),
        "created_at": pa.array([at] * n, pa.timestamp("us", "UTC")),
    }
    connection.register("given", pa.table(rows))
    connection.execute("INSERT INTO features.ml_predictions FROM given")
    connection.unregister("given")


def of_all(connection: duckdb.DuckDBPyConnection, days: DayRange = LATER) -> list[dict[str, Any]]:
    baselines = {name: Baseline(name, first_week(day)) for name, day in first_days(connection, days).items()}
    return [row for row in estimates(connection, days, baselines) if row["slice"] == "all"]


def calibrated(rng: np.random.Generator, n: int, low: float = 0.5) -> tuple[np.ndarray, list[bool]]:
    confidence = rng.uniform(low, 1, n)
    return confidence, (rng.random(n) < confidence).tolist()


def test_real_models_whose_inputs_shift_are_estimated_within_two_hundredths(connection):
    """What held-out rows a day has shifts along the inputs' first principal axis; each is drawn by chance."""
    told, off = [], []
    forest = RandomForestClassifier(40, min_samples_leaf=2, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    for load, trained, model in (
        (load_digits, 250, forest),
        (load_digits, 250, linear),
        (load_wine, 30, forest),
    ):
        drawn = []
        for seed in range(4):
            connection.execute("DELETE FROM features.ml_predictions")
            rng = np.random.default_rng(seed)
            made: Any = load(return_X_y=True)
            x, y = made
            order = rng.permutation(len(x))
            learned, rest = order[:trained], order[trained:]
            fitted = model.fit(x[learned], y[learned])
            shares = fitted.predict_proba(x)
            confidence, correct = shares.max(axis=1), fitted.classes_[shares.argmax(axis=1)] == y
            centred = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
            axis = np.linalg.svd(centred[rest], full_matrices=False)[2][0]
            far = np.exp(1.5 * (centred @ axis) / (centred @ axis).std())
            for n, day in enumerate(REFERENCE.days()):
                answer(connection, day, confidence[rest[n::7]], correct[rest[n::7]])
            rows = rng.choice(rest, 3000, p=far[rest] / far[rest].sum())
            answer(connection, LATER.first, confidence[rows], [None] * len(rows))
            [row] = of_all(connection, DayRange(LATER.first, LATER.first))
            assert (row["source"], row["labelled_count"]) == ("estimated", 0), row["reason"]
            truth = correct[rows].mean()
            drawn.append((row["accuracy"] - truth, correct[rest].mean() - truth))
        error, moved = np.abs(np.array(drawn)).mean(axis=0)
        off.append(error)
        told.append(
            f"{load.__name__}, {type(model).__name__}: estimate off by {error:.4f}; last known accuracy {moved:.4f}"
        )
    print("\n".join(told))
    assert max(off) < 0.02


def test_labels_that_come_late_take_the_place_of_the_estimate(connection):
    rng = np.random.default_rng(0)
    for day in REFERENCE.days():
        answer(connection, day, *calibrated(rng, 400))
    confidence, correct = calibrated(rng, 1000, low=0.7)
    answer(connection, LATER.first, confidence, [None] * 1000)
    [row] = of_all(connection)
    assert row["source"] == "estimated" and row["measured_accuracy"] is None
    assert row["accuracy"] == row["estimated_accuracy"] == pytest.approx(0.85, abs=0.03)
    assert row["low"] < np.mean(correct) < row["high"]
    assert "not checked since" in row["reason"]
    for known, source in ((300, "estimated"), (899, "estimated"), (900, "measured"), (1000, "measured")):
        connection.execute(f"DELETE FROM features.ml_predictions WHERE created_at >= '{LATER.first}'")
        answer(connection, LATER.first, confidence, [*correct[:known], *[None] * (1000 - known)])
        [row] = of_all(connection)
        assert (row["source"], row["labelled_count"]) == (source, known)
        assert row["measured_accuracy"] == pytest.approx(np.mean(correct[:known]))
        assert row["accuracy"] == (
            row["measured_accuracy"] if source == "measured" else row["estimated_accuracy"]
        )
        assert f"checked by {known:,} answers" in row["reason"]


def test_a_day_whose_labels_contradict_its_confidence_is_not_estimated_nor_are_those_after_it(connection):
    rng = np.random.default_rng(1)
    for day in REFERENCE.days():
        answer(connection, day, *calibrated(rng, 400))
    confidence, correct = calibrated(rng, 1000)
    shuffled = rng.permutation(correct) & (rng.random(1000) < 0.7)
    answer(connection, LATER.first, confidence, [*shuffled[:300].tolist(), *[None] * 700])
    answer(connection, LATER.last, confidence, [None] * 1000)
    first, last = of_all(connection)
    for row in (first, last):
        assert (row["applicable"], row["accuracy"], row["source"]) == (False, None, None)
        assert "Of the latest 300 answers with a known truth" in row["reason"]
    print(first["reason"])


def test_shuffled_labels_in_the_reference_are_told(connection):
    rng = np.random.default_rng(2)
    for day in REFERENCE.days():
        confidence, correct = calibrated(rng, 100)
        answer(connection, day, confidence, rng.permutation(correct).tolist())
    answer(connection, LATER.first, rng.uniform(0.5, 1, 100), [None] * 100)
    [row] = of_all(connection)
    assert not row["applicable"]
    assert "right answers have no higher confidence than wrong ones" in row["reason"]


def test_versions_are_told_apart_and_an_unknown_one_is_empty(connection):
    rng = np.random.default_rng(3)
    for day in REFERENCE.days():
        answer(connection, day, *calibrated(rng, 100))
    for version, low in (("2", 0.9), (None, 0.5)):
        confidence, _ = calibrated(rng, 300, low)
        answer(connection, LATER.first, confidence, [None] * 300, version=version)
    window = DayRange(LATER.first, LATER.first)
    found = {
        (row["slice"], row["slice_value"]): row["estimated_accuracy"]
        for row in estimates(connection, window, {"m": Baseline("m", REFERENCE)})
    }
    assert found.keys() == {("all", ""), ("model_version", "2"), ("model_version", "")}
    assert found["model_version", "2"] > found["all", ""] > found["model_version", ""]


@pytest.mark.parametrize(
    ("confidence", "correct", "reason"),
    [
        ([0.9], [True], "Fewer than 100 answers"),
        ([None] * 300, [True] * 300, "Fewer than 100 answers"),
        ([0.9] * 300, [None] * 300, "Fewer than 100 answers"),
        ([0.9] * 300, [True, False] * 150, "The confidence is 0.9 in all answers"),
    ],
    ids=["one event", "no confidence", "no label", "constant"],
)
def test_a_reference_that_says_nothing_is_a_sentence(connection, confidence, correct, reason):
    answer(connection, FIRST, confidence, correct)
    answer(connection, LATER.first, [0.8, 0.9], [None, None])
    [row] = of_all(connection)
    assert reason in row["reason"]
    assert (row["applicable"], row["estimated_accuracy"], row["source"]) == (False, None, None)


def test_a_day_of_nulls_and_an_empty_reference_are_sentences(connection):
    rng = np.random.default_rng(4)
    answer(connection, FIRST, *calibrated(rng, 300))
    answer(connection, LATER.first, [None, None], [None, None])
    [row] = of_all(connection)
    assert row["reason"] == "No answer has a confidence."
    few = LATER.first + timedelta(days=1)
    answer(connection, few, [0.9, None, None], [None] * 3)
    [row] = of_all(connection, DayRange(few, few))
    assert row["reason"] == "Only 1 of 3 answers have a confidence, which says nothing of the others."
    assert (row["prediction_count"], row["applicable"], row["accuracy"]) == (3, False, None)
    pinned = Baseline("m", DayRange(FIRST - timedelta(days=9), FIRST - timedelta(days=3)), datetime.now(UTC))
    [row] = [
        each for each in estimates(connection, DayRange(few, few), {"m": pinned}) if each["slice"] == "all"
    ]
    assert "Fewer than 100 answers" in row["reason"] and row["reference_pinned"]


def test_many_models_a_gap_of_a_month_and_no_answer_at_all(connection):
    assert of_all(connection) == []
    rng = np.random.default_rng(5)
    for n in range(100):
        answer(connection, FIRST, *calibrated(rng, 120), model=f"m{n}")
        answer(connection, FIRST + timedelta(days=40), [0.8], [None], model=f"m{n}")
    day = FIRST + timedelta(days=40)
    found = of_all(connection, DayRange(FIRST, day))
    assert len(found) == 200
    assert {row["source"] for row in found if row["day"].date() == FIRST} == {"measured"}
    later = [row for row in found if row["day"].date() == day]
    assert len(later) == 100 and {row["labelled_count"] for row in later} == {0}
