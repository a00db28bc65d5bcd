"""SQLite's ledger of writes, in the file itself, within the caller's transaction."""

from datetime import datetime
from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.contracts.text import contract_of_text, contract_text
from ml_assets.lib.sql import utc_text
from ml_assets.sql_files import read_sql, read_statements
from ml_assets.stores.sqlite.ddl import CONTRACTS, LEDGER, columns_of
from ml_assets.tables.hashing import HASH_VERSION
from ml_assets.tables.ledger import entries, noted
from ml_assets.tables.staging import Buckets, bucket_name

if TYPE_CHECKING:
    import sqlite3


def ensure(connection: "sqlite3.Connection") -> None:
    """Make the ledger if it is not there, and bring that of a former version up to date."""
    for statement in read_statements("sqlite/ledger/schema.sql"):
        connection.execute(statement)
    if "run_id" not in columns_of(connection, LEDGER):
        connection.execute(f"ALTER TABLE {LEDGER} ADD COLUMN run_id TEXT")


def buckets(connection: "sqlite3.Connection", contract: Contract, any_version: bool = False) -> Buckets:
    """What the ledger says of a table; nothing of what was hashed in another way, unless that is asked for."""
    if not columns_of(connection, LEDGER):
        return {}
    given = {"table_name": contract.table, "hash_version": HASH_VERSION, "any_version": any_version}
    rows = connection.execute(read_sql("sqlite/ledger/noted.sql"), given)
    return noted((*state, datetime.fromisoformat(written_at)) for *state, written_at in rows)


def record(
    connection: "sqlite3.Connection", contract: Contract, held: Buckets, those: set[int] | None
) -> None:
    """Note what some partitions (None: all) hold now; those that hold nothing are forgotten."""
    if those is None:
        connection.execute(f"DELETE FROM {LEDGER} WHERE table_name = ?", [contract.table])
    else:
        names = [{"table_name": contract.table, "partition": bucket_name(each, contract)} for each in those]
        connection.executemany(read_sql("sqlite/ledger/forget.sql"), names)
    rows = [
        (contract.table, *entry._replace(written_at=utc_text(entry.written_at)))
        for entry in entries(contract, held, those)
    ]
    connection.executemany(read_sql("sqlite/ledger/note.sql"), rows)


def remember(connection: "sqlite3.Connection", contract: Contract) -> None:
    """Note by which contract a table is written now."""
    connection.execute(
        f"INSERT OR REPLACE INTO {CONTRACTS} VALUES (?, ?)", [contract.asset, contract_text(contract)]
    )


def last_contract(connection: "sqlite3.Connection", asset: str) -> Contract | None:
    """The contract by which a table was last written; None if it never was."""
    if not columns_of(connection, CONTRACTS):
        return None
    rows = connection.execute(f"SELECT contract FROM {CONTRACTS} WHERE asset = ?", [asset]).fetchall()
    return contract_of_text(rows[0][0]) if rows else None


def contracts(connection: "sqlite3.Connection") -> list[Contract]:
    """Of each table that was written and is there, the contract that it was last written by."""
    if not columns_of(connection, CONTRACTS):
        return []
    rows = connection.execute(f"SELECT contract FROM {CONTRACTS} ORDER BY asset").fetchall()
    known = [contract_of_text(text) for (text,) in rows]
    return [each for each in known if columns_of(connection, each.table)]
