"""Drift of what models are asked and answer, by day, in ClickHouse; DuckDB measures it over the lake."""

import dagster as dg
import pyarrow as pa

from ml_assets import metadata
from ml_assets.contracts import Tables
from ml_assets.contracts.performance import DRIFT
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.intake.raw import touch
from ml_assets.operations.performance_drift import STATEMENTS, measure_days, outdated_days, references
from ml_assets.partitions import run_days
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores import touched_days
from ml_assets.stores.clickhouse.ddl import ensure_table
from ml_assets.tables.arrow_types import arrow_schema

WORST = 20
"""Features in the picture of a run."""


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """Drift by day."""

    @table_asset(
        settings,
        tables[DRIFT.asset],
        group="performance",
        description=(
            "How far each feature of what a model was asked, its answers and its confidence lie from the model's "
            "baseline. A verdict needs a distance that matters and a p value that is left of all tests of the day: "
            "many rows do not make a drift, and few do not hide one. A day of the baseline itself is not judged. "
            "Days that were held against another baseline than today's, or whose baseline has changed, become due."
        ),
        logic=STATEMENTS,
        kinds=["sql"],
        deps=[key("duckdb/ml_predictions")],
    )
    def feature_drift(
        context: dg.AssetExecutionContext,
        lake: DuckLakeResource,
        postgres: PostgresResource,
        clickhouse: ClickHouseResource,
    ) -> pa.Table:
        days = run_days(context).days()
        with lake.get_connection() as connection, lake.limit(connection, write=True, what="measuring drift"):
            of_models = references(connection, postgres)
            rows = pa.concat_tables(
                [arrow_schema(DRIFT).empty_table(), *measure_days(connection, of_models, days)]
            )
            with clickhouse.client(write=True) as client:
                ensure_table(client, tables[DRIFT.asset])
                compared = client.query(read_sql("clickhouse/drift_compared.sql")).result_rows
            due = outdated_days(connection, of_models, compared) - set(days)
        if due:
            touched_days.ensure_schema(postgres)
            touch(postgres, "predictions", due)
        context.add_output_metadata(_told(rows) | {"days_due": len(due)})
        return rows

    return dg.Definitions(assets=[feature_drift], asset_checks=[table_checks(tables, DRIFT.asset)])


def _told(rows: pa.Table) -> dict[str, object]:
    """How many features drifted, and which the most."""
    whole = rows.filter(
        pa.array(
            [
                state == "drift" and slice == "all"
                for state, slice in zip(rows["state"].to_pylist(), rows["slice"].to_pylist(), strict=True)
            ],
            pa.bool_(),
        )
    )
    shown = ["day", "model_name", "subject", "feature", "ks", "psi", "corrected_p", "reason"]
    worst = whole.sort_by([("corrected_p", "ascending"), ("psi", "descending")]).slice(0, WORST).select(shown)
    told: dict[str, object] = {
        "drifted_features": whole.num_rows,
        "drifted_models": len(whole["model_name"].unique()),
    }
    return told | ({"worst": metadata.preview(worst)} if whole.num_rows else {})
