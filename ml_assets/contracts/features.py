"""Features: what SQL files of the lake make, whose contracts lie beside them, and the passages of documents."""

from ml_assets.contracts.columns import count, json_column, need, text, time
from ml_assets.contracts.feature_files import feature_files
from ml_assets.contracts.model import Contract
from ml_assets.settings import Settings


def tables(settings: Settings) -> tuple[Contract, ...]:
    """The tables of the room; those of files that were never built have no contract yet."""
    pinned = (file.contract for file in feature_files(settings))
    return (
        *(contract for contract in pinned if contract is not None),
        Contract(
            "duckdb/document_chunks",
            "a passage of a document, small enough for the embedding model",
            (
                need(
                    "chunk_id", "document_id and the start of content_hash: stays as long as the passage does"
                ),
                need("document_id"),
                count("chunk_index", "from 0"),
                text("title"),
                need("text"),
                text("source"),
                count("token_count", "tokens of the embedding model"),
                json_column("metadata"),
                need(
                    "content_hash",
                    "SHA-256 of context, text, chunker, model and dimension: what decides about a new embedding",
                ),
                time("updated_at", "last change of the document, UTC"),
                count("start_offset", "where the passage begins in the document's text, in characters", True),
                count("end_offset", "where it ends; of HTML, text[start:end] holds it", True),
                text("section", "headings that it stands under, the outermost first"),
                text("format", "that the document was taken for: markdown, html, rst or plain"),
                text("context", "what the model is given before the text: title and section, shortened"),
                text("cut_for", "the model, and how long passages were when the document was cut"),
                text(
                    "document_hash",
                    "SHA-256 of the document and of what it was cut for: while it stays, so do its passages",
                ),
            ),
            key=("chunk_id",),
        ),
    )
