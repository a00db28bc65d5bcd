"""Feature tables: one SELECT each, in sql/duckdb/features/NAME.sql or a folder of the settings, run inside the lake.

Adding a table is adding its SQL file. What it depends on, and which column comes from which, is read from the SQL;
what it promises is pinned beside it once it was built.
"""

from collections.abc import Callable

import dagster as dg
import pyarrow as pa

from ml_assets import metadata
from ml_assets.contracts import Contract, Tables
from ml_assets.contracts.feature_files import every_file
from ml_assets.defs.checks import table_checks
from ml_assets.defs.features.files import faulty_asset, pin_contract
from ml_assets.defs.options import OWNERS, key, table_asset
from ml_assets.intake.raw import outdated_events, touch
from ml_assets.lib.days import DayRange
from ml_assets.lib.feature_sql import METRIC_RULES
from ml_assets.lib.metric_rules import VERSION, MetricRules
from ml_assets.lib.query import Query
from ml_assets.lib.windows import bounds
from ml_assets.partitions import daily_partitions, looking_back, run_days
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb.feature_check import CheckedFile, check_files

CURVES = 8
"""Runs in the picture of learning curves: as many as one can tell apart."""


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """One asset per SELECT file. One that cannot be used is an asset that fails and says why."""
    files = check_files(every_file(settings), tables)
    known = tables | {file.contract.asset: file.contract for file in files if file.contract}
    usable = [file for file in files if not file.fault]
    return dg.Definitions(
        assets=[
            *(_feature_asset(settings, known, file) for file in usable),
            *(_faulty_asset(settings, file) for file in files if file.fault),
        ],
        asset_checks=[table_checks(known, file.file.asset) for file in usable],
    )


def _feature_asset(settings: Settings, tables: Tables, checked: CheckedFile) -> dg.AssetsDefinition:
    file, feature, contract = checked.file, checked.feature, checked.contract
    header = file.header
    if feature is None or contract is None or header is None:
        raise ValueError(f"{file.path} was not checked")

    @table_asset(
        settings,
        contract,
        group="features",
        description=header.description,
        logic=[feature.text, *([VERSION, repr(settings.metric_rules)] if feature.is_judged else [])],
        kinds=["sql"],
        owners=[header.owner] if header.owner else [],
        tags=header.tags,
        deps=[_read(tables[parent], header.lookback_days) for parent in feature.parents],
        lookback_days=header.lookback_days,
    )
    def feature_table(
        context: dg.AssetExecutionContext, lake: DuckLakeResource, postgres: PostgresResource
    ) -> Query:
        days = run_days(context) if contract.partition_column else None
        relations = (
            {METRIC_RULES: ranked_metrics(lake, settings.metric_rules, days)}
            if feature.is_judged and days
            else {}
        )

        def committed() -> None:
            pin_contract(context, file, contract)
            for then in POST_COMMIT_HOOKS.get(feature.name, ()):
                then(context, lake, postgres)

        window = bounds(days, header.lookback_days) if days else {}
        parameters = {name: window[name] for name in feature.parameters}
        return Query(feature.text, parameters, relations, committed, contract)

    return feature_table


def _faulty_asset(settings: Settings, checked: CheckedFile) -> dg.AssetsDefinition:
    daily = checked.contract is not None and checked.contract.partition_column is not None
    days = daily_partitions(settings.partitions_start) if daily else None
    return faulty_asset(checked, key(checked.file.asset), "features", days, OWNERS)


def _read(parent: Contract, lookback_days: int) -> dg.AssetDep:
    mapping = looking_back(lookback_days) if parent.partition_column else None
    return dg.AssetDep(key(parent.asset), partition_mapping=mapping)


def ranked_metrics(lake: DuckLakeResource, rules: MetricRules, days: DayRange) -> pa.Table:
    """The metrics of the runs of some days and of their models, ranked by the rules."""
    window = {"start": days.start, "end": days.end}
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
makes the days of its events due, which no SELECT tells, as the join has no days; pictures."""
