"""Embed what changed: a text whose hash, model and dimension are known keeps its vector.

What belongs here: the decision which texts need a new vector, batch by batch. Models live in embedders/,
stored vectors are fetched by a function that the caller passes in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ml_assets.embedders.base import Embedder
from ml_assets.errors import EmbedderError
from ml_assets.lib.chunking import embedding_text

KnownVectors = Callable[[Sequence[str], Sequence[str]], dict[str, np.ndarray]]
"""Keys and content hashes of rows -> {content hash: vector} for those that are stored already."""

BATCH_ROWS = 1_024

LOOKED_UP = 8 * BATCH_ROWS
"""Rows that are looked up at once: a text that is not known by its key is looked for in the whole table."""

CONTEXT = "context"


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
        rows: at least the key column, `title`, `text` and `content_hash`. If there is a column `context`, the model is
            given that before the text in place of the title, and it is left out of what is returned.
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
    schema = pa.schema([*(each for each in rows.schema if each.name != CONTEXT), *added])

    def batches() -> Iterator[pa.RecordBatch]:
        for some in _slices(rows, LOOKED_UP):
            stored = known(some[key_column].to_pylist(), some["content_hash"].to_pylist())
            fitting = {hash: vector for hash, vector in stored.items() if len(vector) == embedder.dimension}
            for batch in _slices([some], BATCH_ROWS):
                yield _embed_batch(batch, schema, embedder, fitting, count)
                count.progress(count)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _slices(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, most):
            yield batch.slice(start, most)


def _embed_batch(
    batch: pa.RecordBatch,
    schema: pa.Schema,
    embedder: Embedder,
    fitting: dict[str, np.ndarray],
    count: EmbeddingCount,
) -> pa.RecordBatch:
    """The rows with their vectors; those that are made are added to `fitting`."""
    hashes = batch["content_hash"].to_pylist()
    missing = {found: row for row, found in enumerate(hashes) if found not in fitting}
    if missing:  # each text once, however many rows hold it
        before = batch[CONTEXT if CONTEXT in batch.schema.names else "title"].to_pylist()
        texts = batch["text"].to_pylist()
        made = embedder.embed([embedding_text(before[row], texts[row]) for row in missing.values()])
        fitting.update(zip(missing, _judged(made, len(missing), embedder), strict=True))
    vectors = np.empty((len(hashes), embedder.dimension), dtype=np.float32)
    for row, found in enumerate(hashes):
        vectors[row] = fitting[found]
    count.embedded += len(missing)
    count.kept += len(hashes) - len(missing)
    offsets = np.arange(0, vectors.size + 1, embedder.dimension, dtype=np.int32)
    embedding = pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()))
    model_name = pa.array([embedder.name] * len(hashes), pa.string())
    kept = [batch[name] for name in batch.schema.names if name != CONTEXT]
    return pa.RecordBatch.from_arrays([*kept, embedding, model_name], schema=schema)


def _judged(vectors: np.ndarray, count: int, embedder: Embedder) -> np.ndarray:
    """Vectors as an embedder promises them.

    Raises:
        EmbedderError: they are of another shape, or one has no direction.
    """
    if vectors.shape != (count, embedder.dimension):
        raise EmbedderError(
            f"{embedder.name} gave vectors of shape {vectors.shape} for {count} texts, where {embedder.dimension} "
            "numbers each were expected: nothing was written."
        )
    length = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if len(wrong):
        raise EmbedderError(
            f"{embedder.name} gave {len(wrong)} of {count} texts a vector of zeros, NaN or infinite numbers, which "
            "has no direction: nothing was written."
        )
    return vectors
