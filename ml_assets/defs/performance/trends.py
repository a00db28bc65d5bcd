"""Trends: each model's week beside the week before, and beside the days that it is compared with."""

import dagster as dg
import pyarrow as pa

from ml_assets.contracts import Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.operations.performance_baselines import pinned
from ml_assets.operations.performance_rollups import DAILY, SKETCHES, TRENDS, rollup_sql
from ml_assets.operations.performance_trends import LOOKBACK_DAYS, trends
from ml_assets.partitions import looking_back, run_days
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stores.clickhouse.ddl import ensure_table


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The table of trends."""

    @table_asset(
        settings,
        tables[TRENDS],
        group="performance",
        description=(
            "Is a model still as good and as fast as it was? Each metric over a week, beside the week before and "
            "beside the model's baseline: its first week, or the days that somebody has pinned. A day that comes "
            "late changes its own row and those of the 13 days after it, and these are built anew."
        ),
        logic=[rollup_sql(TRENDS)],
        kinds=["sql"],
        deps=[
            dg.AssetDep(key(asset), partition_mapping=looking_back(LOOKBACK_DAYS))
            for asset in (DAILY, SKETCHES)
        ],
        lookback_days=LOOKBACK_DAYS,
    )
    def performance_trends(
        context: dg.AssetExecutionContext, clickhouse: ClickHouseResource, postgres: PostgresResource
    ) -> pa.Table:
        with clickhouse.client(write=True) as client:
            for asset in (DAILY, SKETCHES):
                ensure_table(client, tables[asset])
            return trends(client, pinned(postgres), run_days(context))

    return dg.Definitions(assets=[performance_trends], asset_checks=[table_checks(tables, TRENDS)])
