"""The ledger of intake, in PostgreSQL: contents, the places where they were found, touched days.

What belongs here: every statement on schema `ledger`. A function takes an open connection and leaves the
transaction to its caller.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Place:
    """Where a content was found.

    Args:
        root: "" for landing files, else the tracking store.
        unit: path below the stream's folder, or run id.
        fingerprint: equal as long as nobody need look again.
    """

    root: str
    unit: str
    fingerprint: str


class Known(NamedTuple):
    """A place as the ledger has it.

    Args:
        elsewhere: its content was read at another place.
    """

    unit: str
    fingerprint: str
    unit_hash: str
    retired: bool
    elsewhere: bool


@dataclass
class Content:
    """A content and what became of its rows.

    Args:
        again: it has been read before; its rows take the place of those.
        days: good rows by day.
    """

    unit_hash: str
    origin: str
    unit: str
    again: bool = False
    rows_read: int = 0
    rows_quarantined: int = 0
    days: dict[date, int] = field(default_factory=dict)


# --- places and contents ----------------------------------------------------------------------------


def known_places(connection: "psycopg.Connection", stream: str, root: str) -> dict[str, Known]:
    """Everything found so far under a root, by unit."""
    rows = connection.execute(
        "SELECT p.unit, fingerprint, unit_hash, retired, coalesce(u.unit <> p.unit, false) "
        "FROM ledger.places p LEFT JOIN ledger.units u USING (stream, unit_hash) "
        "WHERE stream = %s AND root = %s",
        (stream, root),
    )
    return {place.unit: place for place in map(Known._make, rows.fetchall())}


def content_states(connection: "psycopg.Connection", stream: str, hashes: Iterable[str]) -> dict[str, str]:
    """State of those of the contents that the ledger has."""
    rows = connection.execute(
        "SELECT unit_hash, state FROM ledger.units WHERE stream = %s AND unit_hash = ANY(%s)",
        (stream, list(hashes)),
    )
    return dict(rows.fetchall())


def begin_ingest(connection: "psycopg.Connection", stream: str, ingest_id: str) -> None:
    """Open an ingest."""
    connection.execute("INSERT INTO ledger.ingests (ingest_id, stream) VALUES (%s, %s)", (ingest_id, stream))


def end_ingest(connection: "psycopg.Connection", ingest_id: str) -> None:
    """Close an ingest."""
    connection.execute("UPDATE ledger.ingests SET finished_at = now() WHERE ingest_id = %s", (ingest_id,))


def claim(connection: "psycopg.Connection", stream: str, ingest_id: str, contents: Iterable[Content]) -> None:
    """Say that these contents are about to be appended."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.units (stream, unit_hash, origin, unit, ingest_id, state) "
            "VALUES (%s, %s, %s, %s, %s, 'loading')",
            [(stream, c.unit_hash, c.origin, c.unit, ingest_id) for c in contents],
        )


def abandoned(connection: "psycopg.Connection", stream: str) -> list[str]:
    """Contents that were claimed and never went live; only to be asked by who holds the stream."""
    rows = connection.execute(
        "SELECT unit_hash FROM ledger.units WHERE stream = %s AND state = 'loading'", (stream,)
    )
    return [unit_hash for (unit_hash,) in rows]


def forget(connection: "psycopg.Connection", stream: str, hashes: Sequence[str]) -> None:
    """Strike claimed contents off the ledger, after their rows are gone from the lake."""
    connection.execute(
        "DELETE FROM ledger.units WHERE stream = %s AND unit_hash = ANY(%s) AND state = 'loading'",
        (stream, list(hashes)),
    )


def go_live(
    connection: "psycopg.Connection", stream: str, ingest_id: str, contents: Sequence[Content]
) -> None:
    """Enter what was read of claimed contents, and make them live; what was read again needs no mark any more."""
    again = [c.unit_hash for c in contents if c.again]
    connection.execute(
        "DELETE FROM ledger.unit_days WHERE stream = %s AND unit_hash = ANY(%s)", (stream, again)
    )
    connection.execute(
        "UPDATE ledger.places SET fingerprint = '-' "
        "WHERE stream = %s AND unit_hash = ANY(%s) AND fingerprint = ''",
        (stream, again),
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE ledger.units SET state = 'live', ingest_id = %s, rows_read = %s, rows_quarantined = %s, "
            "loaded_at = now() WHERE stream = %s AND unit_hash = %s",
            [(ingest_id, c.rows_read, c.rows_quarantined, stream, c.unit_hash) for c in contents],
        )
        cursor.executemany(
            "INSERT INTO ledger.unit_days (stream, unit_hash, day, rows_good) VALUES (%s, %s, %s, %s)",
            [(stream, c.unit_hash, day, rows) for c in contents for day, rows in c.days.items()],
        )


def put_places(connection: "psycopg.Connection", stream: str, places: Mapping[Place, str]) -> list[str]:
    """Say which content lies where; one that lies nowhere any more retires, and comes back if it does.

    A landing file that was retired by hand stays so while its content is the same; a run that MLflow shows
    again is back.

    Returns:
        Contents that retired or came back: their days are to be touched.
    """
    before = connection.execute(
        "SELECT DISTINCT unit_hash FROM ledger.places "
        "WHERE stream = %s AND root = ANY(%s) AND unit = ANY(%s)",
        (stream, sorted({place.root for place in places}), [place.unit for place in places]),
    ).fetchall()
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.places AS p (stream, root, unit, fingerprint, unit_hash) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (stream, root, unit) DO UPDATE SET "
            "fingerprint = excluded.fingerprint, unit_hash = excluded.unit_hash, "
            "retired = p.retired AND p.unit_hash = excluded.unit_hash AND NOT EXISTS (SELECT FROM ledger.units u "
            "WHERE u.stream = p.stream AND u.unit_hash = p.unit_hash AND u.origin = 'mlflow')",
            [(stream, p.root, p.unit, p.fingerprint, h) for p, h in places.items()],
        )
    return _follow_places(connection, stream, sorted({h for (h,) in before} | set(places.values())))


def _follow_places(connection: "psycopg.Connection", stream: str, hashes: Sequence[str]) -> list[str]:
    """Retire contents that lie nowhere, revive retired ones that lie somewhere; returns both."""
    changed = connection.execute(
        """
        UPDATE ledger.units u SET state = CASE WHEN u.state = 'live' THEN 'retired' ELSE 'live' END
        WHERE u.stream = %(stream)s AND u.unit_hash = ANY(%(hashes)s) AND u.state <> 'loading'
          AND (u.state = 'live') <> EXISTS (
              SELECT FROM ledger.places p
              WHERE p.stream = u.stream AND p.unit_hash = u.unit_hash AND NOT p.retired
          )
        RETURNING u.unit_hash
        """,
        {"stream": stream, "hashes": list(hashes)},
    )
    return [unit_hash for (unit_hash,) in changed]


def lies_elsewhere(connection: "psycopg.Connection", stream: str, root: str, unit: str) -> list[str]:
    """Other places at which what lies at this one counts still."""
    rows = connection.execute(
        "SELECT other.unit FROM ledger.places p JOIN ledger.places other USING (stream, unit_hash) "
        "WHERE stream = %s AND p.root = %s AND p.unit = %s AND NOT other.retired "
        "AND (other.root, other.unit) <> (p.root, p.unit) ORDER BY other.unit",
        (stream, root, unit),
    )
    return [unit for (unit,) in rows]


def retire_places(
    connection: "psycopg.Connection", stream: str, root: str, units: Sequence[str]
) -> tuple[int, list[str]]:
    """Withdraw what lies at these places.

    Returns:
        How many there were that were not retired yet, and the contents that retired with them.
    """
    rows = connection.execute(
        "UPDATE ledger.places SET retired = true WHERE stream = %s AND root = %s AND unit = ANY(%s) "
        "AND NOT retired RETURNING unit_hash",
        (stream, root, list(units)),
    ).fetchall()
    return len(rows), _follow_places(connection, stream, [unit_hash for (unit_hash,) in rows])


# --- days -------------------------------------------------------------------------------------------


def days_of(connection: "psycopg.Connection", stream: str, hashes: Sequence[str]) -> set[date]:
    """Days on which contents have good rows."""
    rows = connection.execute(
        "SELECT DISTINCT day FROM ledger.unit_days WHERE stream = %s AND unit_hash = ANY(%s)",
        (stream, list(hashes)),
    )
    return {day for (day,) in rows}


def live_contents(
    connection: "psycopg.Connection", stream: str, first: date, last: date
) -> list[tuple[str, str]]:
    """(unit_hash, origin) of live contents that have rows between these days."""
    return connection.execute(
        "SELECT DISTINCT unit_hash, origin FROM ledger.units JOIN ledger.unit_days USING (stream, unit_hash) "
        "WHERE stream = %s AND state = 'live' AND day BETWEEN %s AND %s ORDER BY unit_hash",
        (stream, first, last),
    ).fetchall()


# --- accounts ---------------------------------------------------------------------------------------


def enter_loaded(
    connection: "psycopg.Connection",
    stream: str,
    first: date,
    last: date,
    rows: Iterable[tuple[str, date, int]],
) -> None:
    """Enter how many rows of each (unit_hash, day) stand in the raw table; those not named have none."""
    connection.execute(
        "UPDATE ledger.unit_days d SET rows_loaded = 0 FROM ledger.units u "
        "WHERE d.stream = u.stream AND d.unit_hash = u.unit_hash AND u.state = 'live' "
        "AND d.stream = %s AND d.day BETWEEN %s AND %s",
        (stream, first, last),
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE ledger.unit_days SET rows_loaded = %s WHERE stream = %s AND unit_hash = %s AND day = %s",
            [(count, stream, unit_hash, day) for unit_hash, day, count in rows],
        )


def counts(connection: "psycopg.Connection", ingest_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Rows of some ingests by stream: read, loaded, superseded, quarantined.

    Superseded are good rows that do not stand in the raw table: another row of their key won, their content
    was withdrawn, or their day is still to be rebuilt.
    """
    rows = connection.execute(
        """
        SELECT u.stream, sum(u.rows_read)::bigint, sum(d.loaded)::bigint,
               sum(d.good - d.loaded)::bigint, sum(u.rows_quarantined)::bigint
        FROM ledger.units u CROSS JOIN LATERAL (
            SELECT coalesce(sum(rows_good), 0) AS good,
                   coalesce(sum(rows_loaded) FILTER (WHERE u.state = 'live'), 0) AS loaded
            FROM ledger.unit_days WHERE stream = u.stream AND unit_hash = u.unit_hash
        ) d
        WHERE u.ingest_id = ANY(%s)
        GROUP BY u.stream
        """,
        (list(ingest_ids),),
    )
    names = ("read", "loaded", "superseded", "quarantined")
    return {stream: dict(zip(names, numbers, strict=True)) for stream, *numbers in rows}


def totals(connection: "psycopg.Connection", stream: str) -> tuple[int, int, int]:
    """Of all that counts at present: contents, rows read, rows quarantined."""
    row = connection.execute(
        "SELECT count(*), coalesce(sum(rows_read), 0)::bigint, coalesce(sum(rows_quarantined), 0)::bigint "
        "FROM ledger.units WHERE stream = %s AND state = 'live'",
        (stream,),
    ).fetchone()
    return row or (0, 0, 0)


@dataclass(frozen=True)
class Account:
    """What became of a content's rows: read = loaded + superseded + quarantined."""

    unit: str
    read: int
    loaded: int
    superseded: int
    quarantined: int


def newest_accounts(
    connection: "psycopg.Connection", stream: str, first: date, last: date, limit: int
) -> list[Account]:
    """Accounts of the live contents that have rows between these days, the newest first.

    Superseded is as in `counts`; a content is counted whole, its rows of other days included.
    """
    rows = connection.execute(
        """
        SELECT unit, rows_read, coalesce(sum(rows_loaded), 0)::bigint,
               sum(rows_good - coalesce(rows_loaded, 0))::bigint, rows_quarantined
        FROM ledger.units JOIN ledger.unit_days USING (stream, unit_hash)
        WHERE stream = %s AND state = 'live'
        GROUP BY unit_hash, unit, rows_read, rows_quarantined, loaded_at
        HAVING bool_or(day BETWEEN %s AND %s)
        ORDER BY loaded_at DESC, unit LIMIT %s
        """,
        (stream, first, last, limit),
    )
    return [Account(*row) for row in rows]


def day_counts(connection: "psycopg.Connection", stream: str, first: date, last: date) -> tuple[int, int]:
    """Good rows of live contents between these days: (in the raw table, superseded)."""
    row = connection.execute(
        "SELECT coalesce(sum(rows_loaded), 0)::bigint, "
        "coalesce(sum(rows_good - coalesce(rows_loaded, 0)), 0)::bigint "
        "FROM ledger.unit_days JOIN ledger.units USING (stream, unit_hash) "
        "WHERE stream = %s AND state = 'live' AND day BETWEEN %s AND %s",
        (stream, first, last),
    ).fetchone()
    return row or (0, 0)


def unit_counts(connection: "psycopg.Connection", stream: str) -> dict[str, tuple[str, int, int, int]]:
    """(unit, rows read, good rows, quarantined rows) of every content that is not being loaded, by hash."""
    rows = connection.execute(
        "SELECT unit_hash, unit, rows_read, coalesce(sum(rows_good), 0)::bigint, rows_quarantined "
        "FROM ledger.units LEFT JOIN ledger.unit_days USING (stream, unit_hash) "
        "WHERE stream = %s AND state <> 'loading' GROUP BY unit_hash, unit, rows_read, rows_quarantined",
        (stream,),
    )
    return {unit_hash: (unit, *numbers) for unit_hash, unit, *numbers in rows}  # type: ignore[misc]


def loaded_by_day(connection: "psycopg.Connection", stream: str) -> dict[date, int]:
    """Rows of live contents that stand in the raw table, by day, as entered at its last rebuild."""
    rows = connection.execute(
        "SELECT day, coalesce(sum(rows_loaded), 0)::bigint "
        "FROM ledger.unit_days JOIN ledger.units USING (stream, unit_hash) "
        "WHERE stream = %s AND state = 'live' GROUP BY day",
        (stream,),
    )
    return dict(rows.fetchall())


# --- quarantine -------------------------------------------------------------------------------------


def quarantine_counts(connection: "psycopg.Connection") -> dict[str, int]:
    """Quarantined rows of live contents by stream, of those that have any. No ledger is like an empty one."""
    if connection.execute("SELECT to_regclass('ledger.units')").fetchone() == (None,):
        return {}
    rows = connection.execute(
        "SELECT stream, sum(rows_quarantined)::bigint FROM ledger.units "
        "WHERE state = 'live' AND rows_quarantined > 0 GROUP BY stream ORDER BY stream"
    )
    return dict(rows.fetchall())


def quarantining(connection: "psycopg.Connection", stream: str) -> list[tuple[str, str, datetime]]:
    """(unit_hash, origin, loaded_at) of live contents that hold quarantined rows."""
    return connection.execute(
        "SELECT unit_hash, origin, loaded_at FROM ledger.units "
        "WHERE stream = %s AND state = 'live' AND rows_quarantined > 0",
        (stream,),
    ).fetchall()


def quarantining_hashes(connection: "psycopg.Connection", stream: str) -> set[str]:
    """Live contents that hold quarantined rows."""
    return {unit_hash for unit_hash, *_ in quarantining(connection, stream)}


def content_places(
    connection: "psycopg.Connection", stream: str, hashes: Iterable[str]
) -> list[tuple[str, str, str, str, str]]:
    """(root, unit, fingerprint, unit_hash, origin) of the places of live contents."""
    return connection.execute(
        "SELECT root, p.unit, fingerprint, unit_hash, origin "
        "FROM ledger.places p JOIN ledger.units u USING (stream, unit_hash) "
        "WHERE stream = %s AND state = 'live' AND NOT retired AND unit_hash = ANY(%s)",
        (stream, list(hashes)),
    ).fetchall()


def reopened(connection: "psycopg.Connection") -> set[str]:
    """Streams that have something to be read again, though nothing outside has changed."""
    rows = connection.execute("SELECT DISTINCT stream FROM ledger.places WHERE fingerprint = ''")
    return {stream for (stream,) in rows}


def mark(connection: "psycopg.Connection", stream: str, places: Iterable[tuple[str, str]]) -> None:
    """Have what lies at these places (root, unit) read again. Until then its rows count as they are."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE ledger.places SET fingerprint = '' WHERE stream = %s AND root = %s AND unit = %s",
            [(stream, *place) for place in places],
        )


def marked(connection: "psycopg.Connection", stream: str, hashes: Iterable[str]) -> set[str]:
    """Those of the contents that are to be read again."""
    rows = connection.execute(
        "SELECT DISTINCT unit_hash FROM ledger.places "
        "WHERE stream = %s AND fingerprint = '' AND unit_hash = ANY(%s)",
        (stream, list(hashes)),
    )
    return {unit_hash for (unit_hash,) in rows}


def abandon_retired(connection: "psycopg.Connection", stream: str, hashes: Iterable[str]) -> int:
    """Have the next ingest remove the rows of retired contents, which count for nothing; returns how many.

    Should one of them come back, it is read like a new one.
    """
    return connection.execute(
        "UPDATE ledger.units SET state = 'loading' "
        "WHERE stream = %s AND unit_hash = ANY(%s) AND state = 'retired'",
        (stream, list(hashes)),
    ).rowcount
