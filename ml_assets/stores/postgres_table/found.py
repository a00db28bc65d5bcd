"""Tables and views of PostgreSQL that another tool made."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ml_assets.contracts import Column, ColumnType, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import qualified, quote_identifier, quote_literal
from ml_assets.stores.postgres_table.ddl import TYPES
from ml_assets.stores.postgres_table.rows import read
from ml_assets.stores.postgres_table.statements import run
from ml_assets.tables.found import Found, Place, found_table
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    import psycopg

FOUND: dict[str, ColumnType] = {
    **dict.fromkeys(("int2", "int4", "int8"), "int64"),
    **dict.fromkeys(("float4", "float8", "numeric"), "float64"),
    **dict.fromkeys(("text", "varchar", "bpchar", "uuid", "enum", "name", "citext"), "string"),
    **dict.fromkeys(("json", "jsonb"), "json"),
    "bool": "bool",
    "timestamptz": "timestamp",
    "date": "date",
    "vector": "vector",
}
"""Types of columns that another tool made."""


def found_in_postgres(connect: Callable[..., Any], place: Place) -> Found | None:
    """A table of PostgreSQL; None if there is none.

    Args:
        connect: `PostgresResource.connect`.
    """
    schema = place.schema or "public"
    with connect() as connection:
        kinds = found_columns(connection, schema, place.table)

    def read(contract: Contract, columns: Sequence[str], window: Window) -> Generator[pa.RecordBatch]:
        with connect(write=True) as connection:
            yield from read_found(connection, contract, schema, place.table, columns, window)

    return found_table(place, kinds, read) if kinds else None


def found_columns(
    connection: "psycopg.Connection", schema: str, table: str
) -> dict[str, tuple[ColumnType | None, str]]:
    """Logical type, if there is one, and the type in the database of the columns of any table or view."""
    rows = run(
        connection,
        "SELECT attname, CASE typtype WHEN 'e' THEN 'enum' ELSE typname END, format_type(atttypid, atttypmod) "
        "FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [qualified(schema, table)],
    ).fetchall()
    return {name: (FOUND.get(kind), said) for name, kind, said in rows}


def read_found(
    connection: "psycopg.Connection",
    contract: Contract,
    schema: str,
    table: str,
    columns: Sequence[str],
    window: Window,
) -> Iterator[pa.RecordBatch]:
    """Rows of a table that another tool made, in the types of a contract made of `found_columns`.

    Raises:
        ContractViolation: a number has more digits than a double holds.
    """
    import psycopg

    kinds = {name: said for name, (_, said) in found_columns(connection, schema, table).items()}
    chosen = dict.fromkeys([*columns, *filter(None, [contract.partition_column])])
    values = ", ".join(_found_sql(contract.by_name[name], kinds.get(name, "")) for name in chosen)
    source = f"(SELECT {values} FROM {qualified(schema, table)}) AS found"
    try:
        yield from read(connection, contract, columns, window, source=source)
    except psycopg.DataError as fault:
        raise ContractViolation(
            f"{contract.asset}: {str(fault).splitlines()[0]}: convert the column in the tool that makes the table, to "
            "double precision for instance, or name the columns to read in the metadata 'columns' of the input."
        ) from fault


def _found_sql(column: Column, kind: str) -> str:
    name = quote_identifier(column.name)
    value = f"{name}::{TYPES[column.type]}"
    if kind.startswith("numeric"):
        # There is no other way to raise an error that names the value.
        told = f"({quote_literal(f'more digits than a double holds in {column.name}: ')} || {name})::double precision"
        value = f"CASE WHEN {value}::text::numeric = {name} OR {name} IS NULL THEN {value} ELSE {told} END"
    return f"{value} AS {name}"
