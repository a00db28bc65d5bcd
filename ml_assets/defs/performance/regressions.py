"""What became worse: episodes of quality, latency and memory of all models."""

from datetime import UTC, datetime
from inspect import getsource

import dagster as dg
import pyarrow as pa

from ml_assets import metadata
from ml_assets.contracts import Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.defs.performance.events import EVENTS, HOURLY
from ml_assets.lib import episodes, false_discoveries, quality_drops, quiet_series
from ml_assets.operations import performance_regressions as operation
from ml_assets.operations.performance_pictures import model_pictures
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.clickhouse.ddl import ensure_table
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import kept_from

REGRESSIONS = operation.ASSET

_LOGIC = [
    *(read_sql(f"clickhouse/regressions/{name}.sql") for name in ("quality_by_day", "cost_by_hour", "runs")),
    *(getsource(module) for module in (episodes, false_discoveries, quality_drops, quiet_series, operation)),
]


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The table of regressions and its checks."""
    contract = tables[REGRESSIONS]

    @table_asset(
        settings,
        contract,
        group="performance",
        description=(
            "What became worse, when, by how much and with which run. Quality is judged by day against the spread of "
            "the days before, latency and memory by hour against the same hours before. An episode is one row: it opens, "
            "goes on, ends. Of those that open on a day one in twenty may be chance, however many models there are."
        ),
        logic=_LOGIC,
        fresh=True,
        deps=[key(EVENTS), key(HOURLY)],
    )
    def performance_regressions(
        context: dg.AssetExecutionContext, clickhouse: ClickHouseResource
    ) -> pa.Table:
        with clickhouse.client(write=True) as client:
            for asset in (EVENTS, HOURLY, REGRESSIONS):
                ensure_table(client, tables[asset])  # nothing may have been recorded yet
            rows = operation.find(client)
            if days := tables[EVENTS].kept_days:
                before = operation.former(client)
                rows = operation.with_expired(rows, before, kept_from(days), datetime.now(UTC))
            pictures = model_pictures(client, rows)
        ongoing = sum(row["closed_at"] is None for row in rows)
        context.add_output_metadata({"open": ongoing, "models": len({row["model_name"] for row in rows})})
        context.add_output_metadata(
            {
                f"trend of {name}": metadata.plot("Quality and latency", drawn)
                for name, drawn in pictures.items()
            }
        )
        return pa.Table.from_pylist(rows, arrow_schema(contract))

    return dg.Definitions(assets=[performance_regressions], asset_checks=[table_checks(tables, REGRESSIONS)])
