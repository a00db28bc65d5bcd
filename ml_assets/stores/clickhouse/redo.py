"""Finishing writes to ClickHouse: partitions swapped in under a redo log.

ClickHouse has no transactions. A write fills a staging table (`<table>__stage__<id>`), counts it, and renames
it to `<table>__ready__<id>`: that is the commit. What is to be done with it stands in its comment. Whoever
comes next, this process or another after a crash, finishes it: REPLACE PARTITION for each partition, or
EXCHANGE TABLES for a table without partitions. Readers see a partition's old rows or its new ones.

Whoever finishes a write first gives its table a name of their own (`<table>__ready__<id>__<nonce>`). Another
one who begins later takes it away from them in the same way, and the statements of the first, which name what
is no longer there, fail: no EXCHANGE TABLES is done twice, which would swap the old rows back.

A write that cannot be finished, because somebody has changed the table meanwhile, say, is set aside as
`<table>__failed__<id>`: it must not stand in the way of other writes or, in an embedded engine, of all tables.

A process that dies within REPLACE PARTITION may leave a partition's old rows on disk beside the new ones
(measured: MergeTree adds the new parts first and covers the old ones afterwards). Doing it again mends that,
so an embedded engine does it as soon as it is opened, before anybody reads.

What belongs here: the names, and how a plan is carried out. What does not: how rows get into a staging table, and
what the plan is.
"""

import json
import logging
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_assets.lib.faults import full_disk, lost_server
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.stores.clickhouse.cluster import know_all, on_cluster
from ml_assets.stores.clickhouse.lock import IS_LOCK

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_NAME = re.compile(
    "(?P<table>.+?)__((?P<ready>ready)__(?P<id>[0-9a-f]{16})(__[0-9a-f]{16})?|stage__[0-9a-f]{16}"
    "|lock(__[0-9a-f]{32})?)",
    re.DOTALL,
)
_OURS = (
    "(match(name, '__(stage|ready)__[0-9a-f]{16}(__[0-9a-f]{16})?$') AND endsWith(engine, 'MergeTree')"
    f" OR match(name, '__lock(__[0-9a-f]{{32}})?$') AND {IS_LOCK})"
)
"""What makes a row of system.tables one of a writer's tables: its name alone may be that of anybody's."""

_ABANDONED_S = 24 * 3600
"""Age at which a staging table is taken for one whose writer is gone."""

_UNKNOWN_TABLE = 60
_PASSING = (159, 202, 236, 241, 243, 341, 394)
"""Faults of the moment: time is up, too many queries, shutting down, memory, disk, a replica is behind, cancelled."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Left:
    """What a writer has in hand or has left.

    Args:
        name: of the staging table or lock.
        table: that it is for.
        identity: of the write if it is committed, else "".
        age_s: seconds since it was last touched.
    """

    name: str
    table: str
    identity: str
    age_s: float


def stage_name(table: str, identity: str) -> str:
    """Name of the table that a write fills. `identity` is 16 hexadecimal digits."""
    return f"{table}__stage__{identity}"


def ready_name(table: str, identity: str) -> str:
    """Name of that table once the write is committed."""
    return f"{table}__ready__{identity}"


def failed_name(table: str, identity: str) -> str:
    """Name of a committed table that cannot be published."""
    return f"{table}__failed__{identity}"


def recover(client: "Client", table: str | None = None, alone: bool = False) -> list[str]:
    """Finish writes that were committed and not yet published; drop what dead writers have left.

    Safe for a table's writer (see stores/clickhouse/lock.py), or with an engine that nobody else has.

    Args:
        table: the table to look after; every table if None.
        alone: nobody else can be writing, so whoever left a staging table or a lock is dead. A fault at one of
            them is logged, and the others are looked after all the same.

    Returns:
        Names of the staging tables that were dealt with; of one that had to be set aside its new name.
    """
    dealt_with = []
    for left in _left(client):
        if table not in (None, left.table) or not (left.identity or alone or left.age_s > _ABANDONED_S):
            continue
        try:
            dealt_with.append(_dealt_with(client, left))
        except Exception as fault:
            if not alone:
                raise
            _LOG.warning("ClickHouse table %s stays for the next opening: %s", left.name, fault)
    return dealt_with


def _dealt_with(client: "Client", left: Left) -> str:
    """Finish, set aside or drop; returns the name that tells which."""
    from ml_assets.stores.clickhouse import ledger

    if not left.identity:
        client.command(f"DROP TABLE IF EXISTS {quote_identifier(left.name)}{on_cluster(client)} SYNC")
        return left.name
    try:
        ledger.ensure(client)  # a former version may have committed it
        publish(client, left.table, left.identity)
    except Exception as fault:
        if full_disk(fault) or lost_server(fault) or getattr(fault, "code", None) in _PASSING:
            raise
        name = failed_name(left.table, left.identity)
        if _claim(client, left.table, left.identity, name):
            _LOG.warning("%s The reason: %s", failed_sentence([name]), fault)
        return name
    return left.name


def failed(client: "Client") -> list[str]:
    """Names of the committed tables that were set aside."""
    rows = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "AND match(name, '__failed__[0-9a-f]{16}$') ORDER BY name"
    ).result_rows
    return [name for (name,) in rows]


def failed_sentence(names: Sequence[str]) -> str:
    """What to do about tables that were set aside."""
    return (
        f"A killed write could not be finished and was set aside as {', '.join(names)}: materialize the asset "
        "again, then DROP TABLE what was set aside."
    )


def interrupted(client: "Client") -> list[str]:
    """Tables with a write that was committed, or staged long ago, and is not finished."""
    return sorted({left.table for left in _left(client) if left.identity or left.age_s > _ABANDONED_S})


def _left(client: "Client") -> list[Left]:
    """What writers have in hand or left, in the order of their commits."""
    found = client.query(
        "SELECT name, toUnixTimestamp(now()) - toUnixTimestamp(metadata_modification_time), "
        "JSONExtractInt(comment, 'sequence') AS sequence FROM system.tables "
        f"WHERE database = currentDatabase() AND {_OURS} ORDER BY sequence, name"
    ).result_rows
    named = [(name, _NAME.fullmatch(name), age_s) for name, age_s, _ in found]
    return [Left(name, parts["table"], parts["id"] or "", age_s) for name, parts, age_s in named if parts]


def publish(client: "Client", table: str, identity: str) -> None:
    """Do what a committed table's comment says, then drop it.

    May be repeated. Of two processes that do it at once the later one ends it, and the other one returns.
    """
    from clickhouse_connect.driver.exceptions import DatabaseError

    own = f"{ready_name(table, identity)}__{uuid.uuid4().hex[:16]}"
    try:
        if not _claim(client, table, identity, own):
            return  # another process has published it
        _carry_out(client, table, own, identity)
        drop_old(client, own)
    except DatabaseError as fault:
        # If it is its own name that is unknown, somebody else has taken it over, and ends what it began.
        if fault.code != _UNKNOWN_TABLE or _comment(client, own) is not None:
            raise


def _claim(client: "Client", table: str, identity: str, name: str) -> bool:
    """Give a committed table a new name, whatever others call it; False if it is no more."""
    from clickhouse_connect.driver.exceptions import DatabaseError

    while True:
        rows = client.query(
            "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, {name:String})",
            parameters={"name": ready_name(table, identity)},
        ).result_rows
        if not rows:
            return False
        try:
            client.command(
                f"RENAME TABLE {quote_identifier(rows[0][0])} TO {quote_identifier(name)}{on_cluster(client)}"
            )
        except DatabaseError as fault:
            if fault.code != _UNKNOWN_TABLE:
                raise  # else somebody else was faster, and it has another name now
        else:
            return True


def _carry_out(client: "Client", table: str, own: str, identity: str) -> None:
    from ml_assets.stores.clickhouse import ledger

    comment = _comment(client, own) or ""
    # After EXCHANGE TABLES this name stands for the old rows, whose comment is that of another write, or none.
    if not comment.startswith(f'{{"id": "{identity}"'):
        return
    plan = json.loads(comment)
    source, target = quote_identifier(own), quote_identifier(table)
    know_all(client, own)
    for partition, rows in plan["swaps"].items():
        if rows:
            swap = f"REPLACE PARTITION ID {quote_literal(partition)} FROM {source}"
        elif _comment(client, own) is None:
            return  # taken over, which this statement would not find out
        else:
            swap = f"DROP PARTITION ID {quote_literal(partition)}"
        client.command(f"ALTER TABLE {target} {swap}")
    ledger.record(client, plan)
    if not _is_partitioned(client, table):
        exchange(client, own, table)


def exchange(client: "Client", one: str, other: str) -> None:
    """Give each of two tables the other's name; whoever reads finds the one or the other.

    Args:
        one: that was filled just now.
        other: that is there.
    """
    know_all(client, one, everywhere=True)
    client.command(
        f"EXCHANGE TABLES {quote_identifier(one)} AND {quote_identifier(other)}{on_cluster(client)}"
    )


def drop_old(client: "Client", name: str) -> None:
    """Drop a table that may hold the old rows after EXCHANGE TABLES: with SYNC one waits for whoever reads them."""
    sync = "" if _being_read(client) else " SYNC"
    client.command(f"DROP TABLE IF EXISTS {quote_identifier(name)}{on_cluster(client)}{sync}")


def _comment(client: "Client", table: str) -> str | None:
    """A table's comment, None if there is no such table."""
    rows = client.query(
        "SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        parameters={"name": table},
    ).result_rows
    return rows[0][0] if rows else None


def _being_read(client: "Client") -> bool:
    """Whether anybody has a query running besides this one."""
    rows = client.query("SELECT count() FROM system.processes WHERE query_kind = 'Select'").result_rows
    return rows[0][0] > 1


def _is_partitioned(client: "Client", table: str) -> bool:
    rows = client.query(
        "SELECT partition_key FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        parameters={"name": table},
    ).result_rows
    return bool(rows and rows[0][0])
