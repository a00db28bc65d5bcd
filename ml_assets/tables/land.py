"""Hand rows to the graph: a file in a landing folder, whole or not at all.

What a program writes beside the graph would be gone at the next rebuild; what it lands is carried on to every
store. Whether the rows keep their contract is judged when they are taken in, as with everybody's files.
"""

import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml_assets.contracts import STREAMS
from ml_assets.lib.canonical_json import canonical
from ml_assets.tables.arrow_types import was_read
from ml_assets.tables.validation import shown_value

Rows = pa.Table | pa.RecordBatchReader | Iterable[Mapping[str, Any]]
"""Arrow, which is written as Parquet batch by batch, or mappings, which become JSON lines."""


def land(landing: Path, stream: str, rows: Rows) -> Path:
    """Write rows into a stream's landing folder; returns the file.

    Until it is whole its name ends in `.partial`, which intake leaves alone.

    Args:
        landing: folder of the streams' folders, `ML_ASSETS_HOME/landing`.
        rows: many at once are one file; a file for each row would be slow to take in.

    Raises:
        ValueError: there is no such stream, a time has no time zone, a value has no JSON, text is no UTF-8, or a
            reader was read before.
    """
    if stream not in STREAMS:
        raise ValueError(f"there is no stream {stream!r}; there are {', '.join(STREAMS)}")
    arrow = isinstance(rows, pa.Table | pa.RecordBatchReader)
    folder = landing / stream
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex}.{'parquet' if arrow else 'jsonl'}"
    fresh = path.with_name(f"{path.name}.partial")
    try:
        _write_parquet(fresh, rows) if arrow else _write_lines(fresh, rows)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return path


def _write_parquet(path: Path, rows: pa.Table | pa.RecordBatchReader) -> None:
    import pyarrow.parquet as pq

    if isinstance(rows, pa.RecordBatchReader) and was_read(rows):
        raise ValueError(
            "the reader has been read from already, so that rows would be missing; give a new one"
        )
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for batch in rows.to_batches() if isinstance(rows, pa.Table) else rows:
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column.validate(
                        full=True
                    )  # nobody could read the file, because of one text that is no UTF-8
                except pa.ArrowInvalid as fault:
                    raise ValueError(
                        f"{name} cannot be landed ({fault}); mend the value. No row was landed"
                    ) from fault
            writer.write_batch(batch)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    import orjson

    with path.open("wb") as file:
        for row in rows:
            plain = {name: json_value(name, value) for name, value in row.items()}
            try:
                file.write(orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE))
            except TypeError as fault:
                told = ", ".join(
                    f"{name} {shown_value(value)}" for name, value in plain.items() if _is_odd(value)
                )
                raise ValueError(
                    f"{told or plain} has no JSON ({fault}); mend the value. No row was landed"
                ) from fault


def _is_odd(value: Any) -> bool:
    """Whether it is such a value that a row cannot be written."""
    import orjson

    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False


def json_value(name: str, value: Any) -> Any:
    """A value as JSON lines have it.

    Raises:
        ValueError: a time has no time zone, or an object is no JSON.
    """
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError(f"{name} {value.isoformat()} has no time zone; give an aware datetime")
    if isinstance(value, Mapping | list | tuple):
        return canonical(value)
    # As text: JSON has no NaN and no infinities, and orjson would make nulls of them.
    return str(value) if isinstance(value, float) and value - value != 0 else value
