"""ClickHouse's tables: types, DDL, and what becomes of a table whose contract has changed."""

from typing import TYPE_CHECKING

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import quote_identifier
from ml_assets.stores.clickhouse import ledger
from ml_assets.stores.clickhouse.catalog import columns_of
from ml_assets.tables.contract_json import refuse_new_identity
from ml_assets.tables.evolution import columns_to_add, type_differs

if TYPE_CHECKING:
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
        remedy = f"{_alter(contract)} MODIFY COLUMN {quote_identifier(column.name)} {wanted}"
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
    else:
        client.command(create_statement(contract))
        if ledger.buckets(client, contract):  # what a table held that was dropped
            ledger.forget(client, contract)
    if not existing or old != contract:
        ledger.remember(client, contract)


def refuse_too_wide(contract: Contract) -> None:
    """Refuse a table whose definition is too long, before there is any part of it.

    Raises:
        ContractViolation: it is; says what to do instead.
    """
    # ClickHouse keeps it with a line for each column, and says more of the table.
    size = len(create_statement(contract).encode()) + 6 * len(contract.columns) + 2_000
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
        client.command(f"{_alter(contract)} {', '.join(adding)}")


def _alter(contract: Contract) -> str:
    return f"ALTER TABLE {quote_identifier(contract.table)}"


def create_statement(contract: Contract) -> str:
    """The table's DDL: MergeTree, a partition a day, ordered as the contract says."""
    columns = ", ".join(f"{quote_identifier(c.name)} {column_type(contract, c)}" for c in contract.columns)
    ordered = contract.order_by or contract.key
    order = ", ".join(map(quote_identifier, ordered)) or "tuple()"
    nulls = any("Nullable" in column_type(contract, contract.by_name[name]) for name in ordered)
    partition = f"PARTITION BY {partition_sql(contract)} " if contract.partition_column else ""
    return (
        f"CREATE TABLE IF NOT EXISTS {quote_identifier(contract.table)} ({columns}) ENGINE = MergeTree "
        f"{partition}ORDER BY ({order}){' SETTINGS allow_nullable_key = 1' if nulls else ''}"
    )


def column_type(contract: Contract, column: Column) -> str:
    """A column's type: whether it may be null, and whether it has few different values, is part of it."""
    kind = TYPES[column.type]
    placed = (*contract.key, contract.partition_column)
    nullable = column.nullable and column.name not in placed and column.type != "vector"
    kind = f"Nullable({kind})" if nullable else kind
    # Few different values: those with choices, and what the table is ordered by besides its key.
    few = column.choices or (column.name in contract.order_by and column.name not in contract.key)
    return f"LowCardinality({kind})" if few and column.type == "string" else kind


def partition_sql(contract: Contract, us: int | None = None) -> str:
    """What a row's partition is made of, in SQL.

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
    """ClickHouse's name of a partition."""
    from ml_assets.tables.staging import bucket_start

    us = contract.partition_us
    return f"{bucket_start(bucket):%Y%m%d}" if us == DAY_US else str(bucket // us)
