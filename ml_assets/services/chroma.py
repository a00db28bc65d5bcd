"""Embedded Chroma: `chroma run` on a loopback port.

A server, because two processes on one persistent path corrupt it without a word. It is started through
the bindings alone, which is what `chroma run` comes to: importing all of chromadb would cost a second and
140 MB.
"""

import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from ml_assets.errors import ServiceError
from ml_assets.services.server import PROBE_TIMEOUT_S, Server, bind_fault, package_folder

SQLITE_LONGEST_PATH = 511
_RUN = "import sys, chromadb_rust_bindings; chromadb_rust_bindings.cli(['chroma', 'run', *sys.argv[1:]])"


class Chroma(Server):
    """Chroma on a port of its own, kept from one start to the next where nobody else has taken it."""

    name = "chroma"
    title = "Chroma"

    @classmethod
    def available(cls) -> bool:
        """Whether chromadb is installed."""
        return package_folder("chromadb_rust_bindings") is not None

    def choose_url(self, last: str | None) -> str:
        """The last port if it is free, so that clients need not learn a new one; else any free one."""
        port = urlsplit(last).port if last else None
        if port is None or bind_fault("127.0.0.1", port):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def program(self) -> str:
        """This Python."""
        return Path(os.path.realpath(sys.executable)).name

    def prepare(self) -> None:
        """The data folder, whose path must be one that SQLite can open."""
        longest = len(os.fsencode(self.data / "chroma.sqlite3-journal"))
        if longest > SQLITE_LONGEST_PATH:
            raise ServiceError(
                f"The path of ML_ASSETS_HOME is {longest - SQLITE_LONGEST_PATH} bytes too long for the "
                "SQLite file of the embedded Chroma: set it to a shorter one."
            )
        super().prepare()

    def remedy(self, said: str) -> str:
        """A damaged SQLite file cannot be mended, but all that the graph keeps in it is in PostgreSQL, too."""
        if "malformed" not in said and "not a database" not in said:
            return ""
        return (
            f"Its data are damaged: move {self.data} elsewhere and run 'ml-assets recover', which fills the graph's "
            "collections again, and names those of others, which have to be materialized."
        )

    def command(self, url: str) -> list[str]:
        """`chroma run` on the URL's port."""
        where = ["--path", str(self.data), "--host", "127.0.0.1", "--port", str(urlsplit(url).port)]
        return [sys.executable, "-P", "-c", _RUN, *where]

    def probe(self, url: str) -> bool:
        """Whether the heartbeat answers."""
        import http.client

        port = urlsplit(url).port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/api/v2/heartbeat")
            status = connection.getresponse().status
        except (ConnectionError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if status != 200:
            raise TimeoutError(f"its heartbeat says {status}")
        return True

    def verify(self, url: str, pid: int) -> bool:
        """Whether `pid` listens on the port: two homes that start at once may have chosen the same."""
        import psutil

        try:
            sockets = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            return False
        port = urlsplit(url).port
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)
