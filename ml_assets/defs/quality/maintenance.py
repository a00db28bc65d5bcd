"""`quality/maintenance`: what keeps the stores small, every night."""

import dagster as dg

from ml_assets.defs.options import OWNERS, code_version, key, queue
from ml_assets.defs.quality.slow_statements import SLOW_STATEMENTS
from ml_assets.maintenance import MaintenanceReport
from ml_assets.operations.upkeep import keep_small
from ml_assets.settings import Settings
from ml_assets.stores.registry import needed_pool, needed_resources

MAINTENANCE = "quality/maintenance"


def build(settings: Settings) -> dg.Definitions:
    """The asset and its schedule."""

    @dg.asset(
        key=key(MAINTENANCE),
        group_name="quality",
        owners=OWNERS,
        kinds={"sql"},
        description=(
            "Gives back what the stores keep for nobody: versions of the lake past their retention (pinned ones "
            "stay), small files, files and staging tables of killed writers, space of deleted rows, files of "
            "deleted runs, single performance events past their time to live, and Dagster's own runs past theirs. Bytes "
            "before and after, by store, are the metadata of its materialization."
            "\n\nIt runs beside writers and readers without disturbing them."
        ),
        code_version=code_version("maintenance 3"),
        required_resource_keys=needed_resources() | {"mlflow"},
        pool=needed_pool(),
        op_tags=queue(needed_pool(), at_home=True),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def maintenance(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        stores = {name: getattr(context.resources, name) for name in needed_resources() | {"mlflow"}}
        found = keep_small(settings, stores, context.instance)
        faults = [f"{each.store}: {each.fault}" for each in found if each.fault]
        if faults:
            raise dg.Failure(" ".join(faults), metadata=report(found), allow_retries=False)
        return dg.MaterializeResult(metadata=report(found))

    schedule = dg.ScheduleDefinition(
        name="nightly_maintenance_schedule",
        target=dg.AssetSelection.assets(key(MAINTENANCE), key(SLOW_STATEMENTS)),
        cron_schedule="40 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(assets=[maintenance], schedules=[schedule])


def report(found: list[MaintenanceReport]) -> dict[str, dg.MetadataValue]:
    """Bytes before and after by store and in all, and what was done, as metadata."""
    records = [
        dg.TableRecord(
            {
                "store": each.store,
                "bytes_before": each.bytes_before if each.bytes_before is not None else "",
                "bytes_after": each.bytes_after if each.bytes_after is not None else "",
                "done": " ".join([*each.done, each.fault]).strip(),
            }
        )
        for each in found
    ]
    measured = [each for each in found if each.bytes_before is not None and each.bytes_after is not None]
    before = sum(each.bytes_before or 0 for each in measured)
    after = sum(each.bytes_after or 0 for each in measured)
    return {
        "stores": dg.MetadataValue.table(records),
        "bytes_before": dg.MetadataValue.int(before),
        "bytes_after": dg.MetadataValue.int(after),
        "bytes_freed": dg.MetadataValue.int(before - after),
    }
