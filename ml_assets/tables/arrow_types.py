"""Rows as Arrow: the schema of a contract, and bringing whatever an asset returns into it, by name.

What belongs here: conversions without loss, and the refusal of everything else. What does not: the ranges
of values (tables/validation.py) and any store.

The logical types of a contract are these Arrow types: string, int64, float64 (double), bool, timestamp[us,
UTC], date32, json as string in canonical form, vector as list<float32>.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Column, ColumnType, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.canonical_json import canonical_all
from ml_assets.tables.validation import SHOWN_VALUES, shown_value

BATCH_ROWS = 65_536
"""Rows of a batch: large enough for bulk paths, small enough to keep memory flat."""

BATCH_BYTES = 16 * 2**20
"""Size of a batch, whose rows may be long."""

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "json": pa.string(),
    "vector": pa.list_(pa.float32()),
}

UNFIT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    pa.ArrowCapacityError,
)
"""What a conversion of values raises if they are other ones than it takes, Arrow's own kinds among them; a want of
memory is none of it."""


_EXTENSIONS: dict[str, pa.DataType | None] = {
    "arrow.json": pa.string(),
    "arrow.bool8": pa.bool_(),
    "arrow.fixed_shape_tensor": None,
}
"""Extension types whose meaning is kept, and what their storage is taken for, if it is not the storage's own type."""


def key_taken(contract: Contract, found: str) -> ContractViolation:
    """The error for a row whose key another partition holds; `found` says which one, in the store's words."""
    within = "the whole table" if contract.unique_across_days else "a day"
    return ContractViolation(
        f"{contract.asset}: key {', '.join(contract.key)} is unique within {within}, and a partition that is not being "
        f"written has it already ({found.rstrip('.')}): name another column in the key, too, or change the row. "
        "Nothing was written."
    )


def never_written(asset: str) -> LookupError:
    """The error for a table that is asked for before it exists."""
    return LookupError(f"{asset} has never been written here: materialize it first.")


def arrow_schema(contract: Contract, columns: Sequence[str] | None = None) -> pa.Schema:
    """The contract's columns (or some of them, in that order) as an Arrow schema.

    Raises:
        ContractViolation: a column that the contract does not have.
    """
    unknown = [name for name in columns or () if name not in contract.by_name]
    if unknown:
        raise ContractViolation(
            f"{contract.asset} has no column {', '.join(map(repr, unknown))}; "
            f"ask for some of {', '.join(contract.names)}."
        )
    chosen = [contract.by_name[name] for name in columns or contract.names]
    return pa.schema([pa.field(c.name, ARROW_TYPES[c.type], c.nullable) for c in chosen])


def tabular(data: Any, asset: str) -> Any:
    """What an asset returned, as a DataFrame of pandas or as Arrow's own Table, RecordBatch or RecordBatchReader.

    Whatever gives its rows by Arrow's interface (`__arrow_c_stream__`) is taken, as polars' DataFrame.

    Raises:
        ContractViolation: it is no table, or a DataFrame with an index that holds something.
    """
    if isinstance(data, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        return data
    if _is_pandas(data, "DataFrame"):
        _refuse_index(data, asset)
        return data
    if _is_pandas(data, "Series"):
        if data.name is None:
            raise ContractViolation(
                f"{asset}: the asset returned a pandas Series without a name, and a column needs one: return its "
                "to_frame('...'). Nothing was written."
            )
        return tabular(data.to_frame(), asset)
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pa.RecordBatchReader.from_stream(data)
        except pa.ArrowInvalid as fault:  # its batches are no tables: those of a column by itself
            raise ContractViolation(
                f"{asset}: the asset returned {_kind(data)}, which is no table ({fault}): return a table that has it as "
                "a column. Nothing was written."
            ) from fault
    if hasattr(data, "collect"):  # polars' LazyFrame
        raise ContractViolation(
            f"{asset}: the asset returned {_kind(data)}, which is yet to be computed: return what its collect() gives. "
            "Nothing was written."
        )
    raise ContractViolation(
        f"{asset}: the asset returned {_kind(data)}; return a pandas or polars DataFrame, a pyarrow Table or "
        "RecordBatchReader, or another table with Arrow's interface __arrow_c_stream__. Nothing was written."
    )


def _kind(data: Any) -> str:
    kind = type(data)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _is_pandas(data: Any, name: str) -> bool:
    """Whether it is that class of pandas', or one derived from it; pandas need not be installed."""
    return any(c.__name__ == name and c.__module__.partition(".")[0] == "pandas" for c in type(data).__mro__)


def _refuse_index(frame: Any, asset: str) -> None:
    """Refuse a DataFrame whose index holds more than the places of its rows; a table has columns only."""
    import pandas as pd

    index = frame.index
    names = [name for name in index.names if name is not None]
    if not names and (isinstance(index, pd.RangeIndex) or index.equals(pd.RangeIndex(len(index)))):
        return
    if not names and not len(index):
        return
    named = f"the index {', '.join(map(repr, names))}" if names else "an index of its own"
    shown = (
        f" ({', '.join(shown_value(label) for label in index[:SHOWN_VALUES].tolist())}, ...)"
        if len(index)
        else ""
    )
    raise ContractViolation(
        f"{asset}: the DataFrame has {named}{shown}, and a table has columns only: return its reset_index() to keep the "
        "index as a column, or reset_index(drop=True) to leave it out. Nothing was written."
    )


def conform(data: Any, contract: Contract, row: int = 0) -> Iterator[pa.RecordBatch]:
    """The rows in the contract's schema: columns by name, types converted where nothing is lost.

    Args:
        data: what `tabular` takes.
        row: the number of its first row, for sentences.

    Raises:
        ContractViolation: it is no table, a column is missing or unknown, or its values do not fit its type.
    """
    schema = arrow_schema(contract)
    for batch in _batches(data, contract):
        _same_names(batch.schema.names, contract)
        arrays = [
            _fit(batch.column(column.name), batch.schema.field(column.name), column, contract, row)
            for column in contract.columns
        ]
        row += batch.num_rows
        # Nullability is checked by validation, which names the rows; Arrow would only refuse.
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _batches(data: Any, contract: Contract) -> Iterator[pa.RecordBatch]:
    data = tabular(data, contract.asset)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        _same_names(data.schema.names, contract)
        for batch in data.to_batches(max_chunksize=BATCH_ROWS):
            yield from _halved(batch)
    elif isinstance(data, pa.RecordBatchReader):
        _same_names(data.schema.names, contract)
        _refuse_read(data, contract)
        _READ[data] = True
        for batch in data:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield from _halved(batch.slice(start, BATCH_ROWS))
    else:
        _same_names([str(name) for name in data.columns], contract)
        step = batch_rows(contract)
        for start in range(0, len(data), step):
            yield from _halved(_from_pandas(data.iloc[start : start + step], contract, start))


_READ: "WeakKeyDictionary[pa.RecordBatchReader, bool]" = WeakKeyDictionary()
"""Readers that have been read from, as far as this process has seen it; Arrow does not tell."""


def stream(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
    """A reader that, once it was read, is refused as the rows of a table: what is left of it may be nothing."""

    def noted() -> Iterator[pa.RecordBatch]:
        _note(made())
        yield from batches

    reader = pa.RecordBatchReader.from_batches(schema, noted())
    made = weakref.ref(reader)
    return reader


def _note(reader: pa.RecordBatchReader | None) -> None:
    # By itself: the generator that the reader is made of may not keep it alive.
    if reader is not None:
        _READ[reader] = True


def was_read(reader: pa.RecordBatchReader) -> bool:
    """Whether a reader was read from; of those that others made it can be told of IPC streams alone."""
    streamed = isinstance(reader, pa.RecordBatchStreamReader) and reader.stats.num_record_batches > 0
    return streamed or reader in _READ


def _refuse_read(reader: pa.RecordBatchReader, contract: Contract) -> None:
    if was_read(reader):
        raise ContractViolation(
            f"{contract.asset}: the asset returned a pyarrow RecordBatchReader that has been read from already, so that "
            "the table would lose the rows before: return a new one, or a pyarrow Table (reader.read_all()) that is "
            "read as often as you like. Nothing was written."
        )


def batch_rows(contract: Contract) -> int:
    """Rows that make up a batch where vectors are what makes them long."""
    width = sum(4 * (column.dimension or 0) for column in contract.columns)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, width)))


def _halved(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts that are not too large."""
    if batch.num_rows < 2 or batch.nbytes <= BATCH_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _halved(batch.slice(0, half))
    yield from _halved(batch.slice(half))


def _from_pandas(frame: Any, contract: Contract, row: int) -> pa.RecordBatch:
    """A part of a DataFrame, which begins at this row of it."""
    arrays = []
    for place, name in enumerate(frame.columns):
        column, values = contract.by_name[str(name)], frame.iloc[:, place]
        arrays.append(_converted(contract, column, values, row))
    return pa.RecordBatch.from_arrays(arrays, names=[str(name) for name in frame.columns])


def _converted(contract: Contract, column: Column, values: Any, row: int) -> pa.Array:
    """A DataFrame's column, or the refusal of what its values cannot become."""

    def first(count: int) -> pa.Array:
        return _array_of(column, values.iloc[:count])

    try:
        return first(len(values))
    except UNFIT as fault:
        bad = first_unfit(first, len(values)) or 0
        shown = values.iloc[bad : bad + 1]
        raise _wrong_type(contract, column, values.dtype, str(fault), shown, row + bad) from fault


def _array_of(column: Column, values: Any) -> pa.Array:
    if column.type == "json" and values.dtype == object:
        missing = values.isna() if not len(values) else [_is_missing(value) for value in values]
        documents = canonical_all(None if m else v for m, v in zip(missing, values, strict=True))
        return pa.array(documents, pa.string())
    if column.type == "vector":
        return pa.array(values.tolist(), ARROW_TYPES["vector"])
    return _one_chunk(pa.array(values, from_pandas=True))


def first_unfit(convert: Callable[[int], object], count: int) -> int | None:
    """The row at which a conversion of the first rows begins to fail; None if it does so without any row.

    Args:
        convert: converts as many rows.
        count: of rows that cannot be converted.
    """
    good, bad = -1, count
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            convert(middle)
            good = middle
        except UNFIT:
            bad = middle
    return bad - 1 if bad else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"


def _one_chunk(array: Any) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _same_names(names: Iterable[str], contract: Contract) -> None:
    given = Counter(names)
    missing = [name for name in contract.names if name not in given]
    extra = [name for name in given if name not in contract.by_name]
    doubled = sorted(name for name, count in given.items() if count > 1)
    if missing or extra or doubled:
        faults = [
            f"{label} {', '.join(map(repr, found))}"
            for label, found in (("misses", missing), ("does not know", extra), ("was given twice", doubled))
            if found
        ]
        raise ContractViolation(
            f"{contract.asset} {' and '.join(faults)}: return exactly the columns of the contract "
            f"({', '.join(contract.names)}). Nothing was written."
        )


def _fit(array: pa.Array, field: pa.Field, column: Column, contract: Contract, row: int) -> pa.Array:
    """The values in the column's type, or a refusal.

    Args:
        field: the array's, as it was given.
        row: of the data at which the array begins.
    """
    kind = plain_type(field, contract.asset)
    try:
        # Whoever made the array need not have looked: text may be no UTF-8, and a store would tell only later.
        array.validate(full=True)
        return _fitted(_plain(array, kind), column, contract, row)
    except ContractViolation:
        raise
    except UNFIT as fault:
        given, array = array.type, _spread(array)

        def first(count: int) -> None:
            array[:count].validate(full=True)
            _fitted(_plain(array[:count], kind), column, contract, row)

        bad = first_unfit(first, len(array))
        if bad is None:  # rows of what is nested share their values, also those of a part of them
            bad = next((n for n in range(len(array)) if not _is_readable(array, n)), None)
        shown, place = ([], None) if bad is None else (_told(array, [bad]), row + bad)
        raise _wrong_type(contract, column, given, str(fault), shown, place) from fault


def _spread(array: pa.Array) -> pa.Array:
    """An array whose rows are told apart: what is wrong with a dictionary is wrong with every row of it."""
    if pa.types.is_dictionary(array.type):
        with suppress(*UNFIT):  # places beyond the dictionary's end, which cannot be looked up
            return pa.DictionaryArray.from_arrays(array.indices, array.dictionary).dictionary_decode()
    return array


def _told(array: pa.Array, rows: Iterable[int]) -> Iterator[Any]:
    """Values for a sentence: the bytes of what is no text, the number that stands for a time beyond all years."""
    for row in rows:
        if _is_readable(array, row):
            yield array[row].as_py()
        elif not pa.types.is_nested(array.type):
            yield pc.cast(array.slice(row, 1), pa.binary() if _is_text(array.type) else pa.int64())[0].as_py()


def _is_readable(array: pa.Array, row: int) -> bool:
    try:
        array[row].as_py()
    except UNFIT:
        return False
    return True


def _fitted(array: pa.Array, column: Column, contract: Contract, row: int) -> pa.Array:
    target = ARROW_TYPES[column.type]
    nested = column.type == "json" and pa.types.is_nested(array.type)
    if array.type != target and not nested:
        if not fits(array.type, column.type):
            values = _told(array, (n for n in range(len(array)) if array[n].is_valid))
            raise _wrong_type(contract, column, array.type, "", values)
        try:
            array = _cast(array, target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as fault:
            unfit = list(islice(_unfit(array, target), SHOWN_VALUES))
            first = row + unfit[0] if unfit else None
            raise _wrong_type(contract, column, array.type, str(fault), _told(array, unfit), first) from fault
    if column.type == "json":
        # Raises where a name stands twice: in a map, in a struct.
        return pa.array(canonical_all(array.to_pylist(maps_as_pydicts="strict")), pa.string())
    return array


def plain_type(field: pa.Field, asset: str) -> pa.DataType:
    """A column's type without encoding by a dictionary, and without an extension where that is one that is kept.

    Raises:
        ContractViolation: an extension type, in whatever depth, that would lose its meaning.
    """
    if unknown := _unknown_extension(field):
        raise ContractViolation(
            f"{asset}: column {field.name!r} is of the extension type {unknown!r}, whose meaning no store keeps: convert "
            "it to text or numbers, or its parts to columns of their own. Nothing was written."
        )
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if isinstance(kind, pa.BaseExtensionType):
        return _EXTENSIONS[kind.extension_name] or kind.storage_type
    return kind


def _unknown_extension(field: pa.Field) -> str | None:
    """Name of an extension type within a column's type whose meaning is not kept."""
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        several = isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) != 1  # a vector has no rows
        return None if kind.extension_name in _EXTENSIONS and not several else kind.extension_name
    # One that pyarrow does not know comes as its storage, and is named beside it.
    if name := (field.metadata or {}).get(b"ARROW:extension:name"):
        return name.decode(errors="replace")
    if pa.types.is_dictionary(kind):
        return _unknown_extension(pa.field("", kind.value_type))
    return next(filter(None, (_unknown_extension(kind.field(n)) for n in range(kind.num_fields))), None)


def _plain(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values of an encoded or extension array in its `plain_type`."""
    if pa.types.is_dictionary(array.type):
        if pa.types.is_string_view(
            array.type.value_type
        ):  # of which pyarrow 25 cannot take values by their number
            text = pc.cast(array.dictionary, pa.large_string())
            array = pa.DictionaryArray.from_arrays(array.indices, text)
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage if array.type.storage_type == kind else pc.cast(array.storage, kind)
    return array


def fits(given: pa.DataType, wanted: ColumnType) -> bool:
    """Whether a column of a type may be given for one of a contract's; each of its values is looked at later."""
    nested = wanted == "json" and pa.types.is_nested(given)
    return nested or pa.types.is_null(given) or _lossless(given, wanted)


def _unfit(array: pa.Array, target: pa.DataType) -> Iterator[int]:
    """Places of those values that cannot be cast."""
    for n in range(len(array)):
        try:
            _cast(array.slice(n, 1), target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            yield n


def _cast(array: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(array.type):
        array = pc.cast(array, pa.list_(array.type.value_type))
    fit = pc.cast(array, target)
    if pa.types.is_decimal(array.type) and pa.types.is_floating(target):
        # A decimal such as SQL's 0.1 becomes the double that stands for it, one of more digits than a double has
        # would become another number. Arrow's way back is exact for few digits behind the point only.
        back = pc.cast(fit, array.type, safe=False)
        differs = pc.call_function("not_equal", [back, array])
        for value, double in zip(array.filter(differs), fit.filter(differs), strict=True):
            if Decimal(repr(double.as_py())) != value.as_py():
                raise pa.ArrowInvalid("it has more digits than a double holds")
    return fit


def _lossless(given: pa.DataType, wanted: ColumnType) -> bool:
    """Whether values may be cast; `pc.cast` then still refuses those that do not fit."""
    match wanted:
        case "string" | "json":
            return _is_text(given)
        case "int64":
            return pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_decimal(given)
        case "float64":
            return pa.types.is_floating(given) or pa.types.is_integer(given) or pa.types.is_decimal(given)
        case "timestamp":
            return pa.types.is_timestamp(given) and given.tz is not None
        case "date":
            return pa.types.is_date(given)
        case "vector":
            return _is_list(given) and pa.types.is_floating(given.value_type)
    return False


def _is_text(given: pa.DataType) -> bool:
    return pa.types.is_large_string(given) or pa.types.is_string_view(given) or pa.types.is_string(given)


def _is_list(given: pa.DataType) -> bool:
    return pa.types.is_list(given) or pa.types.is_large_list(given) or pa.types.is_fixed_size_list(given)


def _wrong_type(
    contract: Contract,
    column: Column,
    given: Any,
    detail: str,
    values: Iterable[Any] = (),
    row: int | None = None,
) -> ContractViolation:
    """The refusal, with the first of the values, and the row where the first of them stands."""
    naive = isinstance(given, pa.DataType) and pa.types.is_timestamp(given) and given.tz is None
    remedy = "state the time zone of the values, UTC for instance" if naive else "convert it upstream"
    if contract.asset_key and not naive:  # inferred
        remedy += ", or name another type for it in the metadata 'dagster/column_schema'"
    place = "" if row is None else f"row {row:,}, counted from 0"
    reason = "; ".join(filter(None, [*detail.splitlines()[:1], place]))
    shown = ", ".join(shown_value(value) for value in islice(values, SHOWN_VALUES))
    return ContractViolation(
        f"{contract.asset}: column {column.name!r} is {given} and does not fit {column.type}"
        f"{f' ({reason})' if reason else ''}{f'; it holds {shown}' if shown else ''}: {remedy}. Nothing was written."
    )


def recast(reader: pa.RecordBatchReader, schema: pa.Schema) -> pa.RecordBatchReader:
    """What a store returned, in the types of a contract; the store's own types are known to fit."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            arrays = []
            for field in schema:
                array = batch.column(field.name)
                array = array.storage if isinstance(array, pa.ExtensionArray) else array
                arrays.append(array if array.type == field.type else pc.cast(array, field.type))
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def vectors_to_text(vectors: pa.Array) -> pa.Array:
    """Vectors as `[0.5,1,-2]`, each number in the shortest form that reads back the same."""
    numbers = pc.cast(vectors, pa.list_(pa.string()))
    joined = pc.call_function("binary_join", [numbers, pa.scalar(",")])
    text = pc.call_function(
        "binary_join_element_wise", [pa.scalar("["), joined, pa.scalar("]"), pa.scalar("")]
    )
    return (
        text
        if not vectors.null_count
        else pc.call_function("if_else", [vectors.is_null(), pa.scalar(None, pa.string()), text])
    )


def vectors_from_text(text: pa.Array) -> pa.Array:
    """The vectors that `vectors_to_text` wrote."""
    inner = pc.call_function("utf8_slice_codeunits", [text], pc.SliceOptions(1, -1))
    parts = pc.call_function("split_pattern", [inner], pc.SplitPatternOptions(","))
    return pc.cast(parts, ARROW_TYPES["vector"])
