"""What becomes of a feature file whose asset runs, in this graph or in another project's.

What belongs here: the pin beside the file, column lineage, and the asset of a file that cannot be used. How files are
checked is in stores/duckdb/feature_check.py.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import dagster as dg

from ml_assets.contracts import Contract
from ml_assets.contracts.feature_files import FeatureFile, pin, pin_of
from ml_assets.contracts.text import pinned_text
from ml_assets.defs.options import FAULT, FEATURE_FILE, code_version
from ml_assets.lib.feature_sql import FeatureSQL
from ml_assets.lib.lineage import Place, sql_origins
from ml_assets.metadata import table_lineage
from ml_assets.partitions import run_days
from ml_assets.stores.duckdb.feature_check import CheckedFile


def pin_contract(context: dg.AssetExecutionContext, file: FeatureFile, contract: Contract) -> None:
    """Write what a table promises beside its file if nothing is pinned yet, or tell the run what should stand there."""
    if _is_left(file):
        return
    # At the last day alone: what is added to the output would be stored again for every day.
    last = run_days(context).last.isoformat() if contract.partition_column else None
    try:
        pinned = pin(file.path, contract)
    except OSError as fault:
        context.log.warning(
            f"{file.asset} is built, but its contract cannot be written to {pin_of(file.path)} ({fault.strerror}): put "
            "what the run's metadata has under 'contract' there, so that a change of its columns is refused."
        )
        text = dg.MetadataValue.md(f"```json\n{pinned_text(contract)}```")
        context.add_asset_metadata({"contract": text}, partition_key=last)
    else:
        context.log.info(f"What {file.asset} promises is pinned in {pinned}: keep it with the file.")
        context.add_asset_metadata({"contract": dg.MetadataValue.path(pinned)}, partition_key=last)


def _is_left(file: FeatureFile) -> bool:
    """Whether nothing is to be pinned: something is, or another text lies there than was built, which has its own run.

    Nothing is raised of what cannot be read, since the rows are in place.
    """
    try:
        return pin_of(file.path).exists() or file.path.read_text(encoding="utf-8-sig") != file.text
    except FileNotFoundError:
        return False  # the run tells what would have been pinned
    except (OSError, UnicodeDecodeError):
        return True  # it is not what was built


def faulty_asset(
    checked: CheckedFile,
    asset: dg.AssetKey,
    group: str | None,
    partitions: dg.PartitionsDefinition | None,
    owners: list[str] | None = None,
) -> dg.AssetsDefinition:
    """An asset that takes the place of one that cannot be made: it fails and says why, and nothing follows from it.

    Args:
        checked: the file.
        asset: key of the table's asset.
        group: its group.
        partitions: those of the table, if it was built before.
        owners: who is asked about it.
    """
    file = checked.file
    if checked.is_taken:  # a key of its own, as the table's is another asset's
        name = f"{re.sub('[^A-Za-z0-9_]', '_', file.name)}_{code_version(str(file.path))[:6]}"
        asset = dg.AssetKey(["features", name])

    @dg.asset(
        key=asset,
        group_name=group,
        owners=owners,
        kinds={"duckdb", "sql"},
        description=f"This table cannot be made. {checked.fault}.\n\nThe file is {file.path}.",
        code_version=code_version(file.text, checked.fault),
        metadata={FEATURE_FILE: str(file.path), FAULT: checked.fault},
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def faulty_table() -> None:
        raise dg.Failure(f"{checked.fault}. The file is {file.path}.", allow_retries=False)

    return faulty_table


def lineage(
    feature: FeatureSQL, columns: Mapping[str, Sequence[str]], asset_of: Callable[[str], dg.AssetKey]
) -> dg.TableColumnLineage:
    """Which columns of other tables each column of a file's table comes from.

    Args:
        feature: the file's SELECT.
        columns: of each table that it reads, by `duckdb/<table>`.
        asset_of: the key of the asset that such a name stands for.
    """
    places = []
    for parent, names in columns.items():
        table = parent.removeprefix("duckdb/")
        prefix = table.partition("_")[0]
        schema = prefix if prefix in ("intake", "raw") else "features"
        places.append(Place(schema, table, parent, names))
    return table_lineage(sql_origins(feature.text, places, "duckdb"), asset_of)
