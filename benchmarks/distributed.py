"""A backfill of 60 days shared by two machines of one core each, against one of them.

Both take steps by Celery from servers over TCP; each machine is a worker that is held to a core of its own, in a network
namespace where the system lets one be made. Four runs of 15 days each are launched at once.
Time counts from the first step that begins to the last that ends, by Dagster's own history; all runs have been launched
by then. The limit is for two cores that are free, and here servers and launchers share them: at 2,000 rows a day and
stream, where a step is done in half a second, that is what takes most, and two machines need 0.70 of the time of one.
Repeat with `python -m benchmarks distributed`.
"""

import json
from collections.abc import Sequence
from datetime import date, timedelta

import psycopg

from benchmarks.limits import finish, verdict
from ml_assets.lib.days import DayRange
from ml_assets_tests import cluster

DAYS, PIECES, A_DAY = 60, 4, 20_000
FIRST = date(2026, 3, 1)
LIMIT = 0.65
RAW = ("duckdb/raw_performance", "duckdb/raw_predictions")
TABLES = (*RAW, "duckdb/ml_predictions", "duckdb/prediction_quality", "duckdb/model_performance_events")

_SPAN = """
SELECT extract(epoch FROM max(timestamp) - min(timestamp)) FROM event_logs JOIN runs USING (run_id)
WHERE dagster_event_type IN ('STEP_START', 'STEP_SUCCESS') AND run_id <> ALL (%s)
"""

_WAITING = """
SELECT count(*) FROM event_logs
WHERE dagster_event_type = 'ENGINE_EVENT' AND event LIKE '%%Submitting celery task%%' AND run_id <> ALL (%s)
"""


def main() -> None:
    """The same backfill by one machine, then by two."""
    one, two = (_seconds(names) for names in (["a"], ["a", "b"]))
    told = verdict("two machines", two / one, LIMIT)
    print(f"{DAYS} days of {2 * A_DAY:,} rows in {PIECES} runs")
    print(f"one machine  {one:7.1f} s")
    print(f"two machines {two:7.1f} s  {two / one:.2f} of it ({told} the limit of {LIMIT})")


def _seconds(names: Sequence[str]) -> float:
    """How long these machines take."""
    with cluster.running() as servers:
        servers.urls["ML_ASSETS_CELERY_LOST_AFTER_S"] = "120"  # steps wait for the last run to be launched
        machines = [servers.machine(name) for name in names]
        home = machines[0]
        _land(home)
        home.worker("home", "dagster")
        home.run(*home.materialize("duckdb/intake_performance,duckdb/intake_predictions"))
        home.kill()
        with psycopg.connect(servers.urls["DAGSTER_POSTGRES_URL"], autocommit=True) as history:
            before = [run for (run,) in history.execute("SELECT run_id FROM runs")]
            launched = [home.start(*home.materialize(",".join(TABLES), days)) for days in _pieces()]
            # What the start of a run costs is not what machines share: all wait before the first step is taken.
            cluster.until(
                lambda: history.execute(_WAITING, [before]).fetchone() == (PIECES * len(RAW),),
                "the runs to submit their first steps",
                home.log,
            )
            for core, machine in enumerate(machines):
                machine.cores = [core]
                machine.start_worker("dagster", "clickhouse")
            for process in launched:
                assert process.wait(timeout=3_600) == 0, home.log()[-6000:]
            statuses = {status for (status,) in history.execute("SELECT status FROM runs")}
            assert statuses == {"SUCCESS"}, statuses
            (seconds,) = history.execute(_SPAN, [before]).fetchone() or (0,)
        return float(seconds)


def _pieces() -> list[str]:
    length = DAYS // PIECES
    starts = [FIRST + timedelta(days=n * length) for n in range(PIECES)]
    return [f"{start}...{start + timedelta(days=length - 1)}" for start in starts]


def _land(machine: cluster.Machine) -> None:
    """A file of each stream."""
    days = DayRange(FIRST, FIRST + timedelta(days=DAYS - 1)).days()
    at = [f"{day}T{n % 24:02d}:{n // 24 % 60:02d}:00Z" for day in days for n in range(A_DAY)]
    model = {"model_name": "dogs", "model_version": "1"}
    answer = {"prediction": "dog", "confidence": 0.9, "label": "dog", "input_features": {"legs": 4}}
    rows = {
        "performance": (
            {"event_id": f"e{n}", "kind": "inference", "timestamp": time, "inference_time_ms": 2.5, **model}
            for n, time in enumerate(at)
        ),
        "predictions": (
            {"prediction_id": f"p{n}", "created_at": time, **answer, **model} for n, time in enumerate(at)
        ),
    }
    for stream, each in rows.items():
        file = machine.home / "landing" / stream / "rows.jsonl"
        file.parent.mkdir(parents=True)
        with file.open("w") as lines:
            lines.writelines(f"{json.dumps(row)}\n" for row in each)


if __name__ == "__main__":
    main()
    finish()
