"""DuckLakeResource on a real catalog and real files."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from ml_assets.resources.base import StoreUnavailable
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource

ENDLESS = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE hash(i) = 3"


def sessions(lake: DuckLakeResource) -> int:
    """Connections to the catalog's database, this one aside."""
    with PostgresResource(home="unused", url=lake.catalog_url).connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
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
    assert not Path(folder[0]).exists()


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


def test_the_catalog_is_the_database_lake_beside_postgres() -> None:
    beside = DuckLakeResource(home="unused", postgres_url="postgresql://u:p@h:5432/ml_dev")
    assert beside.resolved_catalog_url() == "postgresql://u:p@h:5432/lake"


def test_an_object_store_prefix_is_passed_through(tmp_path: Path) -> None:
    assert DuckLakeResource(home="unused", data_path="s3://bucket/lake").data == "s3://bucket/lake"
    assert DuckLakeResource(home=str(tmp_path)).data == str(tmp_path / "lake")


def test_healthy(lake: DuckLakeResource) -> None:
    health = lake.health()
    assert (health.state, health.version, health.detail) == ("healthy", duckdb.__version__, "")
