"""What is trained on which day and when: the schedule of the demo, without any library.

A trial is one model to train. Every day retrains two models of each dataset; sweeps over the
hyper-parameters of each family are spread over the fortnight; some trials are mistakes that people make.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

Role = Literal["retraining", "trial", "mistake"]
Parameters = dict[str, Any]

FAMILIES: dict[str, Parameters] = {
    "gradient_boosting": {"n_estimators": 20, "learning_rate": 0.2, "max_depth": 3, "max_features": "sqrt"},
    "knn": {"n_neighbors": 5, "weights": "distance"},
    "logistic_regression": {"C": 1.0, "solver": "lbfgs"},
    "mlp": {"hidden_layer_sizes": [48], "learning_rate_init": 0.01, "solver": "adam"},
    "naive_bayes": {"var_smoothing": 1e-3},
    "random_forest": {"n_estimators": 60, "max_depth": 12},
    "sgd": {"alpha": 1e-3, "loss": "log_loss"},
    "svc": {"C": 1.0, "gamma": 0.03, "kernel": "rbf"},
}
"""Model families with the hyper-parameters of the daily retraining."""

SWEEPS: dict[str, tuple[Parameters, ...]] = {
    "gradient_boosting": ({"learning_rate": 0.05}, {"learning_rate": 0.5}),
    "knn": ({"n_neighbors": 3}, {"n_neighbors": 15}),
    "logistic_regression": ({"C": 0.01}, {"C": 10.0}),
    "mlp": ({"hidden_layer_sizes": [8]}, {"hidden_layer_sizes": [64]}),
    "naive_bayes": ({"var_smoothing": 1e-9}, {"var_smoothing": 0.1}),
    "random_forest": ({"max_depth": 2}, {"max_depth": 8}),
    "sgd": ({"alpha": 1e-4}, {"alpha": 0.1}),
    "svc": ({"C": 0.1}, {"C": 10.0}),
}
"""What each sweep varies."""

RETRAINED: dict[str, tuple[str, str]] = {
    "iris": ("logistic_regression", "knn"),
    "wine": ("naive_bayes", "svc"),
    "breast_cancer": ("gradient_boosting", "sgd"),
    "digits": ("random_forest", "mlp"),
}
"""Datasets with the two families that are retrained every day."""


@dataclass(frozen=True)
class Mistake:
    """A trial that fails, and how: through its parameters, or through `spoil`, what happens to its data."""

    day: int
    dataset: str
    family: str
    parameters: Parameters
    spoil: Literal["missing values", "lost column"] | None = None


MISTAKES = (
    Mistake(2, "wine", "svc", {"C": -1.0}),
    Mistake(3, "iris", "knn", {"n_neighbors": 5000}),
    Mistake(4, "digits", "logistic_regression", {"solver": "liblinear"}),
    Mistake(5, "breast_cancer", "gradient_boosting", {}, "missing values"),
    Mistake(6, "iris", "naive_bayes", {"priors": [0.5, 0.2, 0.1]}),
    Mistake(7, "breast_cancer", "mlp", {"solver": "sgd", "learning_rate_init": 1e20}),
    Mistake(9, "breast_cancer", "random_forest", {}, "lost column"),
    Mistake(11, "digits", "mlp", {"hidden_layer_sizes": [0]}),
    Mistake(13, "wine", "sgd", {"alpha": -0.1}),
)


@dataclass(frozen=True)
class Trial:
    """One model to train.

    Args:
        key: what identifies it over all days.
        sweep: key of the sweep that it belongs to, None if it stands alone.
        start: time of day at which its replay starts.
    """

    key: str
    role: Role
    dataset: str
    family: str
    parameters: Parameters
    seed: int
    start: timedelta
    sweep: str | None = None
    spoil: str | None = None

    @property
    def model_name(self) -> str:
        """Logical name of the model; its retrainings are its versions."""
        return f"{self.dataset}-{self.family}"


@dataclass(frozen=True)
class Plan:
    """How much is trained. The defaults are the demo; tests take less.

    Args:
        days: how many days are replayed.
        shift_day: first day on which the digits' inputs are corrupted.
        datasets, families, seeds: what is swept over.
    """

    days: int = 14
    shift_day: int = 10
    datasets: tuple[str, ...] = tuple(RETRAINED)
    families: tuple[str, ...] = tuple(FAMILIES)
    seeds: tuple[int, ...] = (0, 1, 2)
    mistakes: tuple[Mistake, ...] = field(default=MISTAKES)

    def trials(self, day: int) -> list[Trial]:
        """The trials of a day (from 1), in order of their start; those of a sweep stand together."""
        return [*self._sweeps(day), *self._mistakes(day), *self._retrainings(day)]

    @property
    def trial_count(self) -> int:
        """Trials of all days."""
        return sum(len(self.trials(day)) for day in range(1, self.days + 1))

    def _sweeps(self, day: int) -> list[Trial]:
        every = [(dataset, family) for family in self.families for dataset in self.datasets]
        today = [pair for index, pair in enumerate(every) if index % self.days == day - 1]
        pause = timedelta(hours=9) // max(len(today), 1)  # from 8 to 17 o'clock
        return [
            Trial(
                key=f"day {day}: {dataset} {family} {_words(varied)} seed {seed}",
                role="trial",
                dataset=dataset,
                family=family,
                parameters={**FAMILIES[family], **varied},
                seed=seed,
                start=timedelta(hours=8) + number * pause + timedelta(minutes=len(self.seeds) * which + seed),
                sweep=f"day {day}: {dataset} {family} sweep",
            )
            for number, (dataset, family) in enumerate(today)
            for which, varied in enumerate(SWEEPS[family])
            for seed in self.seeds
        ]

    def _mistakes(self, day: int) -> list[Trial]:
        return [
            Trial(
                key=f"day {day}: {mistake.dataset} {mistake.family} attempt",
                role="mistake",
                dataset=mistake.dataset,
                family=mistake.family,
                parameters={**FAMILIES[mistake.family], **mistake.parameters},
                seed=0,
                start=timedelta(hours=18),
                spoil=mistake.spoil,
            )
            for mistake in self.mistakes
            if mistake.day == day and mistake.dataset in self.datasets
        ]

    def _retrainings(self, day: int) -> list[Trial]:
        models = [(dataset, family) for dataset in self.datasets for family in RETRAINED[dataset]]
        return [
            Trial(
                key=f"day {day}: {dataset} {family} retraining",
                role="retraining",
                dataset=dataset,
                family=family,
                parameters=FAMILIES[family],
                seed=0,
                start=timedelta(hours=21, minutes=7 * number),
            )
            for number, (dataset, family) in enumerate(models)
        ]


def _words(parameters: Parameters) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters.items())
