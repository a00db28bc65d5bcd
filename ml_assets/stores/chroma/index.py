"""A damaged collection of Chroma put in order again.

Chroma keeps ids, documents and metadata in SQLite, and the vectors in files of their own beside it. Listing ids asks
SQLite alone, so a collection may count and list entries whose vectors are gone, wrong, or out of a search's reach; or
it answers nothing at any more, not even documents. What was written is known: the manifest (stores/vectors) holds each
live entry's id and vector. So a new collection can be made of the manifest's vectors and of what SQLite still has, and
nothing has to be embedded again.

What belongs here: the collection and its index, by ids and vectors. What does not: rows and contracts.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.lib.sql import utc_text
from ml_assets.stores.chroma.collections import NEXT, OLD, add_entries, asked, make
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.port import damaged

if TYPE_CHECKING:
    import psycopg
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

PUT_ASIDE = ".damaged"
"""What the name of an index's folder ends in that is no more to be read."""


def replace(
    client: "ClientAPI", connection: "psycopg.Connection", old: "Collection", missing_ok: bool = False
) -> tuple[int, int]:
    """Copy the live entries into a new collection that takes the old one's name, under the lock of its writers.

    The old one stays, with another name, for readers that have opened it. May be killed at any point: the name then
    stands for the old collection or for the new one.

    Args:
        old: the collection.
        missing_ok: leave out what is not there any more.

    Returns:
        Entries of the new collection, and live entries that are not in it.

    Raises:
        DamagedCollection: an entry that the manifest names is not in Chroma, unless `missing_ok`.
    """
    fresh = _fresh(client, old.name)
    counts = _copy(connection, old, fresh, missing_ok)
    _swap(old, fresh)
    return counts


def renew(
    folder: Path | None, client: "ClientAPI", connection: "psycopg.Connection", old: "Collection"
) -> None:
    """As `replace`, of a damaged collection, with what can still be read of it.

    An index that cannot be loaded keeps Chroma from giving even documents. The embedded server's is put aside then:
    without one it does. Somebody else's server cannot be helped so, and the new collection is empty.
    """
    name, aside = old.name, None
    fresh = _fresh(client, name)
    if not _is_readable(old) and (index := index_folder(folder, name)):
        aside = _put_aside(index)
    if _is_readable(old):
        _copy(connection, old, fresh, missing_ok=True)
    _swap(old, fresh)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _fresh(client: "ClientAPI", name: str) -> "Collection":
    """An empty collection that is to take the place of another one; what is left of former ones is deleted."""
    present = {collection.name for collection in client.list_collections()}
    for leftover in {f"{name}{NEXT}", f"{name}{OLD}"} & present:
        client.delete_collection(leftover)
    return make(client, f"{name}{NEXT}")


def _swap(old: "Collection", fresh: "Collection") -> None:
    name = old.name
    old.modify(name=f"{name}{OLD}", metadata={"replaced_at": utc_text(datetime.now(UTC))})
    fresh.modify(name=name)


def _is_readable(collection: "Collection") -> bool:
    from chromadb.errors import InternalError

    try:
        collection.get(limit=1, include=["documents"])
    except InternalError:
        return False
    return True


def index_folder(folder: Path | None, collection: str) -> Path | None:
    """Where the embedded server keeps the index of a collection; None for somebody else's, or if there is none."""
    if folder is None:
        return None
    found = asked(
        folder,
        "SELECT s.id FROM collections AS c JOIN segments AS s ON s.collection = c.id AND s.scope = 'VECTOR' "
        "WHERE c.name = ?",
        collection,
    )
    index = folder / found[0][0] if found else None
    return index if index is not None and index.exists() else None


def _put_aside(index: Path) -> Path:
    """Give the folder of an index another name; returns it."""
    aside = index.with_name(f"{index.name}{PUT_ASIDE}")
    shutil.rmtree(aside, ignore_errors=True)
    return index.rename(aside)


def _copy(
    connection: "psycopg.Connection", old: "Collection", fresh: "Collection", missing_ok: bool
) -> tuple[int, int]:
    """Live entries with the vectors' own bits; see `replace`. Without `missing_ok`, what cannot be read is an error."""
    import numpy as np
    from chromadb.errors import InternalError

    count = missing = 0
    for bits in manifest.vectors(connection, old.name):
        try:
            got: Any = old.get(ids=list(bits), include=["documents", "metadatas"])
        except InternalError:
            if not missing_ok:
                raise
            got = {"ids": [], "documents": None, "metadatas": None}
        given = {name: got[name] for name in ("documents", "metadatas") if any(got[name] or ())}
        if got["ids"]:
            vectors = np.stack([np.frombuffer(bits[entry], dtype=np.float32) for entry in got["ids"]])
            add_entries(fresh.upsert, got["ids"], vectors, **given)
        count += len(got["ids"])
        missing += len(bits) - len(got["ids"])
        if missing and not missing_ok:
            raise damaged("Chroma", old.name, f"{missing:,} entries are not there")
    return count, missing
