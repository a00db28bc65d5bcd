"""What a person sees in the Dagster UI, in a real browser."""

import json
import re

import dagster as dg
import pytest
from playwright.sync_api import Page, expect

from ml_assets.build import build_defs
from ml_assets.cli.instance import prepare_home
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.settings import Settings

pytestmark = pytest.mark.timeout(900)  # the whole demo, on machines that do other things as well

GROUPS = ["raw", "experiments", "features", "performance", "embeddings", "serving", "quality"]


def test_lineage_shows_every_group(demo_ui: str, page: Page):
    page.goto(f"{demo_ui}/asset-groups")
    for group in GROUPS:
        expect(page.locator("svg").get_by_text(group, exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("asset", "plot", "column", "meaning"),
    [
        ("duckdb/run_features", "learning_curves", "loss_slope", "least-squares slope of loss over step"),
        ("clickhouse/performance_hourly", "trend", "request_count", "events of kind inference"),
    ],
)
def test_asset_page_shows_columns_and_plot(demo_ui: str, page: Page, asset, plot, column, meaning):
    page.goto(f"{demo_ui}/assets/{asset}?view=overview")
    row = page.get_by_role("row").filter(has=page.get_by_text(column, exact=True))
    expect(row.get_by_text(meaning)).to_be_visible()

    shown = page.get_by_role("row").filter(has=page.get_by_text(plot, exact=True))
    shown.get_by_text("Show Markdown").click()
    picture = page.get_by_role("dialog").locator("img")
    expect(picture).to_be_visible()
    expect(picture).to_have_attribute("src", re.compile(r"^data:image/png;base64,"))
    page.wait_for_function("image => image.naturalWidth === 800", arg=picture.element_handle())


def test_passed_checks_are_shown(demo_ui: str, page: Page):
    page.goto(f"{demo_ui}/assets/postgres/ml_experiments?view=checks")
    expect(page.get_by_text("unique_key", exact=True).filter(visible=True).first).to_be_visible()
    expect(page.get_by_text("Succeeded", exact=True).first).to_be_visible()
    expect(page.get_by_text("Failed", exact=True)).to_have_count(0)
    # A person may run a check by itself, without rebuilding the table.
    expect(page.get_by_role("button", name="Execute all")).to_be_enabled()


RUN = {
    "run_id": "r1",
    "experiment": "cats",
    "status": "completed",
    "created_at": "2026-03-01T10:00:00Z",
    "metrics": {"accuracy": 0.9},
}
TABLES = ["duckdb/intake_runs", "duckdb/raw_runs", "postgres/ml_experiments", "sqlite/ml_experiments"]
CHECKED = "sqlite/ml_experiments"


@pytest.fixture
def tampered_ui(settings: Settings, serve_ui) -> str:
    """URL of a UI on a small home in which somebody deleted a row by hand, and the checks ran after that."""
    prepare_home(settings)
    landing = settings.landing / "runs"
    landing.mkdir(parents=True)
    (landing / "mine.jsonl").write_text(json.dumps(RUN))
    checks = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(_key(CHECKED)))
    defs = dg.Definitions.merge(build_defs(settings), dg.Definitions(jobs=[checks]))
    graph = defs.resolve_implicit_global_asset_job_def()
    day = {
        "dagster/asset_partition_range_start": "2026-03-01",
        "dagster/asset_partition_range_end": "2026-03-01",
    }
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        intake, *daily = map(_key, TABLES)
        assert graph.execute_in_process(instance=instance, asset_selection=[intake]).success
        assert graph.execute_in_process(instance=instance, asset_selection=daily, tags=day).success
        with SQLiteResource(home=str(settings.home)).connect(write=True) as connection:
            assert connection.execute("DELETE FROM ml_experiments").rowcount == 1
        assert defs.resolve_job_def("checks").execute_in_process(instance=instance).success
    stores = {
        f"ML_ASSETS_{name.upper()}": url
        for name in ("postgres_url", "lake_url", "chroma_url", "redis_url")
        if (url := getattr(settings, name))
    }
    return serve_ui({**settings.child_environment(), **stores})


def test_failed_check_is_shown(tampered_ui: str, page: Page):
    page.goto(f"{tampered_ui}/assets/{CHECKED}?view=checks")
    agreement = "agrees_with_postgres_ml_experiments"
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    page.get_by_text(agreement, exact=True).filter(visible=True).first.click()
    expect(page.get_by_text("0 here, 1 in postgres/ml_experiments.")).to_be_visible()
    # What the missing row does not break still stands.
    expect(page.get_by_text("Succeeded", exact=True).first).to_be_visible()


def _key(asset: str) -> dg.AssetKey:
    return dg.AssetKey(asset.split("/"))
