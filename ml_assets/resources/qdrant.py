"""Qdrant: a server over HTTP, or its engine within this process on a folder. There is none unless a URL is set.

The engine lets in one process only, so it is open while a step, a command or a search uses it, and for a while after that
unless another process waits for it (resources/engine.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import Field

from ml_assets.errors import StoreUnavailable
from ml_assets.resources.base import (
    BUSY_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    StoreResource,
    check_health,
    connecting,
    could_be_made,
    plain,
    require_scheme,
    unavailable,
    unwritten,
)
from ml_assets.resources.engine import EmbeddedEngine
from ml_assets.settings import redact_url
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    from ml_assets.stores.qdrant.edge import EdgePoints
    from ml_assets.stores.qdrant.points import Points

_VARIABLE = "ML_ASSETS_QDRANT_URL"
_EXTRA = "install it with the package: pip install 'ml-assets[qdrant]'"
_ENGINE: "EmbeddedEngine[EdgePoints]" = EmbeddedEngine("Embedded Qdrant", "edge", _VARIABLE)


class QdrantResource(StoreResource):
    """Qdrant, if there is one.

    Args:
        url: `http://host:6333` or `https://host`, with a key as `https://:KEY@host`; `edge:///folder` for the engine
            within this process; none if empty.
        query_timeout_s, write_timeout_s: how long one request to a server may take.
        lock_timeout_s: how long to wait for another process that has the embedded engine open.
    """

    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0
    write_timeout_s: float = 600.0
    lock_timeout_s: float = 60.0

    def is_configured(self) -> bool:
        """Whether a URL is set."""
        return bool(plain(self.url))

    def data_folder(self) -> Path | None:
        """Folder of the embedded engine, None for a server.

        Raises:
            StoreUnavailable: no URL is set, or it is none of Qdrant's.
        """
        if not self.is_configured():
            raise StoreUnavailable(
                f"There is no Qdrant: set {_VARIABLE} to http://host:6333 or edge:///folder."
            )
        url = require_scheme("Qdrant", plain(self.url), ("http", "https", "edge"), _VARIABLE)
        parts = urlsplit(url)
        if parts.scheme != "edge":
            return None
        if parts.netloc or parts.path in ("", "/"):
            raise StoreUnavailable(f"Qdrant cannot use {url!r}: set {_VARIABLE} to edge:///absolute/folder.")
        return Path(unquote(parts.path))

    @contextmanager
    def opened(self, write: bool = False) -> "Iterator[Points]":
        """Qdrant's points, for the length of the block.

        On the embedded engine the block holds the lock that keeps other processes out; nested blocks share it.

        Args:
            write: use the longer time-out for requests to a server.

        Raises:
            StoreUnavailable: no URL is set, the server does not answer after three tries, or the client or the engine is
                not installed.
            StoreBusy: another process has the embedded engine open.
        """
        with self._opened(write, "", self.lock_timeout_s) as points:
            yield points

    @contextmanager
    def _opened(self, write: bool, purpose: str, lock_timeout_s: float) -> "Iterator[Points]":
        from ml_assets.stores.qdrant.points import QdrantGone

        folder = self.data_folder()
        if folder is not None:
            with _ENGINE.opened(folder, lock_timeout_s, purpose, lambda: _open(folder)) as points:
                yield points
            return
        self._version()
        from ml_assets.stores.qdrant.server import ServerPoints

        client = self._client(write)
        try:
            yield ServerPoints(client, redact_url(plain(self.url)))
        except QdrantGone as fault:
            remedy = "check that it still runs, has time, and that its key is right"
            raise unavailable("Qdrant", plain(self.url), fault, remedy) from None
        finally:
            client.close()

    def _client(self, write: bool) -> Any:
        try:
            from qdrant_client import QdrantClient
        except ImportError as fault:
            raise unavailable("Qdrant", plain(self.url), "qdrant-client is missing", _EXTRA) from fault
        parts = urlsplit(plain(self.url))
        secure = parts.scheme == "https"
        return QdrantClient(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or (443 if secure else 6333),
            https=secure,
            prefix=parts.path.strip("/") or None,
            api_key=unquote(parts.password) if parts.password else None,
            # Whole seconds, of which 0 would be no time at all.
            timeout=ceil(self.write_timeout_s if write else self.query_timeout_s),
            # It was just asked, and would print what it thinks of the version.
            check_compatibility=False,
        )

    def location(self) -> str:
        """The URL of the store, as status shows it (without its password)."""
        return plain(self.url)

    def health(self) -> StoreHealth:
        """Whether the engine or server answers, with its version. Never raises, makes no folder.

        `busy` if another process has the embedded engine open for more than five seconds.
        """
        return check_health(self._probe)

    def _probe(self) -> StoreHealth:
        folder = self.data_folder()
        if folder is None:
            return StoreHealth("healthy", self._version())
        if could_be_made(folder):
            return unwritten(_edge_version(folder))
        with self._opened(False, "health check", BUSY_TIMEOUT_S) as points:
            points.names()
        return StoreHealth("healthy", _edge_version(folder))

    def _version(self) -> str:
        import httpx

        url = plain(self.url)
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
        port = "" if parts.port or parts.scheme == "https" else ":6333"
        headers = {"api-key": unquote(parts.password)} if parts.password else {}
        try:
            answer = connecting(httpx.TransportError)(
                httpx.get,
                f"{parts.scheme}://{netloc}{port}{parts.path.rstrip('/')}/",
                headers=headers,
                timeout=CONNECT_TIMEOUT_S,
            )
            answer.raise_for_status()
            return str(answer.json()["version"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as fault:
            raise unavailable(
                "Qdrant", url, fault, f"check that Qdrant runs there and that {_VARIABLE} is right"
            ) from None


def _open(folder: Path) -> "EdgePoints":
    _edge_version(folder)
    from ml_assets.stores.qdrant.edge import EdgePoints

    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise unavailable(
            "Embedded Qdrant", f"edge://{folder}", "it is no folder to write to", "name another one"
        )
    return EdgePoints(folder)


def _edge_version(folder: Path) -> str:
    """Version of the engine.

    Raises:
        StoreUnavailable: it is not installed.
    """
    try:
        return f"edge {version('qdrant-edge-py')}"
    except PackageNotFoundError as fault:
        raise unavailable(
            "Embedded Qdrant", f"edge://{folder}", "qdrant-edge-py is missing", _EXTRA
        ) from fault
