"""The one way to read a row by its key."""

from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.stores import postgres_table
from ml_assets.stores.redis.copies import pointer_of
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
        entity: value of the contract's key, or that value as text, as `field_name` writes it.

    Raises:
        ValueError: the key cannot hold such a value.
    """
    from redis import RedisError

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
