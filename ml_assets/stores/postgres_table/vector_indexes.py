"""Indexes of vectors: which one a column can have, what a query must order by to use it, one for each model.

What belongs here: pgvector's limits, and how they are met. What does not: other indexes (ddl.py).
"""

import hashlib
from typing import TYPE_CHECKING

from ml_assets.contracts import INDEXED, Column, Contract
from ml_assets.lib.search_setup import VectorIndex, index_of
from ml_assets.lib.sql import qualified, quote_identifier, quote_literal
from ml_assets.sql_files import read_sql
from ml_assets.stores.postgres_table.statements import run

if TYPE_CHECKING:
    import psycopg

LONGEST = 2_000
"""Numbers of the longest vectors that pgvector's index takes as they are."""

LONGEST_HALVED = 4_000
"""Numbers of the longest ones that it takes with half the bits each; still longer ones are compared one by one."""

DEFAULT = VectorIndex()


def options_of(connection: "psycopg.Connection") -> VectorIndex:
    """How the indexes of vectors in this database are made and asked: as the alias says, else as ever."""
    if connection.execute("SELECT to_regclass('search_model')").fetchone() == (None,):
        return DEFAULT
    row = connection.execute(read_sql("postgres/search_model/served.sql")).fetchone()
    return DEFAULT if row is None else index_of(row[1])


def distance_sql(column: str, vector: str, dimension: int, options: VectorIndex = DEFAULT) -> str:
    """The distance that rows must be ordered by for the index to be used; it is rounded where the index rounds.

    Args:
        column, vector: SQL of the two vectors.
    """
    kind = f"halfvec({dimension})" if _is_half(dimension, options) else "vector"
    ours = column if kind == "vector" else f"({column}::{kind})"
    return f"{ours} <=> {vector}::{kind}"


def vector_index(contract: Contract, column: Column) -> list[str]:
    """The statement for the index of a column that all rows share; none for other columns, nor for the longest vectors.

    Where the contract tells vectors apart, each kind has its own; see `keep_vector_indexes`.
    """
    indexed = None if contract.vectors_by else _indexed_sql(column, DEFAULT)
    return [f"CREATE INDEX ON {_table(contract)} USING hnsw ({indexed})"] if indexed else []


def keep_vector_indexes(connection: "psycopg.Connection", contract: Contract) -> None:
    """Have an index for the vectors of each value of `vectors_by` that there is, and none of one that is gone.

    It is called once the rows are in place: an index is made of many rows in a fraction of the time that it takes to
    let them in one by one.
    """
    drop_indexes(connection, contract, make_vector_indexes(connection, contract))


def drop_indexes(connection: "psycopg.Connection", contract: Contract, names: list[str]) -> None:
    """Drop indexes of a table, which nobody can read from then on to the transaction's end."""
    for name in names:
        run(connection, f"DROP INDEX {qualified(contract.schema, name)}")


def make_vector_indexes(connection: "psycopg.Connection", contract: Contract) -> list[str]:
    """Make the indexes that `keep_vector_indexes` has; returns the names of those that are to go after that."""
    # Somebody's own tables are as they say themselves.
    options = options_of(connection) if contract.asset in INDEXED.values() else DEFAULT
    indexed = {column.name: sql for column in contract.columns if (sql := _indexed_sql(column, options))}
    if not contract.vectors_by or not indexed:
        return []
    by = quote_identifier(contract.vectors_by)
    values = [
        value for (value,) in run(connection, f"SELECT DISTINCT {by} FROM {_table(contract)}").fetchall()
    ]
    wanted = {
        _name(contract, name, value, options): (sql, value)
        for name, sql in indexed.items()
        for value in values
        if value is not None
    }
    present = _present(connection, contract)
    for name, (sql, value) in wanted.items():
        if name not in present:
            run(
                connection, _index_sql(name, _table(contract), sql, options, f"{by} = {quote_literal(value)}")
            )
    shared = {f"{contract.table}_{name}_idx" for name in indexed}
    # Of a model or parameters that are gone, or of a table that was made when all models shared one.
    return [
        name
        for name in present
        if name not in wanted and (name in shared or name.startswith(_prefix(contract)))
    ]


def index_alone(
    connection: "psycopg.Connection", relation: str, contract: Contract, options: VectorIndex
) -> None:
    """Index the vectors of a table that no contract is of, such as a temporary one, whatever the alias says.

    Args:
        relation: the table, as an identifier.
        contract: whose columns it has.
    """
    for column in contract.columns:
        if sql := _indexed_sql(column, options):
            run(connection, _index_sql(f"{contract.table}_{column.name}_hnsw", relation, sql, options))


def _index_sql(name: str, relation: str, indexed: str, options: VectorIndex, where: str = "") -> str:
    said = {
        name: value
        for name in ("m", "ef_construction")
        if (value := getattr(options, name)) != getattr(DEFAULT, name)
    }
    made = f" WITH ({', '.join(f'{name} = {value}' for name, value in said.items())})" if said else ""
    only = f" WHERE {where}" if where else ""
    return f"CREATE INDEX {quote_identifier(name)} ON {relation} USING hnsw ({indexed}){made}{only}"


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


def _name(contract: Contract, column: str, value: str, options: VectorIndex) -> str:
    """PostgreSQL cuts names off after 63 bytes, and a model's may be long."""
    made = "" if _made(options) == _made(DEFAULT) else f" {_made(options)}"
    told = f"{contract.table} {column} {value}{made}".encode()
    return f"{_prefix(contract)}{hashlib.md5(told, usedforsecurity=False).hexdigest()[:16]}"


def _made(options: VectorIndex) -> tuple[int, int, str]:
    """What decides about an index, and not about how it is asked."""
    return options.m, options.ef_construction, options.precision


def _is_half(dimension: int, options: VectorIndex) -> bool:
    longest = 0 if options.precision == "half" else LONGEST
    return longest < dimension <= LONGEST_HALVED


def _indexed_sql(column: Column, options: VectorIndex) -> str:
    """What an index of the column is on; "" if it can have none."""
    if column.type != "vector" or (column.dimension or LONGEST) > LONGEST_HALVED:
        return ""
    if column.dimension and _is_half(column.dimension, options):
        return f"({quote_identifier(column.name)}::halfvec({column.dimension})) halfvec_cosine_ops"
    return f"{quote_identifier(column.name)} vector_cosine_ops"


def _table(contract: Contract) -> str:
    return qualified(contract.schema, contract.table)
