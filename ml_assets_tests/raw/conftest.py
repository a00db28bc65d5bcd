"""A raw room of one's own: landing folders, lake and ledger, with the few verbs that the tests need.

room         empty for each test; its databases are the session's
shared_room  one for all tests of a module, which is not emptied between them
"""

import itertools
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from ml_assets.contracts import STREAMS
from ml_assets.intake import quarantine, raw
from ml_assets.intake.files import take_in_files
from ml_assets.intake.ingest import IntakeReport
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.lib.days import bridge
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores import touched_days

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
"""What the rooms take for now; rows of a later day are in the future."""

_ages = itertools.count()


@dataclass
class Room:
    """Landing folders, lake and ledger.

    Args:
        folder: home; the landing folders are below it.
    """

    folder: Path
    lake: DuckLakeResource
    postgres: PostgresResource
    bounds: Bounds = field(default_factory=lambda: Bounds(date(2014, 1, 1), NOW))

    def landing(self, stream: str) -> Path:
        """A stream's folder."""
        return self.folder / "landing" / stream

    def put(self, stream: str, name: str, content: str | bytes) -> Path:
        """Put a file there, as if it had been complete for a while; every call gives it another time."""
        path = self.landing(stream) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.age(path)
        return path

    def age(self, path: Path) -> None:
        """Make a file look as if it had been complete for a while."""
        long_ago = time.time() - 3_600 + next(_ages)
        os.utime(path, (long_ago, long_ago))

    def take_in(self, stream: str) -> IntakeReport:
        """Take in what is new in the landing folder."""
        listing = list_files(self.landing(stream), STREAMS[stream].whole_files)
        return take_in_files(stream, listing, self.lake, self.postgres, self.bounds)

    def raw(self, stream: str, *columns: str) -> list[Any]:
        """Rows of the raw table as it would be built now, sorted; values alone if one column is asked for."""
        whole = STREAMS[stream].day_column is None
        first, last = (
            (touched_days.WHOLE, touched_days.WHOLE) if whole else (date(1900, 1, 1), date(2100, 1, 1))
        )
        query = raw.raw_query(raw.raw_inputs(self.postgres, stream, first, last))
        names = ", ".join(f'"{name}"' for name in columns) or "*"
        with self.lake.get_connection() as connection:
            connection.register("live", query.tables["live"])
            rows = connection.execute(
                f"SELECT {names} FROM ({query.sql}) ORDER BY ALL", dict(query.parameters)
            ).fetchall()
        return [row[0] for row in rows] if len(columns) == 1 else rows

    def quarantine(self, stream: str) -> list[tuple[str, int, str]]:
        """(unit, line, reason) of quarantined rows."""
        return self.intake(stream, "unit, line, quarantine_reason", "quarantine_reason IS NOT NULL")

    def shown_quarantine(self, stream: str) -> list[dict[str, Any]]:
        """What `ml-assets quarantine list` shows."""
        return quarantine.quarantined(self.lake, self.postgres, stream).to_pylist()

    def intake(self, stream: str, columns: str, where: str = "true") -> list[Any]:
        """Rows of intake, in order of unit and line."""
        with self.lake.get_connection() as connection:
            return connection.execute(
                f"SELECT {columns} FROM intake.intake_{stream} WHERE {where} ORDER BY unit, line, unit_hash"
            ).fetchall()

    def due(self, stream: str) -> list[str]:
        """Days to be rebuilt."""
        with self.postgres.connect() as connection:
            return [day.isoformat() for day in touched_days.due_days(connection, stream)]

    def rebuild(self, stream: str) -> None:
        """Rebuild the raw table on the days that are due and on no other, as its asset does."""
        days = [date.fromisoformat(day) for day in self.due(stream)]
        column = STREAMS[stream].day_column
        day = f'"{column}"::DATE' if column else "DATE '1970-01-01'"
        for span in bridge(days, max_gap=0):
            inputs = raw.raw_inputs(self.postgres, stream, span.first, span.last)
            query = raw.raw_query(inputs)
            with self.lake.get_connection(write=True) as connection:
                connection.register("live", query.tables["live"])
                connection.execute("BEGIN")
                connection.execute("CREATE SCHEMA IF NOT EXISTS lake.raw")
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS lake.raw.raw_{stream} AS FROM ({query.sql}) LIMIT 0",
                    dict(query.parameters),
                )
                connection.execute(
                    f"DELETE FROM lake.raw.raw_{stream} WHERE {day} BETWEEN ? AND ?", [span.first, span.last]
                )
                connection.execute(f"INSERT INTO lake.raw.raw_{stream} {query.sql}", dict(query.parameters))
                connection.execute("COMMIT")
            raw.settle(self.postgres, self.lake, inputs)

    def table(self, stream: str) -> list[Any]:
        """Rows of the raw table as `rebuild` has left it, sorted."""
        with self.lake.get_connection() as connection:
            return connection.execute(f"FROM lake.raw.raw_{stream} ORDER BY ALL").fetchall()

    def settle(self, stream: str) -> None:
        """Note the days that are due as rebuilt."""
        days = [date.fromisoformat(day) for day in self.due(stream)]
        if days:
            raw.settle(self.postgres, self.lake, raw.raw_inputs(self.postgres, stream, min(days), max(days)))

    def empty(self) -> None:
        """Forget everything that was taken in, and every file."""
        with self.lake.get_connection(write=True) as connection:
            for stream in STREAMS:
                connection.execute(f"DROP TABLE IF EXISTS intake.intake_{stream}")
                connection.execute(f"DROP TABLE IF EXISTS raw.raw_{stream}")
        with self.postgres.connect(write=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS ledger CASCADE")
        shutil.rmtree(self.folder / "landing", ignore_errors=True)


@contextmanager
def _new_room(folder: Path, service_home: Path) -> Iterator[Room]:
    server = PostgresResource(home=str(service_home))
    names = [f"t_{uuid.uuid4().hex[:16]}" for _ in range(2)]
    with psycopg.connect(server.connection_url("postgres"), autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    # The databases go with the session's server.
    catalog, database = (server.connection_url(name) for name in names)
    lake = DuckLakeResource(home=str(folder), catalog_url=catalog, data_path=str(folder / "lake"))
    yield Room(folder, lake, PostgresResource(home=str(service_home), url=database))


@pytest.fixture(scope="session")
def _session_room(tmp_path_factory: pytest.TempPathFactory, service_home: Path) -> Iterator[Room]:
    with _new_room(tmp_path_factory.mktemp("room"), service_home) as found:
        yield found


@pytest.fixture
def room(_session_room: Room) -> Room:
    """An empty room."""
    _session_room.empty()
    return _session_room


@pytest.fixture(scope="module")
def shared_room(tmp_path_factory: pytest.TempPathFactory, service_home: Path) -> Iterator[Room]:
    """A room that the tests of a module share."""
    with _new_room(tmp_path_factory.mktemp("room"), service_home) as found:
        yield found
