"""Quality and latency by day, and the versions beside each other."""

import math
from datetime import date

from ml_assets.lib.day_chart import Band, Chart, Line, Span, drawn, shown
from ml_assets.lib.model_page.facts import ModelFacts, by_day, day_of, mean_accuracy, middle, share_interval
from ml_assets.lib.model_page.parts import moment, sentence, table
from ml_assets.lib.words import counted

_MOST_VERSIONS = 20


def quality_chart(facts: ModelFacts) -> Chart:
    """Accuracy and F1 by day, with the interval of the former."""
    with_interval = [
        {"day": row["day"], "low": low, "high": high}
        for row in facts.daily
        for low, high in [share_interval(row)]
    ]
    level = mean_accuracy(facts.baseline_daily)
    lines = [Line("accuracy, mean of the day", "c0", by_day(facts, facts.daily, "avg_accuracy"))]
    f1 = by_day(facts, facts.daily, "avg_f1_score")
    if any(value is not None for value in f1):
        lines.append(Line("F1", "c1", f1))
    band = Band(
        "95 % interval", "c0", by_day(facts, with_interval, "low"), by_day(facts, with_interval, "high")
    )
    return Chart(
        "chart-quality",
        "Accuracy of evaluations",
        facts.days,
        lines,
        [band] if any(value is not None for value in band.low) else [],
        "%",
        _spans(facts, "quality"),
        _version_marks(facts),
        ("baseline", level) if level is not None else None,
    )


def latency_chart(facts: ModelFacts) -> Chart:
    """Quantiles of latency by day."""
    p50, p95, p99 = (
        by_day(facts, facts.daily, f"{name}_inference_time_ms") for name in ("p50", "p95", "p99")
    )
    level = middle(facts.baseline_daily, "p95_inference_time_ms")
    return Chart(
        "chart-latency",
        "Time of a batch",
        facts.days,
        [Line("p50", "c2", p50), Line("p95", "c0", p95), Line("p99", "c1", p99)],
        [Band("p50 to p95", "c0", p50, p95), Band("p95 to p99", "c1", p95, p99)],
        "ms",
        _spans(facts, "latency"),
        _version_marks(facts),
        ("p95 of the baseline", level) if level is not None else None,
    )


def _version_marks(facts: ModelFacts) -> list[tuple[date, str]]:
    """The days on which versions came; none where there is only one."""
    if facts.version_count < 2:
        return []
    came: dict[date, list[str]] = {}
    for row in facts.versions:
        day = day_of(row["first_at"])
        if facts.days.first <= day <= facts.days.last:
            came.setdefault(day, []).append(
                f"version {row['model_version']}" if row["model_version"] else "no version"
            )
    return [(day, ", ".join(sorted(came[day]))) for day in sorted(came)]


def _spans(facts: ModelFacts, kind: str) -> list[Span]:
    found = []
    for row in facts.episodes or ():
        if row["kind"] != kind:
            continue
        last = row["closed_at"] or facts.days.end
        began = row.get("began_at") or row["opened_at"]
        found.append(
            Span(day_of(began), day_of(last), f"episode: {metric(row['metric'])} {sign(row['change'])}")
        )
    return found


def metric(name: str) -> str:
    """A metric's column as people call it."""
    if name.endswith("_inference_time_ms"):
        return name.removesuffix("_inference_time_ms").replace("avg", "mean") + " latency"
    return {"f1_score": "F1", "max_memory_usage_mb": "memory"}.get(name, name)


def sign(change: float | None) -> str:
    """A change as percents; empty if it is not known."""
    return "" if change is None or not math.isfinite(change) else f"{change * 100:+.1f} %"


def quality_part(facts: ModelFacts, chart: Chart) -> str:
    """The section of quality, with all numbers by day."""
    lead = (
        "Evaluations by the day they happened on. The interval is of the day's mean, by the spread of its evaluations, "
        "or of the answers where there was only one."
    )
    return f"<p>{lead}</p>{drawn(chart)}{_numbers(facts)}"


def latency_part(facts: ModelFacts, chart: Chart) -> str:
    """The section of latency."""
    lead = (
        "Exact quantiles of all timed events of a day: half of them are faster than p50, one in a hundred is "
        "slower than p99."
    )
    return f"<p>{lead}</p>{drawn(chart)}"


def _numbers(facts: ModelFacts) -> str:
    """All that the charts draw, for who wants the numbers or cannot see a chart."""
    if not facts.daily:
        return ""
    heads = [
        "day",
        "evaluations",
        "requests",
        "accuracy",
        "95 % interval",
        "F1",
        "p50 ms",
        "p95 ms",
        "p99 ms",
    ]
    rows = []
    for row in reversed(facts.daily):
        low, high = share_interval(row)
        between = f"{shown(low, '%')} to {shown(high, '%')}" if low is not None else None
        rows.append(
            [
                day_of(row["day"]),
                row["evaluation_count"],
                row["request_count"],
                shown(row["avg_accuracy"], "%"),
                between,
                shown(row["avg_f1_score"], "%"),
                *(shown(row[f"{name}_inference_time_ms"]) for name in ("p50", "p95", "p99")),
            ]
        )
    told = table("days", "Numbers by day", heads, rows)
    return f"<details><summary>The numbers by day ({len(rows):,})</summary>{told}</details>"


def versions_part(facts: ModelFacts) -> str:
    """The section of versions, beside each other."""
    if not facts.versions:
        return sentence("No event in these days.")
    heads = [
        "version",
        "first seen, UTC",
        "last seen, UTC",
        "evaluations",
        "requests",
        "accuracy",
        "95 % interval",
        "F1",
    ]
    heads += ["p50 ms", "p95 ms", "p99 ms"]
    rows = []
    for row in facts.versions[:_MOST_VERSIONS]:
        low, high = share_interval(row)
        rows.append(
            [
                row["model_version"] or "(none)",
                moment(row["first_at"]),
                moment(row["last_at"]),
                row["evaluation_count"],
                row["request_count"],
                shown(row["avg_accuracy"], "%"),
                f"{shown(low, '%')} to {shown(high, '%')}" if low is not None else None,
                shown(row["avg_f1_score"], "%"),
                *(shown(row[f"{name}_inference_time_ms"]) for name in ("p50", "p95", "p99")),
            ]
        )
    left = facts.version_count - len(rows)
    more = f"<p>{counted(left, 'older one is', 'older ones are')} left out.</p>" if left > 0 else ""
    return f"<p>In these days, the newest first.</p>{table('version-rows', 'Versions', heads, rows)}{more}"
