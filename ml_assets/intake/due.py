"""What is due: what the outside world has that the ledger does not, and the tables that intake touched.

Sensors and `ml-assets refresh` both ask here, so that they cannot disagree. What belongs here: the decision. What
does not: asking Dagster for runs, and which tables Dagster's history shows to be outdated.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from ml_assets.contracts import STREAMS
from ml_assets.intake import ledger
from ml_assets.intake.files import pending_files
from ml_assets.intake.input_files import InputFile
from ml_assets.intake.sources import left_alone, stream_listings
from ml_assets.intake.tracking import pending_runs
from ml_assets.lib.days import DayRange, bridge
from ml_assets.lib.figures import Waiting
from ml_assets.settings import Settings, redact_url
from ml_assets.stores import touched_days
from ml_assets.stores.touched_days import Postgres
from ml_assets.tables import spool

if TYPE_CHECKING:
    from ml_assets.resources.mlflow import MLflowResource

_LOG = logging.getLogger(__name__)


class StreamFiles:
    """The files of one stream as they lie in its landing folder and in the folders of its sources.

    Args:
        stream: the stream.
        settings: where the folders are.
    """

    def __init__(self, stream: str, settings: Settings) -> None:
        self.stream = stream
        self._listings = stream_listings(stream, settings.landing, settings.sources)

    @property
    def all(self) -> list[InputFile]:
        """Every file, whether it was taken in or not."""
        return [file for listing in self._listings.values() for file in listing.files]

    @cached_property
    def left_alone(self) -> dict[str, str]:
        """The reason by path for what is not read."""
        return left_alone(self.stream, {root: each.skipped for root, each in self._listings.items()})

    def new(self, postgres: Postgres) -> list[InputFile]:
        """The files that are new or changed, as the ledger tells."""
        listings = self._listings.items()
        return [file for root, each in listings for file in pending_files(self.stream, each, postgres, root)]


def land_abandoned(settings: Settings) -> list[str]:
    """Land the events that killed processes had recorded; a sentence for each of them, which is logged, too."""
    found = spool.land_abandoned(settings.landing / "performance")
    told = [each.sentence("performance event") for each in found]
    for sentence in told:
        _LOG.warning("%s", sentence)
    return told


def new_runs(mlflow: "MLflowResource", postgres: Postgres) -> dict[str, int]:
    """How many runs are new, changed, deleted or restored in MLflow, for the streams that have any."""
    if not mlflow.is_made:
        return {}  # nothing has been logged yet, and asking would make the store
    found = pending_runs(mlflow.client(), redact_url(mlflow.tracking_uri()), postgres)
    return {stream: count for stream, count in found.items() if count}


def streams_to_read_again(postgres: Postgres) -> set[str]:
    """Streams with contents that `ml-assets quarantine retry` has reopened."""
    touched_days.ensure_schema(postgres)
    with postgres.connect() as connection:
        return ledger.reopened(connection)


def due_days(postgres: Postgres) -> dict[str, list[date]]:
    """The days on which each stream's raw table is to be rebuilt; `touched_days.WHOLE` where it has no days."""
    touched_days.ensure_schema(postgres)
    with postgres.connect() as connection:
        return {stream: touched_days.due_days(connection, stream) for stream in STREAMS}


def waiting(settings: Settings, postgres: Postgres) -> dict[str, Waiting]:
    """What of each stream was not taken in yet, or is not in its raw table; the ledger is not made for that."""
    with postgres.connect() as connection:
        made = connection.execute("SELECT to_regclass('ledger.settled_days')").fetchone() != (None,)
    due = due_days(postgres) if made else {}
    found = {}
    for stream in STREAMS:
        files = StreamFiles(stream, settings)
        new = files.new(postgres) if made else files.all
        oldest = min((file.mtime_ns for file in new), default=None)
        found[stream] = Waiting(len(new), None if oldest is None else oldest / 1e9, len(due.get(stream, ())))
    return found


def metrics_first(days: Collection[date], due: Mapping[str, Sequence[date]]) -> bool:
    """Whether the metrics have to be rebuilt before the runs: a run's row shows metrics of other days.

    Args:
        days: all days that are rebuilt. Within one range of days the graph's own order sees to it.
        due: as `due_days` gives them.
    """
    return len(bridge(days)) > 1 and bool(due.get("metrics"))


@dataclass(frozen=True)
class Rebuild:
    """Raw tables to be rebuilt together.

    Args:
        streams: whose raw tables.
        days: on these days; None for tables without days.
    """

    streams: tuple[str, ...]
    days: DayRange | None


def rebuilds(due: Mapping[str, Sequence[date]]) -> list[Rebuild]:
    """The rebuilds of raw tables that are asked for now, in few runs; the runs wait where `metrics_first` says so.

    Args:
        due: days by stream, as `due_days` gives them.
    """
    daily = {name: days for name, days in due.items() if days and STREAMS[name].day_column}
    if metrics_first({day for days in daily.values() for day in days}, daily):
        daily.pop("runs", None)
    found = []
    for span in bridge({day for days in daily.values() for day in days}):
        touched = (
            name for name, days in daily.items() if any(span.first <= day <= span.last for day in days)
        )
        found.append(Rebuild(tuple(touched), span))
    whole = tuple(name for name, days in due.items() if days and not STREAMS[name].day_column)
    return [*found, Rebuild(whole, None)] if whole else found
