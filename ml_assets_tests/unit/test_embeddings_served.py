"""What the graph has embedded for something that is not served any more is not written."""

from contextlib import nullcontext
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from ml_assets.contracts import tables
from ml_assets.defs import embeddings
from ml_assets.errors import Refusal
from ml_assets.lib.search_setup import Passages, VectorIndex
from ml_assets.resources.embedder import EmbedderResource, Served
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import MINILM_DIMENSION, Settings
from ml_assets.tables.arrow_types import arrow_schema

TABLES = tables(Settings())


class Model:
    """One vector for all texts; while it embeds, documents are cut otherwise from then on."""

    name, dimension, max_tokens, estimates_tokens = "model", MINILM_DIMENSION, 256, False
    passages = Passages()
    then: Passages

    def embed(self, texts):
        self.passages = self.then
        return np.ones((len(texts), self.dimension), dtype=np.float32)


MODEL = Model()


class Resource(EmbedderResource):
    """Serves that model."""

    def served(self) -> Served:
        return Served(MODEL, MODEL.passages, VectorIndex(), {})  # type: ignore[arg-type]


@pytest.fixture
def embed(monkeypatch):
    """Embeds one passage that was cut as it is served at first; the ids of what is to be written."""
    monkeypatch.setattr(embeddings, "known_vectors", lambda *_: lambda keys, hashes: {})
    monkeypatch.setattr(embeddings, "sweep", lambda *_: None)
    monkeypatch.setattr(embeddings, "alias_stays", lambda _: nullcontext())
    asset = next(
        each
        for each in embeddings.build(Settings(), TABLES).assets or []
        if isinstance(each, dg.AssetsDefinition) and each.key.path[-1] == "document_embeddings"
    )
    contract = TABLES["duckdb/document_chunks"]
    row = dict.fromkeys(contract.names)
    row |= {"chunk_id": "a#1", "document_id": "a", "text": "a text", "content_hash": "h"}

    def embedded(then: Passages) -> list[str]:
        MODEL.passages, MODEL.then = Passages(), then
        row["cut_for"] = Resource(home="").served().cut_for
        texts = pa.Table.from_pylist([row], arrow_schema(contract)).to_reader()
        given = {"embedder": Resource(home=""), "postgres": PostgresResource(home="")}
        made: Any = asset(dg.build_asset_context(), texts=texts, **given)
        return [id for output in made for id in output.value.read_all()["id"].to_pylist()]

    return embedded


def test_passages_are_not_written_once_documents_are_cut_otherwise(embed):
    assert embed(Passages()) == ["a#1"]
    with pytest.raises(Refusal, match=r"passages of 100 tokens.* has taken the place of .*passages of 200"):
        embed(Passages(tokens=100))
