"""How a table of PostgreSQL is made, and what becomes of it when its contract has changed."""

from typing import TYPE_CHECKING

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import quote_identifier
from ml_assets.stores.postgres_table.ddl import (
    add_column_sql,
    columns_of,
    create_statements,
    ensure_vectors,
    index_statements,
    is_required,
    sql_type,
    table_sql,
)
from ml_assets.stores.postgres_table.ledger import forget_contract, last_contract, record, remember
from ml_assets.stores.postgres_table.statements import lock, run, table_exists
from ml_assets.stores.postgres_table.vector_indexes import vector_index
from ml_assets.tables.evolution import columns_to_add, type_differs
from ml_assets.tables.identity import refuse_new_identity

if TYPE_CHECKING:
    import psycopg


class PostgresDialect:
    """How PostgreSQL speaks of columns; see tables/evolution.py."""

    def required(self, contract: Contract, column: Column) -> bool:
        """Whether the store keeps nulls out of the column."""
        return is_required(contract, column)

    def difference(self, contract: Contract, column: Column, kind: str, required: bool) -> str | None:
        """In what a column that is there differs from the contract's, and what to run; None if in nothing."""
        alter = f"ALTER TABLE {table_sql(contract)} ALTER COLUMN {quote_identifier(column.name)}"
        wanted, wants = sql_type(column), is_required(contract, column)
        if kind != wanted:
            return type_differs(kind, wanted, "in the database", f"{alter} TYPE {wanted} USING ...")
        if required != wants:
            was, now = (f"may {'not ' if each else ''}be" for each in (required, wants))
            remedy = f"{alter} {'SET' if wants else 'DROP'} NOT NULL"
            return f"{was} null in the database and {now} in the contract; run {remedy}"
        return None

    def adding(self, contract: Contract, column: Column) -> str:
        """What to run to add a column that may not be null, and what else can be done."""
        return f"{add_column_sql(contract, column)} NOT NULL DEFAULT ..., or make it nullable"

    def dropping(self, contract: Contract, name: str) -> str:
        """What to run to drop a column that the contract does not have."""
        return f"ALTER TABLE {table_sql(contract)} DROP COLUMN {quote_identifier(name)}"


DIALECT = PostgresDialect()


def ensure_table(connection: "psycopg.Connection", contract: Contract) -> None:
    """Create the table, or add what the contract has gained: nullable columns.

    Raises:
        ContractViolation: the table differs in another way, or is another asset's; says which statement would
            mend it.
    """
    existing = columns_of(connection, contract)
    if any(column.type == "vector" for column in contract.columns):
        ensure_vectors(connection, contract)
    if not existing:
        for statement in create_statements(contract):
            run(connection, statement)
        remember(connection, contract)
        record(connection, contract, {}, None)  # what a table held that was dropped
        forget_contract(connection, _namesake(contract))
        return
    old = _last_contract(connection, contract)
    for column in columns_to_add(contract, existing, DIALECT):
        for statement in (add_column_sql(contract, column), *vector_index(contract, column)):
            run(connection, statement)
    if old is not None and old.indexes != contract.indexes:
        for statement in index_statements(contract):
            run(connection, statement)
    remember(connection, contract)


def ensure_current(connection: "psycopg.Connection", contract: Contract) -> None:
    """`ensure_table` for whoever writes single rows: a look where nothing is to be done, otherwise one at a time."""
    made = table_exists(connection, contract.schema, contract.table)
    if not made or last_contract(connection, contract.asset) != contract:
        lock(connection, contract.asset)
        ensure_table(connection, contract)


def _last_contract(connection: "psycopg.Connection", contract: Contract) -> Contract | None:
    """The contract by which a table that is there was last written; None if we have not written it.

    Raises:
        ContractViolation: the table is another asset's, or what identifies a row has changed.
    """
    old, drop = last_contract(connection, contract.asset), f"DROP TABLE {table_sql(contract)}"
    if old is not None:
        refuse_new_identity(old, contract, drop)
    elif last_contract(connection, namesake := _namesake(contract)) is not None:
        raise ContractViolation(
            f"{contract.asset}: the table {table_sql(contract)} is that of {namesake}; give one of the two assets "
            f"another name, or run {drop} if the other one is no more. Nothing was written."
        )
    return old


def _namesake(contract: Contract) -> str:
    """The asset of the other store whose tables lie here, which would be the same table."""
    return f"{'serving' if contract.store == 'postgres' else 'postgres'}/{contract.table}"
