"""The resources' named operations, each on its real store."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from ml_assets.contracts import tables
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.lib.metric_rules import MetricRules, PrimaryMetric
from ml_assets.operations.experiments import Experiments
from ml_assets.operations.run_best import best_models
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.settings import Settings
from ml_assets.stores import touched_days
from ml_assets.stores.postgres_table import ensure_table
from ml_assets.stores.sqlite.write import ensure_table as sqlite_ensure_table
from ml_assets.tables.land import land

TABLES = tables(Settings())

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def event(minute: int, **columns: Any) -> dict[str, Any]:
    """A performance event so many minutes after noon."""
    at = NOON + timedelta(minutes=minute)
    base = {"event_id": f"e{minute}", "kind": "inference", "timestamp": at, "model_name": "forest"}
    return {**base, "experiment": "iris", "run_id": "r1", **columns}


LATENCIES = [1.0, 2.0, 3.0, 50.0]
EVENTS = [
    *(event(n, inference_time_ms=value) for n, value in enumerate(LATENCIES)),
    event(10, kind="evaluation", accuracy=0.9),
    event(11, kind="evaluation", accuracy=0.7, run_id="r2"),
    event(61, kind="evaluation", accuracy=0.5),
    event(12, model_name="other", experiment="wine", accuracy=0.1),
]


def table_of(asset: str, rows: list[dict[str, Any]]) -> Any:
    """Rows as an Arrow table in the contract's columns."""
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema

    return pa.Table.from_pylist(rows, schema=arrow_schema(TABLES[asset]))


def test_an_experiment_is_created_changed_completed_and_found(postgres: PostgresResource) -> None:
    made = postgres.create_experiment("iris", name="first", parameters={"depth": 3}, created_at=NOON)
    postgres.update_experiment(made, status="running", parameters={"trees": 10}, metrics={"loss": 0.5})
    postgres.complete_experiment(made, metrics={"accuracy": 0.9, "energy": 1e300})
    row = postgres.get_experiment(made)
    assert row is not None
    assert isinstance(row["metrics"].pop("energy"), float)  # which is an integer in JSONB
    assert row["parameters"] == {"depth": 3, "trees": 10}
    assert row["metrics"] == {"loss": 0.5, "accuracy": 0.9}
    assert (row["name"], row["status"], row["origin"]) == ("first", "completed", "api")
    assert row["created_at"] == NOON
    assert timedelta(0) <= datetime.now(UTC) - row["completed_at"] < timedelta(minutes=1)


def test_experiments_are_listed_newest_first_and_filtered(postgres: PostgresResource) -> None:
    for n, name in enumerate(("iris", "wine", "iris")):
        postgres.create_experiment(name, id=str(n), created_at=NOON + timedelta(hours=n))
    postgres.complete_experiment("0", status="failed", error="no data")
    assert [row["id"] for row in postgres.list_experiments()] == ["2", "1", "0"]
    assert [row["id"] for row in postgres.list_experiments("iris", limit=1)] == ["2"]
    assert [(row["id"], row["error"]) for row in postgres.list_experiments(status="failed")] == [
        ("0", "no data")
    ]
    assert postgres.list_experiments(origin="graph") == []


def test_an_experiment_of_the_graph_is_not_changed(postgres: PostgresResource) -> None:
    with postgres.connect(write=True) as connection:
        ensure_table(connection, TABLES["postgres/ml_experiments"])
        connection.execute(
            "INSERT INTO ml_experiments (id, experiment, status, created_at, origin) "
            "VALUES ('r1', 'iris', 'running', now(), 'graph')"
        )
    with pytest.raises(ValueError, match="written by the graph"):
        postgres.update_experiment("r1", status="failed")
    row = postgres.get_experiment("r1")
    assert row is not None
    assert row["status"] == "running"


def test_experiments_are_deleted_and_the_graph_is_asked_to_follow(
    postgres: PostgresResource, tmp_path: Path
) -> None:
    """By rank, as `runs keep` does it, or by their ids; those of the graph stay."""
    settings = Settings(home=tmp_path)
    experiments = Experiments(
        settings.model_copy(update={"postgres_url": postgres.url}), {"postgres": postgres}
    )
    assert experiments.keep(1).candidates == []
    for n in range(3):
        at = NOON + timedelta(days=n)
        made = postgres.create_experiment(
            "iris", id=str(n), dataset="iris", created_at=at, parameters={"n": n}
        )
        postgres.complete_experiment(made, {"accuracy": n / 10})
    with postgres.connect(write=True) as connection:
        connection.execute("UPDATE ml_experiments SET origin = 'graph' WHERE id = '0'")
        connection.execute("DELETE FROM ledger.touched_days")
    for id, said in (("0", "written by the graph"), ("nobody", "there is no experiment 'nobody'")):
        with pytest.raises(ValueError, match=said):
            postgres.delete_experiments(["2", id])
    found = experiments.keep(1)
    assert [(each.run_id, each.place) for each in found.going] == [("1", "postgres")]
    assert found.remove().runs == 1
    assert sorted(row["id"] for row in postgres.list_experiments()) == ["0", "2"]
    with postgres.connect() as connection:
        assert touched_days.due_days(connection, "runs") == [(NOON + timedelta(days=1)).date()]
        for table in ("ml_run_metrics", "ml_run_params"):
            rows = connection.execute(f"SELECT run_id FROM {table} ORDER BY 1".encode()).fetchall()
            assert rows == [("0",), ("2",)]


def test_a_completed_experiment_is_not_changed(postgres: PostgresResource) -> None:
    made = postgres.create_experiment("iris")
    postgres.complete_experiment(made)
    with pytest.raises(ValueError, match="has ended at"):
        postgres.update_experiment(made, notes="too late")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"colour": "red"}, "no column 'colour'"),
        ({"origin": "graph"}, "no column 'origin'"),
        ({"status": "fine"}, "status cannot be 'fine'"),
        ({"created_at": NOON.replace(tzinfo=None)}, "has no time zone"),
        ({"metrics": {"loss": float("nan")}}, "no JSON that every store can hold"),
        ({"id": "x" * 2_501}, "id 'xxx.*more than 2,500 bytes, which no index holds; shorten it"),
        ({"model_type": "\u00e4" * 1_251}, "model_type .* has more than 2,500 bytes"),
        ({"id": "taken"}, "there is an experiment 'taken' already"),
    ],
)
def test_what_the_contract_refuses_is_refused(
    postgres: PostgresResource, columns: dict[str, Any], said: str
) -> None:
    postgres.create_experiment("iris", id="taken")
    with pytest.raises(ValueError, match=said):
        postgres.create_experiment("iris", **columns)
    assert len(postgres.list_experiments()) == 1


def test_an_experiment_that_is_not_there(postgres: PostgresResource) -> None:
    with pytest.raises(StoreUnavailable, match="postgres/ml_experiments does not exist yet"):
        postgres.get_experiment("nobody")
    postgres.create_experiment("iris")
    with pytest.raises(ValueError, match="there is no experiment 'nobody'"):
        postgres.update_experiment("nobody", notes="?")


def test_the_graph_is_asked_to_carry_an_experiment_on(postgres: PostgresResource) -> None:
    def due() -> list[date]:
        with postgres.connect() as connection:
            return touched_days.due_days(connection, "runs")

    made = postgres.create_experiment("iris", created_at=NOON)
    assert due() == [NOON.date()]
    with postgres.connect(write=True) as connection:
        touched_days.settle(connection, "runs", touched_days.touched(connection, "runs", date.min, date.max))
    assert due() == []
    postgres.update_experiment(made, created_at=NOON + timedelta(days=1))
    assert due() == [NOON.date(), NOON.date() + timedelta(days=1)]


@pytest.mark.parametrize("days", [-9_999, 9_999])
def test_an_experiment_of_a_day_that_the_graph_does_not_have_is_refused(
    postgres: PostgresResource, days: int
) -> None:
    beyond = datetime.now(UTC) + timedelta(days=days)
    with pytest.raises(ValueError, match="a day that the graph does not have; give one from 2014-01-01"):
        postgres.create_experiment("iris", created_at=beyond)
    made = postgres.create_experiment("iris", created_at=NOON)
    with pytest.raises(ValueError, match="a day that the graph does not have"):
        postgres.update_experiment(made, created_at=beyond)


def test_the_analysis_of_an_experiment_by_model_and_hour(lake: DuckLakeResource) -> None:
    from ml_assets.stores.duckdb.ddl import create_statements

    contract = TABLES["duckdb/model_performance_events"]
    with lake.get_connection(write=True) as connection:
        for statement in create_statements(contract):
            connection.execute(statement)
        connection.register("events", table_of(contract.asset, EVENTS))
        connection.execute("INSERT INTO features.model_performance_events BY NAME SELECT * FROM events")
    later, first = lake.analyze_model_performance("iris").to_pylist()
    assert first == {
        "model_name": "forest",
        "hour": NOON,
        "avg_accuracy": pytest.approx(0.8),
        "std_accuracy": pytest.approx(np.std([0.9, 0.7], ddof=1)),
        "run_count": 2,
        "evaluation_count": 2,
        "request_count": 4,
        "p95_inference_time_ms": pytest.approx(np.quantile(LATENCIES, 0.95)),
    }
    assert (later["hour"], later["evaluation_count"]) == (NOON + timedelta(hours=1), 1)
    assert (later["std_accuracy"], later["p95_inference_time_ms"]) == (None, None)


def test_the_slowest_requests_and_how_unusual_they_are(
    clickhouse: ClickHouseResource, tmp_path: Path
) -> None:
    from ml_assets.operations.performance_slow import slow_requests
    from ml_assets.stores.clickhouse.ddl import create_statement

    contract = TABLES["clickhouse/ml_model_performance"]
    more = [
        event(20, inference_time_ms=50.0, dataset="iris", batch_size=8),
        event(21, model_name="other", inference_time_ms=0.0),
        event(22, inference_time_ms=None),
    ]
    with clickhouse.client(write=True) as client:
        client.command(create_statement(contract))
        client.insert_arrow(contract.table, table_of(contract.asset, [*EVENTS, *more]))
    hours, end = timedelta(hours=2), NOON + timedelta(hours=2)
    found = slow_requests(clickhouse, None, hours, 20, end).to_pylist()
    told = [(row["event_id"], row["percentile"], row["times_median"], row["request_count"]) for row in found]
    assert told == [
        ("e3", 100.0, 50.0 / 3, 5),
        ("e20", 100.0, 50.0 / 3, 5),
        ("e2", pytest.approx(60.0), 1.0, 5),
        ("e1", pytest.approx(40.0), 2 / 3, 5),
        ("e0", pytest.approx(20.0), 1 / 3, 5),
        ("e21", 100.0, None, 1),
    ]
    assert (found[1]["dataset"], found[1]["batch_size"], found[1]["timestamp"]) == (
        "iris",
        8,
        NOON + timedelta(minutes=20),
    )
    assert slow_requests(clickhouse, None, hours, 3, end).to_pylist() == found[:3]
    assert slow_requests(clickhouse, "other", hours, 3, end).to_pylist() == found[5:]
    assert slow_requests(clickhouse, "other", "2m", 3, NOON).num_rows == 0
    assert slow_requests(clickhouse, "other", "2h", 3, end).to_pylist() == found[5:]
    given: tuple[Any, ...]
    for given, why in (
        (("othre", hours, 3, end), "did you mean 'other'"),
        ((None, timedelta(0), 3, end), "The window is not longer than nothing"),
        ((None, "soon", 3, end), "The window: 'soon' is no length of time"),
        ((None, timedelta(days=999_999), 3, end), "not within the years 1970 to 2299"),
        ((None, hours, 3, datetime.max.replace(tzinfo=UTC)), "not within the years 1970 to 2299"),
        ((None, "30d", 3, None, 7), r"Events are kept for 7 days .*: ask for a window from "),
        ((None, hours, 0, end), "0 requests cannot be listed"),
        ((None, hours, 3, end.replace(tzinfo=None)), "has no time zone"),
    ):
        with pytest.raises(Refusal, match=why):
            slow_requests(clickhouse, *cast("tuple[Any, ...]", given))


def test_the_nearest_entries_are_found_with_conditions(chroma: ChromaResource) -> None:
    with chroma.client(write=True) as client:
        collection = client.create_collection(
            "vectors", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        collection.upsert(
            ids=["east", "north", "west"],
            embeddings=[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]],
            documents=["to the east", "to the north", "to the west"],
            metadatas=[{"kind": "a", "n": 1}, {"kind": "a", "n": 2}, {"kind": "b", "n": 3}],
        )
    nearest = chroma.query_similar("vectors", [1.0, 0.1], top_k=2)
    assert [found.id for found in nearest] == ["east", "north"]
    assert nearest[0].distance == pytest.approx(1 - 1 / np.hypot(1, 0.1), abs=1e-6)
    assert (nearest[0].document, nearest[0].metadata) == ("to the east", {"kind": "a", "n": 1})
    both = chroma.query_similar("vectors", [1.0, 0.0], where={"kind": "a", "n": {"$gt": 1}})
    assert [found.id for found in both] == ["north"]
    limits: dict[str, Any]
    for limits in ({"where": {"kind": "b"}}, {"ids": ["west"]}):
        assert [found.id for found in chroma.query_similar("vectors", [1.0, 0.0], **limits)] == ["west"]


@pytest.mark.parametrize(
    ("store", "ask", "asset"),
    [
        ("lake", lambda lake: lake.analyze_model_performance("x"), "duckdb/model_performance_events"),
        ("chroma", lambda chroma: chroma.query_similar("nothing", [1.0]), "chroma/nothing"),
        ("postgres", lambda postgres: postgres.list_experiments(), "postgres/ml_experiments"),
    ],
)
def test_a_table_that_no_run_has_made_is_named(
    request: pytest.FixtureRequest, store: str, ask: Callable[[Any], Any], asset: str
) -> None:
    with pytest.raises(StoreUnavailable, match=f"The table of {asset} does not exist yet: materialize it"):
        ask(request.getfixturevalue(store))


OPERATIONS: dict[str, tuple[str, Callable[..., Any], list[dict[str, Any]]]] = {
    "clickhouse": ("performance", ClickHouseResource.record_model_performance, EVENTS),
    "lake": (
        "predictions",
        DuckLakeResource.store_batch_predictions,
        [
            {
                "prediction_id": f"p{n}",
                "model_name": "forest",
                "input_features": {"width": n},
                "prediction": "cat",
                "created_at": NOON,
            }
            for n in range(3)
        ],
    ),
}


@pytest.mark.parametrize("store", OPERATIONS)
@pytest.mark.parametrize("form", ["mappings", "arrow"])
def test_what_a_program_hands_over_is_taken_in(
    request: pytest.FixtureRequest,
    lake: DuckLakeResource,
    postgres: PostgresResource,
    tmp_path: Path,
    store: str,
    form: str,
) -> None:
    stream, operation, rows = OPERATIONS[store]
    given = rows if form == "mappings" else arrow_of(stream, rows)
    file = operation(request.getfixturevalue(store), given)
    assert file.parent == tmp_path / "landing" / stream
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    bounds = Bounds(date(2014, 1, 1), datetime.now(UTC))
    report = take_in_files(stream, list_files(file.parent), lake, postgres, bounds)
    assert (report.rows_read, report.rows_quarantined, report.days) == (len(rows), 0, {NOON.date()})


def arrow_of(stream: str, rows: list[dict[str, Any]]) -> Any:
    """Rows as an Arrow table, objects as JSON text."""
    texts = [{k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()} for row in rows]
    return table_of(
        f"duckdb/raw_{stream}", [{**row, **PREDICTED} if stream == "predictions" else row for row in texts]
    )


PREDICTED = {"prediction": '"cat"'}


def test_a_run_that_is_handed_to_the_graph_through_sqlite(
    sqlite: SQLiteResource, lake: DuckLakeResource, postgres: PostgresResource, tmp_path: Path
) -> None:
    made = sqlite.create_experiment("iris", parameters={"depth": 3})
    bounds = Bounds(date(2014, 1, 1), datetime.now(UTC))
    report = take_in_files("runs", list_files(tmp_path / "landing" / "runs"), lake, postgres, bounds)
    assert (report.rows_read, report.rows_quarantined) == (1, 0)
    with lake.asking() as ask:
        assert ask("SELECT run_id, status, parameters FROM intake.intake_runs") == [
            (made, "created", '{"depth":3}')
        ]


@pytest.mark.parametrize(
    ("stream", "row", "said"),
    [
        ("events", {}, "there is no stream 'events'"),
        ("runs", {"created_at": NOON.replace(tzinfo=None)}, "has no time zone"),
        ("runs", {"metrics": {"loss": float("nan")}}, "no JSON that every store can hold"),
    ],
)
def test_rows_that_cannot_be_handed_over_leave_no_file(
    tmp_path: Path, stream: str, row: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        land(tmp_path, stream, [row])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_collection_of_ones_own_is_made_filled_and_searched(chroma: ChromaResource) -> None:
    assert chroma.create_collection("mine", {"team": "a"})
    n = 2_001  # more than one request
    # All different: among equals, an approximate index finds whom it likes.
    [new, *vectors] = np.random.default_rng(0).normal(size=(n + 1, 16)).tolist()
    chroma.add_embeddings(
        "mine", [f"e{i}" for i in range(n)], vectors, metadatas=[{"n": i} for i in range(n)]
    )
    chroma.add_embeddings("mine", ["e0"], [new], documents=["both"])
    [found] = chroma.query_similar("mine", new, top_k=1)
    assert (found.id, found.document, found.distance) == ("e0", "both", pytest.approx(0, abs=1e-6))
    with chroma.client() as client:
        assert client.get_collection("mine", embedding_function=None).count() == n
    with pytest.raises(ValueError, match="there is a collection 'mine' already"):
        chroma.create_collection("mine")
    with pytest.raises(ValueError, match="there are 1 ids and 2 embeddings"):
        chroma.add_embeddings("mine", ["x"], [[0.0], [1.0]])
    with pytest.raises(StoreUnavailable, match="make it with create_collection"):
        chroma.add_embeddings("other", ["x"], [[0.0]])


def test_the_graph_s_collections_are_left_to_it(chroma: ChromaResource) -> None:
    for operation in (
        lambda: chroma.create_collection("document_index"),
        lambda: chroma.add_embeddings("document_index", ["x"], [[0.0]]),
    ):
        with pytest.raises(ValueError, match="collection 'document_index' is the graph's"):
            operation()


def test_experiments_are_looked_up_by_indexes(postgres: PostgresResource, sqlite: SQLiteResource) -> None:
    """In a table that was made before its contract named them, too."""
    contract = TABLES["postgres/ml_experiments"]
    with postgres.connect(write=True) as connection:
        ensure_table(connection, replace(contract, indexes=()))
        ensure_table(connection, contract)
        found = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'ml_experiments'"
        ).fetchall()
    told = "\n".join(text for (text,) in found)
    for part in ("(status)", "(model_type)", "gin (parameters jsonb_path_ops)"):
        assert part in told
    contract = TABLES["sqlite/ml_experiments"]
    with sqlite.connect(write=True) as file:
        sqlite_ensure_table(file, replace(contract, indexes=()))
        sqlite_ensure_table(file, contract)
        plans = [
            file.execute(f"EXPLAIN QUERY PLAN SELECT * FROM ml_experiments WHERE {column} = 'x'").fetchall()
            for column in ("status", "model_type")
        ]
    assert all("USING INDEX ml_experiments." in str(plan) for plan in plans)


def test_the_best_model_of_a_dataset_is_found_by_the_metric_that_judges_its_runs(
    postgres: PostgresResource,
) -> None:
    rules = MetricRules(of_dataset={"speech": PrimaryMetric("wer", "min")})
    with pytest.raises(StoreUnavailable, match="ml_experiments does not exist yet"):
        best_models(postgres, rules)
    runs = [
        ("iris", "tree", {"accuracy": 0.7, "loss": 0.1}),
        ("iris", "forest", {"val_acc": 0.9, "accuracy": 0.1}),
        ("iris", "broken", {"accuracy": "NaN"}),
        ("iris", "other", {"f1": 1.0}),
        ("diabetes", "ridge", {"rmse": 3.0, "memory_usage_mb": 300}),
        ("diabetes", "sgd", {"rmse": 2.0}),
        ("speech", "tiny", {"wer": 0.2, "accuracy": 0.9}),
        ("speech", "large", {"wer": 0.1, "accuracy": 0.8}),
        ("none", "idle", {"epoch": 3, "name": "x"}),
        ("none", "empty", None),
        (None, "alone", {"accuracy": 1.0}),
    ]
    for dataset, model, metrics in runs:
        made = postgres.create_experiment(
            "mine", id=model, dataset=dataset, model_name=model, metrics=metrics
        )
        postgres.complete_experiment(made)
    unfinished = {"metrics": {"accuracy": 0.99}, "model_name": "running"}
    postgres.create_experiment("mine", dataset="iris", **unfinished)
    found = [tuple(row.values()) for row in best_models(postgres, rules).to_pylist()]
    assert found == [
        ("diabetes", 2, "sgd", "sgd", "rmse", 2.0, False),
        ("iris", 3, "forest", "forest", "accuracy", 0.9, True),
        ("speech", 2, "large", "large", "wer", 0.1, False),
    ]
