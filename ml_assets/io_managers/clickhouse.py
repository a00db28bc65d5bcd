"""Tables in ClickHouse: a staging table, then partitions swapped in under a redo log.

ClickHouse has no transactions. A write fills a staging table, counts it, and renames it: that is the commit.
What follows, and what is done about a writer that was killed, is told in stores/clickhouse/redo.py.

What belongs here: DDL, staging, reading. What does not: anything about another store.
"""

import re
import time
import uuid
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.lib.sql import first_date, free_name, qualified, quote_identifier, quote_json, quote_literal
from ml_assets.resources.clickhouse import ClickHouseResource, arrow_stream
from ml_assets.stores.clickhouse.lock import locked
from ml_assets.stores.clickhouse.redo import (
    CONTRACTS,
    LEDGER,
    LEDGER_TABLES,
    failed,
    interrupted,
    publish,
    ready_name,
    recover,
    stage_name,
)
from ml_assets.tables.validation import WHOLE, Limits, Window

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

    from ml_assets.contracts import ColumnType
    from ml_assets.tables.found import Found, Place
    from ml_assets.tables.staging import Buckets, Staged, TableState

_TYPES = {
    "string": "String",
    "int64": "Int64",
    "float64": "Float64",
    "bool": "Bool",
    "timestamp": "DateTime64(6, 'UTC')",
    "date": "Date32",
    "json": "String",
    "vector": "Array(Float32)",
}
_FOUND: "tuple[tuple[str, ColumnType, str], ...]" = (
    (r"U?Int(8|16|32|64)", "int64", "{}"),
    (r"Float(32|64)|Decimal\(.*\)", "float64", "{}"),
    (r"String|FixedString\(.*\)|UUID|Enum(8|16)\(.*\)", "string", "toString({})"),
    (r"Bool", "bool", "{}"),
    (r"Date|Date32", "date", "toDate32({})"),
    (r"DateTime(\(.*\))?", "timestamp", "toDateTime64({}, 6, 'UTC')"),
    (r"DateTime64\(.*\)", "timestamp", "toTimeZone({}, 'UTC')"),
    (r"Array\(Float(32|64)\)", "vector", "{}"),
    (r"(JSON|Map|Tuple)(\(.*\))?", "json", "toJSONString({})"),
)
_INSERTERS = 2
"""Clients that insert at once, a batch each: the engine takes about 100 MB for one (measured, chdb 4.4)."""

_DAY_US = 86_400_000_000

_DEFINITION_BYTES = 262_144
"""Longest definition of a table that a server can read again when it starts: `max_query_size`."""

_STATEMENT_BYTES = 4 * 2**20
"""Allowed for a statement that names each column several times."""


class ClickHouseIOManager(TableIOManager):
    """Writes and reads tables of ClickHouse, a server or embedded.

    Args:
        clickhouse: the server or engine.
    """

    store: ClassVar[str] = "clickhouse"
    limits: ClassVar[Limits] = Limits("ClickHouse", null_vector=False, first_year=1900, last_year=2299)

    clickhouse: ClickHouseResource

    def _write(self, contract: Contract, staged: "Staged") -> bool:
        with writing(self.clickhouse, contract.table) as client:
            changed = write(self.clickhouse, client, contract, staged)
            if contract.mode == "upsert":
                staged.held = _recorded(client, contract)
            return changed

    def _read(self, contract: Contract, columns: Sequence[str], window: Window) -> "pa.RecordBatchReader":
        import pyarrow as pa

        from ml_assets.tables.arrow_types import arrow_schema, never_written

        def batches() -> "Iterator[pa.RecordBatch]":
            with self.clickhouse.client(write=True) as client:
                held = _columns(client, contract.table)
                if not held:
                    raise never_written(contract.asset)
                _refuse_lacking(contract, held, columns, window)
                yield from _select(client, contract, columns, contract.table, window, held)

        return pa.RecordBatchReader.from_batches(arrow_schema(contract, columns), batches())

    def _found(self, place: "Place") -> "Found | None":
        import pyarrow as pa

        from ml_assets.tables.found import found_table
        from ml_assets.tables.staging import windows_sql

        with self.clickhouse.client() as client:
            types = _columns(client, place.table, place.schema)
        kinds = {name: _found_kind(kind) for name, kind in types.items()}
        source = qualified(*filter(None, [place.schema, place.table]))

        def read(contract: Contract, columns: Sequence[str], window: Window) -> "Generator[pa.RecordBatch]":
            values = ", ".join(
                f"{kinds[name][1].format(quote_identifier(name))} AS {quote_identifier(name)}"
                for name in columns
            )
            where = windows_sql(contract, [window], _literal(contract))
            statement = f"SELECT {values} FROM (SELECT * FROM {source} WHERE {where})"
            with (
                self.clickhouse.client(write=True) as client,
                client.query_arrow_stream(statement, use_strings=True) as blocks,
            ):
                for block in blocks:
                    yield from block.to_batches() if isinstance(block, pa.Table) else [block]

        told: dict[str, tuple[ColumnType | None, str]] = {
            name: (kind, types[name]) for name, (kind, _) in kinds.items()
        }
        return found_table(place, told, read) if kinds else None

    def _remembered(self, asset: str) -> Contract | None:
        with self.clickhouse.client() as client:
            return _remembered(client, asset)


def known(clickhouse: ClickHouseResource) -> list[Contract]:
    """Of each table that was written and is there, the contract that it was last written by."""
    from ml_assets.tables.contract_json import contract_of_text

    with clickhouse.client() as client:
        if not _columns(client, CONTRACTS):
            return []
        rows = client.query(
            f"SELECT argMax(contract, sequence) FROM {CONTRACTS} GROUP BY asset ORDER BY asset"
        ).result_rows
        contracts = [contract_of_text(text) for (text,) in rows]
        return [each for each in contracts if _columns(client, each.table)]


def recorded(clickhouse: ClickHouseResource, contract: Contract, any_version: bool = False) -> "TableState":
    """Rows and content hash as noted when the table was written; of what was hashed in another way only if asked for."""
    from ml_assets.tables.staging import table_state

    with clickhouse.client() as client:
        return table_state(_recorded(client, contract, any_version))


def measured(clickhouse: ClickHouseResource, contract: Contract) -> "TableState":
    """Rows and content hash of what the table holds now."""
    from ml_assets.tables.staging import table_state

    with clickhouse.client(write=True) as client:
        return table_state(_measured(client, contract, WHOLE, _DAY_US))


@contextmanager
def writing(clickhouse: ClickHouseResource, table: str) -> "Iterator[Client]":
    """A client for the one who may write to a table now.

    Raises:
        WriteBusy: somebody else has been writing to it for longer than a write may take.
    """
    with (
        clickhouse.client(write=True) as client,
        locked(lambda: clickhouse.client(write=True), client, table, clickhouse.write_timeout_s),
    ):
        yield client


def finish_writes(clickhouse: ClickHouseResource) -> list[str]:
    """Finish what killed writers had committed and drop what else they left; returns the tables dealt with.

    An embedded engine does it when it is opened; that counts, too.
    """
    with clickhouse.client(write=True) as client:
        dealt_with, faults = clickhouse.finished_when_opened(), []
        for table in interrupted(client):
            try:
                with writing(clickhouse, table) as writer:
                    dealt_with += recover(writer, table)
            except Exception as fault:  # noqa: BLE001 - told once the other tables have been looked after
                faults.append(fault)
    if faults:
        raise faults[0]
    return dealt_with


def set_aside(clickhouse: ClickHouseResource) -> list[str]:
    """Names of tables with the rows of killed writes that could not be finished."""
    with clickhouse.client() as client:
        return failed(client)


def write(clickhouse: ClickHouseResource, client: "Client", contract: Contract, staged: "Staged") -> bool:
    """Put staged rows in place; returns whether anything had to be changed.

    Args:
        clickhouse: opens further clients for many rows.
        client: that of `writing`.
        contract: of the table.
        staged: the rows.

    Raises:
        ContractViolation: the table is not the contract's and cannot be made so.
    """
    from ml_assets.tables.staging import partitions_to_write

    recover(client, contract.table)  # with the columns that the table had at that commit
    ensure_table(client, contract)
    if contract.mode == "upsert":
        changed = set(staged.buckets)
    else:
        changed = partitions_to_write(
            staged,
            _recorded(client, contract),
            lambda window: _measured(client, contract, window),
        )
    if not changed:
        return False
    ready = _commit(clickhouse, client, contract, staged, changed)
    if ready:
        publish(client, contract.table, ready)
    return bool(ready)


def _commit(
    clickhouse: ClickHouseResource, client: "Client", contract: Contract, staged: "Staged", changed: set[int]
) -> str | None:
    """Fill a staging table and rename it: from then on the write will be finished.

    Returns:
        The new name; None if nothing has to be changed, which an upsert knows only now.
    """
    from ml_assets.tables.staging import measure

    identity = uuid.uuid4().hex[:16]
    stage, ready = stage_name(contract.table, identity), ready_name(contract.table, identity)
    client.command(f"CREATE TABLE {quote_identifier(stage)} AS {quote_identifier(contract.table)}")
    try:
        _fill(clickhouse, client, stage, contract, staged, changed)
        changed, held = changed | _partitions_losing_rows(client, stage, contract, staged), staged.buckets
        if contract.mode == "upsert":
            _keep_others(client, stage, contract, changed)
            held = measure(
                _select(client, contract, contract.names, stage, WHOLE, contract.names),
                contract,
            )
            changed = _differing(client, contract, held, changed)
            if not changed:
                client.command(f"DROP TABLE {quote_identifier(stage)} SYNC")
                return None
        plan = _plan(client, contract, staged, changed, held, stage, identity)
        client.command(f"ALTER TABLE {quote_identifier(stage)} MODIFY COMMENT {quote_json(plan)}")
        client.command(f"RENAME TABLE {quote_identifier(stage)} TO {quote_identifier(ready)}")
    except BaseException:
        client.command(f"DROP TABLE IF EXISTS {quote_identifier(stage)} SYNC")
        raise
    return identity


def _fill(
    clickhouse: ClickHouseResource,
    client: "Client",
    stage: str,
    contract: Contract,
    staged: "Staged",
    changed: set[int],
) -> None:
    """Insert the rows. An INSERT keeps one core of the engine busy, so many rows are inserted by two clients."""
    import pyarrow as pa

    from ml_assets.lib.sharing import share_out
    from ml_assets.tables.arrow_types import BATCH_ROWS

    def insert(client: "Client", batches: "Iterable[pa.RecordBatch]") -> None:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            client.insert_arrow(stage, rows, settings={"max_partitions_per_insert_block": 0})

    def insert_beside(batches: "Iterator[pa.RecordBatch]") -> None:
        with clickhouse.client(write=True) as own:
            insert(own, batches)

    expected, batches = staged.rows_in(changed), staged.batches(changed)
    if expected > _INSERTERS * BATCH_ROWS:
        share_out(batches, insert_beside, _INSERTERS)
    else:
        insert(client, batches)
    found = _count(client, stage)
    if found != expected:
        raise RuntimeError(
            f"{contract.asset}: ClickHouse took {found:,} of {expected:,} rows; the table is as it was, run it again."
        )


def _partitions_losing_rows(client: "Client", stage: str, contract: Contract, staged: "Staged") -> set[int]:
    """Partitions that hold rows which will move into others of their day because their time has changed.

    Raises:
        ContractViolation: such a row may not move, being outside the slice.
    """
    from ml_assets.tables.staging import windows_sql

    windows = [*staged.rest_of_days, *([staged.window] if contract.mode == "upsert" else [])]
    if not contract.key_by_day or contract.partition_us == _DAY_US or not windows:
        return set()
    names = [quote_identifier(name) for name in contract.key]
    # ClickHouse takes the name of a value for that value throughout a SELECT, whatever columns are called so.
    key_day, place = free_name("key_day", contract.names), free_name("place", contract.names)
    day, bucket = _partition_sql(contract, _DAY_US), _partition_sql(contract)
    parts = f"{day} AS {key_day}, {bucket} AS {place}"
    rows = f"SELECT {', '.join(names)}, {parts} FROM"
    where = windows_sql(contract, windows, _literal(contract))
    found = client.query(
        f"SELECT old.{place}, {', '.join(f'any(old.{name})' for name in names)} "
        f"FROM ({rows} {quote_identifier(contract.table)} WHERE {where}) AS old "
        f"INNER JOIN ({rows} {quote_identifier(stage)}) AS new USING ({', '.join(names)}, {key_day}) "
        f"WHERE old.{place} <> new.{place} GROUP BY old.{place} ORDER BY old.{place}"
    ).result_rows
    return staged.partitions_losing_rows((number * contract.partition_us, *key) for number, *key in found)


def _keep_others(client: "Client", stage: str, contract: Contract, changed: set[int]) -> None:
    """Add the old rows of the changed partitions whose key is not among the new ones."""
    names = ", ".join(map(quote_identifier, contract.names))
    keys = ", ".join(map(quote_identifier, contract.key))
    where = ""
    if contract.partition_column:
        if contract.key_by_day:
            keys = f"{keys}, {_partition_sql(contract, _DAY_US)}"
        # By what the partition is made of: a column may be called _partition_id.
        ids = ", ".join(_partition_id(bucket, contract) for bucket in changed)
        where = f"{_partition_sql(contract)} IN ({ids}) AND "
    client.command(
        f"INSERT INTO {quote_identifier(stage)} ({names}) SELECT {names} FROM {quote_identifier(contract.table)} "
        f"WHERE {where} ({keys}) NOT IN (SELECT {keys} FROM {quote_identifier(stage)})",
        settings={"max_query_size": _STATEMENT_BYTES},
    )


def _differing(client: "Client", contract: Contract, held: "Buckets", buckets: set[int]) -> set[int]:
    """Those partitions that do not hold these rows. Where the ledger says that they do, they are measured."""
    from ml_assets.tables.staging import EMPTY, same_content, spans_of

    def same(stored: "Buckets") -> set[int]:
        return {b for b in buckets if same_content(stored.get(b, EMPTY), held.get(b, EMPTY))}

    recorded, found = same(_recorded(client, contract)), {}
    for window in spans_of(recorded, contract):
        found |= _measured(client, contract, window)
    return buckets - (recorded & same(found))


def _plan(
    client: "Client",
    contract: Contract,
    staged: "Staged",
    changed: set[int],
    held: "Buckets",
    stage: str,
    identity: str,
) -> dict[str, Any]:
    """What is to be done with a committed table: partitions to swap or drop, entries of the ledger."""
    from ml_assets.tables.staging import EMPTY, bucket_name

    every = staged.window.whole and contract.mode != "upsert"
    touched = set(_recorded(client, contract)) | set(held) if every else changed
    swaps: dict[str, int] = {}
    if contract.partition_column:
        if every:
            swaps = dict.fromkeys(_partitions(client, contract.table), 0)
        swaps |= {_partition_id(b, contract): held[b].rows if b in held else 0 for b in touched}
        _refuse_missing(client, contract, stage, swaps)
    states = {b: held.get(b, EMPTY) for b in touched}
    ledger = [[bucket_name(b, contract), s.rows, s.bytes, s.content_hash] for b, s in states.items()]
    return {
        "id": identity,
        "sequence": time.time_ns(),
        "table": contract.table,
        "swaps": swaps,
        "ledger": ledger,
    }


def _refuse_missing(client: "Client", contract: Contract, stage: str, swaps: dict[str, int]) -> None:
    """A plan that cannot be carried out must not be committed: others would try it again and again."""
    found = client.query(
        "SELECT partition_id, sum(rows) FROM system.parts "
        "WHERE database = currentDatabase() AND table = {table:String} AND active GROUP BY partition_id",
        parameters={"table": stage},
    ).result_rows
    staged = {row[0]: row[1] for row in found}
    for partition, rows in swaps.items():
        if staged.get(partition, 0) != rows:
            raise RuntimeError(
                f"{contract.asset}: {staged.get(partition, 0):,} of the {rows:,} rows of partition {partition} are "
                "staged in ClickHouse; the table is as it was. This is a fault of ml-assets: please report it."
            )


def ensure_table(client: "Client", contract: Contract) -> None:
    """Create the table and the ledger, or add the nullable columns that the contract has gained.

    Raises:
        ContractViolation: the table differs in another way; says which statement would mend it.
    """
    from ml_assets.tables.contract_json import contract_text, refuse_new_identity

    _refuse_too_wide(contract)
    for statement in LEDGER_TABLES:
        client.command(statement)
    existing = _columns(client, contract.table)
    old = _remembered(client, contract.asset)
    if not existing:
        client.command(create_statement(contract))
        if _recorded(client, contract):  # what a table held that was dropped
            dropped = f"DELETE WHERE table_name = {quote_literal(contract.table)} SETTINGS mutations_sync = 2"
            client.command(f"ALTER TABLE {LEDGER} {dropped}")
    elif old is not None:
        refuse_new_identity(
            old,
            contract,
            f"DROP TABLE {quote_identifier(contract.table)}",
            clustered=True,
            stored=_TYPES,
        )
    if existing:
        _fit_columns(client, contract, existing)
    if not existing or old != contract:
        entry = [[contract.asset, contract_text(contract), time.time_ns()]]
        client.insert(CONTRACTS, entry, column_names=["asset", "contract", "sequence"])


def _refuse_too_wide(contract: Contract) -> None:
    """Refuse a table whose definition is too long, before there is any part of it."""
    from ml_assets.errors import ContractViolation

    # ClickHouse keeps it with a line for each column, and says more of the table.
    size = len(create_statement(contract).encode()) + 6 * len(contract.columns) + 2_000
    if size > _DEFINITION_BYTES:
        raise ContractViolation(
            f"{contract.asset}: the names and types of its {len(contract.columns):,} columns make a definition of "
            f"{size:,} bytes, and ClickHouse reads {_DEFINITION_BYTES:,} at most: keep several of them as one JSON "
            "document, make rows of them, or give them shorter names. Nothing was written."
        )


def _fit_columns(client: "Client", contract: Contract, existing: dict[str, str]) -> None:
    """Add nullable columns that the table lacks, refuse what else differs, before anything is added."""
    from ml_assets.errors import ContractViolation

    table, added = quote_identifier(contract.table), []
    for column in contract.columns:
        name, kind = quote_identifier(column.name), _type(contract, column)
        if column.name not in existing and column.nullable:
            added.append(f"ADD COLUMN {name} {kind}")
        elif column.name not in existing:
            raise ContractViolation(f"{_lacking(contract, column)} Nothing was written.")
        elif existing[column.name] != kind:
            raise ContractViolation(
                f"{contract.asset}: column {column.name!r} is {existing[column.name]} in ClickHouse and {kind} in the "
                f"contract; run ALTER TABLE {table} MODIFY COLUMN {name} {kind}, or undo the change. Nothing was "
                "written."
            )
    for name in existing.keys() - set(contract.names):
        raise ContractViolation(
            f"{contract.asset}: the table has a column {name!r} that the contract does not have; run ALTER TABLE "
            f"{table} DROP COLUMN {quote_identifier(name)}, or add it to the contract. Nothing was written."
        )
    if added:
        client.command(f"ALTER TABLE {table} {', '.join(added)}")


def _lacking(contract: Contract, column: Column) -> str:
    table, name = quote_identifier(contract.table), quote_identifier(column.name)
    return (
        f"{contract.asset}: the contract has a new column {column.name!r} that may not be null, and the table's rows "
        f"have no value for it; run ALTER TABLE {table} ADD COLUMN {name} {_type(contract, column)} DEFAULT ..., make "
        "it nullable, or undo the change."
    )


def _refuse_lacking(contract: Contract, held: Container[str], columns: Sequence[str], window: Window) -> None:
    """Refuse to read what the table's rows cannot have; what may be null they have as null, see `_select`.

    Raises:
        ContractViolation: the contract has gained a column that may not be null since the table was written.
    """
    from ml_assets.errors import ContractViolation

    placing = contract.partition_column if not window.whole else None
    needed = (*columns, placing) if placing else columns
    for column in (contract.by_name[name] for name in needed if name not in held):
        if not column.nullable or column.name in (*contract.key, contract.partition_column):
            raise ContractViolation(_lacking(contract, column))


def create_statement(contract: Contract) -> str:
    """The table's DDL: MergeTree, a partition a day, ordered as the contract says."""
    columns = ", ".join(f"{quote_identifier(c.name)} {_type(contract, c)}" for c in contract.columns)
    ordered = contract.order_by or contract.key
    order = ", ".join(map(quote_identifier, ordered)) or "tuple()"
    nulls = any("Nullable" in _type(contract, contract.by_name[name]) for name in ordered)
    partition = f"PARTITION BY {_partition_sql(contract)} " if contract.partition_column else ""
    return (
        f"CREATE TABLE IF NOT EXISTS {quote_identifier(contract.table)} ({columns}) ENGINE = MergeTree "
        f"{partition}ORDER BY ({order}){' SETTINGS allow_nullable_key = 1' if nulls else ''}"
    )


def _partition_sql(contract: Contract, us: int | None = None) -> str:
    column = quote_identifier(contract.partition_column or "")
    if (us or contract.partition_us) == _DAY_US:
        return f"toYYYYMMDD({column})"
    if contract.by_name[contract.partition_column or ""].type == "date":
        column = f"toDateTime64({column}, 6, 'UTC')"
    return f"intDiv(toUnixTimestamp64Micro({column}), {contract.partition_us})"


def _partition_id(bucket: int, contract: Contract) -> str:
    from ml_assets.tables.staging import bucket_start

    us = contract.partition_us
    return f"{bucket_start(bucket):%Y%m%d}" if us == _DAY_US else str(bucket // us)


def _type(contract: Contract, column: Column) -> str:
    kind = _TYPES[column.type]
    placed = (*contract.key, contract.partition_column)
    nullable = column.nullable and column.name not in placed and column.type != "vector"
    kind = f"Nullable({kind})" if nullable else kind
    # Few different values: those with choices, and what the table is ordered by besides its key.
    few = column.choices or (column.name in contract.order_by and column.name not in contract.key)
    return f"LowCardinality({kind})" if few and column.type == "string" else kind


def _found_kind(kind: str) -> "tuple[ColumnType | None, str]":
    """Logical type of a column that another tool made, if there is one, and its value in SQL: `{}` is its name.

    Arrow has a form for few of them: an enumeration would come as a number, an address as another one.
    """
    plain = re.sub(r"^LowCardinality\((.*)\)$", r"\1", kind)
    plain = re.sub(r"^Nullable\((.*)\)$", r"\1", plain)
    for pattern, logical, value in _FOUND:
        if re.fullmatch(pattern, plain):
            return logical, value
    return None, "{}"


def _columns(client: "Client", table: str, database: str = "") -> dict[str, str]:
    rows = client.query(
        "SELECT name, type FROM system.columns WHERE table = {table:String} "
        "AND database = if({database:String} = '', currentDatabase(), {database:String})",
        parameters={"table": table, "database": database},
    ).result_rows
    return {name: kind for name, kind in rows}  # noqa: C416 - pairs, and typed as such


def _remembered(client: "Client", asset: str) -> Contract | None:
    """The contract by which a table was last written; None if it never was."""
    from ml_assets.tables.contract_json import contract_of_text

    if not _columns(client, CONTRACTS):
        return None
    rows = client.query(
        f"SELECT contract FROM {CONTRACTS} WHERE asset = {{asset:String}} ORDER BY sequence DESC LIMIT 1",
        parameters={"asset": asset},
    ).result_rows
    return contract_of_text(rows[0][0]) if rows else None


def _count(client: "Client", table: str) -> int:
    return int(client.query(f"SELECT count() FROM {quote_identifier(table)}").result_rows[0][0])


def _partitions(client: "Client", table: str) -> list[str]:
    rows = client.query(
        "SELECT DISTINCT partition_id FROM system.parts "
        "WHERE database = currentDatabase() AND table = {table:String} AND active",
        parameters={"table": table},
    ).result_rows
    return [row[0] for row in rows]


def _select(
    client: "Client",
    contract: Contract,
    columns: Sequence[str],
    table: str,
    window: Window,
    held: Container[str],
) -> "Iterator[pa.RecordBatch]":
    """Rows of a table; null stands for the columns that it does not have yet, as it will once they are added.

    Args:
        held: names of the columns that it has.
    """
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema, recast
    from ml_assets.tables.staging import windows_sql

    named = [(name, quote_identifier(name)) for name in columns]
    chosen = ", ".join(quoted if name in held else f"NULL AS {quoted}" for name, quoted in named)
    where = windows_sql(contract, [window], _literal(contract))
    schema = arrow_schema(contract, columns)
    vectors = [contract.by_name[name] for name in columns if contract.by_name[name].type == "vector"]
    optional = [column.name for column in vectors if column.nullable]
    statement = f"SELECT {chosen} FROM {quote_identifier(table)} WHERE {where}"
    with arrow_stream(client, statement) as batches:
        for batch in batches:
            for rows in recast(pa.RecordBatchReader.from_batches(batch.schema, [batch]), schema):
                yield _empty_as_null(rows, optional)


def _empty_as_null(batch: "pa.RecordBatch", names: Iterable[str]) -> "pa.RecordBatch":
    """An array cannot be Nullable, so that rows older than a column of vectors have `[]` for what is null elsewhere."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in names:
        vectors = batch.column(name)
        empty = pc.call_function("equal", [pc.call_function("list_value_length", [vectors]), pa.scalar(0)])
        if pc.call_function("any", [empty]).as_py():
            with_nulls = pc.call_function("if_else", [empty, pa.scalar(None, vectors.type), vectors])
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, batch.schema.field(place), with_nulls)
    return batch


def _literal(contract: Contract) -> Any:
    column = contract.by_name[contract.partition_column] if contract.partition_column else None
    if column is not None and column.type == "date":
        return lambda moment: f"toDate32({quote_literal(first_date(moment))})"
    return lambda moment: f"toDateTime64({quote_literal(_utc(moment))}, 6, 'UTC')"


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _measured(client: "Client", contract: Contract, window: Window) -> "Buckets":
    from ml_assets.tables.staging import measure

    held = _columns(client, contract.table)
    if not held:
        return {}
    _refuse_lacking(contract, held, contract.names, window)
    rows = _select(client, contract, contract.names, contract.table, window, held)
    return measure(rows, contract)


def _recorded(client: "Client", contract: Contract, any_version: bool = False) -> "Buckets":
    from ml_assets.tables.hashing import HASH_VERSION
    from ml_assets.tables.staging import PartitionState, bucket_of_name

    if not _columns(client, LEDGER):
        return {}
    rows = client.query(
        f"SELECT partition, rows, bytes, content_hash FROM {quote_identifier(LEDGER)} FINAL "
        "WHERE table_name = {table:String} "
        "AND (hash_version = {version:String} OR {any:Bool}) AND rows > 0",
        parameters={"table": contract.table, "version": HASH_VERSION, "any": any_version},
    ).result_rows
    return {bucket_of_name(name): PartitionState(*state) for name, *state in rows}
