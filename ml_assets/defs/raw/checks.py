"""Accounts: rows read = loaded + superseded + quarantined, held against what the tables really hold."""

import dagster as dg

from ml_assets.defs.options import key
from ml_assets.intake.raw import unbalanced_intake, unbalanced_raw
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource

_SHOWN = 5


def intake_accounts(stream: str) -> dg.AssetChecksDefinition:
    """Every row that was read is in intake, taken in or quarantined, content by content."""

    @dg.asset_check(
        asset=key(f"duckdb/intake_{stream}"),
        name="accounts_add_up",
        description="Rows read = rows taken in + quarantined, for each file and run, recounted in the lake.",
    )
    def accounts(lake: DuckLakeResource, postgres: PostgresResource) -> dg.AssetCheckResult:
        return _result(unbalanced_intake(postgres, lake, stream))

    return accounts


def raw_accounts(stream: str) -> dg.AssetChecksDefinition:
    """Every row of the raw table is accounted for by a content, day by day."""

    @dg.asset_check(
        asset=key(f"duckdb/raw_{stream}"),
        name="accounts_add_up",
        additional_deps=[key(f"duckdb/intake_{stream}")],
        description="Rows taken in = rows in the raw table + rows superseded, for each day.",
    )
    def accounts(lake: DuckLakeResource, postgres: PostgresResource) -> dg.AssetCheckResult:
        return _result(unbalanced_raw(postgres, lake, stream))

    return accounts


def _result(faults: list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not faults,
        metadata={"faults": len(faults)},
        description="; ".join(faults[:_SHOWN]) or "All accounts add up.",
    )
