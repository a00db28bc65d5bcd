"""Rollups outlive the events that they were made of (`ML_ASSETS_PERFORMANCE_TTL_DAYS`)."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Contract
from ml_assets.errors import Refusal
from ml_assets.lib.days import DayRange
from ml_assets.lib.words import counted
from ml_assets.tables.staging import kept_from
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    from ml_assets.resources.clickhouse import ClickHouseResource


def with_expired(
    clickhouse: "ClickHouseResource", rollup: Contract, events: Contract, made: pa.Table, days: DayRange
) -> pa.Table:
    """A rollup that was made anew, and as they stand the rows of days of which it found no event because they expired.

    Args:
        rollup: of the rollup's table, with a row an hour or a day.
        events: of what it is made of.
        made: the rows of some days, from the events that are there.
        days: these days.
    """
    from ml_assets.stores.clickhouse.rows import read

    column = rollup.partition_column
    if events.kept_days is None or column is None:
        return made
    end = min(days.end, kept_from(events.kept_days))
    if days.start >= end:
        return made
    with clickhouse.client() as client:
        try:
            batches = list(read(client, rollup, made.column_names, Window(days.start, end)))
        except LookupError:  # it is made for the first time
            return made
    known = set(_days(made[column]))
    kept = pa.Table.from_batches(batches, schema=batches[0].schema).cast(made.schema) if batches else made[:0]
    expired = pa.array([day not in known for day in _days(kept[column])], pa.bool_())
    return pa.concat_tables([made, kept.filter(expired)])


def kept_of(events: Contract, days: tuple[date, date] | None) -> tuple[date, date] | None:
    """Those days of which the events are kept, as far as one can tell; the first kept one if it is none of them.

    Args:
        days: first and last; all if None.
    """
    if events.kept_days is None:
        return days
    first, last = days or (date.min, datetime.now(UTC).date())
    kept = max(first, kept_from(events.kept_days).date())
    return kept, max(last, kept)


def refuse_expired(start: datetime, kept_days: int | None, instead: str) -> None:
    """Refuse to answer of events that are not there any more: what is gone is no gap.

    Args:
        start: of the window that is asked for.
        kept_days: how long events are kept; for ever if None.
        instead: what to ask for, before "a window from ... on".

    Raises:
        Refusal: the window begins before the events that are kept.
    """
    if kept_days is None or start >= (kept := kept_from(kept_days)):
        return
    raise Refusal(
        f"Events are kept for {counted(kept_days, 'day')} (ML_ASSETS_PERFORMANCE_TTL_DAYS), and the window begins on "
        f"{start:%Y-%m-%d}: {instead} a window from {kept:%Y-%m-%d} on."
    )


def _days(times: pa.ChunkedArray) -> list[date]:
    """The UTC day of each time."""
    return pc.cast(pc.cast(times, pa.timestamp("us", "UTC")), pa.date32()).to_pylist() if len(times) else []
