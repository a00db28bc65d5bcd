"""Embed what changed: a text whose hash, model and dimension are known keeps its vector.

What belongs here: the decision which texts need a new vector, batch by batch. Models live in embedders/,
stored vectors are fetched by a function that the caller passes in.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ml_assets.embedders.base import Embedder
from ml_assets.lib.chunking import embedding_text

KnownVectors = Callable[[Sequence[str]], dict[str, tuple[str, np.ndarray]]]
"""Keys -> {key: (content hash, vector)} for those that are stored already."""

BATCH_ROWS = 1_024


@dataclass
class EmbeddingCount:
    """How many texts were embedded, and how many kept their vector."""

    embedded: int = 0
    kept: int = 0
    progress: Callable[["EmbeddingCount"], None] = field(default=lambda count: None, repr=False)


def embed_changed(
    rows: pa.RecordBatchReader,
    key_column: str,
    embedder: Embedder,
    known: KnownVectors,
    count: EmbeddingCount,
) -> pa.RecordBatchReader:
    """Add `embedding` and `model_name` to rows of key, title, text and content_hash.

    Args:
        rows: at least the key column, `title`, `text` and `content_hash`.
        key_column: unique name of a row.
        embedder: makes the vectors that are missing.
        known: looks stored vectors of the same model up.
        count: counts along, and is told after each batch.

    Returns:
        The same rows in batches of at most `BATCH_ROWS`, with `embedding` (list<float32>) and `model_name`.
    """
    added = [
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("model_name", pa.string()),
    ]
    schema = pa.schema([*rows.schema, *added])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield _embed_batch(batch.slice(start, BATCH_ROWS), schema, key_column, embedder, known, count)
                count.progress(count)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _embed_batch(
    batch: pa.RecordBatch,
    schema: pa.Schema,
    key_column: str,
    embedder: Embedder,
    known: KnownVectors,
    count: EmbeddingCount,
) -> pa.RecordBatch:
    keys = batch[key_column].to_pylist()
    hashes = batch["content_hash"].to_pylist()
    stored = known(keys)
    vectors = np.empty((len(keys), embedder.dimension), dtype=np.float32)
    missing = []
    for row, (key, content_hash) in enumerate(zip(keys, hashes, strict=True)):
        stored_hash, vector = stored.get(key, (None, None))
        if vector is not None and stored_hash == content_hash and len(vector) == embedder.dimension:
            vectors[row] = vector
        else:
            missing.append(row)
    if missing:
        titles, texts = batch["title"].to_pylist(), batch["text"].to_pylist()
        vectors[missing] = embedder.embed([embedding_text(titles[row], texts[row]) for row in missing])
    count.embedded += len(missing)
    count.kept += len(keys) - len(missing)
    offsets = np.arange(0, vectors.size + 1, embedder.dimension, dtype=np.int32)
    embedding = pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()))
    model_name = pa.array([embedder.name] * len(keys), pa.string())
    return pa.RecordBatch.from_arrays([*batch.columns, embedding, model_name], schema=schema)
