"""Qdrant: a server, or its engine within this process. How a table is kept in a collection is common ground with other
such stores (stores/vectors).

A point's id is a UUID made of the entry's id, since Qdrant takes no text, and the entry's id stands in its payload
beside the row. Qdrant keeps vectors of cosine distance at length 1.

What belongs in this package: points and payloads (collections.py), the two ways to reach them (edge.py, server.py),
mending. What does not: URLs, locks and health (resources/qdrant.py).
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ml_assets.contracts import Contract
from ml_assets.stores.vectors import ManifestDatabase, VectorStore
from ml_assets.tables.store import Retention, StoreHealth
from ml_assets.tables.validation import Limits

if TYPE_CHECKING:
    import psycopg

    from ml_assets.stores.qdrant.points import Points
    from ml_assets.stores.vectors.port import Collections

__all__ = ["QdrantPlace", "QdrantStore"]


class QdrantPlace(Protocol):
    """What the store needs of the resource that reaches Qdrant."""

    def opened(self, write: bool = False) -> "AbstractContextManager[Points]":
        """Its points, for the length of the block; `write` gives requests more time."""
        ...

    def data_folder(self) -> Path | None:
        """Where the embedded engine keeps its data; None for a server."""
        ...

    def is_configured(self) -> bool:
        """Whether there is any Qdrant."""
        ...

    def health(self) -> StoreHealth:
        """How it does."""
        ...


class QdrantStore(VectorStore):
    """The collections of Qdrant that this project has written.

    Args:
        qdrant: reaches it (resources/qdrant.py).
        postgres: see `VectorStore`.
    """

    name: ClassVar[str] = "qdrant"
    prefix: ClassVar[str] = "qdrant"
    kind: ClassVar[str] = "qdrant"
    title: ClassVar[str] = "Qdrant"
    resources: ClassVar[tuple[str, ...]] = ("qdrant", "postgres")
    # Qdrant divides a vector by its length, whose square is a float32.
    limits: ClassVar[Limits] = Limits(
        "Qdrant", nul=False, nan=False, infinity=False, null_vector=False, vector_length=1e18
    )

    def __init__(self, qdrant: QdrantPlace, postgres: ManifestDatabase) -> None:
        super().__init__(postgres)
        self.qdrant = qdrant

    @classmethod
    def is_used(cls, resources: Mapping[str, Any]) -> bool:
        return resources["qdrant"].is_configured()

    @contextmanager
    def collections(self, write: bool = False) -> "Iterator[Collections]":
        from ml_assets.stores.qdrant.collections import QdrantCollections

        with self.qdrant.opened(write) as points:
            yield QdrantCollections(points, self.listed(""))

    def listed(self, table: str) -> str:
        return f"qdrant/{table}"

    def renew(self, collections: "Collections", connection: "psycopg.Connection", contract: Contract) -> None:
        from ml_assets.stores.qdrant.collections import QdrantCollections
        from ml_assets.stores.qdrant.maintenance import renew

        assert isinstance(collections, QdrantCollections)  # noqa: S101 - it made them itself
        renew(collections, connection, contract)

    def forget(self, contract: Contract) -> None:
        from ml_assets.stores.qdrant.maintenance import forget

        forget(self.qdrant, self.postgres, contract)

    def unreadable(self) -> tuple[type[Exception], ...]:
        from ml_assets.stores.qdrant.points import QdrantFault

        return (QdrantFault,)

    def gone(self) -> tuple[type[Exception], ...]:
        from ml_assets.stores.qdrant.points import QdrantGone

        return (QdrantGone,)

    def health(self) -> StoreHealth:
        return self.qdrant.health()

    def size(self) -> int | None:
        """Bytes of the embedded engine's folder; None for a server, which does not tell."""
        from ml_assets.stores.files import folder_bytes

        folder = self.qdrant.data_folder()
        return None if folder is None or not folder.exists() else folder_bytes(folder)

    def maintain(self, retention: Retention) -> Iterator[str]:
        from ml_assets.stores.qdrant.maintenance import maintain

        yield from maintain(self)
