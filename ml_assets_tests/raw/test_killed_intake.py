"""kill -9 of an intake, wherever it stands: the next one ends in the same tables, and the accounts add up."""

import json
import multiprocessing
import random
import time
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ml_assets.contracts import STREAMS
from ml_assets.intake import files, raw
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.intake.tracking import take_in_mlflow
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets_tests.scale import KILLED_INTAKES as KILLS

if TYPE_CHECKING:
    from mlflow import MlflowClient

LARGE_BYTES = 100_000
"""So that one file of each delivery is read in bulk."""

BOUNDS = Bounds(date(2014, 1, 1), datetime(2026, 6, 30, tzinfo=UTC))

# Nothing is inherited: a process that has DuckDB in it does not survive a fork by design, only by luck.
processes = multiprocessing.get_context("spawn")

WAYS = {"files": ["performance"], "mlflow": ["runs", "metrics"]}
"""Streams that are taken in, by where rows come from."""


def take_in(way: str, home: Path, lake: DuckLakeResource, postgres: PostgresResource) -> None:
    for stream in WAYS[way]:
        if way == "files":
            take_in_files(stream, list_files(home / "landing" / stream), lake, postgres, BOUNDS)
        else:
            take_in_mlflow(stream, client(home), "store", lake, postgres, BOUNDS)


def client(home: Path) -> "MlflowClient":
    from mlflow import MlflowClient  # here, since most workers have no use for what takes seconds to import

    uri = f"sqlite:///{home}/mlflow.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def work(line: Connection, way: str, home: str, catalog: str, database: str) -> None:
    """Body of the process that is killed. What is killed is the work, not the imports before it."""
    files.LARGE_BYTES = LARGE_BYTES
    lake = DuckLakeResource(home=home, catalog_url=catalog, data_path=f"{home}/lake")
    if way == "mlflow":
        client(Path(home)).search_experiments()
    line.send("ready")
    line.recv()
    take_in(way, Path(home), lake, PostgresResource(home=home, url=database))


class Worker:
    """A process that takes in once it is told to."""

    def __init__(self, room: Any, way: str) -> None:
        self._line, theirs = processes.Pipe()
        given = (theirs, way, str(room.folder), room.lake.catalog_url, room.postgres.url)
        self.process: BaseProcess = processes.Process(target=work, args=given)
        self.process.start()

    def run(self, seconds: float | None = None) -> float:
        """Let it work, kill it after some seconds; returns how long it has worked."""
        assert self._line.recv() == "ready"
        begun = time.monotonic()
        self._line.send("go")
        self.process.join(seconds)
        worked = time.monotonic() - begun
        self.process.kill()
        self.process.join()
        return worked


def days_of(number: int) -> list[date]:
    """The days that a delivery speaks of, and no other does."""
    first = date(2026, 3, 1) + timedelta(days=2 * number)
    return [first, first + timedelta(days=1)]


def deliver_files(room: Any, number: int) -> None:
    """Two small files and a large one, with rows that repeat each other and some that break the contract."""
    for part, (count, bad) in enumerate([(300, 50), (300, 100), (2_000, 700 if number % 4 else 2_001)]):
        rows = [
            {
                "event_id": f"e{n % 250}",
                "kind": "inference",
                "timestamp": f"{days_of(number)[n % 2]}T10:00:00Z",
                "inference_time_ms": n + part,
            }
            | ({"model_name": "m"} if (n + 1) % bad else {})
            for n in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        assert (len(text) > LARGE_BYTES) == (part == 2)
        room.put("performance", f"{number}/{part}.jsonl", text)


def log_runs(store: "MlflowClient", experiment: str, number: int) -> list[str]:
    """Two runs with metrics on two days, and a metric that breaks the contract."""
    from mlflow.entities import Metric

    moments = [datetime(d.year, d.month, d.day, 9, tzinfo=UTC) for d in days_of(number)]
    start, late = (int(moment.timestamp() * 1_000) for moment in moments)
    ids = []
    for each in range(2):
        run = store.create_run(experiment, start_time=start, run_name=f"{number}/{each}")
        points = [Metric("loss", 1.0 / (n + 1), (late if n > 40 else start) + n, n) for n in range(50)]
        store.log_batch(run.info.run_id, [*points, Metric("bad", 1.0, 1_000, 0)])
        ids.append(run.info.run_id)
    return ids


def held(room: Any, way: str, number: int, item_names: list[str]) -> dict[str, Any]:
    """What a delivery has become: rows of raw, rows of intake, days that are due."""
    days = days_of(number)
    found = {}
    for stream in WAYS[way]:
        names = [column.name for column in STREAMS[stream].columns]
        at = names.index(STREAMS[stream].day_column or "")
        found[stream] = (
            [row for row in room.raw(stream) if row[at].date() in days],
            [
                row
                for row in room.intake(stream, "unit, line, day, quarantine_reason")
                if row[0] in item_names
            ],
            [day for day in room.due(stream) if date.fromisoformat(day) in days],
        )
    return found


@pytest.mark.timeout(600)
def test_kills(room, monkeypatch):
    """Deliveries one after the other, each killed once; compared with an intake that nobody disturbed."""
    monkeypatch.setattr(files, "LARGE_BYTES", LARGE_BYTES)
    store = client(room.folder)
    experiment = store.create_experiment("mine", artifact_location=(room.folder / "artifacts").as_uri())
    # Every fourth from MLflow. The first delivery of each way is for the clock: it is not killed.
    ways = ["files", "mlflow", *(("mlflow" if n % 4 == 1 else "files") for n in range(KILLS))]
    item_names = {
        number: log_runs(store, experiment, number)
        if way == "mlflow"
        else [f"{number}/{part}.jsonl" for part in range(3)]
        for number, way in enumerate(ways)
    }
    for number, way in enumerate(ways):
        if way == "files":
            deliver_files(room, number)
    for way in WAYS:
        take_in(way, room.folder, room.lake, room.postgres)
    expected = [held(room, way, number, item_names[number]) for number, way in enumerate(ways)]
    assert all(raw_rows and days for each in expected for raw_rows, _, days in each.values())

    room.empty()
    for number, way in enumerate(ways):
        if way == "mlflow":
            for run_id in item_names[number]:
                store.delete_run(run_id)
    dice = random.Random(4)  # noqa: S311 - points of time, not secrets
    seconds: dict[str, float] = {}
    unfinished = 0
    worker = Worker(room, ways[0])
    for number, way in enumerate(ways):
        if way == "files":
            deliver_files(room, number)
        else:
            for run_id in item_names[number]:
                store.restore_run(run_id)
        # Spread over the time that an undisturbed one takes.
        point = seconds.get(way, 0) * ((number * 7) % KILLS + dice.random()) / KILLS
        worked = worker.run(point if way in seconds else None)
        if worker.process.exitcode == 0:
            seconds[way] = min(worked, seconds.get(way, worked))
        unfinished += worker.process.exitcode != 0
        if number + 1 < len(ways):
            worker = Worker(room, ways[number + 1])  # imports while we look at what this one has left

        take_in(way, room.folder, room.lake, room.postgres)
        assert held(room, way, number, item_names[number]) == expected[number], number
        for stream in WAYS[way]:
            assert raw.unbalanced_intake(room.postgres, room.lake, stream) == []
            room.rebuild(stream)
            assert room.due(stream) == []
            assert raw.unbalanced_raw(room.postgres, room.lake, stream) == []
    print(f"{unfinished} of {KILLS} kills fell inside the intake")
    assert unfinished >= KILLS * 3 // 4
    for streams in WAYS.values():
        for stream in streams:
            assert room.table(stream) == room.raw(stream)
