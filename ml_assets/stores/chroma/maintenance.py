"""Keeping Chroma small: entries that nobody names, and an index that never forgets.

Measured with Chroma 1.5.9: the index of a collection keeps the vector of every entry that it ever held, and a
collection that is deleted leaves its folder behind. So the embedded server's collections whose index is
mostly of deleted entries are rebuilt, folders of deleted collections are removed, and its SQLite file, whose
free pages Chroma never gives back, is vacuumed. Of a server that somebody else runs no folder can be seen;
there only entries of killed writers are deleted.

What belongs here: when to do it, and making way for what is new. How entries are swept is told in
stores/vectors/sweep.py, how a collection is copied in index.py.
"""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.lib.sql import utc_text
from ml_assets.lib.words import counted
from ml_assets.stores import postgres_table
from ml_assets.stores.chroma.collections import NEXT, OLD, asked, ensure_collection
from ml_assets.stores.chroma.index import PUT_ASIDE, replace
from ml_assets.stores.files import folder_bytes
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.sweep import sweep_all
from ml_assets.tables.store import Retention

if TYPE_CHECKING:
    from ml_assets.stores.chroma import ChromaServer, ChromaStore
    from ml_assets.stores.vectors import ManifestDatabase

_LOOSE = 1.5
"""Size of an index, relative to that of its live entries, from which rebuilding pays."""

_WORTH_BYTES = 2**18
_LINKS_BYTES = 144
"""What the index takes for an entry besides its vector: links of the lowest layer, label, count."""

_FREE_SHARE = 0.1
_VACUUM_MAX_BYTES = 256 * 2**20
"""Rewriting a larger SQLite file would keep Chroma waiting for longer than it waits for a lock (5 s)."""


def maintain(store: "ChromaStore", retention: Retention) -> Iterator[str]:
    """Delete what killed writers have left, and give back what deleted entries take.

    Raises:
        StoreUnavailable: Chroma or PostgreSQL does not answer.
    """
    chroma, postgres = store.chroma, store.postgres
    if swept := sum(sweep_all(store).values()):
        yield f"Deleted {counted(swept, 'entry', 'entries')} of killed writers, or that had been read for longer."
    if dropped := drop_replaced(chroma, datetime.now(UTC) - retention.grace):
        yield f"Deleted {counted(dropped, 'collection')} that was replaced by a rebuilt one."
    folder = chroma.data_folder()
    if folder is None or not (folder / "chroma.sqlite3").exists():
        return
    for contract in store.contracts():
        if _is_loose(folder, contract):
            count = rebuild(chroma, postgres, contract)
            if count is None:
                yield f"Did not rebuild the index of {contract.table}, whose old entries are being read."
                continue
            yield f"Rebuilt the index of {contract.table} with {counted(count, 'live entry', 'live entries')}."
    yield from _remove_folders(folder, retention.grace)
    yield from _vacuum(folder)


def rebuild(chroma: "ChromaServer", postgres: "ManifestDatabase", contract: Contract) -> int | None:
    """Copy the live entries into a new collection that takes the old one's name; returns how many.

    Nothing is done, and None returned, while somebody reads who began before the last commit: he has perhaps not
    opened the collection yet.

    Chroma's index never forgets an entry that was deleted; only a new one is free of them. Readers that have
    opened the old collection read on: it stays, with another name, until `drop_replaced`. May be killed at
    any point: the name then stands for the old collection or for the new one, which hold the same.
    """
    with postgres.connect(write=True) as connection, chroma.client(write=True) as client:
        postgres_table.lock(connection, contract.asset)
        if manifest.has_readers_behind(connection, contract.table):
            return None
        count, _ = replace(client, connection, ensure_collection(client, contract))
    return count


def drop_replaced(chroma: "ChromaServer", before: datetime) -> int:
    """Delete collections that `rebuild` has replaced before a point in time; returns how many."""
    with chroma.client(write=True) as client:
        replaced = [
            each.name
            for each in client.list_collections()
            if each.name.endswith(OLD)
            and str((each.metadata or {}).get("replaced_at", "9")) < utc_text(before)
        ]
        for name in replaced:
            client.delete_collection(name)
    return len(replaced)


def forget(chroma: "ChromaServer", postgres: "ManifestDatabase", contract: Contract) -> None:
    """Delete a collection and all that is noted of it, to make way for one of another contract."""
    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)
        manifest.forget(connection, contract.table, contract)
        with chroma.client(write=True) as client:
            present = {collection.name for collection in client.list_collections()}
            for name in {contract.table, f"{contract.table}{NEXT}", f"{contract.table}{OLD}"} & present:
                client.delete_collection(name)


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


def _remove_folders(folder: Path, grace: timedelta) -> Iterator[str]:
    """Remove indexes that belong to no collection any more."""
    known = {segment for (segment,) in asked(folder, "SELECT id FROM segments")}
    oldest = time.time() - grace.total_seconds()
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
