"""The Ollama embedder against a real HTTP server that speaks Ollama's protocol."""

import socket
from typing import Any

import numpy as np
import pytest

from ml_assets.embedders import EmbedderError
from ml_assets.embedders.ollama import OllamaEmbedder
from ml_assets.resources import store_resources
from ml_assets.settings import Settings
from ml_assets_tests.json_server import serving


def vectors_of(body: dict[str, Any]) -> dict[str, Any]:
    return {"embeddings": [[3.0, len(text)] for text in body["input"]]}


@pytest.fixture
def server():
    with serving(lambda count, body: (200, vectors_of(body))) as server:
        yield server


def test_vectors_come_back_in_order_and_of_unit_length(server):
    vectors = OllamaEmbedder(server.url + "/", "m", 2).embed(["1234"] + ["" for _ in range(64)])
    assert vectors.dtype == np.float32 and vectors.shape == (65, 2)
    np.testing.assert_allclose(vectors[[0, 64]], [[0.6, 0.8], [1.0, 0.0]], rtol=1e-6)
    assert [(path, body["model"], len(body["input"])) for path, body, _ in server.requests] == [
        ("/api/embed", "m", 64),
        ("/api/embed", "m", 1),
    ]


def test_a_broken_connection_is_tried_again(server):
    healthy = server.answer
    server.answer = lambda count, body: None if count == 1 else healthy(count, body)
    assert OllamaEmbedder(server.url, "m", 2).embed(["1234"]).shape == (1, 2)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {"error": "model not found"}), "run `ollama pull m`"),
        ((500, {"error": "out of memory"}), "status 500: .*out of memory"),
        (
            (200, {"embeddings": [[1.0, 2.0, 3.0]]}),
            r"vectors of 3 numbers where 2 were .*use a model of dimension 2",
        ),
        ((200, {"embeddings": [[0.0, 0.0]]}), "without a direction"),
    ],
)
def test_a_bad_answer_is_said_at_once(server, answer, message):
    server.answer = lambda count, body: answer
    with pytest.raises(EmbedderError, match=message):
        OllamaEmbedder(server.url, "m", 2).embed(["x"])
    assert len(server.requests) == 1


def test_a_server_that_is_down_is_named_without_its_password():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: the port refuses connections
        url = f"http://me:secret@127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(EmbedderError, match=r"does not answer .*ollama serve") as caught:
            OllamaEmbedder(url).embed(["x"])
    assert "secret" not in str(caught.value)


def test_tokens_are_estimated_by_marks_and_four_letters():
    assert OllamaEmbedder("http://unused").count_tokens(["Gradient, step!", ""]) == [
        5,
        0,
    ]


def test_the_command_line_finds_the_server_that_a_variable_names(monkeypatch, tmp_path):
    monkeypatch.setenv("ML_ASSETS_OLLAMA_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ML_ASSETS_EMBEDDER", "ollama")
    embedder = store_resources(Settings(home=tmp_path))["embedder"].get()
    with pytest.raises(EmbedderError, match=r"http://127\.0\.0\.1:1"):
        embedder.embed(["word"])
