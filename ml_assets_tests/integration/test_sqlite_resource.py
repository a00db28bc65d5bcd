"""SQLiteResource on a real file."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ml_assets.errors import StoreBusy, StoreUnavailable
from ml_assets.resources.sqlite import SQLiteResource

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"


def make_table(sqlite: SQLiteResource) -> None:
    with sqlite.connect(write=True) as connection:
        connection.execute("CREATE TABLE parent (id TEXT PRIMARY KEY)")
        connection.execute("CREATE TABLE child (id TEXT REFERENCES parent (id))")


def test_pragmas(sqlite: SQLiteResource) -> None:
    with sqlite.connect() as connection:
        values = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        ]
    assert values == ["wal", 1, 1, 60_000]


def test_a_block_that_raises_is_rolled_back_and_its_connection_closed(sqlite: SQLiteResource) -> None:
    make_table(sqlite)
    with pytest.raises(ZeroDivisionError), sqlite.connect(write=True) as connection:
        connection.execute("INSERT INTO parent VALUES ('a')")
        _ = 1 / 0
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    with sqlite.connect() as connection:
        assert connection.execute("SELECT count(*) FROM parent").fetchone() == (0,)


def test_foreign_keys_hold(sqlite: SQLiteResource) -> None:
    make_table(sqlite)
    with pytest.raises(sqlite3.IntegrityError), sqlite.connect(write=True) as connection:
        connection.execute("INSERT INTO child VALUES ('nobody')")


def test_without_write_nothing_can_be_changed(sqlite: SQLiteResource) -> None:
    make_table(sqlite)
    with pytest.raises(sqlite3.OperationalError, match="readonly"), sqlite.connect() as connection:
        connection.execute("INSERT INTO parent VALUES ('a')")


def test_a_reader_sees_the_old_state_while_a_writer_writes(sqlite: SQLiteResource) -> None:
    make_table(sqlite)
    with sqlite.connect(write=True) as writer:
        writer.execute("INSERT INTO parent VALUES ('a')")
        with sqlite.connect() as reader:
            assert reader.execute("SELECT count(*) FROM parent").fetchone() == (0,)


def test_a_second_writer_waits_and_then_says_whom_to_wait_for(sqlite: SQLiteResource) -> None:
    hasty = sqlite.model_copy(update={"lock_timeout_s": 0.2})
    with (
        sqlite.connect(write=True),
        pytest.raises(StoreBusy, match=r"ml_dev\.db is being written.*0\.2 s"),
        hasty.connect(write=True),
    ):
        pass


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who holds a lock")
@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("new", [False, True])
def test_another_process_that_writes_is_named(sqlite: SQLiteResource, lock: str, new: bool) -> None:
    """In a file of ours, and in one that has no write-ahead log yet."""
    if new:
        sqlite.path.parent.mkdir(parents=True)
        sqlite3.connect(sqlite.path).close()
    else:
        make_table(sqlite)
    command = [sys.executable, "-c", HOLD, str(sqlite.path), lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        hasty = sqlite.model_copy(update={"lock_timeout_s": 0.2})
        with (
            pytest.raises(StoreBusy, match=rf"written by process {holder.pid} \(.*python"),
            hasty.connect(True),
        ):
            pass
        health = sqlite.health() if (lock, new) == ("BEGIN IMMEDIATE", False) else None
        holder.stdin.close()
    if health is not None:
        assert (health.state, f"process {holder.pid} " in health.detail) == ("busy", True)
        assert 5000 <= health.latency_ms < 10_000


def test_asking_for_health_makes_no_file(sqlite: SQLiteResource) -> None:
    health = sqlite.health()
    assert (health.state, health.unwritten, sqlite.path.parent.exists()) == ("healthy", True, False)
    make_table(sqlite)
    assert not sqlite.health().unwritten


@pytest.mark.parametrize(("write", "limit"), [(False, "query_timeout_s"), (True, "write_timeout_s")])
def test_a_transaction_that_takes_too_long_is_interrupted_and_rolled_back(
    sqlite: SQLiteResource, write: bool, limit: str
) -> None:
    make_table(sqlite)
    hasty = sqlite.model_copy(update={limit: 0.2})
    with (
        pytest.raises(TimeoutError, match=rf"ml_dev\.db took longer than 0\.2 s.*ML_ASSETS_{limit.upper()}"),
        hasty.connect(write) as connection,
    ):
        if write:
            connection.execute("INSERT INTO parent VALUES ('a')")
        connection.execute(ENDLESS).fetchall()
    with sqlite.connect() as connection:
        assert connection.execute("SELECT count(*) FROM parent").fetchone() == (0,)


def test_the_path_is_read_as_sqlalchemy_reads_it(tmp_path: Path) -> None:
    absolute = SQLiteResource(home="unused", url=f"sqlite:///{tmp_path}/own.db")
    assert absolute.path == tmp_path / "own.db"
    assert SQLiteResource(home="unused", url="sqlite:///own.db").path == Path.cwd() / "own.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "postgresql://h/x"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="ML_ASSETS_SQLITE_URL"):
        _ = SQLiteResource(home="unused", url=url).path


def test_a_file_that_is_no_database_is_down_and_says_so(sqlite: SQLiteResource) -> None:
    sqlite.path.parent.mkdir(parents=True)
    sqlite.path.write_text("no database " * 100)
    health = sqlite.health()
    assert (health.state, "file is not a database" in health.detail) == ("down", True)


def test_healthy(sqlite: SQLiteResource) -> None:
    make_table(sqlite)
    health = sqlite.health()
    assert (health.state, health.version) == ("healthy", sqlite3.sqlite_version)
