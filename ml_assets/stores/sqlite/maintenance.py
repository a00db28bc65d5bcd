"""Keeping the SQLite file small: VACUUM where a quarter of it is free, statistics, the write-ahead log.

SQLite uses pages of deleted rows again but never gives them back. VACUUM writes the file anew through the
write-ahead log, so readers go on with what they see, and a writer waits for it as for any other write.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

_FREE_SHARE = 0.25
"""Share of free pages from which rewriting the file pays."""

_CHECKPOINT_WAIT_MS = 1000
"""How long emptying the log may wait for readers; writers wait as long."""


def size(path: Path) -> int:
    """Bytes of the file and of its log; 0 if it was never written."""
    files = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    return sum(map(_file_bytes, files))


def maintain(connection: sqlite3.Connection) -> Iterator[str]:
    """Give free pages back, refresh what the planner knows, and empty the log.

    Args:
        connection: on which each statement stands alone.
    """
    free = _number(connection, "PRAGMA freelist_count")
    if free > _FREE_SHARE * _number(connection, "PRAGMA page_count"):
        connection.execute("VACUUM")
        yield f"Gave {free:,} free pages back."
    connection.execute("PRAGMA optimize = 0x10002")  # ANALYZE where row counts have changed much
    connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _file_bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # the last one to close the database removes the log
        return 0


def _number(connection: sqlite3.Connection, statement: str) -> int:
    return int(connection.execute(statement).fetchone()[0])
