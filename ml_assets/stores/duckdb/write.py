"""One write to the lake: the statements of tables/write.py, in one transaction that is tried again if it must be.

DuckLake finds conflicts at commit, and two inserts into one empty partition are none to it: an advisory lock in the
catalog's PostgreSQL lets one writer at a time commit to a table.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.lib import current_run
from ml_assets.lib.sql import NEVER, free_name, joined, quote_identifier
from ml_assets.stores.duckdb import ledger
from ml_assets.stores.duckdb.ddl import (
    Columns,
    columns_of,
    create_statements,
    fit_columns,
    refuse_other_case,
    table_sql,
    tables_of,
)
from ml_assets.stores.duckdb.inlining import METADATA
from ml_assets.stores.duckdb.ledger import Ledger
from ml_assets.stores.duckdb.rows import insert, measured, select_sql, time_literal
from ml_assets.stores.postgres_table import lock
from ml_assets.tables import write as tables_write
from ml_assets.tables.conflicts import retried
from ml_assets.tables.identity import refuse_new_identity
from ml_assets.tables.staging import DAY_US, Buckets, Staged, spans, spans_of, windows_sql
from ml_assets.tables.store import Written
from ml_assets.tables.validation import Window, bucket_sql
from ml_assets.tables.write import TableTransaction

if TYPE_CHECKING:
    import duckdb

    from ml_assets.stores.duckdb import Lake


@contextmanager
def writing(lake: "Lake", contract: Contract) -> Iterator[None]:
    """Let one process at a time commit to the table, by a lock in the catalog's PostgreSQL.

    Raises:
        WriteBusy: another process kept the lock for longer than a write may take.
    """
    with lake.catalog(write=True) as connection:
        lock(connection, contract.asset)
        yield


def write(connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: Staged) -> Written:
    """Put staged rows in place in one transaction.

    A conflict with somebody who does not take our lock is tried again, up to five times; one that is not about the
    table's rows (the ledger is every writer's) as long as a write may take.

    Raises:
        ContractViolation: the table in the lake is not the contract's and cannot be made so.
        WriteBusy: the conflict did not go away.
    """
    return retried(
        contract.asset,
        is_conflict,
        lambda: write_once(connection, contract, staged),
        lambda fault: not is_about(fault, connection, contract),
    )


def write_once(connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: Staged) -> Written:
    """The same, tried once.

    Raises:
        duckdb.TransactionException: it met a conflict (`is_conflict`).
    """
    with _transaction(connection):
        return tables_write.write(DuckLakeTransaction(connection, contract), staged)


@contextmanager
def _transaction(connection: "duckdb.DuckDBPyConnection") -> Iterator[None]:
    import duckdb

    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        # Without a catalog there is nothing to roll back; the first fault is the one to tell.
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
    # A COMMIT that fails has already ended the transaction.
    connection.execute("COMMIT")


def is_about(fault: BaseException, connection: "duckdb.DuckDBPyConnection", contract: Contract) -> bool:
    """Whether a conflict is about the table itself. DuckLake says the numbers of tables, not their names."""
    numbers = {int(number) for number in re.findall(r'with index "(\d+)"', str(fault))}
    if not numbers:
        return "maximum retry count" not in str(fault).lower()
    rows = connection.execute(
        f"SELECT table_id FROM {METADATA}.ducklake_table AS t JOIN {METADATA}.ducklake_schema AS s USING (schema_id) "
        "WHERE schema_name = $1 AND table_name = $2 AND t.end_snapshot IS NULL",
        [contract.schema, contract.table],
    ).fetchall()
    return not rows or bool(numbers & {number for (number,) in rows})


def is_conflict(fault: BaseException) -> bool:
    """Whether a transaction failed because of another one, so that it may be tried again as a whole."""
    import duckdb

    # A full disk ends a commit by the same exception. DuckLake tries a commit again itself when others commit to
    # other tables meanwhile, and says so, and not that it was a conflict, when it gives up.
    marks = ("conflict", "exceeded the maximum retry count")
    return isinstance(fault, duckdb.TransactionException) and any(
        mark in str(fault).lower() for mark in marks
    )


class DuckLakeTransaction(TableTransaction):
    """An open transaction on one table of the lake.

    The commit is labelled with the run (`SELECT author, commit_message FROM lake.snapshots()`), if there will be one.
    """

    def __init__(self, connection: "duckdb.DuckDBPyConnection", contract: Contract) -> None:
        super().__init__(contract)
        self._connection = connection
        existing, *noted = columns_of(
            connection, (contract.schema, contract.table), ledger.WRITES, ledger.CONTRACTS
        )
        self._existing: Columns = existing
        self._ledger = Ledger(connection, *noted)
        self._labelled = False

    @property
    def replaces(self) -> bool:
        """Always: rows of the lake have no identity to keep, and a merge takes longer."""
        return True

    def ensure(self) -> None:
        contract, connection = self.contract, self._connection
        old = self._ledger.last_contract(contract.asset)
        if not self._existing:
            refuse_other_case(connection, contract)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quote_identifier(contract.schema)}")
            for statement in create_statements(contract):
                connection.execute(statement)
            self._ledger.forget(contract)
        else:
            if old is not None:
                refuse_new_identity(old, contract, f"DROP TABLE {table_sql(contract)}", indexed=False)
            fit_columns(connection, contract, self._existing)
        if not self._existing or old != contract:
            self._ledger.remember(contract)
            self._label()

    def ledger(self) -> Buckets:
        return self._ledger.buckets(self.contract)

    def measure(self, windows: Sequence[Window]) -> Buckets:
        return measured(self._connection, self.contract, windows)

    def replace(self, staged: Staged, buckets: set[int]) -> None:
        contract = self.contract
        where = windows_sql(contract, spans(staged, buckets), time_literal)
        self._connection.execute(f"DELETE FROM {table_sql(contract)} WHERE {where}")
        insert(self._connection, contract, staged, buckets)
        self._refuse_taken(staged)

    def merge(self, staged: Staged, buckets: set[int], delete: bool) -> tuple[bool, set[int]]:
        connection, contract = self._connection, self.contract
        names = [quote_identifier(name) for name in contract.names]
        keys = [quote_identifier(name) for name in contract.key]
        connection.register("staged_rows", staged.reader(buckets))
        connection.execute("CREATE OR REPLACE TEMPORARY TABLE staged_once AS SELECT * FROM staged_rows")
        connection.unregister("staged_rows")
        values = [name for name in names if name not in keys]
        changes = [f"old.{name} IS DISTINCT FROM new.{name}" for name in values]
        differs = joined(changes, "OR") if changes else NEVER
        assigned = ", ".join(f"{name} = new.{name}" for name in values)
        update = f"WHEN MATCHED AND ({differs}) THEN UPDATE SET {assigned}" if values else ""
        losing_rows = self._partitions_losing_rows(staged, table_sql(contract), "temp.staged_once")
        count = connection.execute(
            f"MERGE INTO {table_sql(contract)} AS old USING temp.staged_once AS new ON {_same_key(contract)} {update} "
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({', '.join(f'new.{n}' for n in names)})"
        ).fetchall()[0][0]
        connection.execute("DROP TABLE temp.staged_once")
        return bool(count), losing_rows

    def record(self, held: Buckets, buckets: set[int] | None) -> None:
        self._ledger.record(self.contract, held, buckets)
        self._label()

    def as_noted(self, buckets: set[int]) -> bool:
        if not buckets:
            return True
        where = windows_sql(self.contract, spans_of(buckets, self.contract), time_literal)
        noted = self.ledger()
        rows = sum(noted[bucket].rows for bucket in noted.keys() & buckets)
        counted = self._connection.execute(
            f"SELECT count(*) FROM {table_sql(self.contract)} WHERE {where}"
        ).fetchall()
        return counted == [(rows,)]

    def _label(self) -> None:
        """Say in the commit which run makes it, and for which asset."""
        if not self._labelled:
            message = f"{current_run.label()}: {self.contract.asset}"
            self._connection.execute("CALL lake.set_commit_message('ml-assets', $1)", [message])
            self._labelled = True

    def _refuse_taken(self, staged: Staged) -> None:
        """Refuse keys that now stand in another partition of their day, too; the lake has no index that would.

        Raises:
            ContractViolation: there is one; the transaction is not to be committed.
        """
        if staged.rest_of_days:
            old, new = (
                f"({select_sql(self.contract, self.contract.names, windows)})"
                for windows in (staged.rest_of_days, [staged.window])
            )
            self._partitions_losing_rows(staged, old, new)

    def _partitions_losing_rows(self, staged: Staged, old: str, new: str) -> set[int]:
        """Partitions of old rows whose key is given for another one.

        Raises:
            ContractViolation: such a row may not move, being outside the slice.
        """
        contract = self.contract
        if contract.partition_column is None or (contract.key_by_day and contract.partition_us == DAY_US):
            return set()
        bucket = bucket_sql(contract)
        place = free_name("bucket", contract.names)
        keys = ", ".join(f"any_value(old.{quote_identifier(name)})" for name in contract.key)
        names = ", ".join(map(quote_identifier, dict.fromkeys([*contract.key, contract.partition_column])))
        found = self._connection.execute(
            f"SELECT old.{place}, {keys} FROM (SELECT {names}, {bucket} AS {place} FROM {old}) AS old JOIN "
            f"(SELECT {names}, {bucket} AS {place} FROM {new}) AS new ON {_same_key(contract)} "
            f"AND old.{place} <> new.{place} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        return staged.partitions_losing_rows(found)


def _same_key(contract: Contract) -> str:
    """Condition for two rows, `old` and `new`, that may not stand side by side."""
    # The plain comparison where it will do: only with it a join is as fast as it can be.
    same = {name: "IS NOT DISTINCT FROM" if name in contract.nullable_key else "=" for name in contract.key}
    parts = [(quote_identifier(name), equals) for name, equals in same.items()]
    if contract.key_by_day and contract.partition_column:
        parts.append((f"{quote_identifier(contract.partition_column)}::DATE", "="))
    return joined([f"old.{part} {equals} new.{part}" for part, equals in parts], "AND")


def make_tables(lake: "Lake", contracts: Iterable[Contract]) -> None:
    """Create those tables that are not there yet, empty, for queries that read them before their first write."""
    with lake.get_connection() as connection:
        present = tables_of(connection)
    for contract in contracts:
        if (contract.schema, contract.table) not in present:
            with (
                lake.get_connection(write=True) as connection,
                writing(lake, contract),
                _transaction(connection),
            ):
                DuckLakeTransaction(connection, contract).ensure()
