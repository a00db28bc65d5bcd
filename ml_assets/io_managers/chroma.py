"""Collections in Chroma, for Dagster. How they are written, read and searched is in stores/vectors and stores/chroma."""

from typing import ClassVar

from ml_assets.io_managers.vectors import VectorIOManager
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.chroma import ChromaStore
from ml_assets.tables.validation import Limits


class ChromaIOManager(VectorIOManager):
    """Writes and reads collections of Chroma.

    Args:
        chroma: the server.
        postgres: where the manifest is kept.
    """

    store: ClassVar[str] = ChromaStore.prefix
    limits: ClassVar[Limits] = ChromaStore.limits

    chroma: ChromaResource
    postgres: PostgresResource

    def table_store(self) -> ChromaStore:
        """The store over this manager's resources."""
        return ChromaStore(self.chroma, self.postgres)
