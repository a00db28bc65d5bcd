"""A file of lines, or a text, as rows of JSON text, whatever is wrong with it.

What belongs here: bytes, encodings, lines, CSV records and documents. Each record comes out either as the text of one
JSON object or with the reason why it cannot be one; nothing is dropped and nothing raises, so one broken line
costs that line and no other. What the values mean is judge.py's business.
"""

import codecs
import csv
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path

import orjson
import pyarrow as pa

from ml_assets.intake.input_files import TEXTS, Compression, InputFile, read_chunks
from ml_assets.lib.headings import first_heading

MAX_LINE_BYTES = 16 << 20
"""Longest line that is read as a row; a longer one is quarantined."""

KEPT_LINE_BYTES = 64 << 20
"""How much of an overlong line is kept in quarantine."""

_UNPACKED_BYTES = 1 << 20
"""How much is unpacked at a time: a small packed file may be a very large one."""

_BATCH_ROWS = 50_000
_BATCH_BYTES = 16 << 20
_DELIMITERS = (",", ";", "\t", "|")
_FIRST_LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)
_MAX_RECORD_LINES = 1_000
"""Lines that one quoted CSV field may span."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SPLIT_SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("unit_hash", pa.string()),
        ("line", pa.int64()),
        ("row", pa.string()),
        ("raw_text", pa.string()),
        ("broken", pa.string()),
    ]
)


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Args:
        line: number of its first line, from 1.
        row: text of a JSON object; None if broken.
        text: the record as it came.
        broken: what is wrong and the way out, to follow 'FILE line N: '.
    """

    line: int
    row: str | None
    text: str
    broken: str | None = None


@dataclass(frozen=True)
class Line:
    """One line, without its end.

    Args:
        fault: why its bytes are no lawful text; `text` then shows the bad bytes as escapes.
    """

    number: int
    text: str
    fault: str | None = None


def split(file: InputFile, content_hash: str, column_names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The records of a file as batches of `SPLIT_SCHEMA`: those of JSONL or CSV, or a text as the one that it is.

    Args:
        column_names: the stream's column names, by which a CSV header and its delimiter are recognised.

    Raises:
        FileNotFoundError: the file is gone.
    """
    records = _records(file, column_names)
    pending: list[Record] = []
    size = 0
    for record in records:
        pending.append(record)
        size += len(record.text)
        if len(pending) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield _batch(file.item_name, content_hash, pending)
            pending, size = [], 0
    if pending:
        yield _batch(file.item_name, content_hash, pending)


def _records(file: InputFile, column_names: Sequence[str]) -> Iterator[Record]:
    chunks = _decoded(unpacked(file.path, file.compression))
    if file.format in TEXTS.values():
        return _document(file, chunks)
    lines = _lines(chunks)
    return _json_records(lines) if file.format == "jsonl" else _csv_records(lines, column_names)


def _batch(item_name: str, content_hash: str, records: list[Record]) -> pa.RecordBatch:
    count = len(records)
    columns = [
        pa.array([item_name] * count),
        pa.array([content_hash] * count),
        pa.array([r.line for r in records]),
        pa.array([r.row for r in records], pa.string()),
        pa.array([r.text for r in records], pa.string()),
        pa.array([r.broken for r in records], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SPLIT_SCHEMA)


# --- looking at a whole file ---------------------------------------------------------------------


def contains(file: InputFile, words: Sequence[bytes]) -> bool:
    """Whether any of the words stands in a file that is not packed. Words astride two chunks count too."""
    longest = max(map(len, words))
    tail = b""
    for chunk in read_chunks(file.path):
        if any(word in tail + chunk[: longest - 1] or word in chunk for word in words):
            return True
        tail = chunk[1 - longest :]
    return False


def first_rows(file: InputFile, count: int) -> list[str]:
    """The first rows of a JSON lines file, those that are JSON or not."""
    lines = _lines(_decoded(unpacked(file.path, file.compression)))
    return [line.text for line in islice(lines, count)]


def file_header(file: InputFile, column_names: Sequence[str]) -> tuple[str, list[str], str | None]:
    """`read_header` of a CSV file."""
    first = first_rows(file, 1)
    return read_header(first[0], column_names) if first else (",", [], "it is empty")


# --- bytes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CutOff:
    """Stands at the end of a stream that broke off."""

    why: str


def unpacked(path: Path, compression: Compression) -> Iterator[bytes | CutOff]:
    """The file's content; what could be unpacked of a damaged file comes before the `CutOff`.

    Raises:
        OSError: the file cannot be read.
    """
    if compression == "gzip":
        yield from _gunzipped(path)
    elif compression == "zstd":
        yield from _unzstd(path)
    else:
        yield from read_chunks(path)


def _gunzipped(path: Path) -> Iterator[bytes | CutOff]:
    unpacker = None
    try:
        for chunk in read_chunks(path):
            packed, more = chunk, False
            while packed or more:
                unpacker = unpacker or zlib.decompressobj(wbits=31)
                piece = unpacker.decompress(packed, _UNPACKED_BYTES)
                yield piece
                packed, more = unpacker.unconsumed_tail, len(piece) == _UNPACKED_BYTES
                if unpacker.eof:
                    # Several members may stand behind one another.
                    packed, more, unpacker = unpacker.unused_data, False, None
    except zlib.error as fault:
        yield CutOff(f"the gzip file is damaged ({fault})")
        return
    if unpacker is not None:
        yield CutOff("the gzip file is cut off")


def _unzstd(path: Path) -> Iterator[bytes | CutOff]:
    with path.open("rb") as source:
        try:
            with pa.CompressedInputStream(source, "zstd") as stream:
                while chunk := stream.read(1 << 16):
                    yield chunk
        except OSError as fault:
            if fault.errno is not None:
                raise  # of the disk, not of what stands on it
            yield CutOff(f"the zstd file is damaged or cut off ({fault})")


def _decoded(chunks: Iterator[bytes | CutOff]) -> Iterator[bytes | CutOff]:
    """UTF-16 with a byte order mark becomes UTF-8; a UTF-8 mark is taken off."""
    head = b""
    for chunk in chunks:
        if isinstance(chunk, CutOff):
            yield from (head, chunk) if head else (chunk,)
            return
        head += chunk
        if len(head) >= 4:
            break
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from _from_utf16(head, chunks)
        return
    yield head.removeprefix(codecs.BOM_UTF8)
    yield from chunks


def _from_utf16(head: bytes, chunks: Iterator[bytes | CutOff]) -> Iterator[bytes | CutOff]:
    # Lone surrogates pass through here and are found as bytes that are no UTF-8, with their line.
    decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
    yield decoder.decode(head).encode("utf-8", "surrogatepass")
    for chunk in chunks:
        if isinstance(chunk, CutOff):
            yield chunk
            return
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        yield CutOff("the UTF-16 text is cut off")


def _lines(chunks: Iterator[bytes | CutOff]) -> Iterator[Line]:
    """Lines with their numbers. Memory stays flat however long a line is."""
    number = 0
    rest = b""
    length = 0  # of the line that `rest` is the beginning of
    end, chunks = _line_end(chunks)
    for chunk in chunks:
        if isinstance(chunk, CutOff):
            number += 1
            yield Line(number, _text(rest)[0], f"{chunk.why} here; deliver the whole file again")
            return
        first, *others = chunk.split(end)
        length += len(first)
        rest += first[: max(0, KEPT_LINE_BYTES - len(rest))]
        for other in others:
            number += 1
            yield _line(number, rest, length)
            rest, length = other, len(other)
    if length:
        yield _line(number + 1, rest, length)


def _line_end(chunks: Iterator[bytes | CutOff]) -> tuple[bytes, Iterator[bytes | CutOff]]:
    """What ends the lines, by the first one: a carriage return alone where it does so; and the chunks again."""
    taken: list[bytes | CutOff] = []
    before, size = b"", 0
    for chunk in chunks:
        taken.append(chunk)
        if isinstance(chunk, CutOff):
            break
        if found := _FIRST_LINE_END.search(before + chunk):
            return (b"\r" if found[0] == b"\r" else b"\n"), chain(taken, chunks)
        before, size = chunk[-1:], size + len(chunk)
        if size > MAX_LINE_BYTES:
            break
    return b"\n", chain(taken, chunks)


def _line(number: int, data: bytes, length: int) -> Line:
    data = data.removesuffix(b"\r")
    text, fault = _text(data)
    if length > MAX_LINE_BYTES:
        kept = f" (the first {KEPT_LINE_BYTES:,} are kept here)" if length > KEPT_LINE_BYTES else ""
        fault = (
            f"the line has {length:,} bytes{kept}, more than {MAX_LINE_BYTES:,}; split it into several rows"
        )
    return Line(number, text, fault)


def _text(data: bytes, what: str = "line") -> tuple[str, str | None]:
    if b"\0" in data:
        return (
            data.decode("utf-8", "backslashreplace").replace("\0", "\\x00"),
            f"the {what} holds NUL bytes; write it again without them",
        )
    try:
        return data.decode(), None
    except UnicodeDecodeError as fault:
        shown = f"the bytes from {fault.start + 1} on are no UTF-8; save the file as UTF-8"
        return data.decode("utf-8", "backslashreplace"), shown


# --- records ----------------------------------------------------------------------------------------


def _document(file: InputFile, chunks: Iterator[bytes | CutOff]) -> Iterator[Record]:
    """A text as one row of the stream `documents`; none if it is blank."""
    data, fault = bytearray(), None
    for chunk in chunks:
        if isinstance(chunk, CutOff):
            fault = f"{chunk.why}; deliver the whole file again"
            break
        data += chunk
        if len(data) > MAX_LINE_BYTES:
            fault = f"the file has more than {MAX_LINE_BYTES:,} bytes; split it into several documents"
            break
    text, unread = _text(bytes(data), "file")
    if fault or unread:
        yield Record(1, None, text, fault or unread)
    elif text.strip():
        name = file.stem.rpartition("/")[2]
        title = first_heading(text) if file.format == "markdown" else None
        row = {
            "document_id": file.stem,
            "title": title or name,
            "text": text,
            "source": file.item_name,
            "updated_at": _time(file.mtime_ns),
        }
        yield Record(1, orjson.dumps(row).decode(), text)


def _time(mtime_ns: int) -> str:
    """A file's time as the judge reads times."""
    try:
        return (_EPOCH + timedelta(microseconds=mtime_ns // 1_000)).isoformat()
    except OverflowError:  # which is for the judge to refuse
        return "beyond the year 9999"


def _json_records(lines: Iterator[Line]) -> Iterator[Record]:
    for line in lines:
        if line.fault:
            yield Record(line.number, None, line.text, line.fault)
        elif line.text.strip():
            yield Record(line.number, line.text, line.text)


def _csv_records(lines: Iterator[Line], column_names: Sequence[str]) -> Iterator[Record]:
    csv.field_size_limit(KEPT_LINE_BYTES)  # of the whole process; a line's length is limited already
    source = _Pushback(line for line in lines if line.text.strip() or line.fault)
    head = source.next()
    if head is None:
        return
    delimiter, header, refusal = (",", [], head.fault) if head.fault else read_header(head.text, column_names)
    if refusal:
        # Without a header no row can be read: the file is one broken record.
        yield Record(head.number, None, head.text, refusal)
        return
    while (line := source.next()) is not None:
        if line.fault:
            yield Record(line.number, None, line.text, line.fault)
        else:
            yield _csv_record(line, source, header, delimiter)


def read_header(text: str, column_names: Sequence[str]) -> tuple[str, list[str], str | None]:
    """Delimiter and column names of a CSV header, and what is wrong with it, if anything."""
    wanted = set(column_names)
    try:
        candidates = {d: _header_names(text, d) for d in _DELIMITERS}
    except csv.Error as fault:
        return ",", [], f"the header cannot be read as CSV ({fault}); save the file as CSV"
    delimiter = max(_DELIMITERS, key=lambda d: len(wanted.intersection(candidates[d])))
    header = candidates[delimiter]
    doubled = sorted({name for name in header if header.count(name) > 1})
    if not wanted.intersection(header):
        return (
            delimiter,
            header,
            (
                f"none of the columns {', '.join(header)[:200]} is one of {', '.join(column_names)}; "
                "give the file a header line with these names"
            ),
        )
    if doubled:
        return delimiter, header, f"the header names {', '.join(doubled)} twice; name each column once"
    return delimiter, header, None


def _header_names(text: str, delimiter: str) -> list[str]:
    """The names; a column that has none, such as the index of a pandas table, is named by its place."""
    names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
    return [name or f"column_{place}" for place, name in enumerate(names, 1)]


def _csv_record(line: Line, source: "_Pushback", header: list[str], delimiter: str) -> Record:
    text = line.text
    taken: list[Line] = []
    while True:
        try:
            fields = next(csv.reader([text], delimiter=delimiter, strict=True))
            break
        except csv.Error as fault:
            following = source.next() if "unexpected end" in str(fault) else None
            too_much = len(taken) >= _MAX_RECORD_LINES or len(text) > MAX_LINE_BYTES
            if following is None or following.fault or too_much:
                # The quote never closes: give up on this line alone and read the others by themselves.
                source.push_back([*taken, following] if following else taken)
                why = f"cannot be read as CSV ({fault}); close the quotes and double those inside"
                return Record(line.number, None, line.text, why)
            taken.append(following)
            text += f"\n{following.text}"
            while '"' not in taken[-1].text and len(taken) < _MAX_RECORD_LINES:
                # Only a quote can end the record; trying before one comes would cost the square.
                following = source.next()
                if following is None or following.fault:
                    source.push_back([following] if following else [])
                    break
                taken.append(following)
                text += f"\n{following.text}"
    if len(fields) != len(header):
        why = (
            f"has {len(fields)} fields where the header has {len(header)}; "
            f"quote the fields that hold {delimiter!r}"
        )
        return Record(line.number, None, text, why)
    if fields == header:
        return Record(line.number, None, text, "is the header again; take it out")
    row = {name: value for name, value in zip(header, fields, strict=True) if value != ""}
    return Record(line.number, orjson.dumps(row).decode(), text)


class _Pushback:
    """An iterator of lines that takes lines back."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._returned: list[Line] = []

    def next(self) -> Line | None:
        return self._returned.pop() if self._returned else next(self._lines, None)

    def push_back(self, lines: list[Line]) -> None:
        self._returned.extend(reversed(lines))
