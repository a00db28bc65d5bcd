"""Alerts: what the graph found wrong with models, and what people have said of it, in PostgreSQL.

What belongs here: the book of alerts. Which finding is which alert is decided by lib/alerts.py; they are sent by
alert_messages.py.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from ml_assets.errors import Refusal
from ml_assets.lib.alerts import (
    DriftDay,
    Drifted,
    Finding,
    Identity,
    Known,
    drift_findings,
    merged,
    regression,
)
from ml_assets.lib.leaks import span_of
from ml_assets.operations.missing_tables import is_missing_table
from ml_assets.sql_files import read_sql
from ml_assets.stores.touched_days import LOCK_SPACE, ensure_tables

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.postgres import PostgresResource
    from ml_assets.stores.touched_days import Postgres

State = Literal["open", "snoozed", "acknowledged", "closed"]

STATES: tuple[State, ...] = ("open", "snoozed", "acknowledged", "closed")

_LOCK = 22
"""Advisory lock of the book, beside those of run_watch.py and metric_files.py: two who merge at once open one alert."""


def ensure_schema(postgres: "Postgres") -> None:
    """Create the book of alerts; one cheap look if it is there."""
    ensure_tables(postgres, "ml_alert_messages", "postgres/alerts/schema.sql")


def found(clickhouse: "ClickHouseResource") -> tuple[list[Finding], set[str]]:
    """The episodes that stand in ClickHouse, and the sources that were looked at: those whose tables are there."""
    findings: list[Finding] = []
    judged: set[str] = set()
    with clickhouse.client() as client:
        if (rows := _rows(client, "clickhouse/alerts/regressions.sql")) is not None:
            judged.add("regression")
            findings += map(regression, rows)
        if (rows := _rows(client, "clickhouse/alerts/drift_days.sql")) is not None:
            judged.add("drift")
            findings += drift_findings(map(_drift_day, rows))
    return findings, judged


def _rows(client: "Client", statement: str) -> list[dict[str, Any]] | None:
    """What a query answers; None if no run has made its table yet."""
    from clickhouse_connect.driver.exceptions import DatabaseError

    try:
        return list(client.query(read_sql(statement)).named_results())
    except DatabaseError as fault:
        if is_missing_table(fault):
            return None
        raise


def _drift_day(row: dict[str, Any]) -> DriftDay:
    return DriftDay(
        row["model_name"],
        row["slice"],
        row["slice_value"],
        row["on_day"],
        [Drifted(*each) for each in row["drifted"]],
        row["drifting"],
    )


def merge(
    postgres: "PostgresResource", findings: Sequence[Finding], judged: set[str], now: datetime
) -> "pa.Table":
    """Bring the book up to date with what is found, in one transaction, and tell all alerts.

    Args:
        findings: all of them, of all times.
        judged: sources that were looked at; alerts of the others stay as they are.
    """
    import orjson

    ensure_schema(postgres)
    with postgres.connect(write=True) as connection:
        # Before anything is read: whoever comes second sees what the first one wrote.
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_SPACE, _LOCK))
        known = [
            Known(alert_id, Identity(*rest[:6]), *rest[6:])
            for alert_id, *rest in connection.execute(read_sql("postgres/alerts/known.sql")).fetchall()
        ]
        told = merged(findings, known, judged)
        rows = [
            {
                "alert_id": alert_id,
                **finding.identity._asdict(),
                **{name: value for name, value in vars(finding).items() if name != "identity"},
            }
            for alert_id, finding in told.alerts.items()
        ]
        connection.execute(read_sql("postgres/alerts/keep.sql"), {"alerts": orjson.dumps(rows).decode()})
        if told.gone:
            gone = {"alert_ids": list(told.gone), "now": now}
            connection.execute(read_sql("postgres/alerts/withdraw.sql"), gone)
        return _listed(connection, None, None, now)


def alerts(
    postgres: "PostgresResource", model_name: str | None, states: Sequence[State] | None, now: datetime
) -> "pa.Table":
    """Alerts with their state at a time, those that matter first; see `Performance.alerts`."""
    if unknown := [state for state in states or () if state not in STATES]:
        raise Refusal(f"An alert is never {unknown[0]!r}: its state is one of {', '.join(STATES)}.")
    ensure_schema(postgres)
    with postgres.connect() as connection:
        return _listed(connection, model_name, states, now)


def _listed(
    connection: "psycopg.Connection", model_name: str | None, states: Sequence[State] | None, now: datetime
) -> "pa.Table":
    import pyarrow as pa
    from psycopg.rows import dict_row

    asked = {"model_name": model_name, "states": None if states is None else list(states), "now": now}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(read_sql("postgres/alerts/list.sql"), asked).fetchall()
        names = [column.name for column in cursor.description or ()]
    kinds = {
        **dict.fromkeys(("before", "after", "change", "confidence"), pa.float64()),
        "withdrawn": pa.bool_(),
        "snoozed_until": pa.timestamp("us", "UTC"),
    }
    time = pa.timestamp("us", "UTC")
    fields = [(name, kinds.get(name, time if name.endswith("_at") else pa.string())) for name in names]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def acknowledge(postgres: "PostgresResource", alert_id: str, note: str, now: datetime) -> dict[str, Any]:
    """Note that somebody has seen an alert; see `Performance.acknowledge`."""
    return _say(postgres, alert_id, "postgres/alerts/acknowledge.sql", {"note": note}, now)


def snooze(
    postgres: "PostgresResource", alert_id: str, until: datetime | timedelta | str, now: datetime
) -> dict[str, Any]:
    """Let an alert be until a time; see `Performance.snooze`."""
    try:
        end = _until(until, now)
    except OverflowError:
        raise Refusal(f"{until} from now is after the year 9999: an alert is let be for less.") from None
    if end <= now:
        raise Refusal(f"{end.isoformat()} is past: an alert is let be until a time to come, such as 3d.")
    return _say(postgres, alert_id, "postgres/alerts/snooze.sql", {"until": end}, now)


def _say(
    postgres: "PostgresResource", alert_id: str, statement: str, said: dict[str, Any], now: datetime
) -> dict[str, Any]:
    ensure_schema(postgres)
    with postgres.connect(write=True) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_SPACE, _LOCK))
        rows = _listed(connection, None, None, now).to_pylist()
        alert = _meant(alert_id, rows)
        if alert["state"] == "closed":
            raise Refusal(
                f"The alert {alert['alert_id']} is over since {alert['closed_at']:%Y-%m-%d %H:%M}: nobody is told of it "
                "any more."
            )
        connection.execute(read_sql(statement), {**said, "alert_id": alert["alert_id"], "now": now})
        rows = _listed(connection, alert["model_name"], None, now).to_pylist()
    return next(row for row in rows if row["alert_id"] == alert["alert_id"])


def _meant(alert_id: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The alert whose id this is, or begins so.

    Raises:
        Refusal: none does, or several.
    """
    given = alert_id.strip().lower()
    meant = [row for row in rows if given and row["alert_id"].startswith(given)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        several = ", ".join(row["alert_id"] for row in meant[:5])
        raise Refusal(f"The alert {alert_id!r} may be any of {several}: give more of its id.")
    near = get_close_matches(given, [row["alert_id"] for row in rows], 1, cutoff=0.5)
    instead = f"do you mean {near[0]}?" if near else "'ml-assets alerts --all' lists all there are."
    raise Refusal(f"There is no alert {alert_id!r}: {instead}")


def _until(until: datetime | timedelta | str, now: datetime) -> datetime:
    if isinstance(until, timedelta):
        return now + until
    if isinstance(until, str):
        try:
            return now + span_of(until)
        except ValueError:
            pass  # then it is a time
        try:
            until = datetime.fromisoformat(until.strip())
        except ValueError:
            raise Refusal(
                f"{until!r} is neither a length of time, such as 3d or 12h, nor a time, such as 2026-12-01T08:00Z."
            ) from None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
    if until.tzinfo is None:
        raise Refusal(f"{until.isoformat()} has no time zone: give an aware time.")
    return until


def forget(postgres: "Postgres", run_ids: Sequence[str]) -> None:
    """Remove the alerts of models that have no other runs than these, as if nobody had ever looked at them."""
    ensure_schema(postgres)
    with postgres.connect(write=True) as connection:
        row = connection.execute("SELECT to_regclass('ml_experiments')").fetchone()
        if row and row[0]:
            connection.execute(read_sql("postgres/alerts/forget.sql"), {"run_ids": list(run_ids)})
