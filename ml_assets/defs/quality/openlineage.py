"""Events of OpenLineage when a run starts and ends; none unless ML_ASSETS_OPENLINEAGE_URL names a collector."""

from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg

from ml_assets.contracts import Tables
from ml_assets.operations.lineage import ColumnLineage, graph_lineage
from ml_assets.operations.openlineage import Happened, RunTold, run_event, send
from ml_assets.settings import Settings

_HAPPENED: dict[dg.DagsterRunStatus, Happened] = {
    dg.DagsterRunStatus.STARTED: "START",
    dg.DagsterRunStatus.SUCCESS: "COMPLETE",
    dg.DagsterRunStatus.FAILURE: "FAIL",
    dg.DagsterRunStatus.CANCELED: "ABORT",
}


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """A sensor a status, beside the runs: a collector that does not answer holds no run up, and fails the sensor."""
    if not (url := settings.openlineage_url):
        return dg.Definitions()
    graph = graph_lineage(settings, tables)

    def sensor(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
        def tell(context: dg.RunStatusSensorContext) -> None:
            send(url, run_event(_told(context, status, graph), graph), settings.openlineage_api_key)

        return _sensor(tell, status)

    return dg.Definitions(sensors=[sensor(status) for status in _HAPPENED])


def _sensor(
    tell: Callable[[dg.RunStatusSensorContext], None], status: dg.DagsterRunStatus
) -> dg.SensorDefinition:
    return dg.run_status_sensor(
        run_status=status,
        name=f"openlineage_{_HAPPENED[status].lower()}",
        description="Sends an event to the collector that ML_ASSETS_OPENLINEAGE_URL names.",
        # Runs of the command line, too, which belong to no code location.
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )(tell)


def _told(context: dg.RunStatusSensorContext, status: dg.DagsterRunStatus, graph: ColumnLineage) -> RunTold:
    run, instance = context.dagster_run, context.instance
    record = instance.get_run_record_by_id(run.run_id)
    started = status == dg.DagsterRunStatus.STARTED
    seconds = (record.start_time if started else record.end_time) if record else None
    at = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    error = (context.dagster_event.message or "") if status == dg.DagsterRunStatus.FAILURE else ""
    tables = {} if started else _written(instance, run.run_id, graph)
    return RunTold(run.run_id, run.job_name, _HAPPENED[status], at, tables, error)


def _written(instance: dg.DagsterInstance, run_id: str, graph: ColumnLineage) -> dict[str, int | None]:
    """The tables that a run has written, with the rows that they hold now in all, or on the days of the run."""
    found: dict[str, int | None] = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        made = entry.asset_materialization
        if made is None or graph.of(asset := made.asset_key.to_user_string()) is None:
            continue
        rows = made.metadata.get("dagster/row_count") or made.metadata.get("dagster/partition_row_count")
        if rows is not None:
            found[asset] = (found.get(asset) or 0) + int(str(rows.value))
        else:
            found.setdefault(asset, None)
    return found
