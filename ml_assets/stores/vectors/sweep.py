"""Sweeping: deleting the entries that the manifest does not name.

They are what a commit has replaced, or what a killed writer has left. None go while somebody reads who began before the
last commit; the next write or maintenance does it.
"""

from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.stores import postgres_table
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.look import all_ids
from ml_assets.stores.vectors.port import BATCH

if TYPE_CHECKING:
    import psycopg

    from ml_assets.stores.vectors import VectorStore
    from ml_assets.stores.vectors.port import Collections


def sweep(collections: "Collections", connection: "psycopg.Connection", contract: Contract) -> int:
    """Delete entries of a collection, under the lock of its writers; returns how many.

    Raises:
        DamagedCollection: the collection's entries cannot be listed.
    """
    listed = collections.listed(contract.table)
    postgres_table.lock(connection, contract.asset)
    if manifest.has_readers_behind(connection, listed):
        return 0
    collection = collections.ensure(contract)
    live = set(manifest.live_ids(connection, listed).values())
    dead = [entry for entry in all_ids(collection) if entry not in live]
    for start in range(0, len(dead), BATCH):
        collection.delete(dead[start : start + BATCH])
    return len(dead)


def sweep_all(store: "VectorStore") -> dict[str, int]:
    """Delete entries of every collection that was written; returns how many, by collection."""
    swept: dict[str, int] = {}
    contracts = store.contracts()
    with store.collections(write=True) as collections:
        present = collections.names()
        for contract in contracts:
            if contract.table in present:
                with store.postgres.connect(write=True) as connection:
                    swept[contract.table] = sweep(collections, connection, contract)
    return swept
