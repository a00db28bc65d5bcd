"""ClickHouse: in-process as chDB, or a server over HTTP; the same client and the same SQL for both.

Facts about chDB that shape this module (measured, chdb 4.4):

- One process may open a path, and one process may have one path open at a time. After closing it, another
  path can be opened. A second process fails, so a file lock beside the path makes it wait instead.
- The first opening takes 0.8 s (most of it the import), a reopening 35-50 ms and three threads that never end
  (five without `_POOLS`), each with three files open: a process would have no threads left after 2,000 of them, a
  notebook with the usual limit no files after seventy. A further client on the engine that is open takes 10 ms and
  leaks nothing. So each use has a client of its own, whose time-outs and open streams do not touch another's, and
  the engine stays open for a while after the last use, unless another process or another folder is waiting.
- A forked child of a process that has ever used it inherits an engine that hangs: start processes by spawn.

And about clickhouse-connect (1.12, on a server): where the server hangs up before it has answered,
`client.insert` sends its rows a second time, which doubles them if the first ones had arrived.
`client.insert_arrow` and `client.command` do not; insert with those. A question that changes nothing it asks a
second time, on a new connection, which cannot be turned off: one of our three tries is two connections then.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import Field

from ml_assets.errors import StoreUnavailable
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
    for_reading_alone,
    plain,
    require_scheme,
    unavailable,
    unwritten,
)
from ml_assets.resources.engine import EmbeddedEngine
from ml_assets.services.home import private_home
from ml_assets.stores.clickhouse.cluster import SETTINGS as CLUSTER_SETTINGS
from ml_assets.stores.clickhouse.cluster import join, on_cluster
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

    from ml_assets.tables.land import Rows

DATABASE = "ml_metrics"
OLDEST_SERVER = (26, 6)
_TIMEOUT = 159
_READONLY = 164
_SCHEMES = ("clickhouse", "clickhouses", "chdb")

_POOLS = "background_move_pool_size=0&background_fetches_pool_size=0"
"""Threads for moving parts between disks and fetching them from replicas, neither of which chDB has."""


class ClickHouseResource(StoreResource):
    """ClickHouse, embedded or a server.

    Args:
        home: folder of the embedded stores; chDB's data is `services/clickhouse` there if `url` is empty.
        url: `clickhouse://user:password@host:8123` (HTTP), `clickhouses://` (HTTPS) or `chdb:///folder`.
        query_timeout_s: time-out of a statement (`max_execution_time`).
        write_timeout_s: the same for clients that write.
        lock_timeout_s: how long to wait for another process that has the embedded engine open.
        cluster: of the server, on all of whose replicas the tables are made; on the server alone if empty.
        read_only: let nothing be changed, whoever asks, but by finishing what a killed writer had committed.
    """

    home: str = HOME
    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0
    write_timeout_s: float = 600.0
    lock_timeout_s: float = 60.0
    cluster: str = ""
    read_only: bool = False

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
            Refusal: it would change something, and the resource is for reading alone.
        """
        from clickhouse_connect.driver.exceptions import DatabaseError

        with self._client(write, purpose, self.lock_timeout_s) as client:
            if not self.read_only:
                yield client
                return
            # A user who may only read may not say so again.
            if client.server_settings["readonly"].value == "0":
                client.set_client_setting("readonly", 2)
            try:
                yield client
            except DatabaseError as fault:
                if fault.code == _READONLY:
                    raise for_reading_alone("ClickHouse") from fault
                raise

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
                # Who may only read cannot make it stricter.
                settings = {} if self.read_only else {"readonly": 1}
                return client.query_arrow(query, settings=settings, use_strings=True)
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
        if path is not None and self.cluster:
            raise StoreUnavailable(
                "Embedded ClickHouse has no cluster: set ML_ASSETS_CLICKHOUSE_URL to one of the cluster's servers, or "
                "unset ML_ASSETS_CLICKHOUSE_CLUSTER."
            )
        if path is None:
            with _closing(self._connect_server(write)) as client:
                yield client
        else:
            if not path.parent.is_dir() and not plain(self.url):
                with suppress(OSError):  # which the engine's own folder meets as well
                    # Before there is a folder in it that tells of a home.
                    private_home(Path(os.path.abspath(self.home)))
            with (
                _ENGINE.opened(
                    path,
                    lock_timeout_s,
                    purpose,
                    lambda: self._connect_chdb(path, write=False),
                    lambda: self._finish_writes(path),
                ),
                _closing(self._connect_chdb(path, write)) as client,
            ):
                yield client

    def _finish_writes(self, path: Path) -> list[str]:
        """What a killed process has left half done, done before anybody reads."""
        from ml_assets.stores.clickhouse.redo import recover

        with _closing(self._connect_chdb(path, write=True)) as client:
            return recover(client, alone=True)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Keep the embedded engine closed in all processes, for whoever copies its files; nothing to do for a server.

        Raises:
            StoreBusy: somebody has it open for longer than a lock is waited for.
        """
        path = self.embedded_path
        with nullcontext() if path is None else _ENGINE.at_rest(path, self.lock_timeout_s):
            yield

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

    def _connect_chdb(self, path: Path, write: bool) -> "Client":
        import clickhouse_connect
        from clickhouse_connect.driver.exceptions import Error

        try:
            client = clickhouse_connect.get_client(
                interface="chdb",
                path=f"{path}?{_POOLS}",
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
            join(client, self.cluster)
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
        settings |= CLUSTER_SETTINGS if self.cluster else {}
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
            client.command(
                f"CREATE DATABASE IF NOT EXISTS {quote_identifier(DATABASE)}{on_cluster(client)} ENGINE = Atomic"
            )
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


_ENGINE: "EmbeddedEngine[Client]" = EmbeddedEngine("Embedded ClickHouse", "chdb", "ML_ASSETS_CLICKHOUSE_URL")
