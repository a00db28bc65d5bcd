"""Collections in Chroma: immutable entries, and a manifest in PostgreSQL that names the live ones.

Chroma has no transactions. An entry's id is `<key>:<hash of its row>`, so a changed row is a new entry and
the old one stays readable beside it. The manifest (table `ledger.chroma_manifest`) says which id is live for
each key; it changes in one PostgreSQL transaction, and that is the commit. Readers go by the manifest, and so
do searches (`query_similar`). Entries that it does not name are swept away after the commit, or by the next
write after a crash, but never while somebody reads who began before the last commit: each commit counts the
collection's version up, and a reader holds a shared lock on the version that it began with.

For cosine distance Chroma keeps a vector at length 1 and gives it back multiplied, which bends its last bit.
So the manifest also keeps each vector's own bits; a reader gets those, unless Chroma's vector is another one.

What belongs here: encoding of rows as entries, the manifest, sweeping, which entries a search may find. What
does not: how a server is reached and asked.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace as replace_state
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.contracts import Column, Contract
from ml_assets.errors import DamagedCollection
from ml_assets.io_managers.base import TableIOManager
from ml_assets.lib.faults import one_sentence
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.chroma.collections import (
    LARGEST_ENTRY,
    NEXT,
    REQUEST_ROWS,
    Similar,
    add_entries,
    conditions,
    entry_bytes,
    nearest,
    open_collection,
)
from ml_assets.stores.chroma.index import (
    BATCH,
    OLD,
    Findings,
    damaged,
    look,
    make,
    renew,
    replace,
    require_indexed,
    same_vectors,
    told_as_damage,
)
from ml_assets.tables.validation import WHOLE, Limits, Window, micros, shown_value

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    import pyarrow as pa
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from dagster import OutputContext

    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Buckets, Staged, TableState

_MANIFEST = """
CREATE TABLE IF NOT EXISTS ledger.chroma_manifest (
    collection text NOT NULL,
    key text NOT NULL,
    id text NOT NULL,
    partition text NOT NULL,
    vector bytea NOT NULL,
    PRIMARY KEY (collection, key)
);
CREATE TABLE IF NOT EXISTS ledger.chroma_versions (
    collection text PRIMARY KEY,
    version integer NOT NULL
)
"""
_VERSION = "coalesce((SELECT version FROM ledger.chroma_versions WHERE collection = %s), 0)"
_READERS = "hashtext('ml-assets readers of ' || %s)"
"""First half of the key of readers' locks; the second one is the version."""

_SAMPLE = 200
"""Entries whose vectors are asked for before the first search."""

_SEEN: dict[str, tuple[int, int]] = {}
"""Version and number of entries at which this process has last seen that a collection is whole, by its id."""

_EXACT = ".exact"
"""What the name of a float's text ends in: Chroma reads numbers from JSON and may miss the last bit."""

_Entry = tuple[str, str, str, bytes]
"""A line of the manifest: key, id, partition, bits of the vector."""

_DOCUMENT = "text"
"""The column that becomes the entry's document."""


class ChromaIOManager(TableIOManager):
    """Writes and reads collections of Chroma.

    Args:
        chroma: the server.
        postgres: where the manifest is kept.
    """

    store: ClassVar[str] = "chroma"
    # Chroma divides a vector by its length, whose square is a float32.
    limits: ClassVar[Limits] = Limits(
        "Chroma", nul=False, nan=False, infinity=False, null_vector=False, vector_length=1e18
    )

    chroma: ChromaResource
    postgres: PostgresResource

    def query_similar(
        self, asset: str, vector: Sequence[float], top_k: int = 10, where: Mapping[str, Any] | None = None
    ) -> list[Similar]:
        """The rows of an asset whose vectors are nearest to the given one; see `query_similar` of this module.

        Args:
            asset: its key, parts separated by slashes.
        """
        from ml_assets.tables.inference import table_asset

        collection = table_asset(asset.split("/"), self.store).rpartition("/")[2]
        return query_similar(self.chroma, self.postgres, collection, vector, top_k, where)

    def _output_contract(self, context: "OutputContext", rows: Any) -> Contract:
        from ml_assets.errors import ContractViolation

        contract = super()._output_contract(context, rows)
        vectors = [column.name for column in contract.columns if column.type == "vector"]
        if len(vectors) != 1 or not contract.key:
            raise ContractViolation(
                f"{contract.asset} has {'the key ' + ', '.join(contract.key) if contract.key else 'no key'} and "
                f"{len(vectors)} columns with vectors, but a collection of Chroma needs a key and one such column: "
                "name the metadata 'key' and return one column with lists of floats. Nothing was written."
            )
        return contract

    def _write(self, contract: Contract, staged: "Staged") -> bool:
        from chromadb.errors import InternalError

        refuse_large(contract, staged)
        try:
            return self._put(contract, staged)
        except (InternalError, DamagedCollection):
            if not mend(self.chroma, self.postgres, contract):
                raise  # a fault of another kind: its index is sound
        self._put(contract, staged)
        return True

    def _put(self, contract: Contract, staged: "Staged") -> bool:
        from ml_assets.stores import postgres_table

        with self.chroma.client(write=True) as client:
            # The manifest looks entries up by their keys.
            with (
                postgres_table.within_limits(contract, staged),
                self.postgres.connect(write=True) as connection,
            ):
                changed = write(client, connection, contract, staged)
                if contract.mode == "upsert":
                    staged.held = postgres_table.recorded_buckets(connection, contract)
            if changed:
                # A transaction of its own, under the same lock: another writer may have come in between.
                with self.postgres.connect(write=True) as connection:
                    sweep(client, connection, contract)
        return changed

    def _read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.tables.arrow_types import arrow_schema

        schema = arrow_schema(contract, columns)

        def batches() -> "Iterator[pa.RecordBatch]":
            with (
                self.postgres.connect(write=True) as connection,
                self.chroma.client(write=True) as client,
            ):
                yield from _entries(client, connection, contract, window, columns)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _found(self, place: "Place") -> "Found | None":
        with self.chroma.client() as client:
            if place.table not in {collection.name for collection in client.list_collections()}:
                return None
        raise LookupError(
            f"{place.asset}: another tool made the collection {place.table!r}, and only entries that this IO manager has "
            "written can be read as a table, since PostgreSQL tells which of them count: read it with the client of "
            "ChromaResource, or return its rows from an asset of this IO manager under another name."
        )

    def _remembered(self, asset: str) -> Contract | None:
        from ml_assets.stores import postgres_table

        with self.postgres.connect() as connection:
            return postgres_table.remembered(connection, asset)


def known(chroma: ChromaResource, postgres: PostgresResource) -> list[Contract]:
    """Of each collection that was written, the contract that it was last written by."""
    from ml_assets.stores import postgres_table

    with postgres.connect() as connection:
        return postgres_table.known_contracts(connection, "chroma")


def recorded(
    chroma: ChromaResource, postgres: PostgresResource, contract: Contract, any_version: bool = False
) -> "TableState":
    """Rows and content hash as noted when it was written; of what was hashed in another way only if asked for."""
    from ml_assets.stores import postgres_table
    from ml_assets.tables.staging import table_state

    with postgres.connect() as connection:
        return table_state(postgres_table.recorded_buckets(connection, contract, any_version))


def measured(chroma: ChromaResource, postgres: PostgresResource, contract: Contract) -> "TableState":
    """Rows and content hash of what the collection's live entries hold now."""
    from ml_assets.tables.staging import measure, table_state

    with postgres.connect(write=True) as connection:
        if not _manifest(connection, contract.table):
            return table_state({})
        with chroma.client(write=True) as client:
            held = _entries(client, connection, contract, missing=[], as_is=True)
            return table_state(measure(held, contract))


def damage(chroma: ChromaResource, postgres: PostgresResource, contract: Contract) -> str:
    """In what the collection does not hold what the manifest names; "" if it does, and every search can find it."""
    with postgres.connect(write=True) as connection:
        if not _manifest(connection, contract.table):
            return ""
        _hold(connection, contract.table)
        with chroma.client(write=True) as client:
            return str(look(client, connection, contract.table, reach=True))


def mend(chroma: ChromaResource, postgres: PostgresResource, contract: Contract, known: bool = False) -> bool:
    """Make a collection anew whose index is broken; returns whether it was.

    Entries that Chroma has lost altogether stay lost, and named by the manifest, until somebody writes them again.

    Args:
        known: it is known to be broken, so that nobody has to look.
    """
    from ml_assets.stores import postgres_table

    with postgres.connect(write=True) as connection, chroma.client(write=True) as client:
        postgres_table.lock(connection, contract.asset)
        if not known and not look(client, connection, contract.table).broken:
            return False
        renew(chroma.data_folder(), client, connection, ensure_collection(client, contract))
    return True


def restore(
    chroma: ChromaResource, postgres: PostgresResource, contract: Contract, source: Contract | None
) -> tuple[list[str], str]:
    """Hold a collection against its manifest, and bring back what it lacks; nothing is embedded again.

    Args:
        source: the table of PostgreSQL that the collection's rows are carried from; None if nobody knows it.

    Returns:
        What was done, and what could not be: a sentence, or "".
    """
    done = []
    with chroma.client(write=True) as client, postgres.connect(write=True) as connection:
        _ensure_books(connection)
        if swept := _swept(client, connection, contract):
            done.append(f"{swept} entries of {contract.table}")
    found = _looked(chroma, postgres, contract)
    if found.broken and mend(chroma, postgres, contract, known=True):
        done.append(f"the index of {contract.table}, which was made anew ({found.broken})")
        # Not searched again: of a new index there is nothing better to be had.
        found = _looked(chroma, postgres, contract, reach=False)
    if found.missing and source is not None and _carry(chroma, postgres, contract, source):
        done.append(f"{len(found.missing):,} entries of {contract.table}, out of {source.asset}")
        found = _looked(chroma, postgres, contract, reach=False)
    return done, f"{contract.asset}: {found}: materialize it again." if str(found) else ""


def _swept(client: "ClientAPI", connection: "psycopg.Connection", contract: Contract) -> int:
    from chromadb.errors import InternalError

    try:
        return sweep(client, connection, contract)
    except (DamagedCollection, InternalError):
        return 0  # which is looked at next


def _looked(
    chroma: ChromaResource, postgres: PostgresResource, contract: Contract, reach: bool = True
) -> Findings:
    """As `look`; an index over which the server dies twice is broken, too: its links lead nowhere."""
    import httpx

    died = ""
    for _ in range(2):
        try:
            with postgres.connect(write=True) as connection, chroma.client(write=True) as client:
                _hold(connection, contract.table)
                return look(client, connection, contract.table, reach)
        except httpx.TransportError as fault:
            died = one_sentence(fault).rstrip(".")  # the embedded one is started anew by the next client
    return Findings(0, broken=f"the server dies when it is searched ({died})")


def _carry(chroma: ChromaResource, postgres: PostgresResource, contract: Contract, source: Contract) -> bool:
    """Write the rows of a table of PostgreSQL; returns whether there is such a table."""
    import pyarrow as pa

    from ml_assets.stores import postgres_table
    from ml_assets.tables.arrow_types import arrow_schema
    from ml_assets.tables.staging import stage

    manager = ChromaIOManager(chroma=chroma, postgres=postgres)
    with postgres.connect(write=True) as connection:
        if not postgres_table.table_exists(connection, source.schema, source.table):
            return False
        batches = postgres_table.read(connection, source, contract.names, WHOLE)
        rows = pa.RecordBatchReader.from_batches(arrow_schema(source, contract.names), batches)
        with stage(rows, contract, manager.limits) as staged:
            manager._write(contract, staged)
    return True


def query_similar(
    chroma: ChromaResource,
    postgres: PostgresResource,
    collection: str,
    vector: Sequence[float],
    top_k: int = 10,
    where: Mapping[str, Any] | None = None,
) -> list[Similar]:
    """The live entries whose vectors are nearest to the given one, nearest first: of one version, as it stood.

    Args:
        collection: name of the collection, such as `experiment_index`.
        vector: of the collection's dimension.
        top_k: how many, at most.
        where: conditions on the metadata; several stand for 'all of them'.

    Raises:
        DamagedCollection: Chroma lacks live entries, so that others would be found in their place.
        StoreUnavailable: a server does not answer, or the collection was never materialized.
    """
    from chromadb.errors import NotFoundError

    from ml_assets.resources.base import missing_table
    from ml_assets.stores import postgres_table

    with postgres.connect() as connection, chroma.client() as client:
        if not postgres_table.table_exists(connection, "ledger", "chroma_versions"):
            raise missing_table(f"chroma/{collection}")
        while True:
            version = _hold(connection, collection)
            try:
                held = open_collection(client, collection)
            except NotFoundError as fault:
                if _manifest(connection, collection):
                    raise damaged(collection, "it is not there any more") from fault
                raise missing_table(f"chroma/{collection}") from fault
            with told_as_damage(collection):
                found, lacking = _nearest_live(held, connection, version, vector, top_k, where)
            # Another version, whose entries were perhaps not there yet when Chroma was asked: ask again.
            if _hold(connection, collection) != version:
                continue
            if lacking:
                raise damaged(collection, lacking)
            return found


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
        named = connection.execute(
            "SELECT id FROM ledger.chroma_manifest WHERE collection = %s AND key = ANY(%s) AND id = ANY(%s)",
            [_own_name(held), [each.id.rpartition(":")[0] for each in found], [each.id for each in found]],
        ).fetchall()
        live = {entry for (entry,) in named}
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
    there are other entries as well, by all ids. All vectors are seen by `damage`, which takes as long as reading them.

    Raises:
        DamagedCollection: the index lacks some.
    """
    name = _own_name(held)
    [(live,)] = connection.execute(
        "SELECT count(*) FROM ledger.chroma_manifest WHERE collection = %s", [name]
    ).fetchall()
    there = held.count()
    missing, state = live - there, (version, there)
    if missing <= 0 and _SEEN.get(str(held.id)) != state:
        if there > live:
            missing = len(set(_manifest(connection, name).values()).difference(_all_ids(held)))
        lines = connection.execute(
            "SELECT id, vector FROM ledger.chroma_manifest WHERE collection = %s ORDER BY md5(key) LIMIT %s",
            [name, _SAMPLE],
        ).fetchall()
        require_indexed(held, dict(lines))
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
    matching = held.get(where=conditions(where), include=[])["ids"] if where else _all_ids(held)
    name = _own_name(held)
    lines = connection.execute(
        "SELECT id, vector FROM ledger.chroma_manifest WHERE collection = %s AND id = ANY(%s)",
        [name, [entry for entry in matching if entry not in found]],
    ).fetchall()
    require_indexed(held, dict(lines))


def _own_name(held: "Collection") -> str:
    """The name by which the manifest knows a collection, also while maintenance renames it."""
    return held.name.removesuffix(NEXT)


def held_keys(chroma: ChromaResource, postgres: PostgresResource, contract: Contract) -> set[str] | None:
    """Keys of the live entries that are in the collection and its index; None if it was never written.

    Raises:
        DamagedCollection: the index cannot be read, or gives other vectors than were written.
    """
    if not recorded(chroma, postgres, contract, any_version=True).rows:
        return None
    with postgres.connect(write=True) as connection, chroma.client(write=True) as client:
        _hold(connection, contract.table)
        found = look(client, connection, contract.table)
        live = _manifest(connection, contract.table)
    if found.broken:
        raise damaged(contract.table, found.broken)
    missing = set(found.missing)
    return {key for key, identity in live.items() if identity not in missing}


def write(
    client: "ClientAPI", connection: "psycopg.Connection", contract: Contract, staged: "Staged"
) -> bool:
    """Add what is new to Chroma, then say in the manifest what is live; the caller's commit makes it so.

    Returns:
        Whether anything had to be changed.
    """
    from ml_assets.stores import postgres_table
    from ml_assets.tables.staging import measure, partitions_to_write

    postgres_table.lock(connection, contract.asset)
    _ensure_manifest(connection, contract)
    collection = ensure_collection(client, contract)
    sweep(client, connection, contract)
    before = postgres_table.recorded_buckets(connection, contract)
    known = set(_all_ids(collection))
    # What else is there still serves somebody, or may be half of what a killed writer wanted.
    present = known.intersection(_manifest(connection, contract.table).values())

    def measured_now(window: Window) -> "Buckets":
        live = _manifest(connection, contract.table)
        if not present.issuperset(live.values()):
            return {}
        held = measure(_entries(client, connection, contract, window), contract)
        if any(held.get(bucket) != state for bucket, state in before.items() if staged.covers(bucket)):
            present.clear()  # somebody has changed entries by hand: bring all of them again
        return held

    upsert = contract.mode == "upsert"
    changed = set(staged.buckets) if upsert else partitions_to_write(staged, before, measured_now)
    if not changed:
        return False
    lacking = not present.issuperset(_manifest(connection, contract.table).values())
    _fill_live(connection, _add(collection, contract, staged, changed, known, present))
    losing_rows = _partitions_losing_rows(connection, contract, staged) - changed
    if not _flip(connection, contract, staged, changed):
        return lacking  # the manifest is right already, and what Chroma had lost was brought
    if upsert or losing_rows:
        # The rows are those of the manifest now, not only the staged ones.
        held = _held(client, connection, contract)
        postgres_table.record(connection, contract, held, None)
    else:
        kept = None if staged.window.whole else changed
        postgres_table.record(connection, contract, staged.buckets, kept)
    return True


def _held(client: "ClientAPI", connection: "psycopg.Connection", contract: Contract) -> "Buckets":
    """What the live entries are; of those that Chroma has lost their ids tell the hash, so that they stay missed."""
    from ml_assets.tables.hashing import add_hashes
    from ml_assets.tables.staging import EMPTY, bucket_of_name, measure

    missing: list[str] = []
    held = measure(_entries(client, connection, contract, missing=missing), contract)
    lines = connection.execute(
        "SELECT id, partition FROM ledger.chroma_manifest WHERE collection = %s AND id = ANY(%s)",
        [contract.table, missing],
    ).fetchall()
    for entry, partition in lines:
        bucket = bucket_of_name(partition)
        state = held.get(bucket, EMPTY)
        total = add_hashes([state.content_hash, entry.rpartition(":")[2]])
        held[bucket] = replace_state(state, rows=state.rows + 1, content_hash=total)
    return held


def refuse_large(contract: Contract, staged: "Staged") -> None:
    """Refuse rows that no request can carry, before anything is written.

    Raises:
        ContractViolation: there is one.
    """
    import numpy as np
    import pyarrow.compute as pc

    from ml_assets.errors import ContractViolation

    texts = [column.name for column in contract.columns if column.type in ("string", "json")]
    for batch in staged.batches():
        bound = np.zeros(batch.num_rows, dtype=np.int64)
        for name in texts:
            lengths = pc.call_function("binary_length", [batch.column(name)])
            bound += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
        # JSON has up to six bytes for one, and scalars of a document stand beside it; the rest of a row is small.
        for n in np.flatnonzero(12 * bound > LARGEST_ENTRY - 2**20).tolist():
            row = batch.slice(n, 1)
            (key,) = _keys(row, contract)
            (size,) = entry_bytes([f"{key}{' ' * 28}"], _vectors(row, contract), **_encoded(row, contract))
            if size > LARGEST_ENTRY:
                longest = max(texts, key=lambda name: len(row.column(name)[0].as_py() or ""))
                raise ContractViolation(
                    f"{contract.asset}: the row of key {shown_value(key)} takes {size:,} bytes in a request and Chroma "
                    f"takes {LARGEST_ENTRY:,}: shorten its column {longest!r}, or cut it into several rows. Nothing was "
                    "written."
                )


def _ensure_manifest(connection: "psycopg.Connection", contract: Contract) -> None:
    """Create the manifest if it is not there, and see whether the collection still follows its contract.

    Raises:
        ContractViolation: its columns or key are others than when it was made; entries cannot be altered.
    """
    from ml_assets.errors import ContractViolation
    from ml_assets.stores import postgres_table
    from ml_assets.tables.contract_json import refuse_new_identity

    _ensure_books(connection)
    old = postgres_table.remembered(connection, contract.asset)
    if old is not None and _manifest(connection, contract.table):
        drop = "ml_assets.io_managers.chroma.forget(chroma, postgres, contract)"
        refuse_new_identity(old, contract, drop)
        for column in old.columns:
            new = contract.by_name.get(column.name)
            if new is None or (new.type, new.dimension) != (column.type, column.dimension):
                was, now = (_described(one) for one in (column, new))
                raise ContractViolation(
                    f"{contract.asset}: column {column.name!r} was {was} when the collection was made and is {now} in "
                    f"the contract; run {drop} and materialize it again, or undo the change. Nothing was written."
                )
            if column.nullable and not new.nullable:
                raise ContractViolation(
                    f"{contract.asset}: column {column.name!r} may be null in the collection's entries and may not be in "
                    f"the contract; run {drop} and materialize it again, or undo the change. Nothing was written."
                )
        for column in contract.columns:
            if column.name not in old.by_name and not column.nullable:
                raise ContractViolation(f"{_valueless(contract, column)} Nothing was written.")
    postgres_table.remember(connection, contract)


def _ensure_books(connection: "psycopg.Connection") -> None:
    from ml_assets.stores import postgres_table

    postgres_table.ensure_ledger(connection)
    if not postgres_table.table_exists(connection, "ledger", "chroma_versions"):
        postgres_table.lock(connection, "ledger")
        connection.execute(_MANIFEST)


def _valueless(contract: Contract, column: Column) -> str:
    """What is said of a new column that may not be null."""
    return (
        f"{contract.asset}: the contract has a new column {column.name!r} that may not be null, and the entries have "
        "no value for it; make it nullable."
    )


def _described(column: Column | None) -> str:
    return (
        "missing" if column is None else f"{column.type}{f'({column.dimension})' if column.dimension else ''}"
    )


def forget(chroma: ChromaResource, postgres: PostgresResource, contract: Contract) -> None:
    """Delete a collection and all that is noted of it, to make way for one of another contract."""
    from ml_assets.stores import postgres_table

    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)
        connection.execute("DELETE FROM ledger.chroma_manifest WHERE collection = %s", [contract.table])
        _count_up(connection, contract.table)
        connection.execute("DELETE FROM ledger.contracts WHERE asset = %s", [contract.asset])
        postgres_table.record(connection, contract, {}, None, 0)
        with chroma.client(write=True) as client:
            present = {collection.name for collection in client.list_collections()}
            for name in {contract.table, f"{contract.table}{NEXT}", f"{contract.table}{OLD}"} & present:
                client.delete_collection(name)


def ensure_collection(client: "ClientAPI", contract: Contract) -> "Collection":
    """The collection, made with cosine distance if it is not there.

    Raises:
        ContractViolation: it is there with another distance, which Chroma cannot change.
    """
    from ml_assets.errors import ContractViolation

    present = {collection.name for collection in client.list_collections()}
    if contract.table not in present and f"{contract.table}{NEXT}" in present:
        # Maintenance was killed just before it gave the rebuilt collection its name.
        client.get_collection(f"{contract.table}{NEXT}", embedding_function=None).modify(name=contract.table)
    collection = make(client, contract.table)
    space = (collection.configuration_json.get("hnsw") or {}).get("space")
    if space != "cosine":
        raise ContractViolation(
            f"{contract.asset}: the collection measures distance by {space}, and Chroma cannot change that; delete "
            f"the collection {contract.table!r}, or give the asset another name, and run it again."
        )
    return collection


def rebuild(chroma: ChromaResource, postgres: PostgresResource, contract: Contract) -> int | None:
    """Copy the live entries into a new collection that takes the old one's name; returns how many.

    Nothing is done, and None returned, while somebody reads who began before the last commit: he has perhaps not
    opened the collection yet.

    Chroma's index never forgets an entry that was deleted; only a new one is free of them. Readers that have
    opened the old collection read on: it stays, with another name, until `drop_replaced`. May be killed at
    any point: the name then stands for the old collection or for the new one, which hold the same.
    """
    from ml_assets.stores import postgres_table

    with postgres.connect(write=True) as connection, chroma.client(write=True) as client:
        postgres_table.lock(connection, contract.asset)
        if _readers_behind(connection, contract.table):
            return None
        count, _ = replace(client, connection, ensure_collection(client, contract))
    return count


def drop_replaced(chroma: ChromaResource, before: datetime) -> int:
    """Delete collections that `rebuild` has replaced before a point in time; returns how many."""
    from ml_assets.lib.sql import utc_text

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


def sweep(client: "ClientAPI", connection: "psycopg.Connection", contract: Contract) -> int:
    """Delete entries that the manifest does not name; returns how many. Safe under the asset's lock only.

    None are deleted while somebody reads who began before the last commit; the next write or maintenance does it.
    """
    from ml_assets.stores import postgres_table

    postgres_table.lock(connection, contract.asset)
    if _readers_behind(connection, contract.table):
        return 0
    collection = ensure_collection(client, contract)
    live = set(_manifest(connection, contract.table).values())
    dead = [entry for entry in _all_ids(collection) if entry not in live]
    for start in range(0, len(dead), BATCH):
        collection.delete(ids=dead[start : start + BATCH])
    return len(dead)


def sweep_all(chroma: ChromaResource, postgres: PostgresResource) -> dict[str, int]:
    """Delete entries of every collection that its manifest does not name; returns how many, by collection."""
    from ml_assets.stores import postgres_table

    with postgres.connect() as connection:
        contracts = postgres_table.known_contracts(connection, "chroma")
    swept: dict[str, int] = {}
    with chroma.client(write=True) as client:
        present = {collection.name for collection in client.list_collections()}
        for contract in contracts:
            if contract.table in present:
                with postgres.connect(write=True) as connection:
                    swept[contract.table] = sweep(client, connection, contract)
    return swept


def _hold(connection: "psycopg.Connection", collection: str) -> int:
    """Keep the entries of the collection's version until the transaction ends; returns the version.

    Only what a later statement finds in the manifest is sure to be kept, since that may be a later version, but
    not an earlier one.
    """
    from ml_assets.stores.postgres_table import run

    lock = f"pg_advisory_xact_lock_shared({_READERS}, version)"
    statement = f"SELECT version, {lock} FROM (SELECT {_VERSION}) AS now (version)"
    [(version, _)] = run(connection, statement, [collection, collection]).fetchall()
    return version


def _readers_behind(connection: "psycopg.Connection", collection: str) -> bool:
    """Whether somebody reads who began before the last commit. Whoever begins later needs live entries only."""
    from ml_assets.stores.postgres_table import run

    statement = (
        "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        f"AND classid = {_READERS}::oid AND objid <> {_VERSION}::oid LIMIT 1"
    )
    return run(connection, statement, [collection, collection]).fetchone() is not None


def _count_up(connection: "psycopg.Connection", collection: str) -> None:
    """Give the collection a new version, since its manifest has changed."""
    connection.execute(
        "INSERT INTO ledger.chroma_versions AS old VALUES (%s, 1) "
        "ON CONFLICT (collection) DO UPDATE SET version = old.version + 1",
        [collection],
    )


def _all_ids(collection: "Collection") -> list[str]:
    with told_as_damage(collection.name):
        return list(collection.get(include=[])["ids"])


def _manifest(
    connection: "psycopg.Connection", collection: str, partitions: Sequence[str] | None = None
) -> dict[str, str]:
    from ml_assets.stores import postgres_table

    if not postgres_table.table_exists(connection, "ledger", "chroma_manifest"):
        return {}
    rows = connection.execute(
        "SELECT key, id FROM ledger.chroma_manifest "
        "WHERE collection = %s AND (%s::text[] IS NULL OR partition = ANY(%s)) ORDER BY key",
        [collection, partitions, partitions],
    ).fetchall()
    return dict(rows)


def _add(
    collection: "Collection",
    contract: Contract,
    staged: "Staged",
    changed: set[int],
    known: set[str],
    present: set[str],
) -> "Iterator[_Entry]":
    """Bring new entries into Chroma; gives every staged row's line of the manifest.

    Args:
        known: ids of all entries that the collection has.
        present: those of them that need not be brought again.

    Raises:
        DamagedCollection: the index does not hold the vector of one of those.
    """
    from ml_assets.tables.staging import bucket_name, row_hashes

    parts = (
        batch.slice(start, REQUEST_ROWS)
        for batch in staged.batches(changed)
        for start in range(0, batch.num_rows, REQUEST_ROWS)
    )
    # The next part is prepared while the server, which takes longer, has the one before.
    with ThreadPoolExecutor(1, "chroma") as sender:
        sent: Future[None] | None = None
        for part in parts:
            keys, vectors = _keys(part, contract), _vectors(part, contract)
            hashes, buckets = row_hashes(part, contract)
            names = [bucket_name(bucket, contract) for bucket in buckets]
            if contract.key_by_day:
                # A key that is unique within its day only may stand on another one as well.
                keys = [f"{name[:10]} {key}" for name, key in zip(names, keys, strict=True)]
            ids = [f"{key}:{digest:016x}" for key, digest in zip(keys, hashes, strict=True)]
            new = [n for n, entry in enumerate(ids) if entry not in present]
            # That they are listed says nothing of the index.
            require_indexed(
                collection, {entry: vectors[n].tobytes() for n, entry in enumerate(ids) if entry in present}
            )
            if new:
                added = [ids[n] for n in new]
                # `add` is quicker by a fifteenth, and passes over what is there.
                bring = collection.add if known.isdisjoint(added) else collection.upsert
                encoded = _encoded(part.take(new), contract)
                if sent is not None:
                    sent.result()
                sent = sender.submit(add_entries, bring, added, vectors[new], **encoded)
            bits = (vector.tobytes() for vector in vectors)
            yield from zip(keys, ids, names, bits, strict=True)
        if sent is not None:
            sent.result()


def _fill_live(connection: "psycopg.Connection", entries: "Iterable[_Entry]") -> None:
    """Put the lines that the manifest shall have into a temporary table."""
    connection.execute(
        "CREATE TEMPORARY TABLE live (key text PRIMARY KEY, id text, partition text, vector bytea) ON COMMIT DROP"
    )
    with connection.cursor() as cursor, cursor.copy("COPY live FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["text", "text", "text", "bytea"])
        for entry in entries:
            copy.write_row(entry)


def _partitions_losing_rows(
    connection: "psycopg.Connection", contract: Contract, staged: "Staged"
) -> set[int]:
    """Partitions that hold rows which will move into others because their time has changed.

    Raises:
        ContractViolation: such a row may not move, being outside the slice.
    """
    from ml_assets.tables.staging import bucket_of_name

    rows = connection.execute(
        "SELECT old.partition, min(key) FROM ledger.chroma_manifest AS old JOIN live USING (key) "
        "WHERE old.collection = %s AND old.partition <> live.partition GROUP BY 1 ORDER BY 1",
        [contract.table],
    ).fetchall()
    keys = (key.partition(" ")[2] if contract.key_by_day else key for _, key in rows)
    return staged.partitions_losing_rows(
        (bucket_of_name(name), key) for (name, _), key in zip(rows, keys, strict=True)
    )


def _flip(connection: "psycopg.Connection", contract: Contract, staged: "Staged", changed: set[int]) -> bool:
    """Make the manifest say what is live, and nothing else in the slice; returns whether that changed it."""
    from ml_assets.tables.staging import bucket_name

    deleted = 0
    if contract.mode != "upsert":
        names = None if staged.window.whole else [bucket_name(b, contract) for b in changed]
        deleted = connection.execute(
            "DELETE FROM ledger.chroma_manifest AS old WHERE collection = %s "
            "AND (%s::text[] IS NULL OR partition = ANY(%s)) "
            "AND NOT EXISTS (SELECT FROM live WHERE live.key = old.key)",
            [contract.table, names, names],
        ).rowcount
    inserted = connection.execute(
        "INSERT INTO ledger.chroma_manifest AS old SELECT %s, key, id, partition, vector FROM live "
        "ON CONFLICT (collection, key) DO UPDATE "
        "SET id = excluded.id, partition = excluded.partition, vector = excluded.vector "
        "WHERE (old.id, old.partition) <> (excluded.id, excluded.partition)",
        [contract.table],
    ).rowcount
    connection.execute("DROP TABLE live")
    if not (deleted or inserted):
        return False
    _count_up(connection, contract.table)
    return True


def _entries(
    client: "ClientAPI",
    connection: "psycopg.Connection",
    contract: Contract,
    window: Window = WHOLE,
    columns: Sequence[str] = (),
    missing: list[str] | None = None,
    as_is: bool = False,
) -> "Iterator[pa.RecordBatch]":
    """Live entries as rows, in order of their keys.

    Args:
        columns: what to ask Chroma for; all columns if empty.
        missing: takes the ids of what is not in Chroma any more, which is an error otherwise.
        as_is: give the vectors that are there also where they are others than were written.

    Raises:
        LookupError: the collection was never written.
        ContractViolation: the entries lack a column that may not be null.
        DamagedCollection: the index cannot be read or gives other vectors, or entries are not there.
    """
    from ml_assets.errors import ContractViolation
    from ml_assets.stores import postgres_table
    from ml_assets.tables.arrow_types import never_written

    written = postgres_table.remembered(connection, contract.asset)
    if written is None:
        raise never_written(contract.asset)
    _hold(connection, contract.table)
    chosen = [contract.by_name[name] for name in columns or contract.names]
    for column in chosen:
        if not column.nullable and column.name not in written.by_name:
            raise ContractViolation(_valueless(contract, column))
    first, end = _partition_names(contract, window)
    with connection.cursor(name="live_entries") as cursor:
        cursor.execute(
            "SELECT id, vector FROM ledger.chroma_manifest "
            "WHERE collection = %s AND (%s::text IS NULL OR (partition >= %s AND partition < %s)) ORDER BY key",
            [contract.table, first, first, end],
        )
        # After the manifest: a collection that was rebuilt in between holds what was live then.
        collection = _opened(client, contract)
        while wanted := cursor.fetchmany(BATCH):
            with told_as_damage(contract.table):
                batch = _fetch(collection, contract, chosen, dict(wanted), missing, as_is)
            yield batch


def _opened(client: "ClientAPI", contract: Contract) -> "Collection":
    """The collection for a reader, who holds no lock; a new one if somebody has deleted it by hand."""
    from chromadb.errors import NotFoundError

    try:
        return open_collection(client, contract.table)
    except NotFoundError:
        return ensure_collection(client, contract)


def _partition_names(contract: Contract, window: Window) -> tuple[str | None, str | None]:
    """First name of a window's partitions, and the first one after them; their order is that of time."""
    from ml_assets.tables.staging import HOUR_US, bucket_name

    if contract.partition_column is None or window.start is None or window.end is None:
        return None, None
    # A day's name is the beginning of its hours' names, so that it bounds those, too.
    first, end = (
        bucket_name(micros(edge), contract, HOUR_US).removesuffix("-00:00")
        for edge in (window.start, window.end)
    )
    return first, end


def _fetch(
    collection: "Collection",
    contract: Contract,
    columns: Sequence[Column],
    wanted: dict[str, bytes],
    missing: list[str] | None,
    as_is: bool,
) -> "pa.RecordBatch":
    """Entries by id, in this order, with the vectors' own bits; nothing is asked for that no column needs."""
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema

    include: Any = list(dict.fromkeys(map(_part, columns)))
    got: Any = collection.get(ids=list(wanted), include=include)
    place = {entry: n for n, entry in enumerate(got["ids"])}
    absent = [entry for entry in wanted if entry not in place]
    if absent and missing is None:
        raise damaged(contract.table, f"{len(absent):,} entries are not there, {absent[0]!r} among them")
    if absent and missing is not None:
        missing += absent
        wanted = {entry: bits for entry, bits in wanted.items() if entry in place}
        if not wanted:
            return pa.RecordBatch.from_pylist([], schema=arrow_schema(contract, [c.name for c in columns]))
    order = [place[entry] for entry in wanted]
    if "embeddings" in include and not as_is:
        given = [got["embeddings"][n] for n in order]
        if not same_vectors(given, list(wanted.values())).all():
            raise damaged(contract.table, "its index gives other vectors than were written")
    return _decoded(got, order, list(wanted.values()), columns)


def _part(column: Column) -> str:
    """The part of an entry that holds a column."""
    if column.type == "vector":
        return "embeddings"
    return "documents" if (column.name, column.type) == (_DOCUMENT, "string") else "metadatas"


def _keys(batch: "pa.RecordBatch", contract: Contract) -> list[str]:
    """Each row's key as text; several columns as JSON, so that no two keys look alike."""
    import orjson

    columns = [batch.column(name).to_pylist() for name in contract.key]
    if len(columns) == 1 and contract.by_name[contract.key[0]].type == "string":
        return columns[0]
    return [orjson.dumps(values, default=str).decode() for values in zip(*columns, strict=True)]


def _plain_columns(contract: Contract) -> Iterable[Column]:
    """Columns kept as metadata: all but the vector and the document."""
    return (column for column in contract.columns if _part(column) == "metadatas")


def _vectors(batch: "pa.RecordBatch", contract: Contract) -> "np.ndarray":
    import numpy as np

    vector = next(column for column in contract.columns if column.type == "vector")
    flat = batch.column(vector.name).flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(batch.num_rows, -1)


def _encoded(batch: "pa.RecordBatch", contract: Contract) -> dict[str, Any]:
    """Rows as arguments of `add` and `upsert`, but for ids and vectors."""
    columns = [(column, batch.column(column.name).to_pylist()) for column in _plain_columns(contract)]
    found: dict[str, Any] = {
        "metadatas": [
            _metadata([(column, values[n]) for column, values in columns]) for n in range(batch.num_rows)
        ]
    }
    if "documents" in map(_part, contract.columns):
        found["documents"] = batch.column(_DOCUMENT).to_pylist()
    return found


def _metadata(cells: Iterable[tuple[Column, Any]]) -> dict[str, Any] | None:
    """A flat dictionary: each column, and the scalars of JSON objects so that searches can filter by them.

    None stands for an empty one, which Chroma refuses. That no column has the name of a part of another one is seen to
    by the contract.
    """
    found: dict[str, Any] = {}
    for column, value in cells:
        if value is None:
            continue
        found[column.name] = value.isoformat() if column.type in ("timestamp", "date") else value
        if column.type == "float64":
            found[f"{column.name}{_EXACT}"] = repr(value)
        elif column.type == "json":
            found |= {f"{column.name}.{name}": part for name, part in _scalars(value).items()}
    return found or None


def _scalars(document: str) -> dict[str, Any]:
    """What Chroma can filter by of a JSON object: text, numbers and booleans of its first level."""
    import orjson

    parts = orjson.loads(document)
    return {
        name: part
        for name, part in (parts.items() if isinstance(parts, dict) else ())
        if isinstance(part, bool | str | float) or (isinstance(part, int) and -(2**63) <= part < 2**63)
    }


def _decoded(got: Any, order: list[int], bits: list[bytes], columns: Sequence[Column]) -> "pa.RecordBatch":
    """Entries as rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ml_assets.tables.arrow_types import ARROW_TYPES

    arrays = []
    for column in columns:
        target = ARROW_TYPES[column.type]
        if column.type == "vector":
            arrays.append(_own_bits([got["embeddings"][n] for n in order], bits))
        elif _part(column) == "documents":
            arrays.append(pa.array([got["documents"][n] for n in order], target))
        else:
            entries = [got["metadatas"][n] or {} for n in order]
            cells = [entry.get(column.name) for entry in entries]
            if column.type == "float64":
                cells = [
                    _exact(cell, entry.get(f"{column.name}{_EXACT}"))
                    for cell, entry in zip(cells, entries, strict=True)
                ]
            text = column.type in ("timestamp", "date")
            arrays.append(pc.cast(pa.array(cells, pa.string()), target) if text else pa.array(cells, target))
    fields = [pa.field(column.name, ARROW_TYPES[column.type], column.nullable) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _exact(given: float | None, text: str | None) -> float | None:
    """The number as it was written; that of the metadata if somebody has changed it since."""
    if given is None or text is None:
        return given
    written = float(text)
    return written if math.isclose(given, written, rel_tol=1e-14) else given


def _own_bits(given: Sequence[Any], bits: Sequence[bytes]) -> "pa.Array":
    """The vectors as they were written, where Chroma's differ from them by rounding only."""
    import numpy as np
    import pyarrow as pa

    own = np.stack([np.frombuffer(vector, dtype=np.float32) for vector in bits])
    same = same_vectors(given, bits)
    if same.all():
        flat, lengths = own.reshape(-1), [own.shape[1]] * len(own)
    else:
        each = zip(own, given, same, strict=True)
        parts = [mine if is_same else np.asarray(other, dtype=np.float32) for mine, other, is_same in each]
        flat, lengths = np.concatenate(parts), [len(part) for part in parts]
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(flat))
