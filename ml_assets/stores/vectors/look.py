"""A collection as something that can be damaged: seen against the manifest.

Listing ids may ask another part of a store than searching does, so a collection may count and list entries whose vectors
are gone, wrong, or out of a search's reach; or it answers nothing at any more. What was written is known: the manifest
(see manifest.py) holds each live entry's id and vector.

What belongs here: the collection and its index, by ids and vectors. What does not: rows and contracts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_assets.lib.faults import one_sentence
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.port import BATCH, NoCollectionError

if TYPE_CHECKING:
    import numpy as np
    import psycopg

    from ml_assets.stores.vectors.port import Collection, Collections

_SEARCHED = 200
"""Vectors of one request that searches."""

_NEIGHBOURS = 10
"""Results among which an entry must be that is searched by its own vector."""

_SAME = 1e-5
"""Cosine distance of two entries that may stand in each other's place."""

_ROUNDING = 1e-6
"""Relative error of a vector that comes back from the store."""

_NOTHING = 1e-18
"""Length of a vector whose square is nothing in float32: a store that scales by it may return zeros."""


@dataclass(frozen=True)
class Findings:
    """How a collection stands against the manifest.

    Args:
        live: entries that the manifest names.
        missing: those of them that the store does not have.
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
    collections: "Collections", connection: "psycopg.Connection", table: str, reach: bool = False
) -> Findings:
    """Hold the manifest against the collection and its index. Whoever asks keeps writers from sweeping meanwhile.

    Args:
        table: name of the collection.
        reach: also search every entry by its own vector, which alone proves that searches come to it.
    """
    live, missing, wrong, lost = 0, [], [], []
    try:
        try:
            held = collections.open(table)
        except NoCollectionError:
            held = None
        for lines in manifest.vectors(connection, collections.listed(table)):
            live += len(lines)
            found = held.get(list(lines), ["embeddings"]) if held else {"ids": [], "embeddings": []}
            own = [lines[entry] for entry in found["ids"]]
            same = same_vectors(found["embeddings"], own, held is not None and held.unit_vectors)
            wrong += [entry for entry, is_same in zip(found["ids"], same, strict=True) if not is_same]
            missing += lines.keys() - set(found["ids"])
            if held and reach and not wrong:
                lost += _not_found(held, found["ids"], own)
    except collections.unreadable() as fault:
        return Findings(live, tuple(missing), f"its index cannot be read ({one_sentence(fault).rstrip('.')})")
    broken = ""
    if wrong:
        broken = f"the index gives other vectors than were written for {len(wrong):,} entries, {wrong[0]!r} among them"
    elif lost:
        broken = f"{len(lost):,} entries are not found by their own vectors, {lost[0]!r} among them"
    return Findings(live, tuple(sorted(missing)), broken)


def same_vectors(given: Any, own: Sequence[bytes], unit: bool = False) -> "np.ndarray":
    """Whether each vector that the store gives is, but for rounding, the one that was written.

    Args:
        unit: whether they come at length 1.
    """
    import numpy as np

    if not own:
        return np.zeros(0, dtype=bool)
    written = np.stack([np.frombuffer(vector, dtype=np.float32) for vector in own])
    try:
        found = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):  # of several lengths, or none
        return np.zeros(len(own), dtype=bool)
    if found.shape != written.shape:
        return np.zeros(len(own), dtype=bool)
    length = np.linalg.norm(written.astype(np.float64), axis=1, keepdims=True)
    if unit:
        # One without a direction stays as it is.
        wanted = written / np.where(length > _NOTHING, length, 1.0)
        return np.asarray(np.abs(found - wanted).max(axis=1) <= _ROUNDING)
    return (np.abs(found - written) <= _ROUNDING * length + _NOTHING).all(axis=1)


def require_indexed(collection: "Collection", wanted: Mapping[str, bytes]) -> None:
    """See that the index holds these vectors; entries that are not there at all are passed over.

    Raises:
        DamagedCollection: it does not.
    """
    entries = list(wanted)
    for start in range(0, len(entries), BATCH):
        with collection.told_as_damage():
            found = collection.get(entries[start : start + BATCH], ["embeddings"])
        own = [wanted[entry] for entry in found["ids"]]
        if not same_vectors(found["embeddings"], own, collection.unit_vectors).all():
            raise collection.damaged("its index gives other vectors than were written")


def all_ids(collection: "Collection") -> list[str]:
    """Ids of all entries that a collection lists, live or not.

    Raises:
        DamagedCollection: it cannot be read.
    """
    with collection.told_as_damage():
        return collection.ids()


def _not_found(collection: "Collection", entries: Sequence[str], own: Sequence[bytes]) -> list[str]:
    """Entries that a search by their own vectors does not find before all others, but for those that are as near."""
    import numpy as np

    lost = []
    for start in range(0, len(entries), _SEARCHED):
        part = entries[start : start + _SEARCHED]
        vectors = [np.frombuffer(vector, dtype=np.float32) for vector in own[start : start + _SEARCHED]]
        for entry, near in zip(part, collection.neighbours(vectors, _NEIGHBOURS), strict=True):
            nearest = near[0][1] if near else 0.0
            # So many may be as near as itself that it is not among them.
            crowded = len(near) == _NEIGHBOURS and near[-1][1] <= _SAME
            if not crowded and dict(near).get(entry, math.inf) > nearest + _SAME:
                lost.append(entry)
    return lost
