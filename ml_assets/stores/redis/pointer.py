"""What names the copy of a table in Redis that counts: a key with the run of the server, and the version of the rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.stores import postgres_table
from ml_assets.tables.staging import table_state

if TYPE_CHECKING:
    import psycopg
    from redis import Redis

EMPTY = "0" * 16
"""The version of a table without rows."""


@dataclass(frozen=True)
class Server:
    """What has to be known of a server, once a connection: it may be another one after a restart.

    Args:
        run: its run's id, before which no pointer counts.
        expires_fields: whether fields of a hash may expire (Valkey 9, Redis 7.4), not only keys.
    """

    run: bytes
    expires_fields: bool


def pointer_of(contract: Contract) -> str:
    """Name of the pointer to a table's version; the names of its versions begin with it."""
    return f"ml-assets:{contract.asset}"


def version_of(connection: "psycopg.Connection", contract: Contract) -> str:
    """The version that a transaction of PostgreSQL sees."""
    # However it was hashed: another hash of the same rows is no reason to take the table for an empty one.
    return table_state(postgres_table.ledger_buckets(connection, contract, any_version=True)).content_hash


def server_of(cache: "Redis") -> Server:
    """What has to be known of the server that a client is connected to.

    Raises:
        redis.RedisError: it does not say.
    """
    pool = cache.connection_pool
    connection = pool.get_connection()
    try:
        return ask(connection)
    finally:
        pool.release(connection)


def ask(connection: Any) -> Server:
    """`server_of`, on a connection itself."""
    connection.send_command("INFO", "server")
    told: Any = connection.read_response(disable_decoding=True)
    connection.send_command("COMMAND", "INFO", "HPEXPIREAT")
    known: Any = connection.read_response(disable_decoding=True)
    run = next(line[7:].strip() for line in bytes(told).splitlines() if line.startswith(b"run_id:"))
    return Server(run, bool(known) and known[0] is not None)
