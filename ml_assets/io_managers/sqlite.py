"""Tables in a SQLite file: one transaction a write.

What belongs here: DDL, encoding of values, merge and ledger for SQLite. Times are ISO 8601 text in UTC with
microseconds, JSON and vectors are text, so that the file can be read with any tool. What does not:
anything about another store.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.lib.sql import (
    ALWAYS,
    NEVER,
    first_date,
    joined,
    qualified,
    quote_identifier,
    quote_literal,
    utc_text,
)
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.tables.validation import WHOLE, Limits, Window

if TYPE_CHECKING:
    import sqlite3

    import pyarrow as pa

    from ml_assets.contracts import ColumnType
    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Buckets, Staged, TableState

_TYPES = {
    "string": "TEXT",
    "int64": "INTEGER",
    "float64": "REAL",
    "bool": "INTEGER",
    "timestamp": "TEXT",
    "date": "TEXT",
    "json": "TEXT",
    "vector": "TEXT",
}
_READ_ROWS = 20_000
_DAY_US = 86_400_000_000
_LEDGER = "ml_assets_writes"
_CONTRACTS = "ml_assets_contracts"
_LEDGER_TABLES = (
    f"CREATE TABLE IF NOT EXISTS {_LEDGER} (table_name TEXT, partition TEXT, rows INTEGER NOT NULL, "
    "bytes INTEGER NOT NULL, content_hash TEXT NOT NULL, hash_version TEXT NOT NULL, written_at TEXT NOT NULL, "
    "PRIMARY KEY (table_name, partition))",
    f"CREATE TABLE IF NOT EXISTS {_CONTRACTS} (asset TEXT PRIMARY KEY, contract TEXT NOT NULL)",
)


class SQLiteIOManager(TableIOManager):
    """Writes and reads tables of a SQLite file.

    Args:
        sqlite: the file.
    """

    store: ClassVar[str] = "sqlite"
    limits: ClassVar[Limits] = Limits("SQLite", nul=False, nan=False, columns=2_000, row_bytes=1_000_000_000)

    sqlite: SQLiteResource

    def _write(self, contract: Contract, staged: "Staged") -> bool:
        with self.sqlite.connect(write=True) as connection:
            return write(connection, contract, staged)

    def _read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.tables.arrow_types import arrow_schema

        def batches() -> "Iterator[pa.RecordBatch]":
            with self.sqlite.connect() as connection:
                yield from self.sqlite.streamed(connection, _select(connection, contract, columns, [window]))

        return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())

    def _found(self, place: "Place") -> "Found | None":
        from ml_assets.tables.found import found_table

        with self.sqlite.connect() as connection:
            kinds = _found_kinds(connection, place.table)

        def read(contract: Contract, columns: Sequence[str], window: Window) -> "Generator[pa.RecordBatch]":
            with self.sqlite.connect() as connection:
                rows = _select(connection, contract, columns, [window], place.table)
                yield from self.sqlite.streamed(connection, rows)

        return found_table(place, kinds, read) if kinds else None

    def _remembered(self, asset: str) -> Contract | None:
        with self.sqlite.connect() as connection:
            return _remembered(connection, asset)


def known(sqlite: SQLiteResource) -> list[Contract]:
    """Of each table that was written and is there, the contract that it was last written by."""
    from ml_assets.tables.contract_json import contract_of_text

    with sqlite.connect() as connection:
        if not _columns(connection, _CONTRACTS):
            return []
        rows = connection.execute(f"SELECT contract FROM {_CONTRACTS} ORDER BY asset").fetchall()
        contracts = [contract_of_text(text) for (text,) in rows]
        return [each for each in contracts if _columns(connection, each.table)]


def recorded(sqlite: SQLiteResource, contract: Contract, any_version: bool = False) -> "TableState":
    """Rows and content hash as noted when the table was written; of what was hashed in another way only if asked for."""
    from ml_assets.tables.staging import table_state

    with sqlite.connect() as connection:
        return table_state(_recorded(connection, contract, any_version))


def measured(sqlite: SQLiteResource, contract: Contract) -> "TableState":
    """Rows and content hash of what the table holds now."""
    from ml_assets.tables.staging import measure, table_state

    with sqlite.connect() as connection:
        if not _columns(connection, contract.table):
            return table_state({})
        return table_state(measure(_select(connection, contract, contract.names, [WHOLE]), contract))


def write(connection: "sqlite3.Connection", contract: Contract, staged: "Staged") -> bool:
    """Put staged rows in place within the open transaction; returns whether anything had to be changed.

    Raises:
        ContractViolation: the table in the file is not the contract's, or a foreign key points nowhere.
    """
    from ml_assets.tables.staging import confirmed, measure

    before = _remembered(connection, contract.asset) if contract.foreign_keys else None
    ensure_table(connection, contract)
    if contract.mode == "upsert":
        written = _upsert(connection, contract, staged)
        staged.held = _recorded(connection, contract)
        return written
    changed = confirmed(
        staged,
        _recorded(connection, contract),
        lambda window: measure(
            _select(connection, contract, contract.names, [window]), contract, staged.bucket_us
        ),
    )
    if not changed:
        if before is not None and set(contract.foreign_keys) - set(before.foreign_keys):
            _check_foreign_keys(connection, contract)
        return False
    displaced = _put(connection, contract, staged, changed)
    _check_foreign_keys(connection, contract)
    _record(connection, contract, staged.buckets, None if staged.window.whole else changed, staged.bucket_us)
    _measure_again(connection, contract, displaced - changed, staged.bucket_us)
    return True


def _upsert(connection: "sqlite3.Connection", contract: Contract, staged: "Staged") -> bool:
    every = set(staged.buckets)
    _fill_stage(connection, contract, staged, every)
    displaced = _displaced(connection, contract, staged)
    if not _insert_or_update(connection, contract):
        return False
    _check_foreign_keys(connection, contract)
    _measure_again(connection, contract, every | displaced, staged.bucket_us)
    return True


def _put(
    connection: "sqlite3.Connection", contract: Contract, staged: "Staged", changed: set[int]
) -> set[int]:
    """Delete and insert, or merge; returns the partitions that rows were taken from."""
    from sqlite3 import IntegrityError

    from ml_assets.tables.arrow_types import key_taken
    from ml_assets.tables.staging import spans, windows_sql

    if contract.mode == "overwrite" and not contract.unique_across_days:
        where = windows_sql(contract, spans(staged, changed), _time_literal(contract))
        connection.execute(f"DELETE FROM {_table(contract)} WHERE {where}")
        try:
            _insert(connection, _table(contract), contract, staged, changed)
        except IntegrityError as fault:
            if "UNIQUE" not in str(fault):
                raise
            # The index names itself only; this tells which key it is, and where it stands.
            _fill_stage(connection, contract, staged, changed)
            _displaced(connection, contract, staged)
            raise key_taken(contract, str(fault)) from fault
        return set()
    _fill_stage(connection, contract, staged, changed)
    displaced = _displaced(connection, contract, staged)
    _merge(connection, contract, staged, changed)
    return displaced


def _insert(
    connection: "sqlite3.Connection",
    table: str,
    contract: Contract,
    staged: "Staged",
    buckets: set[int] | None,
) -> None:
    names = ", ".join(map(quote_identifier, contract.names))
    statement = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(contract.columns))})"
    for batch in staged.batches(buckets):
        connection.executemany(statement, _encoded(batch, contract))


def ensure_table(connection: "sqlite3.Connection", contract: Contract) -> None:
    """Create the table, or add the nullable columns that the contract has gained.

    Raises:
        ContractViolation: the table differs in another way, or cannot have its name; says what to do.
    """
    from ml_assets.tables.contract_json import contract_text, refuse_new_identity

    for statement in _LEDGER_TABLES:
        connection.execute(statement)
    existing = _columns(connection, contract.table)
    old = _remembered(connection, contract.asset)
    _refuse_name(connection, contract)
    if existing:
        if old is not None:
            refuse_new_identity(
                old, contract, f"DROP TABLE {quote_identifier(contract.table)}", stored=_TYPES
            )
        _fit_columns(connection, contract, existing)
    else:
        connection.execute(_create_statement(contract))
        _record(connection, contract, {}, None, contract.partition_us)  # what a table held that was dropped
    made = _made_indexes(connection, contract)
    for covered, statement in _indexes(contract).items():
        if covered not in made:
            connection.execute(statement)
    if not existing or old != contract:
        connection.execute(
            f"INSERT OR REPLACE INTO {_CONTRACTS} VALUES (?, ?)", [contract.asset, contract_text(contract)]
        )


def _table(contract: Contract) -> str:
    """The table in SQL. Its name alone might mean a temporary table, which SQLite looks for first."""
    return qualified("main", contract.table)


def _refuse_name(connection: "sqlite3.Connection", contract: Contract) -> None:
    """Refuse a name that something else has. Tables, views and indexes have one list of names, in any case."""
    from ml_assets.errors import ContractViolation

    name = contract.table
    if name in (_LEDGER, _CONTRACTS) or _folded(name).startswith(b"sqlite_"):
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


def _folded(name: str) -> bytes:
    """What SQLite compares of a name: letters of ASCII in lower case, and in no other alphabet."""
    return name.encode().lower()


def _fit_columns(
    connection: "sqlite3.Connection", contract: Contract, existing: dict[str, tuple[str, bool]]
) -> None:
    """Add nullable columns that the table lacks, refuse what else differs. SQLite cannot alter a column."""
    from ml_assets.errors import ContractViolation

    table = quote_identifier(contract.table)
    spelled = {_folded(name): name for name in existing}
    for column in contract.columns:
        kind, required = _TYPES[column.type], _is_required(contract, column)
        other = spelled.get(_folded(column.name), column.name)
        if other != column.name:
            difference = (
                f"column {column.name!r} is {other!r} in the file, and SQLite takes them for one; run ALTER TABLE "
                f"{table} RENAME COLUMN {quote_identifier(other)} TO {quote_identifier(column.name)}"
            )
        elif column.name in existing and existing[column.name] != (kind, required):
            was, is_now = (
                f"{k}{' NOT NULL' if r else ''}" for k, r in (existing[column.name], (kind, required))
            )
            difference = (
                f"column {column.name!r} is {was} in the file and {is_now} in the contract; run "
                f"{_rebuild(connection, contract)}"
            )
        elif column.name not in existing and required:
            difference = (
                f"the contract has a new column {column.name!r} that may not be null, and the table's rows have no "
                f"value for it; run {_rebuild(connection, contract)}, make it nullable"
            )
        else:
            if column.name not in existing:
                connection.execute(
                    f"ALTER TABLE {_table(contract)} ADD COLUMN {quote_identifier(column.name)} {kind}"
                )
            continue
        raise ContractViolation(f"{contract.asset}: {difference}, or undo the change. Nothing was written.")
    for name in existing.keys() - set(contract.names):
        # Columns of somebody else's are left alone, but an overwritten row would lose them.
        if contract.mode == "overwrite":
            raise ContractViolation(
                f"{contract.asset}: the table has a column {name!r} that the contract does not have; run ALTER TABLE "
                f"{table} DROP COLUMN {quote_identifier(name)}, or add it to the contract. Nothing was written."
            )


def _rebuild(connection: "sqlite3.Connection", contract: Contract) -> str:
    """What makes way for a new table and keeps the old one."""
    # The indexes keep their names when the table is renamed, and the new table's could not be made.
    rows = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL ORDER BY name",
        [contract.table],
    ).fetchall()
    drops = "".join(f" and DROP INDEX IF EXISTS {quote_identifier(name)}" for (name,) in rows)
    table, old = quote_identifier(contract.table), quote_identifier(f"old_{contract.table}")
    return f"ALTER TABLE {table} RENAME TO {old}{drops}, materialize again"


def _create_statement(contract: Contract) -> str:
    """The table's DDL: columns, key, foreign keys (which follow a deleted parent)."""
    columns = [
        f"{quote_identifier(c.name)} {_TYPES[c.type]}{' NOT NULL' if _is_required(contract, c) else ''}"
        for c in contract.columns
    ]
    columns += [
        f"FOREIGN KEY ({quote_identifier(key.column)}) REFERENCES {quote_identifier(key.parent)} "
        f"({quote_identifier(key.parent_column)}) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
        for key in contract.foreign_keys
    ]
    if contract.key and not contract.key_by_day:
        columns.append(f"PRIMARY KEY ({', '.join(map(quote_identifier, contract.key))})")
    return f"CREATE TABLE {_table(contract)} ({', '.join(columns)})"


def _indexes(contract: Contract) -> dict[str, str]:
    """By what an index covers, the statement that makes it.

    Its name has a dot, `orders.day`, since a table may be called `orders_day`, and names of tables and indexes
    must differ.
    """
    found = {}
    looked_up = (*(key.column for key in contract.foreign_keys), *contract.indexes)
    for column in [contract.partition_column, *looked_up]:
        if column:
            found[_covered(contract, quote_identifier(column))] = "INDEX", f"{contract.table}.{column}"
    if contract.key_by_day:
        # In parentheses: `key` may be a column that has an index, too.
        covered = _covered(contract, _conflict_target(contract))
        found[covered] = "UNIQUE INDEX", f"{contract.table}.(key)"
    return {
        covered: f"CREATE {kind} {qualified('main', name)} {covered}"
        for covered, (kind, name) in found.items()
    }


def _covered(contract: Contract, expression: str) -> str:
    """The end of an index's statement, as SQLite keeps it; an index on a table of `main` names that alone."""
    return f"ON {quote_identifier(contract.table)} ({expression})"


def _made_indexes(connection: "sqlite3.Connection", contract: Contract) -> set[str]:
    """What those of the contract's indexes cover that the table has, by whatever name: older files have others."""
    rows = connection.execute(
        "SELECT sql FROM main.sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
        [contract.table],
    ).fetchall()
    return {covered for covered in _indexes(contract) if any(sql.endswith(covered) for (sql,) in rows)}


def _conflict_target(contract: Contract) -> str:
    """What a key is unique within: the table, or the day (the first ten characters of the time)."""
    return ", ".join(_unique_parts(contract))


def _same_key(contract: Contract) -> str:
    """Condition for two rows, `old` and `new`, that may not stand side by side."""
    pairs = zip(_unique_parts(contract, "old."), _unique_parts(contract, "new."), strict=True)
    same = [f"{old} = {new}" for old, new in pairs]
    return joined(same, "AND") if same else NEVER


def _unique_parts(contract: Contract, row: str = "") -> list[str]:
    parts = [f"{row}{quote_identifier(name)}" for name in contract.key]
    if contract.key_by_day and contract.partition_column:
        parts.append(f"substr({row}{quote_identifier(contract.partition_column)}, 1, 10)")
    return parts


def _is_required(contract: Contract, column: Column) -> bool:
    return not column.nullable or column.name in (*contract.key, contract.partition_column)


def _columns(connection: "sqlite3.Connection", table: str) -> dict[str, tuple[str, bool]]:
    """Type and whether it may not be null, of each column that the table has; none if there is no such table."""
    # By way of the list of tables, since the pragma would find "Orders" for "orders".
    rows = connection.execute(
        'SELECT made.name, made.type, made."notnull" FROM main.sqlite_master AS held, '
        "pragma_table_info(held.name, 'main') AS made WHERE held.name = ? AND held.type IN ('table', 'view')",
        [table],
    ).fetchall()
    return {name: (kind, bool(required)) for name, kind, required in rows}


def _remembered(connection: "sqlite3.Connection", asset: str) -> Contract | None:
    """The contract by which a table was last written; None if it never was."""
    from ml_assets.tables.contract_json import contract_of_text

    if not _columns(connection, _CONTRACTS):
        return None
    rows = connection.execute(f"SELECT contract FROM {_CONTRACTS} WHERE asset = ?", [asset]).fetchall()
    return contract_of_text(rows[0][0]) if rows else None


def _fill_stage(
    connection: "sqlite3.Connection", contract: Contract, staged: "Staged", buckets: set[int]
) -> None:
    columns = ", ".join(f"{quote_identifier(c.name)} {_TYPES[c.type]}" for c in contract.columns)
    key = f", PRIMARY KEY ({_stage_key(contract)})" if contract.key else ""
    connection.execute("DROP TABLE IF EXISTS temp.stage")
    connection.execute(f"CREATE TEMPORARY TABLE stage ({columns}{key})")
    _insert(connection, "temp.stage", contract, staged, buckets)


def _stage_key(contract: Contract) -> str:
    names = [*contract.key, contract.partition_column or ""] if contract.key_by_day else contract.key
    return ", ".join(map(quote_identifier, dict.fromkeys(names)))


def _merge(connection: "sqlite3.Connection", contract: Contract, staged: "Staged", changed: set[int]) -> None:
    from ml_assets.tables.staging import spans, windows_sql

    where = windows_sql(contract, spans(staged, changed), _time_literal(contract))
    connection.execute(
        f"DELETE FROM {_table(contract)} AS old WHERE {where} "
        f"AND NOT EXISTS (SELECT 1 FROM temp.stage AS new WHERE {_same_key(contract)})"
    )
    _insert_or_update(connection, contract)


def _insert_or_update(connection: "sqlite3.Connection", contract: Contract) -> int:
    """Merge the stage into the table; returns how many rows that changed."""
    names = ", ".join(map(quote_identifier, contract.names))
    values = [quote_identifier(name) for name in contract.names if name not in contract.key]
    action = "NOTHING"
    if values:
        # `IS NOT` compares nulls, too: only rows that differ are written.
        differs = joined([f"old.{name} IS NOT excluded.{name}" for name in values], "OR")
        action = f"UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in values)} WHERE {differs}"
    conflict = f"ON CONFLICT ({_conflict_target(contract)}) DO {action}" if contract.key else ""
    # A WHERE: without it SQLite reads ON as part of a join.
    cursor = connection.execute(
        f"INSERT INTO {_table(contract)} AS old ({names}) SELECT {names} FROM temp.stage WHERE {ALWAYS} {conflict}"
    )
    connection.execute("DROP TABLE temp.stage")
    return cursor.rowcount


def _displaced(connection: "sqlite3.Connection", contract: Contract, staged: "Staged") -> set[int]:
    """Partitions that hold rows which will move into others because their time has changed.

    Raises:
        ContractViolation: such a row may not move, being outside the slice.
    """
    if contract.partition_column is None or (contract.key_by_day and staged.bucket_us == _DAY_US):
        return set()
    was, now = (
        _bucket_sql(f"{side}.{quote_identifier(contract.partition_column)}", staged.bucket_us)
        for side in ("old", "new")
    )
    keys = ", ".join(f"old.{quote_identifier(name)}" for name in contract.key)
    found = connection.execute(
        f"SELECT {was}, {keys} FROM {_table(contract)} AS old JOIN temp.stage AS new "
        f"ON {_same_key(contract)} WHERE {was} <> {now} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return staged.taken_from(found)


def _bucket_sql(moment: str, bucket_us: int) -> str:
    """Start of the partition that a time lies in; floor, also before 1970."""
    # Without the fraction, which SQLite rounds: the last half millisecond of a day would be the next day's.
    seconds, length = f"unixepoch(substr({moment}, 1, 19))", bucket_us // 1_000_000
    return f"({seconds} - ({seconds} % {length} + {length}) % {length}) * 1000000"


def _check_foreign_keys(connection: "sqlite3.Connection", contract: Contract) -> None:
    from ml_assets.errors import ContractViolation

    if not contract.foreign_keys:
        return
    for key in contract.foreign_keys:
        child, parent = qualified("child", key.column), qualified("parent", key.parent_column)
        orphans = connection.execute(
            f"SELECT DISTINCT {child} FROM {_table(contract)} AS child WHERE {child} IS NOT NULL AND {child} "
            f"NOT IN (SELECT {parent} FROM {qualified('main', key.parent)} AS parent) LIMIT 3"
        ).fetchall()
        if orphans:
            raise ContractViolation(
                f"{contract.asset}: column {key.column!r} holds {', '.join(repr(v) for (v,) in orphans)}, which "
                f"{key.parent}.{key.parent_column} does not have: write {key.parent} first. Nothing was written."
            )


def _recorded(connection: "sqlite3.Connection", contract: Contract, any_version: bool = False) -> "Buckets":
    from ml_assets.tables.hashing import HASH_VERSION
    from ml_assets.tables.staging import PartitionState, bucket_of_name

    if not _columns(connection, _LEDGER):
        return {}
    rows = connection.execute(
        f"SELECT partition, rows, bytes, content_hash FROM {_LEDGER} "
        "WHERE table_name = ? AND (hash_version = ? OR ?)",
        [contract.table, HASH_VERSION, any_version],
    ).fetchall()
    return {bucket_of_name(name): PartitionState(*state) for name, *state in rows}


def _record(
    connection: "sqlite3.Connection",
    contract: Contract,
    held: "Buckets",
    buckets: Iterable[int] | None,
    bucket_us: int,
) -> None:
    """Note what some partitions (None: all) hold now; those that hold nothing are forgotten."""
    from ml_assets.tables.hashing import HASH_VERSION
    from ml_assets.tables.staging import bucket_name

    if buckets is None:
        connection.execute(f"DELETE FROM {_LEDGER} WHERE table_name = ?", [contract.table])
    else:
        names = [(contract.table, bucket_name(bucket, contract, bucket_us)) for bucket in buckets]
        # Also by the name without zeros in front that partitions before the year 1000 once had.
        connection.executemany(
            f"DELETE FROM {_LEDGER} WHERE table_name = ?1 AND partition IN (?2, ltrim(?2, '0'))", names
        )
    now = utc_text(datetime.now(UTC))
    connection.executemany(
        f"INSERT INTO {_LEDGER} VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                contract.table,
                bucket_name(b, contract, bucket_us),
                s.rows,
                s.bytes,
                s.content_hash,
                HASH_VERSION,
                now,
            )
            for b, s in held.items()
            if buckets is None or b in buckets
        ],
    )


def _measure_again(
    connection: "sqlite3.Connection", contract: Contract, buckets: set[int], bucket_us: int
) -> None:
    """Record partitions whose content is not what was staged: upserted ones, and those that lost rows."""
    from ml_assets.tables.staging import measure, spans_of

    if buckets:
        windows = spans_of(buckets, bucket_us)
        held = measure(_select(connection, contract, contract.names, windows), contract, bucket_us)
        _record(connection, contract, held, buckets, bucket_us)


def _found_kinds(connection: "sqlite3.Connection", table: str) -> "dict[str, tuple[ColumnType | None, str]]":
    """Logical type, if there is one, and SQLite's of the columns that another tool made.

    A type that is declared binds nobody, and the result of an expression has none: the values tell.
    """
    declared = {name: kind.upper() for name, (kind, _) in _columns(connection, table).items()}
    if not declared:
        return {}
    kinds = ", ".join(f"group_concat(DISTINCT typeof({quote_identifier(name)}))" for name in declared)
    found = connection.execute(f"SELECT {kinds} FROM {qualified('main', table)}").fetchone()
    return {
        name: _found_kind(said, set(str(values or "null").split(",")) - {"null"})
        for (name, said), values in zip(declared.items(), found, strict=True)
    }


def _found_kind(declared: str, values: set[str]) -> "tuple[ColumnType | None, str]":
    if not values:
        affinities = {"INT": "integer", "REAL": "real", "FLOA": "real", "DOUB": "real"}
        values = {kind for mark, kind in affinities.items() if mark in declared} or {"text"}
    told = f"{declared} with {' and '.join(sorted(values))}"
    if values == {"integer"}:
        return ("bool" if declared.startswith("BOOL") else "int64"), told
    if values <= {"integer", "real"}:
        return "float64", told
    if values == {"text"}:
        return ("json" if declared == "JSON" else "string"), told
    return None, told


def _select(
    connection: "sqlite3.Connection",
    contract: Contract,
    columns: Sequence[str],
    windows: Sequence[Window],
    table: str = "",
) -> "Iterator[pa.RecordBatch]":
    """Rows of some windows.

    Args:
        table: the name of one that another tool made; the contract's if empty.
    """
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema
    from ml_assets.tables.staging import windows_sql

    schema = arrow_schema(contract, columns)
    where = windows_sql(contract, windows, _time_literal(contract))
    values = ", ".join(
        [qualified("held", name) for name in columns] if table else _selected(connection, contract, columns)
    )
    source = qualified("main", table) if table else _table(contract)
    cursor = connection.execute(f"SELECT {values} FROM {source} AS held WHERE {where}")
    while rows := cursor.fetchmany(_READ_ROWS):
        cells = zip(columns, zip(*rows, strict=True), strict=True)
        arrays = [_decoded(list(column), contract.by_name[name]) for name, column in cells]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _selected(connection: "sqlite3.Connection", contract: Contract, columns: Sequence[str]) -> list[str]:
    """The columns in SQL; null for those that the contract has gained since the table was last written.

    Raises:
        LookupError: the table was never written.
        ContractViolation: a column is missing that may not be null; says what to do.
    """
    from ml_assets.errors import ContractViolation
    from ml_assets.tables.arrow_types import never_written

    existing = {_folded(name) for name in _columns(connection, contract.table)}
    if not existing:
        raise never_written(contract.asset)
    # The partition column is compared with, and SQLite takes the "name" of none for a text.
    for name in [*columns, *filter(None, [contract.partition_column])]:
        if _folded(name) not in existing and _is_required(contract, contract.by_name[name]):
            raise ContractViolation(
                f"{contract.asset}: the table in the file has no column {name!r}, which the contract does not allow to "
                f"be null; run {_rebuild(connection, contract)}, or undo the change."
            )
    return [qualified("held", name) if _folded(name) in existing else "NULL" for name in columns]


def _time_literal(contract: Contract) -> Any:
    """Text of a moment as the partition column holds it; text order is time order."""
    column = contract.by_name[contract.partition_column] if contract.partition_column else None
    if column is not None and column.type == "date":
        return lambda moment: quote_literal(first_date(moment))
    return lambda moment: quote_literal(utc_text(moment))


def _encoded(batch: "pa.RecordBatch", contract: Contract) -> Iterable[tuple[Any, ...]]:
    """Rows as SQLite's values."""
    columns = [_encode(batch.column(column.name), column) for column in contract.columns]
    return zip(*columns, strict=True)


def _encode(array: "pa.Array", column: Column) -> list[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from ml_assets.tables.arrow_types import vectors_to_text

    if column.type == "timestamp":
        array = pc.call_function("strftime", [array], pc.StrftimeOptions("%Y-%m-%dT%H:%M:%SZ"))
    elif column.type == "date":
        array = pc.cast(array, pa.string())
    elif column.type == "bool":
        array = pc.cast(array, pa.int8())
    elif column.type == "vector":
        array = vectors_to_text(array)
    return array.to_pylist()


def _decoded(cells: list[Any], column: Column) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    from ml_assets.tables.arrow_types import ARROW_TYPES, vectors_from_text

    target = ARROW_TYPES[column.type]
    if column.type in ("timestamp", "date"):
        return pc.cast(pa.array(cells, pa.string()), target)
    if column.type == "bool":
        return pc.cast(pa.array(cells, pa.int8()), target)
    if column.type == "vector":
        return vectors_from_text(pa.array(cells, pa.string()))
    return pa.array(cells, target)
