"""The embedded servers when something has gone wrong. Each test leaves the shared home to the next one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg
import pytest

from ml_assets import services
from ml_assets.errors import ServiceError
from ml_assets.resources.postgres import PostgresResource
from ml_assets.services import server as server_module
from ml_assets.services.chroma import Chroma
from ml_assets.services.postgres import Postgres
from ml_assets.services.redis import Redis

pytestmark = pytest.mark.embedded_only("starts, stops or kills servers of its own")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """One home for all faults: whatever happened, the next start must be a good one."""
    # Of this name, so that the next session stops the servers if this one is killed.
    folder = Path(tempfile.mkdtemp(prefix=f"mla-test-{os.getpid()}-"))
    half = Postgres(folder).folder / "data.new"  # an initdb was cut short
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with psycopg.connect(services.ensure("postgres", folder)) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    assert not half.exists()
    yield folder
    services.stop_all(folder)
    shutil.rmtree(folder)


def pid_of(name: str, home: Path) -> int:
    pid = services.describe(home)[name].pid
    assert pid is not None
    return pid


def committed_rows(url: str) -> int:
    """Commit one more row; all rows."""
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO kept VALUES (1)")
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return row[0]


def server_processes(home: Path) -> set[int]:
    """Processes that run in the data folder of PostgreSQL."""
    data = os.path.realpath(Postgres(home).data)
    return {process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == data}


def test_postmaster_killed_while_a_query_runs(home: Path) -> None:
    url = services.ensure("postgres", home)
    rows = committed_rows(url)
    with psycopg.connect(url, autocommit=True) as busy:
        # A backend that computes does not notice that its postmaster is gone, and keeps the shared memory.
        failures: list[psycopg.Error] = []

        def compute() -> None:
            try:
                busy.execute("SELECT count(*) FROM generate_series(1, 100000000000)")
            except psycopg.OperationalError as error:
                failures.append(error)

        thread = threading.Thread(target=compute)
        thread.start()
        with psycopg.connect(url, autocommit=True) as watcher:
            active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
            while watcher.execute(active, [busy.info.backend_pid]).fetchone() != (1,):
                time.sleep(0.01)
        postmaster = pid_of("postgres", home)
        os.kill(postmaster, signal.SIGKILL)
        assert services.ensure("postgres", home) == url
        thread.join(10)
        assert len(failures) == 1
    assert pid_of("postgres", home) != postmaster
    assert committed_rows(url) == rows + 1


def test_child_of_the_postmaster_killed(home: Path) -> None:
    url = services.ensure("postgres", home)
    rows = committed_rows(url)
    postmaster = pid_of("postgres", home)
    with psycopg.connect(url) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        while psutil.pid_exists(connection.info.backend_pid):
            time.sleep(0.001)  # until the postmaster has noticed, and ends all the others to recover
        assert services.ensure("postgres", home) == url
    assert pid_of("postgres", home) == postmaster
    assert committed_rows(url) == rows + 1


def test_postmaster_killed_between_two_transactions(home: Path) -> None:
    """The second one, which comes right after the first, finds the server gone and starts it."""
    services.ensure("postgres", home)
    postgres = PostgresResource(home=str(home))

    def counted() -> int:
        with postgres.connect() as connection:
            return (connection.execute("SELECT count(*) FROM kept").fetchone() or (0,))[0]

    rows = counted()
    assert counted() == counted() == rows  # out of the pool
    postmaster = pid_of("postgres", home)
    os.kill(postmaster, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(postmaster)] if psutil.pid_exists(postmaster) else [], 10)
    assert counted() == rows
    assert pid_of("postgres", home) != postmaster
    postgres.close()


def test_reboot_that_gave_the_old_pid_to_a_stranger(home: Path) -> None:
    url = services.ensure("postgres", home)
    rows = committed_rows(url)
    left = (Postgres(home).data / "postmaster.pid").read_text().split("\n", 1)[1]
    os.kill(pid_of("postgres", home), signal.SIGKILL)
    while server_processes(home):
        time.sleep(0.01)
    shutil.rmtree(parse_qs(urlsplit(url).query)["host"][0])
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        (Postgres(home).data / "postmaster.pid").write_text(f"{stranger.pid}\n{left}")
        assert services.ensure("postgres", home) == url
        assert committed_rows(url) == rows + 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_socket_swept_away(home: Path, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "DEAF_TIMEOUT_S", 0.2)
    url = services.ensure("postgres", home)
    rows = committed_rows(url)
    shutil.rmtree(parse_qs(urlsplit(url).query)["host"][0])
    assert services.ensure("postgres", home) == url
    assert committed_rows(url) == rows + 1


def test_starter_killed_before_it_was_done(home: Path) -> None:
    url = services.ensure("postgres", home)
    postmaster = pid_of("postgres", home)
    Postgres(home)._record({"url": url})
    assert services.ensure("postgres", home) == url
    assert pid_of("postgres", home) == postmaster
    Postgres(home)._state.write_bytes(b"")  # a power cut
    rows = committed_rows(url)
    assert services.ensure("postgres", home) == url
    assert committed_rows(url) == rows + 1


def test_server_started_by_hand_is_neither_used_nor_killed(home: Path) -> None:
    url = services.ensure("postgres", home)
    server = Postgres(home)
    server.stop()
    uid, gid = server.owner()
    options = {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}
    log = server.folder / "by_hand.log"
    with log.open("wb") as output:
        by_hand = subprocess.Popen(server.command(url), cwd=server.data, stderr=output, **options)
    try:
        while b"ready to accept" not in log.read_bytes():
            assert by_hand.poll() is None, log.read_text()
            time.sleep(0.01)
        for action in (server.ensure, server.stop):
            with pytest.raises(ServiceError, match=f"Process {by_hand.pid} runs PostgreSQL by hand"):
                action()
        assert by_hand.poll() is None
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait(30)
    assert services.ensure("postgres", home) == url


def test_home_deleted_under_its_servers() -> None:
    home = Path(tempfile.mkdtemp())
    try:
        url = services.ensure("postgres", home)
        services.ensure("chroma", home)
        old = [pid_of("postgres", home), pid_of("chroma", home)]
        shutil.rmtree(home)
        assert services.ensure("postgres", home) == url
        services.ensure("chroma", home)
        for pid in old:
            assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        shutil.rmtree(home)
        assert services.stop_all(home) == ["postgres", "chroma"]
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_chroma_killed_and_its_port_taken(home: Path) -> None:
    url = services.ensure("chroma", home)
    os.kill(pid_of("chroma", home), signal.SIGKILL)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                stranger.bind(("127.0.0.1", urlsplit(url).port))
                break
            except OSError:
                time.sleep(0.01)  # the killed server is still going
        stranger.listen()
        moved = services.ensure("chroma", home)
    assert moved != url
    assert services.ensure("chroma", home) == moved


def test_chroma_of_another_home_on_the_same_port(home: Path, tmp_path: Path, monkeypatch) -> None:
    # Two homes that start at once may choose the same free port: the second one must not take the first
    # one's heartbeat for its own.
    taken = services.ensure("chroma", home)
    choices = iter([taken, Chroma(tmp_path).choose_url(None)])
    monkeypatch.setattr(Chroma, "choose_url", lambda self, last: next(choices))
    try:
        assert services.ensure("chroma", tmp_path) != taken
    finally:
        services.stop_all(tmp_path)


def test_chroma_that_hangs_is_not_killed_unasked(home: Path, monkeypatch) -> None:
    url = services.ensure("chroma", home)
    monkeypatch.setattr(server_module, "PROBE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("ml_assets.services.chroma.PROBE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(server_module, "START_TIMEOUT_S", 0.5)
    process = psutil.Process(pid_of("chroma", home))
    process.suspend()
    try:
        with pytest.raises(ServiceError, match=rf"Chroma \(process {process.pid}\) has not answered for"):
            services.ensure("chroma", home)
    finally:
        process.resume()
    assert services.ensure("chroma", home) == url


def test_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    data = Chroma(tmp_path).data
    data.mkdir(parents=True)
    (data / "chroma.sqlite3").write_text("this is no database, but it is long enough to look at" * 10)
    with pytest.raises(
        ServiceError,
        match=rf"Chroma did not start \(.*file is not a database.*\); its log is .* move {data} .*'ml-assets recover'",
    ):
        services.ensure("chroma", tmp_path)
    assert services.describe(tmp_path)["chroma"].state == "stopped"


def test_redis_killed(home: Path) -> None:
    import redis

    url = services.ensure("redis", home)
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
        os.kill(pid_of("redis", home), signal.SIGKILL)
    assert services.ensure("redis", home) == url
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"
    assert Redis(home).probe(url)


def test_full_disk(tmp_path: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("only a system that lets us mount a small disk can show a full one")
    try:
        with pytest.raises(ServiceError, match="No space left on device; free some space"):
            services.ensure("postgres", tmp_path)
        (tmp_path / "filler").write_bytes(bytes(shutil.disk_usage(tmp_path).free))
        with pytest.raises(
            ServiceError, match=r"The disk of .* is full: free some space, or set ML_ASSETS_HOME"
        ):
            services.ensure("chroma", tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_unwritable_home(without_root_rights: Callable[[], None]) -> None:
    code = """
import sys
from pathlib import Path
from ml_assets import services
try:
    services.ensure("chroma", Path(sys.argv[1]))
except services.ServiceError as error:
    print(error)
"""
    home = Path(tempfile.mkdtemp())
    home.chmod(0o555)
    root = Path(services.__file__).parents[2]
    command = [sys.executable, "-c", code, str(home)]
    done = subprocess.run(
        command, cwd=root, preexec_fn=without_root_rights, capture_output=True, text=True, check=True
    )
    home.rmdir()
    assert done.stdout.startswith(f"{home}/services is not open to user ")
    assert done.stdout.endswith("or set ML_ASSETS_HOME to a folder of your own.\n")
