"""What a refresh finds to be stale, from Dagster's own history; nothing is executed here."""

from datetime import date

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.cli.refresh import Refresher
from ml_assets.settings import Settings

RUNS, FEATURES, CARDS = (dg.AssetKey(["duckdb", t]) for t in ("raw_runs", "run_features", "experiment_cards"))


@pytest.fixture
def refresher(tmp_path):
    settings = Settings(home=tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Refresher(settings, build_defs(settings), instance, lambda phase, done, total: None)


def built(refresher: Refresher, key: dg.AssetKey, day: str | None = None, version: str | None = None) -> None:
    version = version or refresher._graph.get(key).code_version
    event = dg.AssetMaterialization(key, partition=day, tags={"dagster/code_version": version or ""})
    refresher._instance.report_runless_asset_event(event)


def test_nothing_built_means_nothing_stale(refresher):
    assert refresher.stale_days() == set()
    assert refresher.stale_tables() == []


def test_a_day_is_stale_where_a_parent_is_newer(refresher):
    children = [k for k in refresher.daily if RUNS in refresher._graph.get(k).parent_keys]
    built(refresher, RUNS, "2026-03-01")
    built(refresher, RUNS, "2026-03-02")
    for child in children:
        built(refresher, child, "2026-03-02")
    assert FEATURES in children
    assert date(2026, 3, 1) in refresher.stale_days()


def test_a_whole_table_follows_any_day_of_its_parent(refresher):
    built(refresher, FEATURES, "2026-03-01")
    assert CARDS in refresher.stale_tables()
    for key in refresher.whole:
        built(refresher, key)
    assert refresher.stale_tables() == []


def test_a_table_built_by_other_logic_is_rebuilt_on_its_days(refresher):
    for key in refresher.daily:
        built(refresher, key, "2026-03-01")
    assert refresher.stale_days() == set()
    built(refresher, FEATURES, "2026-03-01", version="before")
    assert refresher.outdated() == {FEATURES}
    assert refresher.stale_days() == {date(2026, 3, 1)}


def test_files_that_are_left_alone_are_noted(settings):
    (settings.landing / "runs").mkdir(parents=True)
    (settings.landing / "runs" / "a.jsonl.partial").write_text("")
    (settings.landing / "runs" / "closed").symlink_to(settings.landing)
    with dg.DagsterInstance.ephemeral() as instance:
        refresher = Refresher(settings, build_defs(settings), instance, lambda phase, done, total: None)
        assert refresher.pending() == {}
    assert refresher.left_alone == {
        "runs/a.jsonl.partial": "unfinished by its name; rename it when it is complete",
        "runs/closed": "a linked folder is not followed; put the files themselves here",
    }


def test_a_whole_table_that_is_due_takes_those_that_read_it_along(refresher):
    for key in refresher.whole:
        built(refresher, key)
    documents, chunks = (dg.AssetKey(["duckdb", table]) for table in ("raw_documents", "document_chunks"))
    stale = refresher.stale_tables({documents})
    assert stale[:2] == [documents, chunks]
    assert dg.AssetKey(["chroma", "document_index"]) in stale
