"""The stores that there are. Adding one is its package, its resource and IO manager, and one line here.

Status, recovery, maintenance, checks and reconciliation loop over this list; nothing else knows which stores exist.
"""

from collections.abc import Mapping
from typing import Any

from ml_assets.stores.chroma import ChromaStore
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.qdrant import QdrantStore
from ml_assets.stores.redis import RedisStore
from ml_assets.stores.sqlite import SQLiteStore
from ml_assets.tables.store import TableStore

STORES: list[type[TableStore]] = [
    PostgresStore,
    DuckLakeStore,
    ClickHouseStore,
    ChromaStore,
    QdrantStore,
    SQLiteStore,
    RedisStore,
]
"""In the order in which status lists them. Maintenance goes the other way, since the others free rows in PostgreSQL."""


def stores(resources: Mapping[str, Any]) -> list[TableStore]:
    """All stores that there are over these resources, by name as `resources.store_resources` gives them."""
    used = [kind for kind in STORES if kind.is_used(resources)]
    return [kind(*(resources[name] for name in kind.resources)) for kind in used]


def needed_resources() -> set[str]:
    """Keys of the resources that the stores are made of."""
    return {name for kind in STORES for name in kind.resources}


def needed_pool() -> str | None:
    """The pool of a step that opens every store."""
    return next((kind.pool for kind in STORES if kind.pool), None)


def kind_of(prefix: str) -> type[TableStore]:
    """The store that holds the assets whose keys begin with this.

    Raises:
        LookupError: there is none.
    """
    for kind in STORES:
        if kind.prefix == prefix:
            return kind
    raise LookupError(f"no store holds assets of {prefix!r}: there are {', '.join(k.prefix for k in STORES)}")
