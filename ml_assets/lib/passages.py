"""Documents to passages, as Arrow batches."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
        ("document_hash", pa.string()),
    ]
)

PassagesBefore = Callable[[Sequence[str]], Iterable[pa.RecordBatch]]
"""Passages that documents were cut into before, by `document_hash`; of `SCHEMA`."""

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

LOOKED_UP = 32_768
"""Documents that are looked up at once."""

_LARGE_BYTES = 32 * 1024 * 1024


def chunk_documents(
    documents: pa.RecordBatchReader,
    model: Reader,
    passages: Passages | None = None,
    before: PassagesBefore | None = None,
) -> pa.RecordBatchReader:
    """Passages of rows of `raw_documents` for a model; each keeps its document's metadata, title and source.

    Args:
        passages: how long they are; as ever if None.
        before: what was cut before. A document that is the same, and was cut for the same, keeps its passages.
    """
    passages = passages or Passages()
    # Of a server's model its name does not tell the last two, which are settings.
    decisive = [cut_for(model, passages), model.max_tokens, model.dimension]

    def batches() -> Iterator[pa.RecordBatch]:
        for some in chain.from_iterable(map(_slices, documents)):
            rows = some.to_pylist()
            hashes = [_document_hash(row, decisive) for row in rows]
            kept: set[str] = set()
            for found in before(hashes) if before is not None else ():
                kept.update(found["document_hash"].unique().to_pylist())
                yield found
            new = chain.from_iterable(
                _chunks(row, hashed, model, passages)
                for row, hashed in zip(rows, hashes, strict=True)
                if hashed not in kept
            )
            while cut := list(islice(new, BATCH_ROWS)):
                yield pa.RecordBatch.from_pylist(cut, schema=SCHEMA)

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Some at once, and fewer where documents are long."""
    some = max(1, min(LOOKED_UP, batch.num_rows * _LARGE_BYTES // max(1, batch.nbytes)))
    for n in range(0, batch.num_rows, some):
        yield batch.slice(n, some)


def _document_hash(document: dict, decisive: Sequence[str | int]) -> str:
    """SHA-256 of all that the passages of a document depend on: of itself, and of what else decides how it is cut."""
    return hashlib.sha256(orjson.dumps([*decisive, *document.items()])).hexdigest()


def _chunks(document: dict, hashed: str, model: Reader, passages: Passages) -> Iterator[dict]:
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
            "document_hash": hashed,
        }
