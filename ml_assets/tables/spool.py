"""Rows on their way into a landing folder, on disk from the moment they are handed over.

A program that records an event at a time must not make a file of each. Its rows are appended to a spool, a file of
JSON lines beside the landing files, and become a landing file by a rename once they are many or old enough. So what
was accepted is out of the program's hands: it may be killed, and whoever comes next lands what it has left.

    landing/performance/.spool/<name>.jsonl         the rows; its owner holds a lock on it (flock) as long as it lives
    landing/performance/.spool/<name>.jsonl.count   how many rows were begun, written before several at once are
    landing/performance/.spool/abandoned.jsonl      what was landed for processes that died, a line each

A process that dies while it writes leaves a torn last line, and perhaps fewer rows than it began: that many are lost,
of a batch for which nobody was told that it is safe. A machine that loses its power may lose what its disk has not
taken yet; landing files have been flushed to it.

What belongs here: bytes, counts, files. What does not: what a row is.
"""

import fcntl
import os
import threading
import uuid
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from ml_assets.lib.words import counted

FOLDER = ".spool"
"""Within a stream's landing folder, so that a rename lands a file; names that begin with a dot are left alone."""

ABANDONED = "abandoned.jsonl"


@dataclass(frozen=True)
class Abandoned:
    """What a process had accepted and not landed when it died.

    Args:
        file: the landing file that it is now; None if there was no whole row.
        rows: how many rows that holds.
        lost: rows that were begun, and are not there whole.
    """

    file: Path | None
    rows: int
    lost: int

    def sentence(self, row: str) -> str:
        """What to tell of it.

        Args:
            row: what one row is, such as `performance event`.
        """
        if not self.rows:
            are = "is" if self.lost == 1 else "are"
            return f"{counted(self.lost, row)} that a killed process was about to write {are} lost: record them again."
        were = "was" if self.rows == 1 else "were"
        kept = f"{counted(self.rows, row)} that a process had recorded when it was killed {were} landed"
        if not self.lost:
            return f"{kept}; none is lost."
        return f"{kept}; {self.lost:,} that it was about to write are lost: record its last batch again."


class Spool:
    """One process's rows that are not landed yet; any number of threads may append.

    Args:
        folder: of the stream, such as `landing/performance`.
        max_rows: rows at which they are landed.
        max_seconds: seconds after which they are landed, counted from the first one.
    """

    def __init__(self, folder: Path, max_rows: int, max_seconds: float) -> None:
        self._folder = folder
        self._max_rows, self._max_seconds = max_rows, max_seconds
        self._begin()
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: (spool := own()) and spool._leave_to_parent())

    def _begin(self) -> None:
        self._guard = threading.Lock()
        self._timer: threading.Timer | None = None
        self._path: Path | None = None
        self._file = self._count = -1
        self._bytes = self._rows = 0

    def _leave_to_parent(self) -> None:
        """Begin anew in a forked child: what is open the parent lands, whose lock ends with the last who has it."""
        if self._path is not None:
            os.close(self._file)
            os.close(self._count)
        self._begin()

    def append(self, lines: bytes | bytearray, rows: int) -> None:
        """Accept rows, all or none.

        Args:
            lines: one JSON object a line, each with its line end.

        Raises:
            OSError: the disk is full, or the folder cannot be written; none of the rows was accepted.
        """
        with self._guard:
            if self._path is None:
                self._open()
            if rows > 1:  # of a single one a torn line tells
                os.pwrite(self._count, b"%020d" % (self._rows + rows), 0)
            try:
                left = memoryview(lines)
                while left:
                    left = left[os.write(self._file, left) :]
            except OSError:
                os.ftruncate(self._file, self._bytes)
                os.pwrite(self._count, b"%020d" % self._rows, 0)
                raise
            self._bytes += len(lines)
            self._rows += rows
            if self._rows >= self._max_rows:
                self._land()

    def land(self) -> Path | None:
        """Make a landing file of what there is; None if there is nothing."""
        with self._guard:
            return self._land()

    def _open(self) -> None:
        folder = self._folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{os.getpid()}-{uuid.uuid4().hex}.jsonl"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        # The count comes first: rows without one would be taken for all that were begun. The rows get their name once
        # they are locked, or others would take them for those of a dead process.
        count = os.open(_count_of(path), flags, 0o644)
        fresh = path.with_name(f"{path.name}.new")
        try:
            file = os.open(fresh, flags | os.O_APPEND, 0o644)
            fcntl.flock(file, fcntl.LOCK_EX)
            fresh.rename(path)
        except OSError:
            os.close(count)
            fresh.unlink(missing_ok=True)
            _count_of(path).unlink(missing_ok=True)
            raise
        self._path, self._file, self._count = path, file, count
        self._bytes = self._rows = 0
        self._timer = threading.Timer(self._max_seconds, self.land)
        self._timer.daemon = True
        self._timer.start()

    def _land(self) -> Path | None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._path is None:
            return None
        landed = None
        if self._rows:
            os.fsync(self._file)
            landed = _landing_file(self._folder)
            self._path.rename(landed)
        else:
            self._path.unlink()
        _count_of(self._path).unlink(missing_ok=True)
        os.close(self._file)
        os.close(self._count)
        self._path = None
        return landed


def land_abandoned(folder: Path) -> list[Abandoned]:
    """Land what processes that died have left in a stream's spool; returns what was found, a process each.

    Any number of processes may do it at once, and each may be killed and do it again.
    """
    spool = folder / FOLDER
    if not spool.is_dir():
        return []
    found = [each for path in sorted(spool.glob("*-*.jsonl")) if (each := _landed(folder, path))]
    for beside in (*spool.glob("*-*.jsonl.count"), *spool.glob("*-*.jsonl.new")):
        # Rows are landed or were never begun, unless it is just being made.
        if not beside.with_suffix("").exists() and not _is_alive(int(beside.name.partition("-")[0])):
            beside.unlink(missing_ok=True)
    return found


def abandoned(folder: Path) -> list[dict]:
    """What was ever landed for processes that died: `landed_at`, `pid`, `rows`, `lost`, `file`."""
    path = folder / FOLDER / ABANDONED
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [orjson.loads(line) for line in lines]


def _landed(folder: Path, path: Path) -> Abandoned | None:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # landed meanwhile
        return None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its owner lives
            return None
        if not path.exists() or path.stat().st_ino != os.fstat(file).st_ino:
            return None
        rows, whole = _whole_lines(file)
        torn = os.fstat(file).st_size > whole
        os.ftruncate(file, whole)
        os.fsync(file)
        target = _landing_file(folder) if rows else None
        told = Abandoned(target, rows, max(int(torn), _begun(path) - rows))
        if rows or told.lost:
            _note(path, told)
        if target:
            path.rename(target)
        else:
            path.unlink()
        _count_of(path).unlink(missing_ok=True)
    finally:
        os.close(file)
    return told if told.rows or told.lost else None


def _whole_lines(file: int) -> tuple[int, int]:
    """Number of lines that have an end, and the bytes up to the last of these ends."""
    rows = whole = place = 0
    while block := os.pread(file, 1 << 20, place):
        rows += block.count(b"\n")
        if (end := block.rfind(b"\n")) >= 0:
            whole = place + end + 1
        place += len(block)
    return rows, whole


def _begun(path: Path) -> int:
    try:
        return int(_count_of(path).read_bytes() or b"0")
    except FileNotFoundError:
        return 0


def _note(path: Path, told: Abandoned) -> None:
    entry = {
        "landed_at": datetime.now(UTC),
        "pid": int(path.name.partition("-")[0]),
        "rows": told.rows,
        "lost": told.lost,
        "file": told.file.name if told.file else None,
    }
    with path.with_name(ABANDONED).open("ab") as book:
        book.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _count_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.count")


def _landing_file(folder: Path) -> Path:
    return folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex}.jsonl"
