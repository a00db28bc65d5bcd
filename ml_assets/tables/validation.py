"""What a contract demands of rows, as one DuckDB query over Arrow batches, and the sentences that refuse.

What belongs here: the checks (null, range, choices, characters, days, scope) as SQL made from the contract,
and what each store cannot hold. What does not: types and names of columns (tables/arrow_types.py), duplicate
keys (tables/staging.py, they need all batches), and any store.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ml_assets.contracts import Column, Contract
from ml_assets.lib.sql import NEVER, quote_identifier, quote_literal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
SHOWN_VALUES = 3
"""Offending values that a sentence shows."""


def micros(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Limits:
    """What a store can hold of the logical types; docs/types.md is the page for people.

    Args:
        store: its name, for the sentence.
        nul: whether text may hold U+0000.
        nan, infinity: whether a float64 may be that.
        null_vector: whether a vector may be null.
        vector_length: longest vector, by the root of the sum of its squares.
        first_year, last_year: of timestamps and dates, inclusive.
        columns: most that a table may have; None where their number does not matter.
        row_bytes: largest row; more than `BATCH_BYTES`, beyond which a row is a batch by itself.
    """

    store: str
    nul: bool = True
    nan: bool = True
    infinity: bool = True
    null_vector: bool = True
    vector_length: float = math.inf
    first_year: int = 1
    last_year: int = 9999
    columns: int | None = None
    row_bytes: float = math.inf


@dataclass(frozen=True)
class Window:
    """The slice of a table that a write replaces or a read returns: rows of [start, end) in UTC.

    Args:
        start, end: None for the whole table.
    """

    start: datetime | None = None
    end: datetime | None = None

    @property
    def whole(self) -> bool:
        """Whether it is the whole table."""
        return self.start is None


WHOLE = Window()


@dataclass(frozen=True)
class Check:
    """One demand: `broken` is the DuckDB condition of a row that breaks it.

    Args:
        column: the column whose values are shown.
        broken: condition, true for an offending row.
        sentence: what is wrong, to follow "column 'x' holds VALUES in N rows, ".
    """

    column: str
    broken: str
    sentence: str


def time_us_sql(column: Column) -> str:
    """DuckDB expression for a timestamp or date column as microseconds since 1970."""
    name = quote_identifier(column.name)
    if column.type == "date":
        return f"(({name} - DATE '1970-01-01')::BIGINT * {_DAY_US})"
    return f"epoch_us({name})"


def bucket_sql(contract: Contract, us: int | None = None) -> str:
    """DuckDB expression for the start of a row's partition in microseconds; 0 if the table has none."""
    if contract.partition_column is None:
        return "0::BIGINT"
    micros_sql = time_us_sql(contract.by_name[contract.partition_column])
    # Floor, also before 1970: // rounds toward zero.
    us = us or contract.partition_us
    return f"({micros_sql} - (({micros_sql} % {us}) + {us}) % {us})"


def checks_of(contract: Contract, limits: Limits, window: Window) -> list[Check]:
    """Every demand on single rows."""
    checks = [check for column in contract.columns for check in _column_checks(contract, column, limits)]
    for name, value in contract.scope:
        checks.append(
            Check(
                name,
                f"{quote_identifier(name)} IS DISTINCT FROM {quote_literal(value)}",
                f"but only rows with {value!r} may be written",
            )
        )
    if contract.partition_column and window.start is not None and window.end is not None:
        moment = time_us_sql(contract.by_name[contract.partition_column])
        outside = f"{moment} < {micros(window.start)} OR {moment} >= {micros(window.end)}"
        span = f"outside the partitions being written, {window.start.isoformat()} to {window.end.isoformat()}"
        checks.append(Check(contract.partition_column, outside, span))
    return checks


def _column_checks(contract: Contract, column: Column, limits: Limits) -> Iterator[Check]:
    name = quote_identifier(column.name)
    if contract.requires(column):
        yield Check(column.name, f"{name} IS NULL", "but may not be null")
    elif column.type == "vector" and not limits.null_vector:
        yield Check(column.name, f"{name} IS NULL", f"but {limits.store} cannot hold a vector that is null")
    if column.choices:
        allowed = ", ".join(map(quote_literal, column.choices))
        yield Check(
            column.name, f"{name} NOT IN ({allowed})", f"but only {', '.join(column.choices)} are allowed"
        )
    # In DuckDB NaN is greater than every number, so it is outside a range with a maximum only by itself.
    if column.minimum is not None or column.maximum is not None:
        low = f"{name} < {column.minimum!r}" if column.minimum is not None else NEVER
        high = f"{name} > {column.maximum!r}" if column.maximum is not None else NEVER
        nan = f"isnan({name})" if column.type == "float64" else NEVER
        span = f"{'' if column.minimum is None else column.minimum} to {'' if column.maximum is None else column.maximum}"
        yield Check(column.name, f"{low} OR {high} OR {nan}", f"outside the range {span}")
    elif column.type == "float64" and not limits.nan:
        yield Check(column.name, f"isnan({name})", f"which {limits.store} cannot hold")
    if column.type == "float64" and not limits.infinity:
        yield Check(column.name, f"isinf({name})", f"which {limits.store} cannot hold")
    if column.type == "string" and not limits.nul:
        yield Check(
            column.name, f"contains({name}, chr(0))", f"but {limits.store} cannot hold the character U+0000"
        )
    if column.type in ("timestamp", "date"):
        # Compared as they are: what lies far outside has no microseconds that fit into 64 bits.
        first, last = (
            f"DATE '{year:04d}-{day}'"
            if column.type == "date"
            else f"TIMESTAMPTZ '{year:04d}-{day} {time}+00'"
            for year, day, time in (
                (limits.first_year, "01-01", "00:00:00"),
                (limits.last_year, "12-31", "23:59:59.999999"),
            )
        )
        span = f"outside the years {limits.first_year} to {limits.last_year} that {limits.store} can hold"
        yield Check(column.name, f"isinf({name}) OR {name} < {first} OR {name} > {last}", span)
    if column.type == "vector":
        yield Check(
            column.name, f"len({name}) <> {column.dimension}", f"whose length is not {column.dimension}"
        )
        # A sum is finite if all its terms are; a null term is not counted.
        odd = f"NOT isfinite(list_sum({name}::DOUBLE[])) OR list_count({name}) <> len({name})"
        yield Check(column.name, odd, "but a vector may hold finite numbers only")
        if limits.vector_length < math.inf:
            squares = f"list_sum(list_transform({name}::DOUBLE[], lambda part: part * part))"
            told = f"but {limits.store} cannot hold a vector longer than {limits.vector_length:g}"
            yield Check(column.name, f"{squares} > {limits.vector_length**2!r}", told)


def refusal(
    contract: Contract, check: Check, count: int, values: Sequence[object], more: bool = False
) -> str:
    """The sentence for rows that break a demand; `more` if rows that were not looked at may break it, too."""
    shown = ", ".join(shown_value(value) for value in values[:SHOWN_VALUES])
    rows = f"{'at least ' if more else ''}{count:,} {'row' if count == 1 else 'rows'}"
    return (
        f"{contract.asset}: column {check.column!r} holds {shown} in {rows}, {check.sentence}: "
        "mend or quarantine them upstream, or change the contract. Nothing was written."
    )


def shown_value(value: object) -> str:
    """A value as sentences show it."""
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
