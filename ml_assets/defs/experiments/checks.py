"""Checks of the experiments room beyond contracts: how the runs themselves fare."""

from datetime import UTC, datetime

import dagster as dg

from ml_assets.automation import HOURLY
from ml_assets.defs.options import key
from ml_assets.operations.run_watch import check_runs, counts
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings

_SHOWN = 3
_LISTED = 100


def runs_healthy(settings: Settings) -> dg.AssetChecksDefinition:
    """A warning when something new is wrong with a run that is watched."""
    rules = settings.metric_rules

    @dg.asset_check(
        asset=key("postgres/ml_experiments"),
        name="runs_healthy",
        description=(
            "Nothing new is wrong with the runs that run or have ended within seven days: none has diverged, is NaN, "
            "stalls, has become slow, or is said to be running for over a day. Each finding is told once."
        ),
        # A run that stalls logs nothing, and so nothing is rebuilt after which to look.
        automation_condition=HOURLY,
    )
    def healthy(lake: DuckLakeResource, postgres: PostgresResource) -> dg.AssetCheckResult:
        found = check_runs(lake, postgres, rules, "asset check", datetime.now(UTC)).to_pylist()
        new = [episode for episode in found if episode["new"]]
        shown = [f"{episode['run_id']}: {episode['evidence']}" for episode in new[:_SHOWN]]
        more = (
            [f"and {len(new) - _SHOWN:,} more: 'ml-assets runs check --all' lists them."]
            if len(new) > _SHOWN
            else []
        )
        newest = sorted(found, key=lambda episode: (episode["new"], episode["opened_at"]), reverse=True)
        records = [
            dg.TableRecord(
                {
                    "run_id": episode["run_id"],
                    "kind": episode["kind"],
                    "since": episode["since"].isoformat(),
                    "evidence": episode["evidence"],
                    "new": episode["new"],
                }
            )
            for episode in newest[:_LISTED]
        ]
        return dg.AssetCheckResult(
            passed=not new,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "open": len(found),
                "new": len(new),
                **({"findings": dg.MetadataValue.table(records)} if records else {}),
            },
            description=" ".join([counts(found), *shown, *more]),
        )

    return healthy
