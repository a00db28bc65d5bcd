"""Accuracy by the day where labels are missing."""

import dagster as dg
import pyarrow as pa

from ml_assets.contracts import Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.operations.performance_estimates import ASSET, CHECKED_DAYS, LABELLED, rebuilt
from ml_assets.partitions import looking_back, run_days
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.tables.arrow_types import arrow_schema

PREDICTIONS = "duckdb/ml_predictions"


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The table, and its checks."""
    if PREDICTIONS not in tables:
        return dg.Definitions()  # its file has no contract yet

    @table_asset(
        settings,
        tables[ASSET],
        group="performance",
        description=(
            "How right each model was on each day, before anybody knows: the mean of its calibrated confidence, with an "
            "interval, or that it is not applicable and why. Where 90 % of a day's answers have a label, these say it; a "
            "label that comes late rebuilds its day, and the days after it that it holds to account."
        ),
        logic=[
            *(
                read_sql(f"duckdb/performance/{name}.sql")
                for name in ("answers", "reference_answers", "first_days")
            ),
            f"{LABELLED} {CHECKED_DAYS} estimates 2",
        ],
        kinds=["sql"],
        deps=[dg.AssetDep(key(PREDICTIONS), partition_mapping=looking_back(CHECKED_DAYS))],
        lookback_days=CHECKED_DAYS,
    )
    def estimated_accuracy(
        context: dg.AssetExecutionContext, lake: DuckLakeResource, postgres: PostgresResource
    ) -> pa.Table:
        return rebuilt(lake, postgres, run_days(context), arrow_schema(tables[ASSET]))

    return dg.Definitions(assets=[estimated_accuracy], asset_checks=[table_checks(tables, ASSET)])
