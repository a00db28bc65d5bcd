"""Servers as others run them: PostgreSQL with TLS and a role of its own, Valkey with a password, all stores by URL."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.maintenance.backup import postgres as backup
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets_tests import servers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> servers.Certificates:
    return servers.certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def with_tls(files: servers.Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL that refuses whoever does not speak TLS, with `verify-full`."""
    with servers.postgres(tmp_path_factory.mktemp("pg"), files) as url:
        yield url


def test_postgresql_is_used_by_tls_whose_certificate_is_verified(with_tls: str) -> None:
    resource = PostgresResource(home="unused", url=with_tls)
    for _ in range(2):  # the second one comes out of the pool
        with resource.connect(write=True) as connection:
            assert connection.pgconn.ssl_in_use
            assert connection.execute("SELECT '[1,2]'::vector <-> '[1,3]'::vector").fetchone() == (1.0,)
            (superuser,) = connection.execute(
                "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone() or (None,)
            assert superuser is False
    assert resource.health().state == "healthy"
    resource.close()


def test_a_lake_whose_catalog_is_behind_tls_is_written_and_read(with_tls: str, tmp_path: Path) -> None:
    lake = DuckLakeResource(home=str(tmp_path), postgres_url=with_tls)
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE raw.t AS SELECT i FROM range(1000) r(i)")
    with lake.get_connection() as connection:
        assert connection.execute("SELECT sum(i) FROM raw.t").fetchone() == (499_500,)


@pytest.mark.parametrize(
    "said", ["certificate verify failed", "no encryption", "password authentication failed"]
)
def test_who_may_not_come_in_is_told_why_without_the_password(
    with_tls: str, tmp_path: Path, said: str
) -> None:
    """Another authority, no TLS, another password: from PostgreSQL and from the lake's catalog alike."""
    other = servers.certificates(tmp_path).authority
    url = {
        "certificate verify failed": f"{with_tls.partition('?')[0]}?sslmode=verify-full&sslrootcert={other}",
        "no encryption": f"{with_tls.partition('?')[0]}?sslmode=disable",
        "password authentication failed": with_tls.replace(f"{servers.ROLE}:", f"{servers.ROLE}:wrong"),
    }[said]
    password = url.partition(f"{servers.ROLE}:")[2].partition("@")[0]
    lake = DuckLakeResource(home=str(tmp_path), postgres_url=url)
    for open_it in (PostgresResource(home="unused", url=url).connect, lake.get_connection):
        with pytest.raises(StoreUnavailable, match=said) as caught, open_it():
            pass
        assert password not in str(caught.value)
        assert "ML_ASSETS_" in str(caught.value)


def test_a_statement_that_takes_too_long_is_ended_by_tls_too(with_tls: str) -> None:
    resource = PostgresResource(home="unused", url=with_tls, query_timeout_s=0.2)
    with pytest.raises(psycopg.errors.QueryCanceled), resource.connect() as connection:
        connection.execute("SELECT pg_sleep(60)")
    with psycopg.connect(with_tls) as connection:
        connection.cancel_safe(timeout=10)  # a connection of its own, with TLS before the request
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_dump_by_tls_is_refused_where_no_program_of_the_release_speaks_it(
    with_tls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel's pg_dump has no TLS, and one of release 15, say, refuses a server of release 18."""
    for release in (15, 17):
        program = tmp_path / str(release) / "bin" / "pg_dump"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {release}.3 (Debian {release}.3-1)'\n")
        program.chmod(0o700)
    monkeypatch.setattr(backup, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "15" / "bin"))
    with pytest.raises(
        Refusal, match=r"PostgreSQL 18 is reached by TLS.*install .* of release 18 or later"
    ) as caught:
        backup.Dump("ml_dev", with_tls, tmp_path / "dump")
    assert with_tls.partition(f"{servers.ROLE}:")[2].partition("@")[0] not in str(caught.value)


@pytest.mark.skipif(
    servers.debian_programs() is None, reason="apt-get install postgresql: its server speaks TLS itself"
)
def test_a_catalog_on_debian_s_postgresql_is_dumped_and_restored_by_tls(
    files: servers.Certificates, tmp_path: Path
) -> None:
    programs = servers.debian_programs()
    assert programs
    with (
        tempfile.TemporaryDirectory(prefix="mla-test-pg-") as folder,
        servers.debian_postgres(Path(folder) / "lake", files, programs) as url,
    ):
        with psycopg.connect(url) as connection:
            assert connection.pgconn.ssl_in_use
            connection.execute("CREATE TABLE t AS SELECT 7 AS a")
        dump = backup.Dump("lake", url, tmp_path / "dump")
        dump.wait_until_it_sees()
        dump.finish()
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE t")
        backup.restore_server(url, tmp_path / "dump")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT a FROM t").fetchall() == [(7,)]


def test_redis_lets_in_who_knows_the_password(tmp_path: Path) -> None:
    with servers.valkey(tmp_path / "valkey") as url:
        client = RedisResource(home="unused", url=url).client()
        assert client is not None
        with client:
            client.set("k", b"v")
            assert client.get("k") == b"v"
        wrong = url.replace("redis://:", "redis://:wrong")
        for without in (url.partition("redis://")[0] + "redis://" + url.partition("@")[2], wrong):
            health = RedisResource(home="unused", url=without).health()
            assert health.state == "down"
            assert "ML_ASSETS_REDIS_URL" in health.detail
            assert "wrong" not in health.detail


RUN = {
    "run_id": "a",
    "experiment": "e",
    "model_name": "m",
    "status": "completed",
    "created_at": "2026-03-01T10:00:00Z",
    "metrics": {"accuracy": 0.9},
}
EVENT = {
    "event_id": "e1",
    "kind": "inference",
    "timestamp": "2026-03-02T11:00:00Z",
    "model_name": "m",
    "model_version": "1",
    "run_id": "a",
    "inference_time_ms": 2.5,
    "batch_size": 1,
}
DOCUMENT = {"document_id": "d1", "title": "Dogs", "text": "Dogs bark.", "updated_at": "2026-03-01T00:00:00Z"}


@pytest.mark.skipif(
    not servers.in_use(), reason="embedded, test_graph_small.py shows it: part of make test-servers"
)
@pytest.mark.timeout(1800)
def test_the_graph_runs_on_servers_alone(cli_process, mlflow, environment: dict[str, str]) -> None:
    """A whole refresh by a process of its own, with the executor that servers get; the stores agree afterwards."""
    home = Path(environment.pop("ML_ASSETS_HOME"))
    environment["ML_ASSETS_MLFLOW_URL"] = mlflow.url
    client = mlflow.client()
    logged = client.create_run(client.create_experiment("logged"), run_name="m", tags={"mlflow.runName": "m"})
    client.log_metric(logged.info.run_id, "accuracy", 0.8)
    client.set_terminated(logged.info.run_id)
    for stream, row in (("runs", RUN), ("performance", EVENT), ("documents", DOCUMENT)):
        folder = home / "landing" / stream
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_text(json.dumps(row))
    done = cli_process(home, "refresh", "--json", timeout_s=1500, **environment)
    assert done.returncode == 0, done.stderr
    told = cli_process(home, "status", "--json", "--verify", **environment)
    assert told.returncode == 0, told.stderr
    status = json.loads(told.stdout)
    assert status["differences"] == []
    stores = status["stores"]
    assert {name for name, store in stores.items() if store["mode"] == "server"} >= set(servers.STORES) - {
        "lake"
    }
    assert stores["postgres"]["tables"]["ml_experiments"]["rows"] == 2
    assert stores["clickhouse"]["tables"]["ml_model_performance"]["rows"] == 1
    assert stores["chroma"]["tables"]["document_index"]["rows"] == 1
    for secret in servers.passwords():
        assert secret not in done.stdout + done.stderr + told.stdout + told.stderr
    assert not (home / "services").exists()  # nothing embedded was started
