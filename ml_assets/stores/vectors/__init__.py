"""Tables in stores of vectors that have no transactions: immutable entries, and a manifest of the live ones.

An entry's id is `<key>:<hash of its row>`, so a changed row is a new entry and the old one stays readable beside it. The
manifest, in PostgreSQL, says which id is live for each key; it changes in one transaction, and that is the commit.
Readers go by the manifest, and so do searches. Entries that it does not name are swept away after the commit, or by the
next write after a crash, but never while somebody reads who began before the last commit.

Chroma and Qdrant keep their tables so; this is common ground of both. What belongs here: encoding of rows as entries,
the manifest, sweeping, which entries a search may find, telling damage. What does not: how a store is reached, asked,
and made small (its own package, behind port.py).
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ml_assets.contracts import Contract
from ml_assets.tables.store import Recovery, TableStore, Written
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from ml_assets.stores.vectors.port import Collections, Similar
    from ml_assets.tables.staging import Staged, TableState

__all__ = ["ManifestDatabase", "VectorStore"]


class ManifestDatabase(Protocol):
    """What the store needs of the resource that opens connections to PostgreSQL."""

    def connect(self, write: bool = False) -> "AbstractContextManager[psycopg.Connection]":
        """One transaction."""
        ...


class VectorStore(TableStore):
    """Collections that this project has written.

    Args:
        postgres: opens connections to PostgreSQL, where the manifest and the ledger are (resources/postgres.py).
    """

    books: ClassVar[str | None] = "postgres"

    title: ClassVar[str]
    """The store, as people know it."""

    def __init__(self, postgres: ManifestDatabase) -> None:
        self.postgres = postgres

    @abstractmethod
    def collections(self, write: bool = False) -> "AbstractContextManager[Collections]":
        """The store's collections, opened; `write` gives its requests more time."""

    @abstractmethod
    def renew(self, collections: "Collections", connection: "psycopg.Connection", contract: Contract) -> None:
        """Make a damaged collection anew with what can still be read of it, under the lock of its writers."""

    @abstractmethod
    def forget(self, contract: Contract) -> None:
        """Delete a collection and all that is noted of it, to make way for one of another contract."""

    @abstractmethod
    def unreadable(self) -> tuple[type[Exception], ...]:
        """By what the store says that an index cannot be read."""

    def gone(self) -> tuple[type[Exception], ...]:
        """What is raised when the store's server dies meanwhile."""
        return ()

    def write(self, contract: Contract, staged: "Staged") -> Written:
        from ml_assets.stores.vectors.write import write

        return write(self, contract, staged)

    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.stores.vectors.rows import select
        from ml_assets.tables.arrow_types import arrow_schema

        def batches() -> "Iterator[pa.RecordBatch]":
            with (
                self.postgres.connect(write=True) as connection,
                self.collections(write=True) as collections,
            ):
                yield from select(collections, connection, contract, window, columns)

        return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())

    def held(self, contract: Contract, columns: Sequence[str], window: Window) -> "Iterator[pa.RecordBatch]":
        """See `TableStore`; entries that are not in the store any more are left out.

        Raises:
            DamagedCollection: the index cannot be read.
        """
        from ml_assets.stores.vectors.rows import select

        with (
            self.postgres.connect(write=True) as connection,
            self.collections(write=True) as collections,
        ):
            yield from select(collections, connection, contract, window, columns, missing=[], as_is=True)

    def query_similar(
        self,
        collection: str,
        vector: Sequence[float],
        top_k: int = 10,
        where: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
    ) -> "list[Similar]":
        """The live entries whose vectors are nearest to the given one, nearest first: of one version, as it stood.

        Args:
            collection: name of the collection, such as `experiment_index`.
            vector: of the collection's dimension.
            top_k: how many, at most.
            where: conditions on the metadata; several stand for 'all of them'.
            keys: search only among the entries of these keys.

        Raises:
            DamagedCollection: the store lacks live entries, so that others would be found in their place.
            StoreUnavailable: a server does not answer, or the collection was never materialized.
        """
        from ml_assets.stores.vectors.search import query_similar

        asset = f"{self.prefix}/{collection}"
        with self.postgres.connect() as connection, self.collections() as collections:
            return query_similar(collections, connection, asset, vector, top_k, where, keys)

    def contracts(self) -> list[Contract]:
        from ml_assets.stores import postgres_table

        with self.postgres.connect() as connection:
            return postgres_table.contracts_of(connection, self.prefix)

    def last_contract(self, asset: str) -> Contract | None:
        from ml_assets.stores import postgres_table

        with self.postgres.connect() as connection:
            return postgres_table.last_contract(connection, asset)

    def ledger_state(self, contract: Contract, any_version: bool = False) -> "TableState":
        from ml_assets.stores import postgres_table
        from ml_assets.tables.staging import table_state

        with self.postgres.connect() as connection:
            return table_state(postgres_table.ledger_buckets(connection, contract, any_version))

    def live_state(self, contract: Contract) -> "TableState":
        from ml_assets.stores.vectors.rows import select
        from ml_assets.tables.staging import measure, table_state

        if not self._written(contract):
            return table_state({})
        with (
            self.postgres.connect(write=True) as connection,
            self.collections(write=True) as collections,
        ):
            rows = select(collections, connection, contract, missing=[], as_is=True)
            return table_state(measure(rows, contract))

    def keys(self, contract: Contract) -> set[str] | None:
        """Keys of the live entries that are in the collection and its index; None if it was never written.

        Raises:
            DamagedCollection: the index cannot be read, or gives other vectors than were written.
        """
        from ml_assets.stores.vectors.search import keys

        if not self.ledger_state(contract, any_version=True).rows:
            return None
        with (
            self.postgres.connect(write=True) as connection,
            self.collections(write=True) as collections,
        ):
            return keys(collections, connection, contract)

    def damage(self, contract: Contract) -> str:
        from ml_assets.stores.vectors.repair import damage

        if not self._written(contract):
            return ""
        with (
            self.postgres.connect(write=True) as connection,
            self.collections(write=True) as collections,
        ):
            return damage(collections, connection, contract)

    def recover(self, tables: Mapping[str, Contract]) -> Recovery:
        from ml_assets.stores.vectors.repair import recover

        return recover(self, tables)

    def _written(self, contract: Contract) -> bool:
        """Whether the manifest names entries; asked before the store is, which may not be there yet."""
        from ml_assets.stores.vectors import manifest

        with self.postgres.connect() as connection:
            return bool(manifest.live_ids(connection, self.listed(contract.table)))

    @abstractmethod
    def listed(self, table: str) -> str:
        """The name by which the manifest knows a collection."""
