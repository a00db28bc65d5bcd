"""The files that intake reads, in landing folders and in the folders of sources.

This module lists the files, tells the format of each and whether it is complete, and computes its hash. splitter.py
reads the rows in them.
"""

import errno
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Literal, NamedTuple

FileFormat = Literal["jsonl", "csv", "parquet", "markdown", "text", "foreign"]
Compression = Literal["", "gzip", "zstd"]

FORMATS: dict[str, FileFormat] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
TEXTS: dict[str, FileFormat] = {".md": "markdown", ".txt": "text"}
"""Of files that are one document each, in the stream that takes them (`Stream.whole_files`)."""

WITH_TEXTS: dict[str, FileFormat] = {**FORMATS, **TEXTS}

COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}

UNFINISHED = (".tmp", ".partial")
"""Names that end so are left alone until their writer renames them."""

_SQLITE_LOG = "-wal"
_SQLITE_OWN = (_SQLITE_LOG, "-shm", "-journal")
"""Ends of the names of what SQLite keeps beside a file. The log holds changes that will stand in the file later, and a
query sees them already."""

QUIET_S = 1.0
"""A file is complete once nobody has written to it for so long."""

_FOR_ALL = 0o444
"""Readable for everybody, so that nobody need be asked who we are."""

LONGEST_ITEM_NAME = 2_000
"""Bytes of a path below the stream's folder: the ledger looks items up by it and that folder's path, and an entry of
PostgreSQL's index holds 2,704."""

_CHUNK = 128 << 10
"""Of a file that is looked through. Larger arrays are given back to the system and taken anew each time."""

_PART = 32 << 20
"""Of a file that is hashed by itself, so that every core has some."""


class InputFile(NamedTuple):
    """A file to be taken in, as it stood when it was listed.

    Args:
        item_name: the path below the stream's folder with forward slashes, or the path that sources.py gives it; the
            ledger stores it in its column `unit`.
        location: where to open it; text, since a `Path` for each of thousands of files is slow.
        size: bytes.
        mtime_ns: last change, nanoseconds since 1970.
        format: `foreign` for a file that a source's query reads.
        version: of that query; a file is new again when the query is.
        log: size and last change of the log that SQLite keeps beside it; "" if there is none.
    """

    item_name: str
    location: str
    size: int
    mtime_ns: int
    format: FileFormat
    compression: Compression = ""
    version: str = ""
    log: str = ""

    @property
    def path(self) -> Path:
        """Where to open it."""
        return Path(self.location)

    @property
    def stem(self) -> str:
        """The item name without the ending that tells format and compression."""
        stem = self.item_name.rpartition(".")[0]
        return stem.rpartition(".")[0] if self.compression else stem

    @property
    def log_path(self) -> Path:
        """Where SQLite keeps the log."""
        return Path(self.location + _SQLITE_LOG)

    @property
    def fingerprint(self) -> str:
        """Changes whenever the file does, at the price of a stat."""
        return f"{self.size}:{self.mtime_ns}:{self.version}" + (f":{self.log}" if self.log else "")

    def unchanged(self) -> bool:
        """Whether the file is still as it was listed.

        Raises:
            FileNotFoundError: it is gone.
        """
        stat = self.path.stat()
        log = _log_state(self.location) if self.version else ""
        return (stat.st_size, stat.st_mtime_ns, log) == (self.size, self.mtime_ns, self.log)


@dataclass
class Listing:
    """What lies in a stream's folder.

    Args:
        files: to be taken in.
        skipped: reason by path for what is left alone.
    """

    files: list[InputFile] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def file_format(name: str, formats: Mapping[str, FileFormat]) -> tuple[FileFormat, Compression] | None:
    """Format and compression by the end of the name; None if it is none of `formats`."""
    stem, dot, ending = name.lower().rpartition(".")
    compression = COMPRESSIONS.get(dot + ending, "")
    if compression:
        _, dot, ending = stem.rpartition(".")
    found = formats.get(dot + ending)
    return (found, compression) if found else None


def unreadable(fault: OSError) -> str:
    """Why a file or folder is left alone that is there."""
    return f"cannot be read ({fault.strerror or fault}); check its permissions"


def text_path(path: Path | str) -> str:
    """The path as text that every store can hold, whatever bytes the name consists of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def list_files(folder: Path, whole_files: bool = False) -> Listing:
    """Every file below a stream's folder, in order of path. A folder that is not there is empty.

    Args:
        folder: the stream's.
        whole_files: whether the stream takes texts, as one row each.
    """
    listing = Listing()
    _list_folder(os.fspath(folder), "", folder.resolve(), listing, WITH_TEXTS if whole_files else FORMATS)
    return listing


def _list_folder(
    folder: str, above: str, inside: Path, listing: Listing, formats: Mapping[str, FileFormat]
) -> None:
    """Files of a folder, then those of the folders in it.

    Args:
        above: what the item names of its files begin with.
        inside: folder that nothing may lead out of.
        formats: by ending.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as fault:
        listing.skipped[above.rstrip("/") or "."] = unreadable(fault)
        return
    folders = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        item_name = above + (entry.name if entry.name.isascii() else text_path(entry.name))
        if not _is_folder(entry):
            look_at(entry.path, item_name, listing, inside if entry.is_symlink() else None, formats=formats)
        elif entry.is_symlink():
            listing.skipped[item_name] = "a linked folder is not followed; put the files themselves here"
        else:
            folders.append((entry.path, item_name))
    for path, item_name in folders:
        if os.path.islink(path):  # noqa: PTH114 - exchanged for one since it was looked at
            continue
        _list_folder(path, f"{item_name}/", inside, listing, formats)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself; the look at it will tell
        return False


def look_at(
    path: str,
    item_name: str,
    listing: Listing,
    inside: Path | None,
    version: str = "",
    formats: Mapping[str, FileFormat] = FORMATS,
) -> None:
    """Put a file on the list, or the reason why it is left alone.

    Args:
        inside: folder that the file has to lie in; None if that is known.
        version: of the query that reads it; "" for a landing file.
        formats: by ending, of a landing file.
    """
    if len(item_name.encode()) > LONGEST_ITEM_NAME:
        listing.skipped[item_name] = (
            f"its path has more than {LONGEST_ITEM_NAME:,} bytes; shorten the names of its folders"
        )
        return
    if path.endswith(UNFINISHED):
        listing.skipped[item_name] = "unfinished by its name; rename it when it is complete"
        return
    if version and _is_beside(path):
        listing.skipped[item_name] = "SQLite's own beside the file of this name, with which it is read"
        return
    form: tuple[FileFormat, Compression] | None = ("foreign", "") if version else file_format(path, formats)
    if form is None:
        endings = ", ".join(formats)
        listing.skipped[item_name] = (
            f"its name ends in none of {endings} (or these with .gz or .zst); rename it"
        )
        return
    # Path.resolve raises for a link that leads to itself.
    if inside is not None and not Path(os.path.realpath(path)).is_relative_to(inside):
        listing.skipped[item_name] = (
            "a link that leads out of the landing folder is refused; copy the file here"
        )
        return
    try:
        stat = os.stat(path)  # noqa: PTH116 - see InputFile.location
    except FileNotFoundError:  # removed since the folder was read, or a link to nothing
        listing.skipped[item_name] = "gone before it could be read"
        return
    except OSError as fault:
        listing.skipped[item_name] = unreadable(fault)
        return
    if not S_ISREG(stat.st_mode):
        # Opening a pipe would wait for a writer.
        listing.skipped[item_name] = "a pipe, socket or device is not read; write a file here"
    elif stat.st_mode & _FOR_ALL != _FOR_ALL and not os.access(path, os.R_OK):
        listing.skipped[item_name] = unreadable(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    else:
        file = InputFile(item_name, path, stat.st_size, stat.st_mtime_ns, *form, version=version)
        listing.files.append(file._replace(log=_log_state(path)) if version else file)


def _is_beside(path: str) -> bool:
    return any(path.endswith(end) and os.path.exists(path.removesuffix(end)) for end in _SQLITE_OWN)  # noqa: PTH110


def _log_state(path: str) -> str:
    try:
        stat = os.stat(path + _SQLITE_LOG)  # noqa: PTH116 - see InputFile.location
    except OSError:  # there is none, which is how it is with most files
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}" if stat.st_size else ""


def quiet(file: InputFile, now: float) -> bool:
    """Whether the file has been left alone for `QUIET_S`. A time in the future counts as quiet."""
    age = now - file.mtime_ns / 1e9
    return not 0 <= age < QUIET_S


def wait_until_quiet(files: list[InputFile]) -> None:
    """Wait, at most `QUIET_S`, until the youngest file would be quiet if nobody writes to it.

    A time in the future tells nothing: whether such a file grows is seen after `QUIET_S`.
    """
    now = time.time()
    youngest = min((max(0.0, now - file.mtime_ns / 1e9) for file in files), default=QUIET_S)
    if youngest < QUIET_S:
        time.sleep(QUIET_S - youngest)


def read_chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes, an eighth of a megabyte at a time."""
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


@dataclass(frozen=True)
class FileScan:
    """What one pass over all bytes of a file found.

    Args:
        sha256: in hexadecimal; of a file of several parts, that of the parts' own ones.
        lines: number of lines, the last one with or without its end; 0 unless asked for.
        keys: how many keys JSON in the file has at most; None if that takes more than counting, or unasked for.
    """

    sha256: str
    lines: int
    keys: int | None


def content_hash(sha256: str, format: FileFormat, compression: Compression, stem: str) -> str:
    """The hash of a file's bytes and of how they are read: equal bytes under a name that tells another format are
    another content. The hash of a text covers its name, too, because the name tells the document."""
    name = f"{stem}\0" if format in TEXTS.values() else ""
    return hashlib.sha256(f"{format}\0{compression}\0{name}{sha256}".encode()).hexdigest()


def misread_hashes(sha256: str, format: FileFormat, compression: Compression, stem: str) -> set[str]:
    """What `content_hash` would be had the name told another format or compression."""
    formats = WITH_TEXTS.values()
    readings = {content_hash(sha256, f, c, stem) for f in formats for c in ("", *COMPRESSIONS.values())}
    return readings - {content_hash(sha256, format, compression, stem)}


def scan_file(path: Path, count_lines: bool = False, count_keys: bool = False) -> FileScan:
    """Hash a file and, if wanted, count its lines and the keys of its JSON.

    Raises:
        OSError: it cannot be read.
    """
    look = partial(_scan_part, path, count_lines=count_lines, count_keys=count_keys)
    starts = range(0, path.stat().st_size, _PART)
    if len(starts) <= 1:
        return look(0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(look, starts))
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    counted = [part.keys for part in parts if part.keys is not None]
    keys = sum(counted) if len(counted) == len(parts) else None
    return FileScan(digest, sum(part.lines for part in parts), keys)


def _scan_part(path: Path, start: int, count_lines: bool, count_keys: bool) -> FileScan:
    """The same of `_PART` bytes; a line or a key belongs to the part that it ends in."""
    digest = hashlib.sha256()
    lines, left, keys = 0, _PART, 0 if count_keys else None
    with path.open("rb") as stream:
        stream.seek(max(0, start - 1))
        last = stream.read(1) if start else b"\n"
        while left and (chunk := stream.read(min(_CHUNK, left))):
            left -= len(chunk)
            digest.update(chunk)
            if count_lines:
                lines += _count(chunk, b"\n")
            if keys is not None:
                more = _keys(last + chunk)
                keys = None if more is None else keys + more
            last = chunk[-1:]
        unended = count_lines and last != b"\n" and not stream.read(1)
    return FileScan(digest.hexdigest(), lines + unended, keys)


def _count(text: bytes, byte: bytes) -> int:
    """How often a byte occurs; `bytes.count` takes longer."""
    import numpy as np

    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(byte)))


def _keys(text: bytes) -> int | None:
    """How often a colon follows a quote: each key is told so, unless white space may stand between."""
    import numpy as np

    data = np.frombuffer(text, np.uint8)
    before, colon = data[:-1], data[1:] == ord(":")
    keys = np.count_nonzero(colon & (before == ord('"')))
    # White space, and an exclamation mark, which is no key's end either but rare.
    others = np.count_nonzero(colon & (before <= ord('"'))) - keys
    return None if others else int(keys)
