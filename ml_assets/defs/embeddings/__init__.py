"""Texts to vectors: chunks, pgvector, and the same vectors in Chroma and Qdrant. A vector is computed once."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import dagster as dg
import pyarrow as pa

from ml_assets import metadata
from ml_assets.contracts import INDEXED, Tables
from ml_assets.contracts.embeddings import CLUSTERS
from ml_assets.defs.checks import table_checks
from ml_assets.defs.options import key, table_asset
from ml_assets.embedders import make_embedder
from ml_assets.embedders.incremental import EmbeddingCount, embed_changed
from ml_assets.errors import Refusal
from ml_assets.lib import clusters, plots
from ml_assets.lib.chunking import VERSION as CHUNKER
from ml_assets.lib.passages import VECTOR_COLUMNS, chunk_documents
from ml_assets.operations import search_clusters
from ml_assets.operations.made_before import known_passages, known_vectors
from ml_assets.operations.reconcile import Listed, compare_sides, stored_keys
from ml_assets.operations.search_candidates import alias_stays, sweep
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.embedder import EmbedderResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stores.registry import kind_of


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """Chunks, and for cards and chunks each a table of vectors and an index."""
    return dg.Definitions(
        assets=[
            _chunks(settings, tables),
            _vectors(settings, tables, "experiment_embeddings", "experiment_cards", _CARD_COLUMNS),
            _vectors(settings, tables, "document_embeddings", "document_chunks", VECTOR_COLUMNS),
            *(_index(settings, tables, index) for index in INDEXED if index in tables),
            _clusters(settings, tables, "documents"),
            _clusters(settings, tables, "runs"),
        ],
        asset_checks=[
            table_checks(tables, "duckdb/document_chunks"),
            table_checks(tables, "postgres/experiment_embeddings"),
            table_checks(tables, "postgres/document_embeddings"),
            *(_index_check(tables, index) for index in INDEXED if index in tables),
            table_checks(tables, "postgres/document_clusters"),
            table_checks(tables, "postgres/experiment_clusters"),
        ],
    )


_CARD_COLUMNS = {name: name for name in ("run_id", "title", "text", "metadata", "content_hash", "created_at")}
"""Columns that cards are embedded with."""


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
            "Cuts documents into passages of at most 200 tokens, or what 'ml-assets search-switch' has decided, under "
            "one heading, between paragraphs, items of lists, tables and code where it can. An embedding model reads no "
            "more than it reads: what stands behind that "
            "would never be found. The cut depends on the document, the model and that length alone, and the "
            "key of a passage on what the model is given: an unchanged passage keeps key and vector wherever it moves. "
            "Only documents that have changed since are cut again."
        ),
        logic=[f"chunks {CHUNKER}", _embedder(settings)],
        ins={"documents": dg.AssetIn(key("duckdb/raw_documents"))},
    )
    def document_chunks(
        documents: pa.RecordBatchReader, embedder: EmbedderResource, lake: DuckLakeResource
    ) -> pa.RecordBatchReader:
        served, before = embedder.served(), known_passages(lake, tables["duckdb/document_chunks"])
        rows = chunk_documents(documents, served.embedder, served.passages, before)
        return _if_still_served(rows, served.cut_for, lambda: embedder.served().cut_for)

    return document_chunks


def _vectors(
    settings: Settings, tables: Tables, table: str, source: str, columns: dict[str, str]
) -> dg.AssetsDefinition:
    """pgvector table of `source`'s texts.

    Args:
        columns: of the texts, by their names in the table; the first one is its key.
    """
    key_column = next(iter(columns))
    # What documents were cut for is asked, and not carried on. A feature file that was never built has no contract yet.
    made_of = tables.get(f"duckdb/{source}")
    is_cut = made_of is not None and CUT_FOR in made_of.by_name
    read = {*columns.values(), *([CUT_FOR] if is_cut else [])}

    @table_asset(
        settings,
        tables[f"postgres/{table}"],
        group="embeddings",
        description=(
            "Vectors next to the rows they describe, so that one SQL statement can filter by metadata "
            "and rank by meaning. Only texts whose hash or model changed are embedded; all others keep "
            "their vector, and what vanished upstream is deleted."
        ),
        logic=["vectors 2", _embedder(settings)],
        kinds=["pgvector"],
        ins={"texts": dg.AssetIn(key(f"duckdb/{source}"), metadata={"columns": sorted(read)})},
    )
    def vectors(
        context: dg.AssetExecutionContext,
        texts: pa.RecordBatchReader,
        embedder: EmbedderResource,
        postgres: PostgresResource,
    ) -> Iterator[dg.Output[pa.RecordBatchReader]]:
        def made_for() -> str:
            # Passages of another cut would undo a switch as well as vectors of another model.
            return embedder.served().cut_for if is_cut else embedder.get().name

        began_for, model = made_for(), embedder.get()  # in this order: what is served between them is noticed
        count = EmbeddingCount(progress=lambda c: context.log.info(f"{c.embedded} embedded, {c.kept} kept"))
        known = known_vectors(postgres, table, key_column, model.name)
        if is_cut:
            texts = _if_cut_for(texts, began_for)
        made = embed_changed(_select(texts, columns), key_column, model, known, count)
        with ExitStack() as until_written:

            def still_made_for() -> str:
                until_written.enter_context(alias_stays(postgres))
                return made_for()

            yield dg.Output(
                _if_still_served(made, began_for, still_made_for),
                metadata={"embedding_model": model.name, "dimension": model.dimension},
            )
        # The rows are written: what a switch keeps of those that are gone goes with them.
        sweep(postgres, table)

    return vectors


CUT_FOR = "cut_for"


def _if_cut_for(passages: pa.RecordBatchReader, served: str) -> pa.RecordBatchReader:
    """Passages, unless they were cut for something else than what is served; those of before there was a choice pass.

    Raises:
        Refusal: they were.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in passages:
            if others := set(batch[CUT_FOR].unique().to_pylist()) - {served, None}:
                raise Refusal(
                    f"duckdb/document_chunks was cut for {min(others)}, and {served} is served: run 'ml-assets "
                    "search-switch', which has it follow, and 'ml-assets refresh' once more. Nothing was written."
                )
            yield batch

    return pa.RecordBatchReader.from_batches(passages.schema, batches())


def _if_still_served(
    rows: pa.RecordBatchReader, made_for: str, served: Callable[[], str]
) -> pa.RecordBatchReader:
    """The rows, unless something else has taken the place of what they are made for, which would be undone by them.

    Raises:
        Refusal: it has.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        yield from rows
        if (now := served()) != made_for:
            raise Refusal(
                f"{now} has taken the place of {made_for} meanwhile, for which these rows were made: run 'ml-assets "
                "refresh' once more, which goes on with it. Nothing was written."
            )

    return pa.RecordBatchReader.from_batches(rows.schema, batches())


def _index(settings: Settings, tables: Tables, asset: str) -> dg.AssetsDefinition:
    source, title = INDEXED[asset], kind_of(tables[asset].store).name.capitalize()
    (key_column,) = tables[asset].key

    @table_asset(
        settings,
        tables[asset],
        group="embeddings",
        description=(
            f"The vectors of {source}, carried over as they are, for applications that search "
            f"through {title}. Nothing is embedded twice, so both stores give the same neighbours."
        ),
        fresh=tables[asset].table == "experiment_index",
        ins={
            "vectors": dg.AssetIn(
                key(source),
                metadata={"columns": [key_column, "embedding", "text", "metadata"]},
            )
        },
    )
    def index(vectors: pa.RecordBatchReader) -> pa.RecordBatchReader:
        return vectors

    return index


def _index_check(tables: Tables, asset: str) -> dg.AssetChecksDefinition:
    """Such a store cannot be asked in SQL: its entries are read and hashed, and their keys compared."""
    contract, upstream = tables[asset], tables[INDEXED[asset]]
    kind = kind_of(contract.store)

    @dg.asset_check(
        asset=key(contract.asset),
        name=f"agrees_with_postgres_{upstream.table}",
        additional_deps=[key(upstream.asset)],
        description="Every vector upstream is here, no other, and each as it was written.",
        required_resource_keys={*kind.resources, "postgres"},
    )
    def agrees(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        store = kind(*(getattr(context.resources, name) for name in kind.resources))
        live, written = store.live_state(contract), store.ledger_state(contract)
        keys = store.keys(contract) or set()
        with context.resources.postgres.asking() as ask:
            there = stored_keys(lambda _, statement: ask(statement), upstream)
            found = compare_sides(contract.asset, upstream.asset, Listed(keys), there)
        changed = (
            ""
            if live is not None and live.content_hash == written.content_hash
            else " Entries differ from what was written."
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


def _clusters(settings: Settings, tables: Tables, named: str) -> dg.AssetsDefinition:
    subject = search_clusters.SUBJECTS[named]

    @table_asset(
        settings,
        tables[CLUSTERS[subject.table].asset],
        group="embeddings",
        description=(
            f"Which {named} belong together by meaning, what each cluster is about, and a map on which neighbours lie "
            "near each other. When others come or go, a cluster keeps its id and a point about its place."
        ),
        logic=[clusters.VERSION],
        deps=[key(subject.asset)],
    )
    def found(context: dg.AssetExecutionContext, postgres: PostgresResource) -> pa.Table:
        rows = search_clusters.cluster_rows(postgres, subject)
        shown = plots.cluster_map(rows.select(["cluster", "label", "x", "y"]), f"Map of {named}")
        context.add_output_metadata({"map": metadata.plot(f"Map of {named}", shown)})
        return rows

    return found
