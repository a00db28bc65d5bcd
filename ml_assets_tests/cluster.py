"""Several machines on this one: servers over TCP with passwords, and workers that share nothing with them but URLs.

What belongs here: starting, killing and stopping them, for the tests in distributed/ and benchmarks/distributed.py. Each
machine is a network namespace with a home of its own where this system lets one be made (root, `ip netns`), and
otherwise a home alone. PostgreSQL asks for SCRAM, Valkey for a password; ClickHouse is the HTTP front over chDB, the
object store of the lake moto's server.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ml_assets import services
from ml_assets.services.postgres import Postgres
from ml_assets.settings import PROJECT_ROOT, SQL_DIR

PASSWORD = "S3CRET/pass"
QUOTED = "S3CRET%2Fpass"
BUCKET = "lake-files"
LOST_AFTER_S = 6
PATIENCE_S = 600


@dataclass
class Cluster:
    """The servers, and the machines that have been added.

    Args:
        folder: where everything lies.
        network: the addresses, and whether machines have network namespaces of their own.
        urls: variables that lead to the servers.
    """

    folder: Path
    network: "Network"
    urls: dict[str, str]
    machines: list["Machine"] = field(default_factory=list)

    def machine(self, name: str) -> "Machine":
        """A new machine with an empty home."""
        home = self.folder / name
        (home / "dagster").mkdir(parents=True)
        shutil.copy(PROJECT_ROOT / "deploy" / "dagster-celery.yaml", home / "dagster" / "dagster.yaml")
        made = Machine(name, home, self.urls, self.network.prefix(name))
        self.machines.append(made)
        return made


@dataclass
class Machine:
    """A home, and what runs there.

    Args:
        name: of the machine.
        home: its ML_ASSETS_HOME.
        urls: variables that lead to the servers.
        prefix: words before each command, which put it into the machine's network.
        cores: that its processes may use; all if none is given.
    """

    name: str
    home: Path
    urls: Mapping[str, str]
    prefix: Sequence[str]
    cores: Sequence[int] = ()
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Of every process here."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
        own = {"ML_ASSETS_HOME": str(self.home), "DAGSTER_HOME": str(self.home / "dagster")}
        return {**inherited, **self.urls, **own, "PYTHONPATH": str(PROJECT_ROOT)}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A process in a session of its own, whose output is in `home/log`."""
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                [*self.prefix, sys.executable, *words],
                cwd=self.home,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._pinned if self.cores else None,  # noqa: PLW1509 - nothing runs in threads yet
            )
        self.processes.append(process)
        return process

    def _pinned(self) -> None:
        os.sched_setaffinity(0, self.cores)

    def worker(self, *queues: str) -> str:
        """Start a worker on these queues; its name, once it takes steps."""
        self.start_worker(*queues)
        name = f"{self.name}@{socket.gethostname()}"
        until(lambda: f"{name} ready." in self.log(), f"worker {name} to start", self.log)
        return name

    def start_worker(self, *queues: str) -> None:
        """Start a worker on these queues, and do not wait for it."""
        self.start(
            "-m", "ml_assets.cli", "worker", "--name", self.name, *(f"--queue={queue}" for queue in queues)
        )

    def log(self) -> str:
        """What the processes here have printed."""
        return (self.home / "log").read_text(errors="replace") if (self.home / "log").exists() else ""

    def run(self, *words: str) -> None:
        """Run a command to its end, which must be a good one."""
        done = self.start(*words).wait(timeout=900)
        assert done == 0, self.log()[-6000:]

    def materialize(self, select: str, days: str = "") -> tuple[str, ...]:
        """Words of the command that materializes assets, by Dagster's own command line."""
        selected = (
            "-m",
            "dagster",
            "asset",
            "materialize",
            "-m",
            "ml_assets.definitions",
            "--select",
            select,
        )
        return (*selected, "--partition-range", days) if days else selected

    def kill(self) -> None:
        """Kill all of its processes at once, as a power cut does."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        self.processes.clear()


class Network:
    """Addresses of the servers and machines.

    Namespaces are made where this system lets us; else all share the loopback, and machines are told apart by homes.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._count = stack, 0
        self._mark = f"mla{os.getpid() % 10_000}"
        self._subnet = secrets.randbelow(250) + 1
        self.separate = self._try()
        self.host = f"10.213.{self._subnet}.1" if self.separate else f"127.213.{self._subnet}.1"

    def prefix(self, name: str) -> list[str]:
        """What puts a command into the network of a new machine."""
        if not self.separate:
            return []
        self._add(f"{self._mark}{name}")
        return ["ip", "netns", "exec", f"{self._mark}{name}"]

    def _try(self) -> bool:
        try:
            self._add(f"{self._mark}s")
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _add(self, namespace: str) -> None:
        """A namespace on a wire of its own to this one, where the servers are; the first wire has their address."""
        wire, at = f"v{self._mark}{self._count}", 4 * self._count
        near, far = (f"10.213.{self._subnet}.{at + each}" for each in (1, 2))
        self._count += 1
        _ip("netns", "add", namespace)
        self._stack.callback(_ip, "netns", "del", namespace)
        _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("addr", "add", f"{near}/30", "dev", wire)
        _ip("link", "set", wire, "up")
        for words in (
            ("addr", "add", f"{far}/30", "dev", "eth0"),
            ("link", "set", "lo", "up"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", near),
        ):
            _ip("-n", namespace, *words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class _NetworkPostgres(Postgres):
    """The embedded server, which listens on an address as well."""

    address = ""

    def command(self, url: str) -> list[str]:
        """As there, but for the address."""
        listening = f"listen_addresses={self.address}"
        return [listening if word == "listen_addresses=" else word for word in super().command(url)]


@contextmanager
def running() -> Iterator[Cluster]:
    """The servers, until the end; then everything is stopped and removed."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=f"mla-test-{os.getpid()}-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        network = Network(stack)
        urls = {
            **_postgres(stack, folder, network.host),
            **_valkey(stack, folder, network.host),
            **_clickhouse(stack, folder, network.host),
            **_chroma(stack, folder, network.host),
            **_object_store(stack, network.host),
            "ML_ASSETS_EXECUTOR": "celery",
            "ML_ASSETS_CELERY_LOST_AFTER_S": str(LOST_AFTER_S),
            "DAGSTER_EVENT_BATCH_SIZE": "1000",
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }
        cluster = Cluster(folder, network, urls)
        try:
            yield cluster
        finally:
            for machine in cluster.machines:
                machine.kill()


def _postgres(stack: ExitStack, folder: Path, host: str) -> dict[str, str]:
    home = folder / "servers"
    embedded = _NetworkPostgres(home)
    embedded.address = host
    url = embedded.ensure()
    stack.callback(embedded.stop)
    programs = Path(embedded.command(url)[0]).parent
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": parse_qs(urlsplit(url).query)["host"][0],
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": "ml_dev",
        **{f"POSTGRES_{role}_PASSWORD": PASSWORD for role in ("WRITER", "READER", "DAGSTER", "MLFLOW")},
    }
    for name in ("postgres-init.sh", "postgres-roles.sh"):
        script = (PROJECT_ROOT / "deploy" / name).read_text().replace("/sql/", f"{SQL_DIR}/")
        subprocess.run(["bash"], check=True, input=script, text=True, env=environment, capture_output=True)
    rules = embedded.data / "pg_hba.conf"
    rules.write_text(f"{rules.read_text()}\nhost all all 0.0.0.0/0 scram-sha-256\n")
    reload = ["psql", "-qtA", "-U", "postgres", "-d", "postgres", "-c", "SELECT pg_reload_conf()"]
    subprocess.run(reload, check=True, env=environment, capture_output=True)
    at = f"{QUOTED}@{host}:5432"
    return {
        "ML_ASSETS_POSTGRES_URL": f"postgresql://ml_writer:{at}/ml_dev",
        "ML_ASSETS_LAKE_URL": f"postgresql://ml_writer:{at}/lake",
        "DAGSTER_POSTGRES_URL": f"postgresql://ml_dagster:{at}/dagster",
    }


def _valkey(stack: ExitStack, folder: Path, host: str) -> dict[str, str]:
    port, data = _free_port(host), folder / "valkey"
    data.mkdir()
    program = services.SERVERS["redis"](folder / "servers").command("unix:///unused")[0]
    # By standard input: what stands on the command line is read by everybody.
    options = f'bind {host}\nport {port}\nrequirepass {PASSWORD}\nsave ""\ndir {data}\n'
    server = stack.enter_context(
        subprocess.Popen([program, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    )
    stack.callback(server.kill)
    assert server.stdin
    server.stdin.write(options.encode())
    server.stdin.close()
    _until_listens(host, port)
    at = f"redis://:{QUOTED}@{host}:{port}"
    return {
        "ML_ASSETS_REDIS_URL": f"{at}/0",
        "ML_ASSETS_CELERY_BROKER_URL": f"{at}/1",
        "ML_ASSETS_CELERY_BACKEND_URL": f"{at}/2",
    }


def _clickhouse(stack: ExitStack, folder: Path, host: str) -> dict[str, str]:
    front = Path(__file__).with_name("clickhouse_front.py")
    command = [sys.executable, str(front), str(folder / "clickhouse"), PASSWORD, "--host", host]
    server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    stack.callback(server.kill)
    assert server.stdout
    port = server.stdout.readline().strip()
    return {"ML_ASSETS_CLICKHOUSE_URL": f"clickhouse://ml:{QUOTED}@{host}:{port}"}


def _object_store(stack: ExitStack, host: str) -> dict[str, str]:
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), BUCKET]
    server = stack.enter_context(
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ML_ASSETS_TEST_HOST": host},
        )
    )
    stack.callback(server.kill)
    assert server.stdout
    url, key, secret = server.stdout.readline().split()
    return {
        "ML_ASSETS_LAKE_DATA": f"s3://{BUCKET}/lake",
        "ML_ASSETS_S3_ENDPOINT": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
    }


def _chroma(stack: ExitStack, folder: Path, host: str) -> dict[str, str]:
    port = _free_port(host)
    program = Path(sys.executable).with_name("chroma")
    command = [str(program), "run", "--path", str(folder / "chroma"), "--host", host, "--port", str(port)]
    server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    stack.callback(server.kill)
    _until_listens(host, port)
    return {"ML_ASSETS_CHROMA_URL": f"http://{host}:{port}"}


def _free_port(host: str) -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        return listener.getsockname()[1]


def _until_listens(host: str, port: int) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, port)) == 0

    until(listens, f"a server at {host}:{port}")


def until(holds: Callable[[], bool], what: str, told: Callable[[], str] = str) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not within PATIENCE_S.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S} s for {what}; {told()[-4000:]}")
        time.sleep(0.1)
