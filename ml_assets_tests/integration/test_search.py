"""Search by words and by meaning in the real stores, with vectors of the real model."""

import csv
import io
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets import connect
from ml_assets.contracts import tables
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.lib.filters.evaluate import matches
from ml_assets.lib.filters.fields import Attribute, Field, Metadata
from ml_assets.lib.filters.normal import without_accents
from ml_assets.lib.filters.tree import And, Between, Compare, Fuzzy, In, IsNull, Like, Node, Not, Or
from ml_assets.operations import search_texts
from ml_assets.resources.chroma import ChromaResource
from ml_assets.settings import Settings
from ml_assets.stack import Stack
from ml_assets.stores.chroma import ChromaStore
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.qdrant import QdrantStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage

NOW = datetime(2026, 3, 1, tzinfo=UTC)

TEXTS = {
    "trees": (
        "Gradient boosting",
        "Boosted trees detect fraudulent payments with a credit card.",
        {"year": 2019},
    ),
    "cats": ("Convolutional networks", "A network that recognises kittens on photos.", {"year": 2021}),
    "dogs": ("Größe der Hunde", "How tall a dog of each breed is, in Zürich.", {"year": "2020"}),
    "tokyo": ("東京の天気", "明日の東京都は雨。", {"lang": "ja"}),
    "hebrew": ("שלום", "שָׁלוֹם עולם", {"lang": "he"}),
    "rocket": ("Launch 🚀", "We launched the zx81 model 🚀 today.", {"lang": "en", "year": 1e300}),
}


Fill = Callable[[str, list[dict[str, Any]]], None]


@pytest.fixture
def stack(settings: Settings, chroma: ChromaResource) -> Stack:
    return connect(settings=settings)


@pytest.fixture
def fill(stack: Stack) -> Fill:
    """Writes the vectors of texts to both stores, as the graph does."""
    stack.home.mkdir()
    contracts = tables(stack.settings)

    def write(table: str, rows: list[dict[str, Any]]) -> None:
        index = {"document_embeddings": "document_index", "experiment_embeddings": "experiment_index"}[table]
        postgres = PostgresStore(stack._resources["postgres"])
        chroma = ChromaStore(stack._resources["chroma"], stack._resources["postgres"])
        for store, contract in (
            (postgres, contracts[f"postgres/{table}"]),
            (chroma, contracts[f"chroma/{index}"]),
        ):
            filled = pa.Table.from_pylist(rows, arrow_schema(contract))
            with stage(filled, contract, store.limits) as staged:
                store.write(contract, staged)

    return write


def chunk(id: str, vector: Any, model: str, title: str | None, text: str, **metadata: Any) -> dict[str, Any]:
    document_id = id.partition("#")[0]
    metadata = {"source": "tests", **metadata, "document_id": document_id}
    return {
        "id": id,
        "document_id": document_id,
        "embedding": np.asarray(vector).tolist(),
        "model_name": model,
        "content_hash": f"{hash(text)}",
        "title": title,
        "text": text,
        "metadata": json.dumps(metadata),
        "created_at": NOW,
    }


@pytest.fixture
def filled(stack: Stack, fill: Fill) -> Stack:
    """Documents of one chunk each, and one of two."""
    embedder = stack._resources["embedder"].get()
    texts = [(f"{id}#0", *rest) for id, rest in TEXTS.items()]
    texts.append(
        ("cats#1", "Convolutional networks", "Photos of kittens, and of nothing else.", {"year": 2021})
    )
    vectors = embedder.embed([f"{title}\n{text}" for _, title, text, _ in texts])
    rows = [
        chunk(id, vector, embedder.name, title, text, **metadata)
        for (id, title, text, metadata), vector in zip(texts, vectors, strict=True)
    ]
    fill("document_embeddings", rows)
    return stack


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [hit["document_id"] for hit in found]


def test_documents_are_found_by_words_and_by_meaning(
    filled: Stack, cli: Any, environment: dict[str, str]
) -> None:
    documents = filled.search.documents
    assert ids(documents("zx81", k=1)) == ids(documents("zx81", mode="words")) == ["rocket"]
    assert ids(documents("pictures of young cats", k=1, mode="dense")) == ["cats"]
    assert documents("pictures", mode="words") == []
    assert ids(documents("pictures of kittens", k=2))[0] == "cats"
    for store in ("postgres", "chroma"):
        (hit,) = documents("kittens on photos", k=1, store=store)
        assert (hit["document_id"], hit["word_rank"], hit["meaning_rank"]) == ("cats", 1, 1)
        assert {hit["passage"][a:b].lower() for a, b in hit["places"]} >= {"kittens", "photos"}
        assert 0.5 < hit["score"] < 1
        assert (hit["title"], hit["source"]) == ("Convolutional networks", "tests")
        both = documents("kittens on photos", k=2, store=store, passages=2)
        assert {each["chunk_id"] for each in both} == {"cats#0", "cats#1"}
    # Accents, case, and scripts without spaces.
    assert ids(documents("GROSSE zurich", mode="words")) == ["dogs"]
    assert ids(documents("東京", mode="words")) == ["tokyo"]
    assert ids(documents("שלום", mode="words")) == ["hebrew"]
    assert ids(documents("🚀", mode="words")) == ["rocket"]
    assert len(documents("🚀 東京 שלום", k=6)) == 6

    done = cli(filled.home, "search", "kittens", "-k", "1", "--filter", "metadata.year > 2020", **environment)
    assert "Convolutional networks" in done.stdout and "1 hit" in done.stdout, done.stderr
    done = cli(filled.home, "search", "kittens", "-k", "2", "--json", **environment)
    told = json.loads(done.stdout)
    assert told[0]["document_id"] == "cats" and told[0].keys() >= {"score", "passage"}
    done = cli(filled.home, "search", "kittens", "-k", "2", "--csv", **environment)
    assert next(csv.DictReader(io.StringIO(done.stdout)))["document_id"] == "cats"


def test_what_cannot_be_looked_for_is_said(filled: Stack, cli: Any, environment: dict[str, str]) -> None:
    documents = filled.search.documents
    refused: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("nothing to look for", ("",), {}),
        ("nothing to look for", (" \n\t\u2003",), {}),
        ("10,485,760 characters, and 20,000 are the most", ("x" * 10 * 2**20,), {}),
        ("half a character", ("a\ud800",), {}),
        ("NUL", ("a\0",), {}),
        ("There is no word in '...'", ("...",), {"mode": "words"}),
        ("0 hits", ("a",), {"k": 0}),
        ("1,001 hits", ("a",), {"k": 1001}),
        ("0 passages", ("a",), {"passages": 0}),
        ("no mode 'bm25'", ("a",), {"mode": "bm25"}),
        ("'redis' cannot be searched", ("a",), {"store": "redis"}),
        ("a document has no attribute 'titel'.*mean title", ("a",), {"filter": "titel = 'x'"}),
        ("nothing called 'metrics', only metadata", ("a",), {"filter": "metrics.loss < 1"}),
        ("No cross-encoder", ("a",), {"rerank": True}),
    ]
    for sentence, given, named in refused:
        with pytest.raises(Refusal, match=sentence):
            documents(*given, **named)
    # What has no word still has a meaning.
    assert len(documents("...", k=3)) == 3
    with pytest.raises(StoreUnavailable, match="experiment_embeddings does not exist yet"):
        filled.search.runs("a")
    done = cli(filled.home, "search", "a", "--in", "models", **environment)
    assert done.returncode == 1 and "documents, runs" in done.stderr
    done = cli(filled.home, "search", "a", "--in", "runs", "--passages", "2", **environment)
    assert done.returncode == 1 and "one card" in done.stderr
    with filled._resources["postgres"].connect(write=True) as connection:
        connection.execute("UPDATE document_embeddings SET model_name = 'another' WHERE id = 'cats#0'")
    with pytest.raises(Refusal, match="embedded by another, and the settings name"):
        connect(settings=filled.settings).search.documents("a")
    assert ids(documents("kittens", mode="words")) == ["cats"]


@pytest.fixture
def by_length() -> Iterator[str]:
    """URL of a cross-encoder for which the longest text is the best."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scores = [{"index": n, "score": float(len(text))} for n, text in enumerate(body["texts"])]
            data = json.dumps(scores).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/rerank"
        server.shutdown()
        thread.join()


def test_a_cross_encoder_has_the_last_word(filled: Stack, by_length: str) -> None:
    search = connect(settings=filled.settings.model_copy(update={"rerank_url": by_length})).search
    longest = max(TEXTS, key=lambda id: len(f"{TEXTS[id][0]}\n{TEXTS[id][1]}"))
    found = search.documents("kittens", k=2)
    assert found[0]["document_id"] == longest != "cats"
    assert found[0]["score"] == len(f"{found[0]['title']}\n{found[0]['passage']}") > found[1]["score"]
    assert ids(search.documents("kittens", k=1, rerank=False)) == ["cats"]


def test_runs_are_found_by_their_cards(
    stack: Stack, fill: Fill, cli: Any, environment: dict[str, str]
) -> None:
    embedder = stack._resources["embedder"].get()
    titles = {
        "r1": "gradient boosting on credit card fraud",
        "r2": "boosted trees that detect fraudulent payments",
        "r3": "convolutional network on photos of cats",
    }
    for n, run_id in enumerate(titles):
        stack.experiments.create("mine", id=run_id, model_name="m", metrics={"accuracy": 0.5 + n / 10})
    vectors = embedder.embed(list(titles.values()))
    rows = [
        {
            "run_id": run_id,
            "embedding": vector.tolist(),
            "model_name": embedder.name,
            "content_hash": run_id,
            "title": title,
            "text": title,
            "metadata": "{}",
            "created_at": NOW,
        }
        for (run_id, title), vector in zip(titles.items(), vectors, strict=True)
    ]
    fill("experiment_embeddings", rows)
    found = stack.search.runs("boosted trees", k=2)
    assert [each["run_id"] for each in found] == ["r2", "r1"]
    assert found[0]["experiment"] == "mine" and found[0]["passage"] == titles["r2"]
    for store in ("postgres", "chroma"):
        for mode in ("hybrid", "dense"):
            found = stack.search.runs("trees", filter="metrics.accuracy > 0.55", mode=mode, store=store)
            assert [each["run_id"] for each in found] == ["r2", "r3"]
    assert stack.search.runs("trees", filter="status = 'failed'") == []
    done = cli(stack.home, "search", "cats", "--in", "runs", "-k", "1", "--json", **environment)
    assert [each["run_id"] for each in json.loads(done.stdout)] == ["r3"], done.stderr


def test_the_index_of_words_is_made_anew_where_the_table_is_another(filled: Stack, fill: Fill) -> None:
    documents, folder = filled.search.documents, filled.home / "search" / "words"
    left = folder / ".making-killed"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    with ThreadPoolExecutor(4) as pool:  # all of them make it, and the first one has
        found = list(pool.map(lambda _: ids(documents("kittens", mode="words")), range(4)))
    assert found == [["cats"]] * 4
    (first,) = folder.iterdir()
    assert documents("photos", mode="words") and list(folder.iterdir()) == [first]
    rows = [chunk("new#0", [1.0] + 383 * [0.0], filled._resources["embedder"].get().name, None, "Only this.")]
    fill("document_embeddings", rows)
    assert documents("kittens", mode="words") == [] and ids(documents("only", mode="words")) == ["new"]
    (second,) = folder.iterdir()
    assert second != first
    fill("document_embeddings", [])
    assert documents("only", mode="words") == []


class Given:
    """An embedder of short vectors, which gives the one that it was handed."""

    name, dimension = "given@1", 32

    def __init__(self) -> None:
        self.vector = np.ones(self.dimension, dtype=np.float32)

    def get(self) -> "Given":
        return self

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.tile(self.vector, (len(texts), 1))


@pytest.fixture
def short(settings: Settings, chroma: ChromaResource) -> Stack:
    """A stack of vectors of 32 dimensions."""
    given = Given()
    changed = {
        "embedder": "ollama",
        "ollama_dimension": given.dimension,
        "qdrant_url": f"edge://{settings.home}-shards",
    }
    stack = connect(settings=settings.model_copy(update=changed))
    stack._resources["embedder"] = given
    return stack


LOOSE = ("", "a", "Éa", "50%", "it's", "10", "1e999", "1e-3", 1, 2.5, True, [1, 2], None)
KEYS = ("n", 'quo"te', "lang é")


def random_document(chance: random.Random, n: int) -> dict[str, Any]:
    return {
        "document_id": f"d{n:02}",
        "title": chance.choice(("Été", "A_b", "10", "", None)),
        "source": chance.choice(("wiki", "tests", "9")),
        "updated_at": NOW - timedelta(days=chance.randrange(4)),
        "metadata": {key: chance.choice(LOOSE) for key in KEYS if chance.random() < 0.8},
    }


def random_field(chance: random.Random, texts: bool) -> Field:
    named = ("document_id", "title", "source", *([] if texts else ["updated_at"]))
    return chance.choice((Metadata(chance.choice(KEYS)), Attribute(chance.choice(named))))


def random_tree(chance: random.Random, depth: int = 3) -> Node:
    kind, negated = chance.random(), chance.random() < 0.3
    if depth and kind < 0.5:
        parts = tuple(random_tree(chance, depth - 1) for _ in range(chance.randrange(2, 4)))
        return And(parts) if kind < 0.2 else Or(parts) if kind < 0.4 else Not(parts[0])
    if kind < 0.57:
        return IsNull(random_field(chance, False))
    if kind < 0.64:
        pattern = chance.choice(("%", "_", "50\\%", "%é%", "A\\_b", "d0%"))
        return Like(random_field(chance, True), pattern, chance.random() < 0.5, negated)
    if kind < 0.7:
        words = without_accents(chance.choice(("ete", "it's", "%", "a"))).split()
        return Fuzzy(random_field(chance, True), tuple(words), negated)
    field = random_field(chance, False)
    values: list[Any]
    if field.kind == "time":
        values = [NOW - timedelta(days=chance.randrange(5)) for _ in range(3)]
    elif chance.random() < 0.5:
        values = [chance.choice((0.0, 1.0, 2.5, 10.0, 0.001, 9.0)) for _ in range(3)]
    else:
        values = [chance.choice(("", "a", "Éa", "10", "true", "[1, 2]", "d05", "wiki")) for _ in range(3)]
    if kind < 0.9:
        return Compare(field, chance.choice(("=", "!=", "<", "<=", ">", ">=")), values[0])
    if kind < 0.95:
        return In(field, tuple(values), negated)
    low, high, _ = sorted(values)
    return Between(field, low, high, negated)


def written(node: Node) -> str:
    """A tree as a person writes it."""

    def value(each: Any) -> str:
        text = each.isoformat() if isinstance(each, datetime) else each
        return f"'{text.replace(chr(39), chr(39) * 2)}'" if isinstance(text, str) else repr(each)

    if isinstance(node, Not):
        return f"NOT ({written(node.part)})"
    if isinstance(node, And | Or):
        word = " AND " if isinstance(node, And) else " OR "
        return word.join(f"({written(part)})" for part in node.parts)
    if isinstance(node, IsNull):
        return f"{node.field} IS NULL"
    no = "NOT " if getattr(node, "negated", False) else ""
    if isinstance(node, Compare):
        return f"{node.field} {node.operator} {value(node.value)}"
    if isinstance(node, Between):
        return f"{node.field} {no}BETWEEN {value(node.low)} AND {value(node.high)}"
    if isinstance(node, In):
        return f"{node.field} {no}IN ({', '.join(map(value, node.values))})"
    if isinstance(node, Like):
        return f"{node.field} {no}{'ILIKE' if node.ignore_case else 'LIKE'} {value(node.pattern)}"
    return f"{node.field} {no}~ {value(' '.join(node.words))}"


@pytest.fixture
def fill_short(short: Stack, request: pytest.FixtureRequest) -> Fill:
    short.home.mkdir()
    contracts = tables(short.settings)
    postgres = PostgresStore(short._resources["postgres"])
    chroma = ChromaStore(short._resources["chroma"], short._resources["postgres"])
    qdrant = QdrantStore(short._resources["qdrant"], short._resources["postgres"])

    def write(table: str, rows: list[dict[str, Any]]) -> None:
        for store, asset in (
            (postgres, f"postgres/{table}"),
            (chroma, "chroma/document_index"),
            (qdrant, "qdrant/document_index"),
        ):
            filled = pa.Table.from_pylist(rows, arrow_schema(contracts[asset]))
            with stage(filled, contracts[asset], store.limits) as staged:
                store.write(contracts[asset], staged)

    return write


def test_a_filter_lets_the_same_documents_through_in_every_store(
    short: Stack, fill_short: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(19)  # noqa: S311 - to be repeatable is the point
    rng = np.random.default_rng(19)
    known = [random_document(chance, n) for n in range(40)]
    rows = []
    for document in known:
        made = chunk(
            f"{document['document_id']}#0", rng.normal(size=32), Given.name, document["title"], "common"
        )
        labels = {"source": document["source"], "document_id": document["document_id"]}
        document["metadata"] |= labels
        rows.append(
            made | {"metadata": json.dumps(document["metadata"]), "created_at": document["updated_at"]}
        )
    fill_short("document_embeddings", rows)
    for n in range(120):
        tree = random_tree(chance)
        expected = [document["document_id"] for document in known if matches(tree, document)]
        # Both ways: what is let through is few, or not.
        monkeypatch.setattr("ml_assets.operations.search_texts.FEW", 3 if n % 2 else 5_000)
        ways = [("words", "postgres"), ("dense", "postgres"), ("dense", "qdrant")]
        ways += [("dense", "chroma")] * (n % 3 == 0)
        for mode, store in ways:
            found = short.search.documents("common", 40, written(tree), mode=mode, store=store)  # pyright: ignore[reportArgumentType]
            assert sorted(ids(found)) == expected, (mode, store, written(tree))


def test_a_narrow_filter_hides_nothing_that_is_near(short: Stack, fill_short: Fill) -> None:
    rows, rng = 12_000, np.random.default_rng(19)
    centres = rng.normal(size=(200, 32))
    vectors = (centres[rng.integers(200, size=rows)] + 0.5 * rng.normal(size=(rows, 32))).astype(np.float32)
    order = rng.permutation(rows)
    fill_short(
        "document_embeddings",
        [chunk(f"d{n}#0", vectors[n], Given.name, None, "x", n=int(order[n])) for n in range(rows)],
    )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # A thousandth, which is compared one by one, and half, which the index is walked through for.
    for limit in (12, 6_000):
        for store in ("postgres", "chroma", "qdrant"):
            hits = 0
            for _ in range(10):
                vector = centres[rng.integers(200)] + 0.5 * rng.normal(size=32)
                short._resources["embedder"].vector = vector.astype(np.float32)
                allowed = np.flatnonzero(order < limit)
                nearest = allowed[np.argsort(-(unit[allowed] @ vector))[:10]]
                found = short.search.documents("x", 10, f"metadata.n < {limit}", "dense", store)  # pyright: ignore[reportArgumentType]
                assert len(found) == 10
                hits += len(set(ids(found)) & {f"d{n}" for n in nearest})
            assert hits / 100 >= 0.95, (limit, store)


def test_a_store_that_is_not_configured_is_not_searched(filled: Stack) -> None:
    with pytest.raises(Refusal, match="no qdrant to be searched: set ML_ASSETS_QDRANT_URL"):
        filled.search.documents("kittens", mode="dense", store="qdrant")


def test_collections_of_ones_own(stack: Stack) -> None:
    stack.home.mkdir()
    search = stack.search
    search.create_collection("papers")
    search.add(
        "papers",
        ["a", "b", "c"],
        texts=["boosted trees", "photos of kittens", "Été à Paris"],
        metadatas=[{"year": 2019, "lang": "en"}, {"year": 2021, "lang": "en"}, {"lang": "fr"}],
    )
    (found,) = search.query_similar("papers", "young cats", k=1)
    assert (found["id"], found["text"], found["metadata"]["year"]) == ("b", "photos of kittens", 2021)
    for filter, expected in (
        ("metadata.year < 2020", {"a"}),
        ("NOT metadata.year < 2020", {"b", "c"}),
        ("text ~ 'ete' OR id = 'b'", {"b", "c"}),
        ("metadata.lang LIKE 'x%'", set()),
    ):
        assert {each["id"] for each in search.query_similar("papers", "cats", filter=filter)} == expected
    search.create_collection("points", 2)
    assert search.query_similar("points", vector=[1, 0]) == []
    search.add("points", ["x", "y"], vectors=[[1, 0], [0, 1]])
    found = search.query_similar("points", vector=[1, 0.1])
    assert [each["id"] for each in found] == ["x", "y"] and found[0]["score"] > 0.9
    refused: list[tuple[str, Callable[[], object]]] = [
        (
            "graph's: search it with stack.search.documents",
            lambda: search.create_collection("document_index"),
        ),
        ("there is a collection 'papers' already", lambda: search.create_collection("papers", 2)),
        ("cannot be made", lambda: search.create_collection("?", 2)),
        ("from 1 to 16,000", lambda: search.create_collection("other", 0)),
        ("either texts", lambda: search.add("papers", ["a"])),
        ("2 ids and 1 texts", lambda: search.add("papers", ["a", "b"], ["x"])),
        ("'a' is given twice", lambda: search.add("papers", ["a", "a"], ["x", "y"])),
        ("half a character", lambda: search.add("papers", ["a"], ["\ud800"])),
        (
            "have 2 numbers, and the vector of 'a' has 3",
            lambda: search.add("points", ["a"], vectors=[[1, 2, 3]]),
        ),
        ("NaN or infinite", lambda: search.add("points", ["a"], vectors=[[1, float("nan")]])),
        ("are 0: it has no direction", lambda: search.add("points", ["a"], vectors=[[0, 0]])),
        ("of vectors of your own", lambda: search.query_similar("points", "a text")),
        ("Similar to what", lambda: search.query_similar("points")),
        ("nothing to look for", lambda: search.query_similar("papers", " ")),
        ("0 entries", lambda: search.query_similar("papers", "a", k=0)),
        (
            "an entry has no attribute 'titel'",
            lambda: search.query_similar("papers", "a", filter="titel = 'x'"),
        ),
    ]
    for sentence, call in refused:
        with pytest.raises(Refusal, match=sentence):
            call()
    with pytest.raises(StoreUnavailable, match="no collection 'nowhere'"):
        search.query_similar("nowhere", "a")


def test_searches_are_judged_by_what_was_landed(
    filled: Stack, cli: Any, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = tables(filled.settings)["duckdb/raw_judgments"]
    judged = [
        ("kittens", "photos of young cats", "cats", 3),
        ("kittens", "photos of young cats", "trees", 0),
        ("zx81", "zx81", "rocket", 2),
        ("gone", "what was deleted", "deleted", 3),  # its document is not there
        ("blank", " ", "cats", 1),
    ]
    rows = [
        {
            "set_name": "mine",
            "query_id": id,
            "query": query,
            "document_id": document,
            "relevance": relevance,
            "judged_at": NOW,
        }
        for id, query, document, relevance in judged
    ]
    lake = DuckLakeStore(filled._resources["lake"], filled._resources["postgres"])
    assert filled.search.quality().questions == []  # nothing was landed yet
    with stage(pa.Table.from_pylist(rows, arrow_schema(contract)), contract, lake.limits) as staged:
        lake.write(contract, staged)
    found = filled.search.quality()
    assert {row["way"]: (row["questions"], row["recall"]) for row in found.rows()} == {
        "words": (2, 1.0),
        "dense": (2, 1.0),
        "hybrid": (2, 1.0),
    }
    assert (found.index_recall, found.hybrid_is_worse, len(found.left_out)) == (1.0, False, 3)
    # It is the index that is asked, in a table as small as this one, too, and then none.
    asked, ranked = list[bool](), search_texts._ranked

    def explained(connection: Any, statement: bytes, given: Any) -> Any:
        plan = connection.execute(b"EXPLAIN " + statement, given, prepare=False).fetchall()
        asked.append("_hnsw_" in repr(plan))
        return ranked(connection, statement, given)

    monkeypatch.setattr(search_texts, "_ranked", explained)
    assert filled.search._searcher.index_recall(search_texts.DOCUMENTS, ["kittens", "trees"], 3) == 1
    assert asked == [True, False] * 2
    with pytest.raises(Refusal, match=r"No set 'yours' was judged: there are mine\."):
        filled.search.quality("yours")
    done = cli(filled.home, "search-quality", "--json", **environment)
    told = json.loads(done.stdout)
    assert (done.returncode, told["questions"], told["index_recall"]) == (0, 2, 1.0)
