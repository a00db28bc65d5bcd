"""A contract for an asset that has none: from its metadata and from the schema of its rows.

What belongs here: what lets the IO managers be used in a project that knows nothing of `contracts.py`. What
does not: contracts that somebody wrote down; they always win.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import pyarrow as pa

from ml_assets.contracts import Column, ColumnType, Contract, WriteMode
from ml_assets.errors import ContractViolation
from ml_assets.tables.arrow_types import UNFIT, first_unfit, fits, plain_type
from ml_assets.tables.validation import shown_value

_KNOWN = ("key", "partition_column", "partition_expr", "mode", "order_by", "unique_across_days")
_SCHEMA = "dagster/column_schema"
_DECLARED = re.compile(rf"({'|'.join(get_args(ColumnType))})(?:\((\d+)\))?")


def table_asset(path: Sequence[str], store: str) -> str:
    """`store/table` of an asset key: the store's name in front is left out, other prefixes join by two _."""
    parts = path[1:] if path[0] == store and len(path) > 1 else path
    return f"{store}/{'__'.join(parts)}"


def inferred_contract(
    asset: str, metadata: Mapping[str, Any], data: Any, last: Contract | None = None
) -> Contract:
    """A contract in which every column may be null except the key and the partition column.

    Args:
        asset: `store/table`.
        metadata: of the asset's definition. `key` (a column or several; none by default), `partition_column`
            (or `partition_expr`, as other IO managers call it), `mode` (`overwrite` by default), `order_by`,
            `unique_across_days`. Where it has `dagster/column_schema`, the columns are those and no others,
            with the types that are named as a contract names them (`json`, `vector(384)`) and its nulls.
        data: DataFrame, Table or RecordBatchReader.
        last: the contract of the last write. A column keeps the type that it has there if values of the type that
            is given now may fit it: whole numbers and floats, or text and JSON, in both directions. It also tells
            the type of a column that has no values now.

    Raises:
        ContractViolation: a column's type has no place in a table or, for want of values, is not known, or the
            metadata names no column.
    """
    given = {name: plain_value(metadata[name]) for name in _KNOWN if name in metadata}
    key = _names(given.get("key"))
    partition_column = given.get("partition_column") or given.get("partition_expr")
    if partition_column is not None and not isinstance(partition_column, str):
        raise ContractViolation(
            f"{asset}: the metadata 'partition_column' (or 'partition_expr') is {partition_column!r}; name one column, a "
            "timestamp with a time zone or a date."
        )
    mode = given.get("mode", "overwrite")
    if mode not in get_args(WriteMode):
        raise ContractViolation(f"{asset}: mode {mode!r} is none of {', '.join(get_args(WriteMode))}.")
    if mode != "overwrite" and not key:
        raise ContractViolation(
            f"{asset}: mode {mode!r} needs the metadata 'key', the columns that identify a row."
        )
    columns = _columns(asset, metadata, data, last, {*key, partition_column})
    try:
        return Contract(
            asset,
            "",
            columns,
            key=key,
            partition_column=partition_column,
            mode=mode,
            order_by=_names(given.get("order_by")),
            unique_across_days=bool(given.get("unique_across_days")),
        )
    except ValueError as fault:
        raise ContractViolation(f"{fault}; correct the asset's metadata.") from fault


def plain_value(value: Any) -> Any:
    """A metadata value without Dagster's wrapping."""
    inner = getattr(value, "value", getattr(value, "data", value))
    return getattr(inner, "data", inner)


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _columns(
    asset: str, metadata: Mapping[str, Any], data: Any, last: Contract | None, required: set[str | None]
) -> tuple[Column, ...]:
    """Columns as declared, and as the rows have them where nothing is declared."""
    fields = _fields(asset, data)
    if not fields:
        raise ContractViolation(
            f"{asset}: the asset returned no columns. An empty result has columns, too, by which it is known that it is "
            "one: return them without rows (pandas: pd.DataFrame(columns=[...])). Nothing was written."
        )
    declared = plain_value(metadata.get(_SCHEMA))
    if declared is None:
        return tuple(_inferred(asset, field, data, last, field.name not in required) for field in fields)
    by_name = {field.name: field for field in fields}
    columns = []
    for one in declared.columns:
        name, nullable = str(one.name), one.constraints.nullable and one.name not in required
        kind = _DECLARED.fullmatch(one.type)
        if kind and (kind[1] != "vector" or kind[2]):
            dimension = int(kind[2]) if kind[1] == "vector" else None
            columns.append(Column(name, cast("ColumnType", kind[1]), nullable, dimension=dimension))
        elif name in by_name:
            columns.append(_inferred(asset, by_name[name], data, last, nullable))
        else:
            raise ContractViolation(
                f"{asset} misses {name!r}, which {_SCHEMA} names: return the column, or take it out of the "
                "schema. Nothing was written."
            )
    return tuple(columns)


def _fields(asset: str, data: Any) -> list[pa.Field]:
    if isinstance(data, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        return list(data.schema)
    # By place: two columns of one name are refused later, by name.
    return [_pandas_field(asset, str(name), data.iloc[:, n]) for n, name in enumerate(data.columns)]


def _pandas_field(asset: str, name: str, values: Any) -> pa.Field:
    """A DataFrame's column as Arrow sees it; dictionaries need not look alike, they are JSON."""
    if values.dtype == object:
        first = next(iter(values.dropna()), None)
        if isinstance(next(iter(first), None) if isinstance(first, list) else first, dict):
            return pa.field(name, pa.struct([]))

    def beginning(count: int) -> pa.Field:
        return pa.field(name, pa.array(values.iloc[:count], from_pandas=True).type)

    try:
        return beginning(len(values))
    except UNFIT as fault:
        bad = first_unfit(beginning, len(values)) or 0
        shown = "".join(
            f", {shown_value(value)} in row {bad:,}, counted from 0" for value in values.iloc[bad : bad + 1]
        )
        raise ContractViolation(
            f"{asset}: column {name!r} holds values of several kinds, or of one that no store can hold{shown} "
            f"({(str(fault).splitlines() or [type(fault).__name__])[0]}): convert them to one kind, or to JSON text. "
            "Nothing was written."
        ) from fault


def _inferred(asset: str, field: pa.Field, data: Any, last: Contract | None, nullable: bool) -> Column:
    before = last.by_name.get(field.name) if last else None
    given = plain_type(field, asset)
    if pa.types.is_null(given) and not before:
        raise ContractViolation(
            f"{asset}: column {field.name!r} has no values and no type, so it cannot be known what the table is to "
            f"hold: give it a type (a dtype in pandas), or name it in the metadata '{_SCHEMA}'. Nothing was written."
        )
    # The same numbers are whole ones on one day and floats on another: by what they are, by nulls among them in
    # pandas, or by how a database writes a sum.
    kind = before.type if before and fits(given, before.type) else logical_type(asset, field)
    if kind != "vector":
        return Column(field.name, kind, nullable)
    dimension = _dimension(field, data) or (before.dimension if before else None)
    if dimension is None:
        raise ContractViolation(
            f"{asset}: column {field.name!r} holds vectors of unknown length: return lists of fixed size "
            f"(pyarrow.list_(pyarrow.float32(), 384)), or give its type in the metadata '{_SCHEMA}' as "
            "'vector(384)'. Nothing was written."
        )
    return Column(field.name, "vector", nullable, dimension=dimension)


def logical_type(asset: str, field: pa.Field) -> ColumnType:
    """The logical type of an Arrow column.

    Raises:
        ContractViolation: there is none.
    """
    if getattr(field.type, "extension_name", "") == "arrow.json":
        return "json"
    kind = plain_type(field, asset)
    checks: dict[ColumnType, Any] = {
        "string": lambda t: (
            pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)
        ),
        "int64": pa.types.is_integer,
        "float64": lambda t: pa.types.is_floating(t) or pa.types.is_decimal(t),
        "bool": pa.types.is_boolean,
        "timestamp": pa.types.is_timestamp,
        "date": pa.types.is_date,
        "json": _is_document,
        "vector": lambda t: (
            (pa.types.is_list(t) or pa.types.is_fixed_size_list(t) or pa.types.is_large_list(t))
            and pa.types.is_floating(t.value_type)
        ),
    }
    for logical, holds in checks.items():
        if holds(kind):
            return logical
    raise ContractViolation(
        f"{asset}: column {field.name!r} is {field.type}, which no store can hold; convert it to text, number, bool, "
        "timestamp, date, JSON text or a list of floats."
    )


def _is_document(kind: pa.DataType) -> bool:
    """Structs, maps, and lists of them."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_document(kind.value_type)
    return pa.types.is_struct(kind) or pa.types.is_map(kind)


def _dimension(field: pa.Field, data: Any) -> int | None:
    given = plain_type(field, "")
    if pa.types.is_fixed_size_list(given):
        return given.list_size
    if isinstance(data, pa.RecordBatchReader):
        return None
    if isinstance(data, pa.Table | pa.RecordBatch):
        values = data[field.name].drop_null()
    else:  # where a column's name need not be text
        values = next(column for name, column in data.items() if str(name) == field.name).dropna()
    first = next(iter(values), None)
    return None if first is None else len(first)
