"""Feature tables: one SELECT in sql/duckdb/features/NAME.sql each, run inside the lake.

Adding a table is adding its SQL file and its contract. What it depends on, and which column comes from
which, is read from the SQL.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from ml_assets import metadata
from ml_assets.contracts import Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.intake.raw import outdated_events, touch
from ml_assets.lib.feature_sql import METRIC_RULES, FeatureSQL, column_lineage
from ml_assets.lib.metric_rules import VERSION, MetricRules
from ml_assets.lib.query import Query
from ml_assets.partitions import run_days
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import SQL_DIR, Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb.select_file import parse_feature

DESCRIPTIONS = {
    "run_features": (
        "Turns a run and its learning curve into numbers that can be compared: duration, best and last loss, "
        "slope of the loss, the metric that judges it (docs/metrics.md), and how the same model stood before. The "
        "`previous_` columns are a point-in-time join: they use only runs that had ended before this one started, "
        "so a model that learns from this table cannot peek into the future."
    ),
    "experiment_cards": (
        "Writes each run as a short text: what was tried, on what data, with which parameters, and how it "
        "went. The text is what gets embedded, so that runs can be found by meaning."
    ),
    "model_performance_events": (
        "Joins every evaluation and every served inference with the run that trained the model, so that "
        "latency and quality can be cut by model type, dataset and age of the model."
    ),
    "ml_predictions": (
        "Keeps every prediction with its confidence, and marks it right or wrong where the truth is known."
    ),
}

CURVES = 8
"""Runs in the picture of learning curves: as many as one can tell apart."""


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """One asset per SELECT file."""
    files = sorted((SQL_DIR / "duckdb" / "features").glob("*.sql"))
    features = [parse_feature(file.stem, file.read_text(encoding="utf-8")) for file in files]
    return dg.Definitions(
        assets=[_feature_asset(settings, tables, feature) for feature in features],
        asset_checks=[table_checks(tables, f"duckdb/{feature.name}") for feature in features],
    )


def _feature_asset(settings: Settings, tables: Tables, feature: FeatureSQL) -> dg.AssetsDefinition:
    contract = tables[f"duckdb/{feature.name}"]
    columns = {parent: tables[parent].names for parent in feature.parents}

    @table_asset(
        settings,
        contract,
        group="features",
        description=DESCRIPTIONS.get(feature.name, feature.description),
        logic=[feature.text, *([VERSION, repr(settings.metric_rules)] if feature.is_judged else [])],
        kinds=["sql"],
        deps=[key(parent) for parent in feature.parents],
    )
    def feature_table(
        context: dg.AssetExecutionContext, lake: DuckLakeResource, postgres: PostgresResource
    ) -> Query:
        context.add_output_metadata({"dagster/column_lineage": _lineage(feature, columns)})
        days = run_days(context) if contract.partition_column else None
        window = {"start": days.start, "end": days.end} if days else {}
        relations = (
            {METRIC_RULES: ranked_metrics(lake, settings.metric_rules, window)} if feature.is_judged else {}
        )

        def committed() -> None:
            for then in POST_COMMIT_HOOKS.get(feature.name, ()):
                then(context, lake, postgres)

        parameters = {name: window[name] for name in feature.parameters}
        return Query(feature.text, parameters, relations, committed)

    return feature_table


def ranked_metrics(lake: DuckLakeResource, rules: MetricRules, window: Mapping[str, Any]) -> pa.Table:
    """The metrics of the runs of some days and of their models, ranked by the rules.

    Args:
        window: `start` and `end` of the days.
    """
    keys = lake.reader(read_sql("duckdb/operations/metric_keys.sql"), window).read_all()
    return rules.table(keys["key"].to_pylist())


def _touch_other_events(
    context: dg.AssetExecutionContext, lake: DuckLakeResource, postgres: PostgresResource
) -> None:
    # Those of the same days follow by themselves.
    days = run_days(context)
    touch(postgres, "performance", outdated_events(lake, days.first, days.last, within=False))


def _touch_own_events(
    context: dg.AssetExecutionContext, lake: DuckLakeResource, postgres: PostgresResource
) -> None:
    # Runs may have been rebuilt while the events were.
    days = run_days(context)
    touch(postgres, "performance", outdated_events(lake, days.first, days.last, within=True))


def _learning_curves(
    context: dg.AssetExecutionContext, lake: DuckLakeResource, postgres: PostgresResource
) -> None:
    from ml_assets.lib.plots import learning_curves

    days = run_days(context)
    window = {"start": days.start, "end": days.end, "runs": CURVES}
    points = lake.reader(read_sql("duckdb/operations/learning_curves.sql"), window).read_all()
    if points.num_rows:
        picture = metadata.plot("Learning curves", learning_curves(points))
        # At the last day alone: what is added to the output would be stored again for every day.
        context.add_asset_metadata({"learning_curves": picture}, partition_key=days.last.isoformat())


POST_COMMIT_HOOKS: dict[
    str, tuple[Callable[[dg.AssetExecutionContext, DuckLakeResource, PostgresResource], None], ...]
] = {
    "run_features": (_touch_other_events, _learning_curves),
    "model_performance_events": (_touch_own_events,),
}
"""What is done for a table once its rows are in place: an event joins a run of any day, so a run that comes late
makes the days of its events due; pictures."""


def _lineage(feature: FeatureSQL, columns: Mapping[str, Sequence[str]]) -> dg.TableColumnLineage:
    typed = {parent: dict.fromkeys(names, "VARCHAR") for parent, names in columns.items()}
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=key(parent), column_name=name) for parent, name in deps]
            for column, deps in column_lineage(feature, typed).items()
        }
    )
