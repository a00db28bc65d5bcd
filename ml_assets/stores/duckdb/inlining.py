"""Rows and deletions that DuckLake keeps in the catalog instead of in files: there shall be none.

What belongs here: finding them, moving them into files, and telling whether a table's two ways of counting agree.
What does not: when that is done; attaching a lake (duckdb.py) and maintenance decide that.

DuckLake 1.5 writes small inserts and deletes into tables of the catalog. When it moves a deletion from there into a
file, and has to repeat its commit because somebody committed to any other table, the deletion stands in both places
(duckdb/ducklake#1084, #1094, #1215): rows come back or vanish, and `count(*)` is wrong. So nothing is inlined, and
what a lake of before holds is moved by a connection that never repeats a commit.
"""

from typing import TYPE_CHECKING

from ml_assets.lib.faults import one_sentence
from ml_assets.lib.sql import qualified
from ml_assets.stores.duckdb.ddl import columns_of

if TYPE_CHECKING:
    import duckdb

METADATA = "__ducklake_metadata_lake"
"""Name under which DuckLake attaches the catalog's own tables."""

OPTION = "data_inlining_row_limit"

_KINDS = ("ducklake_inlined_delete_", "ducklake_inlined_data_")


def is_off(connection: "duckdb.DuckDBPyConnection") -> bool:
    """Whether the lake's own option forbids inlining, for whoever attaches it."""
    rows = connection.execute(
        "SELECT 1 FROM lake.options() WHERE option_name = $1 AND scope = 'GLOBAL' AND value = '0'", [OPTION]
    ).fetchall()
    return bool(rows)


def inlined(connection: "duckdb.DuckDBPyConnection") -> dict[tuple[str, str], int]:
    """How many rows and deletions the catalog holds, of each table (schema, name) that has any."""
    names = _asked_catalog(
        connection,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
        r"AND table_name ~ '^ducklake_inlined_(delete|data)_[0-9]'",
    )
    if not names:
        return {}
    counts = " UNION ALL ".join(
        f"SELECT {_table_id(name)} AS table_id, count(*) AS n FROM public.{name}" for (name,) in names
    )
    found = _asked_catalog(
        connection,
        "SELECT s.schema_name, t.table_name, sum(n)::bigint "
        f"FROM ({counts}) AS held JOIN public.ducklake_table AS t USING (table_id) "
        "JOIN public.ducklake_schema AS s USING (schema_id) "
        "WHERE n > 0 AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL GROUP BY 1, 2",
    )
    return {(schema, table): count for schema, table, count in found}


def flush(connection: "duckdb.DuckDBPyConnection", schema: str, table: str) -> None:
    """Move a table's inlined rows and deletions into files.

    Args:
        connection: of an instance of its own (the setting is the whole instance's), attached for writing.
        schema, table: the table; whoever calls this keeps its writers away.

    Raises:
        duckdb.TransactionException: somebody committed to any table meanwhile; nothing was moved.
    """
    connection.execute("SET GLOBAL ducklake_max_retry_count = 0")
    try:
        connection.execute(
            "CALL ducklake_flush_inlined_data('lake', table_name => $1, schema_name => $2)", [table, schema]
        )
    finally:
        connection.execute("RESET GLOBAL ducklake_max_retry_count")


def counts(connection: "duckdb.DuckDBPyConnection", schema: str, table: str) -> tuple[int, int]:
    """Rows of a table in one version of the lake: by `count(*)`, which adds up the catalog's numbers, and by a scan."""
    name = qualified("lake", schema, table)
    # One statement, so one version. Grouping keeps the second one from being answered out of the catalog too.
    rows = connection.execute(
        f"SELECT (SELECT count(*) FROM {name}), "
        f"(SELECT coalesce(sum(n), 0)::BIGINT FROM (SELECT count(*) AS n FROM {name} GROUP BY rowid % 2))"
    ).fetchall()
    return rows[0]


def damage(connection: "duckdb.DuckDBPyConnection", schema: str, table: str) -> str:
    """In what any table of the lake does not agree with itself; "" if it does.

    Args:
        connection: to the lake. While the table is written, rows that a former version of this project keeps in the
            catalog are told of, which are in order.
        schema, table: the table; one that is not there agrees with itself.
    """
    import duckdb

    [existing] = columns_of(connection, (schema, table))
    if not existing:
        return ""
    name = f"{schema}.{table}"
    try:
        stated, scanned = counts(connection, schema, table)
    except (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.InternalException) as fault:
        return f"{name} cannot be read ({one_sentence(fault)})"
    if stated != scanned:
        return f"{name}: count(*) says {stated:,} rows and a scan finds {scanned:,}"
    if left := inlined(connection).get((schema, table)):
        return f"{name}: {left:,} rows or deletions stand in the catalog instead of in files"
    return ""


def _table_id(name: str) -> int:
    for kind in _KINDS:
        if name.startswith(kind):
            return int(name.removeprefix(kind).partition("_")[0])
    raise ValueError(f"{name} is no table of inlined data")


def _asked_catalog(connection: "duckdb.DuckDBPyConnection", question: str) -> list[tuple]:
    return connection.execute("FROM postgres_query(?, ?)", [METADATA, question]).fetchall()
