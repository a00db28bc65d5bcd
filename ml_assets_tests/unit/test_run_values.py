"""Metrics and parameters of runs as rows: the lake's SQL and what is done in Python say the same."""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from statistics import fmean
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ml_assets.contracts import RUN_STATUSES, may_become
from ml_assets.lib.canonical_json import canonical
from ml_assets.lib.days import DayRange
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.run_values import MetricRow, metric_values, number_of, parameter_rows
from ml_assets.operations import run_tables
from ml_assets.sql_files import read_sql

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NAN, INF = math.nan, math.inf

ODD_KEYS = ["a/b", "two words", "ünï-😀", "\U0001f600" * 500, "it's", 'quo"te', "$.x", "", "a.b"]


class Lake:
    """raw_runs and raw_metrics in an engine without a catalog."""

    def __init__(self) -> None:
        self.engine = duckdb.connect()
        self.engine.execute(
            "SET TimeZone = 'UTC'; CREATE SCHEMA raw; "
            "CREATE TABLE raw.raw_runs (run_id VARCHAR, metrics JSON, parameters JSON, created_at TIMESTAMPTZ, "
            "completed_at TIMESTAMPTZ); "
            "CREATE TABLE raw.raw_metrics (run_id VARCHAR, key VARCHAR, step BIGINT, value DOUBLE, timestamp TIMESTAMPTZ)"
        )

    def run(self, run_id: str, metrics: Any = None, parameters: Any = None, at: datetime = NOON) -> None:
        documents = [None if each is None else canonical(each) for each in (metrics, parameters)]
        self.engine.execute("INSERT INTO raw.raw_runs VALUES (?, ?, ?, ?, NULL)", [run_id, *documents, at])

    def points(self, run_id: str, key: str, *values: float | None) -> None:
        """One a step and minute, from midnight of the next day."""
        start = NOON + timedelta(hours=12)
        for step, value in enumerate(values):
            at = start + timedelta(minutes=step)
            self.engine.execute(
                "INSERT INTO raw.raw_metrics VALUES (?, ?, ?, ?, ?)", [run_id, key, step, value, at]
            )

    def reader(self, sql: str, parameters: Any, bulk: bool = False) -> pa.RecordBatchReader:
        return self.engine.execute(sql, parameters).to_arrow_reader(100_000)

    def metrics(self, **directions: Any) -> dict[str, dict[str, Any]]:
        """Rows of metrics by key."""
        rules = MetricRules(directions)
        rows = run_tables.run_metrics(self, DAY, rules).read_all().to_pylist()  # pyright: ignore[reportArgumentType]
        return {row["key"]: row for row in rows}

    def params(self) -> dict[str, tuple[str, float | None]]:
        """Text and number by key."""
        rows = run_tables.run_params(self, DAY).read_all().to_pylist()  # pyright: ignore[reportArgumentType]
        return {row["key"]: (row["text"], row["number"]) for row in rows}


DAY = DayRange(date(2026, 1, 31), date(2026, 1, 31))


@pytest.fixture
def lake() -> Iterator[Lake]:
    made = Lake()
    yield made
    made.engine.close()


def statistics(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("last", "best", "min", "max", "mean", "count", "last_step"))


def test_a_history_is_summed_up(lake):
    lake.run("r")
    lake.points("r", "accuracy", 0.5, 0.9, 0.7)
    lake.points("r", "val_loss", 3.0, 1.0, 2.0)
    rows = lake.metrics()
    assert statistics(rows["accuracy"]) == (0.7, 0.9, 0.5, 0.9, pytest.approx(0.7), 3, 2)
    assert statistics(rows["val_loss"]) == (2.0, 1.0, 1.0, 3.0, 2.0, 3, 2)
    assert (rows["accuracy"]["created_at"], rows["accuracy"]["origin"]) == (NOON, "graph")
    assert rows["accuracy"]["first_nan_at"] is None


def test_the_best_goes_by_the_settings(lake):
    lake.run("r")
    lake.points("r", "val_loss", 3.0, 1.0, 2.0)
    lake.points("r", "time_s", 5.0, 4.0)
    rows = lake.metrics(val_loss="max", time_s="min")
    assert (rows["val_loss"]["best"], rows["time_s"]["best"]) == (3.0, 4.0)


def test_a_metric_without_a_history_is_one_point(lake):
    lake.run("r", {"loss": 0.25, "whole": 3, "text": "0.5"})
    rows = lake.metrics()
    assert statistics(rows["loss"]) == (0.25, 0.25, 0.25, 0.25, 0.25, 1, None)
    assert (rows["whole"]["last"], rows["text"]["last"]) == (3.0, 0.5)


def test_what_a_run_reports_is_its_last_value(lake):
    """One more point where its history does not end so."""
    lake.run("r", {"same": 3, "other": 9, "unknown": "NaN"})
    for key in ("same", "other", "unknown"):
        lake.points("r", key, 1.0, 2.0, 3.0)
    rows = lake.metrics()
    assert statistics(rows["same"]) == (3.0, 3.0, 1.0, 3.0, 2.0, 3, 2)
    assert statistics(rows["other"]) == (9.0, 9.0, 1.0, 9.0, 3.75, 4, 2)
    assert math.isnan(rows["unknown"]["last"])
    assert statistics(rows["unknown"])[1:] == (3.0, 1.0, 3.0, 2.0, 3, 2)


def test_nan_counts_for_nothing_but_its_first_time(lake):
    lake.run("r", {"reported": "NaN"})
    lake.points("r", "diverged", 1.0, NAN, 5.0, NAN)
    lake.points("r", "never", NAN, NAN)
    rows = lake.metrics()
    midnight = NOON + timedelta(hours=12)
    assert math.isnan(rows["diverged"]["last"])
    assert statistics(rows["diverged"])[1:] == (5.0, 1.0, 5.0, 3.0, 2, 3)
    assert rows["diverged"]["first_nan_at"] == midnight + timedelta(minutes=1)
    assert statistics(rows["never"])[1:] == (None, None, None, None, 0, 1)
    assert rows["never"]["first_nan_at"] == midnight
    assert rows["reported"]["first_nan_at"] == NOON


def test_infinities_stand(lake):
    lake.run("r", {"text": "-Infinity", "added": 1.0})
    lake.points("r", "one", 1.0, INF)
    lake.points("r", "both", INF, -INF, 5.0)
    lake.points("r", "added", INF)
    rows = lake.metrics()
    assert statistics(rows["text"]) == (-INF, -INF, -INF, -INF, -INF, 1, None)
    assert statistics(rows["one"]) == (INF, INF, 1.0, INF, INF, 2, 1)
    assert statistics(rows["both"]) == (5.0, INF, -INF, INF, None, 3, 2)
    assert statistics(rows["added"]) == (1.0, INF, 1.0, INF, INF, 2, 0)


def test_what_is_no_value_has_no_row(lake):
    lake.run("r", {"null": None, "words": "good", "true": True, "list": [1]}, {"null": None})
    lake.run("list", [1, 2], [1, 2])
    lake.run("none")
    lake.run("other day", {"a": 1}, {"a": 1}, at=NOON + timedelta(days=1))
    lake.points("r", "empty", None)
    assert lake.metrics() == {}
    assert lake.params() == {}


def test_keys_of_any_kind(lake):
    """Up to 500 characters of any script; longer ones have no row, and the agreement asks for none."""
    lake.run("r", dict.fromkeys(ODD_KEYS, 1.0), dict.fromkeys(ODD_KEYS, "x"))
    lake.run("long", {"k" * 2_001: 1.0}, {"k" * 2_001: "x"})
    assert set(lake.metrics()) == set(ODD_KEYS)
    assert set(lake.params()) == set(ODD_KEYS)
    for name in ("metrics", "params"):
        sql = read_sql(f"duckdb/agreements/{name}_of_runs.sql").format(rows="(FROM raw.raw_runs)")
        assert {(run, key) for run, key, _ in lake.engine.execute(sql).fetchall()} == {
            ("r", key) for key in ODD_KEYS
        }


def test_a_run_with_ten_thousand_metrics(lake):
    lake.run("r", {f"m{n}": n for n in range(10_000)}, {f"p{n}": n for n in range(10_000)})
    rows = lake.metrics()
    assert len(rows) == len(lake.params()) == 10_000
    assert rows["m9999"]["best"] == 9_999.0


PARAMETERS = {
    "small": 1e-5, "large": 1e22, "tenth": 0.1, "true": True, "text": 'x"y', "list": [1, {"z": 2.5}],
    "object": {"b": 1, "a": 1e-7}, "beyond": 2**63, "zero": -0.0, "far": "1e400", "python": "1_0", "space": " 1",
    "inf": "inf", "infinity": "-Infinity", "nan": "nan", "hex": "0x1F", "exponent": "1e-3", "point": ".5",
    "pointed": "5.", "plus": "+3", "digits": "1" * 400, "wide": "\uff11", "line": "1\n", "empty": "", "null": None,
    "tiny": "1e-400", "denormal": 5e-324, "word": "info", "comma": "1,5",
}  # fmt: skip


def test_parameters_are_text_and_number_alike_in_sql_and_python(lake):
    lake.run("r", parameters=PARAMETERS)
    told = lake.params()
    assert told == {key: row for key, row in parameter_rows(canonical(PARAMETERS)).items() if row}
    numbers = {key: number for key, (_, number) in told.items() if number is not None}
    assert numbers == {
        "small": 1e-5, "large": 1e22, "tenth": 0.1, "beyond": 2.0**63, "zero": 0.0, "far": INF, "inf": INF,
        "infinity": -INF, "exponent": 1e-3, "point": 0.5, "pointed": 5.0, "plus": 3.0, "digits": INF, "tiny": 0.0,
        "denormal": 5e-324,
    }  # fmt: skip
    assert (told["true"], told["list"]) == (("true", None), ('[1,{"z":2.5}]', None))
    assert parameter_rows(canonical({"null": None})) == {"null": None}


@pytest.mark.parametrize(("text", "number"), [("1", 1.0), ("-1.5E3", -1500.0), ("1e", None), ("e5", None)])
def test_the_number_that_a_text_is(text, number):
    assert number_of(text) == number


def test_values_of_metrics():
    found = metric_values(
        canonical({"a": 1, "b": "NaN", "c": "x", "d": None, "e": False, "f": "0.5", "g": [1]})
    )
    assert math.isnan(found.pop("b"))
    assert found == {"a": 1.0, "f": 0.5}


def after(*values: float, rising: bool = True) -> MetricRow:
    row = MetricRow()
    for minute, value in enumerate(values):
        row = row.after(value, NOON + timedelta(minutes=minute), rising)
    return row


def test_points_add_up_to_a_row():
    values = [0.5, 0.9, 0.1, 0.4]
    row = after(*values)
    assert row == MetricRow(0.4, 0.9, 0.1, 0.9, row.mean, 4)
    assert row.mean == pytest.approx(fmean(values))
    assert after(*values, rising=False).best == 0.1


def test_nan_and_infinities_in_a_row():
    row = after(1.0, NAN, 3.0, NAN)
    assert (row.best, row.mean, row.count, row.first_nan_at) == (3.0, 2.0, 2, NOON + timedelta(minutes=1))
    assert math.isnan(row.last)
    assert (after(1.0, INF).mean, after(INF, 1.0).mean) == (INF, INF)
    assert (after(INF, -INF).mean, after(INF, -INF, 1.0).mean) == (None, None)
    assert after(1.7e308, 1.7e308).mean == pytest.approx(1.7e308)


def test_a_status_never_goes_back():
    lawful = {
        (was, now) for was in RUN_STATUSES for now in RUN_STATUSES if may_become(was, now) and was != now
    }
    ends = ("completed", "failed", "cancelled")
    assert lawful == {("created", "running"), *((was, end) for was in ("created", "running") for end in ends)}
