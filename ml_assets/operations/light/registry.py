"""The SQLite file of the light registry: its schema, and one transaction a block.

It lies beside the graph's SQLite file and not in it. That file is a copy, which the graph rebuilds, verifies and
vacuums, and whose writes may take minutes; this one is the only place where its runs are, and whoever records a run
waits for nobody but others who do.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_assets.errors import Refusal, StoreBusy, StoreUnavailable
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql

_VERSION = 1
"""Of the schema, as `PRAGMA user_version` keeps it."""


class Registry:
    """The file, which the first write makes. Any number of processes and threads may use it at once.

    Args:
        settings: `light/registry.db` below its home; `lock_timeout_s` is how long a write waits for another one.
    """

    def __init__(self, settings: Settings) -> None:
        self.path = settings.home / "light" / "registry.db"
        self._home = settings.home
        self._lock_timeout_s = settings.lock_timeout_s

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the registry; an empty one if there is no file yet, and makes none.

        Raises:
            StoreUnavailable: the file cannot be used, or a newer release has made it.
            StoreBusy: another process kept it too long.
        """
        connection = self._open(":memory:") if not self.path.exists() else self._opened()
        with self._transaction(connection, "BEGIN"):
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that alone may change the registry, and the files that its rows name.

        It is committed at the end of the block, onto the disk, and rolled back if the block raises.

        Raises:
            StoreUnavailable, StoreBusy: as `read`.
        """
        with self._transaction(self._opened(), "BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            self._told(connection, begin)
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self._told(connection, "COMMIT")
        finally:
            connection.close()

    def _told(self, connection: sqlite3.Connection, statement: str) -> None:
        try:
            connection.execute(statement)
        except sqlite3.Error as fault:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise self._explained(fault) from fault

    def _opened(self) -> sqlite3.Connection:
        """A connection to the file, which is made if it is not there."""
        if not self.path.exists():
            self._make()
        connection = self._open(self.path)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as fault:
            connection.close()
            raise self._explained(fault) from fault
        if version != _VERSION:
            connection.close()
            raise Refusal(
                f"The registry {self.path} has the schema {version} of another release, and this one reads {_VERSION}: "
                "use the release that made it."
            )
        return connection

    def _make(self) -> None:
        """Make the file beside its place and put it there whole: nobody ever sees a registry without tables."""
        from filelock import FileLock

        from ml_assets.services.home import private_home

        try:
            private_home(self._home)
            self.path.parent.mkdir(exist_ok=True)
            with FileLock(self.path.with_name("making.lock")):
                if self.path.exists():
                    return
                draft = self.path.with_name("draft.db")
                for left in (draft, *(draft.with_name(f"{draft.name}{end}") for end in ("-wal", "-shm"))):
                    left.unlink(missing_ok=True)
                connection = sqlite3.connect(draft, isolation_level=None)
                try:
                    # It is kept in the file; without the log, since the draft is moved.
                    connection.executescript(read_sql("sqlite/light/schema.sql"))
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
                    connection.execute("PRAGMA journal_mode = WAL")
                finally:
                    connection.close()
                draft.rename(self.path)
        except (OSError, sqlite3.Error) as fault:
            raise self._explained(fault) from fault

    def _open(self, path: Path | str) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=self._lock_timeout_s)
        except sqlite3.Error as fault:
            raise self._explained(fault) from fault
        connection.row_factory = sqlite3.Row
        if path == ":memory:":
            connection.executescript(read_sql("sqlite/light/schema.sql"))
        else:
            connection.execute(
                "PRAGMA synchronous = FULL"
            )  # what was said to be recorded outlives a power cut
            connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _explained(self, fault: Exception) -> StoreUnavailable:
        if getattr(fault, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT):
            return StoreBusy(
                f"The registry {self.path} is being written by another process for more than "
                f"{self._lock_timeout_s:g} s: wait for it to end, or raise ML_ASSETS_LOCK_TIMEOUT_S."
            )
        return StoreUnavailable(
            f"The registry {self.path} cannot be used ({fault}): check that it is a SQLite database in a folder that "
            "you may write to, on a disk with space left."
        )


def objects(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    """The rows of a query, by the names of their columns."""
    return [dict(row) for row in cursor]


def require_run(connection: sqlite3.Connection, run_id: str) -> None:
    """Refuse what belongs to no run.

    Raises:
        Refusal: there is no such run.
    """
    if connection.execute("SELECT 1 FROM ml_experiments WHERE id = ?", (run_id,)).fetchone() is None:
        raise Refusal(
            f"There is no run {run_id!r} in the registry: create it first, or list() what there is."
        )
