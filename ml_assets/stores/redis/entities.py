"""The copies of feature views: one hash an entity, in which each view has a field with the entity's row.

So one command reads what any number of views know of an entity. Beside the entities' hashes each view has an index: by
entity, a digest of its row and when the row expires. What was written last is known from it, so that only rows that
have changed are written again, and those that are gone can be found. A row and its line in the index are written in one
transaction of Redis. A view's pointer (pointer.py) is taken away before its new rows are committed to PostgreSQL, and
comes back once the copy is what PostgreSQL has: whatever happens in between, PostgreSQL answers.

Where the server cannot let fields expire, each row has a key of its own.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.stores import postgres_table
from ml_assets.stores.redis.pointer import Server, pointer_of, server_of, version_of
from ml_assets.stores.redis.rows import field_name, packed, text_of, unpacked, value_of
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.validation import WHOLE

if TYPE_CHECKING:
    import psycopg
    from redis import Redis

    from ml_assets.stores.postgres_table.server import PostgresServer

PREFIX = b"ml-assets:entity:"
"""What the keys of entities begin with; the entity's columns and values follow."""

_ROWS = 1_000
"""Rows of one transaction of Redis."""

_LONGEST = 512 * 2**20
"""Bytes of a value; Redis ends the connection at a longer one."""

_EXPIRY = struct.Struct(">q")
"""When a row expires, in milliseconds since 1970, at the end of its line in the index; 0 if never."""


@dataclass(frozen=True)
class Changes:
    """What bringing a copy up to date did, in rows.

    Args:
        written: those that were new or had changed.
        unchanged: those that were there.
        expired: those that were there and have grown too old, or had when they came.
        removed: those that PostgreSQL has no more, for another reason than their age.
    """

    written: int = 0
    unchanged: int = 0
    expired: int = 0
    removed: int = 0


def entity_key(columns: Sequence[str], texts: Mapping[str, str]) -> bytes:
    """The key of an entity: its columns and values as JSON, the columns by name.

    Args:
        columns: of the entity, sorted.
        texts: their values, as `rows.field_name` writes them.
    """
    return PREFIX + orjson.dumps({name: texts[name] for name in columns})


def key_of_entity(contract: Contract, entity: Mapping[str, Any]) -> bytes:
    """The key of an entity that somebody asks for, who may name more than a view needs.

    Raises:
        ValueError: it lacks a column of the view's key, or has a value there that the column cannot hold.
    """
    texts = {}
    for name in contract.key:
        if name not in entity:
            raise ValueError(
                f"{contract.asset} is looked up by {', '.join(contract.key)}, and the entity {dict(entity)} has no "
                f"{name!r}: add it."
            )
        texts[name] = text_of(contract, contract.by_name[name], entity[name])
    try:
        return entity_key(sorted(texts), texts)
    except TypeError as fault:  # what UTF-8 has no form for
        raise ValueError(
            f"{contract.asset}: the entity {dict(entity)} is no text that can be kept: {fault}."
        ) from fault


def key_of_row(contract: Contract, row: Mapping[str, Any]) -> bytes:
    """The key of the entity that a row of a view is of."""
    return entity_key(
        sorted(contract.key), {name: field_name(row[name], contract.by_name[name]) for name in contract.key}
    )


def event_us(moment: datetime | date) -> int:
    """An event time in microseconds since 1970; a date is its midnight in UTC."""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def expiry_ms(contract: Contract, row: Mapping[str, Any]) -> int:
    """When a row has become too old, in milliseconds since 1970; 0 if never. As old as its TTL it may be used."""
    if contract.ttl_s is None or contract.event_time is None:
        return 0
    return event_us(row[contract.event_time]) // 1000 + contract.ttl_s * 1000 + 1


def refresh(cache: "Redis", postgres: "PostgresServer", contract: Contract) -> Changes | None:
    """Make Redis hold what PostgreSQL holds of a view; None if it does, or if the table is no view any more.

    Runs under the table's lock, so that the version named is the version that PostgreSQL has. The rows are those of the
    contract that the table has then: a reader may have learned an older one, which lacks a column.

    Raises:
        ContractViolation: a row is longer than Redis holds.
    """
    with postgres.connect(write=True) as connection:
        postgres_table.lock(connection, contract.asset)
        contract = postgres_table.last_contract(connection, contract.asset) or contract
        if not contract.event_time:
            return None
        # Asked for before the rows are looked at: a server that restarts meanwhile does not take them for its own.
        server = server_of(cache)
        pointer = pointer_of(contract)
        named = server.run + b" " + version_of(connection, contract).encode()
        if cache.get(pointer) == named:
            return None
        cache.delete(pointer)
        _forget(cache, contract, Server(server.run, not server.expires_fields))
        changes = _carry(_Copy(cache, contract, server.expires_fields), connection)
        cache.set(pointer, named)
    return changes


def drop(cache: "Redis", contract: Contract) -> None:
    """Take away the copy of a view, whatever is in it."""
    server = server_of(cache)
    cache.delete(pointer_of(contract))
    for expires_fields in (True, False):
        _forget(cache, contract, Server(server.run, expires_fields))


def held_entities(cache: "Redis", contract: Contract) -> set[str]:
    """The entities whose rows a copy has, as JSON."""
    copy = _Copy(cache, contract, server_of(cache).expires_fields)
    return {key.removeprefix(PREFIX).decode() for lines in copy.lines() for key in lines}


def copied_rows(cache: "Redis", contract: Contract, now_ms: int) -> Iterator[pa.RecordBatch] | None:
    """The rows of a copy; None if a part of it has expired, which PostgreSQL's table has not.

    Raises:
        ValueError, KeyError, TypeError: somebody has put into it what is no row.
    """
    copy = _Copy(cache, contract, server_of(cache).expires_fields)
    rows = []
    for lines in copy.lines():
        if any(0 < _expiry(line) <= now_ms for line in lines.values()):
            return None
        for key, text in zip(lines, copy.texts(lines), strict=True):
            if text is not None:  # a row that somebody has taken away is missed
                rows.append(row_of(contract, key, text))
    schema = arrow_schema(contract)
    return (pa.RecordBatch.from_pylist(part, schema) for part in _parts(rows))


def row_of(contract: Contract, key: bytes, text: bytes) -> dict[str, Any]:
    """A row of a view, by the key of its entity and what the copy has.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    entity = orjson.loads(key.removeprefix(PREFIX))
    named = {name: value_of(entity[name], contract.by_name[name]) for name in contract.key}
    return {**unpacked(text, contract), **named}


def rows_of(
    connection: "psycopg.Connection", contract: Contract, keys: Iterable[bytes], columns: Sequence[str] = ()
) -> dict[bytes, dict[str, Any]]:
    """The rows that PostgreSQL has of some entities, however old they are.

    Args:
        keys: of the entities.
        columns: beside those of the entity; all if none is named.
    """
    names = sorted(contract.key)
    entities = [orjson.loads(key.removeprefix(PREFIX)) for key in keys]
    if not entities:
        return {}
    values = (", ".join(quote_literal(entity[name]) for name in names) for entity in entities)
    condition = (
        f"({', '.join(map(quote_identifier, names))}) IN ({', '.join(f'({each})' for each in values)})"
    )
    wanted = (*names, *(name for name in columns or contract.names if name not in names))
    found = {}
    for batch in postgres_table.read(connection, contract, wanted, WHOLE, condition):
        for row in batch.to_pylist():
            found[key_of_row(contract, row)] = row
    return found


class _Copy:
    """Where the rows of a view are in Redis, and how they are read and written.

    Args:
        expires_fields: whether rows are fields of the entities' hashes; otherwise they have keys of their own.
    """

    def __init__(self, cache: "Redis", contract: Contract, expires_fields: bool) -> None:
        self._cache = cache
        self._fields = expires_fields
        self.contract = contract
        self._view = contract.table.encode()
        # Each way of keeping rows has an index of its own: what stands in one says nothing about the other.
        self.index = f"{pointer_of(contract)}:{'entities' if expires_fields else 'keys'}"

    def lines(self) -> Iterator[dict[bytes, bytes]]:
        """The index, some lines at a time."""
        scanned: Any = self._cache.hscan_iter(self.index, count=_ROWS)
        for part in _parts(scanned):
            yield dict(part)

    def known(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Lines of the index; None where there is none."""
        found: Any = self._cache.hmget(self.index, list(keys))
        return found

    def size(self) -> int:
        """Lines of the index."""
        count: Any = self._cache.hlen(self.index)
        return count

    def texts(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Rows as they are kept; None where there is none."""
        with self._cache.pipeline(transaction=False) as pipe:
            for key in keys:
                if self._fields:
                    pipe.hget(key.decode(), self._view.decode())
                else:
                    pipe.get(self._own(key))
            return pipe.execute()

    def put(self, rows: Mapping[bytes, tuple[str, bytes]]) -> None:
        """Write rows and their lines, all or none.

        Args:
            rows: by the entity's key, each with its line.
        """
        with self._cache.pipeline(transaction=True) as pipe:
            for key, (text, line) in rows.items():
                expires = _expiry(line)
                if not self._fields:
                    pipe.set(self._own(key), text, pxat=expires or None)
                    continue
                pipe.execute_command("HSET", key, self._view, text)
                if expires:
                    pipe.execute_command("HPEXPIREAT", key, expires, "FIELDS", 1, self._view)
            pipe.execute_command(
                "HSET", self.index, *(part for k, (_, line) in rows.items() for part in (k, line))
            )
            pipe.execute()

    def remove(self, keys: Iterable[bytes]) -> None:
        """Take rows and their lines away, all or none."""
        keys = list(keys)
        if not keys:
            return
        with self._cache.pipeline(transaction=True) as pipe:
            for key in keys:
                if self._fields:
                    pipe.execute_command("HDEL", key, self._view)
                else:
                    pipe.delete(self._own(key))
            pipe.execute_command("HDEL", self.index, *keys)
            pipe.execute()

    def _own(self, key: bytes) -> bytes:
        return own_key(key, self._view)


def own_key(key: bytes, view: bytes) -> bytes:
    """The key of a view's row of an entity, where fields cannot expire."""
    return key + b":" + view


def _forget(cache: "Redis", contract: Contract, server: Server) -> None:
    """Take away what a copy has that is kept in one of the two ways."""
    copy = _Copy(cache, contract, server.expires_fields)
    while copy.size():
        for lines in copy.lines():
            copy.remove(lines)


def _carry(copy: _Copy, connection: "psycopg.Connection") -> Changes:
    """Write the rows that have changed, and take those away that are gone."""
    contract = copy.contract
    now_ms = event_us(datetime.now(UTC)) // 1000
    written, unchanged, expired, live = 0, 0, 0, 0
    for batch in postgres_table.read(connection, contract, contract.names):
        for start in range(0, batch.num_rows, _ROWS):
            young, old = _split(contract, batch.slice(start, _ROWS).to_pylist(), now_ms)
            known = copy.known(list(young)) if young else []
            changed = {
                key: row for (key, row), line in zip(young.items(), known, strict=True) if line != row[1]
            }
            if changed:
                copy.put(changed)
            copy.remove(old)
            live += len(young)
            written += len(changed)
            unchanged += len(young) - len(changed)
            expired += len(old)
    gone_old, removed = (0, 0) if copy.size() == live else _remove_gone(copy, connection, now_ms)
    return Changes(written, unchanged, expired + gone_old, removed)


def _split(
    contract: Contract, rows: Iterable[dict[str, Any]], now_ms: int
) -> tuple[dict[bytes, tuple[str, bytes]], list[bytes]]:
    """By entity, each row and its line in the index; and the entities whose rows are too old."""
    young, old = {}, []
    for row in rows:
        key, expires = key_of_row(contract, row), expiry_ms(contract, row)
        if 0 < expires <= now_ms:
            old.append(key)
            continue
        text = packed({name: value for name, value in row.items() if name not in contract.key})
        if len(text) > _LONGEST:
            raise ContractViolation(
                f"{contract.asset}: the row of {key.removeprefix(PREFIX).decode()} has {len(text):,} bytes as JSON, and "
                f"Redis holds {_LONGEST:,}: keep what is so large in a file, and its path here. PostgreSQL has the rows."
            )
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        young[key] = text, digest + _EXPIRY.pack(expires)
    return young, old


def _remove_gone(copy: _Copy, connection: "psycopg.Connection", now_ms: int) -> tuple[int, int]:
    """Take away rows that PostgreSQL has no more; returns how many of them were too old, and how many were not."""
    contract = copy.contract
    old, removed = 0, 0
    for lines in copy.lines():
        there = rows_of(connection, contract, lines, contract.key)
        gone = [key for key in lines if key not in there]
        copy.remove(gone)
        too_old = sum(0 < _expiry(lines[key]) <= now_ms for key in gone)
        old, removed = old + too_old, removed + len(gone) - too_old
    return old, removed


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    items = iter(items)
    while part := list(islice(items, _ROWS)):
        yield part


def _expiry(line: bytes) -> int:
    return _EXPIRY.unpack(line[-_EXPIRY.size :])[0] if len(line) >= _EXPIRY.size else 0
