"""Taking in files: what is new in a landing folder, or under the glob of a source, becomes rows of intake.

Small files are read line by line with every care, and share a commit. A large file has a commit of its own
and is tried in bulk first, by DuckDB's own readers; if that finds anything odd, down to one bad row, it is
read with care after all. So care costs nothing where all is well, and nothing is lost where it is not.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from ml_assets.contracts import STREAMS, Stream
from ml_assets.lib.intake import landing, ledger, splitter
from ml_assets.lib.intake.judge import Bounds, judge_rows
from ml_assets.lib.intake.landing import LandingFile
from ml_assets.lib.intake.ledger import Place, Postgres
from ml_assets.lib.intake.sources import Source
from ml_assets.lib.intake.splitter import SPLIT_SCHEMA, split
from ml_assets.lib.intake.visit import STAGE, IntakeReport, Lake, Visit, visiting
from ml_assets.lib.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    pass

LARGE_BYTES = 32 << 20
"""Unpacked size from which a file is read in bulk, with a commit of its own."""

BATCH_FILES = 2_000
"""Small files that share a commit, at most."""

UNPACKED_PREFIX = "ml-assets-unpacked-"
"""Of the temporary folders that hold unpacked files; maintenance removes those of killed processes."""

_UNPACKED = 8
"""How much larger a packed file is taken to be."""

_KEY_SAMPLE = 100
"""Rows of a file that are searched for column names that the stream does not have."""

_BULK = "bulk"
"""Temporary table of a large file's rows as DuckDB's readers give them, judged."""

_BULK_JSON_TYPES = {"float64": "DOUBLE", "json": "JSON"}


def pending_files(
    stream: str, listing: landing.Listing, postgres: Postgres, root: str = ""
) -> list[LandingFile]:
    """Files of a listing that are new or changed.

    Args:
        root: "" for the landing folder, else a source's root.
    """
    ledger.ensure_schema(postgres)
    with postgres.connect() as connection:
        known = ledger.known_places(connection, stream, root)
    return [f for f in listing.files if f.unit not in known or known[f.unit].fingerprint != f.fingerprint]


def take_in_files(
    stream_name: str,
    listing: landing.Listing,
    lake: Lake,
    postgres: Postgres,
    bounds: Bounds,
    source: Source | None = None,
) -> IntakeReport:
    """Take in every new or changed file of a listing.

    Args:
        source: the query that reads these files; None for landing files.

    Raises:
        ledger.IntakeBusy: another process takes in the same stream.
    """
    report = IntakeReport(skipped=dict(listing.skipped))
    root = source.root if source else ""
    fresh = pending_files(stream_name, listing, postgres, root)
    if not fresh:
        return report
    landing.wait_until_quiet(fresh)
    with visiting(STREAMS[stream_name], lake, postgres, bounds, report) as visit:
        intake = _Files(visit, root, source)
        for batch in _batches(fresh):
            intake.take(batch)
    return report


def _batches(files: Sequence[LandingFile]) -> Iterator[list[LandingFile]]:
    """Small files together, large ones by themselves."""
    batch: list[LandingFile] = []
    size = 0
    for file in files:
        weight = _weight(file)
        if batch and (size + weight > LARGE_BYTES or len(batch) >= BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += weight
    if batch:
        yield batch


def _weight(file: LandingFile) -> int:
    return file.size * _UNPACKED if file.compression else file.size


class _Files:
    """Takes in files of one root on one visit."""

    def __init__(self, visit: Visit, root: str, source: Source | None) -> None:
        self._visit = visit
        self._stream: Stream = visit.stream
        self._report = visit.report
        self._root = root
        self._source = source
        self._lines: dict[LandingFile, int] = {}

    def take(self, files: Sequence[LandingFile]) -> None:
        """Take in some files in one commit."""
        large = len(files) == 1 and _weight(files[0]) > LARGE_BYTES
        if large:
            # Hashing takes one core, and reading leaves some idle.
            with ThreadPoolExecutor(1) as pool:
                hashing = pool.submit(self._hashed, files, count_lines=True)
                bulk = self._read_bulk(files[0])
                hashes = hashing.result()
        else:
            bulk, hashes = False, self._hashed(files)
        fresh = self._visit.claim({self._place(f): h for f, h in hashes.items()}, "landing")
        # Of several files with the same content the first is read.
        chosen = {unit_hash: file for file, unit_hash in reversed(hashes.items()) if unit_hash in fresh}
        large = large and bool(chosen)
        target = self._visit.table if large else STAGE
        counts = self._read_large(*hashes.popitem(), bulk) if large else self._read_small(chosen)
        if large:
            hashes = {file: unit_hash for unit_hash, file in chosen.items()}
        # What was written to while it was read may be half of each state.
        moved = {unit_hash for unit_hash, file in chosen.items() if not self._is_complete(file)}
        if moved:
            self._drop(target, sorted(moved))
        places = {self._place(f): h for f, h in hashes.items() if h not in moved}
        fresh = {h: content for h, content in fresh.items() if h not in moved}
        if large:
            arrived = f"(SELECT * FROM {target} WHERE unit_hash = {quote_literal(next(iter(chosen)))})"
            self._visit.commit(places, fresh, counts, arrived)
        else:
            self._visit.commit_stage(places, fresh, counts)

    def _place(self, file: LandingFile) -> Place:
        return Place(self._root, file.unit, file.fingerprint)

    def _hashed(self, files: Sequence[LandingFile], count_lines: bool = False) -> dict[LandingFile, str]:
        """Content hashes of those files that can be read and are as they were listed."""
        hashes = {}
        for file in files:
            try:
                content = landing.look_through(file.path, count_lines)
            except OSError as fault:
                self._skip(file, fault)
                continue
            if self._is_complete(file):
                self._lines[file] = content.lines
                hashes[file] = self._source.content_hash(content.sha256) if self._source else content.sha256
        return hashes

    def _is_complete(self, file: LandingFile) -> bool:
        try:
            if file.unchanged():
                return True
        except OSError as fault:
            self._skip(file, fault)
            return False
        self._report.skipped[file.unit] = "it is being written to; it is read once it is quiet"
        return False

    def _skip(self, file: LandingFile, fault: OSError) -> None:
        if isinstance(fault, FileNotFoundError):
            self._report.skipped[file.unit] = "gone before it could be read"
        else:
            why = fault.strerror or str(fault)
            self._report.skipped[file.unit] = f"cannot be read ({why}); check its permissions"

    def _drop(self, target: str, hashes: list[str]) -> None:
        self._visit.connection.execute(
            f"DELETE FROM {target} WHERE unit_hash IN (SELECT unnest($hashes::VARCHAR[]))", {"hashes": hashes}
        )
        self._visit.forget(hashes)

    # --- small files: with care, many in one commit ---

    def _read_small(self, files: Mapping[str, LandingFile]) -> dict[str, int]:
        """Rows of the files into the stage; returns the rows read by content."""
        counts = dict.fromkeys(files, 0)
        if self._source is None:
            for wanted in ("jsonl", "csv"):
                some = {h: f for h, f in files.items() if f.format == wanted}
                if some:
                    counts |= self._read_text(STAGE, wanted, some)
        for unit_hash, file in files.items():
            if self._source is not None or file.format == "parquet":
                counts[unit_hash] = self._read_table(STAGE, file, unit_hash)
        return counts

    def _read_text(self, target: str, wanted: str, files: Mapping[str, LandingFile]) -> dict[str, int]:
        """JSON lines or CSV, line by line."""
        counts = dict.fromkeys(files, 0)
        names = [column.name for column in self._stream.columns]

        def batches() -> Iterator[pa.RecordBatch]:
            for unit_hash, file in files.items():
                try:
                    for batch in split(file, unit_hash, names):
                        if counts[unit_hash] == 0:
                            self._note_unknown(
                                _row_names(batch.column("row").slice(0, _KEY_SAMPLE).to_pylist())
                            )
                        counts[unit_hash] += batch.num_rows
                        yield batch
                except OSError as fault:
                    self._skip(file, fault)

        source, types = text_source(self._stream, wanted)
        extras = '"row"' if self._stream.extras_column else None
        select = judge_rows(self._stream, source, types, extras)
        self._visit.insert(target, select, (SPLIT_SCHEMA, batches()))
        return counts

    def _read_table(self, target: str, file: LandingFile, unit_hash: str) -> int:
        """A Parquet file, or any file that a source's query reads; as one quarantined row if that fails."""
        import duckdb

        try:
            with _unpacked(file) as path:
                return self._insert_table(target, file, unit_hash, path)
        except (duckdb.Error, OSError) as fault:
            if isinstance(fault, FileNotFoundError):
                self._skip(file, fault)
                return 0
            if target != STAGE:
                self._visit.connection.execute("ROLLBACK")
                self._visit.connection.execute("BEGIN")
            reader = f"the query {self._source.name}" if self._source else "Parquet"
            why = f"cannot be read as {reader} ({_first_line(fault)})"
            return self._insert_broken(target, file, unit_hash, f"{why}; deliver the file again")

    def _insert_table(self, target: str, file: LandingFile, unit_hash: str, path: Path) -> int:
        if self._source:
            relation = f"({self._source.sql})"
            values: dict[str, Any] = {"file": str(path)}
            number = "row_number() OVER ()"
        else:
            relation = f"read_parquet({quote_literal(glob_free(path))}, file_row_number = true)"
            values = {}
            number = "file_row_number + 1"
        execute = self._visit.connection.execute
        described = execute(f"DESCRIBE SELECT * FROM {relation}", values or None).fetchall()
        given = {name: kind for name, kind, *_ in described if name != "file_row_number"}
        known = {column.name for column in self._stream.columns}
        unknown = [name for name in given if name not in known]
        self._note_unknown(unknown)
        extras = _packed(unknown) if unknown and self._stream.extras_column else None
        rows = (
            f"(SELECT *, {quote_literal(file.unit)} AS unit, {quote_literal(unit_hash)} AS unit_hash, "
            f"{number} AS line, NULL::VARCHAR AS broken FROM {relation})"
        )
        types = {name: kind for name, kind in given.items() if name in known}
        select = judge_rows(self._stream, rows, types, extras, raw_text=_packed(given))
        self._visit.insert(target, select, **values)
        counted = execute(f"SELECT count(*) FROM {relation}", values or None).fetchone()
        return counted[0] if counted else 0

    def _insert_broken(self, target: str, file: LandingFile, unit_hash: str, why: str) -> int:
        """A whole file as one quarantined row."""
        row = {"unit": file.unit, "unit_hash": unit_hash, "line": 1, "broken": why}
        batch = pa.RecordBatch.from_pylist([row], schema=SPLIT_SCHEMA)
        select = judge_rows(self._stream, "arriving", {})
        self._visit.insert(target, select, (SPLIT_SCHEMA, [batch]))
        return 1

    # --- large files: in bulk ---

    def _read_large(self, file: LandingFile, unit_hash: str, bulk: bool) -> dict[str, int]:
        """Rows of a file straight into the lake, in a transaction that is left open.

        Args:
            bulk: its judged rows stand in `_BULK`.
        """
        self._visit.connection.execute("BEGIN")
        if self._source is not None or file.format == "parquet":
            return {unit_hash: self._read_table(self._visit.table, file, unit_hash)}
        # A header line stands before the rows of a CSV.
        header = int(file.format == "csv")
        rows = self._lines[file] - header
        if not bulk or not self._is_clean(file, rows):
            return self._read_text(self._visit.table, file.format, {unit_hash: file})
        placed = f"{quote_literal(unit_hash)} AS unit_hash, rowid + {header + 1} AS line"
        self._visit.insert(self._visit.table, f"SELECT * REPLACE ({placed}) FROM {_BULK}")
        return {unit_hash: rows}

    def _read_bulk(self, file: LandingFile) -> bool:
        """Read a file into `_BULK` by DuckDB's own readers; False if it has to be read with care."""
        import duckdb

        if self._source is not None or file.format == "parquet":
            return False  # goes straight into the lake
        if self._stream.extras_column or file.compression:
            return False  # unknown columns would not be seen, lines not be counted
        path = quote_literal(glob_free(file.path))
        bulk = self._bulk_csv(file, path) if file.format == "csv" else self._bulk_json(file, path)
        if bulk is None:
            return False
        relation, types = bulk
        # Hash and line are known later: the line from the place of a row in the table, since a window function
        # over the reader would read with one thread.
        rows = (
            f"(SELECT *, {quote_literal(file.unit)} AS unit, '' AS unit_hash, 0 AS line, "
            f"NULL::VARCHAR AS broken FROM {relation})"
        )
        known = {column.name for column in self._stream.columns}
        values = {name: kind for name, kind in types.items() if name in known}
        try:
            self._visit.connection.execute(
                f"CREATE OR REPLACE TEMPORARY TABLE {_BULK} AS FROM {STAGE} LIMIT 0"
            )
            # Outside of a transaction, within which row numbers would begin elsewhere.
            self._visit.insert(_BULK, judge_rows(self._stream, rows, values, raw_text="NULL"))
        except duckdb.Error:
            return False  # no clean JSON lines or CSV
        return True

    def _is_clean(self, file: LandingFile, lines: int) -> bool:
        """Whether `_BULK` holds exactly one good row a line, none of which its reader may have bent."""
        numbers = [quote_identifier(c.name) for c in self._stream.columns if c.type == "float64"]
        suspects = " OR ".join(f"{name} IN (0, 1)" for name in numbers) or "false"
        found = self._visit.connection.execute(
            f"SELECT count(*), count(quarantine_reason), bool_or({suspects}) FROM {_BULK}"
        ).fetchone()
        if found is None or found[:2] != (lines, 0):
            return False
        # Numbers may have been written as true or false, which the JSON reader takes for 1 and 0.
        return file.format == "csv" or not found[2] or not splitter.contains(file, (b"true", b"false"))

    def _bulk_json(self, file: LandingFile, path: str) -> tuple[str, dict[str, str]] | None:
        types = {c.name: _BULK_JSON_TYPES.get(c.type, "VARCHAR") for c in self._stream.columns}
        self._note_unknown(_row_names(splitter.first_rows(file, _KEY_SAMPLE)))
        columns = ", ".join(f"{quote_literal(name)}: {quote_literal(kind)}" for name, kind in types.items())
        # Lines beyond its usual limit are read with care; buffers for the longest ones would halve its speed.
        relation = f"read_json({path}, format = 'newline_delimited', columns = {{{columns}}})"
        return relation, types

    def _bulk_csv(self, file: LandingFile, path: str) -> tuple[str, dict[str, str]] | None:
        delimiter, header, refusal = splitter.file_header(file, [c.name for c in self._stream.columns])
        if refusal or "" in header:
            return None
        self._note_unknown(header)
        columns = ", ".join(f"{quote_literal(name)}: 'VARCHAR'" for name in header)
        relation = (
            f"read_csv({path}, auto_detect = false, header = true, delim = {quote_literal(delimiter)}, "
            f"quote = '\"', escape = '\"', columns = {{{columns}}}, strict_mode = true, "
            f"null_padding = false, max_line_size = {splitter.MAX_LINE_BYTES})"
        )
        return relation, dict.fromkeys(header, "VARCHAR")

    def _note_unknown(self, names: Sequence[str]) -> None:
        """Remember column names that the stream has no place for."""
        if not self._stream.extras_column:
            known = {column.name for column in self._stream.columns}
            self._report.ignored_columns |= set(names) - known


def text_source(stream: Stream, wanted: str) -> tuple[str, dict[str, str]]:
    """SQL of the relation that `judge_rows` reads from records of JSON text, and the types of its columns.

    Args:
        wanted: `jsonl`, whose JSON columns hold values, or `csv`, whose JSON columns hold text.
    """
    types = {c.name: "JSON" if c.type == "json" and wanted == "jsonl" else "VARCHAR" for c in stream.columns}
    structure = quote_literal(orjson.dumps(types).decode())
    fields = ", ".join(f"fields.{quote_identifier(name)}" for name in types)
    # CASE, since AND may look at both sides, and these functions raise on what is no JSON.
    return (
        "(SELECT * EXCLUDE (fields, broken, object), "
        "CASE WHEN broken IS NOT NULL THEN broken "
        "WHEN NOT object THEN 'is no JSON object; write one object a line' END AS broken, "
        f"{fields} FROM (SELECT *, "
        'CASE WHEN json_valid("row") THEN json_type("row") = \'OBJECT\' ELSE false END AS object, '
        f'CASE WHEN json_valid("row") THEN json_transform("row", {structure}) END AS fields '
        "FROM arriving))"
    ), types


def _row_names(rows: Iterable[str | None]) -> list[str]:
    """Names that stand in the first rows of JSON text."""
    names: dict[str, None] = {}
    for text in rows:
        try:
            found = orjson.loads(text) if text else {}
        except orjson.JSONDecodeError:
            continue  # such a row is quarantined, whole
        names |= dict.fromkeys(found if isinstance(found, dict) else ())
    return list(names)


def _packed(names: Any) -> str:
    """SQL of a row as JSON text."""
    packed = ", ".join(f"{quote_identifier(name)} := {quote_identifier(name)}" for name in names)
    return f"to_json(struct_pack({packed}))::VARCHAR"


@contextmanager
def _unpacked(file: LandingFile) -> Iterator[Path]:
    """The file's path, or that of an unpacked copy.

    Raises:
        OSError: the packed file is damaged.
    """
    if not file.compression:
        yield file.path
        return
    with tempfile.TemporaryDirectory(prefix=UNPACKED_PREFIX) as folder:
        copy = Path(folder) / "unpacked"
        with (
            file.path.open("rb") as packed,
            copy.open("wb") as plain,
            pa.CompressedInputStream(packed, file.compression) as stream,
        ):
            shutil.copyfileobj(stream, plain)
        yield copy


def glob_free(path: Path) -> str:
    """The path with the characters that DuckDB would read as a pattern made literal."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in os.fspath(path))


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0][:200]
