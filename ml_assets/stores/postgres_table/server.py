"""What stores ask of a PostgreSQL server about their tables, each question in a transaction of its own."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.stores.postgres_table import ledger
from ml_assets.stores.postgres_table.ledger import contracts_of, ledger_buckets
from ml_assets.stores.postgres_table.rows import read
from ml_assets.stores.postgres_table.statements import table_exists
from ml_assets.stores.postgres_table.transaction import live_buckets
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import TableState, table_state
from ml_assets.tables.store import StoreHealth
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    import psycopg


class PostgresServer(Protocol):
    """What a store needs of the resource that opens connections (resources/postgres.py)."""

    def connect(self, write: bool = False) -> "AbstractContextManager[psycopg.Connection]":
        """One transaction, with the longer time-out if it writes."""
        ...

    def statements(self) -> "AbstractContextManager[psycopg.Connection]":
        """A connection on which each statement stands alone."""
        ...

    def health(self) -> StoreHealth:
        """How the server does."""
        ...


def stream(
    server: PostgresServer, contract: Contract, columns: Sequence[str], window: Window
) -> pa.RecordBatchReader:
    """The rows of a window as a stream, which closes its connection when it is exhausted or dropped.

    Raises:
        LookupError: the table was never written; when the first batch is asked for.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        # The longer time-out: a bulk load in the other direction.
        with server.connect(write=True) as connection:
            yield from read(connection, contract, columns, window)

    return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())


def contracts(server: PostgresServer, *stores: str) -> list[Contract]:
    """Of each table of some stores that was written and is there, the contract that it was last written by."""
    with server.connect() as connection:
        return [
            each
            for store in stores
            for each in contracts_of(connection, store)
            if table_exists(connection, each.schema, each.table)
        ]


def last_contract(server: PostgresServer, asset: str) -> Contract | None:
    """The contract by which a table was last written; None if it never was."""
    with server.connect() as connection:
        return ledger.last_contract(connection, asset)


def ledger_state(server: PostgresServer, contract: Contract, any_version: bool = False) -> TableState:
    """Rows and content hash as noted when the table was written; of what was hashed in another way only if asked for."""
    with server.connect() as connection:
        return table_state(ledger_buckets(connection, contract, any_version))


def live_state(server: PostgresServer, contract: Contract) -> TableState:
    """Rows and content hash of what the table holds now."""
    with server.connect(write=True) as connection:
        return table_state(live_buckets(connection, contract))
