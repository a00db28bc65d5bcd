"""Keeping Dagster's history small: runs, their events and logs.

Dagster keeps every run for ever and offers `DagsterInstance.delete_run`. That is not enough, nor harmless (measured with
1.13.27): it deletes the newest materialization of a partition with its run, so that the partition counts as missing and
automation builds it anew; it leaves the run's SQLite file (148 KB when it is empty), the captured logs and the results of
checks. So here, of a run that ended long ago:

1. its events go, but for the newest materialization and observation of each partition of each asset, and with them their
   tags and the results of checks that later ones have replaced,
2. then what its steps printed, and the run itself,
3. then files in Dagster's folder of runs that the history does not know, whoever deleted them.

Each step may be killed and done again. The statements are in sql/dagster, and go by the tables of Dagster's own storage,
SQLite or PostgreSQL; another storage is left as it is. What belongs here: what goes when. Ticks of sensors and schedules
go by `retention` in dagster.yaml.
"""

import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.lib.words import counted
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.files import folder_bytes
from ml_assets.stores.sqlite.maintenance import maintain as maintain_sqlite
from ml_assets.tables.store import Maintained, Retention

if TYPE_CHECKING:
    from dagster import DagsterInstance

_BATCH = 100
"""Runs whose events go in one transaction."""

_BUSY_S = 20.0
"""How long rewriting a file waits for those who read and write it; Dagster's own patience is as long."""

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_FILES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
"""Dagster's SQLite files besides those of single runs."""


class DagsterHistory(Maintained):
    """Dagster's runs and events.

    Args:
        settings: of the home that the history belongs to.
        instance: Dagster's; None where only the size of its folder is asked.
    """

    name: ClassVar[str] = "dagster"

    def __init__(self, settings: Settings, instance: "DagsterInstance | None" = None) -> None:
        self._folder = settings.dagster_home
        self._days = settings.history_days
        self._first = settings.partitions_start
        self._instance = instance

    def size(self) -> int:
        """Bytes of Dagster's folder, and of its database if that is PostgreSQL and an instance was given."""
        return folder_bytes(self._folder) + _database_bytes(self._instance)

    def maintain(self, retention: Retention) -> Iterator[str]:
        """Let old runs go, then what nobody knows, and give back the space.

        Raises:
            ValueError: no instance was given.
        """
        instance = self._instance
        if instance is None:
            raise ValueError("Dagster's history is kept small through its instance: give one.")
        if not _is_sql(instance):
            yield f"Left Dagster's history as it is: {type(instance.event_log_storage).__name__} is not known here."
            return
        ended = datetime.now(UTC) - timedelta(days=self._days)
        if gone := forget_runs(instance, ended, self._first):
            yield f"Deleted {counted(gone, 'run')} that ended more than {counted(self._days, 'day')} ago."
        if left := self._sweep(instance, retention.grace):
            yield f"Removed {counted(left, 'file or folder', 'files and folders')} of runs that are not known any more."
        yield from self._give_back()

    def _sweep(self, instance: "DagsterInstance", grace: timedelta) -> int:
        """Files of runs that the history does not know. Those of a run that is just being made are young."""
        if not self._is_of(instance):
            return 0
        oldest = time.time() - grace.total_seconds()
        places = [
            *(self._folder / "history" / "runs").glob("*.db"),
            *(each for each in (self._folder / "storage").glob("*") if each.is_dir()),
        ]
        old = [each for each in places if _RUN_ID.fullmatch(each.stem) and _touched(each) < oldest]
        if not old:
            return 0
        known = set(instance.get_run_ids())
        unknown = [each for each in old if each.stem not in known]
        for each in unknown:
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)  # somebody else may just be removing it
            else:
                for file in (each, *(each.with_name(each.name + end) for end in ("-wal", "-shm"))):
                    file.unlink(missing_ok=True)
        return len(unknown)

    def _is_of(self, instance: "DagsterInstance") -> bool:
        """Whether the runs in Dagster's folder are this instance's: neither another one's nor a former storage's."""
        from dagster._core.storage.event_log import SqliteEventLogStorage

        if Path(instance.root_directory).resolve() != self._folder.resolve():
            return False  # such as that of `dagster.materialize`, which knows no run but its own
        in_files = isinstance(instance.event_log_storage, SqliteEventLogStorage)
        return in_files or not (self._folder / "history").exists()

    def _give_back(self) -> Iterator[str]:
        for name in _FILES:
            file = self._folder / name
            if not file.exists():
                continue
            try:
                with closing(sqlite3.connect(file, timeout=_BUSY_S, isolation_level=None)) as connection:
                    for done in maintain_sqlite(connection):
                        yield f"{file.name}: {done}"
            except sqlite3.OperationalError as busy:  # the next night is early enough
                yield f"Left {file.name} as it is, because it is in use ({busy})."


def forget_runs(instance: "DagsterInstance", ended_before: datetime, first: date) -> int:
    """Delete runs that ended before a point in time; returns how many.

    The newest materialization of each partition stays, and for its asset the partition is as it was.

    Args:
        first: first daily partition; materializations of days before it stay no longer than their run.
    """
    from dagster import RunsFilter
    from dagster._core.storage.dagster_run import FINISHED_STATUSES

    old = instance.get_run_ids(RunsFilter(statuses=list(FINISHED_STATUSES), updated_before=ended_before))
    # Sensors and automation remember ids of events, and SQLite gives the last one anew once it is free.
    last = _last_writer(instance)
    gone = [run_id for run_id in old if run_id != last]
    for batch in _batches(gone):
        _forget_events(instance, batch, first)
        for run_id in batch:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.run_storage.delete_run(run_id)
    # What stayed of a run for a day's sake goes when the day does, which is later.
    for batch in _batches([run_id for run_id in _without_run(instance, first) if run_id != last]):
        _forget_events(instance, batch, first)
    return len(gone)


def _batches(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(run_ids), _BATCH):
        yield run_ids[start : start + _BATCH]


def _without_run(instance: "DagsterInstance", first: date) -> list[str]:
    """Runs that are gone and have events of days before the first one."""
    from sqlalchemy import text

    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        statement = text(read_sql("dagster/runs_of_gone_days.sql"))
        found = [run_id for (run_id,) in connection.execute(statement, {"first": first.isoformat()})]
    known = set(instance.get_run_ids()) if found else set()
    return [run_id for run_id in found if run_id not in known]


def _forget_events(instance: "DagsterInstance", runs: Sequence[str], first: date) -> None:
    from sqlalchemy import bindparam, text

    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        for name in ("forget_events", "forget_checks"):
            statement = text(read_sql(f"dagster/{name}.sql")).bindparams(bindparam("runs", expanding=True))
            values = {"runs": list(runs), "first": first.isoformat()}
            connection.execute(statement, values)
        connection.execute(text(read_sql("dagster/forget_tags.sql")))


def _last_writer(instance: "DagsterInstance") -> str | None:
    """The run that wrote the last event."""
    from sqlalchemy import text

    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        row = connection.execute(text("SELECT run_id FROM event_logs ORDER BY id DESC LIMIT 1")).fetchone()
    return None if row is None else row[0]


def _is_sql(instance: "DagsterInstance") -> bool:
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    return isinstance(instance.event_log_storage, SqlEventLogStorage)


def _database_bytes(instance: "DagsterInstance | None") -> int:
    if instance is None or not _is_sql(instance):
        return 0
    from sqlalchemy import text

    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        if connection.dialect.name != "postgresql":
            return 0
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar() or 0)


def _touched(place: Path) -> float:
    """When it was last changed; what has just gone was changed now."""
    try:
        return place.stat().st_mtime
    except FileNotFoundError:
        return time.time()
