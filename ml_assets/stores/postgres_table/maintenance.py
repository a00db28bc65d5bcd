"""Keeping a PostgreSQL database small: VACUUM and ANALYZE, and a rewrite of tables that are mostly air.

The database is that of the tables, or the lake's catalog.

VACUUM disturbs nobody, but it only makes the space of dead rows usable again. A table that was overwritten
many times between two of them stays as long as it ever was; VACUUM FULL writes it anew, and whoever wants the
table waits meanwhile. So that is done where more than a third is air, only if the table is free at once, and
only up to a size that takes seconds.
"""

from collections.abc import Iterator

import psycopg

from ml_assets.lib.sql import qualified
from ml_assets.sql_files import read_sql
from ml_assets.stores.postgres_table.statements import run

_LOOSE = 1.5
"""Size of a table, relative to its rows, from which rewriting pays."""

_WORTH_BYTES = 2**20
_REWRITE_MAX_BYTES = 256 * 2**20
"""Tables (with indexes) beyond this would keep readers waiting for longer than their time-out."""

_LOCK_WAIT = "1s"


def size(connection: "psycopg.Connection") -> int:
    """Bytes of the database that is connected to."""
    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else 0


def maintain(connection: "psycopg.Connection") -> Iterator[str]:
    """Vacuum the tables of one database that its user may vacuum.

    Args:
        connection: in autocommit mode; VACUUM runs in no transaction.
    """
    run(connection, f"SET lock_timeout = '{_LOCK_WAIT}'")
    tables = connection.execute(read_sql("postgres/maintenance/tables.sql")).fetchall()
    for schema, table, table_bytes, all_bytes in tables:
        name = qualified(schema, table)
        run(connection, f"VACUUM (ANALYZE, SKIP_LOCKED) {name}")
        if schema == "pg_catalog" or not _WORTH_BYTES < all_bytes < _REWRITE_MAX_BYTES:
            continue
        air = table_bytes - _row_bytes(connection, schema, table)
        if air > _WORTH_BYTES and air > (1 - 1 / _LOOSE) * table_bytes:
            yield _rewrite(connection, name, air)


def _row_bytes(connection: "psycopg.Connection", schema: str, table: str) -> int:
    """What the rows themselves take, with their headers."""
    rows = run(
        connection, f"SELECT coalesce(sum(pg_column_size(t.*) + 4), 0) FROM {qualified(schema, table)} AS t"
    ).fetchone()
    return int(rows[0]) if rows else 0


def _rewrite(connection: "psycopg.Connection", name: str, air: int) -> str:
    try:
        run(connection, f"VACUUM (FULL, ANALYZE) {name}")
    except psycopg.errors.LockNotAvailable:
        return f"Left {name} as it is, because it is in use ({air:,} bytes of it are free)."
    return f"Rewrote {name}, of which {air:,} bytes were free."
