"""The stores that there are. Adding one is its package, its resource and IO manager, and one line here.

Status, recovery, maintenance, checks and reconciliation loop over this list; nothing else knows which stores exist.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_assets.stores.chroma import ChromaStore
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.redis import RedisStore
from ml_assets.stores.sqlite import SQLiteStore
from ml_assets.tables.store import TableStore

Make = Callable[[Mapping[str, Any]], TableStore]
"""Makes a store of the resources by name, as `resources.store_resources` gives them."""

STORES: dict[type[TableStore], Make] = {
    PostgresStore: lambda resources: PostgresStore(resources["postgres"]),
    DuckLakeStore: lambda resources: DuckLakeStore(resources["lake"], resources["postgres"]),
    ClickHouseStore: lambda resources: ClickHouseStore(resources["clickhouse"]),
    ChromaStore: lambda resources: ChromaStore(resources["chroma"], resources["postgres"]),
    SQLiteStore: lambda resources: SQLiteStore(resources["sqlite"]),
    RedisStore: lambda resources: RedisStore(resources["redis"], resources["postgres"]),
}
"""In the order in which status lists them. Maintenance goes the other way, since the others free rows in PostgreSQL."""


def stores(resources: Mapping[str, Any]) -> list[TableStore]:
    """All stores over these resources."""
    return [make(resources) for make in STORES.values()]


def kind_of(prefix: str) -> type[TableStore] | None:
    """The store that holds the assets whose keys begin with this; None if it is none of ours."""
    return next((kind for kind in STORES if kind.prefix == prefix), None)
