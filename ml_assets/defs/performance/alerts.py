"""Alerts: `clickhouse/alerts`, the check that fails while one is open, and the sensor that tells people."""

import json
from datetime import UTC, datetime
from inspect import getsource
from typing import Any

import dagster as dg
import pyarrow as pa

from ml_assets.automation import HOURLY
from ml_assets.contracts import Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.lib import alerts as rules
from ml_assets.lib.alerts import changed, headline
from ml_assets.lib.why import escaped
from ml_assets.lib.words import counted
from ml_assets.operations import alert_messages, performance_alerts
from ml_assets.operations.why import Stores, why
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql

ALERTS = "clickhouse/alerts"
SOURCES = ("clickhouse/performance_regressions", "clickhouse/feature_drift")

_SHOWN = 3
_EXPLAINED = 3
_LISTED = 100


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The table, its checks, and the sensor if somebody is to be told."""

    @table_asset(
        settings,
        tables[ALERTS],
        group="performance",
        description=(
            "What is wrong with models, each episode once: regressions of quality and latency, and drift of what the "
            "models are given. An episode that goes on, or that late data move, keeps its id, and with it what people "
            "have said of it, which is kept in PostgreSQL."
        ),
        logic=[
            *(read_sql(f"clickhouse/alerts/{name}.sql") for name in ("regressions", "drift_days")),
            getsource(rules),
        ],
        deps=[key(source) for source in SOURCES],
    )
    def alerts(
        context: dg.AssetExecutionContext, clickhouse: ClickHouseResource, postgres: PostgresResource
    ) -> pa.Table:
        findings, judged = performance_alerts.found(clickhouse)
        told = performance_alerts.merge(postgres, findings, judged, datetime.now(UTC))
        states = told["state"].to_pylist()
        context.add_output_metadata(
            {"why": dg.MetadataValue.md(_why(clickhouse, postgres, told.to_pylist()))}
        )
        context.add_asset_metadata(
            {f"{state}_alerts": states.count(state) for state in performance_alerts.STATES}
        )
        return told

    return dg.Definitions(
        assets=[alerts],
        asset_checks=[table_checks(tables, ALERTS), no_open_alerts()],
        sensors=[alert_sensor(urls)] if (urls := settings.alert_url_list) else [],
    )


def _why(clickhouse: ClickHouseResource, postgres: PostgresResource, told: list[dict[str, Any]]) -> str:
    """What is known of the models with open alerts, those that matter first, a section each."""
    ongoing = [row for row in told if row["state"] == "open"]
    ongoing.sort(key=lambda row: row["severity"] != "error")
    sections = []
    for model in list(dict.fromkeys(row["model_name"] for row in ongoing))[:_EXPLAINED]:
        try:
            # Without the lake and the embedder: neither a pin nor a similar run is worth waiting for here.
            found = why(Stores(clickhouse, postgres), model, alerts=told)
        except (Refusal, StoreUnavailable) as fault:
            # An alert is told even where nothing explains it.
            sections.append(f"## {escaped(model)}\n\n{escaped(str(fault))}\n")
        else:
            sections.append(f"{found.markdown(2)}\n'ml-assets why' looks at pins and similar runs, too.\n")
    return "\n".join(sections) or "No alert is open."


def no_open_alerts() -> dg.AssetChecksDefinition:
    """Fails while something is wrong that nobody has acknowledged or snoozed."""

    @dg.asset_check(
        asset=key(ALERTS),
        name="no_open_alerts",
        description=(
            "Nothing is wrong with a model but what somebody has acknowledged or let be for a time. A warning, or an "
            "error where one of the alerts is certain and large."
        ),
        # What was let be comes back without anything being rebuilt.
        automation_condition=HOURLY,
    )
    def check(postgres: PostgresResource) -> dg.AssetCheckResult:
        found = performance_alerts.alerts(postgres, None, ("open",), datetime.now(UTC)).to_pylist()
        shown = [f"{headline(row)}." for row in found[:_SHOWN]]
        if len(found) > _SHOWN:
            shown.append(f"And {len(found) - _SHOWN:,} more: 'ml-assets alerts' lists them.")
        records = [
            dg.TableRecord(
                {
                    "alert_id": row["alert_id"],
                    "severity": row["severity"],
                    "model": row["model_name"],
                    "metric": row["metric"],
                    "slice": row["slice_value"] or "all",
                    "change": changed(row),
                    "since": f"{row['began_at']:%Y-%m-%d %H:%M}",
                    "description": row["description"],
                }
            )
            for row in found[:_LISTED]
        ]
        worst = "error" in {row["severity"] for row in found}
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.ERROR if worst else dg.AssetCheckSeverity.WARN,
            metadata={"open": len(found), **({"alerts": dg.MetadataValue.table(records)} if records else {})},
            description=" ".join([f"{counted(len(found), 'alert is', 'alerts are')} open.", *shown])
            if found
            else "No alert is open.",
        )

    return check


def alert_sensor(urls: list[str]) -> dg.SensorDefinition:
    """Tells each of these URLs of each alert once. It opens PostgreSQL alone."""

    @dg.sensor(
        name="alert_sensor",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends each alert once to every URL of ML_ASSETS_ALERT_URLS, and that it is over.",
    )
    def sensor(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SensorResult:
        waiting = {name: (count, at) for name, (count, at) in json.loads(context.cursor or "{}").items()}
        told = alert_messages.tell(postgres, urls, datetime.now(UTC), waiting)
        said = [f"{counted(told.sent, 'message')} sent."] if told.sent else []
        if told.failures:
            context.log.warning(" ".join(told.failures))
        elif not told.sent:
            waits = counted(len(told.waiting), "URL waits", "URLs wait") if told.waiting else ""
            said = [f"Nothing new to tell{waits and f'; {waits} after a failure'}."]
        return dg.SensorResult(
            skip_reason=" ".join([*said, *told.failures]), cursor=json.dumps(told.waiting, sort_keys=True)
        )

    return sensor
