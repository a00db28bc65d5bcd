"""The tables that ship, by their SELECT on a database in memory, against values worked out by plain Python."""

import math
import random
import re
from datetime import UTC, datetime, timedelta
from statistics import fmean, stdev

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from ml_assets.contracts import tables
from ml_assets.contracts.feature_files import feature_files
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.tables.arrow_types import arrow_schema

SETTINGS = Settings()
TABLES = tables(SETTINGS)
FILES = {file.name: file for file in feature_files(SETTINGS)}
SHIPPED = (
    "run_features",
    "model_performance_events",
    "ml_predictions",
    "ml_experiment_results",
    "model_performance_analysis",
    "learning_curves",
    "model_daily_features",
    "prediction_quality",
    "training_set",
)
"""In an order in which they can be built."""

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
INF, NAN = float("inf"), float("nan")


def at(day, hour=0, minute=0):
    """A time of March 2026."""
    return FIRST + timedelta(days=day - 1, hours=hour, minutes=minute)


def seeded(seed):
    return random.Random(seed)  # noqa: S311 - to be repeatable is the point


class Lake:
    """Schemas and tables as in the lake."""

    def __init__(self, connection):
        self._connection = connection
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw; CREATE SCHEMA features")
        for table in ("raw_runs", "raw_metrics", "raw_performance", "raw_predictions"):
            self.keep(table, [])
        for table in SHIPPED:
            self.keep(table, [])

    def keep(self, table, rows):
        """Give a table these rows; columns that are not named are null."""
        contract = TABLES[f"duckdb/{table}"]
        self._connection.register("rows", pa.Table.from_pylist(rows, arrow_schema(contract)))
        self._connection.execute(
            f"CREATE OR REPLACE TABLE {contract.schema}.{table} AS SELECT {self._typed(contract)} FROM rows"
        )

    def build(self, *names, first=1, days=60):
        """Build tables over some days of March and after; give the rows of the last one."""
        rows = []
        for name in names:
            contract = TABLES[f"duckdb/{name}"]
            window = {"start": at(first), "end": at(first + days)}
            keys = self._connection.execute(read_sql("duckdb/operations/metric_keys.sql"), window).fetchall()
            self._connection.register("metric_rules", MetricRules().table(key for (key,) in keys))
            select = FILES[name].text
            bound = window if contract.partition_column else {}
            found = self._connection.execute(select, bound).to_arrow_table()
            assert set(found.column_names) == set(contract.names)
            if bound:
                self._connection.execute(
                    f'DELETE FROM features.{name} WHERE "{contract.partition_column}" >= $start '
                    f'AND "{contract.partition_column}" < $end',
                    bound,
                )
            else:
                self._connection.execute(f"DELETE FROM features.{name}")
            self._connection.register("rows", found)
            self._connection.execute(
                f"INSERT INTO features.{name} BY NAME SELECT {self._typed(contract)} FROM rows"
            )
            rows = self.rows(name)
        return rows

    def rows(self, name):
        """All rows in the order of their key."""
        order = ", ".join(f'"{column}"' for column in TABLES[f"duckdb/{name}"].key)
        return self._connection.execute(f"FROM features.{name} ORDER BY {order}").to_arrow_table().to_pylist()

    def shape(self, name):
        """Names and types of a table's columns."""
        return self._connection.execute(f"DESCRIBE FROM features.{name}").fetchall()

    def _typed(self, contract):
        cast = [
            f'"{column.name}"::JSON AS "{column.name}"'
            for column in contract.columns
            if column.type == "json"
        ]
        return f"* REPLACE ({', '.join(cast)})" if cast else "*"


@pytest.fixture
def lake():
    with duckdb.connect(config={"threads": 2}) as connection:
        yield Lake(connection)


def only(row, *names):
    """Some values of a row."""
    return tuple(row[name] for name in names)


def same(found, wanted):
    """Whether numbers agree but for the last bits, None with None."""
    return found == wanted or (None not in (found, wanted) and math.isclose(found, wanted, rel_tol=1e-12))


# What every file has.


@pytest.mark.parametrize("name", SHIPPED[3:])
def test_every_column_says_what_it_is_beside_it_and_in_the_contract(name):
    contract, text = TABLES[f"duckdb/{name}"], FILES[name].text
    said = {}
    for column, comment in re.findall(r"(\w+),?  -- (.*)$", text, re.MULTILINE):
        said.setdefault(column, comment)
    assert said == {column.name: column.description for column in contract.columns}
    assert all(said.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_select_makes_what_the_contract_promises(lake, name):
    lake.build(name)
    kept = lake.shape(name)
    lake._connection.execute("CREATE SCHEMA made")
    window = {"start": at(1), "end": at(2)} if TABLES[f"duckdb/{name}"].partition_column else {}
    lake._connection.execute(f"CREATE TABLE made.{name} AS {FILES[name].text}", window)
    made = lake._connection.execute(f"DESCRIBE FROM made.{name}").fetchall()
    assert {column[:2] for column in made} == {column[:2] for column in kept}


# ml_experiment_results and model_performance_analysis


def run(run_id, **columns):
    base = {"run_id": run_id, "experiment": "mine", "model_name": "dogs", "status": "completed"}
    counts = dict.fromkeys(("parameter_count", "metric_count", "point_count", "previous_runs"), 0)
    started = columns.pop("created_at", at(1, 8))
    ended = columns.pop("completed_at", started + timedelta(hours=1))
    times = {"created_at": started, "completed_at": ended, "known_at": ended}
    return {**base, **counts, **times, **columns}


def event(event_id, time, kind="evaluation", **columns):
    base = {"event_id": event_id, "kind": kind, "timestamp": time, "model_name": "dogs", "experiment": "mine"}
    return {**base, **columns}


def test_results_are_completed_runs_and_events_each_from_when_it_was_known(lake):
    lake.keep(
        "run_features",
        [
            run("r1", accuracy=0.8, created_at=at(1, 23, 30), known_at=at(2, 3)),
            run("r2", status="failed"),
            run("r3", completed_at=None),
            run("r4", created_at=at(2), model_name=None, accuracy=NAN),
        ],
    )
    lake.keep(
        "model_performance_events",
        [
            event("e1", at(1, 12), accuracy=0.7, precision=0.6, recall=0.5, run_id="r1", dataset="pets"),
            event("e1", at(2, 12), kind="inference", inference_time_ms=3.0, batch_size=4),
        ],
    )
    rows = lake.build("ml_experiment_results")
    assert [only(row, "kind", "result_id", "created_at", "known_at") for row in rows] == [
        ("evaluation", "e1", at(1, 12), at(1, 12)),
        ("inference", "e1", at(2, 12), at(2, 12)),
        ("training", "r1", at(1, 23, 30), at(2, 3)),
        ("training", "r3", at(1, 8), None),
        ("training", "r4", at(2), at(2, 1)),
    ]
    assert only(rows[0], "accuracy", "precision", "recall", "dataset", "run_id") == (
        0.7,
        0.6,
        0.5,
        "pets",
        "r1",
    )
    assert only(rows[1], "inference_time_ms", "batch_size", "accuracy") == (3.0, 4, None)
    assert rows[2]["accuracy"] == 0.8 and math.isnan(rows[4]["accuracy"])


def test_the_analysis_counts_runs_as_runs_and_knows_no_deviation_of_one_value(lake):
    lake.keep(
        "run_features",
        [
            run("r1", accuracy=0.5, created_at=at(1, 8)),
            run("r2", accuracy=0.9, created_at=at(1, 8, 59), completed_at=at(1, 11)),
            run("r3", accuracy=INF, created_at=at(1, 8, 30)),
            run("r4", accuracy=0.5, created_at=at(1, 9)),
            run("r5", created_at=at(1, 9), model_name=None),
            run("r6", created_at=at(1, 10), completed_at=None),
            run("r7", accuracy=1e200, created_at=at(1, 12)),
            run("r8", accuracy=0.5, created_at=at(1, 12)),
        ],
    )
    times = [5.0, 1.0, 3.0, INF, 2.0]
    lake.keep(
        "model_performance_events",
        [
            event("a", at(1, 8), accuracy=0.6, run_id="r1"),
            *(
                event(f"b{n}", at(1, 8, n), "inference", inference_time_ms=ms, run_id="r1")
                for n, ms in enumerate(times)
            ),
            event("c", at(1, 8, 1), "inference", experiment=None),
        ],
    )
    rows = lake.build("ml_experiment_results", "model_performance_analysis")
    found = {only(row, "experiment", "kind", "hour"): row for row in rows}
    assert len(found) == len(rows) == 7
    trained = found["mine", "training", at(1, 8)]
    assert only(trained, "run_count", "result_count", "known_at") == (3, 3, at(1, 11))
    assert same(trained["avg_accuracy"], 0.7) and same(trained["std_accuracy"], stdev([0.5, 0.9]))
    vast = found["mine", "training", at(1, 12)]
    assert only(vast, "avg_accuracy", "std_accuracy", "run_count") == (5e199, None, 2)
    single = found["mine", "training", at(1, 9)]
    assert only(single, "avg_accuracy", "std_accuracy", "run_count", "known_at") == (0.5, None, 1, at(1, 10))
    assert only(found["mine", "training", at(1, 10)], "run_count", "known_at") == (1, None)
    asked = found["mine", "inference", at(1, 8)]
    assert only(asked, "run_count", "result_count", "avg_accuracy", "known_at") == (1, 5, None, at(1, 9))
    assert same(asked["p95_inference_time_ms"], float(np.percentile([1.0, 2.0, 3.0, 5.0], 95)))
    unknown = found[None, "inference", at(1, 8)]
    assert only(unknown, "run_count", "result_count", "p95_inference_time_ms") == (0, 1, None)


# learning_curves


def point(run_id, key, step, value, time):
    return {"run_id": run_id, "key": key, "step": step, "value": value, "timestamp": time}


def test_a_curve_has_its_best_so_far_and_its_newest_value_of_each_step(lake):
    lake.keep(
        "raw_runs",
        [run(name, created_at=at(day, 23)) for name, day in (("r1", 1), ("r2", 1), ("r3", 5))],
    )
    losses = [3.0, NAN, 2.0, -INF, 2.5, None]
    lake.keep(
        "raw_metrics",
        [
            *(point("r1", "val_loss", 2 * n, value, at(2, n)) for n, value in enumerate(losses)),
            # A resumed run logs a step again, a day later than all others.
            point("r1", "val_loss", 4, 1.0, at(3, 4)),
            point("r1", "accuracy", 0, 0.5, at(1, 23)),
            point("r1", "accuracy", 10, 0.4, at(2)),
            point("r1", "epoch_seconds", 0, 9.0, at(2)),
            point("r2", "loss", 7, 1.0, at(1, 22)),
            point("r3", "loss", 0, 1.0, at(5)),
            point("nobody", "loss", 0, 1.0, at(1)),
        ],
    )
    rows = lake.build("learning_curves", days=2)
    curves = {}
    for row in rows:
        curves.setdefault((row["run_id"], row["key"]), []).append(row)
    assert set(curves) == {("r1", "val_loss"), ("r1", "accuracy"), ("r1", "epoch_seconds"), ("r2", "loss")}
    loss = curves["r1", "val_loss"]
    assert [only(row, "step", "step_share", "best_value") for row in loss] == [
        (0, 0.0, 3.0),
        (2, 0.2, 3.0),
        (4, 0.4, 1.0),
        (6, 0.6, 1.0),
        (8, 0.8, 1.0),
    ]
    assert [row["smoothed_value"] for row in loss] == [3.0, 3.0, 2.0, 2.0, fmean([3.0, 1.0, 2.5])]
    assert math.isnan(loss[1]["value"]) and loss[3]["value"] == -INF
    assert {only(row, "metric", "higher_is_better", "created_at", "known_at") for row in loss} == {
        ("loss", False, at(1, 23), at(3, 4))
    }
    assert loss[2]["logged_at"] == at(3, 4)
    assert [only(row, "best_value", "higher_is_better") for row in curves["r1", "accuracy"]] == [
        (0.5, True)
    ] * 2
    assert only(curves["r1", "epoch_seconds"][0], "metric", "best_value", "smoothed_value") == (
        None,
        None,
        9.0,
    )
    # A single step is all of its run; a clock that went wrong makes nothing known before the run began.
    assert only(curves["r2", "loss"][0], "step_share", "known_at") == (1.0, at(1, 23))


# model_daily_features


def random_events(seed, count=600):
    """Events of three models on some of 60 days, with holes of more than a week and a month."""
    draw = seeded(seed)
    days = [day for day in range(1, 61) if not (9 <= day <= 17 or 22 <= day <= 51) and draw.random() < 0.8]
    rows = []
    for n in range(count):
        kind = draw.choice(["evaluation", "inference", "inference"])
        scored = kind == "evaluation"
        time = at(draw.choice(days), draw.randrange(24), draw.randrange(60))
        rows.append(
            event(
                f"e{n}",
                time,
                kind,
                model_name=draw.choice(["cats", "dogs", "rare"] if n % 50 == 0 else ["cats", "dogs"]),
                accuracy=draw.random() if scored and draw.random() < 0.9 else None,
                f1_score=draw.random() if scored else None,
                inference_time_ms=draw.choice([draw.lognormvariate(1, 1), 1.0, INF, None]),
            )
        )
    return rows


def daily_of(events, model, day):
    """A model's row of a day, as one would work it out by hand."""
    row = {"model_name": model, "day": day, "known_at": day + timedelta(days=1)}
    for days in (1, 7, 28):
        seen = [
            each
            for each in events
            if each["model_name"] == model
            and day - timedelta(days=days - 1) <= each["timestamp"] < day + timedelta(days=1)
        ]
        scored = [each for each in seen if each["kind"] == "evaluation"]
        asked = [each for each in seen if each["kind"] == "inference"]
        row[f"evaluation_count_{days}d"], row[f"request_count_{days}d"] = len(scored), len(asked)
        for name in ("accuracy", "f1_score"):
            values = [each[name] for each in scored if each[name] is not None]
            row[f"avg_{name}_{days}d"] = fmean(values) if values else None
        times = [ms for each in asked if (ms := each["inference_time_ms"]) is not None and math.isfinite(ms)]
        row[f"avg_inference_time_ms_{days}d"] = fmean(times) if times else None
        row[f"p95_inference_time_ms_{days}d"] = float(np.percentile(times, 95)) if times else None
    return row


@pytest.mark.parametrize("seed", range(3))
def test_daily_features_are_those_of_plain_arithmetic(lake, seed):
    events = random_events(seed)
    # The last second of a day is of that day.
    late = at(6, 23, 59) + timedelta(seconds=59.7)
    events += [
        event("scored", late, accuracy=0.25, f1_score=0.5),
        event("asked", late, "inference", inference_time_ms=7.0),
    ]
    lake.keep("model_performance_events", events)
    rows = lake.build("model_daily_features", days=61)
    active = sorted({(each["model_name"], at(each["timestamp"].timetuple().tm_yday - 59)) for each in events})
    assert [only(row, "model_name", "day") for row in rows] == active
    for row in rows:
        wanted = daily_of(events, row["model_name"], row["day"])
        assert set(wanted) == set(row)
        assert {name for name in row if not same(row[name], wanted[name])} == set()


# prediction_quality


def prediction(n, confidence, label, answer: str | None = "yes", **columns):
    right = None if label is None or answer is None else label == answer
    base = {"id": f"p{n}", "model_name": "dogs", "model_version": "1", "created_at": at(1, 8)}
    return {**base, "confidence": confidence, "label": label, "is_correct": right, **columns}


def quality_of(rows):
    """Counts and measures of some predictions, bin by bin as the paper has it."""
    labelled = [row for row in rows if row["is_correct"] is not None]
    scored = [
        (row["confidence"], float(row["is_correct"])) for row in labelled if row["confidence"] is not None
    ]
    error = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [pair for pair in scored if low < pair[0] <= high or (number == 0 and pair[0] == 0)]
        if inside:
            sure, right = fmean(c for c, _ in inside), fmean(hit for _, hit in inside)
            error += len(inside) / len(scored) * abs(right - sure)
    return {
        "prediction_count": len(rows),
        "labelled_count": len(labelled),
        "scored_count": len(scored),
        "accuracy": fmean(row["is_correct"] for row in labelled) if labelled else None,
        "avg_confidence": fmean(c for c, _ in scored) if scored else None,
        "calibration_error": error if scored else None,
        "brier_score": fmean((c - hit) ** 2 for c, hit in scored) if scored else None,
    }


def test_quality_by_slice_is_that_of_plain_arithmetic_and_late_labels_count(lake):
    draw = seeded(7)
    rows = [
        prediction(
            n,
            draw.choice([draw.random(), draw.random(), 0.0, 1.0, 0.5, 0.7, 0.9, 2 / 15, None]),
            draw.choice(["yes", "no", None]),
            draw.choice(["yes", "yes", None]),
            model_version=draw.choice(["1", "2", None]),
            created_at=at(draw.choice([1, 3]), draw.randrange(24)),
        )
        for n in range(300)
    ]
    bands = {
        None: None,
        "0.0-0.5": (-1, 0.5),
        "0.5-0.7": (0.5, 0.7),
        "0.7-0.9": (0.7, 0.9),
        "0.9-1.0": (0.9, 2),
    }

    def within(row, name, value):
        if name == "confidence":
            c = row["confidence"]
            return c is None if value is None else c is not None and bands[value][0] <= c < bands[value][1]
        return name == "all" or row["model_version"] == value

    for _ in range(2):
        lake.keep("ml_predictions", rows)
        found = lake.build("prediction_quality")
        assert len(found) == 2 * (1 + 3 + 5)
        for row in found:
            of_day = [
                each for each in rows if row["day"] <= each["created_at"] < row["day"] + timedelta(days=1)
            ]
            inside = [each for each in of_day if within(each, row["slice"], row["slice_value"])]
            wanted = quality_of(inside)
            assert {name for name in wanted if not same(row[name], wanted[name])} == set(), row
        for each in rows:  # all truths come in late
            each["is_correct"] = draw.random() < 0.6


def test_quality_of_what_nobody_has_judged_is_null_and_of_one_row_is_its_own(lake):
    lake.keep("ml_predictions", [prediction(1, 0.9, None), prediction(2, 1.0, "yes", created_at=at(2))])
    first, second = [row for row in lake.build("prediction_quality") if row["slice"] == "all"]
    measures = ("accuracy", "avg_confidence", "calibration_error", "brier_score")
    assert only(first, "prediction_count", "labelled_count", *measures) == (1, 0, None, None, None, None)
    assert only(second, "labelled_count", *measures) == (1, 1.0, 1.0, 0.0, 0.0)


# training_set


def day_of(day, **columns):
    counts = {name: 0 for name in TABLES["duckdb/model_daily_features"].names if "_count_" in name}
    return {"model_name": "dogs", "day": at(day), "known_at": at(day + 1), **counts, **columns}


def judged(run_id, time, value: float | None = 0.5, **columns):
    metric = {"primary_metric": "accuracy", "primary_value": value, "primary_higher_is_better": True}
    return run(run_id, created_at=time, **metric, **columns)


def test_features_of_the_training_set_were_known_when_the_run_started(lake):
    lake.keep("model_daily_features", [day_of(day, avg_accuracy_1d=day / 100) for day in (1, 2, 9)])
    lake.keep(
        "run_features",
        [
            judged("on the dot", at(3), previous_completed_at=at(2), previous_accuracy=0.4),
            judged("just before", at(3) - timedelta(microseconds=1)),
            judged("too early", at(1, 23)),
            judged("as old as may be", at(9)),
            judged("too old", at(9) + timedelta(microseconds=1)),
            judged("another model", at(3), model_name="cats"),
            judged("of no model", at(3), model_name=None),
            judged("diverged", at(3), value=NAN),
            judged("exploded", at(3), value=INF),
            judged("unknown", at(3), value=None),
            judged("failed", at(3), status="failed"),
            judged("endless", at(3), completed_at=None),
        ],
    )
    rows = {row["run_id"]: row for row in lake.build("training_set")}
    assert {name: row["avg_accuracy_1d"] for name, row in rows.items()} == {
        "on the dot": 0.02,
        "just before": 0.01,
        "too early": None,
        "as old as may be": 0.02,
        "too old": None,
        "another model": None,
        "of no model": None,
    }
    known = ("run_features__known_at", "model_daily_features__event_time", "model_daily_features__known_at")
    assert only(rows["on the dot"], *known) == (at(2), at(2), at(3))
    assert only(rows["too early"], *known) == (None, None, None)
    assert only(rows["on the dot"], "label", "label_metric", "previous_accuracy") == (0.5, "accuracy", 0.4)


@pytest.mark.parametrize(
    ("starts", "splits"),
    [
        ([at(1, 5), at(1, 6)], "train train"),
        # Two days: the second is the test, and the embargo of a day takes all but what had ended before it.
        ([at(1), at(2)], "embargo test"),
        ([at(1), at(3)], "train test"),
        # Five days with runs, of which the newest one is the test. An hour's run ends on the dot, or an instant late.
        (
            [
                at(1),
                at(2),
                at(3, 22),
                at(3, 23),
                at(3, 23) + timedelta(microseconds=1),
                at(4),
                at(5),
                at(5, 9),
            ],
            "train train train train embargo embargo test test",
        ),
        # Six days, of which two are.
        ([at(2 * day) for day in range(1, 7)], "train train train train test test"),
    ],
)
def test_the_split_is_by_time_with_a_day_between(lake, starts, splits):
    lake.keep("run_features", [judged(f"{n:02}", time) for n, time in enumerate(starts)])
    rows = lake.build("training_set")
    assert [row["split"] for row in rows] == splits.split()


def test_a_long_run_is_not_learnt_from_before_its_label_was_known(lake):
    lake.keep(
        "run_features",
        [
            judged("a", at(1), completed_at=at(4, 12)),
            judged("b", at(5)),
            judged("c", at(1)),
            judged("d", at(1), known_at=at(4, 12)),  # by a point after its end
        ],
    )
    rows = lake.build("training_set")
    assert [row["split"] for row in rows] == ["embargo", "test", "train", "embargo"]
    assert rows[3]["label_known_at"] == at(4, 12)


# All of them together


def raw_rows(seed):
    """Runs, their points, events and predictions of nine days."""
    draw = seeded(seed)
    runs, points = [], []
    for n in range(40):
        started = at(draw.randrange(1, 9), draw.randrange(24), draw.randrange(60))
        ended = started + timedelta(minutes=draw.randrange(1, 2000))
        runs.append(
            {
                **{
                    "run_id": f"r{n}",
                    "experiment": draw.choice(["x", "y"]),
                    "dataset": draw.choice(["d", None]),
                },
                "model_name": draw.choice(["cats", "dogs"]),
                "status": draw.choice(["completed", "completed", "failed"]),
                "metrics": draw.choice([None, '{"accuracy":0.5}', '{"accuracy":"NaN","f1":0.2}']),
                "created_at": started,
                "completed_at": ended,
            }
        )
        for step in range(draw.randrange(12)):
            time = started + (ended - started) * step / 8  # the last ones come after the end
            points.append(point(f"r{n}", "loss", step, draw.choice([draw.random(), NAN, 1.0]), time))
            points.append(point(f"r{n}", "accuracy", step // 2, draw.random(), time))
    predictions = [
        {
            **{"prediction_id": f"p{n}", "model_name": draw.choice(["cats", "dogs"]), "prediction": '"yes"'},
            "confidence": draw.choice([draw.random(), None]),
            "label": draw.choice(["yes", "no", None]),
            "created_at": at(draw.randrange(1, 10), draw.randrange(24)),
        }
        for n in range(200)
    ]
    events = [
        {
            **each,
            "run_id": f"r{draw.randrange(40)}",
            "timestamp": at(draw.randrange(1, 10), draw.randrange(24)),
        }
        for each in random_events(seed, 200)
    ]
    return {
        "raw_runs": runs,
        "raw_metrics": points,
        "raw_performance": events,
        "raw_predictions": predictions,
    }


def everything(lake):
    """All rows of all tables, bit by bit."""
    return {name: repr(lake.rows(name)) for name in SHIPPED}


def test_tables_are_the_same_bits_whole_and_piece_by_piece_in_any_order_of_rows(lake):
    raw = raw_rows(1)
    for table, rows in raw.items():
        lake.keep(table, rows)
    lake.build(*SHIPPED, days=10)
    whole = everything(lake)
    assert all(len(text) > 1000 for text in whole.values())
    for table, rows in raw.items():
        seeded(table).shuffle(rows)
        lake.keep(table, rows)
    for name in SHIPPED:
        lake.keep(name, [])
        for day, days in ((1, 2), (3, 1), (4, 5), (9, 2)):
            lake.build(name, first=day, days=days)
    assert everything(lake) == whole


def test_what_was_known_at_a_time_does_not_change_by_what_comes_after(lake):
    """Rows of views that say that they were known stand there word for word without anything later."""
    raw, now = raw_rows(2), at(6, 12)
    for table, rows in raw.items():
        lake.keep(table, rows)
    lake.build(*SHIPPED, days=10)
    headers = {name: file.header for name, file in FILES.items()}
    views = {name: header for name, header in headers.items() if header and header.is_view}
    assert set(views) <= set(SHIPPED), "each view is looked at"
    assert {"learning_curves", "model_daily_features", "model_performance_analysis"} <= set(views)
    views.pop("training_set")  # whose split is made afterwards; its features are those of the others
    times = {name: header.known_time or header.event_time for name, header in views.items()}
    known = {
        name: [row for row in lake.rows(name) if row[time] is not None and row[time] <= now]
        for name, time in times.items()
    }
    assert all(len(rows) > 2 for rows in known.values())
    runs = [
        row
        if row["completed_at"] <= now
        else {**row, "status": "running", "completed_at": None, "metrics": None}
        for row in raw["raw_runs"]
        if row["created_at"] <= now
    ]
    lake.keep("raw_runs", runs)
    lake.keep("raw_metrics", [row for row in raw["raw_metrics"] if row["timestamp"] <= now])
    lake.keep("raw_performance", [row for row in raw["raw_performance"] if row["timestamp"] <= now])
    lake.build(*SHIPPED, days=10)
    for name, rows in known.items():
        then = {repr(row) for row in lake.rows(name)}
        assert [row for row in rows if repr(row) not in then] == [], name
