"""The lake's ledger of writes: two tables of the lake itself, written within the caller's transaction."""

from collections.abc import Container
from typing import TYPE_CHECKING

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.contracts.text import contract_of_text, contract_text
from ml_assets.sql_files import read_sql, read_statements
from ml_assets.stores.duckdb.ddl import Table, columns_of, tables_of
from ml_assets.tables.hashing import HASH_VERSION
from ml_assets.tables.ledger import entries, noted
from ml_assets.tables.staging import EMPTY, Buckets

if TYPE_CHECKING:
    import duckdb

WRITES: Table = ("ledger", "writes")
CONTRACTS: Table = ("ledger", "contracts")

_ENTRY = pa.schema(
    [
        ("partition", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("content_hash", pa.string()),
        ("hash_version", pa.string()),
        ("written_at", pa.timestamp("us", "UTC")),
        ("run_id", pa.string()),
    ]
)


class Ledger:
    """The ledger as one transaction sees it.

    Args:
        connection: to the lake.
        writes, contracts: names of the columns of its two tables, which are empty where there is none.
    """

    def __init__(
        self, connection: "duckdb.DuckDBPyConnection", writes: Container[str], contracts: Container[str]
    ) -> None:
        self._connection = connection
        self._has_writes = "partition" in writes
        self._has_run = "run_id" in writes
        self._has_contracts = "contract" in contracts

    def buckets(self, contract: Contract, any_version: bool = False) -> Buckets:
        """The last entry of each partition of a table; none of what was hashed in another way, unless asked for."""
        if not self._has_writes:
            return {}
        given = {
            "table_name": _name(contract),
            "hash_version": HASH_VERSION,
            "any_version": any_version,
        }
        return noted(self._connection.execute(read_sql("duckdb/ledger/noted.sql"), given).fetchall())

    def record(self, contract: Contract, held: Buckets, those: set[int] | None) -> None:
        """Append what some partitions (None: all) hold now; the last entry of a partition counts."""
        self._ensure()
        if not self._has_run:
            # Not before it is needed: it conflicts with whoever else writes to the ledger just now.
            self._connection.execute(read_sql("duckdb/ledger/add_run_id.sql"))
            self._has_run = True
        # The lake's version grows with every write; asking the ledger itself takes ten times as long.
        found = self._connection.execute("SELECT id FROM lake.current_snapshot()").fetchall()
        sequence = found[0][0] + 1
        known = self.buckets(contract).keys() | held.keys() if those is None else those
        noted_now = entries(contract, {bucket: held.get(bucket, EMPTY) for bucket in known}, None)
        rows = pa.Table.from_pylist([entry._asdict() for entry in noted_now], _ENTRY)
        for name, value in (("table_name", pa.scalar(_name(contract))), ("sequence", pa.scalar(sequence))):
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        self._connection.register("ledger_entries", rows)
        self._connection.execute(read_sql("duckdb/ledger/note.sql"))
        self._connection.unregister("ledger_entries")

    def forget(self, contract: Contract) -> None:
        """Forget what a table held that was dropped."""
        if self.buckets(contract):
            given = {"table_name": _name(contract)}
            self._connection.execute(read_sql("duckdb/ledger/forget.sql"), given)

    def remember(self, contract: Contract) -> None:
        """Note by which contract a table is written now."""
        self._ensure()
        given = {"asset": contract.asset, "contract": contract_text(contract)}
        self._connection.execute(read_sql("duckdb/ledger/remember.sql"), given)

    def last_contract(self, asset: str) -> Contract | None:
        """The contract by which a table was last written; None if it never was."""
        if not self._has_contracts:
            return None
        statement = read_sql("duckdb/ledger/last_contract.sql")
        ((text,),) = self._connection.execute(statement, {"asset": asset}).fetchall()
        return None if text is None else contract_of_text(text)

    def contracts(self) -> list[Contract]:
        """Of every table that was written, the contract that it was last written by, though it may be gone."""
        if not self._has_contracts:
            return []
        rows = self._connection.execute(read_sql("duckdb/ledger/contracts.sql")).fetchall()
        return [contract_of_text(text) for (text,) in rows]

    def forget_replaced(self) -> int:
        """Delete entries that later ones have replaced; returns how many.

        Raises:
            duckdb.TransactionException: somebody wrote to any table meanwhile; nothing of that table was deleted.
        """
        count = 0
        for present, name in ((self._has_writes, "writes"), (self._has_contracts, "contracts")):
            if present:
                statement = read_sql(f"duckdb/ledger/forget_replaced_{name}.sql")
                count += int(self._connection.execute(statement).fetchall()[0][0])
        return count

    def _ensure(self) -> None:
        """Make what is missing of the ledger."""
        if self._has_writes and self._has_contracts:
            return
        for statement in read_statements("duckdb/ledger/schema.sql"):
            self._connection.execute(statement)
        self._has_run = self._has_run or not self._has_writes
        self._has_writes = self._has_contracts = True


def opened(connection: "duckdb.DuckDBPyConnection") -> Ledger:
    """The ledger as it is now."""
    return Ledger(connection, *columns_of(connection, WRITES, CONTRACTS))


def contracts_of_tables(connection: "duckdb.DuckDBPyConnection") -> list[Contract]:
    """Of each table that was written and is there, the contract that it was last written by."""
    present = tables_of(connection)
    return [each for each in opened(connection).contracts() if (each.schema, each.table) in present]


def _name(contract: Contract) -> str:
    return f"{contract.schema}.{contract.table}"
