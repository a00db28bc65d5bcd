"""The watch on runs: what is wrong with those that run or have just ended, each time told once.

What belongs here: which runs are watched, and the episodes of what was found, which are kept in PostgreSQL. What is
wrong with a run is judged by lib/run_health.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.experiments import RUNS
from ml_assets.errors import missing_table
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.run_health import Finding, Metric, findings
from ml_assets.operations import metric_files
from ml_assets.sql_files import read_sql
from ml_assets.stores.touched_days import LOCK_SPACE, ensure_tables

if TYPE_CHECKING:
    import duckdb
    import psycopg
    import pyarrow as pa

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

ENDED = timedelta(days=7)
"""How long a run that has ended is watched: a run of last month that was NaN is nobody's news."""

MOST_RUNS = 10_000
"""Runs that are watched, the newest first."""

_LOCK = 20
"""Advisory lock of the episodes, beside those of stores/touched_days.py: two who look at once open one episode."""


def check_runs(
    lake: "DuckLakeResource", postgres: "PostgresResource", rules: MetricRules, reader: str, now: datetime
) -> "pa.Table":
    """Look at the watched runs, keep what is found, and tell what is open.

    Args:
        rules: which metrics fall.
        reader: who is told; each is told of an episode as `new` once.
        now: aware.

    Returns:
        Open episodes, in the order in which they began: run_id, kind, since, opened_at, last_seen_at, evidence, new.

    Raises:
        StoreUnavailable: `postgres/ml_experiments` was never materialized, or a store does not answer.
    """
    import pyarrow as pa
    from psycopg.rows import dict_row

    ensure_schema(postgres)
    with postgres.connect(write=True) as connection:
        # Before anything is read: whoever comes second sees what the first one wrote.
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_SPACE, _LOCK))
        runs = _watched(connection, now)
        metrics = _metrics(lake, postgres, [run["run_id"] for run in runs])
        found = [
            finding for run in runs for finding in findings(run, metrics.get(run["run_id"], {}), rules, now)
        ]
        keep(connection, found, now)
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(read_sql("postgres/findings/tell.sql"), {"reader": reader}).fetchall()
    time = pa.timestamp("us", "UTC")
    kinds = {"since": time, "opened_at": time, "last_seen_at": time, "new": pa.bool_()}
    names = ("run_id", "kind", "since", "opened_at", "last_seen_at", "evidence", "new")
    return pa.Table.from_pylist(rows, pa.schema([(name, kinds.get(name, pa.string())) for name in names]))


def ensure_schema(postgres: "PostgresResource") -> None:
    """Create the table of episodes; one cheap look if it is there."""
    ensure_tables(postgres, "ml_run_findings", "postgres/findings/schema.sql")


def keep(connection: "psycopg.Connection", found: Sequence[Finding], now: datetime) -> None:
    """Open, continue and close episodes so that those that are open are the findings."""
    columns = {
        "run_ids": [finding.run_id for finding in found],
        "kinds": [finding.kind for finding in found],
        "sinces": [finding.since for finding in found],
        "evidence": [finding.evidence for finding in found],
        "now": now,
    }
    connection.execute(read_sql("postgres/findings/close.sql"), columns)
    connection.execute(read_sql("postgres/findings/open.sql"), columns)


def forget(postgres: "PostgresResource", run_ids: Sequence[str]) -> None:
    """Remove all episodes of these runs, as if they had never been watched."""
    ensure_schema(postgres)
    with postgres.connect(write=True) as connection:
        connection.execute("DELETE FROM ml_run_findings WHERE run_id = ANY(%s)", (list(run_ids),))


def _watched(connection: "psycopg.Connection", now: datetime) -> list[dict[str, Any]]:
    from psycopg.errors import UndefinedTable
    from psycopg.rows import dict_row

    limits = {"ended_after": now - ENDED, "limit": MOST_RUNS}
    try:
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(read_sql("postgres/findings/watched.sql"), limits).fetchall()
    except UndefinedTable as fault:
        raise missing_table(RUNS.asset) from fault


def _metrics(
    lake: "DuckLakeResource", postgres: "PostgresResource", run_ids: Sequence[str]
) -> dict[str, dict[str, Metric]]:
    found: dict[str, dict[str, Metric]] = {}
    if not run_ids:
        return found
    with lake.get_connection() as connection, lake.limit(connection, what="looking at the metrics of runs"):
        if not metric_files.there(connection):
            return found  # nothing was ever taken in: there are only runs that an application made
        # One version of the lake for all statements.
        connection.execute("BEGIN")
        files = metric_files.condition(connection, postgres, run_ids)
        for run_id, key, metric in metrics_of(connection, run_ids, files):
            found.setdefault(run_id, {})[key] = metric
    return found


def metrics_of(
    connection: "duckdb.DuckDBPyConnection", run_ids: Sequence[str], files: str = metric_files.ALL
) -> Iterator[tuple[str, str, Metric]]:
    """Run, key and what is judged of it, for each metric that these runs have logged.

    Args:
        connection: in which `raw.raw_metrics` is.
        run_ids: whose.
        files: condition on the rows, by which files are left out.
    """
    import pyarrow as pa

    connection.register("asked", pa.table({"run_id": pa.array(run_ids, pa.string())}))
    rows = connection.execute(
        read_sql("duckdb/operations/run_health.sql").format(files=files)
    ).to_arrow_table()
    for row in rows.to_pylist():
        yield row.pop("run_id"), row.pop("key"), Metric(**row)


def counts(episodes: Sequence[Mapping[str, Any]]) -> str:
    """How many episodes there are, as a sentence."""
    new = sum(episode["new"] for episode in episodes)
    known = len(episodes) - new
    if not episodes:
        return "Nothing is wrong with the runs that are watched."
    parts = [f"{new:,} new" if new else "", f"{known:,} known" if known else ""]
    return f"Findings: {', '.join(part for part in parts if part)}."
