"""What a notebook shows of answers and of refusals when nothing is said about how."""

import re
from datetime import date
from textwrap import dedent

import pytest
from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from ml_assets.contracts.experiments import RUNS
from ml_assets.errors import EmbedderError, Refusal, TableUnavailable
from ml_assets.lib.promotion import Check, Decision
from ml_assets.lib.significance import Sample, is_better
from ml_assets.lib.why import Explanation
from ml_assets.operations.run_search import Page


def shown(answer: object) -> dict[str, str]:
    """By MIME type, as a notebook's front end gets it."""
    formatted, _ = DisplayFormatter().format(answer)
    return formatted


@pytest.mark.parametrize("kind", [Refusal, TableUnavailable, EmbedderError])
def test_a_refusal_is_shown_as_its_sentence(kind, capsys):
    shell = InteractiveShell()
    shell.user_ns["fault"] = kind("There is no home: make one.")
    shell.run_cell("raise fault")
    assert capsys.readouterr().out == f"{kind.__name__}: There is no home: make one.\n"


def test_a_bug_is_shown_with_the_way_to_it(capsys):
    InteractiveShell().run_cell("1 / 0")
    assert "Traceback" in capsys.readouterr().out


def test_a_verdict_is_shown_as_its_sentence():
    better = is_better(Sample("a<b", [0.9, 0.91, 0.92]), Sample("c", [0.1, 0.11, 0.12]), True)
    assert shown(better)["text/html"].startswith("<p>a&lt;b is better than c by 0.8 (")


def test_a_decision_is_shown_with_its_checks():
    checks = (
        Check("drift", True, True, 0.0, 0.1, "None drifted."),
        Check("quality", False, True, -0.3, 0.0, "0.3 < 0.6."),
    )
    told = shown(Decision("cats", "2", False, checks))["text/html"]
    assert "Version 2 of cats is refused." in told
    cells = re.findall("<td[^>]*>(.*?)</td>", told)
    assert cells == ["drift", "passed", "None drifted.", "quality", "refused", "0.3 &lt; 0.6."]


def test_an_explanation_is_shown_as_markdown():
    found = Explanation("cats", date(2026, 11, 24), None, (), ())
    assert shown(found)["text/markdown"] == found.markdown(level=3)


def test_a_page_of_runs_is_shown_as_a_table():
    run = dict.fromkeys(RUNS.names) | {"run_id": "r1", "values": {}}
    run |= {"metrics": {"loss": 0.5}, "parameters": {}, "tags": {}}
    told = shown(Page([run, {**run, "run_id": "r<2"}]))["text/html"]
    assert "metrics.loss" in told and "r1" in told and "r&lt;2" in told and "2 rows" in told
    none = shown(Page([], notes=("No run has a metric 'los'.",)))["text/html"]
    assert "No run has a metric &#x27;los&#x27;." in none


def test_a_kernel_that_can_show_no_progress_is_no_hindrance():
    """Without ipywidgets, DuckDB refuses to be told that there shall be no progress bar, and tqdm warns of it."""
    cell = """
        import duckdb
        import ml_assets
        from ml_assets.tables.progress import hide_progress_bar

        ml_assets.connect("nowhere")
        import tqdm.auto

        with duckdb.connect() as connection:
            hide_progress_bar(connection)
            print(connection.execute("SELECT current_setting('enable_progress_bar')").fetchone())
    """
    notebook = new_notebook(cells=[new_code_cell(dedent(cell))])
    NotebookClient(notebook).execute()
    assert [(each.name, each.text) for each in notebook.cells[0].outputs] == [("stdout", "(False,)\n")]
