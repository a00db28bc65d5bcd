import numpy as np
import pyarrow as pa

from ml_assets.embedders.incremental import EmbeddingCount, embed_changed


class CountingEmbedder:
    """Vectors that tell which text they were made from; remembers what it was asked."""

    name = "counting@1"
    dimension = 3

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts):
        self.asked += texts
        return np.array([[len(text), 1, 0] for text in texts], dtype=np.float32)

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


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
    stored = {
        "a": ("h1", np.array([9, 9, 9], dtype=np.float32)),
        "b": ("old", np.zeros(3, np.float32)),
    }
    reader = embed_changed(
        rows(("a", "same", "h1"), ("b", "changed", "h2"), ("c", "new", "h3")),
        "id",
        embedder,
        lambda keys: {key: stored[key] for key in keys if key in stored},
        count,
    )
    result = reader.read_all()
    assert embedder.asked == ["changed", "new"]
    assert result["embedding"].to_pylist() == [[9, 9, 9], [7, 1, 0], [3, 1, 0]]
    assert result["model_name"].unique().to_pylist() == ["counting@1"]
    assert (count.embedded, count.kept) == (2, 1)


def test_a_vector_of_another_dimension_is_made_anew():
    embedder, count = CountingEmbedder(), EmbeddingCount()
    stored = {"a": ("h1", np.zeros(5, np.float32))}
    reader = embed_changed(rows(("a", "text", "h1")), "id", embedder, lambda keys: stored, count)
    assert reader.read_all()["embedding"].to_pylist() == [[4, 1, 0]]


def test_no_rows_give_no_rows():
    reader = embed_changed(rows(), "id", CountingEmbedder(), lambda keys: {}, EmbeddingCount())
    assert reader.read_all().num_rows == 0
