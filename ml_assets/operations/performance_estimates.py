"""Accuracy by the day where labels are missing: what confidence says of it, until labels come.

What belongs here: which answers are the reference, which hold it to account, and when labels count alone. How an
estimate is made is in lib/estimated_accuracy.py.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ml_assets.errors import Refusal, missing_table
from ml_assets.lib.days import DayRange
from ml_assets.lib.estimated_accuracy import Answers, Calibration, calibrate, estimate
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.operations.performance_baselines import Baseline, baselines
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import duckdb

    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

ASSET = "clickhouse/estimated_accuracy"

LABELLED = 0.9
"""Share of a day's answers from which their labels say what the accuracy was, and no estimate is needed."""

CHECKED_DAYS = 7
"""Days before a day whose labels hold its estimate to account, besides its own."""

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def rebuilt(
    lake: "DuckLakeResource", postgres: "PostgresResource", days: DayRange, schema: pa.Schema
) -> pa.Table:
    """The rows of `clickhouse/estimated_accuracy` of some days.

    Args:
        schema: of the table.

    Raises:
        StoreUnavailable: a store does not answer, or duckdb/ml_predictions was never made.
    """
    import duckdb

    with lake.get_connection() as connection, lake.limit(connection, write=True, what="the estimates"):
        try:
            first = first_days(connection, days)
            found = list(estimates(connection, days, baselines(postgres, first)))
        except duckdb.CatalogException as fault:
            raise missing_table("duckdb/ml_predictions") from fault
    return pa.Table.from_pylist(found, schema)


def first_days(connection: "duckdb.DuckDBPyConnection", days: DayRange) -> dict[str, date]:
    """The first day of each model that has answered on some days."""
    window = {"start": days.start, "end": days.end}
    return dict(connection.execute(read_sql("duckdb/performance/first_days.sql"), window).fetchall())


def estimates(
    connection: "duckdb.DuckDBPyConnection", days: DayRange, compared_with: Mapping[str, Baseline]
) -> Iterator[dict[str, Any]]:
    """A row a day, model and slice.

    Args:
        connection: to what has `features.ml_predictions`.
        days: those that are wanted.
        compared_with: the baseline of each model.
    """
    references = _references(connection, compared_with)
    window = {"start": days.start - timedelta(days=CHECKED_DAYS), "end": days.end}
    answers = connection.execute(read_sql("duckdb/performance/answers.sql"), window).to_arrow_table()
    for (model, slice_, value), of_slice in groupby(_rows(answers, 4), key=lambda row: row[0][:3]):
        by_day = {key[3].date(): counted for key, counted in of_slice}
        baseline = compared_with.get(model)
        for day, counted in by_day.items():
            if baseline is None or not days.first <= day <= days.last:
                continue
            since = [
                by_day[before]
                for n in range(CHECKED_DAYS + 1)
                if (before := day - timedelta(days=n)) in by_day
                and not baseline.days.first <= before <= baseline.days.last
            ]
            yield {
                "day": datetime.combine(day, time(), UTC),
                "model_name": model,
                "slice": slice_,
                "slice_value": value,
                **_judged(counted, since, references.get(model)),
                "reference_first": baseline.days.first,
                "reference_last": baseline.days.last,
                "reference_pinned": baseline.pinned_at is not None,
            }


def _judged(counted: np.ndarray, since: list[np.ndarray], calibration: Calibration | None) -> dict[str, Any]:
    """What is said of one day.

    Args:
        counted: confidence, answers, those with a known truth, and right ones: an array each.
        since: the same of the days whose labels count, the day itself first unless it is of the reference.
    """
    _, predicted, labelled, correct = counted.sum(axis=1)
    measured = correct / labelled if labelled else None
    checks = [_known(np.concatenate(since, axis=1))] if since else []
    if since and since[0] is counted:
        checks.insert(0, _known(counted))
    found = estimate(calibration, Answers(counted[0], counts=counted[1]), *checks)
    enough = bool(labelled) and labelled >= LABELLED * predicted
    return {
        "prediction_count": int(predicted),
        "labelled_count": int(labelled),
        "estimated_accuracy": found.accuracy,
        "low": found.low,
        "high": found.high,
        "applicable": found.state == "estimated",
        "reason": found.reason,
        "measured_accuracy": measured,
        "accuracy": measured if enough else found.accuracy,
        "source": "measured" if enough else "estimated" if found.accuracy is not None else None,
    }


def _known(counted: np.ndarray) -> Answers:
    confidence, _, labelled, correct = counted[:, counted[2] > 0]
    return Answers(confidence, correct / labelled, labelled)


def _references(
    connection: "duckdb.DuckDBPyConnection", compared_with: Mapping[str, Baseline]
) -> dict[str, Calibration | None]:
    """What each model's reference days say of its confidence."""
    given = {
        "model_name": pa.array([each.model_name for each in compared_with.values()], pa.string()),
        "start_time": pa.array(
            [each.days.start for each in compared_with.values()], pa.timestamp("us", "UTC")
        ),
        "end_time": pa.array([each.days.end for each in compared_with.values()], pa.timestamp("us", "UTC")),
    }
    connection.register("reference", pa.table(given))
    days = [each.days for each in compared_with.values()]
    window = {
        "start": min((each.start for each in days), default=_NEVER),
        "end": max((each.end for each in days), default=_NEVER),
    }
    statement = read_sql("duckdb/performance/reference_answers.sql")
    answers = connection.execute(statement, window).to_arrow_table()
    connection.unregister("reference")
    return {
        model: calibrate(Answers(confidence, correct / labelled, labelled))
        for (model,), (confidence, labelled, correct) in _rows(answers, 1)
    }


def _rows(table: pa.Table, keys: int) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """Of each row the first columns, which are keys, and the others, which are lists of one length, as an array."""
    for batch in table.to_batches():
        named = zip(*(column.to_pylist() for column in batch.columns[:keys]), strict=True)
        lists = batch.columns[keys:]
        for n, key in enumerate(named):
            yield key, np.stack([column[n].values.to_numpy(zero_copy_only=False) for column in lists])


def estimated_accuracy(clickhouse: "ClickHouseResource", model_name: str, days: DayRange) -> pa.Table:
    """The rows of a model on some days; see `Performance.estimated_accuracy`."""
    values = {"model_name": model_name, "first": days.first.isoformat(), "last": days.last.isoformat()}
    with clickhouse.client() as client, missing_is_told(ASSET):
        found = client.query_arrow(
            read_sql("clickhouse/performance/estimated_accuracy.sql"), values, use_strings=True
        )
        if found.num_rows:
            return found
        known = client.query(read_sql("clickhouse/performance/estimated_models.sql"), values).result_rows
    here = next((row for row in known if row[0] == model_name), None)
    if here:
        raise Refusal(
            f"The model {model_name!r} has no prediction from {days.first} to {days.last}: it has some from "
            f"{here[1]:%Y-%m-%d} to {here[2]:%Y-%m-%d}."
        )
    names = ", ".join(row[0] for row in known) or "none has predicted anything"
    raise Refusal(f"No prediction of a model {model_name!r} is known; models: {names}.")
