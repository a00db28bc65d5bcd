"""Rollups of performance events: which statement makes which, and over which days.

What belongs here: what the assets, the trend and the check of the rollups share.
"""

from ml_assets.lib.days import DayRange
from ml_assets.sql_files import read_sql
from ml_assets.tables.validation import micros

EVENTS = "clickhouse/ml_model_performance"
HOURLY = "clickhouse/performance_hourly"
DAILY = "clickhouse/performance_daily"
SKETCHES = "clickhouse/performance_sketches"
TRENDS = "clickhouse/performance_trends"


def rollup_sql(asset: str) -> str:
    """The SELECT of a table of rollups, with the functions that it names in braces put in."""
    return with_functions(read_sql(f"{asset}.sql"))


def with_functions(text: str) -> str:
    """A statement of ClickHouse's with the shared functions that it names in braces."""
    return text.replace("{sketch_quantiles}", read_sql("clickhouse/parts/sketch_quantiles.sql").rstrip())


def microseconds(days: DayRange) -> dict[str, int]:
    """The days as bound values of a statement, `start_us` and `end_us`: microseconds since 1970."""
    return {"start_us": micros(days.start), "end_us": micros(days.end)}
