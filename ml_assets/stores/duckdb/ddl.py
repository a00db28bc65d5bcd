"""The lake's tables: names, DDL, and what becomes of a table whose contract has changed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import qualified, quote_identifier
from ml_assets.tables.duckdb_types import DUCKDB_TYPES
from ml_assets.tables.evolution import columns_to_add, type_differs, valueless

if TYPE_CHECKING:
    import duckdb

Table = tuple[str, str]
"""Schema and name of a table."""

Columns = dict[str, tuple[str, bool]]
"""By name, a column's type and whether it may not be null; empty if there is no such table."""


def table_sql(contract: Contract) -> str:
    """The table in SQL."""
    return qualified("lake", contract.schema, contract.table)


def columns_of(connection: "duckdb.DuckDBPyConnection", *tables: Table) -> list[Columns]:
    """The columns that each of these tables has. Asked at once: a question takes as long for one table as for all."""
    found: dict[Table, Columns] = {table: {} for table in tables}
    rows = connection.execute(
        "SELECT schema_name, table_name, column_name, data_type, NOT is_nullable FROM duckdb_columns() "
        f"WHERE database_name = 'lake' AND (schema_name, table_name) IN ({', '.join(['(?, ?)'] * len(tables))})",
        [name for table in tables for name in table],
    ).fetchall()
    for schema, table, name, kind, required in rows:
        found[schema, table][name] = kind, required
    return [found[table] for table in tables]


def tables_of(connection: "duckdb.DuckDBPyConnection") -> set[Table]:
    """All tables of the lake."""
    rows = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'"
    )
    return set(rows.fetchall())


def create_statements(contract: Contract) -> list[str]:
    """The table's DDL. DuckLake has no keys and no checks; validation keeps them."""
    columns = ", ".join(_column_sql(contract, column) for column in contract.columns)
    statements = [f"CREATE TABLE {table_sql(contract)} ({columns})"]
    if contract.partition_column:
        day = quote_identifier(contract.partition_column)
        statements.append(
            f"ALTER TABLE {table_sql(contract)} SET PARTITIONED BY (year({day}), month({day}), day({day}))"
        )
    return statements


def _column_sql(contract: Contract, column: Column) -> str:
    required = " NOT NULL" if contract.requires(column) else ""
    return f"{quote_identifier(column.name)} {DUCKDB_TYPES[column.type]}{required}"


def refuse_other_case(connection: "duckdb.DuckDBPyConnection", contract: Contract) -> None:
    """Refuse a table whose name differs from that of another one in upper and lower case only.

    Raises:
        ContractViolation: there is such a table.
    """
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() "
        "WHERE database_name = 'lake' AND schema_name = $1 AND lower(table_name) = lower($2)",
        [contract.schema, contract.table],
    ).fetchone()
    if found:
        other = qualified("lake", contract.schema, found[0])
        raise ContractViolation(
            f"{contract.asset}: the lake has a table {found[0]!r}, and takes names that differ in upper and lower case "
            f"only for one; give one of the two assets another name, or run DROP TABLE {other} if the other one is no "
            "more. Nothing was written."
        )


class LakeDialect:
    """How the lake speaks of columns that are read; see tables/evolution.py."""

    def required(self, contract: Contract, column: Column) -> bool:
        """Whether the contract keeps nulls out of the column; the lake itself does only from the table's beginning."""
        return contract.requires(column)

    def difference(self, contract: Contract, column: Column, kind: str, required: bool) -> str | None:
        """In what a column that is there differs from the contract's. A reader takes it as it is."""
        return None

    def adding(self, contract: Contract, column: Column) -> str:
        """What to run to add a column that may not be null, and what else can be done."""
        return f"{_add_column_sql(contract, column)} DEFAULT ..., or make it nullable"

    def dropping(self, contract: Contract, name: str) -> str:
        """What to run to drop a column that the contract does not have."""
        return f"ALTER TABLE {table_sql(contract)} DROP COLUMN {quote_identifier(name)}"


class WritersDialect(LakeDialect):
    """How the lake speaks of columns that are about to be written.

    Args:
        connection: to the lake, to look for nulls.
    """

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self._connection = connection

    def difference(self, contract: Contract, column: Column, kind: str, required: bool) -> str | None:
        """In what a column that is there differs from the contract's, and what to run; None if in nothing."""
        wanted, must = DUCKDB_TYPES[column.type], contract.requires(column)
        name = quote_identifier(column.name)
        alter = f"ALTER TABLE {table_sql(contract)} ALTER COLUMN {name}"
        if kind != wanted:
            return type_differs(kind, wanted, "in the lake", f"{alter} SET TYPE {wanted}")
        if required and not must:
            return f"may not be null in the lake and may be in the contract; run {alter} DROP NOT NULL"
        if must and not required and self._holds_null(contract, name):
            return (
                f"holds nulls in the lake and may not be null in the contract; run UPDATE {table_sql(contract)} "
                f"SET {name} = ... WHERE {name} IS NULL"
            )
        return None

    def adding(self, contract: Contract, column: Column) -> str:
        """What to run to add a column that may not be null, and what else can be done."""
        return f"{super().adding(contract, column)}, or undo the change"

    def _holds_null(self, contract: Contract, name: str) -> bool:
        """Asked where the lake would allow a null: a column added later can never be made NOT NULL in DuckLake 1.5.

        Validation keeps new nulls out, so that only old ones matter.
        """
        statement = f"SELECT 1 FROM {table_sql(contract)} WHERE {name} IS NULL LIMIT 1"
        return bool(self._connection.execute(statement).fetchall())


def fit_columns(connection: "duckdb.DuckDBPyConnection", contract: Contract, existing: Columns) -> None:
    """Add nullable columns that the table lacks, refuse what else differs.

    Raises:
        ContractViolation: the table differs in another way; says what to do.
    """
    replaces = contract.mode != "upsert"
    for column in columns_to_add(contract, existing, WritersDialect(connection), replaces):
        connection.execute(_add_column_sql(contract, column))


def missing_columns(
    contract: Contract, existing: Mapping[str, object], columns: Sequence[str]
) -> list[Column]:
    """Columns that the table does not have yet.

    Raises:
        ContractViolation: one of them is asked for, and may not be null.
    """
    missing = [column for column in contract.columns if column.name not in existing]
    for column in missing:
        if contract.requires(column) and column.name in (*columns, contract.partition_column):
            raise ContractViolation(valueless(contract, column, LakeDialect()))
    return missing


def _add_column_sql(contract: Contract, column: Column) -> str:
    kind = DUCKDB_TYPES[column.type]
    return f"ALTER TABLE {table_sql(contract)} ADD COLUMN {quote_identifier(column.name)} {kind}"
