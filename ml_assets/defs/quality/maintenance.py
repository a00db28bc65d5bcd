"""`quality/maintenance`: what keeps the stores small, every night."""

from datetime import timedelta

import dagster as dg

from ml_assets.defs.options import OWNERS, code_version, key
from ml_assets.maintenance.base import Terms, Upkeep
from ml_assets.settings import Settings

MAINTENANCE = "quality/maintenance"
STORES = {"lake", "postgres", "clickhouse", "chroma", "sqlite", "redis"}
"""Resources that it needs."""


def build(settings: Settings) -> dg.Definitions:
    """The asset and its schedule."""
    terms = Terms(retention=timedelta(days=settings.retention_days))

    @dg.asset(
        key=key(MAINTENANCE),
        group_name="quality",
        owners=OWNERS,
        kinds={"sql"},
        description=(
            "Gives back what the stores keep for nobody: versions of the lake past their retention (pinned ones "
            "stay), small files, files and staging tables of killed writers, space of deleted rows. Bytes before "
            "and after, by store, are the metadata of its materialization."
            "\n\nIt writes no table, and runs beside writers and readers without disturbing them."
        ),
        code_version=code_version("maintenance 1"),
        required_resource_keys=STORES,
        pool="clickhouse",
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def maintenance(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from ml_assets.maintenance import maintain

        stores = {name: getattr(context.resources, name) for name in STORES}
        found = maintain(stores, terms)
        faults = [f"{upkeep.store}: {upkeep.fault}" for upkeep in found if upkeep.fault]
        if faults:
            raise dg.Failure(" ".join(faults), metadata=report(found), allow_retries=False)
        return dg.MaterializeResult(metadata=report(found))

    schedule = dg.ScheduleDefinition(
        name="nightly_maintenance_schedule",
        target=dg.AssetSelection.assets(key(MAINTENANCE)),
        cron_schedule="40 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(assets=[maintenance], schedules=[schedule])


def report(found: list[Upkeep]) -> dict[str, dg.MetadataValue]:
    """Bytes before and after by store and in all, and what was done, as metadata."""
    records = [
        dg.TableRecord(
            {
                "store": upkeep.store,
                "bytes_before": upkeep.bytes_before if upkeep.bytes_before is not None else "",
                "bytes_after": upkeep.bytes_after if upkeep.bytes_after is not None else "",
                "done": " ".join([*upkeep.done, upkeep.fault]).strip(),
            }
        )
        for upkeep in found
    ]
    measured = [u for u in found if u.bytes_before is not None and u.bytes_after is not None]
    before = sum(upkeep.bytes_before or 0 for upkeep in measured)
    after = sum(upkeep.bytes_after or 0 for upkeep in measured)
    return {
        "stores": dg.MetadataValue.table(records),
        "bytes_before": dg.MetadataValue.int(before),
        "bytes_after": dg.MetadataValue.int(after),
        "bytes_freed": dg.MetadataValue.int(before - after),
    }
