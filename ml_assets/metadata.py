"""What the Dagster UI shows about a table: schema, name, counts, preview.

What belongs here: turning contracts and rows into Dagster's metadata. What does not: reading stores.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_assets.contracts import Column, Contract
from ml_assets.lib.lineage import ColumnRef, Origins

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

_PREVIEW_CHARACTERS = 60

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": " ", "\n": " "}
_MARKUP = re.compile(r"[&<>\r\n\\`*~|\[\]]|(?<!\w)_|_(?!\w)")
"""What Markdown or HTML would take for more than text; an underscore within a word is one."""

NOTHING: Mapping[str, str] = MappingProxyType({})


def table_schema(
    contract: Contract, declared: dg.TableSchema | None = None, inherited: Mapping[str, str] = NOTHING
) -> dg.TableSchema:
    """The contract as Dagster's table schema, with its constraints.

    Args:
        declared: what the asset's definition says of the table. Its descriptions, tags and other constraints
            stay; types, nulls and keys are the contract's.
        inherited: what a column means by its name, unless the contract or the definition says more.
    """
    said = {column.name: column for column in declared.columns} if declared else {}
    ours = _table_constraints(contract)
    theirs = (declared.constraints.other if declared and declared.constraints else None) or ()
    return dg.TableSchema(
        columns=[
            _table_column(contract, column, said.get(column.name), inherited) for column in contract.columns
        ],
        constraints=dg.TableConstraints(other=list(dict.fromkeys([*ours, *theirs]))),
    )


def table_metadata(
    contract: Contract,
    kind: str,
    name: str,
    declared: dg.TableSchema | None = None,
    inherited: Mapping[str, str] = NOTHING,
) -> dict[str, Any]:
    """Metadata of an asset's definition: schema, physical name, kind of storage.

    Args:
        kind: of the storage.
        name: the name that a query would use.
        declared, inherited: as in `table_schema`.
    """
    return {
        "dagster/column_schema": table_schema(contract, declared, inherited),
        "dagster/table_name": name,
        "dagster/storage_kind": kind,
    }


def column_lineage(origins: Origins) -> dict[str, dg.TableColumnLineage]:
    """Metadata of a write: which columns of which tables each column comes from.

    The UI reads it at the newest materialization and at no definition.
    """
    return {"dagster/column_lineage": table_lineage(origins, lambda asset: dg.AssetKey(asset.split("/")))}


def table_lineage(origins: Origins, asset_of: Callable[[str], dg.AssetKey]) -> dg.TableColumnLineage:
    """The same without its name, where an asset need not have the key that its table's name says."""
    made: dict[str, Sequence[ColumnRef]] = dict.fromkeys(origins.made, ())
    return dg.TableColumnLineage(
        {
            column: [
                dg.TableColumnDep(asset_key=asset_of(source.asset), column_name=source.column)
                for source in sources
            ]
            for column, sources in {**made, **origins.columns}.items()
        }
    )


def preview(table: "pa.Table") -> dg.MarkdownMetadataValue:
    """A few rows as a Markdown table; long values are cut, and what they hold is shown as it is, not rendered."""
    names = table.schema.names
    lines = ["| " + " | ".join(map(_cell, names)) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in table.to_pylist()]
    return dg.MetadataValue.md("\n".join(lines))


def plot(title: str, figure: "Figure") -> dg.MarkdownMetadataValue:
    """A figure as a picture that travels inside the metadata, so that the UI needs no file of ours."""
    from base64 import b64encode

    from ml_assets.lib.plots import png

    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{b64encode(png(figure)).decode()})")


def write_metadata(rows: int, seconds: float, written: bool) -> dict[str, Any]:
    """Metadata of one write.

    Args:
        rows: rows that it was given.
        seconds: checking, hashing and writing.
        written: False if the store had these rows already.
    """
    return {
        "rows_per_second": round(rows / seconds) if seconds > 0 else 0,
        "written": dg.MetadataValue.bool(written),
    }


def _table_column(
    contract: Contract, column: Column, declared: dg.TableColumn | None, inherited: Mapping[str, str]
) -> dg.TableColumn:
    alone = contract.key == (column.name,)
    constraints = declared.constraints if declared else None
    others = [*_column_constraints(column), *((constraints and constraints.other) or ())]
    unique = alone and (contract.partition_column is None or contract.unique_across_days)
    return dg.TableColumn(
        name=column.name,
        type=f"vector({column.dimension})" if column.type == "vector" and column.dimension else column.type,
        description=column.description or (declared and declared.description) or inherited.get(column.name),
        constraints=dg.TableColumnConstraints(
            nullable=column.nullable and column.name not in set(contract.key) - set(contract.nullable_key),
            unique=unique,
            other=list(dict.fromkeys(others)),
        ),
        tags=declared.tags if declared else None,
    )


def _column_constraints(column: Column) -> Sequence[str]:
    found = []
    if column.minimum is not None:
        found.append(f">= {column.minimum:g}")
    if column.maximum is not None:
        found.append(f"<= {column.maximum:g}")
    if column.choices:
        found.append(f"one of {', '.join(column.choices)}")
    return found


def _table_constraints(contract: Contract) -> Sequence[str]:
    found = []
    if contract.key:
        scope = " within a day" if contract.partition_column and not contract.unique_across_days else ""
        found.append(f"unique ({', '.join(contract.key)}){scope}")
    if contract.partition_column:
        minutes = contract.partition_us // 60_000_000
        length = "UTC day" if minutes == 1440 else "hour" if minutes == 60 else f"{minutes} minutes"
        found.append(f"partitioned by the {length} of {contract.partition_column}")
    found += [f"{k.column} references {k.parent}.{k.parent_column}" for k in contract.foreign_keys]
    found += [f"{name} = {value!r} in the rows that this asset owns" for name, value in contract.scope]
    return found


def _cell(value: object) -> str:
    if isinstance(value, list):
        value = f"[{', '.join(f'{x:.3g}' for x in value[:3])}, ...] ({len(value)})"
    text = "" if value is None else str(value)
    text = text if len(text) <= _PREVIEW_CHARACTERS else text[: _PREVIEW_CHARACTERS - 3] + "..."
    return _MARKUP.sub(lambda found: _ESCAPES.get(found[0], f"\\{found[0]}"), text)
