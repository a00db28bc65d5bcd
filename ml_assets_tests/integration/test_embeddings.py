"""Vectors of texts in PostgreSQL and Chroma, when another model takes the place of the former one."""

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from ml_assets import services
from ml_assets.contracts import tables
from ml_assets.defs import embeddings
from ml_assets.errors import ContractViolation, Refusal
from ml_assets.io_managers.chroma import ChromaIOManager
from ml_assets.io_managers.postgres import PostgresIOManager
from ml_assets.operations.search_models import embeddings as embeddings_of
from ml_assets.operations.search_models import to_repair
from ml_assets.resources import store_resources
from ml_assets.settings import MINILM_DIMENSION, Settings
from ml_assets.stores.chroma import ChromaStore
from ml_assets.stores.postgres import PostgresStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage

TABLES = tables(Settings())


class Direction:
    """A model that turns every text into the same unit vector; remembers what it was asked."""

    dimension = MINILM_DIMENSION
    max_tokens = 100
    estimates_tokens = False

    def __init__(self, axis: int) -> None:
        self.name = f"direction@{axis}"
        self.asked: list[str] = []
        self._axis = axis

    def embed(self, texts):
        self.asked += texts
        return np.tile(np.eye(self.dimension, dtype=np.float32)[self._axis], (len(texts), 1))

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    most_tokens = count_tokens


CARDS = [
    {
        "run_id": f"r{n}",
        "title": f"run {n}",
        "text": f"what run {n} did",
        "metadata": '{"n":1}',
        "content_hash": f"h{n}",
        "created_at": 0,
    }
    for n in range(3)
]


@pytest.fixture
def build(settings, postgres, chroma):
    """Materializes vectors and index of the cards with a model; returns the texts that it was asked for."""
    defs = embeddings.build(settings, TABLES)
    table, index = (
        dg.AssetKey(["postgres", "experiment_embeddings"]),
        dg.AssetKey(["chroma", "experiment_index"]),
    )
    chosen = [a for a in defs.assets or [] if isinstance(a, dg.AssetsDefinition) and a.key in (table, index)]

    @dg.io_manager
    def cards(context):
        class Cards(dg.IOManager):
            def load_input(self, context):
                contract = TABLES["duckdb/experiment_cards"]
                return pa.Table.from_pylist(CARDS, arrow_schema(contract)).to_reader()

            def handle_output(self, context, obj):
                raise AssertionError("nothing is written to the lake")

        return Cards()

    def with_model(model: Direction) -> list[str]:
        class Resource(dg.ConfigurableResource):
            def get(self) -> Direction:
                return model

        source = dg.AssetSpec(["duckdb", "experiment_cards"]).with_io_manager_key("duckdb_io")
        given = {
            "embedder": Resource(),
            "postgres": postgres,
            "postgres_io": PostgresIOManager(postgres=postgres, contracts=TABLES),
            "chroma_io": ChromaIOManager(chroma=chroma, postgres=postgres, contracts=TABLES),
            "duckdb_io": cards,
        }
        model.asked.clear()
        dg.materialize([source, *chosen], resources=given)
        return model.asked

    return with_model


def test_another_model_embeds_everything_anew_and_its_vectors_replace_the_former_ones(
    build, postgres, chroma
):
    first, second = Direction(0), Direction(1)
    for model in (first, second):
        assert len(build(model)) == len(CARDS)
        assert build(model) == []
        axis = np.eye(MINILM_DIMENSION, dtype=np.float32)[model._axis]
        with postgres.asking() as ask:
            held = ask("SELECT model_name, count(*) FROM experiment_embeddings GROUP BY 1")
        assert held == [(model.name, len(CARDS))]
        near = chroma.query_similar("experiment_index", axis.tolist())
        assert sorted(found.id.split(":")[0] for found in near) == ["r0", "r1", "r2"]
        assert max(found.distance for found in near) < 1e-6
        index = TABLES["chroma/experiment_index"]
        assert ChromaStore(chroma, postgres).keys(index) == {card["run_id"] for card in CARDS}
    with chroma.client(write=True) as client:
        client.delete_collection(index.table)
    assert ChromaStore(chroma, postgres).keys(index) == set()


class Leaving(Direction):
    """A model in whose place another one is served once it has embedded."""

    def embed(self, texts):
        vectors = super().embed(texts)
        self.name = "direction@9"
        return vectors


def test_vectors_of_a_model_that_is_not_served_any_more_do_not_undo_a_switch(build, postgres):
    with pytest.raises(Refusal, match="direction@9 has taken the place of direction@1 meanwhile"):
        build(Leaving(1))
    with postgres.asking() as ask:
        assert ask("SELECT to_regclass('experiment_embeddings')") == [(None,)]


def test_vectors_of_two_models_are_refused_at_the_write_and_told_and_made_anew(build, postgres, settings):
    model = Direction(0)
    build(model)
    asked = partial(to_repair, settings, postgres, model)
    assert asked() == {}
    with postgres.connect(write=True) as connection:
        connection.execute("UPDATE experiment_embeddings SET model_name = 'another' WHERE run_id = 'r1'")
    found = embeddings_of(settings, postgres, model)
    assert [(each["model"], each["vectors"], each["current"]) for each in found] == [
        ("direction@0", 2, True),
        ("another", 1, False),
    ]
    assert asked() == {"postgres/experiment_embeddings": False}
    contract = TABLES["postgres/experiment_embeddings"]
    with postgres.connect() as connection:
        held = connection.execute("SELECT * FROM experiment_embeddings ORDER BY run_id").fetchall()
    rows = [dict(zip(contract.names, row, strict=True)) for row in held]
    mixed = [row | {"embedding": np.eye(MINILM_DIMENSION)[0], "metadata": "{}"} for row in rows]
    table = pa.Table.from_pylist(mixed, arrow_schema(contract))
    with pytest.raises(ContractViolation, match=r"of 'direction@0' and of 'another' .*embeddings repair"):
        stage(table, contract, PostgresStore.limits)
    assert build(model) == ["run 1\nwhat run 1 did"] and asked() == {}
    # After a switch the settings may name what the model that is served could not be written by.
    other = settings.model_copy(update={"embedder": "ollama", "ollama_dimension": 8})
    with pytest.raises(
        Refusal, match=r"direction@0, .* of 384 numbers, .*=ollama of 8: .*search-switch ollama"
    ):
        to_repair(other, postgres, model)


def test_an_index_that_was_never_written_is_not_counted(chroma, postgres):
    assert ChromaStore(chroma, postgres).keys(TABLES["chroma/experiment_index"]) is None


WIDE = 1_536


class OllamaStandIn(BaseHTTPRequestHandler):
    """Stands in for Ollama's HTTP interface, with a model whose vectors are pseudo-random by the text's hash."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, body["model"]) == ("/api/embed", "wide")
        seeds = (int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in body["input"])
        vectors = [np.random.default_rng(seed).normal(size=WIDE).tolist() for seed in seeds]
        answer = json.dumps({"embeddings": vectors}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def ollama():
    """URL of the stand-in."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OllamaStandIn)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def empty_home() -> Iterator[Path]:
    """A home of its own, with servers of its own."""
    home = Path(tempfile.mkdtemp(prefix=f"mla-test-{os.getpid()}-"))
    yield home
    services.stop_all(home)
    shutil.rmtree(home)


@pytest.mark.embedded_only("works in a home of its own, whose stores are all embedded")
def test_a_model_of_1536_dimensions_goes_through_the_whole_graph(cli, empty_home, ollama):
    model = {
        "ML_ASSETS_EMBEDDER": "ollama",
        "ML_ASSETS_OLLAMA_URL": ollama,
        "ML_ASSETS_OLLAMA_MODEL": "wide",
        "ML_ASSETS_OLLAMA_DIMENSION": str(WIDE),
        "ML_ASSETS_QDRANT_URL": f"edge://{empty_home / 'shards'}",
    }
    document = {
        "document_id": "d",
        "text": "What a wide model makes of it.",
        "updated_at": "2026-01-01T00:00:00Z",
    }
    folder = empty_home / "landing" / "documents"
    folder.mkdir(parents=True)
    (folder / "d.jsonl").write_text(json.dumps(document))
    done = cli(empty_home, "refresh", "--json", **model)
    assert done.returncode == 0, done.stderr
    told = json.loads(cli(empty_home, "status", "--json", "--verify", **model).stdout)
    assert told["differences"] == []
    stores = told["stores"]  # Redis, which nothing is served from, was not started
    assert stores["postgres"]["tables"]["document_embeddings"]["rows"] == 1
    assert stores["chroma"]["tables"]["document_index"]["rows"] == 1
    assert stores["qdrant"]["tables"]["document_index"]["rows"] == 1
    assert (stores["qdrant"]["mode"], stores["qdrant"]["state"]) == ("embedded", "healthy")
    done = cli(empty_home, "search", "wide", "--store", "qdrant", "--json", **model)
    assert done.returncode == 0, done.stderr
    (hit,) = json.loads(done.stdout)
    assert (hit["document_id"], hit["meaning_rank"]) == ("d", 1)
    resources = store_resources(Settings(home=empty_home))
    with resources["postgres"].asking() as ask:
        assert ask("SELECT vector_dims(embedding), model_name FROM document_embeddings") == [
            (WIDE, "ollama/wide")
        ]
        ((vector,),) = ask("SELECT embedding::text FROM document_embeddings")
    (found,) = resources["chroma"].query_similar("document_index", json.loads(vector))
    assert found.distance < 1e-5
    # With the default model the same home says what is in the way, and what to do.
    refused = cli(empty_home, "refresh")
    assert refused.returncode == 1
    assert "dimension of 'embedding' was 1536" in refused.stderr
    assert "embeddings repair" in refused.stderr
    listed = cli(empty_home, "embeddings", "--json")
    assert listed.returncode == 1
    (row,) = json.loads(listed.stdout)
    assert (row["table"], row["model"], row["dimension"], row["current"]) == (
        "postgres/document_embeddings",
        "ollama/wide",
        WIDE,
        False,
    )
    # As if it was killed half-way.
    with resources["postgres"].connect(write=True) as connection:
        connection.execute("DROP TABLE document_embeddings")
    place = {"ML_ASSETS_QDRANT_URL": model["ML_ASSETS_QDRANT_URL"]}
    done = cli(empty_home, "embeddings", "repair", **place)
    assert done.returncode == 0, done.stderr
    assert "Embedded anew by all-MiniLM-L6-v2@53aa51172d14+mean: postgres/document_embeddings." in done.stdout
    assert cli(empty_home, "embeddings", "repair").stdout.startswith("All vectors are of all-MiniLM")
    told = json.loads(cli(empty_home, "status", "--json", "--verify", **place).stdout)
    assert told["differences"] == []
    for store in ("chroma", "qdrant"):
        assert told["stores"][store]["tables"]["document_index"]["rows"] == 1
