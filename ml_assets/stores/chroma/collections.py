"""Collections over Chroma's own client: opening, making, asking, adding in requests that the server takes.

What belongs here: what Chroma alone knows. What does not: the manifest, which says which entries count.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

REQUEST_ROWS = 5_461
"""Entries of one request that adds: as many as Chroma takes, since it is slower by a tenth with 2,000."""

_REQUEST_BYTES = 16 * 2**20
"""Size of a request that adds, unless a single entry is larger."""

LARGEST_ENTRY = 40 * 2**20 - 2**12
"""Bytes of an entry in a request: Chroma's servers take 40 MiB unless told otherwise, and there is some JSON around."""

BATCH = 2_000
"""Entries of one request that reads, copies or deletes."""

NEXT = "--next"
"""What a collection's name ends in while it is being rebuilt."""

OLD = "--old"
"""What the name of a collection ends in that was replaced by a rebuilt one."""


@dataclass(frozen=True)
class Similar:
    """An entry that was found.

    Args:
        id: of the entry.
        distance: cosine distance, from 0 (the same direction) to 2.
        document: the text.
        metadata: what is known of it.
    """

    id: str
    distance: float
    document: str
    metadata: dict[str, Any]


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


def own_name(collection: "Collection") -> str:
    """The name by which the manifest knows a collection, also while maintenance renames it."""
    return collection.name.removesuffix(NEXT)


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
