"""What embeddings and searches cost, beside what they are made of: `python -m benchmarks.embeddings [PART ...]`.

    embed       texts a second of the default model, beside onnxruntime alone on the same batches, tokenizing included;
                and a refresh of documents of which one in a hundred changed, against embedding all of them, with
                PostgreSQL as the store (ML_ASSETS_BENCH_DOCUMENTS, 100,000 by default)
    search      the 10 nearest of many vectors, in pgvector, Chroma and embedded Qdrant by `stack.search`, beside pgvector
                alone, all vectors compared by numpy (which is what recall@10 is measured against) and hnswlib alone; and
                the same under a filter that one vector in a thousand passes

Texts of a question are not embedded: the vectors are drawn around centres, as those of a model lie, and so are the
questions. ML_ASSETS_BENCH_VECTORS sets how many (100,000 by default), ML_ASSETS_BENCH_QUESTIONS the questions of each way
(200). hnswlib is imported where it is installed (`pip install chroma-hnswlib`), and left out where it is not. The exit
status is 1 if a recall is too small.
"""

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.limits import finish, within
from ml_assets import services
from ml_assets.contracts import tables
from ml_assets.defs.embeddings import _select
from ml_assets.embedders.incremental import EmbeddingCount, embed_changed
from ml_assets.embedders.minilm import END, MAX_TOKENS, START, MiniLMEmbedder
from ml_assets.embedders.minilm import _batches as minilm_batches
from ml_assets.lib.passages import SCHEMA as PASSAGES
from ml_assets.lib.passages import VECTOR_COLUMNS, chunk_documents
from ml_assets.operations.made_before import known_passages, known_vectors
from ml_assets.settings import MINILM_DIMENSION, Settings
from ml_assets.stack import Stack
from ml_assets.stores.chroma import ChromaStore
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.qdrant import QdrantStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE

VECTORS = int(os.environ.get("ML_ASSETS_BENCH_VECTORS", "100000"))
QUESTIONS = int(os.environ.get("ML_ASSETS_BENCH_QUESTIONS", "200"))
K = 10
LEAST_RECALL = 0.95
BATCH = 5_000
FILTER = f"metadata.n < {VECTORS // 1000}"
"""Lets one vector in a thousand through."""


class Given:
    """An embedder that gives the vector that it was handed."""

    name, dimension = "given@1", MINILM_DIMENSION

    def __init__(self) -> None:
        self.vector = np.ones(self.dimension, dtype=np.float32)

    def get(self) -> "Given":
        """Itself, as the resource of an embedder gives one."""
        return self

    def embed(self, texts: list[str]) -> np.ndarray:
        """The vector, for each text."""
        return np.tile(self.vector, (len(texts), 1))


def drawn(chance: np.random.Generator, centres: np.ndarray, count: int) -> np.ndarray:
    """Unit vectors around centres."""
    noise = 0.8 * chance.standard_normal((count, centres.shape[1]), dtype=np.float32)
    found = centres[chance.integers(len(centres), size=count)] + noise
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def search() -> None:
    """The part `search`."""
    chance = np.random.default_rng(19)
    centres = chance.standard_normal((1_000, MINILM_DIMENSION), dtype=np.float32)
    vectors, questions = drawn(chance, centres, VECTORS), drawn(chance, centres, QUESTIONS)
    order = chance.permutation(VECTORS)
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        # A model of the same dimension, none of which is asked.
        stack = Stack(Settings(home=home, qdrant_url=f"edge://{home / 'qdrant'}"))
        stack._resources["embedder"] = Given()
        wrote = fill(stack, vectors, order)
        measure(stack, vectors, questions, order, wrote)
    finally:
        services.stop_all(home)
        shutil.rmtree(home, ignore_errors=True)


def batches(vectors: np.ndarray, order: np.ndarray, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Documents of one chunk each."""
    now = datetime.now(UTC)
    for start in range(0, VECTORS, BATCH):
        rows = [
            {
                "id": f"d{n}#0",
                "document_id": f"d{n}",
                "embedding": vectors[n],
                "model_name": Given.name,
                "content_hash": f"{n}",
                "title": None,
                "text": f"text {n}",
                "metadata": f'{{"n":{order[n]}}}',
                "created_at": now,
            }
            for n in range(start, min(VECTORS, start + BATCH))
        ]
        yield pa.RecordBatch.from_pylist(rows, schema)


def fill(stack: Stack, vectors: np.ndarray, order: np.ndarray) -> dict[str, tuple[float, float]]:
    """Write the vectors to each store; returns seconds, and MB by which this process's memory peaked higher, by store."""
    contracts, took = tables(stack.settings), {}
    postgres, chroma = stack._resources["postgres"], stack._resources["chroma"]
    for store, asset in (
        (PostgresStore(postgres), "postgres/document_embeddings"),
        (ChromaStore(chroma, postgres), "chroma/document_index"),
        (QdrantStore(stack._resources["qdrant"], postgres), "qdrant/document_index"),
    ):
        schema = arrow_schema(contracts[asset])
        reader = pa.RecordBatchReader.from_batches(schema, batches(vectors, order, schema))
        began, before = time.perf_counter(), peak_mb()
        with stage(reader, contracts[asset], store.limits) as staged:
            store.write(contracts[asset], staged)
        took[store.name] = time.perf_counter() - began, peak_mb() - before
    return took


def peak_mb() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(
    stack: Stack,
    vectors: np.ndarray,
    questions: np.ndarray,
    order: np.ndarray,
    wrote: dict[str, tuple[float, float]],
) -> None:
    """Ask each way the same questions, and tell times and recall."""
    embedder = stack._resources["embedder"]
    allowed = np.flatnonzero(order < VECTORS // 1000)

    def exact(question: np.ndarray) -> list[int]:
        scores = vectors @ question
        best = np.argpartition(-scores, K)[:K]
        return best.tolist()

    def exact_filtered(question: np.ndarray) -> list[int]:
        return allowed[np.argsort(-(vectors[allowed] @ question))[:K]].tolist()

    def ours(store: str, filter: str = "") -> Callable[[np.ndarray], list[int]]:
        def asked(question: np.ndarray) -> list[int]:
            embedder.vector = question
            found = stack.search.documents("x", K, filter, mode="dense", store=store)  # pyright: ignore[reportArgumentType]
            return [int(hit["document_id"][1:]) for hit in found]

        return asked

    def pgvector(question: np.ndarray) -> list[int]:
        with stack._resources["postgres"].connect() as connection:
            connection.execute("SET LOCAL hnsw.ef_search = 400")
            rows = connection.execute(
                "SELECT id FROM document_embeddings WHERE model_name = %s "
                "ORDER BY embedding <=> %s::vector LIMIT %s",
                [Given.name, str(question.tolist()), K],
                prepare=False,  # the index of the model is used where the planner sees its name
            ).fetchall()
        return [int(id[1:-2]) for (id,) in rows]

    plain: dict[str, Callable[[np.ndarray], list[int]]] = {
        "numpy, all compared": exact,
        "pgvector alone": pgvector,
        "ours in pgvector": ours("postgres"),
        "ours in Chroma": ours("chroma"),
        "ours in Qdrant": ours("qdrant"),
    }
    if (alone := hnswlib_alone(vectors)) is not None:
        plain["hnswlib alone"] = alone
    filtered = {
        "numpy, all compared": exact_filtered,
        "ours in pgvector": ours("postgres", FILTER),
        "ours in Chroma": ours("chroma", FILTER),
        "ours in Qdrant": ours("qdrant", FILTER),
    }
    told = ", ".join(
        f"{name} {seconds:.0f} s, {grown:.0f} MB more" for name, (seconds, grown) in wrote.items()
    )
    show(f"{VECTORS:,} vectors, {QUESTIONS} questions (written: {told})", plain, questions)
    show(f"under {FILTER}", filtered, questions)


def hnswlib_alone(vectors: np.ndarray) -> Callable[[np.ndarray], list[int]] | None:
    """The index that Chroma builds on, with nothing around it; None where it is not installed."""
    try:
        import hnswlib  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    index = hnswlib.Index("cosine", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=100, M=16)
    index.add_items(vectors)
    index.set_ef(100)
    return lambda question: index.knn_query(question, K)[0][0].tolist()


def show(title: str, ways: dict[str, Callable[[np.ndarray], list[int]]], questions: np.ndarray) -> None:
    """Ask by turns, and print p50, p95 and recall@10 against the first way."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    right, there = dict.fromkeys(ways, 0), 0
    for asked in ways.values():
        asked(questions[0])  # connections and caches
    for question in questions:
        best: set[int] = set()
        for name, asked in ways.items():
            began = time.perf_counter()
            found = asked(question)
            took[name].append(time.perf_counter() - began)
            best = best or set(found)
            right[name] += len(best.intersection(found))
        there += len(best)  # a filter may let fewer than ten through
    table = Table("", "p50 ms", "p95 ms", "recall@10", title=title)
    for name, times in took.items():
        recall = right[name] / there
        if name.startswith("ours"):
            within(f"recall@10, {name}, {title}", recall, LEAST_RECALL, at_least=True)
        p50, p95 = np.percentile(times, [50, 95])
        table.add_row(name, f"{1000 * p50:.1f}", f"{1000 * p95:.1f}", f"{recall:.3f}")
    Console().print(table)


TEXTS = int(os.environ.get("ML_ASSETS_BENCH_TEXTS", "2000"))
DOCUMENTS = int(os.environ.get("ML_ASSETS_BENCH_DOCUMENTS", "100000"))
ROUNDS = 5
LEAST_SPEED = 0.95
MOST_OF_REFRESH = 0.02
PROSE = (
    "the model was trained on data of the last month and its loss fell slowly until the learning rate was lowered "
    "accuracy of rare classes stayed below that of others which we put down to few samples and noisy labels"
)


def prose(chance: np.random.Generator, words: int) -> str:
    """Some words that tell nothing."""
    return " ".join(chance.choice(PROSE.split(), words).tolist())


def embed() -> None:
    """The part `embed`."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        speed(home)
        refresh(home)
    finally:
        services.stop_all(home)
        shutil.rmtree(home, ignore_errors=True)


def speed(home: Path) -> None:
    """Texts a second, ours beside onnxruntime alone; by turns, and the best round of each."""
    chance = np.random.default_rng(19)
    texts = [prose(chance, int(words)) for words in chance.integers(5, 150, TEXTS)]
    embedder = MiniLMEmbedder(home / "models")
    embedder.embed(texts[:64])

    def bare() -> np.ndarray:
        # What has to be done in any case: tokens, batches of texts of like length, the model.
        tokens = [
            each.ids[: MAX_TOKENS - 2]
            for each in embedder._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]
        order = sorted(range(len(tokens)), key=lambda n: len(tokens[n]))
        out = np.empty((len(texts), MINILM_DIMENSION), dtype=np.float32)
        for batch in minilm_batches(order, [len(each) + 2 for each in tokens]):
            ids = np.zeros((len(batch), len(tokens[batch[-1]]) + 2), dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, n in enumerate(batch):
                ids[row, : len(tokens[n]) + 2] = [START, *tokens[n], END]
                mask[row, : len(tokens[n]) + 2] = 1
            (out[batch],) = embedder._session.run(None, {"ids": ids, "mask": mask})
        return out

    ways: dict[str, Callable[[], np.ndarray]] = {
        "bare onnxruntime": bare,
        "ours": lambda: embedder.embed(texts),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            took[name].append(time.perf_counter() - began)
    table = Table("", "texts/s", title=f"{TEXTS:,} texts of 5 to 150 words")
    for name, times in took.items():
        table.add_row(name, f"{TEXTS / min(times):,.1f}")
    Console().print(table)
    within(
        "texts/s, ours by bare onnxruntime",
        min(took["bare onnxruntime"]) / min(took["ours"]),
        LEAST_SPEED,
        at_least=True,
    )


def refresh(home: Path) -> None:
    """Seconds for all documents, and for them again when one in a hundred changed."""
    chance = np.random.default_rng(20)
    texts = [f"# Note {n}\n\n{prose(chance, 120)}" for n in range(DOCUMENTS)]
    updated_at = [datetime.now(UTC)] * DOCUMENTS
    settings = Settings(home=home)
    stack = Stack(settings)
    postgres, embedder = stack._resources["postgres"], stack._resources["embedder"].get()
    lake, contracts = stack._resources["lake"], tables(settings)
    contract, cut = contracts["postgres/document_embeddings"], contracts["duckdb/document_chunks"]
    store, lake_store = PostgresStore(postgres), DuckLakeStore(lake, postgres)
    columns = VECTOR_COLUMNS

    def written(raw: pa.RecordBatchReader) -> EmbeddingCount:
        # As the assets do it: passages into the lake, and out of it into vectors.
        count = EmbeddingCount()
        chunks = chunk_documents(raw, embedder, None, known_passages(lake, cut))
        with stage(chunks, cut, lake_store.limits) as staged:
            lake_store.write(cut, staged)
        rows = _select(lake_store.read(cut, sorted(columns.values()), WHOLE), columns)
        known = known_vectors(postgres, contract.table, "id", embedder.name)
        with stage(embed_changed(rows, "id", embedder, known, count), contract, store.limits) as staged:
            store.write(contract, staged)
        return count

    table = Table("", "seconds", "embedded", title=f"{DOCUMENTS:,} documents of 120 words")
    took = {}
    for name in ("all", "one in a hundred changed"):
        raw = documents(texts, updated_at).to_reader()
        began = time.perf_counter()
        count = written(raw)
        took[name] = time.perf_counter() - began
        table.add_row(name, f"{took[name]:.2f}", f"{count.embedded:,}")
        for n in range(0, DOCUMENTS, 100):
            texts[n], updated_at[n] = f"# Note {n}\n\n{prose(chance, 120)}", datetime.now(UTC)
    Console().print(table)
    whole, again = took.values()
    within("a refresh of 1 % by embedding all", again / whole, MOST_OF_REFRESH)


def documents(texts: list[str], updated_at: list[datetime]) -> pa.Table:
    """Texts as rows of raw_documents."""
    count = len(texts)
    values = {
        "document_id": [f"d{n}" for n in range(count)],
        "title": [f"Document {n}" for n in range(count)],
        "text": texts,
        "source": [None] * count,
        "metadata": [None] * count,
        "updated_at": updated_at,
    }
    return pa.table(values, pa.schema([(name, PASSAGES.field(name).type) for name in values]))


PARTS: dict[str, Callable[[], None]] = {"embed": embed, "search": search}


def main(names: list[str]) -> None:
    """Run the named parts, or all."""
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"There is no part {unknown[0]!r}: choose from {', '.join(PARTS)}.")
    for name in names or PARTS:
        PARTS[name]()
    finish()


if __name__ == "__main__":
    main(sys.argv[1:])
