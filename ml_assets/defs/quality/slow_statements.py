"""`quality/slow_statements`: what takes PostgreSQL the most time, every night."""

import dagster as dg

from ml_assets.defs.options import OWNERS, code_version, key
from ml_assets.maintenance.slow_statements import slow_statements
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql

SLOW_STATEMENTS = "quality/slow_statements"


def build(settings: Settings) -> dg.Definitions:
    """The asset; the schedule of maintenance materializes it."""
    embedded = settings.mode("postgres") == "embedded"

    @dg.asset(
        key=key(SLOW_STATEMENTS),
        group_name="quality",
        owners=OWNERS,
        kinds={"postgres"},
        description=(
            "The statements of this project that take PostgreSQL the most time in all, as pg_stat_statements counts "
            "them: calls, total, mean and longest milliseconds, and rows, without any value. What DuckLake asks its "
            "catalog is among them. A server that does not count them is told of, with the way out.\n\nIt writes no "
            "table: the statements are the metadata of its materialization, whose numbers the UI plots over time."
        ),
        code_version=code_version(read_sql("postgres/maintenance/slow_statements.sql")),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def slowest(postgres: PostgresResource, lake: DuckLakeResource) -> dg.MaterializeResult:
        found = slow_statements(postgres, lake, embedded)
        if found.statements is None:
            return dg.MaterializeResult(metadata={"not_counted": found.detail})
        records = [
            dg.TableRecord(
                {**each, **{name: round(each[name], 3) for name in ("total_ms", "mean_ms", "max_ms")}}
            )
            for each in found.statements
        ]
        return dg.MaterializeResult(
            metadata={
                "slow_statements": dg.MetadataValue.table(records),
                "total_ms": sum(each["total_ms"] for each in found.statements),
                "slowest_mean_ms": max((each["mean_ms"] for each in found.statements), default=0.0),
            }
        )

    return dg.Definitions(assets=[slowest])
