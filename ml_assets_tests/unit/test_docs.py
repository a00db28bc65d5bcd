"""What the documentation points at is there."""

import re

import pytest

from ml_assets.settings import PROJECT_ROOT

PAGES = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_readme_shows_pictures_and_pages():
    text = (PROJECT_ROOT / "README.md").read_text()
    for target in ("docs/images/lineage.png", "docs/images/trend.png", "docs/servers.md"):
        assert f"]({target})" in text


def test_pictures_are_small():
    pictures = sorted((PROJECT_ROOT / "docs" / "images").glob("*.png"))
    assert pictures
    assert [picture.name for picture in pictures if picture.stat().st_size >= 300_000] == []


def test_tests_that_pages_name_are_there():
    for page in PAGES:
        for name, target in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", page.read_text()):
            assert f"def {name}(" in (page.parent / target).read_text(), (page.name, name)
