"""Sources: foreign files that one SELECT turns into rows of a stream.

A source is a file `sql/duckdb/sources/NAME.sql`: a DuckDB query over `$file` that yields columns of a stream,
with a header comment

    -- stream: performance
    -- glob: timm/benchmark-infer-*.csv

What belongs here: finding sources and their files. Each file is read by itself, once per content of the file
and text of the query, so a changed query reads its files again.
"""

import glob
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from ml_assets.contracts import STREAMS
from ml_assets.errors import Refusal
from ml_assets.lib.intake.landing import LandingFile, Listing, list_files, unit_name
from ml_assets.settings import SQL_DIR

FOLDER = SQL_DIR / "duckdb" / "sources"

_HEADER = re.compile(r"^--\s*(stream|glob)\s*:\s*(\S.*?)\s*$", re.MULTILINE)


class SourceError(Refusal):
    """A source's file is not one. One sentence: which file, what is wrong, the way out."""


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

    def content_hash(self, file_hash: str) -> str:
        """Hash of a file as this query reads it."""
        return hashlib.sha256(f"{self.name}\0{self.version}\0{file_hash}".encode()).hexdigest()


def read_source(path: Path) -> Source:
    """A source from its file.

    Raises:
        SourceError: the header names no stream or no glob, or the query does not use $file.
    """
    text = path.read_text(encoding="utf-8")
    header = dict(_HEADER.findall(text))
    missing = [name for name in ("stream", "glob") if name not in header]
    if missing:
        raise SourceError(
            f"{path.name} names no {missing[0]}; begin it with the comment '-- {missing[0]}: ...'"
        )
    if header["stream"] not in STREAMS:
        streams = ", ".join(STREAMS)
        raise SourceError(f"{path.name} names the stream {header['stream']!r}; name one of {streams}")
    if "$file" not in text:
        raise SourceError(f"{path.name} does not use $file; read the file by read_csv($file) or the like")
    return Source(path.stem, header["stream"], header["glob"], text.strip().rstrip(";"))


def sources(stream: str, globs: Mapping[str, str], folder: Path = FOLDER) -> list[Source]:
    """The sources of a stream, by name.

    Args:
        globs: globs by source that take the place of those in the headers.

    Raises:
        SourceError: as `read_source`.
    """
    found = [read_source(path) for path in sorted(folder.glob("*.sql"))]
    return [Source(s.name, s.stream, globs.get(s.name, s.glob), s.sql) for s in found if s.stream == stream]


def list_source(source: Source, landing_folder: Path) -> Listing:
    """The files under a source's glob, in order of path."""
    listing = Listing()
    pattern = str(landing_folder / source.glob)  # an absolute glob takes the place of the folder
    for found in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute one
        path = Path(found)
        unit = unit_name(path, fixed_part(pattern))
        try:
            stat = path.stat()
        except FileNotFoundError:
            listing.skipped[unit] = "gone before it could be read"
            continue
        if S_ISREG(stat.st_mode):
            file = LandingFile(unit, path, stat.st_size, stat.st_mtime_ns, "foreign", version=source.version)
            listing.files.append(file)
    return listing


def stream_listings(stream: str, landing_folder: Path, globs: Mapping[str, str]) -> dict[str, Listing]:
    """All files that a stream is taken in from, by root: "" is its landing folder, others are sources.

    Args:
        landing_folder: the folder above the streams' own.
        globs: as in `sources`.
    """
    found = {"": list_files(landing_folder / stream)}
    for source in sources(stream, globs):
        found[source.root] = list_source(source, landing_folder)
    return found


def fixed_part(pattern: str) -> Path:
    """The folder above the first part of a glob that is a pattern; a file's own folder if none is."""
    parts = Path(pattern).parts[:-1]
    fixed = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])
