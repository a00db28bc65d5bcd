"""ClickHouse: in-process as chDB, or a server over HTTP; the same client and the same SQL for both.

Facts about chDB that shape this module (measured, chdb 4.4):

- One process may open a path, and one process may have one path open at a time. After closing it, another
  path can be opened. A second process fails, so a file lock beside the path makes it wait instead.
- The first opening takes 0.8 s (most of it the import), a reopening 35-50 ms and five threads that never
  end. A further client on the engine that is open takes 10 ms and leaks nothing. So the engine is open for as
  long as somebody in the process uses it, and each use has a client of its own: time-outs and open streams
  of one do not touch another's.
- A forked child inherits an engine that hangs: start processes by spawn.

And about clickhouse-connect (1.12, on a server): where the server hangs up before it has answered,
`client.insert` sends its rows a second time, which doubles them if the first ones had arrived.
`client.insert_arrow` and `client.command` do not; insert with those. A question that changes nothing it asks a
second time, on a new connection, which cannot be turned off: one of our three tries is two connections then.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import Field

from ml_assets.errors import StoreBusy, StoreUnavailable, missing_table
from ml_assets.lib.current_run import label, run_id
from ml_assets.lib.sql import quote_identifier
from ml_assets.resources.base import (
    BUSY_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    HOME,
    StoreResource,
    check_health,
    connecting,
    could_be_made,
    plain,
    require_scheme,
    unavailable,
    unwritten,
)
from ml_assets.sql_files import read_sql
from ml_assets.stores.clickhouse.holder import holder_file, holder_of, note_holder
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client
    from filelock import FileLock

    from ml_assets.tables.land import Rows

DATABASE = "ml_metrics"
OLDEST_SERVER = (26, 6)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNKNOWN_TABLE = 60
_TIMEOUT = 159
_READONLY = 164
_SCHEMES = ("clickhouse", "clickhouses", "chdb")


class ClickHouseResource(StoreResource):
    """ClickHouse, embedded or a server.

    Args:
        home: folder of the embedded stores; chDB's data is `services/clickhouse` there if `url` is empty.
        url: `clickhouse://user:password@host:8123` (HTTP), `clickhouses://` (HTTPS) or `chdb:///folder`.
        query_timeout_s: time-out of a statement (`max_execution_time`).
        write_timeout_s: the same for clients that write.
        lock_timeout_s: how long to wait for another process that has the embedded engine open.
    """

    home: str = HOME
    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0
    write_timeout_s: float = 600.0
    lock_timeout_s: float = 60.0

    @property
    def embedded_path(self) -> Path | None:
        """Folder of the embedded engine, None for a server.

        Raises:
            StoreUnavailable: the configured URL is none of ClickHouse's.
        """
        url = plain(self.url)
        if not url:
            path = Path(os.path.abspath(self.home)) / "services" / "clickhouse"
        else:
            require_scheme("ClickHouse", url, _SCHEMES, "ML_ASSETS_CLICKHOUSE_URL")
            parts = urlsplit(url)
            if parts.scheme != "chdb":
                return None
            if parts.netloc or parts.path in ("", "/"):
                raise StoreUnavailable(
                    f"ClickHouse cannot use {url!r}: set ML_ASSETS_CLICKHOUSE_URL to chdb:///absolute/folder."
                )
            path = Path(unquote(parts.path))
        if "?" in str(path):
            raise StoreUnavailable(
                f"chDB cannot open {str(path)!r} because of the question mark: choose another ML_ASSETS_HOME."
            )
        return path

    @contextmanager
    def client(self, write: bool = False, purpose: str = "") -> "Iterator[Client]":
        """A client on the database `ml_metrics`, closed after the block.

        On the embedded engine the block holds the lock that keeps other processes out; nested blocks share
        it. Times come back as aware datetimes where the column has a time zone.

        Args:
            write: use the longer time-out.
            purpose: what this process does, for whoever waits for it; the command line if empty.

        Raises:
            StoreUnavailable: the server does not answer after three tries, or is too old.
            StoreBusy: another process has the embedded engine open.
        """
        with self._client(write, purpose, self.lock_timeout_s) as client:
            yield client

    @contextmanager
    def asking(self) -> Iterator[Callable[[str], Sequence[Sequence[Any]]]]:
        """A function that answers one statement after the other with its rows, over one connection."""
        with self.client() as client:
            yield lambda statement: client.query(statement).result_rows

    def answer(self, query: str) -> "pa.Table":
        """What one query answers; the engine refuses to change anything (`readonly`).

        Raises:
            Refusal: the query is wrong, would change something, or nothing has been written yet.
            StoreUnavailable, StoreBusy: as `client`.
        """
        import pyarrow as pa
        from clickhouse_connect.driver.exceptions import DatabaseError

        from ml_assets.tables.answers import not_answered, nothing_written, only_read

        path = self.embedded_path
        if path is not None and could_be_made(path):
            raise nothing_written("ClickHouse", path)
        with self.client() as client:
            try:
                return client.query_arrow(query, settings={"readonly": 1}, use_strings=True)
            except DatabaseError as fault:
                if fault.code == _TIMEOUT:
                    raise
                if fault.code == _READONLY:
                    raise only_read("ClickHouse") from fault
                raise not_answered("ClickHouse", fault) from fault
            except pa.ArrowInvalid as fault:  # it gave no rows
                raise only_read("ClickHouse") from fault

    @contextmanager
    def _client(self, write: bool, purpose: str, lock_timeout_s: float) -> "Iterator[Client]":
        path = self.embedded_path
        if path is None:
            with _closing(self._connect_server(write)) as client:
                yield client
        else:
            with (
                _ENGINE.opened(path, lock_timeout_s, purpose, lambda: self._finish_writes(path)),
                _closing(self._connect_chdb(path, write)) as client,
            ):
                yield client

    def _finish_writes(self, path: Path) -> list[str]:
        """What a killed process has left half done, done before anybody reads."""
        from ml_assets.stores.clickhouse.redo import recover

        with _closing(self._connect_chdb(path, write=True)) as client:
            return recover(client, alone=True)

    def finished_when_opened(self) -> list[str]:
        """Tables of killed writers that were dealt with when the embedded engine, which is open now, was opened."""
        return list(_ENGINE.finished) if self.embedded_path is not None else []

    def connection_url(self) -> str:
        """URL of the server or of the embedded engine.

        Raises:
            StoreUnavailable: the configured URL is none of ClickHouse's.
        """
        path = self.embedded_path
        return plain(self.url) if path is None else f"chdb://{path}"

    def record_model_performance(self, events: "Rows") -> Path:
        """Hand performance events to the graph, which carries them on to `ml_model_performance`; see `land`.

        Args:
            events: columns of the stream `performance`, many at once.

        Returns:
            The landing file. The sensors take it in within a minute, `ml-assets refresh` at once.
        """
        from ml_assets.tables.land import land

        return land(Path(os.path.abspath(self.home)) / "landing", "performance", events)

    def performance_trend(
        self, model_name: str, window: timedelta, until: datetime | None = None
    ) -> "pa.Table":
        """How one model did, hour by hour, newest first, with exact quantiles.

        Args:
            model_name: the model.
            window: how far to look back.
            until: end of the window, exclusive; now if None.

        Raises:
            StoreUnavailable: `clickhouse/ml_model_performance` was never materialized.
        """
        from clickhouse_connect.driver.exceptions import DatabaseError

        end = until or datetime.now(UTC)
        if end.tzinfo is None:
            raise ValueError(f"{end.isoformat()} has no time zone; give an aware datetime")
        parameters = {
            "model_name": model_name,
            "start_us": (end - window - _EPOCH) // timedelta(microseconds=1),
            "end_us": (end - _EPOCH) // timedelta(microseconds=1),
        }
        with self.client() as client:
            try:
                return client.query_arrow(
                    read_sql("clickhouse/performance_trend.sql"), parameters, use_strings=True
                )
            except DatabaseError as fault:
                if fault.code == _UNKNOWN_TABLE:
                    raise missing_table("clickhouse/ml_model_performance") from fault
                raise

    def _connect_chdb(self, path: Path, write: bool) -> "Client":
        import clickhouse_connect
        from clickhouse_connect.driver.exceptions import Error

        try:
            client = clickhouse_connect.get_client(
                interface="chdb",
                path=str(path),
                settings=self._settings(write),
                tz_mode="schema",
            )
            return _use_database(client)
        except Error as fault:
            raise unavailable(
                "Embedded ClickHouse",
                f"chdb://{path}",
                fault,
                "see that no other program has this folder open and that its disk has space left",
            ) from fault

    def _connect_server(self, write: bool) -> "Client":
        import clickhouse_connect
        from clickhouse_connect.driver.exceptions import Error, OperationalError

        # Whatever it warns of it raises as well.
        logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
        url = plain(self.url)
        parts = urlsplit(url)
        secure = parts.scheme == "clickhouses"
        try:
            client = connecting(OperationalError)(
                clickhouse_connect.get_client,
                interface="https" if secure else "http",
                host=parts.hostname or "localhost",
                port=parts.port or (8443 if secure else 8123),
                username=unquote(parts.username or "default"),
                password=unquote(parts.password or ""),
                settings=self._settings(write),
                tz_mode="schema",
                connect_timeout=CONNECT_TIMEOUT_S,
                # The server ends a statement first, and says why.
                send_receive_timeout=int(self._timeout_s(write)) + CONNECT_TIMEOUT_S,
                # A session would allow one statement at a time.
                autogenerate_session_id=False,
                query_retries=0,
            )
            _require_version(client)
            return _use_database(client)
        except Error as fault:
            # Without `from`: the driver's message may hold the password.
            raise unavailable(
                "ClickHouse",
                url,
                fault,
                "check that it runs and that ML_ASSETS_CLICKHOUSE_URL is right",
            ) from None

    def _timeout_s(self, write: bool) -> float:
        return self.write_timeout_s if write else self.query_timeout_s

    def _settings(self, write: bool) -> dict[str, str | int | float]:
        settings = {"max_execution_time": self._timeout_s(write), "session_timezone": "UTC"}
        # Without a run there is nothing to tell, and a server may keep its users from changing settings.
        return settings | ({"log_comment": label()} if run_id.get() else {})

    def location(self) -> str:
        """The URL of the store, as status shows it (without its password)."""
        return self.connection_url()

    def health(self) -> StoreHealth:
        """Whether the engine or server answers, with its version. Never raises, makes no folder.

        `busy` if another process has the embedded engine open for more than five seconds.
        """
        return check_health(self._probe)

    def _probe(self) -> StoreHealth:
        from ml_assets.stores.clickhouse.redo import failed, failed_sentence

        path = self.embedded_path
        if path is not None and could_be_made(path):
            return unwritten()
        with self._client(False, "health check", BUSY_TIMEOUT_S) as client:
            version = client.command("SELECT version()")
            names = failed(client)
        return StoreHealth("healthy", str(version), failed_sentence(names) if names else "")


@contextmanager
def _closing(client: "Client") -> "Iterator[Client]":
    try:
        yield client
    finally:
        client.close()


def _use_database(client: "Client") -> "Client":
    """Make `ml_metrics` if it is not there, and the client's default. `default` is an Overlay in chDB."""
    try:
        # Asked first, because a server's user may use the database without the right to create it.
        if client.command(f"EXISTS DATABASE {quote_identifier(DATABASE)}") != 1:
            client.command(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(DATABASE)} ENGINE = Atomic")
    except BaseException:
        client.close()
        raise
    client.database = DATABASE
    return client


def _require_version(client: "Client") -> None:
    numbers = tuple(int(part) for part in str(client.server_version).split(".")[:2])
    if numbers < OLDEST_SERVER:
        client.close()
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise StoreUnavailable(
            f"ClickHouse server {client.server_version} is too old: update it to {oldest} or later."
        )


class _Engine:
    """The one chDB engine of this process: which path it has open, for how many users, and the lock on it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pid = 0
        self._path: Path | None = None
        self._users = 0
        self._lock: FileLock | None = None
        self.finished: list[str] = []

    @contextmanager
    def opened(
        self, path: Path, timeout_s: float, purpose: str, first: Callable[[], list[str]]
    ) -> Iterator[None]:
        """Hold the right to have clients on `path`, within this process and among all processes.

        Args:
            first: done before anybody else may, when it was not open yet; what it returns is kept in `finished`.
        """
        self._enter(path, timeout_s, purpose, first)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, path: Path, timeout_s: float, purpose: str, first: Callable[[], list[str]]) -> None:
        if self._users and self._pid != os.getpid():
            raise StoreUnavailable(
                "Embedded ClickHouse was open when this process was forked and cannot be used in it: "
                "start processes by spawn, or set ML_ASSETS_CLICKHOUSE_URL to a server."
            )
        deadline = time.monotonic() + timeout_s
        if not self._changed.acquire(timeout=timeout_s):
            raise _busy(path, timeout_s)
        try:
            free = self._changed.wait_for(lambda: self._path in (None, path), timeout_s)
            if not free:
                raise StoreBusy(
                    f"Embedded ClickHouse has {self._path} open in this process for more than "
                    f"{timeout_s:g} s: close it before opening {path}."
                )
            if self._path is None:
                self._acquire(path, max(0.0, deadline - time.monotonic()), timeout_s, purpose)
                self._path, self._pid = path, os.getpid()
                try:
                    self.finished = first()
                except BaseException:
                    self._close()
                    raise
            self._users += 1
        finally:
            self._changed.release()

    def _acquire(self, path: Path, remaining_s: float, timeout_s: float, purpose: str) -> None:
        from filelock import FileLock, Timeout

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock", timeout=remaining_s, mode=0o644)
            lock.acquire(poll_interval=0.02)
        except Timeout:
            raise _busy(path, timeout_s) from None
        except OSError as fault:
            raise unavailable(
                "Embedded ClickHouse",
                f"chdb://{path}",
                fault,
                "check that you may write to that folder",
            ) from fault
        self._lock = lock
        note_holder(path, purpose)

    def _leave(self) -> None:
        with self._changed:
            self._users -= 1
            if not self._users:
                self._close()

    def _close(self) -> None:
        """Let others have it; the condition's lock is held."""
        if self._path and self._lock:
            with suppress(FileNotFoundError):
                holder_file(self._path).unlink()
            self._lock.release()
            self._path = self._lock = None
            self._changed.notify_all()


_ENGINE = _Engine()


def _busy(path: Path, timeout_s: float) -> StoreBusy:
    return StoreBusy(
        f"Embedded ClickHouse at {path} has been held by {holder_of(path)} for more than {timeout_s:g} s: wait for it to "
        "end, raise ML_ASSETS_LOCK_TIMEOUT_S, or set ML_ASSETS_CLICKHOUSE_URL to a server."
    )
