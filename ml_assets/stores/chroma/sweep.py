"""Sweeping: deleting the entries that the manifest does not name.

They are what a commit has replaced, or what a killed writer has left. None go while somebody reads who began before the
last commit; the next write or maintenance does it.
"""

from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.stores import postgres_table
from ml_assets.stores.chroma import manifest
from ml_assets.stores.chroma.collections import BATCH, ensure_collection
from ml_assets.stores.chroma.index import all_ids

if TYPE_CHECKING:
    import psycopg
    from chromadb.api import ClientAPI

    from ml_assets.stores.chroma import ChromaServer, ManifestDatabase


def sweep(client: "ClientAPI", connection: "psycopg.Connection", contract: Contract) -> int:
    """Delete entries of a collection, under the lock of its writers; returns how many.

    Raises:
        DamagedCollection: the collection's entries cannot be listed.
    """
    postgres_table.lock(connection, contract.asset)
    if manifest.has_readers_behind(connection, contract.table):
        return 0
    collection = ensure_collection(client, contract)
    live = set(manifest.live_ids(connection, contract.table).values())
    dead = [entry for entry in all_ids(collection) if entry not in live]
    for start in range(0, len(dead), BATCH):
        collection.delete(ids=dead[start : start + BATCH])
    return len(dead)


def sweep_all(chroma: "ChromaServer", postgres: "ManifestDatabase") -> dict[str, int]:
    """Delete entries of every collection that was written; returns how many, by collection."""
    with postgres.connect() as connection:
        contracts = postgres_table.contracts_of(connection, "chroma")
    swept: dict[str, int] = {}
    with chroma.client(write=True) as client:
        present = {collection.name for collection in client.list_collections()}
        for contract in contracts:
            if contract.table in present:
                with postgres.connect(write=True) as connection:
                    swept[contract.table] = sweep(client, connection, contract)
    return swept
