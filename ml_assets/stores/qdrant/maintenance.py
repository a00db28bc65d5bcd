"""Keeping Qdrant small, and making a damaged collection anew.

The engine gives back what deleted points took by itself, when it makes its index.

What belongs here: when to do it. What does not: how entries are swept (stores/vectors/sweep.py).
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from ml_assets.contracts import Contract
from ml_assets.lib.words import counted
from ml_assets.stores import postgres_table
from ml_assets.stores.qdrant.points import QdrantFault
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.sweep import sweep_all

if TYPE_CHECKING:
    import psycopg

    from ml_assets.stores.qdrant import QdrantPlace, QdrantStore
    from ml_assets.stores.qdrant.collections import QdrantCollections
    from ml_assets.stores.vectors import ManifestDatabase


def maintain(store: "QdrantStore") -> Iterator[str]:
    """Delete what killed writers have left, and make indexes where many points have none.

    Raises:
        StoreUnavailable: Qdrant or PostgreSQL does not answer.
    """
    if swept := sum(sweep_all(store).values()):
        yield f"Deleted {counted(swept, 'entry', 'entries')} of killed writers, or that had been read for longer."
    contracts = store.contracts()
    with store.collections(write=True) as collections:
        present = collections.names()
        for contract in contracts:
            if contract.table in present:
                collections.open(contract.table).index()


def renew(collections: "QdrantCollections", connection: "psycopg.Connection", contract: Contract) -> None:
    """Put the live entries in place once more, with the manifest's vectors, under the lock of the writers.

    The engine takes a point that is put again out of the index that it was in. What cannot be read at all makes way for
    an empty collection, and what is missing from that is told, and carried from PostgreSQL.
    """
    name = contract.table
    try:
        held = collections.open(name)
        for bits in manifest.vectors(connection, collections.listed(name)):
            got = held.get(list(bits), ["documents", "metadatas"])
            if got["ids"]:
                vectors = np.stack([np.frombuffer(bits[entry], dtype=np.float32) for entry in got["ids"]])
                held.add(got["ids"], vectors, False, documents=got["documents"], metadatas=got["metadatas"])
        held.settle()
        held.index()
    except QdrantFault:
        with suppress(FileNotFoundError):
            collections.points.drop(name)
        collections.ensure(contract)


def forget(qdrant: "QdrantPlace", postgres: "ManifestDatabase", contract: Contract) -> None:
    """Delete a collection and all that is noted of it, to make way for one of another contract."""
    with qdrant.opened(write=True) as points, postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)
        manifest.forget(connection, contract.asset, contract)
        if contract.table in points.names():
            points.drop(contract.table)
