"""What became worse, on the events of a demo that was really run, in the embedded engine."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.contracts import tables
from ml_assets.errors import Refusal
from ml_assets.operations.performance_regressions import find, regressions
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.clickhouse.ddl import ensure_table
from ml_assets.tables.arrow_types import arrow_schema

EVENTS, HOURLY = "clickhouse/ml_model_performance", "clickhouse/performance_hourly"
DEMO = Path(__file__).parents[1] / "demo_events" / "demo_events.parquet"
SHIFT = datetime(2026, 11, 24, tzinfo=UTC)
"""Day 10 of the demo, from which the digits' inputs are corrupted; its first events are those of day 2."""


@pytest.fixture(scope="module")
def contracts() -> Any:
    return tables(Settings())


def found_in(clickhouse: ClickHouseResource, contracts: Any, events: pa.Table) -> list[dict[str, Any]]:
    """The regressions of these events, by the tables' own SQL."""
    with clickhouse.client(write=True) as client:
        for asset in (EVENTS, HOURLY):
            ensure_table(client, contracts[asset])
        client.insert_arrow("ml_model_performance", events)
        window = {"start_us": 0, "end_us": 4_000_000_000_000_000}
        hours = client.query_arrow(read_sql("clickhouse/performance_hourly.sql"), window, use_strings=True)
        client.insert_arrow("performance_hourly", hours)
        rows = find(client)
    # What the contract asks for.
    return pa.Table.from_pylist(
        rows, arrow_schema(contracts["clickhouse/performance_regressions"])
    ).to_pylist()


def test_the_shift_of_the_demo_is_found_within_a_day_and_nothing_else(clickhouse, contracts):
    rows = found_in(clickhouse, contracts, pq.read_table(DEMO))
    for row in rows:
        print(row["description"])
    assert {row["model_name"] for row in rows} == {"digits-mlp", "digits-random_forest"}
    first = {}
    for row in rows:
        first[row["model_name"]] = min(row["opened_at"], first.get(row["model_name"], row["opened_at"]))
    assert set(first.values()) == {SHIFT}, "found on the day of the shift, nothing in the days before"
    (accuracy,) = [row for row in rows if (row["model_name"], row["metric"]) == ("digits-mlp", "accuracy")]
    assert (accuracy["kind"], accuracy["direction"], accuracy["closed_at"]) == ("quality", "down", None)
    assert accuracy["last_seen_at"] == SHIFT + timedelta(days=4)
    assert accuracy["low"] < accuracy["after"] - accuracy["before"] < accuracy["high"] < 0
    assert accuracy["corrected_p"] < 0.01 and accuracy["confidence"] > 0.999
    before, after = (orjson.loads(accuracy[name]) for name in ("runs_before", "runs_after"))
    assert (before[-1]["model_version"], after[0]["model_version"]) == ("8", "9")
    assert "Version 9 came with it, after version 8." in accuracy["description"]


def event(model: str, at: datetime, number: int = 0, **measures: Any) -> dict[str, Any]:
    return {
        "event_id": f"{model} {at.isoformat()} {number}",
        "kind": "evaluation" if "accuracy" in measures else "inference",
        "timestamp": at,
        "model_name": model,
        **measures,
    }


def table(rows: list[dict[str, Any]], contracts: Any) -> pa.Table:
    """Events by name, what none of them has left out."""
    names = {name for row in rows for name in row}
    schema = arrow_schema(contracts[EVENTS], [name for name in contracts[EVENTS].names if name in names])
    return pa.Table.from_pylist(rows, schema)


def test_events_that_say_little_or_come_in_disorder_raise_no_alarm(clickhouse, contracts):
    """One event, none with a value, constant ones, a gap of a month, a clock that is ahead, rows in any order."""
    days = [SHIFT + timedelta(days=day) for day in range(30)]
    rows = [event("one event", SHIFT, accuracy=0.1, inference_time_ms=1e9)]
    rows += [event("no values", day) for day in days]
    rows += [event("constant", day, accuracy=1.0, inference_time_ms=2.0) for day in days]
    rows += [
        event("gap", day + timedelta(days=31 * (day > days[15])), accuracy=0.9, batch_size=80) for day in days
    ]
    rows += [event("clock", day, accuracy=0.9, batch_size=80) for day in reversed(days)]
    rows += [event("clock", datetime(2099, 1, 1, tzinfo=UTC), accuracy=0.9, batch_size=80)]
    rows += [
        event("hours", SHIFT + timedelta(hours=hour), inference_time_ms=5.0, memory_usage_mb=100.0)
        for hour in reversed(range(24 * 20))
    ]
    assert found_in(clickhouse, contracts, table(rows, contracts)) == []


def test_latency_is_judged_by_hour_and_quality_by_dataset(clickhouse, contracts):
    hours = [SHIFT + timedelta(hours=hour) for hour in range(24 * 12)]
    slow = SHIFT + timedelta(days=10)
    rng = np.random.default_rng(18)
    rows = [
        event("served", at, inference_time_ms=rng.normal(20 if at >= slow else 6), run_id="run")
        for at in hours
    ]
    for day in range(12):
        at = SHIFT + timedelta(days=day)
        right = 0.9 + day % 3 / 100
        rows += [event("judged", at, 0, accuracy=right, batch_size=500, dataset="letters")]
        rows += [
            event("judged", at, 1, accuracy=0.5 if day == 11 else right, batch_size=500, dataset="digits")
        ]
    latency, quality = sorted(
        found_in(clickhouse, contracts, table(rows, contracts)), key=lambda row: row["kind"]
    )
    assert (latency["model_name"], latency["metric"]) == ("served", "avg_inference_time_ms")
    assert abs(latency["began_at"] - slow) <= timedelta(hours=6)
    assert slow < latency["opened_at"] <= slow + timedelta(hours=24)
    assert "mean latency of served rose" in latency["description"] and " ms, by " in latency["description"]
    assert orjson.loads(latency["runs_before"])[0]["run_id"] == "run"
    assert (quality["slice"], quality["slice_value"], quality["metric"]) == ("dataset", "digits", "accuracy")
    assert "accuracy of judged on digits fell" in quality["description"]


def test_no_regression_of_a_model_that_is_not_known_is_no_answer(clickhouse, contracts):
    found_in(clickhouse, contracts, table([event("served", SHIFT, inference_time_ms=1.0)], contracts))
    with clickhouse.client(write=True) as client:
        ensure_table(client, contracts["clickhouse/performance_regressions"])
    assert regressions(clickhouse, "served", None, open_only=True).num_rows == 0
    with pytest.raises(Refusal, match="a model 'serve' is rolled up: did you mean 'served'"):
        regressions(clickhouse, "serve", None, open_only=True)


def test_ten_thousand_models_are_looked_through(clickhouse, contracts):
    """A model is broken, and only that one is told of."""
    events = (
        "INSERT INTO ml_model_performance (event_id, kind, timestamp, model_name, accuracy, batch_size) "
        "SELECT toString(number), 'evaluation', toDateTime64('2026-01-01 20:00:00', 6, 'UTC') "
        "+ INTERVAL (number % 12) DAY, concat('model ', toString(intDiv(number, 12))), "
        "if(number = 119999, 0.3, 0.9 + (sipHash64(number) % 7 - 3) / 100), 200 FROM numbers(120000)"
    )
    with clickhouse.client(write=True) as client:
        for asset in (EVENTS, HOURLY):
            ensure_table(client, contracts[asset])
        client.command(events)
        (row,) = find(client)
    assert (row["model_name"], row["metric"]) == ("model 9999", "accuracy")
    assert row["corrected_p"] < 0.05
