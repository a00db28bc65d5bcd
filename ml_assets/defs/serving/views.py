"""Feature views online: of each file whose header says so, the newest row of each entity."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa

from ml_assets import automation
from ml_assets.contracts import Contract, Tables
from ml_assets.contracts.columns import need
from ml_assets.contracts.feature_files import FeatureFile, feature_files
from ml_assets.contracts.serving import online_contract, require_view
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import OWNERS, key, options
from ml_assets.lib.words import counted
from ml_assets.operations.online_views import newest_rows
from ml_assets.operations.served_features import Compared, compare_served
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb import DuckLakeStore


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The views that are served."""
    files = {file.name: file for file in feature_files(settings) if file.header and file.header.online}
    refused = {name: why for name, file in files.items() if (why := _refusal(file, tables))}
    served = [file for name, file in files.items() if name not in refused]
    return dg.Definitions(
        assets=[
            *(_view(settings, file) for file in served),
            *(_refused(name, why, tables) for name, why in refused.items()),
        ],
        asset_checks=[
            *(table_checks(tables, f"serving/{file.name}") for file in served if file.contract),
            *(_served_check(file) for file in served),
        ],
    )


def _refusal(file: FeatureFile, tables: Tables) -> str:
    """Why a file cannot be served; "" if it can, or if that shows when it is built for the first time."""
    for other in (f"postgres/{file.name}", f"serving/{file.name}"):
        if other in tables and tables[other].event_time is None:
            return (
                f"{file.path} cannot be served, since {other} has the same table: give the file another name"
            )
    if file.fault:
        return file.fault
    try:
        if file.contract is None:
            require_view(file)
        else:
            online_contract(file)
    except ValueError as fault:
        return str(fault)
    return ""


def _view(settings: Settings, file: FeatureFile) -> dg.AssetsDefinition:
    header = require_view(file)
    given = options(
        settings,
        online_contract(file) if file.contract else _unknown(file),
        group="serving",
        description=(
            f"The newest row of each {', '.join(header.entity)}, for lookup in a millisecond together with other "
            "views. PostgreSQL holds the truth, Redis answers: one hash an entity, in which this view has a field that "
            f"expires with the row. Only rows that have changed are written. {header.description}"
        ),
        logic=[read_sql("duckdb/serving/newest_of_entities.sql"), repr(header)],
        kinds=["sql"],
        owners=[header.owner] if header.owner else [],
        tags=header.tags,
    )
    if header.known_time:
        given["automation_condition"] = automation.KNOWN_LATER
    if file.contract is None:
        given["metadata"] = _inferring(file)

    @_asset(file, given)
    def online_view(lake: DuckLakeResource) -> pa.RecordBatchReader:
        contract = DuckLakeStore(lake).last_contract(file.asset) or file.contract
        if contract is None:
            raise dg.Failure(f"{file.asset} was never built: materialize it first.")
        try:
            online_contract(replace(file, contract=contract))
        except ValueError as fault:
            raise dg.Failure(f"{fault}.") from fault
        return newest_rows(lake, contract, header, datetime.now(UTC))

    return online_view


def _asset(file: FeatureFile, given: dict[str, Any]) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    return dg.asset(ins=None, deps=[key(file.asset)], **given)


def _served_check(file: FeatureFile) -> dg.AssetChecksDefinition:
    """Whether what was served is what a model would be trained on."""
    header = require_view(file)

    @dg.asset_check(
        asset=key(f"serving/{file.name}"),
        name="served_features",
        additional_deps=[key(file.asset)],
        description=(
            "Each row that was served in the last week and logged is the one that a join at that time finds in the "
            "lake. A row may differ because a newer one had not been brought online yet; both values are shown."
        ),
    )
    def check(lake: DuckLakeResource, postgres: PostgresResource) -> dg.AssetCheckResult:
        contract = DuckLakeStore(lake).last_contract(file.asset)
        since = datetime.now(UTC) - _COMPARED
        found = compare_served(lake, postgres, contract, header, since, _SHOWN) if contract else Compared()
        records = [
            dg.TableRecord({name: str(value) for name, value in vars(difference).items()})
            for difference in found.differences
        ]
        told = f"{found.equal:,} of {counted(found.rows, 'row')} that were served are equal to the join's."
        if found.different:
            told += f" {counted(found.different, 'value')} differ; {found.newer:,} of these had a newer row by then."
        if found.left_out:
            told += (
                f" {counted(found.left_out, 'row')} of entities as the view had them before were left out."
            )
        return dg.AssetCheckResult(
            passed=not found.different,
            severity=dg.AssetCheckSeverity.WARN,
            description=told,
            metadata={
                "served": found.rows,
                "equal": found.equal,
                "left_out": found.left_out,
                **({"differences": dg.MetadataValue.table(records)} if records else {}),
            },
        )

    return check


_COMPARED = timedelta(days=7)
"""How long what was served is compared."""

_SHOWN = 20


def _unknown(file: FeatureFile) -> Contract:
    """What is known of a table that was never built, for an asset's definition."""
    header = require_view(file)
    columns = tuple(need(name) for name in header.entity)
    return Contract(f"serving/{file.name}", f"the newest row of {file.name}", columns, key=header.entity)


def _inferring(file: FeatureFile) -> dict[str, Any]:
    """Metadata by which the IO manager makes a contract of the rows, when there are any."""
    header = require_view(file)
    given = {"key": list(header.entity), "mode": "upsert_delete", "event_time": header.event_time}
    return given | ({} if header.ttl is None else {"ttl_s": int(header.ttl.total_seconds())})


def _refused(name: str, why: str, tables: Tables) -> dg.AssetsDefinition:
    """An asset that fails and says why; nothing else is the worse for it."""
    asset = f"serving/{name}"

    @dg.asset(
        key=key(f"{asset}_of_file" if asset in tables else asset),
        group_name="serving",
        owners=OWNERS,
        kinds={"redis"},
        description=f"This file is not served: {why}.",
        deps=[key(f"duckdb/{name}")],
    )
    def refused() -> None:
        raise dg.Failure(f"{why}.")

    return refused
