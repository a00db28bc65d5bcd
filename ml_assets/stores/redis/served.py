"""The log of what was served: a table in PostgreSQL, written off the requests' path, in batches.

What belongs here: writing it and keeping it small. What is compared with it is in operations/served_features.py.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_assets.sql_files import read_sql
from ml_assets.stores import postgres_table
from ml_assets.stores.redis.entities import PREFIX
from ml_assets.stores.redis.rows import packed

if TYPE_CHECKING:
    from ml_assets.stores.postgres_table.server import PostgresServer
    from ml_assets.stores.redis.background import Background

KEPT_DAYS = 30
"""How long a line stays."""

_MOST = 10_000
"""Lines that wait to be written; the oldest are dropped beyond that, since a request never waits."""


class Line(NamedTuple):
    """What was served of one view's row of one entity.

    Args:
        served_at: seconds since 1970.
        view: its name.
        key: of the entity, as entities.py makes it.
        features: their values by name.
        served_from: `redis`, `postgres` or `none`.
        event_timestamp: from when the row held.
    """

    served_at: float
    view: str
    key: bytes
    features: Mapping[str, Any]
    served_from: str
    event_timestamp: datetime | None


class ServedLog:
    """Takes lines from requests, and has them written in the background, as many at once as have come meanwhile.

    Args:
        postgres: has the table, which is made with the first lines.
        background: the thread that writes, and does nothing that takes long.
    """

    def __init__(self, postgres: "PostgresServer", background: "Background") -> None:
        self._postgres = postgres
        self._background = background
        self._lines: deque[Line] = deque(maxlen=_MOST)
        self._asked = False
        self._made = False

    def take(self, lines: Iterable[Line]) -> None:
        """Have lines written. What cannot be written is lost, as what is not sampled is."""
        self._lines.extend(lines)
        # A thread that was asked before this process was forked does not write here.
        if not self._asked or not self._background.runs:
            self._asked = True
            if not self._background.leave(self._write):
                self._asked = False

    def _write(self) -> None:
        self._asked = False
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        if not self._made:
            ensure_schema(self._postgres)
            self._made = True
        with self._postgres.connect(write=True) as connection, connection.cursor() as cursor:
            columns = "served_at, view, entity, features, served_from, event_timestamp"
            with cursor.copy(f"COPY served_features ({columns}) FROM STDIN".encode()) as copy:
                for line in lines:
                    copy.write_row(
                        (
                            datetime.fromtimestamp(line.served_at, UTC),
                            line.view,
                            line.key.removeprefix(PREFIX).decode(),
                            packed(dict(line.features)),
                            line.served_from,
                            line.event_timestamp,
                        )
                    )


def ensure_schema(postgres: "PostgresServer") -> None:
    """Create the table; one cheap look if it is there."""
    with postgres.connect() as connection:
        if postgres_table.table_exists(connection, "public", "served_features"):
            return
    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, "served_features")
        connection.execute(read_sql("postgres/served/schema.sql"))


def served_since(
    postgres: "PostgresServer", view: str, since: datetime, at_once: int
) -> Iterator[list[dict[str, Any]]]:
    """What was served of a view, the newest first, some lines at a time, all as one transaction sees them.

    A line has served_at, entity, features (values by name), served_from and event_timestamp.

    Args:
        since: aware; nothing that was served before.
        at_once: lines.
    """
    from psycopg.rows import dict_row

    ensure_schema(postgres)
    with (
        postgres.connect() as connection,
        connection.cursor(name="served_since", row_factory=dict_row) as cursor,
    ):
        cursor.execute(read_sql("postgres/served/since.sql"), {"view": view, "since": since})
        while rows := cursor.fetchmany(at_once):
            yield [
                {**row, "entity": json.loads(row["entity"]), "features": json.loads(row["features"])}
                for row in rows
            ]


def forget_old(postgres: "PostgresServer") -> int:
    """Delete lines that are older than they are kept; returns how many."""
    with postgres.connect(write=True) as connection:
        if not postgres_table.table_exists(connection, "public", "served_features"):
            return 0
        old = "DELETE FROM served_features WHERE served_at < now() - make_interval(days => %s)"
        return connection.execute(old, (KEPT_DAYS,)).rowcount
