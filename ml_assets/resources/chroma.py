"""Chroma: a server over HTTP, whether embedded or somebody else's.

Collections are made and filled by the IO manager, always with vectors of our own: nobody calls Chroma's
embedding functions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field

from ml_assets.contracts import INDEXED
from ml_assets.errors import StoreUnavailable, missing_table
from ml_assets.resources.base import (
    CONNECT_TIMEOUT_S,
    HOME,
    StoreResource,
    check_health,
    connecting,
    embedded_url,
    plain,
    require_scheme,
    unavailable,
)
from ml_assets.stores.chroma.collections import (
    LARGEST_ENTRY,
    add_entries,
    entry_bytes,
    nearest,
    open_collection,
)
from ml_assets.stores.vectors.port import Similar
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    from chromadb.api.client import Client


class ChromaResource(StoreResource):
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

        with self.client() as client:
            try:
                return nearest(open_collection(client, collection), vector, top_k, where, ids)
            except NotFoundError as fault:
                raise missing_table(f"chroma/{collection}") from fault

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
            sizes = entry_bytes(ids, vectors, documents, metadatas)
            if sizes and max(sizes) > LARGEST_ENTRY:
                n = sizes.index(max(sizes))
                raise ValueError(
                    f"entry {ids[n]!r} takes {sizes[n]:,} bytes in a request and Chroma takes {LARGEST_ENTRY:,}: shorten "
                    "its document, or cut it into several entries. Nothing was added."
                )
            add_entries(held.upsert, ids, **given)

    def data_folder(self) -> Path | None:
        """Where the embedded server keeps its data; None for a server that somebody else runs."""
        if plain(self.url):
            return None
        from ml_assets import services

        return services.describe(Path(self.home))["chroma"].data

    def location(self) -> str:
        """The URL of the store, as status shows it (without its password)."""
        return self.server_url()

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
    if f"chroma/{name}" in INDEXED:
        raise ValueError(
            f"collection {name!r} is the graph's, which would sweep other entries away; take a name of your own"
        )
