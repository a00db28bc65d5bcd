"""Keeping Chroma small: entries that nobody names, and an index that never forgets.

Measured with Chroma 1.5.9: the index of a collection keeps the vector of every entry that it ever held, and a
collection that is deleted leaves its folder behind. So the embedded server's collections whose index is
mostly of deleted entries are rebuilt, folders of deleted collections are removed, and its SQLite file, whose
free pages Chroma never gives back, is vacuumed. Of a server that somebody else runs no folder can be seen;
there only entries of killed writers are deleted.

What belongs here: when to do it. How a collection is rebuilt is told in io_managers/chroma.py.
"""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from ml_assets.contracts import Contract
from ml_assets.io_managers.chroma import drop_replaced, rebuild, sweep_all
from ml_assets.maintenance.base import Terms, counted, folder_bytes
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.chroma.collections import asked
from ml_assets.stores.chroma.index import PUT_ASIDE
from ml_assets.stores.postgres_table import known_contracts

_LOOSE = 1.5
"""Size of an index, relative to that of its live entries, from which rebuilding pays."""

_WORTH_BYTES = 2**18
_LINKS_BYTES = 144
"""What the index takes for an entry besides its vector: links of the lowest layer, label, count."""

_FREE_SHARE = 0.1
_VACUUM_MAX_BYTES = 256 * 2**20
"""Rewriting a larger SQLite file would keep Chroma waiting for longer than it waits for a lock (5 s)."""


def size(chroma: ChromaResource) -> int | None:
    """Bytes of the embedded server's folder; None for a server that somebody else runs, which does not tell."""
    folder = chroma.data_folder()
    return None if folder is None else folder_bytes(folder)


def tidy(chroma: ChromaResource, postgres: PostgresResource, terms: Terms) -> Iterator[str]:
    """Delete what killed writers have left, and give back what deleted entries take.

    Raises:
        StoreUnavailable: Chroma or PostgreSQL does not answer.
    """
    if swept := sum(sweep_all(chroma, postgres).values()):
        yield f"Deleted {counted(swept, 'entry', 'entries')} of killed writers, or that had been read for longer."
    if dropped := drop_replaced(chroma, datetime.now(UTC) - terms.grace):
        yield f"Deleted {counted(dropped, 'collection')} that was replaced by a rebuilt one."
    folder = chroma.data_folder()
    if folder is None or not (folder / "chroma.sqlite3").exists():
        return
    with postgres.connect() as connection:
        contracts = known_contracts(connection, "chroma")
    for contract in contracts:
        if _is_loose(folder, contract):
            count = rebuild(chroma, postgres, contract)
            if count is None:
                yield f"Did not rebuild the index of {contract.table}, whose old entries are being read."
                continue
            yield f"Rebuilt the index of {contract.table} with {counted(count, 'live entry', 'live entries')}."
    yield from _remove_folders(folder, terms)
    yield from _vacuum(folder)


def _is_loose(folder: Path, contract: Contract) -> bool:
    """Whether deleted entries take a good part of a collection's index."""
    rows = asked(
        folder,
        "SELECT s.id, c.dimension, (SELECT count(*) FROM embeddings AS e JOIN segments AS m "
        "ON m.id = e.segment_id AND m.collection = c.id) "
        "FROM collections AS c JOIN segments AS s ON s.collection = c.id AND s.scope = 'VECTOR' WHERE c.name = ?",
        contract.table,
    )
    if not rows or rows[0][1] is None:
        return False
    segment, dimension, entries = rows[0]
    needed = entries * (4 * dimension + _LINKS_BYTES)
    held = folder_bytes(folder / segment)
    return held > needed + _WORTH_BYTES and held > _LOOSE * needed


def _remove_folders(folder: Path, terms: Terms) -> Iterator[str]:
    """Remove indexes that belong to no collection any more."""
    known = {segment for (segment,) in asked(folder, "SELECT id FROM segments")}
    oldest = time.time() - terms.grace.total_seconds()
    dead = [
        index
        for index in folder.iterdir()
        if index.name not in known and _is_index(index) and index.stat().st_mtime < oldest
    ]
    for index in dead:
        shutil.rmtree(index)
    if dead:
        yield f"Removed {counted(len(dead), 'index', 'indexes')} of deleted collections."


def _is_index(folder: Path) -> bool:
    return (folder / "data_level0.bin").exists() or folder.name.endswith(PUT_ASIDE)


def _vacuum(folder: Path) -> Iterator[str]:
    _merge_text_index(folder)
    (free,), (pages,), (page_bytes,) = (
        asked(folder, f"PRAGMA {name}")[0] for name in ("freelist_count", "page_count", "page_size")
    )
    if free > _FREE_SHARE * pages and pages * page_bytes < _VACUUM_MAX_BYTES:
        with _opened(folder) as connection:
            connection.execute("VACUUM")
        yield f"Gave {free:,} free pages back."


def _merge_text_index(folder: Path) -> None:
    """Let the full-text index forget deleted entries; it keeps a note of each until its parts are merged."""
    if (folder / "chroma.sqlite3").stat().st_size >= _VACUUM_MAX_BYTES:
        return
    table = "embedding_fulltext_search"
    with _opened(folder) as connection, suppress(sqlite3.OperationalError):
        # A Python whose SQLite has no FTS5 cannot do it; nothing but space depends on it.
        connection.execute(f"INSERT INTO {table}({table}) VALUES ('optimize')")


def _opened(folder: Path) -> "closing[sqlite3.Connection]":
    return closing(sqlite3.connect(folder / "chroma.sqlite3", isolation_level=None))
