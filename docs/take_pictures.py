"""Retakes the pictures in docs/images from a running UI: `make up`, then `.venv/bin/python docs/take_pictures.py`.

Needs Chromium, and what `make lint` installs. The UI is looked for at http://127.0.0.1:3000, or at the URL that is given;
three pictures are of pages on the demo's home, which is found as the commands find it.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, Position, expect, sync_playwright

from ml_assets.cli.lineage import table_facts
from ml_assets.operations.lineage import graph_lineage, page_of_graph, the_column
from ml_assets.settings import Settings
from ml_assets.stack import Stack

IMAGES = Path(__file__).with_name("images")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main(url: str) -> None:
    """Take all pictures."""
    chromium = shutil.which("chromium") or sys.exit("No chromium is installed: apt-get install chromium.")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=FLAGS) as browser,
    ):
        page = browser.new_page(viewport={"width": 1760, "height": 1240})
        expect.set_options(timeout=60_000)
        lineage(page, url)
        plot(page, url, "clickhouse/performance_hourly", "trend")
        comparison(page)
        columns(page)
        model(page)
        alerts(page, url)


def lineage(page: Page, url: str) -> None:
    """The groups, then every table in its group."""
    page.goto(f"{url}/asset-groups")
    page.get_by_text("Hide navigation").click()
    canvas = page.locator("[data-svg-viewport]")
    expect(canvas.get_by_text("raw", exact=True)).to_be_visible()
    expect(canvas.get_by_text("fetching statuses")).to_have_count(0)
    page.add_style_tag(content="#zoom-slider-container { display: none }")
    save(page, "lineage", clip=_around_nodes(page, canvas))

    page.set_viewport_size({"width": 1500, "height": 2150})
    corner: Position = {"x": 20, "y": 1900}
    canvas.click(position=corner)
    page.keyboard.press("Alt+KeyE")
    expect(canvas.get_by_text("run_features", exact=True)).to_be_visible()
    save(page, "tables", clip=_around_nodes(page, canvas))


def _around_nodes(page: Page, canvas: Locator) -> FloatRect:
    """The part of the page that holds the graph, once it fits into the window."""
    window = canvas.bounding_box() or sys.exit("The page shows no graph.")
    canvas.dblclick(position={"x": 20, "y": window["height"] - 100})
    page.wait_for_timeout(4000)  # the animation has no end that could be waited for
    boxes = [box for node in canvas.locator("foreignObject").all() if (box := node.bounding_box())]
    left, top = (min(box[side] for box in boxes) - 20 for side in ("x", "y"))
    width = max(box["x"] + box["width"] for box in boxes) + 20 - left
    height = max(box["y"] + box["height"] for box in boxes) + 20 - top
    return {"x": left, "y": top, "width": width, "height": height}


def alerts(page: Page, url: str) -> None:
    """The check that fails for the demo's models of digits."""
    page.set_viewport_size({"width": 1500, "height": 820})
    page.goto(f"{url}/assets/clickhouse/alerts?view=checks")
    page.get_by_text("no_open_alerts", exact=True).filter(visible=True).first.click()
    expect(page.get_by_text("alerts are open").filter(visible=True).first).to_be_visible()
    page.wait_for_timeout(1000)
    save(page, "alerts")


def plot(page: Page, url: str, asset: str, name: str) -> None:
    """An asset's page with its plot open."""
    page.set_viewport_size({"width": 1360, "height": 1000})
    page.goto(f"{url}/assets/{asset}?view=overview")
    row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
    row.get_by_text("Show Markdown").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("img")).to_be_visible()
    page.wait_for_timeout(1000)
    save(dialog.locator("img"), name)


def comparison(page: Page) -> None:
    """What is drawn on the leaderboard's page, with a curve read out."""
    page.set_viewport_size({"width": 1180, "height": 1200})
    page.goto((Settings().reports / "leaderboard.html").as_uri())
    curves = page.locator("#curves svg")
    curves.scroll_into_view_if_needed()
    box = curves.bounding_box() or sys.exit("The page shows no curves.")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
    parts = [page.locator("section").filter(has=page.locator(name)) for name in ("#parallel", "#curves")]
    above, below = (part.bounding_box() or sys.exit("The page shows no runs.") for part in parts)
    page.evaluate(f"scrollBy(0, {above['y'] - 12})")
    moved = above["y"] - 12
    height = below["y"] + below["height"] - above["y"] + 24
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5 - moved)
    save(page, "compare", clip={"x": 0, "y": 0, "width": 1180, "height": min(height, 1200)})


def columns(page: Page) -> None:
    """The page of the whole graph with a column chosen."""
    settings = Settings()
    graph = graph_lineage(settings)
    chosen = the_column(graph, "run_features.accuracy")
    page.set_viewport_size({"width": 1560, "height": 1240})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lineage.html"
        file.write_text(page_of_graph(graph, table_facts(settings), chosen), encoding="utf-8")
        page.goto(file.as_uri())
    expect(page.locator("#chosen")).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    save(page, "column_lineage")


def model(page: Page) -> None:
    """The head of a model's page, down to its latency."""
    page.set_viewport_size({"width": 1180, "height": 1200})
    with tempfile.TemporaryDirectory() as folder:
        file = Stack(Settings()).performance.report("digits-random_forest", Path(folder) / "model.html")
        page.goto(file.as_uri())
    last = page.locator("#latency").bounding_box() or sys.exit("The page shows no latency.")
    height = last["y"] + last["height"] + 12
    save(page, "model", clip={"x": 0, "y": 0, "width": 1180, "height": height}, full_page=True)


def save(shown: Locator | Page, name: str, **options: Any) -> None:
    """A screenshot in a palette of 128 colours: a third of the bytes."""
    file = IMAGES / f"{name}.png"
    shown.screenshot(path=file, **options)
    with Image.open(file) as image:
        image.convert("RGB").quantize(128).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000")
