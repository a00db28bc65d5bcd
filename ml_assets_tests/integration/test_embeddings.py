"""Vectors of texts in PostgreSQL and Chroma, when another model takes the place of the former one."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from ml_assets.contracts import EMBEDDING_DIMENSION, tables
from ml_assets.defs import embeddings
from ml_assets.io_managers.chroma import ChromaIOManager, held_keys
from ml_assets.io_managers.postgres import PostgresIOManager
from ml_assets.settings import Settings
from ml_assets.tables.arrow_types import arrow_schema

TABLES = tables(Settings())


class Direction:
    """A model that turns every text into the same unit vector; remembers what it was asked."""

    dimension = EMBEDDING_DIMENSION

    def __init__(self, axis: int) -> None:
        self.name = f"direction@{axis}"
        self.asked: list[str] = []
        self._axis = axis

    def embed(self, texts):
        self.asked += texts
        return np.tile(np.eye(self.dimension, dtype=np.float32)[self._axis], (len(texts), 1))

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


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
    defs = embeddings.build(settings)
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
            "postgres_io": PostgresIOManager(postgres=postgres),
            "chroma_io": ChromaIOManager(chroma=chroma, postgres=postgres),
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
        axis = np.eye(EMBEDDING_DIMENSION, dtype=np.float32)[model._axis]
        with postgres.asking() as ask:
            held = ask("SELECT model_name, count(*) FROM experiment_embeddings GROUP BY 1")
        assert held == [(model.name, len(CARDS))]
        near = chroma.query_similar("experiment_index", axis.tolist())
        assert sorted(found.id.split(":")[0] for found in near) == ["r0", "r1", "r2"]
        assert max(found.distance for found in near) < 1e-6
        index = TABLES["chroma/experiment_index"]
        assert held_keys(chroma, postgres, index) == {card["run_id"] for card in CARDS}
    with chroma.client(write=True) as client:
        client.delete_collection(index.table)
    assert held_keys(chroma, postgres, index) == set()


def test_an_index_that_was_never_written_is_not_counted(chroma, postgres):
    assert held_keys(chroma, postgres, TABLES["chroma/experiment_index"]) is None
