"""Documents to passages, as Arrow batches."""

from collections.abc import Iterator

import orjson
import pyarrow as pa

from ml_assets.lib.chunking import CountTokens, chunk_document

SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("document_id", pa.string()),
        ("chunk_index", pa.int64()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("token_count", pa.int64()),
        ("metadata", pa.string()),
        ("content_hash", pa.string()),
        ("updated_at", pa.timestamp("us", tz="UTC")),
    ]
)


def chunk_documents(documents: pa.RecordBatchReader, count_tokens: CountTokens) -> pa.RecordBatchReader:
    """Passages of rows of `raw_documents`; each keeps its document's metadata, title and source."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in documents:
            rows = [row for document in batch.to_pylist() for row in _chunks(document, count_tokens)]
            if rows:
                yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def _chunks(document: dict, count_tokens: CountTokens) -> Iterator[dict]:
    metadata = orjson.loads(document["metadata"] or "{}")
    labels = {"document_id": document["document_id"], "source": document["source"]}
    for chunk in chunk_document(document["document_id"], document["title"], document["text"], count_tokens):
        yield {
            "chunk_id": chunk.chunk_id,
            "document_id": chunk.document_id,
            "chunk_index": chunk.index,
            "title": chunk.title,
            "text": chunk.text,
            "source": document["source"],
            "token_count": chunk.token_count,
            "metadata": orjson.dumps({**metadata, **labels}, option=orjson.OPT_SORT_KEYS).decode(),
            "content_hash": chunk.content_hash,
            "updated_at": document["updated_at"],
        }
