"""Tables in a SQLite file, for Dagster. How they are written and read is in stores/sqlite."""

from typing import ClassVar

from ml_assets.io_managers.base import TableIOManager
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.stores.sqlite import SQLiteStore
from ml_assets.tables.validation import Limits


class SQLiteIOManager(TableIOManager):
    """Writes and reads tables of a SQLite file.

    Args:
        sqlite: the file.
    """

    store: ClassVar[str] = SQLiteStore.prefix
    limits: ClassVar[Limits] = SQLiteStore.limits

    sqlite: SQLiteResource

    def table_store(self) -> SQLiteStore:
        """The store over this manager's resource."""
        return SQLiteStore(self.sqlite)
