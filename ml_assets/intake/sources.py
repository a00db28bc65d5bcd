"""Sources: foreign files that one SELECT turns into rows of a stream.

A source is a file `sql/duckdb/sources/NAME.sql`: a DuckDB query over `$file` that yields columns of a stream,
with a header comment

    -- stream: performance
    -- glob: timm/benchmark-infer-*.csv

What belongs here: finding sources and their files. Each file is read by itself, once per path, content of the
file and text of the query, so a changed query reads its files again.
"""

import glob
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ml_assets.contracts import STREAMS
from ml_assets.errors import SourceError
from ml_assets.intake.input_files import TEXTS, Listing, list_files, look_at, text_path
from ml_assets.intake.readers import Query, without_guesses
from ml_assets.settings import SQL_DIR

FOLDER = SQL_DIR / "duckdb" / "sources"

_HEADER = re.compile(r"^--\s*(stream|glob)\s*:\s*(\S.*?)\s*$", re.MULTILINE)


REFUSED = "sql/duckdb/sources"
"""Stands for the root of files that are no sources."""


@dataclass(frozen=True)
class Source:
    """A query over foreign files.

    Args:
        name: of its file, without `.sql`.
        stream: whose columns it yields.
        glob: files to read; absolute, or below the landing folder.
        sql: one SELECT with the parameter `$file`.
    """

    name: str
    stream: str
    glob: str
    sql: str

    @property
    def root(self) -> str:
        """What the ledger calls its files' root."""
        return f"source:{self.name}"

    @property
    def version(self) -> str:
        """Changes with the query."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:12]

    @cached_property
    def query(self) -> Query:
        """What is run: the text, with the readers' guesses taken away."""
        return without_guesses(self.sql)

    def content_hash(self, file_hash: str, item_name: str) -> str:
        """Hash of a file as this query reads it. Its path is an input of the query, in whatever way that looks at it:
        by `$file`, by a reader's `filename`, by the names of folders."""
        return hashlib.sha256(f"{self.name}\0{self.version}\0{item_name}\0{file_hash}".encode()).hexdigest()


def read_source(path: Path) -> Source:
    """A source from its file.

    Raises:
        SourceError: the header names no stream or no glob, or the query does not use $file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise SourceError(f"{path.name} cannot be read ({fault}); save it as UTF-8") from None
    header = dict(_HEADER.findall(text))
    missing = [name for name in ("stream", "glob") if name not in header]
    stream = header.get("stream", "")
    if missing:
        told = f"{path.name} names no {missing[0]}; begin it with the comment '-- {missing[0]}: ...'"
        raise SourceError(told, stream)
    if stream not in STREAMS:
        raise SourceError(f"{path.name} names the stream {stream!r}; name one of {', '.join(STREAMS)}")
    if "$file" not in text:
        told = f"{path.name} does not use $file; read the file by read_csv($file) or the like"
        raise SourceError(told, stream)
    return Source(path.stem, stream, header["glob"], text.strip().rstrip(";"))


def sources(
    stream: str, globs: Mapping[str, str], folder: Path = FOLDER
) -> tuple[list[Source], dict[str, str]]:
    """The sources of a stream, by name; and by file why others are none, so that they stop nobody.

    A file that names no stream is told of in every one.

    Args:
        globs: globs by source that take the place of those in the headers.

    Raises:
        SourceError: a glob is given for a source that is not there.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.sql"))}
    for name in globs:
        if name not in paths:
            raise SourceError(
                f"ML_ASSETS_SOURCES names {name!r}, but there is no {name}.sql in {REFUSED}; "
                f"name one of {', '.join(paths)}"
            )
    found, refused = [], {}
    for path in paths.values():
        try:
            source = read_source(path)
        except SourceError as fault:
            if fault.stream in (None, "", stream):
                refused[path.name] = str(fault)
            continue
        if source.stream == stream:
            found.append(replace(source, glob=globs.get(source.name, source.glob)))
    return found, refused


def list_source(source: Source, landing_folder: Path) -> Listing:
    """The files under a source's glob, in order of path.

    An item name is the path below the landing folder, or the whole one of a file that lies elsewhere: were it shorter,
    a file under another glob could take the place of this one.
    """
    listing = Listing()
    below = not Path(source.glob).is_absolute()
    inside = landing_folder.resolve() if below else None
    pattern = os.path.join(glob.escape(str(landing_folder)), source.glob) if below else source.glob  # noqa: PTH118
    for found in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute one
        path = Path(found)
        if path.is_dir():
            continue
        item_name = text_path(path.relative_to(landing_folder) if below else path)
        look_at(found, item_name, listing, inside, source.version)
    return listing


def stream_inputs(
    stream: str, landing_folder: Path, globs: Mapping[str, str]
) -> list[tuple[str, Source | None, Listing]]:
    """All files that a stream is taken in from: root, query and files of its landing folder ("") and its sources.

    Args:
        landing_folder: the folder above the streams' own.
        globs: as in `sources`.

    Raises:
        SourceError: as `sources`.
    """
    found, refused = sources(stream, globs)
    listed = [(source.root, source, list_source(source, landing_folder)) for source in found]
    own = list_files(landing_folder / stream, STREAMS[stream].whole_files)
    if STREAMS[stream].whole_files and listed:
        # A text that a query reads is what the query makes of it.
        taken = {os.path.realpath(file.location) for *_, listing in listed for file in listing.files}
        own.files = [
            file
            for file in own.files
            if file.format not in TEXTS.values() or os.path.realpath(file.location) not in taken
        ]
    return [("", None, own), *listed, (REFUSED, None, Listing(skipped=refused))]


def stream_listings(stream: str, landing_folder: Path, globs: Mapping[str, str]) -> dict[str, Listing]:
    """The listings of `stream_inputs` by root."""
    return {root: listing for root, _, listing in stream_inputs(stream, landing_folder, globs)}


def left_alone(stream: str, skipped: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Reason by path for what is left alone, of all roots of a stream.

    Args:
        skipped: by root.
    """
    return {
        f"{root or stream}/{item_name.removeprefix('/')}": why
        for root, each in skipped.items()
        for item_name, why in each.items()
    }
