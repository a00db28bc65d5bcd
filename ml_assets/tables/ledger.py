"""What every store's ledger of writes holds: for each partition, what was written, when, and by which run.

What belongs here: the entries. What does not: the statements, which lie in `sql/<store>/ledger/`.
"""

from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ml_assets.contracts import Contract
from ml_assets.lib.current_run import run_id
from ml_assets.tables.hashing import HASH_VERSION
from ml_assets.tables.staging import Buckets, PartitionState, bucket_name, bucket_of_name


class Entry(NamedTuple):
    """One entry, in the order of the ledger's columns.

    Args:
        partition: name of the partition, "" for a table without partitions.
        rows, bytes, content_hash: its state.
        hash_version: how the hash was made.
        written_at: now, UTC.
        run_id: the Dagster run that wrote it; None if none did.
    """

    partition: str
    rows: int
    bytes: int
    content_hash: str
    hash_version: str
    written_at: datetime
    run_id: str | None


def entries(contract: Contract, held: Buckets, buckets: Container[int] | None) -> list[Entry]:
    """What a ledger notes of some partitions.

    Args:
        held: what the partitions hold.
        buckets: of these only; of all if None.
    """
    now, run = datetime.now(UTC), run_id.get()
    return [
        Entry(bucket_name(bucket, contract), *_state(state), HASH_VERSION, now, run)
        for bucket, state in held.items()
        if buckets is None or bucket in buckets
    ]


def _state(state: PartitionState) -> tuple[int, int, str]:
    return state.rows, state.bytes, state.content_hash


def noted(rows: Iterable[Sequence[Any]]) -> Buckets:
    """The partitions that rows of a ledger tell of: partition, rows, bytes, content_hash, written_at."""
    return {bucket_of_name(name): PartitionState(*state) for name, *state in rows}
