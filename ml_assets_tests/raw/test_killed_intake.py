"""kill -9 of an intake, wherever it stands: the next one ends in the same tables, and the accounts add up."""

import json
import multiprocessing
import random
import time
from datetime import UTC, date, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path

from ml_assets.lib.intake import raw
from ml_assets.lib.intake.files import take_in_files
from ml_assets.lib.intake.judge import Bounds
from ml_assets.lib.intake.landing import list_files
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource

KILLS = 20
ROWS = 3_000
FILES = 4

# Processes that have imported everything already: what is killed is the work, not the import.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["ml_assets.lib.intake.files", "ml_assets.resources.duckdb", "psycopg", "duckdb"]
)


def take_in(home: str, catalog: str, database: str) -> None:
    lake = DuckLakeResource(home=home, catalog_url=catalog, data_path=f"{home}/lake")
    bounds = Bounds(date(2014, 1, 1), datetime(2026, 6, 30, tzinfo=UTC))
    listing = list_files(Path(home) / "landing" / "performance")
    take_in_files("performance", listing, lake, PostgresResource(home=home, url=database), bounds)


def started(room) -> BaseProcess:
    process = processes.Process(
        target=take_in, args=(str(room.folder), room.lake.catalog_url, room.postgres.url)
    )
    process.start()
    return process


def undisturbed(room) -> float:
    """Take in by a process of its own; returns the seconds."""
    begun = time.monotonic()
    process = started(room)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


def fill(room) -> None:
    for file in range(FILES):
        day = f"2026-05-{file + 1:02d}T10:00:00Z"
        rows = [
            {"event_id": f"e{n % 2_500}", "kind": "inference", "timestamp": day, "inference_time_ms": n}
            | ({"model_name": "m"} if n % 100 else {})
            for n in range(ROWS)
        ]
        room.put("performance", f"{file}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def test_twenty_kills(room):
    fill(room)
    undisturbed(room)
    expected = room.raw("performance")
    assert len(expected) == FILES * 2_475
    room.empty()
    fill(room)
    seconds = undisturbed(room)
    assert room.raw("performance") == expected

    dice = random.Random(4)  # noqa: S311 - points of time, not secrets
    unfinished = 0
    for kill in range(KILLS):
        if kill % 2 == 0:
            # From the start again, so that late points do not meet work that is done already; but each second
            # one meets what the one before it has left.
            room.empty()
            fill(room)
        begun = time.monotonic()
        process = started(room)
        # Spread over the time that an undisturbed one takes, the quickest so far.
        process.join(seconds * ((kill * 7) % KILLS + dice.random()) / KILLS)
        if kill % 2 == 0 and process.exitcode == 0:
            seconds = min(seconds, time.monotonic() - begun)
        process.kill()
        process.join()
        unfinished += process.exitcode != 0
    print(f"{unfinished} of {KILLS} kills fell inside the intake")
    assert unfinished > KILLS // 2
    undisturbed(room)

    assert room.raw("performance") == expected
    assert raw.unbalanced_intake(room.postgres, room.lake, "performance") == []
    assert len(room.intake("performance", "line")) == FILES * ROWS
    assert len(room.quarantine("performance")) == FILES * ROWS // 100
