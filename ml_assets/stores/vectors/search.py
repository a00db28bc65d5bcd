"""Searching a collection: live entries only, of one version, and never fewer than there are without a word.

A store finds entries that are not live any more, or not yet. It is asked for more and more until enough of what it finds
is named by the manifest. Where it lacks live entries, others would be found in their place, so a search looks first
whether the collection is whole.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.errors import missing_table
from ml_assets.lib.faults import one_sentence
from ml_assets.stores import postgres_table
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.look import all_ids, look, require_indexed
from ml_assets.stores.vectors.port import NoCollectionError, Similar, damaged

if TYPE_CHECKING:
    import psycopg

    from ml_assets.stores.vectors.port import Collection, Collections

_SAMPLE = 200
"""Entries whose vectors are asked for before the first search."""

_SEEN: dict[str, tuple[int, int]] = {}
"""Version and number of entries at which this process has last seen that a collection is whole, by its id."""


def query_similar(
    collections: "Collections",
    connection: "psycopg.Connection",
    asset: str,
    vector: Sequence[float],
    top_k: int,
    where: Mapping[str, Any] | None,
    keys: Sequence[str] | None = None,
) -> list[Similar]:
    """See `VectorStore.query_similar`.

    Args:
        asset: key of the collection's asset.
    """
    name = asset.rpartition("/")[2]
    listed = collections.listed(name)
    if not postgres_table.table_exists(connection, "ledger", "chroma_versions"):
        raise missing_table(asset)
    while True:
        version = manifest.hold(connection, listed)
        try:
            held = collections.open(name)
        except NoCollectionError as fault:
            if manifest.live_ids(connection, listed):
                raise damaged(collections.store, name, "it is not there any more") from fault
            raise missing_table(asset) from fault
        except collections.unreadable() as fault:
            raise damaged(collections.store, name, one_sentence(fault)) from fault
        with held.told_as_damage():
            found, lacking = _nearest_live(held, listed, connection, version, vector, top_k, where, keys)
        # Another version, whose entries were perhaps not there yet when the store was asked: ask again.
        if manifest.hold(connection, listed) != version:
            continue
        if lacking:
            raise held.damaged(lacking)
        return found


def keys(collections: "Collections", connection: "psycopg.Connection", contract: Contract) -> set[str]:
    """Keys of the live entries that are in the collection and its index.

    Raises:
        DamagedCollection: the index cannot be read, or gives other vectors than were written.
    """
    listed = collections.listed(contract.table)
    manifest.hold(connection, listed)
    found = look(collections, connection, contract.table)
    live = manifest.live_ids(connection, listed)
    if found.broken:
        raise damaged(collections.store, contract.table, found.broken)
    missing = set(found.missing)
    return {key for key, identity in live.items() if identity not in missing}


def _nearest_live(
    held: "Collection",
    listed: str,
    connection: "psycopg.Connection",
    version: int,
    vector: Sequence[float],
    top_k: int,
    where: Mapping[str, Any] | None,
    keys: Sequence[str] | None,
) -> tuple[list[Similar], str]:
    """Ask the store for more and more, until enough of what it finds is live or it has no more.

    Returns:
        What was found, and in what the collection lacks live entries.
    """
    if lacking := _lacking(held, listed, connection, version):
        return [], lacking
    if keys is not None:
        ids = manifest.live_ids_of_keys(connection, listed, keys)
        wanted = min(top_k, len(ids))
        hits = held.nearest(vector, wanted, where, ids) if ids else []
        if len(hits) < wanted and not where:
            found = {hit.id for hit in hits}
            require_indexed(held, _bits(connection, listed, [entry for entry in ids if entry not in found]))
        return hits, ""
    asked = top_k
    while True:
        found = held.nearest(vector, asked, where)
        live = manifest.live_among(connection, listed, [each.id for each in found])
        hits = [each for each in found if each.id in live][:top_k]
        if len(hits) == top_k:
            return hits, ""
        if len(found) < asked:
            _require_found(held, listed, connection, {hit.id for hit in hits}, where)
            return hits, ""
        asked *= 4


def _lacking(held: "Collection", listed: str, connection: "psycopg.Connection", version: int) -> str:
    """In what the collection lacks live entries; "" if it does not.

    It is told by their number and, once in a process for each state of the collection, by the vectors of some and, where
    there are other entries as well, by all ids. All vectors are seen by `VectorStore.damage`, which takes as long as
    reading them.

    Raises:
        DamagedCollection: the index lacks some.
    """
    live, there = manifest.count(connection, listed), held.count()
    missing, state = live - there, (version, there)
    if missing <= 0 and _SEEN.get(held.identity) != state:
        if there > live:
            missing = len(set(manifest.live_ids(connection, listed).values()).difference(all_ids(held)))
        require_indexed(held, manifest.some_vectors(connection, listed, _SAMPLE))
        if missing <= 0:
            _SEEN[held.identity] = state
    return f"{missing:,} of {live:,} entries are not there" if missing > 0 else ""


def _require_found(
    held: "Collection",
    listed: str,
    connection: "psycopg.Connection",
    found: set[str],
    where: Mapping[str, Any] | None,
) -> None:
    """See that the index has the live entries that a search did not find although it found less than was asked for.

    Raises:
        DamagedCollection: it does not.
    """
    matching = held.ids(where) if where else all_ids(held)
    others = [entry for entry in matching if entry not in found]
    require_indexed(held, _bits(connection, listed, others))


def _bits(connection: "psycopg.Connection", listed: str, ids: Sequence[str]) -> dict[str, bytes]:
    """The vectors' bits of those of some entries that are live."""
    return {entry: bits for entry, _, bits in manifest.live_of_ids(connection, listed, ids)}
