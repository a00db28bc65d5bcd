"""Embeddings: vectors in PostgreSQL, and the same in Chroma."""

from ml_assets.contracts.columns import json_column, need, text, time, vector
from ml_assets.contracts.model import Contract


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
            ),
            key=("id",),
            mode="upsert_delete",
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
    )
