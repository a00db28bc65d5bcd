"""PostgreSQL's tables as their contracts say: types, keys, indexes, the statements that make them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_assets.contracts import INDEXED_CHARACTERS, Column, Contract, ForeignKey
from ml_assets.lib.sql import ALWAYS, joined, qualified, quote_identifier, quote_literal
from ml_assets.stores.postgres_table.statements import lock, run
from ml_assets.stores.postgres_table.vector_indexes import vector_index

if TYPE_CHECKING:
    import psycopg

TYPES = {
    "string": "text",
    "int64": "bigint",
    "float64": "double precision",
    "bool": "boolean",
    "timestamp": "timestamp with time zone",
    "date": "date",
    "json": "jsonb",
    "vector": "vector",
}


def create_statements(contract: Contract) -> list[str]:
    """The table's DDL: columns, key, index on the partition column, HNSW on vectors."""
    table = table_sql(contract)
    columns = [
        f"{quote_identifier(c.name)} {sql_type(c)}{' NOT NULL' if is_required(contract, c) else ''}"
        for c in contract.columns
    ]
    statements = []
    if contract.key and not contract.key_by_day:
        columns.append(f"PRIMARY KEY ({', '.join(map(quote_identifier, contract.key))})")
    columns += [foreign_key_sql(contract, key) for key in contract.foreign_keys]
    statements.append(f"CREATE TABLE {table} ({', '.join(columns)})")
    if contract.key_by_day:
        statements.append(f"CREATE UNIQUE INDEX ON {table} ({conflict_target(contract)})")
    first = {columns[0] for columns in (contract.key, *contract.indexed) if columns}
    if contract.partition_column and contract.partition_column not in first:
        statements.append(f"CREATE INDEX ON {table} ({quote_identifier(contract.partition_column)})")
    vectors = [statement for column in contract.columns for statement in vector_index(contract, column)]
    return [*statements, *vectors, *index_statements(contract)]


def index_statements(contract: Contract) -> list[str]:
    """Indexes on the columns that are looked up by; a document is looked up by what it contains."""
    return [
        f"CREATE INDEX IF NOT EXISTS {quote_identifier('_'.join((contract.table, *names)))} "
        f"ON {table_sql(contract)} {_indexed_sql([contract.by_name[name] for name in names])}"
        for names in contract.indexed
    ]


def _indexed_sql(columns: Sequence[Column]) -> str:
    """What an index is on: one document, or columns, of which long text stands by its beginning beside others."""
    if len(columns) == 1 and columns[0].type == "json":
        return f"USING gin ({quote_identifier(columns[0].name)} jsonb_path_ops)"
    parts = [quote_identifier(column.name) for column in columns]
    if len(columns) > 1:
        long = [c.type == "string" and c.max_bytes is None and not c.choices for c in columns]
        parts = [
            f"left({part}, {INDEXED_CHARACTERS})" if is_long else part
            for part, is_long in zip(parts, long, strict=True)
        ]
    return f"({', '.join(parts)})"


def foreign_key_sql(contract: Contract, key: ForeignKey) -> str:
    """A foreign key as a part of the table's DDL; rows follow a deleted parent."""
    parent = qualified(contract.schema, key.parent)
    return (
        f"FOREIGN KEY ({quote_identifier(key.column)}) REFERENCES {parent} ({quote_identifier(key.parent_column)}) "
        "ON DELETE CASCADE"
    )


def ensure_vectors(connection: "psycopg.Connection", contract: Contract) -> None:
    """Make pgvector's type known in the database if it is not.

    Raises:
        RuntimeError: the server does not have it, or this user may not create it.
    """
    import psycopg

    if run(connection, "SELECT to_regtype('vector') IS NOT NULL").fetchall() == [(True,)]:
        return
    try:
        with connection.transaction():
            lock(connection, "extension vector")
            run(connection, "CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.Error as fault:
        raise RuntimeError(
            f"{contract.asset} holds vectors, and this database has no pgvector ({str(fault).splitlines()[0]}): install "
            "it on the server and run CREATE EXTENSION vector as its owner. Nothing was written."
        ) from fault


def columns_of(connection: "psycopg.Connection", contract: Contract) -> dict[str, tuple[str, bool]]:
    """Type and whether it may not be null, of each column that the table has."""
    rows = run(
        connection,
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        [table_sql(contract)],
    ).fetchall()
    return {name: (kind, required) for name, kind, required in rows}


def add_column_sql(contract: Contract, column: Column) -> str:
    """The statement that adds a column."""
    return f"ALTER TABLE {table_sql(contract)} ADD COLUMN {quote_identifier(column.name)} {sql_type(column)}"


def table_sql(contract: Contract) -> str:
    """The table in SQL."""
    return qualified(contract.schema, contract.table)


def sql_type(column: Column) -> str:
    """PostgreSQL's type of a column."""
    return (
        f"vector({column.dimension})" if column.type == "vector" and column.dimension else TYPES[column.type]
    )


def is_required(contract: Contract, column: Column) -> bool:
    """Whether the column may not be null: the key's and the partition's may not, either."""
    return not column.nullable or column.name in (*contract.key, contract.partition_column)


def conflict_target(contract: Contract) -> str:
    """What a key is unique within: the table, or the day."""
    return ", ".join(unique_parts(contract))


def same_key(contract: Contract) -> str:
    """Condition for two rows, `old` and `new`, that may not stand side by side."""
    pairs = zip(unique_parts(contract, "old."), unique_parts(contract, "new."), strict=True)
    return joined([f"{old} = {new}" for old, new in pairs], "AND")


def unique_parts(contract: Contract, row: str = "") -> list[str]:
    """What a key is unique within, as expressions on a row."""
    parts = [f"{row}{quote_identifier(name)}" for name in contract.key]
    if not contract.key_by_day or contract.partition_column is None:
        return parts
    column = f"{row}{quote_identifier(contract.partition_column)}"
    is_date = contract.by_name[contract.partition_column].type == "date"
    return [*parts, column if is_date else f"(({column} AT TIME ZONE 'UTC')::date)"]


def owned_sql(contract: Contract) -> str:
    """Condition for the rows that this contract's writer owns."""
    parts = [f"{quote_identifier(name)} = {quote_literal(value)}" for name, value in contract.scope]
    return " AND ".join(parts) or ALWAYS
