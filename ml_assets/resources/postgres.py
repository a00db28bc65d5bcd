"""PostgreSQL: one transaction per connection, through psycopg 3.

Connections are opened for a transaction and closed after it. On the embedded server's socket that takes
2.2 ms against 0.2 ms out of a pool, which no step notices, and nothing is left over between transactions:
no session settings, no threads, nothing that a fork could share.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ml_assets.contracts import TABLES
from ml_assets.lib.sql import read_sql
from ml_assets.resources.base import (
    CONNECT_TIMEOUT_S,
    HOME,
    StoreHealth,
    check_health,
    connecting,
    embedded_url,
    missing_table,
    plain,
    require_scheme,
    unavailable,
    with_database,
)

if TYPE_CHECKING:
    import psycopg

DATABASE = "ml_dev"
_EXPERIMENTS = TABLES["postgres/ml_experiments"]
_SCHEMES = ("postgresql", "postgres")


class PostgresResource(dg.ConfigurableResource):
    """PostgreSQL with pgvector.

    Args:
        home: folder of the embedded server, used if `url` is empty.
        url: `postgresql://user:password@host:port/database`; the database is `ml_dev` if none is named.
        query_timeout_s: statement time-out of reading transactions.
        write_timeout_s: statement time-out of writing transactions.
    """

    home: str = HOME
    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0
    write_timeout_s: float = 600.0

    def connection_url(self, database: str | None = None) -> str:
        """URL of the server, with another database if one is named.

        Raises:
            StoreUnavailable: the configured URL is none of PostgreSQL's, or the embedded server cannot start.
        """
        configured = plain(self.url)
        if not configured:
            return with_database(embedded_url("postgres", self.home), database or DATABASE)
        url = require_scheme("PostgreSQL", configured, _SCHEMES, "ML_ASSETS_POSTGRES_URL")
        named = url.split("?", 1)[0].split("://", 1)[1].partition("/")[2]
        return with_database(url, database or DATABASE) if database or not named else url

    @contextmanager
    def connect(self, write: bool = False, database: str | None = None) -> "Iterator[psycopg.Connection]":
        """One transaction: committed at the end of the block, rolled back if the block raises.

        Args:
            write: allow changes, with the longer time-out. Without it the transaction is read-only.
            database: another database of the same server.

        Raises:
            StoreUnavailable: the server does not answer after three tries.
            psycopg.errors.QueryCanceled: a statement ran into the time-out.
        """
        with self._open(self.connection_url(database), write) as connection:
            yield connection

    @contextmanager
    def statements(self, database: str | None = None) -> "Iterator[psycopg.Connection]":
        """A connection on which each statement stands alone, for those that run in no transaction (VACUUM).

        Args:
            database: as `connect`; the time-out is that of writes.

        Raises:
            StoreUnavailable: the server does not answer after three tries.
        """
        with self._open(self.connection_url(database), write=True) as connection:
            connection.autocommit = True
            yield connection

    @contextmanager
    def asking(self) -> Iterator[Callable[[str], Sequence[Sequence[Any]]]]:
        """A function that answers one statement after the other with its rows, over one connection."""
        with self.connect() as connection:
            yield lambda statement: connection.execute(statement.encode()).fetchall()

    def _open(self, url: str, write: bool) -> "psycopg.Connection":
        import psycopg

        try:
            connection = connecting(psycopg.OperationalError)(
                psycopg.connect,
                url,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name="ml-assets",
                keepalives_idle=30,
            )
        except psycopg.Error as fault:
            # Without `from`: the driver's message may hold the password.
            raise unavailable(
                "PostgreSQL",
                url,
                fault,
                "check that it runs and that ML_ASSETS_POSTGRES_URL is right",
            ) from None
        timeout_s = self.write_timeout_s if write else self.query_timeout_s
        # Not as start-up options: connection poolers refuse those.
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false), set_config('TimeZone', 'UTC', false)",
            (str(int(timeout_s * 1000)),),
        )
        connection.autocommit = False
        connection.read_only = not write
        return connection

    def create_experiment(self, experiment: str, **columns: Any) -> str:
        """Add an experiment beside those that the graph writes.

        Args:
            experiment: name of the experiment.
            columns: any other columns of `ml_experiments`; `parameters`, `metrics` and `tags` as mappings.
                Unless given, the id is a new one, the status is 'created', and it was created now.

        Returns:
            The id.

        Raises:
            ValueError: no such column, a value that the contract refuses, or an id that is taken.
        """
        import psycopg

        from ml_assets.lib.postgres_table import ensure_table

        row = _experiment_row({"id": str(uuid.uuid4()), "status": "created", "created_at": datetime.now(UTC)})
        row |= {name: value for name, value in _experiment_row(columns).items() if value is not None}
        row["experiment"] = experiment
        try:
            with self.connect(write=True) as connection:
                ensure_table(connection, _EXPERIMENTS)
                connection.execute(read_sql("postgres/experiments/create.sql"), row)
        except psycopg.errors.UniqueViolation as fault:
            raise ValueError(f"there is an experiment {row['id']!r} already; give it another id") from fault
        return row["id"]

    def update_experiment(self, id: str, **columns: Any) -> None:
        """Change columns of an experiment that `create_experiment` made and nobody has completed.

        What is not given or is None stays; `parameters`, `metrics` and `tags` are merged, key by key.

        Raises:
            ValueError: as `create_experiment`, or there is no such experiment to change.
        """
        from ml_assets.lib.postgres_table import ensure_table

        row = _experiment_row(columns) | {"id": id}
        with self.connect(write=True) as connection:
            ensure_table(connection, _EXPERIMENTS)
            changed = connection.execute(read_sql("postgres/experiments/update.sql"), row).rowcount
        if not changed:
            raise ValueError(self._why_unchangeable(id))

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

    def get_experiment(self, id: str) -> dict[str, Any] | None:
        """An experiment by its id, whoever made it; None if there is none."""
        return next(iter(self._experiments("postgres/experiments/get.sql", {"id": id})), None)

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

    def _experiments(self, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        from psycopg.errors import UndefinedTable
        from psycopg.rows import dict_row

        try:
            with self.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(read_sql(statement), parameters).fetchall()
        except UndefinedTable as fault:
            raise missing_table(_EXPERIMENTS.asset) from fault

    def _why_unchangeable(self, id: str) -> str:
        row = self.get_experiment(id)
        if row is None:
            return f"there is no experiment {id!r}; list_experiments() shows what there is"
        if row["origin"] != "api":
            return f"experiment {id!r} is written by the graph; change it where the run came from"
        return (
            f"experiment {id!r} has ended at {row['completed_at'].isoformat()} and can no longer be changed"
        )

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


def _experiment_row(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the statements: every column of the contract, None where nothing is given."""
    from ml_assets.lib.canonical_json import canonical

    row: dict[str, Any] = dict.fromkeys(name for name in _EXPERIMENTS.names if name != "origin")
    for name, value in columns.items():
        if name not in row:
            raise ValueError(f"experiments have no column {name!r}; there are {', '.join(row)}")
        column = _EXPERIMENTS.by_name[name]
        if value is not None and column.choices and value not in column.choices:
            raise ValueError(f"{name} cannot be {value!r}; it is one of {', '.join(column.choices)}")
        if isinstance(value, datetime) and value.tzinfo is None:
            raise ValueError(f"{name} {value.isoformat()} has no time zone; give an aware datetime")
        row[name] = canonical(value) if column.type == "json" and value is not None else value
    return row
