"""The daily partitions, in UTC."""

from datetime import date, timedelta

import dagster as dg

from ml_assets.lib.days import DayRange


def daily_partitions(start: date) -> dg.DailyPartitionsDefinition:
    """Days from `start` up to and including today: without `end_offset=1` today would be missing."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC", end_offset=1)


def run_days(context: dg.AssetExecutionContext) -> DayRange:
    """The days that this run writes."""
    window = context.partition_time_window
    return DayRange(window.start.date(), (window.end - timedelta(microseconds=1)).date())
