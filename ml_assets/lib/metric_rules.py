"""Metrics by their names: what they are called elsewhere, which one a run is judged by, and which way is better.

docs/metrics.md states these rules for whoever reads the tables. SQL gets them as data, from `ranking`: no statement
knows a metric's name by itself, but for the columns that are named after one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "metric rules 2"
"""To be raised with whatever here changes which metrics judge runs, or which way is better: tables are rebuilt then."""

Direction = Literal["max", "min"]

_FALLING = re.compile(
    r"(?:^|[^a-z])(?:loss|error|perplexity|mae|mse|rmse|time|latency|memory|ms|mb)(?:$|[^a-z])", re.IGNORECASE
)
"""Words of a key whose smaller value is the better one: `val_loss`, `eval/rmse`, `inference_time_ms`, not `flawless`."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "accuracy": (
        "acc",
        "acc1",
        "accuracy_score",
        "binary_accuracy",
        "categorical_accuracy",
        "sparse_categorical_accuracy",
        "top1",
        "top_1",
        "top1_accuracy",
        "top_1_accuracy",
    ),
    "balanced_accuracy": ("balanced_acc", "bal_acc", "balanced_accuracy_score"),
    "f1_score": ("f1", "f1score", "f1_macro", "macro_f1", "f1_score_macro"),
    "roc_auc": ("auc", "auroc", "auc_roc", "rocauc", "roc_auc_score"),
    "average_precision": ("ap", "auprc", "pr_auc", "auc_pr", "average_precision_score"),
    "precision": ("precision_score", "precision_macro", "macro_precision"),
    "recall": ("recall_score", "recall_macro", "macro_recall"),
    "r2": ("r2_score", "r_2", "r_squared", "rsquared"),
    "rmse": ("root_mean_squared_error", "root_mean_square_error"),
    "mae": ("mean_absolute_error",),
    "mse": ("mean_squared_error",),
    "log_loss": ("logloss", "cross_entropy", "crossentropy", "binary_logloss", "multi_logloss", "mlogloss"),
    "perplexity": ("ppl",),
    "loss": (),
}
"""The canonical names, the first that a run has is what it is judged by, and what else they are called."""

_KNOWN = {other: name for name, others in NAMES.items() for other in (name, *others)}
_ORDER = {name: place for place, name in enumerate(NAMES)}

_VALIDATION = frozenset(
    ("val", "valid", "validation", "eval", "evaluation", "dev", "holdout", "heldout", "oof")
)
_TEST = frozenset(("test", "testing"))
_TRAIN = frozenset(("train", "training"))
_SPLITS = _VALIDATION | _TEST | _TRAIN
_NEUTRAL = frozenset(("final", "last", "mean", "avg", "epoch"))
"""Words around a name that say nothing about what is measured."""

_NO_METRIC = frozenset(
    (
        *("time", "timestamp", "duration", "runtime", "elapsed", "latency", "throughput"),
        *("s", "sec", "secs", "second", "seconds", "ms", "minutes", "hours"),
        *("epoch", "epochs", "step", "steps", "iter", "iteration", "iterations", "learning", "lr", "seed"),
        *("n", "num", "count", "counts", "size", "rows", "samples", "examples", "tokens", "support"),
        *("params", "parameters", "grad", "gradient", "norm", "flops", "flos"),
        *("std", "stddev", "stderr", "variance"),
        *(
            "system",
            "memory",
            "mem",
            "ram",
            "bytes",
            "kb",
            "mb",
            "gb",
            "cpu",
            "gpu",
            "disk",
            "network",
            "power",
        ),
    )
)
"""Words of a key that measures no quality but time, size, progress, a spread or the machine."""


@dataclass(frozen=True)
class PrimaryMetric:
    """The metric that is said to judge the runs of a dataset or an experiment.

    Args:
        metric: its key or canonical name.
        direction: whether the largest or the smallest value is the best; None to go by the name.
    """

    metric: str
    direction: Direction | None = None


@dataclass(frozen=True)
class Ranked:
    """How a key stands among those that may judge a run.

    Args:
        key: as it is logged.
        name: its canonical name, under which runs are compared.
        dataset, experiment: the runs that this holds for; None for all.
        higher_is_better: its direction.
    """

    key: str
    name: str
    dataset: str | None
    experiment: str | None
    higher_is_better: bool


@dataclass(frozen=True)
class _Parts:
    """A key taken apart: its name and the rows that were measured, in the order of preference."""

    name: str
    split: int
    words: frozenset[str]

    @property
    def is_train(self) -> bool:
        return self.split == 3


@dataclass(frozen=True)
class MetricRules:
    """What is said of metrics beyond their values.

    Args:
        directions: by key or canonical name, whether the largest or the smallest value is the best; others go by
            their words.
        synonyms: by key, the canonical name.
        of_dataset: by dataset, the metric that judges its runs.
        of_experiment: by experiment, the same for runs whose dataset has none, or whose dataset's metric is missing.
    """

    directions: Mapping[str, Direction] = field(default_factory=dict)
    synonyms: Mapping[str, str] = field(default_factory=dict)
    of_dataset: Mapping[str, PrimaryMetric] = field(default_factory=dict)
    of_experiment: Mapping[str, PrimaryMetric] = field(default_factory=dict)

    def higher_is_better(self, key: str) -> bool:
        """Whether a larger value of a metric is better than a smaller one."""
        name = self.canonical(key)
        for said in (key, name):
            if said in self.directions:
                return self.directions[said] == "max"
        return _FALLING.search(key) is None and _FALLING.search(name) is None

    def canonical(self, key: str) -> str:
        """The name under which a metric is compared: `accuracy` for `val_acc`, `train_loss` for `training/loss`."""
        return self._parts(key).name

    def primary(
        self, metrics: Mapping[str, Any], experiment: str | None = None, dataset: str | None = None
    ) -> tuple[str, float, bool] | None:
        """What a run is judged by.

        Args:
            metrics: the last value of each metric; what is no number is left out. NaN and infinities count, as
                numbers or as text.
            experiment, dataset: of the run.

        Returns:
            Key, value, and whether a larger one is better; None if no metric of the run measures quality.
        """
        values = {key: number for key, value in metrics.items() if (number := _number(value)) is not None}
        for ranked in self.ranking(values):
            if ranked.dataset in (None, dataset) and ranked.experiment in (None, experiment):
                return ranked.key, values[ranked.key], ranked.higher_is_better
        return None

    def ranking(self, keys: Iterable[str]) -> list[Ranked]:
        """The keys that may judge a run, the first one that a run has and that holds for it does.

        A key stands here once for all runs, and before that for each dataset and experiment that names it.
        """
        parts = {key: self._parts(key) for key in sorted(set(keys))}
        found: list[Ranked] = []
        for dataset, chosen in sorted(self.of_dataset.items()):
            found += self._chosen(parts, chosen, dataset, None)
        for experiment, chosen in sorted(self.of_experiment.items()):
            found += self._chosen(parts, chosen, None, experiment)
        usual = [key for key in parts if self._measures_quality(key, parts[key])]
        for key in sorted(usual, key=lambda key: _usual_place(key, parts[key])):
            found.append(Ranked(key, parts[key].name, None, None, self.higher_is_better(key)))
        return found

    def table(self, keys: Iterable[str]) -> "pa.Table":
        """`ranking` as a relation for SQL: the columns of `Ranked`, and `rank`, from 0."""
        import pyarrow as pa

        fields = [
            ("key", pa.string()),
            ("name", pa.string()),
            ("dataset", pa.string()),
            ("experiment", pa.string()),
            ("higher_is_better", pa.bool_()),
            ("rank", pa.int64()),
        ]
        rows = [{**vars(ranked), "rank": rank} for rank, ranked in enumerate(self.ranking(keys))]
        return pa.Table.from_pylist(rows, pa.schema(fields))

    def _parts(self, key: str) -> _Parts:
        if key not in self.synonyms:
            return _taken_apart(key)
        # What is said of the key decides about its name, and its own words about the rows that were measured.
        said, own = _taken_apart(self.synonyms[key]), _taken_apart(key)
        return _Parts(said.name, said.split if said.is_train else min(own.split, 2), frozenset())

    def _chosen(
        self, parts: Mapping[str, _Parts], chosen: PrimaryMetric, dataset: str | None, experiment: str | None
    ) -> list[Ranked]:
        name = self.canonical(chosen.metric)
        keys = [key for key, part in parts.items() if key == chosen.metric or part.name == name]
        keys.sort(key=lambda key: (key != chosen.metric, parts[key].split, key))
        said = chosen.direction
        return [
            Ranked(
                key,
                parts[key].name,
                dataset,
                experiment,
                said == "max" if said else self.higher_is_better(key),
            )
            for key in keys
        ]

    def _measures_quality(self, key: str, parts: _Parts) -> bool:
        return key in self.synonyms or not parts.words & _NO_METRIC


def _usual_place(key: str, parts: _Parts) -> tuple[Any, ...]:
    """Known names in their order, those of training rows after all others; then unknown names by the alphabet."""
    known = _ORDER.get(parts.name.removeprefix("train_") if parts.is_train else parts.name)
    if known is None:
        return (2 + parts.is_train, parts.name, parts.split, key)
    return (int(parts.is_train), known, parts.split, key)


@lru_cache(maxsize=100_000)
def _taken_apart(key: str) -> _Parts:
    """What a key says by its words, without what anybody has said of it."""
    words = [word for word in re.split(r"[\W_]+", key.lower()) if word]
    splits = [word for word in words if word in _SPLITS]
    kept: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        # `valid_0-auc`: the number is that of the set.
        if word not in _SPLITS and not (word.isdigit() and before in _SPLITS):
            kept.append(word)
    # `mean_squared_error` is a name as a whole.
    while len(kept) > 1 and kept[0] in _NEUTRAL and "_".join(kept) not in _KNOWN:
        del kept[0]
    while len(kept) > 1 and kept[-1] in _NEUTRAL:
        del kept[-1]
    name = "_".join(kept)
    if not name:
        return _Parts(key, 2, frozenset(words))
    name = _KNOWN.get(name, name)
    if any(word in _TRAIN for word in splits):
        return _Parts(f"train_{name}", 3, frozenset(kept))
    split = 0 if any(word in _VALIDATION for word in splits) else 1 if splits else 2
    return _Parts(name, split, frozenset(kept))


def _number(value: Any) -> float | None:
    """A value of a metric as MLflow, JSON or Python has it; None if it is no number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # a text or a structure, which judges nothing
        return None
