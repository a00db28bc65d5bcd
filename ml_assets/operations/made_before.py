"""What was made of documents before and need not be made again: their passages, and the vectors of texts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ml_assets.contracts import Contract
from ml_assets.errors import StoreUnavailable
from ml_assets.lib.passages import SCHEMA, PassagesBefore
from ml_assets.lib.sql import qualified, quote_identifier
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ml_assets.embedders.incremental import KnownVectors
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource


def known_passages(lake: "DuckLakeResource", contract: Contract) -> PassagesBefore | None:
    """How passages are found that the lake holds; None if it holds none, or others than were written.

    Args:
        contract: of the table of passages.
    """
    import duckdb

    from ml_assets.stores.duckdb import DuckLakeStore
    from ml_assets.stores.duckdb.ddl import columns_of
    from ml_assets.tables.arrow_types import recast

    with lake.get_connection() as connection:
        [existing] = columns_of(connection, (contract.schema, contract.table))
    # A table that a former release made has not all the columns, and is made anew once.
    if not set(SCHEMA.names) <= set(existing):
        return None
    # What was changed by hand, or whose files are gone, is made anew, too, and not carried on.
    store = DuckLakeStore(lake)
    try:
        live = store.live_state(contract)
    except (duckdb.IOException, OSError, StoreUnavailable) as fault:
        if lake.is_loss(fault):
            return None
        raise
    if live.content_hash != store.ledger_state(contract).content_hash:
        return None
    statement = read_sql("duckdb/embeddings/known_passages.sql").format(
        columns=", ".join(map(quote_identifier, SCHEMA.names)),
        table=qualified("lake", contract.schema, contract.table),
    )

    def before(document_hashes: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        found = lake.reader(statement, {"document_hashes": list(document_hashes)}, bulk=True)
        yield from recast(found, SCHEMA)

    return before


def known_vectors(
    postgres: "PostgresResource", table: str, key_column: str, model_name: str
) -> "KnownVectors":
    """How vectors are found that a table holds: by key, or by text where it stands under another key.

    Args:
        model_name: the model that made them.
    """
    names = {"table": quote_identifier(table), "key": quote_identifier(key_column)}
    statement = read_sql("postgres/embeddings/known_vectors.sql").format(**names)
    elsewhere = read_sql("postgres/embeddings/known_elsewhere.sql").format(**names)

    def known(keys: Sequence[str], hashes: Sequence[str]) -> "dict[str, np.ndarray]":
        with postgres.connect() as connection:
            if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
                return {}  # the first write creates the table
            given = {"ids": list(keys), "model_name": model_name}
            rows = connection.execute(statement.encode(), given, binary=True).fetchall()
            missing = sorted(set(hashes) - {found for found, _ in rows})
            if missing:  # a text that moved to another key keeps its vector
                given = {"hashes": missing, "model_name": model_name}
                rows += connection.execute(elsewhere.encode(), given, binary=True).fetchall()
            return vectors_as_sent(rows)

    return known


def vectors_as_sent(rows: Iterable[tuple[str, bytes]]) -> "dict[str, np.ndarray]":
    """Vectors by name, out of what pgvector's `vector_send` gives: the length, two bytes, and the numbers in 32 bits."""
    import numpy as np

    return {name: np.frombuffer(sent, dtype=">f4", offset=4) for name, sent in rows}
