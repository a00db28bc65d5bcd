"""Runs that applications record: their rows of `ml_experiments`, `ml_run_metrics` and `ml_run_params`, origin `api`.

What belongs here: what is lawful to record, and the statements that do it within the caller's transaction, in which the
run's row is held: so changes of one run take turns, and each sees what the one before has left. What does not: opening
connections (resources/postgres.py), and the rows that the graph writes.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import RUN_STAGES, may_become
from ml_assets.contracts.experiments import RUN_METRICS, RUN_PARAMS, RUNS
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.sql_files import read_sql
from ml_assets.tables.run_row import key_room

if TYPE_CHECKING:
    import psycopg

_ENDED = RUN_STAGES[-1]


def ensure_tables(connection: "psycopg.Connection") -> None:
    """Make what is missing of the three tables. First in each transaction, before anything is held in one of them."""
    from ml_assets.stores.postgres_table import ensure_current

    for contract in (RUNS, RUN_METRICS, RUN_PARAMS):
        ensure_current(connection, contract)


def add(connection: "psycopg.Connection", row: Mapping[str, Any], rules: MetricRules) -> None:
    """Add a run.

    Args:
        row: as `run_row` makes it, with id, experiment, status and created_at.
        rules: which way a metric is better.

    Raises:
        ValueError: it has ended by its time and not by its status.
        psycopg.errors.UniqueViolation: there is a run of this id.
    """
    _refuse_end_without_status(row["status"], row["completed_at"])
    connection.execute(read_sql("postgres/experiments/create.sql"), row)
    _put_values(connection, row, row["created_at"], rules)


def change(
    connection: "psycopg.Connection", id: str, row: Mapping[str, Any], rules: MetricRules
) -> set[date]:
    """Change what is given of a run that has not ended.

    Args:
        row: as `run_row` makes it, with the id.
        rules: which way a metric is better.

    Returns:
        The UTC days on which it stood and stands.

    Raises:
        ValueError: there is no such run, it is not to be changed, or not in this way; says why.
    """
    held = connection.execute(read_sql("postgres/experiments/hold.sql"), {"id": id}).fetchone()
    if held is None:
        raise ValueError(f"there is no experiment {id!r}; list_experiments() shows what there is")
    origin, status, started, ended = held
    if origin != "api":
        raise ValueError(f"experiment {id!r} is written by the graph; change it where the run came from")
    if status in _ENDED or ended is not None:
        at = f" at {ended.isoformat()}" if ended else ""
        raise ValueError(f"experiment {id!r} has ended{at} and can no longer be changed")
    later = row["status"] or status
    if not may_become(status, later):
        raise ValueError(
            f"experiment {id!r} is {status} and cannot become {later}: a run is created, then running, then "
            f"{', '.join(_ENDED[:-1])} or {_ENDED[-1]}, and never goes back"
        )
    _refuse_end_without_status(later, row["completed_at"])
    end = datetime.now(UTC) if later in _ENDED else None
    row = {**row, "completed_at": row["completed_at"] or end}
    _catch_up(connection, id, started, rules)
    connection.execute(read_sql("postgres/experiments/update.sql"), row)
    start = row["created_at"] or started
    if start != started:
        for name in ("move_metrics", "move_params"):
            connection.execute(read_sql(f"postgres/experiments/{name}.sql"), {"id": id, "created_at": start})
    _put_values(connection, row, start, rules)
    return {moment.astimezone(UTC).date() for moment in (started, start)}


def remove(connection: "psycopg.Connection", ids: Sequence[str]) -> set[date]:
    """Delete runs with their metrics and parameters.

    Returns:
        The UTC days on which they stood.

    Raises:
        ValueError: there is no such run, or the graph writes it.
    """
    rows = connection.execute(read_sql("postgres/experiments/delete.sql"), {"ids": list(ids)})
    days: dict[str, date] = dict(rows.fetchall())
    for id in sorted(set(ids) - days.keys()):
        if connection.execute("SELECT FROM ml_experiments WHERE id = %s", (id,)).fetchone() is None:
            raise ValueError(f"there is no experiment {id!r}; list_experiments() shows what there is")
        raise ValueError(f"experiment {id!r} is written by the graph; remove it where it came from")
    for table in ("ml_run_metrics", "ml_run_params"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ANY(%s)".encode(), (list(days),))
    return set(days.values())


def bring_up_to_date(
    connection: "psycopg.Connection", start: datetime, end: datetime, rules: MetricRules
) -> int:
    """Give the recorded runs of some days the rows that they should have.

    Runs of before there were such rows have none, and what was the best goes by the directions of its time.

    Args:
        start, end: the runs that were created in [start, end).
        rules: which way a metric is better now.

    Returns:
        How many runs were brought up to date.
    """
    span = {"start": start, "end": end}
    keys = connection.execute(read_sql("postgres/experiments/recorded_keys.sql"), span).fetchall()
    falling = [key for (key,) in keys if not rules.higher_is_better(key)]
    found = connection.execute(
        read_sql("postgres/experiments/outdated.sql"), {**span, "falling": falling}
    ).fetchall()
    ids = [id for (id,) in found]
    for id in ids:
        held = connection.execute(read_sql("postgres/experiments/hold.sql"), {"id": id}).fetchone()
        if held is not None:
            _catch_up(connection, id, held[2], rules)
    connection.execute(read_sql("postgres/experiments/turn_best.sql"), {"falling": falling, "ids": ids})
    return len(ids)


def _catch_up(connection: "psycopg.Connection", id: str, created_at: datetime, rules: MetricRules) -> None:
    """Give a run that is held the rows of what it has, each metric being one point, if it has none."""
    found = connection.execute(read_sql("postgres/experiments/without_rows.sql"), {"id": id}).fetchone()
    if found is not None:
        metrics, parameters = (_with_room(document, id) for document in found)
        _put_values(connection, {"id": id, "metrics": metrics, "parameters": parameters}, created_at, rules)


def _with_room(document: str | None, id: str) -> str | None:
    """What of a document has keys that an index holds; the rest is in the run's JSON alone."""
    from ml_assets.lib.canonical_json import canonical

    entries = json.loads(document) if document is not None else None
    if not isinstance(entries, dict):
        return None
    return canonical({key: value for key, value in entries.items() if len(key.encode()) <= key_room(id)})


def _refuse_end_without_status(status: str, completed_at: datetime | None) -> None:
    if completed_at is not None and status not in _ENDED:
        raise ValueError(
            f"completed_at {completed_at.isoformat()} is the end of an experiment, which is {status}; give its status, "
            f"too: {', '.join(_ENDED[:-1])} or {_ENDED[-1]}"
        )


def _put_values(
    connection: "psycopg.Connection", row: Mapping[str, Any], created_at: datetime, rules: MetricRules
) -> None:
    run = {"id": row["id"], "created_at": created_at}
    if row["metrics"] is not None:
        _put_metrics(connection, run, row["metrics"], rules)
    if row["parameters"] is not None:
        _put_params(connection, run, row["parameters"])


def _put_metrics(
    connection: "psycopg.Connection", run: Mapping[str, Any], document: str, rules: MetricRules
) -> None:
    from ml_assets.lib.run_values import MetricRow, metric_values

    now, values = datetime.now(UTC), metric_values(document)
    asked = connection.execute(
        read_sql("postgres/experiments/metrics.sql"), {**run, "keys": list(values)}
    ).fetchall()
    known = {key: MetricRow(*columns) for key, *columns in asked}
    rows = {
        key: known.get(key, MetricRow()).after(value, now, rules.higher_is_better(key))
        for key, value in values.items()
    }
    columns = {
        name: [getattr(each, name) for each in rows.values()] for name in MetricRow.__dataclass_fields__
    }
    connection.execute(
        read_sql("postgres/experiments/put_metrics.sql"), {**run, "key": list(rows), **columns}
    )


def _put_params(connection: "psycopg.Connection", run: Mapping[str, Any], document: str) -> None:
    from ml_assets.lib.run_values import parameter_rows

    rows = parameter_rows(document)
    held = {key: each for key, each in rows.items() if each is not None}
    gone = [key for key in rows if key not in held]
    connection.execute(read_sql("postgres/experiments/forget_params.sql"), {**run, "keys": gone})
    columns = {
        "key": list(held),
        "text": [text for text, _ in held.values()],
        "number": [number for _, number in held.values()],
    }
    connection.execute(read_sql("postgres/experiments/put_params.sql"), {**run, **columns})
