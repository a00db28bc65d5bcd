"""The arrival of the demo's rows."""

import numpy as np
import pytest

from ml_assets.demo.data import load
from ml_assets.demo.plan import Plan

PLAN = Plan(days=14, shift_day=10)


@pytest.fixture(scope="module", params=["iris", "wine", "breast_cancer", "digits", "diabetes"])
def dataset(request):
    return load(request.param, PLAN)


def test_every_row_arrives_once_and_every_day_has_some(dataset):
    days = [dataset.arrived_on(day) for day in range(PLAN.days + 1)]
    assert sorted(np.concatenate(days)) == list(range(len(dataset.y)))
    assert min(map(len, days)) >= 7


def test_no_model_sees_the_future_or_what_it_is_validated_on(dataset):
    rows = {row.tobytes() for row in dataset.x[dataset.arrived_on(6)]}
    earlier = {row.tobytes() for row in dataset.x[dataset.arrival <= 5]}
    split = dataset.split(5, seed=1)
    seen = {row.tobytes() for part in (split.x_train, split.x_held_out) for row in part}
    assert seen == earlier
    assert seen & rows <= earlier  # iris holds the same flower twice
    assert len(split.y_train) + len(split.y_held_out) == (dataset.arrival <= 5).sum()


def test_a_row_is_held_out_for_good(dataset):
    first, last = dataset.split(3, seed=2), dataset.split(14, seed=2)
    np.testing.assert_array_equal(last.x_held_out[: len(first.x_held_out)], first.x_held_out)


def test_seeds_hold_out_different_rows(dataset):
    assert not np.array_equal(dataset.split(14, 0).x_held_out, dataset.split(14, 1).x_held_out)


def test_only_late_digits_are_corrupted():
    late, never = load("digits", PLAN), load("digits", Plan(days=14, shift_day=99))
    changed = (late.x != never.x).any(axis=1)
    np.testing.assert_array_equal(changed, late.arrival >= 10)
    right = np.arange(64) % 8 >= 4
    assert late.x[changed][:, right].mean() < 0.5 * never.x[changed][:, right].mean()
    assert late.x.min() == 0.0 and late.x.max() == 16.0
