"""SQL that counts how a table breaks its contract. One text that PostgreSQL, DuckDB, ClickHouse and SQLite
all understand, so that each store checks its own rows where they lie.
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


def table_name(contract: Contract) -> str:
    """The quoted name under which the store knows the table."""
    if contract.store == "duckdb":
        return qualified(contract.schema, contract.table)
    return quote_identifier(contract.table)


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


def count_broken(contract: Contract) -> str:
    """Statement that returns one row: the number of rows, then how many break each of `rules`."""
    sums = [f"coalesce(sum(CASE WHEN {rule.broken} THEN 1 ELSE 0 END), 0)" for rule in rules(contract)]
    return f"SELECT {', '.join(['count(*)', *sums])} FROM {table_name(contract)}"


def doubled_keys(contract: Contract, limit: int = 5) -> str:
    """Statement that returns keys that stand more than once, with how often; none if all is well."""
    parts = [quote_identifier(name) for name in contract.key]
    if contract.partition_column and not contract.unique_across_days:
        parts.append(_day(contract, contract.partition_column))
    keys = ", ".join(parts)
    return (
        f"SELECT {keys}, count(*) FROM {table_name(contract)} GROUP BY {keys} "
        f"HAVING count(*) > 1 ORDER BY count(*) DESC LIMIT {limit}"
    )


def _day(contract: Contract, column: str) -> str:
    """The day of UTC that a time lies in, as text or as a date that compares with one."""
    name = quote_identifier(column)
    if contract.store == "sqlite":
        return f"substr({name}, 1, 10)"  # times are ISO text, of which a cast would take the number in front
    # ClickHouse's Date ends in 2149 and begins in 1970: other days would become one of those.
    return f"CAST({name} AS {'Date32' if contract.store == 'clickhouse' else 'DATE'})"


def present_tables(store: str) -> str:
    """Statement that returns the names of a store's tables, one a row."""
    if store == "sqlite":
        return "SELECT name FROM sqlite_master WHERE type = 'table'"
    return "SELECT table_name FROM information_schema.tables"


def rows_of(
    contract: Contract, where: str = "", days: tuple[date, date] | None = None, owned: bool = False
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
        day = _day(contract, contract.partition_column)
        conditions.append(f"{day} BETWEEN '{days[0].isoformat()}' AND '{days[1].isoformat()}'")
    clause = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT * FROM {table_name(contract)}{clause}"


_HASHES = {
    "duckdb": ("md5({key})", "('0x' || substr(key_hash, 3, 10))::BIGINT"),
    "postgres": ("md5({key})", "('x' || substr(key_hash, 3, 10))::bit(40)::bigint"),
    "clickhouse": (
        "lower(hex(MD5({key})))",
        "reinterpretAsUInt64(reverse(unhex(substring(key_hash, 3, 10))))",
    ),
    "sqlite": ("md5({key})", "hex_number(substr(key_hash, 3, 10))"),
}
"""By store: MD5 of a text in hexadecimal digits, and ten of them as a number. SQLite's come with its connection."""


def key_parts(store: str, rows: str, key: str, values: Iterable[str] = ()) -> str:
    """Statement that adds up the hashes of keys, the same numbers in every store.

    It returns a row for each first two digits of the hashes: these, the number of rows, the sum of the ten digits that
    follow, and for each of `values` the number of rows that are not null in it.

    Args:
        rows: a SELECT.
        key: SQL of a row's key as text.
    """
    counts = "".join(f", count({quote_identifier(name)})" for name in values)
    _, number = _hashes(store)
    return f"SELECT {_PART}, count(*), sum({number}){counts} FROM ({_hashed(store, rows, key)}) AS hashed GROUP BY 1"


def keys_of_part(store: str, rows: str, key: str, part: str) -> str:
    """Statement that returns the keys whose hashes begin with two digits."""
    return f"SELECT {key} FROM ({_hashed(store, rows, key)}) AS hashed WHERE {_PART} = {quote_literal(part)}"


_PART = "substring(key_hash, 1, 2)"


def _hashed(store: str, rows: str, key: str) -> str:
    return f"SELECT *, {_hashes(store)[0].format(key=key)} AS key_hash FROM ({rows}) AS rows_of_table"


def _hashes(store: str) -> tuple[str, str]:
    return _HASHES["postgres" if store == "serving" else store]
