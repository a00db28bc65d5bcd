"""Files of a team's own folder as assets: a new one is built and pinned, a wrong one fails alone."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.cli.refresh import QUIET, Refresher
from ml_assets.contracts import tables
from ml_assets.contracts.feature_files import feature_files, pin, pin_of
from ml_assets.contracts.text import pinned_contract
from ml_assets.defs import features
from ml_assets.defs.options import FAULT
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.settings import Settings
from ml_assets.stores.duckdb.ddl import create_statements
from ml_assets.stores.duckdb.feature_check import check_files

DAILY = """-- How often each model was asked on a day, and what it said.
-- entity: model_name
-- event_time: day
-- owner: team:vision
-- tags: predictions
SELECT
    model_name,  -- the model
    date_trunc('day', created_at) AS day,
    sum(1) AS predictions,  -- all of them
    any_value(to_json({'label': label})) AS example
FROM raw.raw_predictions
WHERE created_at >= $start AND created_at < $end
GROUP BY ALL
"""

WHOLE = """-- How often each model was asked.
-- entity: model_name
SELECT model_name, sum(predictions) AS predictions FROM features.daily GROUP BY ALL
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (folder := tmp_path / "mine").mkdir()
    (folder / "daily.sql").write_text(DAILY)
    (folder / "whole.sql").write_text(WHOLE)
    return folder


def built(folder: Path) -> dg.Definitions:
    settings = Settings(home=folder.parent, feature_folders=(folder,))
    return features.build(settings, tables(settings))


def assets(folder: Path) -> dict[str, dg.AssetsDefinition]:
    """The assets of the feature files by `store/table`."""
    found = [each for each in built(folder).assets or () if isinstance(each, dg.AssetsDefinition)]
    return {each.key.to_user_string(): each for each in found}


def run(
    lake: DuckLakeResource, asset: dg.AssetsDefinition, day: str | None = None
) -> dg.ExecuteInProcessResult:
    resources = {"duckdb_io": DuckLakeIOManager(lake=lake), "lake": lake, "postgres": None}
    return dg.materialize([asset], resources=resources, partition_key=day, run_config=QUIET)


@pytest.fixture
def lake(shared_lake: DuckLakeResource, tmp_path: Path) -> DuckLakeResource:
    """A lake with three predictions."""
    contract = tables(Settings(home=tmp_path))["duckdb/raw_predictions"]
    with shared_lake.get_connection(write=True) as connection:
        for statement in create_statements(contract):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO raw.raw_predictions (prediction_id, model_name, label, created_at) SELECT n, 'cats', 'cat', "
            "'2026-03-01 08:00:00+00'::TIMESTAMPTZ FROM (VALUES ('a'), ('b'), ('c')) AS rows(n)"
        )
    return shared_lake


def test_a_new_file_is_built_and_pinned(lake, folder):
    daily = assets(folder)["duckdb/daily"]
    [spec] = daily.specs
    assert list(spec.owners) == ["team:vision"] and "predictions" in spec.tags
    assert spec.deps and [dep.asset_key.to_user_string() for dep in spec.deps] == ["duckdb/raw_predictions"]
    done = run(lake, daily, "2026-03-01")
    with lake.get_connection() as connection:
        rows = connection.execute("SELECT model_name, day::VARCHAR, predictions, example FROM features.daily")
        assert rows.fetchall() == [("cats", "2026-03-01 00:00:00+00", 3, '{"label":"cat"}')]
        types = connection.execute(
            "SELECT typeof(predictions), typeof(example) FROM features.daily"
        ).fetchone()
    assert types == ("BIGINT", "JSON")
    contract = pinned_contract("duckdb/daily", pin_of(folder / "daily.sql").read_text())
    assert [column.description for column in contract.columns] == ["the model", "", "all of them", ""]
    assert contract.key == ("model_name", "day")
    told = [event.metadata for event in done.asset_materializations_for_node(daily.op.name)]
    assert any("contract" in metadata for metadata in told)
    # The next one finds the pin, and a table above it is built of what is pinned.
    run(lake, assets(folder)["duckdb/daily"], "2026-03-01")
    run(lake, assets(folder)["duckdb/whole"])
    assert lake.reader("FROM features.whole").read_all().to_pylist() == [
        {"model_name": "cats", "predictions": 3}
    ]


def test_where_the_folder_cannot_be_written_the_run_shows_the_contract(lake, folder):
    daily = assets(folder)["duckdb/daily"]
    shutil.rmtree(folder)
    done = run(lake, daily, "2026-03-01")
    told = [event.metadata["contract"] for event in done.asset_materializations_for_node(daily.op.name)]
    text = str(told[0].value).removeprefix("```json\n").removesuffix("```")
    assert pinned_contract("duckdb/daily", text).names == ("model_name", "day", "predictions", "example")


def test_a_table_that_was_built_keeps_its_days_when_its_file_becomes_wrong(folder):
    settings = Settings(home=folder.parent, feature_folders=(folder,))
    [checked] = [
        one for one in check_files(feature_files(settings), tables(settings)) if one.file.name == "daily"
    ]
    assert checked.contract
    pin(checked.file.path, checked.contract)
    (folder / "daily.sql").write_text(DAILY.replace("sum(1) AS predictions", "'many' AS predictions"))
    found = assets(folder)
    assert FAULT in found["duckdb/daily"].specs_by_key[dg.AssetKey(["duckdb", "daily"])].metadata
    assert found["duckdb/daily"].partitions_def is not None
    # What reads it has what is pinned.
    assert FAULT not in found["duckdb/whole"].specs_by_key[dg.AssetKey(["duckdb", "whole"])].metadata


def test_a_wrong_file_fails_alone(folder):
    (folder / "broken.sql").write_text("-- Broken.\nSELECT name,\nFROM raw.nowhere")
    (folder / "run_features.sql").write_text("-- Taken.\nSELECT run_id FROM raw.raw_runs")
    (folder / "Odd name.sql").write_text("SELECT run_id FROM raw.raw_runs")
    settings = Settings(home=folder.parent, feature_folders=(folder,))
    defs = build_defs(settings)
    graph = defs.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {"duckdb/daily", "duckdb/whole", "duckdb/broken", "duckdb/run_features"} <= keys
    taken = sorted(key for key in keys if key.startswith("features/"))
    assert [key.rpartition("_")[0] for key in taken] == ["features/Odd_name", "features/run_features"]
    broken = assets(folder)["duckdb/broken"]
    failed = dg.materialize([broken], raise_on_error=False)
    [failure] = [event for event in failed.all_events if event.event_type_value == "STEP_FAILURE"]
    data = failure.step_failure_data.user_failure_data
    told = (data and data.description) or ""
    assert told.startswith("broken.sql, line 3, column 6: there is no table raw.nowhere; ")
    assert str(folder / "broken.sql") in told
    # A refresh leaves it alone, and says so.
    with dg.DagsterInstance.ephemeral() as instance:
        refresher = Refresher(settings, defs, instance, lambda *_: None)
    assert broken.key not in [*refresher.daily, *refresher.whole]
    assert "no table raw.nowhere" in refresher.left_alone[str(folder / "broken.sql")]
    assert len(refresher.left_alone) == 3
