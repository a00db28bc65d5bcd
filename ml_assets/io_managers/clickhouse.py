"""Tables in ClickHouse, for Dagster. How they are written and read is in stores/clickhouse."""

from typing import ClassVar

from ml_assets.io_managers.base import TableIOManager
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.tables.validation import Limits


class ClickHouseIOManager(TableIOManager):
    """Writes and reads tables of ClickHouse, a server or embedded.

    Args:
        clickhouse: the server or engine.
    """

    store: ClassVar[str] = ClickHouseStore.prefix
    limits: ClassVar[Limits] = ClickHouseStore.limits

    clickhouse: ClickHouseResource

    def table_store(self) -> ClickHouseStore:
        """The store over this manager's resource."""
        return ClickHouseStore(self.clickhouse)
