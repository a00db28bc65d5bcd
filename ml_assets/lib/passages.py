"""Documents to passages, as Arrow batches."""

from collections.abc import Iterator
from itertools import chain, islice

import orjson
import pyarrow as pa

from ml_assets.lib.chunking import chunk_document
from ml_assets.lib.reader import Reader
from ml_assets.lib.search_setup import Passages, cut_for

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
        ("start_offset", pa.int64()),
        ("end_offset", pa.int64()),
        ("section", pa.string()),
        ("format", pa.string()),
        ("context", pa.string()),
        ("cut_for", pa.string()),
    ]
)

VECTOR_COLUMNS = {
    "id": "chunk_id",
    "title": "title",
    "text": "text",
    "metadata": "metadata",
    "content_hash": "content_hash",
    "created_at": "updated_at",
    "document_id": "document_id",
    **{name: name for name in ("chunk_index", "start_offset", "end_offset", "section", "format", "context")},
}
"""Columns that passages are embedded with, by their names beside the vectors."""

BATCH_ROWS = 1_024

_LARGE_BYTES = 16 * 1024 * 1024


def chunk_documents(
    documents: pa.RecordBatchReader, model: Reader, passages: Passages | None = None
) -> pa.RecordBatchReader:
    """Passages of rows of `raw_documents` for a model; each keeps its document's metadata, title and source.

    Args:
        passages: how long they are; as ever if None.
    """
    passages = passages or Passages()

    def batches() -> Iterator[pa.RecordBatch]:
        each = (document for batch in documents for document in _rows(batch))
        rows = chain.from_iterable(_chunks(document, model, passages) for document in each)
        while some := list(islice(rows, BATCH_ROWS)):
            yield pa.RecordBatch.from_pylist(some, schema=SCHEMA)

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def _rows(batch: pa.RecordBatch) -> Iterator[dict]:
    """Some at once, or one by one where documents are long."""
    some = 1 if batch.nbytes > _LARGE_BYTES else 256
    for n in range(0, batch.num_rows, some):
        yield from batch.slice(n, some).to_pylist()


def _chunks(document: dict, model: Reader, passages: Passages) -> Iterator[dict]:
    told_cut_for = cut_for(model, passages)
    metadata = orjson.loads(document["metadata"] or "{}")
    told = metadata if isinstance(metadata, dict) else {}
    labels = {"document_id": document["document_id"], "source": document["source"]}
    merged = orjson.dumps({**told, **labels}, option=orjson.OPT_SORT_KEYS).decode()
    for chunk in chunk_document(
        document["document_id"],
        document["title"],
        document["text"],
        model,
        metadata=told,
        source=document["source"],
        max_tokens=passages.tokens,
        overlap_tokens=passages.overlap_tokens,
    ):
        yield {
            "chunk_id": chunk.chunk_id,
            "document_id": chunk.document_id,
            "chunk_index": chunk.index,
            "title": chunk.title,
            "text": chunk.text,
            "source": document["source"],
            "token_count": chunk.token_count,
            "metadata": merged,
            "content_hash": chunk.content_hash,
            "updated_at": document["updated_at"],
            "start_offset": chunk.start,
            "end_offset": chunk.end,
            "section": chunk.section or None,
            "format": chunk.format,
            "context": chunk.context or None,
            "cut_for": told_cut_for,
        }
