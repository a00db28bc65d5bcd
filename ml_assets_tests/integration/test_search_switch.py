"""Another embedding model takes the place of the one that is served, or does not, on the real stores."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets import connect
from ml_assets.contracts import tables
from ml_assets.embedders import make_embedder
from ml_assets.errors import Refusal
from ml_assets.resources.chroma import ChromaResource
from ml_assets.settings import MINILM_DIMENSION, Settings
from ml_assets.stack import Stack
from ml_assets.stores import postgres_table
from ml_assets.stores.chroma import ChromaStore
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.postgres import PostgresStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.pause import paused
from ml_assets.tables.staging import stage
from ml_assets_tests.scale import LONG

NOW = datetime(2026, 3, 1, tzinfo=UTC)

TEXTS = {
    "fraud": ("Boosted trees", "Gradient boosting detects fraudulent payments with a credit card."),
    "cats": ("Convolutions", "A network that recognises kittens on photos."),
    "rain": ("Forecast", "Tomorrow it will be raining in Tokyo."),
    "bread": ("Sourdough", "Flour, water and salt are left to rise over night."),
    "goal": ("Cup final", "The striker scored twice in the second half."),
    "tides": ("Moon", "Its gravity lifts the oceans twice a day."),
}

QUESTIONS = {
    "stolen cards": "fraud",
    "banks and theft": "fraud",
    "pictures of young felines": "cats",
    "image classification": "cats",
    "weather in Japan": "rain",
    "umbrella": "rain",
    "baking a loaf": "bread",
    "yeast": "bread",
    "football match": "goal",
    "soccer player": "goal",
    "tides at the shore": "tides",
    "sea level": "tides",
}
"""What is asked, in other words than the document that answers it."""


class Server(ThreadingHTTPServer):
    """A stand-in for Ollama. Its model `good` is MiniLM with the numbers of a vector in another order, `wide` has each
    number twice, and `bad` is a hash."""

    def __init__(self, minilm: Any) -> None:
        super().__init__(("127.0.0.1", 0), Ollama)
        self.minilm = minilm
        self.texts = 0
        self.asked = set[str]()

    def vectors(self, model: str, texts: list[str]) -> np.ndarray:
        if model == "good":
            return self.minilm.embed(texts)[:, ::-1]
        if model == "wide":
            return np.hstack([self.minilm.embed(texts)] * 2)
        seeds = (int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts)
        return np.array([np.random.default_rng(seed).normal(size=MINILM_DIMENSION) for seed in seeds])


class Ollama(BaseHTTPRequestHandler):
    """Ollama's way of embedding."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        assert isinstance(server, Server)
        server.texts += len(body["input"])
        server.asked.update(body["input"])
        answer = json.dumps({"embeddings": server.vectors(body["model"], body["input"]).tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    with Server(make_embedder(settings)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def with_model(settings: Settings, server: Server, model: str) -> Settings:
    return settings.model_copy(
        update={
            "ollama_url": f"http://127.0.0.1:{server.server_port}",
            "ollama_model": model,
            "ollama_dimension": MINILM_DIMENSION * (2 if model == "wide" else 1),
        }
    )


@pytest.fixture
def filled(settings: Settings, chroma: ChromaResource) -> Stack:
    """A home whose documents were embedded by MiniLM, in both stores, and judged."""
    stack = connect(settings=settings)
    stack.home.mkdir()
    contracts, resources = tables(settings), stack._resources
    minilm = make_embedder(settings)
    vectors = minilm.embed([f"{title}\n{text}" for title, text in TEXTS.values()])
    rows = [
        {
            "id": f"{id}#0",
            "document_id": id,
            "embedding": vector.tolist(),
            "model_name": minilm.name,
            "content_hash": id,
            "title": title,
            "text": text,
            "section": f"{title} > Part 1",
            "metadata": json.dumps({"document_id": id}),
            "created_at": NOW,
        }
        for (id, (title, text)), vector in zip(TEXTS.items(), vectors, strict=True)
    ]
    for store, asset, given in (
        (PostgresStore(resources["postgres"]), "postgres/document_embeddings", rows),
        (ChromaStore(resources["chroma"], resources["postgres"]), "chroma/document_index", rows),
    ):
        contract = contracts[asset]
        with stage(pa.Table.from_pylist(given, arrow_schema(contract)), contract, store.limits) as staged:
            store.write(contract, staged)
    judge(stack, *QUESTIONS)
    return stack


def judge(stack: Stack, *questions: str) -> None:
    """Put these questions, and no others, where landed judgments are."""
    rows = [
        {
            "set_name": "mine",
            "query_id": question,
            "query": question,
            "document_id": QUESTIONS[question],
            "relevance": 3,
            "judged_at": NOW,
        }
        for question in questions
    ]
    contract = tables(stack.settings)["duckdb/raw_judgments"]
    store = DuckLakeStore(stack._resources["lake"], stack._resources["postgres"])
    with stage(pa.Table.from_pylist(rows, arrow_schema(contract)), contract, store.limits) as staged:
        store.write(contract, staged)


def held(stack: Stack) -> set[str]:
    """The models whose vectors are served."""
    with stack._resources["postgres"].asking() as ask:
        return {name for (name,) in ask("SELECT DISTINCT model_name FROM document_embeddings")}


def found(stack: Stack, store: Any = "postgres") -> list[str]:
    """What is found for each question by meaning."""
    return [
        stack.search.documents(question, k=1, mode="dense", store=store)[0]["document_id"]
        for question in QUESTIONS
    ]


def test_only_a_model_that_is_not_worse_takes_the_place_of_the_one_that_is_served(
    filled: Stack, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (minilm,) = held(filled)
    bad = connect(settings=with_model(filled.settings, server, "bad"))
    refused = bad.search.switch("ollama")
    assert (refused.moved, refused.served) == (False, minilm)
    assert refused.decision is not None and refused.decision.answer == "yes"
    assert "worse by more than 0.01" in refused.sentence
    assert held(filled) == {minilm} and found(filled) == list(QUESTIONS.values())

    good = connect(settings=with_model(filled.settings, server, "good"))
    asked = server.texts

    def killed(told: str) -> None:
        if told.startswith("asking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        good.search.switch("ollama", progress=killed)
    assert (server.texts - asked, held(filled)) == (len(TEXTS), {minilm})
    # What was built is not built again: of the questions alone new vectors are asked for. Chroma does not answer, then.
    with monkeypatch.context() as patch:
        patch.setattr(ChromaStore, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            good.search.switch("ollama")
    assert server.texts - asked == len(TEXTS) + len(QUESTIONS)
    # The alias has moved, and all follow it, whatever their settings say; those that were there before, too.
    monkeypatch.setenv("ML_ASSETS_OLLAMA_URL", f"http://127.0.0.1:{server.server_port}")
    assert held(filled) == {"ollama/good"}
    for stack in (filled, good, connect(settings=filled.settings)):
        assert found(stack) == list(QUESTIONS.values())
    with pytest.raises(Refusal, match="chroma still holds vectors of all-MiniLM"):
        found(filled, "chroma")
    again = good.search.switch("ollama")
    assert (again.moved, again.served, again.decision) == (False, "ollama/good", None)
    assert found(filled, "chroma") == list(QUESTIONS.values())

    # The way back embeds the questions and no text, and no backup takes its state between the two stores.
    written: list[str] = []

    def beside_no_backup(write: Any) -> Any:
        def done(*given: Any) -> Any:
            with pytest.raises(Refusal, match="has been writing"), paused(filled.home, 0):
                pass
            written.append(write.__module__.rpartition("ml_assets.stores.")[2])
            return write(*given)

        return done

    for place in (ChromaStore, postgres_table):
        monkeypatch.setattr(place, "write", beside_no_backup(place.write))
    embedded: list[str] = []
    minilm_class = type(make_embedder(filled.settings))
    embed = minilm_class.embed
    monkeypatch.setattr(
        minilm_class, "embed", lambda self, texts: (embedded.extend(texts), embed(self, texts))[1]
    )
    back = filled.search.switch("minilm")
    assert (back.moved, back.served) == (True, minilm)
    assert len(written) == 2
    assert set(embedded) <= set(QUESTIONS)
    assert found(filled, "chroma") == list(QUESTIONS.values())
    contract = tables(filled.settings)["postgres/document_embeddings"]
    store = PostgresStore(filled._resources["postgres"])
    assert store.live_state(contract).content_hash == store.ledger_state(contract).content_hash


def test_without_judgments_nobody_can_tell_and_nothing_moves(
    filled: Stack, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(filled, "yeast")
    good = connect(settings=with_model(filled.settings, server, "good"))
    told = good.search.switch("ollama")
    assert told.decision is not None and (told.decision.answer, told.moved) == ("undecidable", False)
    assert "takes more judgments" in told.sentence
    # It was given what the graph gives: no heading twice.
    assert {f"{title}\nPart 1\n{text}" for title, text in TEXTS.values()} <= server.asked

    # It moves while somebody's question is embedded by the former model, and the question is answered all the same, if
    # by vectors of another length.
    wide = connect(settings=with_model(filled.settings, server, "wide"))
    minilm_class = type(make_embedder(filled.settings))
    embed, moved = minilm_class.embed, list[bool]()

    def meanwhile(self: Any, texts: Sequence[str]) -> np.ndarray:
        if list(texts) == ["kittens"] and not moved:
            moved.append(True)
            moved[0] = wide.search.switch("ollama", force=True).moved
        return embed(self, texts)

    monkeypatch.setattr(minilm_class, "embed", meanwhile)
    monkeypatch.setenv("ML_ASSETS_OLLAMA_URL", f"http://127.0.0.1:{server.server_port}")
    assert [kittens(filled, store) for store in ("postgres", "chroma")] == ["cats", "cats"]
    assert moved == [True] and held(filled) == {"ollama/wide"}
    # Passages that were cut for a model that reads more are not cut off without a word.
    monkeypatch.setattr(minilm_class, "max_tokens", property(lambda self: 5))
    back = filled.search.switch("minilm", force=True)
    assert back.moved and "Of 6 passages it read the beginning alone" in back.sentence
    assert "set ML_ASSETS_EMBEDDER=minilm before" not in back.sentence
    assert [kittens(filled, store) for store in ("postgres", "chroma")] == ["cats", "cats"]
    assert held(filled) == {make_embedder(filled.settings).name}


def kittens(stack: Stack, store: Any) -> str:
    """The document that is nearest to kittens."""
    (hit,) = stack.search.documents("kittens", k=1, mode="dense", store=store)
    return hit["document_id"]


def test_a_process_that_is_killed_leaves_what_was_served_or_what_is(
    filled: Stack, server: Server, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (minilm,) = held(filled)
    given = {
        **os.environ,
        **environment,
        "ML_ASSETS_OLLAMA_URL": f"http://127.0.0.1:{server.server_port}",
        "ML_ASSETS_OLLAMA_MODEL": "good",
        "ML_ASSETS_OLLAMA_DIMENSION": str(MINILM_DIMENSION),
    }
    command = [sys.executable, "-m", "ml_assets.cli", "search-switch", "ollama"]
    for lines in (1, 3, *range(1, 5)) if LONG else (3,):
        process = subprocess.Popen(
            command, env=given, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert held(filled) in ({minilm}, {"ollama/good"}), told
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ollama/good" in done.stdout and held(filled) == {"ollama/good"}
    monkeypatch.setenv("ML_ASSETS_OLLAMA_URL", given["ML_ASSETS_OLLAMA_URL"])
    assert found(filled) == found(filled, "chroma") == list(QUESTIONS.values())
