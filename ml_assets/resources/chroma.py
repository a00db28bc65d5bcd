"""Chroma: a server over HTTP, whether embedded or somebody else's.

Collections are made and filled by the IO manager, always with vectors of our own: nobody calls Chroma's
embedding functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field

from ml_assets.contracts import TABLES
from ml_assets.resources.base import (
    CONNECT_TIMEOUT_S,
    HOME,
    StoreHealth,
    StoreUnavailable,
    check_health,
    connecting,
    embedded_url,
    missing_table,
    plain,
    require_scheme,
    unavailable,
)

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection

_BATCH = 2_000
"""Entries of one request; Chroma takes at most 5,461."""

NEXT = "--next"
"""What a collection's name ends in while it is being rebuilt."""


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


class ChromaResource(dg.ConfigurableResource):
    """A Chroma server.

    Args:
        home: folder of the embedded server, used if `url` is empty.
        url: `http://host:8000` or `https://host`.
        query_timeout_s, write_timeout_s: how long one request may take; see `client`.
    """

    home: str = HOME
    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0
    write_timeout_s: float = 600.0

    def server_url(self) -> str:
        """URL of the server, without a slash at the end.

        Raises:
            StoreUnavailable: the configured URL is none of HTTP, or the embedded server cannot start.
        """
        url = plain(self.url)
        if not url:
            return embedded_url("chroma", self.home).rstrip("/")
        return require_scheme("Chroma", url, ("http", "https"), "ML_ASSETS_CHROMA_URL").rstrip("/")

    def client(self, write: bool = False) -> "Client":
        """A client of the server; close it, or use it as a context manager.

        Args:
            write: use the longer time-out for its requests.

        Raises:
            StoreUnavailable: the server does not answer after three tries.
        """
        self._version()
        import chromadb
        import httpx
        from chromadb.config import Settings

        parts = urlsplit(self.server_url())
        secure = parts.scheme == "https"
        client: Any = chromadb.HttpClient(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or (443 if secure else 80),
            ssl=secure,
            settings=Settings(anonymized_telemetry=False),
        )
        timeout_s = self.write_timeout_s if write else self.query_timeout_s
        for server in (client._server, client._admin_client._server):
            # chromadb waits for ever unless its session is told otherwise; it has no option for that.
            server._session.timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
            # Stopped when the client is closed, which by itself leaves the connections open.
            server.stop = server._session.close
        return client

    def query_similar(
        self,
        collection: str,
        vector: Sequence[float],
        top_k: int = 10,
        where: Mapping[str, Any] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Similar]:
        """The entries whose vectors are nearest to the given one, nearest first, of all that lie in Chroma.

        In a collection of the IO manager's those may be replaced ones, too: ask its `query_similar` instead.

        Args:
            collection: name of the collection.
            vector: of the collection's dimension.
            top_k: how many, at most.
            where: conditions on the metadata; several stand for 'all of them'.
            ids: search only among these entries.

        Raises:
            StoreUnavailable: the server does not answer, or the collection was never materialized.
        """
        from chromadb.errors import NotFoundError

        # Chroma takes one condition bare, several under $and, and refuses none at all.
        conditions = [{name: condition} for name, condition in (where or {}).items()]
        combined: Any = {"$and": conditions} if len(conditions) > 1 else next(iter(conditions), None)
        with self.client() as client:
            try:
                found = open_collection(client, collection).query(
                    query_embeddings=[vector],
                    n_results=top_k,
                    where=combined,
                    ids=list(ids) if ids is not None else None,
                    include=["metadatas", "documents", "distances"],
                )
            except NotFoundError as fault:
                raise missing_table(f"chroma/{collection}") from fault
        columns = (found["ids"], found["distances"], found["documents"], found["metadatas"])
        return [
            Similar(entry, float(distance), document or "", dict(metadata or {}))
            for entry, distance, document, metadata in zip(*(c[0] for c in columns if c), strict=True)
        ]

    def create_collection(self, name: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Make a collection of your own, beside the graph's, for cosine distance; returns its id.

        Raises:
            ValueError: the graph has a collection of that name, or there is one already.
            StoreUnavailable: the server does not answer.
        """
        _refuse_the_graph_s(name)
        configuration: Any = {"hnsw": {"space": "cosine"}}
        with self.client(write=True) as client:
            if name in {each.name for each in client.list_collections()}:
                raise ValueError(f"there is a collection {name!r} already; add to it, or take another name")
            # Chroma refuses metadata that hold nothing.
            made = client.create_collection(
                name,
                metadata=dict(metadata or {}) or None,
                configuration=configuration,
                embedding_function=None,
            )
            return str(made.id)

    def add_embeddings(
        self,
        collection: str,
        ids: Sequence[str],
        vectors: Sequence[Sequence[float]],
        documents: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Put entries into a collection of your own; those whose ids are there are replaced.

        Args:
            collection: made by `create_collection`.
            ids, vectors, documents, metadatas: one each for every entry, any number of them.

        Raises:
            ValueError: the collection is the graph's, or the lengths differ.
            StoreUnavailable: the server does not answer, or there is no such collection.
        """
        from chromadb.errors import NotFoundError

        _refuse_the_graph_s(collection)
        columns = {"embeddings": vectors, "documents": documents, "metadatas": metadatas}
        given = {name: values for name, values in columns.items() if values is not None}
        for name, values in given.items():
            if len(values) != len(ids):
                raise ValueError(
                    f"there are {len(ids)} ids and {len(values)} {name}; give one for every entry"
                )
        with self.client(write=True) as client:
            try:
                held = open_collection(client, collection)
            except NotFoundError as fault:
                raise StoreUnavailable(
                    f"Chroma has no collection {collection!r}: make it with create_collection."
                ) from fault
            for start in range(0, len(ids), _BATCH):
                end = start + _BATCH
                part: dict[str, Any] = {name: list(values[start:end]) for name, values in given.items()}
                held.upsert(ids=list(ids[start:end]), **part)

    def health(self) -> StoreHealth:
        """Whether the server answers, with its version. Never raises, and does not import chromadb."""
        return check_health(lambda: StoreHealth("healthy", self._version()))

    def _version(self) -> str:
        import httpx

        url = self.server_url()
        try:
            answer = connecting(httpx.TransportError)(
                httpx.get, f"{url}/api/v2/version", timeout=CONNECT_TIMEOUT_S
            )
            answer.raise_for_status()
            return str(answer.json())
        except (httpx.HTTPError, ValueError) as fault:
            raise unavailable(
                "Chroma",
                url,
                fault,
                "check that Chroma 1.0 or later runs there and that ML_ASSETS_CHROMA_URL is right",
            ) from None


def _refuse_the_graph_s(name: str) -> None:
    if f"chroma/{name}" in TABLES:
        raise ValueError(
            f"collection {name!r} is the graph's, which would sweep other entries away; take a name of your own"
        )


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
