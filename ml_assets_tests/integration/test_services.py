"""The embedded servers as they are meant to run: started once, found by all, stopped for good."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from ml_assets import services
from ml_assets.maintenance.doctor import examine
from ml_assets.services import postgres as postgres_service
from ml_assets.services.postgres import Postgres
from ml_assets.settings import Settings

pytestmark = pytest.mark.embedded_only("starts, stops or kills servers of its own")

ROOT = Path(services.__file__).parents[2]
NAMES = list(services.SERVERS)
EXTENSIONS = ("vector", "btree_gin", "btree_gist", "pg_stat_statements", "pg_trgm", "unaccent")
ENSURE = """
import json, sys
from pathlib import Path
from ml_assets import services
home, *names = sys.argv[1:]
urls = [services.ensure(name, Path(home)) for name in names]
states = services.describe(Path(home))
print(json.dumps([urls, [states[name].pid for name in names]]))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home with an awkward name, longer than a socket's path may be."""
    folder = tmp_path / ("mit Umläuten, 'quotes' & spaces " * 3)
    yield folder
    services.stop_all(folder)
    shutil.rmtree(folder, ignore_errors=True)


def start_elsewhere(home: Path, *names: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, str(home), *names],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def running(home: Path) -> list[psutil.Process]:
    """Processes, children included, that work in the home."""
    return [
        process
        for process in psutil.process_iter(["cwd"])
        if (process.info["cwd"] or "").startswith(f"{os.path.realpath(home)}/")
    ]


def test_six_cold_starts_at_once_end_in_one_server_each(home: Path) -> None:
    starters = [start_elsewhere(home, *NAMES) for _ in range(6)]
    outcomes = {starter.communicate(timeout=120) for starter in starters}
    assert len(outcomes) == 1, outcomes
    urls, pids = json.loads(outcomes.pop()[0])
    assert [services.ensure(name, home) for name in NAMES] == urls
    states = services.describe(home)
    assert [states[name].pid for name in NAMES] == pids
    assert {states[name].state for name in NAMES} == {"running"}
    # Detached: no Ctrl-C of whoever started them reaches them.
    assert [os.getsid(pid) for pid in pids] == pids

    assert services.stop_all(home) == NAMES
    assert running(home) == []
    assert {state.pid for state in services.describe(home).values()} == {None}
    assert services.stop_all(home) == []


def test_postgres_is_set_up_and_keeps_its_data(home: Path) -> None:
    url = services.ensure("postgres", home)
    with psycopg.connect(url) as connection:
        databases = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")
        assert databases.fetchall() == [("lake",), ("ml_dev",), ("postgres",)]
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,3]'").fetchone() == (1.0,)
        assert connection.execute("SELECT to_regnamespace('ledger')::text").fetchone() == ("ledger",)
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        extensions = {name for (name,) in connection.execute("SELECT extname FROM pg_extension")}
        assert extensions == {"plpgsql", *EXTENSIONS}
        # Refused where the library is not preloaded.
        assert connection.execute("SELECT calls > 0 FROM pg_stat_statements LIMIT 1").fetchone() == (True,)
        assert connection.execute("SELECT gen_random_uuid() < uuidv7()").fetchone() is not None
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        # As a home of the former wheel has it.
        connection.execute("UPDATE pg_extension SET extversion = '0.8.5' WHERE extname = 'vector'")
        connection.execute("DROP EXTENSION unaccent")
    assert services.stop_all(home) == ["postgres"]
    assert services.ensure("postgres", home) == url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT sum(n) FROM kept").fetchone() == (500500,)
        versions = dict(connection.execute("SELECT extname, extversion FROM pg_extension").fetchall())
        assert (versions["vector"], versions.keys()) == ("0.8.6", {"plpgsql", *EXTENSIONS})


def test_redis_opens_the_files_of_the_former_wheel(home: Path) -> None:
    """Up to Redis 6.2 they were one file; what is read of it lies in a folder afterwards, and is written on there."""
    data = home / "services" / "redis" / "data"
    data.mkdir(parents=True)
    (data / "appendonly.aof").write_bytes(b"*4\r\n$4\r\nHSET\r\n$4\r\nkept\r\n$1\r\na\r\n$2\r\n\x00\xff\r\n")
    for _ in range(2):
        with redis.Redis.from_url(services.ensure("redis", home)) as client:
            assert client.hgetall("kept") == {b"a": b"\x00\xff"}
            assert client.hexpire("kept", 3600, "a") == [1]
        services.stop_all(home)
    # Redis 7.4 and later write what no other reads.
    shutil.rmtree(data / "appendonlydir")
    (data / "appendonly.aof").write_bytes(b"REDIS0012\xfa\x09redis-ver\x057.4.1\xff" + bytes(8))
    with pytest.raises(
        services.ServiceError, match=r"move .*/redis/data elsewhere and run 'ml-assets recover'"
    ):
        services.ensure("redis", home)


def test_new_init_sql_is_run_on_a_server_that_runs(service_home: Path, tmp_path: Path, monkeypatch) -> None:
    url = services.ensure("postgres", service_home)
    pid = services.describe(service_home)["postgres"].pid
    shutil.copytree(ROOT / "sql" / "postgres" / "init", tmp_path / "postgres" / "init")
    (tmp_path / "postgres" / "init" / "99_new.sql").write_text("CREATE SCHEMA brand_new;")
    monkeypatch.setattr("ml_assets.settings.SQL_DIR", tmp_path)
    services.ensure("postgres", service_home)
    services.ensure("postgres", service_home)  # and only once: this CREATE would fail
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA brand_new")
    assert services.describe(service_home)["postgres"].pid == pid


def test_warm_ensure_is_fast(service_home: Path) -> None:
    for name in NAMES:
        services.ensure(name, service_home)
    began = time.perf_counter()
    for _ in range(20):
        for name in NAMES:
            services.ensure(name, service_home)
    assert (time.perf_counter() - began) / 20 < 0.1  # measured: 4 ms for the three


def test_server_of_a_script_that_ignores_interrupts_can_be_stopped(home: Path) -> None:
    # What `ml-assets ... &` in a script comes to: a child inherits ignored signals.
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    started = start_elsewhere(home, "chroma", preexec_fn=ignore)
    _, (pid,) = json.loads(started.communicate(timeout=60)[0])
    process = psutil.Process(pid)
    process.send_signal(signal.SIGINT)
    process.wait(10)
    assert services.describe(home)["chroma"].state == "stopped"


def test_chroma_keeps_its_data_and_its_port(home: Path) -> None:
    import chromadb

    url = services.ensure("chroma", home)
    client = chromadb.HttpClient("127.0.0.1", urlsplit(url).port or 0)
    collection = client.create_collection("kept", embedding_function=None)
    collection.upsert(ids=["a", "b"], embeddings=[[1.0, 0.0], [0.0, 1.0]])
    assert services.stop_all(home) == ["chroma"]
    assert services.ensure("chroma", home) == url
    assert sorted(collection.get()["ids"]) == ["a", "b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_ordinary_user() -> None:
    nobody = pwd.getpwnam("nobody")
    packages = sysconfig.get_path("purelib")
    pythons = [sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"]
    for place in (ROOT, packages):
        if not postgres_service._reachable(Path(place), nobody.pw_uid):
            pytest.skip(f"an ordinary user cannot reach {place}")
    reachable = [each for each in pythons if postgres_service._reachable(Path(each), nobody.pw_uid)]
    if not reachable:
        pytest.skip(f"an ordinary user cannot reach {sys.executable}, and the system has no such Python")
    home = Path(tempfile.mkdtemp())
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    try:
        started = subprocess.Popen(
            [reachable[0], "-c", ENSURE, str(home), *NAMES],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": packages},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
        )
        output, errors = started.communicate(timeout=60)
        assert not started.returncode, errors
        _, pids = json.loads(output)
        assert {psutil.Process(pid).username() for pid in pids} == {"nobody"}
        # Root finds the same servers.
        assert [services.describe(home)[name].pid for name in NAMES] == pids
    finally:
        services.stop_all(home)
        shutil.rmtree(home)


def test_copied_home_beside_its_original(home: Path) -> None:
    copy, data = home.with_name("copy"), Postgres(home.with_name("copy")).data
    with psycopg.connect(services.ensure("postgres", home)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    with redis.Redis.from_url(services.ensure("redis", home)) as client:
        client.set("kept", "yes")
    services.ensure("chroma", home)
    services.stop_all(home)
    # As many a tool copies: all of it is of whoever copied, and the modes are lost.
    subprocess.run(["cp", "-r", "--no-preserve=mode", home, copy], check=True)
    assert data.stat().st_mode & 0o777 == 0o755
    originals = {name: services.ensure(name, home) for name in NAMES}
    # What a copy of a running home holds besides.
    shutil.copy(Postgres(home).data / "postmaster.pid", data / "postmaster.pid")
    try:
        found = {each.subject: each for each in examine(Settings(home=copy)) if each.state == "warning"}
        assert {"PostgreSQL", "server postgres"} <= found.keys()
        copies = {name: services.ensure(name, copy) for name in NAMES}
        assert not set(copies.values()) & set(originals.values())
        with psycopg.connect(copies["postgres"]) as connection:
            assert connection.execute("UPDATE kept SET n = 2 RETURNING n").fetchone() == (2,)
        with psycopg.connect(originals["postgres"]) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
        with redis.Redis.from_url(copies["redis"]) as client:
            assert client.get("kept") == b"yes"
        assert data.stat().st_mode & 0o777 == 0o700
        assert [
            each for each in examine(Settings(home=copy)) if "PostgreSQL" in each.subject and each.remedy
        ] == []
        services.stop_all(copy)
        # What is not ours to mend is told by the line that says it, not by the hints that follow.
        (data / "PG_VERSION").write_text("16\n")
        with pytest.raises(
            services.ServiceError, match=r"FATAL: .*: The data directory .* version 16, .* Its data"
        ):
            services.ensure("postgres", copy)
    finally:
        services.stop_all(copy)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_root_with_programs_that_nobody_can_reach(home: Path, tmp_path: Path, monkeypatch) -> None:
    installed = postgres_service._wheel()
    assert installed is not None
    hidden = tmp_path / "hidden" / "site-packages"
    hidden.mkdir(parents=True)
    (tmp_path / "hidden").chmod(0o700)
    for package in (installed.parent, installed.parent.with_suffix(".libs")):
        shutil.copytree(package, hidden / package.name, symlinks=True)
    public = Path(tempfile.mkdtemp())
    public.chmod(0o755)
    monkeypatch.setattr(postgres_service, "SYSTEM_FOLDER", public / "ml-assets")
    monkeypatch.setattr(postgres_service, "_wheel", lambda: hidden / installed.parent.name / installed.name)
    try:
        services.ensure("postgres", home)
        pid = services.describe(home)["postgres"].pid
        assert psutil.Process(pid).exe().startswith(f"{public}/ml-assets/programs-")
        assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o700
        assert Postgres(home).data.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    finally:
        services.stop_all(home)
        shutil.rmtree(public)
