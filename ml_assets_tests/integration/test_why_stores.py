"""Why a model became worse, on the events of a demo that was really run, by all stores and the command line."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.contracts import Column, Contract, tables
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.operations.performance_regressions import find
from ml_assets.operations.why import Stores, why
from ml_assets.resources import store_resources
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stack import Stack
from ml_assets.stores.clickhouse.ddl import ensure_table
from ml_assets.stores.duckdb import pins
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE

DEMO = Path(__file__).parents[1] / "demo_events" / "demo_events.parquet"
SHIFT = datetime(2026, 11, 24, tzinfo=UTC)
NOTE = "The rows of the day differ from those before in 23 of 64 features."
TRAINING = """-- Runs to learn from.
-- entity: run_id
-- event_time: created_at
-- known_time: created_at
-- key: run_id
-- owner: team:ml
SELECT run_id, created_at FROM features.sources WHERE run_id != '{left_out}'
"""


def events(stack: Stack) -> list[dict[str, Any]]:
    """Write the demo's events and what is made of them; the regressions."""
    contracts = tables(stack.settings)
    with stack._resources["clickhouse"].client(write=True) as client:
        for name in (
            "ml_model_performance",
            "performance_hourly",
            "performance_regressions",
            "feature_drift",
        ):
            ensure_table(client, contracts[f"clickhouse/{name}"])
        client.insert_arrow("ml_model_performance", pq.read_table(DEMO))
        window = {"start_us": 0, "end_us": 4_000_000_000_000_000}
        hours = client.query_arrow(read_sql("clickhouse/performance_hourly.sql"), window, use_strings=True)
        client.insert_arrow("performance_hourly", hours)
        rows = find(client)
        schema = arrow_schema(contracts["clickhouse/performance_regressions"])
        client.insert_arrow("performance_regressions", pa.Table.from_pylist(rows, schema))
        client.command(
            """INSERT INTO feature_drift (day, model_name, subject, feature, slice, slice_value, kind, ks, psi, threshold,
                corrected_p, state)
            SELECT toDateTime64('2026-11-23 00:00:00', 6, 'UTC') + toIntervalDay(intDiv(number, 64)), 'digits-mlp',
                'input', 'pixel_' || toString(number % 64), 'all', '', 'number', 0.05 + number / 200, 0.3, 0.1, 1e-9,
                if(number >= 64 AND number % 64 < 50, 'drift', 'none')
            FROM numbers(128)"""
        )
    return rows


def runs(stack: Stack, rows: list[dict[str, Any]]) -> list[str]:
    """Record the runs behind the episode as the demo has them; their ids, the one that was made that day the last."""
    row = next(row for row in rows if (row["model_name"], row["metric"]) == ("digits-mlp", "accuracy"))
    before, after = (orjson.loads(row[name]) for name in ("runs_before", "runs_after"))
    ids = [before[-1]["run_id"], after[0]["run_id"], after[1]["run_id"]]
    for n, run_id in enumerate(ids):
        data = {"name": "digits", "digest": f"digest{n}", "context": "training", "row_count": 900 + 66 * n}
        stack.experiments.create(
            "demo-digits",
            id=run_id,
            model_name="digits-mlp",
            model_version=str(8 + n),
            dataset="digits",
            parameters={"lr": 0.01},
            metrics={"accuracy": 0.95},
            tags={"mlflow.datasets": [data]},
            notes=NOTE if n == 2 else None,
            created_at=SHIFT + (n - 2) * timedelta(days=1) + timedelta(hours=21),
        )
    return ids


def training_set(stack: Stack, ids: list[str]) -> None:
    """Write a training set with what it is made of."""
    lake = stack._resources["lake"]
    manager = DuckLakeIOManager(lake=lake)
    columns = (Column("run_id", "string", nullable=False), Column("created_at", "timestamp", nullable=False))
    data = [{"run_id": run_id, "created_at": SHIFT} for run_id in ids]
    for name in ("sources", "training_set"):
        contract = Contract(f"duckdb/{name}", "a run", columns, key=("run_id",))
        with stage(
            pa.Table.from_pylist(data, arrow_schema(contract)), contract, manager.limits, WHOLE
        ) as staged:
            manager.table_store().write(contract, staged)


def sentence(told: dict[str, Any], topic: str) -> str:
    return next(claim["sentence"] for claim in told["claims"] if claim["topic"] == topic)


@pytest.mark.embedded_only("begins without a home")
def test_the_corrupted_dataset_and_its_day_are_named(
    settings: Settings, cli: Any, environment: dict[str, str]
):
    stack = Stack(settings)
    with pytest.raises(Refusal, match="There is no home"):
        stack.why("digits-mlp")
    # It stays open, which takes a second to open.
    with stack._resources["clickhouse"].client(write=True):
        stores = Stores(stack._resources["clickhouse"], stack._resources["postgres"])
        with pytest.raises(StoreUnavailable, match="performance_regressions does not exist yet"):
            why(stores, "digits-mlp")
        told_by_all_stores(stack, cli, environment)


def told_by_all_stores(stack: Stack, cli: Any, environment: dict[str, str]) -> None:
    """The same by Python and the command line, as more and more becomes known."""
    settings = stack.settings
    rows = events(stack)
    bare = stack.why("digits-mlp", date(2026, 11, 26))
    assert any("postgres/ml_experiments was never made" in note for note in bare.notes)
    assert any("clickhouse/alerts was never made" in note for note in bare.notes)
    assert (bare.day, bare.causes[0].name) == (SHIFT.date(), "data")

    ids = runs(stack, rows)
    without = stack.why("digits-mlp")
    assert any("no pin keeps the lake of that day" in note and ids[1] in note for note in without.notes)
    assert any(note.startswith("Similar runs were not found: ") for note in without.notes)

    training_set(stack, ids)
    lake = stack._resources["lake"]
    pins.pin(lake, "old", files={"training_set": TRAINING.format(left_out="")}, run_id=ids[0])
    training_set(stack, [*ids, "one more"])
    pins.pin(lake, "new", files={"training_set": TRAINING.format(left_out="")}, run_id=ids[1])

    done = cli(settings.home, "why", "digits-mlp", "2026-11-25", "--json", **environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["model_name"], told["day"], told["dataset"]) == ("digits-mlp", "2026-11-24", "digits")
    assert next((cause["name"], cause["verdict"]) for cause in told["causes"]) == ("data", "likely")
    assert {cause["verdict"] for cause in told["causes"][1:]} == {"unlikely"}
    assert (
        "the inputs of the dataset digits, on which digits-mlp answers, changed on 2026-11-24"
        in told["headline"]
    )
    assert f"digits (digest digest2, 1,032 rows) of the run {ids[2]}" in told["headline"]
    assert "50 of the 64 inputs" in sentence(told, "drift") and "2026-11-23 none of 64" in sentence(
        told, "drift"
    )
    assert sentence(told, "other models").startswith("2 of the 2 models that answer on digits became worse")
    assert sentence(told, "version").startswith(f"Version 9 (run {ids[1]}) answers since 2026-11-24 ")
    assert NOTE in sentence(told, "made that day")
    (pinned,) = [claim for claim in told["claims"] if claim["topic"] == "training set"]
    assert (
        f"from the pin 'new', which was made for the run {ids[1]}: equal to what it was, 4 rows"
        in pinned["sentence"]
    )
    (kept,) = pinned["rows"]
    assert kept["values"]["content_hash"] == kept["values"]["noted_hash"] and kept["values"]["equal"]
    assert "duckdb/training_set (3 rows before, 4 rows now)".replace(" rows now", " now") in sentence(
        told, "pins"
    )
    for claim in told["claims"]:
        assert claim["rows"] and all(row["table"] and row["key"] for row in claim["rows"])

    # A file that makes other rows than there were.
    pins.unpin(lake, "new")
    pins.pin(lake, "new", files={"training_set": TRAINING.format(left_out=ids[0])}, run_id=ids[1])
    other = stack.why("digits-mlp").markdown()
    assert "which was made for the run" in other and ": not what it was; In all there are 3 rows (" in other

    plain = cli(settings.home, "why", "digits-mlp", **environment)
    assert "Most likely:" in plain.stdout and "--json and --markdown have the rows." in plain.stdout
    refused = cli(settings.home, "why", "digits-mlp", "2026-11-20", **environment)
    assert refused.returncode == 1 and "it became so on 2026-11-24" in refused.stderr
    with pytest.raises(Refusal, match="did you mean 'digits-mlp'"):
        stack.why("digit-mlp")
    with pytest.raises(Refusal, match="iris-knn never became worse"):
        stack.why("iris-knn")
    # Drift alone, of a model whose quality is as it was.
    drift = {
        **dict.fromkeys(("slice", "slice_value", "direction"), ""),
        "alert_id": "a1",
        "source": "drift",
        "model_name": "iris-knn",
        "metric": "drift",
        "kind": "drift",
        "withdrawn": False,
        "began_at": SHIFT,
        "last_seen_at": SHIFT + timedelta(days=3),
        "closed_at": None,
        "change": 0.4,
        "description": "iris-knn is given other data than before.",
    }
    stores = Stores(stack._resources["clickhouse"], stack._resources["postgres"])
    alone = why(stores, "iris-knn", alerts=[drift])
    assert (alone.day, alone.claims[0].sentence) == (SHIFT.date(), drift["description"])
    assert "version" in {claim.topic for claim in alone.claims}
    assert alone.headline.startswith(
        "iris-knn drifted on 2026-11-24, and nothing that is measured became worse."
    )
    for name in ("", " ", "\ud800"):
        with pytest.raises(Refusal):
            stack.why(name)


SLOW = """
INSERT INTO performance_regressions (model_name, metric, slice, slice_value, opened_at, kind, direction, began_at,
    last_seen_at, closed_at, before, after, change, deviations, confidence, runs_before, runs_after, description)
SELECT 'slow', metric, slice, slice_value, opened_at, kind, 'up', opened_at, opened_at + INTERVAL 5 HOUR, NULL, 5, 20, 3,
    nan, 1, '', '[]', metric || ' rose.'
FROM (SELECT toDateTime64('2026-03-02 12:00:00', 6, 'UTC') AS opened_at) AS times,
    VALUES('metric String, kind String, slice String, slice_value String',
        ('p95_inference_time_ms', 'latency', 'dataset', 'd'), ('max_memory_usage_mb', 'memory', 'all', '')) AS rows
"""
ASKED = """
INSERT INTO ml_model_performance (event_id, kind, timestamp, model_name, model_version, dataset, inference_time_ms,
    memory_usage_mb, batch_size)
SELECT 'slow' || toString(number), 'inference',
    toDateTime64('2026-03-01 00:00:00', 6, 'UTC') + INTERVAL 10 * number MINUTE,
    'slow', NULL, 'd', if(number < 216, 5, 20), NULL, if(number < 216, 1, 8)
FROM numbers(252)
"""


def test_latency_is_explained_by_larger_requests(settings: Settings):
    """Of a model whose events tell neither a run nor a version."""
    stores = store_resources(settings)
    contracts = tables(settings)
    with stores["clickhouse"].client(write=True) as client:
        for name in ("ml_model_performance", "performance_hourly", "performance_regressions"):
            ensure_table(client, contracts[f"clickhouse/{name}"])
        client.command(SLOW)
        client.command(ASKED)
        found = why(Stores(stores["clickhouse"], stores["postgres"]), "slow")
        with pytest.raises(Refusal, match="No event of a model 'fast' is rolled up: there are none yet"):
            why(Stores(stores["clickhouse"], stores["postgres"]), "fast")
    assert [(cause.name, cause.verdict) for cause in found.causes] == [("load", "likely")]
    (load,) = [claim for claim in found.claims if claim.topic == "load"]
    assert (
        load.sentence == "slow had requests an hour 6 before, 6 since and rows a request 1 before, 8 since."
    )
    assert [claim.sentence for claim in found.claims if claim.topic == "regression"] == [
        "p95_inference_time_ms rose.",
        "max_memory_usage_mb rose.",
    ]
    assert "clickhouse/feature_drift was never made: 'ml-assets refresh' makes it." in found.notes
    assert json.loads(orjson.dumps(found.as_json()))["claims"] and "nan" not in found.markdown()
