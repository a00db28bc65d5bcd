"""Why a model became worse: what changed with it, weighed, in sentences that name the rows they rest on.

What belongs here: which facts speak for and against each of four causes (the data that the model is given, its version,
what the version was trained on, the load), and what is written of them. Where facts come from is said in
operations/why.py.

A fact gives a cause points, from -3 to 3. They order the causes and are no probabilities: from 3 on a cause is likely,
above 0 possible, else unlikely. What changes every day says little, and what other models share says much: a version that
is replaced daily without harm is no cause because it was replaced on that day too.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, get_args

from ml_assets.lib.words import counted

CauseName = Literal["data", "version", "training data", "load"]
CAUSES: tuple[CauseName, ...] = get_args(CauseName)
"""In the order in which they are told where none has more points than another."""

Verdict = Literal["likely", "possible", "unlikely"]

REGRESSIONS, ALERTS, DRIFT, EVENTS = (
    f"clickhouse/{name}"
    for name in ("performance_regressions", "alerts", "feature_drift", "ml_model_performance")
)
RUNS, PINS = "postgres/ml_experiments", "postgres/ml_assets_pins"

DATASETS_TAG, PIN_TAG = "mlflow.datasets", "ml_assets.pin"

LIKELY = 3
"""Points from which on a cause is likely."""

USUAL_CHANGES = 3
"""Versions that were replaced without harm, from which on a new one is usual."""

LATER_VERSIONS = 2
"""Versions since that are as bad, from which on it is not the version."""

_MARKUP = re.compile(r"[\\`*~|\[\]#]|(?<!\w)_|_(?!\w)")
"""What Markdown takes for more than text; an underscore within a word is one."""

_SHOWN = 5
_NOTE = 400
_MORE_LOAD, _LARGER, _KEPT = 1.5, 1.25, 0.8


@dataclass(frozen=True)
class Row:
    """A row that a claim rests on.

    Args:
        table: the asset, such as `clickhouse/feature_drift`.
        key: what tells the row, or the rows that were added up, from all others.
        values: what was read there.
    """

    table: str
    key: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """One sentence, and the rows that it rests on.

    Args:
        topic: what it is about, such as `drift`.
    """

    topic: str
    sentence: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Cause:
    """What may have made the model worse.

    Args:
        points: all that speaks for it and against it, added up.
        sentence: what it would be, with names.
        supports, contradicts: numbers of claims, from 1 on.
    """

    name: CauseName
    verdict: Verdict
    points: int
    sentence: str
    supports: tuple[int, ...]
    contradicts: tuple[int, ...]


@dataclass(frozen=True)
class Summary:
    """Prose that a language model made of the claims.

    Args:
        written_by: the language model.
        strangers: figures in the text that no claim has.
    """

    text: str
    written_by: str
    strangers: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """What the reader has to know of it."""
        doubt = (
            f" It names figures that the facts do not have: {', '.join(self.strangers)}."
            if self.strangers
            else ""
        )
        return f"Written by the language model {self.written_by} from the facts below; they count, not it.{doubt}"


@dataclass(frozen=True)
class Facts:
    """What is known of a model around the day on which it became worse.

    Args:
        day: UTC, on which it began.
        episodes: rows of performance_regressions that began then, the clearest first.
        elsewhen: open ones that began on another day.
        past: those before that are over.
        alerts: rows of alerts that began then.
        drift: rows of feature_drift of all answers, until `drift_day`; None if nothing was ever compared.
        drift_day: the first day since `day` that was compared; None if none was.
        peers: by dataset, how many models answered that day (`models`), how many of them became worse within a day of it
            (`worse`), and their names.
        in_use: versions of the model from four weeks before until the end, with the `before_` and `after_` count and
            mean of the metric.
        load: requests an hour and rows a request, `before_` and `after_`; empty if unknown.
        runs: rows of ml_experiments by id.
        before: what answered last before it, in order: `run_id` and `model_version`, either of them None if unknown.
        after: what answered first within it.
        made_then: ids of runs of the model that were made on that day.
        similar: runs from before that day with their `score`, the most similar first; None if that was not asked.
        pinned: claims about the training set; see operations/why.py.
        missing: sentences about what could not be looked at.
    """

    model_name: str
    day: date
    episodes: Sequence[Mapping[str, Any]]
    elsewhen: Sequence[Mapping[str, Any]] = ()
    past: Sequence[Mapping[str, Any]] = ()
    alerts: Sequence[Mapping[str, Any]] = ()
    drift: Sequence[Mapping[str, Any]] | None = None
    drift_day: date | None = None
    peers: Sequence[Mapping[str, Any]] = ()
    in_use: Sequence[Mapping[str, Any]] = ()
    load: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    before: Sequence[Mapping[str, Any]] = ()
    after: Mapping[str, Any] | None = None
    made_then: Sequence[str] = ()
    similar: Sequence[Mapping[str, Any]] | None = None
    pinned: Sequence[Claim] = ()
    missing: Sequence[str] = ()

    @property
    def dataset(self) -> str | None:
        """The dataset that the model answers on: that of the run behind its answers."""
        answered = [*([self.after] if self.after else []), *reversed(self.before)]
        known = [self.runs.get(each["run_id"], {}).get("dataset") for each in answered]
        return next((name for name in known if name), None)

    @property
    def run_after(self) -> str | None:
        """Id of the run that answered first within it."""
        return self.after["run_id"] if self.after else None


@dataclass(frozen=True)
class Explanation:
    """Why a model became worse.

    Args:
        model_name, day: what it is about; the day, UTC, on which it began.
        dataset: that the model answers on; None if unknown.
        causes: those that matter first.
        claims: what is known; a cause names them by their numbers, from 1 on.
        notes: what could not be looked at, and what else there is.
        summary: prose of a language model, if one is configured.
    """

    model_name: str
    day: date
    dataset: str | None
    causes: tuple[Cause, ...]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()
    summary: Summary | None = None

    @property
    def headline(self) -> str:
        """The answer in a sentence or two."""
        likely = [cause for cause in self.causes if cause.verdict == "likely"]
        possible = [cause for cause in self.causes if cause.verdict == "possible"]
        worse = any(claim.topic == "regression" for claim in self.claims)
        what = f"{self.model_name} became worse on {self.day}."
        if not worse:
            what = f"{self.model_name} drifted on {self.day}, and nothing that is measured became worse."
        if likely:
            return f"{what} Most likely: {likely[0].sentence}"
        if possible:
            told = " Or: ".join(cause.sentence for cause in possible)
            return f"{what} Nothing speaks clearly for one cause. Possible: {told}"
        return f"{what} Nothing that is recorded explains it."

    def facts(self) -> list[str]:
        """The claims and causes as sentences, which is all that a language model is told."""
        return [
            self.headline,
            *(f"{cause.verdict}: {cause.sentence}" for cause in self.causes[1:]),
            *(claim.sentence for claim in self.claims),
            *self.notes,
        ]

    def as_json(self) -> dict[str, Any]:
        """All of it, as values that JSON has."""
        return {
            "model_name": self.model_name,
            "day": self.day.isoformat(),
            "dataset": self.dataset,
            "headline": self.headline,
            "causes": [vars(cause) for cause in self.causes],
            "claims": [
                {
                    "number": number,
                    "topic": claim.topic,
                    "sentence": claim.sentence,
                    "rows": [
                        {"table": row.table, "key": _plain(row.key), "values": _plain(row.values)}
                        for row in claim.rows
                    ],
                }
                for number, claim in enumerate(self.claims, 1)
            ],
            "notes": list(self.notes),
            "summary": self.summary
            and {
                "text": self.summary.text,
                "written_by": self.summary.written_by,
                "mark": self.summary.mark,
                "figures_without_fact": list(self.summary.strangers),
            },
        }

    def markdown(self, level: int = 1) -> str:
        """All of it as Markdown: the answer, the causes, the facts, and the rows behind them.

        Args:
            level: of its heading.
        """
        lines = [
            f"{'#' * level} Why {escaped(self.model_name)} became worse on {self.day}",
            "",
            f"**{escaped(self.headline)}**",
        ]
        if self.summary:
            lines += ["", f"> {escaped(self.summary.text)}", ">", f"> *{escaped(self.summary.mark)}*"]
        lines += ["", "| cause | verdict | for it | against it |", "|---|---|---|---|"]
        lines += [
            f"| {escaped(cause.sentence)} | {cause.verdict} | {_numbers(cause.supports)} | "
            f"{_numbers(cause.contradicts)} |"
            for cause in self.causes
        ]
        lines.append("")
        lines += [f"{number}. {escaped(claim.sentence)}" for number, claim in enumerate(self.claims, 1)]
        if self.notes:
            lines += ["", *(f"- {escaped(note)}" for note in self.notes)]
        lines += ["", "| fact | table | key | values |", "|---|---|---|---|"]
        lines += [
            f"| {number} | `{row.table}` | {_pairs(row.key)} | {_pairs(row.values)} |"
            for number, claim in enumerate(self.claims, 1)
            for row in claim.rows
        ]
        return "\n".join(lines) + "\n"

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return self.markdown(level=3)


def explain(facts: Facts) -> Explanation:
    """What the facts say of each cause."""
    case = _Case(facts)
    for told in (
        _episodes,
        _data_that_drifted,
        _models_beside,
        _versions,
        _parameters,
        _at_training,
        _versions_before,
        _versions_since,
        _trained_on,
        _made_then,
        _load,
        _seen_before,
        _similar,
    ):
        told(case)
    for claim in facts.pinned:
        case.claim(claim.topic, claim.sentence, claim.rows)
    return case.explanation()


class _Case:
    """What was said by now: the claims, and the points of each cause."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._claims: list[Claim] = []
        self._points: dict[CauseName, list[tuple[int, int]]] = {name: [] for name in CAUSES}

    def claim(self, topic: str, sentence: str, rows: Sequence[Row], **points: int) -> None:
        """Add a claim, with its points by cause (`training_data` for `training data`)."""
        self._claims.append(Claim(topic, sentence, tuple(rows)))
        for name in CAUSES:
            if given := points.get(name.replace(" ", "_"), 0):
                self._points[name].append((len(self._claims), given))

    @property
    def episode(self) -> Mapping[str, Any] | None:
        """The clearest one; None if there is drift alone."""
        return next(iter(self.facts.episodes), None)

    @property
    def is_quality(self) -> bool:
        return self.episode is None or self.episode["kind"] == "quality"

    def is_bad(self, value: float | None) -> bool | None:
        """Whether a level of the metric is nearer to that of the episode; None if that cannot be said."""
        if self.episode is None or value is None or not math.isfinite(value):
            return None
        before, after = self.episode["before"], self.episode["after"]
        return abs(value - after) < abs(value - before)

    @property
    def changed(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """The runs that answered last before and first after, if they are two and known."""
        facts = self.facts
        before = facts.runs.get(facts.before[-1]["run_id"]) if facts.before else None
        after = facts.runs.get(facts.run_after or "")
        return (before, after) if before and after and before["id"] != after["id"] else None

    def explanation(self) -> Explanation:
        facts = self.facts
        since = f"The model has other open episodes, which began on {_days(facts.elsewhen)}: name such a day."
        causes = [self._cause(name, given) for name, given in self._points.items() if given]
        return Explanation(
            facts.model_name,
            facts.day,
            facts.dataset,
            tuple(sorted(causes, key=lambda cause: (-cause.points, CAUSES.index(cause.name)))),
            tuple(self._claims),
            (*facts.missing, *([since] if facts.elsewhen else [])),
        )

    def _cause(self, name: CauseName, given: Sequence[tuple[int, int]]) -> Cause:
        points = sum(count for _, count in given)
        verdict: Verdict = "likely" if points >= LIKELY else "possible" if points > 0 else "unlikely"
        return Cause(
            name,
            verdict,
            points,
            self._sentence(name),
            tuple(number for number, count in given if count > 0),
            tuple(number for number, count in given if count < 0),
        )

    def _inputs(self) -> str:
        facts = self.facts
        whose = (
            f"the dataset {facts.dataset}, on which {facts.model_name} answers,"
            if facts.dataset
            else facts.model_name
        )
        states = {row["state"] for row in facts.drift or () if _day(row["day"]) == facts.drift_day}
        if states == {"none"}:
            return f"what is right for the inputs of {whose} changed on {facts.day}, while the inputs did not"
        return f"the inputs of {whose} changed on {facts.day}"

    def _first_trained(self) -> str:
        """The training set of the first run that was made on that day."""
        for id in self.facts.made_then:
            run = self.facts.runs.get(id)
            if run and id != self.facts.run_after and (data := _training(run)):
                return f"; the first training set that was made since then is {_data(data)} of the run {id}"
        return ""

    def _sentence(self, name: CauseName) -> str:
        model, day = self.facts.model_name, self.facts.day
        version = f"version {(self.facts.after or {}).get('model_version') or 'that is new'}"
        return {
            "data": f"{self._inputs()}{self._first_trained()}.",
            "version": f"{version} of {model} is worse than the one before it.",
            "training data": f"{version} of {model} was trained on other data than the one before it.",
            "load": f"{model} is asked more, or for more at a time, since {day}.",
        }[name]


def _episodes(case: _Case) -> None:
    by_episode = {_identity(row): row["alert_id"] for row in case.facts.alerts}
    columns = ("before", "after", "change", "low", "high", "confidence", "began_at", "closed_at")
    for row in case.facts.episodes:
        alert = by_episode.get(_identity(row))
        values = {name: row[name] for name in columns} | ({"alert_id": alert} if alert else {})
        case.claim("regression", row["description"], [Row(REGRESSIONS, _episode_key(row), values)])
    for row in case.facts.alerts:
        if row["source"] == "drift":
            values = {name: row[name] for name in ("began_at", "last_seen_at", "closed_at", "change")}
            case.claim("alert", row["description"], [Row(ALERTS, {"alert_id": row["alert_id"]}, values)])


def _data_that_drifted(case: _Case) -> None:
    facts = case.facts
    if facts.drift is None or facts.drift_day is None:
        return
    model, day = facts.model_name, facts.drift_day
    inputs = [row for row in facts.drift if row["subject"] == "input"]
    judged = [row for row in inputs if _day(row["day"]) == day and row["state"] in ("drift", "none")]
    drifted = sorted((row for row in judged if row["state"] == "drift"), key=_distance, reverse=True)
    if not judged:
        return
    earlier = [row for row in inputs if _day(row["day"]) < facts.day and row["state"] in ("drift", "none")]
    last = max((_day(row["day"]) for row in earlier), default=None)
    were = [row for row in earlier if _day(row["day"]) == last]
    had = [row for row in were if row["state"] == "drift"]
    on_the_day = {
        "day": day.isoformat(),
        "model_name": model,
        "subject": "input",
        "slice": "all",
        "slice_value": "",
    }
    rows = [
        Row(DRIFT, on_the_day, {"judged": len(judged), "drifted": len(drifted)}),
        *(
            Row(
                DRIFT,
                {**on_the_day, "feature": row["feature"]},
                {
                    name: row[name]
                    for name in ("ks", "psi", "threshold", "corrected_p", "reference_count", "current_count")
                    if row.get(name) is not None
                },
            )
            for row in drifted[:_SHOWN]
        ),
    ]
    before = "no day before was compared"
    if last:
        rows.insert(
            1,
            Row(
                DRIFT,
                {**on_the_day, "day": last.isoformat()},
                {"judged": len(were), "drifted": len(had)},
            ),
        )
        before = f"of {last} {f'{len(had):,}' if had else 'none'} of {len(were):,} were"
    if not drifted:
        case.claim(
            "drift",
            f"None of the {counted(len(judged), 'input')} of {model} of {day} is other than in its baseline.",
            rows,
            data=-2,
        )
        return
    sudden = last is not None and len(had) / len(were) < len(drifted) / len(judged) / 2
    usual = last is not None and not sudden
    most = ", ".join(f"{row['feature']} ({_measure(row)})" for row in drifted[:_SHOWN])
    case.claim(
        "drift",
        f"{len(drifted):,} of the {counted(len(judged), 'input')} of {model} of {day} are other than in its baseline, "
        f"and {before}. The farthest: {most}.",
        rows,
        # Other data make answers worse; what makes them slower is seldom that.
        data=(1 if case.is_quality else 0) + (2 if sudden else 0) - (1 if usual else 0),
    )


def _models_beside(case: _Case) -> None:
    """Models of the same dataset share its data, and no version."""
    facts, dataset = case.facts, case.facts.dataset
    own = [row for row in facts.peers if row["dataset"] == dataset]
    others = [row for row in facts.peers if row["dataset"] != dataset]
    if not dataset or not own or case.episode is None:
        return
    rows = [
        Row(
            EVENTS,
            {"dataset": row["dataset"], "day": facts.day.isoformat()},
            {"models": row["models"], "became_worse": row["worse"], "names": list(row["names"])},
        )
        for row in facts.peers
    ]
    models, worse = own[0]["models"], own[0]["worse"]
    beside, beside_worse = sum(row["models"] for row in others), sum(row["worse"] for row in others)
    elsewhere = (
        f"; of {counted(beside, 'model')} on {counted(len(others), 'other dataset')} "
        f"{f'{beside_worse:,}' if beside_worse else 'none'} did"
        if beside
        else ""
    )
    if models < 2:
        case.claim(
            "other models",
            f"No other model answered on {dataset} on {facts.day}{elsewhere}.",
            rows,
        )
        return
    names = ", ".join(own[0]["names"])
    told = f"{worse:,} of the {models:,} models that answer on {dataset} became worse within a day of {facts.day}"
    shared = worse >= 2 and worse >= models / 2
    apart = not beside or beside_worse / beside < worse / models / 2
    case.claim(
        "other models",
        f"{told} ({names}){elsewhere}.",
        rows,
        # Where everything became worse at once, neither this dataset nor this version is special.
        data=(2 if apart else 0) if shared else -1,
        version=-1 if shared else 1,
    )


def _versions(case: _Case) -> None:
    facts = case.facts
    before, after = (facts.before[-1] if facts.before else None), facts.after
    if before is None or after is None or not (_named(before) and _named(after)):
        return
    used = [_used(facts, each) for each in (before, after)]
    rows = [_use_row(facts, row) for row in used if row]
    told = [_run_row(run, "model_version", "dataset", "created_at") for run in case.changed or ()]
    if _named(before) == _named(after):
        case.claim(
            "version",
            f"The version did not change: {_named(after)} answered before and after.",
            rows[:1],
            version=-3,
            training_data=-3,
        )
        return
    since = f" since {used[1]['first_at']:%Y-%m-%d %H:%M}" if used[1] else ""
    harmless = max(0, sum(1 for row in facts.in_use if row["before_count"]) - 1)
    usual = (
        f" In the 28 days before, {counted(harmless, 'other change')} of version did no such harm."
        if harmless
        else ""
    )
    case.claim(
        "version",
        f"{_upper(_named(after))} answers{since}, in place of {_named(before)}.{usual}",
        [*told, *rows],
        version=-1 if harmless >= USUAL_CHANGES else 1,
    )


def _parameters(case: _Case) -> None:
    pair = case.changed
    if pair is None:
        return
    before, after = ({str(k): str(v) for k, v in (run["parameters"] or {}).items()} for run in pair)
    names = sorted(before.keys() | after.keys())
    differing = [name for name in names if before.get(name) != after.get(name)]
    rows = [_run_row(run, "parameters") for run in pair]
    versions = f"Versions {pair[0]['model_version']} and {pair[1]['model_version']}"
    if not names:
        return
    if not differing:
        case.claim(
            "parameters",
            f"{versions} were trained with the same {counted(len(names), 'parameter')}.",
            rows,
            version=-1,
        )
        return
    told = ", ".join(
        f"{name} ({before.get(name, 'none')} before, {after.get(name, 'none')} now)"
        for name in differing[:_SHOWN]
    )
    more = f", and {len(differing) - _SHOWN:,} more" if len(differing) > _SHOWN else ""
    case.claim("parameters", f"{versions} differ in {told}{more}.", rows, version=1)


def _at_training(case: _Case) -> None:
    """What the versions reached where they were made tells a bad model from bad data."""
    pair, episode = case.changed, case.episode
    if pair is None or episode is None or episode["kind"] != "quality":
        return
    metric = episode["metric"]
    before, after = ((run["metrics"] or {}).get(metric) for run in pair)
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return
    lost, shift = before - after, abs(episode["after"] - episode["before"])
    worse = lost >= shift / 2
    told = "was worse from the beginning" if worse else "was no worse when it was made"
    case.claim(
        "at training",
        f"Version {pair[1]['model_version']} {told}: its {metric} was {after:.3g}, that of version "
        f"{pair[0]['model_version']} {before:.3g}; within the episode it is {episode['after']:.3g}.",
        [Row(RUNS, {"id": run["id"]}, {f"metrics.{metric}": run["metrics"][metric]}) for run in pair],
        version=2 if worse else -1,
        training_data=1 if worse else -1,
    )


def _versions_before(case: _Case) -> None:
    """A version that answered before and after did not change."""
    facts, episode = case.facts, case.episode
    if episode is None:
        return
    kept = [
        row
        for row in facts.in_use
        if row["before_count"] and row["after_count"] and row["run_id"] != facts.run_after
    ]
    judged = [(row, case.is_bad(row["after_value"])) for row in kept]
    judged = [(row, bad) for row, bad in judged if bad is not None]
    if not judged:
        return
    bad = sum(1 for _, is_bad in judged if is_bad)
    told = ", ".join(
        f"version {row['model_version']} ({row['before_value']:.3g} before, {row['after_value']:.3g} since)"
        for row, _ in judged[:_SHOWN]
    )
    mostly = bad * 2 > len(judged)
    case.claim(
        "older versions",
        f"Of the versions that answered before and go on, {bad:,} of {len(judged):,} became worse too: {told}.",
        [_use_row(facts, row) for row, _ in judged[:_SHOWN]],
        version=-2 if mostly else 2,
        data=2 if mostly else -2,
    )


def _versions_since(case: _Case) -> None:
    facts = case.facts
    later = [
        row
        for row in facts.in_use
        if not row["before_count"] and row["after_count"] and row["run_id"] != facts.run_after
    ]
    judged = [(row, case.is_bad(row["after_value"])) for row in later]
    judged = [(row, bad) for row, bad in judged if bad is not None]
    if not judged:
        return
    bad = [row for row, is_bad in judged if is_bad]
    good = [row for row, is_bad in judged if not is_bad]
    told = ", ".join(f"{row['model_version']} ({row['after_value']:.3g})" for row, _ in judged[:_SHOWN])
    stays = len(bad) >= LATER_VERSIONS and len(bad) > len(good)
    case.claim(
        "later versions",
        f"Of {counted(len(judged), 'version')} since, {f'{len(bad):,}' if bad else 'none'} "
        f"{'is' if len(bad) == 1 else 'are'} nearer to the level of the episode than to that before: {told}.",
        [_use_row(facts, row) for row, _ in judged[:_SHOWN]],
        version=-1 if stays else 1 if not bad else 0,
        data=1 if stays else 0,
    )


def _trained_on(case: _Case) -> None:
    pair = case.changed
    if pair is None:
        return
    before, after = (_training(run) for run in pair)
    rows = [_run_row(run, "dataset", "tags." + DATASETS_TAG, "tags." + PIN_TAG) for run in pair]
    old, new = (f"version {run['model_version']}" for run in pair)
    if before is None or after is None:
        if (pair[0]["dataset"] or "") != (pair[1]["dataset"] or ""):
            case.claim(
                "training data",
                f"{_upper(new)} was trained on {pair[1]['dataset'] or 'no known dataset'}, {old} on "
                f"{pair[0]['dataset'] or 'no known dataset'}.",
                rows,
                training_data=2,
            )
        return
    if before.get("digest") == after.get("digest") and before.get("name") == after.get("name"):
        case.claim(
            "training data",
            f"{_upper(new)} was trained on the same data as {old}: {_data(after)}.",
            rows,
            training_data=-3,
        )
        return
    known = [
        data.get("digest")
        for each in case.facts.before
        if (run := case.facts.runs.get(each["run_id"])) and (data := _training(run))
    ]
    # One digest over several runs is a dataset that stood still until then; one for each run is daily bread.
    stood = len(known) > 1 and len(set(known)) == 1
    daily = len(known) > 1 and len(set(known)) == len(known)
    points, also = 2 if stood else 0 if daily else 1, []
    if before.get("name") != after.get("name"):
        points += 1
        also.append("it is another dataset")
    if _differ(before, after, "feature_count"):
        points += 1
        also.append("it has another number of columns")
    was, now = (data.get("row_count") or 0 for data in (before, after))
    if 0 < now < was * _KEPT:
        points += 1
        also.append(f"{1 - now / was:.0%} of the rows are gone")
    usual = ", as at each training before" if daily and not also else ""
    told = f"; {', and '.join(also)}" if also else ""
    case.claim(
        "training data",
        f"{_upper(new)} was trained on other data than {old}{usual}: {_data(after)}, after {_data(before)}{told}.",
        rows,
        training_data=points,
    )


def _made_then(case: _Case) -> None:
    """What runs of that day say of its data."""
    for id in case.facts.made_then:
        run = case.facts.runs.get(id)
        if run is None or id == case.facts.run_after:
            continue
        data = _training(run)
        on = f" on {_data(data)}" if data else f" on {run['dataset']}" if run["dataset"] else ""
        notes = f" Its notes: “{_short(run['notes'])}”" if run["notes"] else ""
        case.claim(
            "made that day",
            f"{_upper(_run(run))} was trained on {run['created_at']:%Y-%m-%d %H:%M}{on}.{notes}",
            [_run_row(run, "dataset", "created_at", "notes", "tags." + DATASETS_TAG)],
        )


def _load(case: _Case) -> None:
    load, facts = case.facts.load, case.facts
    if case.is_quality or not load:
        return
    asked = (load.get("before_requests"), load.get("after_requests"))
    sized = (load.get("before_batch"), load.get("after_batch"))
    grew = _grew(asked, _MORE_LOAD), _grew(sized, _LARGER)
    told = [
        f"{what} {then:.3g} before, {now:.3g} since"
        for what, (then, now) in (("requests an hour", asked), ("rows a request", sized))
        if then is not None and now is not None
    ]
    if not told:
        return
    case.claim(
        "load",
        f"{facts.model_name} had {' and '.join(told)}.",
        [Row(EVENTS, {"model_name": facts.model_name, "from": facts.day.isoformat()}, dict(load))],
        load=2 * sum(grew) + (1 if any(grew) else -1),
    )


def _seen_before(case: _Case) -> None:
    for row in case.facts.past[:_SHOWN]:
        case.claim(
            "seen before",
            f"Before that: {row['description']}",
            [
                Row(
                    REGRESSIONS,
                    _episode_key(row),
                    {name: row[name] for name in ("began_at", "closed_at", "change")},
                )
            ],
        )


def _similar(case: _Case) -> None:
    for run in (case.facts.similar or ())[:_SHOWN]:
        metric = case.episode["metric"] if case.episode else "accuracy"
        reached = (run["metrics"] or {}).get(metric)
        value = f", {metric} {reached:.3g}" if isinstance(reached, int | float) else ""
        notes = f": “{_short(run['notes'])}”" if run["notes"] else "."
        case.claim(
            "similar run",
            f"Similar from before ({run['score']:.2f}): {_run(run)} of {run['created_at']:%Y-%m-%d}{value}"
            f"{notes}",
            [_run_row(run, "model_name", "dataset", "created_at", "notes")],
        )


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    one_line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\g<0>", one_line)


def strange_figures(text: str, facts: Sequence[str]) -> tuple[str, ...]:
    """Figures of a text that none of the facts has, whatever unit stands behind them."""
    known = {figure for fact in facts for figure in _figures(fact)}
    return tuple(dict.fromkeys(figure for figure in _figures(text) if figure not in known))


def _figures(text: str) -> list[str]:
    return [figure.replace(",", "") for figure in re.findall(r"\d+(?:[.,]\d+)*", text)]


def _day(value: date | datetime) -> date:
    return value.date() if isinstance(value, datetime) else value


def _days(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(sorted({f"{row['began_at']:%Y-%m-%d}" for row in rows}))


def _distance(row: Mapping[str, Any]) -> float:
    value = row["ks"] if row["kind"] == "number" else row["psi"]
    return value if value is not None and math.isfinite(value) else 0.0


def _measure(row: Mapping[str, Any]) -> str:
    return f"{'KS' if row['kind'] == 'number' else 'PSI'} {_distance(row):.2f}"


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("metric", "slice", "slice_value", "direction"))


def _episode_key(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("model_name", "metric", "slice", "slice_value", "opened_at")}


def _named(answered: Mapping[str, Any]) -> str:
    """`version 9 (run 228c8bce)`, or what is known of it; empty if nothing is."""
    version, run = answered["model_version"], answered["run_id"]
    if version:
        return f"version {version} (run {run})" if run else f"version {version}"
    return f"the run {run}" if run else ""


def _used(facts: Facts, answered: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next(
        (
            row
            for row in facts.in_use
            if (row["run_id"], row["model_version"]) == (answered["run_id"], answered["model_version"])
        ),
        None,
    )


def _run(run: Mapping[str, Any]) -> str:
    """`The run 228c8bce (version 9 of digits)`."""
    version = f"version {run['model_version']} of " if run["model_version"] and run["model_name"] else ""
    of = f" ({version}{run['model_name']})" if run["model_name"] else ""
    return f"the run {run['id']}{of}"


def _run_row(run: Mapping[str, Any], *names: str) -> Row:
    values = {}
    for name in names:
        head, _, tag = name.partition(".")
        value = (run[head] or {}).get(tag) if tag else run[head]
        if value is not None:
            values[name] = value
    return Row(RUNS, {"id": run["id"]}, values)


def _use_row(facts: Facts, row: Mapping[str, Any]) -> Row:
    key = {name: row[name] for name in ("model_version", "run_id")}
    values = {
        name: row[name]
        for name in ("first_at", "last_at", "before_count", "before_value", "after_count", "after_value")
        if row[name] is not None
    }
    return Row(EVENTS, {"model_name": facts.model_name, **key}, values)


def _training(run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The dataset input that a run was trained on, as MLflow was told; the only one if it says no context."""
    uses = (run["tags"] or {}).get(DATASETS_TAG)
    if not isinstance(uses, list):
        return None
    known = [use for use in uses if isinstance(use, Mapping)]
    named = [use for use in known if use.get("context") in ("train", "training")]
    return next(iter(named or known), None)


def _data(data: Mapping[str, Any]) -> str:
    rows = data.get("row_count")
    told = f", {rows:,} rows" if isinstance(rows, int) else ""
    return f"{data.get('name')} (digest {data.get('digest')}{told})"


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    return one.get(name) is not None and other.get(name) is not None and one[name] != other[name]


def _grew(pair: tuple[float | None, float | None], least: float) -> bool:
    before, after = pair
    return before is not None and after is not None and before > 0 and after / before >= least


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _NOTE else f"{plain[: _NOTE - 1]}…"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, date | datetime):
            return value.isoformat()
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return {name: one(value) for name, value in values.items()}


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "-"


def _pairs(values: Mapping[str, Any]) -> str:
    return escaped(", ".join(f"{name} {_shown(value)}" for name, value in values.items()))


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return _short(value) if value else "''"
    return _short(str(value))
