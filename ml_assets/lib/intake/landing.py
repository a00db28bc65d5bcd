"""The landing folders: which files there are, in which format, and which of them are complete.

What belongs here: names, sizes, times and hashes of files. What is in them is splitter.py's business.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FileFormat = Literal["jsonl", "csv", "parquet", "foreign"]
Compression = Literal["", "gzip", "zstd"]

FORMATS: dict[str, FileFormat] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}

UNFINISHED = (".tmp", ".partial")
"""Names that end so are left alone until their writer renames them."""

QUIET_S = 1.0
"""A file is complete once nobody has written to it for so long."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class LandingFile:
    """A file to be taken in, as it stood when it was listed.

    Args:
        unit: path below the stream's folder with forward slashes; what the ledger calls it.
        path: where to open it.
        size: bytes.
        mtime_ns: last change, nanoseconds since 1970.
        format: `foreign` for a file that a source's query reads.
        version: of that query; a file is new again when the query is.
    """

    unit: str
    path: Path
    size: int
    mtime_ns: int
    format: FileFormat
    compression: Compression = ""
    version: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the file does, at the price of a stat."""
        return f"{self.size}:{self.mtime_ns}:{self.version}"

    def unchanged(self) -> bool:
        """Whether the file is still as it was listed.

        Raises:
            FileNotFoundError: it is gone.
        """
        stat = self.path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass
class Listing:
    """What lies in a stream's folder.

    Args:
        files: to be taken in.
        skipped: reason by path for what is left alone.
    """

    files: list[LandingFile] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def file_format(name: str) -> tuple[FileFormat, Compression] | None:
    """Format and compression by the end of the name; None if it is none of ours."""
    path = Path(name.lower())
    compression = COMPRESSIONS.get(path.suffix, "")
    found = FORMATS.get(path.with_suffix("").suffix if compression else path.suffix)
    return (found, compression) if found else None


def unreadable(fault: OSError) -> str:
    """Why a file or folder is left alone that is there."""
    return f"cannot be read ({fault.strerror or fault}); check its permissions"


def unit_name(path: Path, folder: Path) -> str:
    """The path below the folder as text that every store can hold, whatever bytes the name consists of."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")


def list_files(folder: Path) -> Listing:
    """Every file below a stream's folder, in order of path. A folder that is not there is empty."""
    listing = Listing()
    inside = folder.resolve()
    for root, folders, names in os.walk(folder):
        for name in [n for n in folders if n.startswith(".") or (Path(root) / n).is_symlink()]:
            folders.remove(name)
            if not name.startswith("."):
                unit = unit_name(Path(root) / name, folder)
                listing.skipped[unit] = "a linked folder is not followed; put the files themselves here"
        folders.sort()
        for name in sorted(names):
            if not name.startswith("."):
                _look_at(Path(root) / name, folder, inside, listing)
    return listing


def _look_at(path: Path, folder: Path, inside: Path, listing: Listing) -> None:
    unit = unit_name(path, folder)
    if path.name.endswith(UNFINISHED):
        listing.skipped[unit] = "unfinished by its name; rename it when it is complete"
        return
    known = file_format(path.name)
    if known is None:
        endings = ", ".join(FORMATS)
        listing.skipped[unit] = f"its name ends in none of {endings} (or these with .gz or .zst); rename it"
        return
    if path.is_symlink() and not path.resolve().is_relative_to(inside):
        listing.skipped[unit] = "a link that leads out of the landing folder is refused; copy the file here"
        return
    try:
        stat = path.stat()
    except FileNotFoundError:  # removed since the folder was read, or a link to nothing
        listing.skipped[unit] = "gone before it could be read"
        return
    listing.files.append(LandingFile(unit, path, stat.st_size, stat.st_mtime_ns, *known))


def quiet(file: LandingFile, now: float) -> bool:
    """Whether the file has been left alone for `QUIET_S`. A time in the future counts as quiet."""
    age = now - file.mtime_ns / 1e9
    return not 0 <= age < QUIET_S


def wait_until_quiet(files: list[LandingFile]) -> None:
    """Wait, at most `QUIET_S`, until the youngest file would be quiet if nobody writes to it."""
    now = time.time()
    ages = [now - file.mtime_ns / 1e9 for file in files if not quiet(file, now)]
    if ages:
        time.sleep(QUIET_S - min(ages))


def read_chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes, a megabyte at a time."""
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


@dataclass(frozen=True)
class Content:
    """What a look at all bytes of a file tells.

    Args:
        sha256: in hexadecimal.
        lines: number of lines, the last one with or without its end; 0 unless asked for.
    """

    sha256: str
    lines: int


def content_hash(sha256: str, format: FileFormat, compression: Compression) -> str:
    """Hash of a file's bytes as they are read: the same bytes under a name that tells another format are another
    content."""
    return hashlib.sha256(f"{format}\0{compression}\0{sha256}".encode()).hexdigest()


def misread_hashes(sha256: str, format: FileFormat, compression: Compression) -> set[str]:
    """What `content_hash` would be had the name told another format or compression."""
    readings = {content_hash(sha256, f, c) for f in FORMATS.values() for c in ("", *COMPRESSIONS.values())}
    return readings - {content_hash(sha256, format, compression)}


def look_through(path: Path, count_lines: bool = False) -> Content:
    """Hash a file and, if wanted, count its lines.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    lines, last = 0, b"\n"
    for chunk in read_chunks(path):
        digest.update(chunk)
        if count_lines:
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return Content(digest.hexdigest(), lines + (last != b"\n"))
