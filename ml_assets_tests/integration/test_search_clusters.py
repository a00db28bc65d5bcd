"""Clusters of documents in a real PostgreSQL: few, many, a refresh, and what `stack.search` tells of them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets import connect
from ml_assets.contracts import tables
from ml_assets.contracts.embeddings import CLUSTERS
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.operations.search_clusters import cluster_rows
from ml_assets.operations.search_texts import DOCUMENTS
from ml_assets.settings import Settings
from ml_assets.stack import Stack
from ml_assets.stores.postgres import PostgresStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage

TABLE = "document_embeddings"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def stack(settings: Settings) -> Iterator[Stack]:
    stack = connect(settings=settings)
    stack.home.mkdir(exist_ok=True)
    yield stack
    with stack._resources["postgres"].connect(write=True) as connection:
        connection.execute("DROP TABLE IF EXISTS document_clusters")


def write(stack: Stack, asset: str, rows: "list[dict[str, Any]] | pa.Table") -> None:
    contract = tables(stack.settings)[asset]
    store = PostgresStore(stack._resources["postgres"])
    filled = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, arrow_schema(contract))
    with stage(filled, contract, store.limits) as staged:
        store.write(contract, staged)


def refresh(stack: Stack) -> pa.Table:
    """As the graph does."""
    rows = cluster_rows(stack._resources["postgres"], DOCUMENTS)
    write(stack, CLUSTERS[TABLE].asset, rows)
    return rows


def documents(stack: Stack, topic: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Documents of two chunks each, around one direction."""
    dimension = stack.settings.embedding_dimension
    centre = np.random.default_rng(seed).standard_normal(dimension)
    noise = 0.2 * np.random.default_rng(seed + 100).standard_normal((2 * count, dimension))
    vectors = (centre + noise) / np.linalg.norm(centre + noise, axis=1, keepdims=True)
    return [
        {
            "id": f"{topic}{n // 2}#{n % 2}",
            "document_id": f"{topic}{n // 2}",
            "embedding": vector.tolist(),
            "model_name": "test",
            "content_hash": f"{topic} {n}",
            "title": f"Of {topic} <{n // 2}>",
            "text": f"All about {topic}, part {n}.",
            "metadata": json.dumps({}),
            "created_at": NOW,
        }
        for n, vector in enumerate(vectors)
    ]


def test_clusters_of_documents(stack: Stack) -> None:
    with pytest.raises(StoreUnavailable, match="document_clusters does not exist yet"):
        stack.search.clusters()
    write(stack, f"postgres/{TABLE}", [])
    assert refresh(stack).num_rows == 0
    assert stack.search.clusters() == []

    cats, trees = documents(stack, "cats", 20, 1), documents(stack, "trees", 12, 2)
    write(stack, f"postgres/{TABLE}", cats + trees)
    first = refresh(stack)
    assert first.num_rows == 32
    largest, smaller = stack.search.clusters()
    assert (largest["cluster"], largest["size"], largest["label"]) == (0, 20, "cats")
    assert (smaller["cluster"], smaller["size"], smaller["label"]) == (1, 12, "trees")
    assert len(largest["examples"]) == 3
    assert all(each.startswith("Of cats <") for each in largest["examples"])
    # Nothing is new: all stays, to a bit.
    assert refresh(stack).equals(first)

    page = stack.search.map()
    assert page == stack.settings.reports / "map-documents.html"
    assert "32 documents in 2 clusters." in page.read_text(encoding="utf-8")
    with pytest.raises(Refusal, match="is no name of a page"):
        stack.search.map("documents", stack.home / "map.txt")

    # Most of the cats go, dogs come: who stays keeps the id and about the place.
    write(stack, f"postgres/{TABLE}", cats[:14] + trees + documents(stack, "dogs", 9, 3))
    rows = {row["document_id"]: row for row in refresh(stack).to_pylist()}
    before = {row["document_id"]: row for row in first.to_pylist()}
    assert {rows[f"cats{n}"]["cluster"] for n in range(7)} == {0}
    assert {rows[f"trees{n}"]["cluster"] for n in range(12)} == {1}
    assert {rows[f"dogs{n}"]["cluster"] for n in range(9)} == {2}
    assert set(rows).isdisjoint({"cats7", "cats19"})
    apart = {
        id: np.hypot(rows[id]["x"] - row["x"], rows[id]["y"] - row["y"])
        for id, row in before.items()
        if id in rows
    }
    span = np.ptp([row["x"] for row in before.values()]) + np.ptp([row["y"] for row in before.values()])
    assert np.median(list(apart.values())) < span / 4

    with stack._resources["postgres"].connect(write=True) as connection:
        connection.execute(
            "UPDATE document_embeddings SET model_name = 'another' WHERE document_id = 'cats1'"
        )
    with pytest.raises(Refusal, match="holds vectors of another and test, which cannot be compared"):
        refresh(stack)

    with pytest.raises(Refusal, match="no clusters of 'cards': it is one of documents, runs"):
        stack.search.clusters("cards")  # pyright: ignore[reportArgumentType]
