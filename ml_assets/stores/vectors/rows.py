"""Live entries read as rows: those that the manifest names, with the vectors' own bits."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.faults import one_sentence
from ml_assets.stores import postgres_table
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.entries import decoded, part_of
from ml_assets.stores.vectors.look import same_vectors
from ml_assets.stores.vectors.port import NoCollectionError, damaged
from ml_assets.tables.arrow_types import arrow_schema, never_written
from ml_assets.tables.validation import WHOLE, Window

if TYPE_CHECKING:
    import psycopg

    from ml_assets.stores.vectors.port import Collection, Collections


def select(
    collections: "Collections",
    connection: "psycopg.Connection",
    contract: Contract,
    window: Window = WHOLE,
    columns: Sequence[str] = (),
    missing: list[str] | None = None,
    as_is: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Live entries as rows, in order of their keys. What the reader began with is kept until the transaction ends.

    Args:
        columns: what to ask the store for; all columns if empty.
        missing: takes the ids of what is not in the store any more, which is an error otherwise.
        as_is: give the vectors that are there also where they are others than were written.

    Raises:
        LookupError: the collection was never written.
        ContractViolation: the entries lack a column that may not be null.
        DamagedCollection: the index cannot be read or gives other vectors, or entries are not there.
    """
    written = postgres_table.last_contract(connection, contract.asset)
    if written is None:
        raise never_written(contract.asset)
    listed = collections.listed(contract.table)
    manifest.hold(connection, listed)
    chosen = [contract.by_name[name] for name in columns or contract.names]
    for column in chosen:
        if not column.nullable and column.name not in written.by_name:
            raise ContractViolation(manifest.valueless(contract, column))
    collection = None
    names = manifest.partition_names(contract, window)
    with closing(manifest.vectors(connection, listed, names)) as parts:
        for wanted in parts:
            # After the manifest: a collection that was rebuilt in between holds what was live then.
            collection = collection or _opened(collections, contract)
            with collection.told_as_damage():
                batch = _fetch(collection, contract, chosen, wanted, missing, as_is)
            yield batch


def _opened(collections: "Collections", contract: Contract) -> "Collection":
    """The collection for a reader, who holds no lock; a new one if somebody has deleted it by hand."""
    try:
        return collections.open(contract.table)
    except NoCollectionError:
        return collections.ensure(contract)
    except collections.unreadable() as fault:
        raise damaged(collections.store, contract.table, one_sentence(fault)) from fault


def _fetch(
    collection: "Collection",
    contract: Contract,
    columns: Sequence[Column],
    wanted: dict[str, bytes],
    missing: list[str] | None,
    as_is: bool,
) -> pa.RecordBatch:
    """Entries by id, in this order, with the vectors' own bits; nothing is asked for that no column needs."""
    include = list(dict.fromkeys(map(part_of, columns)))
    got = collection.get(list(wanted), include)
    place = {entry: n for n, entry in enumerate(got["ids"])}
    absent = [entry for entry in wanted if entry not in place]
    if absent and missing is None:
        raise collection.damaged(f"{len(absent):,} entries are not there, {absent[0]!r} among them")
    if absent and missing is not None:
        missing += absent
        wanted = {entry: bits for entry, bits in wanted.items() if entry in place}
        if not wanted:
            return pa.RecordBatch.from_pylist([], schema=arrow_schema(contract, [c.name for c in columns]))
    order = [place[entry] for entry in wanted]
    if "embeddings" in include and not as_is:
        given = [got["embeddings"][n] for n in order]
        if not same_vectors(given, list(wanted.values()), collection.unit_vectors).all():
            raise collection.damaged("its index gives other vectors than were written")
    return decoded(got, order, list(wanted.values()), columns, collection.unit_vectors)
