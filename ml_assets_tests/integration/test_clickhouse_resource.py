"""ClickHouseResource on chDB, alone and among processes, and on a server."""

import multiprocessing
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from ml_assets.errors import Refusal, StoreBusy, StoreUnavailable
from ml_assets.lib.current_run import run_id
from ml_assets.resources.clickhouse import ClickHouseResource

ENDLESS = "SELECT count() FROM numbers(1e13) WHERE sipHash64(number) = 3"


@pytest.fixture(params=["embedded", "server"])
def either(request: pytest.FixtureRequest) -> ClickHouseResource:
    """The same resource on chDB and on a server."""
    name = "clickhouse" if request.param == "embedded" else "clickhouse_server"
    return request.getfixturevalue(name)


@contextmanager
def held_by_another_process(clickhouse: ClickHouseResource) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the engine open until the block ends."""
    program = (
        "import sys\n"
        "from ml_assets.resources.clickhouse import ClickHouseResource\n"
        "with ClickHouseResource(home=sys.argv[1]).client(purpose='demo: performance'):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, clickhouse.home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        yield other
        other.communicate("\n")


def test_the_database_is_there_and_atomic(either: ClickHouseResource) -> None:
    with either.client() as client:
        rows = client.query(
            "SELECT name, engine FROM system.databases WHERE name = currentDatabase()"
        ).result_rows
    assert rows == [("ml_metrics", "Atomic")]


def test_a_query_is_answered_and_changes_nothing(either: ClickHouseResource) -> None:
    with either.client(write=True) as client:
        client.command("CREATE TABLE t (a Int64, s String, v Array(Float32)) ENGINE = MergeTree ORDER BY a")
        client.command("INSERT INTO t VALUES (1, 'x', [0.5])")
    assert either.answer("SELECT * FROM t").to_pylist() == [{"a": 1, "s": "x", "v": [0.5]}]
    assert either.answer("SELECT * FROM t WHERE a > 1").num_rows == 0
    for write in ("INSERT INTO t SELECT * FROM t", "DROP TABLE t", "SELECT * FROM t SETTINGS readonly = 0"):
        with pytest.raises(Refusal, match="only read here"):
            either.answer(write)
    with pytest.raises(Refusal, match=r"cannot answer this: .*nowhere"):
        either.answer("SELECT * FROM nowhere")
    with either.client(write=True) as client:  # the engine is open for writers as before
        client.command("INSERT INTO t SELECT * FROM t")
        assert client.command("SELECT count() FROM t") == 2


def test_a_store_that_nobody_wrote_is_not_made_by_a_query(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="holds nothing yet"):
        ClickHouseResource(home=str(tmp_path)).answer("SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_the_log_of_queries_tells_the_run(either: ClickHouseResource) -> None:
    asked = "SELECT getSetting('log_comment')"
    token = run_id.set("abc")
    try:
        with either.client() as client:
            assert client.command(asked) == "ml-assets run abc"
    finally:
        run_id.reset(token)
    with either.client() as client:
        assert client.command(asked) == ""


def test_what_is_written_stays_and_comes_back_in_utc(either: ClickHouseResource) -> None:
    with either.client(write=True) as client:
        client.command("CREATE TABLE t (at DateTime64(6, 'UTC'), v Float64) ENGINE = MergeTree ORDER BY at")
        client.insert("t", [[datetime(2026, 1, 1, tzinfo=UTC), 0.5]], column_names=["at", "v"])
    with either.client() as client:
        rows = client.query("SELECT at, v FROM t WHERE v = {v:Float64}", parameters={"v": 0.5}).result_rows
    assert rows == [(datetime(2026, 1, 1, tzinfo=UTC), 0.5)]
    assert rows[0][0].utcoffset().total_seconds() == 0


def test_a_text_without_zone_is_read_as_utc(either: ClickHouseResource) -> None:
    with either.client() as client:
        seconds = client.command("SELECT toUnixTimestamp(toDateTime('1970-01-02 00:00:00'))")
    assert seconds == 86_400


@pytest.mark.parametrize(("write", "limit"), [(False, "query_timeout_s"), (True, "write_timeout_s")])
def test_a_statement_that_takes_too_long_is_ended(
    either: ClickHouseResource, write: bool, limit: str
) -> None:
    hasty = either.model_copy(update={limit: 0.5})
    with hasty.client(write) as client, pytest.raises(DatabaseError, match="TIMEOUT_EXCEEDED"):
        client.query(ENDLESS)


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_asking_for_health_makes_no_folder(clickhouse: ClickHouseResource) -> None:
    health = clickhouse.health()
    assert (health.state, health.unwritten) == ("healthy", True)
    assert clickhouse.embedded_path is not None
    assert not clickhouse.embedded_path.parent.exists()


def test_healthy(either: ClickHouseResource) -> None:
    with either.client():
        pass  # the embedded one is made by it
    health = either.health()
    assert (health.state, health.detail) == ("healthy", "")
    assert tuple(map(int, health.version.split(".")[:2])) >= (26, 6)


def test_blocks_nest_and_a_stream_of_one_does_not_disturb_the_other(clickhouse: ClickHouseResource) -> None:
    with clickhouse.client() as outer, outer.query_arrow_stream("SELECT * FROM numbers(1e6)") as stream:
        rows = next(iter(stream)).num_rows
        with clickhouse.client(write=True) as inner:
            assert inner.command("SELECT 1") == 1
        rows += sum(batch.num_rows for batch in stream)
    assert rows == 1_000_000


def test_threads_share_the_engine(clickhouse: ClickHouseResource) -> None:
    sums: list[object] = []

    def add() -> None:
        with clickhouse.client() as client:
            sums.append(client.command("SELECT sum(number) FROM numbers(1000)"))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [499_500] * 8


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_another_process_is_named_with_pid_and_purpose(clickhouse: ClickHouseResource) -> None:
    hasty = clickhouse.model_copy(update={"lock_timeout_s": 0.3})
    with held_by_another_process(clickhouse) as other:
        said = rf"held by process {other.pid} \(demo: performance\).*more than 0\.3 s"
        with pytest.raises(StoreBusy, match=said), hasty.client():
            pass
        health = hasty.health()
    assert (health.state, str(other.pid) in health.detail) == ("busy", True)
    assert 5000 <= health.latency_ms < 60_000
    assert hasty.health().state == "healthy"


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_who_waits_gets_in_when_the_other_one_leaves(clickhouse: ClickHouseResource) -> None:
    with held_by_another_process(clickhouse) as other:
        assert other.stdin is not None
        leave = threading.Timer(0.5, other.stdin.write, ["\n"])
        flush = threading.Timer(0.6, other.stdin.flush)
        leave.start()
        flush.start()
        with clickhouse.client() as client:
            assert client.command("SELECT 1") == 1


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_a_holder_that_is_killed_leaves_the_engine_free(clickhouse: ClickHouseResource) -> None:
    with held_by_another_process(clickhouse) as other:
        other.kill()
        other.wait()
        with clickhouse.client() as client:
            assert client.command("SELECT 1") == 1


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_a_block_that_raises_releases_the_engine(clickhouse: ClickHouseResource) -> None:
    with pytest.raises(ZeroDivisionError), clickhouse.client():
        _ = 1 / 0
    with held_by_another_process(clickhouse):
        pass


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_many_uses_one_after_the_other_take_no_more_threads_or_files(clickhouse: ClickHouseResource) -> None:
    with clickhouse.client(write=True) as client:
        client.command("CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a")
        client.command("INSERT INTO t VALUES (1)")
    held = []
    for _ in range(20):
        with clickhouse.client() as client:
            assert client.command("SELECT sum(a) FROM t") == 1
        held.append(
            (len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir())))
        )
    # Each opening of the engine would leave three threads and nine files.
    assert held[-1][0] < held[4][0] + 20
    assert held[-1][1] < held[4][1] + 60


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_a_home_that_is_removed_and_made_anew_is_opened_anew(clickhouse: ClickHouseResource) -> None:
    with clickhouse.client(write=True) as client:
        client.command("CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a")
    assert clickhouse.embedded_path is not None
    shutil.rmtree(clickhouse.embedded_path.parent)
    with clickhouse.client() as client:
        assert client.command("EXISTS TABLE t") == 0
    with held_by_another_process(clickhouse):
        pass


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_two_folders_in_one_process_are_opened_one_after_the_other(
    clickhouse: ClickHouseResource, tmp_path: Path
) -> None:
    other = ClickHouseResource(home="unused", url=f"chdb://{tmp_path}/other", lock_timeout_s=0.2)
    with (
        clickhouse.client(),
        pytest.raises(StoreBusy, match=r"in this process.*close it before opening"),
        other.client(),
    ):
        pass
    with other.client() as client:
        assert client.command("SELECT count() FROM system.tables WHERE database = 'ml_metrics'") == 0


def forked(clickhouse: ClickHouseResource, said: "multiprocessing.Queue[str]") -> None:
    """Try to use the engine in a forked child."""
    try:
        with clickhouse.client():
            said.put("opened")
    except StoreUnavailable as fault:
        said.put(str(fault))


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_a_forked_child_is_told_to_be_spawned(clickhouse: ClickHouseResource) -> None:
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    for use in (clickhouse.client(), nullcontext()):  # in use, and between two uses
        with use:
            child = context.Process(target=forked, args=(clickhouse, said))
            child.start()
            assert "start processes by spawn" in said.get(timeout=60)
            child.join()
    with held_by_another_process(clickhouse):
        pass


def test_a_reader_that_is_left_open_does_not_keep_the_process(tmp_path: Path) -> None:
    """Its block ends when the interpreter does, where no thread gets anywhere that begins then."""
    program = (
        "import sys\n"
        "from ml_assets.resources.clickhouse import ClickHouseResource\n"
        "def reader():\n"
        "    with ClickHouseResource(home=sys.argv[1]).client() as client:\n"
        "        yield client.command('SELECT 1')\n"
        "        yield client.command('SELECT 2')\n"
        "rows = reader()\n"
        "next(rows)\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, timeout=100)


@pytest.mark.parametrize("url", ["chdb://", "chdb://relative", "http://h:8123", "clickhouse://h:port"])
def test_a_url_that_is_not_clickhouses_is_refused(url: str) -> None:
    with (
        pytest.raises(StoreUnavailable, match="ML_ASSETS_CLICKHOUSE_URL"),
        ClickHouseResource(home="unused", url=url).client(),
    ):
        pass


def test_a_folder_with_a_question_mark_is_refused(tmp_path: Path) -> None:
    health = ClickHouseResource(home=str(tmp_path / "what?")).health()
    assert (health.state, "question mark" in health.detail) == ("down", True)
