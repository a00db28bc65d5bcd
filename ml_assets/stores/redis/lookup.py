"""The one way to read a row by its key."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.stores import postgres_table
from ml_assets.stores.redis.entities import expiry_ms, key_of_entity, own_key, row_of, rows_of
from ml_assets.stores.redis.pointer import pointer_of, server_of
from ml_assets.stores.redis.rows import field_of, unpacked
from ml_assets.tables.validation import WHOLE

if TYPE_CHECKING:
    from redis import Redis

    from ml_assets.stores.postgres_table.server import PostgresServer

_LOOKUP = """
local pointer = redis.call('GET', KEYS[1])
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if not pointer or not run then return false end
local set_in, version = string.match(pointer, '(%w+) (%w+)')
if set_in ~= run then return false end
return redis.call('HGET', KEYS[1] .. ':' .. version, ARGV[1])
"""


def lookup(
    cache: "Redis | None", postgres: "PostgresServer", contract: Contract, entity: Any
) -> dict[str, Any] | None:
    """The row of one entity, None if there is none: from Redis, and from PostgreSQL where Redis does not have it.

    Args:
        cache: `RedisResource.client()`; None reads PostgreSQL.
        entity: value of the contract's key, or that value as text, as `field_name` writes it; a mapping of the key's
            columns to those, where there are several. A row of a view that has grown too old is none.

    Raises:
        ValueError: the key cannot hold such a value.
    """
    from redis import RedisError

    if contract.event_time:
        return _lookup_view(cache, postgres, contract, entity)
    field = field_of(contract, entity)
    if cache is not None:
        try:
            found: Any = cache.eval(_LOOKUP, 1, pointer_of(contract), field)
        except RedisError:
            found = None  # a cache that is gone is no reason not to answer
        if found is not None:
            return unpacked(found, contract)
    return _lookup_postgres(postgres, contract, field)


def _lookup_postgres(postgres: "PostgresServer", contract: Contract, field: str) -> dict[str, Any] | None:
    with postgres.connect() as connection:
        if not postgres_table.table_exists(connection, contract.schema, contract.table):
            return None
        condition = f"{quote_identifier(contract.key[0])} = {quote_literal(field)}"
        for batch in postgres_table.read(connection, contract, contract.names, WHOLE, condition):
            for row in batch.to_pylist():
                return row
    return None


def _lookup_view(
    cache: "Redis | None", postgres: "PostgresServer", contract: Contract, entity: Any
) -> dict[str, Any] | None:
    """The row that a view has of an entity."""
    from redis import RedisError

    named = entity if isinstance(entity, Mapping) else dict.fromkeys(contract.key[:1], entity)
    key = key_of_entity(contract, named)
    row = None
    if cache is not None:
        with suppress(RedisError):  # a cache that is gone is no reason not to answer
            row = _copied(cache, contract, key)
    if row is None:
        with postgres.connect() as connection:
            if postgres_table.table_exists(connection, contract.schema, contract.table):
                row = rows_of(connection, contract, [key]).get(key)
    too_old = row is not None and 0 < expiry_ms(contract, row) <= time.time_ns() // 1_000_000
    return None if too_old else row


def _copied(cache: "Redis", contract: Contract, key: bytes) -> dict[str, Any] | None:
    """The row that Redis has; None if it has none that counts."""
    server, view = server_of(cache), contract.table.encode()
    pointer: Any = cache.get(pointer_of(contract))
    if pointer is None or not pointer.startswith(server.run + b" "):
        return None
    text: Any = (
        cache.hget(key.decode(), view.decode()) if server.expires_fields else cache.get(own_key(key, view))
    )
    return None if text is None else row_of(contract, key, text)
