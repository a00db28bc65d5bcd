"""Conditions on the payload, asked of Qdrant's engine and of the client of its server in the mode that needs none."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_assets.stores.qdrant.collections import QdrantCollection
from ml_assets.stores.qdrant.edge import EdgePoints
from ml_assets.stores.qdrant.points import Points, Shape
from ml_assets.stores.qdrant.server import ServerPoints

FOUND: list[tuple[dict[str, Any], set[int]]] = [
    ({"even": True}, {0, 2, 4}),
    ({"even": False}, {1, 3, 5}),
    ({"even": {"$ne": True}}, {1, 3, 5}),
    ({"even": {"$in": [True]}}, {0, 2, 4}),
    ({"n": {"$in": [True]}}, set()),
    ({"n": 1}, {1}),
    ({"n": 1.0}, {1}),
    ({"n": {"$gt": 1, "$lte": 3}, "even": False}, {3}),
    ({"half": 1.5}, {1}),
    ({"half": {"$in": [1.5, 4.5, 7.5]}}, {1, 4}),
    ({"half": {"$nin": [1.5, 4.5]}}, {0, 2, 3, 5}),
    ({"letter": {"$in": ["a"]}}, {0, 2, 4}),
    ({"n": {"$in": [1, 5]}}, {1, 5}),
    ({"n": {"$in": [1, "a", 5.0]}}, {1, 5}),
    ({"n": {"$in": []}}, set()),
    ({"n": {"$nin": []}}, set(range(6))),
    ({"part.of": 3}, {3}),
    ({"n": math.nan}, set()),
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": {"$regex": "x"}}, r"no operator '\$regex'"),
    ({'n"] x': 1}, "Qdrant cannot filter by"),
    ({"n\\": 1}, "Qdrant cannot filter by"),
    ({"letter": {"$gt": "a"}}, r"\$gt compares numbers, and 'a' is none"),
    ({"n": {"$lt": True}}, r"\$lt compares numbers, and True is none"),
    ({"letter": {"$in": "ab"}}, r"\$in takes a list of values"),
    ({"letter": None}, "give a text, a number or a boolean"),
    ({"n": {"$in": [2**63]}}, "give a text, a number or a boolean"),
]


@pytest.fixture(params=["edge", "client"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> QdrantCollection:
    points: Points
    if request.param == "edge":
        points = EdgePoints(tmp_path)
        request.addfinalizer(points.close)
    else:
        from qdrant_client import QdrantClient

        points = ServerPoints(QdrantClient(":memory:"), "memory")
    points.create("payloads", 4)
    made = QdrantCollection(points, "payloads", Shape(4, "cosine"))
    payloads = [
        {"n": n, "half": n + 0.5, "letter": "ab"[n % 2], "even": n % 2 == 0, "part.of": n} for n in range(6)
    ]
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    made.add([f"{n}:entry" for n in range(6)], vectors, True, metadatas=payloads)
    return made


def test_conditions_find_what_they_say_or_are_refused(collection):
    for where, expected in FOUND:
        assert {int(each.partition(":")[0]) for each in collection.ids(where)} == expected, where
        near = collection.nearest([1.0, 0.0, 0.0, 0.0], 6, where)
        assert {each.metadata["n"] for each in near} == expected, where
    for where, said in REFUSED:
        with pytest.raises(ValueError, match=said):
            collection.ids(where)
