"""Another model, cut of documents or index takes the place of what is served, or does not, on the real stores."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets import connect
from ml_assets.contracts import tables
from ml_assets.embedders import make_embedder
from ml_assets.embedders.incremental import EmbeddingCount, embed_changed
from ml_assets.errors import Refusal, WriteBusy
from ml_assets.lib.passages import VECTOR_COLUMNS, chunk_documents
from ml_assets.operations.made_before import known_passages, known_vectors
from ml_assets.operations.search_candidates import CANDIDATE, alias_stays, forget, sweep
from ml_assets.operations.search_texts import DOCUMENTS
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import MINILM_DIMENSION, Settings
from ml_assets.stack import Stack
from ml_assets.stores import postgres_table
from ml_assets.stores.chroma import ChromaStore
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.touched_days import ensure_tables
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.pause import paused
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE
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
    documents = {id: f"# {title}\n\n## Part 1\n\n{text}" for id, (title, text) in TEXTS.items()}
    refresh(stack, documents, "chroma/document_index")
    judge(stack, *QUESTIONS)
    return stack


def refresh(stack: Stack, documents: dict[str, str], *indexes: str) -> list[str]:
    """What the graph does with documents, with what is served; the texts that were embedded."""
    contracts, resources = tables(stack.settings), stack._resources
    lake, postgres = (
        DuckLakeStore(resources["lake"], resources["postgres"]),
        PostgresStore(resources["postgres"]),
    )
    rows = [
        {
            "document_id": id,
            "title": TEXTS[id][0],
            "text": text,
            "source": f"{id}.md",
            "metadata": "{}",
            "updated_at": NOW,
        }
        for id, text in documents.items()
    ]
    raw = contracts["duckdb/raw_documents"]
    put(lake, raw, pa.Table.from_pylist(rows, arrow_schema(raw)))
    served, embedded = resources["embedder"].served(), list[str]()
    read = lake.read(raw, raw.names, WHOLE)
    cut = contracts["duckdb/document_chunks"]
    before = known_passages(resources["lake"], cut)
    put(lake, cut, chunk_documents(read, served.embedder, served.passages, before))
    chunks = lake.read(cut, list(VECTOR_COLUMNS.values()), WHOLE).read_all()

    class Counting:
        name, dimension = served.embedder.name, served.embedder.dimension

        def embed(self, texts: list[str]) -> np.ndarray:
            embedded.extend(texts)
            return served.embedder.embed(texts)

    known = known_vectors(resources["postgres"], "document_embeddings", "id", served.embedder.name)
    made = embed_changed(
        chunks.rename_columns(list(VECTOR_COLUMNS)).to_reader(),
        "id",
        Counting(),  # type: ignore[arg-type]
        known,
        EmbeddingCount(),
    ).read_all()
    put(postgres, contracts["postgres/document_embeddings"], made)
    sweep(resources["postgres"], "document_embeddings")
    for index in indexes:
        contract = contracts[index]
        put(ChromaStore(resources["chroma"], resources["postgres"]), contract, made.select(contract.names))
    return embedded


def put(store: Any, contract: Any, rows: Any) -> None:
    with stage(rows, contract, store.limits) as staged:
        store.write(contract, staged)


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

    for place in (ChromaStore, DuckLakeStore, postgres_table):
        monkeypatch.setattr(place, "write", beside_no_backup(place.write))
    embedded: list[str] = []
    minilm_class = type(make_embedder(filled.settings))
    embed = minilm_class.embed
    monkeypatch.setattr(
        minilm_class, "embed", lambda self, texts: (embedded.extend(texts), embed(self, texts))[1]
    )
    back = filled.search.switch("minilm")
    assert (back.moved, back.served) == (True, minilm)
    assert written == ["postgres_table.transaction", "duckdb", "chroma"]
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
    assert {
        f"{title}\nPart 1\n# {title}\n\n## Part 1\n\n{text}" for title, text in TEXTS.values()
    } <= server.asked

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
    # Killed when the index for vectors of one length is gone and that for the others is not there yet.
    with monkeypatch.context() as patch:
        patch.setattr(ChromaStore, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            filled.search.switch("minilm", force=True)
    with pytest.raises(Refusal, match="chroma still holds vectors of ollama/wide"):
        kittens(filled, "chroma")
    back = filled.search.switch()
    assert not back.moved and "what is made of it follows now" in back.sentence
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


LONG_TEXTS = {
    id: f"# {title}\n\n" + "\n\n".join(f"{text} This is said in the paragraph {n}." for n in range(4))
    for id, (title, text) in TEXTS.items()
}


def keys(stack: Stack) -> list[set[str]]:
    """The keys of passages in the lake and in the stores of vectors."""
    resources, contracts = stack._resources, tables(stack.settings)
    lake = DuckLakeStore(resources["lake"], resources["postgres"])
    chunks = lake.read(contracts["duckdb/document_chunks"], ["chunk_id"], WHOLE).read_all()
    with resources["postgres"].asking() as ask:
        rows = {id for (id,) in ask("SELECT id FROM document_embeddings")}
    chroma = ChromaStore(resources["chroma"], resources["postgres"])
    return [
        set(chunks["chunk_id"].to_pylist()),
        rows,
        chroma.keys(contracts["chroma/document_index"]) or set(),
    ]


@pytest.fixture
def texts_of_minilm(filled: Stack, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The texts that MiniLM was given since it was last asked for them, but for the questions."""
    given: list[str] = []
    kind = type(make_embedder(filled.settings))
    embed = kind.embed
    monkeypatch.setattr(kind, "embed", lambda self, texts: (given.extend(texts), embed(self, texts))[1])

    def taken() -> list[str]:
        found = [text for text in given if text not in QUESTIONS]
        given.clear()
        return found

    return taken


def test_documents_are_cut_otherwise_if_that_is_not_worse_and_stay_so(
    filled: Stack, texts_of_minilm: Callable[[], list[str]], environment: dict[str, str]
) -> None:
    refresh(filled, LONG_TEXTS, "chroma/document_index")
    before = keys(filled)
    assert before[0] == before[1] == before[2] and len(before[0]) == len(TEXTS)
    texts_of_minilm()
    # Killed for real once its vectors are built: what was served is.
    command = [sys.executable, "-m", "ml_assets.cli", "search-switch", "--passage-tokens", "32"]
    command += ["--overlap-tokens", "0"]
    given = {**os.environ, **environment}
    for line in ("embedded by", *(("asking", "follows") if LONG else ())):
        process = subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        while (told := process.stderr.readline()) and line not in told:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if line != "follows":
            assert keys(filled) == before, told
    moved = filled.search.switch(passage_tokens=32, overlap_tokens=0)
    assert moved.moved or LONG, moved.sentence
    if not LONG:
        assert "new cut of the documents is not worse" in moved.sentence
        assert "Passages of 32 tokens" in moved.sentence
    # The killed process had embedded them all.
    assert texts_of_minilm() == []
    lake, rows, chroma = keys(filled)
    assert lake == rows == chroma and len(rows) >= 3 * len(TEXTS) and not rows & before[1]
    # What the graph does next cuts as the alias says, and embeds what has changed alone.
    assert refresh(filled, LONG_TEXTS) == [] and keys(filled)[0] == rows
    changed = {**LONG_TEXTS, "cats": LONG_TEXTS["cats"].replace("paragraph 2", "paragraph two")}
    (text,) = refresh(filled, changed)
    assert "paragraph two" in text
    # Of what is kept of the former cut, that of the text that is gone is gone, too.
    with filled._resources["postgres"].asking() as ask:
        kept = ask("SELECT owner FROM search_vectors WHERE table_name = 'document_embeddings'")
    assert {owner for (owner,) in kept} == set(TEXTS) - {"cats"}
    with pytest.raises(Refusal, match="reads 254 tokens, and passages of 300 are asked for"):
        filled.search.switch(passage_tokens=300)
    texts_of_minilm()
    back = filled.search.switch(passage_tokens=200, overlap_tokens=32, force=True)
    assert back.moved and [text for text in texts_of_minilm() if "kittens" not in text] == []
    lake, rows, chroma = keys(filled)
    assert lake == rows == chroma and len(rows) == len(TEXTS)
    assert found(filled, "chroma") == found(filled)


def indexes(stack: Stack) -> list[str]:
    with stack._resources["postgres"].asking() as ask:
        found = ask(
            "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'document_embeddings%%' AND indexdef LIKE '%%hnsw%%'"
        )
    return [definition.partition(" USING ")[2].partition(" WHERE ")[0] for (definition,) in found]


def waits_for_a_lock(postgres: PostgresResource) -> bool:
    with postgres.asking() as ask:
        database = "(SELECT oid FROM pg_database WHERE datname = current_database())"
        return bool(
            ask(f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = {database}")
        )


def test_another_index_takes_no_embedding(
    filled: Stack, texts_of_minilm: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert indexes(filled) == ["hnsw (embedding vector_cosine_ops)"]
    with filled._resources["postgres"].asking() as ask:
        before = ask("SELECT id, xmin::text FROM document_embeddings ORDER BY id")
    # Rows of the graph that wait for their turn are written before it, and not after what they were made for is gone.
    postgres = filled._resources["postgres"]
    with ThreadPoolExecutor() as pool:
        with alias_stays(postgres):
            switch = pool.submit(filled.search.switch, m=24, ef_construction=100, precision="half")
            until = time.monotonic() + 60
            while not (switch.done() or waits_for_a_lock(postgres)) and time.monotonic() < until:
                time.sleep(0.05)
            assert not switch.done() and indexes(filled) == ["hnsw (embedding vector_cosine_ops)"]
        told = switch.result()
    assert told.moved and told.recall == (1.0, 1.0), told.sentence
    assert "An index with m 24, ef_construction 100, half precision is served now" in told.sentence
    half = "hnsw (((embedding)::halfvec(384)) halfvec_cosine_ops) WITH (m='24', ef_construction='100')"
    assert indexes(filled) == [half]
    assert texts_of_minilm() == []
    with filled._resources["postgres"].asking() as ask:
        assert ask("SELECT id, xmin::text FROM document_embeddings ORDER BY id") == before
    assert found(filled) == found(filled, "chroma") == list(QUESTIONS.values())
    assert filled.search.quality().index_recall == 1.0
    # Somebody who goes on reading is not waited for without end.
    hurried = connect(settings=filled.settings.model_copy(update={"write_timeout_s": 5.0}))
    with postgres.connect() as connection:
        connection.execute("SELECT count(*) FROM document_embeddings")
        with pytest.raises(WriteBusy, match="former index cannot go"):
            hurried.search.switch(precision="full")
    assert indexes(filled) == [half]
    # Whoever writes next keeps it, and so does another model.
    changed = {id: f"# {title}\n\n{text} More." for id, (title, text) in TEXTS.items()}
    assert len(refresh(filled, changed)) == len(TEXTS) and indexes(filled) == [half]
    # One that finds less stays out, whatever the questions say.
    monkeypatch.setattr(
        "ml_assets.operations.search_switch.recalls",
        lambda _, asked_of, texts, k: [(8 if asked_of.subject is CANDIDATE else 10, 10)] * len(texts),
    )
    worse = filled.search.switch(m=2, ef_construction=4)
    assert not worse.moved and worse.recall == pytest.approx((0.8, 1.0))
    assert "The new index is worse by more than 0.01 (its recall@10 -0.2000" in worse.sentence
    assert indexes(filled) == [half]


def test_vectors_of_runs_are_kept_when_those_of_documents_are_forgotten(postgres: PostgresResource) -> None:
    ensure_tables(postgres, "search_vectors", "postgres/search_model/schema.sql")
    with postgres.connect(write=True) as connection:
        connection.execute(
            "INSERT INTO search_vectors SELECT name, 'a model', 'a hash', 'an owner', '', '[1]' "
            "FROM unnest(ARRAY['document_embeddings', 'experiment_embeddings']) AS name"
        )
        forget(connection, DOCUMENTS)
        left = connection.execute("SELECT table_name FROM search_vectors").fetchall()
    assert left == [("experiment_embeddings",)]
