"""SQLite: a single file with write-ahead log, foreign keys and a time-out, one transaction per connection.

Times are text in UTC as `ml_assets.lib.sql.utc_text` writes them.
"""

import hashlib
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ml_assets.errors import StoreBusy, StoreUnavailable
from ml_assets.lib.sql import quote_identifier
from ml_assets.resources.base import (
    BUSY_TIMEOUT_S,
    HOME,
    StoreResource,
    check_health,
    could_be_made,
    for_reading_alone,
    plain,
    require_scheme,
    unwritten,
)
from ml_assets.services.home import private_home
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    import pyarrow as pa

_CHECK_EVERY = 20_000
"""Virtual machine instructions between two looks at the clock, about a millisecond."""

_BEYOND_READING = {
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_SAVEPOINT,
}
"""What `query_only` allows although it is no reading: it makes a file, or ends the transaction."""

_T = TypeVar("_T")


class SQLiteResource(StoreResource):
    """A SQLite file.

    Args:
        home: folder of the embedded stores; the file is `sqlite/ml_dev.db` there if `url` is empty.
        url: `sqlite:///relative/path` or `sqlite:////absolute/path`.
        query_timeout_s: how long a reading transaction may take.
        write_timeout_s: how long a writing transaction may take.
        lock_timeout_s: how long to wait for another process's write.
    """

    home: str = HOME
    url: str = ""
    query_timeout_s: float = 30.0
    write_timeout_s: float = 600.0
    lock_timeout_s: float = 60.0
    read_only: bool = False

    @property
    def path(self) -> Path:
        """Where the file lies.

        Raises:
            StoreUnavailable: the configured URL is not one of a SQLite file.
        """
        url = plain(self.url)
        if not url:
            return Path(os.path.abspath(self.home)) / "sqlite" / "ml_dev.db"
        require_scheme("SQLite", url, ("sqlite",), "ML_ASSETS_SQLITE_URL")
        name = url.removeprefix("sqlite:///")
        if name == url or not name or name.endswith(":memory:"):
            raise StoreUnavailable(
                f"SQLite cannot use {url!r}: set ML_ASSETS_SQLITE_URL to sqlite:////absolute/path/of/a/file."
            )
        return Path(os.path.abspath(name))

    @contextmanager
    def connect(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end of the block, rolled back if the block raises.

        A writing transaction takes the file's write lock at once (BEGIN IMMEDIATE), so that it cannot fail
        half-way because another process wrote; readers go on reading what was there before.

        Raises:
            StoreUnavailable: the file cannot be opened or created.
            StoreBusy: another process kept the write lock longer than `lock_timeout_s`.
            TimeoutError: the transaction took longer than its time-out.
        """
        with self._transaction(write, self.lock_timeout_s) as connection:
            yield connection

    def streamed(self, connection: sqlite3.Connection, parts: Iterable[_T]) -> Iterator[_T]:
        """The same parts, read within a transaction whose time-out counts for each of them anew.

        So it counts the time that SQLite takes, not the time that the consumer takes.
        """
        for part in parts:
            yield part
            _allow(connection, self.query_timeout_s)

    @contextmanager
    def asking(self) -> Iterator[Callable[[str], Sequence[Sequence[Any]]]]:
        """A function that answers one statement after the other with its rows, over one connection.

        Statements may use `md5(text)`, in hexadecimal digits, and `hex_number(digits)`, as other stores can.
        """
        with self.connect() as connection:
            connection.create_function("md5", 1, _md5, deterministic=True)
            connection.create_function("hex_number", 1, _hex_number, deterministic=True)
            yield lambda statement: connection.execute(statement).fetchall()

    def answer(self, query: str) -> "pa.Table":
        """What one query answers; SQLite itself refuses to write (`query_only`).

        Raises:
            Refusal: the query is wrong, is no query, would change something, or nothing has been written yet.
            StoreUnavailable, StoreBusy, TimeoutError: as `connect`.
        """
        from ml_assets.tables.answers import answered, not_answered, nothing_written, only_read

        if could_be_made(self.path):
            raise nothing_written("SQLite", self.path)
        with self.connect() as connection:
            connection.set_authorizer(_reading)
            try:
                cursor = connection.execute(query)
                names = [column[0] for column in cursor.description or ()]
                rows = cursor.fetchall()
            except (sqlite3.Error, sqlite3.Warning) as fault:
                code = getattr(fault, "sqlite_errorcode", None)
                if code == sqlite3.SQLITE_INTERRUPT:
                    raise
                if code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY):
                    raise only_read("SQLite") from fault
                raise not_answered("SQLite", fault) from fault
            finally:
                connection.set_authorizer(None)  # the transaction has to end
        if not names:
            raise only_read("SQLite")
        return answered(names, rows, [None] * len(names))

    def rows_by(self, table: str, column: str) -> Callable[[str], list[dict[str, Any]]]:
        """A function from a value of a column to the rows that have it; none if there is no such table.

        Which values there are is asked once, so that to ask for others costs nothing.
        """
        name, by = quote_identifier(table), quote_identifier(column)

        @cache
        def present() -> set[str]:
            with self.connect() as connection:
                known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
                found = connection.execute(f"SELECT DISTINCT {by} FROM {name}") if known else ()
                return {value for (value,) in found}

        def rows(value: str) -> list[dict[str, Any]]:
            if value not in present():
                return []
            with self.connect() as connection:
                cursor = connection.execute(f"SELECT * FROM {name} WHERE {by} = ?", (value,))
                columns = [field[0] for field in cursor.description]
                return [dict(zip(columns, row, strict=True)) for row in cursor]

        return rows

    @contextmanager
    def statements(self) -> Iterator[sqlite3.Connection]:
        """A connection on which each statement stands alone, for those that run in no transaction (VACUUM).

        Raises:
            StoreUnavailable: the file cannot be opened or created.
            StoreBusy: another process kept the write lock longer than `lock_timeout_s`.
        """
        connection = self._open(self.lock_timeout_s)
        try:
            yield connection
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise self._busy(self.lock_timeout_s) from fault
            raise self._explain(fault) from fault
        finally:
            connection.close()

    @contextmanager
    def _transaction(self, write: bool, lock_timeout_s: float) -> Iterator[sqlite3.Connection]:
        connection = self._open(lock_timeout_s)
        try:
            self._begin(connection, write, lock_timeout_s)
            try:
                yield connection
            except BaseException as fault:
                # Without the deadline, or the ROLLBACK after a time-out would be interrupted as well.
                connection.set_progress_handler(None, 0)
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                    raise self._too_long(write) from fault
                if self.read_only and getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
                    raise for_reading_alone("SQLite") from fault
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()

    def _open(self, lock_timeout_s: float) -> sqlite3.Connection:
        path = self.path
        connection = None
        try:
            if not path.parent.is_dir() and not plain(self.url):
                # Before there is a folder in it that tells of a home.
                private_home(Path(os.path.abspath(self.home)))
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, isolation_level=None, timeout=lock_timeout_s)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                "PRAGMA synchronous = NORMAL"
            )  # safe with WAL: a power cut loses no consistency
            connection.execute("PRAGMA foreign_keys = ON")
        except (sqlite3.Error, OSError) as fault:
            if connection is not None:
                connection.close()
            if getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise self._busy(lock_timeout_s) from fault
            raise self._explain(fault) from fault
        return connection

    def _begin(self, connection: sqlite3.Connection, write: bool, lock_timeout_s: float) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE" if write and not self.read_only else "BEGIN")
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise self._busy(lock_timeout_s) from fault
            raise self._explain(fault) from fault
        if self.read_only or not write:
            connection.execute("PRAGMA query_only = ON")
        _allow(connection, self._timeout_s(write))

    def _timeout_s(self, write: bool) -> float:
        return self.write_timeout_s if write else self.query_timeout_s

    def _too_long(self, write: bool) -> TimeoutError:
        name = "WRITE" if write else "QUERY"
        return TimeoutError(
            f"what was asked of SQLite file {self.path} took longer than {self._timeout_s(write):g} s: narrow it, or "
            f"raise ML_ASSETS_{name}_TIMEOUT_S."
        )

    def _busy(self, lock_timeout_s: float) -> StoreBusy:
        return StoreBusy(
            f"SQLite file {self.path} is being written by {_writer(self.path)} for more than "
            f"{lock_timeout_s:g} s: wait for it to end, or raise ML_ASSETS_LOCK_TIMEOUT_S."
        )

    def _explain(self, fault: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"SQLite file {self.path} cannot be used ({fault}): check that it is a SQLite database in a "
            "folder that you may write to, on a disk with space left."
        )

    def create_experiment(self, experiment: str, **columns: Any) -> str:
        """Hand a new experiment to the graph, which carries it on to this file and every other store.

        The file is a copy that the graph rebuilds; to create, change and complete experiments that are there at
        once, use PostgreSQL's operations.

        Args:
            experiment: name of the experiment.
            columns: any other columns of the stream `runs`. Unless given, the run_id is a new one, the status is
                'created', and it was created now.

        Returns:
            The run_id.
        """
        from ml_assets.tables.land import land

        row: dict[str, Any] = {
            "run_id": str(uuid.uuid4()),
            "status": "created",
            "created_at": datetime.now(UTC),
            **columns,
        }
        land(Path(os.path.abspath(self.home)) / "landing", "runs", [{**row, "experiment": experiment}])
        return row["run_id"]

    def location(self) -> str:
        """The URL of the store, as status shows it (without its password)."""
        return f"sqlite:///{self.path}"

    def health(self) -> StoreHealth:
        """Whether the file can be read and written, with the library's version. Never raises, makes no file."""
        return check_health(self._probe)

    def _probe(self) -> StoreHealth:
        if could_be_made(self.path):
            return unwritten(sqlite3.sqlite_version)
        with self._transaction(True, BUSY_TIMEOUT_S) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return StoreHealth("healthy", sqlite3.sqlite_version)


def _reading(action: int, *_: str | None) -> int:
    """SQLite's authorizer for statements that only read, where `query_only` keeps them from writing."""
    return sqlite3.SQLITE_DENY if action in _BEYOND_READING else sqlite3.SQLITE_OK


def _md5(text: str | None) -> str | None:
    return None if text is None else hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _hex_number(digits: str | None) -> int | None:
    return None if digits is None else int(digits, 16)


def _allow(connection: sqlite3.Connection, seconds: float) -> None:
    """Interrupt whatever still runs on the connection this long after now."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _CHECK_EVERY)


def _writer(path: Path) -> str:
    """Who holds the lock of a SQLite file's writer, as far as this system tells."""
    import psutil

    inodes = set()
    for file in (path, path.with_name(f"{path.name}-shm")):
        with suppress(OSError):
            inodes.add(str(file.stat().st_ino))
    try:
        locks = Path("/proc/locks").read_text()
    except OSError:  # not on Linux
        return "another process"
    for line in locks.splitlines():
        # 1: POSIX  ADVISORY  WRITE 4711 08:01:131090 120 120; with -> after the number, of one who waits for it
        words = line.split()
        if words[1] == "->" or words[3] != "WRITE" or words[5].rpartition(":")[2] not in inodes:
            continue
        try:
            pid = int(words[4])
            return f"process {pid} ({' '.join(psutil.Process(pid).cmdline()[:4])})"
        except (psutil.Error, ValueError):  # it has just ended, or is not to be seen from here
            continue
    return "another process"
