"""Rollups of performance events by the day, and hourly states that add up over any hours, versions and datasets."""

import dagster as dg
import pyarrow as pa

from ml_assets.contracts import Tables
from ml_assets.defs.checks import checked_days, table_checks
from ml_assets.defs.options import key, queue, table_asset
from ml_assets.lib.days import DayRange
from ml_assets.lib.words import counted
from ml_assets.operations.performance_proof import prove
from ml_assets.operations.performance_retention import kept_of, with_expired
from ml_assets.operations.performance_rollups import DAILY, EVENTS, HOURLY, SKETCHES, microseconds, rollup_sql
from ml_assets.partitions import run_days
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.stores.clickhouse.ddl import ensure_table
from ml_assets.stores.registry import kind_of


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The rollups beside the hourly one."""

    def rolled_up(asset: str, description: str) -> dg.AssetsDefinition:
        @table_asset(
            settings,
            tables[asset],
            group="performance",
            description=description,
            logic=[rollup_sql(asset)],
            kinds=["sql"],
            fresh=True,
            deps=[key(EVENTS)],
        )
        def rollup(context: dg.AssetExecutionContext, clickhouse: ClickHouseResource) -> pa.Table:
            days = run_days(context)
            with clickhouse.client(write=True) as client:
                ensure_table(client, tables[EVENTS])  # the schedule may come before the first event
                made = client.query_arrow(rollup_sql(asset), microseconds(days), use_strings=True)
            return with_expired(clickhouse, tables[asset], tables[EVENTS], made, days)

        return rollup

    daily = rolled_up(
        DAILY,
        "Quality, latency and memory of each model by the day, with exact quantiles: what a trend of weeks is drawn "
        "from, without a look at the events.",
    )
    sketches = rolled_up(
        SKETCHES,
        "What a trend in any other bucket, or of one version or dataset, is added up from. Counts and means are "
        "exact; quantiles are off by half a percent at most, however many hours are added up.",
    )
    return dg.Definitions(
        assets=[daily, sketches],
        asset_checks=[
            *(table_checks(tables, asset) for asset in (DAILY, SKETCHES)),
            *(_proved(tables, asset) for asset in (HOURLY, DAILY, SKETCHES)),
        ],
    )


def _proved(tables: Tables, asset: str) -> dg.AssetChecksDefinition:
    """A warning where a rollup is not what the events say."""

    @dg.asset_check(
        asset=key(asset),
        name="is_what_the_events_say",
        additional_deps=[key(EVENTS)],
        description=(
            "The rollup is computed anew from the events and compared within the engine: of the days of the run, or of "
            "all if it is run by itself. Counts are equal, means within 1e-9, quantiles of sketches within 0.5 %."
        ),
        pool=kind_of(tables[asset].store).pool,
        op_tags=queue(kind_of(tables[asset].store).pool),
    )
    def proved(context: dg.AssetCheckExecutionContext, clickhouse: ClickHouseResource) -> dg.AssetCheckResult:
        built = kept_of(tables[EVENTS], checked_days(context))
        with clickhouse.client(write=True) as client:
            ensure_table(client, tables[EVENTS])
            found = prove(client, tables[asset], DayRange(*built) if built else None)
        return dg.AssetCheckResult(
            passed=not found.differing,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"compared": found.rows, "differing": found.differing},
            description=(
                f"{counted(found.differing, 'row')} of {found.rows:,} not what the events say, so materialize those "
                f"days: {'; '.join(found.told)}."
                if found.differing
                else f"{counted(found.rows, 'row')} compared, and none differs."
            ),
        )

    return proved
