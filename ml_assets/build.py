"""`build_defs`: settings in, definitions out. The one seam between the graph and the world around it.

Tests and other projects call it with settings of their own, or with other resources; nothing in the graph
asks where it runs.
"""

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from ml_assets.contracts import Tables, tables
from ml_assets.executors import executor_of
from ml_assets.resources import store_resources
from ml_assets.settings import Settings

# A single run for a range of days is what keeps a backfill cheap; its parameter is still marked beta.
warnings.filterwarnings("ignore", message=".*backfill_policy.*", category=dg.BetaWarning)
# The first days of a table that looks back have fewer days to look back on.
warnings.filterwarnings(
    "ignore", message=".*allow_nonexistent_upstream_partitions.*", category=dg.BetaWarning
)

ROOMS = ("raw", "experiments", "features", "performance", "embeddings", "serving", "quality")


def build_defs(settings: Settings, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All assets, checks, sensors, schedules and jobs, with their resources.

    Args:
        settings: where the stores are, and the limits.
        resource_overrides: resources or IO managers by key that take the place of the usual ones.
    """
    contracts = tables(settings)
    rooms = [importlib.import_module(f"ml_assets.defs.{room}").build(settings, contracts) for room in ROOMS]
    resources = {**_resources(settings, contracts), **(resource_overrides or {})}
    follow = dg.AutomationConditionSensorDefinition(
        "follow_parents",
        target=dg.AssetSelection.all(),
        # The one that Dagster adds by itself starts stopped.
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=15,
    )
    return dg.Definitions.merge(
        *rooms, dg.Definitions(sensors=[follow], resources=resources, executor=executor_of(settings))
    )


def _resources(settings: Settings, contracts: Tables) -> dict[str, Any]:
    from ml_assets.io_managers.chroma import ChromaIOManager
    from ml_assets.io_managers.clickhouse import ClickHouseIOManager
    from ml_assets.io_managers.duckdb import DuckLakeIOManager
    from ml_assets.io_managers.postgres import PostgresIOManager
    from ml_assets.io_managers.qdrant import QdrantIOManager
    from ml_assets.io_managers.redis import RedisIOManager
    from ml_assets.io_managers.sqlite import SQLiteIOManager
    from ml_assets.operations.lineage import graph_lineage

    stores = store_resources(settings)
    lake, postgres = stores["lake"], stores["postgres"]
    told: dict[str, Any] = {"contracts": contracts, "lineage": graph_lineage(settings, contracts)}
    return {
        **stores,
        "duckdb_io": DuckLakeIOManager(lake=lake, **told),
        "postgres_io": PostgresIOManager(postgres=postgres, **told),
        "clickhouse_io": ClickHouseIOManager(clickhouse=stores["clickhouse"], **told),
        "chroma_io": ChromaIOManager(chroma=stores["chroma"], postgres=postgres, **told),
        "sqlite_io": SQLiteIOManager(sqlite=stores["sqlite"], **told),
        "redis_io": RedisIOManager(redis=stores["redis"], postgres=postgres, **told),
        "qdrant_io": QdrantIOManager(qdrant=stores["qdrant"], postgres=postgres, **told),
    }
