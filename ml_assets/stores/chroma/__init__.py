"""Chroma: immutable entries, and a manifest in PostgreSQL that names the live ones.

Chroma has no transactions. An entry's id is `<key>:<hash of its row>`, so a changed row is a new entry and the old one
stays readable beside it. The manifest says which id is live for each key; it changes in one PostgreSQL transaction, and
that is the commit. Readers go by the manifest, and so do searches. Entries that it does not name are swept away after
the commit, or by the next write after a crash, but never while somebody reads who began before the last commit.

What belongs in this package: encoding of rows as entries, the manifest, sweeping, which entries a search may find,
mending a collection. What does not: how a server is reached (resources/chroma.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ml_assets.contracts import Contract
from ml_assets.tables.store import Recovery, Retention, StoreHealth, TableStore, Written
from ml_assets.tables.validation import Limits, Window

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa
    from chromadb.api.client import Client

    from ml_assets.stores.chroma.collections import Similar
    from ml_assets.tables.found import Place
    from ml_assets.tables.staging import Staged, TableState

__all__ = ["ChromaServer", "ChromaStore", "ManifestDatabase"]


class ChromaServer(Protocol):
    """What the store needs of the resource that reaches the server."""

    def client(self, write: bool = False) -> "Client":
        """A client, to be closed; `write` gives its requests more time."""
        ...

    def data_folder(self) -> Path | None:
        """Where the embedded server keeps its data; None for a server that somebody else runs."""
        ...

    def health(self) -> StoreHealth:
        """How the server does."""
        ...


class ManifestDatabase(Protocol):
    """What the store needs of the resource that opens connections to PostgreSQL."""

    def connect(self, write: bool = False) -> "AbstractContextManager[psycopg.Connection]":
        """One transaction."""
        ...


class ChromaStore(TableStore):
    """The collections of a Chroma server that this project has written.

    Args:
        chroma: reaches the server (resources/chroma.py).
        postgres: opens connections to PostgreSQL, where the manifest and the ledger are (resources/postgres.py).
    """

    name: ClassVar[str] = "chroma"
    prefix: ClassVar[str] = "chroma"
    kind: ClassVar[str] = "chroma"
    resources: ClassVar[tuple[str, ...]] = ("chroma", "postgres")
    books: ClassVar[str | None] = "postgres"
    # Chroma divides a vector by its length, whose square is a float32.
    limits: ClassVar[Limits] = Limits(
        "Chroma", nul=False, nan=False, infinity=False, null_vector=False, vector_length=1e18
    )

    def __init__(self, chroma: ChromaServer, postgres: ManifestDatabase) -> None:
        self._chroma = chroma
        self._postgres = postgres

    def write(self, contract: Contract, staged: "Staged") -> Written:
        from ml_assets.stores.chroma.write import write

        return write(self._chroma, self._postgres, contract, staged)

    def read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.stores.chroma.rows import select
        from ml_assets.tables.arrow_types import arrow_schema

        def batches() -> "Iterator[pa.RecordBatch]":
            with (
                self._postgres.connect(write=True) as connection,
                self._chroma.client(write=True) as client,
            ):
                yield from select(client, connection, contract, window, columns)

        return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())

    def query_similar(
        self,
        collection: str,
        vector: Sequence[float],
        top_k: int = 10,
        where: Mapping[str, Any] | None = None,
    ) -> "list[Similar]":
        """The live entries whose vectors are nearest to the given one, nearest first: of one version, as it stood.

        Args:
            collection: name of the collection, such as `experiment_index`.
            vector: of the collection's dimension.
            top_k: how many, at most.
            where: conditions on the metadata; several stand for 'all of them'.

        Raises:
            DamagedCollection: Chroma lacks live entries, so that others would be found in their place.
            StoreUnavailable: a server does not answer, or the collection was never materialized.
        """
        from ml_assets.stores.chroma.search import query_similar

        with self._postgres.connect() as connection, self._chroma.client() as client:
            return query_similar(client, connection, collection, vector, top_k, where)

    def found(self, place: "Place") -> None:
        with self._chroma.client() as client:
            if place.table not in {collection.name for collection in client.list_collections()}:
                return
        raise LookupError(
            f"{place.asset}: another tool made the collection {place.table!r}, and only entries that this IO manager has "
            "written can be read as a table, since PostgreSQL tells which of them count: read it with the client of "
            "ChromaResource, or return its rows from an asset of this IO manager under another name."
        )

    def contracts(self) -> list[Contract]:
        from ml_assets.stores import postgres_table

        with self._postgres.connect() as connection:
            return postgres_table.contracts_of(connection, self.prefix)

    def last_contract(self, asset: str) -> Contract | None:
        from ml_assets.stores import postgres_table

        with self._postgres.connect() as connection:
            return postgres_table.last_contract(connection, asset)

    def ledger_state(self, contract: Contract, any_version: bool = False) -> "TableState":
        from ml_assets.stores import postgres_table
        from ml_assets.tables.staging import table_state

        with self._postgres.connect() as connection:
            return table_state(postgres_table.ledger_buckets(connection, contract, any_version))

    def live_state(self, contract: Contract) -> "TableState":
        from ml_assets.stores.chroma import manifest
        from ml_assets.stores.chroma.rows import select
        from ml_assets.tables.staging import measure, table_state

        with self._postgres.connect(write=True) as connection:
            if not manifest.live_ids(connection, contract.table):
                return table_state({})
            with self._chroma.client(write=True) as client:
                rows = select(client, connection, contract, missing=[], as_is=True)
                return table_state(measure(rows, contract))

    def keys(self, contract: Contract) -> set[str] | None:
        """Keys of the live entries that are in the collection and its index; None if it was never written.

        Raises:
            DamagedCollection: the index cannot be read, or gives other vectors than were written.
        """
        from ml_assets.stores.chroma.search import keys

        if not self.ledger_state(contract, any_version=True).rows:
            return None
        with self._postgres.connect(write=True) as connection, self._chroma.client(write=True) as client:
            return keys(client, connection, contract)

    def damage(self, contract: Contract) -> str:
        from ml_assets.stores.chroma import manifest
        from ml_assets.stores.chroma.repair import damage

        with self._postgres.connect(write=True) as connection:
            if not manifest.live_ids(connection, contract.table):
                return ""
            with self._chroma.client(write=True) as client:
                return damage(client, connection, contract)

    def recover(self, tables: Mapping[str, Contract]) -> Recovery:
        from ml_assets.stores.chroma.repair import recover

        return recover(self._chroma, self._postgres, tables)

    def health(self) -> StoreHealth:
        return self._chroma.health()

    def size(self) -> int | None:
        """Bytes of the embedded server's folder; None for a server that somebody else runs, which does not tell."""
        from ml_assets.stores.files import folder_bytes

        folder = self._chroma.data_folder()
        return None if folder is None else folder_bytes(folder)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.chroma.maintenance import maintain

        yield from maintain(self._chroma, self._postgres, retention)
