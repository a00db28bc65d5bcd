"""`engines_agree`: DuckDB and ClickHouse compute the same rollup of the same events."""

import dagster as dg

from ml_assets.defs.checks import checked_days
from ml_assets.defs.options import key, queue
from ml_assets.operations.engines import EXACT, TOLERANCE, Engines, engines_agree
from ml_assets.operations.reconcile import short
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.stores.clickhouse import ClickHouseStore

HOURLY = "clickhouse/performance_hourly"

_SHOWN = 3


def same_rollup(kept_days: int | None) -> dg.AssetChecksDefinition:
    """The check of the hourly rollup, over the days of the run, or over all days where it is run by itself.

    Args:
        kept_days: how long ClickHouse keeps events; for ever if None.
    """

    @dg.asset_check(
        asset=key(HOURLY),
        name="engines_agree",
        additional_deps=[key("duckdb/model_performance_events")],
        description=(
            "DuckDB computes the numbers of every hour and model of the lake's events, and ClickHouse of its own: "
            f"counts, exact sums, quantiles and maxima are equal to the last bit. The means and deviations that the "
            f"rollup keeps are the exact ones within {TOLERANCE:g}, since their last bits depend on the order of the "
            "events."
        ),
        pool=ClickHouseStore.pool,
        op_tags=queue(ClickHouseStore.pool),
    )
    def check(
        context: dg.AssetCheckExecutionContext, lake: DuckLakeResource, clickhouse: ClickHouseResource
    ) -> dg.AssetCheckResult:
        return check_result(engines_agree(lake, clickhouse, checked_days(context), kept_days))

    return check


def check_result(found: Engines) -> dg.AssetCheckResult:
    """What was found as the UI shows it: the first numbers that differ, with both values."""
    told = [
        f"{cell.column} of {cell.key} is {short(cell.here)} in ClickHouse, {short(cell.there)} in DuckDB."
        for cell in found.cells
    ]
    records = [
        dg.TableRecord(
            {
                "hour_and_model": cell.key,
                "number": cell.column,
                "clickhouse": str(cell.here),
                "duckdb": str(cell.there),
            }
        )
        for cell in found.cells
    ]
    summary = (
        f"{found.differing:,} numbers differ." if found.differing else f"All {len(EXACT)} numbers are equal."
    )
    return dg.AssetCheckResult(
        passed=not found.differing,
        metadata={
            "hours_and_models": found.hours,
            "differing": found.differing,
            **({"differences": dg.MetadataValue.table(records)} if records else {}),
        },
        description=" ".join(
            [f"{found.hours:,} hours of models were computed twice.", summary, *told[:_SHOWN]]
        ),
    )
