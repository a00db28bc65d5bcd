"""Collections of Qdrant as such stores have them (stores/vectors/port.py): entries as points.

What belongs here: what an entry is in Qdrant. What does not: how a point is reached (points.py).
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.stores.qdrant.points import (
    OPERATORS,
    RANGES,
    Condition,
    Operator,
    Points,
    QdrantFault,
    Shape,
)
from ml_assets.stores.vectors import port
from ml_assets.stores.vectors.port import BATCH, NoCollectionError, Similar

ENTRY, DOCUMENT = "_entry", "_document"
"""What of the payload holds the entry's id, and its document; all else are its metadata."""

_SPACE = uuid.UUID("6f2a0c57-9c0e-5b4b-8f4f-0d8f3a1f5e19")
"""What tells our ids from other UUIDs that are made of the same texts."""


def point_id(entry: str) -> str:
    """The id of an entry's point."""
    return str(uuid.uuid5(_SPACE, entry))


class QdrantCollection(port.Collection):
    """An open collection.

    Args:
        points: Qdrant.
        name: of the collection.
        shape: of its vectors.
    """

    store: ClassVar[str] = "Qdrant"
    unit_vectors: ClassVar[bool] = True
    added_at_once: ClassVar[int] = BATCH

    def __init__(self, points: Points, name: str, shape: Shape) -> None:
        super().__init__(name)
        self._points = points
        self.shape = shape

    @property
    def identity(self) -> str:
        return self._points.identity(self.name)

    def unreadable(self) -> tuple[type[Exception], ...]:
        return (QdrantFault,)

    def count(self) -> int:
        return self._points.count(self.name)

    def ids(self, where: Mapping[str, Any] | None = None) -> list[str]:
        found = self._points.all(self.name, [ENTRY], conditions(where))
        # A point that somebody else has put here has no entry's id, and goes with what nobody names.
        return [str(point.payload.get(ENTRY, point.id)) for point in found]

    def get(self, ids: Sequence[str], parts: Sequence[str]) -> dict[str, Any]:
        whole = "metadatas" in parts
        payload: bool | list[str] = whole or [ENTRY, *([DOCUMENT] if "documents" in parts else [])]
        wanted = {point_id(entry): entry for entry in ids}
        found = self._points.get(self.name, list(wanted), payload, "embeddings" in parts)
        return {
            "ids": [wanted[point.id] for point in found],
            "embeddings": [point.vector for point in found],
            "documents": [point.payload.get(DOCUMENT) for point in found],
            "metadatas": [_metadata(point.payload) for point in found],
        }

    def add(self, ids: Sequence[str], embeddings: Any, anew: bool, **parts: Any) -> None:
        documents = parts.get("documents") or [None] * len(ids)
        metadatas = parts.get("metadatas") or [None] * len(ids)
        payloads = [
            {**(metadata or {}), ENTRY: entry, **({} if document is None else {DOCUMENT: document})}
            for entry, document, metadata in zip(ids, documents, metadatas, strict=True)
        ]
        vectors = np.asarray(embeddings, dtype=np.float32)
        self._points.put(self.name, [point_id(entry) for entry in ids], vectors, payloads)

    def delete(self, ids: Sequence[str]) -> None:
        # Those of others are called by their points' own ids.
        self._points.delete(self.name, [each if _is_uuid(each) else point_id(each) for each in ids])

    def nearest(
        self,
        vector: Sequence[float],
        top_k: int,
        where: Mapping[str, Any] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Similar]:
        if len(vector) != self.shape.dimension:
            raise ValueError(
                f"the vectors of {self.name} have {self.shape.dimension} numbers, and the one that was asked for "
                f"has {len(vector)}"
            )
        only = None if ids is None else [point_id(entry) for entry in ids]
        (found,) = self._points.search(self.name, [vector], top_k, True, conditions(where), only)
        return [
            Similar(
                str(point.payload.get(ENTRY, point.id)),
                1.0 - point.score,
                point.payload.get(DOCUMENT) or "",
                _metadata(point.payload),
            )
            for point in found
        ]

    def neighbours(self, vectors: Sequence[Any], most: int) -> list[list[tuple[str, float]]]:
        found = self._points.search(self.name, vectors, most, [ENTRY])
        return [
            [(str(point.payload.get(ENTRY, point.id)), 1.0 - point.score) for point in points]
            for points in found
        ]

    def settle(self) -> None:
        self._points.flush(self.name)

    def index(self) -> None:
        self._points.optimize(self.name)


class QdrantCollections(port.Collections):
    """All collections.

    Args:
        points: Qdrant.
        prefix: see `port.Collections`.
    """

    store: ClassVar[str] = "Qdrant"

    def __init__(self, points: Points, prefix: str) -> None:
        super().__init__(prefix)
        self.points = points

    def unreadable(self) -> tuple[type[Exception], ...]:
        return (QdrantFault,)

    def names(self) -> set[str]:
        return self.points.names()

    def open(self, name: str) -> QdrantCollection:
        shape = self.points.shape(name)
        if shape is None:
            raise NoCollectionError(name)
        return QdrantCollection(self.points, name, shape)

    def ensure(self, contract: Contract) -> QdrantCollection:
        name = contract.table
        wanted = next(column.dimension or 0 for column in contract.columns if column.type == "vector")
        shape = self.points.shape(name)
        if shape is None:
            self.points.create(name, wanted)
            shape = Shape(wanted, "cosine")
        if shape != Shape(wanted, "cosine"):
            raise ContractViolation(
                f"{contract.asset}: the collection has vectors of {shape.dimension} numbers and measures distance by "
                f"{shape.distance}, where {wanted} and cosine are needed, and Qdrant cannot change that; delete the "
                f"collection {name!r}, or give the asset another name, and run it again."
            )
        return QdrantCollection(self.points, name, shape)


def conditions(where: Mapping[str, Any] | None) -> list[Condition]:
    """Conditions on the metadata, as Chroma's are written: a value, or an operator with one.

    Raises:
        ValueError: there is no such operator, or it takes no such value.
    """
    found: list[Condition] = []
    for key, condition in (where or {}).items():
        for operator, value in (condition if isinstance(condition, dict) else {"$eq": condition}).items():
            if operator not in OPERATORS:
                raise ValueError(f"there is no operator {operator!r}: it is one of {', '.join(OPERATORS)}")
            _require(key, operator, value)
            found.append((key, operator, value))
    return found


def _require(key: str, operator: Operator, value: Any) -> None:
    """Raises: ValueError: Qdrant could not be asked so."""
    if '"' in key or "\\" in key:
        raise ValueError(f'Qdrant cannot filter by {key!r}: " and \\ end a name')
    several = operator in ("$in", "$nin")
    if several and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise ValueError(f"{operator} takes a list of values, and not {value!r}")
    for each in value if several else [value]:
        if operator in RANGES and (isinstance(each, bool) or not isinstance(each, int | float)):
            raise ValueError(f"{operator} compares numbers, and {each!r} is none")
        if not isinstance(each, str | bool | int | float) or (
            isinstance(each, int) and not -(2**63) <= each < 2**63
        ):
            raise ValueError(f"{key!r} cannot be compared with {each!r}: give a text, a number or a boolean")


def _metadata(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in (ENTRY, DOCUMENT)}


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
