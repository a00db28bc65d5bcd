"""The notebooks, executed from top to bottom: on the demo, and where there is nothing."""

import base64
import struct
from typing import Any

import nbformat
import pytest

from ml_assets.settings import PROJECT_ROOT

pytestmark = pytest.mark.timeout(900)  # the demo is made for them, on machines that do other things as well

PICTURES = {"experiments": 4, "features": 2, "performance": 3, "search": 3}
"""How many each of them shows on the demo."""


def outputs(notebook: Any, kind: str) -> list[Any]:
    return [each for cell in notebook.cells for each in cell.get("outputs", ()) if each.output_type == kind]


def pictures(notebook: Any) -> list[bytes]:
    shown = outputs(notebook, "display_data") + outputs(notebook, "execute_result")
    return [base64.b64decode(each.data["image/png"]) for each in shown if "image/png" in each.data]


def test_every_notebook_is_tried():
    assert {path.stem for path in (PROJECT_ROOT / "notebooks").glob("*.ipynb")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_a_notebook_is_a_story_without_output(name):
    """What a cell shows is made where it is run: kept, it would be of somebody's machine and of another day."""
    notebook = nbformat.read(PROJECT_ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []
    assert notebook.cells[0].source.startswith("# ")
    assert "ml_assets.connect()" in code[0].source


@pytest.mark.parametrize("name", PICTURES)
def test_a_notebook_runs_on_the_demo(name, run_notebook, demo_home):
    notebook = run_notebook(name, demo_home)
    assert [f"{each.ename}: {each.evalue}" for each in outputs(notebook, "error")] == []
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    shown = pictures(notebook)
    assert len(shown) == PICTURES[name]
    for picture in shown:
        width, height = struct.unpack(">II", picture[16:24])
        assert width > 400 and height > 150
    told = [each.text for each in outputs(notebook, "stream") if each.name == "stderr"]
    assert [
        text for text in told if "font cache" not in text
    ] == []  # matplotlib's, on its first day on a machine


def test_a_notebook_says_in_a_sentence_that_there_is_no_home(run_notebook, tmp_path):
    notebook = run_notebook("experiments", tmp_path / "none")
    [error] = outputs(notebook, "error")
    assert error.ename == "Refusal"
    assert error.traceback == [f"Refusal: {error.evalue}"]
    assert str(tmp_path / "none") in error.evalue
    assert not (tmp_path / "none").exists()
