"""The versions of a model side by side, from the sketches.

What belongs here: which hours are added up, and the rows of the answer. The tests are in lib/version_comparison.py.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal
from ml_assets.lib.version_comparison import TEST, Moments, each_with_the_one_before
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.operations.performance_rollups import SKETCHES
from ml_assets.operations.performance_trend import Grid, require_model, sketch_sql

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

_METRICS = {
    "accuracy": ("accuracy_count", "avg_accuracy", "std_accuracy"),
    "f1_score": ("f1_score_count", "avg_f1_score", "std_f1_score"),
    "inference_time_ms": ("latency_count", "avg_inference_time_ms", "std_inference_time_ms"),
}
"""What versions are compared in, and the columns of its count, mean and deviation."""

_WIDE = 2**61
"""Microseconds that no window has: all of it is one bucket."""


def compare_versions(
    client: "Client", model_name: str, versions: Collection[str] | None, cells: Grid
) -> "pa.Table":
    """The rows of `Performance.compare_versions`.

    Args:
        client: of the resource's `client`.
        model_name: the model.
        versions: those that are compared, or one; all of the window if None.
        cells: the hours that are looked at.

    Raises:
        Refusal: no such model, or no such version in the window; names the nearest one.
        StoreUnavailable: the sketches were never made.
    """
    bound = {**cells.bound, "anchor_us": cells.bound["start_us"], "bucket_us": _WIDE}
    with missing_is_told(SKETCHES):
        found = client.query_arrow(
            sketch_sql("version"), {**bound, "model_name": model_name}, use_strings=True
        )
        if not found.num_rows:
            require_model(client, SKETCHES, model_name)
    rows = sorted(found.to_pylist(), key=lambda row: (row["first_hour"], row["slice"]))
    if versions is not None:
        rows = _wanted(rows, [versions] if isinstance(versions, str) else versions, model_name, cells)
    return _table(rows)


def _wanted(
    rows: list[dict[str, Any]], versions: Collection[str], model_name: str, cells: Grid
) -> list[dict[str, Any]]:
    known = [row["slice"] for row in rows]
    for version in versions:
        if version not in known:
            near = get_close_matches(version, known, 1)
            instead = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}."
            raise Refusal(
                f"{model_name} has no events of a version {version!r} from {cells.start:%Y-%m-%d %H:%M} to "
                f"{cells.end:%Y-%m-%d %H:%M} UTC: {instead}"
            )
    return [row for row in rows if row["slice"] in versions]


def _table(rows: list[dict[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    time = pa.timestamp("us", "UTC")
    kinds: dict[str, pa.DataType] = {
        "model_version": pa.string(),
        "first_hour": time,
        "until": time,
        "evaluation_count": pa.int64(),
        "request_count": pa.int64(),
        "avg_accuracy": pa.float64(),
        "accuracy_low": pa.float64(),
        "accuracy_high": pa.float64(),
        "avg_f1_score": pa.float64(),
        "f1_score_low": pa.float64(),
        "f1_score_high": pa.float64(),
        "avg_inference_time_ms": pa.float64(),
        "inference_time_ms_low": pa.float64(),
        "inference_time_ms_high": pa.float64(),
        **{f"p{n}_inference_time_ms": pa.float64() for n in (50, 95, 99)},
        "method": pa.string(),
        "compared_with": pa.string(),
        **{f"{metric}_difference": pa.float64() for metric in _METRICS},
        **{f"{metric}_p": pa.float64() for metric in _METRICS},
        "differs": pa.list_(pa.string()),
        "test": pa.string(),
        "note": pa.string(),
    }
    moments = [_moments(row) for row in rows]
    answers = []
    for number, (row, own, compared) in enumerate(
        zip(rows, moments, each_with_the_one_before(moments), strict=True)
    ):
        answer = {name: row[name] for name in kinds if name in row}
        for metric, each in own.items():
            answer[f"{metric}_low"], answer[f"{metric}_high"] = each.interval or (None, None)
            answer[f"{metric}_difference"] = compared.differences.get(metric)
            answer[f"{metric}_p"] = compared.ps.get(metric)
        before = rows[number - 1]["slice"] if number else None
        answers.append(
            answer
            | {"model_version": row["slice"], "method": "approx", "compared_with": before}
            | {"differs": list(compared.differs), "test": TEST if number else None, "note": compared.note}
        )
    return pa.Table.from_pylist(answers, pa.schema(list(kinds.items())))


def _moments(row: Mapping[str, Any]) -> dict[str, Moments]:
    return {metric: Moments(*(row[column] for column in columns)) for metric, columns in _METRICS.items()}
