"""The slowest requests of a window, asked of the events themselves."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ml_assets.errors import Refusal
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.operations.performance_retention import refuse_expired
from ml_assets.operations.performance_rollups import EVENTS
from ml_assets.operations.performance_trend import bounds, length_of, require_model
from ml_assets.sql_files import read_sql
from ml_assets.tables.validation import micros

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.clickhouse import ClickHouseResource

_MOST = 100_000


def slow_requests(
    clickhouse: "ClickHouseResource",
    model_name: str | None,
    window: timedelta | str,
    limit: int,
    until: datetime | None = None,
    kept_days: int | None = None,
) -> "pa.Table":
    """The slowest requests; see `Performance.slow_requests`.

    Args:
        kept_days: how long events are kept; for ever if None.
    """
    start, end = bounds(length_of("window", window), until)
    if not 0 < limit <= _MOST:
        raise Refusal(f"{limit:,} requests cannot be listed: give a limit from 1 to {_MOST:,}.")
    refuse_expired(start, kept_days, "ask for")
    asked = {
        "model_name": model_name or "",
        "start_us": micros(start),
        "end_us": micros(end),
        "limit": limit,
    }
    with clickhouse.client() as client, missing_is_told(EVENTS):
        found = client.query_arrow(read_sql("clickhouse/slow_requests.sql"), asked, use_strings=True)
        if model_name and not found.num_rows:
            require_model(client, EVENTS, model_name)
    return found
