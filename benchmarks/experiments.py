"""How fast are questions on many runs? Searches in PostgreSQL, beside MLflow's own `search_runs` on fewer of them.

A million runs with 20 parameters and 20 metrics each, made in the engine; ten questions at a selectivity of 0.01, 1
and 50 %: at most 50 ms at the median and 100 ms at the 95th percentile (goal), and at least 20 times faster at the
median than MLflow with 20,000 runs in SQLite. A comparison of 1,000 runs in at most 1 s (goal). Repeat with
`python -m benchmarks experiments`; `ML_ASSETS_BENCH_RUNS` makes fewer runs.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.limits import finish, verdict, within
from ml_assets import connect, services
from ml_assets.contracts.experiments import RUN_METRICS, RUN_PARAMS, RUNS
from ml_assets.resources import store_resources
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stores.postgres_table import ensure_table

COUNT = int(os.environ.get("ML_ASSETS_BENCH_RUNS", "1_000_000"))
PEER_COUNT = min(COUNT, 20_000)
KEYS = 20
SELECTIVITIES = (0.0001, 0.01, 0.5)
REPEATS = 5
PAGE = 100
COMPARED = 1_000

MEDIAN_MS, P95_MS, TIMES_MLFLOW, COMPARE_S = 50.0, 100.0, 20.0, 1.0

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
APART = timedelta(seconds=30)

SHARE = """CASE WHEN n % 10000 = 0 THEN '0.0001' WHEN n % 100 = 1 THEN '0.01' WHEN n % 2 = 0 THEN '0.5' ELSE '1' END"""
"""SQL of a parameter that is a text, by run `n`; each text but the last is as frequent as it says."""

QUESTIONS: dict[str, Callable[[float], tuple[str, str]]] = {
    "best": lambda s: (f"metrics.m0.best < {s}", "created_at DESC"),
    "last": lambda s: (f"metrics.m1 > {1 - s}", "created_at DESC"),
    "range": lambda s: (f"metrics.m2.mean BETWEEN 0.25 AND {0.25 + s}", "created_at DESC"),
    "parameter as number": lambda s: (f"params.p0 < {s}", "created_at DESC"),
    "parameter as text": lambda s: (f"params.share = '{s:g}'", "created_at DESC"),
    "time": lambda s: (f"created_at >= '{(FIRST + COUNT * (1 - s) * APART).isoformat()}'", "created_at DESC"),
    "and": lambda s: (f"metrics.m3.best < {s**0.5} AND metrics.m4.best < {s**0.5}", "created_at DESC"),
    "or": lambda s: (f"metrics.m5.best < {s / 2} OR params.p2 < {s / 2}", "created_at DESC"),
    "in its order": lambda s: (f"status = 'completed' AND metrics.m6 < {s}", "metrics.m6"),
    "in another order": lambda s: (f"NOT metrics.m7.min >= {s}", "metrics.m8.best DESC"),
}
"""Filter and order by selectivity. All values of a key are spread evenly over 0 to 1."""

ASKED_OF_MLFLOW: dict[str, Callable[[float], tuple[str, str]]] = {
    "last": lambda s: (f"metrics.m1 > {1 - s}", "attributes.start_time DESC"),
    "parameter as text": lambda s: (f"params.share = '{s:g}'", "attributes.start_time DESC"),
    "and": lambda s: (
        f"metrics.m3 < {s**0.5} and metrics.m4 < {s**0.5}",
        "attributes.start_time DESC",
    ),
    "in its order": lambda s: (f"attributes.status = 'FINISHED' and metrics.m6 < {s}", "metrics.m6 ASC"),
}
"""Those of the questions that MLflow's language can ask."""


def main() -> None:
    """Make the runs, ask, compare, and ask MLflow."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        settings = Settings(home=home)
        started = time.monotonic()
        _make(store_resources(settings)["postgres"])
        print(f"{COUNT:,} runs with {KEYS} parameters and metrics made in {time.monotonic() - started:.0f} s")
        stack = connect(settings=settings)

        def ask(filter: str, order: str) -> None:
            stack.experiments.search(filter, order_by=order, limit=PAGE)

        ours = dict(_asked(QUESTIONS, ask))
        took = sorted(ms for several in ours.values() for ms in several)
        median, p95 = statistics.median(took), took[int(0.95 * (len(took) - 1))]
        print(
            f"median {median:7.1f} ms  ({verdict('search, median ms', median, MEDIAN_MS)} {MEDIAN_MS:.0f} ms)"
        )
        print(f"p95    {p95:7.1f} ms  ({verdict('search, p95 ms', p95, P95_MS)} {P95_MS:.0f} ms)")

        ids = [run["run_id"] for run in stack.experiments.search("", limit=COMPARED)]
        started = time.monotonic()
        stack.experiments.compare(ids, metric="m0")
        seconds = time.monotonic() - started
        told = verdict("compare, seconds", seconds, COMPARE_S)
        print(f"compare {len(ids):,} runs {seconds:5.2f} s  ({told} {COMPARE_S:.0f} s)")

        _beside_mlflow(settings, ours)
    finally:
        services.stop_all(home)
        shutil.rmtree(home)
    finish()


def _asked(
    questions: dict[str, Callable[[float], tuple[str, str]]], ask: Callable[[str, str], None]
) -> Iterator[tuple[tuple[str, float], list[float]]]:
    """Milliseconds of each question at each selectivity, the first of which may read from disk and is left out."""
    for name, question in questions.items():
        for share in SELECTIVITIES:
            took = []
            for _ in range(REPEATS + 1):
                started = time.perf_counter()
                ask(*question(share))
                took.append((time.perf_counter() - started) * 1000)
            print(f"  {name:22} {share:8.2%} {statistics.median(took[1:]):9.1f} ms  (first {took[0]:.1f} ms)")
            yield (name, share), took[1:]


def _make(postgres: PostgresResource) -> None:
    """The three tables, filled in the engine."""
    with postgres.connect(write=True) as connection:
        connection.execute("SET LOCAL statement_timeout = 0")
        for contract in (RUNS, RUN_METRICS, RUN_PARAMS):
            ensure_table(connection, contract)
        run = "('run ' || n)"
        at = f"(timestamptz '{FIRST.isoformat()}' + n * interval '{APART.total_seconds()} seconds')"
        metrics = ", ".join(f"'m{k}', {_value(k)}" for k in range(KEYS))
        params = ", ".join(f"'p{k}', {_value(k + KEYS)}::text" for k in range(KEYS - 1))
        runs = f"FROM generate_series(0, {COUNT - 1}) AS n"
        for statement in (
            f"INSERT INTO ml_experiments (id, experiment, name, model_name, model_type, dataset, status, parameters, "
            f"metrics, created_at, completed_at, origin) SELECT {run}, 'experiment ' || n % 50, {run}, "
            f"'model ' || n % 20, 'mlp', 'dataset ' || n % 10, 'completed', "
            f"jsonb_build_object({params}, 'share', {SHARE}), jsonb_build_object({metrics}), "
            f"{at}, {at} + interval '10 minutes', 'graph' {runs}",
            *(
                f"INSERT INTO ml_run_metrics (run_id, key, last, best, min, max, mean, count, last_step, created_at, "
                f"origin) SELECT {run}, 'm{k}', v, v, v, v, v, 1, 0, {at}, 'graph' "
                f"{runs}, LATERAL (SELECT {_value(k)} AS v) AS one"
                for k in range(KEYS)
            ),
            *(
                f"INSERT INTO ml_run_params (run_id, key, text, number, created_at, origin) "
                f"SELECT {run}, 'p{k}', v::text, v, {at}, 'graph' {runs}, LATERAL (SELECT {_value(k + KEYS)} AS v) AS one"
                for k in range(KEYS - 1)
            ),
            f"INSERT INTO ml_run_params (run_id, key, text, number, created_at, origin) "
            f"SELECT {run}, 'share', {SHARE}, ({SHARE})::double precision, {at}, 'graph' {runs}",
        ):
            connection.execute(statement.encode())
    with postgres.statements() as connection:
        connection.execute("SET statement_timeout = 0")
        for contract in (RUNS, RUN_METRICS, RUN_PARAMS):
            connection.execute(f"VACUUM ANALYZE {contract.table}".encode())


def _value(key: int) -> str:
    """SQL of run `n`'s value: each of 0, 1/COUNT, 2/COUNT ... once, in an order of the key's own."""
    return f"(((n::bigint * 7919 + {key} * 104729) % {COUNT})::double precision / {COUNT})"


def _beside_mlflow(settings: Settings, ours: dict[tuple[str, float], list[float]]) -> None:
    """The first runs in MLflow's SQLite, put there in the engine, and the questions that both can be asked."""
    import sqlite3

    client = MLflowResource(home=str(settings.home)).client()
    experiment = client.create_experiment("peer")
    file = settings.home / "mlflow" / "mlflow.db"
    first = int(FIRST.timestamp() * 1000)
    apart = int(APART.total_seconds() * 1000)
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TEMP TABLE numbers AS WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c "
            f"WHERE n + 1 < {PEER_COUNT}) SELECT n FROM c"
        )
        connection.execute(
            "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, "
            "end_time, source_version, lifecycle_stage, artifact_uri, experiment_id) "
            f"SELECT printf('%032d', n), 'run ' || n, 'LOCAL', '', '', 'bench', 'FINISHED', {first} + n * {apart}, "
            f"{first} + n * {apart} + 600000, '', 'active', '', ? FROM numbers",
            [experiment],
        )
        for k in range(KEYS):
            value = f"CAST((n * 7919 + {k} * 104729) % {PEER_COUNT} AS REAL) / {PEER_COUNT}"
            for table in ("metrics", "latest_metrics"):
                connection.execute(
                    f"INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid) "
                    f"SELECT 'm{k}', {value}, {first} + n * {apart}, 0, 0, printf('%032d', n) FROM numbers"
                )
            name = "share" if k == KEYS - 1 else f"p{k}"
            connection.execute(
                "INSERT INTO params (key, value, run_uuid) "
                f"SELECT '{name}', {SHARE if name == 'share' else value}, printf('%032d', n) FROM numbers"
            )
        connection.execute("ANALYZE")

    def ask(filter: str, order: str) -> None:
        client.search_runs([experiment], filter, order_by=[order], max_results=PAGE)

    print(f"MLflow's search_runs, {PEER_COUNT:,} runs in SQLite")
    theirs = dict(_asked(ASKED_OF_MLFLOW, ask))
    medians = [statistics.median(ms for key in theirs for ms in side[key]) for side in (theirs, ours)]
    times = medians[0] / medians[1]
    told = "within" if within("times faster than MLflow", times, TIMES_MLFLOW, at_least=True) else "BELOW"
    print(
        f"median of these {medians[0]:.1f} ms, ours {medians[1]:.1f} ms: {times:.0f} times ({told} {TIMES_MLFLOW:.0f})"
    )


if __name__ == "__main__":
    main()
