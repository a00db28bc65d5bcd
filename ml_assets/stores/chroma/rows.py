"""Live entries read as rows: those that the manifest names, with the vectors' own bits."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.stores import postgres_table
from ml_assets.stores.chroma import manifest
from ml_assets.stores.chroma.collections import ensure_collection, open_collection
from ml_assets.stores.chroma.entries import decoded, part_of
from ml_assets.stores.chroma.index import damaged, same_vectors, told_as_damage
from ml_assets.tables.arrow_types import arrow_schema, never_written
from ml_assets.tables.validation import WHOLE, Window

if TYPE_CHECKING:
    import psycopg
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection


def select(
    client: "ClientAPI",
    connection: "psycopg.Connection",
    contract: Contract,
    window: Window = WHOLE,
    columns: Sequence[str] = (),
    missing: list[str] | None = None,
    as_is: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Live entries as rows, in order of their keys. What the reader began with is kept until the transaction ends.

    Args:
        columns: what to ask Chroma for; all columns if empty.
        missing: takes the ids of what is not in Chroma any more, which is an error otherwise.
        as_is: give the vectors that are there also where they are others than were written.

    Raises:
        LookupError: the collection was never written.
        ContractViolation: the entries lack a column that may not be null.
        DamagedCollection: the index cannot be read or gives other vectors, or entries are not there.
    """
    written = postgres_table.last_contract(connection, contract.asset)
    if written is None:
        raise never_written(contract.asset)
    manifest.hold(connection, contract.table)
    chosen = [contract.by_name[name] for name in columns or contract.names]
    for column in chosen:
        if not column.nullable and column.name not in written.by_name:
            raise ContractViolation(manifest.valueless(contract, column))
    collection = None
    names = manifest.partition_names(contract, window)
    with closing(manifest.vectors(connection, contract.table, names)) as parts:
        for wanted in parts:
            # After the manifest: a collection that was rebuilt in between holds what was live then.
            collection = collection or _opened(client, contract)
            with told_as_damage(contract.table):
                batch = _fetch(collection, contract, chosen, wanted, missing, as_is)
            yield batch


def _opened(client: "ClientAPI", contract: Contract) -> "Collection":
    """The collection for a reader, who holds no lock; a new one if somebody has deleted it by hand."""
    from chromadb.errors import NotFoundError

    try:
        return open_collection(client, contract.table)
    except NotFoundError:
        return ensure_collection(client, contract)


def _fetch(
    collection: "Collection",
    contract: Contract,
    columns: Sequence[Column],
    wanted: dict[str, bytes],
    missing: list[str] | None,
    as_is: bool,
) -> pa.RecordBatch:
    """Entries by id, in this order, with the vectors' own bits; nothing is asked for that no column needs."""
    include: Any = list(dict.fromkeys(map(part_of, columns)))
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
    return decoded(got, order, list(wanted.values()), columns)
