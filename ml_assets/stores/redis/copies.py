"""The copies in Redis: one hash a version of a table, and the pointer to the version that counts."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.stores import postgres_table
from ml_assets.stores.postgres_table.server import ledger_state
from ml_assets.stores.redis import entities
from ml_assets.stores.redis.pointer import EMPTY, pointer_of, version_of
from ml_assets.stores.redis.rows import field_name, packed, unpacked
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import TableState, measure, table_state

if TYPE_CHECKING:
    import psycopg
    from redis import Redis

    from ml_assets.stores.postgres_table.server import PostgresServer
    from ml_assets.stores.redis import RedisServer

_KEPT_S = 60
"""How long a replaced version stays, for readers that hold its name already."""

_FIELDS = 5_000
"""Rows of one command."""

_LONGEST = 512 * 2**20
"""Bytes of a value; Redis ends the connection at a longer one."""


def copy_state(cache: "Redis", contract: Contract) -> TableState | None:
    """Rows and content hash of the copy that lookups are answered from; None where PostgreSQL answers them.

    Raises:
        ValueError, KeyError, TypeError: somebody has put into it what is no row.
    """
    rows = copied_rows(cache, contract)
    return None if rows is None else table_state(measure(rows, contract))


def copied_rows(cache: "Redis", contract: Contract) -> Iterator[pa.RecordBatch] | None:
    """The rows of the copy that lookups are answered from; None where PostgreSQL answers them.

    They are in memory when this returns, as the text that Redis has.

    Raises:
        ValueError, KeyError, TypeError: somebody has put into it what is no row; some of them when rows are asked for.
    """
    name = _answering(cache, contract)
    if name is None:
        return None
    if contract.event_time:
        return entities.copied_rows(cache, contract, time.time_ns() // 1_000_000)
    # A scan may tell of a field twice.
    fields: Any = dict(cache.hscan_iter(name, count=_FIELDS))
    texts, schema = iter(fields.values()), arrow_schema(contract)
    parts = iter(lambda: [unpacked(text, contract) for text in islice(texts, _FIELDS)], [])
    return (pa.RecordBatch.from_pylist(part, schema) for part in parts)


def held_keys(redis: "RedisServer", contract: Contract) -> set[str] | None:
    """Keys of the rows that Redis answers with; None where PostgreSQL answers."""
    with redis.client() or nullcontext() as cache:
        name = _answering(cache, contract) if cache is not None else None
        if cache is None or name is None:
            return None
        if contract.event_time:
            return entities.held_entities(cache, contract)
        return {field.decode() for field in cast("list[bytes]", cache.hkeys(name))}


def _answering(cache: "Redis", contract: Contract) -> str | None:
    """Name of the copy that lookups are answered from; None if there is none that counts."""
    pointer: Any = cache.get(pointer_of(contract))
    if pointer is None:
        return None
    # Before the version, if anything, stands the run of the server in which it counts.
    run, _, version = pointer.decode().rpartition(" ")
    name = f"{pointer_of(contract)}:{version}"
    if run not in ("", str(cast("dict[str, Any]", cache.info("server"))["run_id"])):
        return None
    # A view's copy has one name for all versions, and its pointer stands only while it is whole.
    return name if version == EMPTY or contract.event_time or cache.exists(name) else None


def refresh(cache: "Redis", postgres: "PostgresServer", contract: Contract) -> bool:
    """Make Redis hold what PostgreSQL holds; returns whether it had to be filled.

    Runs under the table's lock, so that the version named is the version that PostgreSQL has, and by the contract that
    the table has then: whoever recovers has read it before, and a writer may have added a column since.
    """
    if contract.event_time:
        return entities.refresh(cache, postgres, contract) is not None
    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)
        contract = postgres_table.last_contract(connection, contract.asset) or contract
        if contract.event_time:
            return False  # a view by now: its writer brings it here
        version = version_of(connection, contract)
        pointer = pointer_of(contract)
        name = f"{pointer}:{version}"
        cache.persist(name)  # a write that failed may have left it, and another one have let it expire
        held = version == EMPTY or cache.exists(name)
        # Asked for before the rows are looked at: a server that restarts meanwhile does not take it for its own.
        named = f"{cache.info('server')['run_id']} {version}"
        if held and cache.get(pointer) == named.encode():
            return False
        if not held:
            fill(cache, connection, contract)
        cache.set(pointer, named)
        _expire_others(cache, pointer, version)
    return True


def mend(redis: "RedisServer", postgres: "PostgresServer") -> list[str]:
    """Make every copy anew that PostgreSQL's rows have outrun, or that somebody has changed; returns their assets."""
    with redis.client() or nullcontext() as cache:
        if cache is None:
            return []
        with postgres.connect() as connection:
            contracts = postgres_table.contracts_of(connection, "serving")
        for contract in contracts:
            _drop_if_changed(cache, postgres, contract)
        return [contract.asset for contract in contracts if refresh(cache, postgres, contract)]


def _drop_if_changed(cache: "Redis", postgres: "PostgresServer", contract: Contract) -> None:
    """Delete a copy that lookups are answered from and that does not hold what was written.

    Somebody has changed it, as its version is the right one. `refresh` copies the rows again.
    """
    try:
        copy = copy_state(cache, contract)
        whole = copy is None or copy.content_hash == ledger_state(postgres, contract).content_hash
    except (ValueError, KeyError, TypeError):  # fields that are not even rows
        whole = False
    if not whole and contract.event_time:
        entities.drop(cache, contract)
    elif not whole:
        pointer = pointer_of(contract)
        cache.delete(pointer, *cache.scan_iter(match=f"{pointer}:*", count=1000))


def expire_replaced(cache: "Redis", postgres: "PostgresServer", contract: Contract) -> int:
    """Let versions expire that are not PostgreSQL's; returns how many were not told to by the write before.

    A view's copy has no versions.
    """
    if contract.event_time:
        return 0
    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)  # nobody is filling a version now
        return _expire_others(cache, pointer_of(contract), version_of(connection, contract))


def _expire_others(cache: "Redis", pointer: str, version: str) -> int:
    count = 0
    for old in cache.scan_iter(match=f"{pointer}:*", count=1000):
        if old != f"{pointer}:{version}".encode() and cache.ttl(old) < 0:
            count += bool(cache.expire(old, _KEPT_S))
    return count


def fill(cache: "Redis", connection: "psycopg.Connection", contract: Contract) -> None:
    """Make Redis hold the version that a transaction sees, all at once. Nobody reads it before the pointer says so."""
    name = f"{pointer_of(contract)}:{version_of(connection, contract)}"
    filling = f"{name}:filling"
    copy_rows(cache, filling, connection, contract)
    if cache.exists(filling):  # a table without rows has no hash
        cache.rename(filling, name)


def copy_rows(cache: "Redis", name: str, connection: "psycopg.Connection", contract: Contract) -> None:
    """Make a hash of the rows that a transaction sees.

    Raises:
        ContractViolation: a row is longer than Redis holds.
    """
    cache.delete(name)
    key = contract.by_name[contract.key[0]]
    for batch in postgres_table.read(connection, contract, contract.names):
        for start in range(0, batch.num_rows, _FIELDS):
            rows = batch.slice(start, _FIELDS).to_pylist()
            fields: dict[Any, Any] = {field_name(row[key.name], key): packed(row) for row in rows}
            for field, row in fields.items():
                if len(row) > _LONGEST:
                    raise ContractViolation(
                        f"{contract.asset}: the row with {key.name} {field!r} has {len(row):,} bytes as JSON, and Redis "
                        f"holds {_LONGEST:,}: keep what is so large in a file, and its path here. Nothing was written."
                    )
            cache.hset(name, mapping=fields)
