"""Tables in PostgreSQL made and written from contracts, in the caller's transaction.

What belongs here: DDL, COPY in both directions as Arrow batches, merge, the ledger of writes, VACUUM. Several stores
keep things in PostgreSQL (its own tables, Chroma's manifest, the truth behind Redis, the lake's locks and catalog), so
this is a library over a psycopg connection. What does not: opening connections, Dagster.
"""

from ml_assets.stores.postgres_table.ddl import create_statements, owned_sql
from ml_assets.stores.postgres_table.evolution import ensure_current, ensure_table
from ml_assets.stores.postgres_table.found import found_in_postgres
from ml_assets.stores.postgres_table.ledger import (
    contracts_of,
    ensure_ledger,
    last_contract,
    ledger_buckets,
    record,
    remember,
)
from ml_assets.stores.postgres_table.limits import within_limits
from ml_assets.stores.postgres_table.rows import copy_in, read
from ml_assets.stores.postgres_table.statements import is_conflict, lock, run, table_exists
from ml_assets.stores.postgres_table.transaction import live_buckets, write

__all__ = [
    "contracts_of",
    "copy_in",
    "create_statements",
    "ensure_current",
    "ensure_ledger",
    "ensure_table",
    "found_in_postgres",
    "is_conflict",
    "last_contract",
    "ledger_buckets",
    "live_buckets",
    "lock",
    "owned_sql",
    "read",
    "record",
    "remember",
    "run",
    "table_exists",
    "within_limits",
    "write",
]
