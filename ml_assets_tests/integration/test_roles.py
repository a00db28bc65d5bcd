"""The roles of the server stack on a real PostgreSQL: what each of them may do, and may not."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pyarrow as pa
import pytest
from psycopg import errors

import ml_assets
from benchmarks.maintenance import Site
from ml_assets import services
from ml_assets.resources.base import with_database
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.services.postgres import _wheel
from ml_assets.settings import PROJECT_ROOT, SQL_DIR, Settings
from ml_assets.stores import touched_days

pytestmark = pytest.mark.embedded_only("starts, stops or kills servers of its own")

SCRIPTS = ("postgres-init.sh", "postgres-roles.sh")
OWN = {
    "ml_writer": ("ml_dev", "lake"),
    "ml_reader": ("ml_dev", "lake"),
    "ml_dagster": ("dagster",),
    "ml_mlflow": ("mlflow",),
}
DATABASES = ("ml_dev", "lake", "dagster", "mlflow", "postgres", "template1")

NOBODY_MAY = (
    "DROP DATABASE dagster",
    "DROP DATABASE ml_dev",
    "CREATE DATABASE other",
    "CREATE ROLE other SUPERUSER",
    "ALTER ROLE postgres PASSWORD 'x'",
    "GRANT ml_writer TO ml_reader",
    "GRANT pg_execute_server_program TO CURRENT_USER",
    "SET ROLE postgres",
    "ALTER SYSTEM SET log_statement = 'all'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/ml-assets-roles'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_reload_conf()",
    "SELECT rolpassword FROM pg_authid",
    "CREATE EXTENSION file_fdw",
    "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'getpid'",
)
READERS_MAY_NOT = (  # also after they have granted it to themselves
    "INSERT INTO ml_notes VALUES (2)",
    "UPDATE ml_notes SET n = 3",
    "DELETE FROM ml_notes",
    "TRUNCATE ml_notes",
    "DROP TABLE ml_notes",
    "ALTER TABLE ml_notes ADD COLUMN m int",
    "CREATE INDEX ON ml_notes (n)",
    "CREATE TABLE public.other (n int)",
    "CREATE TABLE ledger.other (n int)",
    "CREATE SCHEMA other",
    "CREATE TEMPORARY TABLE other (n int)",
    "SELECT n FROM ml_notes FOR UPDATE",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the owner on a new server whose scripts have run twice, with a table of theirs and a lake in between."""
    home, secrets = tmp_path_factory.mktemp("r"), tmp_path_factory.mktemp("secrets")
    for role in ("writer", "reader", "dagster", "mlflow"):
        (secrets / f"postgres_{role}_password").write_text(f"it's {role}\n")
    url = services.ensure("postgres", home)
    wheel = _wheel()
    assert wheel
    environment = {
        "PATH": f"{wheel / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": parse_qs(urlsplit(url).query)["host"][0],
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": "ml_dev",
    }
    try:
        with psycopg.connect(url) as owner:  # as the graph of a former release has made it
            owner.execute("CREATE TABLE former (n serial, m int)")
            owner.execute("CREATE VIEW seen AS SELECT n FROM former")
        for script in SCRIPTS * 2:
            text = (PROJECT_ROOT / "deploy" / script).read_text().replace("/sql/", f"{SQL_DIR}/")
            text = text.replace("/run/secrets/", f"{secrets}/")
            subprocess.run(["bash"], check=True, input=text, text=True, env=environment)
        yield url
    finally:
        services.stop_all(home)


def of(role: str, server: str, database: str = "ml_dev") -> str:
    return with_database(server.replace("//postgres@", f"//{role}@"), database)


@pytest.fixture(scope="module")
def written(server: str) -> str:
    """The server after the writer has made tables: by SQL, by the ledger, by an IO manager and with a new schema."""
    postgres = PostgresResource(url=of("ml_writer", server))
    touched_days.ensure_schema(postgres)
    Site("postgres", {"postgres": postgres}).write([0], 0)
    with postgres.connect(write=True) as connection:
        connection.execute("CREATE TABLE ml_notes (n int)")
        connection.execute("INSERT INTO ml_notes VALUES (1)")
        connection.execute("CREATE SCHEMA more CREATE TABLE more.notes (n int)")
        connection.execute("ALTER TABLE former ADD COLUMN added int")
    postgres.close()
    return server


def refused(url: str, statement: str) -> bool:
    """Whether PostgreSQL refuses a statement for want of a right, also to whoever says that he writes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        try:
            connection.execute(statement.encode())
        except (errors.InsufficientPrivilege, errors.DependentObjectsStillExist):
            return True
        except errors.ActiveSqlTransaction:
            return False
    return False


@pytest.mark.parametrize("role", OWN)
def test_a_role_comes_into_its_own_databases_alone(role: str, server: str) -> None:
    reached = set()
    for database in DATABASES:
        try:
            psycopg.connect(of(role, server, database)).close()
            reached.add(database)
        except psycopg.OperationalError as fault:
            assert "permission denied for database" in str(fault)
    assert reached == set(OWN[role])


@pytest.mark.parametrize("role", OWN)
def test_no_role_rules_the_server(role: str, written: str) -> None:
    url = of(role, written, OWN[role][0])
    assert [statement for statement in NOBODY_MAY if not refused(url, statement)] == []


def test_the_reader_reads_everything_and_changes_nothing(written: str) -> None:
    url = of("ml_reader", written)
    with psycopg.connect(url) as connection:
        for table in ("ml_notes", "more.notes", "hourly", "ledger.writes", "ledger.places", "former", "seen"):
            connection.execute(f"SELECT count(*) FROM {table}".encode())
    with psycopg.connect(url) as connection, pytest.raises(errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO ml_notes VALUES (2)")
    refused(url, "GRANT ALL ON ml_notes TO ml_reader")  # answered by a warning
    assert [statement for statement in READERS_MAY_NOT if not refused(url, statement)] == []


def test_who_keeps_histories_does_so(server: str) -> None:
    for role in ("ml_dagster", "ml_mlflow"):
        with psycopg.connect(of(role, server, OWN[role][0])) as connection:
            connection.execute("CREATE TABLE runs (n serial PRIMARY KEY)")
            connection.execute("INSERT INTO runs DEFAULT VALUES")


def test_passwords_are_set_and_not_told(server: str) -> None:
    with psycopg.connect(server) as owner:
        known = dict(
            owner.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolname ~ '^ml_'").fetchall()
        )
        counted = owner.execute(
            "SELECT query FROM pg_stat_statements WHERE query LIKE '%it''%s %'"
        ).fetchall()
    assert known.keys() == OWN.keys()
    assert counted == []
    assert all(password.startswith("SCRAM-SHA-256$") for password in known.values())


def test_the_lake_is_written_by_the_writer_and_read_by_the_reader(server: str, tmp_path: Path) -> None:
    def lake(role: str) -> DuckLakeResource:
        return DuckLakeResource(
            home=str(tmp_path), catalog_url=of(role, server, "lake"), data_path=str(tmp_path / "lake")
        )

    rows = pa.table({"n": [1, 2, 3]})
    with lake("ml_writer").get_connection(write=True) as connection:
        connection.register("given", rows)
        connection.execute("CREATE TABLE raw.notes AS FROM given")
    settings = Settings(
        home=tmp_path,
        postgres_url=of("ml_writer", server),
        lake_url=of("ml_writer", server, "lake"),
        lake_data=str(tmp_path / "lake"),
        postgres_reader_url=of("ml_reader", server),
        lake_reader_url=of("ml_reader", server, "lake"),
    )
    stack = ml_assets.connect(settings=settings, read_only=True)
    assert stack.sql("postgres", "SELECT current_user AS me").to_pylist() == [{"me": "ml_reader"}]
    assert stack.sql("duckdb", "SELECT count(*) AS n FROM raw.notes").to_pylist() == [{"n": 3}]
    assert {stack.status()["stores"][name]["state"] for name in ("postgres", "duckdb")} == {"healthy"}
    with lake("ml_reader").get_connection() as connection:
        assert connection.execute("SELECT sum(n) FROM raw.notes").fetchall() == [(6,)]
    with lake("ml_reader").get_connection(write=True) as connection:
        connection.execute(f"SELECT '{uuid.uuid4()}'")
        with pytest.raises(Exception, match="read-only transaction"):
            connection.execute("DELETE FROM raw.notes")
    with lake("ml_reader").get_connection() as connection:
        assert connection.execute("SELECT count(*) FROM raw.notes").fetchall() == [(3,)]
