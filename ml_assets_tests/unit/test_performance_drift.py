"""Drift of predictions as they lie in the lake: from the JSON of their inputs to the verdict, in the real engine."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from ml_assets.errors import Refusal
from ml_assets.lib.days import DayRange
from ml_assets.lib.drift import ZERO_SHARE
from ml_assets.operations.performance_baselines import Baseline, first_week
from ml_assets.operations.performance_drift import (
    BINS,
    first_days,
    measure_days,
    measure_window,
    outdated_days,
)
from ml_assets.operations.performance_samples import column_distances, compare_samples
from ml_assets.sql_files import read_sql

CLOSE = 1e-9
FIRST = date(2026, 3, 1)
LATER = FIRST + timedelta(days=7)
"""The first day after the baseline."""


@pytest.fixture
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA features")
        connection.execute(
            "CREATE TABLE features.ml_predictions (model_name VARCHAR, model_version VARCHAR, input_features JSON, "
            "prediction JSON, confidence DOUBLE, created_at TIMESTAMPTZ)"
        )
        yield connection


def predict(engine, day: date, inputs: list[Any], model="m", version: str | None = "1", **more: list[Any]):
    """Have a model asked, once a minute from midnight on."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    table = pa.table(
        {
            "model": pa.array([model] * len(inputs)),
            "version": pa.array([version] * len(inputs), pa.string()),
            "inputs": pa.array(
                [x if isinstance(x, str | None) else json.dumps(x) for x in inputs], pa.string()
            ),
            "answers": pa.array(
                [json.dumps(x) for x in more.get("answers", [])] or [None] * len(inputs), pa.string()
            ),
            "confidences": pa.array(more.get("confidences", [None] * len(inputs)), pa.float64()),
            "at": pa.array([midnight + timedelta(minutes=n) for n in range(len(inputs))]),
        }
    )
    engine.register("given", table)
    engine.execute("INSERT INTO features.ml_predictions FROM given")


def usual(engine) -> dict[str, Baseline]:
    return {name: Baseline(name, first_week(day)) for name, day in first_days(engine).items()}


def measured(engine, day: date = LATER, of_models: dict[str, Baseline] | None = None, slice="all"):
    """The rows of a day in a slice, by feature."""
    rows = [
        row for table in measure_days(engine, of_models or usual(engine), [day]) for row in table.to_pylist()
    ]
    return {row["feature"]: row for row in rows if row["slice"] == slice}


def compare(engine, before: list[Any], now: list[Any]) -> dict[str, Any]:
    """The row of a feature of which these are the values in the baseline and later; `...` where it is not there."""
    predict(engine, FIRST, [{} if x is ... else {"x": x} for x in before])
    predict(engine, LATER, [{} if x is ... else {"x": x} for x in now])
    return measured(engine)["x"]


def test_distances_from_json_to_row_are_scipys(engine):
    rng = np.random.default_rng(4)
    colours = ["red", "green", "blue"]
    n, m = 300, 170
    a, b = rng.normal(size=n), rng.normal(0.4, 2.0, size=m)
    tied_a, tied_b = rng.integers(0, 5, n), rng.integers(1, 7, m)
    c, d = rng.choice(colours, n, p=[0.5, 0.3, 0.2]), rng.choice(colours, m, p=[0.2, 0.3, 0.5])
    sure_a, sure_b = rng.random(n), rng.random(m) ** 2
    for day, *columns in ((FIRST, a, tied_a, c, sure_a), (LATER, b, tied_b, d, sure_b)):
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        predict(
            engine,
            day,
            [{"x": x, "tied": tied, "deep": {"colour": colour}} for x, tied, colour, _ in rows],
            answers=[colour for _, _, colour, _ in rows],
            confidences=[sure for *_, sure in rows],
        )
    found = measured(engine)
    assert found.keys() == {"x", "tied", "deep.colour", "prediction", "confidence"}
    assert [found[name]["subject"] for name in ("x", "prediction", "confidence")] == [
        "input", "prediction", "confidence",
    ]  # fmt: skip
    for name, before, now in (("x", a, b), ("tied", tied_a, tied_b), ("confidence", sure_a, sure_b)):
        wanted: Any = stats.ks_2samp(before, now, method="asymp")
        row = found[name]
        assert row["kind"] == "number"
        assert (row["ks"], row["p"]) == pytest.approx((wanted.statistic, wanted.pvalue), abs=CLOSE)
        assert row["wasserstein"] == pytest.approx(stats.wasserstein_distance(before, now), abs=CLOSE)
    counts = np.array([[(side == colour).sum() for colour in colours] for side in (c, d)])
    for name in ("deep.colour", "prediction"):
        wanted = stats.chi2_contingency(counts, correction=False)
        row = found[name]
        assert row["kind"] == "category"
        assert row["chi_squared"] == pytest.approx(wanted.statistic, rel=CLOSE)
        assert row["p"] == pytest.approx(wanted.pvalue, abs=CLOSE)
        assert row["jensen_shannon"] == pytest.approx(jensenshannon(*(counts / [[n], [m]])), abs=CLOSE)
    ps = stats.false_discovery_control([found[name]["p"] for name in found for _ in ("all", "version")])
    assert found["x"]["corrected_p"] == pytest.approx(ps[2 * list(found).index("x")], abs=CLOSE)
    assert found["x"]["state"] == "drift"


def test_in_its_mode_figures_are_evidentlys(engine):
    """Those that Evidently 0.7.23 gave for these samples; benchmarks/drift.py compares more of them."""
    c = ["a"] * 120 + ["b"] * 60 + ["d"] * 20
    d = ["a"] * 60 + ["b"] * 70 + ["e"] * 20
    same = ["a", "b"] * 10 + ["b"] * 5
    predict(engine, FIRST, [{"x": n % 23 * 1.5, "c": c[n], "same": "ab"[n % 2]} for n in range(200)])
    predict(engine, LATER, [{"x": n % 31 * 1.2, "c": d[n], "same": same[n % 25]} for n in range(150)])
    table = measure_window(engine, usual(engine), DayRange(LATER, LATER), mode="evidently")
    assert table is not None
    found = {row["feature"]: row for row in table.to_pylist() if row["slice"] == "all"}
    names = ("p", "wasserstein", "psi", "jensen_shannon")
    wanted = (0.5161644310215892, 0.14524422258007644, 0.096655798405867, 0.1084302509558068)
    assert [found["x"][name] for name in names] == pytest.approx(wanted, abs=1e-6)
    wanted = (0.0, 1.8034886691611671, 0.31633151564954176)
    assert [found["c"][name] for name in ("p", "psi", "jensen_shannon")] == pytest.approx(wanted, abs=1e-6)
    assert found["same"]["p"] == pytest.approx(stats.chisquare([60, 90], [75, 75]).pvalue, abs=CLOSE)


def test_a_version_is_held_against_the_whole_baseline(engine):
    predict(engine, FIRST, [{"x": n} for n in range(100)], version="1")
    predict(engine, LATER, [{"x": n} for n in range(100)], version="2")
    predict(engine, LATER, [{"x": n + 80} for n in range(100)], version=None)
    tables = measure_days(engine, usual(engine), [LATER])
    rows = {(row["slice"], row["slice_value"]): row for table in tables for row in table.to_pylist()}
    assert {key: (row["current_count"], pytest.approx(row["ks"])) for key, row in rows.items()} == {
        ("all", ""): (200, 0.4), ("model_version", "2"): (100, 0.0), ("model_version", ""): (100, 0.8),
    }  # fmt: skip
    assert rows["model_version", "2"]["reference_count"] == 100


def test_days_of_the_baseline_are_not_judged(engine):
    predict(engine, FIRST, [{"x": n} for n in range(100)])
    row = measured(engine, FIRST)["x"]
    assert (row["state"], row["ks"], row["reference_count"]) == ("not judged", None, 0)
    assert row["reason"] == "The day lies in its baseline, 2026-03-01 to 2026-03-07."


def test_an_empty_baseline_is_told(engine):
    predict(engine, FIRST, [{"x": n} for n in range(100)])
    pinned = Baseline("m", DayRange(date(2025, 1, 1), date(2025, 1, 7)), datetime(2026, 3, 2, tzinfo=UTC))
    row = measured(engine, FIRST, {"m": pinned})["x"]
    assert (row["state"], row["p"], row["reference_pinned"]) == ("not judged", None, True)
    assert row["reason"] == "The baseline, 2025-01-01 to 2025-01-07, has no predictions: pin one that has."


def test_one_event_is_too_few(engine):
    row = compare(engine, list(range(100)), [1])
    assert (row["state"], row["ks"], row["corrected_p"]) == ("too few", 0.98, None)
    assert row["reason"] == "100 and 1 values; 50 each are needed."
    predict(engine, LATER, [{"x": 1}], model="new")
    assert list(measured(engine, LATER)) == ["x"]


@pytest.mark.parametrize(
    ("before", "now", "state", "told"),
    [
        ([None], [None], "none", "PSI 0 "),
        ([1.0], [1.0], "none", "KS 0 "),
        ([1.0], [2.0], "drift", "KS 1 "),
        (["a"], ["a"], "none", "PSI 0 "),
        (["a"], ["b"], "drift", "PSI 18.4"),
        ([1.0, 2.0], [None], "drift", "0.0% of the predictions lacked it, and 100.0% do"),
        ([1.0, 2.0], [...], "drift", "0.0% of the predictions lacked it, and 100.0% do"),
        (["a", "b"], [None], "drift", "PSI"),
        ([...], [3.0], "drift", "100.0% of the predictions lacked it, and 0.0% do"),
        ([True, False], [True], "drift", "PSI"),
        ([[1, 2]], [[3, 4]], "not judged", "A list is not compared"),
    ],
)  # fmt: skip
def test_values_that_are_all_the_same_or_none(engine, before, now, state, told):
    row = compare(engine, before * 100, now * 100)
    assert (row["state"], told in row["reason"]) == (state, True), row["reason"]


def test_a_category_never_seen(engine):
    row = compare(engine, ["a"] * 60 + ["b"] * 40, ["a"] * 50 + ["b"] * 30 + ["new"] * 20)
    assert row["state"] == "drift"
    assert row["chi_squared"] == pytest.approx(
        stats.contingency.chi2_contingency([[60, 40, 0], [50, 30, 20]])[0]
    )


def test_many_categories_are_as_good_as_the_most_frequent(engine):
    names = [f"user-{n}" for n in range(400)]
    row = compare(engine, names[:200] + ["common"] * 200, names[200:] + ["common"] * 200)
    # Of 101 categories one is the rest of the baseline and what it does not have.
    assert row["kind"] == "category" and math.isfinite(row["psi"])
    assert row["current_count"] == 400


def test_what_is_of_another_type_than_most_is_lacking(engine):
    row = compare(engine, [1.0, 2.0, "n/a", 3.0] * 25, [1.0, "n/a", "n/a", 3.0] * 25)
    assert (row["kind"], row["reference_lacking"], row["current_lacking"]) == ("number", 25, 50)
    assert (row["state"], row["ks"]) == ("drift", pytest.approx(1 / 6))
    assert "25.0% of the predictions lacked it, and 50.0% do" in row["reason"]


def test_a_number_among_categories_is_one(engine):
    row = compare(engine, ["a", "b", 1] * 30, ["a", "b", 1.0] * 30)
    assert (row["kind"], row["psi"], row["current_count"]) == ("category", 0.0, 90)


def test_few_integers_are_numbers_all_the_same(engine):
    assert compare(engine, [0, 1] * 50, [0, 1] * 50)["kind"] == "number"


def test_infinite_values_are_lacking(engine):
    predict(engine, FIRST, [{"x": n} for n in range(100)], confidences=[math.nan] * 50 + [0.5] * 50)
    predict(engine, LATER, ['{"x": 1e999}', '{"x": -1e999}'] * 50, confidences=[math.inf] * 60 + [0.5] * 40)
    found = measured(engine)
    assert (found["x"]["current_count"], found["x"]["current_lacking"]) == (0, 100)
    assert found["x"]["state"] == "drift"
    assert (found["confidence"]["reference_lacking"], found["confidence"]["current_lacking"]) == (50, 60)
    assert (found["confidence"]["ks"], found["confidence"]["state"]) == (0, "too few")


def test_an_input_that_is_no_object_is_told(engine):
    for day in (FIRST, LATER):
        predict(engine, day, ["[1, 2, 3]"] * 60)
    assert measured(engine)["input_features"]["state"] == "not judged"
    engine.execute("DELETE FROM features.ml_predictions")
    for day in (FIRST, LATER):
        predict(engine, day, ["3.5", None] * 60)
    row = measured(engine)["input_features"]
    assert (row["kind"], row["current_count"], row["current_lacking"]) == ("number", 60, 60)


def test_names_may_look_like_places_in_a_list(engine):
    for day in (FIRST, LATER):
        predict(
            engine, day, [{"a[0]": 1, "sepal length (cm)": 2, "deep": {"er": {"x": 1}, "list": [1]}}] * 60
        )
    assert measured(engine).keys() == {"a[0]", "sepal length (cm)", "deep.er.x", "deep.list"}


def test_after_a_gap_of_a_month_the_baseline_is_the_same(engine):
    predict(engine, FIRST, [{"x": n} for n in range(100)])
    day = FIRST + timedelta(days=40)
    predict(engine, day, [{"x": n} for n in range(100)])
    days = [FIRST + timedelta(days=n) for n in range(60)]
    tables = list(measure_days(engine, usual(engine), days))
    assert len(tables) == 2  # days without predictions have no rows
    assert {row["state"] for row in tables[1].to_pylist()} == {"none"}


def test_ten_thousand_models_are_measured_together(engine):
    """A model costs rows, no statement."""
    engine.execute(
        "INSERT INTO features.ml_predictions SELECT 'm' || n, '1', '{\"x\": ' || i || '}', NULL, NULL, "
        "$1::TIMESTAMPTZ + to_days((i % 2 * 7)::INT) FROM range(10000) AS models(n), range(4) AS rows(i)",
        [datetime(2026, 3, 1, tzinfo=UTC)],
    )
    statements = []

    class Counting:
        def execute(self, statement, *bound):
            statements.append(statement)
            return engine.execute(statement, *bound)

        register, unregister = engine.register, engine.unregister

    counting: Any = Counting()
    (table,) = measure_days(counting, usual(engine), [LATER])
    assert table.num_rows == 10_000 * 2  # in two slices
    assert len(statements) < 15


def test_rows_do_not_depend_on_the_other_days_of_a_run(engine):
    rng = np.random.default_rng(2)
    for n in range(10):
        inputs = [
            {"x": x, "c": c} for x, c in zip(rng.normal(size=80), rng.choice(["a", "b"], 80), strict=True)
        ]
        predict(engine, FIRST + timedelta(days=n), inputs)
    days = [LATER, LATER + timedelta(days=1)]
    together = list(measure_days(engine, usual(engine), days))
    alone = [table for day in days for table in measure_days(engine, usual(engine), [day])]
    assert together == alone
    whole = measure_window(engine, usual(engine), DayRange(*days))
    assert whole is not None and whole["current_count"][0].as_py() == 160


def test_days_are_outdated_once_their_baseline_is_another_one(engine):
    predict(engine, FIRST, [{"x": n} for n in range(100)])
    predict(engine, LATER, [{"x": n} for n in range(100)])
    days = [FIRST, LATER]

    def rows(of_models):
        return [
            [row["day"].date(), *(row[f"{name}"] for name in ("model_name", *COMPARED))]
            for table in measure_days(engine, of_models, days)
            for row in table.to_pylist()
        ]

    compared = rows(usual(engine))
    assert outdated_days(engine, usual(engine), compared) == set()
    pinned = {"m": Baseline("m", DayRange(LATER, LATER), datetime(2026, 4, 1, tzinfo=UTC))}
    rows(pinned)
    assert outdated_days(engine, pinned, compared) == {FIRST, LATER}
    # A prediction that comes late for the baseline reaches all that was held against it.
    predict(engine, FIRST + timedelta(days=2), [{"x": 5}])
    rows(usual(engine))
    assert outdated_days(engine, usual(engine), compared) == {LATER}


@pytest.mark.parametrize(
    "kind", ["normal", "tied", "constant", "skewed", "far from 0", "vast", "few", "half of it 0", "infinite"]
)
def test_columns_counted_in_bins_have_the_same_distances(engine, kind):
    rng = np.random.default_rng(len(kind))
    for n, m in ((5000, 3000), (40, 900), (1, 1)):
        a, b = rng.normal(size=n), rng.normal(rng.choice([0, 0.3]), rng.choice([1, 2]), size=m)
        if kind == "tied":
            a, b = np.round(a, 1), np.round(b, 1)
        if kind == "constant":
            a, b = np.zeros(n), np.zeros(m)
        if kind == "skewed":
            a, b = np.exp(4 * a), np.exp(4 * b)
        if kind == "far from 0":
            a, b = np.sort(a) + 1.7e9, np.sort(b) + 1.7e9
        if kind == "vast":
            a, b = a * 1e300, b * 1e300
        if kind == "few":
            a, b = np.floor(a), np.floor(b)
        if kind == "half of it 0":
            a, b = np.maximum(a, 0), np.maximum(b, 0)
        more = [math.nan, math.inf, -math.inf] if kind == "infinite" else []
        for name, side in (("a", a), ("b", b)):
            engine.register(name, pa.table({"x": np.append(side, more)}))
        *counts, found = column_distances(engine, "a", "b", "x")
        assert counts == [n, m]
        engine.execute(
            "CREATE OR REPLACE TEMP TABLE counted AS SELECT 1 AS series, x AS value, "
            "count(*) FILTER (side = 1) AS reference_count, count(*) FILTER (side = 2) AS current_count "
            "FROM (SELECT x, 1 AS side FROM a UNION ALL SELECT x, 2 FROM b) WHERE isfinite(x) GROUP BY x"
        )
        wanted = engine.execute(
            read_sql("duckdb/drift/numbers.sql"), {"bins": BINS, "zero_share": ZERO_SHARE}
        ).fetchone()
        assert found is not None
        assert (found.ks, found.psi) == pytest.approx((wanted[2], wanted[4]), abs=CLOSE)
        assert found.wasserstein == pytest.approx(wanted[3], rel=CLOSE, abs=CLOSE)
        assert found.jensen_shannon == pytest.approx(wanted[5], abs=1e-7)
    engine.register("none", pa.table({"x": pa.array([None], pa.float64())}))
    assert column_distances(engine, "a", "none", "x") == (1, 0, None)


COMPARED = ("reference_first", "reference_last", "reference_content")


def test_two_samples_are_compared_column_by_column(tmp_path):
    rng = np.random.default_rng(3)
    one = pa.table(
        {
            "same": rng.normal(size=900),
            "moved": rng.normal(size=900),
            "gone": np.ones(900),
            "kind": ["a", "b", "c"] * 300,
            "only here": np.ones(900),
            "list": [[1]] * 900,
        }
    )
    other = pa.table(
        {
            "same": rng.normal(size=700),
            "moved": rng.normal(0.5, size=700),
            "gone": pa.array([None] * 700, pa.float64()),
            "kind": ["a"] * 500 + ["new"] * 150 + [None] * 50,
            "list": [[1]] * 700,
        }
    )
    found = {row["feature"]: row for row in compare_samples(one, other).to_pylist()}
    assert {name: row["state"] for name, row in found.items()} == {
        "same": "none",
        "moved": "drift",
        "gone": "drift",
        "kind": "drift",
        "only here": "not judged",
        "list": "not judged",
    }
    moved = [side["moved"].to_numpy() for side in (one, other)]
    assert found["moved"]["ks"] == pytest.approx(stats.ks_2samp(*moved)[0], abs=CLOSE)
    assert found["moved"]["wasserstein"] == pytest.approx(stats.wasserstein_distance(*moved), abs=CLOSE)
    counts = [[300, 300, 300, 0, 0], [500, 0, 0, 150, 50]]
    expected = stats.chi2_contingency(counts, correction=False)
    assert found["kind"]["chi_squared"] == pytest.approx(expected.statistic)  # pyright: ignore[reportAttributeAccessIssue]
    assert (found["gone"]["current_count"], found["gone"]["current_lacking"]) == (0, 700)
    assert "no such column in the current sample" in found["only here"]["reason"]
    pq.write_table(one, tmp_path / "one.parquet")
    again = compare_samples(tmp_path / "one.parquet", other, ["moved"]).to_pylist()
    assert again[0]["ks"] == found["moved"]["ks"]
    for wrong, told in (("none.parquet", "no file"), ("x.txt", "ends in .parquet or .csv")):
        with pytest.raises(Refusal, match=told):
            compare_samples(str(tmp_path / wrong), other)
