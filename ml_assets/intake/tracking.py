"""This module takes in the runs and metrics of an MLflow tracking store.

It asks the ledger which runs are new, changed or gone; mlflow_reader.py reads MLflow. A run is one content, and its
metric history is another. The new content of a run that changed replaces its former content.
"""

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa

from ml_assets.contracts import STREAMS
from ml_assets.intake import ledger, mlflow_reader
from ml_assets.intake.ingest import STAGE, Ingest, IntakeReport, Lake, ingesting
from ml_assets.intake.judge import Bounds, judge_rows
from ml_assets.intake.ledger import KnownPlace, Place
from ml_assets.intake.mlflow_files import FileLister
from ml_assets.intake.mlflow_reader import History
from ml_assets.lib.sql import quote_identifier
from ml_assets.stores import touched_days
from ml_assets.stores.touched_days import Postgres

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH_RUNS = 1_000
"""Runs that share a commit."""

BATCH_POINTS = 500_000
"""Points after which a commit is due."""

_READ_AS = "files "
"""Stands before the mark of a run. To change it has every run read again that the store still has: those of before
have no list of their files."""

_NO_TIME = ", no time in milliseconds since 1970; log it in milliseconds"


def take_in_mlflow(
    stream_name: str, client: "MlflowClient", root: str, lake: Lake, postgres: Postgres, bounds: Bounds
) -> IntakeReport:
    """Take in every new or changed run of a tracking store, or its metrics; withdraw what was deleted there.

    Args:
        stream_name: `runs` or `metrics`.
        root: the store's address without password; runs of other stores are left alone.

    Raises:
        IntakeBusy: another process takes in the same stream.
    """
    stream = STREAMS[stream_name]
    report = IntakeReport()
    places = _known_places(postgres, stream_name, root)
    marks = _marks(client, stream_name)
    fresh = {run_id: mark for run_id, mark in marks.items() if _is_fresh(places.get(run_id), mark)}
    gone = [run_id for run_id, place in places.items() if run_id not in marks and not place.retired]
    if not fresh and not gone:
        return report
    with ingesting(stream, lake, postgres, bounds, report) as ingest:
        if stream_name == "runs":
            _take_runs(ingest, client, root, fresh)
        else:
            _take_histories(ingest, client, root, fresh)
        if gone:
            ingest.withdraw(root, gone)
    return report


def pending_runs(client: "MlflowClient", root: str, postgres: Postgres) -> dict[str, int]:
    """How many runs of a store are new, changed, deleted or restored, for `runs` and for `metrics`."""
    found = {}
    for stream in ("runs", "metrics"):
        now = _marks(client, stream)
        places = _known_places(postgres, stream, root)
        before = {run_id: place.fingerprint for run_id, place in places.items() if not place.retired}
        found[stream] = sum(before.get(run_id) != now.get(run_id) for run_id in before.keys() | now.keys())
    return found


def _marks(client: "MlflowClient", stream: str) -> dict[str, str]:
    if stream == "metrics":
        return mlflow_reader.history_marks(client)
    return {run_id: f"{_READ_AS}{mark}" for run_id, mark in mlflow_reader.run_marks(client).items()}


def _known_places(postgres: Postgres, stream: str, root: str) -> dict[str, KnownPlace]:
    touched_days.ensure_schema(postgres)
    with postgres.connect() as connection:
        return ledger.known_places(connection, stream, root)


def _is_fresh(place: KnownPlace | None, mark: str) -> bool:
    """Whether a run is new, changed or restored."""
    return place is None or place.retired or place.fingerprint != mark


def _take_runs(ingest: Ingest, client: "MlflowClient", root: str, marks: Mapping[str, str]) -> None:
    lister = FileLister(client, ingest.bounds.files)
    read = mlflow_reader.read_runs(client, marks)
    runs = (mlflow_reader.with_files(run, lister.files_of(run)) for run in read)
    while some := list(islice(runs, BATCH_RUNS)):
        places = {Place(root, run.run_id, marks[run.run_id]): run.content_hash for run in some}
        batch = mlflow_reader.run_batch(some)
        _take(ingest, places, [batch], dict.fromkeys(places.values(), 1))


def _take_histories(ingest: Ingest, client: "MlflowClient", root: str, marks: Mapping[str, str]) -> None:
    pending: list[History] = []
    points = 0

    def flush() -> None:
        places = {Place(root, h.run_id, marks[h.run_id]): h.content_hash for h in pending}
        batches = [mlflow_reader.history_batch(history) for history in pending]
        _take(ingest, places, batches, {h.content_hash: len(h.keys) for h in pending})
        pending.clear()

    for history in mlflow_reader.read_histories(client, list(marks)):
        pending.append(history)
        points += len(history.keys)
        if points >= BATCH_POINTS:
            flush()
            points = 0
    if pending:
        flush()


def _take(
    ingest: Ingest, places: Mapping[Place, str], batches: list[pa.RecordBatch], counts: Mapping[str, int]
) -> None:
    """Take in rows in one commit."""
    fresh = ingest.claim(places, "mlflow")
    schema = batches[0].schema
    column_names = {column.name for column in ingest.stream.columns}
    types = {field.name: _duckdb_type(field) for field in schema if field.name in column_names}
    times = [name for name in types if name in mlflow_reader.TIMES]
    moments = ", ".join(
        f"CASE WHEN {_is_time(name)} THEN make_timestamptz({name} * 1000) END AS {name}" for name in times
    )
    faults = " ".join(
        f"WHEN NOT {_is_time(name)} THEN concat('{name} is ', {name}, '{_NO_TIME}')" for name in times
    )
    logged = ", ".join(f"{name} AS logged_{name}" for name in times)
    source = (
        f"(SELECT * REPLACE ({moments}), {logged}, CASE {faults} END AS broken "
        "FROM arriving WHERE unit_hash IN (SELECT unnest($fresh::VARCHAR[])))"
    )
    packed = ", ".join(
        f"{quote_identifier(name)} := {quote_identifier(f'logged_{name}' if name in times else name)}"
        for name in types
    )
    select = judge_rows(
        ingest.stream, source, types, raw_text=f"to_json(struct_pack({packed}))::VARCHAR", list_files=False
    )
    ingest.insert(STAGE, select, (schema, batches), fresh=list(fresh))
    ingest.commit_stage(places, fresh, counts)


def _is_time(name: str) -> str:
    """SQL: whether a number of milliseconds is a moment that has a date."""
    return f"{name} BETWEEN -62135596800000 AND 253402300799999"


def _duckdb_type(field: pa.Field) -> str:
    if field.name in mlflow_reader.TIMES:
        return "TIMESTAMP WITH TIME ZONE"
    return {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE"}[str(field.type)]
