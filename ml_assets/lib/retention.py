"""Which runs stay and which go, when the best of each group are to be kept."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ml_assets.errors import Refusal
from ml_assets.lib.metric_rules import MetricRules

GROUPS = ("dataset", "experiment", "model_name", "model_type", "model_version")
"""Columns of a run that runs may be grouped by."""

_ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Ranked:
    """A run, and what becomes of it.

    Args:
        run: its row.
        group: its value of the column that runs are grouped by; None where it has none.
        metric: the key by which it is ranked; None if it has no finite number to be ranked by.
        value: of the metric.
        stays: whether it is kept.
        why: for people.
    """

    run: Mapping[str, Any]
    group: str | None
    metric: str | None
    value: float | None
    stays: bool
    why: str


@dataclass(frozen=True)
class _Judged:
    """A run with what it is judged by; no name and no value where nothing judges it."""

    run: Mapping[str, Any]
    key: str | None = None
    value: float | None = None
    name: str | None = None
    higher: bool = True

    @property
    def ended(self) -> bool:
        return self.run["status"] in _ENDED


def best_of_each(
    runs: Sequence[Mapping[str, Any]], best: int, by: str, metric: str | None, rules: MetricRules
) -> list[Ranked]:
    """The runs by group and rank, the best `best` of each group kept.

    Kept are, besides, runs that have not ended, those of a group of which no run has the metric, and those in which a
    kept run is nested. Of equal values the run that began first is the better one.

    Args:
        runs: of `run_id`, `parent_run_id`, `status`, `metrics`, `created_at`, `experiment`, `dataset` and the column
            that they are grouped by.
        by: one of `GROUPS`.
        metric: None for the one that judges the runs by the rules.
        rules: which metric that is, and which way a metric is better.

    Raises:
        Refusal: no such column, fewer than one is to be kept, or several metrics judge the runs of a group.
    """
    if by not in GROUPS:
        raise Refusal(f"Runs cannot be grouped by {by!r}: name one of {', '.join(GROUPS)}.")
    if best < 1:
        raise Refusal(
            f"At least one run of each group is kept, not {best}: delete runs by their ids instead."
        )
    groups = defaultdict[str | None, list[_Judged]](list)
    for run in runs:
        groups[run.get(by)].append(_judged(run, metric, rules))
    found: list[Ranked] = []
    for group in sorted(groups, key=lambda name: (name is None, name or "")):
        names = {(each.name, each.higher) for each in groups[group] if each.ended and each.key is not None}
        if len(names) > 1:
            told = ", ".join(sorted({name or "" for name, _ in names}))
            raise Refusal(
                f"The runs of {by} {group!r} are judged by several metrics ({told}), so it is not clear which are the "
                "best: name one with --metric, or group them otherwise with --by."
            )
        found += _ranked(groups[group], group, best, metric)
    return _with_parents(found)


def _judged(run: Mapping[str, Any], metric: str | None, rules: MetricRules) -> _Judged:
    values = {key: value for key, value in (run["metrics"] or {}).items() if _is_finite(value)}
    if metric is not None:
        if metric not in values:
            return _Judged(run)
        return _Judged(run, metric, values[metric], metric, rules.higher_is_better(metric))
    if (found := rules.primary(values, run["experiment"], run["dataset"])) is None:
        return _Judged(run)
    key, value, higher = found
    return _Judged(run, key, value, rules.canonical(key), higher)


def _ranked(judged: Sequence[_Judged], group: str | None, best: int, metric: str | None) -> list[Ranked]:
    def order(each: _Judged) -> tuple[Any, ...]:
        value = math.inf if each.value is None else -each.value if each.higher else each.value
        return not each.ended, each.value is None, value, each.run["created_at"], each.run["run_id"]

    has_any = any(each.value is not None and each.ended for each in judged)
    wanted = metric or "metric that judges it"
    found = []
    for place, each in enumerate(sorted(judged, key=order), 1):
        if not each.ended:
            stays, why = True, f"it is {each.run['status']}"
        elif not has_any:
            stays, why = True, f"no run of its group has {metric or 'a metric that judges it'}"
        elif each.value is None:
            stays, why = False, f"it has no {wanted}"
        else:
            stays, why = place <= best, f"number {place}"
        found.append(Ranked(each.run, group, each.key, each.value, stays, why))
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
        replace(each, stays=True, why="a run that stays is nested in it")
        if not each.stays and each.run["run_id"] in needed
        else each
        for each in ranked
    ]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
