"""What the pages of assets show of models: those that are in trouble, and those with the most to show."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ml_assets.lib.days import DayRange
from ml_assets.operations.performance_rollups import microseconds
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from matplotlib.figure import Figure
    from pyarrow import Table

MOST_MODELS = 6
"""Each picture is 20 to 30 KB in Dagster's history, every time that the asset is built."""

DAYS = 30
"""Days in a picture, up to the last one of any model."""

LINES = 8
"""Datasets and models in the picture of all, at most."""


def numbers_of_days(client: "Client", days: DayRange) -> "tuple[Table, Table, Table]":
    """What is shown of days that are being built: their own numbers, and accuracy and latency of the month up to them.

    Args:
        client: `ml_model_performance`, `performance_daily` and `performance_sketches` are there.
        days: those that are built. Only their events are looked through; what was before is of the rollups.

    Returns:
        Rows (day, mean_accuracy, p50_inference_time_ms, p95_inference_time_ms), (dataset, day, accuracy) and
        (model_name, day, p50_inference_time_ms, p95_inference_time_ms).
    """
    shown = DayRange(days.last - timedelta(days=DAYS - 1), days.last)
    built_us = max(microseconds(days)["start_us"], microseconds(shown)["start_us"])
    limits = {**microseconds(shown), "built_us": built_us, "lines": LINES}
    numbers = client.query_arrow(read_sql("clickhouse/numbers_by_day.sql"), microseconds(days))
    accuracies, latencies = (
        client.query_arrow(read_sql(f"clickhouse/{name}.sql"), limits, use_strings=True)
        for name in ("accuracy_by_dataset", "latency_by_model")
    )
    return numbers, accuracies, latencies


def model_pictures(client: "Client", episodes: Sequence[Mapping[str, Any]]) -> "dict[str, Figure]":
    """The trend of some models, by name: those with open episodes first, then those with the most events.

    Args:
        episodes: rows of clickhouse/performance_regressions.
    """
    from ml_assets.lib.plots import model_trend

    ((last,),) = client.query(read_sql("clickhouse/report/last_day.sql")).result_rows
    if last is None:
        return {}
    days = DayRange(last - timedelta(days=DAYS - 1), last)
    limits = {**microseconds(days), "most": MOST_MODELS}
    busiest = [
        name for (name,) in client.query(read_sql("clickhouse/report/busiest.sql"), limits).result_rows
    ]
    # The newest trouble first, each model once.
    still = [row for row in episodes if row["closed_at"] is None]
    ongoing = [row["model_name"] for row in sorted(still, key=lambda row: row["opened_at"], reverse=True)]
    drawn = {}
    for name in list(dict.fromkeys([*ongoing, *busiest]))[:MOST_MODELS]:
        asked = {**microseconds(days), "model_name": name}
        rows = client.query_arrow(read_sql("clickhouse/report/days.sql"), asked, use_strings=True).to_pylist()
        drawn[name] = model_trend(name, rows, [row for row in episodes if row["model_name"] == name])
    return drawn
