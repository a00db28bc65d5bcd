"""A collection of Chroma as something that can be damaged: seen against the manifest, and put in order again.

Chroma keeps ids, documents and metadata in SQLite, and the vectors in files of their own beside it. Listing ids asks
SQLite alone, so a collection may count and list entries whose vectors are gone, wrong, or out of a search's reach; or
it answers nothing at any more, not even documents. What was written is known: the manifest (see manifest.py) holds each
live entry's id and vector. So a new collection can be made of the manifest's vectors and of what SQLite still has, and
nothing has to be embedded again.

What belongs here: the collection and its index, by ids and vectors. What does not: rows and contracts.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.errors import DamagedCollection
from ml_assets.lib.faults import one_sentence
from ml_assets.lib.sql import utc_text
from ml_assets.stores.chroma import manifest
from ml_assets.stores.chroma.collections import BATCH, NEXT, OLD, add_entries, asked, make, open_collection

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_SEARCHED = 200
"""Vectors of one request that searches."""

_NEIGHBOURS = 10
"""Results among which an entry must be that is searched by its own vector."""

_SAME = 1e-5
"""Cosine distance of two entries that may stand in each other's place."""

_ROUNDING = 1e-6
"""Relative error of a vector that comes back from Chroma."""

_NOTHING = 1e-18
"""Length of a vector whose square is nothing in float32: Chroma, which scales by it, may return zeros."""

PUT_ASIDE = ".damaged"
"""What the name of an index's folder ends in that is no more to be read."""


@dataclass(frozen=True)
class Findings:
    """How a collection stands against the manifest.

    Args:
        live: entries that the manifest names.
        missing: those of them that Chroma does not have.
        broken: what is wrong with the index; "" if it holds the vectors of all others.
    """

    live: int
    missing: tuple[str, ...] = ()
    broken: str = ""

    def __str__(self) -> str:
        parts = [self.broken] if self.broken else []
        if self.missing:
            parts.append(
                f"{len(self.missing):,} of {self.live:,} entries are not there, {self.missing[0]!r} among them"
            )
        return "; ".join(parts)


def look(
    client: "ClientAPI", connection: "psycopg.Connection", collection: str, reach: bool = False
) -> Findings:
    """Hold the manifest against the collection and its index. Whoever asks keeps writers from sweeping meanwhile.

    Args:
        collection: its name.
        reach: also search every entry by its own vector, which alone proves that searches come to it.
    """
    from chromadb.errors import InternalError, NotFoundError

    live, missing, wrong, lost = 0, [], [], []
    try:
        held = open_collection(client, collection)
    except NotFoundError:
        held = None
    try:
        for lines in manifest.vectors(connection, collection):
            live += len(lines)
            found = (
                held.get(ids=list(lines), include=["embeddings"]) if held else {"ids": [], "embeddings": []}
            )
            own = [lines[entry] for entry in found["ids"]]
            same = same_vectors(found["embeddings"], own)
            wrong += [entry for entry, is_same in zip(found["ids"], same, strict=True) if not is_same]
            missing += lines.keys() - set(found["ids"])
            if held and reach and not wrong:
                lost += _not_found(held, found["ids"], own)
    except InternalError as fault:
        return Findings(live, tuple(missing), f"its index cannot be read ({one_sentence(fault).rstrip('.')})")
    broken = ""
    if wrong:
        broken = f"the index gives other vectors than were written for {len(wrong):,} entries, {wrong[0]!r} among them"
    elif lost:
        broken = f"{len(lost):,} entries are not found by their own vectors, {lost[0]!r} among them"
    return Findings(live, tuple(sorted(missing)), broken)


def same_vectors(given: Any, own: Sequence[bytes]) -> "np.ndarray":
    """Whether each vector that Chroma gives is, but for rounding, the one that was written."""
    import numpy as np

    if not own:
        return np.zeros(0, dtype=bool)
    written = np.stack([np.frombuffer(vector, dtype=np.float32) for vector in own])
    try:
        chroma = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):  # of several lengths, or none
        return np.zeros(len(own), dtype=bool)
    if chroma.shape != written.shape:
        return np.zeros(len(own), dtype=bool)
    length = np.linalg.norm(written.astype(np.float64), axis=1, keepdims=True)
    return (np.abs(chroma - written) <= _ROUNDING * length + _NOTHING).all(axis=1)


def require_indexed(collection: "Collection", wanted: Mapping[str, bytes]) -> None:
    """See that the index holds these vectors; entries that are not there at all are passed over.

    Raises:
        DamagedCollection: it does not.
    """
    entries = list(wanted)
    for start in range(0, len(entries), BATCH):
        with told_as_damage(collection.name):
            found: Any = collection.get(ids=entries[start : start + BATCH], include=["embeddings"])
        if not same_vectors(found["embeddings"], [wanted[entry] for entry in found["ids"]]).all():
            raise damaged(collection.name, "its index gives other vectors than were written")


def damaged(collection: str, cause: str) -> DamagedCollection:
    """The error for a collection that does not hold what the manifest names."""
    return DamagedCollection(
        f"The collection {collection!r} of Chroma is damaged ({cause.rstrip('.')}): run 'ml-assets recover', which makes "
        "it anew of what is left, or materialize the asset again."
    )


def all_ids(collection: "Collection") -> list[str]:
    """Ids of all entries that a collection lists, live or not.

    Raises:
        DamagedCollection: it cannot be read.
    """
    with told_as_damage(collection.name):
        return list(collection.get(include=[])["ids"])


@contextmanager
def told_as_damage(collection: str) -> Iterator[None]:
    """An engine's fault while it reads is damage; a full disk keeps it from writing only."""
    from chromadb.errors import InternalError

    try:
        yield
    except InternalError as fault:
        raise damaged(collection, one_sentence(fault)) from fault


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
            raise damaged(old.name, f"{missing:,} entries are not there")
    return count, missing


def _not_found(collection: "Collection", entries: Sequence[str], own: Sequence[bytes]) -> list[str]:
    """Entries that a search by their own vectors does not find, nor as many others that are as near."""
    import numpy as np

    lost = []
    for start in range(0, len(entries), _SEARCHED):
        part = entries[start : start + _SEARCHED]
        vectors: Any = [np.frombuffer(vector, dtype=np.float32) for vector in own[start : start + _SEARCHED]]
        found = collection.query(query_embeddings=vectors, n_results=_NEIGHBOURS, include=["distances"])
        distances = found["distances"] or []
        for entry, ids, far in zip(part, found["ids"], distances, strict=True):
            crowded = len(ids) == _NEIGHBOURS and far[-1] <= _SAME
            if entry not in ids and not crowded:
                lost.append(entry)
    return lost
