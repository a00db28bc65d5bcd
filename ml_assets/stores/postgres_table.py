"""Tables in PostgreSQL made and written from contracts, in the caller's transaction.

What belongs here: DDL, COPY in both directions as Arrow batches, merge, and the ledger of writes. Three
stores keep things in PostgreSQL (its own tables, Chroma's manifest, the truth behind Redis), so this is a
library over a psycopg connection. What does not: opening connections, Dagster.
"""

import io
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Column, ColumnType, Contract, ForeignKey
from ml_assets.errors import ContractViolation
from ml_assets.lib.canonical_json import restored_all
from ml_assets.lib.sql import ALWAYS, joined, qualified, quote_identifier, quote_literal
from ml_assets.tables.arrow_types import (
    arrow_schema,
    key_taken,
    never_written,
    vectors_from_text,
    vectors_to_text,
)
from ml_assets.tables.conflicts import waited_too_long
from ml_assets.tables.contract_json import contract_of_text, contract_text, refuse_new_identity
from ml_assets.tables.found import Found, Place, found_table
from ml_assets.tables.hashing import HASH_VERSION
from ml_assets.tables.staging import (
    DAY_US,
    Buckets,
    PartitionState,
    Staged,
    bucket_name,
    bucket_of_name,
    measure,
    partitions_to_write,
    spans,
    spans_of,
    windows_sql,
)
from ml_assets.tables.validation import WHOLE, Window, shown_value

if TYPE_CHECKING:
    import psycopg

_TYPES = {
    "string": "text",
    "int64": "bigint",
    "float64": "double precision",
    "bool": "boolean",
    "timestamp": "timestamp with time zone",
    "date": "date",
    "json": "jsonb",
    "vector": "vector",
}
_FOUND: dict[str, ColumnType] = {
    **dict.fromkeys(("int2", "int4", "int8"), "int64"),
    **dict.fromkeys(("float4", "float8", "numeric"), "float64"),
    **dict.fromkeys(("text", "varchar", "bpchar", "uuid", "enum", "name", "citext"), "string"),
    **dict.fromkeys(("json", "jsonb"), "json"),
    "bool": "bool",
    "timestamptz": "timestamp",
    "date": "date",
    "vector": "vector",
}
"""Types of columns that another tool made."""

_READ_BYTES = 4 * 2**20

_INDEXED_DIMENSIONS = 2_000
"""Longest vectors that pgvector's index takes; longer ones are searched one by one."""

_LEDGER = """
CREATE SCHEMA IF NOT EXISTS ledger;
CREATE TABLE IF NOT EXISTS ledger.writes (
    store text NOT NULL,
    table_name text NOT NULL,
    partition text NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    content_hash text NOT NULL,
    hash_version text NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (store, table_name, partition)
);
CREATE TABLE IF NOT EXISTS ledger.contracts (
    asset text PRIMARY KEY,
    contract text NOT NULL
)
"""


def run(
    connection: "psycopg.Connection", statement: str, values: Sequence[Any] | None = None
) -> "psycopg.Cursor[Any]":
    """Execute a statement put together from quoted names and bound values.

    psycopg's own `execute` takes only literal text or bytes, to remind its caller of exactly that.
    """
    return connection.execute(statement.encode(), values)


def write(connection: "psycopg.Connection", contract: Contract, staged: Staged) -> bool:
    """Put staged rows in place, as the contract's mode says, within the open transaction.

    Returns:
        Whether anything had to be changed.

    Raises:
        ContractViolation: the table in the database is not the contract's and cannot be made so, or a row
            that somebody else owns has the key of one of ours, or one in another partition of the same day, or
            a foreign key points nowhere.
    """
    import psycopg

    try:
        with within_limits(contract, staged):
            changed = _write(connection, contract, staged)
            _ensure_foreign_keys(connection, contract)
        return changed
    except psycopg.errors.UniqueViolation as fault:
        if fault.diag.table_name != contract.table:
            raise
        raise key_taken(contract, fault.diag.message_detail or "") from fault
    except psycopg.errors.ForeignKeyViolation as fault:
        if fault.diag.table_name != contract.table:
            raise
        raise _points_nowhere(contract, fault) from fault


@contextmanager
def within_limits(contract: Contract, staged: Staged) -> Iterator[None]:
    """What PostgreSQL refuses because it is too long or too much, as a sentence.

    It is asked, not foreseen: an index takes 2,704 bytes, and more of text that can be packed.

    Raises:
        ContractViolation: a key, or a column with an index, is too long, the table has too many columns, or another
            limit was met.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as fault:
        if not (fault.sqlstate or "").startswith("54"):  # the class of program limits
            raise
        why, shown = str(fault).splitlines()[0], ""
        if "row is too big" in why or ("columns" in why and "index" not in why):
            raise ContractViolation(
                f"{contract.asset}: its {len(contract.columns):,} columns are too many for PostgreSQL, where a row must "
                f"fit in a page but for long texts ({why}): keep several of them as one JSON document, or make rows of "
                "them. Nothing was written."
            ) from fault
        if "index row" in why:
            columns, size, values = _longest_indexed(contract, staged)
            holds, many = ", ".join(map(shown_value, values)), "s" if len(columns) > 1 else ""
            shown = f"column{many} {', '.join(map(repr, columns))} with {size:,} bytes ({holds}) "
        raise ContractViolation(
            f"{contract.asset}: {shown or 'the table '}is beyond what PostgreSQL can hold ({why}): shorten what is too "
            "long, or keep a hash of it in its place. Nothing was written."
        ) from fault


def _longest_indexed(contract: Contract, staged: Staged) -> tuple[Sequence[str], int, list[Any]]:
    """The longest key, or value of a column that has an index: columns, bytes, values."""
    import numpy as np

    found: tuple[Sequence[str], int, list[Any]] = (contract.key, 0, [])
    for batch in staged.batches():
        for columns in (contract.key, *((name,) for name in contract.indexes)):
            sizes = np.zeros(batch.num_rows, np.int64)
            for name in columns:
                if pa.types.is_string(batch.column(name).type):
                    lengths = pc.call_function("binary_length", [batch.column(name)])
                    sizes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
            longest = int(sizes.argmax())
            if sizes[longest] > found[1]:
                values = [batch.column(name)[longest].as_py() for name in columns]
                found = columns, int(sizes[longest]), values
    return found


def _write(connection: "psycopg.Connection", contract: Contract, staged: Staged) -> bool:
    lock(connection, contract.asset)
    ensure_table(connection, contract)
    if contract.mode == "upsert":
        changed = _upsert(connection, contract, staged)
        staged.held = recorded_buckets(connection, contract)
        return changed
    changed = partitions_to_write(
        staged,
        recorded_buckets(connection, contract),
        lambda w: _measured(connection, contract, w),
    )
    if not changed:
        return False
    losing_rows: set[int] = set()
    if contract.mode == "overwrite" and not contract.unique_across_days:
        _replace(connection, contract, staged, changed)
    else:
        losing_rows = _merge(connection, contract, staged, changed)
    record(connection, contract, staged.buckets, None if staged.window.whole else changed)
    _measure_again(connection, contract, losing_rows - changed, staged)
    return True


def lock(connection: "psycopg.Connection", name: str) -> None:
    """Let only one transaction at a time write what goes by this name.

    Raises:
        WriteBusy: its turn did not come within the transaction's statement time-out.
    """
    import psycopg

    try:
        run(connection, "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", ["ml-assets " + name])
    except psycopg.errors.QueryCanceled as fault:
        raise waited_too_long(name) from fault


def is_conflict(fault: BaseException) -> bool:
    """Whether a transaction failed because of another one, so that it may be tried again as a whole."""
    import psycopg

    return isinstance(fault, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure)


def ensure_table(connection: "psycopg.Connection", contract: Contract) -> None:
    """Create the table, or add what the contract has gained: nullable columns.

    Raises:
        ContractViolation: the table differs in another way, or is another asset's; says which statement would
            mend it.
    """
    existing = _existing_columns(connection, contract)
    if any(column.type == "vector" for column in contract.columns):
        _ensure_vectors(connection, contract)
    if not existing:
        for statement in create_statements(contract):
            run(connection, statement)
        remember(connection, contract)
        record(connection, contract, {}, None, contract.partition_us)  # what a table held that was dropped
        run(connection, "DELETE FROM ledger.contracts WHERE asset = %s", [_namesake(contract)])
        return
    old = remembered(connection, contract.asset)
    if old is None and remembered(connection, _namesake(contract)) is not None:
        raise ContractViolation(
            f"{contract.asset}: the table {_name(contract)} is that of {_namesake(contract)}; give one of the two "
            f"assets another name, or run DROP TABLE {_name(contract)} if the other one is no more. Nothing was written."
        )
    if old is not None:
        refuse_new_identity(old, contract, f"DROP TABLE {_name(contract)}")
    for column in contract.columns:
        if column.name not in existing:
            _add_column(connection, contract, column)
        else:
            _same_column(contract, column, *existing[column.name])
    for name in existing.keys() - set(contract.names):
        # Columns of somebody else's are left alone, but an overwritten row would lose them.
        if contract.mode == "overwrite":
            raise ContractViolation(
                f"{contract.asset}: the table has a column {name!r} that the contract does not have; run "
                f"ALTER TABLE {_name(contract)} DROP COLUMN {quote_identifier(name)}, or add it to the contract. "
                "Nothing was written."
            )
    if old is not None and old.indexes != contract.indexes:
        for statement in _index_statements(contract):
            run(connection, statement)
    remember(connection, contract)


def _namesake(contract: Contract) -> str:
    """The asset of the other store whose tables lie here, which would be the same table."""
    return f"{'serving' if contract.store == 'postgres' else 'postgres'}/{contract.table}"


def _ensure_vectors(connection: "psycopg.Connection", contract: Contract) -> None:
    """Make pgvector's type known in the database if it is not.

    Raises:
        RuntimeError: the server does not have it, or this user may not create it.
    """
    import psycopg

    if run(connection, "SELECT to_regtype('vector') IS NOT NULL").fetchall() == [(True,)]:
        return
    try:
        with connection.transaction():
            lock(connection, "extension vector")
            run(connection, "CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.Error as fault:
        raise RuntimeError(
            f"{contract.asset} holds vectors, and this database has no pgvector ({str(fault).splitlines()[0]}): install "
            "it on the server and run CREATE EXTENSION vector as its owner. Nothing was written."
        ) from fault


def _same_column(contract: Contract, column: Column, kind: str, required: bool) -> None:
    """Refuse a column whose type or nullability in the database is not the contract's."""
    alter = f"ALTER TABLE {_name(contract)} ALTER COLUMN {quote_identifier(column.name)}"
    wanted, wants = _sql_type(column), _is_required(contract, column)
    if kind != wanted:
        difference, statement = f"is {kind} in the database and {wanted}", f"{alter} TYPE {wanted} USING ..."
    elif required != wants:
        difference = (
            f"may {'not ' if required else ''}be null in the database and may {'not ' if wants else ''}be"
        )
        statement = f"{alter} {'SET' if wants else 'DROP'} NOT NULL"
    else:
        return
    raise ContractViolation(
        f"{contract.asset}: column {column.name!r} {difference} in the contract; run {statement}, or undo the "
        "change. Nothing was written."
    )


def remember(connection: "psycopg.Connection", contract: Contract) -> None:
    """Note by which contract a table is written now."""
    ensure_ledger(connection)
    run(
        connection,
        "INSERT INTO ledger.contracts AS old VALUES (%s, %s) ON CONFLICT (asset) DO UPDATE "
        "SET contract = excluded.contract WHERE old.contract <> excluded.contract",
        [contract.asset, contract_text(contract)],
    )


def remembered(connection: "psycopg.Connection", asset: str) -> Contract | None:
    """The contract by which a table was last written; None if it never was."""
    if not table_exists(connection, "ledger", "contracts"):
        return None
    rows = run(connection, "SELECT contract FROM ledger.contracts WHERE asset = %s", [asset]).fetchall()
    return contract_of_text(rows[0][0]) if rows else None


def create_statements(contract: Contract) -> list[str]:
    """The table's DDL: columns, key, index on the partition column, HNSW on vectors."""
    table = _name(contract)
    columns = [
        f"{quote_identifier(c.name)} {_sql_type(c)}{' NOT NULL' if _is_required(contract, c) else ''}"
        for c in contract.columns
    ]
    statements = []
    if contract.key and not contract.key_by_day:
        columns.append(f"PRIMARY KEY ({', '.join(map(quote_identifier, contract.key))})")
    columns += [_foreign_key_sql(contract, key) for key in contract.foreign_keys]
    statements.append(f"CREATE TABLE {table} ({', '.join(columns)})")
    if contract.key_by_day:
        statements.append(f"CREATE UNIQUE INDEX ON {table} ({_conflict_target(contract)})")
    if contract.partition_column and contract.partition_column not in contract.key[:1]:
        statements.append(f"CREATE INDEX ON {table} ({quote_identifier(contract.partition_column)})")
    vectors = [statement for column in contract.columns for statement in _vector_index(contract, column)]
    return [*statements, *vectors, *_index_statements(contract)]


def _vector_index(contract: Contract, column: Column) -> list[str]:
    """The statement for a vector's index; none for other columns, nor for vectors that are too long for one."""
    if column.type != "vector" or (column.dimension or _INDEXED_DIMENSIONS) > _INDEXED_DIMENSIONS:
        return []
    return [
        f"CREATE INDEX ON {_name(contract)} USING hnsw ({quote_identifier(column.name)} vector_cosine_ops)"
    ]


def _foreign_key_sql(contract: Contract, key: ForeignKey) -> str:
    parent = qualified(contract.schema, key.parent)
    return (
        f"FOREIGN KEY ({quote_identifier(key.column)}) REFERENCES {parent} ({quote_identifier(key.parent_column)}) "
        "ON DELETE CASCADE"
    )


def _ensure_foreign_keys(connection: "psycopg.Connection", contract: Contract) -> None:
    """Add the foreign keys that a table lacks because its contract got them later.

    After the rows: the write may be what brings the table's rows into line with them. The table itself is asked, not
    the contract that it was last written by, which may have named a foreign key that nobody had added.
    """
    if not contract.foreign_keys:
        return
    rows = run(
        connection,
        "SELECT own.attname, parent.relname, theirs.attname FROM pg_constraint AS c "
        "JOIN pg_class AS parent ON parent.oid = c.confrelid "
        "JOIN pg_attribute AS own ON own.attrelid = c.conrelid AND own.attnum = c.conkey[1] "
        "JOIN pg_attribute AS theirs ON theirs.attrelid = c.confrelid AND theirs.attnum = c.confkey[1] "
        "WHERE c.contype = 'f' AND c.conrelid = to_regclass(%s) AND cardinality(c.conkey) = 1",
        [_name(contract)],
    ).fetchall()
    present = {ForeignKey(*row) for row in rows}
    for key in contract.foreign_keys:
        if key not in present:
            _add_foreign_key(connection, contract, key)


def _add_foreign_key(connection: "psycopg.Connection", contract: Contract, key: ForeignKey) -> None:
    import psycopg

    try:
        run(connection, f"ALTER TABLE {_name(contract)} ADD {_foreign_key_sql(contract, key)}")
    except (
        psycopg.errors.InvalidForeignKey,
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
    ) as fault:
        raise ContractViolation(
            f"{contract.asset}: column {key.column!r} cannot be held to {key.parent}.{key.parent_column} "
            f"({str(fault).splitlines()[0]}): write a table {key.parent} whose key that column is first, or take the "
            "foreign key out of the contract. Nothing was written."
        ) from fault


def _points_nowhere(contract: Contract, fault: "psycopg.Error") -> ContractViolation:
    """The error for a row whose parent is not there; the server tells which one."""
    detail = (fault.diag.message_detail or str(fault).splitlines()[0]).rstrip(".")
    drop = f"ALTER TABLE {_name(contract)} DROP CONSTRAINT {quote_identifier(fault.diag.constraint_name or '...')}"
    return ContractViolation(
        f"{contract.asset}: a row points to one that is not there ({detail}): write that one first, or mend or delete "
        f"the row; if the contract has no such foreign key any more, run {drop}. Nothing was written."
    )


def _index_statements(contract: Contract) -> list[str]:
    """Indexes on the columns that are looked up by; a document is looked up by what it contains."""
    return [
        f"CREATE INDEX IF NOT EXISTS {quote_identifier(f'{contract.table}_{name}')} ON {_name(contract)} "
        + (f"USING gin ({column} jsonb_path_ops)" if contract.by_name[name].type == "json" else f"({column})")
        for name in contract.indexes
        for column in [quote_identifier(name)]
    ]


def copy_in(
    connection: "psycopg.Connection", table: str, contract: Contract, batches: Iterable[pa.RecordBatch]
) -> None:
    """Load batches by COPY."""
    import pyarrow.csv

    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    columns = ", ".join(map(quote_identifier, contract.names))
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT csv)"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for batch in batches:
            text = io.BytesIO()
            pyarrow.csv.write_csv(_vectors_as_text(batch, contract), text, options)
            copy.write(text.getbuffer())


def read(
    connection: "psycopg.Connection",
    contract: Contract,
    columns: Sequence[str],
    window: Window = WHOLE,
    condition: str = ALWAYS,
    source: str = "",
) -> Iterator[pa.RecordBatch]:
    """Rows by COPY, streamed, in the contract's types. Nothing is read of columns that were not asked for.

    Columns that the contract has gained since the table was last written are null in every row.

    The transaction's statement time-out holds for each block of rows anew: it counts the time that the server
    takes, not the time that the consumer takes.

    Args:
        source: what to select from; the contract's table if empty.

    Raises:
        LookupError: there is no such table.
        ContractViolation: the table lacks a column that may not be null.
        TimeoutError: a block took longer.
    """
    source = source or _source(connection, contract, columns)
    schema = arrow_schema(contract, columns)
    chosen = [contract.by_name[name] for name in columns]
    selected = ", ".join(
        f"{quote_identifier(c.name)}{'::text' if c.type in ('json', 'vector') else ''}" for c in chosen
    )
    where = f"{windows_sql(contract, [window], _literal)} AND {condition}"
    statement = f"COPY (SELECT {selected} FROM {source} WHERE {where}) TO STDOUT (FORMAT csv)"
    limit_ms = _statement_timeout_ms(connection)
    run(connection, "SET LOCAL statement_timeout = 0")
    with closing(_blocks(connection, statement)) as blocks:
        while True:
            with _limited(connection, contract.asset, limit_ms / 1000):
                block = next(blocks, None)
            if block is None:
                break
            yield from _parsed(block, schema, chosen)
    run(connection, f"SET LOCAL statement_timeout = {limit_ms:d}")


def found_columns(
    connection: "psycopg.Connection", schema: str, table: str
) -> dict[str, tuple[ColumnType | None, str]]:
    """Logical type, if there is one, and the type in the database of the columns of any table or view."""
    rows = run(
        connection,
        "SELECT attname, CASE typtype WHEN 'e' THEN 'enum' ELSE typname END, format_type(atttypid, atttypmod) "
        "FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [qualified(schema, table)],
    ).fetchall()
    return {name: (_FOUND.get(kind), said) for name, kind, said in rows}


def read_found(
    connection: "psycopg.Connection",
    contract: Contract,
    schema: str,
    table: str,
    columns: Sequence[str],
    window: Window,
) -> Iterator[pa.RecordBatch]:
    """Rows of a table that another tool made, in the types of a contract made of `found_columns`.

    Raises:
        ContractViolation: a number has more digits than a double holds.
    """
    import psycopg

    kinds = {name: said for name, (_, said) in found_columns(connection, schema, table).items()}
    chosen = dict.fromkeys([*columns, *filter(None, [contract.partition_column])])
    values = ", ".join(_found_sql(contract.by_name[name], kinds.get(name, "")) for name in chosen)
    source = f"(SELECT {values} FROM {qualified(schema, table)}) AS found"
    try:
        yield from read(connection, contract, columns, window, source=source)
    except psycopg.DataError as fault:
        raise ContractViolation(
            f"{contract.asset}: {str(fault).splitlines()[0]}: convert the column in the tool that makes the table, to "
            "double precision for instance, or name the columns to read in the metadata 'columns' of the input."
        ) from fault


def found_in_postgres(connect: Callable[..., Any], place: Place) -> Found | None:
    """A table of PostgreSQL; None if there is none.

    Args:
        connect: `PostgresResource.connect`.
    """
    schema = place.schema or "public"
    with connect() as connection:
        kinds = found_columns(connection, schema, place.table)

    def read(contract: Contract, columns: Sequence[str], window: Window) -> Generator[pa.RecordBatch]:
        with connect(write=True) as connection:
            yield from read_found(connection, contract, schema, place.table, columns, window)

    return found_table(place, kinds, read) if kinds else None


def _found_sql(column: Column, kind: str) -> str:
    name = quote_identifier(column.name)
    value = f"{name}::{_TYPES[column.type]}"
    if kind.startswith("numeric"):
        # There is no other way to raise an error that names the value.
        told = f"({quote_literal(f'more digits than a double holds in {column.name}: ')} || {name})::double precision"
        value = f"CASE WHEN {value}::text::numeric = {name} OR {name} IS NULL THEN {value} ELSE {told} END"
    return f"{value} AS {name}"


def _source(connection: "psycopg.Connection", contract: Contract, columns: Sequence[str]) -> str:
    """What to select columns of a contract from: the table, and nulls for columns that it does not have yet."""
    existing = _existing_columns(connection, contract)
    if not existing:
        raise never_written(contract.asset)
    missing = [column for column in contract.columns if column.name not in existing]
    for column in missing:
        if _is_required(contract, column) and column.name in (*columns, contract.partition_column):
            raise ContractViolation(_valueless(contract, column))
    nulls = "".join(f", NULL AS {quote_identifier(column.name)}" for column in missing)
    return f"(SELECT *{nulls} FROM {_name(contract)}) AS complete" if missing else _name(contract)


def _statement_timeout_ms(connection: "psycopg.Connection") -> int:
    found = run(
        connection, "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'"
    ).fetchone()
    return found[0] if found else 0


def _blocks(connection: "psycopg.Connection", statement: str) -> Generator[bytes]:
    """What COPY gives, as blocks of whole rows."""
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        block = bytearray()
        for row in copy:
            block += row
            if len(block) >= _READ_BYTES:
                yield bytes(block)
                block.clear()
        if block:
            yield bytes(block)


@contextmanager
def _limited(connection: "psycopg.Connection", asset: str, seconds: float) -> Iterator[None]:
    """Cancel what the connection waits for if the block takes longer; 0 is no limit."""
    import psycopg

    expired = threading.Event()

    def cancel() -> None:
        expired.set()
        connection.cancel_safe()

    timer = threading.Timer(seconds, cancel)
    timer.daemon = True
    if seconds:
        timer.start()
    try:
        yield
    except psycopg.errors.QueryCanceled as fault:
        if not expired.is_set():
            raise
        raise TimeoutError(
            f"{asset}: PostgreSQL gave no rows for longer than {seconds:g} s: read fewer, or raise "
            "ML_ASSETS_WRITE_TIMEOUT_S."
        ) from fault
    finally:
        timer.cancel()


def table_exists(connection: "psycopg.Connection", schema: str, table: str) -> bool:
    """Whether there is such a table."""
    found = run(connection, "SELECT to_regclass(%s) IS NOT NULL", [qualified(schema, table)]).fetchone()
    return bool(found and found[0])


def ensure_ledger(connection: "psycopg.Connection") -> None:
    """Create the ledger of writes if it is not there."""
    if not table_exists(connection, "ledger", "contracts"):
        lock(connection, "ledger")
        run(connection, _LEDGER)


def known_contracts(connection: "psycopg.Connection", store: str) -> list[Contract]:
    """Of each table of a store that keeps its books here, the contract that it was last written by."""
    if not table_exists(connection, "ledger", "contracts"):
        return []
    rows = run(
        connection,
        "SELECT contract FROM ledger.contracts WHERE starts_with(asset, %s) ORDER BY asset",
        [f"{store}/"],
    ).fetchall()
    return [contract_of_text(text) for (text,) in rows]


def recorded_buckets(
    connection: "psycopg.Connection", contract: Contract, any_version: bool = False
) -> Buckets:
    """What the ledger says of a table; nothing of what was hashed in another way, unless that is asked for."""
    if not table_exists(connection, "ledger", "writes"):
        return {}
    rows = run(
        connection,
        "SELECT partition, rows, bytes, content_hash FROM ledger.writes "
        "WHERE store = %s AND table_name = %s AND (hash_version = %s OR %s)",
        [contract.store, contract.table, HASH_VERSION, any_version],
    ).fetchall()
    return {bucket_of_name(name): PartitionState(*state) for name, *state in rows}


def record(
    connection: "psycopg.Connection",
    contract: Contract,
    held: Buckets,
    buckets: Iterable[int] | None,
) -> None:
    """Note what some partitions (None: all) hold now; those that hold nothing are forgotten."""
    ensure_ledger(connection)
    names = None if buckets is None else [bucket_name(bucket, contract) for bucket in buckets]
    run(
        connection,
        "DELETE FROM ledger.writes WHERE store = %s AND table_name = %s AND (%s::text[] IS NULL OR partition = ANY(%s))",
        [contract.store, contract.table, names, names],
    )
    now = datetime.now(UTC)
    rows = [
        (
            contract.store,
            contract.table,
            bucket_name(bucket, contract),
            state.rows,
            state.bytes,
            state.content_hash,
            HASH_VERSION,
            now,
        )
        for bucket, state in held.items()
        if buckets is None or bucket in set(buckets)
    ]
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO ledger.writes VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", rows)


def owned_sql(contract: Contract) -> str:
    """Condition for the rows that this contract's writer owns."""
    parts = [f"{quote_identifier(name)} = {quote_literal(value)}" for name, value in contract.scope]
    return " AND ".join(parts) or ALWAYS


def measured_buckets(connection: "psycopg.Connection", contract: Contract) -> Buckets:
    """The partitions as they are in the table now, read and hashed."""
    return _measured(connection, contract, WHOLE)


def _measured(connection: "psycopg.Connection", contract: Contract, window: Window) -> Buckets:
    if not table_exists(connection, contract.schema, contract.table):
        return {}
    batches = read(connection, contract, contract.names, window, owned_sql(contract))
    return measure(batches, contract)


def _replace(connection: "psycopg.Connection", contract: Contract, staged: Staged, changed: set[int]) -> None:
    """Delete and insert."""
    import psycopg

    try:
        with connection.transaction():
            run(connection, f"DELETE FROM {_name(contract)} WHERE {_slice_sql(contract, staged, changed)}")
            copy_in(connection, _name(contract), contract, staged.batches(changed))
    except psycopg.errors.UniqueViolation:
        # The index names the key only; this tells where it stands.
        _partitions_losing_rows(connection, contract, staged, _stage(connection, contract, staged, changed))
        raise


def _merge(
    connection: "psycopg.Connection", contract: Contract, staged: Staged, changed: set[int]
) -> set[int]:
    """Upsert and delete by way of a temporary table; returns the partitions that rows were taken from."""
    table, stage = _name(contract), _stage(connection, contract, staged, changed)
    _refuse_foreign(connection, contract, stage)
    losing_rows = _partitions_losing_rows(connection, contract, staged, stage)
    run(
        connection,
        f"DELETE FROM {table} AS old WHERE {_slice_sql(contract, staged, changed)} "
        f"AND NOT EXISTS (SELECT FROM {stage} AS new WHERE {_same_key(contract)})",
    )
    _insert_or_update(connection, contract, stage)
    return losing_rows


def _upsert(connection: "psycopg.Connection", contract: Contract, staged: Staged) -> bool:
    every = set(staged.buckets)
    stage = _stage(connection, contract, staged, every)
    _refuse_foreign(connection, contract, stage)
    losing_rows = _partitions_losing_rows(connection, contract, staged, stage)
    changed = bool(_insert_or_update(connection, contract, stage))
    if changed or not _as_noted(connection, contract, every, staged):
        _measure_again(connection, contract, every | losing_rows, staged)
    return changed


def _as_noted(
    connection: "psycopg.Connection", contract: Contract, buckets: set[int], staged: Staged
) -> bool:
    """Whether some partitions hold as many rows as the ledger says. An application may have added its own.

    Only counted: an upsert with changes reads and hashes these rows, which takes much longer.
    """
    if not buckets:
        return True
    where = windows_sql(contract, spans_of(buckets, contract), _literal)
    statement = f"SELECT count(*) FROM {_name(contract)} WHERE {where} AND {owned_sql(contract)}"
    noted = recorded_buckets(connection, contract)
    rows = sum(state.rows for bucket, state in noted.items() if bucket in buckets)
    return run(connection, statement).fetchall() == [(rows,)]


def _stage(connection: "psycopg.Connection", contract: Contract, staged: Staged, buckets: set[int]) -> str:
    stage = quote_identifier(f"stage {contract.table}")
    run(connection, f"DROP TABLE IF EXISTS pg_temp.{stage}")
    columns = ", ".join(f"{quote_identifier(c.name)} {_sql_type(c)}" for c in contract.columns)
    run(connection, f"CREATE TEMPORARY TABLE {stage} ({columns}) ON COMMIT DROP")
    copy_in(connection, stage, contract, staged.batches(buckets))
    run(connection, f"ANALYZE {stage}")
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
        f"INSERT INTO {_name(contract)} AS old ({names}) SELECT {names} FROM {stage} "
        f"ON CONFLICT ({_conflict_target(contract)}) DO {action}",
    )
    return cursor.rowcount


def _refuse_foreign(connection: "psycopg.Connection", contract: Contract, stage: str) -> None:
    if not contract.scope:
        return
    keys = ", ".join(f"old.{quote_identifier(k)}" for k in contract.key)
    mine = " AND ".join(
        f"old.{quote_identifier(name)} = {quote_literal(value)}" for name, value in contract.scope
    )
    found = run(
        connection,
        f"SELECT {keys} FROM {_name(contract)} AS old JOIN {stage} AS new ON {_same_key(contract)} "
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
        f"SELECT DISTINCT ON (1) {was}, {keys} FROM {_name(contract)} AS old JOIN {stage} AS new "
        f"ON {_same_key(contract)} WHERE {was} <> {now} ORDER BY {', '.join(map(str, range(1, len(contract.key) + 2)))}",
    ).fetchall()
    return staged.partitions_losing_rows(found)


def _measure_again(
    connection: "psycopg.Connection", contract: Contract, buckets: set[int], staged: Staged
) -> None:
    """Record partitions whose content is not what was staged: upserted ones, and those that lost rows."""
    if not buckets:
        return
    where = windows_sql(contract, spans_of(buckets, contract), _literal)
    batches = read(connection, contract, contract.names, WHOLE, f"{where} AND {owned_sql(contract)}")
    record(connection, contract, measure(batches, contract), buckets)


def _slice_sql(contract: Contract, staged: Staged, buckets: set[int]) -> str:
    return f"{windows_sql(contract, spans(staged, buckets), _literal)} AND {owned_sql(contract)}"


def _literal(moment: datetime) -> str:
    # Not strftime, which writes the year 999 with three digits.
    # With its type: a date would otherwise be compared with the literal's date alone.
    return quote_literal(moment.astimezone(UTC).isoformat(" ", "microseconds")) + "::timestamptz"


def _name(contract: Contract) -> str:
    return qualified(contract.schema, contract.table)


def _sql_type(column: Column) -> str:
    return (
        f"vector({column.dimension})" if column.type == "vector" and column.dimension else _TYPES[column.type]
    )


def _conflict_target(contract: Contract) -> str:
    """What a key is unique within: the table, or the day."""
    return ", ".join(_unique_parts(contract))


def _same_key(contract: Contract) -> str:
    """Condition for two rows, `old` and `new`, that may not stand side by side."""
    pairs = zip(_unique_parts(contract, "old."), _unique_parts(contract, "new."), strict=True)
    return joined([f"{old} = {new}" for old, new in pairs], "AND")


def _unique_parts(contract: Contract, row: str = "") -> list[str]:
    parts = [f"{row}{quote_identifier(name)}" for name in contract.key]
    if not contract.key_by_day or contract.partition_column is None:
        return parts
    column = f"{row}{quote_identifier(contract.partition_column)}"
    is_date = contract.by_name[contract.partition_column].type == "date"
    return [*parts, column if is_date else f"(({column} AT TIME ZONE 'UTC')::date)"]


def _is_required(contract: Contract, column: Column) -> bool:
    return not column.nullable or column.name in (*contract.key, contract.partition_column)


def _existing_columns(connection: "psycopg.Connection", contract: Contract) -> dict[str, tuple[str, bool]]:
    """Type and whether it may not be null, of each column that the table has."""
    rows = run(
        connection,
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        [_name(contract)],
    ).fetchall()
    return {name: (kind, required) for name, kind, required in rows}


def _add_column(connection: "psycopg.Connection", contract: Contract, column: Column) -> None:
    if _is_required(contract, column):
        raise ContractViolation(f"{_valueless(contract, column)} Nothing was written.")
    for statement in (_add_column_sql(contract, column), *_vector_index(contract, column)):
        run(connection, statement)


def _valueless(contract: Contract, column: Column) -> str:
    """What is said of a new column that may not be null."""
    return (
        f"{contract.asset}: the contract has a new column {column.name!r} that may not be null, and the table's rows "
        f"have no value for it; run {_add_column_sql(contract, column)} NOT NULL DEFAULT ..., or make it nullable."
    )


def _add_column_sql(contract: Contract, column: Column) -> str:
    return f"ALTER TABLE {_name(contract)} ADD COLUMN {quote_identifier(column.name)} {_sql_type(column)}"


def _vectors_as_text(batch: pa.RecordBatch, contract: Contract) -> pa.RecordBatch:
    """CSV has no lists: vectors in pgvector's own notation, [1,2,3]."""
    arrays = []
    for column in contract.columns:
        array = batch.column(column.name)
        if column.type == "vector":
            array = vectors_to_text(array)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, names=list(contract.names))


def _parsed(block: bytes, schema: pa.Schema, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """A block of whole CSV rows as batches."""
    import pyarrow.csv

    plain = {
        c.name: pa.string() if c.type in ("json", "vector") else schema.field(c.name).type for c in columns
    }
    table = pyarrow.csv.read_csv(
        io.BytesIO(block),
        pyarrow.csv.ReadOptions(column_names=list(plain), block_size=len(block) + 1),
        # A null that stands alone is an empty line.
        pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pyarrow.csv.ConvertOptions(
            column_types=plain,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    for batch in table.to_batches():
        arrays = [_restored(batch.column(column.name), column) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _restored(array: pa.Array, column: Column) -> pa.Array:
    if column.type == "json":
        return pa.array(restored_all(array.to_pylist()), pa.string())
    if column.type == "vector":
        return vectors_from_text(array)
    return array
