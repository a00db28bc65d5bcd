import math
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest

from ml_assets.contracts import tables
from ml_assets.lib.feature_sql import column_lineage
from ml_assets.settings import SQL_DIR, Settings
from ml_assets.stores.duckdb.select_file import parse_feature
from ml_assets.tables.arrow_types import arrow_schema

TABLES = tables(Settings())

FEATURES = sorted((SQL_DIR / "duckdb" / "features").glob("*.sql"))


@pytest.mark.parametrize("file", FEATURES, ids=lambda file: file.stem)
def test_every_feature_file_has_a_contract_and_known_parents(file):
    feature = parse_feature(file.stem, file.read_text())
    assert f"duckdb/{feature.name}" in TABLES
    assert feature.parents and set(feature.parents) <= TABLES.keys()
    assert feature.description


def test_parents_and_parameters_come_from_the_sql(tmp_path):
    file = tmp_path / "demo.sql"
    file.write_text(
        "-- One row\n-- a run.\nWITH own AS (SELECT 1)\nSELECT r.run_id FROM raw.raw_runs r, own "
        "WHERE r.created_at >= $start"
    )
    feature = parse_feature(file.stem, file.read_text())
    assert feature.parents == ("duckdb/raw_runs",)
    assert feature.parameters == {"start"}
    assert feature.description == "One row a run."


def test_sql_that_cannot_be_parsed_names_its_file(tmp_path):
    file = tmp_path / "broken.sql"
    file.write_text("-- Broken.\nSELECT FROM WHERE (")
    with pytest.raises(ValueError, match=r"broken\.sql.*line 2, column 13"):
        parse_feature(file.stem, file.read_text())


@pytest.mark.parametrize("text", ["SELECT 1; SELECT 2", "CREATE TABLE t (a INT)", "-- nothing"])
def test_a_file_that_is_not_one_select_names_its_file(text):
    with pytest.raises(ValueError, match=r"other\.sql is not one SELECT"):
        parse_feature("other", text)


def test_lineage_goes_through_joins_and_ctes(tmp_path):
    file = tmp_path / "demo.sql"
    file.write_text(
        "WITH m AS (SELECT run_id, max(value) AS best FROM raw.raw_metrics GROUP BY run_id) "
        "SELECT r.run_id, r.created_at, m.best - 1 AS change FROM raw.raw_runs r JOIN m USING (run_id)"
    )
    columns = {
        key: dict.fromkeys(TABLES[key].names, "VARCHAR") for key in ("duckdb/raw_runs", "duckdb/raw_metrics")
    }
    lineage = column_lineage(parse_feature(file.stem, file.read_text()), columns)
    assert lineage["change"] == [("duckdb/raw_metrics", "value")]
    assert lineage["created_at"] == [("duckdb/raw_runs", "created_at")]


def run_of(n, **columns):
    at = datetime(2026, 3, n, 8, tzinfo=UTC)
    base = {"run_id": f"r{n}", "experiment": "mine", "model_name": "dogs", "status": "completed"}
    return {**base, "created_at": at, "completed_at": at + timedelta(hours=1), **columns}


@pytest.fixture
def database():
    """Tables raw.raw_runs and raw.raw_metrics of four runs, of which the second diverged."""
    runs = [
        run_of(1, metrics='{"accuracy":0.7}'),
        run_of(2, metrics='{"accuracy":"NaN"}'),
        run_of(3),
        run_of(4, metrics='{"accuracy":0.6}'),
    ]
    at = runs[2]["created_at"]
    points = [
        {"run_id": "r3", "key": "accuracy", "step": 0, "value": float("inf"), "timestamp": at},
    ]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw; CREATE SCHEMA features")
        for table, rows in {"raw_runs": runs, "raw_metrics": points}.items():
            arriving = pa.Table.from_pylist(rows, arrow_schema(TABLES[f"duckdb/{table}"]))
            connection.register("arriving", arriving)
            connection.execute(f"CREATE TABLE raw.{table} AS SELECT * FROM arriving")
        yield connection


def test_a_diverged_run_is_never_the_best(database):
    select = (SQL_DIR / "duckdb" / "features" / "run_features.sql").read_text()
    window = {"start": datetime(2026, 3, 1, tzinfo=UTC), "end": datetime(2026, 3, 5, tzinfo=UTC)}
    found = database.execute(select, window).to_arrow_table()
    database.register("found", found)
    database.execute("CREATE TABLE features.run_features AS SELECT * FROM found")
    rows = found.sort_by("created_at").to_pylist()
    assert [row["previous_best_accuracy"] for row in rows] == [None, 0.7, 0.7, 0.7]
    # What the last one reached is told as it was.
    assert math.isnan(rows[2]["previous_accuracy"]) and math.isinf(rows[3]["previous_accuracy"])
    online = (SQL_DIR / "duckdb" / "serving" / "online_features.sql").read_text()
    [served] = database.execute(online).to_arrow_table().to_pylist()
    assert (served["run_id"], served["previous_best_accuracy"]) == ("r4", 0.7)
