"""May a version take the place of the one that serves? What each check says of what was found, and by how much.

What belongs here: verdicts of plain figures, in sentences. What does not: reading the stores, and moving anything.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from typing import Any, Literal, get_args

from ml_assets.lib.hypothesis_tests import shares_interval
from ml_assets.lib.words import counted

CheckName = Literal["drift", "regression", "quality", "slice_floors", "leakage", "parity"]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)
"""In the order in which they are told."""

LEAST = 30
"""Answers with a known truth that a share is judged by."""

EVERY_MODEL = "*"
"""The model of floors that hold for all."""


@dataclass(frozen=True)
class Check:
    """One condition, and whether a version meets it.

    Args:
        name: of the check.
        passed: whether it stands in nobody's way.
        judged: whether it could be made; one that could not passes only where the settings let it be missing.
        value: what was found, in the unit of the threshold; None if it is no number.
        threshold: what it was held against.
        sentence: what was found, and by how much a version fails.
    """

    name: CheckName
    passed: bool
    judged: bool
    value: float | None
    threshold: float | None
    sentence: str


@dataclass(frozen=True)
class Decision:
    """What the gate says of a version.

    Args:
        model_name, version: what it is about.
        promotable: whether all checks let it pass.
        checks: each of them.
        evidence: what was read: tables with rows and content hashes, the lake's version, pins, baseline, settings.
        alias: the alias that the version is held against, and that moves on a yes if that is enabled.
        alias_version: the version that had the alias; None if none had.
        moved: whether the alias moved to this version.
        notes: what else there is to know, in sentences.
        recorded: number of the record of it; None if it is not recorded.
    """

    model_name: str
    version: str
    promotable: bool
    checks: tuple[Check, ...]
    evidence: Mapping[str, Any] = field(default_factory=dict)
    alias: str = ""
    alias_version: str | None = None
    moved: bool = False
    notes: tuple[str, ...] = ()
    recorded: int | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it, as values that JSON has."""
        return {**asdict(self), "evidence": dict(self.evidence), "sentence": str(self)}

    def __bool__(self) -> bool:
        return self.promotable

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = "".join(
            f"<tr><td>{check.name}</td><td>{'passed' if check.passed else 'refused'}</td>"
            f"<td style='text-align:left'>{html.escape(check.sentence)}</td></tr>"
            for check in self.checks
        )
        verdict = "may be promoted" if self.promotable else "is refused"
        told = html.escape(f"Version {self.version} of {self.model_name} {verdict}.")
        return f"<p>{told}</p><table>{rows}</table>"

    def __str__(self) -> str:
        what = f"Version {self.version} of {self.model_name}"
        if self.promotable:
            return f"{what} may be promoted: {counted(len(self.checks), 'check')} let it pass."
        against = [check for check in self.checks if not check.passed]
        told = " ".join(check.sentence for check in against)
        return f"{what} is refused by {', '.join(check.name for check in against)}. {told}"


def decided(checks: Sequence[Check], may_miss: Sequence[str] = ()) -> tuple[bool, tuple[Check, ...]]:
    """The verdict, and the checks with those let pass that may be missing."""
    told = tuple(
        replace(check, passed=True, sentence=f"{check.sentence} It may be missing, as the settings say.")
        if not check.judged and check.name in may_miss
        else check
        for check in checks
    )
    return all(check.passed for check in told), told


def unjudged(name: CheckName, why: str) -> Check:
    """A check that cannot be made, which refuses.

    Args:
        why: a sentence.
    """
    return Check(name, False, False, None, None, f"This cannot be judged: {why}")


def drift_check(rows: Sequence[Mapping[str, Any]], episodes: Sequence[Mapping[str, Any]] = ()) -> Check:
    """Whether the inputs are what the model was made for.

    Args:
        rows: verdicts of the last day that was judged: day, feature, slice, state, ks, psi, threshold. Those of the
            version count if there are any, else those of all answers.
        episodes: alerts of drift that go on: opened_at, description.
    """
    if not rows and not episodes:
        return unjudged("drift", "no day of its inputs has been compared with its baseline.")
    of_version = [row for row in rows if row["slice"] == "model_version" and _is_verdict(row)]
    judged = of_version or [row for row in rows if row["slice"] == "all" and _is_verdict(row)]
    if not judged and not episodes:
        return unjudged(
            "drift", f"on {rows[0]['day']}, the last day that was compared, there were too few inputs."
        )
    drifting = sorted(
        (row for row in judged if row["state"] == "drift"), key=lambda row: -(_distance(row)[1] or 0)
    )
    value, threshold = (None, None)
    if drifting:
        value, threshold = _distance(drifting[0])[1], drifting[0]["threshold"]
    told = []
    if drifting:
        worst = ", ".join(_drift_told(row) for row in drifting[:3])
        more = f", and {len(drifting) - 3:,} more" if len(drifting) > 3 else ""
        told.append(
            f"{len(drifting):,} of {counted(len(judged), 'input')} drifted on {drifting[0]['day']}: {worst}{more}."
        )
    told += [
        f"An episode of drift goes on since {_day(each['opened_at'])}: {each['description']}"
        for each in episodes
    ]
    if told:
        return Check("drift", False, True, value, threshold, " ".join(told))
    found = max(((_distance(row)[1] or 0.0) for row in judged), default=0.0)
    return Check(
        "drift",
        True,
        True,
        found,
        None,
        f"None of {counted(len(judged), 'input')} drifted on {judged[0]['day']}, the last day that was compared.",
    )


def regression_check(episodes: Sequence[Mapping[str, Any]], first_answer: date | None) -> Check:
    """Whether something became worse, and still is, since the version answers.

    Args:
        episodes: those of the model that go on: metric, slice, slice_value, opened_at, last_seen_at, before, after,
            change.
        first_answer: the first day on which the version has answered; None if it never did.
    """
    if first_answer is None:
        return unjudged("regression", "the version has answered nothing yet.")
    open_ones = [each for each in episodes if _day(each["last_seen_at"]) >= first_answer]
    if not open_ones:
        others = (
            f" {counted(len(episodes), 'episode')} of versions before it were not seen since."
            if episodes
            else ""
        )
        return Check("regression", True, True, 0.0, 0.0, f"No regression is open.{others}")
    told = "; ".join(
        f"{each['metric']}{_slice(each)} from {each['before']:.4g} to {each['after']:.4g}"
        f"{_change(each['change'])} since {_day(each['opened_at'])}"
        for each in open_ones
    )
    return Check(
        "regression",
        False,
        True,
        float(len(open_ones)),
        0.0,
        f"{counted(len(open_ones), 'regression')} {'is' if len(open_ones) == 1 else 'are'} open: {told}.",
    )


@dataclass(frozen=True)
class Scored:
    """Answers of a version with a known truth.

    Args:
        labelled: how many.
        correct: how many of them were right.
    """

    labelled: int
    correct: int

    @property
    def accuracy(self) -> float:
        """The share of right ones; there has to be one."""
        return self.correct / self.labelled


def quality_check(
    mine: Mapping[date, Scored],
    others: Mapping[date, Scored],
    version: str,
    alias: str,
    alias_version: str | None,
    margin: float | None = None,
) -> Check:
    """Whether a version is right as often as the one that has the alias.

    Args:
        mine, others: answers of either, by day. Days that both have are compared, if these are enough of each, and else
            all of their days.
        margin: loss of accuracy that the interval of the difference may reach to; None if a version is refused only
            where it is shown to be worse.
    """
    if alias_version is None:
        return Check(
            "quality", True, True, None, None, f"No version has the alias {alias}, and none can be better."
        )
    if alias_version == version:
        return Check("quality", True, True, 0.0, None, f"The version has the alias {alias} already.")
    both = mine.keys() & others.keys()
    a, b = (_summed(each[day] for day in both) for each in (mine, others))
    when = f"on the {counted(len(both), 'day')} that both have answered"
    if min(a.labelled, b.labelled) < LEAST:
        a, b = _summed(mine.values()), _summed(others.values())
        when = "on days of their own, which may differ by more than the versions"
    for scored, name in ((a, version), (b, f"{alias_version}, which has the alias {alias},")):
        if scored.labelled < LEAST:
            return unjudged(
                "quality",
                f"version {name} has {counted(scored.labelled, 'answer')} with a known truth, and {LEAST} are needed.",
            )
    difference = a.accuracy - b.accuracy
    low, high = shares_interval(a.correct, a.labelled, b.correct, b.labelled)
    told = (
        f"Its accuracy is {a.accuracy:.4f} ({a.labelled:,} answers), {difference:+.4f} against version {alias_version} "
        f"({b.labelled:,} answers), 95 % interval {low:+.4f} to {high:+.4f}, {when}"
    )
    if high < 0:
        return Check("quality", False, True, difference, 0.0, f"{told}: it is worse by {-high:.4f} at least.")
    if margin is not None and low < -margin:
        return Check(
            "quality",
            False,
            True,
            low,
            -margin,
            f"{told}: it may be worse by {-low:.4f}, and {margin:g} is let pass; more labels would tell.",
        )
    return Check("quality", True, True, difference, 0.0 if margin is None else -margin, f"{told}.")


def floor_check(
    found: Mapping[tuple[str, str], Scored], model_name: str, floors: Mapping[str, Mapping[str, float]]
) -> Check:
    """Whether a version is right often enough in each slice that has a floor.

    Args:
        found: answers of the version by slice and its value, such as `("confidence", "0.9-1.0")`.
        floors: by model, or `*` for every model, the least accuracy by slice: `all`, or `confidence=0.9-1.0`. What is
            said of the model counts before what is said of all.
    """
    wanted = {**floors.get(EVERY_MODEL, {}), **floors.get(model_name, {})}
    if not wanted:
        return Check("slice_floors", True, True, None, None, "No floor is set (ML_ASSETS_PROMOTION_FLOORS).")
    below, unknown, nearest = [], [], []
    for name, floor in sorted(wanted.items()):
        slice_, _, value = name.partition("=")
        scored = found.get((slice_, value), Scored(0, 0))
        if scored.labelled < LEAST:
            unknown.append(f"{name} has {counted(scored.labelled, 'answer')} with a known truth")
            continue
        nearest.append((scored.accuracy - floor, scored.accuracy, floor))
        if scored.accuracy < floor:
            below.append(
                f"{name} is {scored.accuracy:.4f} ({scored.labelled:,} answers), {floor - scored.accuracy:.4f} below its "
                f"floor of {floor:g}"
            )
    _, value, floor = min(nearest, default=(0.0, None, None))
    if below:
        return Check("slice_floors", False, True, value, floor, f"The accuracy of {'; '.join(below)}.")
    if unknown:
        return unjudged("slice_floors", f"{'; '.join(unknown)}, and {LEAST} are needed.")
    return Check(
        "slice_floors",
        True,
        True,
        value,
        floor,
        f"{counted(len(wanted), 'slice')} reach their floors, the nearest with {value:.4f}.",
    )


def leakage_check(rows: int, findings: Sequence[str], headline: str) -> Check:
    """Whether what the model learned from tells it the future.

    Args:
        rows: of the training set.
        findings: each leak in a sentence.
        headline: what was examined.
    """
    if not rows:
        return unjudged("leakage", "the training set has no row.")
    return Check("leakage", not findings, True, float(len(findings)), 0.0, " ".join([headline, *findings]))


@dataclass(frozen=True)
class Parity:
    """Values of features as they are served, beside those of the lake.

    Args:
        compared: values that were held against each other.
        different: those that differ.
        example: one of these, in a sentence.
        views: how many views have them.
    """

    compared: int = 0
    different: int = 0
    example: str = ""
    views: int = 0


def parity_check(online: Parity, logged: Parity) -> Check:
    """Whether what is served is what a model was trained on.

    Args:
        online: what is served now against the newest rows of the lake.
        logged: what was served and logged in the last week against the rows that counted then.
    """
    compared, different = online.compared + logged.compared, online.different + logged.different
    if not compared:
        return unjudged(
            "parity", "nothing is served online of any view, and nothing that was served was logged."
        )
    told = (
        f"Of {counted(online.compared, 'value')} of {counted(online.views, 'view')} online {online.different:,} differ "
        f"from the lake's, and of {counted(logged.compared, 'row')} that were served and logged {logged.different:,}."
    )
    examples = " ".join(each.example for each in (online, logged) if each.example)
    return Check("parity", not different, True, different / compared, 0.0, f"{told} {examples}".strip())


def _is_verdict(row: Mapping[str, Any]) -> bool:
    return row["state"] in ("drift", "none")


def _distance(row: Mapping[str, Any]) -> tuple[str, float | None]:
    return ("KS", row["ks"]) if row["ks"] is not None else ("PSI", row["psi"])


def _drift_told(row: Mapping[str, Any]) -> str:
    name, distance = _distance(row)
    if distance is None:
        return str(row["feature"])
    over = f", {distance - row['threshold']:.3g} over its threshold" if row["threshold"] is not None else ""
    return f"{row['feature']} ({name} {distance:.3g}{over})"


def _day(moment: datetime | date) -> date:
    return moment.date() if isinstance(moment, datetime) else moment


def _slice(episode: Mapping[str, Any]) -> str:
    return "" if episode["slice"] == "all" else f" ({episode['slice']} {episode['slice_value']})"


def _change(share: float | None) -> str:
    return "" if share is None else f" ({share:+.1%})"


def _summed(parts: Any) -> Scored:
    found = list(parts)
    return Scored(sum(each.labelled for each in found), sum(each.correct for each in found))
