"""ClickHouse's tables: types, DDL, and what becomes of a table whose contract has changed."""

import uuid
from typing import TYPE_CHECKING

from ml_assets.contracts import Column, ColumnType, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import quote_identifier
from ml_assets.stores.clickhouse import ledger
from ml_assets.stores.clickhouse.catalog import columns_of
from ml_assets.stores.clickhouse.cluster import clause, cluster_of, engine, know_all
from ml_assets.stores.clickhouse.lock import require_held
from ml_assets.stores.clickhouse.redo import drop_old, exchange, stage_name
from ml_assets.tables.evolution import columns_to_add, type_differs
from ml_assets.tables.identity import refuse_new_identity

if TYPE_CHECKING:
    from datetime import datetime

    from clickhouse_connect.driver.client import Client

TYPES = {
    "string": "String",
    "int64": "Int64",
    "float64": "Float64",
    "bool": "Bool",
    "timestamp": "DateTime64(6, 'UTC')",
    "date": "Date32",
    "json": "String",
    "vector": "Array(Float32)",
}
CODECS: dict[ColumnType, str] = {
    "timestamp": "Delta, ZSTD(1)",
    "date": "Delta, ZSTD(1)",
    "int64": "T64, ZSTD(1)",
}
"""How columns are compressed of which more is known than their bytes; see docs/performance.md for what was measured."""

_CODEC = "ZSTD(1)"
"""How all others are."""

DAY_US = 86_400_000_000

_DEFINITION_BYTES = 262_144
"""Longest definition of a table that a server can read again when it starts: `max_query_size`."""


class ClickHouseDialect:
    """How ClickHouse speaks of columns; see tables/evolution.py. Whether one may be null is part of its type."""

    def required(self, contract: Contract, column: Column) -> bool:
        """Whether the contract keeps nulls out of the column."""
        return not column.nullable

    def difference(self, contract: Contract, column: Column, kind: str, required: bool) -> str | None:
        """In what a column that is there differs from the contract's, and what to run; None if in nothing."""
        wanted = column_type(contract, column)
        if kind == wanted:
            return None
        # That of the type before may be none of this one's.
        codec = f"CODEC({CODECS.get(column.type, _CODEC)})"
        remedy = f"{_alter(contract)} MODIFY COLUMN {quote_identifier(column.name)} {wanted} {codec}"
        return type_differs(kind, wanted, "in ClickHouse", remedy)

    def adding(self, contract: Contract, column: Column) -> str:
        """What to run to add a column that may not be null, and what else can be done."""
        added = f"{quote_identifier(column.name)} {column_type(contract, column)}"
        return f"{_alter(contract)} ADD COLUMN {added} DEFAULT ..., make it nullable, or undo the change"

    def dropping(self, contract: Contract, name: str) -> str:
        """What to run to drop a column that the contract does not have."""
        return f"{_alter(contract)} DROP COLUMN {quote_identifier(name)}"


def ensure_table(client: "Client", contract: Contract) -> None:
    """Create the table and the ledger, or add the nullable columns that the contract has gained.

    Raises:
        ContractViolation: the table differs in another way; says which statement would mend it.
    """
    refuse_too_wide(contract)
    ledger.ensure(client)
    existing = columns_of(client, contract.table)
    old = ledger.last_contract(client, contract.asset)
    if existing:
        if old is not None:
            drop = f"DROP TABLE {quote_identifier(contract.table)}"
            refuse_new_identity(old, contract, drop, clustered=True, stored=TYPES)
        fit_columns(client, contract, existing)
        _fit_codecs(client, contract)
    else:
        client.command(create_statement(contract, cluster_of(client)))
        if ledger.buckets(client, contract):  # what a table held that was dropped
            ledger.forget(client, contract)
    if not existing or old != contract:
        ledger.remember(client, contract)
    if existing and old is not None:
        fit_months(client, contract)


def refuse_too_wide(contract: Contract) -> None:
    """Refuse a table whose definition is too long, before there is any part of it.

    Raises:
        ContractViolation: it is; says what to do instead.
    """
    # ClickHouse keeps it with a line for each column, and says more of the table and of codecs.
    size = len(create_statement(contract).encode()) + 9 * len(contract.columns) + 2_000
    if size > _DEFINITION_BYTES:
        raise ContractViolation(
            f"{contract.asset}: the names and types of its {len(contract.columns):,} columns make a definition of "
            f"{size:,} bytes, and ClickHouse reads {_DEFINITION_BYTES:,} at most: keep several of them as one JSON "
            "document, make rows of them, or give them shorter names. Nothing was written."
        )


def fit_columns(client: "Client", contract: Contract, existing: dict[str, str]) -> None:
    """Add the nullable columns that the table lacks, all in one statement; refuse what else differs.

    Args:
        existing: type of each column that the table has.

    Raises:
        ContractViolation: the table differs in another way; says what to do.
    """
    kinds = {name: (kind, False) for name, kind in existing.items()}
    # Rows are inserted anew in every mode: what is swapped in has values in the columns of the contract alone.
    added = columns_to_add(contract, kinds, ClickHouseDialect(), replaces=True)
    if added:
        adding = [f"ADD COLUMN {quote_identifier(c.name)} {column_type(contract, c)}" for c in added]
        client.command(f"{_alter(contract, cluster_of(client))} {', '.join(adding)}")


def _fit_codecs(client: "Client", contract: Contract) -> None:
    """Have what is written from now on compressed as in a new table; the parts that are there stay as they are."""
    known = client.query(
        "SELECT name, compression_codec FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String} AND compression_codec <> ''",
        parameters={"table": contract.table},
    ).result_rows
    set_already = {name for name, _ in known}
    changed = [
        f"MODIFY COLUMN {quote_identifier(each.name)} CODEC({CODECS[each.type]})"
        for each in contract.columns
        if each.type in CODECS and each.name not in set_already
    ]
    if changed or not _names_codec(client, contract.table):
        changed.append(f"MODIFY SETTING default_compression_codec = '{_CODEC}'")
        client.command(f"{_alter(contract, cluster_of(client))} {', '.join(changed)}")


def _names_codec(client: "Client", table: str) -> bool:
    rows = client.query(
        "SELECT engine_full LIKE '%default_compression_codec%' FROM system.tables "
        "WHERE database = currentDatabase() AND name = {table:String}",
        parameters={"table": table},
    ).result_rows
    return bool(rows[0][0])


def fit_months(client: "Client", contract: Contract) -> None:
    """Keep a table's rows by the month, or by the contract's partitions, if that has changed since it was made.

    By the table's writer alone (see lock.py).

    All rows are copied, and the new table takes the place of the old one at once: of a process that is killed here
    nothing is left but a staging table that nobody committed. What the ledger says of the rows stays true.
    """
    found = client.query(
        "SELECT startsWith(partition_key, 'toYYYYMM(') FROM system.tables "
        "WHERE database = currentDatabase() AND name = {table:String} AND partition_key <> ''",
        parameters={"table": contract.table},
    ).result_rows
    if not found or bool(found[0][0]) == contract.stored_by_month:
        return
    table, copy = contract.table, stage_name(contract.table, uuid.uuid4().hex[:16])
    names = ", ".join(map(quote_identifier, contract.names))
    know_all(client, table)
    client.command(stage_statement(contract, copy, cluster_of(client), reformed=True))
    try:
        client.command(
            f"INSERT INTO {quote_identifier(copy)} ({names}) SELECT {names} FROM {quote_identifier(table)}",
            settings={"max_partitions_per_insert_block": 0},
        )
        copied, there = (
            int(client.query(f"SELECT count() FROM {quote_identifier(each)}").result_rows[0][0])
            for each in (copy, table)
        )
        if copied != there:
            raise RuntimeError(
                f"{contract.asset}: ClickHouse copied {copied:,} of {there:,} rows; the table is as it was, run it "
                "again."
            )
        require_held(client, table)
        exchange(client, copy, table)
    finally:
        drop_old(client, copy)


def _alter(contract: Contract, cluster: str = "") -> str:
    return f"ALTER TABLE {quote_identifier(contract.table)}{clause(cluster)}"


def stage_statement(contract: Contract, stage: str, cluster: str = "", reformed: bool = False) -> str:
    """What makes a table of the same form, from which partitions can be swapped in.

    Args:
        reformed: of the form that the contract asks for, whatever that of the table is.
    """
    made = f"CREATE TABLE {quote_identifier(stage)}{clause(cluster)} AS {quote_identifier(contract.table)}"
    # A replicated table's engine names its own replica, and is not to be taken over.
    return f"{made} {_form(contract, cluster)}" if cluster or reformed else made


def create_statement(contract: Contract, cluster: str = "") -> str:
    """The table's DDL: MergeTree, in partitions of the contract's length or of a month, ordered as it says.

    Args:
        cluster: on which it is made, replicated; on one server if empty.
    """
    columns = ", ".join(_column(contract, c) for c in contract.columns)
    table = f"{quote_identifier(contract.table)}{clause(cluster)}"
    return f"CREATE TABLE IF NOT EXISTS {table} ({columns}) {_form(contract, cluster)}"


def _column(contract: Contract, column: Column) -> str:
    codec = f" CODEC({CODECS[column.type]})" if column.type in CODECS else ""
    return f"{quote_identifier(column.name)} {column_type(contract, column)}{codec}"


def _form(contract: Contract, cluster: str) -> str:
    ordered = contract.order_by or contract.key
    order = ", ".join(map(quote_identifier, ordered)) or "tuple()"
    nulls = any("Nullable" in column_type(contract, contract.by_name[name]) for name in ordered)
    partition = f"PARTITION BY {kept_sql(contract)} " if contract.partition_column else ""
    settings = [*(["allow_nullable_key = 1"] if nulls else []), f"default_compression_codec = '{_CODEC}'"]
    return f"ENGINE = {engine(cluster)} {partition}ORDER BY ({order}) SETTINGS {', '.join(settings)}"


def column_type(contract: Contract, column: Column) -> str:
    """A column's type: whether it may be null, and whether it has few different values, is part of it."""
    kind = TYPES[column.type]
    placed = (*contract.key, contract.partition_column)
    nullable = column.nullable and column.name not in placed and column.type != "vector"
    kind = f"Nullable({kind})" if nullable else kind
    # Few different values: those with choices, and what the table is ordered by besides its key.
    few = column.choices or (column.name in contract.order_by and column.name not in contract.key)
    return f"LowCardinality({kind})" if few and column.type == "string" else kind


def kept_sql(contract: Contract) -> str:
    """What the partition is made of that the engine keeps a row in: the contract's, or a month of them."""
    if contract.stored_by_month:
        return f"toYYYYMM({quote_identifier(contract.partition_column or '')})"
    return partition_sql(contract)


def kept_id(bucket: int, contract: Contract) -> str:
    """ClickHouse's name of the partition that the rows of one of the contract's are kept in."""
    return f"{_start(bucket):%Y%m}" if contract.stored_by_month else partition_id(bucket, contract)


def partition_sql(contract: Contract, us: int | None = None) -> str:
    """What one of the contract's partitions is made of, in SQL.

    Args:
        us: length of a partition in microseconds; the contract's if None.
    """
    column = quote_identifier(contract.partition_column or "")
    if (us or contract.partition_us) == DAY_US:
        return f"toYYYYMMDD({column})"
    if contract.by_name[contract.partition_column or ""].type == "date":
        column = f"toDateTime64({column}, 6, 'UTC')"
    return f"intDiv(toUnixTimestamp64Micro({column}), {contract.partition_us})"


def partition_id(bucket: int, contract: Contract) -> str:
    """The value of `partition_sql`."""
    us = contract.partition_us
    return f"{_start(bucket):%Y%m%d}" if us == DAY_US else str(bucket // us)


def _start(bucket: int) -> "datetime":
    from ml_assets.tables.staging import bucket_start

    return bucket_start(bucket)
