"""What a server of Qdrant answers that cannot serve: its own client asks one that answers nothing else."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from ml_assets.errors import StoreUnavailable
from ml_assets.resources.qdrant import QdrantResource
from ml_assets.stores.qdrant.points import QdrantFault


class Answers(BaseHTTPRequestHandler):
    """Tells a version, and answers all else with a status."""

    status: ClassVar[int]

    def do_GET(self) -> None:
        asked_version = self.path == "/"
        body = b'{"title": "qdrant", "version": "1.15.0"}' if asked_version else b"not \xff now"
        self.send_response(200 if asked_version else self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def qdrant() -> Iterator[QdrantResource]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield QdrantResource(url=f"http://:s3cret@127.0.0.1:{server.server_address[1]}")
        server.shutdown()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_server_that_is_busy_or_lets_nobody_in_is_no_damage(qdrant, monkeypatch):
    """For damage a collection is made anew, and this one may be sound."""
    for status in (403, 429, 503):
        monkeypatch.setattr(Answers, "status", status, raising=False)
        with (
            pytest.raises(StoreUnavailable, match="its key is right") as told,
            qdrant.opened() as points,
        ):
            points.names()
        assert "s3cret" not in str(told.value)
    monkeypatch.setattr(Answers, "status", 500)
    with pytest.raises(QdrantFault, match="500"), qdrant.opened() as points:
        points.names()
