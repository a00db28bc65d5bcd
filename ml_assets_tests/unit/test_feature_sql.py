import pytest

from ml_assets.contracts import TABLES
from ml_assets.lib.feature_sql import column_lineage, read_feature
from ml_assets.settings import SQL_DIR

FEATURES = sorted((SQL_DIR / "duckdb" / "features").glob("*.sql"))


@pytest.mark.parametrize("file", FEATURES, ids=lambda file: file.stem)
def test_every_feature_file_has_a_contract_and_known_parents(file):
    feature = read_feature(file)
    assert f"duckdb/{feature.name}" in TABLES
    assert feature.parents and set(feature.parents) <= TABLES.keys()
    assert feature.description


def test_parents_and_parameters_come_from_the_sql(tmp_path):
    file = tmp_path / "demo.sql"
    file.write_text(
        "-- One row\n-- a run.\nWITH own AS (SELECT 1)\nSELECT r.run_id FROM raw.raw_runs r, own "
        "WHERE r.created_at >= $start"
    )
    feature = read_feature(file)
    assert feature.parents == ("duckdb/raw_runs",)
    assert feature.parameters == {"start"}
    assert feature.description == "One row a run."


def test_sql_that_cannot_be_parsed_names_its_file(tmp_path):
    file = tmp_path / "broken.sql"
    file.write_text("SELECT FROM WHERE (")
    with pytest.raises(ValueError, match=r"broken\.sql"):
        read_feature(file)


def test_lineage_goes_through_joins_and_ctes(tmp_path):
    file = tmp_path / "demo.sql"
    file.write_text(
        "WITH m AS (SELECT run_id, max(value) AS best FROM raw.raw_metrics GROUP BY run_id) "
        "SELECT r.run_id, r.created_at, m.best - 1 AS change FROM raw.raw_runs r JOIN m USING (run_id)"
    )
    columns = {
        key: dict.fromkeys(TABLES[key].names, "VARCHAR") for key in ("duckdb/raw_runs", "duckdb/raw_metrics")
    }
    lineage = column_lineage(read_feature(file), columns)
    assert lineage["change"] == [("duckdb/raw_metrics", "value")]
    assert lineage["created_at"] == [("duckdb/raw_runs", "created_at")]
