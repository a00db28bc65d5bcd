"""ClickHouse's HTTP interface, as much as clickhouse-connect uses, over an in-process chDB.

No ClickHouse server comes as a Python package, so the tests of our client code, of our SQL and of several
processes on one ClickHouse talk to this one. It is the same engine; it is no test of the server's HTTP layer.

    python clickhouse_front.py FOLDER PASSWORD [--host HOST] [--noted FILE]      prints its port, serves until killed

With FILE it takes statements for a cluster of replicas: each is noted there, a line of JSON, and carried out as the same
one for a single server, since no cluster runs in one process.
"""

import argparse
import base64
import email
import json
import re
import tempfile
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb

NOT_SETTINGS = {
    *("database", "query", "query_id", "session_id", "compress", "decompress", "wait_end_of_query"),
    *("client_protocol_version", "role", "send_progress_in_http_headers", "enable_http_compression"),
    *("http_headers_progress_interval_ms", "buffer_size", "default_format", "user", "password"),
}
TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
INSERT_FORMAT = re.compile(
    rb"^\s*INSERT\s+INTO\s+.*?(SETTINGS\s.*?)?\bFORMAT\s+(\w+)[ \t]*\n?", re.IGNORECASE | re.DOTALL
)
ERROR_CODE = re.compile(r"Code: (\d+)")
ON_CLUSTER = re.compile(rb' ON CLUSTER "[^"]*"')
REPLICATED = re.compile(rb"Replicated(\w*MergeTree)\('[^']*', '[^']*'(?:, )?([^)]*)\)")
SYNC_REPLICA = re.compile(rb"^\s*SYSTEM SYNC REPLICA ")


def literal(text: str) -> str:
    """Text as a ClickHouse string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@dataclass(frozen=True)
class Answer:
    """A body, the format it is in (None for a statement without a result), rows and nanoseconds."""

    body: bytes
    format: str | None
    rows: int
    elapsed_ns: int
    written: bool


def run(connection: Any, sql: bytes, parameters: dict[str, str]) -> Answer:
    """Run one statement; an INSERT may carry its data after the FORMAT clause."""
    insert = INSERT_FORMAT.match(sql[:65536])
    if insert and len(sql) > insert.end():
        return run_insert(connection, sql, insert)
    asked = TRAILING_FORMAT.search(sql)
    # With names, a statement that has a result always gives at least one line, and one without gives none.
    result = connection.query(sql.decode(), "TabSeparatedWithNames", params=parameters)
    body = result.bytes() or b""
    if asked:
        return answer(result, body, asked.group(1).decode(), False)
    return answer(result, body.partition(b"\n")[2], "TabSeparated" if body else None, False)


def run_insert(connection: Any, sql: bytes, insert: re.Match[bytes]) -> Answer:
    """Insert the data that follows the statement, through a file as chDB wants it."""
    settings = (insert.group(1) or b"").decode()
    head = sql[: insert.start(1) if insert.group(1) else insert.start(2)].decode()
    head = re.sub(r"\bFORMAT\s*$", "", head, flags=re.IGNORECASE)
    with tempfile.NamedTemporaryFile() as file:
        file.write(sql[insert.end() :])
        file.flush()
        statement = f"{head} FROM INFILE {literal(file.name)} {settings} FORMAT {insert.group(2).decode()}"
        result = connection.query(statement, "TabSeparated")
    return answer(result, b"", None, True)


def answer(result: Any, body: bytes, format: str | None, written: bool) -> Answer:
    """Pack what chDB returned."""
    return Answer(body, format, result.rows_read(), int(result.elapsed() * 1e9), written)


class Handler(BaseHTTPRequestHandler):
    """One request is one statement on a connection of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the tests' output is for the tests."""

    def do_GET(self) -> None:
        """A ping, or a statement in the URL."""
        if urlsplit(self.path).path == "/ping":
            self._send(200, b"Ok.\n", {})
        else:
            self._statement(b"")

    def do_POST(self) -> None:
        """A statement in the body, in the URL, or in both."""
        self._statement(self._body())

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return unpack(body, self.headers.get("Content-Encoding", "identity"))

    def _chunks(self) -> Any:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _statement(self, body: bytes) -> None:
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        if self.headers.get("Content-Type", "").startswith("multipart/form-data"):
            query.update(form(self.headers["Content-Type"], body))
            body = b""
        if not self._authorised():
            return self._fail("Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)", 403)
        connection = chdb.connect(self.server.folder)  # type: ignore[attr-defined]
        try:
            result = self._run(connection, query, body)
        except Exception as fault:
            return self._fail(str(fault), 500)
        finally:
            connection.close()
        headers = {"X-ClickHouse-Query-Id": query.get("query_id", uuid.uuid4().hex)}
        headers["X-ClickHouse-Timezone"] = "UTC"
        headers["X-ClickHouse-Summary"] = json.dumps(
            {
                "read_rows": str(result.rows),
                "written_rows": str(result.rows if result.written else 0),
                "elapsed_ns": str(result.elapsed_ns),
            }
        )
        if result.format:
            headers["X-ClickHouse-Format"] = result.format
        self._send(200, result.body, headers)

    def _run(self, connection: Any, query: dict[str, str], body: bytes) -> Answer:
        if query.get("database"):
            connection.query(f"USE `{query['database'].replace('`', '``')}`")
        # A server sets all of them at once; here none could be set any more after that one.
        for name, value in sorted(query.items(), key=lambda each: each[0] == "readonly"):
            if name not in NOT_SETTINGS and not name.startswith("param_"):
                connection.query(f"SET {name} = {literal(value)}")
        statement = query.get("query", "").encode()
        sql = statement + b"\n" + body if statement and body else statement or body
        parameters = {
            name.removeprefix("param_"): value for name, value in query.items() if name.startswith("param_")
        }
        if self.server.noted:  # type: ignore[attr-defined]
            with Path(self.server.noted).open("a", encoding="utf-8") as noted:  # type: ignore[attr-defined]
                noted.write(f"{json.dumps(sql[:100_000].decode(errors='replace'))}\n")
            sql = b"SELECT 1" if SYNC_REPLICA.match(sql) else alone(sql)
        return run(connection, sql, parameters)

    def _authorised(self) -> bool:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        given = base64.b64decode(token).decode().partition(":")[2] if kind == "Basic" else ""
        given = self.headers.get("X-ClickHouse-Key", given)
        return given == self.server.password  # type: ignore[attr-defined]

    def _fail(self, message: str, status: int) -> None:
        code = ERROR_CODE.search(message)
        text = message[code.start() :] if code else message
        self._send(status, text.encode(), {"X-ClickHouse-Exception-Code": code.group(1) if code else "1"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def alone(sql: bytes) -> bytes:
    """A statement for a cluster, as a single server takes it."""
    head, body = sql[:65536], sql[65536:]
    return REPLICATED.sub(rb"\1(\2)", ON_CLUSTER.sub(b"", head)) + body


def form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a multipart form, which is how long parameters are sent."""
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields: dict[str, str] = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        if name:
            payload = part.get_payload(decode=True)
            fields[str(name)] = payload.decode() if isinstance(payload, bytes) else ""
    return fields


def unpack(body: bytes, encoding: str) -> bytes:
    """A request body without its compression."""
    if encoding == "identity":
        return body
    if encoding != "lz4":
        raise ValueError(f"this front reads lz4 and no {encoding}")
    import lz4.frame

    plain = bytearray()
    while body:  # one frame after another
        frame = lz4.frame.LZ4FrameDecompressor()
        plain += frame.decompress(body)
        body = bytes(frame.unused_data or b"")
    return bytes(plain)


class Server(ThreadingHTTPServer):
    """The engine's folder stays open for as long as the server lives."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: str, password: str, host: str, noted: str) -> None:
        super().__init__((host, 0), Handler)
        self.folder = folder
        self.password = password
        self.noted = noted
        self.engine = chdb.connect(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("password")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--noted", default="")
    server = Server(**vars(parser.parse_args()))
    print(server.server_address[1], flush=True)
    server.serve_forever()
