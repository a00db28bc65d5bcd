"""The ledger of writes in PostgreSQL, within the caller's transaction.

PostgreSQL's own tables, Chroma's collections and the tables that Redis has a copy of stand in it.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.contracts.text import contract_of_text, contract_text
from ml_assets.sql_files import read_sql
from ml_assets.stores.postgres_table.statements import lock, table_exists
from ml_assets.tables.hashing import HASH_VERSION
from ml_assets.tables.ledger import entries, noted
from ml_assets.tables.staging import Buckets, bucket_name

if TYPE_CHECKING:
    import psycopg


def ensure_ledger(connection: "psycopg.Connection") -> None:
    """Make the ledger of writes if it is not there, and bring that of a former version up to date."""
    if connection.execute(read_sql("postgres/ledger/is_current.sql")).fetchone() != (True,):
        lock(connection, "ledger")
        connection.execute(read_sql("postgres/ledger/writes.sql"))


def ledger_buckets(
    connection: "psycopg.Connection", contract: Contract, any_version: bool = False
) -> Buckets:
    """What the ledger says of a table; nothing of what was hashed in another way, unless that is asked for."""
    if not table_exists(connection, "ledger", "writes"):
        return {}
    given = {
        "store": contract.store,
        "table_name": contract.table,
        "hash_version": HASH_VERSION,
        "any_version": any_version,
    }
    return noted(connection.execute(read_sql("postgres/ledger/noted.sql"), given).fetchall())


def record(
    connection: "psycopg.Connection", contract: Contract, held: Buckets, buckets: Collection[int] | None
) -> None:
    """Note what some partitions (None: all) hold now; those that hold nothing are forgotten."""
    ensure_ledger(connection)
    names = None if buckets is None else [bucket_name(bucket, contract) for bucket in buckets]
    given = {"store": contract.store, "table_name": contract.table, "partitions": names}
    connection.execute(read_sql("postgres/ledger/forget.sql"), given)
    rows = [(contract.store, contract.table, *entry) for entry in entries(contract, held, buckets)]
    with connection.cursor() as cursor:
        cursor.executemany(read_sql("postgres/ledger/note.sql"), rows)


def remember(connection: "psycopg.Connection", contract: Contract) -> None:
    """Note by which contract a table is written now."""
    ensure_ledger(connection)
    given = contract.asset, contract_text(contract)
    connection.execute(read_sql("postgres/ledger/note_contract.sql"), given)


def forget_contract(connection: "psycopg.Connection", asset: str) -> None:
    """Forget by which contract a table was written."""
    connection.execute("DELETE FROM ledger.contracts WHERE asset = %s", (asset,))


def last_contract(connection: "psycopg.Connection", asset: str) -> Contract | None:
    """The contract by which a table was last written; None if it never was."""
    if not table_exists(connection, "ledger", "contracts"):
        return None
    asked = connection.execute("SELECT contract FROM ledger.contracts WHERE asset = %s", (asset,))
    rows = asked.fetchall()
    return contract_of_text(rows[0][0]) if rows else None


def contracts_of(connection: "psycopg.Connection", store: str) -> list[Contract]:
    """Of each table of a store that keeps its books here, the contract that it was last written by."""
    if not table_exists(connection, "ledger", "contracts"):
        return []
    rows = connection.execute(read_sql("postgres/ledger/contracts.sql"), (f"{store}/",)).fetchall()
    return [contract_of_text(text) for (text,) in rows]
