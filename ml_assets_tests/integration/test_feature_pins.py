"""The lake at a time that is past, and pins, which maintenance leaves alone."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.contracts import Column, Contract, tables
from ml_assets.errors import Refusal, StoreUnavailable, WriteBusy
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.query import Query
from ml_assets.lib.sql import qualified
from ml_assets.lib.versions import shown
from ml_assets.maintenance.upgrade.step_1 import move_pins
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stack import Stack
from ml_assets.stores.duckdb import DuckLakeStore, ledger, pins
from ml_assets.stores.duckdb.ddl import tables_of
from ml_assets.stores.duckdb.rows import live
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import TableState, stage, table_state
from ml_assets.tables.store import Retention
from ml_assets.tables.validation import WHOLE, Window
from ml_assets_tests.scale import CYCLES

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = Retention(timedelta(0), timedelta(0))
"""What nobody keeps goes at once, files too."""

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def _stack(_databases: Any, _catalogs: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("pins")
    with _databases.lend() as database, _catalogs.lend() as catalog:
        yield Stack(
            Settings(
                home=home,
                postgres_url=database,
                lake_url=catalog,
                lake_data=str(home / "lake"),
            )
        )


@pytest.fixture
def stack(_stack: Stack) -> Iterator[Stack]:
    """A stack whose lake has no tables and no pins: the same one for all tests of this file."""
    yield _stack
    for name in _stack.features.pins()["name"].to_pylist():
        _stack.features.unpin(name)
    with lake_of(_stack).get_connection(write=True) as connection:
        for schema, table in tables_of(connection):
            connection.execute(f"DROP TABLE {qualified('lake', schema, table)}")


def lake_of(stack: Stack) -> DuckLakeResource:
    return stack._resources["lake"]


def maintain(stack: Stack) -> list[str]:
    return list(DuckLakeStore(lake_of(stack), stack._resources["postgres"]).maintain(NOTHING))


def contract(table: str, *more: Column) -> Contract:
    columns = (
        Column("id", "int64", nullable=False),
        Column("at", "timestamp", nullable=False),
        Column("v", "int64"),
        *more,
    )
    return Contract(f"duckdb/{table}", "an event", columns, key=("id",), partition_column="at")


def write(stack: Stack, of: Contract, data: Any, window: Window = WHOLE) -> None:
    manager = DuckLakeIOManager(lake=lake_of(stack))
    with stage(data, of, manager.limits, window) as staged:
        manager.table_store().write(of, staged)


def overwrite(stack: Stack, of: Contract, day: int, rows: int, value: int) -> None:
    at = FIRST + day * DAY
    row = {column.name: value for column in of.columns}
    data = pa.Table.from_pylist([{**row, "id": n, "at": at} for n in range(rows)], arrow_schema(of))
    write(stack, of, data, Window(at, at + DAY))


def drop(stack: Stack, of: Contract) -> None:
    with lake_of(stack).get_connection(write=True) as connection:
        connection.execute(f"DROP TABLE lake.{of.schema}.{of.table}")


def now() -> datetime:
    return datetime.now(UTC)


def values(reader: pa.RecordBatchReader) -> list[int]:
    return sorted(set(reader.read_all()["v"].to_pylist()))


def test_rows_as_of_a_time(stack: Stack):
    of, times = contract("events"), []
    for value in (1, 2, 3):
        overwrite(stack, of, 0, 2, value)
        times.append(now())
    overwrite(stack, contract("events", Column("w", "int64")), 0, 2, 4)
    features = stack.features
    assert [values(features.as_of("events", time)) for time in times] == [[1], [2], [3]]
    assert values(features.as_of("duckdb/events", shown(times[1]))) == [2]
    assert features.as_of("features.events", times[0]).schema.names == ["id", "at", "v"]
    assert values(features.as_of("events", now())) == [4]
    with pytest.raises(Refusal, match="no time zone"):
        features.as_of("events", "2026-11-29T13:00:00")
    with pytest.raises(Refusal, match="'yesterday' is not a time"):
        features.as_of("events", "yesterday")
    with pytest.raises(Refusal, match=r"Z is yet to come: name a time until now"):
        features.as_of("events", now() + DAY)
    with pytest.raises(Refusal, match=r"no table 'event' at .*; there were: events"):
        features.as_of("event", times[0])
    with pytest.raises(Refusal, match="it alone keeps versions"):
        features.as_of("postgres/events", times[0])
    overwrite(stack, contract("events", Column("w", "int64")), 0, 2, 5)
    kept = features.pin("kept")
    overwrite(stack, contract("events", Column("w", "int64")), 0, 2, 6)
    maintain(stack)
    with pytest.raises(
        Refusal, match=r"was cleaned up: every time from 2.*Z on can be read.*the pins kept \(2"
    ):
        features.as_of("events", times[1])
    assert kept.written_at is not None
    assert values(features.as_of("events", kept.written_at)) == [5]
    assert values(features.as_of("events", now())) == [6]
    then = lake_of(stack).at(kept.version - 1)
    with pytest.raises(StoreUnavailable, match="that version was cleaned up"):
        then.open()
    with pytest.raises(ValueError, match="nobody writes it"):
        then.open(write=True)


def test_pins_have_names_of_their_own(stack: Stack):
    features = stack.features
    overwrite(stack, contract("one"), 0, 3, 1)
    overwrite(stack, contract("other"), 0, 2, 1)
    made = features.pin("paper", ["one"])
    assert {asset: state.rows for asset, state in made.tables.items()} == {"duckdb/one": 3}
    assert "run_features" in made.files
    with pytest.raises(Refusal, match=r"pinned as 'paper' already.*features unpin paper"):
        features.pin("paper")
    with pytest.raises(
        Refusal, match=r"no table duckdb/two at that version; it has duckdb/one, duckdb/other"
    ):
        features.pin("second", ["two"])
    with pytest.raises(Refusal, match="no name for a pin"):
        features.pin(" ")
    impatient = lake_of(stack).model_copy(update={"write_timeout_s": 0.2})
    with pins.only_one(lake_of(stack)), pytest.raises(WriteBusy):
        pins.pin(impatient, "while the lake is maintained")
    overwrite(stack, contract("one"), 0, 3, 2)
    features.pin("later")
    listed = features.pins().to_pylist()
    assert [(each["name"], each["tables"]) for each in listed] == [("paper", 1), ("later", 2)]
    assert values(features.pinned("paper", "one")) == [1]
    assert values(features.pinned("later", "one")) == [2]
    with pytest.raises(Refusal, match=r"no table 'two' in the pin 'paper'"):
        features.pinned("paper", "two")
    with pytest.raises(Refusal, match=r"No version is pinned as 'papers'; there are: 2 pins: later, paper"):
        features.unpin("papers")
    features.unpin("paper")
    with pytest.raises(Refusal, match="No version is pinned as 'paper'"):
        features.pinned("paper", "one")


def test_pins_of_a_former_release_are_kept(stack: Stack):
    """They stood in a table of the lake, by name and version."""
    lake, of = lake_of(stack), contract("events")
    overwrite(stack, of, 0, 2, 1)
    with lake.get_connection(write=True) as connection:
        ((version,),) = connection.execute("SELECT id FROM lake.current_snapshot()").fetchall()
        connection.execute(
            "CREATE TABLE lake.ledger.pins (name VARCHAR, version BIGINT, pinned_at TIMESTAMPTZ)"
        )
        connection.execute("INSERT INTO lake.ledger.pins VALUES ('old', $1, now())", [version])
    overwrite(stack, of, 0, 2, 2)
    maintain(stack)
    assert values(stack.features.pinned("old", "events")) == [1]
    with pytest.raises(Refusal, match="pinned as 'old' already"):
        stack.features.pin("old")
    stack.features.unpin("old")
    maintain(stack)
    assert stack.features.pins().num_rows == 0
    with lake.get_connection() as connection:
        assert version not in pins.versions(connection)


def test_the_upgrade_moves_pins_of_a_former_release_and_notes_what_they_hold(stack: Stack):
    lake, of = lake_of(stack), contract("events")
    overwrite(stack, of, 0, 2, 1)
    held = pins.contents(lake)[of.asset]
    with lake.get_connection(write=True) as connection:
        ((version,),) = connection.execute("SELECT id FROM lake.current_snapshot()").fetchall()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS lake.ledger.pins (name VARCHAR, version BIGINT, pinned_at TIMESTAMPTZ)"
        )
        connection.execute("INSERT INTO lake.ledger.pins VALUES ('old', $1, $2)", [version, FIRST])
        connection.execute("INSERT INTO lake.ledger.pins VALUES ('lost', 1000000, $1)", [FIRST])
    overwrite(stack, of, 0, 2, 2)
    move_pins(stack.settings)
    with lake.get_connection(
        write=True
    ) as connection:  # as if it had been killed before it took the pin out there
        connection.execute("INSERT INTO lake.ledger.pins VALUES ('old', $1, now())", [version])
    assert pins.move_former(lake) == ["old"]
    assert pins.move_former(lake) == []
    moved = pins.the_pin(lake, "old")
    assert (moved.version, moved.pinned_at, moved.tables[of.asset]) == (version, FIRST, held)
    assert moved.written_at is not None
    maintain(stack)
    assert values(stack.features.pinned("old", "events")) == [1]
    with lake.get_connection() as connection:
        rows = connection.execute("SELECT name FROM lake.ledger.pins").fetchall()
    assert rows == [("lost",)]  # of which nothing is known but its name


def test_a_pin_that_is_let_go_while_the_upgrade_waits_does_not_come_back(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    lake = lake_of(stack)
    overwrite(stack, contract("events"), 0, 2, 1)
    pin_as_before(lake, "old")
    make = pins._ensure_schema

    def let_go_by_somebody(of: DuckLakeResource) -> None:
        make(of)
        pins.unpin(of, "old")

    monkeypatch.setattr(pins, "_ensure_schema", let_go_by_somebody)
    assert pins.move_former(lake) == []
    assert stack.features.pins().num_rows == 0


def pin_as_before(lake: DuckLakeResource, name: str) -> None:
    """Pin the newest version as a former release did."""
    with lake.get_connection(write=True) as connection:
        ((version,),) = connection.execute("SELECT id FROM lake.current_snapshot()").fetchall()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS lake.ledger.pins (name VARCHAR, version BIGINT, pinned_at TIMESTAMPTZ)"
        )
        connection.execute("INSERT INTO lake.ledger.pins VALUES ($1, $2, $3)", [name, version, FIRST])


def test_a_version_that_has_lost_its_files_stops_no_upgrade(stack: Stack):
    lake, of = lake_of(stack), contract("fragile")
    overwrite(stack, of, 0, 2, 1)
    with lake.get_connection(write=True) as connection:  # so that its rows are read
        connection.execute("UPDATE lake.ledger.writes SET hash_version = 'former'")
    pin_as_before(lake, "damaged")
    (file,) = Path(lake.data, "features", "fragile").rglob("*.parquet")
    overwrite(stack, of, 0, 2, 2)
    pin_as_before(lake, "sound")
    file.rename(file.with_suffix(".lost"))
    try:
        assert pins.move_former(lake) == ["sound"]
    finally:
        file.with_suffix(".lost").rename(file)
    assert sorted(stack.features.pins()["name"].to_pylist()) == ["damaged", "sound"]
    maintain(stack)
    assert values(stack.features.pinned("damaged", "fragile")) == [
        1
    ]  # kept, and read as soon as the files are back


def test_a_version_that_has_lost_a_file_far_behind_stops_no_upgrade(stack: Stack):
    """Rows before it are read by then, and what reads a stream raises another error."""
    lake = lake_of(stack)
    with lake.get_connection(write=True) as connection:
        connection.execute("CREATE TABLE lake.features.long (id BIGINT)")
        for part in range(30):
            start = part * 100_000
            connection.execute(
                f"INSERT INTO lake.features.long SELECT range FROM range({start}, {start + 100_000})"
            )
    files = sorted(
        Path(lake.data, "features", "long").rglob("*.parquet"), key=lambda file: file.stat().st_mtime_ns
    )
    files[-1].rename(files[-1].with_suffix(".lost"))
    with lake.get_connection() as connection, pytest.raises(OSError) as lost:
        for _ in connection.execute("FROM lake.features.long").to_arrow_reader(10_000):
            pass
    assert lake.is_loss(lost.value)
    with lake.get_connection() as connection, pytest.raises(duckdb.Error) as another:
        connection.execute("SELECT id + 'x' FROM lake.features.long LIMIT 1").fetchall()
    assert not lake.is_loss(another.value)


@pytest.mark.embedded_only("breaks MLflow's own SQLite file")
def test_a_run_of_mlflow_knows_its_pin(stack: Stack):
    overwrite(stack, contract("events"), 0, 2, 1)
    mlflow: MLflowResource = stack._resources["mlflow"]
    assert stack.features.pin("of a landed run", run_id="run-7").run_id == "run-7"  # there is no MLflow yet
    Path(mlflow.home, "mlflow").mkdir()
    client = _client(mlflow)
    from mlflow.exceptions import MlflowException

    run = client.create_run(client.create_experiment("mnist")).info.run_id
    made = stack.features.pin("paper", run_id=run)
    tags = client.get_run(run).data.tags
    assert (tags["ml_assets.pin"], tags["ml_assets.pin_version"]) == ("paper", str(made.version))
    assert values(stack.features.pinned(tags["ml_assets.pin"], "events")) == [1]
    assert stack.features.pin("of another landed run", run_id="run 8").run_id == "run 8"
    # Half of its tags would tell of a pin that is not there.
    with closing(sqlite3.connect(str(mlflow.database), isolation_level=None)) as database:
        database.execute(
            "CREATE TRIGGER faulty BEFORE UPDATE ON tags WHEN new.value = 'half' "
            "BEGIN INSERT INTO missing VALUES (1); END"
        )
    with pytest.raises(MlflowException, match="missing"):
        stack.features.pin("half", run_id=run)
    assert client.get_run(run).data.tags == tags
    assert "half" not in stack.features.pins()["name"].to_pylist()
    client.delete_run(run)
    with pytest.raises(Refusal, match="MLflow has deleted the run"):
        stack.features.pin("late", run_id=run)
    assert "late" not in stack.features.pins()["name"].to_pylist()


def _client(mlflow: MLflowResource) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow.tracking_uri(), registry_uri=mlflow.tracking_uri())


@pytest.mark.timeout(60 + 10 * CYCLES)
def test_pinned_versions_survive_maintenance(stack: Stack, record_property: Callable[[str, object], None]):
    """Days that are overwritten, emptied and split, tables that gain columns, come and go; nothing else is kept.

    `make test-all` does 1,000 cycles.
    """
    chance, lake = random.Random(17), lake_of(stack)  # noqa: S311 - repeatable, not secret
    held: dict[str, dict[str, TableState]] = {}
    shapes = (contract("events"), contract("events", Column("w", "int64")))
    passing = contract("passing")
    for cycle in range(CYCLES):
        shape = shapes[cycle * 3 > CYCLES]
        overwrite(stack, shape, chance.randrange(3), chance.randrange(4), cycle)
        if cycle % 4 == 0:
            overwrite(stack, passing, 0, 3, cycle)
        if cycle % 8 == 7:
            drop(stack, passing)
        if cycle % 3 == 0:
            made = stack.features.pin(f"p{cycle}")
            held[made.name] = dict(made.tables)
        if len(held) > 2:
            gone = chance.choice(sorted(held))
            stack.features.unpin(gone)
            del held[gone]
        maintain(stack)
        for name, noted in held.items():
            with lake.at(pins.the_pin(lake, name).version).get_connection() as connection:
                there = ledger.contracts_of_tables(connection)
                found = {each.asset: table_state(live(connection, each)) for each in there}
            assert found == noted, (cycle, name)
    with lake.get_connection() as connection:
        left = pins.versions(connection)
        assert set(pins.pinned(lake, connection).values()) <= left.keys()
    record_property("versions", len(left))


RUNS = [
    {
        "run_id": f"r{n}",
        "model_name": f"m{n % 2}",
        "created_at": FIRST + n * DAY / 2,
        "accuracy": 0.5 + n / 100,
    }
    for n in range(12)
]


def raw(stack: Stack, lift: float) -> None:
    """Write raw runs and metrics, with accuracies that are so much higher."""
    known = tables(stack.settings)
    runs, metrics = known["duckdb/raw_runs"], known["duckdb/raw_metrics"]
    rows, points = [], []
    for run in RUNS:
        values: dict[str, Any] = dict.fromkeys(runs.names)
        values |= {name: run[name] for name in ("run_id", "model_name", "created_at")}
        values |= {"experiment": "e", "status": "completed", "completed_at": run["created_at"] + DAY / 4}
        rows.append(values | {"metrics": f'{{"accuracy":{run["accuracy"] + lift}}}'})
        for step in range(3):
            point: dict[str, Any] = dict.fromkeys(metrics.names)
            point |= {"run_id": run["run_id"], "key": "loss", "step": step, "value": 1 / (step + 1)}
            points.append(point | {"timestamp": run["created_at"] + step * DAY / 24})
    write(stack, runs, pa.Table.from_pylist(rows, arrow_schema(runs)))
    write(stack, metrics, pa.Table.from_pylist(points, arrow_schema(metrics)))


def run_features(stack: Stack) -> None:
    """Make the table as its asset does."""
    of, window = tables(stack.settings)["duckdb/run_features"], Window(FIRST, FIRST + 10 * DAY)
    lake = lake_of(stack)
    keys = lake.reader(
        read_sql("duckdb/operations/metric_keys.sql"), {"start": window.start, "end": window.end}
    )
    ranked = MetricRules().table(keys.read_all()["key"].to_pylist())
    sql = read_sql("duckdb/features/run_features.sql")
    query = Query(sql, {"start": window.start, "end": window.end}, {"metric_rules": ranked})
    manager = DuckLakeIOManager(lake=lake)
    write(stack, of, manager._rows(query), window)


def test_a_table_is_made_again_hash_for_hash(stack: Stack, tmp_path: Path, cli: Any):
    features = stack.features
    raw(stack, 0.0)
    run_features(stack)
    noted = features.pin("paper").tables["duckdb/run_features"]
    raw(stack, 0.1)
    stale = features.pin("stale")  # the runs have changed, and the table has not followed yet
    run_features(stack)
    maintain(stack)
    again = features.rebuild("paper", "features.run_features", tmp_path / "paper.parquet")
    assert again.equal, str(again)
    assert (again.made, again.noted, noted.rows) == (noted, noted, len(RUNS))
    accuracies = pq.read_table(tmp_path / "paper.parquet")["accuracy"].to_pylist()
    assert sorted(accuracies) == [run["accuracy"] for run in RUNS]

    other = features.rebuild("stale", "run_features")
    assert not other.equal
    assert other.noted == stale.tables["duckdb/run_features"] == noted
    assert other.differences[0].startswith("Of 2026-01-01 there are 2 rows (")
    assert other.differences[-2] == "So does 1 more partition."
    assert other.differences[-1].startswith(
        "The first row is run_id 'r0': primary_value is 0.6 in place of 0.5, accuracy is 0.6 in place of 0.5"
    )

    with pytest.raises(Refusal, match="training_set was not made yet when 'paper' was pinned"):
        features.rebuild("paper")
    with pytest.raises(Refusal, match=r"no SQL file for raw_runs.*pinned\('paper', 'raw_runs'\)"):
        features.rebuild("paper", "raw_runs")
    with pytest.raises(Refusal, match="No version is pinned as 'papers'"):
        features.rebuild("papers", "run_features")
    commands(stack, tmp_path, cli)


def commands(stack: Stack, tmp_path: Path, cli: Any) -> None:
    """The same by the command line."""
    settings = stack.settings
    place = {
        "ML_ASSETS_POSTGRES_URL": settings.postgres_url,
        "ML_ASSETS_LAKE_URL": settings.lake_url,
        "ML_ASSETS_LAKE_DATA": settings.lake_data,
    }

    def ran(*words: str, status: int = 0) -> str:
        done = cli(settings.home, "features", *words, **place)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert "is equal: 12 rows, hash " in ran("rebuild", "paper", "--table", "run_features")
    assert "differs (12 rows, hash " in ran("rebuild", "stale", "--table", "run_features", status=1)
    told = ran("pin", "mine", "--table", "raw_runs", "--run", "mistyped")
    assert "is kept as mine: 1 table with 12 rows" in told
    assert told.endswith("mistyped is no run of MLflow: no tag.\n")
    assert "as 'mine' already" in ran("pin", "mine", status=1)
    assert [line.split(",")[0] for line in ran("pins", "--csv").splitlines()[1:]] == [
        '"paper"',
        '"stale"',
        '"mine"',
    ]
    file = tmp_path / "then.csv"
    told = ran("as-of", "run_features", shown(now()), "--out", str(file))
    assert told.startswith("12 rows of run_features as of ")
    assert "The pin mine is gone" in ran("unpin", "mine")
