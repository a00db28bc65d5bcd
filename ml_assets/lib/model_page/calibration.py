"""Whether a model is as sure as it is right, and what its confidence says while labels are missing."""

from datetime import date
from html import escape

from ml_assets.lib.day_chart import Band, Chart, Line, drawn, shown
from ml_assets.lib.html_page import text
from ml_assets.lib.model_page.facts import ModelFacts, Reliability, Row, by_day, day_of
from ml_assets.lib.model_page.parts import never_made, sentence
from ml_assets.lib.words import counted

_BINS = 15
"""Of confidence, as in sql/duckdb/features/prediction_quality.sql."""


def calibration_charts(facts: ModelFacts) -> list[Chart]:
    """The calibration error by day, if it is known."""
    if not facts.served:
        return []
    error = by_day(facts, facts.served, "calibration_error")
    return [
        Chart(
            "chart-calibration",
            "Calibration error by day",
            facts.days,
            [Line("calibration error", "c3", error)],
        )
    ]


def calibration_part(facts: ModelFacts) -> str:
    """The section of calibration: diagrams of the baseline and of the last days."""
    if facts.reliability is None:
        return never_made("duckdb/ml_predictions", "Whether the model is as sure as it is right")
    if not any(each.count for each in facts.reliability):
        return sentence(
            "No prediction of these days has both a confidence and a label, so nothing can be said."
        )
    lead = (
        "Where a model that is 80 % sure is right four times in five, the blue bars end at the line. Red is what its "
        "confidence promised and its answers did not keep; green is what they kept beyond it."
    )
    pictures = "".join(_diagram(each) for each in facts.reliability)
    charts = "".join(drawn(chart) for chart in calibration_charts(facts) if not chart.is_empty)
    return f'<p>{lead}</p><div class="pictures">{pictures}</div>{charts}'


def _diagram(found: Reliability) -> str:
    """Reliability diagram of one set of predictions."""
    title = f"{found.name}: {counted(found.count, 'labelled prediction')}"
    if not found.count:
        return f'<figure class="reliability"><figcaption><b>{text(title)}</b></figcaption></figure>'
    bars, told = [], []
    width = 1000 / _BINS
    most = max(row["predictions"] for row in found.bins)
    for row in found.bins:
        right, sure = row["hits"] / row["predictions"], row["certainty"] / row["predictions"]
        left = (row["bin"] - 1) * width
        low, high = min(right, sure), max(right, sure)
        # A bin of few answers is pale: its height is chance.
        weight = 0.35 + 0.65 * min(1.0, row["predictions"] / max(20.0, most * 0.05))
        place = f'x="{left + 4:.1f}" width="{width - 8:.1f}"'
        bars.append(
            f'<g opacity="{weight:.2f}"><rect class="c0" {place} y="{1000 - low * 1000:.1f}" height="{low * 1000:.1f}"/>'
            f'<rect class="{"over" if sure > right else "under"}" {place} y="{1000 - high * 1000:.1f}" '
            f'height="{(high - low) * 1000:.1f}"/><title>{text(_bin(row, right, sure))}</title></g>'
        )
        told.append(_bin(row, right, sure))
    shares = "".join(
        f'<i style="height:{max(4, row["predictions"] / most * 100):.0f}%;left:{left * 100:.2f}%"></i>'
        for row in found.bins
        for left in [(row["bin"] - 1) / _BINS]
    )
    error = f"calibration error {shown(found.error)}"
    ticks = "".join(f'<span style="left:{i * 25}%">{i * 25} %</span>' for i in range(5))
    ys = "".join(f'<span style="top:{100 - i * 25}%">{i * 25} %</span>' for i in range(5))
    label = f"{title}, {error}. {'; '.join(told)}."
    return (
        f'<figure class="reliability"><figcaption><b>{text(title)}</b><span class="legend">{error}</span></figcaption>'
        f'<div class="frame"><div class="ys" aria-hidden="true">{ys}</div>'
        f'<div class="square" role="img" aria-label="{escape(label)}">'
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(bars)}<path class="level" d="M0,1000L1000,0"/></svg></div>'
        f'<div class="xs" aria-hidden="true">{ticks}</div>'
        f'<div class="counts" aria-hidden="true" title="predictions by confidence">{shares}</div></div>'
        '<p class="axis">confidence, and how many predictions have it; upwards, the share of right ones</p></figure>'
    )


def _bin(row: Row, right: float, sure: float) -> str:
    return f"{shown(sure, '%')} sure, {shown(right, '%')} right, {counted(row['predictions'], 'prediction')}"


def estimate_charts(facts: ModelFacts) -> list[Chart]:
    """Estimated and measured accuracy by day; what labels and confidence say where nothing was ever estimated."""
    rows = [row for row in facts.estimates or () if row["slice"] == "all"]
    if facts.estimates is None and facts.served:
        measured = by_day(facts, facts.served, "accuracy")
        sure = by_day(facts, facts.served, "avg_confidence")
        return [
            Chart(
                "chart-estimates",
                "Accuracy of predictions",
                facts.days,
                [Line("by labels", "c0", measured, joined=False), Line("mean confidence", "c3", sure)],
                unit="%",
            )
        ]
    if not rows:
        return []
    known = [row for row in rows if row["applicable"]]
    estimate, low, high = (by_day(facts, known, name) for name in ("estimated_accuracy", "low", "high"))
    measured = by_day(facts, rows, "measured_accuracy")
    return [
        Chart(
            "chart-estimates",
            "Estimated and measured accuracy",
            facts.days,
            [Line("estimated", "c3", estimate), Line("by labels", "c0", measured, joined=False)],
            [Band("95 % interval of the estimate", "c3", low, high)],
            "%",
        )
    ]


def estimates_part(facts: ModelFacts) -> str:
    """The section of accuracy without labels, with the days that have no estimate and why."""
    charts = "".join(drawn(chart) for chart in estimate_charts(facts))
    if facts.estimates is None:
        told = never_made("clickhouse/estimated_accuracy", "What accuracy is expected before labels come")
        return f"{told}{charts}"
    rows = [row for row in facts.estimates if row["slice"] == "all"]
    if not rows:
        return sentence("No prediction in these days.")
    lead = (
        "What the calibrated confidence says of answers whose truth is not known yet; labels replace it as they "
        "come. Where the calibration does not hold, nothing is estimated."
    )
    last: dict[str, date] = {}
    days: dict[str, int] = {}
    for row in rows:
        if not row["applicable"] and row["reason"]:
            last[row["reason"]] = day_of(row["day"])
            days[row["reason"]] = days.get(row["reason"], 0) + 1
    recent = sorted(last, key=lambda reason: last[reason])[-3:]
    notes = "".join(f"<li>No estimate on {last[reason]}: {text(reason)}</li>" for reason in recent)
    if (more := sum(days.values()) - len(recent)) > 0 and notes:
        notes += f"<li>Nor on {counted(more, 'earlier day')}.</li>"
    return f"<p>{lead}</p>{f'<ul class=notes>{notes}</ul>' if notes else ''}{charts}"
