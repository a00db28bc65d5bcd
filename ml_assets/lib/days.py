"""Arithmetic on UTC days, which sensors, the command line and assets share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

MAX_GAP_DAYS = 14
"""Untouched days that are rebuilt along with touched ones: half as long as one more run would take."""


@dataclass(frozen=True)
class DayRange:
    """Days from `first` to `last`, both included."""

    first: date
    last: date

    @property
    def start(self) -> datetime:
        """First instant, UTC."""
        return datetime(self.first.year, self.first.month, self.first.day, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """First instant after, UTC: the window is [start, end)."""
        return self.start + timedelta(days=len(self))

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def days(self) -> list[date]:
        """Every day of the range."""
        return [self.first + timedelta(days=n) for n in range(len(self))]

    @property
    def tags(self) -> dict[str, str]:
        """Run tags that make a run cover the range."""
        return {
            "dagster/asset_partition_range_start": self.first.isoformat(),
            "dagster/asset_partition_range_end": self.last.isoformat(),
        }


def bridge(days: Iterable[date], max_gap: int = MAX_GAP_DAYS) -> Sequence[DayRange]:
    """Group days into ranges, one run each.

    A gap of up to `max_gap` untouched days is bridged: rebuilding a day costs about 20 ms an asset, a
    further run ten seconds and more, so a short gap is cheaper to rebuild than to leave out.
    """
    ranges: list[DayRange] = []
    for day in sorted(set(days)):
        if ranges and (day - ranges[-1].last).days <= max_gap + 1:
            ranges[-1] = DayRange(ranges[-1].first, day)
        else:
            ranges.append(DayRange(day, day))
    return ranges
