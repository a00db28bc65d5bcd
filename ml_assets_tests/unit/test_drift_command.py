"""What `ml-assets drift` prints for people."""

from datetime import UTC, date, datetime

import pytest

from ml_assets.cli.performance_drift import MODELS, WORST, show


def row(model: str, number: int, state: str, reason: str) -> dict[str, object]:
    return {
        "model_name": model,
        "subject": "input",
        "feature": f"mean_concave_points_{number:02}",
        "slice": "all",
        "slice_value": "",
        "kind": "number",
        "day": datetime(2026, 3, 14, tzinfo=UTC),
        "reference_first": date(2026, 3, 1),
        "reference_last": date(2026, 3, 7),
        "reference_pinned": False,
        "reference_count": 12_345,
        "current_count": 1_234,
        "ks": 0.8,
        "wasserstein": 1234.5,
        "psi": 7.9,
        "corrected_p": 1e-60 / (number + 1) if state in ("drift", "none") else None,
        "threshold": 0.1,
        "state": state,
        "reason": reason,
    }


DRIFT = "drift", "KS 0.8 (at least 0.1), corrected p 1e-60."
LACKS = "drift", "1.0% of the predictions lacked it, and 40.0% do; corrected p 1e-30."
NONE = "none", "KS 0.05 (below 0.1), corrected p 0.4: nothing to be seen."
FEW = "too few", "100 and 7 values; 50 each are needed."


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_the_worst_features_take_a_line_or_two_each(capsys):
    show([row("m", n, *(DRIFT if n < 30 else NONE)) for n in range(40)], "m", None, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "m on 2026-03-14, against 2026-03-01 to 2026-03-07"
    assert lines[-1] == "40 features: 30 drift, 10 none. 30 more: see --csv."
    assert max(map(len, lines)) <= 80 and len(lines) <= 2 * WORST + 6
    assert sum("drift: KS ≥" in line for line in lines) == WORST
    assert "_29" in "".join(lines[3:6]), "the most certain one is the first"


def test_what_numbers_do_not_say_is_told(capsys):
    show([row("m", 0, *LACKS), row("m", 1, *NONE), row("m", 2, *FEW)], "m", None, None)
    words = " ".join(capsys.readouterr().out.split())
    for told in ("40.0%", "none:", "too few:"):
        assert told in words


def test_of_many_models_those_that_drift_are_shown_first(capsys):
    rows = [row(f"m{n:03}", 0, *(DRIFT if n == 70 else FEW)) for n in range(MODELS + 80)]
    show(rows, None, None, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("m070 ") and lines[-1] == "80 more models drift less, or not: see --csv."
    assert "1 feature: 1 too few. 100 and 7 values; 50 each are needed." in lines


def test_a_window_and_a_pinned_baseline_are_named(capsys):
    show([row("m", 0, *FEW) | {"reference_pinned": True}], "m", "2026-03-10:2026-03-14", None)
    (line, *_) = capsys.readouterr().out.splitlines()
    assert line == "m from 2026-03-10 to 2026-03-14, against 2026-03-01 to 2026-03-07 (pinned)"
