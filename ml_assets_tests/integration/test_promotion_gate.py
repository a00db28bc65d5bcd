"""The gate on real stores: what it judges by, the book of its decisions, and MLflow's alias."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ml_assets.contracts import tables
from ml_assets.errors import Refusal
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.lib.promotion import Decision
from ml_assets.operations.performance_gate import Gate
from ml_assets.settings import Settings
from ml_assets.stack import Stack
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE

FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)


def write(stack: Stack, asset: str, rows: Sequence[Mapping[str, Any]]) -> None:
    contract = tables(stack.settings)[asset]
    manager = DuckLakeIOManager(lake=stack._resources["lake"])
    with stage(
        pa.Table.from_pylist(list(rows), arrow_schema(contract)), contract, manager.limits, WHOLE
    ) as staged:
        manager.table_store().write(contract, staged)


def answers(version: str, day: int, right: int, wrong: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{version}-{day}-{n}",
            "model_name": "m",
            "model_version": version,
            "confidence": 0.95,
            "is_correct": n < right,
            "created_at": FIRST + timedelta(days=day),
        }
        for n in range(right + wrong)
    ]


def run(version: str, day: int) -> dict[str, Any]:
    at = FIRST + timedelta(days=day)
    told = {"run_id": f"r{version}", "experiment": "e", "model_name": "m", "model_version": version}
    return {**told, "status": "completed", "created_at": at, "completed_at": at}


def clickhouse(stack: Stack, *statements: str) -> None:
    with stack._resources["clickhouse"].client(write=True) as client:
        for statement in statements:
            client.command(statement)


DRIFT = (
    "CREATE TABLE feature_drift (day DateTime64(6, 'UTC'), model_name String, subject String, feature String, slice "
    "String, slice_value String, state String, ks Nullable(Float64), psi Nullable(Float64), corrected_p "
    "Nullable(Float64), threshold Nullable(Float64), current_count Int64) ENGINE = MergeTree ORDER BY day"
)
REGRESSIONS = (
    "CREATE TABLE performance_regressions (model_name String, metric String, slice String, slice_value String, "
    "opened_at DateTime64(6, 'UTC'), last_seen_at DateTime64(6, 'UTC'), closed_at Nullable(DateTime64(6, 'UTC')), "
    "before Float64, after Float64, change Nullable(Float64), description String) ENGINE = MergeTree ORDER BY metric"
)

ALERTS = (
    "CREATE TABLE alerts (source String, model_name String, slice String, slice_value String, opened_at DateTime64(6, "
    "'UTC'), closed_at Nullable(DateTime64(6, 'UTC')), description String) ENGINE = MergeTree ORDER BY model_name"
)


def told(decision: Decision) -> dict[str, tuple[bool, bool]]:
    return {check.name: (check.passed, check.judged) for check in decision.checks}


def failing(*_: Any) -> None:
    raise MlflowException("no such luck")


def test_a_version_is_judged_recorded_and_promoted(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    settings = settings.model_copy(
        update={
            "promotion_alias": "champion",
            "promotion_floors": {"*": {"all": 0.85}},
            "promotion_may_miss": ("leakage", "parity"),
        }
    )
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "landing").mkdir()
    stack = Stack(settings)
    write(stack, "duckdb/raw_runs", [run("1", 0), run("2", 1)])
    write(
        stack,
        "duckdb/ml_predictions",
        [
            *answers("1", 0, 90, 10),
            *answers("1", 2, 180, 20),
            *answers("2", 2, 194, 6),
            *answers("x", 0, 1, 0),
        ],
    )
    (settings.home / "mlflow").mkdir()
    client = stack._resources["mlflow"].client()
    client.create_registered_model("m")
    for _ in range(2):
        client.create_model_version("m", "runs:/none")
    client.set_registered_model_alias("m", "champion", "1")

    # Before anything is known of drift and regressions.
    decision = Gate(settings, stack._resources).judge("m")
    assert (decision.version, decision.alias_version, decision.promotable) == ("2", "1", False)
    assert told(decision)["drift"] == told(decision)["regression"] == (False, False)
    assert "clickhouse/feature_drift does not exist yet" in str(decision)

    clickhouse(
        stack,
        DRIFT,
        REGRESSIONS,
        "INSERT INTO feature_drift VALUES ('2026-03-03', 'm', 'input', 'width', 'all', '', 'none', 0.02, 0.01, 0.9, 0.1, "
        "100)",
        # The day that has just begun has nothing to tell yet.
        "INSERT INTO feature_drift VALUES ('2026-03-04', 'm', 'input', 'width', 'all', '', 'too few', NULL, NULL, NULL, "
        "0.1, 3)",
        "INSERT INTO performance_regressions VALUES ('m', 'accuracy', 'all', '', '2026-02-27', '2026-02-28', NULL, 0.95, "
        "0.9, -0.05, '')",
        # Of a dataset whose name is that of the version, which is another thing.
        ALERTS,
        "INSERT INTO alerts VALUES ('drift', 'm', 'dataset', '2', '2026-03-01', NULL, 'The dataset drifts.')",
    )
    gate = Gate(settings, stack._resources)
    decision = gate.judge("m")
    assert decision.promotable, str(decision)
    assert "drifted on 2026-03-03" in next(
        check.sentence for check in decision.checks if check.name == "drift"
    )
    assert told(decision)["leakage"] == told(decision)["parity"] == (True, False)
    quality = next(check for check in decision.checks if check.name == "quality")
    assert "0.9700 (200 answers), +0.0700 against version 1 (200 answers)" in quality.sentence
    evidence = decision.evidence
    assert evidence["tables"]["duckdb/ml_predictions"]["rows"] == 501
    assert len(evidence["tables"]["duckdb/ml_predictions"]["content_hash"]) >= 16
    assert (evidence["run_id"], evidence["baseline"]["first"]) == ("r2", "2026-03-01")
    assert gate.is_new(decision)

    # What PostgreSQL does not keep moves nothing.
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        gate.record(replace(decision, evidence={**evidence, "share": float("nan")}), "somebody")
    assert client.get_registered_model("m").aliases["champion"] in (1, "1")
    assert stack.features.pins().num_rows == 0 == stack.performance.promotions("m").num_rows

    moved = gate.record(decision, "somebody")
    assert moved.moved and moved.recorded is not None
    assert client.get_registered_model("m").aliases["champion"] in (2, "2")
    [pin] = stack.features.pins().to_pylist()
    assert pin["version"] == evidence["lake_version"] and pin["name"].startswith("promotion m 2 ")
    [row] = stack.performance.promotions("m").to_pylist()
    assert (row["decided_by"], row["alias"], row["moved_from"], row["promotable"]) == (
        "somebody",
        "champion",
        "1",
        True,
    )
    assert pin["name"] in row["evidence"]

    # What was decided stays as it was decided, and is not decided twice.
    with (
        pytest.raises(psycopg.errors.RaiseException, match="only added to"),
        stack._resources["postgres"].connect(write=True) as connection,
    ):
        connection.execute("UPDATE ml_promotions SET promotable = false")
    gate = Gate(settings, stack._resources)
    again = gate.judge("m")
    assert again.promotable and not gate.is_new(again)
    with pytest.raises(
        Refusal, match="judged against version 1, and version 2 has the alias champion by now"
    ):
        gate.record(decision, "somebody")

    # The former version is worse than the one that has the alias now; the refusal is recorded, and nothing moves.
    worse = stack.performance.gate("m", "1", record=True)
    assert (worse.promotable, worse.recorded, worse.moved) == (False, moved.recorded + 1, False)
    assert "it is worse by 0.0" in str(worse)
    assert client.get_registered_model("m").aliases["champion"] in (2, "2")

    # Where MLflow does not tell who has the alias, nobody knows whether the version is worse than that one.
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "get_registered_model", failing)
        decision = stack.performance.gate("m", "1")
        assert told(decision)["quality"] == (False, False)
        assert "MLflow does not tell which version has the alias champion (no such luck)" in str(decision)

    # A version that MLflow does not have.
    good = {"drift", "regression", "quality", "slice_floors"}
    lenient = settings.model_copy(
        update={"promotion_floors": {}, "promotion_may_miss": ("leakage", "parity", "quality")}
    )
    unknown = Stack(lenient).performance.gate("m", "x", record=True)
    assert {check.name for check in unknown.checks if check.passed} >= good
    assert not unknown.moved and "MLflow has no version x of the model m" in unknown.notes[0]

    clickhouse(
        stack,
        "INSERT INTO feature_drift VALUES ('2026-03-05', 'm', 'input', 'width', 'all', '', 'drift', 0.4, 0.9, 1e-9, 0.1, "
        "100)",
        "INSERT INTO performance_regressions VALUES ('m', 'f1_score', 'all', '', '2026-03-03', '2026-03-04', NULL, 0.95, "
        "0.8, -0.158, '')",
    )
    refused = stack.performance.gate("m")
    assert told(refused)["drift"] == told(refused)["regression"] == (False, True)
    assert "width (KS 0.4, 0.3 over its threshold)" in str(refused)
    assert "f1_score from 0.95 to 0.8" in str(refused)
    for model, version, message in (
        ("none", None, "The model 'none' has no version that could be promoted.*: m"),
        ("m", "7", "no version '7'; its newest are 2, x, 1"),
    ):
        with pytest.raises(Refusal, match=message):
            stack.performance.gate(model, version)
