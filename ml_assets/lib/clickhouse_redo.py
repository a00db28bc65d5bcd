"""Finishing writes to ClickHouse: partitions swapped in under a redo log.

ClickHouse has no transactions. A write fills a staging table (`<table>__stage__<id>`), counts it, and renames
it to `<table>__ready__<id>`: that is the commit. What is to be done with it stands in its comment. Whoever
comes next, this process or another after a crash, finishes it: REPLACE PARTITION for each partition, or
EXCHANGE TABLES for a table without partitions; doing so twice does no harm. Readers see a partition's old
rows or its new ones.

A process that dies within REPLACE PARTITION may leave a partition's old rows on disk beside the new ones
(measured: MergeTree adds the new parts first and covers the old ones afterwards). Doing it again mends that,
so an embedded engine does it as soon as it is opened, before anybody reads.

What belongs here: the names, the plan, the ledger's tables, and how a plan is carried out. What does not: how
rows get into a staging table.
"""

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.lib.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LEDGER = "write_ledger"
CONTRACTS = "write_contracts"
LEDGER_TABLES = (
    f"CREATE TABLE IF NOT EXISTS {LEDGER} (table_name String, partition String, sequence Int64, rows Int64, "
    "bytes Int64, content_hash String, hash_version String, written_at DateTime64(6, 'UTC')) "
    "ENGINE = ReplacingMergeTree(sequence) ORDER BY (table_name, partition)",
    f"CREATE TABLE IF NOT EXISTS {CONTRACTS} (asset String, contract String, sequence Int64) "
    "ENGINE = ReplacingMergeTree(sequence) ORDER BY asset",
)
_NAME = re.compile(
    "(?P<table>.+?)__((?P<ready>ready)__[0-9a-f]{16}|stage__[0-9a-f]{16}|lock(__[0-9a-f]{32})?)"
)

_ABANDONED_S = 24 * 3600
"""Age at which a staging table is taken for one whose writer is gone."""


def stage_name(table: str, identity: str) -> str:
    """Name of the table that a write fills. `identity` is 16 hexadecimal digits."""
    return f"{table}__stage__{identity}"


def ready_name(table: str, identity: str) -> str:
    """Name of that table once the write is committed."""
    return f"{table}__ready__{identity}"


def recover(client: "Client", table: str | None = None, alone: bool = False) -> list[str]:
    """Finish writes that were committed and not yet published; drop what dead writers have left.

    Safe for a table's writer (see lib/clickhouse_lock.py), or with an engine that nobody else has.

    Args:
        table: the table to look after; every table if None.
        alone: nobody else can be writing, so whoever left a staging table or a lock is dead.

    Returns:
        Names of the staging tables that were dealt with.
    """
    dealt_with = []
    for name, table_name, ready, age_s in _left(client):
        if table not in (None, table_name):
            continue
        if ready:
            publish(client, table_name, name)
        elif alone or age_s > _ABANDONED_S:
            client.command(f"DROP TABLE IF EXISTS {quote_identifier(name)} SYNC")
        else:
            continue
        dealt_with.append(name)
    return dealt_with


def interrupted(client: "Client") -> list[str]:
    """Tables with a write that was committed, or staged long ago, and is not finished."""
    left = {table for _, table, ready, age_s in _left(client) if ready or age_s > _ABANDONED_S}
    return sorted(left)


def _left(client: "Client") -> list[tuple[str, str, bool, float]]:
    """What writers have in hand or left: name, table that it is for, whether it is committed, age in seconds.

    In the order of their commits.
    """
    found = client.query(
        "SELECT name, toUnixTimestamp(now()) - toUnixTimestamp(metadata_modification_time), "
        "JSONExtractInt(comment, 'sequence') AS sequence FROM system.tables "
        "WHERE database = currentDatabase() AND match(name, '__(stage|ready|lock)(__|$)') ORDER BY sequence, name"
    ).result_rows
    named = [(name, _NAME.fullmatch(name), age_s) for name, age_s, _ in found]
    return [(name, parts["table"], bool(parts["ready"]), age_s) for name, parts, age_s in named if parts]


def publish(client: "Client", table: str, ready: str) -> None:
    """Do what a committed table's comment says, then drop it. May be repeated, also by two processes at once."""
    comment = client.query(
        "SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        parameters={"name": ready},
    ).result_rows
    if not comment:
        return  # another process has published it
    # After EXCHANGE TABLES this name stands for the old rows, whose comment is that of another write, or none.
    own = f'{{"id": "{ready[-16:]}"'
    plan = json.loads(comment[0][0]) if comment[0][0].startswith(own) else None
    source, target = quote_identifier(ready), quote_identifier(table)
    if plan:
        for partition, rows in plan["swaps"].items():
            verb = (
                f"REPLACE PARTITION ID {quote_literal(partition)} FROM {source}"
                if rows
                else f"DROP PARTITION ID {quote_literal(partition)}"
            )
            client.command(f"ALTER TABLE {target} {verb}")
        _record(client, plan)
        if not _is_partitioned(client, table):
            client.command(f"EXCHANGE TABLES {source} AND {target}")
    client.command(f"DROP TABLE IF EXISTS {source} SYNC")


def _is_partitioned(client: "Client", table: str) -> bool:
    rows = client.query(
        "SELECT partition_key FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        parameters={"name": table},
    ).result_rows
    return bool(rows and rows[0][0])


def _record(client: "Client", plan: dict[str, Any]) -> None:
    from ml_assets.lib.hashing import HASH_VERSION

    now = datetime.now(UTC)
    entries = [
        [plan["table"], partition, plan["sequence"], rows, size, content_hash, HASH_VERSION, now]
        for partition, rows, size, content_hash in plan["ledger"]
    ]
    names = [
        "table_name",
        "partition",
        "sequence",
        "rows",
        "bytes",
        "content_hash",
        "hash_version",
        "written_at",
    ]
    if entries:
        client.insert(LEDGER, entries, column_names=names)
