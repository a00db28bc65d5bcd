"""What the sensors would ask for, in the foreground: take in what is new, rebuild what it touches.

`ml-assets refresh` and `ml-assets demo` run this. It decides from the ledger (days that intake touched) and
from Dagster's own history (tables older than the ones they read), so whatever a killed refresh, a failed run
or a click in the UI left behind is finished by the next one.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from time import monotonic
from typing import Any
from uuid import uuid4

import dagster as dg

from ml_assets.cli.lost_runs import PROCESS, end_killed_refreshes, this_process
from ml_assets.contracts import STREAMS
from ml_assets.defs.options import FAULT, FEATURE_FILE, key
from ml_assets.defs.raw.sensors import REQUESTED_BY
from ml_assets.intake import due, ledger
from ml_assets.lib.days import DayRange, bridge
from ml_assets.lib.windows import outrun, reached, reaches
from ml_assets.partitions import lookback_days
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stores import touched_days

Progress = Callable[[str, int, int], None]
"""Is called with (what is being done, how much is done, how much there is to do; 0 while that is unknown)."""

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Steps are followed by progress bars and in the event log; what fails is raised."""


@dataclass
class Report:
    """What a refresh or a demo did.

    Args:
        streams: per stream, rows read = loaded + superseded + quarantined.
        days: days that were rebuilt, ISO dates.
        runs: Dagster run ids.
        left_alone: reason by path for files that were not read.
        recovered: what was landed of processes that were killed while they recorded, and runs of killed ones that
            were ended, a sentence each.
        phases: wall time in seconds by phase.
    """

    streams: dict[str, dict[str, int]] = field(default_factory=dict)
    days: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    left_alone: dict[str, str] = field(default_factory=dict)
    recovered: list[str] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall time of all phases."""
        return round(sum(self.phases.values()), 2)

    def as_json(self) -> dict[str, Any]:
        """The form of `ml-assets refresh --json`."""
        return {
            "streams": self.streams,
            "days": self.days,
            "runs": self.runs,
            "left_alone": self.left_alone,
            **({"recovered": self.recovered} if self.recovered else {}),
            "seconds": self.seconds,
        }


def refresh_graph(
    settings: Settings, progress: Progress, report: Report | None = None, again: Iterable[str] = ()
) -> Report:
    """Take in what is new, rebuild the days and the whole tables that it touches.

    Args:
        again: streams whose intake is materialized even if nothing is new.
    """
    from ml_assets.build import build_defs
    from ml_assets.cli.instance import open_instance

    report = report or Report()
    with open_instance(settings) as instance:
        with phase(report, "intake"):
            report.recovered += [*end_killed_refreshes(instance), *due.land_abandoned(settings)]
            refresher = Refresher(settings, build_defs(settings), instance, progress)
            ingests = refresher.take_in(again)
        with phase(report, "daily tables"):
            refresher.run_due_days()
        with phase(report, "whole tables"):
            refresher.run_whole()
    report.streams = refresher.account(ingests)
    report.days = [day.isoformat() for day in sorted(refresher.days)]
    report.runs = refresher.runs
    report.left_alone = dict(sorted(refresher.left_alone.items()))
    return report


class phase:
    """Adds the wall time of its block to a report."""

    def __init__(self, report: Report, name: str) -> None:
        self._report, self._name = report, name

    def __enter__(self) -> None:
        self._start = monotonic()

    def __exit__(self, *_: object) -> None:
        before = self._report.phases.get(self._name, 0.0)
        self._report.phases[self._name] = round(before + monotonic() - self._start, 2)


class Refresher:
    """Runs parts of the graph in this process, against one instance.

    Args:
        settings: where the landing folders are.
        defs: the graph.
        instance: keeps the history.
        progress: is told of every step.
    """

    def __init__(
        self, settings: Settings, defs: dg.Definitions, instance: dg.DagsterInstance, progress: Progress
    ) -> None:
        self._settings = settings
        self._job = defs.resolve_implicit_global_asset_job_def()
        self._graph = defs.resolve_asset_graph()
        resources = defs.resources or {}
        self._postgres: PostgresResource = resources["postgres"]
        self._mlflow: MLflowResource = resources["mlflow"]
        self._instance = instance
        self._progress = progress
        self.days: set[date] = set()
        self.runs: list[str] = []
        self.left_alone: dict[str, str] = {}
        nodes = [self._graph.get(k) for k in self._graph.toposorted_asset_keys]
        for node in nodes:
            if fault := node.metadata.get(FAULT):
                self.left_alone[str(node.metadata[FEATURE_FILE])] = str(fault)
        built = [node.key for node in nodes if node.is_executable and FAULT not in node.metadata]
        self.daily = [k for k in built if self._graph.get(k).partitions_def is not None]
        self._lookbacks = {k: self._lookbacks_of(k) for k in self.daily}
        reach = reaches(self._lookbacks)
        # What came in for a day changes these on that day, and the others on days after it as well.
        self.day_by_day = [k for k in self.daily if not reach[k]]
        self.windowed = [k for k in self.daily if reach[k]]
        self.intake = [key(f"duckdb/intake_{stream}") for stream in STREAMS]
        self.whole = [k for k in built if k not in self.daily and k not in self.intake]

    def take_in(self, again: Iterable[str] = ()) -> list[str]:
        """Have everything new taken in; the ids of the ingests, for `account`.

        Args:
            again: streams whose intake is materialized even if nothing is new.
        """
        pending = {*self.pending(), *again}
        if not pending:
            return []
        chosen = [key(f"duckdb/intake_{stream}") for stream in pending]
        result = self.run("intake", chosen, {})
        found: list[str] = []
        for event in result.get_asset_materialization_events():
            told = {name: value.value for name, value in event.materialization.metadata.items()}
            ids, skipped = told.get("ingest_ids"), told.get("left_alone")
            found += map(str, ids) if isinstance(ids, list) else ()
            if isinstance(skipped, dict):
                self.left_alone |= {path: str(why) for path, why in skipped.items()}
        return found

    def pending(self) -> dict[str, int]:
        """New or changed files and runs by stream, for the streams that have any; notes what is left alone."""
        found = Counter[str]()
        for stream in STREAMS:
            files = due.StreamFiles(stream, self._settings)
            self.left_alone |= files.left_alone
            found[stream] += len(files.new(self._postgres))
        found.update(due.new_runs(self._mlflow, self._postgres))
        return {stream: count for stream, count in found.items() if count}

    def account(self, ingest_ids: list[str]) -> dict[str, dict[str, int]]:
        """Rows by stream of these ingests: read = loaded + superseded + quarantined."""
        with self._postgres.connect() as connection:
            counts = ledger.counts(connection, ingest_ids)
        nothing = {"read": 0, "loaded": 0, "superseded": 0, "quarantined": 0}
        return {stream: counts.get(stream, nothing) for stream in STREAMS}

    def touched_days(self) -> set[date]:
        """Days that intake touched, or whose rows look back on, or join, rows which came late."""
        return _days_of(due.due_days(self._postgres))

    def run(
        self, purpose: str, selection: Iterable[dg.AssetKey], tags: Mapping[str, str]
    ) -> dg.ExecuteInProcessResult:
        """Execute assets and their checks; raises what a step raised."""
        run_id = str(uuid4())
        selected = list(selection)
        steps = len(self._job.get_subset(asset_selection=set(selected)).graph.nodes)
        done: set[str] = set()

        def told(entry: dg.EventLogEntry) -> None:
            event = entry.dagster_event
            if event is not None and event.step_key and event.is_step_success:
                done.add(event.step_key)
                self._progress(purpose, len(done), steps)

        self._progress(purpose, 0, steps)
        self._instance.add_event_listener(run_id, told)
        self.runs.append(run_id)
        return self._job.execute_in_process(
            instance=self._instance,
            asset_selection=selected,
            run_id=run_id,
            run_config=QUIET,
            tags={REQUESTED_BY: "refresh", PROCESS: this_process(), **tags},
        )

    def run_due_days(self) -> None:
        """Rebuild every daily table on the days that are due, in few runs.

        Tables that look back on earlier days come last, each on days of its own, since a run has one range for all. Of
        a range that ends with today there are no later days, and they are built with the others.
        """
        outdated = self._remembered()
        asked = due.due_days(self._postgres)
        days = _days_of(asked) | self.stale_days()
        first: list[dg.AssetKey] = []
        if due.metrics_first(days, asked):
            first = [key("duckdb/raw_metrics")]
            self.run_days(days, first)
        self.run_days(days, [k for k in self.day_by_day if k not in first], self.windowed)
        # Those whose rows look back on, or join, what has just been rebuilt; nobody does on them anew.
        self.run_days(self.touched_days(), self.day_by_day, self.windowed)
        self.run_windows(outdated)

    def _remembered(self) -> dict[dg.AssetKey, set[date]]:
        """The days that other logic built of tables that look back; of the others they are noted as due.

        Dagster tells the logic of the last day alone: once that is built anew, nobody knows of those before.
        """
        outdated = self.outdated()
        built = {k: set(self._built_days(k)) for k in self.daily if k in outdated}
        days = {day for k in self.day_by_day for day in built.get(k, ())}
        if days:
            touched_days.ensure_schema(self._postgres)
            with self._postgres.connect(write=True) as connection:
                touched_days.touch(connection, {("runs", day) for day in days})
        return {k: built[k] for k in self.windowed if k in built}

    def run_windows(self, outdated: Mapping[dg.AssetKey, set[date]] | None = None) -> None:
        """Rebuild the tables that look back on earlier days, and what is built from them, where they are stale.

        Args:
            outdated: days that other logic had built before this refresh.
        """
        together: dict[frozenset[date], list[dg.AssetKey]] = {}
        for table, days in self.stale_windows(outdated).items():
            together.setdefault(frozenset(days), []).append(table)
        # A table is stale wherever one is that it reads, so whoever has fewer days reads nobody who has more.
        for days in sorted(together, key=len):
            self.run_days(days, together[days])

    def run_days(
        self, days: Iterable[date], tables: Sequence[dg.AssetKey], to_today: Sequence[dg.AssetKey] = ()
    ) -> None:
        """Rebuild daily tables on these days, earlier ones first.

        Args:
            to_today: further tables of the range that ends with today.
        """
        today = datetime.now(UTC).date()
        for span in bridge(days):
            self.run(_purpose(span), [*tables, *(to_today if span.last >= today else ())], span.tags)
            self.days |= set(span.days())

    def around(self, assets: Iterable[str]) -> list[dg.AssetKey]:
        """Tables of vectors with the one of their texts, if a model cuts these, and with their copies, in build order."""
        named = {key(asset) for asset in assets}
        near = {
            k
            for each in named
            for k in (self._graph.get(each).parent_keys | self._graph.get(each).child_keys)
        }
        group = {self._graph.get(each).group_name for each in named}
        return [k for k in self.whole if k in named or (k in near and self._graph.get(k).group_name in group)]

    def due_tables(self) -> set[dg.AssetKey]:
        """Unpartitioned raw tables of which intake withdrew or added something since they were built."""
        days = due.due_days(self._postgres)
        return {
            key(f"duckdb/raw_{name}")
            for name, stream in STREAMS.items()
            if stream.day_column is None and days[name]
        }

    def run_whole(self) -> None:
        """Rebuild the unpartitioned tables that are due, or older than something they read."""
        if stale := self.stale_tables(self.due_tables()):
            self.run("whole tables", stale, {})

    def outdated(self) -> set[dg.AssetKey]:
        """Tables that were last built by another version of their SQL, code or contract."""
        tables = [*self.daily, *self.whole]
        built_by = self._instance.get_latest_materialization_code_versions(tables)
        return {k for k in tables if built_by.get(k) not in (None, self._graph.get(k).code_version)}

    def stale_days(self) -> set[date]:
        """Days on which a table that follows day by day is outdated, or older than one that it reads."""
        found = self._stale(self.day_by_day)
        return {day for days in found.values() for day in days}

    def stale_windows(
        self, outdated: Mapping[dg.AssetKey, set[date]] | None = None
    ) -> dict[dg.AssetKey, set[date]]:
        """The days, by table, on which those that look back are stale; a table that is stale nowhere is left out.

        Args:
            outdated: days that are stale in any case.
        """
        return {k: days for k, days in self._stale(self.windowed, outdated or {}).items() if days}

    def _stale(
        self, tables: Sequence[dg.AssetKey], known: Mapping[dg.AssetKey, set[date]] | None = None
    ) -> dict[dg.AssetKey, set[date]]:
        """The days on which tables are outdated, older than a day that they read, or read one that is to be rebuilt.

        Args:
            tables: parents before their children.
            known: days that are stale in any case.
        """
        asked = {k for table in tables for k in (table, *self._lookbacks[table])}
        built = {k: self._built_days(k) for k in asked}
        outdated = self.outdated() if tables else set[dg.AssetKey]()
        stale: dict[dg.AssetKey, set[date]] = {}
        last = datetime.now(UTC).date()
        for child in tables:
            days = set(built[child]) if child in outdated else set[date]()
            days |= (known or {}).get(child, set())
            for parent, lookback in self._lookbacks[child].items():
                days |= outrun(built[child], built[parent], lookback, last)
                days |= reached(stale.get(parent, ()), lookback, last)
            stale[child] = days
        return stale

    def _lookbacks_of(self, table: dg.AssetKey) -> dict[dg.AssetKey, int]:
        """The daily tables that one reads, and how many days before its own it does."""
        node = self._graph.get(table)
        return {
            parent: lookback_days(node.partition_mappings.get(parent))
            for parent in node.parent_keys
            if parent in self.daily
        }

    def _built_days(self, table: dg.AssetKey) -> dict[date, int]:
        return {date.fromisoformat(day): at for day, at in self._ids_by_day(table).items()}

    def stale_tables(self, due: Collection[dg.AssetKey] = ()) -> list[dg.AssetKey]:
        """Unpartitioned tables to rebuild, in the order in which they build.

        They are due, were built by other logic, or are older than one they read.

        Args:
            due: to be rebuilt in any case, and what reads them after them.
        """
        outdated = self.outdated().union(due)
        latest = {k: max(self._ids_by_day(k).values(), default=-1) for k in self.daily}
        latest |= {k: self._latest_id(k) for k in [*self.intake, *self.whole]}
        stale: list[dg.AssetKey] = []
        for child in self.whole:
            parents = self._graph.get(child).parent_keys & latest.keys()
            if child in outdated or any(p in stale or latest[p] > latest[child] for p in parents):
                stale.append(child)
        return stale

    def _ids_by_day(self, asset: dg.AssetKey) -> Mapping[str, int]:
        return self._instance.get_latest_storage_id_by_partition(
            asset, dg.DagsterEventType.ASSET_MATERIALIZATION
        )

    def _latest_id(self, asset: dg.AssetKey) -> int:
        records = self._instance.fetch_materializations(asset, limit=1).records
        return records[0].storage_id if records else -1


def _days_of(asked: Mapping[str, Iterable[date]]) -> set[date]:
    """The days of all streams; not what stands for a table without days."""
    return {day for days in asked.values() for day in days} - {touched_days.WHOLE}


def _purpose(span: DayRange) -> str:
    if span.first == span.last:
        return span.first.isoformat()
    return f"{span.first.isoformat()} to {span.last.isoformat()}"
