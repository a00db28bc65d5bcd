"""The page of a comparison, opened from disk in a real browser."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from playwright.sync_api import Page, expect

from ml_assets.lib.comparison import Comparison, compare
from ml_assets.lib.comparison_page import Curves
from ml_assets.operations.run_comparison import RunComparison

EVIL = "<img src=x onerror=alert(1)>"
RUNS = [
    {
        "run_id": f"run-{i:02}",
        "name": EVIL if i == 0 else f"trial {i}",
        "experiment": "sweep",
        "status": "completed",
        "parameters": {"lr": 10.0 ** -(i % 4), "depth": i, "optimizer": ["adam", "sgd"][i % 2], "trees": 100},
        "metrics": {"accuracy": 0.5 + i / 100, "loss": 1 / (i + 1)},
    }
    for i in range(12)
]
STEPS = 40


def curves() -> Curves:
    rows = [
        {"run_id": run["run_id"], "key": key, "x": step, "value": _value(i, key, step)}
        for key in ("accuracy", "loss")
        for i, run in enumerate(RUNS)
        for step in range(STEPS)
    ]
    return Curves(pa.Table.from_pylist(rows), left_out=7)


def _value(i: int, key: str, step: int) -> float | None:
    if (i, key, step) == (3, "loss", 20):
        return None
    return (0.5 + i / 100) * (1 - math.exp(-step / 8)) if key == "accuracy" else math.exp(-step / (i + 4))


Open = Callable[..., Page]


@pytest.fixture
def opened(page: Page, tmp_path: Path) -> Any:
    """Opens a comparison from disk; at the end nothing was asked of a network, and nothing went wrong."""
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    path = tmp_path / "page.html"

    def open_page(found: Comparison | None = None, drawn: Curves | None = None) -> Page:
        found = found or compare(RUNS)
        RunComparison(found, [], lambda: drawn or curves()).write_html(path)
        page.goto(path.as_uri())
        return page

    yield open_page
    assert (wrong, {url for url in asked if not url.startswith("data:")}) == ([], {path.as_uri()})


def column(page: Page, table: str, place: int) -> list[str]:
    return (
        page.locator(f"#{table} tbody tr")
        .locator(f"td:nth-child({place}), th:nth-child({place})")
        .all_inner_texts()
    )


def test_a_column_sorts_both_ways_with_what_is_unknown_last(opened: Open) -> None:
    runs = [*RUNS, {"run_id": "bare", "experiment": "sweep", "status": "failed"}]
    page = opened(compare(runs))
    heads = page.locator("#runs thead th")
    accuracy = heads.all_inner_texts().index("accuracy")
    expect(heads.nth(accuracy)).to_have_attribute("aria-sort", "descending")  # as it came, the best first
    found = column(page, "runs", accuracy + 1)
    assert (found[0], found[-2], found[-1]) == ("0.61", "0.5", "–")  # noqa: RUF001 - as the page shows it
    heads.nth(accuracy).get_by_role("button").click()
    expect(heads.nth(accuracy)).to_have_attribute("aria-sort", "ascending")
    found = column(page, "runs", accuracy + 1)
    assert (found[0], found[-2], found[-1]) == ("0.5", "0.61", "–")  # noqa: RUF001
    heads.nth(0).get_by_role("button").click()
    expect(heads.nth(accuracy)).not_to_have_attribute("aria-sort", "ascending")
    names = column(page, "runs", 1)
    assert names.index("trial 2") < names.index("trial 10")  # numbers within words count as numbers


def test_hovering_a_curve_reads_out_all_runs_at_that_step(opened: Open) -> None:
    page = opened()
    expect(page.get_by_text("7 more curves are left out")).to_be_visible()
    chart = page.locator("#curves svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.4)
    readout = page.locator("#curves .readout")
    expect(readout).to_be_visible()
    rows = readout.locator("div").all_inner_texts()
    assert len(rows) == len(RUNS)
    assert rows[0].startswith("trial 11")  # the best first
    expect(readout.locator("b")).to_have_text("step 19")
    expect(page.locator("#curves path.strong")).to_have_count(1)
    page.mouse.move(2, 2)
    expect(readout).to_be_hidden()

    page.locator("#curve-bar").get_by_role("button", name="loss", exact=True).click()
    expect(page.locator("#curves .lost")).to_have_count(1)
    assert (page.locator("#curves path.line").nth(3).get_attribute("d") or "").count("M") == 2  # a gap
    chart.focus()
    page.keyboard.press("ArrowRight")
    expect(readout.locator("b")).to_have_text("step 0")


def test_a_brush_chooses_runs_in_every_part_of_the_page(opened: Open) -> None:
    page = opened()
    page.locator("#parallel svg").scroll_into_view_if_needed()
    axis = page.locator("#parallel .hit").last
    box = axis.bounding_box()
    assert box
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(x, box["y"] + 60, steps=4)
    page.mouse.up()
    told = page.locator("#brushed").inner_text()
    assert told.endswith("of 12 runs chosen")
    left = int(told.split()[0])
    assert 1 <= left < 6
    expect(page.locator("#runs tbody tr:visible")).to_have_count(left)
    expect(page.locator("#curves path.dim")).to_have_count(12 - left)
    page.get_by_role("button", name="all runs").click()
    expect(page.locator("#runs tbody tr:visible")).to_have_count(12)
    page.get_by_role("searchbox").fill("SGD")
    expect(page.locator("#runs tbody tr:visible")).to_have_count(6)


def test_names_that_look_like_markup_are_shown_as_they_are(opened: Open) -> None:
    page = opened()
    expect(page.locator("#runs").get_by_text(EVIL)).to_be_visible()
    expect(page.locator("img")).to_have_count(0)


def test_it_is_read_without_the_script_and_in_the_dark(opened: Open, tmp_path: Path) -> None:
    page = opened()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    browser = page.context.browser
    assert browser
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto((tmp_path / "page.html").as_uri())
        expect(plain.locator("#runs tbody tr").last).to_be_visible()
        expect(plain.locator("#curves")).to_be_hidden()


def test_runs_without_anything_to_draw(opened: Open) -> None:
    nothing = Curves(pa.table({"run_id": [], "key": [], "x": [], "value": []}))
    page = opened(compare([{"run_id": "a"}, {"run_id": "b"}]), nothing)
    expect(page.get_by_text("None of these runs has a metric.")).to_be_visible()
    expect(page.locator("#runs tbody tr")).to_have_count(2)
