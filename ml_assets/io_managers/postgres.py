"""Tables in PostgreSQL: one transaction a write, COPY in both directions.

What belongs here: the IO manager and the two questions about a table's state. How a table is made and
merged is in stores/postgres_table.py. What does not: anything about another store.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from ml_assets.contracts import Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.resources.postgres import PostgresResource
from ml_assets.tables.validation import Limits, Window

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Staged, TableState


class PostgresIOManager(TableIOManager):
    """Writes and reads tables of PostgreSQL.

    Args:
        postgres: the server.
    """

    store: ClassVar[str] = "postgres"
    limits: ClassVar[Limits] = Limits("PostgreSQL", nul=False, columns=1_600, row_bytes=1_000_000_000)

    postgres: PostgresResource

    def _write(self, contract: Contract, staged: "Staged") -> bool:
        from ml_assets.stores import postgres_table
        from ml_assets.tables.conflicts import retried

        def attempt() -> bool:
            with self.postgres.connect(write=True) as connection:
                return postgres_table.write(connection, contract, staged)

        return retried(contract.asset, postgres_table.is_conflict, attempt)

    def _read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        return read(self.postgres, contract, columns, window)

    def _found(self, place: "Place") -> "Found | None":
        from ml_assets.stores.postgres_table import found_in_postgres

        return found_in_postgres(self.postgres.connect, place)

    def _remembered(self, asset: str) -> Contract | None:
        from ml_assets.stores import postgres_table

        with self.postgres.connect() as connection:
            return postgres_table.remembered(connection, asset)


def read(
    postgres: PostgresResource, contract: Contract, columns: Sequence[str], window: Window
) -> "pa.RecordBatchReader":
    """Rows of a window as a stream; the connection is closed when it is exhausted or dropped."""
    import pyarrow as pa

    from ml_assets.stores import postgres_table
    from ml_assets.tables.arrow_types import arrow_schema

    def batches() -> "Iterator[pa.RecordBatch]":
        # The longer time-out: a bulk load in the other direction.
        with postgres.connect(write=True) as connection:
            yield from postgres_table.read(connection, contract, columns, window)

    return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())


def known(postgres: PostgresResource) -> list[Contract]:
    """Of each table that was written and is there, Redis' too, the contract that it was last written by."""
    from ml_assets.stores import postgres_table

    with postgres.connect() as connection:
        return [
            each
            for store in ("postgres", "serving")
            for each in postgres_table.known_contracts(connection, store)
            if postgres_table.table_exists(connection, each.schema, each.table)
        ]


def recorded(postgres: PostgresResource, contract: Contract, any_version: bool = False) -> "TableState":
    """Rows and content hash as noted when the table was written; of what was hashed in another way only if asked for."""
    from ml_assets.stores import postgres_table
    from ml_assets.tables.staging import table_state

    with postgres.connect() as connection:
        return table_state(postgres_table.recorded_buckets(connection, contract, any_version))


def measured(postgres: PostgresResource, contract: Contract) -> "TableState":
    """Rows and content hash of what the table holds now."""
    from ml_assets.stores import postgres_table
    from ml_assets.tables.staging import table_state

    with postgres.connect(write=True) as connection:
        return table_state(postgres_table.measured_buckets(connection, contract))
