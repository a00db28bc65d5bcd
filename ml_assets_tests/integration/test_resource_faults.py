"""What every resource does when its server does not answer: three tries, one sentence, no password."""

import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from dagster import EnvVar

from ml_assets.cli.faults import sentence
from ml_assets.errors import StoreUnavailable
from ml_assets.resources.base import CONNECT_TRIES, connecting
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets_tests import servers

PASSWORD = "tell/nobody"
"""With a character that a URL must encode."""


def make(store: str, url: str) -> Any:
    """A store's resource on a server at `url`."""
    types: dict[str, Callable[..., Any]] = {
        "postgres": PostgresResource,
        "clickhouse": ClickHouseResource,
        "chroma": ChromaResource,
        "redis": RedisResource,
        "mlflow": MLflowResource,
    }
    if store == "lake":
        return DuckLakeResource(home="unused", catalog_url=url)
    return types[store](home="unused", url=url)


URLS = {
    "postgres": "postgresql://u:tell%2Fnobody@127.0.0.1:{port}/ml_dev",
    "lake": "postgresql://u:tell%2Fnobody@127.0.0.1:{port}/lake",
    "clickhouse": "clickhouse://u:tell%2Fnobody@127.0.0.1:{port}",
    "chroma": "http://u:tell%2Fnobody@127.0.0.1:{port}",
    "redis": "redis://u:tell%2Fnobody@127.0.0.1:{port}/0",
    "mlflow": "http://u:tell%2Fnobody@127.0.0.1:{port}",
}


class Relay(socketserver.ThreadingTCPServer):
    """A TCP port in front of a server, which hangs up on the first `faults` connections.

    While `flowing` is cleared nothing passes, as behind a network that has gone silent.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, target: str | tuple[str, int], faults: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relayed)
        self.target = target
        self.faults = faults
        self.connections = 0
        self.flowing = threading.Event()
        self.flowing.set()
        self.counting = threading.Lock()


class _Relayed(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        relay = self.server
        assert isinstance(relay, Relay)
        with relay.counting:
            relay.connections += 1
            if relay.connections <= relay.faults:
                return
        family = socket.AF_UNIX if isinstance(relay.target, str) else socket.AF_INET
        with socket.socket(family) as server:
            server.connect(relay.target)
            back = threading.Thread(target=self._copy, args=(server, self.request))
            back.start()
            self._copy(self.request, server)
            back.join()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        relay = self.server
        assert isinstance(relay, Relay)
        try:
            while data := source.recv(65536):
                relay.flowing.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return  # one side is gone, and the other one will notice


@contextmanager
def relayed(target: str | tuple[str, int], faults: int) -> Iterator[Relay]:
    """A running relay."""
    with Relay(target, faults) as relay:
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """The lake's resource makes its home, which nobody uses here, below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def target(store: str, request: pytest.FixtureRequest) -> tuple[Any, str]:
    """Where the real server of a store listens, and its URL on a relay's `{port}`."""
    get = request.getfixturevalue
    if store in ("postgres", "lake"):
        url = get("_database" if store == "postgres" else "_catalog")
    elif store == "chroma":
        url = get("chroma").server_url()
    else:
        url = get("redis" if store == "redis" else "clickhouse_server").url
    return servers.place(url), servers.relayed(url, "{port}")


SERVERS = ["postgres", "lake", "clickhouse", "chroma", "redis"]


@pytest.mark.parametrize("store", SERVERS)
def test_a_server_that_hangs_up_twice_is_reached_at_the_third_try(
    store: str, target: tuple[Any, str]
) -> None:
    address, url = target
    with relayed(address, faults=2) as relay:
        health = make(store, url.format(port=relay.server_address[1])).health()
    assert (health.state, health.detail) == ("healthy", "")
    assert relay.connections >= 3


@pytest.mark.parametrize("store", [*SERVERS, "mlflow"])
def test_a_server_that_always_hangs_up_is_given_up_after_three_tries(store: str) -> None:
    with relayed("", faults=1000) as relay:
        resource = make(store, URLS[store].format(port=relay.server_address[1]))
        health = resource.health()
    assert health.state == "down"
    # clickhouse-connect itself asks again where a server hung up on a question that changes nothing.
    assert relay.connections == (6 if store == "clickhouse" else 3)


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port of ours on which nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.mark.parametrize("store", URLS)
def test_a_server_that_refuses_is_one_sentence_without_the_password(store: str, refusing_port: int) -> None:
    resource = make(store, URLS[store].format(port=refusing_port))
    opener = {"lake": "get_connection", "postgres": "connect"}.get(store, "client")
    with pytest.raises(StoreUnavailable) as caught, ExitStack() as stack:
        opened = getattr(resource, opener)()
        if hasattr(opened, "__enter__"):
            stack.enter_context(opened)
    # Nothing of the driver's own message is shown with it.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    said = str(caught.value)
    assert f"127.0.0.1:{refusing_port}" in said
    assert "ML_ASSETS_" in said
    assert "\n" not in said
    assert said.endswith(".")
    for text in (said, repr(resource), str(resource)):
        assert PASSWORD not in text
        assert "tell%2Fnobody" not in text


@pytest.mark.parametrize("store", [*URLS])
def test_a_url_of_another_kind_is_refused_with_the_variable_to_correct(store: str) -> None:
    health = make(store, "gopher://u:tell%2Fnobody@h/x").health()
    assert (health.state, "ML_ASSETS_" in health.detail) == ("down", True)
    assert "tell" not in health.detail


@pytest.mark.parametrize("store", [*URLS])
def test_text_that_is_no_url_is_refused(store: str) -> None:
    health = make(store, "http://[nonsense").health()
    assert (health.state, "ML_ASSETS_" in health.detail) == ("down", True)


@pytest.mark.parametrize("store", URLS)
@pytest.mark.parametrize(
    "rest",
    [
        *(f"u:tell{c}nobody@127.0.0.1:{{port}}/x" for c in "/?#[@"),
        "u@127.0.0.1:{port}/0?password=tell%2Fnobody",
    ],
)
def test_no_form_of_a_password_is_told(store: str, rest: str, refusing_port: int) -> None:
    """Where it should have been encoded, too: what a driver takes for host and port is a part of it then."""
    scheme = URLS[store].partition("://")[0]
    resource = make(store, f"{scheme}://{rest.format(port=refusing_port)}")
    health = resource.health()
    assert (health.state, "ML_ASSETS_" in health.detail, str(refusing_port) in health.detail) == (
        "down",
        True,
        True,
    )
    for part in ("tell", "nobody"):
        assert part not in health.detail


@pytest.mark.parametrize("store", URLS)
def test_a_url_that_is_still_dagsters_envvar_is_looked_up(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_ASSETS_TEST_URL", "gopher://looked-up/x")
    assert "gopher://looked-up/x" in make(store, EnvVar("ML_ASSETS_TEST_URL")).health().detail


def test_the_tries_are_apart_and_only_for_the_named_faults() -> None:
    times: list[float] = []

    def fail(fault: type[Exception]) -> None:
        times.append(time.monotonic())
        raise fault("again")

    with pytest.raises(ConnectionError):
        connecting(ConnectionError)(fail, ConnectionRefusedError)
    first, second = times[1] - times[0], times[2] - times[1]
    assert (len(times), 0.2 <= first < 0.7, 0.4 <= second < 0.9) == (3, True, True)
    times.clear()
    with pytest.raises(ValueError, match="again"):
        connecting(ConnectionError)(fail, ValueError)
    assert len(times) == 1


def test_a_server_that_refuses_at_first_is_reached_once_it_listens(_database: str) -> None:
    with socket.socket() as door, ExitStack() as stack:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
        resource = make("postgres", servers.relayed(_database, port))

        def let_in() -> None:
            door.listen()
            visitor, _ = door.accept()
            # Whoever is let in reaches the real server.
            relay = stack.enter_context(relayed(servers.place(_database), faults=0))
            relay.process_request(visitor, ("127.0.0.1", 0))

        opening = threading.Timer(0.1, let_in)
        opening.start()
        assert resource.health().state == "healthy"
        opening.join()


@pytest.mark.parametrize("store", ["chroma"])
def test_a_chroma_server_that_falls_silent_runs_into_the_time_out(target: tuple[Any, str]) -> None:
    import httpx

    address, url = target
    with relayed(address, faults=0) as relay:
        resource = make("chroma", url.format(port=relay.server_address[1]))
        with resource.model_copy(update={"query_timeout_s": 0.3}).client() as client:
            relay.flowing.clear()
            start = time.monotonic()
            with pytest.raises(httpx.ReadTimeout):
                client.list_collections()
            assert time.monotonic() - start < 5
        relay.flowing.set()


class Silent(BaseHTTPRequestHandler):
    """An MLflow server that tells its version, and then nothing any more."""

    asked: ClassVar[list[str]] = []
    done = threading.Event()

    def do_GET(self) -> None:
        if self.path != "/version":
            self.asked.append(self.path)
            self.done.wait(60)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"3.0.0")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_an_mlflow_server_that_falls_silent_is_given_up_after_three_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow.exceptions import MlflowException

    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        resource = MLflowResource(home="unused", url=f"http://127.0.0.1:{server.server_port}")
        client = resource.model_copy(update={"query_timeout_s": 1.0}).client()
        environment = dict(os.environ)
        start = time.monotonic()
        with pytest.raises(MlflowException) as caught:
            client.get_run("r")
        assert time.monotonic() - start < 30
        Silent.done.set()
        server.shutdown()
        thread.join()
    assert len(Silent.asked) == CONNECT_TRIES
    assert dict(os.environ) == environment
    told = sentence(caught.value, Path.cwd())
    assert told is not None and "'ml-assets status'" in told


def test_sqlite_in_a_folder_that_cannot_be_made_is_down_and_says_so(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    health = SQLiteResource(home=str(tmp_path / "file")).health()
    assert (health.state, "cannot be used" in health.detail) == ("down", True)
