"""Which days of a table a changed day of its parents reaches, where its rows look back on days before their own.

What belongs here: the arithmetic, which Dagster's partition mappings, `ml-assets refresh` and the tests share. A table
with a lookback of 27 days reads the rows of 28 days for each of its own; a row that comes late for one day therefore
changes that day and the 27 after it. Along the graph the windows add up.
"""

from collections.abc import Hashable, Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import TypeVar

from ml_assets.lib.days import DayRange

Table = TypeVar("Table", bound=Hashable)


def bounds(days: DayRange, lookback_days: int) -> dict[str, datetime]:
    """What a SELECT by day may bind: it gives the rows of [$start, $end), made of those of [$lookback_start, $end)."""
    return {
        "start": days.start,
        "end": days.end,
        "lookback_start": days.start - timedelta(days=lookback_days),
    }


def reached(days: Iterable[date], lookback_days: int, last: date) -> set[date]:
    """The days of a table that read rows of these days of a parent.

    Args:
        days: days of the parent.
        lookback_days: how many days before its own a row of the table reads; 0 or more.
        last: the last day that the table has, today.
    """
    ahead = [timedelta(days=n) for n in range(lookback_days + 1)]
    return {day + step for day in days for step in ahead if day + step <= last}


def reaches(lookbacks: Mapping[Table, Mapping[Table, int]]) -> dict[Table, int]:
    """How many days back the rows of each table reach, over all tables between it and what came in.

    Args:
        lookbacks: for each table, parents before their children, the lookback in days by parent.
    """
    found: dict[Table, int] = {}
    for table, parents in lookbacks.items():
        found[table] = max((found.get(parent, 0) + days for parent, days in parents.items()), default=0)
    return found


def outrun(
    child: Mapping[date, int], parent: Mapping[date, int], lookback_days: int, last: date
) -> set[date]:
    """The days on which a table is missing, or older than a day of a parent that it reads.

    Args:
        child: when each day of the table was built, as a number that only grows.
        parent: the same of the parent.
        lookback_days: how many days before its own a row of the table reads.
        last: the last day that the table has.
    """
    found: set[date] = set()
    for ahead in range(lookback_days + 1):
        step = timedelta(days=ahead)
        found |= {day + step for day, at in parent.items() if at > child.get(day + step, -1)}
    return {day for day in found if day <= last}
