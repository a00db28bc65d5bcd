"""Is it really better? Which test fits what two or more groups of runs share, and what it says in a sentence.

What belongs here: plain groups in, verdicts out. What does not: reading runs, words on a screen. The formulas are in
`hypothesis_tests.py`. The choice, the first that fits:

| what the groups share | test |
|---|---|
| five datasets or more, three groups or more | Friedman, then Nemenyi (Demsar 2006) |
| five datasets or more, two groups | paired t over the datasets' means |
| runs of the same (dataset, seed, split) | paired t (Student 1908) |
| the same, over several splits or folds | corrected resampled t (Nadeau & Bengio 2003) |
| fewer than two runs, but scores of the same rows | McNemar (1947), or a paired bootstrap (Efron 1987) |
| nothing | Welch (1947) |

Several comparisons at once are corrected by Holm (1979); Nemenyi's p values already are. A metric that is the same
in every run has no spread that a t-test could use; its p value is the exact one of signs or of separation.
"""

import html
import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml_assets.lib import hypothesis_tests as tests
from ml_assets.lib.words import counted

_ENOUGH_DATASETS = 5
"""Shared datasets from which datasets are the sample; with fewer a verdict is about these datasets alone."""
_NO_SPREAD = 1e-12
"""Standard deviation below which values are the same, as a share of the largest value: rounding, not noise."""

Labels = Sequence[Hashable | None] | None
_Key = tuple[Hashable | None, Hashable | None, Hashable | None]


@dataclass(frozen=True)
class Rows:
    """The metric row by row, of one run of a group.

    Args:
        scores: one value a row in the metric's direction, whose mean is the metric: 1 for right and 0 for wrong
            where the metric is the accuracy, the squared error where it is the mean squared error.
        ids: which row each is; without them the rows of two groups are matched by their order.
        groups: what each row belongs to (a patient, a document), where rows are not independent.
    """

    scores: Sequence[float]
    ids: Labels = None
    groups: Labels = None

    def __post_init__(self) -> None:
        _same_length("rows", len(self.scores), {"ids": self.ids, "groups": self.groups})


@dataclass(frozen=True)
class Sample:
    """The metric of the runs of one group: a model, a configuration, a version.

    Args:
        name: what sentences call it.
        values: the metric of each run, in its unit; NaN, infinity and None count as missing.
        seeds: the seed of each run.
        splits: the split or fold of the data that each run was tested on.
        datasets: the dataset of each run.
        test_fraction: the share of the rows that a fold tests on, above 0 and below 1. Without it, several splits are
            taken for the folds of a cross-validation: 1 over their number.
        rows: the metric row by row, of one run.
        candidates: how many candidates this group was selected from as the best; 1 if it was not selected.

    Raises:
        ValueError: the labels are not as many as the values, or a number is out of its range.
    """

    name: str
    values: Sequence[float | None] = ()
    seeds: Labels = None
    splits: Labels = None
    datasets: Labels = None
    test_fraction: float | None = None
    rows: Rows | None = None
    candidates: int = 1

    def __post_init__(self) -> None:
        labels = {"seeds": self.seeds, "splits": self.splits, "datasets": self.datasets}
        _same_length(f"the group {self.name!r}", len(self.values), labels)
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            raise ValueError(
                f"The test fraction of the group {self.name!r} is {self.test_fraction!r}: give a share of the rows "
                "above 0 and below 1."
            )
        if self.candidates < 1:
            raise ValueError(
                f"The group {self.name!r} is the best of {self.candidates} candidates: give 1 or more."
            )


@dataclass(frozen=True)
class Verdict:
    """What can be said of group `a` against group `b`.

    Attributes:
        better: True: `a` is better. False: `b` is better. None: neither is shown.
        effect: metric of `a` less metric of `b`, in the metric's unit; None without runs enough, since the difference of
            one run to another is no effect.
        standardized: the effect over the standard deviation of a unit; None where there is no spread.
        interval: the 95 % interval of the effect, of this comparison alone; None without runs enough or spread.
        p: the two-sided p value, corrected where several were compared; None without runs enough.
        n: how many units (runs, pairs, datasets or rows) of `a` and of `b` the test used.
        unit: what `n` and `needed` count.
        test: its name; None if there was none.
        reason: why this test, what was left out, what to bear in mind.
        needed: further units for each group so that the effect as observed is found with 80 % power; None where
            there is no such number up to 10,000. An observed effect is a noisy plan: take it as an order of size.
        selected: the side that looks better was selected as the best of several candidates.
        selection_bias: what such a selection gains by luck alone, in the metric's unit; None if unknown.
        metric: its name, where it is known.
    """

    a: str
    b: str
    better: bool | None = None
    effect: float | None = None
    standardized: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    n: tuple[int, int] = (0, 0)
    unit: str = "runs"
    test: str | None = None
    reason: str = ""
    needed: int | None = None
    selected: bool = False
    selection_bias: float | None = None
    metric: str | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it, and the sentence."""
        return {**asdict(self), "sentence": str(self)}

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<p>{html.escape(str(self))}</p>"

    def __str__(self) -> str:
        at = f" at {self.metric}" if self.metric else ""
        if self.p is None or self.effect is None:
            return f"Whether {self.a} is better than {self.b}{at} cannot be said. {self.reason}"
        n_a, n_b = self.n
        size = f"{n_a:,} and {n_b:,} runs" if self.unit == "runs" else f"{n_a:,} {self.unit}"
        chance = f"p = {self.p:.3g}, {self.test} over {size}"
        if self.better is None:
            interval = self.interval and f"95 % interval {self.interval[0]:+.4g} to {self.interval[1]:+.4g}, "
            units = "runs of each" if self.unit == "runs" else self.unit
            more = ""
            if self.needed:
                more = f" To show a difference of this size takes about {self.needed:,} more {units}."
            return (
                f"Neither of {self.a} and {self.b} is shown to be better{at}: {self.a} less {self.b} is "
                f"{self.effect:+.4g} ({interval or ''}{chance}). {self.reason}{more}"
            )
        winner, other = (self.a, self.b) if self.better else (self.b, self.a)
        interval = ""
        if self.interval is not None:
            low, high = self.interval if self.effect > 0 else (-self.interval[1], -self.interval[0])
            interval = f"95 % interval {low:.4g} to {high:.4g}, "
        return f"{winner} is better than {other}{at} by {abs(self.effect):.4g} ({interval}{chance}). {self.reason}"


def is_better(a: Sample, b: Sample, higher_is_better: bool, level: float = 0.05) -> Verdict:
    """Whether group `a` is better than group `b`.

    Args:
        higher_is_better: which way the metric points: True for an accuracy, False for a loss.
        level: p values up to it count as shown.
    """
    return _decide(_compare(a, b), a, b, higher_is_better, level)


def better_of(*groups: Sample, higher_is_better: bool, level: float = 0.05) -> list[Verdict]:
    """Each pair of two or more groups, in the order given, with p values corrected for their number.

    Raises:
        ValueError: fewer than two groups, or two of the same name.
    """
    names = [group.name for group in groups]
    if len(groups) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"A comparison takes two groups or more, with names of their own; these are {names}."
        )
    pairs = list(combinations(range(len(groups)), 2))
    if len(groups) > 2 and len(shared := _shared_datasets(*groups)) >= _ENOUGH_DATASETS:
        found = _over_datasets(groups, sorted(shared, key=str), higher_is_better)
    else:
        found = _holm([_compare(groups[i], groups[j]) for i, j in pairs])
    return [
        _decide(each, groups[i], groups[j], higher_is_better, level)
        for each, (i, j) in zip(found, pairs, strict=True)
    ]


@dataclass(frozen=True)
class _Run:
    value: float
    key: _Key


class _Kept(NamedTuple):
    """The usable runs of a group, and how many had no finite value."""

    runs: list[_Run]
    dropped: int

    @property
    def values(self) -> NDArray[np.float64]:
        return np.array([run.value for run in self.runs])


@dataclass
class _Notes:
    """Sentences, in their order."""

    told: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        if sentence and sentence not in self.told:
            self.told.append(sentence)

    def __str__(self) -> str:
        return " ".join(self.told)


def _compare(a: Sample, b: Sample) -> Verdict:
    """The test that fits, before any correction; `better` is still open."""
    notes = _Notes()
    kept_a, kept_b = _kept(a), _kept(b)
    for sample, kept in ((a, kept_a), (b, kept_b)):
        if kept.dropped:
            notes.add(f"{counted(kept.dropped, 'run')} of {sample.name} without a finite value left out.")
    shared = _shared_datasets(a, b)
    if shared:
        kept_a, kept_b = (_within(sample, kept, shared, notes) for sample, kept in ((a, kept_a), (b, kept_b)))
    by_a, by_b = _means(kept_a, by_dataset=False), _means(kept_b, by_dataset=False)
    if len(shared) >= _ENOUGH_DATASETS:
        by_a, by_b = _means(kept_a, by_dataset=True), _means(kept_b, by_dataset=True)
    keys = [key for key in by_a if key in by_b]
    enough = min(len(kept_a.runs), len(kept_b.runs)) >= 2
    if enough and len(keys) >= 2 and 2 * len(keys) >= min(len(by_a), len(by_b)):
        differences = np.array([by_a[key] - by_b[key] for key in keys])
        scale = max(max(abs(by_a[key]), abs(by_b[key])) for key in keys)
        alone_a, alone_b = _without_partner(kept_a, keys), _without_partner(kept_b, keys)
        if alone_a or alone_b:
            notes.add(f"Runs without a partner left out: {alone_a} of {a.name}, {alone_b} of {b.name}.")
        return _paired(a, b, keys, differences, scale, len(shared), notes)
    if not enough and a.rows and b.rows:
        return _by_rows(a, b, a.rows, b.rows, notes)
    return _unpaired(a, b, kept_a, kept_b, len(shared), notes)


def _paired(
    a: Sample,
    b: Sample,
    keys: list[_Key],
    differences: NDArray[np.float64],
    scale: float,
    shared: int,
    notes: _Notes,
) -> Verdict:
    n = len(differences)
    splits = {key[2] for key in keys}
    ratio, unit, test = 0.0, "pairs", "paired t"
    if shared >= _ENOUGH_DATASETS:
        unit, test = "datasets", "paired t over datasets"
        notes.add(f"Both have runs on {n} datasets: their means are compared dataset by dataset.")
    elif len(splits) > 1:
        given = [each.test_fraction for each in (a, b) if each.test_fraction is not None]
        fraction = max(given) if given else 1 / len(splits)
        ratio, unit, test = fraction / (1 - fraction), "folds", "corrected resampled t"
        notes.add(
            f"Both were tested on the same {n} folds, whose training rows overlap: the variance is corrected for that "
            f"with {fraction:.3g} of the rows in a test{'' if given else ', as in a cross-validation'}."
        )
    else:
        notes.add(f"Both have runs of the same {n} seeds and splits: they are compared pair by pair.")
    verdict = Verdict(a.name, b.name, effect=float(differences.mean()), n=(n, n), unit=unit, test=test)
    spread = float(differences.std(ddof=1))
    if spread <= _NO_SPREAD * scale:
        return _constant(verdict, tests.sign_p(n), scale, notes, "pair")
    found = tests.paired(differences, ratio)
    standardized = float(found.effect) / spread
    wanted = tests.pairs_for_power(standardized, ratio)
    return replace(
        verdict,
        standardized=standardized,
        interval=_floats(tests.t_interval(found)),
        p=float(tests.t_p(found)),
        needed=None if wanted is None else max(0, wanted - n),
        reason=str(notes),
    )


def _by_rows(a: Sample, b: Sample, rows_a: Rows, rows_b: Rows, notes: _Notes) -> Verdict:
    verdict = Verdict(a.name, b.name, unit="rows")
    matched = _matched(rows_a, rows_b)
    if matched is None:
        notes.add(
            f"Not enough runs, and the {len(rows_a.scores)} and {len(rows_b.scores)} rows cannot be matched: give ids."
        )
        return replace(verdict, reason=str(notes))
    scores_a, scores_b, groups = matched
    usable = np.isfinite(scores_a) & np.isfinite(scores_b)
    if dropped := int((~usable).sum()):
        notes.add(f"{counted(dropped, 'row')} without a finite value left out.")
    scores_a, scores_b = scores_a[usable], scores_b[usable]
    n = len(scores_a)
    if n < 2:
        notes.add(f"Not enough runs, and only {counted(n, 'row')} that both have.")
        return replace(verdict, n=(n, n), reason=str(notes))
    differences = scores_a - scores_b
    verdict = replace(verdict, n=(n, n), effect=float(differences.mean()))
    spread = float(differences.std(ddof=1))
    scale = float(np.abs(np.concatenate([scores_a, scores_b])).max())
    standardized = verdict.effect / spread if verdict.effect is not None and spread > 0 else None
    alone = "This is about these two models, not about training them again."
    if groups is None and bool(np.isin(np.concatenate([scores_a, scores_b]), (0.0, 1.0)).all()):
        only_a, only_b = int((differences > 0).sum()), int((differences < 0).sum())
        notes.add(
            f"Both predicted the same {n:,} rows, right or wrong: what counts are the rows that only one has right, "
            f"{only_a:,} and {only_b:,}. {alone}"
        )
        return replace(
            verdict,
            test="McNemar",
            standardized=standardized,
            interval=tests.mcnemar_interval(only_a, only_b, n),
            p=tests.mcnemar_p(only_a, only_b),
            reason=str(notes),
        )
    sums, counts = differences, np.ones(n)
    if groups is not None:
        numbers: dict[Hashable, int] = {}
        of = [groups[i] for i in np.flatnonzero(usable)]
        # A row of no known group is one of its own.
        member = [numbers.setdefault((i,) if g is None else g, len(numbers)) for i, g in enumerate(of)]
        sums, counts = np.bincount(member, differences).astype(float), np.bincount(member).astype(float)
    units = "rows" if groups is None else "groups of rows"
    notes.add(f"Both scored the same {n:,} rows: {len(sums):,} {units} are resampled in pairs. {alone}")
    verdict = replace(verdict, test="paired bootstrap" if groups is None else "clustered paired bootstrap")
    if len(sums) < 2:
        notes.add("All rows belong to one group: that is one observation, and not enough.")
        return replace(verdict, test=None, reason=str(notes))
    if float((sums / counts).std()) <= _NO_SPREAD * scale:
        return _constant(verdict, tests.sign_p(len(sums)), scale, notes, "row")
    interval, p, method = tests.bootstrap(sums, counts)
    return replace(
        verdict,
        standardized=standardized,
        interval=interval,
        p=p,
        test=f"{verdict.test} ({method})",
        reason=str(notes),
    )


def _unpaired(a: Sample, b: Sample, kept_a: _Kept, kept_b: _Kept, shared: int, notes: _Notes) -> Verdict:
    n_a, n_b = len(kept_a.runs), len(kept_b.runs)
    verdict = Verdict(a.name, b.name, n=(n_a, n_b))
    if n_a and n_b:
        verdict = replace(verdict, effect=float(kept_a.values.mean() - kept_b.values.mean()))
    if min(n_a, n_b) < 2:
        notes.add(f"Not enough runs: {n_a} of {a.name} and {n_b} of {b.name}; two of each are the least.")
        return replace(verdict, reason=str(notes))
    notes.add(
        "Runs share too few seeds and splits to be paired: the groups are compared as independent ones."
    )
    if not shared and a.datasets and b.datasets:
        notes.add("They share no dataset, so a difference may be that of the datasets.")
    if any(len({run.key[2] for run in kept.runs} - {None}) > 1 for kept in (kept_a, kept_b)):
        notes.add("Runs over several splits share training rows, so the p value is too small.")
    verdict = replace(verdict, test="Welch t")
    variances = [float(kept.values.var(ddof=1)) for kept in (kept_a, kept_b)]
    scale = float(np.abs(np.concatenate([kept_a.values, kept_b.values])).max())
    if math.sqrt(max(variances)) <= _NO_SPREAD * scale:
        return _constant(verdict, tests.separation_p(n_a, n_b), scale, notes, "run")
    found = tests.welch(kept_a.values, kept_b.values)
    wanted = tests.runs_for_power(float(found.effect), *variances)
    return replace(
        verdict,
        standardized=float(found.effect) / math.sqrt(sum(variances) / 2),
        interval=_floats(tests.t_interval(found)),
        p=float(tests.t_p(found)),
        needed=None if wanted is None else max(0, wanted - min(n_a, n_b)),
        reason=str(notes),
    )


def _constant(verdict: Verdict, p: float, scale: float, notes: _Notes, unit: str) -> Verdict:
    """The verdict where nothing varies: no interval, and the p value that an exact test gives."""
    if verdict.effect is None or abs(verdict.effect) <= _NO_SPREAD * scale:
        notes.add(f"There is no difference in any {unit}.")
        return replace(verdict, effect=0.0, p=1.0, reason=str(notes))
    notes.add(
        f"The difference is the same in each {unit}, which leaves no spread to judge it by: p is that of its sign alone."
    )
    return replace(verdict, p=p, reason=str(notes))


def _over_datasets(groups: Sequence[Sample], shared: list[Hashable], higher_is_better: bool) -> list[Verdict]:
    """Friedman over the groups, Nemenyi for each pair."""
    means = [_means(_kept(group), by_dataset=True) for group in groups]
    table = np.array([[each[(dataset, None, None)] for each in means] for dataset in shared])
    ranks = tests.friedman(table, higher_is_better)
    n = len(shared)
    dropped = sum(_kept(group).dropped for group in groups)
    outside = sum(run.key[0] not in shared for group in groups for run in _kept(group).runs)
    found = []
    for i, j in combinations(range(len(groups)), 2):
        differences = table[:, i] - table[:, j]
        spread = float(differences.std(ddof=1))
        effect = float(differences.mean())
        interval = standardized = None
        if spread > _NO_SPREAD * float(np.abs(table[:, [i, j]]).max()):
            interval = _floats(tests.t_interval(tests.paired(differences)))
            standardized = effect / spread
        wanted = None if standardized is None else tests.pairs_for_power(standardized)
        reason = (
            f"{len(groups)} groups have runs on the same {n} datasets: Friedman's test says whether any differ "
            f"(p = {ranks.p:.3g}), Nemenyi's which (mean ranks {ranks.mean_ranks[i]:.2f} and "
            f"{ranks.mean_ranks[j]:.2f}); p is the larger of the two."
        )
        if outside:
            reason += f" {counted(outside, 'run')} on datasets that not all of them have left out."
        if dropped:
            reason += f" {counted(dropped, 'run')} without a finite value left out."
        found.append(
            Verdict(
                groups[i].name,
                groups[j].name,
                effect=effect,
                standardized=standardized,
                interval=interval,
                p=max(ranks.p, float(ranks.pairwise_p[i, j])),
                n=(n, n),
                unit="datasets",
                test="Friedman, Nemenyi",
                reason=reason,
                needed=None if wanted is None else max(0, wanted - n),
            )
        )
    return found


def _holm(found: list[Verdict]) -> list[Verdict]:
    tested = [i for i, verdict in enumerate(found) if verdict.p is not None]
    if len(tested) < 2:
        return found
    corrected = tests.holm([found[i].p or 0.0 for i in tested])
    for i, p in zip(tested, corrected, strict=True):
        reason = f"{found[i].reason} p is corrected for {len(tested)} comparisons (Holm)."
        found[i] = replace(found[i], p=p, reason=reason)
    return found


def _decide(verdict: Verdict, a: Sample, b: Sample, higher_is_better: bool, level: float) -> Verdict:
    """With `better`, and what was selected; without an effect where nothing could be tested."""
    decided = _selected(verdict, a, b, higher_is_better, level)
    return decided if decided.p is not None else replace(decided, effect=None, standardized=None)


def _selected(verdict: Verdict, a: Sample, b: Sample, higher_is_better: bool, level: float) -> Verdict:
    if verdict.effect is None or verdict.effect == 0:
        return verdict
    a_leads = (verdict.effect > 0) == higher_is_better
    better = a_leads if verdict.p is not None and verdict.p <= level else None
    leader = a if a_leads else b
    if leader.candidates == 1:
        return replace(verdict, better=better)
    error = _error_of_mean(leader)
    told = f"{leader.name} was selected as the best of {leader.candidates:,} candidates"
    if error is None:
        told += "; one run does not tell how much of its lead is luck."
        return replace(verdict, better=better, selected=True, reason=f"{verdict.reason} {told}")
    bias = tests.expected_maximum(leader.candidates) * error
    told += f", which gains about {bias:.3g} by luck alone"
    if abs(verdict.effect) <= bias:
        better = None
        told += ": no less than its lead. Run it again with fresh seeds"
    return replace(
        verdict, better=better, selected=True, selection_bias=bias, reason=f"{verdict.reason} {told}."
    )


def _error_of_mean(sample: Sample) -> float | None:
    """The standard error of a group's metric over its runs, or over the rows of its one run."""
    values = _kept(sample).values
    if len(values) < 2 and sample.rows:
        values = _numbers(sample.rows.scores)
        values = values[np.isfinite(values)]
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) >= 2 else None


def _kept(sample: Sample) -> _Kept:
    values = _numbers(sample.values)
    none = [None] * len(values)
    labels = (sample.datasets, sample.seeds, sample.splits)
    keys = zip(*(none if given is None else given for given in labels), strict=True)
    runs = [_Run(float(value), key) for value, key in zip(values, keys, strict=True) if math.isfinite(value)]
    return _Kept(runs, len(values) - len(runs))


def _within(sample: Sample, kept: _Kept, shared: set[Hashable], notes: _Notes) -> _Kept:
    runs = [run for run in kept.runs if run.key[0] in shared]
    if outside := len(kept.runs) - len(runs):
        notes.add(f"{counted(outside, 'run')} of {sample.name} on datasets of its own left out.")
    return _Kept(runs, kept.dropped)


def _shared_datasets(*groups: Sample) -> set[Hashable]:
    """Datasets on which each group has a finite value."""
    each = [{run.key[0] for run in _kept(group).runs} - {None} for group in groups]
    return set.intersection(*each)


def _without_partner(kept: _Kept, keys: list[_Key]) -> int:
    """Runs of no shared key; where datasets are compared, the keys name the dataset alone."""
    used = set(keys)
    return sum(run.key not in used and (run.key[0], None, None) not in used for run in kept.runs)


def _means(kept: _Kept, by_dataset: bool) -> dict[_Key, float]:
    """The mean of the runs of each (dataset, seed, split), or of each dataset; runs without labels have none."""
    found: dict[_Key, list[float]] = {}
    for run in kept.runs:
        key = (run.key[0], None, None) if by_dataset else run.key
        if key != (None, None, None):
            found.setdefault(key, []).append(run.value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def _matched(
    a: Rows, b: Rows
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Hashable | None] | None] | None:
    """Scores of the rows that both have, in one order, and the rows' groups."""
    scores_a, scores_b = _numbers(a.scores), _numbers(b.scores)
    groups = a.groups if a.groups is not None else b.groups
    if a.ids is None or b.ids is None:
        if len(scores_a) != len(scores_b):
            return None
        return scores_a, scores_b, None if groups is None else list(groups)
    at_a = {row: i for i, row in enumerate(a.ids)}
    at_b = {row: i for i, row in enumerate(b.ids)}
    both = [row for row in at_a if row in at_b]
    grouped_by = at_a if a.groups is not None else at_b
    return (
        scores_a[[at_a[row] for row in both]],
        scores_b[[at_b[row] for row in both]],
        None if groups is None else [groups[grouped_by[row]] for row in both],
    )


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _floats(pair: tuple[object, object]) -> tuple[float, float]:
    low, high = np.asarray(pair, float)
    return float(low), float(high)


def _same_length(where: str, count: int, labels: dict[str, Labels]) -> None:
    for name, given in labels.items():
        if given is not None and len(given) != count:
            raise ValueError(
                f"In {where} there are {count} values and {len(given)} {name}: give one for each value, None for unknown."
            )
