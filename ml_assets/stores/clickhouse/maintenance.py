"""Keeping ClickHouse small: what dead writers have left, parts that have not been merged.

ClickHouse merges parts by itself while it runs. The embedded engine is open for seconds at a time, so its
parts would pile up: each write adds one to the ledger of writes. Partitions of more than a few parts are
merged here, under the lock of the table's writers, because swapping a partition in cancels its merges.

The embedded engine (measured, chdb 4.4) never deletes the parts that were replaced, however long it is open:
60 overwrites of one partition leave 60 times its bytes. It does when a partition is dropped, so one that does
not exist is. A server deletes them by itself after a few minutes.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from ml_assets.errors import WriteBusy
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.lib.words import counted
from ml_assets.stores.clickhouse.cluster import on_cluster
from ml_assets.stores.clickhouse.ledger import CONTRACTS, LEDGER
from ml_assets.stores.clickhouse.lock import writing
from ml_assets.stores.clickhouse.recovery import finish_writes
from ml_assets.tables.validation import Window

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ml_assets.stores.clickhouse import ClickHouse
    from ml_assets.tables.validation import Limits

_MANY_PARTS = 3
"""Parts of one partition from which merging them pays."""

_APPENDED = (LEDGER, CONTRACTS)
"""Tables that every writer appends to, without a lock."""


def size(client: "Client") -> int:
    """Bytes of all parts, those included that were replaced and wait to be deleted."""
    rows = client.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE database = currentDatabase()")
    return int(rows.result_rows[0][0])


def maintain(clickhouse: "ClickHouse", kept_days: Mapping[str, int], limits: "Limits") -> Iterator[str]:
    """Finish interrupted writes, drop what dead writers have left and what has expired, merge parts.

    Args:
        kept_days: by asset, the days for which rows are kept.
        limits: of the store.

    Raises:
        StoreUnavailable: the server does not answer, or another process has the engine open.
    """
    if finished := finish_writes(clickhouse):
        yield f"Finished or removed {counted(len(finished), 'table')} of dead writers."
    for asset, days in kept_days.items():
        try:
            yield from _expire(clickhouse, asset, days, limits)
        except WriteBusy as busy:
            yield str(busy)
    with clickhouse.client(write=True) as client:
        scattered = _scattered(client)
    for table, partitions in scattered.items():
        try:
            _merge(clickhouse, table, partitions)
        except WriteBusy as busy:
            yield str(busy)
        else:
            yield f"Merged the parts of {counted(len(partitions), 'partition')} of {table}."
    if clickhouse.embedded_path is not None:
        yield from _delete_replaced(clickhouse)


def _expire(clickhouse: "ClickHouse", asset: str, days: int, limits: "Limits") -> Iterator[str]:
    """Drop the partitions of a table that lie more than some days back, as a write of no rows would.

    ClickHouse's own TTL would drop rows behind the ledger's back: each expired day would be told as damaged.
    """
    from ml_assets.stores.clickhouse import ledger
    from ml_assets.stores.clickhouse.write import write
    from ml_assets.tables.arrow_types import arrow_schema
    from ml_assets.tables.staging import bucket_start, kept_from, stage

    with clickhouse.client() as client:
        contract = ledger.last_contract(client, asset)
        held = ledger.buckets(client, contract, any_version=True) if contract else {}
    if contract is None or contract.partition_column is None:
        return
    end = kept_from(days)
    expired = [start for bucket in held if (start := bucket_start(bucket)) < end]
    if not expired:
        return
    rows = sum(state.rows for bucket, state in held.items() if bucket_start(bucket) < end)
    nothing = stage(arrow_schema(contract).empty_table(), contract, limits, Window(min(expired), end))
    with closing(nothing), writing(clickhouse, contract.table) as client:
        write(clickhouse, client, contract, nothing)
    yield (
        f"Dropped {counted(len(expired), 'partition')} of {contract.table} with {counted(rows, 'row')}: older than "
        f"{counted(days, 'day')}."
    )


def _scattered(client: "Client") -> dict[str, list[str]]:
    """Partitions of many parts, by table."""
    rows = client.query(
        "SELECT table, partition_id FROM system.parts WHERE database = currentDatabase() AND active "
        "AND NOT match(table, '__(stage|ready|failed)__[0-9a-f]{16}(__[0-9a-f]{16})?$') "
        "GROUP BY table, partition_id HAVING count() >= {many:UInt32} ORDER BY table, partition_id",
        parameters={"many": _MANY_PARTS},
    ).result_rows
    found: dict[str, list[str]] = {}
    for table, partition in rows:
        found.setdefault(table, []).append(partition)
    return found


def _merge(clickhouse: "ClickHouse", table: str, partitions: list[str]) -> None:
    holding = clickhouse.client(write=True) if table in _APPENDED else writing(clickhouse, table)
    with holding as client:
        for partition in partitions:
            named = f"{quote_identifier(table)}{on_cluster(client)}"
            client.command(f"OPTIMIZE TABLE {named} PARTITION ID {quote_literal(partition)} FINAL")


def _delete_replaced(clickhouse: "ClickHouse") -> Iterator[str]:
    """Have the embedded engine delete parts that were replaced."""
    replaced = (
        "SELECT table, count() FROM system.parts WHERE database = currentDatabase() AND NOT active "
        "GROUP BY table ORDER BY table"
    )
    with clickhouse.client(write=True) as client:
        found = client.query(replaced).result_rows
        for table, _ in found:
            for _ in range(2):  # the second time the empty parts that covered those of the first
                client.command(f"ALTER TABLE {quote_identifier(table)} DROP PARTITION ID 'none'")
    if found:
        yield f"Deleted {counted(sum(count for _, count in found), 'replaced part')}."
