"""The datasets that ship with scikit-learn, as if their rows had arrived day by day.

Imports scikit-learn: import it where the demo is made and nowhere else.
"""

import hashlib
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from sklearn import datasets as sklearn_datasets

from ml_assets.demo.plan import Plan

HISTORY_SHARE = 0.3
"""Share of the rows that were there before the first day."""

HELD_OUT_SHARE = 0.25
"""Share of the arrived rows that a model is validated on and never trained on."""

SHIFTED = "digits"
"""The dataset whose inputs are corrupted from the plan's `shift_day` on."""


@dataclass(frozen=True)
class Split:
    """What one model is trained and validated on."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_held_out: np.ndarray
    y_held_out: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """A dataset with the day on which each row arrived.

    Args:
        x: float64, rows x features.
        y: class numbers, or the value to predict.
        classes: names of the classes, empty for a regression.
        order: row numbers as they arrived.
        arrival: number of the day of each row, 0 for what was there before.
        description: scikit-learn's own.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    features: tuple[str, ...]
    classes: tuple[str, ...]
    order: np.ndarray
    arrival: np.ndarray
    description: str

    def arrived_on(self, day: int) -> np.ndarray:
        """Row numbers of a day, as they arrived."""
        return self.order[self.arrival[self.order] == day]

    def split(self, day: int, seed: int) -> Split:
        """Rows that had arrived by the end of a day. A row is held out by `seed` on every day or on none."""
        held_out = _generator("held out", self.name, seed).random(len(self.y)) < HELD_OUT_SHARE
        arrived = self.order[self.arrival[self.order] <= day]
        train, rest = arrived[~held_out[arrived]], arrived[held_out[arrived]]
        return Split(self.x[train], self.y[train], self.x[rest], self.y[rest])


def load(name: str, plan: Plan) -> Dataset:
    """A dataset by the name of its loader: iris, wine, breast_cancer, digits, diabetes."""
    bunch = getattr(sklearn_datasets, f"load_{name}")()
    x = np.asarray(bunch.data, dtype=np.float64)
    order = _generator("arrival", name).permutation(len(x))
    arrival = _arrival(order, plan.days)
    if name == SHIFTED:
        late = arrival >= plan.shift_day
        x[late] = _failing_lamp(x[late])
    return Dataset(
        name=name,
        x=x,
        y=np.asarray(bunch.target),
        features=tuple(feature.replace(" ", "_").split("_(")[0] for feature in bunch.feature_names),
        classes=tuple(map(str, getattr(bunch, "target_names", ()))),
        order=order,
        arrival=arrival,
        description=bunch.DESCR,
    )


def digest(x: np.ndarray, y: np.ndarray) -> str:
    """Fingerprint of data, 16 hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes() + np.ascontiguousarray(y).tobytes()).hexdigest()[
        :16
    ]


def _arrival(order: np.ndarray, days: int) -> np.ndarray:
    arrival = np.zeros(len(order), dtype=np.int64)
    fresh = order[round(len(order) * HISTORY_SHARE) :]
    arrival[fresh] = 1 + np.arange(len(fresh)) * days // len(fresh)
    return arrival


def _failing_lamp(x: np.ndarray) -> np.ndarray:
    """Pictures of 8 x 8 whose right half is read at a quarter of its brightness, all of it with noise."""
    brightness = np.where(np.arange(64) % 8 < 4, 1.0, 0.25)
    noise = _generator("lamp").normal(0.0, 1.5, x.shape)
    return np.clip(np.round(x * brightness + noise, 2), 0.0, 16.0)


def _generator(*key: object) -> np.random.Generator:
    """A generator of its own for every purpose, so that none depends on what was drawn before."""
    return np.random.default_rng(crc32(repr(key).encode()))
