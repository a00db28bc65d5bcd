"""Online features: what an application asks for when it serves a model."""

import dagster as dg
import pyarrow as pa

from ml_assets.contracts import Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.defs.serving import views
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The latest run of each model, and the feature views that are served."""
    latest_sql = read_sql("duckdb/serving/online_features.sql")

    @table_asset(
        settings,
        tables["serving/online_features"],
        group="serving",
        description=(
            "The newest features of each model, for lookup by its name in well under a millisecond. "
            "PostgreSQL holds the truth, Redis answers; a missing key is read through from PostgreSQL. A "
            "refresh becomes visible at once for all models: readers never see half of two versions."
        ),
        logic=[latest_sql],
        kinds=["sql"],
        fresh=True,
        deps=[key("duckdb/run_features")],
    )
    def online_features(lake: DuckLakeResource) -> pa.RecordBatchReader:
        return lake.reader(latest_sql)

    return dg.Definitions.merge(
        dg.Definitions(
            assets=[online_features], asset_checks=[table_checks(tables, "serving/online_features")]
        ),
        views.build(settings, tables),
    )
