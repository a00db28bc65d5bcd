"""DuckLakeResource on a real catalog and real files."""

import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pytest
from psycopg import sql

from ml_assets import services
from ml_assets.errors import StoreUnavailable
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.duckdb import connections, inlining

ENDLESS = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE hash(i) = 3"


def sessions(lake: DuckLakeResource) -> int:
    """Connections to the catalog's database that are at work or in a transaction, this one aside."""
    with PostgresResource(home="unused", url=lake.catalog_url).connect() as connection:
        row = connection.execute(
            # Not the server's own workers, such as autovacuum's.
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' "
            "AND backend_type = 'client backend'"
        ).fetchone()
    assert row is not None
    return row[0] - 1


def test_a_fresh_lake_has_its_schemas_and_is_in_use(lake: DuckLakeResource) -> None:
    with lake.get_connection() as connection:
        rows = connection.execute(
            "SELECT schema_name FROM duckdb_schemas() WHERE database_name = current_database() ORDER BY 1"
        ).fetchall()
        assert connection.execute("SELECT current_database()").fetchone() == ("lake",)
    assert rows == [("features",), ("intake",), ("main",), ("raw",)]


def test_what_one_connection_writes_the_next_one_reads(lake: DuckLakeResource) -> None:
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE raw.t AS SELECT i FROM range(100_000) r(i)")
    with lake.get_connection() as connection:
        assert connection.execute("SELECT count(*) FROM raw.t").fetchone() == (100_000,)
    assert list(Path(lake.data).rglob("*.parquet"))


def test_an_open_transaction_is_rolled_back_on_error_and_the_catalog_released(lake: DuckLakeResource) -> None:
    with pytest.raises(ZeroDivisionError), lake.get_connection(write=True) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE raw.t (a INTEGER)")
        _ = 1 / 0
    with pytest.raises(duckdb.ConnectionException):
        connection.execute("SELECT 1")
    with lake.get_connection() as connection, pytest.raises(duckdb.CatalogException):
        connection.execute("SELECT * FROM raw.t")
    assert sessions(lake) == 0


def test_without_write_the_lake_cannot_be_changed_but_temporary_tables_can(lake: DuckLakeResource) -> None:
    with lake.get_connection() as connection:
        connection.execute("CREATE TEMP TABLE t AS SELECT 1 AS a")
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            connection.execute("CREATE TABLE raw.t (a INTEGER)")


def test_times_are_utc_whatever_the_environment_says(
    lake: DuckLakeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        with lake.get_connection() as connection:
            row = connection.execute("SELECT '2026-01-01 00:00'::TIMESTAMPTZ").fetchone()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert row == (datetime(2026, 1, 1, tzinfo=UTC),)


def test_a_block_that_takes_too_long_is_interrupted_and_the_connection_lives_on(
    lake: DuckLakeResource,
) -> None:
    hasty = lake.model_copy(update={"query_timeout_s": 0.3})
    with hasty.get_connection() as connection:
        with pytest.raises(TimeoutError, match=r"0\.3 s.*ML_ASSETS_QUERY_TIMEOUT_S"), hasty.limit(connection):
            connection.execute(ENDLESS)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_error_inside_the_limit_stays_what_it_is(lake: DuckLakeResource) -> None:
    with (
        lake.get_connection() as connection,
        pytest.raises(duckdb.CatalogException),
        lake.limit(connection, write=True),
    ):
        connection.execute("SELECT * FROM raw.nothing")


def test_a_reader_streams_and_closes_when_exhausted(lake: DuckLakeResource) -> None:
    reader = lake.reader("SELECT i FROM range(250_000) t(i) WHERE i >= $least", {"least": 50_000})
    sizes = [batch.num_rows for batch in reader]
    assert (sum(sizes), max(sizes) <= 100_000) == (200_000, True)
    assert sessions(lake) == 0


@pytest.mark.parametrize("read_first", [False, True])
def test_a_reader_that_is_dropped_closes_its_connection(lake: DuckLakeResource, read_first: bool) -> None:
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE raw.t AS SELECT i FROM range(1_000_000) r(i)")
    reader = lake.reader("SELECT * FROM raw.t", batch_rows=1000)
    if read_first:
        assert reader.read_next_batch().num_rows == 1000
    assert sessions(lake) > 0
    del reader
    assert sessions(lake) == 0


def test_a_readers_time_out_counts_the_engine_not_the_consumer(lake: DuckLakeResource) -> None:
    hasty = lake.model_copy(update={"query_timeout_s": 0.3})
    rows = 0
    for batch in hasty.reader("SELECT i FROM range(4000) t(i)", batch_rows=2048):
        time.sleep(0.4)  # a slow consumer, longer than the time-out
        rows += batch.num_rows
    assert rows == 4000
    with pytest.raises(TimeoutError):
        hasty.reader(ENDLESS).read_all()


def test_a_query_larger_than_memory_spills_and_leaves_nothing(lake: DuckLakeResource) -> None:
    small = lake.model_copy(update={"memory_limit": "100MB"})
    with small.get_connection() as connection:
        folder = connection.execute("SELECT current_setting('temp_directory')").fetchone()
        assert folder is not None
        connection.execute("CREATE TEMP TABLE t AS SELECT uuid() AS u FROM range(8_000_000)")
        assert list(Path(folder[0]).iterdir())
    assert not list(Path(folder[0]).iterdir())


def test_a_process_leaves_no_temporary_folder_behind(lake: DuckLakeResource) -> None:
    code = (
        "from pathlib import Path; from ml_assets.resources.duckdb import DuckLakeResource\n"
        f"lake = DuckLakeResource(home={lake.home!r}, catalog_url={lake.catalog_url!r}, memory_limit='100MB')\n"
        "with lake.get_connection() as connection:\n"
        "    connection.execute('CREATE TEMP TABLE t AS SELECT uuid() AS u FROM range(8_000_000)')\n"
        "    print(connection.execute(\"SELECT current_setting('temp_directory')\").fetchone()[0])\n"
        "    assert list(Path(lake.home).glob('tmp/duckdb/*/*'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not Path(done.stdout.strip()).exists()


def test_a_fork_makes_its_own_instance_and_ends(lake: DuckLakeResource) -> None:
    """Whatever the parent has attached."""
    code = (
        "import os, sys; from ml_assets.resources.duckdb import DuckLakeResource\n"
        f"lake = DuckLakeResource(home={lake.home!r}, catalog_url={lake.catalog_url!r}, data_path={lake.data!r})\n"
        "def read(): \n"
        "    with lake.get_connection() as connection: return connection.execute('FROM raw.numbers').fetchall()\n"
        "parent = read()\n"
        "child = os.fork()\n"
        "if child and os.waitpid(child, 0)[1]: sys.exit('the fork failed')\n"
        "print(parent + read(), flush=True)\n"
    )
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE raw.numbers AS SELECT 7 AS a")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "[(7,), (7,)]\n" * 2), done.stderr


def test_connections_share_what_is_attached_and_nothing_else(lake: DuckLakeResource) -> None:
    with lake.get_connection(write=True) as one, lake.get_connection(write=True) as other:
        one.execute("CREATE TEMP TABLE mine AS SELECT 1 AS a")
        one.execute("SET TimeZone = 'America/New_York'")
        one.execute("BEGIN")
        one.execute("CREATE TABLE raw.t (a INTEGER)")
        assert other.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)
        for name in ("mine", "raw.t"):
            with pytest.raises(duckdb.CatalogException):
                other.execute(f"FROM {name}")
    assert sum(lake.data in str(key) for key in connections._cache) == 1


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_a_catalog_whose_server_was_started_anew_is_used_on(tmp_path: Path) -> None:
    lake = DuckLakeResource(home=str(tmp_path))
    try:
        with lake.get_connection(write=True) as connection:
            connection.execute("CREATE TABLE raw.t AS SELECT 7 AS a")
        services.stop_all(tmp_path)
        with lake.get_connection() as connection:
            assert connection.execute("FROM raw.t").fetchone() == (7,)
        services.stop_all(tmp_path)
        with lake.get_connection(write=True) as connection:
            connection.execute("INSERT INTO raw.t VALUES (8)")
        with lake.get_connection() as connection:
            assert connection.execute("FROM raw.t ORDER BY a").fetchall() == [(7,), (8,)]
    finally:
        services.stop_all(tmp_path)


def test_another_lake_in_the_place_of_the_one_that_was_attached_is_noticed(
    lake: DuckLakeResource,
) -> None:
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE raw.t AS SELECT 1 AS a")
        connection.execute("CREATE TABLE raw.only_here AS SELECT 1 AS a")
    with lake.get_connection() as connection:
        assert connection.execute("FROM raw.t").fetchone() == (1,)
    name = lake.catalog_url.partition("?")[0].rpartition("/")[2]
    with PostgresResource(url=lake.catalog_url.replace(f"/{name}", "/postgres")).statements() as server:
        for what in ("DROP DATABASE {} WITH (FORCE)", "CREATE DATABASE {}"):
            server.execute(sql.SQL(what).format(sql.Identifier(name)))
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE raw.t AS SELECT 2 AS b, 3 AS c")
    with lake.get_connection() as connection:
        assert connection.execute("FROM raw.t").fetchone() == (2, 3)
        with pytest.raises(duckdb.CatalogException):
            connection.execute("FROM raw.only_here")


def test_a_catalog_that_was_restored_is_not_taken_for_what_it_became(lake: DuckLakeResource) -> None:
    """Another process may write versions of the same numbers after it."""
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE raw.early AS SELECT 1 AS a")
    name = lake.catalog_url.partition("?")[0].rpartition("/")[2]
    beside = PostgresResource(url=lake.catalog_url.replace(f"/{name}", "/postgres"))

    def copied(source: str, target: str) -> None:
        # Without the connections that are kept, since a template may have none.
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        with beside.statements() as server:
            server.execute(ended, [source])
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(target)))
            copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            server.execute(copy.format(sql.Identifier(target), sql.Identifier(source)))

    copied(name, f"{name}_backup")
    for table in ("late", "later"):
        with lake.get_connection(write=True) as connection:
            connection.execute(f"CREATE TABLE raw.{table} AS SELECT 1 AS a")
            connection.execute("FROM raw.late")
    copied(f"{name}_backup", name)
    code = (
        "from ml_assets.resources.duckdb import DuckLakeResource\n"
        f"lake = DuckLakeResource(home={lake.home!r}, catalog_url={lake.catalog_url!r}, data_path={lake.data!r})\n"
        "for table in ('other', 'another'):\n"
        "    with lake.get_connection(write=True) as connection:\n"
        "        connection.execute(f'CREATE TABLE raw.{table} AS SELECT 2 AS b')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with lake.get_connection(write=True) as connection:
        assert connection.execute("FROM raw.other").fetchone() == (2,)
        with pytest.raises(duckdb.CatalogException):
            connection.execute("FROM raw.late")


def test_a_process_keeps_few_instances_however_many_lakes_it_uses(lake: DuckLakeResource) -> None:
    for limit in range(100, 110):
        with lake.model_copy(update={"memory_limit": f"{limit}MB"}).get_connection() as connection:
            connection.execute("CREATE TEMP TABLE t AS SELECT 1 AS a")
    assert len(connections._cache) <= connections._MOST_INSTANCES


def test_an_instance_is_made_anew_after_a_while_and_who_uses_the_old_one_goes_on(
    lake: DuckLakeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake.get_connection() as connection:
        connection.execute("CREATE TEMP TABLE t AS SELECT 1 AS a")
        monkeypatch.setattr(connections, "_CACHED_S", 0.0)
        with lake.get_connection() as later:
            assert (
                later.execute("SELECT current_setting('temp_directory')").fetchone()
                != connection.execute("SELECT current_setting('temp_directory')").fetchone()
            )
        assert connection.execute("FROM t").fetchone() == (1,)


def test_no_extension_is_taken_unsigned_after_the_set_up(lake: DuckLakeResource) -> None:
    with (
        lake.get_connection() as connection,
        pytest.raises(duckdb.InvalidInputException, match="allow_unsigned_extensions"),
    ):
        connection.execute("SET allow_unsigned_extensions = true")


def test_another_data_folder_than_the_catalogs_is_refused(lake: DuckLakeResource, tmp_path: Path) -> None:
    with lake.get_connection(write=True):
        pass
    other = lake.model_copy(update={"data_path": str(tmp_path / "other")})
    for write in (False, True):
        with pytest.raises(StoreUnavailable, match="ML_ASSETS_LAKE_DATA"), other.get_connection(write):
            pass


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_an_embedded_lake_is_read_where_its_folder_was_moved_to(service_home: Path, tmp_path: Path) -> None:
    before = DuckLakeResource(home=str(service_home), data_path=str(tmp_path / "before"))
    with before.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE raw.moved AS SELECT i FROM range(1000) r(i)")
    (tmp_path / "before").rename(tmp_path / "after")
    after = before.model_copy(update={"data_path": str(tmp_path / "after")})
    with after.get_connection(write=True) as connection:
        assert connection.execute("SELECT sum(i) FROM raw.moved").fetchone() == (499_500,)
        connection.execute("DROP TABLE raw.moved")


def test_connections_that_make_one_lake_at_once_all_get_it(lake: DuckLakeResource) -> None:
    together = threading.Barrier(8)

    def connect(write: bool) -> bool:
        together.wait()
        with lake.get_connection(write) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(connect, [True, False] * 4))
    with lake.get_connection() as connection:
        rows = connection.execute("SELECT count(*) FROM duckdb_schemas() WHERE database_name = 'lake'")
        assert rows.fetchone() == (4,)


def test_nothing_is_inlined(lake: DuckLakeResource) -> None:
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE features.small AS SELECT 1 AS x")
        connection.execute("INSERT INTO features.small VALUES (2)")
        connection.execute("DELETE FROM features.small WHERE x = 1")
        assert inlining.is_off(connection)
        assert inlining.inlined(connection) == {}
        assert inlining.counts(connection, "features", "small") == (1, 1)


def test_what_a_lake_of_before_keeps_in_its_catalog_moves_into_files(lake: DuckLakeResource) -> None:
    with lake.get_connection(write=True) as connection:
        connection.execute("CALL lake.set_option('data_inlining_row_limit', 10)")
        connection.execute("CREATE TABLE features.small AS SELECT range AS x FROM range(100)")
        version = connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall()[0][0]
        connection.execute("DELETE FROM features.small WHERE x = 1")
        connection.execute("INSERT INTO features.small VALUES (100), (101)")
        assert inlining.inlined(connection) == {("features", "small"): 3}
        assert "3 rows or deletions stand in the catalog" in inlining.damage(connection, "features", "small")
    another = lake.model_copy(update={"threads": 1})  # a process of its own, which attaches it anew
    with another.get_connection(write=True) as connection:
        assert inlining.is_off(connection)
        assert inlining.inlined(connection) == {}
        assert inlining.counts(connection, "features", "small") == (101, 101)
        found = connection.execute("SELECT sum(x) FROM features.small").fetchall()
        assert found == [(sum(range(102)) - 1,)]
        before = f"SELECT count(*) FROM features.small AT (VERSION => {version})"
        assert connection.execute(before).fetchall() == [(100,)]


def test_the_catalog_is_the_database_lake_beside_postgres() -> None:
    beside = DuckLakeResource(home="unused", postgres_url="postgresql://u:p@h:5432/ml_dev")
    assert beside.resolved_catalog_url() == "postgresql://u:p@h:5432/lake"


def test_an_object_store_prefix_is_passed_through(tmp_path: Path) -> None:
    assert DuckLakeResource(home="unused", data_path="s3://bucket/lake").data == "s3://bucket/lake"
    assert DuckLakeResource(home=str(tmp_path)).data == str(tmp_path / "lake")


def test_healthy(lake: DuckLakeResource) -> None:
    health = lake.health()
    assert (health.state, health.version, health.detail) == ("healthy", duckdb.__version__, "")


@contextmanager
def asking_for_a_password() -> Iterator[tuple[int, list[bytes]]]:
    """A port that asks whoever connects as PostgreSQL does for a password in the clear, and hangs up; what it heard."""
    heard: list[bytes] = []

    class Server(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while len(self.request.recv(1024)) == 8:  # for encryption
                self.request.sendall(b"N")
            self.request.sendall(b"R" + struct.pack("!ii", 8, 3))
            heard.append(self.request.recv(1024))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], heard
        server.shutdown()


def test_the_catalogs_password_reaches_the_server_and_no_query(lake: DuckLakeResource) -> None:
    password = "o'pen sesame"
    with asking_for_a_password() as (port, heard):
        url = f"postgresql://u:o'pen%20sesame@127.0.0.1:{port}/x"
        asked = lake.model_copy(update={"catalog_url": url})
        with lake.get_connection() as connection, pytest.raises(duckdb.IOException) as failed:
            asked._keep_password(connection, url)
            connection.execute(asked._attach_statement(url, "READ_ONLY").replace("AS lake", "AS other"))
    assert "sesame" not in str(failed.value)
    assert password.encode() in heard[0]

    # The embedded server asks for none, whatever it is given; another one has its own.
    own = urlsplit(lake.catalog_url).password
    spoilt = f"{lake.catalog_url}&password=o%27pen%20sesame"
    given = lake if own else lake.model_copy(update={"catalog_url": spoilt})
    for write in (True, False):
        with given.get_connection(write=write) as connection:
            for shown in ("databases", "settings", "secrets", "views", "tables", "variables"):
                found = str(connection.execute(f"FROM duckdb_{shown}()").fetchall())
                assert (own or "sesame") not in found, shown
            with pytest.raises(duckdb.Error):
                connection.execute("FROM duckdb_secrets(redact = false)")
