"""One write to a table of PostgreSQL: the statements of tables/write.py."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.stores.postgres_table import ledger
from ml_assets.stores.postgres_table.ddl import (
    conflict_target,
    owned_sql,
    same_key,
    sql_type,
    table_sql,
)
from ml_assets.stores.postgres_table.evolution import ensure_table
from ml_assets.stores.postgres_table.foreign_keys import ensure_foreign_keys, points_nowhere
from ml_assets.stores.postgres_table.limits import within_limits
from ml_assets.stores.postgres_table.rows import copy_in, copy_staged, read, time_literal
from ml_assets.stores.postgres_table.statements import lock, run, table_exists
from ml_assets.stores.postgres_table.vector_indexes import keep_vector_indexes
from ml_assets.tables import write as seam
from ml_assets.tables.arrow_types import key_taken
from ml_assets.tables.staging import DAY_US, Buckets, Staged, measure, spans, spans_of, windows_sql
from ml_assets.tables.store import Written
from ml_assets.tables.validation import WHOLE, Window

if TYPE_CHECKING:
    import psycopg


def write(connection: "psycopg.Connection", contract: Contract, staged: Staged) -> Written:
    """Put staged rows in place, as the contract's mode says, within the open transaction.

    Raises:
        ContractViolation: the table in the database is not the contract's and cannot be made so, or a row
            that somebody else owns has the key of one of ours, or one in another partition of the same day, or
            a foreign key points nowhere.
        WriteBusy: somebody else kept writing to the table for longer than a write may take.
    """
    import psycopg

    try:
        with within_limits(contract, staged):
            lock(connection, contract.asset)
            return seam.write(PostgresTransaction(connection, contract), staged)
    except psycopg.errors.UniqueViolation as fault:
        if fault.diag.table_name != contract.table:
            raise
        raise key_taken(contract, fault.diag.message_detail or "") from fault
    except psycopg.errors.ForeignKeyViolation as fault:
        if fault.diag.table_name != contract.table:
            raise
        raise points_nowhere(contract, fault) from fault


class PostgresTransaction(seam.TableTransaction):
    """An open transaction on one table of PostgreSQL, which nobody else writes meanwhile."""

    def __init__(self, connection: "psycopg.Connection", contract: Contract) -> None:
        super().__init__(contract)
        self._connection = connection

    def ensure(self) -> None:
        ensure_table(self._connection, self.contract)

    def ledger(self) -> Buckets:
        return ledger.ledger_buckets(self._connection, self.contract)

    def measure(self, windows: Sequence[Window]) -> Buckets:
        contract = self.contract
        where = f"{windows_sql(contract, windows, time_literal)} AND {owned_sql(contract)}"
        return measure(read(self._connection, contract, contract.names, WHOLE, where), contract)

    def replace(self, staged: Staged, buckets: set[int]) -> None:
        import psycopg

        connection, contract = self._connection, self.contract
        try:
            with connection.transaction():
                run(connection, f"DELETE FROM {table_sql(contract)} WHERE {self._slice_sql(staged, buckets)}")
                copy_in(connection, table_sql(contract), contract, staged.batches(buckets))
        except psycopg.errors.UniqueViolation:
            # The index names the key only; this tells where it stands.
            _partitions_losing_rows(
                connection, contract, staged, _stage(connection, contract, staged, buckets)
            )
            raise

    def merge(self, staged: Staged, buckets: set[int], delete: bool) -> tuple[bool, set[int]]:
        connection, contract = self._connection, self.contract
        stage = _stage(connection, contract, staged, buckets)
        _refuse_rows_of_others(connection, contract, stage)
        losing_rows = _partitions_losing_rows(connection, contract, staged, stage)
        if delete:
            run(
                connection,
                f"DELETE FROM {table_sql(contract)} AS old WHERE {self._slice_sql(staged, buckets)} "
                f"AND NOT EXISTS (SELECT FROM {stage} AS new WHERE {same_key(contract)})",
            )
        return bool(_insert_or_update(connection, contract, stage)), losing_rows

    def record(self, held: Buckets, buckets: set[int] | None) -> None:
        ledger.record(self._connection, self.contract, held, buckets)

    def as_noted(self, buckets: set[int]) -> bool:
        """Whether some partitions hold as many rows as the ledger says. An application may have added its own.

        Only counted: an upsert with changes reads and hashes these rows, which takes much longer.
        """
        if not buckets:
            return True
        contract = self.contract
        where = windows_sql(contract, spans_of(buckets, contract), time_literal)
        statement = f"SELECT count(*) FROM {table_sql(contract)} WHERE {where} AND {owned_sql(contract)}"
        rows = sum(state.rows for bucket, state in self.ledger().items() if bucket in buckets)
        return run(self._connection, statement).fetchall() == [(rows,)]

    def keep_references(self, changed: bool) -> None:
        ensure_foreign_keys(self._connection, self.contract)
        if changed:
            keep_vector_indexes(self._connection, self.contract)

    def _slice_sql(self, staged: Staged, buckets: set[int]) -> str:
        """Condition for the rows of some partitions that this contract's writer owns."""
        where = windows_sql(self.contract, spans(staged, buckets), time_literal)
        return f"{where} AND {owned_sql(self.contract)}"


def live_buckets(connection: "psycopg.Connection", contract: Contract) -> Buckets:
    """The partitions as they are in the table now, read and hashed; none if there is no such table."""
    if not table_exists(connection, contract.schema, contract.table):
        return {}
    return PostgresTransaction(connection, contract).measure([WHOLE])


def _stage(connection: "psycopg.Connection", contract: Contract, staged: Staged, buckets: set[int]) -> str:
    stage = quote_identifier(f"stage {contract.table}")
    run(connection, f"DROP TABLE IF EXISTS pg_temp.{stage}")
    columns = ", ".join(f"{quote_identifier(c.name)} {sql_type(c)}" for c in contract.columns)
    # Long values stay in their rows, of which each is read once: vectors would be kept apart otherwise, by an index.
    as_they_are = "WITH (toast_tuple_target = 8160) ON COMMIT DROP"
    run(connection, f"CREATE TEMPORARY TABLE {stage} ({columns}) {as_they_are}")
    copy_staged(connection, stage, contract, staged.batches(buckets))
    # Rows are found by these alone; a sample of long values takes as long as half the COPY.
    found_by = dict.fromkeys([*contract.key, *filter(None, [contract.partition_column])])
    of = f" ({', '.join(map(quote_identifier, found_by))})" if found_by else ""
    run(connection, f"ANALYZE {stage}{of}")
    return stage


def _insert_or_update(connection: "psycopg.Connection", contract: Contract, stage: str) -> int:
    names = ", ".join(map(quote_identifier, contract.names))
    values = [quote_identifier(name) for name in contract.names if name not in contract.key]
    action = "NOTHING"
    if values:
        assigned = ", ".join(f"{name} = excluded.{name}" for name in values)
        # The record's own comparison: only rows that differ are written.
        old, new = (", ".join(f"{side}.{name}" for name in values) for side in ("old", "excluded"))
        action = f"UPDATE SET {assigned} WHERE ROW({old}) IS DISTINCT FROM ROW({new})"
    cursor = run(
        connection,
        f"INSERT INTO {table_sql(contract)} AS old ({names}) SELECT {names} FROM {stage} "
        f"ON CONFLICT ({conflict_target(contract)}) DO {action}",
    )
    return cursor.rowcount


def _refuse_rows_of_others(connection: "psycopg.Connection", contract: Contract, stage: str) -> None:
    if not contract.scope:
        return
    keys = ", ".join(f"old.{quote_identifier(k)}" for k in contract.key)
    mine = " AND ".join(
        f"old.{quote_identifier(name)} = {quote_literal(value)}" for name, value in contract.scope
    )
    found = run(
        connection,
        f"SELECT {keys} FROM {table_sql(contract)} AS old JOIN {stage} AS new ON {same_key(contract)} "
        f"WHERE NOT ({mine}) LIMIT 3",
    ).fetchall()
    if found:
        owned = " and ".join(f"{name} = {value!r}" for name, value in contract.scope)
        raise ContractViolation(
            f"{contract.asset}: key {'; '.join(', '.join(map(repr, row)) for row in found)} belongs to a row that "
            f"was not written by this asset (it writes {owned}): rename or delete one of the two. Nothing was written."
        )


def _partitions_losing_rows(
    connection: "psycopg.Connection", contract: Contract, staged: Staged, stage: str
) -> set[int]:
    """Partitions that hold rows which will move into others because their time has changed.

    Raises:
        ContractViolation: such a row may not move, being outside the slice.
    """
    if contract.partition_column is None or (contract.key_by_day and contract.partition_us == DAY_US):
        return set()
    column, us = quote_identifier(contract.partition_column), contract.partition_us
    was, now = (
        f"floor(extract(epoch FROM {side}.{column}) * 1000000 / {us}) * {us}" for side in ("old", "new")
    )
    keys = ", ".join(f"old.{quote_identifier(k)}" for k in contract.key)
    found = run(
        connection,
        f"SELECT DISTINCT ON (1) {was}, {keys} FROM {table_sql(contract)} AS old JOIN {stage} AS new "
        f"ON {same_key(contract)} WHERE {was} <> {now} ORDER BY {', '.join(map(str, range(1, len(contract.key) + 2)))}",
    ).fetchall()
    return staged.partitions_losing_rows(found)
