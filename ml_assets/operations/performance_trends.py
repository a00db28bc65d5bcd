"""What `performance_trends` holds: each model's week beside the week before and beside its baseline.

What belongs here: what the statement is bound to. The trend of one model over a window is in performance_trend.py.
"""

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from ml_assets.lib.days import DayRange
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.operations.performance_baselines import FIRST_DAYS, Baseline, first_week
from ml_assets.operations.performance_rollups import DAILY, TRENDS, rollup_sql

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

LOOKBACK_DAYS = 13
"""Days before its own that a row reads: its week and the week before."""


def trends(client: "Client", pins: Mapping[str, Baseline], days: DayRange) -> "pa.Table":
    """The rows of `performance_trends` of some days.

    Args:
        client: `performance_daily` and `performance_sketches` are there.
        pins: the pinned baselines, by model.
        days: the days to be built.
    """
    compared = {name: first_week(day) for name, day in first_days(client).items()}
    compared |= {name: pin.days for name, pin in pins.items() if name in compared}
    baseline_days = {day for each in compared.values() for day in each.days()}
    parameters = {
        "first": days.first,
        "last": days.last,
        # Only what somebody has pinned is bound, however many models there are; and days, so that of a thousand
        # those are opened that are compared with.
        "models": list(pins),
        "firsts": [pin.days.first for pin in pins.values()],
        "lasts": [pin.days.last for pin in pins.values()],
        "first_days": FIRST_DAYS,
        "baseline_days": sorted(int(f"{day:%Y%m%d}") for day in baseline_days),
    }
    return client.query_arrow(rollup_sql(TRENDS), parameters, use_strings=True)


def first_days(client: "Client") -> dict[str, date]:
    """The first day of each model that there is any event of.

    Raises:
        StoreUnavailable: no event was rolled up yet.
    """
    statement = "SELECT model_name, min(day) FROM performance_daily GROUP BY model_name"
    with missing_is_told(DAILY):
        return {str(name): day for name, day in client.query(statement).result_rows}
