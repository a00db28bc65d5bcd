"""What a statement says besides on a cluster of replicas: where it holds, and which engine keeps the rows alike.

A client knows its cluster; without one every statement is as on a single server. `ON CLUSTER` carries to all replicas
what is no part of a table's log: making, dropping, renaming and exchanging tables, and their comments. Rows, and the
partitions that are swapped or dropped, the engine replicates by itself, from the replica that is asked: it swaps in what
it knows, so it first waits until it knows everything, and then for all replicas (`alter_sync`).

No cluster can run where this was written. The statements are tested as text and by the engine's parser.
"""

import re
from typing import TYPE_CHECKING

from ml_assets.lib.sql import quote_identifier

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SETTINGS: dict[str, str | int | float] = {
    # A statement returns when all replicas have done it, so that a staging table may be dropped after its swap.
    "alter_sync": 2,
    # A block of rows that equals an earlier one is rows, too; whether all arrived is counted.
    "insert_deduplicate": 0,
}
"""Settings of every client of a cluster."""

_REPLICA = "'/clickhouse/tables/{uuid}/{shard}', '{replica}'"
"""The default path and name of a replica, whose macros each server has. The uuid stays when a table is renamed."""

_HEAD = re.compile(r"((?:CREATE TABLE IF NOT EXISTS|ALTER TABLE) \w+)")
_ENGINE = re.compile(r"ENGINE = (\w*MergeTree)(?:\((\w+)\))?")


def join(client: "Client", cluster: str) -> None:
    """Have a client's statements hold on a cluster; on its server alone if that is empty."""
    setattr(client, "cluster", cluster)  # noqa: B010 - an attribute that its type does not have


def cluster_of(client: "Client") -> str:
    """Name of the client's cluster; empty if it has none."""
    return getattr(client, "cluster", "")


def on_cluster(client: "Client") -> str:
    """What stands behind a table's name in a statement that all replicas carry out."""
    return clause(cluster_of(client))


def clause(cluster: str) -> str:
    """`ON CLUSTER` with a space before it; nothing without a cluster."""
    return f" ON CLUSTER {quote_identifier(cluster)}" if cluster else ""


def engine(cluster: str, kind: str = "MergeTree", argument: str = "") -> str:
    """The engine of a table, replicated on a cluster."""
    if not cluster:
        return f"{kind}({argument})" if argument else kind
    return f"Replicated{kind}({', '.join(filter(None, [_REPLICA, argument]))})"


def clustered(statement: str, cluster: str) -> str:
    """A statement of `sql/clickhouse` that makes or changes a table, as a cluster needs it."""
    statement = _HEAD.sub(lambda found: found[1] + clause(cluster), statement, count=1)
    return _ENGINE.sub(lambda found: f"ENGINE = {engine(cluster, found[1], found[2] or '')}", statement)


def know_all(client: "Client", table: str, everywhere: bool = False) -> None:
    """Wait until the replica that is asked, or each of them, has all rows of a table."""
    if cluster_of(client):
        client.command(
            f"SYSTEM SYNC REPLICA{on_cluster(client) if everywhere else ''} {quote_identifier(table)}"
        )
