"""Collections over Chroma's own client: opening, making, asking, adding in requests that the server takes.

What belongs here: what Chroma alone knows. What does not: the manifest, which says which entries count.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.stores.vectors import port
from ml_assets.stores.vectors.port import NoCollectionError, Similar

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

REQUEST_ROWS = 5_461
"""Entries of one request that adds: as many as Chroma takes, since it is slower by a tenth with 2,000."""

_REQUEST_BYTES = 16 * 2**20
"""Size of a request that adds, unless a single entry is larger."""

LARGEST_ENTRY = 40 * 2**20 - 2**12
"""Bytes of an entry in a request: Chroma's servers take 40 MiB unless told otherwise, and there is some JSON around."""

NEXT = "--next"
"""What a collection's name ends in while it is being rebuilt."""

OLD = "--old"
"""What the name of a collection ends in that was replaced by a rebuilt one."""


class ChromaCollection(port.Collection):
    """An open collection of Chroma.

    Args:
        held: by Chroma's own client.
    """

    store: ClassVar[str] = "Chroma"
    added_at_once: ClassVar[int] = REQUEST_ROWS

    def __init__(self, held: "Collection") -> None:
        # Also while maintenance renames it.
        super().__init__(held.name.removesuffix(NEXT))
        self.held = held

    @property
    def identity(self) -> str:
        return str(self.held.id)

    def unreadable(self) -> tuple[type[Exception], ...]:
        return unreadable()

    def count(self) -> int:
        return self.held.count()

    def ids(self, where: Mapping[str, Any] | None = None) -> list[str]:
        return list(self.held.get(where=conditions(where), include=[])["ids"])

    def get(self, ids: Sequence[str], parts: Sequence[str]) -> dict[str, Any]:
        include: Any = list(parts)
        found: Any = self.held.get(ids=list(ids), include=include)
        return found

    def add(self, ids: Sequence[str], embeddings: Any, anew: bool, **parts: Any) -> None:
        # `add` is quicker by a fifteenth, and passes over what is there.
        add_entries(self.held.add if anew else self.held.upsert, ids, embeddings, **parts)

    def delete(self, ids: Sequence[str]) -> None:
        self.held.delete(ids=list(ids))

    def nearest(
        self,
        vector: Sequence[float],
        top_k: int,
        where: Mapping[str, Any] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Similar]:
        return nearest(self.held, vector, top_k, where, ids)

    def neighbours(self, vectors: Sequence[Any], most: int) -> list[list[tuple[str, float]]]:
        found = self.held.query(query_embeddings=list(vectors), n_results=most, include=["distances"])
        pairs = zip(found["ids"], found["distances"] or [], strict=True)
        return [list(zip(ids, map(float, far), strict=True)) for ids, far in pairs]


class ChromaCollections(port.Collections):
    """The collections of a server.

    Args:
        client: Chroma's own.
    """

    store: ClassVar[str] = "Chroma"

    def __init__(self, client: "ClientAPI") -> None:
        # Chroma's were the first, so that the manifest has their names alone.
        super().__init__("")
        self.client = client

    def unreadable(self) -> tuple[type[Exception], ...]:
        return unreadable()

    def names(self) -> set[str]:
        return {collection.name for collection in self.client.list_collections()}

    def open(self, name: str) -> ChromaCollection:
        from chromadb.errors import NotFoundError

        try:
            return ChromaCollection(open_collection(self.client, name))
        except NotFoundError as fault:
            raise NoCollectionError(name) from fault

    def ensure(self, contract: Contract) -> ChromaCollection:
        return ChromaCollection(ensure_collection(self.client, contract))


def unreadable() -> tuple[type[Exception], ...]:
    """By what Chroma says that an index cannot be read."""
    from chromadb.errors import InternalError

    return (InternalError,)


def open_collection(client: "ClientAPI", name: str) -> "Collection":
    """A collection by its name.

    While maintenance puts a rebuilt collection in the place of the old one, for a moment none has the name;
    the rebuilt one, which is complete by then, still has its own.

    Raises:
        chromadb.errors.NotFoundError: there is none.
    """
    from chromadb.errors import NotFoundError

    for candidate in (name, f"{name}{NEXT}"):
        try:
            return client.get_collection(candidate, embedding_function=None)
        except NotFoundError:
            continue
    return client.get_collection(name, embedding_function=None)


def make(client: "ClientAPI", name: str) -> "Collection":
    """A collection that measures cosine distance; the one that there is, whatever it measures."""
    return client.get_or_create_collection(
        name, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )


def ensure_collection(client: "ClientAPI", contract: Contract) -> "Collection":
    """The collection, made with cosine distance if it is not there.

    Raises:
        ContractViolation: it is there with another distance, which Chroma cannot change.
    """
    present = {collection.name for collection in client.list_collections()}
    if contract.table not in present and f"{contract.table}{NEXT}" in present:
        # Maintenance was killed just before it gave the rebuilt collection its name.
        client.get_collection(f"{contract.table}{NEXT}", embedding_function=None).modify(name=contract.table)
    collection = make(client, contract.table)
    space = (collection.configuration_json.get("hnsw") or {}).get("space")
    if space != "cosine":
        raise ContractViolation(
            f"{contract.asset}: the collection measures distance by {space}, and Chroma cannot change that; delete "
            f"the collection {contract.table!r}, or give the asset another name, and run it again."
        )
    return collection


def conditions(where: Mapping[str, Any] | None) -> Any:
    """Chroma takes one condition bare, several under $and, and refuses none at all."""
    each = [{name: condition} for name, condition in (where or {}).items()]
    return {"$and": each} if len(each) > 1 else next(iter(each), None)


def nearest(
    collection: "Collection",
    vector: Sequence[float],
    top_k: int,
    where: Mapping[str, Any] | None = None,
    ids: Sequence[str] | None = None,
) -> list[Similar]:
    """See `ChromaResource.query_similar`."""
    found = collection.query(
        query_embeddings=[vector],
        n_results=top_k,
        where=conditions(where),
        ids=list(ids) if ids is not None else None,
        include=["metadatas", "documents", "distances"],
    )
    columns = (found["ids"], found["distances"], found["documents"], found["metadatas"])
    return [
        Similar(entry, float(distance), document or "", dict(metadata or {}))
        for entry, distance, document, metadata in zip(*(c[0] for c in columns if c), strict=True)
    ]


def add_entries(
    bring: Callable[..., Any],
    ids: Sequence[str],
    embeddings: Any,
    documents: Sequence[str | None] | None = None,
    metadatas: Sequence[Mapping[str, Any] | None] | None = None,
) -> None:
    """Add entries in as many requests as Chroma needs, which takes so many entries and so many bytes of JSON at once.

    Args:
        bring: `add` or `upsert` of a collection.
        ids, embeddings, documents, metadatas: one each for every entry.
    """
    columns = {"embeddings": embeddings, "documents": documents, "metadatas": metadatas}
    given = {name: values for name, values in columns.items() if values is not None}
    start = size = 0
    for n, more in enumerate(entry_bytes(ids, embeddings, documents, metadatas)):
        if n > start and (n - start == REQUEST_ROWS or size + more > _REQUEST_BYTES):
            bring(ids=list(ids[start:n]), **{name: values[start:n] for name, values in given.items()})
            start, size = n, 0
        size += more
    if start < len(ids):
        bring(ids=list(ids[start:]), **{name: values[start:] for name, values in given.items()})


def entry_bytes(
    ids: Sequence[str],
    embeddings: Any,
    documents: Sequence[str | None] | None = None,
    metadatas: Sequence[Mapping[str, Any] | None] | None = None,
) -> list[int]:
    """What each entry takes of a request: JSON, in which a control character takes six bytes, and vectors as base64."""
    import orjson

    without: Sequence[None] = [None] * len(ids)
    return [
        len(orjson.dumps(each[:3], option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS))
        + 6 * len(each[3])
        for each in zip(ids, documents or without, metadatas or without, embeddings, strict=True)
    ]


def asked(folder: Path, statement: str, *values: str) -> list[tuple]:
    """Rows of the embedded server's SQLite file, which is only read.

    Args:
        folder: see `ChromaResource.data_folder`.
    """
    uri = f"{(folder / 'chroma.sqlite3').as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return connection.execute(statement, values).fetchall()
