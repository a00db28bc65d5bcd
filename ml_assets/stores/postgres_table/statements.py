"""What every use of PostgreSQL's tables needs: running a statement, locks by name, conflicts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_assets.lib.sql import qualified
from ml_assets.tables.conflicts import waited_too_long

if TYPE_CHECKING:
    import psycopg


def run(
    connection: "psycopg.Connection", statement: str, values: Sequence[Any] | None = None
) -> "psycopg.Cursor[Any]":
    """Execute a statement put together from quoted names and bound values.

    psycopg's own `execute` takes only literal text or bytes, to remind its caller of exactly that.
    """
    return connection.execute(statement.encode(), values)


def lock(connection: "psycopg.Connection", name: str, shared: bool = False) -> None:
    """Let only one transaction at a time write what goes by this name.

    Args:
        shared: let others in that share it, too.

    Raises:
        WriteBusy: its turn did not come within the transaction's statement time-out.
    """
    import psycopg

    try:
        taken = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        run(connection, f"SELECT {taken}(hashtextextended(%s, 0))", ["ml-assets " + name])
    except psycopg.errors.QueryCanceled as fault:
        raise waited_too_long(name) from fault


def is_conflict(fault: BaseException) -> bool:
    """Whether a transaction failed because of another one, so that it may be tried again as a whole."""
    import psycopg

    return isinstance(fault, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure)


def table_exists(connection: "psycopg.Connection", schema: str, table: str) -> bool:
    """Whether there is such a table."""
    found = run(connection, "SELECT to_regclass(%s) IS NOT NULL", [qualified(schema, table)]).fetchone()
    return bool(found and found[0])
