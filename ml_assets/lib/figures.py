"""Figures for Prometheus: what is known of the stores, the tables, intake and the runs, as families of metrics.

What belongs here: names, units and labels. Labels are of a bounded set (stores, tables, streams, checks, severities);
no run, no path, no URL and no message is ever one. A time is told as seconds since 1970, so that its age is right however
old the file is that it stands in. What is not known is left out: a gap shows, an old figure does not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

STATES = ("healthy", "busy", "down")
"""Of a store."""


@dataclass(frozen=True)
class Waiting:
    """What of one stream was not taken in yet.

    Args:
        files: new or changed files.
        oldest: when the oldest of them was last changed, seconds since 1970; None if there is none.
        days: days whose raw table is behind what was taken in.
    """

    files: int
    oldest: float | None
    days: int


@dataclass(frozen=True)
class History:
    """What the history of runs tells.

    Args:
        checks: how many checks there are.
        failed_checks: names of those that did not pass when they ran last, by asset.
        runs: runs that ended within a day, by how they ended, and those that wait or run now.
        retried: runs of that day that were another try of a lost one.
    """

    checks: int
    failed_checks: Mapping[str, list[str]]
    runs: Mapping[str, int]
    retried: int


@dataclass(frozen=True)
class Figures:
    """All that is told at one time. A part that could not be asked is None.

    Args:
        version: of this package.
        status: as `ml-assets status --json` prints it, of the same moment.
        disk: bytes on disk, in memory for Redis, by part of a store.
        free: bytes that are left on the disk of the home.
        waiting: by stream.
        alerts: how many by source, state and severity, closed ones left out.
        history: of Dagster.
        seconds: what asking took, by part.
        failed: parts that could not be asked.
        at: seconds since 1970.
    """

    version: str
    status: Mapping[str, Any]
    disk: Mapping[str, int] = field(default_factory=dict)
    free: int | None = None
    waiting: Mapping[str, Waiting] | None = None
    alerts: Mapping[tuple[str, str, str], int] | None = None
    history: History | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()
    at: float = 0.0


def families(figures: Figures) -> Iterator[Metric]:
    """The families of metrics, each with its help and type, also those that have nothing to tell."""
    yield _gauge("build_info", "The version of ml-assets; always 1.", {(figures.version,): 1}, "version")
    yield from _stores(figures)
    yield from _tables(figures.status["stores"])
    yield from _intake(figures)
    yield from _alerts(figures)
    yield from _runs(figures.history)
    yield _gauge(
        "collect_seconds",
        "Seconds that collecting these figures took.",
        {(part,): took for part, took in figures.seconds.items()},
        "part",
    )
    yield _gauge(
        "collect_failed",
        "1 if this part of the figures could not be asked and is left out.",
        {(part,): float(part in figures.failed) for part in figures.seconds},
        "part",
    )
    yield _gauge(
        "collected_timestamp_seconds", "When these figures were collected, since 1970.", {(): figures.at}
    )


def _stores(figures: Figures) -> Iterator[Metric]:
    stores: Mapping[str, Any] = figures.status["stores"]
    yield _gauge(
        "store_up",
        "1 for the state that a store is in: healthy, busy (another process holds it) or down.",
        {(name, state): float(told["state"] == state) for name, told in stores.items() for state in STATES},
        "store",
        "state",
    )
    yield _gauge(
        "store_latency_seconds",
        "Seconds that connecting to a store and asking it one trivial question took.",
        {(name,): told["latency_ms"] / 1000 for name, told in stores.items() if told["state"] == "healthy"},
        "store",
    )
    yield _gauge(
        "store_disk_bytes",
        "Bytes that a store takes on disk; of Redis in memory.",
        {(name,): size for name, size in figures.disk.items()},
        "store",
    )
    free = {} if figures.free is None else {(): figures.free}
    yield _gauge("home_free_bytes", "Bytes that are left on the disk that the home lies on.", free)


def _tables(stores: Mapping[str, Any]) -> Iterator[Metric]:
    held = {(name, table): told for name, store in stores.items() for table, told in store["tables"].items()}
    for figure, key, told in (
        ("table_rows", "rows", "Rows of a table."),
        ("table_bytes", "bytes", "Bytes of the values in a table, without what the store adds."),
    ):
        yield _gauge(figure, told, {each: held[each][key] for each in held}, "store", "table")
    for figure, key, told in (
        (
            "table_newest_timestamp_seconds",
            "newest",
            "Start of the newest day or hour that a table has rows of, since 1970; only of tables that have days.",
        ),
        (
            "table_written_timestamp_seconds",
            "written_at",
            "When a table was last changed, since 1970; a write of equal rows changes nothing.",
        ),
    ):
        known = {each: _seconds(held[each][key]) for each in held if held[each][key] is not None}
        yield _gauge(figure, told, known, "store", "table")


def _intake(figures: Figures) -> Iterator[Metric]:
    waiting = figures.waiting or {}
    yield _gauge(
        "intake_files_waiting",
        "Files of a stream that are new or changed and were not taken in yet.",
        {(stream,): each.files for stream, each in waiting.items()},
        "stream",
    )
    yield _gauge(
        "intake_oldest_waiting_timestamp_seconds",
        "When the oldest file that waits was last changed, since 1970; left out if none waits.",
        {(stream,): each.oldest for stream, each in waiting.items() if each.oldest is not None},
        "stream",
    )
    yield _gauge(
        "intake_days_due",
        "Days whose raw table is behind what was taken in; 1 for a stream without days.",
        {(stream,): each.days for stream, each in waiting.items()},
        "stream",
    )
    quarantined: Mapping[str, int] | None = figures.status["quarantined"]
    known: dict[tuple[str, ...], float] = {}
    if quarantined is not None:
        known |= {(stream,): 0 for stream in waiting} | {(stream,): n for stream, n in quarantined.items()}
    yield _gauge(
        "quarantined_rows", "Rows of what counts at present that are in quarantine.", known, "stream"
    )


def _alerts(figures: Figures) -> Iterator[Metric]:
    yield _gauge(
        "alerts",
        "Alerts on models that are not over, by what found them, how bad it is, and what people have said.",
        dict(figures.alerts or {}),
        "source",
        "state",
        "severity",
    )


def _runs(history: History | None) -> Iterator[Metric]:
    checks: dict[tuple[str, ...], float] = {}
    failed: dict[tuple[str, ...], float] = {}
    if history is not None:
        several = sum(map(len, history.failed_checks.values()))
        checks = {("failed",): several, ("other",): history.checks - several}
        for asset, names in history.failed_checks.items():
            store, _, table = asset.partition("/")
            failed |= {(store, table, name): 1.0 for name in names}
    yield _gauge(
        "checks",
        "Checks of assets: failed when they ran last, or other (passed, or never run).",
        checks,
        "result",
    )
    yield _gauge(
        "check_failed", "1 for each check that failed when it ran last.", failed, "store", "table", "check"
    )
    yield _gauge(
        "runs",
        "Runs that ended within 24 hours, by how they ended, and runs that wait or run now.",
        {} if history is None else {(status,): count for status, count in history.runs.items()},
        "status",
    )
    yield _gauge(
        "runs_retried",
        "Runs within 24 hours that were another try of a run that was lost.",
        {} if history is None else {(): history.retried},
    )


def _gauge(name: str, told: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"ml_assets_{name}", told, labels=labels)
    for which, value in values.items():
        family.add_metric(which, value)
    return family


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
