"""Collections held against their manifest and put in order again: after a killed writer, a lost file, a deleted entry.

An index that is broken is made anew out of the manifest's vectors and what the store still has; entries that it has lost
are written again from the table of PostgreSQL that they were carried from, so that nothing is embedded again.

What belongs here: a collection as a whole. What does not: how a store makes an index anew.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from ml_assets.contracts import INDEXED, Contract
from ml_assets.errors import ContractViolation, DamagedCollection
from ml_assets.lib.faults import one_sentence
from ml_assets.stores import postgres_table
from ml_assets.stores.vectors import manifest
from ml_assets.stores.vectors.look import Findings, look
from ml_assets.stores.vectors.sweep import sweep
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.store import Recovery
from ml_assets.tables.validation import WHOLE

if TYPE_CHECKING:
    import psycopg

    from ml_assets.stores.vectors import VectorStore
    from ml_assets.stores.vectors.port import Collections


def recover(store: "VectorStore", tables: Mapping[str, Contract]) -> Recovery:
    """Restore every collection, whoever made it; one that cannot be mended does not keep the others from it.

    Args:
        tables: this project's contracts by asset, among them the sources of its own indexes.
    """
    dealt_with: list[str] = []
    faults: list[str] = []
    try:
        for contract in store.contracts():
            source = tables.get(INDEXED.get(contract.asset, ""))
            try:
                done, fault = restore(store, contract, source)
            except (ContractViolation, DamagedCollection) as left:
                done, fault = [], str(left)
            dealt_with += done
            faults += filter(None, [fault])
    except Exception as fault:  # noqa: BLE001 - told; the other stores are looked at all the same
        if not faults:
            return Recovery(store.name, "down", one_sentence(fault))
        dealt_with = []
    if faults:
        return Recovery(store.name, "failed", " ".join(faults), tuple(dealt_with))
    if dealt_with:
        done = "Finished or undone what killed writers left."
        return Recovery(store.name, "recovered", done, tuple(dealt_with))
    return Recovery(store.name, "clean", "Every entry is one that the manifest names, and can be found.")


def restore(store: "VectorStore", contract: Contract, source: Contract | None) -> tuple[list[str], str]:
    """Hold a collection against its manifest, and bring back what it lacks; nothing is embedded again.

    Args:
        source: the table of PostgreSQL that the collection's rows are carried from; None if nobody knows it.

    Returns:
        What was done, and what could not be: a sentence, or "".
    """
    done = []
    with store.collections(write=True) as collections, store.postgres.connect(write=True) as connection:
        manifest.ensure(connection)
        if swept := _swept(store, collections, connection, contract):
            done.append(f"{swept} entries of {contract.table}")
    found = _looked(store, contract)
    if found.broken and mend(store, contract, known=True):
        done.append(f"the index of {contract.table}, which was made anew ({found.broken})")
        # Not searched again: of a new index there is nothing better to be had.
        found = _looked(store, contract, reach=False)
    if found.missing and source is not None and _carry(store, contract, source):
        done.append(f"{len(found.missing):,} entries of {contract.table}, out of {source.asset}")
        found = _looked(store, contract, reach=False)
    return done, f"{contract.asset}: {found}: materialize it again." if str(found) else ""


def damage(collections: "Collections", connection: "psycopg.Connection", contract: Contract) -> str:
    """In what the collection does not hold what the manifest names; "" if it does, and every search can find it."""
    manifest.hold(connection, collections.listed(contract.table))
    return str(look(collections, connection, contract.table, reach=True))


def mend(store: "VectorStore", contract: Contract, known: bool = False) -> bool:
    """Make a collection anew whose index is broken; returns whether it was.

    Entries that the store has lost altogether stay lost, and named by the manifest, until somebody writes them again.

    Args:
        known: it is known to be broken, so that nobody has to look.
    """
    with store.postgres.connect(write=True) as connection, store.collections(write=True) as collections:
        postgres_table.lock(connection, contract.asset)
        if not known and not look(collections, connection, contract.table).broken:
            return False
        store.renew(collections, connection, contract)
    return True


def _swept(
    store: "VectorStore", collections: "Collections", connection: "psycopg.Connection", contract: Contract
) -> int:
    try:
        return sweep(collections, connection, contract)
    except (DamagedCollection, *store.unreadable()):
        return 0  # which is looked at next


def _looked(store: "VectorStore", contract: Contract, reach: bool = True) -> Findings:
    """As `look`; an index over which the server dies twice is broken, too: its links lead nowhere."""
    died = ""
    for _ in range(2):
        try:
            with (
                store.postgres.connect(write=True) as connection,
                store.collections(write=True) as collections,
            ):
                manifest.hold(connection, collections.listed(contract.table))
                return look(collections, connection, contract.table, reach)
        except store.gone() as fault:
            died = one_sentence(fault).rstrip(".")  # the embedded one is started anew by the next client
    return Findings(0, broken=f"the server dies when it is searched ({died})")


def _carry(store: "VectorStore", contract: Contract, source: Contract) -> bool:
    """Write the rows of a table of PostgreSQL; returns whether there is such a table."""
    with store.postgres.connect(write=True) as connection:
        if not postgres_table.table_exists(connection, source.schema, source.table):
            return False
        batches = postgres_table.read(connection, source, contract.names, WHOLE)
        rows = pa.RecordBatchReader.from_batches(arrow_schema(source, contract.names), batches)
        with stage(rows, contract, store.limits) as staged:
            store.write(contract, staged)
    return True
