import math
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from ml_assets.lib import drift
from ml_assets.lib.drift import Measured, Threshold, verdicts
from ml_assets.sql_files import read_sql

CLOSE = 1e-9


def samples(rng, kind, n, m):
    """Two samples: continuous, with ties, or nearly constant."""
    shift = rng.choice([0.0, 0.2, 3.0])
    a, b = rng.normal(size=n), rng.normal(shift, rng.choice([1.0, 2.0]), size=m)
    if kind == "tied":
        a, b = np.round(a, 1), np.round(b, 1)
    if kind == "constant":
        a, b = np.zeros(n), np.where(rng.random(m) < 0.1, 1.0, 0.0)
    return a, b


def counted(pairs):
    """The samples of series as the engine counts them."""
    rows = []
    for series, (a, b) in enumerate(pairs):
        values = np.unique(np.concatenate([a, b]))
        rows += [(series, float(value), int((a == value).sum()), int((b == value).sum())) for value in values]
    names = ("series", "value", "reference_count", "current_count")
    return pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


@pytest.fixture
def engine():
    with duckdb.connect() as connection:
        yield connection


def numbers(engine, table, bins=10):
    engine.register("counted", table)
    found = engine.execute(
        read_sql("duckdb/drift/numbers.sql"), {"bins": bins, "zero_share": drift.ZERO_SHARE}
    )
    return {row["series"]: row for row in found.to_arrow_table().to_pylist()}


def test_distances_in_the_engine_are_scipys(engine):
    rng = np.random.default_rng(18)
    pairs = [
        samples(rng, kind, *rng.integers(2, 400, 2))
        for kind in ("continuous", "tied", "constant")
        for _ in range(40)
    ]
    rows = numbers(engine, counted(pairs))
    wanted: Any = [stats.ks_2samp(a, b, method="asymp") for a, b in pairs]
    ps = drift.ks_ps(
        [rows[series]["ks"] for series in rows], [len(a) for a, _ in pairs], [len(b) for _, b in pairs]
    )
    assert [rows[series]["ks"] for series in rows] == pytest.approx(
        [each.statistic for each in wanted], abs=CLOSE
    )
    assert ps == pytest.approx([each.pvalue for each in wanted], abs=CLOSE)
    assert [rows[series]["wasserstein"] for series in rows] == pytest.approx(
        [stats.wasserstein_distance(a, b) for a, b in pairs], abs=CLOSE
    )


def test_divergences_in_the_engine_are_those_over_bins_of_the_reference(engine):
    rng = np.random.default_rng(3)
    pairs = [samples(rng, kind, *rng.integers(2, 400, 2)) for kind in ("continuous", "tied", "constant") * 20]
    for series, row in numbers(engine, counted(pairs)).items():
        a, b = pairs[series]
        edges = np.unique(np.quantile(a, np.arange(1, 10) / 10, method="inverted_cdf"))
        values, counts = np.unique(a, return_counts=True)
        # A value that is more than a bin should hold is one alone.
        edges = np.unique([*edges, *np.nextafter(values[counts * 10 > len(a)], math.inf)])
        sides = [
            np.bincount(np.searchsorted(edges, side, "right"), minlength=len(edges) + 1) for side in (a, b)
        ]
        there = sum(sides) > 0
        r, c = (side[there] for side in sides)
        assert row["psi"] == pytest.approx(drift.psi(r, c), abs=CLOSE)
        # A square root of what may be rounding alone.
        assert row["jensen_shannon"] == pytest.approx(drift.jensen_shannon(r, c), abs=1e-7)


def test_what_lies_beyond_a_constant_reference_is_seen(engine):
    pairs = [(np.ones(100), np.full(100, 2.0)), (np.ones(100), np.zeros(100)), (np.ones(90), np.ones(80))]
    up, down, same = numbers(engine, counted(pairs)).values()
    assert up["psi"] == pytest.approx(drift.psi([100, 0], [0, 100])) == down["psi"]
    assert (up["ks"], up["wasserstein"], down["wasserstein"]) == (1, 1, 1)
    noisy = numbers(engine, counted([(np.append(np.zeros(99), 5), np.linspace(0, 1, 100))]))[0]
    assert noisy["psi"] > 1  # noise on what was constant, below the highest value
    assert (same["ks"], same["wasserstein"], same["psi"], same["jensen_shannon"]) == (0, 0, 0, 0)


def test_values_of_any_size_have_distances(engine):
    a, b = np.array([-1e300, 1e300, 0.0]), np.array([1e300, 5e-324, 1e-300])
    wanted: Any = stats.ks_2samp(a, b)
    assert numbers(engine, counted([(a, b)]))[0]["ks"] == pytest.approx(wanted.statistic)


@pytest.mark.parametrize("seed", range(20))
def test_distances_of_counts_are_scipys(seed):
    rng = np.random.default_rng(seed)
    r, c = rng.integers(0, 50, 8), rng.integers(0, 50, 8)
    r[0], c[1] = 0, 0
    assert drift.jensen_shannon(r, c) == pytest.approx(jensenshannon(r / r.sum(), c / c.sum()), abs=CLOSE)
    both = np.array([r, c])[:, (r + c) > 0]
    wanted: Any = stats.chi2_contingency(both, correction=False)
    found = drift.chi_squared(r, c)
    assert drift.chi_squared_ps([found.statistic], [both.shape[1]]) == pytest.approx([found.p], abs=CLOSE)
    assert found.statistic == pytest.approx(wanted.statistic, rel=CLOSE)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-6)
    ps = rng.random(9)
    assert drift.benjamini_hochberg(ps.tolist()) == pytest.approx(
        stats.false_discovery_control(ps), abs=CLOSE
    )


def test_the_stability_index_is_that_of_the_textbook():
    # Two bins of 50 % against 80 and 20 %: 0.3 ln 1.6 + 0.3 ln 2.5.
    assert drift.psi([5, 5], [8, 2]) == pytest.approx(0.3 * math.log(1.6) + 0.3 * math.log(2.5))
    assert drift.psi([10, 0], [10, 0]) == 0.0
    assert math.isfinite(drift.psi([10, 0], [0, 10]))


def test_evidently_bins_are_sturges_over_both():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=500), rng.normal(0.5, size=300)
    values, counts = np.unique(np.concatenate([a, b]), return_counts=True)
    r = np.isin(values, a).astype(int)
    c = counts - r
    edges = np.histogram_bin_edges(np.concatenate([a, b]), bins="sturges")
    shares = [np.histogram(side, edges)[0] / len(side) for side in (a, b)]
    for found, wanted in zip(drift.evidently_shares(values, r, c), shares, strict=True):
        assert found == pytest.approx(wanted, abs=CLOSE)
    # Few values are bins of their own.
    assert [share.tolist() for share in drift.evidently_shares([0, 1], [3, 1], [1, 1])] == [
        [0.75, 0.25],
        [0.5, 0.5],
    ]
    assert drift.evidently_wasserstein(0.5, 0.0) == 500


EVIDENTLY = (
    (0.16440073872472, 0.13976724169714747, 0.28066387658884573, 1.363590785003194e-07),
    (0.26499985282575667, 0.1727455089710447, 0.3252266430501849, 0.10717675917035065),
    (1.3291079499572818, 0.26808607099680215, 0.3913973152873371, 6.894634838152129e-10),
)
"""What Evidently 0.7.23 said of the samples below: PSI, Jensen-Shannon, Wasserstein, p of Kolmogorov-Smirnov."""


def test_figures_are_those_of_evidently():
    rng = np.random.default_rng(5)
    for number, (psi, jensen_shannon, wasserstein, p) in enumerate(EVIDENTLY):
        n, m = rng.integers(60, 3000, 2)
        a, b = rng.normal(size=n), rng.normal(rng.choice([0, 0.3]), 1.3, size=m)
        if number == 1:
            a, b = np.round(a, 1), np.round(b, 1)
        if number == 2:
            a, b = rng.integers(0, 9, n).astype(float), rng.integers(0, 11, m).astype(float)
        values = np.unique(np.concatenate([a, b]))
        counts = [[int((side == value).sum()) for value in values] for side in (a, b)]
        assert drift.evidently_psi(values, *counts) == pytest.approx(psi, abs=CLOSE)
        assert drift.evidently_jensen_shannon(values, *counts) == pytest.approx(jensen_shannon, abs=CLOSE)
        distance = float(stats.wasserstein_distance(a, b))
        assert drift.evidently_wasserstein(distance, a.std()) == pytest.approx(wasserstein, abs=CLOSE)
        assert drift.evidently_ks_p(values, *counts) == pytest.approx(p, abs=CLOSE)


EVIDENTLY_BINS = (
    (3.3020255468683715, 0.481441621888262),
    (4.2925379770909915, 0.5020322095029554),
    (0.10513249331728461, 0.10508919044846088),
    (4.369051286960534, 0.5079213986667224),
)
"""What Evidently 0.7.23 said of the samples below: PSI and Jensen-Shannon."""


def test_bins_and_rare_values_are_those_of_evidently():
    """Distinct values count in the reference alone; what is missing beside rare values is a millionth of their share."""
    rng = np.random.default_rng(12)
    pairs = (
        (rng.integers(0, 20, 400).astype(float), rng.integers(0, 40, 500).astype(float)),
        (rng.integers(0, 22, 400).astype(float), rng.integers(0, 9, 500).astype(float)),
        (np.concatenate([rng.normal(size=20_000), [9.0]]), rng.normal(0.2, 1.2, size=20_000)),
        (rng.normal(size=1024), rng.random(3072)),
    )
    for (a, b), wanted in zip(pairs, EVIDENTLY_BINS, strict=True):
        values = np.unique(np.concatenate([a, b]))
        ends = [np.searchsorted(np.sort(side), values, "right") for side in (a, b)]
        counts = [np.diff(end, prepend=0) for end in ends]
        found = drift.evidently_psi(values, *counts), drift.evidently_jensen_shannon(values, *counts)
        assert found == pytest.approx(wanted, abs=CLOSE)
    found = drift.evidently_psi_of_categories([15_000, 4_999, 1, 0], [9_000, 900, 0, 100])
    assert found == pytest.approx(0.3819022930108668, abs=CLOSE)


def measured(feature="x", ks=0.0, p=1.0, n=1000, **more):
    return Measured(feature, "all", "number", n, n, p, 0.0, 0.0, ks=ks, **more)


def test_a_verdict_needs_both_a_distance_and_a_proof():
    found = verdicts(
        [
            measured("both", ks=0.3, p=1e-9),
            measured("tiny", ks=0.001, p=1e-9, n=10_000_000),
            measured("chance", ks=0.3, p=0.04),
            measured("few", ks=0.9, p=1e-9, n=20),
            measured("none"),
            Measured("colour", "all", "category", 500, 500, 1e-8, 0.4, 0.2, chi_squared=80.0),
        ]
    )
    states = {each.measured.feature: each.state for each in found}
    assert states == {
        "both": "drift", "tiny": "none", "chance": "none", "few": "too few", "none": "none", "colour": "drift",
    }  # fmt: skip
    reasons = {each.measured.feature: each.reason for each in found}
    assert "too small to matter" in reasons["tiny"] and "chance may do that" in reasons["chance"]
    assert "50 each are needed" in reasons["few"] and "PSI 0.4" in reasons["colour"]


def test_numbers_that_lack_more_often_are_a_drift():
    counts = [([990, 10], [500, 500]), ([990, 10], [985, 15]), ([1000, 0], [0, 1000]), ([1000, 0], [1000, 0])]
    lacking = drift.lacking_ps([r for r, _ in counts], [c for _, c in counts])
    for p, (r, c) in zip(lacking[:3], counts[:3], strict=True):
        wanted: Any = stats.chi2_contingency([r, c], correction=False)
        assert p == pytest.approx(wanted.pvalue, abs=CLOSE)
    found = verdicts(
        [
            Measured("x", "all", "number", r[0], c[0], 1.0, 0.0, 0.0, 0.0, 0.0, None, r[1], c[1], p)
            for p, (r, c) in zip(lacking, counts, strict=True)
        ]
    )
    assert [each.state for each in found] == ["drift", "none", "drift", "none"]
    assert "1.0% of the predictions lacked it, and 50.0% do" in found[0].reason


def test_many_features_without_drift_raise_hardly_an_alarm():
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(40):
        ps = rng.random(50)
        alarms += sum(v.state == "drift" for v in verdicts([measured(ks=0.2, p=p) for p in ps], Threshold()))
    assert alarms <= 3


@pytest.mark.parametrize(
    ("r", "c", "told"), [([1], [1, 2], "over 1 and 2 bins"), ([0, 0], [1, 2], "is empty")]
)
def test_counts_that_cannot_be_compared_are_told(r, c, told):
    with pytest.raises(ValueError, match=told):
        drift.psi(r, c)
