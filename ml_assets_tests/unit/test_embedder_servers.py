"""Embedders over HTTP against real servers on this machine: bad answers, and texts of which nothing is cut off."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError

from ml_assets.embedders import EmbedderError, create, make_embedder
from ml_assets.embedders.base import Embedder
from ml_assets.embedders.minilm import MAX_TOKENS, MiniLMEmbedder
from ml_assets.embedders.ollama import OllamaEmbedder
from ml_assets.embedders.openai import ATTEMPTS, OpenAIEmbedder
from ml_assets.embedders.rerank import Reranker
from ml_assets.lib.chunking import chunk_document, embedding_text
from ml_assets.settings import Settings
from ml_assets_tests.json_server import Answer, JSONServer, serving


def of(body: dict[str, Any], vector: Any = (3.0, 4.0)) -> dict[str, Any]:
    """An answer in OpenAI's form, in no order, and in Ollama's."""
    data = [{"index": n, "embedding": vector} for n in range(len(body["input"]))]
    return {"data": data[::-1], "embeddings": [vector for _ in data]}


@pytest.fixture
def server() -> Iterator[JSONServer]:
    with serving(lambda count, body: (200, of(body))) as server:
        yield server


def openai(server: JSONServer, **more: Any) -> OpenAIEmbedder:
    return OpenAIEmbedder(f"{server.url}/v1/", "m", 2, 512, **more)


def test_vectors_come_in_the_order_of_the_texts_with_the_key_and_of_unit_length(server):
    server.answer = lambda count, body: (
        200,
        {"data": [{"index": n, "embedding": [n + 1, 0]} for n in reversed(range(len(body["input"])))]}
        if count == 1
        else of(body),
    )
    vectors = openai(server, api_key="k3y").embed(["a"] * 65)
    assert vectors.dtype == np.float32 and vectors.shape == (65, 2)
    np.testing.assert_allclose(vectors[[0, 63, 64]], [[1, 0], [1, 0], [0.6, 0.8]], rtol=1e-6)
    assert [(path, len(body["input"]), key) for path, body, key in server.requests] == [
        ("/v1/embeddings", 64, "Bearer k3y"),
        ("/v1/embeddings", 1, "Bearer k3y"),
    ]


@pytest.mark.parametrize("after", ["0", "a little while", None])
def test_a_server_that_is_busy_or_hangs_up_is_asked_again(server, after, monkeypatch):
    headers = {} if after is None else {"Retry-After": after}
    faults: list[Answer | None] = [(429, {}, headers), (503, {}), None]
    server.answer = lambda count, body: faults[count - 1] if count <= 3 else (200, of(body))
    assert openai(server).embed(["a"]).shape == (1, 2)
    assert len(server.requests) == 4


def test_it_waits_as_long_as_the_server_says_but_not_for_ever():
    from types import SimpleNamespace

    from ml_assets.embedders.openai import LONGEST_WAIT_S, _Busy, _pause, _seconds

    def pause(header: str | None) -> float:
        fault = _Busy(429, _seconds(header))
        outcome = SimpleNamespace(exception=lambda: fault)
        return _pause(cast("Any", SimpleNamespace(outcome=outcome, attempt_number=1)))

    assert (pause("7"), pause("0.5"), pause("86400")) == (7, 0.5, LONGEST_WAIT_S)
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 0 < pause(soon) <= 30 and pause("soon") <= 8 and pause(None) <= 8


NAN, HUGE = float("nan"), float("inf")
BAD: list[tuple[str, Any]] = [
    (r"1 vectors?.*nothing of it is kept", lambda body: (200, half(body))),
    (
        r"vectors of 3 numbers where 2 were expected: set ML_ASSETS_\w+_DIMENSION",
        lambda body: (200, of(body, [1, 2, 3])),
    ),
    (r"without a direction for text 1 of 2: it holds only zeros", lambda body: (200, of(body, [0, 0]))),
    (r"NaN or infinite", lambda body: (200, of(body, [NAN, 1]))),
    (r"NaN or infinite", lambda body: (200, of(body, [HUGE, 1]))),
    (r"does not hold numbers alone", lambda body: (200, of(body, ["x", None]))),
    (r"with 0 vectors", lambda body: (200, {"error": "oops"})),
    (r"does not hold numbers alone", lambda body: (200, of(body, [10**400, 1]))),
    (r"with 0 vectors", lambda body: (200, [])),
    (r"with 0 vectors", lambda body: (200, {"data": [{"index": [0], "embedding": [1, 0]}]})),
    (r"what is no JSON", lambda body: (200, '{"data": [{"index": 0, "emb')),
    (
        r"refused the texts with status 400: .*too many tokens.*_MAX_TOKENS",
        lambda body: (400, "too many tokens"),
    ),
]


def half(body: dict[str, Any]) -> dict[str, Any]:
    whole = of(body)
    return {"data": whole["data"][:1], "embeddings": whole["embeddings"][:1]}


@pytest.mark.parametrize(("message", "answer"), BAD)
@pytest.mark.parametrize("kind", ["openai", "ollama"])
def test_a_bad_answer_is_said_at_once(server, kind, message, answer):
    server.answer = lambda count, body: answer(body)
    embedder = openai(server) if kind == "openai" else OllamaEmbedder(server.url, "m", 2)
    with pytest.raises(EmbedderError, match=message):
        embedder.embed(["a", "b"])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "message", "requests"),
    [
        (401, "refused the key with status 401: set ML_ASSETS_OPENAI_API_KEY", 1),
        (404, "has no model 'm', or no /embeddings: set ML_ASSETS_OPENAI_MODEL", 1),
        (500, f"asked {ATTEMPTS} times and answered with status 500", ATTEMPTS),
    ],
)
def test_a_refusal_is_said_without_the_key(server, status, message, requests):
    server.answer = lambda count, body: (status, {"told": "k3y"}, {"Retry-After": "0"})
    with pytest.raises(EmbedderError, match=message) as caught:
        openai(server, api_key="k3y").embed(["a"])
    assert "k3y" not in str(caught.value) and len(server.requests) == requests


def test_a_model_that_was_not_pulled_is_said(server):
    server.answer = lambda count, body: (404, {"error": "model 'm' not found"})
    with pytest.raises(EmbedderError, match="run `ollama pull m`"):
        OllamaEmbedder(server.url, "m", 2).embed(["a"])


def test_settings_name_the_server_and_hide_its_key(server, monkeypatch):
    settings = Settings(
        embedder="openai",
        openai_url=f"{server.url}/v1",
        openai_api_key="k3y",
        openai_model="m",
        openai_dimension=2,
        openai_max_tokens=512,
    )
    embedder = make_embedder(settings)
    assert (embedder.name, embedder.dimension, embedder.max_tokens) == ("openai/m", 2, 512)
    assert settings.embedding_dimension == 2 and embedder.embed(["a"]).shape == (1, 2)
    assert server.requests[0][2] == "Bearer k3y"
    assert settings.masked("of k3y") == "of ***" and "k3y" not in repr(settings)
    assert Settings().embedding_server == {} and Settings(embedder="ollama").embedding_dimension == 384
    with pytest.raises(ValidationError, match="minilm-int8"):
        Settings(embedder="word2vec")  # pyright: ignore[reportArgumentType]
    with pytest.raises(EmbedderError, match="ML_ASSETS_OPENAI_URL"):
        create("openai", Path("unused"), model="m", dimension=2, max_tokens=9)


@pytest.mark.parametrize("kind", ["openai", "ollama", "minilm"])
def test_half_a_character_is_said(server, kind, tmp_path):
    embedder = {
        "openai": openai(server),
        "ollama": OllamaEmbedder(server.url, "m", 2),
        "minilm": MiniLMEmbedder(tmp_path),
    }[kind]
    with pytest.raises(EmbedderError, match=r"Text 2 of 2 has a lone surrogate \(U\+D800\) at character 1"):
        embedder.embed(["fine", "a\ud800"])
    assert not server.requests


@pytest.mark.parametrize("kind", ["openai", "ollama", "rerank"])
def test_an_address_that_is_none_is_said(kind):
    url = "http://127.0.0.1:80a"
    with pytest.raises(EmbedderError, match=r"does not answer \(InvalidURL\)"):
        if kind == "rerank":
            Reranker(url).scores("a", ["b"])
        else:
            create(kind, Path("unused"), url, "m", 2, 100).embed(["a"])


HOSTILE = {
    "cjk": "\u6df1\u5ea6\u5b66\u4e60\u6a21\u578b\u3002" * 300,
    "thai": "\u0e01\u0e32\u0e23\u0e40\u0e23\u0e35\u0e22\u0e19\u0e23\u0e39\u0e49" * 200,
    "arabic": "\u0627\u0644\u062a\u0639\u0644\u0645 \u0627\u0644\u0639\u0645\u064a\u0642\u061f " * 200,
    "hebrew": "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd. " * 200,
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f680" * 300,
    "ligatures": "\ufdfa\u338f\ufb03 " * 300,
    "accents": "e\u0301\u0302\u0303" * 800,
    "hangul": "\ub525\ub7ec\ub2dd" * 300,
    "controls": "ab\x0bcd\x0cef\x1cgh\x85ij\u200bkl\u00a0mn" * 200,
    "base64": base64.b64encode(np.random.default_rng(1).bytes(6_000)).decode(),
    "rare letters": "zqxj" * 2_000,
    "short words": "q z x j " * 800,
    "marks": "!?;:" * 1_000,
    "digits": "3.14159 " * 600,
    "one word": "x" * 50_000,
    "half a word": "pneumonoultramicroscopicsilicovolcanoconiosis" * 200,
    "code": "# A\n\n```python\n" + "x['a'] = {k: v for k, v in y.items()}\n" * 200 + "```\n",
    "table": "|a|b|\n|-|-|\n" + "| 0.1 | -2.5e-7 |\n" * 200,
    "html": "<p>" + "a &amp; b &lt; c " * 400,
    "headings": "\n\n".join(f"{'#' * (1 + n % 6)} {'Heading ' * (n % 40)}\n\ntext" for n in range(80)),
}
LONG_TITLE = "A title of many words, \u6df1\u5ea6 and zqxj" * 40


@pytest.mark.parametrize("kind", ["minilm", "minilm-int8", "ollama", "openai"])
def test_no_passage_is_cut_off_by_what_a_model_reads(server, kind, tmp_path):
    """Demo documents and hostile texts, under titles short and long, for models that read 256 tokens."""
    from ml_assets.demo.documents import library_documents

    tokenizer = MiniLMEmbedder(tmp_path)
    embedder: Embedder = create(kind, tmp_path, server.url, "m", 2, MAX_TOKENS - (kind == "openai") * 2)
    cut, seen = [], 0

    def answer(count: int, body: dict[str, Any]) -> Answer:
        # As Ollama and others answer that were told not to cut anything off.
        tokens = tokenizer.count_tokens(body["input"])
        cut.extend(each for each in tokens if each > MAX_TOKENS - 2)
        return (400, "input length exceeds the context length") if cut else (200, of(body))

    server.answer = answer
    given = [(each["title"], each["text"]) for each in library_documents(datetime.now(UTC))]
    given += [(title, text) for text in HOSTILE.values() for title in (None, LONG_TITLE)]
    for n, (title, text) in enumerate(given):
        chunks = list(chunk_document(f"d{n}", title, text, embedder))
        texts = [embedding_text(chunk.context, chunk.text) for chunk in chunks]
        assert texts and all(count <= embedder.max_tokens for count in embedder.most_tokens(texts))
        seen += len(texts)
        if kind in ("ollama", "openai"):
            embedder.embed(texts)
        else:
            cut += [count for count in tokenizer.count_tokens(texts) if count > MAX_TOKENS - 2]
    assert cut == [] and seen > 500
