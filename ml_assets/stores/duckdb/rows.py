"""Rows of the lake's tables as Arrow batches, in both directions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from ml_assets.contracts import Column, ColumnType, Contract
from ml_assets.lib.sql import qualified, quote_identifier, quote_literal
from ml_assets.stores.duckdb.ddl import columns_of, missing_columns, table_sql
from ml_assets.tables.arrow_types import arrow_schema, batch_rows, never_written, recast
from ml_assets.tables.duckdb_types import DUCKDB_TYPES
from ml_assets.tables.found import Found, Place, found_table, kinds_of
from ml_assets.tables.staging import Buckets, Staged, measure, windows_sql
from ml_assets.tables.validation import WHOLE, Window

if TYPE_CHECKING:
    from collections.abc import Generator

    import duckdb

    from ml_assets.stores.duckdb import Lake

_FOUND: dict[str, ColumnType] = {"JSON": "json", "HUGEINT": "int64", "UHUGEINT": "int64"}
"""Types of columns that another tool made, where Arrow's does not tell: the sum of integers is a HUGEINT."""

_INSERT_BYTES = 128 * 2**20
"""Size of the rows of one INSERT."""

_MORSEL_ROWS = 16_384
"""Rows that a thread takes at a time: with whole batches one thread gets two thirds of a day of 100,000."""

_T = TypeVar("_T")


def time_literal(moment: datetime) -> str:
    """A moment, to compare the partition column with."""
    # Not strftime, which writes the year 999 with three digits.
    return quote_literal(moment.astimezone(UTC).isoformat(" ", "microseconds")) + "::TIMESTAMPTZ"


def select_sql(
    contract: Contract, columns: Sequence[str], windows: Sequence[Window], missing: Iterable[Column] = ()
) -> str:
    """The rows of some windows; `missing` columns, which the table does not have, as null."""
    names, source = ", ".join(map(quote_identifier, columns)), table_sql(contract)
    if nulls := ", ".join(
        f"NULL::{DUCKDB_TYPES[each.type]} AS {quote_identifier(each.name)}" for each in missing
    ):
        source = f"(SELECT *, {nulls} FROM {source})"
    return f"SELECT {names} FROM {source} WHERE {windows_sql(contract, windows, time_literal)}"


def selected(
    lake: "Lake", contract: Contract, columns: Sequence[str], window: Window, ask: Callable[[str], _T]
) -> _T:
    """What `ask` makes of a SELECT; columns that the table does not have yet are null in every row.

    Raises:
        LookupError: the table was never written.
        ContractViolation: a column is missing that may not be null; says what to do.
    """
    import duckdb

    try:
        try:
            return ask(select_sql(contract, columns, [window]))
        except duckdb.BinderException:
            # Only now: to look at the columns beforehand takes a third of the time of a small read.
            with lake.get_connection() as connection:
                [existing] = columns_of(connection, (contract.schema, contract.table))
            missing = missing_columns(contract, existing, columns)
            if not missing:
                raise
            return ask(select_sql(contract, columns, [window], missing))
    except duckdb.CatalogException as fault:
        if contract.table in str(fault):
            raise never_written(contract.asset) from fault
        raise


def read(lake: "Lake", contract: Contract, columns: Sequence[str], window: Window) -> pa.RecordBatchReader:
    """The rows of a window as a stream that owns its connection."""
    return recast(selected(lake, contract, columns, window, lake.reader), arrow_schema(contract, columns))


def found(lake: "Lake", place: Place) -> Found | None:
    """A table that another tool made; None if there is none."""
    import duckdb

    schema = place.schema or Contract(place.asset, "", (), ()).schema
    source = qualified("lake", schema, place.table)

    def read(contract: Contract, columns: Sequence[str], window: Window) -> "Generator[pa.RecordBatch]":
        names = ", ".join(map(quote_identifier, columns))
        where = windows_sql(contract, [window], time_literal)
        yield from lake.reader(f"SELECT {names} FROM {source} WHERE {where}")

    try:
        types = lake.reader(f"DESCRIBE SELECT * FROM {source}").read_all().to_pylist()
        kinds = kinds_of(place.asset, lake.reader(f"SELECT * FROM {source} LIMIT 0").schema)
    except duckdb.CatalogException:
        return None
    for row in types:
        if (kind := _FOUND.get(row["column_type"])) is not None:
            kinds[row["column_name"]] = kind, row["column_type"]
    return found_table(place, kinds, read)


def measured(
    connection: "duckdb.DuckDBPyConnection",
    contract: Contract,
    windows: Sequence[Window],
    missing: Iterable[Column] = (),
) -> Buckets:
    """What the partitions in some windows hold, read and hashed.

    Args:
        missing: columns that the table does not have yet.
    """
    rows = connection.execute(select_sql(contract, contract.names, windows, missing))
    return measure(recast(rows.to_arrow_reader(batch_rows(contract)), arrow_schema(contract)), contract)


def live(connection: "duckdb.DuckDBPyConnection", contract: Contract) -> Buckets:
    """What a table holds now; nothing if it is not there."""
    [existing] = columns_of(connection, (contract.schema, contract.table))
    if not existing:
        return {}
    return measured(connection, contract, [WHOLE], missing_columns(contract, existing, contract.names))


def insert(
    connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: Staged, buckets: set[int]
) -> None:
    """Insert the staged rows of some partitions."""
    names = ", ".join(map(quote_identifier, contract.names))
    for batches in _portions(staged, buckets):
        # A stream: what is registered stays with the transaction to its end.
        morsels = chain.from_iterable(map(_morsels, batches))
        rows = pa.RecordBatchReader.from_batches(arrow_schema(contract), morsels)
        connection.register("staged_rows", rows)
        try:
            connection.execute(f"INSERT INTO {table_sql(contract)} ({names}) SELECT {names} FROM staged_rows")
        finally:
            connection.unregister("staged_rows")


def _portions(staged: Staged, buckets: set[int]) -> Iterator[Iterator[pa.RecordBatch]]:
    """What one INSERT writes: the rows of a few partitions, or a part of a large one's.

    DuckDB keeps all that it reads of Arrow until a statement ends, beyond its own memory limit.
    """
    for group in _groups(staged, buckets):
        batches = staged.batches(group)
        for first in batches:
            yield chain([first], _taken(batches, 2 * _INSERT_BYTES - first.nbytes))


def _taken(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """The next batches, until they are this size."""
    while size > 0 and (batch := next(batches, None)) is not None:
        size -= batch.nbytes
        yield batch


def _morsels(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts that share its memory."""
    return (batch.slice(start, _MORSEL_ROWS) for start in range(0, batch.num_rows, _MORSEL_ROWS))


def _groups(staged: Staged, buckets: set[int]) -> Iterator[set[int]]:
    """The partitions in order, as many at a time as make up one INSERT."""
    group: set[int] = set()
    size = 0
    for bucket in sorted(buckets & staged.buckets.keys()):
        more = staged.buckets[bucket].bytes
        if group and size + more > _INSERT_BYTES:
            yield group
            group, size = set(), 0
        group.add(bucket)
        size += more
    if group:
        yield group
