"""PostgreSQL: transactions through psycopg 3, on connections out of a pool.

The first transaction of a process has a connection of its own, so that a server that does not answer is
told at once and with its reason, and a command that asks one question starts no threads. From the second
on they come out of a pool, one a server and database, and each is tried before it is lent. Nothing is left
over between two transactions on one connection: time-outs, time zone, forms of values and the run that the server's
log shows hold for the transaction only, and a connection whose transaction failed is closed.
"""

import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from ml_assets.contracts.experiments import RUNS
from ml_assets.errors import missing_table
from ml_assets.lib.current_run import label
from ml_assets.lib.metric_rules import Direction, MetricRules
from ml_assets.lib.sql import quote_literal
from ml_assets.resources import recorded_runs
from ml_assets.resources.base import (
    CONNECT_TIMEOUT_S,
    HOME,
    StoreResource,
    check_health,
    connecting,
    embedded_url,
    for_reading_alone,
    or_database,
    plain,
    require_scheme,
    unavailable,
    with_database,
)
from ml_assets.sql_files import read_sql
from ml_assets.tables.run_row import known_day, run_row
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa
    from psycopg.adapt import Loader
    from psycopg_pool import ConnectionPool

DATABASE = "ml_dev"
_SCHEMES = ("postgresql", "postgres")

_POOL_SIZE = 16
"""Connections that one process keeps to one database; beyond that they are opened for a transaction."""

_POOL_IDLE_S = 60.0
_POOL_WAIT_S = 2.0
"""How long a transaction waits for the pool before it opens a connection itself."""

_SURE_S = 1.0
"""How long a server that has answered is taken to run: to look whether the embedded one does takes longer than many a
question."""

_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "connect_timeout": CONNECT_TIMEOUT_S,
    "application_name": "ml-assets",
    "keepalives_idle": 30,
}

_FORMS = {"TimeZone": "UTC", "DateStyle": "ISO, YMD", "extra_float_digits": "1"}
"""How values are written as text, which a server, database or role may have set otherwise."""

# Not by set_config, which as a query would already fix the transaction's snapshot.
_SET_LOCAL = "; ".join(
    [
        "SET LOCAL statement_timeout = %d",
        # A lock is a transaction that does nothing, which a server may be told to end.
        "SET LOCAL idle_in_transaction_session_timeout = 0",
        "SET LOCAL application_name = %b",
        *(f"SET LOCAL {name} = '{value}'" for name, value in _FORMS.items()),
    ]
).encode()

_pools: "dict[tuple[int, str], ConnectionPool]" = {}
"""By process, since a fork must not share connections, and URL."""

_pools_lock = threading.Lock()

_answered: "dict[tuple[int, str, str | None], tuple[ConnectionPool, float]]" = {}
"""The pools that have served, and when they did last: by process, place of the server, and database."""


class PostgresResource(StoreResource):
    """PostgreSQL with pgvector.

    Args:
        home: folder of the embedded server, used if `url` is empty.
        url: `postgresql://user:password@host:port/database`; the database is `ml_dev` if none is named.
        query_timeout_s: statement time-out of reading transactions.
        write_timeout_s: statement time-out of writing transactions.
        partitions_start: first day of the graph's tables, ISO.
        metric_directions, metric_synonyms: what the settings say of metrics, by key.
        read_only: let nothing be changed, whoever asks.
    """

    home: str = HOME
    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0
    write_timeout_s: float = 600.0
    partitions_start: str = "2014-01-01"
    metric_directions: dict[str, str] = {}
    metric_synonyms: dict[str, str] = {}
    read_only: bool = False

    def connection_url(self, database: str | None = None) -> str:
        """URL of the server, with another database if one is named.

        Raises:
            StoreUnavailable: the configured URL is none of PostgreSQL's, or the embedded server cannot start.
        """
        configured = plain(self.url)
        if not configured:
            return with_database(embedded_url("postgres", self.home), database or DATABASE)
        url = require_scheme("PostgreSQL", configured, _SCHEMES, "ML_ASSETS_POSTGRES_URL")
        return with_database(url, database) if database else or_database(url, DATABASE)

    @contextmanager
    def connect(self, write: bool = False, database: str | None = None) -> "Iterator[psycopg.Connection]":
        """One transaction: committed at the end of the block, rolled back if the block raises.

        Args:
            write: allow changes, with the longer time-out. Without it the transaction is read-only.
            database: another database of the same server.

        Raises:
            StoreUnavailable: the server does not answer after three tries.
            psycopg.errors.QueryCanceled: a statement ran into the time-out.
            Refusal: it would change something, and the resource is for reading alone.
        """
        import psycopg

        connection, pool = self._taken(database)
        timeout_s = self.write_timeout_s if write else self.query_timeout_s
        try:
            with connection:
                connection.autocommit = False
                connection.read_only = self.read_only or not write
                # Not as start-up options: connection poolers between here and the server refuse those.
                connection.execute(_SET_LOCAL % (int(timeout_s * 1000), quote_literal(label()).encode()))
                yield connection
            if pool is not None:
                _answered[self._place(database)] = pool, time.monotonic()
        except BaseException as fault:
            connection.close()
            if self.read_only and isinstance(fault, psycopg.errors.ReadOnlySqlTransaction):
                raise for_reading_alone("PostgreSQL") from fault
            raise
        finally:
            if pool is not None:
                pool.putconn(connection)

    def _taken(self, database: str | None) -> "tuple[psycopg.Connection, ConnectionPool | None]":
        """A connection, and the pool that it has to go back to, if it came out of one."""
        pool, last = _answered.get(self._place(database), (None, 0.0))
        # A server that has just answered is not looked for again.
        if pool is not None and time.monotonic() - last < _SURE_S and (lent := _lent(pool)):
            return lent, pool
        return _taken(self.connection_url(database))

    def _place(self, database: str | None) -> tuple[int, str, str | None]:
        return os.getpid(), plain(self.url) or self.home, database

    @contextmanager
    def statements(self, database: str | None = None) -> "Iterator[psycopg.Connection]":
        """A connection on which each statement stands alone, for those that run in no transaction (VACUUM).

        Args:
            database: as `connect`; the time-out is that of writes.

        Raises:
            StoreUnavailable: the server does not answer after three tries.
        """
        with _direct(self.connection_url(database)) as connection:
            connection.execute(
                "SELECT set_config('statement_timeout', %s, false), set_config('TimeZone', 'UTC', false), "
                "set_config('application_name', %s, false)",
                (str(int(self.write_timeout_s * 1000)), label()),
            )
            if self.read_only:
                connection.execute("SET default_transaction_read_only = on")
            yield connection

    @contextmanager
    def asking(self) -> Iterator[Callable[[str], Sequence[Sequence[Any]]]]:
        """A function that answers one statement after the other with its rows, over one connection."""
        with self.connect() as connection:
            yield lambda statement: connection.execute(statement.encode()).fetchall()

    def answer(self, query: str) -> "pa.Table":
        """What one query answers, within a transaction that cannot change anything.

        Raises:
            Refusal: the query is wrong, is no query, or would change something.
            StoreUnavailable: the server does not answer after three tries.
            psycopg.errors.QueryCanceled: it ran into the time-out of queries.
        """
        from ml_assets.stores.postgres_table.answers import answer

        # Not a connection of the pool: locks and settings of a session would outlive the query.
        connection = _direct(self.connection_url())
        try:
            connection.autocommit, connection.read_only = False, True
            connection.execute(
                _SET_LOCAL % (int(self.query_timeout_s * 1000), quote_literal(label()).encode())
            )
            return answer(connection, query)
        finally:
            connection.close()

    def close(self, database: str | None = None) -> None:
        """Close this process's idle connections; the next transaction opens its own."""
        _answered.pop(self._place(database), None)
        with _pools_lock:
            pool = _pools.pop((os.getpid(), self.connection_url(database)), None)
        if pool is not None:
            pool.close()

    def create_experiment(self, experiment: str, **columns: Any) -> str:
        """Add an experiment beside those that the graph writes.

        It stands in PostgreSQL at once, and the graph is asked to carry it on: the sensors, or the next
        `ml-assets refresh`, rebuild its day in SQLite. Features and embeddings are made from raw, where only
        runs are that were landed or logged to MLflow.

        Args:
            experiment: name of the experiment.
            columns: any other columns of `ml_experiments`; `parameters`, `metrics` and `tags` as mappings.
                Unless given, the id is a new one, the status is 'created', and it was created now.

        Returns:
            The id.

        Raises:
            ValueError: no such column, a value that the contract refuses, a day that the graph does not
                have, or an id that is taken.
        """
        import psycopg

        from ml_assets.stores import touched_days

        now = datetime.now(UTC)
        given = {name: value for name, value in columns.items() if value is not None}
        unsaid = {"id": str(uuid.uuid4()), "status": "created", "created_at": now}
        row = run_row({**unsaid, **given, "experiment": experiment})
        day = self._known_day(row["created_at"])
        touched_days.ensure_schema(self)
        try:
            with self.connect(write=True) as connection:
                recorded_runs.ensure_tables(connection)
                recorded_runs.add(connection, row, self._rules)
                touched_days.touch(connection, {("runs", day)})
        except psycopg.errors.UniqueViolation as fault:
            raise ValueError(f"there is an experiment {row['id']!r} already; give it another id") from fault
        return row["id"]

    def update_experiment(self, id: str, **columns: Any) -> None:
        """Change columns of an experiment that `create_experiment` made and nobody has completed.

        What is not given or is None stays; `parameters`, `metrics` and `tags` are merged, key by key, also when several
        change it at once. Each metric that is given is one more point of its row in `ml_run_metrics`. With one of the
        statuses 'completed', 'failed' and 'cancelled' it has ended, now unless `completed_at` is given.

        Raises:
            ValueError: as `create_experiment`, there is no such experiment to change, or it cannot go back to this
                status.
        """
        from ml_assets.stores import touched_days

        row = run_row({**columns, "id": id})
        if row["created_at"] is not None:
            self._known_day(row["created_at"])
        touched_days.ensure_schema(self)
        with self.connect(write=True) as connection:
            recorded_runs.ensure_tables(connection)
            days = recorded_runs.change(connection, id, row, self._rules)
            touched_days.touch(connection, {("runs", day) for day in days})

    def complete_experiment(
        self,
        id: str,
        metrics: Mapping[str, Any] | None = None,
        status: str = "completed",
        error: str | None = None,
    ) -> None:
        """End an experiment now, with its last metrics; it cannot be changed afterwards.

        Raises:
            ValueError: as `update_experiment`.
        """
        self.update_experiment(
            id, metrics=metrics, status=status, error=error, completed_at=datetime.now(UTC)
        )

    def refresh_recorded_runs(self, start: datetime, end: datetime) -> int:
        """Bring the metrics and parameters of recorded experiments up to date with the settings and this version.

        The graph asks for it, for the days that it builds.

        Args:
            start, end: experiments that were created in [start, end).

        Returns:
            How many were outdated.
        """
        with self.connect(write=True) as connection:
            recorded_runs.ensure_tables(connection)
            return recorded_runs.bring_up_to_date(connection, start, end, self._rules)

    def get_experiment(self, id: str) -> dict[str, Any] | None:
        """An experiment by its id, whoever made it; None if there is none."""
        return next(iter(self._experiments("postgres/experiments/get.sql", {"id": id})), None)

    def experiments_of(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The experiments of these ids in one query, whoever made them, in the order of the ids; others are missing."""
        found = self._experiments("postgres/experiments/of_ids.sql", {"ids": list(ids)})
        by_id = {row["id"]: row for row in found}
        return [by_id[id] for id in dict.fromkeys(ids) if id in by_id]

    def list_experiments(
        self,
        experiment: str | None = None,
        status: str | None = None,
        origin: str | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """The newest experiments, whoever made them.

        Args:
            experiment, status, origin: only those with this value.
            limit: how many, at most.
        """
        filters = {"experiment": experiment, "status": status, "origin": origin, "limit": limit}
        return self._experiments("postgres/experiments/list.sql", filters)

    def delete_experiments(self, ids: Sequence[str]) -> None:
        """Delete experiments that `create_experiment` made, all of them or none; the graph is asked to follow.

        Raises:
            ValueError: there is no such experiment, or the graph writes it.
        """
        from ml_assets.stores import touched_days

        touched_days.ensure_schema(self)
        with self.connect(write=True) as connection:
            recorded_runs.ensure_tables(connection)
            days = recorded_runs.remove(connection, ids)
            touched_days.touch(connection, {("runs", day) for day in days})

    def _experiments(self, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        from psycopg.errors import UndefinedTable
        from psycopg.rows import dict_row

        try:
            with self.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
                read_large_as_doubles(cursor)
                return cursor.execute(read_sql(statement), parameters).fetchall()
        except UndefinedTable as fault:
            raise missing_table(RUNS.asset) from fault

    @property
    def _rules(self) -> MetricRules:
        return MetricRules(cast("dict[str, Direction]", self.metric_directions), self.metric_synonyms)

    def _known_day(self, created_at: datetime) -> date:
        """The UTC day of an experiment, which the graph's tables must have."""
        return known_day(created_at, date.fromisoformat(self.partitions_start))

    def location(self) -> str:
        """The URL of the store, as status shows it (without its password)."""
        return self.connection_url()

    def health(self) -> StoreHealth:
        """Whether the server answers, with its version and extensions. Never raises."""
        return check_health(self._probe)

    def _probe(self) -> StoreHealth:
        with self.connect() as connection:
            (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
            rows = connection.execute(
                "SELECT extname, extversion FROM pg_extension ORDER BY extname"
            ).fetchall()
        extensions = tuple(f"{name} {number}" for name, number in rows)
        if not any(name == "vector" for name, _ in rows):
            remedy = "pgvector is missing: install it on the server and run CREATE EXTENSION vector"
            return StoreHealth("down", version, remedy, extensions=extensions)
        return StoreHealth("healthy", version, extensions=extensions)


def read_large_as_doubles(cursor: "psycopg.Cursor[Any]") -> None:
    """Have a cursor read the numbers of JSONB as JSON has them: 1e300, written with all its zeros, is no integer."""
    for name in ("json", "jsonb"):
        cursor.adapters.register_loader(name, _json_loader())


@cache
def _json_loader() -> "type[Loader]":
    """Without the two calls and the copy of psycopg's own, which cost as much as the parsing itself."""
    import orjson
    from psycopg.adapt import Loader

    class JSON(Loader):
        load = staticmethod(orjson.loads)  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    return JSON


def _direct(url: str) -> "psycopg.Connection":
    """A new connection, in autocommit mode."""
    import psycopg

    try:
        return connecting(psycopg.OperationalError)(psycopg.connect, url, **_OPTIONS)
    except psycopg.Error as fault:
        # Without `from`: the driver's message may hold the password.
        raise unavailable(
            "PostgreSQL",
            url,
            fault,
            "check that it runs and that ML_ASSETS_POSTGRES_URL is right",
        ) from None


def _taken(url: str) -> "tuple[psycopg.Connection, ConnectionPool | None]":
    """A connection, and the pool that it has to go back to, if it came out of one."""
    key = (os.getpid(), url)
    pool = _pools.get(key)
    if pool is not None and (lent := _lent(pool)):
        return lent, pool
    connection = _direct(url)
    with _pools_lock:
        if key not in _pools:
            _pools[key] = _new_pool(url)
    return connection, None


def _lent(pool: "ConnectionPool") -> "psycopg.Connection | None":
    """A connection out of the pool; None if all are lent, or the server is gone."""
    from psycopg import OperationalError

    try:
        pool.open()
        return pool.getconn(timeout=_POOL_WAIT_S)
    except OperationalError:
        return None  # a connection of its own, or the reason why there is none


def _new_pool(url: str) -> "ConnectionPool":
    """A pool without connections or threads until it is opened."""
    from psycopg_pool import ConnectionPool

    # It warns of each connection that it finds broken; whoever used that one has its error already.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    return ConnectionPool(
        url,
        kwargs=_OPTIONS,
        min_size=0,
        max_size=_POOL_SIZE,
        max_idle=_POOL_IDLE_S,
        num_workers=1,
        check=ConnectionPool.check_connection,
        open=False,
    )


@atexit.register
def _close_pools() -> None:
    for (process, _), pool in _pools.items():
        if process == os.getpid():
            pool.close(timeout=1.0)
