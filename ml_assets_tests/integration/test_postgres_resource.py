"""PostgresResource on a real server."""

from contextlib import ExitStack
from datetime import UTC, datetime

import psycopg
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.lib.current_run import run_id
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores import postgres_table
from ml_assets.tables.staging import PartitionState


def test_a_block_that_ends_well_is_committed(postgres: PostgresResource) -> None:
    with postgres.connect(write=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    with postgres.connect() as connection:
        assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_a_block_that_raises_is_rolled_back_and_its_connection_closed(postgres: PostgresResource) -> None:
    with pytest.raises(ZeroDivisionError), postgres.connect(write=True) as connection:
        connection.execute("CREATE TABLE t (a int)")
        _ = 1 / 0
    assert connection.closed
    with postgres.connect() as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_transactions_after_the_first_share_a_connection(postgres: PostgresResource) -> None:
    sessions = []
    for _ in range(4):
        with postgres.connect(write=True) as connection:
            sessions += connection.execute("SELECT pg_backend_pid()").fetchone() or ()
    assert sessions[0] != sessions[1]
    assert len(set(sessions[1:])) == 1


def test_nothing_is_left_over_from_one_transaction_to_the_next(postgres: PostgresResource) -> None:
    session = 0
    hurried = postgres.model_copy(update={"write_timeout_s": 7.0})
    for _ in range(2):
        with hurried.connect(write=True) as connection:
            assert connection.execute("SHOW statement_timeout").fetchone() == ("7s",)
            connection.execute("SET idle_in_transaction_session_timeout = '5s'")  # as a server may be told to
            session = connection.info.backend_pid
    with postgres.connect() as connection:
        assert connection.info.backend_pid == session
        assert connection.execute("SHOW statement_timeout").fetchone() == ("30s",)
        assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)
        assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)


def test_the_server_is_told_the_run(postgres: PostgresResource) -> None:
    """While a transaction of the run is open; the connection goes back without its name."""

    def shown() -> set[str]:
        with postgres.connect() as one, postgres.statements() as other:
            asked = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            return {name for each in (one, other) for (name,) in each.execute(asked).fetchall()}

    for run, label in [(None, "ml-assets"), ("it's 1", "ml-assets run it's 1"), (None, "ml-assets")]:
        token = run_id.set(run)
        assert shown() == {label}
        run_id.reset(token)


def test_a_ledger_of_before_gains_what_it_lacks(postgres: PostgresResource) -> None:
    contract = Contract("postgres/t", "", (Column("id", "int64"),), ("id",))
    with postgres.connect(write=True) as connection:
        postgres_table.record(connection, contract, {0: PartitionState(1, 2, "3")}, None)
        connection.execute("ALTER TABLE ledger.writes DROP COLUMN run_id")
        assert postgres_table.ledger_buckets(connection, contract) == {0: PartitionState(1, 2, "3")}
    token = run_id.set("this one")
    with postgres.connect(write=True) as connection:
        postgres_table.record(connection, contract, {0: PartitionState(4, 5, "6")}, {0})
        assert connection.execute("SELECT rows, run_id FROM ledger.writes").fetchall() == [(4, "this one")]
    run_id.reset(token)


def test_a_pooled_connection_that_the_server_has_ended_is_replaced(postgres: PostgresResource) -> None:
    session = 0
    for _ in range(2):
        with postgres.connect() as connection:
            session = connection.info.backend_pid
    with postgres.statements() as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (session,))
    with postgres.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.info.backend_pid != session


def test_more_transactions_at_once_than_the_pool_holds(postgres: PostgresResource) -> None:
    with ExitStack() as stack:
        open_at_once = [stack.enter_context(postgres.connect()) for _ in range(18)]
        sessions = {connection.info.backend_pid for connection in open_at_once}
    assert len(sessions) == len(open_at_once)


def test_without_write_nothing_can_be_changed(postgres: PostgresResource) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), postgres.connect() as connection:
        connection.execute("CREATE TABLE t (a int)")


@pytest.mark.parametrize(("write", "limit"), [(False, "query_timeout_s"), (True, "write_timeout_s")])
def test_a_statement_that_takes_too_long_is_cancelled(
    postgres: PostgresResource, write: bool, limit: str
) -> None:
    hasty = postgres.model_copy(update={limit: 0.2})
    with pytest.raises(psycopg.errors.QueryCanceled), hasty.connect(write) as connection:
        connection.execute("SELECT pg_sleep(20)")


def test_times_are_utc_whatever_the_environment_says(
    postgres: PostgresResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", "America/New_York")
    with postgres.connect() as connection:
        row = connection.execute("SELECT '2026-01-01 00:00'::timestamptz").fetchone()
    assert row == (datetime(2026, 1, 1, tzinfo=UTC),)
    assert row is not None
    assert row[0].utcoffset().total_seconds() == 0


def test_another_database_of_the_same_server(postgres: PostgresResource) -> None:
    with postgres.connect(database="ml_dev") as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("ml_dev",)


def test_healthy_names_version_and_extensions(postgres: PostgresResource) -> None:
    health = postgres.health()
    assert (health.state, health.detail) == ("healthy", "")
    assert health.version.startswith("18.")
    assert any(extension.startswith("vector ") for extension in health.extensions)
    assert 0 < health.latency_ms < 5000


@pytest.mark.embedded_only("takes an extension away, which belongs to the server's owner")
def test_a_server_without_pgvector_is_down_and_says_so(postgres: PostgresResource) -> None:
    with postgres.connect(write=True) as connection:
        connection.execute("DROP EXTENSION vector")
    health = postgres.health()
    assert (health.state, "pgvector is missing" in health.detail) == ("down", True)


def test_the_url_names_ml_dev_where_it_names_no_database() -> None:
    bare = PostgresResource(home="unused", url="postgresql://u@h:5432?sslmode=require")
    assert bare.connection_url() == "postgresql://u@h:5432/ml_dev?sslmode=require"
    named = PostgresResource(home="unused", url="postgresql:///own?host=/run/pg")
    assert named.connection_url() == "postgresql:///own?host=/run/pg"
    assert named.connection_url("lake") == "postgresql:///lake?host=/run/pg"
