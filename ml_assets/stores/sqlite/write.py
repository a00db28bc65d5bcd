"""One write to SQLite: the statements of tables/write.py."""

from collections.abc import Sequence
from sqlite3 import Connection, IntegrityError

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import ALWAYS, joined, qualified, quote_identifier
from ml_assets.stores.sqlite import ledger
from ml_assets.stores.sqlite.ddl import (
    TYPES,
    columns_of,
    conflict_target,
    create_statement,
    ensure_indexes,
    fit_columns,
    refuse_name,
    same_key,
    table_sql,
)
from ml_assets.stores.sqlite.rows import encoded, select, time_literal
from ml_assets.tables.arrow_types import key_taken
from ml_assets.tables.identity import refuse_new_identity
from ml_assets.tables.staging import DAY_US, Buckets, Staged, measure, spans, windows_sql
from ml_assets.tables.validation import Window
from ml_assets.tables.write import TableTransaction


class SQLiteTransaction(TableTransaction):
    """An open transaction on one table of a SQLite file."""

    def __init__(self, connection: Connection, contract: Contract) -> None:
        super().__init__(contract)
        self._connection = connection
        self._before: Contract | None = None

    def ensure(self) -> None:
        self._before = ensure_table(self._connection, self.contract)

    def ledger(self) -> Buckets:
        return ledger.buckets(self._connection, self.contract)

    def measure(self, windows: Sequence[Window]) -> Buckets:
        return measure(select(self._connection, self.contract, self.contract.names, windows), self.contract)

    def replace(self, staged: Staged, buckets: set[int]) -> None:
        contract = self.contract
        where = windows_sql(contract, spans(staged, buckets), time_literal(contract))
        self._connection.execute(f"DELETE FROM {table_sql(contract)} WHERE {where}")
        try:
            insert(self._connection, table_sql(contract), contract, staged, buckets)
        except IntegrityError as fault:
            if "UNIQUE" not in str(fault):
                raise
            # The index names itself only; this tells which key it is, and where it stands.
            _fill_stage(self._connection, contract, staged, buckets)
            _partitions_losing_rows(self._connection, contract, staged)
            raise key_taken(contract, str(fault)) from fault

    def merge(self, staged: Staged, buckets: set[int], delete: bool) -> tuple[bool, set[int]]:
        connection, contract = self._connection, self.contract
        _fill_stage(connection, contract, staged, buckets)
        losing_rows = _partitions_losing_rows(connection, contract, staged)
        if delete:
            where = windows_sql(contract, spans(staged, buckets), time_literal(contract))
            connection.execute(
                f"DELETE FROM {table_sql(contract)} AS old WHERE {where} "
                f"AND NOT EXISTS (SELECT 1 FROM temp.stage AS new WHERE {same_key(contract)})"
            )
        return bool(_insert_or_update(connection, contract)), losing_rows

    def record(self, held: Buckets, buckets: set[int] | None) -> None:
        ledger.record(self._connection, self.contract, held, buckets)

    def keep_references(self, changed: bool) -> None:
        # Rows of before were held to the foreign keys of before, if the table knew them.
        gained = self._before and set(self.contract.foreign_keys) - set(self._before.foreign_keys)
        if changed or gained:
            _check_foreign_keys(self._connection, self.contract)


def ensure_table(connection: Connection, contract: Contract) -> Contract | None:
    """Create the table, or add the nullable columns that the contract has gained.

    Returns:
        the contract by which it was written before.

    Raises:
        ContractViolation: the table differs in another way, or cannot have its name; says what to do.
    """
    ledger.ensure(connection)
    existing = columns_of(connection, contract.table)
    old = ledger.last_contract(connection, contract.asset)
    refuse_name(connection, contract)
    if existing:
        if old is not None:
            drop = f"DROP TABLE {quote_identifier(contract.table)}"
            refuse_new_identity(old, contract, drop, stored=TYPES)
        fit_columns(connection, contract, existing)
    else:
        connection.execute(create_statement(contract))
        ledger.record(connection, contract, {}, None)  # what a table held that was dropped
    ensure_indexes(connection, contract)
    if not existing or old != contract:
        ledger.remember(connection, contract)
    return old


def insert(
    connection: Connection,
    table: str,
    contract: Contract,
    staged: Staged,
    buckets: set[int] | None,
) -> None:
    names = ", ".join(map(quote_identifier, contract.names))
    statement = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(contract.columns))})"
    for batch in staged.batches(buckets):
        connection.executemany(statement, encoded(batch, contract))


def _fill_stage(connection: Connection, contract: Contract, staged: Staged, buckets: set[int]) -> None:
    columns = ", ".join(f"{quote_identifier(c.name)} {TYPES[c.type]}" for c in contract.columns)
    key = f", PRIMARY KEY ({_stage_key(contract)})" if contract.key else ""
    connection.execute("DROP TABLE IF EXISTS temp.stage")
    connection.execute(f"CREATE TEMPORARY TABLE stage ({columns}{key})")
    insert(connection, "temp.stage", contract, staged, buckets)


def _stage_key(contract: Contract) -> str:
    names = [*contract.key, contract.partition_column or ""] if contract.key_by_day else contract.key
    return ", ".join(map(quote_identifier, dict.fromkeys(names)))


def _insert_or_update(connection: Connection, contract: Contract) -> int:
    """Merge the stage into the table; returns how many rows that changed."""
    names = ", ".join(map(quote_identifier, contract.names))
    values = [quote_identifier(name) for name in contract.names if name not in contract.key]
    action = "NOTHING"
    if values:
        # `IS NOT` compares nulls, too: only rows that differ are written.
        differs = joined([f"old.{name} IS NOT excluded.{name}" for name in values], "OR")
        action = f"UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in values)} WHERE {differs}"
    conflict = f"ON CONFLICT ({conflict_target(contract)}) DO {action}" if contract.key else ""
    # A WHERE: without it SQLite reads ON as part of a join.
    cursor = connection.execute(
        f"INSERT INTO {table_sql(contract)} AS old ({names}) SELECT {names} FROM temp.stage WHERE {ALWAYS} {conflict}"
    )
    connection.execute("DROP TABLE temp.stage")
    return cursor.rowcount


def _partitions_losing_rows(connection: Connection, contract: Contract, staged: Staged) -> set[int]:
    """Partitions that hold rows which will move into others because their time has changed.

    Raises:
        ContractViolation: such a row may not move, being outside the slice.
    """
    if contract.partition_column is None or (contract.key_by_day and contract.partition_us == DAY_US):
        return set()
    was, now = (
        _bucket_sql(f"{side}.{quote_identifier(contract.partition_column)}", contract)
        for side in ("old", "new")
    )
    keys = ", ".join(f"old.{quote_identifier(name)}" for name in contract.key)
    found = connection.execute(
        f"SELECT {was}, {keys} FROM {table_sql(contract)} AS old JOIN temp.stage AS new "
        f"ON {same_key(contract)} WHERE {was} <> {now} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return staged.partitions_losing_rows(found)


def _bucket_sql(moment: str, contract: Contract) -> str:
    """Start of the partition that a time lies in; floor, also before 1970."""
    # Without the fraction, which SQLite rounds: the last half millisecond of a day would be the next day's.
    seconds, length = f"unixepoch(substr({moment}, 1, 19))", contract.partition_us // 1_000_000
    return f"({seconds} - ({seconds} % {length} + {length}) % {length}) * 1000000"


def _check_foreign_keys(connection: Connection, contract: Contract) -> None:

    if not contract.foreign_keys:
        return
    for key in contract.foreign_keys:
        child, parent = qualified("child", key.column), qualified("parent", key.parent_column)
        orphans = connection.execute(
            f"SELECT DISTINCT {child} FROM {table_sql(contract)} AS child WHERE {child} IS NOT NULL AND {child} "
            f"NOT IN (SELECT {parent} FROM {qualified('main', key.parent)} AS parent) LIMIT 3"
        ).fetchall()
        if orphans:
            raise ContractViolation(
                f"{contract.asset}: column {key.column!r} holds {', '.join(repr(v) for (v,) in orphans)}, which "
                f"{key.parent}.{key.parent_column} does not have: write {key.parent} first. Nothing was written."
            )
