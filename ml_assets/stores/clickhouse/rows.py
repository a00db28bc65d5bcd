"""Rows of ClickHouse's tables as Arrow batches."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import first_date, quote_identifier, quote_literal
from ml_assets.stores.clickhouse.catalog import columns_of
from ml_assets.stores.clickhouse.ddl import ClickHouseDialect
from ml_assets.stores.clickhouse.stream import arrow_stream
from ml_assets.tables.arrow_types import arrow_schema, never_written, recast
from ml_assets.tables.evolution import valueless
from ml_assets.tables.staging import Buckets, measure, windows_sql
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


def read(
    client: "Client", contract: Contract, columns: Sequence[str], window: Window
) -> Iterator[pa.RecordBatch]:
    """Rows of a window.

    Raises:
        LookupError: the table was never written.
        ContractViolation: as `measured`.
    """
    held = columns_of(client, contract.table)
    if not held:
        raise never_written(contract.asset)
    _refuse_lacking(contract, held, columns, window)
    yield from select(client, contract, columns, contract.table, window, held)


def measured(client: "Client", contract: Contract, window: Window) -> Buckets:
    """What the partitions in a window hold, read and hashed.

    Raises:
        ContractViolation: the contract has gained a column that may not be null since the table was written.
    """
    held = columns_of(client, contract.table)
    if not held:
        return {}
    _refuse_lacking(contract, held, contract.names, window)
    return measure(select(client, contract, contract.names, contract.table, window, held), contract)


def select(
    client: "Client",
    contract: Contract,
    columns: Sequence[str],
    table: str,
    window: Window,
    held: Container[str],
) -> Iterator[pa.RecordBatch]:
    """Rows of a table; null stands for the columns that it does not have yet, as it will once they are added.

    Args:
        held: names of the columns that it has.
    """
    named = [(name, quote_identifier(name)) for name in columns]
    chosen = ", ".join(quoted if name in held else f"NULL AS {quoted}" for name, quoted in named)
    where = windows_sql(contract, [window], time_literal(contract))
    schema = arrow_schema(contract, columns)
    vectors = [contract.by_name[name] for name in columns if contract.by_name[name].type == "vector"]
    optional = [column.name for column in vectors if column.nullable]
    statement = f"SELECT {chosen} FROM {quote_identifier(table)} WHERE {where}"
    with arrow_stream(client, statement) as batches:
        for batch in batches:
            for rows in recast(pa.RecordBatchReader.from_batches(batch.schema, [batch]), schema):
                yield _empty_as_null(rows, optional)


def time_literal(contract: Contract) -> Callable[[datetime], str]:
    """A moment in SQL, to compare the partition column with."""
    column = contract.by_name[contract.partition_column] if contract.partition_column else None
    if column is not None and column.type == "date":
        return lambda moment: f"toDate32({quote_literal(first_date(moment))})"
    return lambda moment: f"toDateTime64({quote_literal(_utc(moment))}, 6, 'UTC')"


def _refuse_lacking(contract: Contract, held: Container[str], columns: Sequence[str], window: Window) -> None:
    """Refuse to read what the table's rows cannot have; what may be null they have as null, see `select`."""
    placing = contract.partition_column if not window.whole else None
    needed = (*columns, placing) if placing else columns
    for column in (contract.by_name[name] for name in needed if name not in held):
        if not column.nullable or column.name in (*contract.key, contract.partition_column):
            raise ContractViolation(valueless(contract, column, ClickHouseDialect()))


def _empty_as_null(batch: pa.RecordBatch, names: Iterable[str]) -> pa.RecordBatch:
    """An array cannot be Nullable, so that rows older than a column of vectors have `[]` for what is null elsewhere."""
    for name in names:
        vectors = batch.column(name)
        empty = pc.call_function("equal", [pc.call_function("list_value_length", [vectors]), pa.scalar(0)])
        if pc.call_function("any", [empty]).as_py():
            with_nulls = pc.call_function("if_else", [empty, pa.scalar(None, vectors.type), vectors])
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, batch.schema.field(place), with_nulls)
    return batch


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
