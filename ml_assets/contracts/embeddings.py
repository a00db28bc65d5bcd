"""Embeddings: vectors in PostgreSQL, and the same in Chroma and, where there is one, in Qdrant."""

from dataclasses import replace

from ml_assets.contracts.columns import count, json_column, need, number, share, text, time, vector
from ml_assets.contracts.model import Column, Contract


def tables(dimension: int) -> tuple[Contract, ...]:
    """The tables of the room.

    Args:
        dimension: length of the vectors of the embedder in use.
    """
    return (
        Contract(
            "postgres/experiment_embeddings",
            "the vector of one experiment card",
            (
                need("run_id"),
                vector("embedding", dimension),
                need("model_name", "embedding model and its revision"),
                need("content_hash", "of the card that was embedded"),
                need("title"),
                need("text"),
                json_column("metadata"),
                time("created_at", "start of the run, UTC"),
            ),
            key=("run_id",),
            mode="upsert_delete",
            vectors_by="model_name",
        ),
        Contract(
            "chroma/experiment_index",
            "the same vectors, searchable in Chroma",
            (
                need("run_id"),
                vector("embedding", dimension),
                need("text"),
                json_column("metadata"),
            ),
            key=("run_id",),
            mode="upsert_delete",
        ),
        Contract(
            "postgres/document_embeddings",
            "the vector of one chunk",
            (
                need("id", "chunk_id"),
                need("document_id"),
                vector("embedding", dimension),
                need("model_name", "embedding model and its revision"),
                need("content_hash", "of the chunk that was embedded"),
                text("title"),
                need("text"),
                json_column("metadata"),
                time("created_at", "last change of the document, UTC"),
                count("chunk_index", "place of the passage in its document, from 0", True),
                count("start_offset", "where it begins in the document's text, in characters", True),
                count("end_offset", "where it ends", True),
                text("section", "headings that it stands under, the outermost first"),
                text("format", "that the document was taken for"),
            ),
            key=("id",),
            mode="upsert_delete",
            vectors_by="model_name",
        ),
        Contract(
            "chroma/document_index",
            "the same vectors, searchable in Chroma",
            (
                need("id", "chunk_id"),
                vector("embedding", dimension),
                need("text"),
                json_column("metadata"),
            ),
            key=("id",),
            mode="upsert_delete",
        ),
        *CLUSTERS.values(),
    )


def in_qdrant(dimension: int) -> tuple[Contract, ...]:
    """The tables of the room that there are where a Qdrant is configured: what Chroma has, once more.

    Args:
        dimension: as `tables`.
    """
    return tuple(
        replace(
            contract,
            asset=contract.asset.replace("chroma/", "qdrant/"),
            description="the same vectors, searchable in Qdrant",
        )
        for contract in tables(dimension)
        if contract.store == "chroma"
    )


def _clusters(asset: str, row: str, id: str) -> Contract:
    return Contract(
        asset,
        f"the cluster of {row}, and its place on the map",
        (
            need(id),
            Column("cluster", "int64", nullable=False, minimum=-1, description="-1 if it belongs to none"),
            text("label", "words that tell the cluster from others"),
            text("title"),
            share("certainty", "how surely it belongs there", nullable=False),
            number("x", "on the map", nullable=False),
            number("y", "on the map", nullable=False),
            need("content_hash", "of the texts and the model that it was clustered by"),
        ),
        key=(id,),
        mode="upsert_delete",
    )


CLUSTERS = {
    "document_embeddings": _clusters("postgres/document_clusters", "one document", "document_id"),
    "experiment_embeddings": _clusters("postgres/experiment_clusters", "one run", "run_id"),
}
"""Tables of clusters by the table whose vectors are clustered."""
