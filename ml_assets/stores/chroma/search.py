"""Searching a collection: live entries only, of one version, and never fewer than there are without a word.

Chroma finds entries that are not live any more, or not yet. It is asked for more and more until enough of what it finds
is named by the manifest. Where it lacks live entries, others would be found in their place, so a search looks first
whether the collection is whole.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.errors import missing_table
from ml_assets.stores import postgres_table
from ml_assets.stores.chroma import manifest
from ml_assets.stores.chroma.collections import Similar, conditions, nearest, open_collection, own_name
from ml_assets.stores.chroma.index import all_ids, damaged, look, require_indexed, told_as_damage

if TYPE_CHECKING:
    import psycopg
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_SAMPLE = 200
"""Entries whose vectors are asked for before the first search."""

_SEEN: dict[str, tuple[int, int]] = {}
"""Version and number of entries at which this process has last seen that a collection is whole, by its id."""


def query_similar(
    client: "ClientAPI",
    connection: "psycopg.Connection",
    collection: str,
    vector: Sequence[float],
    top_k: int,
    where: Mapping[str, Any] | None,
) -> list[Similar]:
    """See `ChromaStore.query_similar`."""
    from chromadb.errors import NotFoundError

    if not postgres_table.table_exists(connection, "ledger", "chroma_versions"):
        raise missing_table(f"chroma/{collection}")
    while True:
        version = manifest.hold(connection, collection)
        try:
            held = open_collection(client, collection)
        except NotFoundError as fault:
            if manifest.live_ids(connection, collection):
                raise damaged(collection, "it is not there any more") from fault
            raise missing_table(f"chroma/{collection}") from fault
        with told_as_damage(collection):
            found, lacking = _nearest_live(held, connection, version, vector, top_k, where)
        # Another version, whose entries were perhaps not there yet when Chroma was asked: ask again.
        if manifest.hold(connection, collection) != version:
            continue
        if lacking:
            raise damaged(collection, lacking)
        return found


def keys(client: "ClientAPI", connection: "psycopg.Connection", contract: Contract) -> set[str]:
    """Keys of the live entries that are in the collection and its index.

    Raises:
        DamagedCollection: the index cannot be read, or gives other vectors than were written.
    """
    manifest.hold(connection, contract.table)
    found = look(client, connection, contract.table)
    live = manifest.live_ids(connection, contract.table)
    if found.broken:
        raise damaged(contract.table, found.broken)
    missing = set(found.missing)
    return {key for key, identity in live.items() if identity not in missing}


def _nearest_live(
    held: "Collection",
    connection: "psycopg.Connection",
    version: int,
    vector: Sequence[float],
    top_k: int,
    where: Mapping[str, Any] | None,
) -> tuple[list[Similar], str]:
    """Ask Chroma for more and more, until enough of what it finds is live or it has no more.

    Returns:
        What was found, and in what the collection lacks live entries.
    """
    if lacking := _lacking(held, connection, version):
        return [], lacking
    asked = top_k
    while True:
        found = nearest(held, vector, asked, where)
        live = manifest.live_among(connection, own_name(held), [each.id for each in found])
        hits = [each for each in found if each.id in live][:top_k]
        if len(hits) == top_k:
            return hits, ""
        if len(found) < asked:
            _require_found(held, connection, {hit.id for hit in hits}, where)
            return hits, ""
        asked *= 4


def _lacking(held: "Collection", connection: "psycopg.Connection", version: int) -> str:
    """In what the collection lacks live entries; "" if it does not.

    It is told by their number and, once in a process for each state of the collection, by the vectors of some and, where
    there are other entries as well, by all ids. All vectors are seen by `ChromaStore.damage`, which takes as long as
    reading them.

    Raises:
        DamagedCollection: the index lacks some.
    """
    name = own_name(held)
    live, there = manifest.count(connection, name), held.count()
    missing, state = live - there, (version, there)
    if missing <= 0 and _SEEN.get(str(held.id)) != state:
        if there > live:
            missing = len(set(manifest.live_ids(connection, name).values()).difference(all_ids(held)))
        require_indexed(held, manifest.some_vectors(connection, name, _SAMPLE))
        if missing <= 0:
            _SEEN[str(held.id)] = state
    return f"{missing:,} of {live:,} entries are not there" if missing > 0 else ""


def _require_found(
    held: "Collection", connection: "psycopg.Connection", found: set[str], where: Mapping[str, Any] | None
) -> None:
    """See that the index has the live entries that a search did not find although it found less than was asked for.

    Raises:
        DamagedCollection: it does not.
    """
    matching = held.get(where=conditions(where), include=[])["ids"] if where else all_ids(held)
    others = [entry for entry in matching if entry not in found]
    lines = manifest.live_of_ids(connection, own_name(held), others)
    require_indexed(held, {entry: bits for entry, _, bits in lines})
