"""The page of a model: its head, the figures at its top, its sections in their order."""

from collections.abc import Mapping
from html import escape
from typing import Any

from ml_assets.lib.day_chart import readout, shown
from ml_assets.lib.html_page import framed, text
from ml_assets.lib.model_page.calibration import (
    calibration_charts,
    calibration_part,
    estimate_charts,
    estimates_part,
)
from ml_assets.lib.model_page.drift import drift_part
from ml_assets.lib.model_page.episodes import episodes_part, is_open
from ml_assets.lib.model_page.facts import RECENT_DAYS, ModelFacts, Rows, day_of, mean_accuracy, middle
from ml_assets.lib.model_page.quality import (
    latency_chart,
    latency_part,
    quality_chart,
    quality_part,
    versions_part,
)
from ml_assets.lib.words import counted


def model_page(facts: ModelFacts, style: str, script: str) -> str:
    """The page.

    Args:
        style: CSS.
        script: JavaScript that finds its data in the element `data`.
    """
    quality, latency = quality_chart(facts), latency_chart(facts)
    charts = [quality, latency, *calibration_charts(facts), *estimate_charts(facts)]
    parts = [
        f"<header><h1>{text(facts.model_name)}</h1><p class=lead>{_lead(facts)}</p></header>",
        _notes(facts),
        _figures(facts),
        _section("quality", "Quality", quality_part(facts, quality)),
        _section("latency", "Latency", latency_part(facts, latency)),
        _section("episodes", "Episodes", episodes_part(facts)),
        _section("drift", "Drift", drift_part(facts)),
        _section("estimates", "Accuracy before the labels come", estimates_part(facts)),
        _section("calibration", "Calibration", calibration_part(facts)),
        _section("versions", "Versions", versions_part(facts)),
        _section("gate", "Promotion", _gate(facts)),
    ]
    data = {"charts": [readout(chart) for chart in charts if not chart.is_empty]}
    body = "\n".join(part for part in parts if part)
    return framed(f"{facts.model_name}: performance", body, data, style, script)


def _section(name: str, title: str, content: str) -> str:
    return (
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{title}</h2>{content}</section>'
    )


def _lead(facts: ModelFacts) -> str:
    events = sum(row["evaluation_count"] + row["request_count"] for row in facts.daily)
    told = [
        f"{facts.days.first} to {facts.days.last}",
        counted(events, "event") if facts.daily else "no event in these days",
        counted(facts.version_count, "version"),
        f"baseline {facts.baseline.first} to {facts.baseline.last}{' (pinned)' if facts.pinned else ''}",
        f"read {facts.made_at:%Y-%m-%d %H:%M} UTC",
    ]
    whole = facts.all_days
    if whole and whole.first < facts.days.first:
        told.insert(1, f"known since {whole.first}")
    return escape(" · ".join(told))


def _notes(facts: ModelFacts) -> str:
    if not facts.later_events:
        return ""
    told = counted(facts.later_events, "event claims", "events claim")
    return (
        f'<ul class="notes"><li>{told} to be of a time to come and {"is" if facts.later_events == 1 else "are"} not '
        "shown: a clock is wrong.</li></ul>"
    )


def _figures(facts: ModelFacts) -> str:
    recent = facts.daily[-RECENT_DAYS:]
    tiles = [
        _accuracy_tile(facts, recent),
        _latency_tile(facts, recent),
        _episode_tile(facts),
        _drift_tile(facts),
        _calibration_tile(facts),
        _gate_tile(facts),
    ]
    return f'<dl class="figures">{"".join(tiles)}</dl>'


def _tile(name: str, value: str, note: str, state: str = "") -> str:
    return (
        f"<div{f' class={state}' if state else ''}><dt>{escape(name)}</dt>"
        f'<dd title="{escape(value)}">{escape(value)}</dd><dd class="note">{escape(note)}</dd></div>'
    )


def _accuracy_tile(facts: ModelFacts, recent: Rows) -> str:
    now, before = mean_accuracy(recent), mean_accuracy(facts.baseline_daily)
    if now is None:
        return _tile("accuracy", "–", "no evaluation in these days")  # noqa: RUF001
    note = f"baseline {shown(before, '%')}"
    worse = before is not None and now < before - 0.02
    return _tile(f"accuracy, {_last(recent)}", shown(now, "%"), note, "bad" if worse else "")


def _latency_tile(facts: ModelFacts, recent: Rows) -> str:
    now, before = (
        middle(recent, "p95_inference_time_ms"),
        middle(facts.baseline_daily, "p95_inference_time_ms"),
    )
    if now is None:
        return _tile("p95 latency", "–", "nothing was timed in these days")  # noqa: RUF001
    worse = before is not None and now > before * 1.2
    note = f"median of {counted(len(recent), 'day')}; baseline {shown(before, 'ms')}"
    return _tile("p95 latency", shown(now, "ms"), note, "bad" if worse else "")


def _episode_tile(facts: ModelFacts) -> str:
    if facts.episodes is None:
        return _tile("open episodes", "–", "never looked for")  # noqa: RUF001
    still = [row for row in facts.episodes if is_open(row)]
    closed = len(facts.episodes) - len(still)
    return _tile("open episodes", f"{len(still):,}", f"{closed:,} over", "bad" if still else "good")


def _drift_tile(facts: ModelFacts) -> str:
    if facts.drift is None:
        return _tile("drift", "–", "never looked for")  # noqa: RUF001
    judged = [row for row in facts.drift if row["slice"] == "all"]
    if not judged:
        return _tile("drift", "–", "no prediction in these days")  # noqa: RUF001
    last = max(day_of(row["day"]) for row in judged)
    today = [row for row in judged if day_of(row["day"]) == last]
    far = sum(row["state"] == "drift" for row in today)
    return _tile("drifting", f"{far:,} of {len(today):,}", f"features on {last}", "bad" if far else "good")


def _calibration_tile(facts: ModelFacts) -> str:
    latest = facts.reliability[-1] if facts.reliability else None
    if latest is None or latest.error is None:
        return _tile("calibration error", "–", "no labelled prediction")  # noqa: RUF001
    return _tile("calibration error", shown(latest.error), latest.name)


def _gate_tile(facts: ModelFacts) -> str:
    if facts.decision is None:
        return _tile("promotion", "–", "not judged yet")  # noqa: RUF001
    promotable = facts.decision["promotable"]
    note = f"version {facts.decision['model_version']}"
    return _tile("promotion", "yes" if promotable else "refused", note, "good" if promotable else "bad")


def _last(rows: Rows) -> str:
    return f"last {counted(len(rows), 'day')}" if len(rows) != 1 else "last day"


def _gate(facts: ModelFacts) -> str:
    decision = facts.decision
    if decision is None:
        whom = "this model" if facts.gate_known else "any model"
        asked = "<code>ml-assets gate MODEL --record</code> asks it"
        return f'<p class="nothing">The gate has not judged {whom} yet: {asked}.</p>'
    promotable, version = decision["promotable"], decision["model_version"]
    verdict = "may be promoted" if promotable else "is refused"
    when = f"{decision['decided_at']:%Y-%m-%d %H:%M} UTC"
    state = "good" if promotable else "bad"
    lead = f'<p class="verdict {state}">Version {text(version)} {verdict} ({when}).</p>'
    items = "".join(
        f'<li class="{"good" if check["passed"] else "bad"}"><b>{text(check["name"])}</b> '
        f"<em>{_word(check)}</em> <span>{text(check['sentence'], 2000)}</span></li>"
        for check in decision["checks"]
    )
    return f'{lead}<ul class="checks">{items}</ul>'


def _word(check: Mapping[str, Any]) -> str:
    """As `ml-assets gate` calls it."""
    return "passed" if check["passed"] else "refused" if check["judged"] else "not judged"
