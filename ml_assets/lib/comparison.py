"""Runs side by side: what differs, which is best by what, and what the differences in a metric go with.

What belongs here: plain runs in, Arrow tables out. What does not: reading runs, pages, words on a screen.

Importance is a screening, and correlational. A parameter's strength is the share of the variance of the metric's
ranks that it goes with, adjusted for what chance alone would give: for a number the larger of the squared rank
correlation (Spearman 1904) and the correlation ratio over five bins, which finds a best value in the middle; for words
the correlation ratio (Kruskal & Wallis 1952, as Kelley's epsilon squared). Its p value is that of the same statistic
under permutations of the metric (so ties, small numbers and taking the larger of two are accounted for), corrected by
Holm for the number of parameters. Ranks, so that one diverged run does not decide.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml_assets.lib.hypothesis_tests import holm
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.words import counted

if TYPE_CHECKING:
    import pyarrow as pa

MOST_RUNS = 1_000

NOTE = (
    "Importance is correlational: it says what the metric went with in these runs. Parameters that were changed "
    "together cannot be told apart by it, and none of them need be the cause."
)

SHAPES = {
    "rising": "rises with it",
    "falling": "falls with it",
    "mixed": "best or worst in the middle",
    "groups": "differs between its values",
}
"""How the metric goes with a parameter, in words."""

_PERMUTATIONS = 999
_FEWEST_RUNS = 5
"""Below, there are too few orders of the runs for any of them to be telling: 4 runs have 24."""
_BINS = 5
_RUNS_IN_A_BIN = 3
_FEW_GROUPS = 32
"""Groups that are summed by a product of matrices; for more of them, adding up in order costs less."""
_MOST_FACTORS = 500
"""Parameters whose importance is looked at; each costs up to 10 ms with 1,000 runs."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_LONGEST_NUMBER = 24
_EXACT = 2**53
"""From here on doubles have gaps between whole numbers."""
_MODEL = ("model_name", "model_type", "model_version")
_CONTEXT = ("run_id", "name", "experiment", "model_name", "dataset", "status", "created_at", "completed_at")
_KINDS = ("data", "model", "parameter", "tag")

_Value = float | str | None
"""A number, words, or None where the run has none."""
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. Rows of `runs`, and lists of values, are in the order of the runs given.

    Attributes:
        runs: one row a run: run_id, name, experiment, model_name, dataset, status, created_at, completed_at.
        parameters: one row a parameter, a fact about data or model, or a tag: `kind` (data, model, parameter, tag),
            `key`, `differs`, `runs` that have it, `distinct` values, `value` where all have the same, `lowest` and
            `highest` where all are numbers, `values`. Those that differ come first.
        metrics: one row a metric: `key`, `higher_is_better`, `runs` with a finite value, `not_finite` (NaN or
            infinite), `best_run` (null where all are equal), `best`, `worst`, `mean`, `std`, `spread` (highest less
            lowest), `baseline`, `values`, `deltas` (each less the baseline's). What most runs have comes first.
        importance: one row for each that differs, but tags: `kind`, `key`, `strength` (0 to 1), `shape` (rising,
            falling, mixed: the metric with the number; groups: words), `p`, `p_corrected`, `runs`, and a `note` where
            nothing can be said. The surest first, and of those the strongest.
        metric: what importance is about; None if no metric has several values.
        baseline: the run that deltas are counted from.
        notes: sentences on what to bear in mind.
    """

    runs: "pa.Table"
    parameters: "pa.Table"
    metrics: "pa.Table"
    importance: "pa.Table"
    metric: str | None
    baseline: str | None
    notes: tuple[str, ...]


def compare(
    runs: Sequence[Mapping[str, Any]],
    rules: MetricRules | None = None,
    metric: str | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Compare up to 1,000 runs.

    Args:
        runs: each with `run_id`, and what is known of `name`, `experiment`, `model_name`, `model_type`,
            `model_version`, `dataset`, `status`, `created_at`, `completed_at`, and `parameters`, `metrics` and `tags`
            as mappings.
        rules: which way a metric is better.
        metric: what importance is about; unless given, the metric that judges these runs by the rules, if half of them
            have it, with different values; else the metric with different values that most of them have.
        baseline: the run_id that deltas are counted from.

    Raises:
        ValueError: no run, too many, one of them twice, or no such metric or baseline among them.
    """
    ids = [run["run_id"] for run in runs]
    if not ids or len(ids) > MOST_RUNS:
        raise ValueError(
            f"A comparison takes 1 to {MOST_RUNS:,} runs, and these are {len(ids):,}: choose fewer by a filter."
            if ids
            else "There is no run to compare: name the ids of at least two."
        )
    if len(set(ids)) < len(ids):
        raise ValueError("A run stands twice among those to compare: name each once.")
    if baseline is not None and baseline not in ids:
        raise ValueError(
            f"The baseline {baseline!r} is none of the runs that are compared: name one of them."
        )
    rules = rules or MetricRules()
    factors, values = _factors(runs), _metric_values(runs)
    if metric is not None and metric not in values:
        near = get_close_matches(metric, values, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"they have {_listed(sorted(values))}."
        raise ValueError(f"None of these runs has a metric {metric!r}: {hint}")
    base = ids.index(baseline) if baseline is not None else None
    judging = _judging(runs, values, rules)
    metrics = _metric_rows(values, ids, rules, judging, base)
    told = metric or _telling(metrics, judging, len(runs))
    notes = _notes(runs, factors, metrics)
    importance: list[dict[str, Any]] = []
    if told is None:
        notes.append("No metric differs among these runs, so nothing can be said about what matters for it.")
    else:
        importance, left_out = _importance(factors, values[told])
        if left_out:
            notes.append(f"Importance leaves out {counted(left_out, 'parameter')} that the fewest runs have.")
        if any(row["note"] is None for row in importance):
            notes.append(NOTE)
    return Comparison(
        runs=_table([{name: run.get(name) for name in _CONTEXT} for run in runs], _RUN_FIELDS),
        parameters=_table([factor.row() for factor in factors], _PARAMETER_FIELDS),
        metrics=_table(metrics, _METRIC_FIELDS),
        importance=_table(importance, _IMPORTANCE_FIELDS),
        metric=told,
        baseline=baseline,
        notes=tuple(notes),
    )


def run_labels(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each run, by which it can be told from the others: its own or its model's, with its id if need be.

    Args:
        runs: rows of `Comparison.runs`.
    """
    names = [run["name"] or run["model_name"] or run["run_id"] for run in runs]
    counts = Counter(names)
    found = [
        name if counts[name] == 1 else f"{name} · {run['run_id'][:8]}"
        for run, name in zip(runs, names, strict=True)
    ]
    counts = Counter(found)
    return [label if counts[label] == 1 else run["run_id"] for run, label in zip(runs, found, strict=True)]


_RUN_FIELDS = {name: "time" if name.endswith("_at") else "text" for name in _CONTEXT}
_PARAMETER_FIELDS = {
    "kind": "text",
    "key": "text",
    "differs": "bool",
    "runs": "count",
    "distinct": "count",
    "value": "text",
    "lowest": "number",
    "highest": "number",
    "values": "texts",
}
_METRIC_FIELDS = {
    "key": "text",
    "higher_is_better": "bool",
    "runs": "count",
    "not_finite": "count",
    "best_run": "text",
    "best": "number",
    "worst": "number",
    "mean": "number",
    "std": "number",
    "spread": "number",
    "baseline": "number",
    "values": "numbers",
    "deltas": "numbers",
}
_IMPORTANCE_FIELDS = {
    "kind": "text",
    "key": "text",
    "strength": "number",
    "shape": "text",
    "p": "number",
    "p_corrected": "number",
    "runs": "count",
    "note": "text",
}


def _table(rows: Sequence[Mapping[str, Any]], fields: Mapping[str, str]) -> "pa.Table":
    import pyarrow as pa

    kinds = {
        "text": pa.string(),
        "bool": pa.bool_(),
        "count": pa.int64(),
        "number": pa.float64(),
        "time": pa.timestamp("us", "UTC"),
        "texts": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float64()),
    }
    columns = [pa.array([row[name] for row in rows], kinds[kind]) for name, kind in fields.items()]
    return pa.Table.from_arrays(columns, names=list(fields))


@dataclass(frozen=True)
class _Factor:
    """Something that runs may differ in.

    Args:
        kind: data, model, parameter or tag.
        values: by run.
    """

    kind: str
    key: str
    values: list[_Value]

    @property
    def known(self) -> list[_Value]:
        return [value for value in self.values if value is not None]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1

    def row(self) -> dict[str, Any]:
        known = self.known
        numbers = [value for value in known if isinstance(value, float)]
        numeric = bool(numbers) and len(numbers) == len(known)
        return {
            "kind": self.kind,
            "key": self.key,
            "differs": self.differs,
            "runs": len(known),
            "distinct": len(set(known)),
            "value": None if self.differs else shown(known[0]),
            "lowest": min(numbers) if numeric else None,
            "highest": max(numbers) if numeric else None,
            "values": [shown(value) for value in self.values],
        }


def shown(value: _Value) -> str | None:
    """A value as people write it."""
    if value is None or isinstance(value, str):
        return value
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.12g}"


def _factors(runs: Sequence[Mapping[str, Any]]) -> list[_Factor]:
    """All that runs may differ in, what differs first."""
    found: dict[tuple[str, str], list[_Value]] = {}

    def note(place: int, kind: str, key: str, value: Any) -> None:
        if (plain := comparable(value)) is not None:
            found.setdefault((kind, key), [None] * len(runs))[place] = plain

    for place, run in enumerate(runs):
        note(place, "data", "dataset", run.get("dataset"))
        tags = _mapping(run.get("tags"))
        for context, text in _datasets(tags).items():
            note(place, "data", context, text)
        for name in _MODEL:
            note(place, "model", name, run.get(name))
        for key, value in _mapping(run.get("parameters")).items():
            note(place, "parameter", key, value)
        for key, value in tags.items():
            if key != _DATASETS:
                note(place, "tag", key, value)
    factors = [_Factor(kind, key, values) for (kind, key), values in found.items()]
    return sorted(factors, key=lambda each: (not each.differs, _KINDS.index(each.kind), each.key))


_DATASETS = "mlflow.datasets"


def _datasets(tags: Mapping[str, Any]) -> dict[str, str]:
    """The datasets of a run by what they were for, with their fingerprints, as intake keeps them in a tag."""
    found: dict[str, list[str]] = {}
    given = tags.get(_DATASETS)
    for each in given if isinstance(given, list) else []:
        if isinstance(each, dict) and isinstance(each.get("name"), str):
            context = each.get("context") if isinstance(each.get("context"), str) else ""
            digest = each.get("digest") if isinstance(each.get("digest"), str) else ""
            found.setdefault(f"{context} data".strip(), []).append(f"{each['name']} {digest}".strip())
    return {context: ", ".join(sorted(names)) for context, names in found.items()}


def comparable(value: Any) -> _Value:
    """A parameter as a number where it is one, however it is written, else as text; None for none."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        exact = math.isfinite(value) if isinstance(value, float) else abs(value) < _EXACT
        return float(value) if exact else str(value)
    if isinstance(value, str):
        text = value.strip()
        number = float(text) if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) else math.inf
        # Digits that a double does not hold would make two long identifiers equal.
        held = abs(number) < _EXACT or "e" in text.lower()
        return number if held and math.isfinite(number) else value
    import orjson

    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str).decode()


def _metric_values(runs: Sequence[Mapping[str, Any]]) -> dict[str, _Floats]:
    """By metric its value in each run: NaN where it is not finite, and minus infinity where there is none."""
    found: dict[str, _Floats] = {}
    for place, run in enumerate(runs):
        for key, value in _mapping(run.get("metrics")).items():
            number = _metric(value)
            if number is None:
                continue
            if key not in found:
                found[key] = np.full(len(runs), _NONE)
            found[key][place] = number
    return found


_NONE = -math.inf
_NOT_FINITE = {"nan", "infinity", "-infinity", "inf", "-inf"}


def _metric(value: Any) -> float | None:
    """A metric's number, NaN for one that is not finite (in JSON a word), None for what is no number."""
    if isinstance(value, str) and value.lower() in _NOT_FINITE:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _judging(
    runs: Sequence[Mapping[str, Any]], values: Mapping[str, _Floats], rules: MetricRules
) -> dict[str, bool]:
    """The metrics that may judge these runs, in their order, each with whether a higher value is better."""
    datasets, experiments = ({run.get(name) for run in runs} for name in ("dataset", "experiment"))
    found: dict[str, bool] = {}
    for ranked in rules.ranking(values):
        # What is said of one dataset holds where all runs are of it.
        if (ranked.dataset is None or datasets == {ranked.dataset}) and (
            ranked.experiment is None or experiments == {ranked.experiment}
        ):
            found.setdefault(ranked.key, ranked.higher_is_better)
    return found


def _telling(metrics: Sequence[Mapping[str, Any]], judging: Mapping[str, bool], runs: int) -> str | None:
    """The metric that a comparison is about, if nobody has said which."""
    known = {row["key"]: row["runs"] for row in metrics if (row["spread"] or 0) > 0}
    return next((key for key in judging if 2 * known.get(key, 0) >= runs), next(iter(known), None))


def _metric_rows(
    values: Mapping[str, _Floats],
    ids: Sequence[str],
    rules: MetricRules,
    judging: Mapping[str, bool],
    base: int | None,
) -> list[dict[str, Any]]:
    rows = [
        _metric_row(key, each, ids, judging.get(key, rules.higher_is_better(key)), base)
        for key, each in values.items()
    ]
    return sorted(rows, key=lambda row: (-row["runs"], row["key"]))


def _metric_row(
    key: str, values: _Floats, ids: Sequence[str], higher: bool, base: int | None
) -> dict[str, Any]:
    finite = np.isfinite(values)
    known = values[finite]
    row: dict[str, Any] = dict.fromkeys(_METRIC_FIELDS)
    row |= {
        "key": key,
        "higher_is_better": higher,
        "runs": len(known),
        "not_finite": int(np.isnan(values).sum()),
        "values": [float(value) if ok else None for value, ok in zip(values, finite, strict=True)],
    }
    if len(known):
        low, high = float(known.min()), float(known.max())
        best = high if higher else low
        with np.errstate(over="ignore"):
            row |= {
                "best": best,
                "worst": low if higher else high,
                "mean": _finite(known.mean()),
                "std": _finite(known.std(ddof=1)) if len(known) > 1 else None,
                "spread": _finite(high - low),
            }
        if high > low or len(ids) == 1:
            row["best_run"] = ids[int(np.flatnonzero(values == best)[0])]
    if base is not None and finite[base]:
        row["baseline"] = float(values[base])
        with np.errstate(over="ignore", invalid="ignore"):
            row["deltas"] = [_finite(value - values[base]) for value in values]
    return row


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _notes(
    runs: Sequence[Mapping[str, Any]], factors: Sequence[_Factor], metrics: Sequence[Mapping[str, Any]]
) -> list[str]:
    notes = []
    if len(runs) == 1:
        return ["There is one run, and nothing to compare it with."]
    parameters = [factor for factor in factors if factor.kind == "parameter"]
    if parameters and all(len(factor.known) == 1 for factor in parameters):
        notes.append("No parameter is known of more than one of these runs.")
    if not parameters:
        notes.append("None of these runs has a parameter.")
    if not metrics:
        notes.append("None of these runs has a metric.")
    elif all(row["runs"] + row["not_finite"] == 1 for row in metrics):
        notes.append("No metric is known of more than one of these runs.")
    if lost := [row["key"] for row in metrics if row["runs"] == 0]:
        notes.append(f"In every run that has it, {_listed(lost)} is NaN or infinite.")
    if len({run.get("dataset") for run in runs}) > 1:
        notes.append(
            "These runs are of several datasets: a difference in a metric may be one of the data alone."
        )
    return notes


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {counted(len(names) - most, 'more', 'more')}" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "none at all"


class _Found(NamedTuple):
    """What is known of one parameter's importance."""

    strength: float | None = None
    shape: str | None = None
    p: float | None = None
    runs: int = 0
    note: str | None = None


def _importance(factors: Sequence[_Factor], target: _Floats) -> tuple[list[dict[str, Any]], int]:
    """Rows of `Comparison.importance`, and how many parameters were not looked at."""
    differing = [factor for factor in factors if factor.differs and factor.kind != "tag"]
    looked_at = sorted(differing, key=lambda factor: -len(factor.known))[:_MOST_FACTORS]
    shuffled = _Shuffled()
    rows = [
        {"kind": factor.kind, "key": factor.key, **_strength(factor, target, shuffled)._asdict()}
        for factor in looked_at
    ]
    tested = [row for row in rows if row["p"] is not None]
    for row in rows:
        row["p_corrected"] = None
    if tested:
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_corrected"] = p
    rows.sort(key=lambda row: (row["p"] is None, row["p_corrected"], -(row["strength"] or 0), row["key"]))
    return rows, len(differing) - len(looked_at)


class _Shuffled:
    """The metric's centred ranks as they are, and in many random orders. The last is kept: most ask for the same."""

    def __init__(self) -> None:
        self._of: _Floats = np.empty(0)
        self._orders: _Floats = np.empty((0, 0))

    def __call__(self, ranks: _Floats) -> _Floats:
        if not np.array_equal(ranks, self._of):
            # The same orders each time: the same runs have the same p values.
            random = np.random.default_rng(0)
            orders = random.permuted(np.tile(ranks, (_PERMUTATIONS, 1)), axis=1)
            self._of, self._orders = ranks, np.vstack([ranks, orders])
        return self._orders


def _strength(factor: _Factor, target: _Floats, shuffled: Callable[[_Floats], _Floats]) -> _Found:
    both = [(value, y) for value, y in zip(factor.values, target, strict=True) if value is not None]
    values = [value for value, y in both if math.isfinite(y)]
    n, distinct = len(values), len(set(values))
    numeric = all(isinstance(value, float) for value in values)
    if n < _FEWEST_RUNS:
        return _Found(runs=n, note=f"{counted(n, 'run')} with it and the metric: {_FEWEST_RUNS} are needed.")
    if distinct == 1:
        return _Found(runs=n, note="The same in all runs that have the metric.")
    if distinct > n / 2 and not numeric:
        note = f"{counted(distinct, 'value')} in {counted(n, 'run')}: it tells them apart, and explains none."
        return _Found(runs=n, note=note)
    ranks = _centred_ranks(np.array([y for _, y in both if math.isfinite(y)]))
    if not ranks.any():
        return _Found(runs=n, note="The metric is the same in all runs that have it.")
    orders = shuffled(ranks)
    if numeric:
        numbers = np.array(values, float)
        trend, falling = _trend(orders, numbers)
        shares, shape = trend, "falling" if falling else "rising"
        if (bins := _bins(numbers)) is not None:
            binned = _grouped(orders, bins)
            shape = "mixed" if binned[0] > trend[0] else shape
            shares = np.maximum(trend, binned)
    else:
        codes = np.unique([str(shown(value)) for value in values], return_inverse=True)[1]
        shares, shape = _grouped(orders, codes), "groups"
    # As large or larger, up to rounding; the order as it is counts as one of them.
    p = float((shares >= shares[0] - 1e-9).mean())
    return _Found(min(max(float(shares[0]), 0.0), 1.0), shape, p, n)


def _centred_ranks(values: _Floats) -> _Floats:
    """From the lowest to the highest, equal values at the mean of their places."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places] - (len(values) + 1) / 2


def _trend(orders: _Floats, numbers: _Floats) -> tuple[_Floats, bool]:
    """The squared rank correlation of each order, adjusted for chance, and whether the first one falls."""
    x = _centred_ranks(numbers)
    n, total = len(x), float(orders[0] @ orders[0])
    product = orders @ x
    share = product**2 / (total * float(x @ x))
    return 1 - (1 - share) * (n - 1) / (n - 2), bool(product[0] < 0)


def _grouped(orders: _Floats, codes: NDArray[np.intp]) -> _Floats:
    """The correlation ratio of each order over the groups, adjusted for chance."""
    n, total = len(codes), float(orders[0] @ orders[0])
    counts = np.bincount(codes)
    if len(counts) <= _FEW_GROUPS:
        sums = orders @ (codes[:, None] == np.arange(len(counts))).astype(float)
    else:
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(orders[:, np.argsort(codes, kind="stable")], starts, axis=1)
    share = (sums**2 / counts).sum(axis=1) / total
    return 1 - (1 - share) * (n - 1) / (n - len(counts))


def _bins(numbers: _Floats) -> NDArray[np.intp] | None:
    """Numbers as a few groups of about one size; None where there are too few for that."""
    distinct, codes = np.unique(numbers, return_inverse=True)
    if len(distinct) > _BINS:
        edges = np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1])
        codes = np.unique(np.searchsorted(edges, numbers, side="left"), return_inverse=True)[1]
    groups = int(codes.max()) + 1
    return codes if groups > 2 and len(numbers) >= _RUNS_IN_A_BIN * groups else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
