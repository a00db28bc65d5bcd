"""This module takes in files: it turns the new files of a landing folder, or of a source's glob, into rows of intake.

It reads small files line by line and commits many of them together. It commits each large file by itself, and tries
to read it in bulk first, with DuckDB's own readers. If the bulk reader finds a single bad row, the module reads the
file again line by line. A clean file is therefore read fast, and no row of a bad file is lost.
"""

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import orjson
import pyarrow as pa

from ml_assets.contracts import STREAMS, Stream
from ml_assets.errors import ExtensionMissing
from ml_assets.intake import input_files, ledger, readers, splitter
from ml_assets.intake.ingest import STAGE, Ingest, IntakeReport, Lake, ingesting
from ml_assets.intake.input_files import InputFile
from ml_assets.intake.judge import Bounds, judge_rows
from ml_assets.intake.ledger import KnownPlace, Place
from ml_assets.intake.sources import Source
from ml_assets.intake.splitter import SPLIT_SCHEMA, split
from ml_assets.lib import faults
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.stores import touched_days
from ml_assets.stores.duckdb.extensions import load_missing
from ml_assets.stores.touched_days import Postgres
from ml_assets.tables.arrow_types import BATCH_ROWS

LARGE_BYTES = 32 << 20
"""Unpacked size from which a file is read in bulk, with a commit of its own."""

BATCH_FILES = 2_000
"""Small files that share a commit, at most."""

UNPACKED_PREFIX = "ml-assets-unpacked-"
"""Of the temporary folders that hold unpacked files; maintenance removes those of killed processes."""

_UNPACKED = 8
"""How much larger a packed file is taken to be."""

_BULK = "bulk"
"""A large file's rows as DuckDB's readers give them, judged, with the place of each as `rowid`."""

_BEING_WRITTEN = "it is being written to; it is read once it is quiet"

_FOREIGN = "temp.foreign_rows"
"""What a source's query gives of one file."""

_IN_MEMORY_BYTES = 512 << 20
"""Size to which a file's judged rows are gathered in memory; larger ones go to a table, which DuckDB may spill, and
which takes half as long again."""

_OUT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""What the operating system says when it is not the file's fault."""

_BULK_JSON_TYPES = {"float64": "DOUBLE", "json": "JSON"}


def pending_files(
    stream: str, listing: input_files.Listing, postgres: Postgres, root: str = ""
) -> list[InputFile]:
    """Files of a listing that are new or changed.

    Args:
        root: "" for the landing folder, else a source's root.
    """
    return _new_files(listing, _known_places(stream, postgres, root), root)


def _known_places(stream: str, postgres: Postgres, root: str) -> dict[str, KnownPlace]:
    touched_days.ensure_schema(postgres)
    with postgres.connect() as connection:
        return ledger.known_places(connection, stream, root)


def _new_files(listing: input_files.Listing, places: Mapping[str, KnownPlace], root: str) -> list[InputFile]:
    return [f for f in listing.files if not _is_taken_in(f, places.get(f.item_name), root)]


def _is_taken_in(file: InputFile, place: KnownPlace | None, root: str) -> bool:
    if place is None or place.fingerprint != file.fingerprint:
        return False
    # The ledger may be of a time at which a source's files of equal bytes were one content, and the first was read.
    return not (root and place.elsewhere and not place.retired)


def take_in_files(
    stream_name: str,
    listing: input_files.Listing,
    lake: Lake,
    postgres: Postgres,
    bounds: Bounds,
    source: Source | None = None,
) -> IntakeReport:
    """Take in every new or changed file of a listing.

    Args:
        source: the query that reads these files; None for landing files.

    Raises:
        IntakeBusy: another process takes in the same stream.
    """
    report = IntakeReport(skipped=dict(listing.skipped))
    root = source.root if source else ""
    places = _known_places(stream_name, postgres, root)
    fresh = _new_files(listing, places, root)
    if not fresh:
        return report
    input_files.wait_until_quiet(fresh)
    there = {file.item_name for file in listing.files} | listing.skipped.keys()
    gone = {
        item_name: place.content_hash
        for item_name, place in places.items()
        if item_name not in there and not place.retired
    }
    with ingesting(STREAMS[stream_name], lake, postgres, bounds, report) as ingest:
        intake = _Files(ingest, root, source, gone)
        for batch in _batches(fresh):
            intake.take(batch)
    return report


def _batches(files: Sequence[InputFile]) -> Iterator[list[InputFile]]:
    """Small files together, large ones by themselves."""
    batch: list[InputFile] = []
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


def _weight(file: InputFile) -> int:
    return file.size * _UNPACKED if file.compression else file.size


class _DamagedFile(Exception):
    """A packed file that cannot be unpacked."""


class _Files:
    """Takes in files of one root on one ingest.

    Args:
        gone: content hash by item name of the files that were taken in and are no longer there.
    """

    def __init__(self, ingest: Ingest, root: str, source: Source | None, gone: Mapping[str, str]) -> None:
        self._ingest = ingest
        self._stream: Stream = ingest.stream
        self._columns = ", ".join(quote_identifier(column.name) for column in ingest.stream.columns)
        self._report = ingest.report
        self._root = root
        self._source = source
        self._naive_utc = ingest.stream.name in ingest.bounds.naive_utc
        self._gone = gone
        self._scans: dict[InputFile, input_files.FileScan] = {}
        self._misread: set[str] = set()
        self._unread: set[str] = set()

    def take(self, files: Sequence[InputFile]) -> None:
        """Take in some files in one commit."""
        large = len(files) == 1 and _weight(files[0]) > LARGE_BYTES
        if large:
            # Hashing takes one core, and reading leaves some idle.
            with ThreadPoolExecutor(1) as pool:
                hashing = pool.submit(self._hashed, files, large=True)
                bulk = self._read_bulk(files[0])
                hashes = hashing.result()
        else:
            bulk, hashes = False, self._hashed(files)
        self._withdraw_misread()
        fresh = self._ingest.claim({self._place(f): h for f, h in hashes.items()}, "landing")
        # Of several files with the same content the first is read.
        chosen = {
            content_hash: file for file, content_hash in reversed(hashes.items()) if content_hash in fresh
        }
        # Rows that take the place of others come by way of the stage.
        large = large and bool(chosen) and not any(content.again for content in fresh.values())
        target = self._ingest.table if large else STAGE
        counts = self._read_large(*hashes.popitem(), bulk) if large else self._read_small(chosen)
        if large:
            hashes = {file: content_hash for content_hash, file in chosen.items()}
        # What was written to while it was read may be half of each state; what broke off is not all of it.
        moved = {
            content_hash
            for content_hash, file in chosen.items()
            if content_hash in self._unread or not self._is_complete(file)
        }
        if moved:
            self._drop(target, sorted(moved))
        places = {self._place(f): h for f, h in hashes.items() if h not in moved}
        fresh = {h: content for h, content in fresh.items() if h not in moved}
        if large:
            arrived = f"(SELECT * FROM {target} WHERE unit_hash = {quote_literal(next(iter(chosen)))})"
            self._ingest.commit(places, fresh, counts, arrived)
        else:
            self._ingest.commit_stage(places, fresh, counts)
        if bulk:
            self._ingest.connection.unregister(_BULK)
            self._ingest.connection.execute(f"DROP TABLE IF EXISTS temp.{_BULK}")

    def _place(self, file: InputFile) -> Place:
        return Place(self._root, file.item_name, file.fingerprint)

    def _hashed(self, files: Sequence[InputFile], large: bool = False) -> dict[InputFile, str]:
        """Content hashes of those files that can be read and are as they were listed."""
        hashes = {}
        for file in files:
            try:
                scan = input_files.scan_file(
                    file.path, large and file.format in ("jsonl", "csv"), large and file.format == "jsonl"
                )
                content_hash = self._content_hash(file, scan.sha256)
            except OSError as fault:
                self._skip(file, fault)
                continue
            if self._is_complete(file):
                self._scans[file] = scan
                hashes[file] = content_hash
        return hashes

    def _content_hash(self, file: InputFile, sha256: str) -> str:
        if self._source:
            if file.log:
                sha256 += input_files.scan_file(file.log_path).sha256
            return self._source.content_hash(sha256, file.item_name)
        self._misread |= input_files.misread_hashes(sha256, file.format, file.compression, file.stem)
        return input_files.content_hash(sha256, file.format, file.compression, file.stem)

    def _withdraw_misread(self) -> None:
        """Withdraw files that had a wrong ending and have been renamed since: they lie here under another name."""
        item_names = [
            item_name for item_name, content_hash in self._gone.items() if content_hash in self._misread
        ]
        self._misread.clear()
        if item_names:
            self._ingest.withdraw(self._root, item_names)

    def _is_complete(self, file: InputFile) -> bool:
        try:
            if file.unchanged():
                return True
        except OSError as fault:
            self._skip(file, fault)
            return False
        self._report.skipped[file.item_name] = _BEING_WRITTEN
        return False

    def _skip(self, file: InputFile, fault: OSError) -> None:
        if isinstance(fault, FileNotFoundError):
            self._report.skipped[file.item_name] = "gone before it could be read"
        else:
            self._report.skipped[file.item_name] = input_files.unreadable(fault)

    def _drop(self, target: str, hashes: list[str]) -> None:
        self._ingest.connection.execute(
            f"DELETE FROM {target} WHERE unit_hash IN (SELECT unnest($hashes::VARCHAR[]))", {"hashes": hashes}
        )
        self._ingest.forget(hashes)

    # --- small files: with care, many in one commit ---

    def _read_small(self, files: Mapping[str, InputFile]) -> dict[str, int]:
        """Rows of the files into the stage; returns the rows read by content."""
        counts = dict.fromkeys(files, 0)
        if self._source is None:
            for wanted in ("jsonl", "csv", *input_files.TEXTS.values()):
                some = {h: f for h, f in files.items() if f.format == wanted}
                if some:
                    counts |= self._read_text(STAGE, wanted, some)
        for content_hash, file in files.items():
            if self._source is not None or file.format == "parquet":
                counts[content_hash] = self._read_table(STAGE, file, content_hash)
        return counts

    def _read_text(self, target: str, wanted: str, files: Mapping[str, InputFile]) -> dict[str, int]:
        """JSON lines or CSV line by line, texts as a whole."""
        counts = dict.fromkeys(files, 0)
        names = [column.name for column in self._stream.columns]

        def batches() -> Iterator[pa.RecordBatch]:
            for content_hash, file in files.items():
                try:
                    for batch in split(file, content_hash, names):
                        counts[content_hash] += batch.num_rows
                        yield batch
                except OSError as fault:
                    self._skip(file, fault)
                    self._unread.add(content_hash)

        source, types = text_source(self._stream, wanted)
        select = judge_rows(self._stream, source, types, extras=True, naive_utc=self._naive_utc)
        self._ingest.insert(target, select, (SPLIT_SCHEMA, batches()))
        return counts

    def _read_table(self, target: str, file: InputFile, content_hash: str) -> int:
        """A Parquet file, or any file that a source's query reads; as one quarantined row if that fails."""
        import duckdb

        try:
            with _unpacked(file) as path, _safe_name(path) as name:
                if self._source:
                    self._run_query(self._source, name, target)
                    return self._insert_table(target, file, content_hash, _FOREIGN)
                relation = (
                    f"read_parquet({quote_literal(glob_free(name))}, {readers.options(readers.PARQUET)})"
                )
                return self._insert_table(target, file, content_hash, relation)
        except OSError as fault:
            if fault.errno in _OUT_OF_ROOM:
                raise
            self._skip(file, fault)
            self._unread.add(content_hash)
            return 0
        except ExtensionMissing as fault:
            return self._leave_alone(target, file, content_hash, str(fault))
        except (duckdb.Error, UnicodeDecodeError, _DamagedFile) as fault:
            if self._source and "database is locked" in str(fault):  # SQLite's; a writer is at it
                return self._leave_alone(target, file, content_hash, _BEING_WRITTEN)
            if isinstance(fault, duckdb.Error) and not _is_of_the_file(fault, file.path):
                raise
            self._begin_again(target)
            reader, mend = "Parquet", "deliver the file again"
            if self._source:
                reader, mend = f"the query {self._source.name}", f"mend the query, or {mend}"
            why = f"cannot be read as {reader} ({_first_line(fault)})"
            return self._insert_broken(target, file, content_hash, f"{why}; {mend}")

    def _leave_alone(self, target: str, file: InputFile, content_hash: str, why: str) -> int:
        """Nothing is entered of the file, so the next time reads it as if it had come then."""
        self._begin_again(target)
        self._report.skipped[file.item_name] = why
        self._unread.add(content_hash)
        return 0

    def _begin_again(self, target: str) -> None:
        """Begin the transaction anew in which a large file is read; it does not outlive an error."""
        if target != STAGE:
            self._ingest.connection.execute("ROLLBACK")
            self._ingest.connection.execute("BEGIN")

    def _run_query(self, source: Source, name: str, target: str) -> None:
        """Keep what a source's query gives of a file in `_FOREIGN`: it is run once, since readers that look for types
        go through the file twice.

        Raises:
            ExtensionMissing: the query needs an extension that is not installed.
        """
        import duckdb

        names = {readers.FILE: name, readers.PATTERN: glob_free(name)}
        values = {key: names[key] for key in source.query.parameters & names.keys()}
        # The query may end in a comment.
        statement = f"CREATE OR REPLACE TEMPORARY TABLE {_FOREIGN} AS SELECT * FROM ({source.query.sql}\n)"
        tried: set[str] = set()
        while True:
            try:
                self._ingest.connection.execute(statement, values)
                return
            except duckdb.Error as fault:
                self._begin_again(target)
                extension = load_missing(self._ingest.connection, fault)
                if extension is None or extension in tried:
                    raise
                tried.add(extension)

    def _insert_table(self, target: str, file: InputFile, content_hash: str, relation: str) -> int:
        execute = self._ingest.connection.execute
        given = {name: kind for name, kind, *_ in execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}
        number = "file_row_number + 1"
        if self._source or any(name.lower() == "file_row_number" for name in given):
            number = "row_number() OVER ()"  # slower, and told apart from a column of the file's
        row = _Arranged(self._stream, given, self._naive_utc, by_query=self._source is not None)
        rows = row.relation(relation, file.item_name, content_hash, number)
        self._ingest.insert(target, row.judged(rows, row.raw_text))
        counted = execute(f"SELECT count(*) FROM {relation}").fetchone()
        if self._source:
            execute(f"DROP TABLE {_FOREIGN}")
        return counted[0] if counted else 0

    def _insert_broken(self, target: str, file: InputFile, content_hash: str, why: str) -> int:
        """A whole file as one quarantined row."""
        row = {"unit": file.item_name, "unit_hash": content_hash, "line": 1, "broken": why}
        batch = pa.RecordBatch.from_pylist([row], schema=SPLIT_SCHEMA)
        select = judge_rows(self._stream, "arriving", {})
        self._ingest.insert(target, select, (SPLIT_SCHEMA, [batch]))
        return 1

    # --- large files: in bulk ---

    def _read_large(self, file: InputFile, content_hash: str, bulk: bool) -> dict[str, int]:
        """Rows of a file straight into the lake, in a transaction that is left open.

        Args:
            bulk: its judged rows stand in `_BULK`.
        """
        self._ingest.connection.execute("BEGIN")
        if self._source is not None or file.format == "parquet":
            return {content_hash: self._read_table(self._ingest.table, file, content_hash)}
        # A header line stands before the rows of a CSV.
        header = int(file.format == "csv")
        rows = self._scans[file].lines - header
        if not bulk or not self._is_clean(file, rows):
            return self._read_text(self._ingest.table, file.format, {content_hash: file})
        self._ingest.insert(
            self._ingest.table,
            f"SELECT {quote_literal(file.item_name)} AS unit, {quote_literal(content_hash)} AS unit_hash, "
            f"rowid + {header + 1} AS line, day, {self._columns} FROM {_BULK}",
        )
        return {content_hash: rows}

    def _read_bulk(self, file: InputFile) -> bool:
        """Read a file into `_BULK` by DuckDB's own readers; False if it has to be read with care."""
        import duckdb
        import numpy as np

        if self._source is not None or file.format not in ("jsonl", "csv"):
            return False  # goes straight into the lake
        if file.compression:
            return False  # lines would not be counted
        with _safe_name(file.path) as name:
            path = quote_literal(glob_free(name))
            bulk = self._bulk_csv(file, path) if file.format == "csv" else self._bulk_json(path)
            if bulk is None:
                return False
            relation, types = bulk
            row = _Arranged(self._stream, types, self._naive_utc)
            # Hash and line are filled in later: the line from the place of a row, since a window function over the
            # reader would read with one thread.
            judged = row.judged(row.relation(relation, file.item_name, "", "0"), "NULL")
            rows = f"SELECT day, {self._columns}, quarantine_reason IS NOT NULL AS bad FROM ({judged})"
            connection = self._ingest.connection
            try:
                if file.size <= _IN_MEMORY_BYTES:
                    # By `sql`: what `execute` gives is fetched by one thread.
                    gathered = connection.sql(rows).to_arrow_table(BATCH_ROWS)
                    places = pa.array(np.arange(gathered.num_rows))
                    connection.register(_BULK, gathered.append_column("rowid", places))
                else:
                    # Outside of a transaction, within which row numbers would begin elsewhere.
                    connection.execute(f"CREATE TEMPORARY TABLE {_BULK} AS {rows}")
            except duckdb.Error:
                return False  # no clean JSON lines or CSV
        return True

    def _is_clean(self, file: InputFile, lines: int) -> bool:
        """Whether `_BULK` holds exactly one good row a line, none of which its reader may have bent."""
        numbers = [quote_identifier(c.name) for c in self._stream.columns if c.type == "float64"]
        suspects = " OR ".join(f"{name} IN (0, 1)" for name in numbers) or "false"
        # No good row lacks a value that it must have; the others are counted.
        optional = [quote_identifier(column.name) for column in self._stream.columns if column.nullable]
        required = len(self._stream.columns) - len(optional)
        values = " + ".join([f"{required} * count(*)", *(f"count({name})" for name in optional)])
        found = self._ingest.connection.execute(
            f"SELECT count(*), count_if(bad), bool_or({suspects}), {values} FROM {_BULK}"
        ).fetchone()
        if found is None or found[:2] != (lines, 0):
            return False
        if file.format == "csv":
            return True
        # Numbers may have been written as true or false, which the JSON reader takes for 1 and 0, and it passes
        # over what it was not asked for.
        bent = found[2] and splitter.contains(file, (b"true", b"false"))
        # Where there are no more keys than values, there is no unknown one. Where a value is null or is an object
        # itself, it takes a look at the names.
        return not bent and (found[3] == self._scans[file].keys or not self._has_unknown_keys(file))

    def _has_unknown_keys(self, file: InputFile) -> bool:
        """Whether an object of a JSON lines file has a key that the stream has not."""
        with _safe_name(file.path) as name:
            objects = f"read_json_objects({quote_literal(glob_free(name))}, {readers.options(readers.JSON_OBJECTS)})"
            unknown = _unknown_keys([column.name for column in self._stream.columns], "json")
            found = self._ingest.connection.execute(f"SELECT bool_or({unknown}) FROM {objects}").fetchone()
        return found == (True,)

    def _bulk_json(self, path: str) -> tuple[str, dict[str, str]]:
        types = {c.name: _BULK_JSON_TYPES.get(c.type, "VARCHAR") for c in self._stream.columns}
        columns = ", ".join(f"{quote_literal(name)}: {quote_literal(kind)}" for name, kind in types.items())
        # Lines beyond its usual limit are read with care; buffers for the longest ones would halve its speed.
        relation = f"read_json({path}, {readers.options(readers.JSON_LINES)}, columns = {{{columns}}})"
        return relation, types

    def _bulk_csv(self, file: InputFile, path: str) -> tuple[str, dict[str, str]] | None:
        delimiter, header, refusal = splitter.file_header(file, [c.name for c in self._stream.columns])
        if refusal:
            return None
        columns = ", ".join(f"{quote_literal(name)}: 'VARCHAR'" for name in header)
        relation = (
            f"read_csv({path}, {readers.options(readers.CSV)}, delim = {quote_literal(delimiter)}, "
            f"columns = {{{columns}}}, max_line_size = {splitter.MAX_LINE_BYTES})"
        )
        return relation, dict.fromkeys(header, "VARCHAR")


class _Arranged:
    """The columns of a file in an order that `judge_rows` can rely on: those of the stream under their names, others
    under names that nobody else has, however the file calls them.

    Args:
        given: DuckDB type by name.
        naive_utc: as in `judge_rows`.
        by_query: whether a source's query gave these types.
    """

    def __init__(
        self, stream: Stream, given: Mapping[str, str], naive_utc: bool, by_query: bool = False
    ) -> None:
        column_names = {column.name for column in stream.columns}
        self._stream = stream
        self._by_query = by_query
        self._naive_utc = naive_utc
        self._types = {name: kind for name, kind in given.items() if name in column_names}
        self._names = {name: name if name in column_names else f"unknown {n}" for n, name in enumerate(given)}
        self._unknown = [name for name in given if name not in column_names]
        self.raw_text = _packed(self._names)

    def relation(self, source: str, item_name: str, content_hash: str, line: str) -> str:
        """SQL of the relation.

        Args:
            line: SQL of the row's number.
        """
        columns = [f"{quote_identifier(n)} AS {quote_identifier(alias)}" for n, alias in self._names.items()]
        columns += [
            f"{quote_literal(item_name)} AS unit",
            f"{quote_literal(content_hash)} AS unit_hash",
            f"{line} AS line",
            "NULL::VARCHAR AS broken",
        ]
        if self._unknown:
            given = " OR ".join(f"{quote_identifier(name)} IS NOT NULL" for name in self._unknown)
            packed = _packed({name: name for name in self._unknown})
            columns.append(f"CASE WHEN {given} THEN {packed} END AS unknown")
        return f"(SELECT {', '.join(columns)} FROM {source})"

    def judged(self, relation: str, raw_text: str) -> str:
        """`judge_rows` of the relation."""
        return judge_rows(
            self._stream,
            relation,
            self._types,
            bool(self._unknown),
            raw_text,
            by_query=self._by_query,
            naive_utc=self._naive_utc,
        )


def text_source(stream: Stream, wanted: str) -> tuple[str, dict[str, str]]:
    """SQL of the relation that `judge_rows` reads from records of JSON text, and the types of its columns.

    Args:
        wanted: `jsonl`, whose JSON columns hold values, or another format, whose JSON columns hold text.
    """
    types = {c.name: "JSON" if c.type == "json" and wanted == "jsonl" else "VARCHAR" for c in stream.columns}
    structure = quote_literal(orjson.dumps(types).decode())
    fields = ", ".join(f"fields.{quote_identifier(name)}" for name in types)
    unknown = _unknown_keys(list(types), '"row"')
    # CASE, since AND may look at both sides, and these functions raise on what is no JSON.
    return (
        "(SELECT * EXCLUDE (fields, broken, object), "
        "CASE WHEN broken IS NOT NULL THEN broken "
        "WHEN NOT object THEN 'is no JSON object; write one object a line' END AS broken, "
        # Without what JSON does not have and DuckDB reads all the same, such as a comma at the end.
        f'CASE WHEN object THEN CASE WHEN {unknown} THEN json("row")::VARCHAR END END AS unknown, '
        f"{fields} FROM (SELECT *, "
        'CASE WHEN json_valid("row") THEN json_type("row") = \'OBJECT\' ELSE false END AS object, '
        f'CASE WHEN json_valid("row") THEN json_transform("row", {structure}) END AS fields '
        "FROM arriving))"
    ), types


def _unknown_keys(column_names: Sequence[str], document: str) -> str:
    """SQL condition that a JSON object has other keys than these."""
    return f"NOT list_has_all([{', '.join(map(quote_literal, column_names))}], json_keys({document}))"


def _packed(names: Mapping[str, str]) -> str:
    """SQL of a row as JSON text.

    Args:
        names: columns by the names that they have in the text.
    """
    packed = ", ".join(f"{quote_identifier(name)} := {quote_identifier(c)}" for name, c in names.items())
    return f"to_json(struct_pack({packed}))::VARCHAR"


def _is_of_the_file(fault: Exception, path: Path) -> bool:
    """Whether a reader refused this very file. A full disk, too little memory, a lake or a catalog that fails are not
    its fault: once the file is entered as broken, nobody would read it again."""
    import duckdb

    if isinstance(
        fault,
        duckdb.BinderException
        | duckdb.CatalogException
        | duckdb.ConversionException
        | duckdb.InvalidInputException
        | duckdb.NotSupportedError
        | duckdb.OutOfRangeException
        | duckdb.ParserException
        | duckdb.SyntaxException
        | duckdb.TypeMismatchException,
    ):
        return True
    if faults.full_disk(fault) or faults.lost_server(fault) or faults.failed_server(fault):
        return False
    if isinstance(fault, duckdb.IOException):
        return str(path) in str(fault) or "No files found" in str(fault)
    # A damaged header of a Parquet file is told of without a type of its own.
    return type(fault) is duckdb.Error


@contextmanager
def _unpacked(file: InputFile) -> Iterator[Path]:
    """The file's path, or that of an unpacked copy.

    Raises:
        _DamagedFile: it cannot be unpacked.
        OSError: it cannot be read, or there is no room for the copy.
    """
    if not file.compression:
        yield file.path
        return
    with tempfile.TemporaryDirectory(prefix=UNPACKED_PREFIX) as folder:
        copy = Path(folder) / "unpacked"
        with copy.open("wb") as plain:
            for chunk in splitter.unpacked(file.path, file.compression):
                if isinstance(chunk, splitter.CutOff):
                    raise _DamagedFile(chunk.why)
                plain.write(chunk)
        yield copy


@contextmanager
def _safe_name(path: Path) -> Iterator[str]:
    """A name by which DuckDB opens this file: text, whatever bytes its own consists of."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix=UNPACKED_PREFIX) as folder:
            # Queries may look at the name, and readers at its end.
            name = os.fsencode(path.name).decode("latin-1").encode()[-200:].decode(errors="ignore")
            link = Path(folder) / name
            link.symlink_to(path.absolute())
            yield os.fspath(link)
    else:
        yield os.fspath(path)


def glob_free(path: str) -> str:
    """The path with the characters that a reader would take for a pattern made literal: it matches no other file."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def _first_line(fault: Exception) -> str:
    told = str(fault)
    if isinstance(fault, UnicodeDecodeError):  # DuckDB's message shows bytes of the file that are no text
        told = fault.object.decode(errors="backslashreplace")
    return told.splitlines()[0][:200]
