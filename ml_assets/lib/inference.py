"""A contract for an asset that has none: from its metadata and from the schema of its rows.

What belongs here: what lets the IO managers be used in a project that knows nothing of `contracts.py`. What
does not: contracts that somebody wrote down; they always win.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pyarrow as pa

from ml_assets.contracts import Column, ColumnType, Contract, WriteMode
from ml_assets.lib.arrow_types import ContractViolation

_KNOWN = ("key", "partition_column", "partition_expr", "mode", "order_by", "unique_across_days")


def table_asset(path: Sequence[str], store: str) -> str:
    """`store/table` of an asset key: the store's name in front is left out, other prefixes join by two _."""
    parts = path[1:] if path[0] == store and len(path) > 1 else path
    return f"{store}/{'__'.join(parts)}"


def inferred_contract(asset: str, metadata: Mapping[str, Any], data: Any) -> Contract:
    """A contract in which every column may be null except the key and the partition column.

    Args:
        asset: `store/table`.
        metadata: of the asset's definition. `key` (a column or several; none by default), `partition_column`
            (or `partition_expr`, as other IO managers call it), `mode` (`overwrite` by default), `order_by`,
            `unique_across_days`.
        data: DataFrame, Table or RecordBatchReader.

    Raises:
        ContractViolation: a column's type has no place in a table, or the metadata names no column.
    """
    given = {name: _plain(metadata[name]) for name in _KNOWN if name in metadata}
    key = _names(given.get("key"))
    partition_column = given.get("partition_column") or given.get("partition_expr")
    mode = given.get("mode", "overwrite")
    if mode not in get_args(WriteMode):
        raise ContractViolation(f"{asset}: mode {mode!r} is none of {', '.join(get_args(WriteMode))}.")
    if mode != "overwrite" and not key:
        raise ContractViolation(
            f"{asset}: mode {mode!r} needs the metadata 'key', the columns that identify a row."
        )
    required = {*key, partition_column}
    columns = tuple(
        Column(name, kind, nullable=name not in required, dimension=dimension)
        for name, kind, dimension in _typed(asset, data)
    )
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


def _plain(value: Any) -> Any:
    """A metadata value without Dagster's wrapping."""
    inner = getattr(value, "value", getattr(value, "data", value))
    return getattr(inner, "data", inner)


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _typed(asset: str, data: Any) -> list[tuple[str, ColumnType, int | None]]:
    if isinstance(data, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        schema = data.schema
    elif hasattr(data, "dtypes"):
        schema = pa.Schema.from_pandas(data, preserve_index=False)
    else:
        raise ContractViolation(
            f"{asset}: the asset returned {type(data).__name__}; return a pandas DataFrame, a pyarrow Table or a "
            "pyarrow RecordBatchReader."
        )
    return [(field.name, _logical(asset, field), _dimension(field, data)) for field in schema]


def _logical(asset: str, field: pa.Field) -> ColumnType:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    kind = kind.storage_type if isinstance(kind, pa.ExtensionType) else kind
    checks: dict[ColumnType, Any] = {
        "string": lambda t: (
            pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)
        ),
        "int64": pa.types.is_integer,
        "float64": lambda t: pa.types.is_floating(t) or pa.types.is_decimal(t),
        "bool": pa.types.is_boolean,
        "timestamp": pa.types.is_timestamp,
        "date": pa.types.is_date,
        "json": pa.types.is_struct,
        "vector": lambda t: (
            (pa.types.is_list(t) or pa.types.is_fixed_size_list(t) or pa.types.is_large_list(t))
            and pa.types.is_floating(t.value_type)
        ),
    }
    for logical, fits in checks.items():
        if fits(kind):
            return logical
    if pa.types.is_null(kind):
        return "string"
    raise ContractViolation(
        f"{asset}: column {field.name!r} is {field.type}, which no store can hold; convert it to text, number, bool, "
        "timestamp, date, JSON text or a list of floats."
    )


def _dimension(field: pa.Field, data: Any) -> int | None:
    if pa.types.is_fixed_size_list(field.type):
        return field.type.list_size
    if isinstance(data, pa.RecordBatchReader) or not len(data) or not pa.types.is_list(field.type):
        return None
    first = data[field.name][0] if isinstance(data, pa.Table | pa.RecordBatch) else data[field.name].iloc[0]
    return len(first) if first is not None else None
