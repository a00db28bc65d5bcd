"""Texts to vectors: chunks, pgvector, and the same vectors in Chroma. A vector is computed once."""

from collections.abc import Iterator, Sequence

import dagster as dg
import numpy as np
import pyarrow as pa

from ml_assets.contracts import Tables
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.embedders import make_embedder
from ml_assets.embedders.incremental import EmbeddingCount, KnownVectors, embed_changed
from ml_assets.lib.passages import chunk_documents
from ml_assets.lib.sql import quote_identifier
from ml_assets.operations.reconcile import Listed, compare_sides, stored_keys
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.embedder import EmbedderResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.chroma import ChromaStore


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """Chunks, and for cards and chunks each a table of vectors and an index."""
    return dg.Definitions(
        assets=[
            _chunks(settings, tables),
            _vectors(settings, tables, "experiment_embeddings", "experiment_cards", {"run_id": "run_id"}),
            _vectors(
                settings,
                tables,
                "document_embeddings",
                "document_chunks",
                {"id": "chunk_id", "document_id": "document_id", "created_at": "updated_at"},
            ),
            _index(settings, tables, "experiment_index", "experiment_embeddings", "run_id"),
            _index(settings, tables, "document_index", "document_embeddings", "id"),
        ],
        asset_checks=[
            table_checks(tables, "duckdb/document_chunks"),
            table_checks(tables, "postgres/experiment_embeddings"),
            table_checks(tables, "postgres/document_embeddings"),
            _index_check(tables, "experiment_index", "experiment_embeddings"),
            _index_check(tables, "document_index", "document_embeddings"),
        ],
    )


def _embedder(settings: Settings) -> str:
    """Which model cuts and embeds: where it is another one, tables that the former one made are outdated."""
    embedder = make_embedder(settings)
    return f"{embedder.name} {embedder.dimension}"


def _chunks(settings: Settings, tables: Tables) -> dg.AssetsDefinition:
    @table_asset(
        settings,
        tables["duckdb/document_chunks"],
        group="embeddings",
        description=(
            "Cuts documents into passages of at most 200 tokens, at paragraphs and sentences where it "
            "can. An embedding model reads no more than 256 tokens: what stands behind that would never "
            "be found. The cut depends on the text alone, so an unchanged document keeps its passages."
        ),
        logic=["chunks 1", _embedder(settings)],
        ins={"documents": dg.AssetIn(key("duckdb/raw_documents"))},
    )
    def document_chunks(documents: pa.RecordBatchReader, embedder: EmbedderResource) -> pa.RecordBatchReader:
        return chunk_documents(documents, embedder.get().count_tokens)

    return document_chunks


def _vectors(
    settings: Settings, tables: Tables, table: str, source: str, renamed: dict[str, str]
) -> dg.AssetsDefinition:
    """pgvector table of `source`'s texts; `renamed` maps a column to its name in the source."""
    columns = {"title": "title", "text": "text", "metadata": "metadata", "content_hash": "content_hash"}
    columns = {**columns, "created_at": "created_at", **renamed}
    key_column = next(iter(renamed))

    @table_asset(
        settings,
        tables[f"postgres/{table}"],
        group="embeddings",
        description=(
            "Vectors next to the rows they describe, so that one SQL statement can filter by metadata "
            "and rank by meaning. Only texts whose hash or model changed are embedded; all others keep "
            "their vector, and what vanished upstream is deleted."
        ),
        logic=["vectors 1", _embedder(settings)],
        kinds=["pgvector"],
        ins={"texts": dg.AssetIn(key(f"duckdb/{source}"), metadata={"columns": sorted(columns.values())})},
    )
    def vectors(
        context: dg.AssetExecutionContext,
        texts: pa.RecordBatchReader,
        embedder: EmbedderResource,
        postgres: PostgresResource,
    ) -> Iterator[dg.Output[pa.RecordBatchReader]]:
        model = embedder.get()
        count = EmbeddingCount(progress=lambda c: context.log.info(f"{c.embedded} embedded, {c.kept} kept"))
        known = _known_vectors(postgres, table, key_column, model.name)
        rows = _select(texts, columns)
        yield dg.Output(
            embed_changed(rows, key_column, model, known, count),
            metadata={"embedding_model": model.name, "dimension": model.dimension},
        )

    return vectors


def _index(
    settings: Settings, tables: Tables, table: str, source: str, key_column: str
) -> dg.AssetsDefinition:
    @table_asset(
        settings,
        tables[f"chroma/{table}"],
        group="embeddings",
        description=(
            f"The vectors of postgres/{source}, carried over as they are, for applications that search "
            "through Chroma. Nothing is embedded twice, so both stores give the same neighbours."
        ),
        fresh=table == "experiment_index",
        ins={
            "vectors": dg.AssetIn(
                key(f"postgres/{source}"),
                metadata={"columns": [key_column, "embedding", "text", "metadata"]},
            )
        },
    )
    def index(vectors: pa.RecordBatchReader) -> pa.RecordBatchReader:
        return vectors

    return index


def _index_check(tables: Tables, table: str, source: str) -> dg.AssetChecksDefinition:
    """Chroma cannot be asked in SQL: its entries are read and hashed, and their keys compared."""
    contract, upstream = tables[f"chroma/{table}"], tables[f"postgres/{source}"]

    @dg.asset_check(
        asset=key(contract.asset),
        name=f"agrees_with_postgres_{source}",
        additional_deps=[key(upstream.asset)],
        description="Every vector upstream is here, no other, and each as it was written.",
    )
    def agrees(chroma: ChromaResource, postgres: PostgresResource) -> dg.AssetCheckResult:
        store = ChromaStore(chroma, postgres)
        live, written = store.live_state(contract), store.ledger_state(contract)
        keys = store.keys(contract) or set()
        with postgres.asking() as ask:
            there = stored_keys(lambda _, statement: ask(statement), upstream)
            found = compare_sides(contract.asset, upstream.asset, Listed(keys), there)
        changed = (
            "" if live.content_hash == written.content_hash else " Entries differ from what was written."
        )
        return dg.AssetCheckResult(
            passed=found.agrees and not changed,
            metadata={contract.asset: found.actual, upstream.asset: found.expected},
            description=f"{found.told}{changed}",
        )

    return agrees


def _select(rows: pa.RecordBatchReader, columns: dict[str, str]) -> pa.RecordBatchReader:
    """The named columns, renamed: {new name: name in rows}."""
    schema = pa.schema([rows.schema.field(old).with_name(new) for new, old in columns.items()])
    batches = (
        pa.RecordBatch.from_arrays([batch[old] for old in columns.values()], schema=schema) for batch in rows
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def _known_vectors(postgres: PostgresResource, table: str, key_column: str, model_name: str) -> KnownVectors:
    statement = read_sql("postgres/embeddings/known_vectors.sql").format(
        table=quote_identifier(table), key=quote_identifier(key_column)
    )

    def known(ids: Sequence[str]) -> dict[str, tuple[str, np.ndarray]]:
        from pgvector.psycopg import register_vector

        with postgres.connect() as connection:
            if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
                return {}  # the first write creates the table
            register_vector(connection)
            found = connection.execute(statement.encode(), {"ids": list(ids), "model_name": model_name})
            return {row[0]: (row[1], row[2].to_numpy()) for row in found}

    return known
