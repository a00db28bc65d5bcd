"""Where two sets of rows of the same columns differ, whatever stores they come from.

Both are read once, as a stream, and their rows hashed by partition and by parts of the keys' hashes. Only where these
sums differ are rows read again, a bounded number of them, and told by their keys, columns and values. So memory stays
flat, and what agrees costs one reading of each side.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.lib.sql import ALWAYS, quote_identifier
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.hashing import key_hash_sql, row_hash_sql
from ml_assets.tables.staging import DAY_US, chunked, spans_of
from ml_assets.tables.validation import WHOLE, Window, bucket_sql, micros

if TYPE_CHECKING:
    import duckdb

Rows = Callable[[Window], Iterable[pa.RecordBatch]]
"""Reads the rows of a window, in the columns of a contract; it may give more rows than those."""

SHOWN = 20
"""Values that are told, at most."""

_LOOKED_AT = 50_000
"""Rows of one side that are read again, unless one part alone has more."""

_WINDOWS = 20
"""Partitions that are read again, at most."""

_Part = tuple[int, int]
"""Start of the partition in microseconds since 1970, and the first bits of the keys' hashes."""


@dataclass(frozen=True)
class Cell:
    """A value that is not the same on both sides.

    Args:
        key: values of the key, joined by spaces.
        column: "" if the whole row is on one side only, or stands there more often.
        here, there: the values; of a whole row how often it stands.
    """

    key: str
    column: str
    here: Any
    there: Any


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Args:
        here, there: number of rows.
        keys: number of keys whose rows differ, as far as was looked.
        whole: whether everything that differs was looked at, and still differs.
        cells: the first values that differ, in the order of their keys.
    """

    here: int
    there: int
    keys: int = 0
    whole: bool = True
    cells: tuple[Cell, ...] = ()


def compare_rows(
    contract: Contract, here: Rows, there: Rows, left_out: Set[int] = frozenset(), window: Window = WHOLE
) -> Compared:
    """Compare two sets of rows.

    Args:
        contract: names the columns that are compared, and which of them are the key and the partition.
        here, there: read them. Each is called once, and again for some windows if they differ.
        left_out: starts of partitions that are not compared, in microseconds since 1970.
        window: what is compared.
    """
    ours, theirs = (_sums(contract, rows(window), left_out, window) for rows in (here, there))
    count, their_count = (sum(rows for rows, _ in side.values()) for side in (ours, theirs))
    nothing = (0, 0)
    differing = sorted(
        p for p in ours.keys() | theirs.keys() if ours.get(p, nothing) != theirs.get(p, nothing)
    )
    if not differing:
        return Compared(count, their_count)
    chosen = _first_parts(differing, ours, theirs)
    with _connected() as connection:
        for name, rows in (("here", here), ("there", there)):
            _collect(connection, name, contract, rows, chosen)
        keys, cells = _unlike(connection, contract)
    return Compared(count, their_count, keys, bool(keys) and len(chosen) == len(differing), cells)


@contextmanager
def _connected() -> "Iterator[duckdb.DuckDBPyConnection]":
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET arrow_large_buffer_size = true")
        yield connection


def _sums(
    contract: Contract, rows: Iterable[pa.RecordBatch], left_out: Set[int], window: Window
) -> dict[_Part, tuple[int, int]]:
    """Number of rows and sum of their hashes, by part."""
    statement = (
        f"SELECT {bucket_sql(contract)}, {_part(contract)}, count(*), sum({row_hash_sql(contract.columns)}) "
        f"FROM chunk WHERE {_within(contract, window)} GROUP BY ALL"
    )
    found: dict[_Part, tuple[int, int]] = {}
    with _connected() as connection:
        for chunk in chunked(iter(rows)):
            connection.register("chunk", pa.Table.from_batches(chunk))
            for bucket, part, count, total in connection.execute(statement).fetchall():
                if bucket not in left_out:
                    before = found.get((bucket, part), (0, 0))
                    found[bucket, part] = (before[0] + count, (before[1] + int(total)) % 2**64)
    return found


def _within(contract: Contract, window: Window) -> str:
    """The condition for the rows of a window: whoever cannot read a part of the rows gives all of them."""
    bounds = [f"{bucket_sql(contract)} >= {micros(window.start)}"] if window.start else []
    bounds += [f"{bucket_sql(contract)} < {micros(window.end)}"] if window.end else []
    return " AND ".join(bounds) or ALWAYS


def _part(contract: Contract) -> str:
    """The part of a partition that a row is in: of a table without partitions one of 256, of a day one of 16."""
    return f"({_key_hash(contract)} >> {60 if contract.partition_column else 56})::BIGINT"


def _key_hash(contract: Contract) -> str:
    parts = [quote_identifier(name) for name in contract.key or contract.names]
    return key_hash_sql([bucket_sql(contract, DAY_US), *parts] if contract.key_by_day else parts)


def _first_parts(differing: Sequence[_Part], *sides: Mapping[_Part, tuple[int, int]]) -> set[_Part]:
    """As many of them as have few enough rows and partitions, and one at least."""
    chosen: set[_Part] = set()
    rows = 0
    for part in differing:
        rows += max(side.get(part, (0, 0))[0] for side in sides)
        buckets = {bucket for bucket, _ in chosen} | {part[0]}
        if chosen and (rows > _LOOKED_AT or len(buckets) > _WINDOWS):
            break
        chosen.add(part)
    return chosen


def _collect(
    connection: "duckdb.DuckDBPyConnection", name: str, contract: Contract, rows: Rows, parts: Set[_Part]
) -> None:
    """Make a table of the rows in some parts, with the hashes of their keys and of themselves."""
    wanted = pa.table({"bucket": [bucket for bucket, _ in parts], "part": [part for _, part in parts]})
    connection.register("wanted", wanted)
    held = ", ".join(f"{quote_identifier(column)} := {quote_identifier(column)}" for column in contract.names)
    select = (
        f"SELECT {_key_hash(contract)} AS key_hash, {row_hash_sql(contract.columns)} AS row_hash, "
        f"struct_pack({held}) AS held FROM chunk "
        f"WHERE ({bucket_sql(contract)}, {_part(contract)}) IN (SELECT (bucket, part) FROM wanted)"
    )
    connection.register("chunk", arrow_schema(contract).empty_table())
    connection.execute(f"CREATE TABLE {name} AS {select}")
    windows = spans_of({bucket for bucket, _ in parts}, contract) if contract.partition_column else [WHOLE]
    for window in windows:
        for chunk in chunked(iter(rows(window))):
            connection.register("chunk", pa.Table.from_batches(chunk))
            connection.execute(f"INSERT INTO {name} {select} AND {_within(contract, window)}")


def _unlike(connection: "duckdb.DuckDBPyConnection", contract: Contract) -> tuple[int, tuple[Cell, ...]]:
    """How many keys differ, and the first values that do."""
    connection.execute(
        "CREATE TABLE unlike AS SELECT DISTINCT key_hash FROM ("
        "SELECT key_hash, row_hash, 1 AS side FROM here UNION ALL SELECT key_hash, row_hash, -1 FROM there"
        ") GROUP BY key_hash, row_hash HAVING sum(side) <> 0"
    )
    [(keys,)] = connection.execute("SELECT count(*) FROM unlike").fetchall()
    pairs = connection.execute(
        "SELECT ours.count, theirs.count, ours.held, theirs.held "
        "FROM unlike "
        "LEFT JOIN (SELECT key_hash, count(*) AS count, any_value(held) AS held FROM here GROUP BY 1) AS ours "
        "USING (key_hash) "
        "LEFT JOIN (SELECT key_hash, count(*) AS count, any_value(held) AS held FROM there GROUP BY 1) AS theirs "
        "USING (key_hash) "
        f"ORDER BY {', '.join(_key_orders(contract))} LIMIT {SHOWN}"
    ).fetchall()
    return keys, tuple(cell for pair in pairs for cell in _cells(contract, *pair))[:SHOWN]


def _key_orders(contract: Contract) -> list[str]:
    names = map(quote_identifier, contract.key or contract.names)
    return [f"coalesce(ours.held.{name}, theirs.held.{name})" for name in names]


def _cells(
    contract: Contract,
    count: int | None,
    their_count: int | None,
    here: Mapping[str, Any] | None,
    there: Mapping[str, Any] | None,
) -> Iterator[Cell]:
    row = here or there or {}
    key = " ".join(str(row[name]) for name in contract.key or contract.names)
    if here is None or there is None or count != their_count:
        yield Cell(key, "", count or 0, their_count or 0)
        return
    for name in contract.names:
        # NaN is one value, as in the hash.
        if here[name] != there[name] and not (here[name] != here[name] and there[name] != there[name]):
            yield Cell(key, name, here[name], there[name])
