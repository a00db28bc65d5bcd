"""Drift: how far what models were asked and answered on a day lies from their baseline.

What belongs here: which windows are compared, and the order in which the engine counts, measures and is judged. What is
measured is in sql/duckdb/drift, what it means in lib/drift.py. All models are measured together: a model costs rows, and
no statement.

The bins of the stability index and of the Jensen-Shannon distance are pinned with the baseline: their edges follow from
its values alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ml_assets.contracts.performance import DRIFT
from ml_assets.errors import Refusal, missing_table
from ml_assets.lib.days import DayRange
from ml_assets.lib.drift import (
    ZERO_SHARE,
    Measured,
    Threshold,
    Verdict,
    chi_squared_ps,
    evidently_chi_squared_p,
    evidently_jensen_shannon,
    evidently_ks_p,
    evidently_psi,
    evidently_psi_of_categories,
    evidently_wasserstein,
    jensen_shannon,
    ks_ps,
    lacking_ps,
    verdicts,
)
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.operations.performance_baselines import Baseline, baselines
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

BINS = 10
"""Bins that hold as much of a reference each."""

CATEGORIES = 100
"""Categories of a reference that are told apart; the rest of them is one."""

SHOWN = 10
"""Models that a sentence names, at most."""

Mode = Literal["exact", "evidently"]

_MEASURING = ("series", "counted", "numbers", "categories")
STATEMENTS = tuple(
    read_sql(f"duckdb/drift/{name}.sql") for name in ("values", "predictions", *_MEASURING, "measured")
)
"""What decides about the rows of `clickhouse/feature_drift`, beside lib/drift.py."""


@dataclass(frozen=True)
class _Window:
    model_name: str
    days: DayRange


def first_days(connection: "duckdb.DuckDBPyConnection") -> dict[str, date]:
    """The first day of each model that there are predictions of.

    Raises:
        StoreUnavailable: no prediction was ever taken in.
    """
    import duckdb

    try:
        found = connection.execute(read_sql("duckdb/drift/first_days.sql"))
    except duckdb.CatalogException as fault:
        raise missing_table("duckdb/ml_predictions") from fault
    return dict(found.fetchall())


def references(
    connection: "duckdb.DuckDBPyConnection", postgres: "PostgresResource"
) -> Mapping[str, Baseline]:
    """The baseline of each model that there are predictions of.

    Raises:
        StoreUnavailable: no prediction was ever taken in, or PostgreSQL does not answer.
    """
    return baselines(postgres, first_days(connection))


def measure_days(
    connection: "duckdb.DuckDBPyConnection",
    of_models: Mapping[str, Baseline],
    days: Iterable[date],
    threshold: Threshold | None = None,
) -> Iterator["pa.Table"]:
    """The rows of `clickhouse/feature_drift` of some days, a table a day that has predictions.

    Args:
        connection: to a database with `features.ml_predictions`; temporary tables are made in it.
        of_models: the baseline of each model. On a day of its own baseline a model is not judged.
        days: UTC.
        threshold: what counts as drift.
    """
    _count(connection, "reference", [_Window(each.model_name, each.days) for each in of_models.values()])
    for day in days:
        window = DayRange(day, day)
        _count(connection, "current", [_Window(name, window) for name in of_models])
        inside = [each.model_name for each in of_models.values() if each.days.first <= day <= each.days.last]
        if measured := _measure(connection, inside):
            yield _judged(measured, day, of_models, _content(connection, inside), threshold)


def measure_window(
    connection: "duckdb.DuckDBPyConnection",
    of_models: Mapping[str, Baseline],
    days: DayRange,
    threshold: Threshold | None = None,
    mode: Mode = "exact",
) -> "pa.Table | None":
    """What `measure_days` tells of one day, of several days taken together; None if there are no predictions."""
    _count(connection, "reference", [_Window(each.model_name, each.days) for each in of_models.values()])
    _count(connection, "current", [_Window(name, days) for name in of_models])
    measured = _measure(connection, [])
    if mode == "evidently":
        _as_evidently(connection, measured)
    return _judged(measured, days.first, of_models, _content(connection, []), threshold) if measured else None


def outdated_days(
    connection: "duckdb.DuckDBPyConnection",
    of_models: Mapping[str, Baseline],
    compared: Iterable[Sequence[Any]],
) -> set[date]:
    """The days on which a model was held against another baseline than it has now, or against other content of it.

    Args:
        connection, of_models: as of `measure_days`, which was called before.
        compared: day, model, and first day, last day and content of the baseline that it was held against.
    """
    contents = _content(connection, [])
    found = set()
    for day, model_name, first, last, content in compared:
        if (baseline := of_models.get(model_name)) is None:
            continue  # its predictions were taken back, and its days are due by themselves
        now = "" if baseline.days.first <= day <= baseline.days.last else contents.get(model_name, "")
        if (first, last, content) != (baseline.days.first, baseline.days.last, now):
            found.add(day)
    return found


def stored(
    clickhouse: "ClickHouseResource",
    model_name: str | None = None,
    day: date | None = None,
    slice: str | None = None,
) -> "pa.Table":
    """The rows of `clickhouse/feature_drift` of a day, or of the last one of each model.

    Raises:
        StoreUnavailable: the table was never made, or ClickHouse does not answer.
    """
    parameters = {"model_name": model_name or "", "day": day.isoformat() if day else "", "slice": slice or ""}
    with clickhouse.client() as client, missing_is_told(DRIFT.asset):
        return client.query_arrow(read_sql("clickhouse/feature_drift.sql"), parameters, use_strings=True)


def drift(
    lake: "DuckLakeResource",
    postgres: "PostgresResource",
    clickhouse: "ClickHouseResource",
    model_name: str | None,
    window: DayRange | None,
    reference: DayRange | None,
    mode: Mode,
    slice: str | None,
    day: date | None,
) -> "pa.Table":
    """See `Performance.drift`."""
    import pyarrow as pa

    if mode not in ("exact", "evidently"):
        raise Refusal(f"There is no mode {mode!r}: choose 'exact' or 'evidently'.")
    if slice not in (None, "all", "model_version"):
        raise Refusal(f"There is no slice {slice!r}: choose 'all' or 'model_version'.")
    if day and window:
        raise Refusal("Give either a day or a window of days.")
    if window is None and reference is None and mode == "exact":
        found = stored(clickhouse, model_name, day, slice)
        if found.num_rows:
            return found
    with lake.get_connection() as connection, lake.limit(connection, write=True, what="measuring drift"):
        of_models = references(connection, postgres)
        if model_name is not None and model_name not in of_models:
            raise _unknown(model_name, of_models)
        if model_name is not None:
            of_models = {model_name: of_models[model_name]}
        if reference is not None:
            of_models = {name: Baseline(name, reference) for name in of_models}
        days = window or (DayRange(day, day) if day else _last_day(connection, list(of_models)))
        found = measure_window(connection, of_models, days, mode=mode)
    if found is None:
        whose = f"of {model_name!r}" if model_name else "of any model"
        raise Refusal(
            f"There are no predictions {whose} from {days.first} to {days.last}: choose days that have some."
        )
    return (
        found
        if slice is None
        else found.filter(pa.array(each == slice for each in found["slice"].to_pylist()))
    )


def _unknown(model_name: str, known: Iterable[str]) -> Refusal:
    names = sorted(known)
    near = get_close_matches(model_name, names, 1)
    told = f"do you mean {near[0]!r}?" if near else f"choose from {', '.join(names[:SHOWN]) or 'none'}."
    return Refusal(f"There are no predictions of the model {model_name!r}: {told}")


def _last_day(connection: "duckdb.DuckDBPyConnection", names: list[str]) -> DayRange:
    row = connection.execute(read_sql("duckdb/drift/last_day.sql"), {"models": names}).fetchone()
    if row is None or row[0] is None:
        raise Refusal("There are no predictions yet: land some, and run 'ml-assets refresh'.")
    return DayRange(row[0], row[0])


def _count(connection: "duckdb.DuckDBPyConnection", side: str, windows: Iterable[_Window]) -> None:
    """Count the values and predictions of a window of each model into temporary tables."""
    import pyarrow as pa

    rows = [
        {"model_name": each.model_name, "window_start": each.days.start, "window_end": each.days.end}
        for each in windows
    ]
    stamp = pa.timestamp("us", "UTC")
    schema = pa.schema([("model_name", pa.string()), ("window_start", stamp), ("window_end", stamp)])
    # The range of all of them lets the engine leave out the files of other days.
    parameters = {
        "start": min((row["window_start"] for row in rows), default=datetime.min),
        "end": max((row["window_end"] for row in rows), default=datetime.min),
    }
    connection.register("windows", pa.Table.from_pylist(rows, schema))
    try:
        for name in ("values", "predictions"):
            statement = read_sql(f"duckdb/drift/{name}.sql")
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {side}_{name} AS {statement}", parameters)
    finally:
        connection.unregister("windows")


def _measure(connection: "duckdb.DuckDBPyConnection", inside: list[str]) -> list[dict[str, Any]]:
    """The distances of all that was counted; of the models inside of their reference, without one."""
    parameters = {
        "series": {"inside": inside},
        "numbers": {"bins": BINS, "zero_share": ZERO_SHARE},
        "categories": {"most": CATEGORIES, "zero_share": ZERO_SHARE},
    }
    for name in _MEASURING:
        statement = read_sql(f"duckdb/drift/{name}.sql")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {statement}", parameters.get(name))
    return connection.execute(read_sql("duckdb/drift/measured.sql")).to_arrow_table().to_pylist()


def _content(connection: "duckdb.DuckDBPyConnection", inside: Iterable[str]) -> dict[str, str]:
    """What tells whether the reference of each model is still the same; nothing of those that lie inside of it."""
    rows = connection.execute(
        "SELECT model_name, sum(content)::VARCHAR FROM reference_predictions GROUP BY model_name"
    ).fetchall()
    return dict(rows) | dict.fromkeys(inside, "")


def _judged(
    rows: list[dict[str, Any]],
    day: date,
    of_models: Mapping[str, Baseline],
    contents: Mapping[str, str],
    threshold: Threshold | None,
) -> "pa.Table":
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema

    measured = with_p(rows, {each.model_name: _unjudged(each, day) for each in of_models.values()})
    found = verdicts(measured, threshold)
    told = [
        _row(row, verdict, of_models[row["model_name"]], day)
        | {"reference_content": contents.get(row["model_name"], "")}
        for row, verdict in zip(rows, found, strict=True)
    ]
    return pa.Table.from_pylist(told, arrow_schema(DRIFT))


def _unjudged(baseline: Baseline, day: date) -> str:
    """Why a model's features without reference have none."""
    first, last = baseline.days.first, baseline.days.last
    if first <= day <= last:
        return f"The day lies in its baseline, {first} to {last}."
    return f"The baseline, {first} to {last}, has no predictions: pin one that has."


def _as_evidently(connection: "duckdb.DuckDBPyConnection", rows: list[dict[str, Any]]) -> None:
    """Put Evidently's figures in the place of ours, one series after the other."""
    for row in rows:
        found = connection.execute(
            read_sql("duckdb/drift/values_of_series.sql"),
            {name: row[name] for name in ("model_name", "subject", "feature", "slice", "slice_value")},
        ).fetchnumpy()
        r, c = (np.asarray(found[name]) for name in ("reference_count", "current_count"))
        if row["psi"] is None or not r.sum() or not c.sum():
            continue
        if row["kind"] == "number":
            values = found["value"]
            row["psi"] = evidently_psi(values, r, c)
            row["jensen_shannon"] = evidently_jensen_shannon(values, r, c)
            # In the order of the values, with n in the denominator.
            deviation = float(np.sqrt(np.average((values - np.average(values, weights=r)) ** 2, weights=r)))
            row["wasserstein"] = evidently_wasserstein(row["wasserstein"], deviation)
            row["p"] = evidently_ks_p(values, r, c)
        else:
            row["psi"], row["jensen_shannon"] = evidently_psi_of_categories(r, c), jensen_shannon(r, c)
            row["p"] = evidently_chi_squared_p(r, c)


def with_p(rows: list[dict[str, Any]], unjudged: Mapping[str, str]) -> list[Measured]:
    """Measurements with their p values.

    Args:
        rows: of sql/duckdb/drift/measured.sql.
        unjudged: by model, what is said where the reference has no predictions.
    """
    counts = [
        ([row["reference_count"], row["reference_lacking"]], [row["current_count"], row["current_lacking"]])
        for row in rows
    ]
    lacking = lacking_ps([r for r, _ in counts], [c for _, c in counts])
    numbers = [row for row in rows if row["ks"] is not None]
    of_numbers = iter(
        ks_ps(*([row[name] for row in numbers] for name in ("ks", "reference_count", "current_count")))
    )
    categories = [row for row in rows if row["chi_squared"] is not None]
    of_categories = iter(
        chi_squared_ps(*([row[name] for row in categories] for name in ("chi_squared", "distinct_values")))
    )
    measured = []
    for row, lacking_p in zip(rows, lacking, strict=True):
        if row["ks"] is not None:
            p = float(next(of_numbers))
        else:
            p = float(next(of_categories)) if row["chi_squared"] is not None else 1.0
        p = row.get("p", p)  # Evidently's own
        row["p"] = p if row["psi"] is not None else None
        if row["kind"] == "list":
            reason = "A list is not compared: give its elements names, or leave them."
        elif not row["reference_count"] + row["reference_lacking"]:
            reason = unjudged[row["model_name"]]
        else:
            reason = ""
        measured.append(
            Measured(
                row["feature"],
                row["slice"],
                row["kind"],
                row["reference_count"],
                row["current_count"],
                p,
                row["psi"] or 0.0,
                row["jensen_shannon"] or 0.0,
                row["ks"],
                row["wasserstein"],
                row["chi_squared"],
                row["reference_lacking"],
                row["current_lacking"],
                float(lacking_p),
                reason,
            )
        )
    return measured


def _row(row: dict[str, Any], verdict: Verdict, baseline: Baseline, day: date) -> dict[str, Any]:
    return {
        **{name: row[name] for name in row if name in DRIFT.by_name},
        "day": DayRange(day, day).start,
        "corrected_p": verdict.corrected_p if verdict.state in ("drift", "none") else None,
        "threshold": verdict.threshold,
        "state": verdict.state,
        "reason": verdict.reason,
        "reference_first": baseline.days.first,
        "reference_last": baseline.days.last,
        "reference_pinned": baseline.pinned_at is not None,
    }
