"""Keeping Redis small: versions of online features that no pointer names and that never expire.

A replaced version is told to expire by the write that replaces it. A writer that is killed while it fills a
version leaves one that nobody will name. A server that was restarted is believed in again once its versions have
been compared with PostgreSQL's, which is done here, too.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ml_assets.lib.words import counted
from ml_assets.stores.postgres_table import contracts_of
from ml_assets.stores.redis.copies import expire_replaced, refresh
from ml_assets.stores.redis.served import KEPT_DAYS, forget_old

if TYPE_CHECKING:
    from ml_assets.stores.postgres_table.server import PostgresServer
    from ml_assets.stores.redis import RedisServer


def size(redis: "RedisServer") -> int | None:
    """Bytes that the server holds in memory; None where no Redis is to be had."""
    client = redis.client()
    if client is None:
        return None
    with client:
        return int(client.info("memory")["used_memory"])


def maintain(redis: "RedisServer", postgres: "PostgresServer") -> Iterator[str]:
    """Let versions expire that no pointer names, and let Redis serve again what it does not since its restart.

    Raises:
        StoreUnavailable: Redis or PostgreSQL does not answer.
    """
    if forgotten := forget_old(postgres):
        yield f"Forgot {counted(forgotten, 'row')} that were served more than {KEPT_DAYS} days ago."
    client = redis.client()
    if client is None:
        return
    with postgres.connect() as connection:
        contracts = contracts_of(connection, "serving")
    with client:
        refreshed = sum(refresh(client, postgres, contract) for contract in contracts)
        expired = sum(expire_replaced(client, postgres, contract) for contract in contracts)
    if refreshed:
        yield f"Let Redis serve {counted(refreshed, 'table')} again."
    if expired:
        yield f"Let {counted(expired, 'abandoned version')} expire."
