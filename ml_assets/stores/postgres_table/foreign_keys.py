"""Foreign keys of PostgreSQL's tables: those that a contract gets later, and rows that point nowhere."""

from typing import TYPE_CHECKING

from ml_assets.contracts import Contract, ForeignKey
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import quote_identifier
from ml_assets.stores.postgres_table.ddl import foreign_key_sql, table_sql
from ml_assets.stores.postgres_table.statements import run

if TYPE_CHECKING:
    import psycopg


def ensure_foreign_keys(connection: "psycopg.Connection", contract: Contract) -> None:
    """Add the foreign keys that a table lacks because its contract got them later.

    After the rows: the write may be what brings the table's rows into line with them. The table itself is asked, not
    the contract that it was last written by, which may have named a foreign key that nobody had added.
    """
    if not contract.foreign_keys:
        return
    rows = run(
        connection,
        "SELECT own.attname, parent.relname, theirs.attname FROM pg_constraint AS c "
        "JOIN pg_class AS parent ON parent.oid = c.confrelid "
        "JOIN pg_attribute AS own ON own.attrelid = c.conrelid AND own.attnum = c.conkey[1] "
        "JOIN pg_attribute AS theirs ON theirs.attrelid = c.confrelid AND theirs.attnum = c.confkey[1] "
        "WHERE c.contype = 'f' AND c.conrelid = to_regclass(%s) AND cardinality(c.conkey) = 1",
        [table_sql(contract)],
    ).fetchall()
    present = {ForeignKey(*row) for row in rows}
    for key in contract.foreign_keys:
        if key not in present:
            _add_foreign_key(connection, contract, key)


def _add_foreign_key(connection: "psycopg.Connection", contract: Contract, key: ForeignKey) -> None:
    import psycopg

    try:
        run(connection, f"ALTER TABLE {table_sql(contract)} ADD {foreign_key_sql(contract, key)}")
    except (
        psycopg.errors.InvalidForeignKey,
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
    ) as fault:
        raise ContractViolation(
            f"{contract.asset}: column {key.column!r} cannot be held to {key.parent}.{key.parent_column} "
            f"({str(fault).splitlines()[0]}): write a table {key.parent} whose key that column is first, or take the "
            "foreign key out of the contract. Nothing was written."
        ) from fault


def points_nowhere(contract: Contract, fault: "psycopg.Error") -> ContractViolation:
    """The error for a row whose parent is not there; the server tells which one."""
    detail = (fault.diag.message_detail or str(fault).splitlines()[0]).rstrip(".")
    drop = f"ALTER TABLE {table_sql(contract)} DROP CONSTRAINT {quote_identifier(fault.diag.constraint_name or '...')}"
    return ContractViolation(
        f"{contract.asset}: a row points to one that is not there ({detail}): write that one first, or mend or delete "
        f"the row; if the contract has no such foreign key any more, run {drop}. Nothing was written."
    )
