"""Versions compared by counts, means and deviations, beside scipy on the values themselves."""

import itertools
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from ml_assets.lib.version_comparison import Moments, each_with_the_one_before


def moments(values: np.ndarray) -> Moments:
    return Moments(len(values), float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def test_each_is_tested_with_the_one_before_and_corrected_for_all():
    rng = np.random.default_rng(1)
    groups = [rng.normal(mean, 1, 40) for mean in (0.0, 0.1, 2.0)]
    first, second, third = each_with_the_one_before([{"m": moments(each)} for each in groups])
    assert (first.differences, first.differs) == ({}, ())
    raw = [
        cast("Any", stats.ttest_ind(new, old, equal_var=False)).pvalue
        for old, new in itertools.pairwise(groups)
    ]
    assert third.ps["m"] == pytest.approx(2 * raw[1])  # the smaller one, of two
    assert second.ps["m"] == pytest.approx(raw[0])
    assert (second.differs, third.differs) == ((), ("m",))
    assert third.differences["m"] == pytest.approx(groups[2].mean() - groups[1].mean())


def test_the_interval_is_students():
    values = np.array([0.7, 0.9, 0.8])
    wanted = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert moments(values).interval == pytest.approx(wanted)
    assert moments(values[:1]).interval is None


@pytest.mark.parametrize(
    ("old", "new", "p", "noted"),
    [
        (Moments(0, None, None), Moments(3, 0.5, 0.1), None, True),
        (Moments(1, 0.4, None), Moments(3, 0.5, 0.1), None, True),
        (Moments(3, 0.5, 0.0), Moments(3, 0.5, 0.0), 1.0, False),
        (Moments(3, 0.4, 0.0), Moments(3, 0.5, 0.0), None, True),
        (Moments(3, float("inf"), float("nan")), Moments(3, 0.5, 0.1), None, True),
        (Moments(0, None, None), Moments(0, None, None), None, False),
    ],
)
def test_what_cannot_be_tested_is_said(old, new, p, noted):
    found = each_with_the_one_before([{"m": old}, {"m": new}])[1]
    assert found.ps["m"] == p
    assert bool(found.note) == noted
    assert not found.differs
