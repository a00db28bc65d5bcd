import shutil
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.contracts import tables
from ml_assets.contracts.feature_files import SHIPPED, feature_files, pin_of, read_files
from ml_assets.contracts.text import pinned_contract, pinned_text
from ml_assets.defs.features.files import pin_contract
from ml_assets.lib.feature_header import FeatureHeader, parse_header
from ml_assets.operations.feature_views import span_text, views
from ml_assets.operations.reconcile import compare_all
from ml_assets.settings import Settings

TABLES = tables(Settings())


def test_a_header_is_prose_and_named_lines():
    text = """-- How a model did on a day:
-- and over the days before.
-- entity: model_name, dataset
-- event_time: day
-- known_time: known_at
-- key: model_name, dataset, day
-- ttl: 30d
-- lookback: 4w
-- online: yes
-- owner: team:vision
-- tags: quality
SELECT 1 -- ttl: 0d"""
    assert parse_header("daily", text) == FeatureHeader(
        description="How a model did on a day: and over the days before.",
        entity=("model_name", "dataset"),
        event_time="day",
        known_time="known_at",
        key=("model_name", "dataset", "day"),
        ttl=timedelta(days=30),
        lookback_days=28,
        online=True,
        owner="team:vision",
        tags=("quality",),
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("entities: run_id", "there is no 'entities', but 'entity'"),
        ("entitiy: run_id", "there is no 'entitiy', but 'entity'"),
        ("ttl: 0d", "no value would ever be young enough"),
        ("ttl: 999999999d", "more than 36500 days"),
        ("ttl: a month", "such as 30d"),
        ("ttl: 99999999999999w", "such as 30d"),
        ("ttl: 36501d", "more than 36500 days"),
        ("lookback: 12h", "by whole days"),
        ("lookback: 3661d", "3660d is the longest"),
        ("online: maybe", "write yes or no"),
        ("entity: a,,b", "one comma each"),
        ("key: a, a", "stands twice"),
        ("owner:", "has no value"),
        ("owner: -- nobody", "has no value"),
    ],
)
def test_a_wrong_line_is_told_with_its_place(line, told):
    with pytest.raises(ValueError, match=rf"daily\.sql, line 2: .*{told}"):
        parse_header("daily", f"-- One row a day.\n-- {line}\nSELECT 1")


def test_a_header_may_have_blank_lines_indents_and_remarks():
    text = """
      -- Cats.

      --entity : cat, home  -- of a person
    \t-- event_time: born -- UTC

    SELECT cat -- key: cat
    -- ttl: 3d"""
    assert parse_header("cats", text) == FeatureHeader("Cats.", entity=("cat", "home"), event_time="born")
    assert parse_header("cats", "-- Cats.\n/* more */ SELECT 1").description == "Cats."


def test_a_header_between_slashes_and_stars_is_refused():
    with pytest.raises(
        ValueError, match=r"cats\.sql, line 2: .* begin with --, and this comment begins with /\*"
    ):
        parse_header("cats", "\n  /* Cats.\n-- entity: cat */\nSELECT 1")


def test_a_line_stands_once():
    with pytest.raises(ValueError, match=r"line 2: tags stands twice"):
        parse_header("daily", "-- tags: a\n-- tags: b\nSELECT 1")


@pytest.mark.parametrize("asset", TABLES)
def test_a_pinned_contract_is_the_contract(asset):
    assert pinned_contract(asset, pinned_text(TABLES[asset])) == TABLES[asset]


def test_folders_of_a_team_are_read_beside_the_shipped_one(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cats.sql").write_text("-- Cats.\n-- entity: cat\n-- event_time: born\nSELECT 1")
    (tmp_path / "mine" / "dogs.sql").write_text("-- Dogs.\n-- ttl: 0s\nSELECT 1")
    pin_of(tmp_path / "mine" / "dogs.sql").write_text('{"columns": 3}')
    settings = Settings(home=tmp_path, feature_folders=(Path("mine"),))
    *shipped, cats, dogs = feature_files(settings)
    assert {file.name for file in shipped} >= {"run_features", "ml_predictions"}
    assert all(file.contract and not file.fault for file in shipped)
    assert (cats.asset, cats.is_view, cats.contract, cats.fault) == ("duckdb/cats", True, None, "")
    assert "line 2: ttl" in dogs.fault and "dogs.contract.json cannot be read" in dogs.fault
    listed = views(settings).to_pylist()
    assert [row["view"] for row in listed if row["entity"] == ["cat"]] == ["cats"]
    assert span_text(timedelta(days=14)) == "2w" and span_text(timedelta(hours=36)) == "36h"


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "gone"])
def test_the_graph_loads_without_the_pins_that_are_shipped(tmp_path, monkeypatch, broken):
    folder = tmp_path / "features"
    shutil.copytree(SHIPPED, folder)
    monkeypatch.setattr("ml_assets.contracts.feature_files.SHIPPED", folder)
    settings = Settings(home=tmp_path)
    pins = {path: path.read_text() for path in folder.glob("*.contract.json")}

    def take(path: Path) -> None:
        if broken:
            path.write_text("{")
        else:
            path.unlink()

    for path, text in pins.items():
        take(path)
        name = path.name.removesuffix(".contract.json")
        assert set(TABLES) - set(tables(settings)) == {f"duckdb/{name}"} | {f"serving/{name}"} & set(TABLES)
        path.write_text(text)
    for path in pins:
        take(path)
    dg.Definitions.validate_loadable(build_defs(settings))
    assert compare_all(tables(settings), lambda _store, _sql: []) == []


def test_a_text_that_was_lost_after_the_rows_were_written_is_not_pinned(tmp_path):
    path = tmp_path / "cats.sql"
    path.write_text("-- Cats.\nSELECT 1 AS cat")
    [file] = read_files([path])
    path.write_bytes(b"-- Gr\xf6\xdfe\nSELECT 1 AS cat")
    pin_contract(dg.build_asset_context(), file, TABLES["duckdb/run_features"])
    assert [each.name for each in tmp_path.iterdir()] == ["cats.sql"]
