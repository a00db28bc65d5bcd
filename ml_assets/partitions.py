"""The daily partitions, in UTC."""

from datetime import date, timedelta

import dagster as dg

from ml_assets.lib.days import DayRange


def daily_partitions(start: date) -> dg.DailyPartitionsDefinition:
    """Days from `start` up to and including today: without `end_offset=1` today would be missing."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC", end_offset=1)


def looking_back(days: int) -> dg.PartitionMapping | None:
    """Each day of a table reads its parent's rows of that day and of some before it, as far as there are any."""
    if not days:
        return None  # day for day, as Dagster has it
    return dg.TimeWindowPartitionMapping(start_offset=-days, allow_nonexistent_upstream_partitions=True)


def lookback_days(mapping: dg.PartitionMapping | None) -> int:
    """How many days before its own a daily table reads of a parent that it is mapped to like this."""
    return -mapping.start_offset if isinstance(mapping, dg.TimeWindowPartitionMapping) else 0


def run_days(context: dg.AssetExecutionContext) -> DayRange:
    """The days that this run writes."""
    window = context.partition_time_window
    return DayRange(window.start.date(), (window.end - timedelta(microseconds=1)).date())
