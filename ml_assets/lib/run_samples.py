"""Runs as the samples of a comparison: their metric, and what they may share.

What belongs here: plain rows in, `significance.Sample` out, with sentences on what is left out.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ml_assets.lib.run_selectors import label
from ml_assets.lib.significance import Rows, Sample
from ml_assets.lib.words import counted

Score = Literal["right", "wrong", "squared error", "absolute error"]
"""What a row is given, so that the mean over the rows is the metric."""

_ABSENT = ("", "none", "null", "nan")
"""Texts by which clients say that there is no seed, in any case."""
SCORES: dict[str, Score] = {
    "accuracy": "right",
    "error_rate": "wrong",
    "misclassification_rate": "wrong",
    "mse": "squared error",
    "mae": "absolute error",
}
"""By the canonical name of a metric that is a mean over rows. Training rows are none of those that are predicted."""


@dataclass(frozen=True)
class LoggedRun:
    """A run with its metric.

    Args:
        value: the metric as JSON has it: a number, or one of the texts "NaN", "Infinity" and "-Infinity"; None if the
            run has no such metric.
        seed, split, test_fraction: as the client wrote them.
        label: the value of the field that runs are grouped by.
        digest: fingerprints of the data of that name, where they are known.
    """

    run_id: str
    experiment: str
    parent_run_id: str | None
    status: str
    dataset: str | None
    label: str | None
    value: Any
    seed: str | None
    split: str | None
    test_fraction: str | None
    digest: str | None


def metric_value(value: Any) -> float | None:
    """A metric out of JSON; None if it is no number at all."""
    if isinstance(value, str):
        return float(value) if value in ("NaN", "Infinity", "-Infinity") else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond the doubles
        return math.inf if value > 0 else -math.inf


def sample(
    name: str,
    runs: Sequence[LoggedRun],
    rows: Rows | None = None,
    candidates: int = 1,
    only_completed: bool = True,
) -> tuple[Sample, str]:
    """The sample of a group.

    Args:
        only_completed: leave out the runs that have not completed, whose metric is none of a result.

    Returns:
        The sample, and sentences on the runs that are left out; "" if there are none.
    """
    notes = []
    used = [run for run in runs if run.status == "completed"] if only_completed else list(runs)
    if unfinished := len(runs) - len(used):
        notes.append(
            f"{counted(unfinished, 'run')} of {name} that {_has(unfinished)} not completed left out."
        )
    given = [run for run in used if metric_value(run.value) is not None]
    if without := len(used) - len(given):
        notes.append(f"{counted(without, 'run')} of {name} without the metric left out.")
    fractions = {run.test_fraction for run in given}
    return (
        Sample(
            name,
            [metric_value(run.value) for run in given],
            seeds=[_label(run.seed) for run in given],
            splits=[_label(run.split) for run in given],
            datasets=[run.dataset for run in given],
            test_fraction=_fraction(fractions.pop()) if len(fractions) == 1 else None,
            rows=rows,
            candidates=candidates,
        ),
        " ".join(notes),
    )


def with_states(groups: Mapping[str, Sequence[LoggedRun]]) -> dict[str, list[LoggedRun]]:
    """The same runs, those of several states of one dataset apart.

    Two states of a dataset are two samples of one thing, and share rows as the folds of a cross-validation do: the
    fingerprint becomes part of the run's split where the runs of a dataset saw more than one.
    """
    states: dict[str | None, set[str]] = {}
    for run in (run for runs in groups.values() for run in runs if run.digest):
        states.setdefault(run.dataset, set()).add(run.digest or "")
    return {
        name: [
            replace(run, split=f"{run.split or ''} {run.digest}")
            if run.digest and len(states[run.dataset]) > 1
            else run
            for run in runs
        ]
        for name, runs in groups.items()
    }


def leader(samples: Sequence[Sample], higher_is_better: bool) -> str | None:
    """The name of the group whose mean is the best; None if no group has a finite value."""
    means = {}
    for each in samples:
        if finite := [value for value in each.values if value is not None and math.isfinite(value)]:
            means[each.name] = math.fsum(finite) / len(finite) * (1 if higher_is_better else -1)
    return max(means, key=means.__getitem__, default=None)


def was_best(value: float | None, rivals: Sequence[float | None], higher_is_better: bool) -> int:
    """From how many candidates a run was selected, if it is the best of them; else 1.

    Args:
        value: its metric.
        rivals: the metric of all candidates, its own included.
    """
    finite = [rival for rival in rivals if rival is not None and math.isfinite(rival)]
    if value is None or not math.isfinite(value) or not finite:
        return 1
    best = max(finite) if higher_is_better else min(finite)
    return len(finite) if value == best else 1


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _label(text: str | None) -> Hashable | None:
    return None if text is None or text.strip().lower() in _ABSENT else label(text)


def _fraction(text: str | None) -> float | None:
    number = math.nan if text is None else _number(text)
    return number if 0 < number < 1 else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
