"""Tables in the lake: DuckLake, one transaction a write.

What belongs here: DDL, overwrite, merge and ledger for DuckLake. What does not: anything about another
store's tables; PostgreSQL appears only as the lake's catalog, whose advisory locks let one writer at a time
commit to a table. (DuckLake finds conflicts at commit; two inserts into one empty partition are none to it.)
"""

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.lib.faults import one_sentence
from ml_assets.lib.query import Query
from ml_assets.lib.sql import NEVER, free_name, joined, qualified, quote_identifier, quote_literal
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.duckdb import inlining
from ml_assets.stores.duckdb.inlining import METADATA
from ml_assets.tables.validation import WHOLE, Limits, Window

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from ml_assets.contracts import ColumnType
    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Buckets, Staged, TableState

_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "json": "JSON",
    "vector": "FLOAT[]",
}
_FOUND: "dict[str, ColumnType]" = {"JSON": "json", "HUGEINT": "int64", "UHUGEINT": "int64"}
"""Types of columns that another tool made, where Arrow's does not tell: the sum of integers is a HUGEINT."""

_LEDGER = 'lake."ledger"."writes"'
_CONTRACTS = 'lake."ledger"."contracts"'
_LEDGER_TABLES = (
    'CREATE SCHEMA IF NOT EXISTS lake."ledger"',
    f'CREATE TABLE IF NOT EXISTS {_LEDGER} (table_name VARCHAR, "partition" VARCHAR, sequence BIGINT, rows BIGINT, '
    "bytes BIGINT, content_hash VARCHAR, hash_version VARCHAR, written_at TIMESTAMPTZ)",
    f"CREATE TABLE IF NOT EXISTS {_CONTRACTS} (asset VARCHAR, contract VARCHAR, sequence BIGINT)",
)

_T = TypeVar("_T")

_DAY_US = 86_400_000_000
_INSERT_BYTES = 128 * 2**20
"""Size of the rows of one INSERT."""
_MORSEL_ROWS = 16_384
"""Rows that a thread takes at a time: with whole batches one thread gets two thirds of a day of 100,000."""


class DuckLakeIOManager(TableIOManager):
    """Writes and reads tables of the lake. Also takes a DuckDB relation or a `Query`, which runs in the lake.

    Args:
        lake: the lake.
    """

    store: ClassVar[str] = "duckdb"
    limits: ClassVar[Limits] = Limits("DuckLake")

    lake: DuckLakeResource

    def _rows(self, obj: Any) -> Any:
        if isinstance(obj, Query):
            return _query_reader(self.lake, obj)
        if type(obj).__name__ == "DuckDBPyRelation":
            return obj.to_arrow_reader(65_536)
        return obj

    def _committed(self, obj: Any) -> None:
        if isinstance(obj, Query) and obj.committed is not None:
            obj.committed()

    def _write(self, contract: Contract, staged: "Staged") -> bool:
        with (
            self.lake.get_connection(write=True) as connection,
            writing(self.lake, contract),
            self.lake.limit(connection, write=True, what=f"writing {contract.asset}"),
        ):
            return write(connection, contract, staged)

    def _read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        from ml_assets.tables.arrow_types import arrow_schema, recast

        schema = arrow_schema(contract, columns)
        return recast(self._selected(contract, columns, window, self.lake.reader), schema)

    def _load(self, wanted: Any, contract: Contract, columns: Sequence[str], window: Window) -> Any:
        if getattr(wanted, "__name__", "") == "DuckDBPyRelation":
            return self._relation(contract, columns, window)
        return super()._load(wanted, contract, columns, window)

    def _relation(
        self, contract: Contract, columns: Sequence[str], window: Window
    ) -> "duckdb.DuckDBPyRelation":
        """The rows as a lazy relation: what is asked of it is asked of the lake."""
        # The relation, and whatever is made from it, keeps the connection open.
        return self._selected(contract, columns, window, lambda statement: self.lake.open().sql(statement))

    def _selected(
        self, contract: Contract, columns: Sequence[str], window: Window, ask: "Callable[[str], _T]"
    ) -> "_T":
        """What `ask` makes of a SELECT; columns that the table does not have yet are null in every row."""
        import duckdb

        with _explained(contract):
            try:
                return ask(_select_sql(contract, columns, [window]))
            except duckdb.BinderException:
                # Only now: to look at the columns beforehand takes a third of the time of a small read.
                with self.lake.get_connection() as connection:
                    existing = _columns(connection, contract.schema, contract.table)
                missing = _missing_columns(contract, existing, columns)
                if not missing:
                    raise
                return ask(_select_sql(contract, columns, [window], missing))

    def _remembered(self, asset: str) -> Contract | None:
        with self.lake.get_connection() as connection:
            return _remembered(connection, asset)

    def _found(self, place: "Place") -> "Found | None":
        import duckdb

        from ml_assets.tables.found import found_table, kinds_of
        from ml_assets.tables.staging import windows_sql

        schema = place.schema or Contract(place.asset, "", (), ()).schema
        source = qualified("lake", schema, place.table)

        def read(contract: Contract, columns: Sequence[str], window: Window) -> "Generator[pa.RecordBatch]":
            names = ", ".join(map(quote_identifier, columns))
            where = windows_sql(contract, [window], _literal)
            yield from self.lake.reader(f"SELECT {names} FROM {source} WHERE {where}")

        try:
            types = self.lake.reader(f"DESCRIBE SELECT * FROM {source}").read_all().to_pylist()
            kinds = kinds_of(place.asset, self.lake.reader(f"SELECT * FROM {source} LIMIT 0").schema)
        except duckdb.CatalogException:
            return None
        for row in types:
            if (kind := _FOUND.get(row["column_type"])) is not None:
                kinds[row["column_name"]] = kind, row["column_type"]
        return found_table(place, kinds, read)


@contextmanager
def _explained(contract: Contract) -> Iterator[None]:
    """A table that is not there, as the sentence that says what to do."""
    import duckdb

    from ml_assets.tables.arrow_types import never_written

    try:
        yield
    except duckdb.CatalogException as fault:
        if contract.table in str(fault):
            raise never_written(contract.asset) from fault
        raise


def known(lake: DuckLakeResource) -> list[Contract]:
    """Of each table that was written and is there, the contract that it was last written by."""
    with lake.get_connection() as connection:
        contracts = known_contracts(connection)
        return [each for each in contracts if _columns(connection, each.schema, each.table)]


def recorded(lake: DuckLakeResource, contract: Contract, any_version: bool = False) -> "TableState":
    """Rows and content hash as noted when the table was written; of what was hashed in another way only if asked for."""
    from ml_assets.tables.staging import table_state

    with lake.get_connection() as connection:
        return table_state(_recorded(connection, contract, any_version))


def measured(lake: DuckLakeResource, contract: Contract) -> "TableState":
    """Rows and content hash of what the table holds now."""
    from ml_assets.tables.staging import table_state

    with lake.get_connection() as connection:
        return table_state(_measured(connection, contract, [WHOLE]))


def damage(lake: DuckLakeResource, contract: Contract) -> str:
    """In what the table does not agree with itself; "" if it does."""
    with lake.get_connection() as connection:
        return damage_of(connection, contract.schema, contract.table)


def damage_of(connection: "duckdb.DuckDBPyConnection", schema: str, table: str) -> str:
    """As `damage`, of any table of the lake.

    Args:
        connection: to the lake. While the table is written, rows that a former version of this project keeps in the
            catalog are told of, which are in order.
        schema, table: the table; one that is not there agrees with itself.
    """
    import duckdb

    if not _columns(connection, schema, table):
        return ""
    name = f"{schema}.{table}"
    try:
        stated, scanned = inlining.counts(connection, schema, table)
    except (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.InternalException) as fault:
        return f"{name} cannot be read ({one_sentence(fault)})"
    if stated != scanned:
        return f"{name}: count(*) says {stated:,} rows and a scan finds {scanned:,}"
    if left := inlining.inlined(connection).get((schema, table)):
        return f"{name}: {left:,} rows or deletions stand in the catalog instead of in files"
    return ""


@contextmanager
def writing(lake: DuckLakeResource, contract: Contract) -> Iterator[None]:
    """Let one process at a time commit to the table, by a lock in the catalog's PostgreSQL.

    Raises:
        WriteBusy: another process kept the lock for longer than a write may take.
    """
    from ml_assets.stores.postgres_table import lock

    catalog = PostgresResource(url=lake.resolved_catalog_url(), write_timeout_s=lake.write_timeout_s)
    with catalog.connect(write=True) as connection:
        lock(connection, contract.asset)
        yield


def write(connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: "Staged") -> bool:
    """Put staged rows in place in one transaction; returns whether anything had to be changed.

    A conflict with somebody who does not take our lock is tried again, up to five times; one that is not about the
    table's rows (the ledger is every writer's) as long as a write may take.

    Raises:
        ContractViolation: the table in the lake is not the contract's and cannot be made so.
        WriteBusy: the conflict did not go away.
    """
    from ml_assets.tables.conflicts import retried

    return retried(
        contract.asset,
        _is_conflict,
        lambda: _write_once(connection, contract, staged),
        lambda fault: not _is_about(fault, connection, contract),
    )


def _is_about(fault: BaseException, connection: "duckdb.DuckDBPyConnection", contract: Contract) -> bool:
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


def _is_conflict(fault: BaseException) -> bool:
    import duckdb

    # A full disk ends a commit by the same exception. DuckLake tries a commit again itself when others commit to
    # other tables meanwhile, and says so, and not that it was a conflict, when it gives up.
    marks = ("conflict", "exceeded the maximum retry count")
    return isinstance(fault, duckdb.TransactionException) and any(
        mark in str(fault).lower() for mark in marks
    )


def _write_once(connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: "Staged") -> bool:
    import duckdb

    connection.execute("BEGIN")
    try:
        changed = _apply(connection, contract, staged)
    except BaseException:
        # Without a catalog there is nothing to roll back; the first fault is the one to tell.
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
    # A COMMIT that fails has already ended the transaction.
    connection.execute("COMMIT")
    return changed


def _apply(connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: "Staged") -> bool:
    from ml_assets.tables.staging import partitions_to_write, spans, windows_sql

    ensure_table(connection, contract)
    table = _name(contract)
    if contract.mode == "upsert":
        written = _upsert(connection, contract, staged)
        staged.held = _recorded(connection, contract)
        return written
    changed = partitions_to_write(
        staged,
        _recorded(connection, contract),
        lambda window: _measured(connection, contract, [window]),
    )
    if not changed:
        return False
    connection.execute(f"DELETE FROM {table} WHERE {windows_sql(contract, spans(staged, changed), _literal)}")
    _insert(connection, contract, staged, changed)
    _refuse_taken(connection, contract, staged)
    _record(connection, contract, staged.buckets, None if staged.window.whole else changed)
    return True


def _insert(
    connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: "Staged", buckets: set[int]
) -> None:
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema

    names = ", ".join(map(quote_identifier, contract.names))
    for batches in _portions(staged, buckets):
        # A stream: what is registered stays with the transaction to its end.
        morsels = chain.from_iterable(map(_morsels, batches))
        rows = pa.RecordBatchReader.from_batches(arrow_schema(contract), morsels)
        connection.register("staged_rows", rows)
        try:
            connection.execute(f"INSERT INTO {_name(contract)} ({names}) SELECT {names} FROM staged_rows")
        finally:
            connection.unregister("staged_rows")


def _portions(staged: "Staged", buckets: set[int]) -> "Iterator[Iterator[pa.RecordBatch]]":
    """What one INSERT writes: the rows of a few partitions, or a part of a large one's.

    DuckDB keeps all that it reads of Arrow until a statement ends, beyond its own memory limit.
    """
    for group in _groups(staged, buckets):
        batches = staged.batches(group)
        for first in batches:
            yield chain([first], _taken(batches, 2 * _INSERT_BYTES - first.nbytes))


def _taken(batches: "Iterator[pa.RecordBatch]", size: int) -> "Iterator[pa.RecordBatch]":
    """The next batches, until they are this size."""
    while size > 0 and (batch := next(batches, None)) is not None:
        size -= batch.nbytes
        yield batch


def _morsels(batch: "pa.RecordBatch") -> "Iterator[pa.RecordBatch]":
    """A batch in parts that share its memory."""
    return (batch.slice(start, _MORSEL_ROWS) for start in range(0, batch.num_rows, _MORSEL_ROWS))


def _groups(staged: "Staged", buckets: set[int]) -> Iterator[set[int]]:
    """The partitions in order, as many at a time as make up one INSERT."""
    group: set[int] = set()
    size = 0
    for bucket in sorted(buckets & staged.buckets.keys()):
        more = staged.buckets[bucket].bytes
        if group and size + more > _INSERT_BYTES:
            yield group
            group, size = set(), 0
        group.add(bucket)
        size += more
    if group:
        yield group


def _refuse_taken(connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: "Staged") -> None:
    """Refuse keys that now stand in another partition of their day, too; the lake has no index that would.

    Raises:
        ContractViolation: there is one; the transaction is not to be committed.
    """
    if staged.rest_of_days:
        old, new = (
            f"({_select_sql(contract, contract.names, windows)})"
            for windows in (staged.rest_of_days, [staged.window])
        )
        _partitions_losing_rows(connection, contract, staged, old, new)


def _partitions_losing_rows(
    connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: "Staged", old: str, new: str
) -> set[int]:
    """Partitions of old rows whose key is given for another one.

    Raises:
        ContractViolation: such a row may not move, being outside the slice.
    """
    from ml_assets.tables.validation import bucket_sql

    if contract.partition_column is None or (contract.key_by_day and contract.partition_us == _DAY_US):
        return set()
    bucket = bucket_sql(contract)
    place = free_name("bucket", contract.names)
    keys = ", ".join(f"any_value(old.{quote_identifier(name)})" for name in contract.key)
    names = ", ".join(map(quote_identifier, dict.fromkeys([*contract.key, contract.partition_column])))
    found = connection.execute(
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


def _upsert(connection: "duckdb.DuckDBPyConnection", contract: Contract, staged: "Staged") -> bool:
    from ml_assets.tables.staging import spans_of

    names = [quote_identifier(name) for name in contract.names]
    keys = [quote_identifier(name) for name in contract.key]
    connection.register("staged_rows", staged.reader())
    connection.execute("CREATE OR REPLACE TEMPORARY TABLE staged_once AS SELECT * FROM staged_rows")
    connection.unregister("staged_rows")
    values = [name for name in names if name not in keys]
    changes = [f"old.{name} IS DISTINCT FROM new.{name}" for name in values]
    differs = joined(changes, "OR") if changes else NEVER
    assigned = ", ".join(f"{name} = new.{name}" for name in values)
    update = f"WHEN MATCHED AND ({differs}) THEN UPDATE SET {assigned}" if values else ""
    touched = _partitions_losing_rows(
        connection, contract, staged, _name(contract), "temp.staged_once"
    ) | set(staged.buckets)
    count = connection.execute(
        f"MERGE INTO {_name(contract)} AS old USING temp.staged_once AS new ON {_same_key(contract)} {update} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({', '.join(f'new.{n}' for n in names)})"
    ).fetchall()[0][0]
    connection.execute("DROP TABLE temp.staged_once")
    windows = spans_of(touched, contract)
    if count or not _as_noted(connection, contract, touched, windows):
        held = _measured(connection, contract, windows)
        _record(connection, contract, held, touched)
    return bool(count)


def _as_noted(
    connection: "duckdb.DuckDBPyConnection", contract: Contract, buckets: set[int], windows: Sequence[Window]
) -> bool:
    """Whether some partitions hold as many rows as the ledger says. An application may have added its own."""
    from ml_assets.tables.staging import windows_sql

    if not buckets:
        return True
    where = windows_sql(contract, windows, _literal)
    noted = _recorded(connection, contract)
    rows = sum(noted[bucket].rows for bucket in noted.keys() & buckets)
    counted = connection.execute(f"SELECT count(*) FROM {_name(contract)} WHERE {where}").fetchall()
    return counted == [(rows,)]


def make_tables(lake: DuckLakeResource, contracts: Iterable[Contract]) -> None:
    """Create those tables that are not there yet, empty, for queries that read them before their first write."""
    with lake.get_connection() as connection:
        rows = connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'"
        ).fetchall()
    present = set(rows)
    for contract in contracts:
        if (contract.schema, contract.table) not in present:
            with lake.get_connection(write=True) as connection, writing(lake, contract):
                connection.execute("BEGIN")
                ensure_table(connection, contract)
                connection.execute("COMMIT")


def ensure_table(connection: "duckdb.DuckDBPyConnection", contract: Contract) -> None:
    """Create the table with its partitioning, or add the nullable columns that the contract has gained.

    Raises:
        ContractViolation: the table differs in another way; says which statement would mend it.
    """
    from ml_assets.tables.contract_json import contract_text, refuse_new_identity

    existing = _columns(connection, contract.schema, contract.table)
    old = _remembered(connection, contract.asset)
    if not existing:
        _refuse_other_case(connection, contract)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quote_identifier(contract.schema)}")
        for statement in create_statements(contract):
            connection.execute(statement)
        if _recorded(connection, contract):  # what a table held that was dropped
            name = f"{contract.schema}.{contract.table}"
            connection.execute(f"DELETE FROM {_LEDGER} WHERE table_name = $1", [name])
    elif old is not None:
        refuse_new_identity(old, contract, f"DROP TABLE {_name(contract)}", indexed=False)
    if existing:
        _fit_columns(connection, contract, existing)
    if not existing or old != contract:
        for statement in _LEDGER_TABLES:
            connection.execute(statement)
        # Appended, never updated: updates of one table by two writers would conflict.
        connection.execute(
            f"INSERT INTO {_CONTRACTS} SELECT $1, $2, coalesce(max(sequence), 0) + 1 FROM {_CONTRACTS} WHERE asset = $1",
            [contract.asset, contract_text(contract)],
        )


def _refuse_other_case(connection: "duckdb.DuckDBPyConnection", contract: Contract) -> None:
    """Refuse a table whose name differs from that of another one in upper and lower case only."""
    from ml_assets.errors import ContractViolation

    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() "
        "WHERE database_name = 'lake' AND schema_name = $1 AND lower(table_name) = lower($2)",
        [contract.schema, contract.table],
    ).fetchone()
    if found:
        other = qualified("lake", contract.schema, found[0])
        raise ContractViolation(
            f"{contract.asset}: the lake has a table {found[0]!r}, and takes names that differ in upper and lower case "
            f"only for one; give one of the two assets another name, or run DROP TABLE {other} if the other one is no "
            "more. Nothing was written."
        )


def _missing_columns(
    contract: Contract, existing: dict[str, tuple[str, bool]], columns: Sequence[str]
) -> list[Column]:
    """Columns that the table does not have yet.

    Raises:
        ContractViolation: one of them is asked for, and may not be null.
    """
    from ml_assets.errors import ContractViolation

    missing = [column for column in contract.columns if column.name not in existing]
    for column in missing:
        if contract.requires(column) and column.name in (*columns, contract.partition_column):
            raise ContractViolation(f"{contract.asset}: {_valueless(contract, column)}.")
    return missing


def _valueless(contract: Contract, column: Column) -> str:
    """What is said of a new column that may not be null."""
    return (
        f"the contract has a new column {column.name!r} that may not be null, and the table's rows have no value for "
        f"it; run {_add_column_sql(contract, column)} DEFAULT ..., or make it nullable"
    )


def _add_column_sql(contract: Contract, column: Column) -> str:
    return f"ALTER TABLE {_name(contract)} ADD COLUMN {quote_identifier(column.name)} {_TYPES[column.type]}"


def _fit_columns(
    connection: "duckdb.DuckDBPyConnection", contract: Contract, existing: dict[str, tuple[str, bool]]
) -> None:
    """Add nullable columns that the table lacks, refuse what else differs."""
    from ml_assets.errors import ContractViolation

    for column in contract.columns:
        kind, required = _TYPES[column.type], contract.requires(column)
        alter = f"ALTER TABLE {_name(contract)} ALTER COLUMN {quote_identifier(column.name)}"
        if column.name not in existing:
            if not required:
                connection.execute(_add_column_sql(contract, column))
                continue
            difference = _valueless(contract, column)
        elif existing[column.name][0] != kind:
            difference = (
                f"column {column.name!r} is {existing[column.name][0]} in the lake and {kind} in the contract; run "
                f"{alter} SET TYPE {kind}"
            )
        elif existing[column.name][1] and not required:
            difference = (
                f"column {column.name!r} may not be null in the lake and may be in the contract; run {alter} DROP "
                "NOT NULL"
            )
        elif required and not existing[column.name][1] and _holds_null(connection, contract, column):
            name = quote_identifier(column.name)
            difference = (
                f"column {column.name!r} holds nulls in the lake and may not be null in the contract; run UPDATE "
                f"{_name(contract)} SET {name} = ... WHERE {name} IS NULL"
            )
        else:
            continue
        raise ContractViolation(f"{contract.asset}: {difference}, or undo the change. Nothing was written.")
    for name in existing.keys() - set(contract.names):
        # Columns of somebody else's are left alone, but an overwritten row would lose them.
        if contract.mode != "upsert":
            raise ContractViolation(
                f"{contract.asset}: the table has a column {name!r} that the contract does not have; run ALTER TABLE "
                f"{_name(contract)} DROP COLUMN {quote_identifier(name)}, or add it to the contract. Nothing was written."
            )


def _holds_null(connection: "duckdb.DuckDBPyConnection", contract: Contract, column: Column) -> bool:
    """Asked where the lake would allow a null: a column added later can never be made NOT NULL in DuckLake 1.5.

    Validation keeps new nulls out, so that only old ones matter.
    """
    name = quote_identifier(column.name)
    found = connection.execute(f"SELECT 1 FROM {_name(contract)} WHERE {name} IS NULL LIMIT 1").fetchall()
    return bool(found)


def create_statements(contract: Contract) -> list[str]:
    """The table's DDL. DuckLake has no keys and no checks; validation keeps them."""
    columns = ", ".join(_column_sql(contract, column) for column in contract.columns)
    statements = [f"CREATE TABLE {_name(contract)} ({columns})"]
    if contract.partition_column:
        day = quote_identifier(contract.partition_column)
        statements.append(
            f"ALTER TABLE {_name(contract)} SET PARTITIONED BY (year({day}), month({day}), day({day}))"
        )
    return statements


def _column_sql(contract: Contract, column: Column) -> str:
    required = " NOT NULL" if contract.requires(column) else ""
    return f"{quote_identifier(column.name)} {_TYPES[column.type]}{required}"


def _name(contract: Contract) -> str:
    return qualified("lake", contract.schema, contract.table)


def _literal(moment: datetime) -> str:
    # Not strftime, which writes the year 999 with three digits.
    return quote_literal(moment.astimezone(UTC).isoformat(" ", "microseconds")) + "::TIMESTAMPTZ"


def _columns(connection: "duckdb.DuckDBPyConnection", schema: str, table: str) -> dict[str, tuple[str, bool]]:
    """Type and whether it may not be null, of each column that the table has."""
    rows = connection.execute(
        "SELECT column_name, data_type, NOT is_nullable FROM duckdb_columns() "
        "WHERE database_name = 'lake' AND schema_name = $1 AND table_name = $2",
        [schema, table],
    ).fetchall()
    return {name: (kind, required) for name, kind, required in rows}


def _remembered(connection: "duckdb.DuckDBPyConnection", asset: str) -> Contract | None:
    """The contract by which a table was last written; None if it never was."""
    from ml_assets.tables.contract_json import contract_of_text

    if not _columns(connection, "ledger", "contracts"):
        return None
    ((text,),) = connection.execute(
        f"SELECT arg_max(contract, sequence) FROM {_CONTRACTS} WHERE asset = $1", [asset]
    ).fetchall()
    return None if text is None else contract_of_text(text)


def _select_sql(
    contract: Contract, columns: Sequence[str], windows: Sequence[Window], missing: Iterable[Column] = ()
) -> str:
    """The rows of some windows; `missing` columns, which the table does not have, as null."""
    from ml_assets.tables.staging import windows_sql

    names, source = ", ".join(map(quote_identifier, columns)), _name(contract)
    if nulls := ", ".join(f"NULL::{_TYPES[each.type]} AS {quote_identifier(each.name)}" for each in missing):
        source = f"(SELECT *, {nulls} FROM {source})"
    return f"SELECT {names} FROM {source} WHERE {windows_sql(contract, windows, _literal)}"


def _measured(
    connection: "duckdb.DuckDBPyConnection",
    contract: Contract,
    windows: Sequence[Window],
) -> "Buckets":
    from ml_assets.tables.arrow_types import arrow_schema, batch_rows, recast
    from ml_assets.tables.staging import measure

    existing = _columns(connection, contract.schema, contract.table)
    if not existing:
        return {}
    missing = _missing_columns(contract, existing, contract.names)
    rows = connection.execute(_select_sql(contract, contract.names, windows, missing))
    reader = rows.to_arrow_reader(batch_rows(contract))
    return measure(recast(reader, arrow_schema(contract)), contract)


def _recorded(
    connection: "duckdb.DuckDBPyConnection", contract: Contract, any_version: bool = False
) -> "Buckets":
    """The last entry of each partition in the ledger; of what was hashed in another way only if asked for."""
    from ml_assets.tables.hashing import HASH_VERSION
    from ml_assets.tables.staging import PartitionState, bucket_of_name

    if not _columns(connection, "ledger", "writes"):
        return {}
    rows = connection.execute(
        f'SELECT "partition", rows, bytes, content_hash FROM {_LEDGER} WHERE table_name = $1 '
        'QUALIFY row_number() OVER (PARTITION BY "partition" ORDER BY sequence DESC) = 1 '
        "AND (hash_version = $2 OR $3) AND rows > 0",
        [f"{contract.schema}.{contract.table}", HASH_VERSION, any_version],
    ).fetchall()
    return {bucket_of_name(name): PartitionState(*state) for name, *state in rows}


def _record(
    connection: "duckdb.DuckDBPyConnection",
    contract: Contract,
    held: "Buckets",
    buckets: Iterable[int] | None,
) -> None:
    """Append what some partitions (None: all) hold now; the last entry of a partition counts."""
    import pyarrow as pa

    from ml_assets.tables.hashing import HASH_VERSION
    from ml_assets.tables.staging import EMPTY, bucket_name

    name = f"{contract.schema}.{contract.table}"
    # The lake's version grows with every write; asking the ledger itself takes ten times as long.
    found = connection.execute("SELECT id FROM lake.current_snapshot()").fetchall()
    sequence, now = found[0][0] + 1, datetime.now(UTC)
    known = set(_recorded(connection, contract)) | set(held) if buckets is None else buckets
    states = {bucket: held.get(bucket, EMPTY) for bucket in known}
    entries = pa.table(
        {
            "table_name": [name] * len(states),
            "partition": [bucket_name(bucket, contract) for bucket in states],
            "sequence": [sequence] * len(states),
            "rows": [state.rows for state in states.values()],
            "bytes": [state.bytes for state in states.values()],
            "content_hash": [state.content_hash for state in states.values()],
            "hash_version": [HASH_VERSION] * len(states),
            "written_at": [now] * len(states),
        }
    )
    connection.register("ledger_entries", entries)
    connection.execute(f"INSERT INTO {_LEDGER} SELECT * FROM ledger_entries")
    connection.unregister("ledger_entries")


def forget_replaced_entries(connection: "duckdb.DuckDBPyConnection") -> int:
    """Delete entries of the ledger that later ones have replaced; returns how many.

    Raises:
        duckdb.TransactionException: somebody wrote to any table meanwhile; nothing of that table was deleted.
    """
    count = 0
    for table, key in ((_LEDGER, ("table_name", "partition")), (_CONTRACTS, ("asset",))):
        if not _columns(connection, "ledger", table.rpartition(".")[2].strip('"')):
            continue
        same = " AND ".join(f"old.{quote_identifier(name)} = new.{quote_identifier(name)}" for name in key)
        rows = connection.execute(
            f"DELETE FROM {table} AS old WHERE EXISTS "
            f"(SELECT 1 FROM {table} AS new WHERE {same} AND new.sequence > old.sequence)"
        ).fetchall()
        count += int(rows[0][0])
    return count


def known_contracts(connection: "duckdb.DuckDBPyConnection") -> list[Contract]:
    """Of every table that was written, the contract that it was last written by."""
    from ml_assets.tables.contract_json import contract_of_text

    if not _columns(connection, "ledger", "contracts"):
        return []
    rows = connection.execute(
        f"SELECT arg_max(contract, sequence) FROM {_CONTRACTS} GROUP BY asset"
    ).fetchall()
    return [contract_of_text(text) for (text,) in rows]


def _query_reader(lake: DuckLakeResource, query: Query) -> "pa.RecordBatchReader":
    """A query's rows; its connection is closed when they are exhausted or dropped."""
    import pyarrow as pa

    if not query.tables:
        return lake.reader(query.sql, dict(query.parameters) or None)

    def batches() -> "Iterator[pa.RecordBatch]":
        with lake.get_connection() as connection:
            for name, table in query.tables.items():
                connection.register(name, table)
            stream = connection.execute(query.sql, dict(query.parameters) or None).to_arrow_reader(65_536)
            yield stream.schema  # pyright: ignore[reportReturnType]
            yield from stream

    stream = batches()
    schema: Any = next(stream)
    return pa.RecordBatchReader.from_batches(schema, stream)
