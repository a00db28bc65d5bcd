"""Drift as a heat map of features and days, with the verdicts in sentences."""

import math
from collections.abc import Iterable
from datetime import date

from ml_assets.lib.day_chart import shown
from ml_assets.lib.html_page import text
from ml_assets.lib.model_page.facts import ModelFacts, Row, day_of
from ml_assets.lib.model_page.parts import never_made, sentence
from ml_assets.lib.words import counted

_MOST_FEATURES = 40
_MOST_SENTENCES = 6


def _distance(row: Row) -> tuple[str, float | None]:
    """The distance that the verdict is by: Kolmogorov-Smirnov of numbers, PSI of categories."""
    return ("KS", row["ks"]) if row["ks"] is not None else ("PSI", row["psi"])


def drift_part(facts: ModelFacts) -> str:
    """The section of drift: sentences, then the map."""
    if facts.drift is None:
        return never_made("clickhouse/feature_drift", "Whether inputs or answers drift")
    rows = [row for row in facts.drift if row["slice"] == "all"]
    if not rows:
        return sentence("No prediction of these days could be compared with the baseline.")
    days = facts.days.days()
    found: dict[tuple[str, str], dict[date, Row]] = {}
    for row in rows:
        found.setdefault((row["subject"], row["feature"]), {})[day_of(row["day"])] = row
    order = sorted(found, key=lambda key: (key[0] == "input", *_strength(found[key].values()), key))
    kept = order[:_MOST_FEATURES]
    heads = "".join(_head(day, i, len(days)) for i, day in enumerate(days))
    body = "".join(
        f'<tr><th scope="row" title="{text(feature)}">{_subject(subject, feature)}</th>'
        + "".join(_heat(found[subject, feature].get(day), day) for day in days)
        + "</tr>"
        for subject, feature in kept
    )
    wide = f'class="heat" style="--n:{len(days)}"'
    left = len(order) - len(kept)
    more = f"<p>{counted(left, 'calmer feature is', 'calmer features are')} left out.</p>" if left else ""
    lead = (
        "Each day against the baseline: the darker, the farther, as the largest difference of cumulative shares (KS) of "
        "numbers or the population stability index of categories. A dot is drift: farther than the threshold and more "
        "than chance, corrected for all that is asked."
    )
    key = (
        '<div class="legend" aria-hidden="true"><span><i class="cell" style="--h:0"></i>as the baseline</span>'
        '<span><i class="cell" style="--h:35"></i>at the threshold</span>'
        '<span><i class="cell far" style="--h:100"></i>drift</span>'
        '<span><i class="cell void"></i>not judged: the baseline itself, or too few values</span></div>'
    )
    return (
        f"<p>{lead}</p>{_sentences(facts)}{key}"
        f'<div class="scroll map" tabindex="0" role="region" aria-label="Drift by feature and day"><table {wide}>'
        f"<thead><tr><th scope='col'>feature</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def _head(day: date, place: int, count: int) -> str:
    """A column's head: the newest day and some before it are named, the others are for who cannot see."""
    named = (count - 1 - place) % max(1, math.ceil(count / 7)) == 0
    inside = f"<span>{day:%b} {day.day}</span>" if named else f'<i class="unseen">{day}</i>'
    return f'<th scope="col"{" class=end" if place > 4 else ""} title="{day}">{inside}</th>'


def _subject(subject: str, feature: str) -> str:
    """A row's name; of what it is an answer's, where its own name does not tell."""
    return (
        text(feature) if subject in ("input", feature) else f"{text(feature)} <small>{text(subject)}</small>"
    )


def _strength(rows: Iterable[Row]) -> tuple[int, float]:
    """For sorting: days in drift, then how far."""
    rows = list(rows)
    far = max((_distance(row)[1] or 0.0 for row in rows), default=0.0)
    return -sum(row["state"] == "drift" for row in rows), -far


def _heat(row: Row | None, day: date) -> str:
    if row is None:
        return f'<td class="void" title="{day}: no value"></td>'
    name, distance = _distance(row)
    if distance is None or row["state"] not in ("drift", "none"):
        return f'<td class="void" title="{day}: {text(row["reason"] or row["state"])}"></td>'
    # Twice as far as the threshold is as dark as it gets; what is half as far is pale.
    heat = round(100 * min(1.0, distance / (2 * (row["threshold"] or 0.1))) ** 1.5)
    drifts = row["state"] == "drift"
    told = f"{day}: {row['reason'] or f'{name} {shown(distance)}'}"
    unseen = "drift" if drifts else ""
    inside = f'<span class="unseen">{unseen}</span>' if unseen else ""
    return f'<td{" class=far" if drifts else ""} style="--h:{heat}" title="{text(told)}">{inside}</td>'


def _sentences(facts: ModelFacts) -> str:
    rows = facts.drift or ()
    if not rows:
        return ""
    last = max(day_of(row["day"]) for row in rows)
    drifting = [row for row in rows if row["state"] == "drift"]
    if not drifting:
        return sentence(f"Nothing drifted up to {last}.")
    here = [row for row in drifting if day_of(row["day"]) == last]
    whole = {(row["subject"], row["feature"]) for row in here if row["slice"] == "all"}
    # What drifts in all predictions drifts in some version's as well, which is told once.
    today = [row for row in here if row["slice"] == "all" or (row["subject"], row["feature"]) not in whole]
    first = min(day_of(row["day"]) for row in drifting)
    told = [f"First drift in these days: {first}."]
    if not today:
        told.append(f"On {last}, the last day that was looked at, nothing drifts any more.")
    for row in sorted(today, key=lambda row: -(_distance(row)[1] or 0.0))[:_MOST_SENTENCES]:
        part = "" if row["slice"] == "all" else f" of {row['slice']} {row['slice_value']}"
        what = "" if row["subject"] in ("input", row["feature"]) else f"{row['subject']} "
        told.append(f"{last}, {what}{row['feature']}{part}: {row['reason']}")
    if (more := len(today) - _MOST_SENTENCES) > 0:
        told.append(f"{counted(more, 'more drifts', 'more drift')} on that day.")
    return f'<ul class="sentences">{"".join(f"<li>{text(each)}</li>" for each in told)}</ul>'
