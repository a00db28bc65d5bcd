"""Which statements of ours take PostgreSQL the most time, as its extension pg_stat_statements counts them.

The lake's catalog lies in PostgreSQL, too, so what DuckLake asks is among them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal
from ml_assets.lib.sql import qualified, without_values
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

SHOWN = 10
"""Statements that are told, unless another number is asked for."""


@dataclass(frozen=True)
class SlowStatements:
    """The statements that took the most time.

    Args:
        statements: each with `statement` (without any value), `database`, `calls`, `total_ms`, `mean_ms`, `max_ms`
            and `rows`, the slowest in all first; None if the server does not count them.
        detail: why it does not, and what to do; "" if it does.
    """

    statements: list[dict[str, Any]] | None
    detail: str = ""


def slow_statements(
    postgres: "PostgresResource", lake: "DuckLakeResource", embedded: bool, limit: int = SHOWN
) -> SlowStatements:
    """Ask PostgreSQL for the slowest statements of its user in the project's databases.

    Args:
        lake: whose catalog is one of these databases.
        embedded: whether PostgreSQL is the embedded one.
        limit: how many.

    Raises:
        Refusal: fewer than one is asked for.
        StoreUnavailable: PostgreSQL does not answer.
    """
    from psycopg import conninfo, errors
    from psycopg.rows import dict_row

    if not 1 <= limit <= 10_000:
        raise Refusal(f"{limit} statements cannot be shown: ask for 1 to 10,000.")
    catalog = str(conninfo.conninfo_to_dict(lake.resolved_catalog_url()).get("dbname") or "")
    try:
        with postgres.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(
                "SELECT nspname FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace "
                "WHERE extname = 'pg_stat_statements'"
            ).fetchone()
            if found is None:
                return SlowStatements(None, _way_out(embedded, connection.info.dbname))
            statement = read_sql("postgres/maintenance/slow_statements.sql").replace(
                "{view}", qualified(found["nspname"], "pg_stat_statements")
            )
            rows = cursor.execute(statement.encode(), {"databases": [catalog], "limit": limit}).fetchall()
    except errors.ObjectNotInPrerequisiteState:  # the extension is there, and its library was not loaded
        return SlowStatements(None, _way_out(embedded, ""))
    return SlowStatements([{**row, "statement": without_values(row["statement"])} for row in rows])


def _way_out(embedded: bool, database: str) -> str:
    """What to do.

    Args:
        database: in which the extension is to be created; "" if it is there.
    """
    if embedded:
        return (
            "The embedded PostgreSQL was started by a release that counts no statements: stop it with 'ml-assets down', "
            "and the next command starts one that does."
        )
    create = f", and run CREATE EXTENSION pg_stat_statements in database {database}" if database else ""
    return (
        "PostgreSQL counts no statements: add pg_stat_statements to shared_preload_libraries in its configuration, "
        f"restart it{create}."
    )
