"""Alerts: what is wrong with models, each episode of it once.

What belongs here: days of drift as episodes, which finding is an alert that is known already, how bad it is, and what is
written of it to people. Where alerts are kept, and how they are sent, is said in operations/.

Severity: an `error` is certain to 99.9 % and large: a tenth of what it was, or three deviations where it was nought; of
drift, two and a half times the distance at which drift begins, which is a population stability index of 0.25 where that
is 0.1. All else is a `warn`.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

from ml_assets.lib.words import counted

Source = Literal["regression", "drift"]
Severity = Literal["warn", "error"]

SLACK = timedelta(days=1)
"""How far late data may move an episode away from where it was known, and it is still the same."""

CALM_DAYS = 2
"""Days that were judged and did not drift after which an episode of drift is over."""

_CERTAIN = 0.999
_LARGE = 0.1
_DEVIATIONS = 3.0
_FAR = 2.5

_SHOWN = 5
_TOLD = 50
"""Alerts that one message names."""


class Identity(NamedTuple):
    """What two episodes have in common that may be one."""

    source: str
    model_name: str
    metric: str
    slice: str
    slice_value: str
    direction: str


@dataclass(frozen=True)
class Finding:
    """An episode in which a model is not what it was.

    Args:
        identity: of what.
        kind: which sort of change, such as `drift`.
        severity: see the module.
        began_at: the first time that belongs to it.
        opened_at: the time at which it was believed.
        last_seen_at: the last time at which it was seen.
        closed_at: when it was over; None while it goes on.
        before, after: what the metric was and is; None of drift.
        change: after less before as a share of before; of drift, the largest distance of a feature.
        confidence: 1 minus its p value.
        description: a sentence or two.
    """

    identity: Identity
    kind: str
    severity: Severity
    began_at: datetime
    opened_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    before: float | None
    after: float | None
    change: float | None
    confidence: float | None
    description: str


@dataclass(frozen=True)
class Known:
    """As much of an alert as tells whether a finding is this one."""

    alert_id: str
    identity: Identity
    began_at: datetime
    last_seen_at: datetime
    is_open: bool


@dataclass(frozen=True)
class Merged:
    """Findings as alerts.

    Args:
        alerts: each finding by the id of its alert, known or new.
        gone: ids of known alerts that are open, and of which nothing is found any more.
    """

    alerts: Mapping[str, Finding]
    gone: Sequence[str]


def regression(row: Mapping[str, Any]) -> Finding:
    """A row of performance_regressions as a finding."""
    numbers = {name: _finite(row[name]) for name in ("before", "after", "change", "confidence", "deviations")}
    deviations = numbers.pop("deviations")
    size = numbers["change"]
    large = abs(size) >= _LARGE if size is not None else abs(deviations or 0.0) >= _DEVIATIONS
    names = ("model_name", "metric", "slice", "slice_value", "direction")
    return Finding(
        Identity("regression", *(row[name] or "" for name in names)),
        kind=row["kind"],
        severity="error" if large and (numbers["confidence"] or 0.0) >= _CERTAIN else "warn",
        began_at=row["began_at"],
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        closed_at=row["closed_at"],
        description=row["description"] or "",
        **numbers,
    )


class Drifted(NamedTuple):
    """A feature that drifts on a day.

    Args:
        subject: `input`, `prediction` or `confidence`.
        feature: its name; "" of the others.
        measure: `KS` or `PSI`.
        distance: how far it lies from its reference.
        threshold: from which distance on it drifts.
        p: corrected.
    """

    subject: str
    feature: str
    measure: str
    distance: float
    threshold: float
    p: float

    @property
    def times(self) -> float:
        """The distance in thresholds."""
        return self.distance / self.threshold if self.threshold > 0 else math.inf

    def __str__(self) -> str:
        name = f"{self.subject} {self.feature}" if self.feature not in ("", self.subject) else self.subject
        return f"{name} ({self.measure} {self.distance:.2f})"


@dataclass(frozen=True)
class DriftDay:
    """A day of a model, or of a slice of it, on which drift was looked for.

    Args:
        drifted: some of those that drift, the farthest first; none on a calm day.
        count: how many drift.
    """

    model_name: str
    slice: str
    slice_value: str
    day: date
    drifted: Sequence[Drifted] = ()
    count: int = 0


def drift_findings(days: Iterable[DriftDay]) -> list[Finding]:
    """Episodes of drift: one of a model at a time, whichever of its features drift.

    It opens on the first day that drifts and is over after `CALM_DAYS`; a day on which nothing could be judged says
    nothing. A slice has an episode of its own only where the whole model did not drift when it began.
    """
    groups: dict[tuple[str, str, str], list[DriftDay]] = defaultdict(list)
    for each in days:
        groups[each.model_name, each.slice, each.slice_value].append(each)
    whole: dict[str, list[Finding]] = {}
    found: list[Finding] = []
    # The whole of a model before its slices.
    for (model_name, name, _), rows in sorted(
        groups.items(), key=lambda item: (item[0][1] != "all", item[0])
    ):
        episodes = _episodes(sorted(rows, key=lambda row: row.day))
        if name == "all":
            whole[model_name] = episodes
        found += [each for each in episodes if name == "all" or not _within(each, whole.get(model_name, ()))]
    return found


def _within(finding: Finding, others: Sequence[Finding]) -> bool:
    return any(
        other.began_at <= finding.began_at and (other.closed_at is None or finding.began_at < other.closed_at)
        for other in others
    )


def _episodes(days: Sequence[DriftDay]) -> list[Finding]:
    found: list[Finding] = []
    inside: list[DriftDay] = []
    calm = 0
    for day in days:
        if day.count:
            inside.append(day)
            calm = 0
        elif inside:
            calm += 1
            if calm == CALM_DAYS:
                found.append(_drift(inside, day.day))
                inside, calm = [], 0
    return [*found, _drift(inside, None)] if inside else found


def _drift(days: Sequence[DriftDay], closed: date | None) -> Finding:
    first, last = days[0], days[-1]
    worst: dict[tuple[str, str], Drifted] = {}
    for each in (each for day in days for each in day.drifted):
        before = worst.get((each.subject, each.feature))
        if before is None or each.times > before.times:
            worst[each.subject, each.feature] = each
    farthest = sorted(worst.values(), key=lambda each: -each.times)
    most = max(day.count for day in days)
    confidence = 1 - farthest[0].p
    severe = farthest[0].times >= _FAR and confidence >= _CERTAIN
    where = "" if first.slice == "all" else f" where {first.slice} is {first.slice_value}"
    named = ", ".join(map(str, farthest[:_SHOWN]))
    span = f"since {first.day}" if closed is None else f"from {first.day} to {last.day}"
    more = f", and {most - _SHOWN:,} more" if most > _SHOWN else ""
    return Finding(
        Identity("drift", first.model_name, "drift", first.slice, first.slice_value, ""),
        kind="drift",
        severity="error" if severe else "warn",
        began_at=_midnight(first.day),
        opened_at=_midnight(first.day),
        last_seen_at=_midnight(last.day),
        closed_at=closed and _midnight(closed),
        before=None,
        after=None,
        change=_finite(farthest[0].distance),
        confidence=_finite(confidence),
        description=f"{first.model_name} differs from its baseline{where} {span} in {named}{more}.",
    )


def merged(findings: Iterable[Finding], known: Iterable[Known], judged: Collection[str]) -> Merged:
    """Findings as alerts: one that overlaps with a known alert of the same identity is that alert.

    Of several that overlap, those that have most time in common belong together, and each is taken once.

    Args:
        known: all alerts there are.
        judged: sources that were looked at; of the others nothing is gone.
    """
    mine: dict[Identity, list[Known]] = defaultdict(list)
    ids = set()
    for each in known:
        mine[each.identity].append(each)
        ids.add(each.alert_id)
    groups: dict[Identity, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.identity].append(finding)
    alerts: dict[str, Finding] = {}
    for identity, group in groups.items():
        taken = _same(group, mine[identity], alerts)
        # A model is judged by dataset once it has two of them, and what was known of the first goes on.
        whole = identity._replace(slice="all", slice_value="")
        if identity.slice == "dataset" and whole not in groups:
            rest = [n for n in range(len(group)) if n not in taken]
            others = _same([group[n] for n in rest], mine[whole], {*alerts, *taken.values()})
            taken |= {rest[n]: alert_id for n, alert_id in others.items()}
        alerts |= {alert_id: group[n] for n, alert_id in taken.items()}
        for n, finding in enumerate(group):
            if n not in taken:
                alert_id = _new_id(finding, ids)
                ids.add(alert_id)
                alerts[alert_id] = finding
    gone = [
        each.alert_id
        for group in mine.values()
        for each in group
        if each.is_open and each.alert_id not in alerts and each.identity.source in judged
    ]
    return Merged(alerts, gone)


def _same(group: Sequence[Finding], known: Iterable[Known], taken: Collection[str]) -> dict[int, str]:
    """The alert of each finding that is a known one, by its place; those that are taken are none any more."""
    pairs = sorted(
        ((_common(finding, each), n, each.alert_id) for n, finding in enumerate(group) for each in known),
        reverse=True,
    )
    found: dict[int, str] = {}
    used = set(taken)
    for common, n, alert_id in pairs:
        if common >= -SLACK and n not in found and alert_id not in used:
            found[n] = alert_id
            used.add(alert_id)
    return found


def _common(finding: Finding, known: Known) -> timedelta:
    """Time that both have in common; negative is the time between them."""
    return min(finding.last_seen_at, known.last_seen_at) - max(finding.began_at, known.began_at)


def _new_id(finding: Finding, taken: Collection[str]) -> str:
    """The same for the same finding, so that a home that is built anew has the same alerts."""
    text = "\0".join([*finding.identity, finding.began_at.astimezone(UTC).isoformat()])
    n = 0
    while (found := hashlib.sha256(f"{text}\0{n}".encode()).hexdigest()[:10]) in taken:
        n += 1
    return found


def changed(row: Mapping[str, Any]) -> str:
    """How much an alert's metric changed, such as `-12.3 %`; of drift, the distance."""
    if (change := row["change"]) is None:
        return ""
    return f"{change:.2f}" if row["source"] == "drift" else f"{100 * change:+.1f} %"


def subject(row: Mapping[str, Any]) -> str:
    """What an alert is of: model, metric and slice."""
    where = "" if row["slice"] == "all" else f", {row['slice']} {row['slice_value']}"
    return f"{row['model_name']}{where}: {row['metric']}"


def headline(row: Mapping[str, Any]) -> str:
    """An alert in a line: model, metric, change, since when."""
    began = row["began_at"]
    since = f"since {began:%Y-%m-%d}" if began == _midnight(began.date()) else f"since {began:%Y-%m-%d %H:%M}"
    return " ".join(part for part in (subject(row), changed(row), since) if part)


def message(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Title and text that tell people of alerts, of those that opened and of those that are over.

    Args:
        rows: alerts, one at least, those that opened first.
    """
    opened = [row for row in rows if row["event"] == "open"]
    over = len(rows) - len(opened)
    parts = [f"{counted(len(opened), 'alert')}" if opened else "", f"{over:,} over" if over else ""]
    only = f": {subject(rows[0])}" if len(rows) == 1 else ""
    title = f"ml-assets: {', '.join(part for part in parts if part)}{only}"
    lines = []
    for row in rows[:_TOLD]:
        state = row["severity"] if row["event"] == "open" else "withdrawn" if row["withdrawn"] else "over"
        lines.append(f"[{state}] {headline(row)} (id {row['alert_id']})\n{row['description']}")
    if len(rows) > _TOLD:
        lines.append(f"and {len(rows) - _TOLD:,} more: 'ml-assets alerts' lists them.")
    return title, "\n\n".join(lines)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
