"""Which runs stay and which go, when the best of each group are to be kept."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_assets.errors import Refusal

GROUPS = ("dataset", "experiment", "model_name", "model_type", "model_version")
"""Columns of a run that runs may be grouped by."""

_ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Ranked:
    """A run, and what becomes of it.

    Args:
        run: its row.
        group: its value of the column that runs are grouped by; None where it has none.
        value: of the metric; None if it has none that is a finite number.
        stays: whether it is kept.
        why: for people.
    """

    run: Mapping[str, Any]
    group: str | None
    value: float | None
    stays: bool
    why: str


def best_of_each(
    runs: Sequence[Mapping[str, Any]],
    best: int,
    by: str,
    metric: str | None,
    higher_is_better: Callable[[str], bool],
) -> list[Ranked]:
    """The runs by group and rank, the best `best` of each group kept.

    Kept are, besides, runs that have not ended, those of a group of which no run has the metric, and those in which a
    kept run is nested. Of equal values the run that began first is the better one.

    Args:
        runs: of `run_id`, `parent_run_id`, `status`, `metrics`, `created_at` and the column that they are grouped by.
        by: one of `GROUPS`.
        metric: None for the only one that ended runs have.

    Raises:
        Refusal: no such column, fewer than one is to be kept, or it is not clear by which metric.
    """
    if by not in GROUPS:
        raise Refusal(f"Runs cannot be grouped by {by!r}: name one of {', '.join(GROUPS)}.")
    if best < 1:
        raise Refusal(
            f"At least one run of each group is kept, not {best}: delete runs by their ids instead."
        )
    key = metric or _only_metric(runs)
    groups = defaultdict[str | None, list[Mapping[str, Any]]](list)
    for run in runs:
        groups[run.get(by)].append(run)
    found = [
        ranked
        for group in sorted(groups, key=lambda name: (name is None, name or ""))
        for ranked in _ranked(groups[group], group, best, key, higher_is_better(key))
    ]
    return _with_parents(found)


def _only_metric(runs: Sequence[Mapping[str, Any]]) -> str:
    names = {
        key
        for run in runs
        if run["status"] in _ENDED
        for key in run["metrics"] or {}
        if _value(run, key) is not None
    }
    if len(names) == 1:
        return names.pop()
    if not names:
        return ""  # no run has any, so that all stay
    shown = ", ".join(sorted(names)[:10])
    raise Refusal(
        f"Runs have several metrics, so say which one tells the best: --metric with one of {shown}."
    )


def _ranked(
    runs: Sequence[Mapping[str, Any]], group: str | None, best: int, metric: str, higher: bool
) -> list[Ranked]:
    def order(each: tuple[Mapping[str, Any], float | None]) -> tuple[Any, ...]:
        run, value = each
        signed = math.inf if value is None else -value if higher else value
        return run["status"] not in _ENDED, value is None, signed, run["created_at"], run["run_id"]

    valued = sorted(((run, _value(run, metric)) for run in runs), key=order)
    has_any = any(value is not None and run["status"] in _ENDED for run, value in valued)
    found = []
    for place, (run, value) in enumerate(valued, 1):
        if run["status"] not in _ENDED:
            stays, why = True, f"it is {run['status']}"
        elif not has_any:
            stays, why = True, f"no run of its group has {metric}" if metric else "no run has a metric"
        elif value is None:
            stays, why = False, f"it has no {metric}"
        else:
            stays, why = place <= best, f"number {place}"
        found.append(Ranked(run, group, value, stays, why))
    return found


def _with_parents(ranked: list[Ranked]) -> list[Ranked]:
    """The same, with the runs kept that a kept run is nested in, however deep."""
    parents = {each.run["run_id"]: each.run.get("parent_run_id") for each in ranked}
    needed: set[str] = set()
    for each in ranked:
        run_id = each.run.get("parent_run_id") if each.stays else None
        while run_id is not None and run_id not in needed:
            needed.add(run_id)
            run_id = parents.get(run_id)
    return [
        Ranked(each.run, each.group, each.value, True, "a run that stays is nested in it")
        if not each.stays and each.run["run_id"] in needed
        else each
        for each in ranked
    ]


def _value(run: Mapping[str, Any], metric: str) -> float | None:
    value = (run["metrics"] or {}).get(metric)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if math.isfinite(value) else None
