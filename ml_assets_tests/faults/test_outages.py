"""A disk that fills up, a server that goes away, both in the midst of a write or a read.

The old rows are there afterwards, the error is a sentence that names the table and says what to do, and once
the fault is gone the next write simply succeeds.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pyarrow as pa
import pytest

from ml_assets import services
from ml_assets.cli.faults import sentence
from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation, TableUnavailable
from ml_assets.io_managers.base import TableIOManager
from ml_assets.io_managers.chroma import ChromaIOManager
from ml_assets.io_managers.clickhouse import ClickHouseIOManager
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.io_managers.postgres import PostgresIOManager
from ml_assets.io_managers.redis import RedisIOManager
from ml_assets.io_managers.sqlite import SQLiteIOManager
from ml_assets.lib.faults import StatementTimeout
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.conflicts import waited_too_long
from ml_assets_tests import servers

ROWS = 600
"""Of a write; half a megabyte."""

CONTRACT = Contract(
    "store/attacked",
    "",
    (
        Column("id", "string", nullable=False),
        Column("happened_at", "timestamp", nullable=False),
        Column("text", "string", nullable=False),
        Column("vector", "vector", nullable=False, dimension=3),
    ),
    key=("id",),
    partition_column="happened_at",
)
DAILY = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_date="2026-01-04", timezone="UTC")
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Stored:
    """A daily table in one store, written and read through Dagster."""

    manager: TableIOManager
    contract: Contract

    def write(self, version: int) -> None:
        @dg.asset(
            key=self.contract.asset.split("/"),
            io_manager_key="io",
            partitions_def=DAILY,
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def attacked() -> pa.Table:
            return rows(version)

        tags = {
            "dagster/asset_partition_range_start": "2026-01-01",
            "dagster/asset_partition_range_end": "2026-01-03",
        }
        with dg.DagsterInstance.ephemeral() as instance:
            dg.materialize([attacked], resources={"io": self.manager}, instance=instance, tags=tags)

    def read(self) -> pa.Table:
        with dg.build_input_context(
            asset_key=dg.AssetKey(self.contract.asset.split("/")),
            dagster_type=dg.PythonObjectDagsterType(pa.Table),
        ) as context:
            return self.manager.load_input(context).sort_by("id")


def rows(version: int) -> pa.Table:
    """Rows that nothing can compress, other ones in each version."""
    rng = random.Random(version)  # noqa: S311
    ids = [f"{n:06}" for n in range(ROWS)]
    return pa.table(
        {
            "id": ids,
            "happened_at": pa.array(
                [FIRST + timedelta(days=n % 3, seconds=n) for n in range(ROWS)], pa.timestamp("us", "UTC")
            ),
            "text": [rng.randbytes(350).hex() for _ in ids],
            "vector": [[float(version), 1.0, 2.0]] * ROWS,
        },
        arrow_schema(CONTRACT),
    )


@pytest.fixture
def stored() -> Callable[[TableIOManager], Stored]:
    """Makes the table of an IO manager known."""

    def make(manager: TableIOManager) -> Stored:
        looked_up = manager.store == "serving"  # by the key alone
        contract = replace(CONTRACT, asset=f"{manager.store}/attacked", unique_across_days=looked_up)
        given = manager.model_copy(update={"contracts": {contract.asset: contract}})
        return Stored(given, contract)

    return make


def refused(what: Callable[[], Any], asset: str) -> str:
    """The sentence by which something was refused."""
    with pytest.raises(TableUnavailable) as caught:
        what()
    said = str(caught.value)
    assert said.startswith(f"{asset}: "), said
    assert "\n" not in said
    assert said.endswith(".")
    return said


ON_DISK = {
    "duckdb": lambda home, get: DuckLakeIOManager(
        lake=DuckLakeResource(home=home, catalog_url=get("_catalog"))
    ),
    "postgres": lambda home, get: PostgresIOManager(postgres=PostgresResource(home=home)),
    "clickhouse": lambda home, get: ClickHouseIOManager(clickhouse=ClickHouseResource(home=home)),
    "chroma": lambda home, get: ChromaIOManager(chroma=ChromaResource(home=home), postgres=get("postgres")),
    "sqlite": lambda home, get: SQLiteIOManager(sqlite=SQLiteResource(home=home)),
    "serving": lambda home, get: RedisIOManager(redis=RedisResource(home=home), postgres=get("postgres")),
}


@pytest.mark.embedded_only("needs the stores' files on a disk of its own")
@pytest.mark.parametrize("store", ON_DISK)
def test_a_disk_that_fills_up_leaves_the_old_rows(store, small_disk, stored, request):
    disk = small_disk(200 if store == "postgres" else 64)
    table = stored(ON_DISK[store](str(disk.folder), request.getfixturevalue))
    table.write(1)
    # Redis keeps a copy, which is filled after the commit: there the disk must be full before it.
    disk.fill(left=0 if store == "serving" else 128 * 1024)
    said = refused(lambda: table.write(2), table.contract.asset)
    assert "space left" in said
    assert table.read().equals(rows(1))
    disk.empty()
    if store == "chroma":
        # As the sentence says: after a full disk Chroma 1.5.9 may wait for ever for a lock of its own.
        assert "restart" in said
        services.stop_all(disk.folder)
    assert table.read().equals(rows(1))
    table.write(3)
    assert table.read().equals(rows(3))


def test_a_full_disk_for_temporary_files_leaves_the_old_rows(sqlite, small_disk, stored, monkeypatch):
    """Rows that do not fit into memory wait in a file in the folder for temporary files."""
    monkeypatch.setattr("ml_assets.tables.staging._MEMORY_BYTES", 0)
    disk = small_disk(8)
    monkeypatch.setattr("tempfile.tempdir", str(disk.folder))
    table = stored(SQLiteIOManager(sqlite=sqlite))
    table.write(1)
    disk.fill(left=64 * 1024)
    said = refused(lambda: table.write(2), "sqlite/attacked")
    assert "no space left while its rows were being gathered" in said
    assert table.read().equals(rows(1))
    disk.empty()
    table.write(3)
    assert table.read().equals(rows(3))


SECRET = "tell/nobody"
"""With a character that a URL must encode."""


def between_us(wire: Callable[..., Any], url: str) -> tuple[Any, str]:
    """A wire before a server, and its URL by it, with a password if the server knows none."""
    between = wire(servers.place(url))
    return between, servers.relayed(url, between.port, "tell%2Fnobody")


@pytest.fixture
def wired(store: str, wire: Callable[..., Any], request: pytest.FixtureRequest) -> tuple[Any, TableIOManager]:
    """An IO manager that reaches its server by a wire; by a URL with a password, where there can be one."""
    get = request.getfixturevalue
    if store in ("postgres", "duckdb"):
        between, far = between_us(wire, get("_database" if store == "postgres" else "_catalog"))
        if store == "postgres":
            return between, PostgresIOManager(postgres=PostgresResource(home="unused", url=far))
        lake = DuckLakeResource(home=str(get("tmp_path")), catalog_url=far)
        return between, DuckLakeIOManager(lake=lake)
    if store == "serving":
        between, far = between_us(wire, get("redis").url)
        redis = RedisResource(home="unused", url=far)
        return between, RedisIOManager(redis=redis, postgres=get("postgres"))
    if store == "chroma":
        between, far = between_us(wire, get("chroma").server_url())
        chroma = ChromaResource(home="unused", url=far)
        return between, ChromaIOManager(chroma=chroma, postgres=get("postgres"))
    between, far = between_us(wire, get("shared_clickhouse_server").url)
    return between, ClickHouseIOManager(clickhouse=ClickHouseResource(home="unused", url=far))


SERVERS = ("duckdb", "postgres", "clickhouse", "chroma", "serving")


@pytest.mark.parametrize(
    ("store", "part"),
    # DuckDB gives its whole instance up at 0.5, where a transaction reads the ledger.
    [("duckdb", 0.3), ("duckdb", 0.5), ("duckdb", 0.9), *((store, 0.5) for store in SERVERS[1:])],
)
def test_a_server_that_goes_away_during_a_write_leaves_the_old_rows(store, part, wired, stored):
    goes_away_during_a_write(part, wired, stored)


@pytest.mark.parametrize("store", ["clickhouse"])
@pytest.mark.parametrize("part", [0.3, 0.6])
def test_a_server_that_goes_away_while_two_clients_insert(part, wired, stored, monkeypatch):
    """As they do where rows are many, which these are if a batch is small."""
    monkeypatch.setattr("ml_assets.tables.arrow_types.BATCH_ROWS", 20)
    goes_away_during_a_write(part, wired, stored)


def goes_away_during_a_write(part: float, wired: Any, stored: Callable[[TableIOManager], Stored]) -> None:
    """After a part of what a write of the same size has sent and received."""
    between, manager = wired
    table = stored(manager)
    before = 0
    # The first ones open what a process keeps.
    for version in (0, 1, 2):
        before = between.carried
        table.write(version)
    between.cut_after(int(part * (between.carried - before)))
    said = refused(lambda: table.write(3), table.contract.asset)
    assert between.is_cut
    assert_no_secret(said)
    between.mend()
    assert table.read().equals(rows(2))
    table.write(4)
    assert table.read().equals(rows(4))


def assert_no_secret(said: str) -> None:
    for secret in (SECRET, "tell%2Fnobody", "s3cret", *servers.passwords()):
        assert secret not in said


@pytest.mark.parametrize("store", [s for s in SERVERS if s != "serving"])
def test_a_server_that_goes_away_during_a_read_is_told_of(store, wired, stored):
    between, manager = wired
    table = stored(manager)
    table.write(1)
    before = 0
    for _ in range(3):
        before = between.carried
        table.read()
    between.cut_after((between.carried - before) // 2)
    said = refused(table.read, table.contract.asset)
    assert between.is_cut
    assert_no_secret(said)
    between.mend()
    assert table.read().equals(rows(1))


RUN = {"experiment": "e", "model_name": "m", "status": "completed", "created_at": "2026-03-01T10:00:00Z"}


@pytest.mark.timeout(900)  # whole refreshes, on machines that do other things as well
def test_a_command_during_which_postgresql_goes_away_ends_in_a_sentence(
    cli_process, environment, wire, _database
):
    """While it looks for what is new, and while it takes it in."""
    between, far = between_us(wire, _database)
    environment = {**environment, "ML_ASSETS_POSTGRES_URL": far}
    home = Path(environment.pop("ML_ASSETS_HOME"))
    done = cli_process(home, "refresh", **environment)
    assert done.returncode == 0, done.stderr
    looked = between.carried

    landing = home / "landing" / "runs"
    landing.mkdir(parents=True, exist_ok=True)
    (landing / "a.jsonl").write_text(json.dumps({"run_id": "a", **RUN}))
    for part in (0.5, 1.2):
        between.cut_after(int(part * looked))
        done = cli_process(home, "refresh", **environment)
        assert between.is_cut, part
        lines = done.stderr.splitlines()
        assert (done.returncode, len(lines)) == (1, 1), (part, done.stderr)
        assert lines[0].endswith("."), lines[0]
        assert_no_secret(done.stderr)
        between.mend()
    done = cli_process(home, "refresh", "--json", **environment)
    assert done.returncode == 0, done.stderr
    with PostgresResource(url=_database).connect() as connection:
        assert connection.execute("SELECT count(*) FROM ml_experiments").fetchone() == (1,)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            psycopg.errors.QueryCanceled("canceling statement due to statement timeout"),
            "ML_ASSETS_QUERY_TIMEOUT_S",
        ),
        (StatementTimeout("a DuckDB statement took longer than 1 s"), "ML_ASSETS_QUERY_TIMEOUT_S"),
        (psycopg.OperationalError("server closed the connection unexpectedly"), "'ml-assets status'"),
        (waited_too_long("duckdb/raw_runs"), "duckdb/raw_runs"),
        (ContractViolation("duckdb/raw_runs: no."), "duckdb/raw_runs: no."),
        (KeyError("a bug"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_lies_outside_is_told_and_bugs_are_not(raised, said, tmp_path):
    """Whatever Dagster has wrapped around it."""
    try:
        try:
            raise raised
        except Exception as fault:
            raise RuntimeError("a step failed") from fault
    except RuntimeError as fault:
        told = sentence(fault, tmp_path)
    assert (told is None) == (said is None)
    assert said is None or said in str(told)
