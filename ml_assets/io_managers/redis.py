"""Online features: PostgreSQL holds the truth, Redis a copy of one version of it.

A table is written to PostgreSQL in one transaction. Before its commit the rows also go to Redis as one hash
per version, and a pointer names the version that counts. Around the commit the pointer is taken away, so
whoever asks in that moment reads PostgreSQL; it comes back under the table's lock, naming the version that
PostgreSQL has. So a reader sees old or new, and a crash of the writer leaves no stale pointer. A server that was
restarted may have lost the last second, or hours, and with it that a pointer was taken away: a pointer counts only
in the run of the server in which it was set. After a restart PostgreSQL answers until the next materialization,
`ml-assets recover` or maintenance has compared versions. Without Redis all this is PostgreSQL.

What belongs here: the IO manager, and `lookup`, the one way to read a row. What does not: features.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ml_assets.contracts import TABLES, Column, Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.tables.validation import WHOLE, Limits, Window

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa
    from dagster import OutputContext
    from redis import Redis

    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Staged, TableState

_KEPT_S = 60
"""How long a replaced version stays, for readers that hold its name already."""

_FIELDS = 5_000
"""Rows of one command."""

_WANTED = {
    "string": "text",
    "int64": "an integer of 64 bits, such as 7 or '7'",
    "float64": "a number, such as 0.5 or '0.5'",
    "bool": "true or false",
    "timestamp": "a time with its time zone, such as '2026-01-31T09:30:00+00:00'",
    "date": "a date, such as '2026-01-31'",
    "json": "a JSON document as text",
}
"""Values of a key, for the sentence."""

_LONGEST = 512 * 2**20
"""Bytes of a value; Redis ends the connection at a longer one."""

_INT64 = range(-(2**63), 2**63)

_EMPTY = "0" * 16
"""The version of a table without rows."""

_LOOKUP = """
local pointer = redis.call('GET', KEYS[1])
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if not pointer or not run then return false end
local set_in, version = string.match(pointer, '(%w+) (%w+)')
if set_in ~= run then return false end
return redis.call('HGET', KEYS[1] .. ':' .. version, ARGV[1])
"""


class RedisIOManager(TableIOManager):
    """Writes feature tables for lookup by key.

    Args:
        redis: the cache; nothing is cached where no Redis is to be had.
        postgres: the truth.
    """

    store: ClassVar[str] = "serving"
    limits: ClassVar[Limits] = Limits("PostgreSQL", nul=False, columns=1_600, row_bytes=500_000_000)

    redis: RedisResource
    postgres: PostgresResource

    def lookup(self, asset: str, entity: Any) -> dict[str, Any] | None:
        """The row of one entity of an asset that this IO manager has written; None if there is none.

        Opens its connections anew. A server that answers many requests keeps a client and a contract and
        calls the function `lookup` of this module.

        Args:
            asset: its key, parts separated by slashes.
            entity: value of its key column, or that value as text.

        Raises:
            LookupError: the asset was never written.
            ValueError: the key column cannot hold such a value.
        """
        from ml_assets.tables.arrow_types import never_written
        from ml_assets.tables.inference import table_asset

        name = asset if asset in TABLES else table_asset(asset.split("/"), self.store)
        contract = TABLES.get(name) or self._remembered(name)
        if contract is None:
            raise never_written(name)
        cache = self.redis.client()
        with cache or nullcontext():
            return lookup(cache, self.postgres, contract, entity)

    def _output_contract(self, context: "OutputContext", rows: Any) -> Contract:
        from ml_assets.errors import ContractViolation

        contract = super()._output_contract(context, rows)
        if contract.partition_column and not contract.unique_across_days:
            raise ContractViolation(
                f"{contract.asset}: a key may stand in several partitions, but a row is looked up by its key alone: "
                "name the metadata 'unique_across_days': True if it stands in one only, or make the asset a table "
                "without partitions. Nothing was written."
            )
        if len(contract.key) != 1:
            raise ContractViolation(
                f"{contract.asset} has {', '.join(contract.key) or 'no column'} as its key, but rows are looked up by "
                "the value of one column: name it in the metadata 'key'. Nothing was written."
            )
        if contract.by_name[contract.key[0]].type == "vector":
            raise ContractViolation(
                f"{contract.asset} has the vector {contract.key[0]!r} as its key, and no row can be looked up by one: "
                "name another column in the metadata 'key'. Nothing was written."
            )
        return contract

    def _write(self, contract: Contract, staged: "Staged") -> bool:
        from ml_assets.stores import postgres_table
        from ml_assets.tables.conflicts import retried

        def attempt(cache: "Redis | None") -> bool:
            with self.postgres.connect(write=True) as connection:
                changed = postgres_table.write(connection, contract, staged)
                if cache is not None and changed:
                    # Before the commit, so that a Redis that goes away or is full leaves the old rows in both.
                    _fill(cache, connection, contract)
                    cache.delete(_pointer(contract))
            return changed

        with self.redis.client() or nullcontext() as cache:
            changed = retried(contract.asset, postgres_table.is_conflict, lambda: attempt(cache))
            if cache is not None:
                refresh(cache, self.postgres, contract)
        return changed

    def _read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.stores import postgres_table
        from ml_assets.tables.arrow_types import arrow_schema

        def batches() -> "Any":
            with self.postgres.connect(write=True) as connection:
                yield from postgres_table.read(connection, contract, columns, window)

        return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())

    def _found(self, place: "Place") -> "Found | None":
        from ml_assets.stores.postgres_table import found_in_postgres

        return found_in_postgres(self.postgres.connect, place)

    def _remembered(self, asset: str) -> Contract | None:
        from ml_assets.stores import postgres_table

        with self.postgres.connect() as connection:
            return postgres_table.remembered(connection, asset)


def known(postgres: PostgresResource) -> list[Contract]:
    """Of each table that was written and is there, the contract that it was last written by."""
    from ml_assets.stores import postgres_table

    with postgres.connect() as connection:
        return [
            each
            for each in postgres_table.known_contracts(connection, "serving")
            if postgres_table.table_exists(connection, each.schema, each.table)
        ]


def recorded(postgres: PostgresResource, contract: Contract, any_version: bool = False) -> "TableState":
    """Rows and content hash as noted when the table was written; of what was hashed in another way only if asked for."""
    from ml_assets.stores import postgres_table
    from ml_assets.tables.staging import table_state

    with postgres.connect() as connection:
        return table_state(postgres_table.recorded_buckets(connection, contract, any_version))


def measured(postgres: PostgresResource, contract: Contract) -> "TableState":
    """Rows and content hash of what PostgreSQL holds now."""
    from ml_assets.stores import postgres_table
    from ml_assets.tables.staging import table_state

    with postgres.connect(write=True) as connection:
        return table_state(postgres_table.measured_buckets(connection, contract))


def cached(redis: RedisResource, contract: Contract) -> "TableState | None":
    """Rows and content hash of the copy that lookups are answered from; None where PostgreSQL answers them."""
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema
    from ml_assets.tables.staging import measure, table_state

    with redis.client() or nullcontext() as cache:
        name = _answering(cache, contract)
        if cache is None or name is None:
            return None
        # A scan may tell of a field twice.
        packed: Any = dict(cache.hscan_iter(name, count=_FIELDS))
    rows = [_unpacked(row, contract) for row in packed.values()]
    schema = arrow_schema(contract)
    parts = (rows[at : at + _FIELDS] for at in range(0, len(rows), _FIELDS))
    return table_state(measure((pa.RecordBatch.from_pylist(part, schema) for part in parts), contract))


def held_keys(redis: RedisResource, contract: Contract) -> set[str] | None:
    """Keys of the rows that Redis answers with; None where PostgreSQL answers."""
    with redis.client() or nullcontext() as cache:
        name = _answering(cache, contract)
        if cache is None or name is None:
            return None
        return {field.decode() for field in cast("list[bytes]", cache.hkeys(name))}


def _answering(cache: "Redis | None", contract: Contract) -> str | None:
    """Name of the copy that lookups are answered from; None if there is none that counts."""
    pointer: Any = cache.get(_pointer(contract)) if cache is not None else None
    if cache is None or pointer is None:
        return None
    # Before the version, if anything, stands the run of the server in which it counts.
    run, _, version = pointer.decode().rpartition(" ")
    name = f"{_pointer(contract)}:{version}"
    if run not in ("", str(cast("dict[str, Any]", cache.info("server"))["run_id"])):
        return None
    return name if version == _EMPTY or cache.exists(name) else None


def refresh(cache: "Redis", postgres: PostgresResource, contract: Contract) -> bool:
    """Make Redis hold what PostgreSQL holds; returns whether it had to be filled.

    Runs under the table's lock, so that the version named is the version that PostgreSQL has.
    """
    from ml_assets.stores import postgres_table

    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)
        version = _version(connection, contract)
        pointer = _pointer(contract)
        name = f"{pointer}:{version}"
        cache.persist(name)  # a write that failed may have left it, and another one have let it expire
        held = version == _EMPTY or cache.exists(name)
        # Asked for before the rows are looked at: a server that restarts meanwhile does not take it for its own.
        named = f"{cache.info('server')['run_id']} {version}"
        if held and cache.get(pointer) == named.encode():
            return False
        if not held:
            _fill(cache, connection, contract)
        cache.set(pointer, named)
        _expire_others(cache, pointer, version)
    return True


def drop_bent(cache: "Redis", redis: RedisResource, postgres: PostgresResource, contract: Contract) -> bool:
    """Delete a copy that lookups are answered from and that does not hold what was written; returns whether it was.

    Somebody has changed it, as its version is the right one. `refresh` copies the rows again.
    """
    try:
        copy = cached(redis, contract)
        whole = copy is None or copy.content_hash == recorded(postgres, contract).content_hash
    except (ValueError, KeyError, TypeError):  # fields that are not even rows
        whole = False
    if not whole:
        pointer = _pointer(contract)
        cache.delete(pointer, *cache.scan_iter(match=f"{pointer}:*", count=1000))
    return not whole


def expire_replaced(cache: "Redis", postgres: PostgresResource, contract: Contract) -> int:
    """Let versions expire that are not PostgreSQL's; returns how many were not told to by the write before."""
    from ml_assets.stores import postgres_table

    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)  # nobody is filling a version now
        return _expire_others(cache, _pointer(contract), _version(connection, contract))


def _expire_others(cache: "Redis", pointer: str, version: str) -> int:
    count = 0
    for old in cache.scan_iter(match=f"{pointer}:*", count=1000):
        if old != f"{pointer}:{version}".encode() and cache.ttl(old) < 0:
            count += bool(cache.expire(old, _KEPT_S))
    return count


def lookup(
    cache: "Redis | None", postgres: PostgresResource, contract: Contract, entity: Any
) -> dict[str, Any] | None:
    """The row of one entity, None if there is none: from Redis, and from PostgreSQL where Redis does not have it.

    Args:
        cache: `RedisResource.client()`; None reads PostgreSQL.
        entity: value of the contract's key, or that value as text, as `_field` writes it.

    Raises:
        ValueError: the key cannot hold such a value.
    """
    from redis import RedisError

    field = _field_of(contract, entity)
    if cache is not None:
        try:
            found: Any = cache.eval(_LOOKUP, 1, _pointer(contract), field)
        except RedisError:
            found = None  # a cache that is gone is no reason not to answer
        if found is not None:
            return _unpacked(found, contract)
    return _lookup_postgres(postgres, contract, field)


def _lookup_postgres(postgres: PostgresResource, contract: Contract, field: str) -> dict[str, Any] | None:
    from ml_assets.lib.sql import quote_identifier, quote_literal
    from ml_assets.stores import postgres_table

    with postgres.connect() as connection:
        if not postgres_table.table_exists(connection, contract.schema, contract.table):
            return None
        condition = f"{quote_identifier(contract.key[0])} = {quote_literal(field)}"
        for batch in postgres_table.read(connection, contract, contract.names, WHOLE, condition):
            for row in batch.to_pylist():
                return row
    return None


def _field(value: Any, column: Column) -> str:
    """A key's value as the name of a row's field in Redis, which PostgreSQL reads as the same value.

    Text and JSON are themselves; numbers are as Python writes them, booleans `true` and `false`, dates and times
    ISO 8601, these in UTC.
    """
    match column.type:
        case "bool":
            return "true" if value else "false"
        case "float64":
            return repr(value + 0.0)  # -0.0 counts as 0.0
        case "timestamp" | "date":
            return _json_time(value)
    return str(value)


def _field_of(contract: Contract, entity: Any) -> str:
    """The field of the row that somebody looks up.

    Raises:
        ValueError: the key cannot hold such a value.
    """
    column = contract.by_name[contract.key[0]]
    try:
        value = _parsed(entity, column) if isinstance(entity, str) else entity
        if not _fits(value, column):
            raise ValueError
        return _field(value, column)
    except (ValueError, KeyError, OverflowError) as fault:
        raise ValueError(
            f"{contract.asset}: its key {column.name!r} is {column.type}, and {entity!r} is no such value: look up "
            f"{_WANTED[column.type]}."
        ) from fault


def _parsed(text: str, column: Column) -> Any:
    """The value that a text stands for."""
    from ml_assets.lib.canonical_json import canonical

    parsers: dict[str, Callable[[str], Any]] = {
        "int64": int,
        "float64": float,
        "bool": lambda text: {"true": True, "false": False}[text.lower()],
        "timestamp": datetime.fromisoformat,
        "date": date.fromisoformat,
        "json": canonical,
    }
    return parsers.get(column.type, str)(text)


def _fits(value: Any, column: Column) -> bool:
    """Whether a value is one of the column's type."""
    match column.type:
        case "bool":
            return isinstance(value, bool)
        case "int64":
            return isinstance(value, int) and not isinstance(value, bool) and value in _INT64
        case "float64":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "timestamp":
            return isinstance(value, datetime) and value.tzinfo is not None
        case "date":
            return isinstance(value, date) and not isinstance(value, datetime)
    return isinstance(value, str)


def _pointer(contract: Contract) -> str:
    return f"ml-assets:{contract.asset}"


def _version(connection: "psycopg.Connection", contract: Contract) -> str:
    """The version that a transaction sees."""
    from ml_assets.stores import postgres_table
    from ml_assets.tables.staging import table_state

    # However it was hashed: another hash of the same rows is no reason to take the table for an empty one.
    return table_state(postgres_table.recorded_buckets(connection, contract, any_version=True)).content_hash


def _fill(cache: "Redis", connection: "psycopg.Connection", contract: Contract) -> None:
    """Make Redis hold the version that a transaction sees, all at once. Nobody reads it before the pointer says so."""
    name = f"{_pointer(contract)}:{_version(connection, contract)}"
    filling = f"{name}:filling"
    _copy(cache, filling, connection, contract)
    if cache.exists(filling):  # a table without rows has no hash
        cache.rename(filling, name)


def _copy(cache: "Redis", name: str, connection: "psycopg.Connection", contract: Contract) -> None:
    from ml_assets.errors import ContractViolation
    from ml_assets.stores import postgres_table

    cache.delete(name)
    key = contract.by_name[contract.key[0]]
    for batch in postgres_table.read(connection, contract, contract.names):
        for start in range(0, batch.num_rows, _FIELDS):
            rows = batch.slice(start, _FIELDS).to_pylist()
            packed: dict[Any, Any] = {
                _field(row[key.name], key): json.dumps(row, default=_json_time) for row in rows
            }
            for field, row in packed.items():
                if len(row) > _LONGEST:
                    raise ContractViolation(
                        f"{contract.asset}: the row with {key.name} {field!r} has {len(row):,} bytes as JSON, and Redis "
                        f"holds {_LONGEST:,}: keep what is so large in a file, and its path here. Nothing was written."
                    )
            cache.hset(name, mapping=packed)


def _json_time(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in Redis")


def _unpacked(packed: bytes, contract: Contract) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(packed)
    for column in contract.columns:
        # A column that is new since then changes no hash where it is null.
        value = row.setdefault(column.name)
        if value is not None and column.type == "timestamp":
            row[column.name] = datetime.fromisoformat(value)
        elif value is not None and column.type == "date":
            row[column.name] = date.fromisoformat(value)
    return row
