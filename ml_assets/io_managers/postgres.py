"""Tables in PostgreSQL, for Dagster. How they are written and read is in stores/postgres and stores/postgres_table."""

from typing import ClassVar

from ml_assets.io_managers.base import TableIOManager
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.postgres import PostgresStore
from ml_assets.tables.validation import Limits


class PostgresIOManager(TableIOManager):
    """Writes and reads tables of PostgreSQL.

    Args:
        postgres: the server.
    """

    store: ClassVar[str] = PostgresStore.prefix
    limits: ClassVar[Limits] = PostgresStore.limits

    postgres: PostgresResource

    def table_store(self) -> PostgresStore:
        """The store over this manager's resource."""
        return PostgresStore(self.postgres)
