"""A server of Qdrant, through its own client (qdrant-client).

What belongs here: its calls. What does not: its URL.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_assets.stores.qdrant.points import (
    RANGES,
    Condition,
    Payload,
    Point,
    Points,
    QdrantFault,
    QdrantGone,
    Shape,
    is_matched,
)

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import FieldCondition, Filter

_PAGE = 2_000

_REQUEST_BYTES = 16 * 2**20
"""Size of a request that adds points: a server takes 32 MiB unless told otherwise."""

_PASSING = (401, 403, 407, 408, 429, 502, 503, 504)
"""Answers that tell nothing of the data, which must not be made anew for them: of a wrong key, or a busy server."""


class ServerPoints(Points):
    """The collections of a server.

    Args:
        client: of the server.
        url: of the server, without a key.
    """

    def __init__(self, client: "QdrantClient", url: str) -> None:
        self._client = client
        self._url = url

    def identity(self, name: str) -> str:
        return f"{self._url} {name}"

    def names(self) -> set[str]:
        with _told():
            return {each.name for each in self._client.get_collections().collections}

    def shape(self, name: str) -> Shape | None:
        from qdrant_client.models import VectorParams

        with _told():
            if not self._client.collection_exists(name):
                return None
            vectors = self._client.get_collection(name).config.params.vectors
        if not isinstance(vectors, VectorParams):
            return Shape(0, "several vectors a point")
        return Shape(vectors.size, str(vectors.distance.value).lower())

    def create(self, name: str, dimension: int) -> None:
        from qdrant_client.models import Distance, VectorParams

        with _told():
            vectors = VectorParams(size=dimension, distance=Distance.COSINE)
            self._client.create_collection(name, vectors_config=vectors)

    def drop(self, name: str) -> None:
        with _told():
            self._client.delete_collection(name)

    def put(self, name: str, ids: Sequence[str], vectors: np.ndarray, payloads: Sequence[Payload]) -> None:
        import orjson
        from qdrant_client.models import PointStruct

        points: list[PointStruct] = []
        size = 0
        for id, vector, payload in zip(ids, vectors, payloads, strict=True):
            # A number of a vector takes up to 22 characters.
            more = len(orjson.dumps(payload)) + 22 * len(vector)
            if points and size + more > _REQUEST_BYTES:
                self._put(name, points)
                points, size = [], 0
            points.append(PointStruct(id=id, vector=vector.tolist(), payload=payload))
            size += more
        if points:
            self._put(name, points)

    def _put(self, name: str, points: "list[Any]") -> None:
        with _told():
            # What is searched next must be there.
            self._client.upsert(name, points, wait=True)

    def delete(self, name: str, ids: Sequence[str]) -> None:
        from qdrant_client.models import PointIdsList

        with _told():
            self._client.delete(name, PointIdsList(points=list(ids)), wait=True)

    def count(self, name: str) -> int:
        with _told():
            return self._client.count(name, exact=True).count

    def get(self, name: str, ids: Sequence[str], payload: "bool | list[str]", vectors: bool) -> list[Point]:
        with _told():
            found = self._client.retrieve(name, list(ids), with_payload=payload, with_vectors=vectors)
        return [Point.of(each) for each in found]

    def all(self, name: str, payload: list[str], where: Sequence[Condition] = ()) -> Iterator[Point]:
        offset: Any = None
        while True:
            with _told():
                found, offset = self._client.scroll(
                    name,
                    scroll_filter=_filter(where),
                    limit=_PAGE,
                    offset=offset,
                    with_payload=payload,
                    with_vectors=False,
                )
            yield from map(Point.of, found)
            if offset is None:
                return

    def search(
        self,
        name: str,
        vectors: Sequence[Sequence[float]],
        most: int,
        payload: "bool | list[str]",
        where: Sequence[Condition] = (),
        ids: Sequence[str] | None = None,
    ) -> list[list[Point]]:
        from qdrant_client.models import QueryRequest, SearchParams

        params = SearchParams(exact=True) if ids is not None else None
        asked = [
            QueryRequest(
                query=[float(each) for each in vector],
                limit=most,
                filter=_filter(where, ids),
                params=params,
                with_payload=payload,
            )
            for vector in vectors
        ]
        with _told():
            found = self._client.query_batch_points(name, asked)
        return [[Point.of(each) for each in answer.points] for answer in found]


@contextmanager
def _told() -> Iterator[None]:
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as fault:
        told = fault.content.decode(errors="replace")[:500]
        kind = QdrantGone if fault.status_code in _PASSING else QdrantFault
        raise kind(f"{fault.status_code} {fault.reason_phrase}: {told}") from None
    except ResourceExhaustedResponse as fault:
        raise QdrantGone(str(fault)) from None
    except ResponseHandlingException as fault:
        raise QdrantGone(str(fault.source) or type(fault.source).__name__) from None


def _filter(where: Sequence[Condition], ids: Sequence[str] | None = None) -> "Filter | None":
    from qdrant_client.models import FieldCondition, Filter, HasIdCondition, MatchAny, Range

    must: list[Any] = [] if ids is None else [HasIdCondition(has_id=list(ids))]
    must_not: list[Any] = []
    for key, operator, value in where:
        path = f'"{key}"'
        if operator in RANGES:
            condition = FieldCondition(key=path, range=Range(**{operator[1:]: value}))
        elif operator in ("$eq", "$ne"):
            condition = _equal(path, value)
        elif is_matched(value):
            condition = FieldCondition(key=path, match=MatchAny(any=list(value)))
        else:
            condition = Filter(should=[_equal(path, each) for each in value])
        (must_not if operator in ("$ne", "$nin") else must).append(condition)
    return Filter(must=must, must_not=must_not) if must or must_not else None


def _equal(path: str, value: Any) -> "FieldCondition":
    from qdrant_client.models import FieldCondition, MatchValue, Range

    if isinstance(value, float):
        return FieldCondition(key=path, range=Range(gte=value, lte=value))
    return FieldCondition(key=path, match=MatchValue(value=value))
