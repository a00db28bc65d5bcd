"""Collections in Qdrant, for Dagster. How they are written, read and searched is in stores/vectors and stores/qdrant."""

from typing import ClassVar

from ml_assets.io_managers.vectors import VectorIOManager
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.qdrant import QdrantResource
from ml_assets.stores.qdrant import QdrantStore
from ml_assets.tables.validation import Limits


class QdrantIOManager(VectorIOManager):
    """Writes and reads collections of Qdrant.

    Args:
        qdrant: a server, or the engine within this process.
        postgres: where the manifest is kept.
    """

    store: ClassVar[str] = QdrantStore.prefix
    limits: ClassVar[Limits] = QdrantStore.limits

    qdrant: QdrantResource
    postgres: PostgresResource

    def table_store(self) -> QdrantStore:
        """The store over this manager's resources."""
        return QdrantStore(self.qdrant, self.postgres)
