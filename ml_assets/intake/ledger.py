"""The ledger of intake, in PostgreSQL: it records contents, the places where they were found, and their days.

An item is what an ingest takes in as one: a file, or a run of MLflow. A content is what an item held when it was
read, and its `content_hash` identifies it. A place is where an item lies; several places may hold the same content.
The tables are older than these words: their columns `unit` and `unit_hash` are `item_name` and `content_hash` here,
and the table `units` holds the contents.

This module holds the statements on these tables. Each function takes an open connection and leaves the transaction to
its caller.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Place:
    """A place where a content was found.

    Args:
        root: "" for the landing folder, else the root of a source or the address of a tracking store.
        item_name: the path of a file (see `InputFile`), or the id of a run.
        fingerprint: as long as it stays the same, the item need not be read again.
    """

    root: str
    item_name: str
    fingerprint: str


class KnownPlace(NamedTuple):
    """A place that the ledger knows, with the content that was last found there.

    Args:
        elsewhere: whether its content was read at another place.
    """

    item_name: str
    fingerprint: str
    content_hash: str
    retired: bool
    elsewhere: bool


@dataclass
class ContentRecord:
    """What the ledger records of one content: where it comes from and what became of its rows.

    Args:
        again: whether it has been read before; its new rows then replace the old ones.
        days: the number of good rows by day.
    """

    content_hash: str
    origin: str
    item_name: str
    again: bool = False
    rows_read: int = 0
    rows_quarantined: int = 0
    days: dict[date, int] = field(default_factory=dict)


# --- places and contents ----------------------------------------------------------------------------


def known_places(connection: "psycopg.Connection", stream: str, root: str) -> dict[str, KnownPlace]:
    """Every place found so far under a root, by item name."""
    rows = connection.execute(
        "SELECT p.unit, fingerprint, unit_hash, retired, coalesce(u.unit <> p.unit, false) "
        "FROM ledger.places p LEFT JOIN ledger.units u USING (stream, unit_hash) "
        "WHERE stream = %s AND root = %s",
        (stream, root),
    )
    return {place.item_name: place for place in map(KnownPlace._make, rows.fetchall())}


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


def claim(
    connection: "psycopg.Connection", stream: str, ingest_id: str, contents: Iterable[ContentRecord]
) -> None:
    """Say that these contents are about to be appended."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.units (stream, unit_hash, origin, unit, ingest_id, state) "
            "VALUES (%s, %s, %s, %s, %s, 'loading')",
            [(stream, c.content_hash, c.origin, c.item_name, ingest_id) for c in contents],
        )


def abandoned(connection: "psycopg.Connection", stream: str) -> list[str]:
    """Contents that were claimed and never went live; only to be asked by who holds the stream."""
    rows = connection.execute(
        "SELECT unit_hash FROM ledger.units WHERE stream = %s AND state = 'loading'", (stream,)
    )
    return [content_hash for (content_hash,) in rows]


def forget(connection: "psycopg.Connection", stream: str, hashes: Sequence[str]) -> None:
    """Strike claimed contents off the ledger, after their rows are gone from the lake."""
    connection.execute(
        "DELETE FROM ledger.units WHERE stream = %s AND unit_hash = ANY(%s) AND state = 'loading'",
        (stream, list(hashes)),
    )


def go_live(
    connection: "psycopg.Connection", stream: str, ingest_id: str, contents: Sequence[ContentRecord]
) -> None:
    """Enter what was read of claimed contents, and make them live; what was read again needs no mark any more."""
    again = [c.content_hash for c in contents if c.again]
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
            [(ingest_id, c.rows_read, c.rows_quarantined, stream, c.content_hash) for c in contents],
        )
        cursor.executemany(
            "INSERT INTO ledger.unit_days (stream, unit_hash, day, rows_good) VALUES (%s, %s, %s, %s)",
            [(stream, c.content_hash, day, rows) for c in contents for day, rows in c.days.items()],
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
        (stream, sorted({place.root for place in places}), [place.item_name for place in places]),
    ).fetchall()
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.places AS p (stream, root, unit, fingerprint, unit_hash) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (stream, root, unit) DO UPDATE SET "
            "fingerprint = excluded.fingerprint, unit_hash = excluded.unit_hash, "
            "retired = p.retired AND p.unit_hash = excluded.unit_hash AND NOT EXISTS (SELECT FROM ledger.units u "
            "WHERE u.stream = p.stream AND u.unit_hash = p.unit_hash AND u.origin = 'mlflow')",
            [(stream, p.root, p.item_name, p.fingerprint, h) for p, h in places.items()],
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
    return [content_hash for (content_hash,) in changed]


def lies_elsewhere(connection: "psycopg.Connection", stream: str, root: str, item_name: str) -> list[str]:
    """Other places at which what lies at this one counts still."""
    rows = connection.execute(
        "SELECT other.unit FROM ledger.places p JOIN ledger.places other USING (stream, unit_hash) "
        "WHERE stream = %s AND p.root = %s AND p.unit = %s AND NOT other.retired "
        "AND (other.root, other.unit) <> (p.root, p.unit) ORDER BY other.unit",
        (stream, root, item_name),
    )
    return [item_name for (item_name,) in rows]


def retire_places(
    connection: "psycopg.Connection", stream: str, root: str, item_names: Sequence[str]
) -> tuple[int, list[str]]:
    """Withdraw what lies at these places.

    Returns:
        How many there were that were not retired yet, and the contents that retired with them.
    """
    rows = connection.execute(
        "UPDATE ledger.places SET retired = true WHERE stream = %s AND root = %s AND unit = ANY(%s) "
        "AND NOT retired RETURNING unit_hash",
        (stream, root, list(item_names)),
    ).fetchall()
    return len(rows), _follow_places(connection, stream, [content_hash for (content_hash,) in rows])


def roots_of(connection: "psycopg.Connection", stream: str, item_names: Sequence[str]) -> list[str]:
    """The roots under which places of these names are known."""
    rows = connection.execute(
        "SELECT DISTINCT root FROM ledger.places WHERE stream = %s AND unit = ANY(%s) ORDER BY root",
        (stream, list(item_names)),
    )
    return [root for (root,) in rows]


def erase_places(
    connection: "psycopg.Connection", stream: str, roots: Sequence[str], item_names: Sequence[str]
) -> list[str]:
    """Strike places off the ledger, as if nothing had ever been found there.

    The next ingest removes the rows of contents that were found nowhere else.

    Returns:
        Contents that counted until now: their days are to be touched.
    """
    rows = connection.execute(
        "DELETE FROM ledger.places WHERE stream = %s AND root = ANY(%s) AND unit = ANY(%s) RETURNING unit_hash",
        (stream, list(roots), list(item_names)),
    )
    hashes = sorted({content_hash for (content_hash,) in rows})
    changed = _follow_places(connection, stream, hashes)
    connection.execute(
        "UPDATE ledger.units u SET state = 'loading' WHERE stream = %s AND unit_hash = ANY(%s) "
        "AND state = 'retired' AND NOT EXISTS (SELECT FROM ledger.places p "
        "WHERE p.stream = u.stream AND p.unit_hash = u.unit_hash)",
        (stream, hashes),
    )
    return changed


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
    """(content hash, origin) of live contents that have rows between these days."""
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
    """Enter how many rows of each (content hash, day) stand in the raw table; those not named have none."""
    connection.execute(
        "UPDATE ledger.unit_days d SET rows_loaded = 0 FROM ledger.units u "
        "WHERE d.stream = u.stream AND d.unit_hash = u.unit_hash AND u.state = 'live' "
        "AND d.stream = %s AND d.day BETWEEN %s AND %s",
        (stream, first, last),
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE ledger.unit_days SET rows_loaded = %s WHERE stream = %s AND unit_hash = %s AND day = %s",
            [(count, stream, content_hash, day) for content_hash, day, count in rows],
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
    """What became of a content's rows: read = loaded + superseded + quarantined.

    Args:
        unit: the item name; asset metadata shows the fields under these names.
    """

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


def content_counts(connection: "psycopg.Connection", stream: str) -> dict[str, tuple[str, int, int, int]]:
    """(item name, rows read, good rows, quarantined rows) of every content that is not being loaded, by hash."""
    rows = connection.execute(
        "SELECT unit_hash, unit, rows_read, coalesce(sum(rows_good), 0)::bigint, rows_quarantined "
        "FROM ledger.units LEFT JOIN ledger.unit_days USING (stream, unit_hash) "
        "WHERE stream = %s AND state <> 'loading' GROUP BY unit_hash, unit, rows_read, rows_quarantined",
        (stream,),
    )
    return {content_hash: (item_name, *numbers) for content_hash, item_name, *numbers in rows}  # type: ignore[misc]


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
    """(content hash, origin, loaded_at) of live contents that hold quarantined rows."""
    return connection.execute(
        "SELECT unit_hash, origin, loaded_at FROM ledger.units "
        "WHERE stream = %s AND state = 'live' AND rows_quarantined > 0",
        (stream,),
    ).fetchall()


def quarantined_before(connection: "psycopg.Connection", stream: str, before: datetime) -> list[str]:
    """Contents with quarantined rows that were loaded before then, whether they count at present or not."""
    if connection.execute("SELECT to_regclass('ledger.units')").fetchone() == (None,):
        return []
    rows = connection.execute(
        "SELECT unit_hash FROM ledger.units "
        "WHERE stream = %s AND state <> 'loading' AND rows_quarantined > 0 AND loaded_at < %s",
        (stream, before),
    )
    return [content_hash for (content_hash,) in rows.fetchall()]


def quarantining_hashes(connection: "psycopg.Connection", stream: str) -> set[str]:
    """Live contents that hold quarantined rows."""
    return {content_hash for content_hash, *_ in quarantining(connection, stream)}


def content_places(
    connection: "psycopg.Connection", stream: str, hashes: Iterable[str]
) -> list[tuple[str, str, str, str, str]]:
    """(root, item name, fingerprint, content hash, origin) of the places of live contents."""
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
    """Have what lies at these places (root, item name) read again. Until then its rows count as they are."""
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
    return {content_hash for (content_hash,) in rows}


def abandon_retired(connection: "psycopg.Connection", stream: str, hashes: Iterable[str]) -> int:
    """Have the next ingest remove the rows of retired contents, which count for nothing; returns how many.

    Should one of them come back, it is read like a new one.
    """
    return connection.execute(
        "UPDATE ledger.units SET state = 'loading' "
        "WHERE stream = %s AND unit_hash = ANY(%s) AND state = 'retired'",
        (stream, list(hashes)),
    ).rowcount
