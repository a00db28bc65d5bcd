"""A table's rows to a file of somebody's own: Parquet, CSV or a table in a DuckDB file.

The file is written beside its place and then renamed, so that a killed export leaves what was there before.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
from pyarrow import types

from ml_assets.errors import Refusal
from ml_assets.lib.sql import quote_identifier
from ml_assets.tables.arrow_types import ARROW_TYPES, vectors_to_text
from ml_assets.tables.progress import hide_progress_bar

Write = Callable[[pa.RecordBatch], object]


def export(rows: Callable[[], pa.RecordBatchReader], table: str, path: Path, overwrite: bool = False) -> int:
    """Write rows to a file, a batch at a time; what its ending says: .parquet, .csv or .duckdb.

    Args:
        rows: gives the stream of rows once it is known that they can be written.
        table: name of the table in a DuckDB file.
        path: the file.
        overwrite: replace a file that is there, as a whole.

    Returns:
        how many rows.

    Raises:
        Refusal: another ending, no such folder, or a file that is there.
    """
    if (kind := WRITERS.get(path.suffix.lower())) is None:
        raise Refusal(
            f"{path} is of no kind that can be written: name a file that ends in {', '.join(WRITERS)}."
        )
    if not path.parent.is_dir():
        raise Refusal(
            f"There is no folder {path.parent} to write {path.name} to: make it, or name another path."
        )
    if path.exists() and (path.is_dir() or not overwrite):
        raise Refusal(
            f"{path} is there already: name another path, or say that it may be replaced (overwrite=True, --overwrite)."
        )
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    stream, count = rows(), 0
    try:
        with kind(draft, stream.schema, table) as write:
            for batch in stream:
                write(batch)
                count += batch.num_rows
        draft.replace(path)
    except BaseException:
        for left in (draft, draft.with_name(f"{draft.name}.wal")):
            with suppress(FileNotFoundError):
                left.unlink()
        raise
    return count


@contextmanager
def _parquet(path: Path, schema: pa.Schema, table: str) -> Iterator[Write]:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield writer.write_batch


@contextmanager
def _csv(path: Path, schema: pa.Schema, table: str) -> Iterator[Write]:
    with path.open("wb") as file, csv_writer(file, schema) as write:
        yield write


@contextmanager
def csv_writer(file: object, schema: pa.Schema) -> Iterator[Write]:
    """Writes batches as CSV with a header; vectors as `[0.5,1,-2]`, what CSV knows no form of as Python shows it.

    Args:
        file: open for writing bytes.
    """
    from pyarrow import csv

    flat = pa.schema([field if _is_plain(field.type) else field.with_type(pa.string()) for field in schema])
    with csv.CSVWriter(file, flat) as writer:  # pyright: ignore[reportArgumentType]

        def write(batch: pa.RecordBatch) -> None:
            columns = [_flat(column) for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))

        yield write


def _flat(column: pa.Array) -> pa.Array:
    if column.type == ARROW_TYPES["vector"]:
        return vectors_to_text(column)
    if _is_plain(column.type):
        return column
    return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())


def _is_plain(kind: pa.DataType) -> bool:
    asked = (
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_string,
        types.is_date,
        types.is_timestamp,
    )
    return any(is_it(kind) for is_it in asked)


@contextmanager
def _duckdb(path: Path, schema: pa.Schema, table: str) -> Iterator[Write]:
    import duckdb

    name = quote_identifier(table)
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET memory_limit = '1GB'")
        hide_progress_bar(connection)
        connection.register("empty", schema.empty_table())
        connection.execute(f"CREATE TABLE {name} AS FROM empty")
        connection.unregister("empty")

        def write(batch: pa.RecordBatch) -> None:
            connection.register("batch", pa.Table.from_batches([batch]))
            connection.execute(f"INSERT INTO {name} FROM batch")
            connection.unregister("batch")

        yield write


WRITERS: dict[str, Callable[[Path, pa.Schema, str], AbstractContextManager[Write]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".duckdb": _duckdb,
}
"""By the ending of the file."""
