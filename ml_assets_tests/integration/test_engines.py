"""The same rollup in DuckDB and in the real ClickHouse, of events that are many and uneven."""

from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from ml_assets.contracts import tables
from ml_assets.operations.engines import EXACT, compare_numbers
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.clickhouse.ddl import ensure_table
from ml_assets.tables.arrow_types import arrow_schema

EVENTS = tables(Settings())["clickhouse/ml_model_performance"]
DAY = datetime(2026, 3, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
ROWS = 40_000


@pytest.fixture(scope="module")
def events() -> pa.Table:
    """Two days of three models, skewed, in hours of one event and of thousands."""
    rng = np.random.default_rng(7)
    start = int(DAY.timestamp()) * 1_000_000
    known = {
        "event_id": [f"e{n}" for n in range(ROWS)],
        "kind": rng.choice(["evaluation", "inference"], ROWS),
        "timestamp": start + (rng.beta(0.3, 3, ROWS) * 2 * DAY_US).astype(np.int64),
        "model_name": rng.choice(["digits", "iris", "wine"], ROWS, p=[0.9, 0.0999, 0.0001]),
        "run_id": [f"r{n % 7}" if n % 5 else None for n in range(ROWS)],
        "accuracy": pa.array(rng.random(ROWS), mask=rng.random(ROWS) < 0.3),
        "f1_score": pa.array(rng.random(ROWS) / 3, mask=rng.random(ROWS) < 0.5),
        "inference_time_ms": pa.array([3e9, *rng.lognormal(1, 2, ROWS - 1)], mask=rng.random(ROWS) < 0.01),
        "memory_usage_mb": rng.random(ROWS) * 1000,
    }
    schema = arrow_schema(EVENTS)
    columns = [
        pa.array(known[name], field.type) if name in known else pa.nulls(ROWS, field.type)
        for name, field in zip(schema.names, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@pytest.fixture(scope="module")
def in_clickhouse(tmp_path_factory, events) -> dict[str, pa.Table]:
    """What ClickHouse computes for the check, and what the asset's own SQL does."""
    window = {"start_us": int(DAY.timestamp()) * 1_000_000}
    window["end_us"] = window["start_us"] + 2 * DAY_US
    with ClickHouseResource(home=str(tmp_path_factory.mktemp("ch"))).client(write=True) as client:
        ensure_table(client, EVENTS)
        client.insert_arrow("ml_model_performance", events)
        return {
            name: client.query_arrow(read_sql(f"clickhouse/{file}.sql"), parameters=window, use_strings=True)
            for name, file in (
                ("clickhouse", "equivalence/performance_hourly"),
                ("kept", "performance_hourly"),
            )
        }


def in_duckdb(events: pa.Table) -> pa.Table:
    """What DuckDB computes."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE SCHEMA features")
        connection.register("events", events)
        connection.execute("CREATE TABLE features.model_performance_events AS FROM events")
        window = {"start": DAY, "end": datetime(2026, 3, 3, tzinfo=UTC)}
        return connection.execute(
            read_sql("duckdb/equivalence/performance_hourly.sql"), window
        ).to_arrow_table()


def test_both_engines_compute_the_same_to_the_last_bit(events, in_clickhouse):
    of_lake = in_duckdb(events)
    assert of_lake.num_rows > 80
    assert compare_numbers(of_lake, **in_clickhouse).cells == ()
    # In another order of the events, too.
    assert compare_numbers(in_duckdb(events.take(np.arange(ROWS)[::-1])), **in_clickhouse).cells == ()


@pytest.mark.parametrize(
    ("column", "by", "shown"),
    [
        ("accuracy", 1e-15, {"accuracy_sum"}),
        ("f1_score", 1e-15, {"f1_score_sum"}),
        ("inference_time_ms", 1e-6, {"inference_time_sum"}),
    ],
)
def test_one_value_of_one_event_shows(events, in_clickhouse, column, by, shown):
    values = events[column].to_pylist()
    place = next(n for n, value in enumerate(values) if value and value > 0.1)
    values[place] += by
    index = events.schema.get_field_index(column)
    tampered = events.set_column(index, events.schema.field(column), pa.array(values))
    found = compare_numbers(in_duckdb(tampered), **in_clickhouse)
    assert {cell.column for cell in found.cells} == shown
    hour = events["timestamp"][place].as_py().strftime("%Y-%m-%dT%H:00Z")
    assert {cell.key for cell in found.cells} == {f"{hour} {events['model_name'][place].as_py()}"}


def test_hours_that_one_engine_lacks_and_numbers_that_were_changed_are_named(events, in_clickhouse):
    of_lake = in_duckdb(events)
    rest = compare_numbers(of_lake.slice(1), **in_clickhouse)
    assert [(cell.column, cell.here, cell.there) for cell in rest.cells] == [
        ("(whole row)", "clickhouse, performance_hourly", "")
    ]
    kept = in_clickhouse["kept"]
    for name in (name for name in kept.column_names if name in EXACT or name.startswith(("avg_", "std_"))):
        values = [value and value * 1.00001 + 1 for value in kept[name].to_pylist()]
        changed = kept.set_column(kept.column_names.index(name), name, pa.array(values, kept[name].type))
        found = compare_numbers(of_lake, in_clickhouse["clickhouse"], changed)
        assert {cell.column for cell in found.cells} == {f"kept {name}"}
        assert found.differing == len([value for value in values if value])
    empty = compare_numbers(of_lake, in_clickhouse["clickhouse"], kept.slice(0, 0))
    assert empty.differing == of_lake.num_rows
    assert len(EXACT) == 13
