"""Points of Qdrant as both ways to reach them give them: a server and the engine within this process.

What belongs here: what both can do, and what they say when they cannot. What does not: entries, rows, the manifest.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Payload = dict[str, Any]

Operator = Literal["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin"]

Condition = tuple[str, Operator, Any]
"""Key of the payload, operator, value."""

OPERATORS: tuple[Operator, ...] = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin")

RANGES: tuple[Operator, ...] = ("$gt", "$gte", "$lt", "$lte")
"""Those that compare numbers."""


def is_matched(values: Sequence[Any]) -> bool:
    """Whether Qdrant can look for any of some values at once: texts, or whole numbers."""
    return all(isinstance(each, str) for each in values) or all(type(each) is int for each in values)


class QdrantFault(Exception):
    """Qdrant could not do what it was asked: its data cannot be read, or its disk is full."""


class QdrantGone(Exception):
    """The server does not answer any more, or lets nobody in just now."""


@dataclass(frozen=True)
class Point:
    """A point.

    Args:
        id: a UUID as text.
        payload: what was asked for of it.
        vector: at length 1; None if it was not asked for.
        score: cosine, from -1 to 1, of a search.
    """

    id: str
    payload: Payload
    vector: Any = None
    score: float = 0.0

    @classmethod
    def of(cls, found: Any) -> "Point":
        """A point as the client of the server has it, or the engine: both name its parts alike."""
        return cls(str(found.id), found.payload or {}, found.vector, getattr(found, "score", 0.0))


@dataclass(frozen=True)
class Shape:
    """What a collection's vectors are.

    Args:
        dimension: how many numbers they have.
        distance: as Qdrant calls it in small letters, such as `cosine`.
    """

    dimension: int
    distance: str


class Points(ABC):
    """Qdrant, opened. Ids are UUIDs as text.

    Every method raises `QdrantFault` for what Qdrant could not do, and `QdrantGone` if there is none any more.
    """

    @abstractmethod
    def identity(self, name: str) -> str:
        """What tells a collection from those of the same name elsewhere."""

    @abstractmethod
    def names(self) -> set[str]:
        """Of the collections that are there."""

    @abstractmethod
    def shape(self, name: str) -> Shape | None:
        """What a collection's vectors are; None if there is no such collection."""

    @abstractmethod
    def create(self, name: str, dimension: int) -> None:
        """Make a collection for cosine distance."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Delete a collection, however damaged."""

    @abstractmethod
    def put(self, name: str, ids: Sequence[str], vectors: np.ndarray, payloads: Sequence[Payload]) -> None:
        """Add points, in the place of those that have their ids."""

    @abstractmethod
    def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete points."""

    @abstractmethod
    def count(self, name: str) -> int:
        """How many points there are."""

    @abstractmethod
    def get(self, name: str, ids: Sequence[str], payload: "bool | list[str]", vectors: bool) -> list[Point]:
        """Those of some points that are there."""

    @abstractmethod
    def all(self, name: str, payload: list[str], where: Sequence[Condition] = ()) -> Iterator[Point]:
        """All points, or those that all conditions let through."""

    @abstractmethod
    def search(
        self,
        name: str,
        vectors: Sequence[Sequence[float]],
        most: int,
        payload: "bool | list[str]",
        where: Sequence[Condition] = (),
        ids: Sequence[str] | None = None,
    ) -> list[list[Point]]:
        """The points nearest to each vector, nearest first; among some ids all are compared."""

    def flush(self, name: str) -> None:
        """Have what was put there kept through a loss of power."""
        return

    def optimize(self, name: str) -> None:
        """Make an index where many points have none."""
        return
