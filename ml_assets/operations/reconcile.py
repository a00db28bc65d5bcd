"""Do the stores agree? Compares what AGREEMENTS says of neighbouring tables, over the whole tables.

Each store adds up hashes of its keys itself, in 256 parts: so tables of any size are compared without moving them,
and of those that differ a 256th is enough to name keys.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from ml_assets.contracts import Contract, Tables
from ml_assets.lib.sql import quote_identifier
from ml_assets.operations.agreements import AGREEMENTS, Agreement
from ml_assets.sql_files import read_sql
from ml_assets.stores.registry import kind_of
from ml_assets.tables.contract_sql import key_parts, keys_of_part, rows_of

Fetch = Callable[[str, str], Sequence[Sequence[Any]]]
"""(store, statement) -> rows."""

_SHOWN = 3
"""Keys that a sentence names."""


@dataclass(frozen=True)
class Comparison:
    """The rows of two tables.

    Args:
        actual: number of rows in the table.
        expected: number of rows in the table upstream.
        differences: sentences on keys and values that the two do not have in common.
    """

    asset: str
    parent: str
    actual: int
    expected: int
    differences: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether both tables have the same rows."""
        return self.actual == self.expected and not self.differences

    @property
    def told(self) -> str:
        """The comparison as text."""
        numbers = f"{self.actual:,} here, {self.expected:,} in {self.parent}."
        return " ".join([numbers, *self.differences])


class Side(Protocol):
    """The rows of one table, as far as they are compared."""

    def parts(self, values: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """By the first two digits of the keys' hashes: rows, sum of the hashes, and of each column the values."""
        ...

    def keys(self, part: str) -> list[str]:
        """The keys of one part."""
        ...


@dataclass(frozen=True)
class Stored:
    """Rows in a store that answers SQL.

    Args:
        rows: a SELECT.
        key: SQL of a row's key as text.
    """

    fetch: Fetch
    store: str
    rows: str
    key: str

    def parts(self, values: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """See `Side`."""
        statement = key_parts(kind_of(self.store).checks, self.rows, self.key, values)
        return {str(part): tuple(map(int, numbers)) for part, *numbers in self.fetch(self.store, statement)}

    def keys(self, part: str) -> list[str]:
        """See `Side`."""
        statement = keys_of_part(kind_of(self.store).checks, self.rows, self.key, part)
        return [str(key) for (key,) in self.fetch(self.store, statement)]


@dataclass(frozen=True)
class Listed:
    """Keys from a store that answers no SQL."""

    all: Iterable[str]

    def parts(self, values: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """See `Side`."""
        found: dict[str, tuple[int, int]] = {}
        for key in self.all:
            digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
            rows, total = found.get(digest[:2], (0, 0))
            found[digest[:2]] = (rows + 1, total + int(digest[2:12], 16))
        return dict(found)

    def keys(self, part: str) -> list[str]:
        """See `Side`."""
        return [
            key
            for key in self.all
            if hashlib.md5(key.encode(), usedforsecurity=False).hexdigest().startswith(part)
        ]


def compare(
    tables: Tables,
    asset: str,
    agreement: Agreement,
    fetch: Fetch,
    days: tuple[date, date] | None = None,
) -> Comparison:
    """Ask both stores; `days` narrows it to some days where both tables are daily.

    Of the table downstream those rows count that were made from the one upstream, and upstream every row
    counts, whoever wrote it: whatever is read is carried on.
    """
    child, parent = tables[asset], tables[agreement.parent]
    if not (child.partition_column and parent.partition_column):
        days = None
    actual = rows_of(kind_of(child.store).checks, child, agreement.actual_where, days, owned=True)
    expected = rows_of(kind_of(parent.store).checks, parent, agreement.expected_where, days)
    return compare_sides(
        asset,
        agreement.parent,
        Stored(fetch, child.store, _made(agreement.actual_rows, actual), agreement.actual_key or _key(child)),
        Stored(
            fetch,
            parent.store,
            _made(agreement.expected_rows, expected),
            agreement.expected_key or _key(parent),
        ),
        _carried(child, parent, agreement),
    )


def compare_sides(
    asset: str, parent: str, actual: Side, expected: Side, values: Sequence[str] = ()
) -> Comparison:
    """Compare keys, and how many rows have a value in some columns."""
    mine, theirs = actual.parts(values), expected.parts(values)
    differences = []
    parts = sorted(
        part for part in mine.keys() | theirs.keys() if mine.get(part, ())[:2] != theirs.get(part, ())[:2]
    )
    if parts:
        ours, others = Counter(actual.keys(parts[0])), Counter(expected.keys(parts[0]))
        for told, keys in (("Not here", others - ours), ("Here alone", ours - others)):
            if keys:
                shown = ", ".join(repr(key) for key in sorted(keys)[:_SHOWN])
                more = ", and others" if len(keys) > _SHOWN or len(parts) > 1 else ""
                differences.append(f"{told}: {shown}{more}.")
        if not differences:
            differences.append("The keys differed a moment ago.")
    else:
        for place, name in enumerate(values, start=2):
            counts = [sum(numbers[place] for numbers in side.values()) for side in (mine, theirs)]
            if counts[0] < counts[1]:
                differences.append(
                    f"{counts[0]:,} rows have a value of {name!r} here, {counts[1]:,} in {parent}."
                )
    rows = [sum(numbers[0] for numbers in side.values()) for side in (mine, theirs)]
    return Comparison(asset, parent, rows[0], rows[1], tuple(differences))


def compare_all(
    tables: Tables, fetch: Fetch, agreements: Mapping[str, Sequence[Agreement]] = AGREEMENTS
) -> list[Comparison]:
    """Every agreement between tables that are there, over whole tables."""
    pairs = [(asset, one) for asset, several in agreements.items() for one in several]
    stores = {tables[name].store for asset, one in pairs for name in (asset, one.parent)}
    present = {(store, row[0]) for store in stores for row in fetch(store, kind_of(store).checks.tables)}
    return [
        compare(tables, asset, one, fetch)
        for asset, one in pairs
        if all((tables[name].store, tables[name].table) in present for name in (asset, one.parent))
    ]


def stored_keys(fetch: Fetch, contract: Contract) -> Stored:
    """The keys of a whole table."""
    return Stored(fetch, contract.store, rows_of(kind_of(contract.store).checks, contract), _key(contract))


def _made(file: str, rows: str) -> str:
    return read_sql(file).format(rows=f"({rows})") if file else rows


def _key(contract: Contract) -> str:
    (name,) = contract.key
    return quote_identifier(name)


def _carried(child: Contract, parent: Contract, agreement: Agreement) -> Sequence[str]:
    """Columns whose values are carried over, and may be filled up, but not be lost."""
    if agreement.values is not None:
        return agreement.values
    return [column.name for column in child.columns if column.nullable and column.name in parent.by_name]
