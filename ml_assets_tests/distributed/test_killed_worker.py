"""Two machines share a backfill, with nothing in common but URLs; one is killed in the middle, and nothing is lost."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
import redis

from ml_assets.contracts import Contract
from ml_assets.intake.raw import unbalanced_intake, unbalanced_raw
from ml_assets.resources import store_resources
from ml_assets.settings import Settings
from ml_assets.stores.duckdb.write import writing
from ml_assets_tests import cluster
from ml_assets_tests.scale import BACKFILLED_DAYS

pytestmark = pytest.mark.timeout(1800)  # a dozen processes, on machines that do other things as well

FIRST = date(2026, 3, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(BACKFILLED_DAYS)]
A_DAY = 5
"""Rows of each stream."""

STREAMS = {
    "runs": "run_id",
    "metrics": "run_id, key, step",
    "performance": "event_id",
    "predictions": "prediction_id",
}
TABLES = (
    *(f"duckdb/intake_{stream}" for stream in STREAMS),
    *(f"duckdb/raw_{stream}" for stream in STREAMS),
    *("duckdb/run_features", "duckdb/model_performance_events", "duckdb/ml_predictions"),
    *("postgres/ml_experiments", "clickhouse/ml_model_performance", "clickhouse/performance_hourly"),
)

# A step that writes a table, which a worker has begun and not ended, with the run's id.
_BEGUN = """
SELECT begun.run_id, begun.step_key FROM event_logs AS begun
WHERE begun.event LIKE '%%in celery worker%%' AND begun.event LIKE %s AND begun.step_key = ANY (%s) AND NOT EXISTS (
    SELECT FROM event_logs AS ended WHERE ended.run_id = begun.run_id AND ended.step_key = begun.step_key
        AND ended.dagster_event_type IN ('STEP_SUCCESS', 'STEP_FAILURE', 'STEP_UP_FOR_RETRY')
) AND EXISTS (
    SELECT FROM event_logs AS started WHERE started.run_id = begun.run_id AND started.step_key = begun.step_key
        AND started.dagster_event_type = 'STEP_START'
)
"""

_STARTED = "SELECT FROM event_logs WHERE dagster_event_type = 'STEP_START' AND run_id <> ALL (%s)"


@pytest.fixture(scope="module")
def servers() -> Iterator[cluster.Cluster]:
    """PostgreSQL, Valkey, ClickHouse, Chroma and an object store."""
    with cluster.running() as made, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, made.urls[name])
        yield made


def land(machine: cluster.Machine) -> None:
    """Rows of every stream and day in the landing folders of a machine."""
    for stream in STREAMS:
        rows = [row(stream, day, n) for day in DAYS for n in range(A_DAY)]
        file = machine.home / "landing" / stream / "rows.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(f"{json.dumps(each)}\n" for each in rows))


def row(stream: str, day: date, n: int) -> dict[str, object]:
    """One row; five of a stream make a day."""
    at, run = f"{day}T10:0{n}:00Z", f"r-{day}-{n}"
    model = {"model_name": "dogs", "model_version": "1"}
    return {
        "runs": {
            "run_id": run,
            "experiment": "e",
            "status": "completed",
            "created_at": at,
            "metrics": {"loss": 0.5},
        },
        "metrics": {"run_id": run, "key": "loss", "step": n, "value": 0.5, "timestamp": at},
        "performance": {
            **{"event_id": f"e-{day}-{n}", "kind": "inference", "timestamp": at, "run_id": run, **model},
            **{"inference_time_ms": 2.5, "batch_size": 1},
        },
        "predictions": {
            **{"prediction_id": f"p-{day}-{n}", "created_at": at, "input_features": {"legs": n}, **model},
            **{"prediction": "dog", "confidence": 0.9, "label": "dog"},
        },
    }[stream]


def killed_inside_a_step(machine: cluster.Machine, worker: str, history: psycopg.Connection) -> str:
    """Kill a machine while its worker writes a table; the step is returned."""
    sought = [f"%{worker}%", [table.replace("/", "__") for table in TABLES]]
    while True:
        found: list[tuple[str, str]] = []

        def begun(found: list[tuple[str, str]] = found) -> bool:
            found[:] = history.execute(_BEGUN, sought).fetchall()
            return bool(found)

        cluster.until(begun, f"{worker} to begin a step", machine.log)
        for process in machine.processes:
            os.killpg(process.pid, signal.SIGSTOP)
        # It may have ended before it was stopped.
        if still := history.execute(_BEGUN, sought).fetchall():
            machine.kill()
            return still[0][1]
        for process in machine.processes:
            os.killpg(process.pid, signal.SIGCONT)


def test_a_backfill_outlives_a_machine(servers: cluster.Cluster) -> None:
    home, other = servers.machine("a"), servers.machine("b")
    land(home)
    worker = other.worker("dagster", "clickhouse")
    home.worker("home", "dagster", "clickhouse")
    select = ",".join(TABLES)
    launched = home.start(*home.materialize(select, f"{DAYS[0]}...{DAYS[-1]}"))

    with psycopg.connect(servers.urls["DAGSTER_POSTGRES_URL"], autocommit=True) as history:
        cluster.until(lambda: _has_history(history), "Dagster's history", home.log)
        step = killed_inside_a_step(other, worker, history)
        assert launched.wait(timeout=1200) == 0, home.log()[-8000:]
        told = _messages(history)
        assert any(
            f"Step {step} is given to another worker, because worker {worker}" in text for text in told
        )
        assert history.execute("SELECT status FROM runs").fetchall() == [("SUCCESS",)]
        everything = "\n".join(text for (text,) in history.execute("SELECT event FROM event_logs"))
        everything += "\n".join(text for (text,) in history.execute("SELECT run_body FROM runs"))

    _every_row_once(servers)
    _no_password(servers, everything + home.log() + other.log())


def test_a_worker_that_is_told_to_stop_ends_its_step(servers: cluster.Cluster) -> None:
    """However long that takes, and whoever takes from its queue meanwhile."""
    for machine in servers.machines:
        machine.kill()  # whose worker would take the steps
    home, lost_after_s = servers.machine("c"), 2
    home.urls = {**servers.urls, "ML_ASSETS_CELERY_LOST_AFTER_S": str(lost_after_s)}
    file = home.home / "landing" / "performance" / "late.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(f"{json.dumps({**row('performance', FIRST, 0), 'event_id': 'late'})}\n")
    name = home.worker("home", "dagster")
    told_to_stop = home.processes[-1]
    with psycopg.connect(servers.urls["DAGSTER_POSTGRES_URL"], autocommit=True) as history:
        home.run(*home.materialize("duckdb/intake_performance"))
        before = [run for (run,) in history.execute("SELECT run_id FROM runs")]
        lake = _stores(servers)["lake"]
        with writing(lake, Contract("duckdb/raw_performance", "", (), key=())):  # so the step waits
            launched = home.start(*home.materialize("duckdb/raw_performance", f"{FIRST}...{FIRST}"))
            cluster.until(lambda: bool(history.execute(_STARTED, [before]).fetchall()), "the step", home.log)
            told_to_stop.terminate()
            told_to_stop.terminate()  # as somebody who is impatient does
            home.start_worker("home", "dagster")
            cluster.until(lambda: home.log().count(f"{name} ready.") == 2, "the next worker", home.log)
            time.sleep(4 * lost_after_s)  # for which the worker is silent to all other questions
            assert told_to_stop.poll() is None, home.log()[-8000:]
        assert launched.wait(timeout=300) == 0, home.log()[-8000:]
        assert told_to_stop.wait(timeout=60) == 0
        status = history.execute("SELECT status FROM runs WHERE run_id <> ALL (%s)", [before]).fetchall()
        assert status == [("SUCCESS",)]
    assert "is given to another worker" not in home.log()
    assert "cannot be told" not in home.log()
    with redis.Redis.from_url(servers.urls["ML_ASSETS_CELERY_BROKER_URL"]) as broker:
        assert "ending-" not in str(broker.smembers("_kombu.binding.celery.pidbox"))


def _has_history(history: psycopg.Connection) -> bool:
    found = history.execute(
        "SELECT to_regclass('event_logs') IS NOT NULL AND to_regclass('runs') IS NOT NULL"
    )
    return bool((found.fetchone() or (False,))[0])


def _messages(history: psycopg.Connection) -> list[str]:
    found = history.execute("SELECT event FROM event_logs").fetchall()
    return [json.loads(event).get("user_message") or "" for (event,) in found]


def _stores(servers: cluster.Cluster) -> dict[str, Any]:
    """The servers' stores, for a reader of its own."""
    names = (
        "postgres_url",
        "lake_url",
        "lake_data",
        "s3_endpoint",
        "clickhouse_url",
        "chroma_url",
        "redis_url",
    )
    given: dict[str, Any] = {name: servers.urls[f"ML_ASSETS_{name.upper()}"] for name in names}
    return store_resources(Settings(home=servers.folder / "reader", **given))


def _every_row_once(servers: cluster.Cluster) -> None:
    """In the lake, in PostgreSQL, in ClickHouse, and in the accounts."""
    resources = _stores(servers)
    lake, postgres, clickhouse = (resources[name] for name in ("lake", "postgres", "clickhouse"))
    expected = len(DAYS) * A_DAY
    with lake.get_connection() as connection:
        for stream, key in STREAMS.items():
            for table in (f"intake.intake_{stream}", f"raw.raw_{stream}"):
                counted = connection.execute(
                    f"SELECT count(*), count(DISTINCT ({key})) FROM {table}"
                ).fetchone()
                assert (table, counted) == (table, (expected, expected))
        for table in ("model_performance_events", "ml_predictions", "run_features"):
            counted = connection.execute(f"SELECT count(*) FROM features.{table}").fetchone()
            assert (table, counted) == (table, (expected,))
    with postgres.connect() as connection:
        counted = connection.execute("SELECT count(*), count(DISTINCT id) FROM ml_experiments").fetchone()
        assert tuple(counted) == (expected, expected)
    with clickhouse.client() as client:
        for table, key in (("ml_model_performance", "event_id"),):
            counted = client.query(f"SELECT count(), uniqExact({key}) FROM ml_metrics.{table}").result_rows
            assert counted == [(expected, expected)]
        (hours,) = client.query("SELECT sum(request_count) FROM ml_metrics.performance_hourly").result_rows
        assert hours == (expected,)
    for stream in STREAMS:
        assert unbalanced_intake(postgres, lake, stream) == []
        assert unbalanced_raw(postgres, lake, stream) == []


def _no_password(servers: cluster.Cluster, told: str) -> None:
    """Neither in Dagster's history, nor in what was printed, nor in what went through the broker."""
    for name in ("BROKER", "BACKEND"):
        with redis.Redis.from_url(servers.urls[f"ML_ASSETS_CELERY_{name}_URL"]) as kept:
            for key in kept.scan_iter():
                told += repr(kept.get(key) if kept.type(key) == b"string" else kept.dump(key))
    assert told
    assert cluster.PASSWORD not in told
    assert cluster.QUOTED not in told
    assert servers.urls["AWS_SECRET_ACCESS_KEY"] not in told
