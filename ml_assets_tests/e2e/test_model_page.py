"""The page of a model, opened from disk in a real browser."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ml_assets.lib.days import DayRange
from ml_assets.lib.model_page.facts import ModelFacts, Reliability
from ml_assets.lib.model_page.page import model_page
from ml_assets.operations.page_file import page_part

EVIL = 'digits/<img src=x onerror=alert(1)> "forest"'
FIRST = date(2026, 11, 1)
DAYS = DayRange(FIRST, FIRST + timedelta(days=29))
SHIFT = 20
"""Days until the inputs shift."""


def at(day: date, hour: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def rows_by_day() -> list[dict[str, Any]]:
    found = []
    for i, day in enumerate(DAYS.days()):
        if i in (8, 9):  # nobody was at work
            continue
        slow = 1.0 + 0.4 * math.sin(i) + (i > SHIFT)
        found.append(
            {
                "day": day,
                "evaluation_count": 6,
                "request_count": 400 + i,
                "accuracy_count": 6,
                "answer_count": 600,
                "avg_accuracy": 0.93 - 0.01 * math.sin(i) - 0.25 * (i >= SHIFT),
                "std_accuracy": 0.02 + 0.01 * math.cos(i),
                "avg_f1_score": 0.92 - 0.01 * math.sin(i) - 0.26 * (i >= SHIFT),
                "p50_inference_time_ms": 4.0 * slow,
                "p95_inference_time_ms": 9.0 * slow,
                "p99_inference_time_ms": 16.0 * slow,
            }
        )
    return found


def drift() -> list[dict[str, Any]]:
    found = []
    for i, day in enumerate(DAYS.days()):
        for n in range(24):
            far = i >= SHIFT and n % 3 == 0
            distance = 0.04 + 0.01 * math.sin(n + i) + (0.2 + 0.02 * n) * far
            few = n == 5 and i % 4 == 0
            found.append(
                {
                    "day": at(day),
                    "subject": "input" if n < 22 else ("prediction", "confidence")[n - 22],
                    "feature": f"pixel_{n:02}" if n < 22 else ("prediction", "confidence")[n - 22],
                    "slice": "all",
                    "slice_value": "",
                    "kind": "category" if n == 22 else "number",
                    "ks": None if n == 22 else distance,
                    "psi": distance,
                    "threshold": 0.1,
                    "state": "too few" if few else "drift" if far else "none",
                    "reason": f"KS {distance:.3f} ({'at least' if far else 'below'} 0.1), corrected p 1e-9.",
                }
            )
    return found


def estimates() -> list[dict[str, Any]]:
    return [
        {
            "day": at(day),
            "slice": "all",
            "slice_value": "",
            "estimated_accuracy": (0.92 - 0.005 * math.sin(i) - 0.2 * (i >= SHIFT)) if i < 26 else None,
            "low": 0.89 - 0.2 * (i >= SHIFT) if i < 26 else None,
            "high": 0.95 - 0.2 * (i >= SHIFT) if i < 26 else None,
            "applicable": i < 26,
            "reason": ""
            if i < 26
            else "Of the latest 80 answers 60.0% were right, where 85.0% were promised.",
            "measured_accuracy": 0.925 - 0.21 * (i >= SHIFT) if i % 2 == 0 else None,
        }
        for i, day in enumerate(DAYS.days())
    ]


def bins(lost: float) -> list[dict[str, Any]]:
    return [
        {
            "bin": n,
            "predictions": n * n,
            "certainty": n * n * (n - 0.5) / 15,
            "hits": round(n * n * max(0.0, (n - 0.5) / 15 - lost)),
        }
        for n in range(4, 16)
    ]


def episode(metric: str, closed: bool, change: float) -> dict[str, Any]:
    began = SHIFT if not closed else 5
    return {
        "metric": metric,
        "kind": "quality" if metric == "accuracy" else "latency",
        "slice": "all",
        "slice_value": "",
        "began_at": at(DAYS.days()[began], 4),
        "opened_at": at(DAYS.days()[began], 9),
        "last_seen_at": at(DAYS.days()[began + 1], 7),
        "closed_at": at(DAYS.days()[began + 2]) if closed else None,
        "change": change,
        "low": -0.29,
        "high": -0.21,
        "confidence": 0.99996,
        "state": "closed" if closed else "open",
        "description": f"{EVIL} became worse: {metric} fell from 0.93 to 0.68 and stays there, since its inputs shifted.",
    }


def facts() -> ModelFacts:
    daily = rows_by_day()
    versions = [
        {**row, "model_version": str(n), "first_at": at(DAYS.days()[n * 10], 3), "last_at": at(DAYS.last, 20)}
        for n, row in ((2, daily[-1]), (1, daily[12]), (0, daily[0]))
    ]
    return ModelFacts(
        model_name=EVIL,
        days=DAYS,
        baseline=DayRange(FIRST, FIRST + timedelta(days=6)),
        pinned=True,
        made_at=at(DAYS.last, 12),
        daily=daily,
        baseline_daily=daily[:7],
        versions=versions,
        served=[{"day": row["day"], "calibration_error": 0.03 + 0.01 * i} for i, row in enumerate(daily)],
        reliability=[Reliability("baseline", bins(0.02)), Reliability("last 7 days", bins(0.25))],
        drift=drift(),
        estimates=estimates(),
        episodes=[
            episode("accuracy", closed=False, change=-0.27),
            episode("p95_inference_time_ms", closed=True, change=0.4),
            {**episode("drift", closed=False, change=0.657), "kind": "drift", "source": "drift", "low": None},
        ],
        decision={
            "model_version": "2",
            "promotable": False,
            "decided_at": at(DAYS.last, 11),
            "checks": [
                {"name": "drift", "passed": False, "judged": True, "sentence": "8 of 22 inputs drift."},
                {"name": "quality", "passed": False, "judged": False, "sentence": "Nobody knows yet."},
                {"name": "leakage", "passed": True, "judged": True, "sentence": "Nothing leaks."},
            ],
        },
        gate_known=True,
        later_events=2,
    )


def bare() -> ModelFacts:
    """A model with one prediction, of which nothing else was ever made."""
    day = DayRange(FIRST, FIRST)
    return ModelFacts("lonely", day, day, False, at(FIRST))


Open = Callable[..., Page]


@pytest.fixture
def opened(page: Page, tmp_path: Path) -> Iterator[Open]:
    """Opens a page from disk; at the end nothing was asked of a network, and nothing went wrong."""
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    path = tmp_path / "model.html"

    def open_page(known: ModelFacts) -> Page:
        style = page_part("compare.css") + page_part("model.css")
        path.write_text(model_page(known, style, page_part("model.js")), encoding="utf-8")
        page.goto(path.as_uri())
        return page

    yield open_page
    assert (wrong, {url for url in asked if not url.startswith("data:")}) == ([], {path.as_uri()})


CONTRAST = """
() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const weak = [];
  for (const each of document.querySelectorAll("main *")) {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !each.checkVisibility() || each.closest(".unseen")) continue;
    let behind = each;
    while (rgba(getComputedStyle(behind).backgroundColor)[3] < 255 && behind.parentElement) behind = behind.parentElement;
    const [a, b] = [light(rgba(getComputedStyle(each).color)), light(rgba(getComputedStyle(behind).backgroundColor))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push(`${each.tagName} ${each.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return weak;
}
"""


def test_every_part_is_there_and_read_by_everybody(opened: Open) -> None:
    page = opened(facts())
    heads = ["Quality", "Latency", "Episodes", "Drift", "Accuracy before the labels come", "Calibration"]
    assert page.locator("section > h2").all_inner_texts() == [*heads, "Versions", "Promotion"]
    expect(page.locator("h1")).to_have_text(EVIL)
    expect(page.locator("img")).to_have_count(0)
    expect(page.get_by_text("2 events claim to be of a time to come")).to_be_visible()
    assert page.locator("#episode-rows tbody tr td:nth-child(4)").all_inner_texts() == [
        "-27.0 %",
        "0.657",
        "+40.0 %",
    ]
    assert page.locator("#episode-rows th").all_inner_texts()[6:10] == [
        "began",
        "opened",
        "last seen",
        "ended",
    ]
    assert page.locator("#episode-rows tbody tr:last-child td").all_inner_texts()[5:] == [
        "2026-11-06 04:00",
        "2026-11-06 09:00",
        "2026-11-07 07:00",
        "2026-11-08",
    ]
    sentences = page.locator("#drift ul.sentences li").all_inner_texts()
    assert (sentences[0], sentences[-1]) == (
        "First drift in these days: 2026-11-21.",
        "2 more drift on that day.",
    )
    assert page.locator("#gate li.bad").all_inner_texts() == [
        "drift refused 8 of 22 inputs drift.",
        "quality not judged Nobody knows yet.",
    ]
    # No word of a legend is cut off.
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.legend span')].filter((s) => s.scrollWidth > s.clientWidth)"
        )
        == []
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CONTRAST) == []
    for width in (1400, 800, 400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    pictures = page.locator("[role=img]")
    assert all(
        len(told or "") > 40 for told in pictures.evaluate_all("all => all.map((each) => each.ariaLabel)")
    )
    assert pictures.count() == 6


def test_a_day_is_read_out_by_pointer_and_by_keys(opened: Open) -> None:
    page = opened(facts())
    plot, readout = page.locator("#chart-quality"), page.locator("#chart-quality .readout")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * (SHIFT + 0.5) / len(DAYS), box["y"] + 40)
    expect(readout.locator("b")).to_have_text("2026-11-21")
    expect(readout).to_contain_text("accuracy, mean of the day")
    expect(readout).to_contain_text("episode: accuracy -27.0 %")
    page.mouse.move(2, 2)
    expect(readout).to_be_hidden()
    plot.focus()
    page.keyboard.press("Home")
    expect(readout.locator("b")).to_have_text("2026-11-01")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("nothing measured")
    page.keyboard.press("Escape")
    expect(readout).to_be_hidden()
    line = page.locator("#chart-quality path.line.c0").get_attribute("d") or ""
    assert line.count("M") == 2  # the gap


def test_it_is_read_without_the_script(opened: Open, tmp_path: Path) -> None:
    browser = opened(facts()).context.browser
    assert browser
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto((tmp_path / "model.html").as_uri())
        expect(plain.locator("#chart-latency path.band")).to_have_count(2)
        expect(plain.locator("table.heat td.far")).to_have_count(8 * 10)
        plain.get_by_text("The numbers by day").click()
        expect(plain.locator("#days tbody tr")).to_have_count(28)


def test_what_was_never_looked_at_is_said(opened: Open) -> None:
    page = opened(bare())
    for asset in ("performance_regressions", "feature_drift", "estimated_accuracy"):
        expect(page.get_by_text(f"clickhouse/{asset} was never materialized")).to_be_visible()
    expect(page.get_by_text("nothing was measured in these days")).to_have_count(2)
    expect(page.get_by_text("The gate has not judged any model yet")).to_be_visible()
    page.set_viewport_size({"width": 400, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.evaluate(CONTRAST) == []
