"""How runs fare: what is wrong with one, judged by what it has logged.

What belongs here: the rules, as functions of a run and of the statistics of its metrics. What does not: reading those,
and which findings are new.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from ml_assets.lib.metric_rules import MetricRules

Kind = Literal["diverged", "nan", "stalled", "slow", "long"]
"""In this order: its loss is infinite or far above its best; the last value of a metric is NaN; it logs nothing any more
or gets no better; it takes much longer for a step than before; it is said to be running for over a day."""

RUNNING_S = 24 * 3600.0
"""A run that is said to be running for longer has mostly died without a word."""

SILENT_S = 6 * 3600.0
"""A running run that logs nothing for so long has stalled: an epoch of a large model takes less."""

DIVERGED_FACTOR = 2.0
"""How often what a loss had fallen by, or its best value if that is more, it has to stand above its best. Noise and
overfitting stay below: a loss that fell from 2.3 to 0.3 has diverged above 4.3, which is worse than where it began."""

FEWEST_POINTS = 20
"""Points from which a metric is judged by halves and quarters; of fewer, one outlier is much."""

SLOW_FACTOR = 0.5
"""Share of the speed before below which a run has become slow. A validation now and then costs less."""

SLOW_FROM_S = 60.0
"""Length of the last quarter from which its speed is judged: what is over in seconds has only just begun, or is timed by
clocks too coarse for it."""


@dataclass(frozen=True)
class Metric:
    """The values of one metric of one run, in the order in which they were logged.

    Args:
        points: how many there are.
        first: the first finite one; None if there is none.
        last: the last one, whatever it is.
        recent: median of the finite ones among the last three, so that one outlier is not the end; None if there is
            none.
        low, high: least and greatest finite value; None if there is none.
        low_at, high_at: when they were logged first.
        early_low, early_high, late_low, late_high: the same of the first and of the last half.
        half_at: when the last half began.
        last_at: when the last one was logged.
        broken_at: when the values that are not finite began with which it ends; None if it does not end so.
        speed_before: median of steps a second between points, without the last quarter; None if it cannot be told.
        speed: steps a second over the last quarter; None as before.
        slow_at: when the last quarter began.
    """

    points: int
    first: float | None
    last: float
    recent: float | None
    low: float | None
    high: float | None
    low_at: datetime | None
    high_at: datetime | None
    early_low: float | None
    early_high: float | None
    late_low: float | None
    late_high: float | None
    half_at: datetime
    last_at: datetime
    broken_at: datetime | None = None
    speed_before: float | None = None
    speed: float | None = None
    slow_at: datetime | None = None


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Args:
        run_id: of the run.
        kind: what it is.
        since: when it began, as far as the run's own record tells.
        evidence: a sentence with the figures.
    """

    run_id: str
    kind: Kind
    since: datetime
    evidence: str


def findings(
    run: Mapping[str, Any], metrics: Mapping[str, Metric], rules: MetricRules, now: datetime
) -> Iterator[Finding]:
    """What is wrong with a run, each kind once at most.

    Whether a run diverged or is NaN is asked of one that has ended, too; the rest only while it runs.

    Args:
        run: with `run_id`, `status`, `created_at`, `experiment`, `dataset`, and `metrics`: last values as JSON has them,
            where NaN and infinities are text.
        metrics: by key, of those that were logged step by step.
        rules: which metrics fall.
        now: aware.
    """
    run_id, began = run["run_id"], run["created_at"]
    reported = {key: value for key, value in (run["metrics"] or {}).items() if key not in metrics}
    found: dict[Kind, tuple[datetime, str] | None] = {
        "nan": _nan(metrics, reported, began),
        "diverged": _diverged(metrics, reported, rules, began),
    }
    if run["status"] == "running":
        found["stalled"] = _silent(metrics, began, now) or _stalled(run, metrics, rules)
        found["slow"] = _slow(metrics)
        found["long"] = _long(metrics, began, now)
    for kind, told in found.items():
        if told is not None:
            yield Finding(run_id, kind, *told)


def loss_of(metrics: Iterable[str], rules: MetricRules) -> str | None:
    """The falling metric by which a run is judged: the one with the shortest name, which is `loss` if it is there.

    Not the primary metric (docs/metrics.md), which mostly is a score: what diverges is the loss.
    """
    falling = {ranked.key for ranked in rules.ranking(metrics) if not ranked.higher_is_better}
    return min(falling, key=lambda key: (key != "loss", len(key), key), default=None)


def _nan(
    metrics: Mapping[str, Metric], reported: Mapping[str, Any], began: datetime
) -> tuple[datetime, str] | None:
    keys = sorted(key for key, metric in metrics.items() if math.isnan(metric.last))
    more = sorted(key for key, value in reported.items() if value == "NaN")
    if not keys and not more:
        return None
    since = min((metrics[key].broken_at or metrics[key].last_at for key in keys), default=began)
    names = ", ".join((keys + more)[:3]) + (", ..." if len(keys + more) > 3 else "")
    return since, f"{names} {'is' if len(keys + more) == 1 else 'are'} NaN."


def _diverged(
    metrics: Mapping[str, Metric], reported: Mapping[str, Any], rules: MetricRules, began: datetime
) -> tuple[datetime, str] | None:
    key = loss_of([*reported, *metrics], rules)
    if key is None:
        return None
    metric = metrics.get(key)
    if metric is None:
        return (began, f"{key} is infinite.") if reported[key] == "Infinity" else None
    if metric.last == math.inf:
        return metric.broken_at or metric.last_at, f"{key} is infinite after {metric.points:,} points."
    if metric.first is None or metric.low is None or metric.recent is None or metric.low_at is None:
        return None
    # Halves, since the difference of two large numbers may be none any more.
    scale = max(metric.first / 2 - metric.low / 2, abs(metric.low) / 2)
    if not metric.recent / 2 - metric.low / 2 > DIVERGED_FACTOR * scale:
        return None
    return (
        metric.low_at,
        f"{key} is {metric.recent:.4g}, after it had begun at {metric.first:.4g} and come down to {metric.low:.4g}.",
    )


def _silent(metrics: Mapping[str, Metric], began: datetime, now: datetime) -> tuple[datetime, str] | None:
    last = max((metric.last_at for metric in metrics.values()), default=None)
    if last is None or (now - last).total_seconds() <= SILENT_S:
        return None
    last = max(last, began)
    return last, f"Nothing was logged for {_length(now - last)}."


def _stalled(
    run: Mapping[str, Any], metrics: Mapping[str, Metric], rules: MetricRules
) -> tuple[datetime, str] | None:
    key, rising = loss_of(metrics, rules), False
    if key is None:
        last = {key: metric.last for key, metric in metrics.items()}
        judged = rules.primary(last, run.get("experiment"), run.get("dataset"))
        if judged is None:
            return None
        key, _, rising = judged
    metric = metrics[key]
    if metric.points < FEWEST_POINTS:
        return None
    early, late = (metric.early_high, metric.late_high) if rising else (metric.early_low, metric.late_low)
    if early is None or late is None or (late > early if rising else late < early):
        return None
    best_at = metric.high_at if rising else metric.low_at
    return (
        best_at or metric.half_at,
        f"The last half of {metric.points:,} points of {key} brought nothing better than {early:.4g}.",
    )


def _slow(metrics: Mapping[str, Metric]) -> tuple[datetime, str] | None:
    key = max(metrics, key=lambda key: (metrics[key].points, key), default=None)
    if key is None or (metric := metrics[key]).points < FEWEST_POINTS:
        return None
    before, speed, since = metric.speed_before, metric.speed, metric.slow_at
    if before is None or speed is None or since is None or not speed < SLOW_FACTOR * before:
        return None
    if (metric.last_at - since).total_seconds() < SLOW_FROM_S:
        return None
    return (
        since,
        f"{speed:.3g} steps a second in the last quarter of {key}, {before:.3g} before.",
    )


def _long(metrics: Mapping[str, Metric], began: datetime, now: datetime) -> tuple[datetime, str] | None:
    if (now - began).total_seconds() <= RUNNING_S:
        return None
    last = max((metric.last_at for metric in metrics.values()), default=None)
    told = f"its last point is of {last:%Y-%m-%d %H:%M} UTC" if last else "it has logged no points"
    return began, f"It is said to be running for {_length(now - began)}; {told}."


def _length(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:,.1f} days" if hours >= 48 else f"{hours:,.1f} hours"
