"""Indexes of vectors: which one a column can have, what a query must order by to use it, one for each model.

What belongs here: pgvector's limits, and how they are met. What does not: other indexes (ddl.py).
"""

import hashlib
from typing import TYPE_CHECKING

from ml_assets.contracts import Column, Contract
from ml_assets.lib.sql import qualified, quote_identifier, quote_literal
from ml_assets.stores.postgres_table.statements import run

if TYPE_CHECKING:
    import psycopg

LONGEST = 2_000
"""Numbers of the longest vectors that pgvector's index takes as they are."""

LONGEST_HALVED = 4_000
"""Numbers of the longest ones that it takes with half the bits each; still longer ones are compared one by one."""


def distance_sql(column: str, vector: str, dimension: int) -> str:
    """The distance that rows must be ordered by for the index to be used; of long vectors it is rounded.

    Args:
        column, vector: SQL of the two vectors.
    """
    kind = f"halfvec({dimension})" if LONGEST < dimension <= LONGEST_HALVED else "vector"
    ours = column if kind == "vector" else f"({column}::{kind})"
    return f"{ours} <=> {vector}::{kind}"


def vector_index(contract: Contract, column: Column) -> list[str]:
    """The statement for the index of a column that all rows share; none for other columns, nor for the longest vectors.

    Where the contract tells vectors apart, each kind has its own; see `keep_vector_indexes`.
    """
    indexed = None if contract.vectors_by else _indexed_sql(column)
    return [f"CREATE INDEX ON {_table(contract)} USING hnsw ({indexed})"] if indexed else []


def keep_vector_indexes(connection: "psycopg.Connection", contract: Contract) -> None:
    """Have an index for the vectors of each value of `vectors_by` that there is, and none of one that is gone.

    It is called once the rows are in place: an index is made of many rows in a fraction of the time that it takes to
    let them in one by one.
    """
    indexed = {column.name: sql for column in contract.columns if (sql := _indexed_sql(column))}
    if not contract.vectors_by or not indexed:
        return
    by = quote_identifier(contract.vectors_by)
    values = [
        value for (value,) in run(connection, f"SELECT DISTINCT {by} FROM {_table(contract)}").fetchall()
    ]
    wanted = {
        _name(contract, name, value): (sql, value)
        for name, sql in indexed.items()
        for value in values
        if value is not None
    }
    present = _present(connection, contract)
    shared = {f"{contract.table}_{name}_idx" for name in indexed}
    for name in present:
        # Of a model that is gone, or of a table that was made when all models shared one.
        if name not in wanted and (name in shared or name.startswith(_prefix(contract))):
            run(connection, f"DROP INDEX {qualified(contract.schema, name)}")
    for name, (sql, value) in wanted.items():
        if name not in present:
            run(
                connection,
                f"CREATE INDEX {quote_identifier(name)} ON {_table(contract)} USING hnsw ({sql}) "
                f"WHERE {by} = {quote_literal(value)}",
            )


def _present(connection: "psycopg.Connection", contract: Contract) -> set[str]:
    found = run(
        connection,
        "SELECT i.relname FROM pg_index AS x "
        "JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS a ON a.oid = i.relam "
        "WHERE x.indrelid = to_regclass(%s) AND a.amname = 'hnsw'",
        [_table(contract)],
    )
    return {name for (name,) in found.fetchall()}


def _prefix(contract: Contract) -> str:
    return f"{contract.table[:30]}_hnsw_"


def _name(contract: Contract, column: str, value: str) -> str:
    """PostgreSQL cuts names off after 63 bytes, and a model's may be long."""
    told = f"{contract.table} {column} {value}".encode()
    return f"{_prefix(contract)}{hashlib.md5(told, usedforsecurity=False).hexdigest()[:16]}"


def _indexed_sql(column: Column) -> str:
    """What an index of the column is on; "" if it can have none."""
    if column.type != "vector" or (column.dimension or LONGEST) > LONGEST_HALVED:
        return ""
    if (column.dimension or LONGEST) <= LONGEST:
        return f"{quote_identifier(column.name)} vector_cosine_ops"
    return f"({quote_identifier(column.name)}::halfvec({column.dimension})) halfvec_cosine_ops"


def _table(contract: Contract) -> str:
    return qualified(contract.schema, contract.table)
