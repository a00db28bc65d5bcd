"""A real HTTP server on this machine that keeps what it is asked, and answers JSON as a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, cast

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, document (as it stands if it is bytes or text) and further headers."""


class Asked(NamedTuple):
    """A request."""

    path: str
    body: dict[str, Any]
    authorization: str | None


class JSONServer(ThreadingHTTPServer):
    """Answers what `answer` makes of the number of the request, from 1, and of its body; None to hang up."""

    def __init__(self, answer: Callable[[int, dict[str, Any]], Answer | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests: list[Asked] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast("JSONServer", self.server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append(Asked(self.path, body, self.headers.get("Authorization")))
        answered = server.answer(len(server.requests), body)
        if answered is None:
            self.connection.close()
            return
        status, document, *headers = answered
        text = document if isinstance(document, str | bytes) else json.dumps(document)
        data = text.encode() if isinstance(text, str) else text
        self.send_response(status)
        for name, value in (headers[0] if headers else {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Answer | None]) -> Iterator[JSONServer]:
    """Such a server, until the block ends."""
    with JSONServer(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
