"""One write to ClickHouse: a staging table, then partitions swapped in under a redo log.

A write fills a staging table, counts it, and renames it: that is the commit. What follows, and what is done about a
writer that was killed, is told in redo.py.

It does not go through tables/write.py, whose steps are statements within one transaction that the store ends:
ClickHouse has none. Here the rows are read, merged and measured in the staging table before the commit, and the
table and the ledger are changed after it, perhaps by another process. So there would be nothing left of a
`TableTransaction` but overrides. The rules of a changed contract, of the partitions to write and of the ledger's entries
are those of every store.

What belongs here: how rows get into a staging table, and the plan of what is to be done with it. What does not: how
a plan is carried out.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.lib import sharing
from ml_assets.lib.sql import free_name, quote_identifier, quote_json
from ml_assets.stores.clickhouse import ledger
from ml_assets.stores.clickhouse.catalog import rows_by_partition
from ml_assets.stores.clickhouse.cluster import cluster_of, know_all, on_cluster
from ml_assets.stores.clickhouse.ddl import (
    DAY_US,
    ensure_table,
    kept_id,
    kept_sql,
    partition_id,
    partition_sql,
    stage_statement,
)
from ml_assets.stores.clickhouse.lock import require_held
from ml_assets.stores.clickhouse.redo import publish, ready_name, recover, stage_name
from ml_assets.stores.clickhouse.rows import measured, select, time_literal
from ml_assets.tables import arrow_types
from ml_assets.tables.staging import (
    EMPTY,
    Buckets,
    Staged,
    measure,
    partitions_to_write,
    same_content,
    spans_of,
    windows_sql,
)
from ml_assets.tables.validation import WHOLE

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ml_assets.stores.clickhouse import ClickHouse

_INSERTERS = 2
"""Clients that insert at once, a batch each: the engine takes about 100 MB for one (measured, chdb 4.4)."""

_STATEMENT_BYTES = 4 * 2**20
"""Allowed for a statement that names each column several times."""


def write(clickhouse: "ClickHouse", client: "Client", contract: Contract, staged: Staged) -> bool:
    """Put staged rows in place; returns whether anything had to be changed.

    Args:
        clickhouse: opens further clients for many rows.
        client: that of `writing`.
        contract: of the table.
        staged: the rows.

    Raises:
        ContractViolation: the table is not the contract's and cannot be made so.
    """
    recover(client, contract.table)  # with the columns that the table had at that commit
    ensure_table(client, contract)
    if contract.mode == "upsert":
        changed = set(staged.buckets)
    else:
        changed = partitions_to_write(
            staged,
            ledger.buckets(client, contract),
            lambda window: measured(client, contract, window),
        )
    if not changed:
        return False
    ready = commit(
        clickhouse, client, contract, staged, changed, lambda: require_held(client, contract.table)
    )
    if ready:
        publish(client, contract.table, ready)
    return bool(ready)


def commit(
    clickhouse: "ClickHouse",
    client: "Client",
    contract: Contract,
    staged: Staged,
    changed: set[int],
    before: Callable[[], None] = lambda: None,
) -> str | None:
    """Fill a staging table and rename it: from then on the write will be finished.

    Args:
        before: is called right before; what it raises ends the write.

    Returns:
        The new name; None if nothing has to be changed, which an upsert knows only now.
    """
    identity = uuid.uuid4().hex[:16]
    stage, ready = stage_name(contract.table, identity), ready_name(contract.table, identity)
    client.command(stage_statement(contract, stage, cluster_of(client)))
    try:
        fill(clickhouse, client, stage, contract, staged, changed)
        changed, held = changed | _partitions_losing_rows(client, stage, contract, staged), staged.buckets
        filled = changed
        if contract.mode == "upsert":
            _keep_others(client, stage, contract, changed)
            rows = select(client, contract, contract.names, stage, WHOLE, contract.names)
            held = measure(rows, contract)
            changed = _differing(client, contract, held, changed)
            if not changed:
                client.command(f"DROP TABLE {quote_identifier(stage)}{on_cluster(client)} SYNC")
                return None
        every = staged.window.whole and contract.mode != "upsert"
        plan = _plan(client, contract, every, changed, filled, held, identity)
        if contract.stored_by_month and not every:
            _take_along(client, contract, stage, filled, plan["swaps"])
        _refuse_missing(client, contract, stage, plan["swaps"])
        client.command(
            f"ALTER TABLE {quote_identifier(stage)}{on_cluster(client)} MODIFY COMMENT {quote_json(plan)}"
        )
        before()
        client.command(
            f"RENAME TABLE {quote_identifier(stage)} TO {quote_identifier(ready)}{on_cluster(client)}"
        )
    except BaseException:
        client.command(f"DROP TABLE IF EXISTS {quote_identifier(stage)}{on_cluster(client)} SYNC")
        raise
    return identity


def fill(
    clickhouse: "ClickHouse",
    client: "Client",
    stage: str,
    contract: Contract,
    staged: Staged,
    changed: set[int],
) -> None:
    """Insert the rows. An INSERT keeps one core of the engine busy, so many rows are inserted by two clients."""

    def insert(client: "Client", batches: Iterable[pa.RecordBatch]) -> None:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            client.insert_arrow(stage, rows, settings={"max_partitions_per_insert_block": 0})

    def insert_beside(batches: Iterator[pa.RecordBatch]) -> None:
        with clickhouse.client(write=True) as own:
            insert(own, batches)

    expected, batches = staged.rows_in(changed), staged.batches(changed)
    if expected > _INSERTERS * arrow_types.BATCH_ROWS:
        sharing.share_out(batches, insert_beside, _INSERTERS)
    else:
        insert(client, batches)
    found = int(client.query(f"SELECT count() FROM {quote_identifier(stage)}").result_rows[0][0])
    if found != expected:
        raise RuntimeError(
            f"{contract.asset}: ClickHouse took {found:,} of {expected:,} rows; the table is as it was, run it again."
        )


def _partitions_losing_rows(client: "Client", stage: str, contract: Contract, staged: Staged) -> set[int]:
    """Partitions that hold rows which will move into others of their day because their time has changed.

    Raises:
        ContractViolation: such a row may not move, being outside the slice.
    """
    windows = [*staged.rest_of_days, *([staged.window] if contract.mode == "upsert" else [])]
    if not contract.key_by_day or contract.partition_us == DAY_US or not windows:
        return set()
    names = [quote_identifier(name) for name in contract.key]
    # ClickHouse takes the name of a value for that value throughout a SELECT, whatever columns are called so.
    key_day, place = free_name("key_day", contract.names), free_name("place", contract.names)
    day, bucket = partition_sql(contract, DAY_US), partition_sql(contract)
    parts = f"{day} AS {key_day}, {bucket} AS {place}"
    rows = f"SELECT {', '.join(names)}, {parts} FROM"
    where = windows_sql(contract, windows, time_literal(contract))
    found = client.query(
        f"SELECT old.{place}, {', '.join(f'any(old.{name})' for name in names)} "
        f"FROM ({rows} {quote_identifier(contract.table)} WHERE {where}) AS old "
        f"INNER JOIN ({rows} {quote_identifier(stage)}) AS new USING ({', '.join(names)}, {key_day}) "
        f"WHERE old.{place} <> new.{place} GROUP BY old.{place} ORDER BY old.{place}"
    ).result_rows
    return staged.partitions_losing_rows((number * contract.partition_us, *key) for number, *key in found)


def _keep_others(client: "Client", stage: str, contract: Contract, changed: set[int]) -> None:
    """Add the old rows of the changed partitions whose key is not among the new ones."""
    names = ", ".join(map(quote_identifier, contract.names))
    keys = ", ".join(map(quote_identifier, contract.key))
    where = ""
    if contract.partition_column:
        if contract.key_by_day:
            keys = f"{keys}, {partition_sql(contract, DAY_US)}"
        # By what the partition is made of: a column may be called _partition_id.
        ids = ", ".join(partition_id(bucket, contract) for bucket in changed)
        where = f"{partition_sql(contract)} IN ({ids}) AND "
    client.command(
        f"INSERT INTO {quote_identifier(stage)} ({names}) SELECT {names} FROM {quote_identifier(contract.table)} "
        f"WHERE {where} ({keys}) NOT IN (SELECT {keys} FROM {quote_identifier(stage)})",
        settings={"max_query_size": _STATEMENT_BYTES},
    )


def _differing(client: "Client", contract: Contract, held: Buckets, buckets: set[int]) -> set[int]:
    """Those partitions that do not hold these rows. Where the ledger says that they do, they are measured."""

    def same(stored: Buckets) -> set[int]:
        return {b for b in buckets if same_content(stored.get(b, EMPTY), held.get(b, EMPTY))}

    recorded, found = same(ledger.buckets(client, contract)), {}
    for window in spans_of(recorded, contract):
        found |= measured(client, contract, window)
    return buckets - (recorded & same(found))


def _plan(
    client: "Client",
    contract: Contract,
    every: bool,
    changed: set[int],
    filled: set[int],
    held: Buckets,
    identity: str,
) -> dict[str, Any]:
    """What is to be done with a committed table: partitions to swap or drop, entries of the ledger.

    Args:
        every: whatever else the table holds goes.
        changed: the contract's partitions that are written.
        filled: those whose rows are staged.
        held: what they hold.
        identity: of the write.
    """
    touched = set(ledger.buckets(client, contract)) | set(held) if every else changed
    swaps: dict[str, int] = {}
    if contract.partition_column:
        if every:
            swaps = dict.fromkeys(rows_by_partition(client, contract.table), 0)
        swaps |= {kept_id(bucket, contract): 0 for bucket in touched}
        for bucket in (touched | filled) & held.keys():
            if (partition := kept_id(bucket, contract)) in swaps:
                swaps[partition] += held[bucket].rows
    return {
        "id": identity,
        "sequence": time.time_ns(),
        "table": contract.table,
        "swaps": swaps,
        **ledger.planned(contract, {bucket: held.get(bucket, EMPTY) for bucket in touched}),
    }


def _take_along(
    client: "Client", contract: Contract, stage: str, filled: set[int], swaps: dict[str, int]
) -> None:
    """Add what the months that are swapped hold besides the partitions whose rows are staged, as it stands there.

    It is not measured: of what somebody has changed by hand the ledger says what it said before.

    Args:
        filled: the contract's partitions whose rows are staged.
        swaps: rows of each month; those that are added are counted in.
    """
    names = ", ".join(map(quote_identifier, contract.names))
    month = kept_sql(contract)
    ids = ", ".join(partition_id(bucket, contract) for bucket in filled)
    source = (
        f"FROM {quote_identifier(contract.table)} "
        f"WHERE {month} IN ({', '.join(swaps)}) AND {partition_sql(contract)} NOT IN ({ids})"
    )
    many = {"max_query_size": _STATEMENT_BYTES}
    know_all(client, contract.table)
    for partition, rows in client.query(
        f"SELECT toString({month}), count() {source} GROUP BY {month}", settings=many
    ).result_rows:
        swaps[partition] += rows
    client.command(
        f"INSERT INTO {quote_identifier(stage)} ({names}) SELECT {names} {source}",
        settings=many | {"max_partitions_per_insert_block": 0},
    )
    # A reader opens each part of a month by itself.
    client.command(f"OPTIMIZE TABLE {quote_identifier(stage)}{on_cluster(client)} FINAL")


def _refuse_missing(client: "Client", contract: Contract, stage: str, swaps: dict[str, int]) -> None:
    """A plan that cannot be carried out must not be committed: others would try it again and again."""
    staged = rows_by_partition(client, stage)
    for partition, rows in swaps.items():
        if staged.get(partition, 0) != rows:
            raise RuntimeError(
                f"{contract.asset}: {staged.get(partition, 0):,} of the {rows:,} rows of partition {partition} are "
                "staged in ClickHouse; the table is as it was. This is a fault of ml-assets: please report it."
            )
