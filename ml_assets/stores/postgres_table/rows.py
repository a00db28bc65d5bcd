"""Rows of PostgreSQL's tables as Arrow batches, by COPY in both directions."""

import io
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.canonical_json import restored_all
from ml_assets.lib.sql import ALWAYS, quote_identifier, quote_literal
from ml_assets.stores.postgres_table.ddl import columns_of, is_required, table_sql
from ml_assets.stores.postgres_table.evolution import DIALECT
from ml_assets.stores.postgres_table.statements import run
from ml_assets.tables.arrow_types import arrow_schema, never_written, vectors_from_text, vectors_to_text
from ml_assets.tables.evolution import valueless
from ml_assets.tables.staging import windows_sql
from ml_assets.tables.validation import WHOLE, Window

if TYPE_CHECKING:
    import psycopg

_READ_BYTES = 4 * 2**20


def copy_in(
    connection: "psycopg.Connection", table: str, contract: Contract, batches: Iterable[pa.RecordBatch]
) -> None:
    """Load batches by COPY."""
    import pyarrow.csv

    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    columns = ", ".join(map(quote_identifier, contract.names))
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT csv)"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for batch in batches:
            text = io.BytesIO()
            pyarrow.csv.write_csv(_vectors_as_text(batch, contract), text, options)
            copy.write(text.getbuffer())


def copy_staged(
    connection: "psycopg.Connection", table: str, contract: Contract, batches: Iterable[pa.RecordBatch]
) -> None:
    """Load batches by COPY into a table that was made with the contract's own types.

    Vectors go as bytes, which takes a third of the time of their digits. That fits no column of another type, as those
    of somebody's own table may be.
    """
    if not any(column.type == "vector" for column in contract.columns):
        copy_in(connection, table, contract, batches)
        return
    columns = ", ".join(map(quote_identifier, contract.names))
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT binary)"
    count = struct.pack(">h", len(contract.columns))
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.write(_BINARY_HEAD)
        for batch in batches:
            fields = [_BINARY[column.type](batch.column(column.name)) for column in contract.columns]
            rows = zip(repeat(count, batch.num_rows), *fields, strict=True)
            copy.write(b"".join(chain.from_iterable(rows)))
        copy.write(_BINARY_END)


_BINARY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EPOCH_US, _EPOCH_DAYS = 946_684_800_000_000, 10_957
"""PostgreSQL counts from 2000 on."""


def _fixed(format: str, kind: pa.DataType, epoch: int = 0) -> Callable[[pa.Array], list[bytes]]:
    packed = struct.Struct(f">i{format}")
    size = packed.size - 4

    def fields(array: pa.Array) -> list[bytes]:
        return [
            _NULL if value is None else packed.pack(size, value - epoch)
            for value in array.cast(kind).to_pylist()
        ]

    return fields


def _texts(array: pa.Array, before: bytes = b"") -> list[bytes]:
    values = (None if value is None else before + value.encode() for value in array.to_pylist())
    return [_NULL if value is None else struct.pack(">i", len(value)) + value for value in values]


def _vectors(array: pa.Array) -> list[bytes]:
    """As pgvector receives them: how many numbers, two bytes of nothing, the numbers."""
    numbers = memoryview(array.values.to_numpy(zero_copy_only=False).astype(">f4").tobytes())
    ends = array.offsets.to_pylist()
    head = struct.Struct(">iHH")
    return [
        b"".join((head.pack(4 + 4 * (end - start), end - start, 0), numbers[4 * start : 4 * end]))
        if there
        else _NULL
        for (start, end), there in zip(pairwise(ends), array.is_valid().to_pylist(), strict=True)
    ]


_BINARY: Mapping[str, Callable[[Any], list[bytes]]] = {
    "string": _texts,
    "json": partial(_texts, before=b"\x01"),  # the version of jsonb's own format
    "int64": _fixed("q", pa.int64()),
    "float64": _fixed("d", pa.float64()),
    "bool": _fixed("?", pa.bool_()),
    "timestamp": _fixed("q", pa.int64(), _EPOCH_US),
    "date": _fixed("i", pa.int32(), _EPOCH_DAYS),
    "vector": _vectors,
}
"""Values of a column as COPY takes them in binary, each after its length, by the contract's types."""


def read(
    connection: "psycopg.Connection",
    contract: Contract,
    columns: Sequence[str],
    window: Window = WHOLE,
    condition: str = ALWAYS,
    source: str = "",
) -> Iterator[pa.RecordBatch]:
    """Rows by COPY, streamed, in the contract's types. Nothing is read of columns that were not asked for.

    Columns that the contract has gained since the table was last written are null in every row.

    The transaction's statement time-out holds for each block of rows anew: it counts the time that the server
    takes, not the time that the consumer takes.

    Args:
        source: what to select from; the contract's table if empty.

    Raises:
        LookupError: there is no such table.
        ContractViolation: the table lacks a column that may not be null.
        TimeoutError: a block took longer.
    """
    source = source or _source(connection, contract, columns)
    schema = arrow_schema(contract, columns)
    chosen = [contract.by_name[name] for name in columns]
    selected = ", ".join(
        f"{quote_identifier(c.name)}{'::text' if c.type in ('json', 'vector') else ''}" for c in chosen
    )
    where = f"{windows_sql(contract, [window], time_literal)} AND {condition}"
    statement = f"COPY (SELECT {selected} FROM {source} WHERE {where}) TO STDOUT (FORMAT csv)"
    limit_ms = _statement_timeout_ms(connection)
    run(connection, "SET LOCAL statement_timeout = 0")
    with closing(_blocks(connection, statement)) as blocks:
        while True:
            with _limited(connection, contract.asset, limit_ms / 1000):
                block = next(blocks, None)
            if block is None:
                break
            yield from _parsed(block, schema, chosen)
    run(connection, f"SET LOCAL statement_timeout = {limit_ms:d}")


def _source(connection: "psycopg.Connection", contract: Contract, columns: Sequence[str]) -> str:
    """What to select columns of a contract from: the table, and nulls for columns that it does not have yet."""
    existing = columns_of(connection, contract)
    if not existing:
        raise never_written(contract.asset)
    missing = [column for column in contract.columns if column.name not in existing]
    for column in missing:
        if is_required(contract, column) and column.name in (*columns, contract.partition_column):
            raise ContractViolation(valueless(contract, column, DIALECT))
    nulls = "".join(f", NULL AS {quote_identifier(column.name)}" for column in missing)
    return f"(SELECT *{nulls} FROM {table_sql(contract)}) AS complete" if missing else table_sql(contract)


def time_literal(moment: datetime) -> str:
    """A moment to compare the partition column with."""
    # Not strftime, which writes the year 999 with three digits.
    # With its type: a date would otherwise be compared with the literal's date alone.
    return quote_literal(moment.astimezone(UTC).isoformat(" ", "microseconds")) + "::timestamptz"


def _statement_timeout_ms(connection: "psycopg.Connection") -> int:
    found = run(
        connection, "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'"
    ).fetchone()
    return found[0] if found else 0


def _blocks(connection: "psycopg.Connection", statement: str) -> Generator[bytes]:
    """What COPY gives, as blocks of whole rows."""
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        block = bytearray()
        for row in copy:
            block += row
            if len(block) >= _READ_BYTES:
                yield bytes(block)
                block.clear()
        if block:
            yield bytes(block)


@contextmanager
def _limited(connection: "psycopg.Connection", asset: str, seconds: float) -> Iterator[None]:
    """Cancel what the connection waits for if the block takes longer; 0 is no limit."""
    import psycopg

    expired = threading.Event()

    def cancel() -> None:
        expired.set()
        connection.cancel_safe()

    timer = threading.Timer(seconds, cancel)
    timer.daemon = True
    if seconds:
        timer.start()
    try:
        yield
    except psycopg.errors.QueryCanceled as fault:
        if not expired.is_set():
            raise
        raise TimeoutError(
            f"{asset}: PostgreSQL gave no rows for longer than {seconds:g} s: read fewer, or raise "
            "ML_ASSETS_WRITE_TIMEOUT_S."
        ) from fault
    finally:
        timer.cancel()


def _vectors_as_text(batch: pa.RecordBatch, contract: Contract) -> pa.RecordBatch:
    """CSV has no lists: vectors in pgvector's own notation, [1,2,3]."""
    arrays = []
    for column in contract.columns:
        array = batch.column(column.name)
        if column.type == "vector":
            array = vectors_to_text(array)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, names=list(contract.names))


def _parsed(block: bytes, schema: pa.Schema, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """A block of whole CSV rows as batches."""
    import pyarrow.csv

    plain = {
        c.name: pa.string() if c.type in ("json", "vector") else schema.field(c.name).type for c in columns
    }
    table = pyarrow.csv.read_csv(
        io.BytesIO(block),
        pyarrow.csv.ReadOptions(column_names=list(plain), block_size=len(block) + 1),
        # A null that stands alone is an empty line.
        pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pyarrow.csv.ConvertOptions(
            column_types=plain,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    for batch in table.to_batches():
        arrays = [_restored(batch.column(column.name), column) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _restored(array: pa.Array, column: Column) -> pa.Array:
    if column.type == "json":
        return pa.array(restored_all(array.to_pylist()), pa.string())
    if column.type == "vector":
        return vectors_from_text(array)
    return array
