"""Chroma: a server of collections. How a table is kept in one is common ground with other such stores (stores/vectors).

What belongs in this package: what Chroma alone knows: its requests, mending and shrinking a collection. What does not:
how a server is reached (resources/chroma.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from ml_assets.contracts import Contract
from ml_assets.stores.vectors import ManifestDatabase, VectorStore
from ml_assets.tables.store import Retention, StoreHealth, Written
from ml_assets.tables.validation import Limits

if TYPE_CHECKING:
    import psycopg
    from chromadb.api.client import Client

    from ml_assets.stores.vectors.port import Collections
    from ml_assets.tables.found import Place
    from ml_assets.tables.staging import Staged

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


class ChromaStore(VectorStore):
    """The collections of a Chroma server that this project has written.

    Args:
        chroma: reaches the server (resources/chroma.py).
        postgres: see `VectorStore`.
    """

    name: ClassVar[str] = "chroma"
    prefix: ClassVar[str] = "chroma"
    kind: ClassVar[str] = "chroma"
    title: ClassVar[str] = "Chroma"
    resources: ClassVar[tuple[str, ...]] = ("chroma", "postgres")
    # Chroma divides a vector by its length, whose square is a float32.
    limits: ClassVar[Limits] = Limits(
        "Chroma", nul=False, nan=False, infinity=False, null_vector=False, vector_length=1e18
    )

    def __init__(self, chroma: ChromaServer, postgres: ManifestDatabase) -> None:
        super().__init__(postgres)
        self.chroma = chroma

    @contextmanager
    def collections(self, write: bool = False) -> "Iterator[Collections]":
        from ml_assets.stores.chroma.collections import ChromaCollections

        with self.chroma.client(write=write) as client:
            yield ChromaCollections(client)

    def listed(self, table: str) -> str:
        return table

    def write(self, contract: Contract, staged: "Staged") -> Written:
        from ml_assets.stores.chroma.requests import refuse_large

        refuse_large(contract, staged)
        return super().write(contract, staged)

    def renew(self, collections: "Collections", connection: "psycopg.Connection", contract: Contract) -> None:
        from ml_assets.stores.chroma.collections import ChromaCollections, ensure_collection
        from ml_assets.stores.chroma.index import renew

        assert isinstance(collections, ChromaCollections)  # noqa: S101 - it made them itself
        client = collections.client
        renew(self.chroma.data_folder(), client, connection, ensure_collection(client, contract))

    def forget(self, contract: Contract) -> None:
        from ml_assets.stores.chroma.maintenance import forget

        forget(self.chroma, self.postgres, contract)

    def unreadable(self) -> tuple[type[Exception], ...]:
        from ml_assets.stores.chroma.collections import unreadable

        return unreadable()

    def gone(self) -> tuple[type[Exception], ...]:
        import httpx

        return (httpx.TransportError,)

    def found(self, place: "Place") -> None:
        with self.chroma.client() as client:
            if place.table not in {collection.name for collection in client.list_collections()}:
                return
        raise LookupError(
            f"{place.asset}: another tool made the collection {place.table!r}, and only entries that this IO manager has "
            "written can be read as a table, since PostgreSQL tells which of them count: read it with the client of "
            "ChromaResource, or return its rows from an asset of this IO manager under another name."
        )

    def health(self) -> StoreHealth:
        return self.chroma.health()

    def size(self) -> int | None:
        """Bytes of the embedded server's folder; None for a server that somebody else runs, which does not tell."""
        from ml_assets.stores.files import folder_bytes

        folder = self.chroma.data_folder()
        return None if folder is None else folder_bytes(folder)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.chroma.maintenance import maintain

        yield from maintain(self, retention)
