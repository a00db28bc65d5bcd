"""Performance trends in ClickHouse: events by day, exact hourly rollups."""

from datetime import timedelta

import dagster as dg
import pyarrow as pa

from ml_assets import metadata
from ml_assets.contracts import Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.lib.days import DayRange
from ml_assets.operations.performance_pictures import numbers_of_days
from ml_assets.operations.performance_retention import with_expired
from ml_assets.operations.performance_rollups import DAILY, EVENTS, HOURLY, SKETCHES, microseconds
from ml_assets.partitions import run_days
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.clickhouse.ddl import ensure_table


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """Events, rollups, and the hourly schedule that keeps today's rollup fresh."""
    rollup_sql = read_sql("clickhouse/performance_hourly.sql")

    @table_asset(
        settings,
        tables[EVENTS],
        group="performance",
        description=(
            "Every evaluation and inference, in the store that is fastest at slicing millions of them by "
            "time and model. Each day is one ClickHouse partition and is swapped in whole, so a reader "
            "sees yesterday's version or today's, never half of both."
        ),
        fresh=True,
        ins={"events": dg.AssetIn(key("duckdb/model_performance_events"))},
    )
    def ml_model_performance(events: pa.RecordBatchReader) -> pa.RecordBatchReader:
        return events

    @table_asset(
        settings,
        tables[HOURLY],
        group="performance",
        description=(
            "Quality, latency and memory of each model by the hour. Quantiles are exact, not sampled: "
            "ClickHouse's `quantile()` can be off by a quarter at the 99.9th percentile. Evaluations and "
            "served requests are counted apart, and a deviation of a single value is null, not zero."
        ),
        logic=[rollup_sql],
        kinds=["sql"],
        fresh=True,
        deps=[key(EVENTS)],
    )
    def performance_hourly(context: dg.AssetExecutionContext, clickhouse: ClickHouseResource) -> pa.Table:
        days = run_days(context)
        with clickhouse.client(write=True) as client:
            for asset in (EVENTS, DAILY, SKETCHES):  # the schedule may come before the first event
                ensure_table(client, tables[asset])
            _describe_days(context, clickhouse, days)
            made = client.query_arrow(rollup_sql, parameters=microseconds(days), use_strings=True)
        return with_expired(clickhouse, tables[HOURLY], tables[EVENTS], made, days)

    rollups = dg.define_asset_job(
        "hourly_rollups",
        selection=dg.AssetSelection.assets(*map(key, (HOURLY, DAILY, SKETCHES))),
        description="Rebuilds the rollups of the days that are still filling up.",
    )

    @dg.schedule(
        job=rollups,
        cron_schedule="5 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def hourly_rollup_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        """Five past each hour, for the day that the last full hour belongs to."""
        day = (context.scheduled_execution_time - timedelta(hours=1)).date().isoformat()
        return dg.RunRequest(partition_key=day)

    return dg.Definitions(
        assets=[ml_model_performance, performance_hourly],
        asset_checks=[table_checks(tables, EVENTS), table_checks(tables, HOURLY)],
        jobs=[rollups],
        schedules=[hourly_rollup_schedule],
    )


def _describe_days(context: dg.AssetExecutionContext, clickhouse: ClickHouseResource, days: DayRange) -> None:
    """Put each day's numbers at its partition, where Dagster plots them, and the trend at the last one."""
    from ml_assets.lib.plots import performance_trend

    with clickhouse.client() as client:
        daily, accuracies, latencies = numbers_of_days(client, days)
    for day, *numbers in zip(*daily.to_pydict().values(), strict=True):
        known = {name: n for name, n in zip(daily.column_names[1:], numbers, strict=True) if n is not None}
        context.add_asset_metadata(known, partition_key=day.isoformat())
    if accuracies.num_rows or latencies.num_rows:
        picture = metadata.plot("Accuracy and latency by day", performance_trend(accuracies, latencies))
        context.add_asset_metadata({"trend": picture}, partition_key=days.last.isoformat())
