"""The page of a map, opened from disk in a real browser."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from ml_assets.lib.map_page import map_page
from ml_assets.operations.page_file import page_part

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def row(n: int, cluster: int, x: float, y: float, title: str | None = None) -> dict[str, Any]:
    return {
        "id": f"d{n}",
        "title": title or f"Document {n}",
        "cluster": cluster,
        "label": None if cluster < 0 else f"topic {cluster}",
        "x": x,
        "y": y,
    }


def rows() -> list[dict[str, Any]]:
    near = [row(n, 7, n % 5 / 10, n // 5 / 10) for n in range(20)]
    far = [row(20 + n, 3, 10 + n % 5 / 10, 10 + n // 5 / 10) for n in range(10)]
    return [*near, *far, row(30, -1, 0, 10, EVIL), row(31, -1, 0, 10, EVIL)]


def opened(page: Page, path: Path, given: list[dict[str, Any]]) -> list[str]:
    """Opens a map; what is asked of a network or goes wrong is in the list."""
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: wrong.append(request.url) if request.url != path.as_uri() else None)
    path.write_text(map_page("documents", given, page_part("map.css"), page_part("map.js")), encoding="utf-8")
    page.goto(path.as_uri())
    return wrong


def test_a_map_tells_titles_and_is_filtered(page: Page, tmp_path: Path) -> None:
    wrong = opened(page, tmp_path / "map.html", rows())
    expect(page.locator(".lead")).to_contain_text("32 documents in 2 clusters; 2 in none.")
    assert page.locator(".list li").all_inner_texts() == ["topic 7\n20", "topic 3\n10", "in no cluster\n2"]

    def hover(n: int) -> None:
        box = page.locator("canvas").bounding_box()
        assert box
        x, y = page.evaluate(f"at({n})")
        page.mouse.move(box["x"] + x, box["y"] + y)

    readout = page.locator(".readout")
    hover(25)
    expect(readout.locator("b")).to_have_text("Document 25")
    expect(readout).to_contain_text("d25")
    expect(readout).to_contain_text("topic 3")
    hover(30)
    expect(readout.locator("b")).to_have_text(EVIL)
    expect(readout).to_contain_text("and 1 more here")

    # A cluster alone: what is not shown is not told either.
    page.get_by_role("button", name="topic 7").click()
    expect(page.locator("output")).to_have_text("20 of 32")
    hover(25)
    expect(readout).to_be_hidden()
    page.get_by_label("Title or id").fill("document 1")
    expect(page.locator("output")).to_have_text("11 of 32")
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("output")).to_have_text("")
    hover(25)
    page.mouse.wheel(0, -800)
    page.wait_for_function("view.scale > 2 * view.least")
    assert wrong == []


def test_maps_of_nothing_and_of_one_point_are_pages(page: Page, tmp_path: Path) -> None:
    for n, given in enumerate(([], [row(0, -1, 0, 0)])):
        wrong = opened(page, tmp_path / f"{n}.html", given)
        expect(page.locator(".lead")).to_contain_text(f"{n} documents in 0 clusters")
        assert wrong == []
