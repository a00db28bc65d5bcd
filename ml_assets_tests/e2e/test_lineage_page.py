"""The page of the whole graph, opened from disk in a real browser."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ml_assets.lib.lineage_page import TableFacts
from ml_assets.operations.lineage import ColumnLineage, graph_lineage, page_of_graph
from ml_assets.settings import Settings

FACTS = {
    "duckdb/run_features": TableFacts(1234, datetime.now(UTC) - timedelta(hours=3, minutes=5)),
    "serving/online_features": TableFacts(12, datetime.now(UTC), ("<b>unique_key</b>",)),
    "chroma/document_index": TableFacts(None, None),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ColumnLineage:
    return graph_lineage(Settings(home=tmp_path_factory.mktemp("lineage") / "home"))


@pytest.fixture
def opened(page: Page, graph: ColumnLineage, tmp_path: Path) -> Iterator[Page]:
    """The page; at the end nothing was asked of a network, and nothing went wrong."""
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    path = tmp_path / "lineage.html"
    path.write_text(page_of_graph(graph, FACTS), encoding="utf-8")
    page.goto(path.as_uri())
    yield page
    assert (wrong, {url for url in asked if not url.startswith("data:")}) == ([], {path.as_uri()})


def lit(page: Page, kind: str) -> set[str]:
    """Names of the columns that are lit in one way."""
    return set(
        page.locator(f"li.{kind}").evaluate_all(
            "each => each.map(li => li.closest('article').ariaLabel + '.' + li.textContent)"
        )
    )


def test_a_click_lights_up_where_a_column_comes_from_and_what_breaks_if_it_goes(opened: Page) -> None:
    events = opened.locator("article[aria-label='clickhouse/ml_model_performance']")
    column = events.get_by_role("button", name="inference_time_ms", exact=True)
    expect(column).to_be_hidden()
    events.locator(".head").click()
    column.click()
    measured = "inference_time_ms"
    assert lit(opened, "chosen") == {f"clickhouse/ml_model_performance.{measured}"}
    assert lit(opened, "up") == {
        f"duckdb/model_performance_events.{measured}",
        f"duckdb/raw_performance.{measured}",
        f"duckdb/intake_performance.{measured}",
        f"landing/performance.{measured}",
    }
    hourly = {f"clickhouse/performance_hourly.{part}_{measured}" for part in ("avg", "p50", "p95", "p99")}
    assert hourly <= lit(opened, "down")
    assert all(name.startswith(("clickhouse/", "quality/")) for name in lit(opened, "down"))
    expect(opened.locator("svg path.up")).to_have_count(4)
    assert opened.locator("svg path.down").count() >= 4
    expect(opened.locator("#up-title")).to_have_text("Comes from 4 columns of 4 tables")
    expect(opened.locator("#down-title")).to_contain_text("Breaks if it goes")

    # Several tables have a column of that name.
    opened.locator("#down").get_by_role("button", name=f"p95_{measured}").first.click()
    (chosen,) = lit(opened, "chosen")
    assert chosen in {f"clickhouse/performance_{each}.p95_{measured}" for each in ("daily", "hourly")}
    opened.keyboard.press("Escape")
    assert lit(opened, "chosen") == lit(opened, "up") == set()
    expect(opened.locator("#answer")).to_be_hidden()


def test_a_column_is_found_chosen_and_left_by_the_keyboard_alone(opened: Page) -> None:
    opened.keyboard.press("/")
    opened.keyboard.type("run_features status")
    expect(opened.locator("#found")).to_contain_text("1 column")
    opened.keyboard.press("Enter")
    assert lit(opened, "chosen") == {"duckdb/run_features.status"}
    assert "postgres/ml_experiments.status" not in lit(opened, "down")
    rows = opened.locator("article.rows").evaluate_all("each => each.map(article => article.ariaLabel)")
    assert "serving/online_features" in rows  # which keeps the completed runs alone
    assert (
        "duckdb/model_performance_analysis" in rows
    )  # is made of ml_experiment_results, which does so as well
    expect(opened.locator("#down")).to_contain_text("serving/online_features")
    expect(opened.locator("#down")).to_contain_text("made of a table that breaks")
    assert opened.evaluate("document.activeElement.textContent") == "status"
    assert opened.url.endswith("#duckdb%2Frun_features.status")
    opened.keyboard.press("Enter")  # once more
    assert lit(opened, "chosen") == set()


def test_an_address_that_was_cut_off_opens_without_a_column(opened: Page) -> None:
    start = opened.url
    for cut in ("#duckdb%2Frun_features.status", "#duckdb%"):
        opened.goto("about:blank")
        opened.goto(start + cut)
        assert lit(opened, "chosen") == ({"duckdb/run_features.status"} if cut.endswith("status") else set())
    assert opened.locator("svg path").count() > 10  # it is drawn


def test_tables_tell_how_they_are_and_lie_apart(opened: Page) -> None:
    def told(asset: str) -> str:
        return opened.locator(f"article[aria-label='{asset}'] small").inner_text()

    assert told("duckdb/run_features") == "1,234 rows · 3 h ago"
    assert told("chroma/document_index") == "not built yet"
    assert "1 check failed" in told("serving/online_features")
    expect(opened.locator(".bad")).to_have_attribute("title", "<b>unique_key</b>")

    opened.get_by_role("button", name="all columns").click()
    boxes = opened.locator("article").evaluate_all(
        "each => each.map(a => { const b = a.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] })"
    )
    assert len(boxes) >= 25
    assert not [
        (a, b)
        for a, b in combinations(boxes, 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]
    opened.emulate_media(color_scheme="dark")
    card, ink = (
        opened.locator("article").first.evaluate(f"each => getComputedStyle(each).{name}")
        for name in ("backgroundColor", "color")
    )
    assert sum(map(int, card[4:-1].split(","))) < sum(map(int, ink[4:-1].split(",")))
