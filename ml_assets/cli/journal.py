"""What `up` says while it serves: what was taken in, what was rebuilt, what failed. The servers' own words go to a file.

What belongs here: Dagster's history in, sentences out. The file is rotated, and what keeps the servers from working is
shown as well.
"""

import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.lib.faults import one_line
from ml_assets.lib.words import counted
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun, EventLogEntry

FILE_BYTES = 10_000_000
FILES_KEPT = 3
"""Older files beside the present one."""

_LAST_LINES = 20
"""Of servers that end by themselves, shown then."""

_POLL_S = 2.0
_OVERLAP = timedelta(seconds=10)
"""How far back each look reaches beyond the one before: a run's end is written a moment after it is dated."""

_SERVER_FAULT = re.compile(r" - dagster[._]\S* - (?:ERROR|CRITICAL) - ")
"""A line of Dagster's servers, not of a run, whose end is told from the history."""

_SHOWN = 3


def log_file(home: Path) -> Path:
    """Where the servers' own words go."""
    return home / "logs" / "up.log"


class ServerLog:
    """Takes the lines of the servers into a rotated file.

    Args:
        path: the file.
        say: is given the lines that a person needs at once.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = RotatingFileHandler(
            path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8"
        )
        self._say = say
        self.last: deque[str] = deque(maxlen=_LAST_LINES)

    def take(self, lines: Iterable[str]) -> None:
        """Write lines until there are no more."""
        for line in lines:
            text = line.rstrip("\n")
            self.last.append(text)
            self._handler.handle(logging.LogRecord("servers", logging.INFO, "", 0, text, None, None))
            if _SERVER_FAULT.search(text):
                self._say(text)
        self._handler.close()


@contextmanager
def told_as_they_end(settings: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """Tell of every run that ends meanwhile, from Dagster's history.

    The history is made here, if there is none: servers are to be started within the block, since two processes that make
    it at once fail.
    """
    from ml_assets.cli.instance import open_instance

    instance = open_instance(settings)
    stopping = threading.Event()
    url = f"http://{settings.host}:{settings.port}"
    threading.Thread(target=_follow, args=(instance, url, say, stopping), daemon=True).start()
    try:
        yield
    finally:
        stopping.set()  # and not waited for: whoever stops `up` does not wait for a last look


def _follow(
    instance: "DagsterInstance", url: str, say: Callable[[str], None], stopping: threading.Event
) -> None:
    from dagster import DagsterRunStatus, RunsFilter

    ended = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
    since = datetime.now(UTC)
    known: set[str] = set()
    while not stopping.wait(_POLL_S):
        now = datetime.now(UTC)
        for record in instance.get_run_records(
            RunsFilter(statuses=ended, updated_after=since - _OVERLAP), ascending=True
        ):
            run = record.dagster_run
            if run.run_id not in known and (record.end_time or 0) >= since.timestamp() - 60:
                known.add(run.run_id)
                for sentence in run_told(instance, run, url):
                    say(f"{time.strftime('%H:%M:%S')} {sentence}")
        since = now


def run_told(instance: "DagsterInstance", run: "DagsterRun", url: str) -> list[str]:
    """Sentences on a run that has ended; none if it changed nothing that a person waits for.

    Args:
        url: of the UI.
    """
    from dagster import DagsterEventType, DagsterRunStatus

    kinds = {
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_CHECK_EVALUATION,
        DagsterEventType.STEP_FAILURE,
        DagsterEventType.RUN_FAILURE,
    }
    entries = instance.all_logs(run.run_id, of_type=kinds)
    told = [*_taken_in(entries), *_rebuilt(entries), *_failed_checks(entries)]
    if run.status == DagsterRunStatus.FAILURE:
        told += _failures(entries)
        told.append(f"The run is at {url}/runs/{run.run_id}; `ml-assets refresh` goes on where it stopped.")
    elif run.status == DagsterRunStatus.CANCELED:
        told.append(f"A run was cancelled: {url}/runs/{run.run_id}")
    return told


def _taken_in(entries: "Iterable[EventLogEntry]") -> Iterator[str]:
    for entry in entries:
        made = entry.asset_materialization
        if made is None or not made.asset_key.path[-1].startswith("intake_"):
            continue
        values = {name: value.value for name, value in made.metadata.items()}
        contents, withdrawn = int(str(values.get("contents_read", 0))), int(str(values.get("withdrawn", 0)))
        if not contents and not withdrawn:
            continue
        stream = made.asset_key.path[-1].removeprefix("intake_")
        quarantined = int(str(values.get("rows_quarantined", 0)))
        told = f"Taken in: {counted(int(str(values.get('rows_read', 0))), 'row')} of {stream}"
        if withdrawn:
            told += f", {withdrawn:,} withdrawn"
        if quarantined:
            told += f"; {quarantined:,} in quarantine (`ml-assets quarantine list {stream}` tells why)"
        yield f"{told}."


def _rebuilt(entries: "Iterable[EventLogEntry]") -> Iterator[str]:
    tables: set[str] = set()
    days: set[str] = set()
    for entry in entries:
        made = entry.asset_materialization
        if (
            made is None
            or made.asset_key.path[-1].startswith("intake_")
            or made.asset_key.path[0] == "quality"
        ):
            continue
        tables.add(made.asset_key.to_user_string())
        if made.partition:
            days.add(made.partition)
    if tables:
        of_days = f" on {counted(len(days), 'day')}" if days else ""
        yield f"Rebuilt: {_some(sorted(tables), 'table')}{of_days}."


def _failed_checks(entries: "Iterable[EventLogEntry]") -> Iterator[str]:
    failed: Counter[str] = Counter()
    for entry in entries:
        event = entry.dagster_event
        if event is not None and event.event_type_value == "ASSET_CHECK_EVALUATION":
            found = event.asset_check_evaluation_data
            if not found.passed:
                failed[f"{found.check_name} of {found.asset_key.to_user_string()}"] += 1
    if failed:
        yield f"Did not pass: {_some(sorted(failed), 'check')}."


def _failures(entries: "Iterable[EventLogEntry]") -> Iterator[str]:
    whole = ""
    steps = 0
    for entry in entries:
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type_value == "STEP_FAILURE":
            steps += 1
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            why = one_line(error.message) if error else event.message or ""
            if steps <= _SHOWN:
                yield f"Failed: {(event.step_key or '').replace('__', '/', 1)}: {why}"
        elif event.event_type_value == "RUN_FAILURE":
            whole = event.message or ""
    if steps > _SHOWN:
        yield f"Failed: {steps - _SHOWN} more."
    if not steps:
        yield f"Failed: {one_line(whole) if whole else 'a run'}"


def _some(names: list[str], one: str) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{counted(len(names), one)} ({shown}{more})"
