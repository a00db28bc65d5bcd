"""Rows of SQLite's tables as Arrow batches, in both directions.

Times are ISO 8601 text in UTC with microseconds, JSON and vectors are text, so that the file can be read with any
tool.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Column, ColumnType, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import first_date, qualified, quote_identifier, quote_literal, utc_text
from ml_assets.stores.sqlite.ddl import columns_of, folded, is_required, rebuild, table_sql
from ml_assets.tables.arrow_types import (
    ARROW_TYPES,
    arrow_schema,
    never_written,
    vectors_from_text,
    vectors_to_text,
)
from ml_assets.tables.staging import windows_sql
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    import sqlite3

_READ_ROWS = 20_000


def found_kinds(connection: "sqlite3.Connection", table: str) -> dict[str, tuple[ColumnType | None, str]]:
    """Logical type, if there is one, and SQLite's of the columns that another tool made.

    A type that is declared binds nobody, and the result of an expression has none: the values tell.
    """
    declared = {name: kind.upper() for name, (kind, _) in columns_of(connection, table).items()}
    if not declared:
        return {}
    kinds = ", ".join(f"group_concat(DISTINCT typeof({quote_identifier(name)}))" for name in declared)
    found = connection.execute(f"SELECT {kinds} FROM {qualified('main', table)}").fetchone()
    return {
        name: _found_kind(said, set(str(values or "null").split(",")) - {"null"})
        for (name, said), values in zip(declared.items(), found, strict=True)
    }


def _found_kind(declared: str, values: set[str]) -> tuple[ColumnType | None, str]:
    if not values:
        affinities = {"INT": "integer", "REAL": "real", "FLOA": "real", "DOUB": "real"}
        values = {kind for mark, kind in affinities.items() if mark in declared} or {"text"}
    told = f"{declared} with {' and '.join(sorted(values))}"
    if values == {"integer"}:
        return ("bool" if declared.startswith("BOOL") else "int64"), told
    if values <= {"integer", "real"}:
        return "float64", told
    if values == {"text"}:
        return ("json" if declared == "JSON" else "string"), told
    return None, told


def select(
    connection: "sqlite3.Connection",
    contract: Contract,
    columns: Sequence[str],
    windows: Sequence[Window],
    table: str = "",
) -> Iterator[pa.RecordBatch]:
    """Rows of some windows.

    Args:
        table: the name of one that another tool made; the contract's if empty.
    """

    schema = arrow_schema(contract, columns)
    where = windows_sql(contract, windows, time_literal(contract))
    values = ", ".join(
        [qualified("held", name) for name in columns] if table else _selected(connection, contract, columns)
    )
    source = qualified("main", table) if table else table_sql(contract)
    cursor = connection.execute(f"SELECT {values} FROM {source} AS held WHERE {where}")
    while rows := cursor.fetchmany(_READ_ROWS):
        cells = zip(columns, zip(*rows, strict=True), strict=True)
        arrays = [_decoded(list(column), contract.by_name[name]) for name, column in cells]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _selected(connection: "sqlite3.Connection", contract: Contract, columns: Sequence[str]) -> list[str]:
    """The columns in SQL; null for those that the contract has gained since the table was last written.

    Raises:
        LookupError: the table was never written.
        ContractViolation: a column is missing that may not be null; says what to do.
    """

    existing = {folded(name) for name in columns_of(connection, contract.table)}
    if not existing:
        raise never_written(contract.asset)
    # The partition column is compared with, and SQLite takes the "name" of none for a text.
    for name in [*columns, *filter(None, [contract.partition_column])]:
        if folded(name) not in existing and is_required(contract, contract.by_name[name]):
            raise ContractViolation(
                f"{contract.asset}: the table in the file has no column {name!r}, which the contract does not allow to "
                f"be null; run {rebuild(connection, contract)}, or undo the change."
            )
    return [qualified("held", name) if folded(name) in existing else "NULL" for name in columns]


def time_literal(contract: Contract) -> Callable[[datetime], str]:
    """Text of a moment as the partition column holds it; text order is time order."""
    column = contract.by_name[contract.partition_column] if contract.partition_column else None
    if column is not None and column.type == "date":
        return lambda moment: quote_literal(first_date(moment))
    return lambda moment: quote_literal(utc_text(moment))


def encoded(batch: pa.RecordBatch, contract: Contract) -> Iterable[tuple[Any, ...]]:
    """Rows as SQLite's values."""
    columns = [_encode(batch.column(column.name), column) for column in contract.columns]
    return zip(*columns, strict=True)


def _encode(array: pa.Array, column: Column) -> list[Any]:

    if column.type == "timestamp":
        array = pc.call_function("strftime", [array], pc.StrftimeOptions("%Y-%m-%dT%H:%M:%SZ"))
    elif column.type == "date":
        array = pc.cast(array, pa.string())
    elif column.type == "bool":
        array = pc.cast(array, pa.int8())
    elif column.type == "vector":
        array = vectors_to_text(array)
    return array.to_pylist()


def _decoded(cells: list[Any], column: Column) -> pa.Array:

    target = ARROW_TYPES[column.type]
    if column.type in ("timestamp", "date"):
        return pc.cast(pa.array(cells, pa.string()), target)
    if column.type == "bool":
        return pc.cast(pa.array(cells, pa.int8()), target)
    if column.type == "vector":
        return vectors_from_text(pa.array(cells, pa.string()))
    return pa.array(cells, target)
