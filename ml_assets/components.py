"""Dagster components: what `dg list components` shows, and `dg scaffold defs` puts into anybody's project.

What belongs here: how a project's YAML becomes assets on our IO managers. How feature files are read and checked is in
contracts/feature_files.py and stores/duckdb/feature_check.py.
"""

from collections.abc import Set
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from ml_assets.contracts import Contract
    from ml_assets.contracts.feature_files import FeatureFile
    from ml_assets.lib.feature_sql import FeatureSQL
    from ml_assets.stores.duckdb.feature_check import CheckedFile

_EXAMPLE = """\
-- What is known of a day beforehand: an example, to be replaced by a SELECT over tables of your own.
-- $start and $end bound the days that are built: [$start, $end) on day, UTC.
-- entity: weekday
-- event_time: day
SELECT
    dayname(day) AS weekday,  -- its name
    day,  -- when it begins, UTC
    isodow(day) >= 6 AS is_weekend  -- whether it is a Saturday or a Sunday
FROM generate_series($start, $end - INTERVAL 1 DAY, INTERVAL 1 DAY) AS days (day)
"""


class Lake(dg.Model, dg.Resolvable):
    """Where the tables are kept: a DuckLake, made when it is first written."""

    home: str = Field(
        description="folder of the Parquet files and, without a URL, of PostgreSQL; from the project's own"
    )
    catalog_url: str = Field(
        default="", description="PostgreSQL of the catalog; by default an embedded one in home"
    )
    data_path: str = Field(default="", description="folder or object-store prefix of the Parquet files")


class _Scaffolder(dg.Scaffolder):
    """Makes defs.yaml and a first table."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write both into the component's folder."""
        dg.scaffold_component(request, {"lake": {"home": "data"}})
        (request.target_path / "weekdays.sql").write_text(_EXAMPLE, encoding="utf-8")


@dg.scaffold_with(_Scaffolder)
class FeatureTables(dg.Component, dg.Model, dg.Resolvable):
    """Makes a table in a DuckLake of each SELECT file of a folder, with its dependencies, lineage and contract.

    `NAME.sql` is the asset `NAME` and the table `features.NAME`; it may read what other assets of the project keep in
    the same lake with DuckLakeIOManager. What a file may say in its header is told in docs/features.md.
    """

    folder: str = Field(default=".", description="where the files lie, from the folder of defs.yaml")
    group: str | None = Field(default=None, description="group of the assets")
    first_day: Annotated[date, dg.Resolver(lambda _, day: day, model_field_type=date)] = Field(
        default=date(2024, 1, 1), description="first partition of tables that are built by day"
    )
    io_manager_key: str = Field(
        default="io_manager", description="of the DuckLakeIOManager that keeps the tables"
    )
    lake: Lake | None = Field(
        default=None, description="makes that IO manager; leave it out if the project has one of that key"
    )
    assets: dict[str, str] = Field(
        default={},
        description="by a table's name, the key of its asset, where that is another one: orders: shop/orders",
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """One asset a file; one that cannot be used is an asset that fails and says why.

        Raises:
            NotADirectoryError: there is no such folder.
        """
        from ml_assets.contracts.feature_files import read_files
        from ml_assets.stores.duckdb.feature_check import check_files

        folder = context.path / self.folder
        if not folder.is_dir():
            raise NotADirectoryError(
                f"{folder}, which a component FeatureTables names, is no folder; make it, or correct 'folder'"
            )
        files = read_files(sorted(folder.glob("*.sql")))
        pinned = {file.asset: file.contract for file in files if file.contract}
        checked = check_files(files, pinned, others=True)
        resources = {self.io_manager_key: _io_manager(self.lake, context.project_root)} if self.lake else {}
        by_day = {one.file.asset for one in checked if _is_by_day(one)}
        return dg.Definitions([self._asset(one, by_day) for one in checked], resources=resources)

    def _asset(self, checked: "CheckedFile", by_day: Set[str]) -> dg.AssetsDefinition:
        from ml_assets.defs.features.files import faulty_asset, lineage, pin_contract
        from ml_assets.defs.options import code_version
        from ml_assets.lib.query import Query
        from ml_assets.metadata import table_schema
        from ml_assets.partitions import looking_back

        file, feature, header = checked.file, checked.feature, checked.file.header
        days = dg.DailyPartitionsDefinition(self.first_day.isoformat(), timezone="UTC", end_offset=1)
        if checked.fault or feature is None or header is None:
            return faulty_asset(
                checked, self._key(file.asset), self.group, days if _is_by_day(checked) else None
            )
        schema = {"dagster/column_schema": table_schema(checked.contract)} if checked.contract else {}

        @dg.asset(
            key=self._key(file.asset),
            deps=[
                dg.AssetDep(
                    self._key(parent),
                    partition_mapping=looking_back(header.lookback_days) if parent in by_day else None,
                )
                for parent in feature.parents
            ],
            group_name=self.group,
            description=header.description,
            owners=[header.owner] if header.owner else None,
            tags=dict.fromkeys(header.tags, ""),
            kinds={"duckdb", "sql"},
            code_version=code_version(feature.text, repr(checked.contract)),
            metadata={**schema, "dagster/table_name": f"features.{file.name}"},
            partitions_def=days if feature.parameters else None,
            backfill_policy=dg.BackfillPolicy.single_run(),
            io_manager_key=self.io_manager_key,
            required_resource_keys={self.io_manager_key},
        )
        def feature_table(context: dg.AssetExecutionContext) -> Query:
            contract, columns = self._bound(context, file, feature)
            context.add_output_metadata({"dagster/column_lineage": lineage(feature, columns, self._key)})
            window = context.partition_time_window if feature.parameters else None
            moments = {"start": window.start, "end": window.end} if window else {}
            moments |= {"lookback_start": window.start - timedelta(header.lookback_days)} if window else {}
            return Query(
                feature.text,
                {name: moments[name] for name in feature.parameters},
                committed=lambda: pin_contract(context, file, contract),
                contract=contract,
            )

        return feature_table

    def _bound(
        self, context: dg.AssetExecutionContext, file: "FeatureFile", feature: "FeatureSQL"
    ) -> "tuple[Contract, dict[str, list[str]]]":
        """The table's contract, and the columns of the tables that it reads, as they are in the lake now.

        Raises:
            Failure: the SELECT does not fit them, or the IO manager is none of a lake.
        """
        from ml_assets.io_managers.duckdb import DuckLakeIOManager
        from ml_assets.stores.duckdb.ddl import columns_of
        from ml_assets.stores.duckdb.feature_check import made_contract

        manager = getattr(context.resources, self.io_manager_key)
        if not isinstance(manager, DuckLakeIOManager):
            raise dg.Failure(
                f"the resource {self.io_manager_key!r} is {type(manager).__name__}, and feature tables are kept by "
                "ml_assets.io_managers.duckdb.DuckLakeIOManager: make it that, or give the component its 'lake'.",
                allow_retries=False,
            )
        with manager.lake.get_connection() as connection:
            connection.execute("SET errors_as_json = true")
            try:
                contract = made_contract(file, feature, connection)
            except ValueError as fault:
                raise dg.Failure(f"{fault}. The file is {file.path}.", allow_retries=False) from fault
            places = {(one.schema, one.table) for one in feature.references}
            found = zip(places, columns_of(connection, *places), strict=True) if places else ()
            return contract, {f"duckdb/{table}": list(columns) for (_, table), columns in found}

    def _key(self, table: str) -> dg.AssetKey:
        """The asset that keeps a table of the lake, which goes by `duckdb/<table>`."""
        name = table.removeprefix("duckdb/")
        return dg.AssetKey.from_user_string(self.assets.get(name, name.replace("__", "/")))


def _is_by_day(checked: "CheckedFile") -> bool:
    """Whether a file's asset has partitions: one that cannot be made has those of the table as it was built before."""
    if checked.fault or checked.feature is None:
        return checked.contract is not None and checked.contract.partition_column is not None
    return bool(checked.feature.parameters)


def _io_manager(lake: Lake, root: Path) -> dg.ConfigurableIOManager:
    from ml_assets.io_managers.duckdb import DuckLakeIOManager
    from ml_assets.resources.duckdb import DuckLakeResource

    home = str(root / lake.home)
    resource = DuckLakeResource(home=home, catalog_url=lake.catalog_url, data_path=lake.data_path)
    return DuckLakeIOManager(lake=resource)
