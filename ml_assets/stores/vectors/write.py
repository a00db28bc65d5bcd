"""One write: new entries first, then the manifest that makes them live.

It does not go through tables/write.py, whose writes are one transaction of one engine that stages within it. These
stores have none. So entries are never changed: what is new is brought beside the old ones, where no reader looks, and
the commit is that of the manifest in PostgreSQL. Which entries have to be brought depends on what the collection has
kept or lost beside what the manifest says, and rows that are not live any more are swept away in a transaction after
the commit. Replacing, merging, measuring and noting would all have to be other ones here. The comparison of the ledger
with the staged rows, and the ledger itself, are those of all stores.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.errors import DamagedCollection
from ml_assets.stores import postgres_table
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.entries import encoded, identified, vectors
from ml_assets.stores.vectors.look import all_ids, require_indexed
from ml_assets.stores.vectors.repair import mend
from ml_assets.stores.vectors.rows import select
from ml_assets.stores.vectors.sweep import sweep
from ml_assets.tables.hashing import add_hashes
from ml_assets.tables.staging import EMPTY, Buckets, Staged, bucket_of_name, measure, partitions_to_write
from ml_assets.tables.store import Written
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    import psycopg

    from ml_assets.stores.vectors import VectorStore
    from ml_assets.stores.vectors.port import Collection, Collections


def write(store: "VectorStore", contract: Contract, staged: Staged) -> Written:
    """Put staged rows in place; where the index is broken, make it anew first and do it again.

    Raises:
        ContractViolation: the collection is not the contract's, or a row cannot be held.
    """
    try:
        return _put(store, contract, staged)
    except (*store.unreadable(), DamagedCollection):
        if not mend(store, contract):
            raise  # a fault of another kind: its index is sound
    return Written(True, _put(store, contract, staged).held)


def _put(store: "VectorStore", contract: Contract, staged: Staged) -> Written:
    with store.collections(write=True) as collections:
        # The manifest looks entries up by their keys.
        with (
            postgres_table.within_limits(contract, staged),
            store.postgres.connect(write=True) as connection,
        ):
            changed = _bring_and_flip(collections, connection, contract, staged)
            held = staged.buckets
            if contract.mode == "upsert":
                held = postgres_table.ledger_buckets(connection, contract)
        if changed:
            # A transaction of its own, under the same lock: another writer may have come in between.
            with store.postgres.connect(write=True) as connection:
                sweep(collections, connection, contract)
            collections.open(contract.table).index()
    return Written(changed, held)


def _bring_and_flip(
    collections: "Collections", connection: "psycopg.Connection", contract: Contract, staged: Staged
) -> bool:
    """Add what is new to the store, then say in the manifest what is live; the caller's commit makes it so.

    Returns:
        Whether anything had to be changed.
    """
    listed = collections.listed(contract.table)
    postgres_table.lock(connection, contract.asset)
    manifest.ensure(connection)
    manifest.fit(connection, listed, contract)
    collection = collections.ensure(contract)
    sweep(collections, connection, contract)
    before = postgres_table.ledger_buckets(connection, contract)
    known = set(all_ids(collection))
    # What else is there still serves somebody, or may be half of what a killed writer wanted.
    present = known.intersection(manifest.live_ids(connection, listed).values())

    def measured_now(window: Window) -> Buckets:
        live = manifest.live_ids(connection, listed)
        if not present.issuperset(live.values()):
            return {}
        held = measure(select(collections, connection, contract, window), contract)
        if any(held.get(bucket) != state for bucket, state in before.items() if staged.covers(bucket)):
            present.clear()  # somebody has changed entries by hand: bring all of them again
        return held

    upsert = contract.mode == "upsert"
    changed = set(staged.buckets) if upsert else partitions_to_write(staged, before, measured_now)
    if not changed:
        return False
    lacking = not present.issuperset(manifest.live_ids(connection, listed).values())
    manifest.stage(connection, bring(collection, contract, staged, changed, known, present))
    collection.settle()
    losing_rows = manifest.partitions_losing_rows(connection, listed, contract, staged) - changed
    if not manifest.flip(connection, listed, contract, staged, changed):
        return lacking  # the manifest is right already, and what the store had lost was brought
    if upsert or losing_rows:
        # The rows are those of the manifest now, not only the staged ones.
        held = _live_or_missed(collections, connection, contract)
        postgres_table.record(connection, contract, held, None)
    else:
        kept = None if staged.window.whole else changed
        postgres_table.record(connection, contract, staged.buckets, kept)
    return True


def bring(
    collection: "Collection",
    contract: Contract,
    staged: Staged,
    changed: set[int],
    known: set[str],
    present: set[str],
) -> Iterator[manifest.Line]:
    """Bring new entries into the store; gives every staged row's line of the manifest.

    Args:
        known: ids of all entries that the collection has.
        present: those of them that need not be brought again.

    Raises:
        DamagedCollection: the index does not hold the vector of one of those.
    """
    parts = (
        batch.slice(start, collection.added_at_once)
        for batch in staged.batches(changed)
        for start in range(0, batch.num_rows, collection.added_at_once)
    )
    # The next part is prepared while the server, which takes longer, has the one before.
    with ThreadPoolExecutor(1, "vectors") as sender:
        sent: Future[None] | None = None
        for part in parts:
            own = vectors(part, contract)
            keys, ids, names = identified(part, contract)
            new = [n for n, entry in enumerate(ids) if entry not in present]
            # That they are listed says nothing of the index.
            require_indexed(
                collection, {entry: own[n].tobytes() for n, entry in enumerate(ids) if entry in present}
            )
            if new:
                added = [ids[n] for n in new]
                columns = encoded(part.take(new), contract)
                if sent is not None:
                    sent.result()
                sent = sender.submit(collection.add, added, own[new], known.isdisjoint(added), **columns)
            yield from zip(keys, ids, names, (vector.tobytes() for vector in own), strict=True)
        if sent is not None:
            sent.result()


def _live_or_missed(
    collections: "Collections", connection: "psycopg.Connection", contract: Contract
) -> Buckets:
    """What the live entries are; of those that the store has lost their ids tell the hash, so that they stay missed."""
    missing: list[str] = []
    held = measure(select(collections, connection, contract, missing=missing), contract)
    listed = collections.listed(contract.table)
    for entry, partition, _ in manifest.live_of_ids(connection, listed, missing):
        bucket = bucket_of_name(partition)
        state = held.get(bucket, EMPTY)
        total = add_hashes([state.content_hash, entry.rpartition(":")[2]])
        held[bucket] = replace(state, rows=state.rows + 1, content_hash=total)
    return held
