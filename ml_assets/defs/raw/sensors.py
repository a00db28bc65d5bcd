"""Sensors of the raw room: what is new in the landing folders and in MLflow, and which days are due.

Each compares the world with the ledger; a cursor only saves the comparison where nothing has changed. None
asks again while what it asked for is under way, and after a failure each waits longer than before.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from ml_assets.automation import FOLLOWING, WINDOWED
from ml_assets.contracts import STREAMS
from ml_assets.defs.options import key
from ml_assets.intake import due, input_files
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings

REQUESTED_BY = "ml_assets/requested_by"
"""Tag of every run that one of these sensors asks for."""

MAX_REQUESTS = 20
"""Runs that one tick asks for, at most; the next tick goes on."""

FIRST_WAIT_S = 30
LONGEST_WAIT_S = 3_600

_JUDGED = "a path is part of a source's content"
"""How the ledger's word on a file is taken. With another text here, cursors of before tell nothing."""

_INTERVAL_S = 5
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_REMEMBERED = 10
_SHOWN = 5


def landing_sensor(settings: Settings) -> dg.SensorDefinition:
    """Asks for intake of the streams whose folders hold something new."""

    @dg.sensor(
        name="landing_sensor",
        target=[key(f"duckdb/intake_{name}") for name in STREAMS],
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for new or changed files in the landing folders and has them taken in.",
    )
    def sensor(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SensorResult:
        if reason := _reason_to_wait(context.instance, "landing_sensor"):
            return dg.SensorResult(skip_reason=reason, cursor=context.cursor)
        due.land_abandoned(settings)
        seen = json.loads(context.cursor or "{}")
        again = due.streams_to_read_again(postgres)
        done = _last_succeeded(context.instance, "landing_sensor")
        clean: dict[str, str] = {}
        asked: dict[str, str] = {}
        fresh: dict[str, int] = {}
        skipped: dict[str, str] = {}
        writing = 0
        for name in STREAMS:
            found = due.StreamFiles(name, settings)
            skipped |= found.left_alone
            state = _state(found.all)
            if seen.get("clean", {}).get(name) == state and name not in again:
                clean[name] = state
                continue
            pending = found.new(postgres)
            quiet = [file for file in pending if input_files.quiet(file, time.time())]
            writing += len(pending) - len(quiet)
            if quiet:
                asked[name] = _state(quiet)
                if done and seen.get("asked", {}).get(name) == asked[name] and name not in again:
                    # It would not fare better before something changes.
                    why = "the last run could not read it; its intake tells why"
                    skipped |= {f"{name}/{file.item_name}": why for file in quiet}
                else:
                    fresh[name] = len(quiet)
            elif not pending:
                clean[name] = state
        cursor = json.dumps({"clean": clean, "asked": asked})
        if not fresh:
            told = f"; {writing} still being written" if writing else ""
            if skipped:
                shown = [f"{path}: {why}" for path, why in sorted(skipped.items())[:_SHOWN]]
                told += f"; {len(skipped)} left alone: {'. '.join(shown)}"
            return dg.SensorResult(skip_reason=f"no new files in the landing folders{told}", cursor=cursor)
        return dg.SensorResult([_intake_request("landing_sensor", fresh)], cursor=cursor)

    return sensor


def _last_succeeded(instance: dg.DagsterInstance, sensor: str) -> bool:
    """Whether the last run that the sensor asked for did what it was to do."""
    records = instance.get_run_records(dg.RunsFilter(tags={REQUESTED_BY: sensor}), limit=1)
    return bool(records) and records[0].dagster_run.status == dg.DagsterRunStatus.SUCCESS


def _state(files: Iterable[input_files.InputFile]) -> str:
    """A hash that changes when a file comes, goes or changes, or when what is known of a file is judged otherwise."""
    lines = "\n".join([_JUDGED, *(f"{file.path}\t{file.fingerprint}" for file in files)])
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def mlflow_sensor() -> dg.SensorDefinition:
    """Asks for intake of runs and metrics when MLflow has something new."""
    streams = [name for name, stream in STREAMS.items() if stream.from_mlflow]

    @dg.sensor(
        name="mlflow_sensor",
        target=[key(f"duckdb/intake_{name}") for name in streams],
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for new, changed, deleted and restored runs in MLflow and has them taken in.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, postgres: PostgresResource, mlflow: MLflowResource
    ) -> dg.SensorResult:
        if reason := _reason_to_wait(context.instance, "mlflow_sensor"):
            return dg.SensorResult(skip_reason=reason, cursor=context.cursor)
        if not mlflow.is_made:
            return dg.SensorResult(skip_reason="nothing has been logged to MLflow yet")
        # Taken before the comparison, so that what comes in between is seen by the next tick.
        file = mlflow.database
        state = _file_state(file) if file else ""
        again = due.streams_to_read_again(postgres).intersection(streams)
        if state and state == context.cursor and not again:
            return dg.SensorResult(skip_reason="MLflow's file has not changed", cursor=state)
        fresh = due.new_runs(mlflow, postgres)
        if not fresh:
            return dg.SensorResult(skip_reason="no new or changed runs in MLflow", cursor=state)
        return dg.SensorResult([_intake_request("mlflow_sensor", fresh)], cursor="")

    return sensor


def _file_state(file: Path) -> str:
    """Changes with every commit to a SQLite file."""
    parts = [part.stat() for part in (file, file.with_name(f"{file.name}-wal")) if part.exists()]
    return " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in parts)


def _intake_request(sensor: str, fresh: Mapping[str, int]) -> dg.RunRequest:
    return dg.RunRequest(
        asset_selection=[key(f"duckdb/intake_{name}") for name in fresh],
        tags={REQUESTED_BY: sensor, **{f"ml_assets/new_{name}": str(count) for name, count in fresh.items()}},
    )


def touched_days_sensor() -> dg.SensorDefinition:
    """Asks for the raw tables of the days that intake touched, and in the same run for all that follows from them.

    The automation conditions would ask for the same, but later, and in a process of its own for each step down.
    """

    @dg.sensor(
        name="touched_days_sensor",
        target=dg.AssetSelection.assets(*(key(f"duckdb/raw_{name}") for name in STREAMS)).downstream(),
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Has the raw tables of touched days rebuilt, and what follows from them: few runs, each over a range of days."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SensorResult:
        if reason := _reason_to_wait(context.instance, "touched_days_sensor"):
            return dg.SensorResult(skip_reason=reason)
        asked = due.rebuilds(due.due_days(postgres))[:MAX_REQUESTS]
        if not asked or context.repository_def is None:
            return dg.SensorResult(skip_reason="no touched days")
        repository = context.repository_def
        return dg.SensorResult([_rebuild_request(repository, each, asked[-1]) for each in asked])

    return sensor


def _rebuild_request(
    repository: dg.RepositoryDefinition, rebuild: due.Rebuild, last: due.Rebuild
) -> dg.RunRequest:
    raw = [key(f"duckdb/raw_{name}") for name in rebuild.streams]
    to_today = rebuild.days is not None and rebuild.days.last >= datetime.now(UTC).date()
    return dg.RunRequest(
        asset_selection=with_following(repository, raw, whole=rebuild is last, to_today=to_today),
        tags={REQUESTED_BY: "touched_days_sensor", **(rebuild.days.tags if rebuild.days else {})},
    )


def with_following(
    repository: dg.RepositoryDefinition, built: Iterable[dg.AssetKey], whole: bool, to_today: bool = False
) -> list[dg.AssetKey]:
    """Tables with those that follow from them by themselves.

    A table that looks back on earlier days changes on later days than those of the run, which has one range for all its
    tables: it is left to its automation condition, and with it what is built from it by day. Unless the range ends with
    today, which is the usual case: then there are no later days.

    Args:
        to_today: whether the run's range of days ends with today.
        whole: tables without days as well. They read all days, so they follow once, after the last range of days.
    """
    graph = repository.asset_graph
    found = dict.fromkeys(built)
    later: set[dg.AssetKey] = set()
    for child in graph.toposorted_asset_keys:
        node = graph.get(child)
        if node.automation_condition is None or not (found.keys() | later) & node.parent_keys:
            continue
        label = node.automation_condition.get_label()
        windowed = label == WINDOWED.get_label()
        if not to_today and (windowed or (node.is_partitioned and later & node.parent_keys)):
            later.add(child)
        elif label in FOLLOWING and (node.is_partitioned or whole) and found.keys() & node.parent_keys:
            found[child] = None
    return list(found)


def _reason_to_wait(instance: dg.DagsterInstance, sensor: str) -> str | None:
    """Why nothing may be asked for now: a request is under way, or the last ones failed."""
    mine = {REQUESTED_BY: sensor}
    if instance.get_runs_count(dg.RunsFilter(tags=mine, statuses=_UNDER_WAY)):
        return "the run that was asked for before is not finished"
    records = instance.get_run_records(dg.RunsFilter(tags=mine), limit=_REMEMBERED)
    failures = 0
    for record in records:
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if not failures:
        return None
    wait = min(FIRST_WAIT_S * 2 ** (failures - 1), LONGEST_WAIT_S)
    left = (records[0].end_time or 0) + wait - time.time()
    if left <= 0:
        return None
    run_id = records[0].dagster_run.run_id
    return f"run {run_id} failed, {failures} in a row; next try in {left:.0f} s"
