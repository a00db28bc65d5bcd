"""Landing files of the demo, in the three formats that a landing folder takes.

A file appears under its name only when it is whole: until then its name ends in `.partial`.
"""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ml_assets.contracts import STREAMS, Column
from ml_assets.tables.arrow_types import ARROW_TYPES

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")
JUDGED = ("performance", "predictions")
"""Streams that tell how a day's models do on the next day."""

Row = Mapping[str, Any]


def write(landing: Path, stream: str, name: str, rows: Sequence[Row], form: Format) -> str:
    """Write rows of a stream, all or nothing, replacing a file of the same name.

    Args:
        landing: folder of the streams' folders.
        name: file name without ending.
        rows: by column name, each a subset of the stream's columns; JSON columns hold objects.

    Returns:
        The file's path relative to `landing`.
    """
    columns = STREAMS[stream].columns
    path = landing / stream / f"{name}.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.partial")
    _WRITERS[form](fresh, columns, rows)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(path)
    return path.relative_to(landing).as_posix()


def format_of(day: int, stream: str) -> Format:
    """Every stream comes in every format, changing by the day."""
    return FORMATS[(day + list(STREAMS).index(stream)) % len(FORMATS)]


def name_of(today: date, stream: str) -> str:
    """File name without ending of what the training of a day leads to."""
    # Events and predictions are of the day after the training.
    day = today + timedelta(days=1) if stream in JUDGED else today
    return f"demo-{day.isoformat()}"


def files_of(day: int, today: date, days: int) -> list[str]:
    """Every file that day number `day` of `days` writes, relative to the landing folder."""
    streams = [stream for stream in STREAMS if day < days or stream not in JUDGED]
    return [f"{stream}/{name_of(today, stream)}.{format_of(day, stream)}" for stream in streams]


def _write_jsonl(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    with path.open("wb") as file:
        for row in rows:
            document = {column.name: _plain(row.get(column.name)) for column in columns}
            file.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))


def _write_csv(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in columns])
        writer.writerows([_text(row.get(column.name), column) for column in columns] for row in rows)


def _write_parquet(path: Path, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    arrays = {
        column.name: pa.array([_json(row.get(column.name), column) for row in rows], ARROW_TYPES[column.type])
        for column in columns
    }
    pq.write_table(pa.table(arrays), path, compression="zstd")


def _plain(value: Any) -> Any:
    return _stamp(value) if isinstance(value, datetime) else value


def _text(value: Any, column: Column) -> Any:
    return _plain(_json(value, column))


def _json(value: Any, column: Column) -> Any:
    return orjson.dumps(value).decode() if column.type == "json" and value is not None else value


def _stamp(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_WRITERS = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}
