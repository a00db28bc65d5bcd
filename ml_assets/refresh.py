"""What the sensors would ask for, in the foreground: take in what is new, rebuild what it touches.

`ml-assets refresh` and `ml-assets demo` run this. It decides from the ledger (days that intake touched) and
from Dagster's own history (tables older than the ones they read), so whatever a killed refresh, a failed run
or a click in the UI left behind is finished by the next one.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from uuid import uuid4

import dagster as dg

from ml_assets.contracts import STREAMS
from ml_assets.defs.options import key
from ml_assets.defs.raw.sensors import REQUESTED_BY
from ml_assets.lib.intake import ledger
from ml_assets.lib.intake.files import pending_files
from ml_assets.lib.intake.sources import left_alone, stream_listings
from ml_assets.lib.intake.tracking import pending_runs
from ml_assets.partitions import DayRange, bridge
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings, redact_url

Progress = Callable[[str, int, int], None]
"""Told after each step of a run: (what the run is for, steps done, steps in all)."""

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Steps are followed by progress bars and in the event log; what fails is raised."""


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
        built = [k for k in self._graph.toposorted_asset_keys if self._graph.get(k).is_executable]
        self.daily = [k for k in built if self._graph.get(k).partitions_def is not None]
        self.intake = [key(f"duckdb/intake_{stream}") for stream in STREAMS]
        self.whole = [k for k in built if k not in self.daily and k not in self.intake]

    def take_in(self) -> list[str]:
        """Have everything new taken in; the ids of the ingests, for `account`."""
        pending = self.pending()
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
        found = {}
        for stream in STREAMS:
            listings = stream_listings(stream, self._settings.landing, self._settings.sources)
            self.left_alone |= left_alone(stream, {root: each.skipped for root, each in listings.items()})
            files = [pending_files(stream, each, self._postgres, root) for root, each in listings.items()]
            found[stream] = sum(map(len, files))
        if self._mlflow.database is None or self._mlflow.database.exists():
            root = redact_url(self._mlflow.tracking_uri())
            for stream, count in pending_runs(self._mlflow.client(), root, self._postgres).items():
                found[stream] += count
        return {stream: count for stream, count in found.items() if count}

    def account(self, ingest_ids: list[str]) -> dict[str, dict[str, int]]:
        """Rows by stream of these ingests: read = loaded + superseded + quarantined."""
        with self._postgres.connect() as connection:
            counts = ledger.counts(connection, ingest_ids)
        nothing = {"read": 0, "loaded": 0, "superseded": 0, "quarantined": 0}
        return {stream: counts.get(stream, nothing) for stream in STREAMS}

    def touched_days(self) -> set[date]:
        """Days that intake touched, or whose rows look back on, or join, rows which came late."""
        return {day for stream in STREAMS for day in self.due_days(stream)}

    def due_days(self, stream: str) -> set[date]:
        """Days on which a stream's raw table is to be rebuilt."""
        with self._postgres.connect() as connection:
            return set(ledger.due_days(connection, stream)) - {ledger.WHOLE}

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
            tags={REQUESTED_BY: "refresh", **tags},
        )

    def run_due_days(self) -> None:
        """Rebuild every daily table on the days that are due, in few runs."""
        days = self.touched_days() | self.stale_days()
        first: list[dg.AssetKey] = []
        if len(bridge(days)) > 1 and self.due_days("metrics"):
            # A run's features show metrics of later days: with several ranges, those are rebuilt first.
            first = [key("duckdb/raw_metrics")]
            self.run_days(days, first)
        self.run_days(days, [k for k in self.daily if k not in first])
        # Those whose rows look back on, or join, what has just been rebuilt; nobody does on them anew.
        self.run_days(self.touched_days(), self.daily)

    def run_days(self, days: Iterable[date], tables: Sequence[dg.AssetKey]) -> None:
        """Rebuild daily tables on these days, earlier ones first."""
        for span in bridge(days):
            self.run(_purpose(span), tables, span.tags)
            self.days |= set(span.days())

    def due_tables(self) -> set[dg.AssetKey]:
        """Unpartitioned raw tables of which intake withdrew or added something since they were built."""
        with self._postgres.connect() as connection:
            return {
                key(f"duckdb/raw_{name}")
                for name, stream in STREAMS.items()
                if stream.day_column is None and ledger.due_days(connection, name)
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
        """Days on which a daily table is outdated, or older than one that it reads."""
        built = {k: self._ids_by_day(k) for k in self.daily}
        stale = {day for k in self.outdated() & built.keys() for day in built[k]}
        for child in self.daily:
            for parent in self._graph.get(child).parent_keys & built.keys():
                stale |= {day for day, at in built[parent].items() if at > built[child].get(day, -1)}
        return {date.fromisoformat(day) for day in stale}

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


def _purpose(span: DayRange) -> str:
    if span.first == span.last:
        return span.first.isoformat()
    return f"{span.first.isoformat()} to {span.last.isoformat()}"
