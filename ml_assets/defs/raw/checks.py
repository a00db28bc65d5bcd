"""Checks of the raw room: what is in quarantine is seen, and the accounts add up.

Rows read = loaded + superseded + quarantined is held against what the tables really hold.
"""

import dagster as dg

from ml_assets.defs.options import key
from ml_assets.intake import quarantine
from ml_assets.intake.raw import unbalanced_intake, unbalanced_raw
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource

_SHOWN = 5
_REASONS = 100


def nothing_quarantined(stream: str) -> dg.AssetChecksDefinition:
    """A warning while rows of the stream are in quarantine."""

    @dg.asset_check(
        asset=key(f"duckdb/intake_{stream}"),
        name="nothing_in_quarantine",
        description="No row of the files and runs that count at present is in quarantine.",
    )
    def nothing_in_quarantine(lake: DuckLakeResource, postgres: PostgresResource) -> dg.AssetCheckResult:
        count = quarantine.counts(postgres).get(stream, 0)
        # The ledger has the number; only for the reasons the lake is read.
        found = quarantine.reasons(lake, postgres, stream).to_pylist() if count else []
        told = "; ".join(f"{each['rows']:,} times: {each['reason']}" for each in found[:_SHOWN])
        more = f"; {len(found) - _SHOWN:,} reasons more" if len(found) > _SHOWN else ""
        return dg.AssetCheckResult(
            passed=not count,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rows": count, "reasons": {each["reason"]: each["rows"] for each in found[:_REASONS]}},
            description=(
                f"Rows in quarantine: {count:,}. `ml-assets quarantine list {stream}` shows them. {told}{more}"
                if count
                else "Nothing is in quarantine."
            ),
        )

    return nothing_in_quarantine


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
