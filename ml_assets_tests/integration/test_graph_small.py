"""`ml-assets refresh` on homes with a few files: counts, bad rows, tampering, kills. Everything embedded."""

import csv
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

import ml_assets
from ml_assets import services
from ml_assets.build import build_defs
from ml_assets.contracts import tables as contracts
from ml_assets.errors import Refusal
from ml_assets.lib.days import DayRange
from ml_assets.operations.carried import Sources
from ml_assets.operations.reconcile import Comparison, compare_values
from ml_assets.resources import store_resources
from ml_assets.settings import PROJECT_ROOT, Settings
from ml_assets.stores.registry import stores as registered

pytestmark = pytest.mark.embedded_only("works in a home of its own, whose stores are all embedded")

pytestmark = pytest.mark.timeout(900)  # whole refreshes, on machines that do other things as well

# As the README has it: one run, nothing else said about it.
README_RUN = (
    '{"run_id": "r1", "experiment": "mine", "model_name": "cats", "status": "completed", "created_at": '
    '"2026-03-01T10:00:00Z", "parameters": {"lr": 0.1}, "metrics": {"accuracy": 0.93}}\n'
)
MORE_RUNS = [
    {
        "run_id": f"s{n}",
        "experiment": "mine",
        "model_name": "dogs",
        "model_type": "random_forest",
        "status": "completed",
        "created_at": f"2026-03-0{n}T08:00:00Z",
        "completed_at": f"2026-03-0{n}T08:30:00Z",
        **more,
    }
    for n, more in ((1, {}), (2, {"metrics": {"rmse": 3.0}}), (3, {"metrics": {"eval/rmse": 2.5}}))
]
BAD_RUN = {
    "run_id": "bad",
    "experiment": "mine",
    "status": "gone fishing",
    "created_at": "2026-03-01T10:00:00Z",
}
METRICS = [
    {"run_id": "s1", "key": "loss", "step": n, "value": 1 / (n + 1), "timestamp": f"2026-03-01T08:0{n}:00Z"}
    for n in range(5)
]
EVENTS = [
    {
        "event_id": f"e{n}",
        "kind": "inference",
        "timestamp": f"2026-03-02T11:0{n}:00Z",
        "model_name": "dogs",
        "model_version": "1",
        "run_id": "s1",
        "inference_time_ms": 2.5 + n,
        "batch_size": 1,
    }
    for n in range(3)
] + [
    # Its run comes late: nothing else happens on this day, then or later.
    {
        "event_id": "early",
        "kind": "inference",
        "timestamp": "2026-02-28T11:00:00Z",
        "model_name": "dogs",
        "run_id": "s0",
        "inference_time_ms": 1.5,
    }
]
PREDICTIONS = [
    {
        "prediction_id": "p1",
        "model_name": "dogs",
        "model_version": "1",
        "input_features": {"legs": 4},
        "prediction": "dog",
        "confidence": 0.9,
        "label": "dog",
        "created_at": "2026-03-02T12:00:00Z",
    }
]
DOCUMENTS = [
    {"document_id": "d1", "title": "Dogs", "text": "Dogs bark.", "updated_at": "2026-03-01T00:00:00Z"}
]

RECONCILIATION = dg.AssetKey(["quality", "reconciliation"])
RETRIEVAL_QUALITY = dg.AssetKey(["quality", "retrieval_quality"])
LOOKBACK = 27
"""Days that model_daily_features looks back on, further than any other table."""

NOTHING = {"read": 0, "loaded": 0, "superseded": 0, "quarantined": 0}


def land(home: Path) -> None:
    """The same few files in any home."""

    def lines(rows: list[dict[str, Any]]) -> str:
        return "".join(f"{json.dumps(row)}\n" for row in rows)

    files = {
        "runs/r1.jsonl": README_RUN,
        "runs/b.jsonl.tmp": "half a fi",
        "runs/more.jsonl": lines([*MORE_RUNS, BAD_RUN]),
        # The same run once more, as it was before it ended.
        "runs/early.jsonl": lines([{**MORE_RUNS[0], "status": "running", "completed_at": None}]),
        "metrics/curve.jsonl": lines(METRICS),
        "performance/events.jsonl": lines(EVENTS),
        "predictions/p.jsonl": lines(PREDICTIONS),
        "documents/d.jsonl": lines(DOCUMENTS),
    }
    for name, text in files.items():
        file = home / "landing" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def days(first: date, last: date) -> list[str]:
    """All of them, both included."""
    return [day.isoformat() for day in DayRange(first, last).days()]


def new_home() -> Path:
    # Of this name, so that the next session stops the servers if this one is killed.
    return Path(tempfile.mkdtemp(prefix=f"mla-test-{os.getpid()}-"))


def discard(home: Path) -> None:
    services.stop_all(home)
    rmtree(home)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A fresh home with nothing in it."""
    folder = new_home()
    yield folder
    discard(folder)


@pytest.fixture(scope="module")
def empty_refresh(cli, home) -> dict[str, Any]:
    """What the first refresh told, when there was nothing."""
    return refreshed(cli, home)


@pytest.fixture(scope="module")
def small(cli, home, empty_refresh) -> dict[str, Any]:
    """What the second refresh told, when there were files."""
    land(home)
    return refreshed(cli, home)


def refreshed(cli, home: Path) -> dict[str, Any]:
    done = cli(home, "refresh", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def tables(cli, home: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows and content hash of every table, verified."""
    done = cli(home, "status", "--json", "--verify")
    assert done.returncode == 0, done.stderr
    stores = json.loads(done.stdout)["stores"]
    told = ((store, table, held) for store, told in stores.items() for table, held in told["tables"].items())
    names = ("asset", "rows", "content_hash")  # and not when it was written, and how many bytes that took
    return {(store, table): {name: held[name] for name in names} for store, table, held in told}


def test_a_fresh_empty_home_refreshes(empty_refresh, home):
    seconds = empty_refresh.pop("seconds")
    assert seconds > 0
    streams = dict.fromkeys(
        ("runs", "metrics", "performance", "predictions", "documents", "judgments"), NOTHING
    )
    assert empty_refresh == {"streams": streams, "days": [], "runs": [], "left_alone": {}}
    assert (home / "dagster" / "dagster.yaml").exists()


def test_refresh_counts_every_row(small):
    assert set(small) == {"streams", "days", "runs", "left_alone", "seconds"}
    assert small["left_alone"] == {
        "runs/b.jsonl.tmp": "unfinished by its name; rename it when it is complete"
    }
    assert small["streams"] == {
        "runs": {"read": 6, "loaded": 4, "superseded": 1, "quarantined": 1},
        "metrics": {"read": 5, "loaded": 5, "superseded": 0, "quarantined": 0},
        "performance": {"read": 4, "loaded": 4, "superseded": 0, "quarantined": 0},
        "predictions": {"read": 1, "loaded": 1, "superseded": 0, "quarantined": 0},
        "documents": {"read": 1, "loaded": 1, "superseded": 0, "quarantined": 0},
        "judgments": NOTHING,
    }
    # The last day with rows, and those after it that look back on it.
    assert small["days"] == days(date(2026, 2, 28), date(2026, 3, 3 + LOOKBACK))
    # Intake, whole tables and days, and one for each length of windows: a week, a fortnight and four weeks.
    assert len(small["runs"]) == 6


def test_intake_shows_what_it_holds(home, small):
    with dg.DagsterInstance.from_config(str(Settings(home=home).dagster_home)) as instance:
        [record] = instance.fetch_materializations(dg.AssetKey(["duckdb", "intake_runs"]), limit=1).records
    assert record.asset_materialization
    metadata = record.asset_materialization.metadata
    assert metadata["dagster/row_count"].value == 6
    assert (metadata["total_rows_read"].value, metadata["total_rows_quarantined"].value) == (6, 1)
    header, _, *rows = str(metadata["preview"].value).splitlines()
    assert "| run_id |" in header
    assert [("2026-03-03" in row, "more.jsonl" in row) for row in rows] == [(True, True)]  # of the newest day


def test_the_rows_are_in_every_store(cli, home, small):
    held = {place: table["rows"] for place, table in tables(cli, home).items()}
    for place in (
        ("duckdb", "raw_runs"),
        ("duckdb", "run_features"),
        ("duckdb", "experiment_cards"),
        ("postgres", "ml_experiments"),
        ("sqlite", "ml_experiments"),
        ("postgres", "experiment_embeddings"),
        ("chroma", "experiment_index"),
    ):
        assert held[place] == 4, place
    assert held["postgres", "ml_run_metrics"] == 4  # what r1, s2 and s3 reported, and s1 from its curve
    assert held["postgres", "ml_run_params"] == 1
    assert held["clickhouse", "ml_model_performance"] == 4
    assert held["clickhouse", "performance_hourly"] == 2
    assert held["duckdb", "ml_predictions"] == 1
    features = {
        "ml_experiment_results": 4 + 4,  # runs and events
        "model_performance_analysis": 4 + 2,  # hours of them
        "learning_curves": 5,
        "model_daily_features": 2,
        "prediction_quality": 3,  # by all, version and confidence
        "training_set": 3,  # of r1 nobody knows the end
    }
    assert {name: held["duckdb", name] for name in features} == features
    assert held["chroma", "document_index"] == 1
    assert held["postgres", "online_features"] == 2  # cats and dogs
    assert held["redis", "online_features"] == 2
    assert held["redis", "model_daily_features"] == 0  # what holds for seven days is long over


COUNTS = {
    "postgres": "SELECT count(*) AS n FROM ml_experiments",
    "duckdb": "SELECT count(*) AS n FROM features.run_features",
    "clickhouse": "SELECT count() AS n FROM ml_model_performance",
    "sqlite": "SELECT count(*) AS n FROM ml_experiments",
}
"""Of tables with four rows."""

WRITES = {
    "postgres": [
        "DELETE FROM ml_experiments",
        "DELETE FROM ml_experiments RETURNING id",
        "WITH gone AS (DELETE FROM ml_experiments RETURNING id) SELECT * FROM gone",
        "SELECT 1; COMMIT; DELETE FROM ml_experiments",
        "SET TRANSACTION READ WRITE",
        "DO $$ BEGIN SET TRANSACTION READ WRITE; DELETE FROM ml_experiments; END $$",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "COPY ml_experiments TO '{folder}/copied'",
    ],
    "duckdb": [
        "DELETE FROM features.run_features",
        "SELECT 1; DELETE FROM features.run_features",
        "COPY features.run_features TO '{folder}/copied'",
        "ATTACH '{folder}/copied'",
        "EXPLAIN ANALYZE DELETE FROM features.run_features",
        "FROM ducklake_expire_snapshots('lake', older_than => now())",
        "FROM ducklake_cleanup_old_files('lake', cleanup_all => true)",
        "FROM query('FROM ducklake_delete_' || 'orphaned_files(''lake'', cleanup_all => true)')",
        "FROM postgres_execute('__ducklake_metadata_lake', 'DELETE FROM public.ducklake_snapshot')",
    ],
    "clickhouse": [
        "TRUNCATE TABLE ml_model_performance",
        "INSERT INTO ml_model_performance SELECT * FROM ml_model_performance",
        "SELECT 1 SETTINGS readonly = 0",
        "SET readonly = 0; TRUNCATE TABLE ml_model_performance",
    ],
    "sqlite": [
        "DELETE FROM ml_experiments",
        "DELETE FROM ml_experiments RETURNING id",
        "SELECT 1; DELETE FROM ml_experiments",
        "PRAGMA query_only = OFF",
        "COMMIT",
        "ATTACH '{folder}/copied' AS other",
    ],
}


def test_a_query_is_answered_and_can_change_nothing(cli, home, small, tmp_path):
    stack = ml_assets.connect(home)
    for store, writes in WRITES.items():
        for write in writes:
            with pytest.raises(Refusal) as refused:
                stack.sql(store, write.format(folder=tmp_path))
            assert str(refused.value).endswith("."), write
        assert stack.sql(store, COUNTS[store]).to_pylist() == [{"n": 4}]
        with pytest.raises(Refusal, match=r"cannot answer this: .*nowhere"):
            stack.sql(store, "SELECT * FROM nowhere")
    assert list(tmp_path.iterdir()) == []
    tables(cli, home)  # what each store holds is what its ledger says


def test_what_is_asked_comes_in_the_types_of_the_store(home, small):
    stack = ml_assets.connect(home)
    told = stack.sql(
        "postgres",
        "SELECT e.id, parameters, embedding, e.created_at FROM ml_experiments e JOIN experiment_embeddings x "
        "ON x.run_id = e.id WHERE e.id = 'r1'",
    )
    assert [str(kind) for kind in told.schema.types] == [
        "string",
        "string",
        "list<item: float>",
        "timestamp[us, tz=UTC]",
    ]
    assert (json.loads(told["parameters"][0].as_py()), len(told["embedding"][0])) == ({"lr": 0.1}, 384)
    parameters = stack.sql(
        "sqlite", "SELECT value FROM ml_experiments e, json_each(parameters) WHERE e.id = 'r1'"
    )
    assert parameters.to_pylist() == [{"value": 0.1}]


def test_every_table_can_be_exported(home, small, tmp_path):
    """By Parquet, which is read again; nothing but the stores' own reading differs from one to another."""
    stack = ml_assets.connect(home)
    tables = stack.tables()
    assert {"ml_experiments", "experiment_index", "online_features"} <= set(tables["table"].to_pylist())
    for row in tables.to_pylist():
        if row["rows"]:
            path = tmp_path / "x.parquet"
            assert stack.export(f"{row['store']}/{row['table']}", path, overwrite=True) == row["rows"], row
            assert pq.read_metadata(path).num_rows == row["rows"]
    with pytest.raises(Refusal, match=r"several tables 'ml_experiments': name one of postgres/.*, sqlite/"):
        stack.export("ml_experiments", tmp_path / "y.csv")
    with pytest.raises(Refusal, match="no table 'ml_experiment'"):
        stack.export("ml_experiment", tmp_path / "y.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_the_page_s_example_runs_where_no_server_does(cli, home, small, tmp_path, monkeypatch):
    services.stop_all(home)
    monkeypatch.setenv("ML_ASSETS_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    page = (PROJECT_ROOT / "docs" / "home.md").read_text()
    found: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], found)  # noqa: S102 - our own page
    assert found["health"]["home"] == str(home)
    assert found["health"]["stores"]["postgres"]["state"] == "down"  # telling of it starts nothing
    assert found["tables"].num_rows > 20
    assert found["best"].to_pylist()[0]["accuracy"] == "0.93"
    assert [found[name].num_rows for name in ("by_model", "hourly", "files")] == [2, 2, 4]
    assert pq.read_table("run_features.parquet").num_rows == 4
    with Path("embeddings.csv").open(newline="") as file:
        [vector, *others] = [json.loads(row["embedding"]) for row in csv.DictReader(file)]
    assert (len(others), len(vector)) == (3, 384)
    with duckdb.connect("index.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM experiment_index").fetchall() == [(4,)]
    monkeypatch.undo()
    # A server that was started again serves its copies once they were compared.
    assert cli(home, "recover").returncode == 0


def test_the_commands_print_and_write_the_same(cli, home, small, tmp_path):
    query = "SELECT id, parameters FROM ml_experiments WHERE id = 'r1'"
    assert json.loads(cli(home, "sql", "sqlite", query, "--json").stdout) == [
        {"id": "r1", "parameters": '{"lr":0.1}'}
    ]
    rows = csv.DictReader(cli(home, "sql", "sqlite", query, "--csv").stdout.splitlines())
    assert list(rows) == [{"id": "r1", "parameters": '{"lr":0.1}'}]
    assert '{"lr":0.1}' in cli(home, "sql", "sqlite", query).stdout
    done = cli(home, "sql", "postgres", "DELETE FROM ml_experiments")
    assert (done.returncode, done.stderr.startswith("PostgreSQL is only read here: ")) == (1, True)
    file = tmp_path / "x.csv"
    assert cli(home, "export", "run_features", str(file)).stdout == f"4 rows written to {file}.\n"
    done = cli(home, "export", "run_features", str(file))
    assert (done.returncode, "--overwrite" in done.stderr) == (1, True)
    assert cli(home, "export", "run_features", str(file), "--overwrite").returncode == 0
    assert f"Home: {home}\n" in cli(home, "status").stdout


def test_the_bad_row_is_kept_with_its_reason(home, small):
    lake = store_resources(Settings(home=home))["lake"]
    with lake.asking() as ask:
        [(reason, text)] = ask(
            "SELECT quarantine_reason, raw_text FROM intake.intake_runs WHERE quarantine_reason IS NOT NULL"
        )
    assert "status" in reason
    assert json.loads(text) == BAD_RUN


def test_a_rebuild_tells_where_the_rows_of_each_file_went(home, small):
    settings = Settings(home=home)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        (record,) = instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(["duckdb", "raw_runs"]), asset_partitions=["2026-03-03"]),
            limit=1,
        ).records
    assert record.asset_materialization is not None
    told = record.asset_materialization.metadata
    assert isinstance(told["newest_files"], dg.TableMetadataValue)
    assert (told["rows_loaded"].value, told["rows_superseded"].value) == (4, 1)
    accounts = {each.data["unit"]: each.data for each in told["newest_files"].records}
    assert accounts["more.jsonl"] == {
        "unit": "more.jsonl",
        "read": 4,
        "loaded": 3,
        "superseded": 0,
        "quarantined": 1,
    }


def test_a_run_that_has_rmse_alone_is_in_every_room(home, small):
    stack = ml_assets.connect(home)
    features = stack.sql(
        "duckdb",
        "SELECT run_id, primary_metric, primary_metric_key, primary_value, primary_higher_is_better, "
        "previous_primary_value, metrics FROM features.run_features WHERE primary_metric = 'rmse' ORDER BY run_id",
    )
    assert [tuple(row.values()) for row in features.to_pylist()] == [
        ("s2", "rmse", "rmse", 3.0, False, None, '{"rmse":3.0}'),
        ("s3", "rmse", "eval/rmse", 2.5, False, 3.0, '{"eval/rmse":2.5}'),
    ]
    card = stack.sql(
        "postgres", "SELECT text, metadata FROM experiment_embeddings WHERE run_id = 's3'"
    ).to_pylist()[0]
    assert "Primary metric rmse 2.5, logged as eval/rmse; lower is better." in card["text"]
    assert "Rmse improved by 0.5 against the run before." in card["text"]
    assert "Metrics eval/rmse=2.5." in card["text"]
    assert json.loads(card["metadata"])["primary_metric"] == "rmse"
    served = stack.sql(
        "postgres",
        "SELECT run_id, primary_metric, primary_value, primary_higher_is_better, previous_best_primary_value, "
        "primary_change FROM online_features WHERE model_name = 'dogs'",
    )
    assert list(served.to_pylist()[0].values()) == ["s3", "rmse", 2.5, False, 3.0, -0.5]


def test_a_prediction_keeps_its_version_and_is_judged(home, small):
    lake = store_resources(Settings(home=home))["lake"]
    with lake.asking() as ask:
        scored = ask("SELECT model_name, model_version, confidence, is_correct FROM features.ml_predictions")
    assert scored == [("dogs", "1", 0.9, True)]


def test_refreshing_again_does_nothing(cli, home, small):
    before = tables(cli, home)
    again = refreshed(cli, home)
    assert (again["days"], again["runs"]) == ([], [])
    assert set(map(json.dumps, again["streams"].values())) == {json.dumps(NOTHING)}
    assert tables(cli, home) == before


KILL_AFTER_INTAKE = 4
"""Materializations: a table or two of five are taken in."""

KILL_IN_THE_MIDDLE = 30
"""Materializations, one a day and table: the daily tables are being built."""


def events(home: Path) -> int:
    """Materializations that Dagster has noted so far."""
    index = home / "dagster" / "history" / "runs" / "index.db"
    if not index.exists():
        return 0
    with sqlite3.connect(f"file:{index}?mode=ro", uri=True, timeout=5) as connection:
        try:
            found = connection.execute(
                "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
            )
            return found.fetchone()[0]
        except sqlite3.OperationalError:
            return 0  # the tables are not there yet


def run_checks(home: Path) -> dict[tuple[str, str], bool]:
    """Run every check on what the stores hold now: whether it passed, by table and name."""
    settings = Settings(home=home)
    # The checks of these are part of their assets.
    of_assets = dg.AssetSelection.checks_for_assets(RECONCILIATION, RETRIEVAL_QUALITY)
    alone = dg.AssetSelection.all_asset_checks() - of_assets
    checks = dg.define_asset_job("every_check", selection=alone)
    defs = dg.Definitions.merge(build_defs(settings), dg.Definitions(jobs=[checks]))
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        result = defs.resolve_job_def("every_check").execute_in_process(instance=instance)
    evaluations = result.get_asset_check_evaluations()
    # A warning is no failure: the input has a row that belongs in quarantine.
    return {
        (e.asset_key.to_user_string(), e.check_name): e.passed or e.severity == dg.AssetCheckSeverity.WARN
        for e in evaluations
    }


def passed_checks(home: Path) -> int:
    found = run_checks(home)
    assert {check for check, passed in found.items() if not passed} == set()
    return len(found)


def tamper(home: Path) -> None:
    """Change one table of each store behind the graph's back."""
    stores = store_resources(Settings(home=home))
    with stores["postgres"].connect(write=True) as connection:
        connection.execute("UPDATE ml_experiments SET status = 'gone fishing' WHERE id = 's1'")
        connection.execute("DELETE FROM ml_run_metrics WHERE run_id = 's1'")
        connection.execute("UPDATE ml_run_params SET key = 'rate'")
    with stores["lake"].get_connection(write=True) as connection:
        connection.execute("DELETE FROM features.run_features WHERE run_id = 's2'")
    with stores["sqlite"].connect(write=True) as connection:
        connection.execute("PRAGMA defer_foreign_keys = on")
        connection.execute("DELETE FROM ml_experiments WHERE id = 's3'")
    with stores["clickhouse"].client(write=True) as client:
        client.command("INSERT INTO ml_model_performance SELECT * FROM ml_model_performance LIMIT 1")
    with stores["chroma"].client(write=True) as client:
        collection = client.get_collection("experiment_index")
        collection.delete(ids=collection.get(limit=1)["ids"])
    if (cache := stores["redis"].client()) is not None:
        with cache:
            [rows] = [
                name for name in cache.keys("ml-assets:serving/online_features:*") if cache.ttl(name) < 0
            ]
            cache.hset(rows, "cats", cache.hget(rows, "dogs"))


TAMPERED = {
    "postgres/ml_experiments",
    "postgres/ml_run_metrics",
    "postgres/ml_run_params",
    "duckdb/run_features",
    "sqlite/ml_experiments",
    "clickhouse/ml_model_performance",
    "chroma/experiment_index",
}


def execute_in(store: str, statement: str) -> Callable[[dict[str, Any]], None]:
    """What changes a store that answers SQL behind the graph's back."""

    def change(stores: dict[str, Any]) -> None:
        opened = {
            "lake": lambda: stores["lake"].get_connection(write=True),
            "clickhouse": lambda: stores["clickhouse"].client(write=True),
        }.get(store, lambda: stores[store].connect(write=True))
        with opened() as connection:
            done = (connection.command if store == "clickhouse" else connection.execute)(statement)
            assert store not in ("postgres", "sqlite") or done.rowcount == 1

    return change


def change_document(text: str) -> Callable[[dict[str, Any]], None]:
    """What gives an entry of Chroma another text."""

    def change(stores: dict[str, Any]) -> None:
        with stores["chroma"].client(write=True) as client:
            collection = client.get_collection("document_index")
            entry = collection.get(limit=1, include=["embeddings"])
            # With the vector, as Chroma would embed the text by itself.
            collection.update(ids=entry["ids"], documents=[text], embeddings=entry["embeddings"])

    return change


def change_served(dataset: str | None) -> Callable[[dict[str, Any]], None]:
    """What gives a row that Redis answers with another dataset."""

    def change(stores: dict[str, Any]) -> None:
        with stores["redis"].client() as cache:
            [name] = [key for key in cache.keys("ml-assets:serving/online_features:*") if cache.ttl(key) < 0]
            row = {**json.loads(cache.hget(name, "cats")), "dataset": dataset}
            cache.hset(name, "cats", json.dumps(row))

    return change


def set_value(store: str, table: str, column: str, row: str, before: str, after: str) -> tuple[Any, Any]:
    """The change of one value, and what takes it back; the values as SQL."""
    form = "ALTER TABLE {} UPDATE {} = {} WHERE {} SETTINGS mutations_sync = 2"
    if store != "clickhouse":
        form = "UPDATE {} SET {} = {} WHERE {}"
    return (
        execute_in(store, form.format(table, column, after, row)),
        execute_in(store, form.format(table, column, before, row)),
    )


CHANGES = {
    # Which table says so: how one value is changed and set back, and the key and the column that are named.
    "duckdb/raw_runs": (
        set_value("lake", "raw.raw_runs", "model_type", "run_id = 's2'", "'random_forest'", "'tree'"),
        ("s2", "model_type"),
    ),
    "duckdb/raw_predictions": (
        set_value("lake", "intake.intake_predictions", "confidence", "true", "0.9", "0.25"),
        ("p1", "confidence"),
    ),
    "postgres/ml_experiments": (
        set_value("postgres", "ml_experiments", "model_type", "id = 's1'", "'random_forest'", "'tree'"),
        ("s1", "model_type"),
    ),
    "postgres/ml_run_metrics": (
        set_value("postgres", "ml_run_metrics", "last", "run_id = 's2'", "3.0", "3.0000000001"),
        ("s2 rmse", "last"),
    ),
    "postgres/ml_run_params": (
        set_value("postgres", "ml_run_params", "text", "run_id = 'r1'", "'0.1'", "'0.10'"),
        ("r1 lr", "text"),
    ),
    "sqlite/ml_experiments": (
        set_value("sqlite", "ml_experiments", "status", "id = 's3'", "'completed'", "'failed'"),
        ("s3", "status"),
    ),
    "clickhouse/ml_model_performance": (
        set_value(
            "clickhouse", "ml_model_performance", "kind", "event_id = 'e1'", "'inference'", "'evaluation'"
        ),
        ("e1", "kind"),
    ),
    "postgres/document_embeddings": (
        set_value("postgres", "document_embeddings", "title", "true", "'Dogs'", "'Cats'"),
        ("d1", "title"),
    ),
    "chroma/document_index": (
        (change_document("Cats meow."), change_document("Dogs bark.")),
        ("d1", "text"),
    ),
    "serving/online_features": ((change_served("pets"), change_served(None)), ("cats", "dataset")),
}


@pytest.mark.parametrize("asset", CHANGES)
def test_one_changed_value_in_any_store_is_named(home, small, asset):
    """Of a table, and of a copy that is served; nothing differs before and after."""
    settings = Settings(home=home)
    stores = store_resources(settings)
    held = {store.prefix: store for store in registered(stores)}
    sources = Sources(held, stores["lake"], stores["postgres"], settings.metric_rules)

    def differing() -> list[Comparison]:
        return [c for c in compare_values(sources, contracts(settings), {asset}) if not c.agrees]

    (change, take_back), (key, column) = CHANGES[asset]
    assert not differing()
    change(stores)
    try:
        [found] = differing()
    finally:
        take_back(stores)
    # The key of a passage goes on with a hash.
    assert [(cell.key.partition("#")[0], cell.column) for cell in found.cells] == [(key, column)]
    assert f"{column!r} of {found.cells[0].key!r} is " in found.told
    assert not differing()


def test_tampering_is_noticed_and_mended(cli, home, small):
    """A check fails for each tampered table, `--verify` names it, a rebuild mends it."""
    before = tables(cli, home)
    tamper(home)

    failed = {asset for (asset, _), passed in run_checks(home).items() if not passed}
    assert failed >= TAMPERED

    # A copy, which no check looks at.
    tampered = TAMPERED | {"redis/online_features"}
    done = cli(home, "status", "--verify", "--json")
    assert done.returncode == 1
    named = {line.split(" ")[0] for line in done.stderr.splitlines()}
    assert named == tampered
    differences = json.loads(done.stdout)["differences"]
    assert {f"{d['store']}/{d['table']}" for d in differences} == tampered

    rebuild(home)
    if (cache := store_resources(Settings(home=home))["redis"].client()) is not None:
        with cache:
            cache.flushdb()  # a cache that is empty is no difference
        told = json.loads(cli(home, "status", "--verify", "--json").stdout)
        assert told["differences"] == []
        assert "online_features is not cached now" in told["stores"]["redis"]["detail"]
        assert cli(home, "recover").returncode == 0
        told = json.loads(cli(home, "status", "--verify", "--json").stdout)
        assert (told["differences"], told["stores"]["redis"]["detail"]) == ([], "")
    assert tables(cli, home) == before
    assert passed_checks(home) > 40


def rebuild(home: Path, assets: Iterable[str] = tuple(TAMPERED)) -> None:
    """As from the UI: materialize tables."""
    settings = Settings(home=home)
    defs = build_defs(settings)
    job, graph = defs.resolve_implicit_global_asset_job_def(), defs.resolve_asset_graph()
    keys = [dg.AssetKey.from_user_string(asset) for asset in assets]
    days = {
        "dagster/asset_partition_range_start": "2026-02-28",
        "dagster/asset_partition_range_end": "2026-03-03",
    }
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        for key in sorted(keys, key=graph.toposorted_asset_keys.index):
            daily = graph.get(key).partitions_def is not None
            job.execute_in_process(instance=instance, asset_selection=[key], tags=days if daily else {})


LATE_RUNS = [
    {
        "run_id": "s0",
        "experiment": "mine",
        "model_name": "dogs",
        "status": "completed",
        "created_at": "2026-02-01T08:00:00Z",
        "completed_at": "2026-02-01T08:30:00Z",
        "metrics": {"accuracy": 0.5},
    }
]
LATE_METRICS = [
    # Known when s1 ended, and not: only the first is what later runs look back on.
    {"run_id": "s1", "key": "accuracy", "step": 0, "value": 0.7, "timestamp": "2026-03-01T08:20:00Z"},
    {"run_id": "s1", "key": "accuracy", "step": 1, "value": 0.8, "timestamp": "2026-03-01T09:00:00Z"},
    # So late that its day is rebuilt by another run than its run's.
    {"run_id": "s1", "key": "accuracy", "step": 2, "value": 0.9, "timestamp": "2026-03-19T09:00:00Z"},
]


def land_late(home: Path) -> None:
    for stream, rows in {"runs": LATE_RUNS, "metrics": LATE_METRICS}.items():
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (home / "landing" / stream / "late.jsonl").write_text(text)


def joined(home: Path) -> list[tuple[Any, ...]]:
    lake = store_resources(Settings(home=home))["lake"]
    with lake.asking() as ask:
        return ask(
            "SELECT event_id, trained_accuracy, model_age_s FROM features.model_performance_events "
            "WHERE event_id IN ('early', 'e0') ORDER BY ALL"
        )


def looked_back(home: Path) -> list[tuple[Any, ...]]:
    lake = store_resources(Settings(home=home))["lake"]
    with lake.asking() as ask:
        return ask(
            "SELECT run_id, previous_runs, previous_accuracy, previous_best_accuracy "
            "FROM features.run_features WHERE model_name = 'dogs' ORDER BY created_at"
        )


def test_what_came_late_is_looked_back_on_as_if_it_had_come_in_time(cli, home, small):
    """After those that count: it adds rows to the home."""
    assert joined(home) == [("e0", None, 95_400.0), ("early", None, None)]
    land_late(home)
    assert refreshed(cli, home)["days"] == days(
        date(2026, 2, 1), date(2026, 3, 19) + timedelta(days=LOOKBACK)
    )
    assert joined(home) == [("e0", 0.9, 95_400.0), ("early", 0.5, 2_341_800.0)]
    assert looked_back(home) == [
        ("s0", 0, None, None),
        ("s1", 1, 0.5, 0.5),
        ("s2", 2, 0.7, 0.7),
        ("s3", 3, None, 0.7),
    ]
    with store_resources(Settings(home=home))["postgres"].asking() as ask:
        asked = (
            "SELECT last, best, count, last_step FROM ml_run_metrics WHERE run_id = 's1' AND key = 'accuracy'"
        )
        assert ask(asked) == [(0.9, 0.9, 3, 2)]
    assert refreshed(cli, home)["days"] == []


def test_killed_refreshes_that_find_everything_at_once_end_in_the_same_rows(cli, home, small):
    """After the one above, whose late files it has from the beginning."""
    wanted = tables(cli, home)
    other = new_home()
    try:
        land(other)
        land_late(other)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
        for milestone in (KILL_AFTER_INTAKE, KILL_IN_THE_MIDDLE):
            child = subprocess.Popen(
                [sys.executable, "-m", "ml_assets.cli", "refresh"],
                env={**environment, "ML_ASSETS_HOME": str(other)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            deadline = time.monotonic() + 120
            while child.poll() is None and events(other) < milestone and time.monotonic() < deadline:
                time.sleep(0.02)
            child.kill()
            assert child.wait() == -9, "the refresh ended before it was killed"
        refreshed(cli, other)
        assert tables(cli, other) == wanted
        assert passed_checks(other) > 40
    finally:
        discard(other)


def test_experiments_of_an_application_are_carried_on_beside_the_graph_s(cli, home, small):
    """On a day that has runs of the graph, too; afterwards every store and every check agrees.

    After those that count: it adds a row to the home.
    """
    postgres = store_resources(Settings(home=home))["postgres"]
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    made = postgres.create_experiment(
        "mine", id="a1", dataset="pets", parameters={"lr": "0.1"}, created_at=at
    )
    postgres.complete_experiment(made, {"accuracy": 0.5})
    assert refreshed(cli, home)["days"] == days(date(2026, 3, 1), date(2026, 3, 1 + LOOKBACK))
    with store_resources(Settings(home=home))["sqlite"].connect() as connection:
        held = connection.execute("SELECT id, status FROM ml_experiments ORDER BY id").fetchall()
        data = connection.execute("SELECT experiment_id, dataset_name FROM ml_training_data").fetchall()
    assert {("a1", "completed"), ("r1", "completed"), ("s1", "completed")} <= set(held)
    assert data == [("a1", "pets")]
    assert [row["id"] for row in postgres.list_experiments(origin="api")] == ["a1"]
    with postgres.connect() as connection:
        found = connection.execute(
            "SELECT run_id, best FROM ml_run_metrics WHERE key = 'accuracy' AND best < 0.95"
        )
        assert {("a1", 0.5), ("r1", 0.93)} <= set(found.fetchall())
        found = connection.execute(
            "SELECT run_id, origin FROM ml_run_params WHERE key = 'lr' AND number = 0.1"
        )
        assert sorted(found.fetchall()) == [("a1", "api"), ("r1", "graph")]
    told = json.loads(cli(home, "runs", "best", "--json").stdout)
    assert [(best["dataset"], best["run_id"], best["metric"], best["value"]) for best in told] == [
        ("pets", "a1", "accuracy", 0.5)
    ]
    assert passed_checks(home) > 40
    assert reconciled(home)


def test_what_mlflow_has_forgotten_is_rebuilt_as_it_was(cli, home, small):
    """Files and datasets of its runs, after the store and the files are gone; a row's folder is never outside.

    After those that count: it adds rows to the home.
    """
    settings = Settings(home=home)
    client = log_to_mlflow(settings)
    row = {**MORE_RUNS[0], "run_id": "outside", "artifact_uri": "file:///proc/self"}
    (home / "landing" / "runs" / "outside.jsonl").write_text(json.dumps(row) + "\n")
    refreshed(cli, home)
    before = files_and_datasets(home)
    files, datasets = before
    assert [(path, size) for path, size, _, digest in files if digest] == [("model/a.onnx", 5)]
    assert [path for path, *_ in files] == ["", "model/a.onnx"]
    assert datasets == [("a1", "pets", None, None, None), ("of MLflow", "iris", "abc", "training", 150)]
    with store_resources(settings)["lake"].asking() as ask:
        assert ask("SELECT point_count, best_loss FROM features.run_features WHERE point_count > 50") == [
            (60, 0.5)
        ]

    assert client.tracking_uri == settings.embedded_mlflow_uri
    for path in (home / "mlflow").iterdir():
        rmtree(path) if path.is_dir() else path.unlink()
    rebuild(home, ["sqlite/ml_model_artifacts", "sqlite/ml_training_data"])
    assert files_and_datasets(home) == before
    assert passed_checks(home) > 40
    with store_resources(settings)["sqlite"].connect(write=True) as connection:
        connection.execute("UPDATE ml_training_data SET digest = NULL, row_count = NULL")
        connection.execute("UPDATE ml_model_artifacts SET sha256 = NULL")
    failed = {asset for (asset, _), passed in run_checks(home).items() if not passed}
    assert failed == {"sqlite/ml_model_artifacts", "sqlite/ml_training_data"}


def log_to_mlflow(settings: Settings) -> Any:
    """A run with a file, a dataset and sixty points of one millisecond."""
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

    settings.embedded_mlflow_artifacts.mkdir(parents=True)
    client = MlflowClient(tracking_uri=settings.embedded_mlflow_uri)
    location = (settings.embedded_mlflow_artifacts / "mine").as_uri()
    start = int(datetime(2026, 3, 2, 9, tzinfo=UTC).timestamp() * 1000)
    run_id = client.create_run(
        client.create_experiment("of MLflow", artifact_location=location), start_time=start
    ).info.run_id
    client.log_batch(run_id, [Metric("loss", 0.5 + n, start, 0) for n in range(60)])
    client.log_text(run_id, "hello", "model/a.onnx")
    dataset = Dataset("iris", "abc", "local", "{}", None, '{"num_rows": 150}')
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    client.set_terminated(run_id, end_time=start + 60_000)
    return client


def files_and_datasets(home: Path) -> tuple[list[Any], list[Any]]:
    """What the tables hold of the files and the datasets of all runs."""
    with store_resources(Settings(home=home))["sqlite"].connect() as connection:
        files = connection.execute(
            "SELECT json_extract(metadata, '$.path') AS path, size_bytes, experiment_id, sha256 "
            "FROM ml_model_artifacts ORDER BY path"
        ).fetchall()
        datasets = connection.execute(
            "SELECT iif(length(experiment_id) = 32, 'of MLflow', experiment_id), dataset_name, digest, context, "
            "row_count FROM ml_training_data ORDER BY dataset_name DESC"
        ).fetchall()
    return files, datasets


def reconciled(home: Path) -> bool:
    """Compare the stores: whether every number agrees."""
    settings = Settings(home=home)
    job = build_defs(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        result = job.execute_in_process(instance=instance, asset_selection=[RECONCILIATION])
    [evaluation] = result.get_asset_check_evaluations()
    assert evaluation.passed, evaluation.description
    return evaluation.passed


def dagster_environment(home: Path) -> dict[str, str]:
    """As the README has it for Dagster's own commands."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    return {**inherited, "PATH": path, "ML_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}


def test_dg_launch_takes_a_range_in_one_run(home, small):
    """At the end of this file, since it makes tables newer than those that read them."""
    features = dg.AssetKey(["duckdb", "run_features"])
    settings = Settings(home=home)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        before = instance.get_runs_count()
        launched = ["dg", "launch", "--assets", 'key:"duckdb/run_features"']
        launched += ["--partition-range", "2026-03-01...2026-03-03"]
        done = subprocess.run(
            launched,
            cwd=PROJECT_ROOT,
            env=dagster_environment(home),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert instance.get_runs_count() == before + 1
        [run] = instance.get_runs(limit=1)
        records = instance.fetch_materializations(features, limit=3).records
    assert {record.partition_key for record in records} == {"2026-03-01", "2026-03-02", "2026-03-03"}
    assert {record.run_id for record in records} == {run.run_id}


def test_dg_dev_serves_the_graph_and_stops_on_ctrl_c(home, small, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            ["dg", "dev", "--port", str(port)],
            cwd=PROJECT_ROOT,
            env=dagster_environment(home),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while not serves(port):
            assert server.poll() is None, (tmp_path / "log").read_text()[-4000:]
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-4000:]
            time.sleep(0.5)
        os.killpg(server.pid, signal.SIGINT)  # as a terminal does
        server.wait(120)
        assert not serves(port)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def serves(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as answer:
            return "dagster_version" in json.load(answer)
    except OSError:
        return False


def test_every_feature_table_of_a_pin_is_made_again_hash_for_hash(home, small):
    features = ml_assets.connect(home).features
    pin = features.pin("as refreshed")
    made = [name for name in pin.files if f"duckdb/{name}" in pin.tables]
    assert "run_features" in made
    try:
        for name in made:
            found = features.rebuild(pin.name, name)
            assert found.equal, str(found)
    finally:
        features.unpin(pin.name)
