from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.embedders import EmbedderError
from ml_assets.embedders.incremental import EmbeddingCount, embed_changed
from ml_assets.lib.passages import SCHEMA, chunk_documents


class CountingEmbedder:
    """Vectors that tell which text they were made from; remembers what it was asked."""

    name = "counting@1"
    dimension = 3
    max_tokens = 1_000
    estimates_tokens = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts):
        self.asked += texts
        return np.array([[len(text), 1, 0] for text in texts], dtype=np.float32)

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    most_tokens = count_tokens


def rows(*records: tuple[str, str, str]) -> pa.RecordBatchReader:
    table = pa.table(
        {
            "id": [r[0] for r in records],
            "title": [None for _ in records],
            "text": [r[1] for r in records],
            "content_hash": [r[2] for r in records],
        },
        schema=pa.schema([(n, pa.string()) for n in ("id", "title", "text", "content_hash")]),
    )
    return table.to_reader()


def test_only_new_and_changed_texts_are_embedded():
    embedder, count = CountingEmbedder(), EmbeddingCount()
    stored = {"h1": np.array([9, 9, 9], dtype=np.float32), "old": np.ones(3, np.float32)}
    reader = embed_changed(
        rows(("a", "same", "h1"), ("b", "changed", "h2"), ("c", "new", "h3")),
        "id",
        embedder,
        lambda keys, hashes: stored,
        count,
    )
    result = reader.read_all()
    assert embedder.asked == ["changed", "new"]
    assert result["embedding"].to_pylist() == [[9, 9, 9], [7, 1, 0], [3, 1, 0]]
    assert result["model_name"].unique().to_pylist() == ["counting@1"]
    assert (count.embedded, count.kept) == (2, 1)


def test_a_vector_of_another_dimension_is_made_anew():
    embedder, count = CountingEmbedder(), EmbeddingCount()
    stored = {"h1": np.ones(5, np.float32)}
    reader = embed_changed(rows(("a", "text", "h1")), "id", embedder, lambda keys, hashes: stored, count)
    assert reader.read_all()["embedding"].to_pylist() == [[4, 1, 0]]


def test_no_rows_give_no_rows():
    reader = embed_changed(rows(), "id", CountingEmbedder(), lambda keys, hashes: {}, EmbeddingCount())
    assert reader.read_all().num_rows == 0


def test_a_text_that_stands_twice_is_embedded_once():
    embedder, count = CountingEmbedder(), EmbeddingCount()
    given = rows(("a", "same", "h1"), ("b", "same", "h1"), ("c", "other", "h2"))
    result = embed_changed(given, "id", embedder, lambda keys, hashes: {}, count).read_all()
    assert embedder.asked == ["same", "other"] and (count.embedded, count.kept) == (2, 1)
    assert result["embedding"].to_pylist() == [[4, 1, 0], [4, 1, 0], [5, 1, 0]]


def test_the_context_is_given_to_the_model_and_left_out_of_the_table():
    embedder = CountingEmbedder()
    table = rows(("a", "text", "h1")).read_all().append_column("context", [["Title\nSection"]])
    result = embed_changed(
        table.to_reader(), "id", embedder, lambda keys, hashes: {}, EmbeddingCount()
    ).read_all()
    assert embedder.asked == ["Title\nSection\ntext"]
    assert result.column_names == ["id", "title", "text", "content_hash", "embedding", "model_name"]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((1, 3), np.float32), "1 of 1 texts a vector of zeros"),
        (np.full((1, 3), np.nan, np.float32), "NaN or infinite numbers, which has no direction: nothing was"),
        (np.ones((1, 2), np.float32), r"shape \(1, 2\) for 1 texts, where 3 numbers"),
        (np.ones((0, 3), np.float32), r"shape \(0, 3\)"),
    ],
)
def test_vectors_that_are_none_are_refused(vectors, message):
    embedder = CountingEmbedder()
    embedder.embed = lambda texts: vectors
    with pytest.raises(EmbedderError, match=message):
        embed_changed(
            rows(("a", "x", "h")), "id", embedder, lambda keys, hashes: {}, EmbeddingCount()
        ).read_all()


DAY = datetime(2026, 1, 1, tzinfo=UTC)


def documents(texts: list[str]) -> pa.RecordBatchReader:
    names = ("document_id", "title", "text", "source", "metadata", "updated_at")
    records = [
        dict(zip(names, (f"d{n}", f"Document {n}", text, None, None, DAY), strict=True))
        for n, text in enumerate(texts)
    ]
    schema = pa.schema([(name, SCHEMA.field(name).type) for name in names])
    return pa.Table.from_pylist(records, schema).to_reader()


def test_a_hundredth_of_the_documents_changed_costs_a_hundredth_of_the_embedding():
    embedder, stored = CountingEmbedder(), {}

    def refreshed(texts: list[str]) -> int:
        count = EmbeddingCount()
        chunks = chunk_documents(documents(texts), embedder)
        found = embed_changed(chunks, "chunk_id", embedder, lambda keys, hashes: stored, count).read_all()
        stored.update(
            zip(found["content_hash"].to_pylist(), map(np.array, found["embedding"].to_pylist()), strict=True)
        )
        assert len(set(found["chunk_id"].to_pylist())) == found.num_rows >= 3 * len(texts)
        return count.embedded

    texts = [f"# First {n}\n\na {n}\n\n# Second\n\nb {n}\n\n# Third\n\nc {n}" for n in range(1_000)]
    whole = refreshed(texts)
    assert whole == 3_000 and refreshed(texts) == 0
    # Of ten documents every passage changes, of ten one does, and ten only move theirs.
    changed = [f"# First {n}\n\nA {n}\n\n# Second\n\nB {n}\n\n# Third\n\nC {n}" for n in range(10)]
    changed += [text.replace("b ", "B ") for text in texts[10:20]]
    moved = [f"{text.partition('# Second')[2]}\n\n" for text in texts[20:30]]
    changed += [
        f"# Second{behind}{text.partition('# Second')[0]}"
        for text, behind in zip(texts[20:30], moved, strict=True)
    ]
    assert refreshed(changed + texts[30:]) == 40
