"""Curves of runs: points out of the lake, thinned out by the engine, smoothed and averaged over groups.

What belongs here: what is asked of which store, and the sentences for what cannot be asked. The arithmetic is in
lib/curves.py.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.experiments import RUNS
from ml_assets.errors import Refusal, missing_table
from ml_assets.lib import curves
from ml_assets.operations import metric_files
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

MOST_POINTS = 100_000
"""Pixels that a curve may be asked for: more than any screen has."""

MOST_RUNS = 10_000

GROUPS = (
    "experiment",
    "model_name",
    "model_version",
    "model_type",
    "dataset",
    "status",
    "name",
    "parent_run_id",
)
"""Columns of a run that curves can be grouped by, besides `params.KEY` and `tags.KEY`."""

_AXIS = re.compile(r"metric:(.+)", re.DOTALL)
_DECAY = "{rest!r} * pow({weight!r}, count(number) OVER after)"
"""Weight of a value in the average at the end of its part of a curve."""

_BROKEN = {"nan": math.nan, "minus_inf": -math.inf, "inf": math.inf}
_SHOWN = ("first", "low", "high", *_BROKEN, "last")
"""Points of a pixel."""

_OBJECTS = {"params.": "parameters", "parameters.": "parameters", "tags.": "tags"}


def run_curves(
    lake: "DuckLakeResource",
    postgres: "PostgresResource",
    run_ids: Sequence[str] | str,
    keys: Sequence[str] | str,
    x: str = "step",
    points: int = 1000,
    smoothing: float = 0.0,
    group_by: str | None = None,
) -> "pa.Table":
    """See `Experiments.curves`."""
    run_ids, keys = (
        list(dict.fromkeys([names] if isinstance(names, str) else names)) for names in (run_ids, keys)
    )
    _refuse_unasked(run_ids, keys, x, points, smoothing)
    group_of = _group_reader(group_by) if group_by is not None else None
    runs = _runs(postgres, run_ids)
    began = {run_id: run["created_at"] for run_id, run in runs.items()}
    pixels = _read(lake, postgres, began, keys, x, points, smoothing)
    traces = traces_of(pixels, smoothing)
    if group_of is None:
        return traces
    return grouped(traces, pixels, {run_id: group_of(run) for run_id, run in runs.items()}, smoothing)


def _refuse_unasked(
    run_ids: Sequence[str], keys: Sequence[str], x: str, points: int, smoothing: float
) -> None:
    if not run_ids or not keys:
        raise Refusal("A curve is of a run and a metric: name at least one run and one key.")
    if len(run_ids) > MOST_RUNS:
        raise Refusal(f"Curves of {len(run_ids):,} runs are asked for: name {MOST_RUNS:,} at most.")
    if x not in ("step", "time") and not _AXIS.fullmatch(x):
        raise Refusal(f"x cannot be {x!r}: give 'step', 'time' or 'metric:KEY', such as 'metric:epoch'.")
    if not 2 <= points <= MOST_POINTS:
        raise Refusal(
            f"points cannot be {points:,}: give the width of a picture, 2 to {MOST_POINTS:,} pixels."
        )
    if not 0 <= smoothing < 1:
        raise Refusal(f"smoothing cannot be {smoothing:g}: give a number from 0, which is none, to below 1.")


def _group_reader(group_by: str) -> Any:
    """What tells a run's group: its text, or None where the run has none."""
    for prefix, column in _OBJECTS.items():
        if group_by.startswith(prefix) and (name := group_by.removeprefix(prefix)):
            return lambda run: _text((run[column] or {}).get(name))
    if group_by not in GROUPS:
        raise Refusal(
            f"Curves cannot be grouped by {group_by!r}: give params.KEY, tags.KEY or one of {', '.join(GROUPS)}."
        )
    return lambda run: _text(run[group_by])


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    from ml_assets.lib.canonical_json import canonical

    return canonical(value)


def _runs(postgres: "PostgresResource", run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    from psycopg.errors import UndefinedTable
    from psycopg.rows import dict_row

    try:
        with postgres.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(
                read_sql("postgres/experiments/of_curves.sql"),
                {"ids": [run_id for run_id in run_ids if "\0" not in run_id]},
            ).fetchall()
    except UndefinedTable as fault:
        raise missing_table(RUNS.asset) from fault
    found = {row["id"]: row for row in rows}
    if unknown := [run_id for run_id in run_ids if run_id not in found]:
        more = f" and {len(unknown) - 1:,} others" if len(unknown) > 1 else ""
        raise Refusal(
            f"There is no run {unknown[0]!r}{more}: 'ml-assets sql postgres' lists them in ml_experiments."
        )
    return {run_id: found[run_id] for run_id in run_ids}


def pixels_of(
    connection: "duckdb.DuckDBPyConnection",
    began: Mapping[str, datetime],
    keys: Sequence[str],
    x: str,
    points: int,
    smoothing: float,
    files: str = metric_files.ALL,
) -> "pa.Table":
    """What `run_curves.sql` makes of the points, with run_id and key for each row.

    Args:
        connection: in which `raw.raw_metrics` is.
        began: by run, when it began.
        keys, x, points, smoothing: see `Experiments.curves`.
        files: condition on the rows, by which files are left out.
    """
    import pyarrow as pa

    pairs = [(run_id, key) for run_id in began for key in keys]
    names = pa.table(
        {
            "curve": pa.array(range(len(pairs)), pa.int32()),
            "run_id": pa.array([run_id for run_id, _ in pairs], pa.string()),
            "key": pa.array([key for _, key in pairs], pa.string()),
        }
    )
    moments = pa.array([began[run_id] for run_id, _ in pairs], pa.timestamp("us", "UTC"))
    connection.register("asked", names.append_column("began", moments))
    axis = _AXIS.fullmatch(x)
    source = read_sql(f"duckdb/operations/curve_points_by_{'metric' if axis else x}.sql").format(files=files)
    decay = _DECAY.format(weight=smoothing, rest=1 - smoothing) if smoothing else "NULL::DOUBLE"
    sql = read_sql("duckdb/operations/run_curves.sql").format(points=source, decay=decay)
    found = connection.execute(
        sql, {"points": points, **({"axis": axis[1]} if axis else {})}
    ).to_arrow_table()
    owners = found["curve"]
    return found.append_column("run_id", names["run_id"].take(owners)).append_column(
        "key", names["key"].take(owners)
    )


def _read(
    lake: "DuckLakeResource",
    postgres: "PostgresResource",
    began: Mapping[str, datetime],
    keys: Sequence[str],
    x: str,
    points: int,
    smoothing: float,
) -> "pa.Table":
    with lake.get_connection() as connection, lake.limit(connection, what="reading curves"):
        if not metric_files.there(connection):
            raise missing_table("duckdb/raw_metrics")
        # One version of the lake for all statements.
        connection.execute("BEGIN")
        files = metric_files.condition(connection, postgres, list(began))
        found = pixels_of(connection, began, keys, x, points, smoothing, files)
        _refuse_unlogged(connection, found, keys, x, files)
    return found


def _refuse_unlogged(
    connection: "duckdb.DuckDBPyConnection", found: "pa.Table", keys: Sequence[str], x: str, files: str
) -> None:
    """Refuse a key that none of the runs has, while they have others: it is misspelt."""
    missing = sorted(set(keys) - set(found["key"].unique().to_pylist()))
    if not missing:
        return
    rows = connection.execute(read_sql("duckdb/operations/curve_keys.sql").format(files=files)).fetchall()
    logged = [key for (key,) in rows]
    axis = _AXIS.fullmatch(x)
    unknown = [key for key in [*([axis[1]] if axis else []), *missing] if key not in logged]
    if unknown and logged:
        shown = ", ".join(repr(key) for key in logged[:10]) + (", ..." if len(logged) > 10 else "")
        raise Refusal(f"None of these runs has logged {unknown[0]!r}: they have {shown}.")


def traces_of(pixels: "pa.Table", smoothing: float) -> "pa.Table":
    """The points of every curve as rows, in order of x."""
    import numpy as np
    import pyarrow as pa

    xs = np.stack([pixels[f"{name}_x"].to_numpy() for name in _SHOWN], axis=1)
    values = np.stack(
        [
            pixels[name].to_numpy() if name not in _BROKEN else np.full(len(xs), _BROKEN[name])
            for name in _SHOWN
        ],
        axis=1,
    )
    # Those that are not there go to the end. The first point stays the first of its x, and the last one the last.
    order = np.argsort(np.where(np.isnan(xs), np.inf, xs), axis=1, kind="stable")
    xs, values = np.take_along_axis(xs, order, axis=1), np.take_along_axis(values, order, axis=1)
    shown = ~np.isnan(xs)
    same = (values[:, 1:] == values[:, :-1]) | (np.isnan(values[:, 1:]) & np.isnan(values[:, :-1]))
    shown[:, 1:] &= ~(same & (xs[:, 1:] == xs[:, :-1]))
    owners = np.repeat(np.arange(len(xs)), shown.sum(axis=1))
    xs, values = xs[shown], values[shown]
    smooth = (
        np.where(np.isfinite(values), _averages(pixels, smoothing)[owners], values) if smoothing else values
    )
    return pa.table(
        {
            "run_id": pixels["run_id"].combine_chunks().take(pa.array(owners)),
            "key": pixels["key"].combine_chunks().take(pa.array(owners)),
            "x": xs,
            "value": values,
            "smoothed": smooth,
        }
    )


def _averages(pixels: "pa.Table", smoothing: float) -> "np.ndarray":
    """The smoothed value at the end of each row's part of its curve."""
    import numpy as np

    decayed, counts = pixels["decayed"].to_numpy(), pixels["finite"].to_numpy()
    return np.concatenate(
        [
            curves.smoothed(decayed[first:last].tolist(), counts[first:last].tolist(), smoothing)
            for _, first, last in _curves(pixels)
        ]
        or [np.zeros(0)]
    )


def _curves(pixels: "pa.Table") -> "Iterator[tuple[tuple[str, str], int, int]]":
    """Run and key of each curve, and the rows [first, last) that its pixels are."""
    names = list(zip(pixels["run_id"].to_pylist(), pixels["key"].to_pylist(), strict=True))
    first = 0
    for place in range(1, len(names) + 1):
        if place == len(names) or names[place] != names[first]:
            yield names[first], first, place
            first = place


def grouped(
    traces: "pa.Table", pixels: "pa.Table", groups: Mapping[str, str | None], smoothing: float
) -> "pa.Table":
    """The traces with their group, and after them the mean curve of each group, which is of no run."""
    import numpy as np
    import pyarrow as pa

    places, xs, means = (pixels[name].to_numpy() for name in ("pixel", "mean_x", "mean"))
    members: dict[tuple[str, str | None], list[slice]] = {}
    for (run_id, key), first, last in _curves(pixels):
        members.setdefault((key, groups[run_id]), []).append(slice(first, last))
    owners = pa.array([groups[run_id] for run_id in traces["run_id"].to_pylist()], pa.string())
    figures = pa.schema([*((name, pa.float64()) for name in ("mean", "low", "high")), ("n", pa.int64())])
    parts = [traces.append_column("group", owners), figures.empty_table()]
    for (key, group), slices in sorted(members.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        common, place = np.unique(np.concatenate([places[each] for each in slices]), return_inverse=True)
        x = np.bincount(place, np.concatenate([xs[each] for each in slices])) / np.bincount(place)
        found = curves.band(
            np.array([curves.aligned(places[each], xs[each], means[each], common, x) for each in slices])
        )
        there = found.n > 0
        mean, count = found.mean[there], int(there.sum())
        parts.append(
            pa.table(
                {
                    "key": pa.array([key] * count, pa.string()),
                    "group": pa.array([group] * count, pa.string()),
                    "x": x[there],
                    "smoothed": curves.smoothed(((1 - smoothing) * mean).tolist(), [1] * count, smoothing),
                    "mean": mean,
                    "low": pa.array(found.low[there], from_pandas=True),
                    "high": pa.array(found.high[there], from_pandas=True),
                    "n": found.n[there],
                }
            )
        )
    return pa.concat_tables(parts, promote_options="default").select(
        ["group", "run_id", "key", "x", "value", "smoothed", "mean", "low", "high", "n"]
    )
