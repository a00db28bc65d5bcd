"""Which models made the vectors of texts, and which tables hold what the settings' model did not make."""

from typing import TYPE_CHECKING, Any

from ml_assets.contracts import INDEXED, Contract, tables
from ml_assets.errors import Refusal
from ml_assets.lib.sql import quote_identifier
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.registry import stores
from ml_assets.stores.vectors import VectorStore
from ml_assets.tables.one_model import MODEL

if TYPE_CHECKING:
    from ml_assets.embedders import Embedder
    from ml_assets.resources.postgres import PostgresResource


def vector_tables(settings: Settings) -> list[Contract]:
    """The tables of PostgreSQL whose vectors an embedder made."""
    return [
        contract
        for contract in tables(settings).values()
        if contract.store == "postgres"
        and MODEL in contract.by_name
        and any(column.type == "vector" for column in contract.columns)
    ]


def embeddings(
    settings: Settings, postgres: "PostgresResource", embedder: "Embedder"
) -> list[dict[str, Any]]:
    """See `Search.embeddings`."""
    found = []
    with postgres.connect() as connection:
        for contract in vector_tables(settings):
            table = quote_identifier(contract.table)
            if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
                continue
            statement = read_sql("postgres/embeddings/made_by.sql").format(table=table)
            for model, dimension, vectors in connection.execute(statement.encode()).fetchall():
                found.append(
                    {
                        "table": contract.asset,
                        "model": model,
                        "dimension": dimension,
                        "vectors": vectors,
                        "current": (model, dimension) == (embedder.name, embedder.dimension),
                    }
                )
    return found


def to_repair(settings: Settings, postgres: "PostgresResource", embedder: "Embedder") -> dict[str, bool]:
    """The tables, by asset, that hold what another model made or are gone, and whether their vectors are of a length
    that the table must be made anew for.

    Raises:
        Refusal: the settings name a model with vectors of another length than those of the one that was switched to.
    """
    from ml_assets.stores.postgres_table import last_contract

    if embedder.dimension != settings.embedding_dimension:
        raise Refusal(
            f"{embedder.name}, which was switched to, has vectors of {embedder.dimension:,} numbers, and "
            f"ML_ASSETS_EMBEDDER={settings.embedder} of {settings.embedding_dimension:,}: run 'ml-assets search-switch "
            f"{settings.embedder}', or set ML_ASSETS_EMBEDDER to the model that is served."
        )
    held = embeddings(settings, postgres, embedder)
    found = {each["table"]: False for each in held if not each["current"]}
    found |= {each["table"]: True for each in held if each["dimension"] != embedder.dimension}
    with postgres.connect() as connection:
        for contract in vector_tables(settings):
            exists = connection.execute(
                "SELECT to_regclass(%s)", [quote_identifier(contract.table)]
            ).fetchone()
            # It was written before: a repair was killed, or somebody dropped it.
            if exists == (None,) and last_contract(connection, contract.asset) is not None:
                found[contract.asset] = True
    return found


def make_way(settings: Settings, resources: dict[str, Any], asset: str) -> None:
    """Drop a table whose vectors have another length than those of the settings' model, and its indexes elsewhere."""
    contracts = tables(settings)
    contract = contracts[asset]
    postgres = resources["postgres"]
    with postgres.connect(write=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {quote_identifier(contract.table)}".encode())
    for store in stores(resources):
        for index, parent in INDEXED.items():
            if parent == asset and isinstance(store, VectorStore) and index.startswith(f"{store.prefix}/"):
                store.forget(contracts[index])
