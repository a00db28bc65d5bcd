"""Do the stores agree? Compares what neighbouring tables must have in common, over the whole tables.

Of a table whose rows are those of another one, or are made of them by a SELECT, every value is compared
(`compare_values`; operations/carried.py says which these are): both are read as a stream and hashed.

Of the others the keys are compared, and how many rows have values (`compare`; operations/agreements.py). Each store adds
up hashes of its keys itself, in 256 parts: so tables of any size are compared without moving them, and of those that
differ a 256th is enough to name keys.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any, Protocol

from ml_assets.contracts import Contract, Tables
from ml_assets.errors import ContractViolation, DamagedCollection
from ml_assets.lib.faults import one_sentence
from ml_assets.lib.sql import quote_identifier
from ml_assets.lib.words import counted
from ml_assets.operations import carried
from ml_assets.operations.agreements import AGREEMENTS, Agreement
from ml_assets.sql_files import read_sql
from ml_assets.stores.registry import kind_of
from ml_assets.tables.comparison import SHOWN, Cell, Compared, Rows, compare_rows
from ml_assets.tables.contract_sql import key_parts, keys_of_part, rows_of
from ml_assets.tables.staging import kept_from
from ml_assets.tables.store import TableStore
from ml_assets.tables.validation import WHOLE, Window

Fetch = Callable[[str, str], Sequence[Sequence[Any]]]
"""(store, statement) -> rows."""

_SHOWN = 3
"""Keys that a sentence names."""

_LONGEST = 80
"""Characters of a value that a sentence shows."""


@dataclass(frozen=True)
class Comparison:
    """The rows of two tables.

    Args:
        actual: number of rows in the table.
        expected: number of rows in the table upstream.
        differences: sentences on keys and values that the two do not have in common.
        cells: the first of the values that differ.
    """

    asset: str
    parent: str
    actual: int
    expected: int
    differences: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()

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
    """Ask both stores; `days` narrows it to some days where both tables are daily, and so does what has expired.

    Of the table downstream those rows count that were made from the one upstream, and upstream every row
    counts, whoever wrote it: whatever is read is carried on.
    """
    child, parent = tables[asset], tables[agreement.parent]
    if not (child.partition_column and parent.partition_column):
        days = None
    elif limits := [each.kept_days for each in (child, parent) if each.kept_days]:
        # What has expired here is there still; the days that are kept must agree.
        first, last = days or (date.min, date(2299, 12, 31))
        kept = max(first, kept_from(min(limits)).date())
        days = (kept, max(last, kept))
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
    cells: list[Cell] = []
    if parts:
        missing, alone, looked = Counter[str](), Counter[str](), 0
        while parts[looked:] and len(missing) + len(alone) < SHOWN:
            ours, others = Counter(actual.keys(parts[looked])), Counter(expected.keys(parts[looked]))
            missing, alone, looked = missing + (others - ours), alone + (ours - others), looked + 1
            cells += [
                Cell(key, "", ours[key], others[key]) for key in sorted((ours - others) | (others - ours))
            ]
        for told, keys in (("Not here", missing), ("Here alone", alone)):
            if keys:
                shown = ", ".join(repr(key) for key in sorted(keys)[:_SHOWN])
                more = ", and others" if len(keys) > _SHOWN or parts[looked:] else ""
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
    return Comparison(asset, parent, rows[0], rows[1], tuple(differences), tuple(cells[:SHOWN]))


def compare_values(
    sources: carried.Sources, tables: Tables, assets: Container[str] | None = None
) -> list[Comparison]:
    """Every value of the tables that are there and hold what others do, and of the copies that are served of them.

    Args:
        assets: those to be compared with what is upstream, or of whose copies; all if None.

    Raises:
        StoreUnavailable: a store does not answer.
    """
    found = []
    for asset in [*carried.MADE, *carried.CARRIED]:
        if assets is not None and asset not in assets:
            continue
        parents = carried.MADE[asset].parents if asset in carried.MADE else (carried.CARRIED[asset].parent,)
        if _written(sources, tables, asset, *parents) and carried.has_key(tables, asset):
            found.append(_compared_values(sources, tables, asset, parents[0]))
    for store in sources.stores.values():
        for contract in tables.values():
            wanted = assets is None or contract.asset in assets
            if wanted and contract.store == store.prefix and _written(sources, tables, contract.asset):
                found += _compared_copy(store, contract)
    return found


def _written(sources: carried.Sources, tables: Tables, *assets: str) -> bool:
    """Whether all these tables are among the project's and some run has made them."""
    if any(asset not in tables for asset in assets):
        return False  # a feature file without a pin has no contract to compare by
    # Rows are only appended to intake, without a contract being noted; what is built of it shows that it is there.
    noted = [asset for asset in assets if tables[asset].schema != "intake"]
    return all(sources.stores[tables[asset].store].last_contract(asset) for asset in noted)


def _compared_values(sources: carried.Sources, tables: Tables, asset: str, parent: str) -> Comparison:
    left_out, window = carried.due(sources, asset), carried.kept(tables, asset)
    here, there = (partial(rows, sources, tables, asset) for rows in (carried.rows_here, carried.rows_there))
    return _named(asset, parent, carried.shape(tables, asset), here, there, left_out, window)


def _compared_copy(store: TableStore, contract: Contract) -> Iterator[Comparison]:
    """The copy of a table that the same store answers lookups from, and the table."""
    name = f"{store.name}/{contract.table}"
    try:
        if store.copied(contract) is None:
            return
        yield _named(
            name,
            contract.asset,
            contract,
            lambda _: store.copied(contract) or (),
            lambda window: store.held(contract, contract.names, window),
        )
    except (ValueError, KeyError, TypeError) as fault:
        told = f"The copy holds what is no row ({one_sentence(fault)})."
        rows = store.ledger_state(contract, any_version=True).rows
        yield Comparison(name, contract.asset, 0, rows, (told,))


def _named(
    asset: str,
    parent: str,
    contract: Contract,
    here: Rows,
    there: Rows,
    left_out: Set[int] = frozenset(),
    window: Window = WHOLE,
) -> Comparison:
    """The comparison of two sets of rows, in sentences."""
    try:
        found = compare_rows(contract, here, there, left_out, window)
    except (ContractViolation, DamagedCollection, LookupError) as fault:
        # Rows that cannot be read do not agree, and the other tables are compared all the same.
        return Comparison(asset, parent, 0, 0, (f"It cannot be compared: {one_sentence(fault)}.",))
    return Comparison(asset, parent, found.here, found.there, tuple(_sentences(parent, found)), found.cells)


def _sentences(parent: str, found: Compared) -> Iterator[str]:
    if not found.keys:
        if not found.whole:
            yield "Values differed a moment ago."
        return
    least = "" if found.whole else "at least "
    yield f"The values of {least}{counted(found.keys, 'key')} differ."
    for cell in found.cells[:_SHOWN]:
        yield cell_told(cell, parent)
    if found.keys > _SHOWN or len(found.cells) > _SHOWN:
        yield f"The first {min(len(found.cells), SHOWN)} values are listed."


def cell_told(cell: Cell, parent: str) -> str:
    """A value that differs, as a sentence."""
    if not cell.column:
        if cell.here and cell.there:
            return f"{cell.key!r} stands {cell.here} times here, {cell.there} times in {parent}."
        return f"{'Not here' if not cell.here else 'Here alone'}: {cell.key!r}."
    return f"{cell.column!r} of {cell.key!r} is {short(cell.here)} here, {short(cell.there)} in {parent}."


def short(value: Any) -> str:
    """A value as text that is not too long."""
    text = "null" if value is None else str(value) if isinstance(value, datetime) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def compare_all(
    tables: Tables, fetch: Fetch, agreements: Mapping[str, Sequence[Agreement]] = AGREEMENTS
) -> list[Comparison]:
    """Every agreement between tables that are there, over whole tables."""
    # A feature file without a pin has no contract to compare by, and the doctor tells of one that is broken.
    pairs = [
        (asset, one)
        for asset, several in agreements.items()
        for one in several
        if asset in tables and one.parent in tables
    ]
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
