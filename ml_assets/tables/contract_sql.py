"""SQL that counts how a table breaks its contract, so that each store checks its own rows where they lie.

One text for all stores that answer SQL, but for the few expressions that a store says in its own way (`CheckSQL`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from ml_assets.contracts import Column, Contract
from ml_assets.lib.sql import qualified, quote_identifier, quote_literal

LARGEST = "1.7976931348623157e308"
"""Upper bound where a column names none: NaN sorts above it in DuckDB and PostgreSQL."""


@dataclass(frozen=True)
class Rule:
    """One thing that a contract says of one column.

    Args:
        text: the rule for a reader, such as `accuracy is between 0 and 1`.
        broken: SQL condition that is true for a row that breaks it.
    """

    text: str
    broken: str


@dataclass(frozen=True)
class CheckSQL:
    """How a store says what the checks ask. The defaults are PostgreSQL's.

    Args:
        in_schema: whether a table's name needs its schema.
        day: the day of UTC that the time in {column} lies in, as text or as a date that compares with one.
        tables: statement that returns the names of the store's tables, one a row.
        key_hash: MD5 of the text {key} in hexadecimal digits.
        key_number: the ten digits of `key_hash` after the first two, as a number.
    """

    in_schema: bool = False
    day: str = "CAST({column} AS DATE)"
    tables: str = "SELECT table_name FROM information_schema.tables"
    key_hash: str = "md5({key})"
    key_number: str = "('x' || substr(key_hash, 3, 10))::bit(40)::bigint"

    def name_of(self, contract: Contract) -> str:
        """The quoted name under which the store knows the table."""
        return (
            qualified(contract.schema, contract.table) if self.in_schema else quote_identifier(contract.table)
        )

    def day_of(self, column: str) -> str:
        """The day of UTC that a column's time lies in."""
        return self.day.format(column=quote_identifier(column))


def rules(contract: Contract) -> list[Rule]:
    """Everything that SQL can say of single rows; types are what the store's own columns enforce."""
    return [rule for column in contract.columns for rule in _column_rules(column)]


def _column_rules(column: Column) -> list[Rule]:
    name = quote_identifier(column.name)
    found = []
    if not column.nullable:
        found.append(Rule(f"{column.name} is there", f"{name} IS NULL"))
    if column.minimum is not None or column.maximum is not None:
        low = f"-{LARGEST}" if column.minimum is None else f"{column.minimum:g}"
        high = LARGEST if column.maximum is None else f"{column.maximum:g}"
        text = f"{column.name} is {_span(column)}"
        found.append(Rule(text, f"{name} IS NOT NULL AND NOT ({name} >= {low} AND {name} <= {high})"))
    if column.choices:
        listed = ", ".join(quote_literal(choice) for choice in column.choices)
        found.append(
            Rule(f"{column.name} is one of {', '.join(column.choices)}", f"{name} NOT IN ({listed})")
        )
    return found


def _span(column: Column) -> str:
    if column.maximum is None:
        return f"at least {column.minimum:g}"
    if column.minimum is None:
        return f"at most {column.maximum:g}"
    return f"between {column.minimum:g} and {column.maximum:g}"


def count_broken(sql: CheckSQL, contract: Contract) -> str:
    """Statement that returns one row: the number of rows, then how many break each of `rules`."""
    sums = [f"coalesce(sum(CASE WHEN {rule.broken} THEN 1 ELSE 0 END), 0)" for rule in rules(contract)]
    return f"SELECT {', '.join(['count(*)', *sums])} FROM {sql.name_of(contract)}"


def doubled_keys(
    sql: CheckSQL, contract: Contract, limit: int = 5, days: tuple[date, date] | None = None
) -> str:
    """Statement that returns keys that stand more than once, with how often; none if all is well.

    Args:
        limit: keys, at most.
        days: first and last day that were written, where equal keys lie on one day; a table of a hundred million events
            takes gigabytes to be grouped as a whole. The whole table if None, or where its keys are unique across days.
    """
    parts = [quote_identifier(name) for name in contract.key]
    if contract.partition_column and not contract.unique_across_days:
        parts.append(sql.day_of(contract.partition_column))
    elif contract.partition_column not in contract.key:
        days = None
    keys = ", ".join(parts)
    return (
        f"SELECT {keys}, count(*) FROM ({rows_of(sql, contract, days=days)}) AS rows_of_table GROUP BY {keys} "
        f"HAVING count(*) > 1 ORDER BY count(*) DESC LIMIT {limit}"
    )


def rows_of(
    sql: CheckSQL,
    contract: Contract,
    where: str = "",
    days: tuple[date, date] | None = None,
    owned: bool = False,
) -> str:
    """Statement that returns the rows of the days [first, last], or of the whole table.

    Args:
        contract: of the table.
        where: SQL condition on the rows.
        days: first and last day; ignored where the table is not partitioned.
        owned: only what the contract's writer has written.
    """
    scope = contract.scope if owned else ()
    conditions = [f"{quote_identifier(name)} = {quote_literal(value)}" for name, value in scope]
    conditions += [where] if where else []
    if days and contract.partition_column:
        day = sql.day_of(contract.partition_column)
        conditions.append(f"{day} BETWEEN '{days[0].isoformat()}' AND '{days[1].isoformat()}'")
    clause = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT * FROM {sql.name_of(contract)}{clause}"


def key_parts(sql: CheckSQL, rows: str, key: str, values: Iterable[str] = ()) -> str:
    """Statement that adds up the hashes of keys, the same numbers in every store.

    It returns a row for each first two digits of the hashes: these, the number of rows, the sum of the ten digits that
    follow, and for each of `values` the number of rows that are not null in it.

    Args:
        rows: a SELECT.
        key: SQL of a row's key as text.
    """
    counts = "".join(f", count({quote_identifier(name)})" for name in values)
    hashed = _hashed(sql, rows, key)
    return f"SELECT {_PART}, count(*), sum({sql.key_number}){counts} FROM ({hashed}) AS hashed GROUP BY 1"


def keys_of_part(sql: CheckSQL, rows: str, key: str, part: str) -> str:
    """Statement that returns the keys whose hashes begin with two digits."""
    return f"SELECT {key} FROM ({_hashed(sql, rows, key)}) AS hashed WHERE {_PART} = {quote_literal(part)}"


_PART = "substring(key_hash, 1, 2)"


def _hashed(sql: CheckSQL, rows: str, key: str) -> str:
    return f"SELECT *, {sql.key_hash.format(key=key)} AS key_hash FROM ({rows}) AS rows_of_table"
