"""The cross-encoder against a real HTTP server that speaks as TEI or as Jina does."""

from collections.abc import Iterator
from typing import Any

import pytest

from ml_assets.embedders.rerank import BATCH, Reranker, make_reranker
from ml_assets.errors import EmbedderError
from ml_assets.settings import Settings
from ml_assets_tests.json_server import JSONServer, serving


def by_length(texts: list[str]) -> list[dict[str, Any]]:
    """As TEI answers: best first."""
    scored = [{"index": n, "score": float(len(text))} for n, text in enumerate(texts)]
    return sorted(scored, key=lambda each: -each["score"])


@pytest.fixture
def server() -> Iterator[JSONServer]:
    with serving(lambda count, body: (200, by_length(body["texts"]))) as server:
        server.url = f"http://me:s3cret@127.0.0.1:{server.server_port}/rerank"
        yield server


def test_each_text_is_scored_in_its_place(server: JSONServer) -> None:
    texts = ["x" * (n % 7 + 1) for n in range(BATCH + 3)]
    assert Reranker(server.url).scores("what?", texts) == [float(len(text)) for text in texts]
    assert [len(body["texts"]) for _, body, _ in server.requests] == [BATCH, 3]
    assert server.requests[0].body["query"] == "what?"
    assert Reranker(server.url).scores("what?", []) == []


def test_servers_of_many_models_are_told_which(server: JSONServer) -> None:
    def answer(count: int, body: dict[str, Any]) -> tuple[int, Any]:
        listed = by_length(body["documents"])
        return 200, {
            "results": [{"index": each["index"], "relevance_score": each["score"]} for each in listed]
        }

    server.answer = answer
    url = server.url.replace("me:s3cret@", "")
    settings = Settings(rerank_url=url, rerank_model="reader", rerank_api_key="k3y")
    reranker = make_reranker(settings)
    assert reranker is not None and reranker.scores("what?", ["a", "bbb"]) == [1.0, 3.0]
    _, body, told = server.requests[0]
    assert told == "Bearer k3y" and (body["model"], body["top_n"]) == ("reader", 2)
    assert settings.masked("it is k3y") == "it is ***" and "k3y" not in repr(settings)
    assert make_reranker(Settings()) is None


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((200, [{"index": 0, "score": 1.0}]), "given 2 texts and scored 1"),
        ((200, [{"index": 0, "score": 1.0}, {"index": 1, "score": None}]), "scored 1"),
        ((200, b'[{"index": 0, "score": NaN}, {"index": 1, "score": 1}]'), "scored 1"),
        ((200, {"results": "none"}), "scored 0"),
        ((200, b"<html>"), "no JSON"),
        ((401, {"error": "no key"}), "status 401.*no key"),
        ((503, {}), "does not answer"),
    ],
)
def test_half_an_answer_is_none(server: JSONServer, answer: tuple[int, Any], sentence: str) -> None:
    server.answer = lambda count, body: answer
    with pytest.raises(EmbedderError, match=sentence) as told:
        Reranker(server.url).scores("what?", ["a", "b"])
    assert "s3cret" not in str(told.value)


def test_a_server_that_is_busy_is_asked_again(server: JSONServer) -> None:
    server.answer = lambda count, body: (200, by_length(body["texts"])) if count == 3 else (429, {})
    assert Reranker(server.url).scores("what?", ["a", "bb"]) == [1.0, 2.0]
    assert len(server.requests) == 3


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(
        EmbedderError, match=r"http://127.0.0.1:9/rerank does not answer \(ConnectError\): start it"
    ):
        Reranker("http://127.0.0.1:9/rerank").scores("what?", ["a"])
