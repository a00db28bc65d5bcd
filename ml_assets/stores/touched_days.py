"""Which days of which stream have changed since their raw rows were last rebuilt; in PostgreSQL, beside the tables.

Intake touches days, and so does whoever adds rows by hand; the raw tables settle them. A function takes an open
connection and leaves the transaction to its caller. Whoever takes in a stream, or rewrites what was taken in, holds it
alone meanwhile (`only_one`).
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from typing import TYPE_CHECKING, Protocol

from ml_assets.errors import IntakeBusy
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import psycopg

WHOLE = date(1970, 1, 1)
"""Stands for the whole table in a stream without days."""

LOCK_SPACE = 0x6D6C  # keeps our advisory locks apart from those of others in the same database

LOCK_GROUPS = {"runs": 1, "metrics": 1, "performance": 2, "predictions": 3, "documents": 4, "judgments": 5}
"""Lock of each stream. A late metric touches its run's day: runs and metrics may not be taken in side by side."""

LOCK_WAIT_S = 300


class Postgres(Protocol):
    """What intake needs of the PostgreSQL resource."""

    def connect(self, write: bool = False) -> "AbstractContextManager[psycopg.Connection]":
        """One transaction."""
        ...


def ensure_schema(postgres: Postgres) -> None:
    """Create what is missing of the ledger; one cheap look if nothing is."""
    ensure_tables(postgres, "ledger.settled_days", "postgres/ledger/schema.sql")


def ensure_tables(postgres: Postgres, table: str, schema: str) -> None:
    """Create tables that no contract describes; one cheap look if they are there.

    Args:
        table: the last one that the statements create; with its schema if that is not `public`.
        schema: file of the statements, below sql/.
    """
    with postgres.connect() as connection:
        row = connection.execute("SELECT to_regclass(%s)", [table]).fetchone()
        if row and row[0]:
            return
    with postgres.connect(write=True) as connection:
        # IF NOT EXISTS is not safe against a second process that creates the same.
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (LOCK_SPACE,))
        connection.execute(read_sql(schema))


@contextmanager
def only_one(postgres: Postgres, stream: str) -> Iterator[None]:
    """Hold the stream: whatever stands as 'loading' in intake's ledger then belongs to a process that died.

    Raises:
        IntakeBusy: another process did not let go of it within `LOCK_WAIT_S`.
    """
    import psycopg

    with postgres.connect(write=True) as connection:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_WAIT_S}s",))
        try:
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_SPACE, LOCK_GROUPS[stream]))
        except psycopg.errors.LockNotAvailable:
            raise IntakeBusy(
                f"another process has been taking in {stream} for {LOCK_WAIT_S} s; try again when it is done."
            ) from None
        yield


def touch(connection: "psycopg.Connection", days: Set[tuple[str, date]]) -> None:
    """Mark days of streams as changed. The counter is raised under the row's lock, so no touch is ever lost.

    Once a transaction, with all that it touches: in one order, so that two of them cannot wait for each other.
    """
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.touched_days AS t VALUES (%s, %s, 1) "
            "ON CONFLICT (stream, day) DO UPDATE SET seq = t.seq + 1",
            sorted(days),
        )


def touched(connection: "psycopg.Connection", stream: str, first: date, last: date) -> dict[date, int]:
    """Counters of the touched days from first to last."""
    rows = connection.execute(
        "SELECT day, seq FROM ledger.touched_days WHERE stream = %s AND day BETWEEN %s AND %s",
        (stream, first, last),
    )
    return dict(rows.fetchall())


def settle(connection: "psycopg.Connection", stream: str, days: Mapping[date, int]) -> None:
    """Record that the raw table holds these days as of these counters."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.settled_days AS s VALUES (%s, %s, %s) "
            "ON CONFLICT (stream, day) DO UPDATE SET seq = greatest(s.seq, excluded.seq)",
            [(stream, day, days[day]) for day in sorted(days)],
        )


def due_days(connection: "psycopg.Connection", stream: str) -> list[date]:
    """Days that were touched since their raw rows were last rebuilt."""
    rows = connection.execute(
        "SELECT day FROM ledger.touched_days t LEFT JOIN ledger.settled_days s USING (stream, day) "
        "WHERE stream = %s AND t.seq > coalesce(s.seq, 0) ORDER BY day",
        (stream,),
    )
    return [day for (day,) in rows]
