"""SQLite's tables: types, DDL, indexes, and what becomes of a table whose contract has changed."""

from typing import TYPE_CHECKING

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import NEVER, joined, qualified, quote_identifier
from ml_assets.tables.evolution import columns_to_add, type_differs

if TYPE_CHECKING:
    import sqlite3

TYPES = {
    "string": "TEXT",
    "int64": "INTEGER",
    "float64": "REAL",
    "bool": "INTEGER",
    "timestamp": "TEXT",
    "date": "TEXT",
    "json": "TEXT",
    "vector": "TEXT",
}
LEDGER = "ml_assets_writes"
CONTRACTS = "ml_assets_contracts"


def table_sql(contract: Contract) -> str:
    """The table in SQL. Its name alone might mean a temporary table, which SQLite looks for first."""
    return qualified("main", contract.table)


def refuse_name(connection: "sqlite3.Connection", contract: Contract) -> None:
    """Refuse a name that something else has. Tables, views and indexes have one list of names, in any case."""

    name = contract.table
    if name in (LEDGER, CONTRACTS) or folded(name).startswith(b"sqlite_"):
        raise ContractViolation(
            f"{contract.asset}: SQLite or its IO manager keeps the name {name!r} for itself: give the asset another "
            "name. Nothing was written."
        )
    found = connection.execute(
        "SELECT type, name, tbl_name FROM main.sqlite_master WHERE name = ? COLLATE NOCASE "
        "AND type IN ('table', 'view', 'index') AND NOT (type = 'table' AND name = ?)",
        [name, name],
    ).fetchall()
    for kind, other, table in found:
        of_table = f" of table {table!r}" if kind == "index" else ""
        raise ContractViolation(
            f"{contract.asset}: the file has {'an' if kind == 'index' else 'a'} {kind} {other!r}{of_table}, so a table "
            f"{name!r} cannot stand beside it, in upper or lower case: give the asset another name, or run DROP "
            f"{kind.upper()} {quote_identifier(other)} if it is needed no more"
            f"{' (one that an asset needs is made again under another name)' if kind == 'index' else ''}. "
            "Nothing was written."
        )


def folded(name: str) -> bytes:
    """What SQLite compares of a name: letters of ASCII in lower case, and in no other alphabet."""
    return name.encode().lower()


class SQLiteDialect:
    """How SQLite speaks of columns; see tables/evolution.py. SQLite cannot alter a column.

    Args:
        connection: to the file, to look at what stands in the way of a table that is made anew.
    """

    def __init__(self, connection: "sqlite3.Connection") -> None:
        self._connection = connection

    def required(self, contract: Contract, column: Column) -> bool:
        """Whether the store keeps nulls out of the column."""
        return is_required(contract, column)

    def difference(self, contract: Contract, column: Column, kind: str, required: bool) -> str | None:
        """In what a column that is there differs from the contract's, and what to run; None if in nothing."""
        is_now = TYPES[column.type], is_required(contract, column)
        if (kind, required) == is_now:
            return None
        was, wanted = (f"{k}{' NOT NULL' if r else ''}" for k, r in ((kind, required), is_now))
        return type_differs(was, wanted, "in the file", rebuild(self._connection, contract))

    def adding(self, contract: Contract, column: Column) -> str:
        """What to run to add a column that may not be null, and what else can be done."""
        return f"{rebuild(self._connection, contract)}, make it nullable, or undo the change"

    def dropping(self, contract: Contract, name: str) -> str:
        """What to run to drop a column that the contract does not have."""
        return f"ALTER TABLE {quote_identifier(contract.table)} DROP COLUMN {quote_identifier(name)}"


def fit_columns(
    connection: "sqlite3.Connection", contract: Contract, existing: dict[str, tuple[str, bool]]
) -> None:
    """Add nullable columns that the table lacks, refuse what else differs.

    Raises:
        ContractViolation: the table differs in another way; says what to do.
    """
    dialect = SQLiteDialect(connection)
    spelled = {folded(name): name for name in existing}
    for column in contract.columns:
        other = spelled.get(folded(column.name), column.name)
        if other != column.name:
            raise ContractViolation(
                f"{contract.asset}: column {column.name!r} is {other!r} in the file, and SQLite takes them for one; run "
                f"ALTER TABLE {quote_identifier(contract.table)} RENAME COLUMN {quote_identifier(other)} TO "
                f"{quote_identifier(column.name)}, or undo the change. Nothing was written."
            )
    for column in columns_to_add(contract, existing, dialect):
        kind = TYPES[column.type]
        connection.execute(
            f"ALTER TABLE {table_sql(contract)} ADD COLUMN {quote_identifier(column.name)} {kind}"
        )


def rebuild(connection: "sqlite3.Connection", contract: Contract) -> str:
    """What makes way for a new table and keeps the old one."""
    # The indexes keep their names when the table is renamed, and the new table's could not be made.
    rows = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL ORDER BY name",
        [contract.table],
    ).fetchall()
    drops = "".join(f" and DROP INDEX IF EXISTS {quote_identifier(name)}" for (name,) in rows)
    table, old = quote_identifier(contract.table), quote_identifier(f"old_{contract.table}")
    return f"ALTER TABLE {table} RENAME TO {old}{drops}, materialize again"


def create_statement(contract: Contract) -> str:
    """The table's DDL: columns, key, foreign keys (which follow a deleted parent)."""
    columns = [
        f"{quote_identifier(c.name)} {TYPES[c.type]}{' NOT NULL' if is_required(contract, c) else ''}"
        for c in contract.columns
    ]
    columns += [
        f"FOREIGN KEY ({quote_identifier(key.column)}) REFERENCES {quote_identifier(key.parent)} "
        f"({quote_identifier(key.parent_column)}) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
        for key in contract.foreign_keys
    ]
    if contract.key and not contract.key_by_day:
        columns.append(f"PRIMARY KEY ({', '.join(map(quote_identifier, contract.key))})")
    return f"CREATE TABLE {table_sql(contract)} ({', '.join(columns)})"


def ensure_indexes(connection: "sqlite3.Connection", contract: Contract) -> None:
    """Make those of the contract's indexes that the table does not have."""
    made = _made(connection, contract)
    for covered, statement in _indexes(contract).items():
        if covered not in made:
            connection.execute(statement)


def _indexes(contract: Contract) -> dict[str, str]:
    """By what an index covers, the statement that makes it.

    Its name has a dot, `orders.day`, since a table may be called `orders_day`, and names of tables and indexes
    must differ.
    """
    found = {}
    single = (contract.partition_column, *(key.column for key in contract.foreign_keys))
    for columns in (*((column,) for column in single if column), *contract.indexed):
        covered = _covered(contract, ", ".join(map(quote_identifier, columns)))
        found[covered] = "INDEX", ".".join((contract.table, *columns))
    if contract.key_by_day:
        # In parentheses: `key` may be a column that has an index, too.
        covered = _covered(contract, conflict_target(contract))
        found[covered] = "UNIQUE INDEX", f"{contract.table}.(key)"
    return {
        covered: f"CREATE {kind} {qualified('main', name)} {covered}"
        for covered, (kind, name) in found.items()
    }


def _covered(contract: Contract, expression: str) -> str:
    """The end of an index's statement, as SQLite keeps it; an index on a table of `main` names that alone."""
    return f"ON {quote_identifier(contract.table)} ({expression})"


def _made(connection: "sqlite3.Connection", contract: Contract) -> set[str]:
    """What those of the contract's indexes cover that the table has, by whatever name: older files have others."""
    rows = connection.execute(
        "SELECT sql FROM main.sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
        [contract.table],
    ).fetchall()
    return {covered for covered in _indexes(contract) if any(sql.endswith(covered) for (sql,) in rows)}


def conflict_target(contract: Contract) -> str:
    """What a key is unique within: the table, or the day (the first ten characters of the time)."""
    return ", ".join(unique_parts(contract))


def same_key(contract: Contract) -> str:
    """Condition for two rows, `old` and `new`, that may not stand side by side."""
    pairs = zip(unique_parts(contract, "old."), unique_parts(contract, "new."), strict=True)
    same = [f"{old} = {new}" for old, new in pairs]
    return joined(same, "AND") if same else NEVER


def unique_parts(contract: Contract, row: str = "") -> list[str]:
    parts = [f"{row}{quote_identifier(name)}" for name in contract.key]
    if contract.key_by_day and contract.partition_column:
        parts.append(f"substr({row}{quote_identifier(contract.partition_column)}, 1, 10)")
    return parts


def is_required(contract: Contract, column: Column) -> bool:
    return not column.nullable or column.name in (*contract.key, contract.partition_column)


def columns_of(connection: "sqlite3.Connection", table: str) -> dict[str, tuple[str, bool]]:
    """Type and whether it may not be null, of each column that the table has; none if there is no such table."""
    # By way of the list of tables, since the pragma would find "Orders" for "orders".
    rows = connection.execute(
        'SELECT made.name, made.type, made."notnull" FROM main.sqlite_master AS held, '
        "pragma_table_info(held.name, 'main') AS made WHERE held.name = ? AND held.type IN ('table', 'view')",
        [table],
    ).fetchall()
    return {name: (kind, bool(required)) for name, kind, required in rows}
