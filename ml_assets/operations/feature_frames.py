"""Entity frames: the labels that features are looked up for, as they are given.

What belongs here: reading them, as often as needed and a part at a time, and the sentences for what cannot be labels.
"""

import io
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from ml_assets.errors import Refusal
from ml_assets.lib.faults import one_sentence
from ml_assets.services.home import private_home
from ml_assets.tables.arrow_types import UNFIT, first_unfit, was_read

if TYPE_CHECKING:
    from ml_assets.resources.duckdb import DuckLakeResource

Rows = Callable[[], Iterable[pa.RecordBatch]]

_BATCH_ROWS = 65_536
_QUERY = re.compile(r"\s*(\(|(select|from|with)\b(?![\w.]))", re.IGNORECASE)
"""What a text begins with that is a query, unless there is a file of this name."""


class Frame:
    """Rows that can be read again and again.

    Args:
        schema: of the rows.
        rows: gives their batches, from the first one on.
        index: names of a DataFrame's index, which is no column.
    """

    def __init__(self, schema: pa.Schema, rows: Rows, index: Sequence[str] = ()) -> None:
        self.schema = schema
        self.index = tuple(index)
        self._rows = rows

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        """Some of the columns, in this order."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.RecordBatchReader.from_batches(
            schema, (batch.select(list(columns)) for batch in self._rows())
        )

    def parts(self, rows: int) -> Iterator[pa.Table]:
        """All columns, so many rows at a time."""
        held: list[pa.RecordBatch] = []
        count = 0
        for batch in self._rows():
            rest = batch
            while count + rest.num_rows >= rows:
                taken = rest.slice(0, rows - count)
                yield pa.Table.from_batches([*held, taken], self.schema)
                rest, held, count = rest.slice(taken.num_rows), [], 0
            if rest.num_rows:
                held.append(rest)
                count += rest.num_rows
        if held:
            yield pa.Table.from_batches(held, self.schema)


def frame_of(given: Any, lake: "DuckLakeResource") -> Frame:
    """The frame that is meant.

    Args:
        given: a DataFrame of pandas, what has Arrow's interface for streams (a Table, a RecordBatchReader, a DataFrame
            of polars), the path of a Parquet or CSV file, or a query of the lake.
        lake: answers the query.

    Raises:
        Refusal: it is none of these, cannot be read, or has two columns of one name.
    """
    if isinstance(given, str) and _is_query(given):
        frame = _spooled(lake.question(given), lake.home)
    elif isinstance(given, str | Path):
        frame = _of_file(Path(given), lake.home)
    elif (held := frame_in_memory(given, "entity frame", lake.home)) is not None:
        return held
    else:
        raise Refusal(
            f"The entity frame cannot be {type(given).__name__}: give a DataFrame of pandas or polars, a pyarrow Table "
            "or RecordBatchReader, the path of a Parquet or CSV file, or a SELECT over the lake."
        )
    _refuse_doubled(frame, "entity frame")
    return frame


def frame_in_memory(given: Any, what: str, home: str | None = None) -> Frame | None:
    """The frame that is meant by a DataFrame or by what has Arrow's interface for streams; None if it is neither.

    Args:
        what: what the sentences call it.
        home: in which a stream is kept, as it is read once; None for the system's temporary folder.

    Raises:
        Refusal: it cannot be read, was read already, or has two columns of one name.
    """
    if _is_pandas(given):
        frame = _of_pandas(given, what)
    elif isinstance(given, pa.Table | pa.RecordBatch):
        frame = _of_table(given if isinstance(given, pa.Table) else pa.Table.from_batches([given]))
    elif hasattr(given, "__arrow_c_stream__"):
        if isinstance(given, pa.RecordBatchReader) and was_read(given):
            raise Refusal(
                f"The {what} is a RecordBatchReader that has been read from already: give a new one, or a Table "
                "(reader.read_all()), which is read as often as you like."
            )
        frame = _spooled(pa.RecordBatchReader.from_stream(given), home)
    else:
        return None
    _refuse_doubled(frame, what)
    return frame


def _refuse_doubled(frame: Frame, what: str) -> None:
    names = frame.schema.names
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise Refusal(f"The {what} has several columns {doubled[0]!r}: rename all but one.")


def _is_query(text: str) -> bool:
    if not _QUERY.match(text):
        return False
    try:
        return not Path(text).is_file()
    except (OSError, ValueError):  # too long for the name of a file, or of other characters
        return True


def _is_pandas(given: Any) -> bool:
    return any(
        c.__name__ == "DataFrame" and c.__module__.partition(".")[0] == "pandas" for c in type(given).__mro__
    )


def _of_table(table: pa.Table, index: Sequence[str] = ()) -> Frame:
    return Frame(table.schema, lambda: table.to_batches(max_chunksize=_BATCH_ROWS), index)


def _of_pandas(given: Any, what: str) -> Frame:
    columns = []
    for place, name in enumerate(given.columns):
        values = given.iloc[:, place]

        def first(count: int, values: Any = values) -> Any:
            return _array(values.iloc[:count])

        try:
            columns.append(first(len(values)))
        except UNFIT as fault:
            bad = first_unfit(first, len(values)) or 0
            raise Refusal(
                f"Column {str(name)!r} of the {what} has values of several kinds, row {bad} has "
                f"{values.iloc[bad]!r} ({one_sentence(fault).rstrip('.')}): make them one kind, such as text "
                "by astype(str)."
            ) from fault
    names = [str(name) for name in given.columns]
    # By the number of rows too, which no column tells if there is none.
    table = pa.table(columns, names=names) if columns else pa.table({})
    return _of_table(table, [str(name) for name in given.index.names if name is not None])


def _array(values: Any) -> Any:
    kind = values.dtype
    if hasattr(kind, "tz"):  # of which pyarrow takes the values in a way that pandas warns of
        from pyarrow.lib import tzinfo_to_string

        moments = values.dt.tz_convert(None).to_numpy()
        return pa.array(moments, pa.timestamp(kind.unit, tzinfo_to_string(kind.tz)), from_pandas=True)
    return pa.array(values, from_pandas=True)


def _of_file(path: Path, home: str) -> Frame:
    from pyarrow import csv, parquet

    if not path.is_file():
        raise Refusal(
            f"There is no file {path} with entities: name a Parquet or CSV file, or give a query that begins with SELECT."
        )
    try:
        if path.suffix.lower() == ".csv":
            return _spooled(csv.open_csv(path), home)
        schema = parquet.read_schema(path)
    except (pa.ArrowInvalid, OSError) as fault:
        raise Refusal(
            f"{path} cannot be read as {'CSV' if path.suffix.lower() == '.csv' else 'Parquet'} "
            f"({one_sentence(fault).rstrip('.')}): name a Parquet file, or a CSV file that ends in .csv."
        ) from fault

    def rows() -> Iterator[pa.RecordBatch]:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(_BATCH_ROWS)

    return Frame(schema.remove_metadata(), rows)


def _spooled(stream: pa.RecordBatchReader, home: str | None) -> Frame:
    """What can be read once, in a file without a name: it goes with the frame, or with a process that is killed."""
    folder = None if home is None else private_home(Path(home)) / "tmp"
    if folder is not None:
        folder.mkdir(exist_ok=True)
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - goes with the frame
    with pa.ipc.new_stream(file, stream.schema) as writer:
        for batch in stream:
            writer.write_batch(batch)
    file.flush()

    def rows() -> Iterator[pa.RecordBatch]:
        with io.BufferedReader(_Again(file)) as source, pa.ipc.open_stream(source) as reader:
            yield from reader

    return Frame(stream.schema, rows)


class _Again(io.RawIOBase):
    """Reads a file from its beginning, wherever others who read it are."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._file.fileno(), [buffer], self._place)
        self._place += count
        return count
