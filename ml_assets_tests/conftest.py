"""Fixtures that every test may use: real stores, each as good as new.

    service_home  folder whose embedded PostgreSQL, Chroma and Redis are started by whoever asks first and
                  are shared by the tests of one worker process; stopped at the end of the session
    postgres      PostgresResource on a fresh database with the project's extensions and schemas
    lake          DuckLakeResource with a fresh catalog database and a fresh data folder
    object_store  a server that speaks S3 (s3_server.py), shared by the tests of one worker process, and its key, by which
                  AWS's variables of this process lead to it
    s3_lake       an empty lake whose files lie below a prefix of their own in that object store
    shared_lake   an empty lake, the same one for all tests of a worker process, which takes a third of the time
    clickhouse    ClickHouseResource on a fresh chDB folder
    clickhouse_server  ClickHouseResource on a fresh server: the HTTP interface over chDB in a process of its
                  own (clickhouse_front.py), which any number of processes may use
    shared_clickhouse_server  the same with an empty database, on one server for all tests of a worker process
    chroma        ChromaResource; its collections are deleted afterwards
    redis         RedisResource on an empty logical database; the test is skipped where there is no Redis
    sqlite        SQLiteResource on a fresh file
    mlflow        MLflowResource on a fresh tracking store
    demo_home     home after `ml-assets demo`, made once a session and shared: read it, do not change it
    without_root_rights  for a child process: root obeys the permissions of files, as other users do
    cli           runs `ml-assets ARGS` on a home, in this process
    cli_process   the same as a process of its own, where that is the point
    run_notebook  executes one of `notebooks/` from top to bottom on a home
    settings      Settings with a home of its own; its PostgreSQL (fresh databases), Chroma and Redis are the
                  session's, so using it starts no server; ClickHouse, SQLite and MLflow are embedded there
    environment   ML_ASSETS_* variables that lead another process (see cli) to the stores of `settings`

No test sees the ML_ASSETS_* variables of whoever runs it. A session that was killed leaves its servers
behind; the next session stops them.

With ML_ASSETS_TEST_SERVERS=1 (`make test-servers`, see servers.py) the same fixtures lead to the servers that the
ML_ASSETS_*_URL variables name: `clickhouse`, too, and `settings` has its URL. What is marked `embedded_only` is
deselected then, and counted by its reason at the end.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil
import pytest
from filelock import FileLock

from ml_assets import services
from ml_assets.lib.sql import qualified
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.duckdb import SCHEMAS, DuckLakeResource
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.settings import PROJECT_ROOT, SQL_DIR, Settings
from ml_assets.stores.duckdb import connections
from ml_assets_tests import servers

SERVERS = servers.in_use()
"""URLs of the servers that the tests use, by store; empty for those that are started for them."""

_HOME_PREFIX = "mla-test-"
_PR_CAPBSET_DROP = 24


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the session as Ctrl-C does, and stop what a killed session has left."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        _sweep()


_DEMO_FILES = (
    "ml_assets_tests/e2e/test_ui.py",
    "ml_assets_tests/integration/test_graph_demo.py",
    "ml_assets_tests/integration/test_notebooks.py",
)
"""Files whose tests use `demo_home`."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker a file, and one for all files that use the demo, which is then made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            return "demo" if file in _DEMO_FILES else file

    return ByFile(config, log)


_left_out = pytest.StashKey[Counter[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The demo takes longest, so it starts first; on servers what is of embedded ones alone stays out."""
    items.sort(key=lambda item: item.nodeid.split("::")[0] not in _DEMO_FILES)
    reasons = {item: marker.args[0] for item in items if (marker := item.get_closest_marker("embedded_only"))}
    if SERVERS and reasons:
        config.stash[_left_out] = Counter(reasons.values())
        config.hook.pytest_deselected(items=list(reasons))
        items[:] = [item for item in items if item not in reasons]


_SLOWEST = 15


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests took, and how many kills fell inside a write; a test of kills notes that as its property `kills`."""
    reports = [
        report
        for found in terminalreporter.stats.values()
        for report in found
        if isinstance(report, pytest.TestReport)
    ]
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == "kills"
    ]
    left_out = terminalreporter.config.stash.get(_left_out, None)
    if left_out:
        terminalreporter.section("not run on servers, by reason")
        terminalreporter.write("".join(f"{count:8}  {reason}\n" for reason, count in left_out.most_common()))
    if lines:
        terminalreporter.section("killed writers")
        terminalreporter.write("".join(f"{line}\n" for line in lines))
    if reports:
        _tell_seconds(terminalreporter, reports)


def _tell_seconds(terminal: pytest.TerminalReporter, reports: Sequence[pytest.TestReport]) -> None:
    """What the tests of each folder took, and the slowest ones: with what they had made for them, and cleared away."""
    tests, folders = defaultdict[str, float](float), defaultdict[str, float](float)
    for report in reports:
        tests[report.nodeid] += report.duration
        folders[report.nodeid.partition("::")[0].rpartition("/")[0]] += report.duration
    for title, seconds, limit in (
        ("seconds by folder", folders, None),
        (f"{_SLOWEST} slowest tests", tests, _SLOWEST),
    ):
        terminal.section(title)
        slowest = sorted(seconds.items(), key=lambda item: -item[1])[:limit]
        terminal.write("".join(f"{took:8.1f}  {name}\n" for name, took in slowest))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers of workers that were interrupted."""
    if not hasattr(config, "workerinput"):
        _sweep()


def _sweep() -> None:
    """Stop the servers and remove the homes of sessions that are no more."""
    folder = Path(tempfile.gettempdir())
    # Several sessions may begin together, and one would remove what the other is about to stop.
    with FileLock(folder / f"{_HOME_PREFIX}sweep.lock"):
        for home in folder.glob(f"{_HOME_PREFIX}*"):
            owner = home.name.removeprefix(_HOME_PREFIX).partition("-")[0]
            if owner.isdigit() and not psutil.pid_exists(int(owner)):
                _discard(home)


def _discard(home: Path) -> None:
    services.stop_all(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ML_ASSETS_") and not name.startswith("ML_ASSETS_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def service_home() -> Iterator[Path]:
    """Home of the servers that the tests of this process share."""
    home = Path(tempfile.mkdtemp(prefix=f"{_HOME_PREFIX}{os.getpid()}-"))
    yield home
    _discard(home)


class CLI(Protocol):
    """`ml-assets` as a person runs it."""

    def __call__(
        self, home: Path, *arguments: str, timeout_s: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; stdout and stderr are text, and the exit status is the caller's to judge."""
        ...


@pytest.fixture(scope="session")
def cli() -> CLI:
    """Runs `ml-assets ARGS` with ML_ASSETS_HOME set, in this process: starting one costs more than most commands do."""
    from typer.testing import CliRunner

    from ml_assets.cli.app import app

    def run(
        home: Path, *arguments: str, timeout_s: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(_of_a_command(before, home, environment))
        try:
            done = CliRunner().invoke(app, arguments, catch_exceptions=True)
        finally:
            os.environ.clear()
            os.environ.update(before)
        stderr = done.stderr
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            stderr += "".join(traceback.format_exception(done.exception))
        return subprocess.CompletedProcess(["ml-assets", *arguments], done.exit_code, done.stdout, stderr)

    return run


@pytest.fixture(scope="session")
def cli_process() -> CLI:
    """As `cli`, in a process of its own, for tests whose point that is."""

    def run(
        home: Path, *arguments: str, timeout_s: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ml_assets.cli", *arguments],
            env=_of_a_command(dict(os.environ), home, environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


def _of_a_command(inherited: Mapping[str, str], home: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: nobody's settings but the given ones."""
    others = {k: v for k, v in inherited.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
    return {**others, "ML_ASSETS_HOME": str(home), **given}


@pytest.fixture(scope="session")
def without_root_rights() -> Callable[[], None]:
    """For a child before it starts: root, too, then obeys the permissions of files (it loses CAP_DAC_*)."""

    def drop() -> None:
        if os.geteuid() != 0:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)

    return drop


@pytest.fixture(scope="session")
def demo_home(cli_process: CLI) -> Iterator[Path]:
    """A home in which the whole demo was made."""
    home = Path(tempfile.mkdtemp(prefix=f"{_HOME_PREFIX}{os.getpid()}-"))
    done = cli_process(home, "demo", timeout_s=900)
    assert done.returncode == 0, done.stderr[-4000:]
    yield home
    _discard(home)


class RunNotebook(Protocol):
    """A notebook as a person runs it: all cells, one after the other, in a kernel of its own."""

    def __call__(self, name: str, home: Path) -> Any:
        """Execute `notebooks/NAME.ipynb`; its cells have their outputs, and the first that fails is the last."""
        ...


@pytest.fixture(scope="session")
def run_notebook() -> RunNotebook:
    """Executes a notebook with ML_ASSETS_HOME set."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    folder = PROJECT_ROOT / "notebooks"

    def run(name: str, home: Path) -> Any:
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
        # What is read should not be noted as served: the home is shared.
        environment = _of_a_command(dict(os.environ), home, {"ML_ASSETS_SERVING_LOG_SHARE": "0"})
        with suppress(CellExecutionError):  # it stands in the cell's output
            client.execute(env=environment)
        return notebook

    return run


class _Databases:
    """Empty databases on one server. Making one takes ten times as long as clearing one away that was used.

    Args:
        server: where they are made.
        init: statements that each database begins with.
    """

    def __init__(self, server: PostgresResource, init: Sequence[Path]) -> None:
        self._server = server
        self._init = init
        self._free: list[str] = []
        self._made: list[str] = []

    @contextmanager
    def lend(self) -> Iterator[str]:
        """URL of an empty database."""
        name = self._free.pop() if self._free else self._new()
        url = self._server.connection_url(name)
        for file in self._init:
            self._run(name, file.read_text())
        yield url
        PostgresResource(url=url).close()
        self._run(
            "postgres",
            # No superuser may end what works for the server itself.
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND usename = current_user; "
            f"ALTER DATABASE {name} RESET ALL",
        )
        self._run(name, _EMPTY)
        self._free.append(name)

    def drop(self) -> None:
        """Leave nothing behind on the server."""
        for name in self._made:
            self._run("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def _new(self) -> str:
        name = f"t_{uuid.uuid4().hex[:16]}"
        self._run("postgres", f"CREATE DATABASE {name}")
        self._made.append(name)
        return name

    def _run(self, database: str, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._server.connection_url(database), autocommit=True) as connection:
            connection.execute(statement.encode())


# All schemas but those of the server and the one that extensions are in, and what lies there beside those.
_EMPTY = """
DO $$
DECLARE found record;
BEGIN
    FOR found IN SELECT nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
    LOOP EXECUTE format('DROP SCHEMA %I CASCADE', found.nspname); END LOOP;
    FOR found IN SELECT relname, relkind FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
            AND NOT EXISTS (
                SELECT FROM pg_depend AS d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = pg_class.oid AND d.deptype IN ('e', 'i')
            )
    LOOP
        EXECUTE format('DROP %s IF EXISTS public.%I CASCADE', CASE found.relkind WHEN 'v' THEN 'VIEW'
            WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, found.relname);
    END LOOP;
END $$
"""


@pytest.fixture(scope="session")
def _databases(service_home: Path) -> Iterator[_Databases]:
    init = sorted((SQL_DIR / "postgres" / "init").glob("*.sql"))
    yield from _lent_of(service_home, SERVERS.get("postgres", ""), init)


@pytest.fixture(scope="session")
def _catalogs(service_home: Path) -> Iterator[_Databases]:
    yield from _lent_of(service_home, SERVERS.get("lake", ""), [])


def _lent_of(service_home: Path, url: str, init: Sequence[Path]) -> Iterator[_Databases]:
    found = _Databases(PostgresResource(home=str(service_home), url=url), init)
    yield found
    if url:  # the embedded server goes as a whole
        found.drop()


@pytest.fixture
def _database(_databases: _Databases) -> Iterator[str]:
    with _databases.lend() as url:
        yield url


@pytest.fixture
def _catalog(_catalogs: _Databases) -> Iterator[str]:
    with _catalogs.lend() as url:
        yield url


@pytest.fixture
def postgres(service_home: Path, _database: str) -> PostgresResource:
    """PostgreSQL on a fresh database."""
    return PostgresResource(home=str(service_home), url=_database)


@pytest.fixture
def lake(tmp_path: Path, _catalog: str) -> DuckLakeResource:
    """An empty lake."""
    return DuckLakeResource(home=str(tmp_path), catalog_url=_catalog, data_path=str(tmp_path / "lake"))


class ObjectStore(NamedTuple):
    """An object store with one bucket, and what leads to it."""

    url: str
    bucket: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def _object_store() -> Iterator[ObjectStore]:
    bucket = "lake-files"
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), bucket]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        told = server.stdout.readline().split()
        assert told, "the object store did not start; its message is above"
        url, key, secret = told
        yield ObjectStore(url, bucket, {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret})
        server.stdin.close()


@pytest.fixture
def object_store(_object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An object store whose key this process has."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in _object_store.environment.items():
        monkeypatch.setenv(name, value)
    return _object_store


@pytest.fixture
def s3_lake(tmp_path: Path, _catalog: str, object_store: ObjectStore) -> DuckLakeResource:
    """An empty lake in an object store, with a blank and a sign in its prefix that URLs write otherwise."""
    return DuckLakeResource(
        home=str(tmp_path),
        catalog_url=_catalog,
        data_path=f"s3://{object_store.bucket}/{uuid.uuid4().hex}/my lake+1",
        s3_endpoint=object_store.url,
    )


@pytest.fixture(scope="session")
def _shared_lake(
    tmp_path_factory: pytest.TempPathFactory, _catalogs: _Databases
) -> Iterator[DuckLakeResource]:
    home = tmp_path_factory.mktemp("lake")
    with _catalogs.lend() as url:
        yield DuckLakeResource(home=str(home), catalog_url=url, data_path=str(home / "lake"))


@pytest.fixture
def shared_lake(_shared_lake: DuckLakeResource) -> Iterator[DuckLakeResource]:
    """The lake of all tests of this process, without tables; its versions and files stay."""
    yield _shared_lake
    with _shared_lake.get_connection(write=True) as connection:
        connection.execute("BEGIN")
        for schema, table in connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'"
        ).fetchall():
            connection.execute(f"DROP TABLE {qualified('lake', schema, table)}")
        for (schema,) in connection.execute(
            "SELECT schema_name FROM duckdb_schemas() WHERE database_name = 'lake'"
        ).fetchall():
            if schema not in (*SCHEMAS, "main"):
                connection.execute(f"DROP SCHEMA {qualified('lake', schema)}")
        connection.execute("COMMIT")
    # DuckLake 1.5 reads freed memory when threads make tables at once in an instance that has seen tables dropped.
    connections.forget_all()


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[ClickHouseResource]:
    """An empty embedded ClickHouse."""
    if not SERVERS:
        yield ClickHouseResource(home=str(tmp_path))
        return
    with _emptied(SERVERS["clickhouse"]) as url:
        yield ClickHouseResource(home=str(tmp_path), url=url)


@pytest.fixture
def clickhouse_server(tmp_path: Path) -> Iterator[ClickHouseResource]:
    """An empty ClickHouse server of this test, whose user has the password `s3cret/pass`."""
    with _emptied(SERVERS["clickhouse"]) if SERVERS else _clickhouse_front(tmp_path) as url:
        yield ClickHouseResource(home=str(tmp_path), url=url)


@pytest.fixture(scope="session")
def _shared_clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if SERVERS:
        yield SERVERS["clickhouse"]
        return
    with _clickhouse_front(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture
def shared_clickhouse_server(tmp_path: Path, _shared_clickhouse: str) -> Iterator[ClickHouseResource]:
    """An empty database on the server that the tests of this process share."""
    with _emptied(_shared_clickhouse) as url:
        yield ClickHouseResource(home=str(tmp_path), url=url)


@contextmanager
def _emptied(url: str) -> Iterator[str]:
    """URL of a server that others use too, whose database is dropped afterwards."""
    yield url
    with ClickHouseResource(url=url).client(write=True) as client:
        client.command("DROP DATABASE IF EXISTS ml_metrics SYNC")


@contextmanager
def _clickhouse_front(folder: Path) -> Iterator[str]:
    """URL of a new server that keeps its data in the folder."""
    front = Path(__file__).with_name("clickhouse_front.py")
    command = [sys.executable, str(front), str(folder / "clickhouse-server"), "s3cret/pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        try:
            assert port, "the ClickHouse front did not start; its message is above"
            yield f"clickhouse://ml:s3cret%2Fpass@127.0.0.1:{port}"
        finally:
            server.kill()


@pytest.fixture
def chroma(service_home: Path) -> Iterator[ChromaResource]:
    """A Chroma server without collections."""
    resource = ChromaResource(home=str(service_home), url=SERVERS.get("chroma", ""))
    yield resource
    with resource.client() as client:
        for collection in client.list_collections():
            client.delete_collection(collection.name)


@pytest.fixture
def redis(service_home: Path) -> Iterator[RedisResource]:
    """An empty logical database of Redis."""
    resource = RedisResource(home=str(service_home), url=_redis_url(service_home, 1))
    yield resource
    client = resource.client()
    assert client is not None
    with client:
        client.flushdb()


def _redis_url(service_home: Path, database: int) -> str:
    """URL of a logical database."""
    url = SERVERS.get("redis") or services.ensure("redis", service_home)
    return f"{url}{'&' if '?' in url else '?'}db={database}"


@pytest.fixture
def sqlite(tmp_path: Path) -> SQLiteResource:
    """An empty SQLite file."""
    return SQLiteResource(home=str(tmp_path))


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[MLflowResource]:
    """An empty tracking store."""
    resource = MLflowResource(home=str(tmp_path), url=SERVERS.get("mlflow", ""))
    if SERVERS:
        _forget_runs(resource)
    yield resource


def _forget_runs(resource: MLflowResource) -> None:
    """Delete what a server's tracking store shows, so that names may be given again."""
    client = resource.client()
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_run(run.info.run_id)
        if experiment.experiment_id != "0":
            client.rename_experiment(experiment.experiment_id, uuid.uuid4().hex)
            client.delete_experiment(experiment.experiment_id)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)


@pytest.fixture
def settings(tmp_path: Path, service_home: Path, _database: str, _catalog: str) -> Iterator[Settings]:
    """Settings of a fresh home that borrows the session's servers."""
    found = Settings(
        home=tmp_path / "home",
        postgres_url=_database,
        lake_url=_catalog,
        clickhouse_url=SERVERS.get("clickhouse"),
        chroma_url=SERVERS.get("chroma") or services.ensure("chroma", service_home),
        redis_url=_redis_url(service_home, 2),
    )
    with _emptied(SERVERS["clickhouse"]) if SERVERS else nullcontext():
        yield found


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The variables by which another process finds the stores of `settings`."""
    urls = ("postgres_url", "lake_url", "clickhouse_url", "chroma_url", "redis_url")
    given = {f"ML_ASSETS_{name.upper()}": getattr(settings, name) for name in urls}
    return {"ML_ASSETS_HOME": str(settings.home), **{name: url for name, url in given.items() if url}}
