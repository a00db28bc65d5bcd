"""The arithmetic of comparisons: differences of means, their errors, p values, and how many runs would do.

What belongs here: formulas over plain arrays, with their sources. Which of them fits two groups is decided in
`significance.py`. What takes values `(..., n)` works along the last axis, so that thousands of experiments can be
simulated in one call.
"""

from collections.abc import Callable, Sequence
from math import comb, exp, lgamma
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_RUNS = 10_000
"""More runs than that are no plan."""

_EXACT_BELOW = 25
"""Discordant pairs below which McNemar's test is an exact binomial one: the usual rule for the chi-square."""
_RESAMPLES = 4_999
_JACKKNIFE_UP_TO = 2_000
"""Units up to which BCa is used; its jackknife costs their square."""
_BATCH_VALUES = 2_000_000
_LARGEST_SHIFT = 35.0
"""Non-centrality up to which scipy's noncentral t is sound; the power there is above 99 % at any n."""


class Difference(NamedTuple):
    """A difference of means with its standard error, in the metric's unit, and its degrees of freedom."""

    effect: Any
    error: Any
    freedom: Any


def welch(a: ArrayLike, b: ArrayLike) -> Difference:
    """The difference of the means of two independent groups, with variances of their own (Welch 1947).

    The degrees of freedom are those of Welch and Satterthwaite:
    `(va + vb)^2 / (va^2 / (na - 1) + vb^2 / (nb - 1))` with `v = s^2 / n`; zero variance gives `na + nb - 2`.

    Args:
        a, b: values `(..., n)` with n of at least 2.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    return welch_of_moments(
        (a.mean(-1), a.var(-1, ddof=1), a.shape[-1]), (b.mean(-1), b.var(-1, ddof=1), b.shape[-1])
    )


def welch_of_moments(a: tuple[Any, Any, int], b: tuple[Any, Any, int]) -> Difference:
    """The same of two groups that are known by their mean, sample variance and number of values alone."""
    (mean_a, variance_a, n_a), (mean_b, variance_b, n_b) = a, b
    share_a, share_b = np.asarray(variance_a) / n_a, np.asarray(variance_b) / n_b
    total = share_a + share_b
    below = share_a**2 / (n_a - 1) + share_b**2 / (n_b - 1)
    pooled = float(n_a + n_b - 2)
    freedom = np.divide(total**2, below, out=np.full_like(total, pooled), where=below > 0)
    return Difference(mean_a - mean_b, np.sqrt(total), freedom)


def paired(differences: ArrayLike, test_to_train: float = 0.0) -> Difference:
    """The mean of paired differences (Student 1908), or of differences over folds.

    Folds share training rows, so their differences are no independent ones: Nadeau & Bengio (2003) take
    `(1 / n + n_test / n_train) * s^2` as the variance of the mean in place of `s^2 / n`.

    Args:
        differences: values `(..., n)` with n of at least 2.
        test_to_train: rows of a fold's test set over those of its training set; 0 for independent pairs.
    """
    differences = np.asarray(differences, float)
    n = differences.shape[-1]
    error = np.sqrt(differences.var(-1, ddof=1) * (1 / n + test_to_train))
    return Difference(differences.mean(-1), error, float(n - 1))


def t_interval(of: Difference, confidence: float = 0.95) -> tuple[Any, Any]:
    """The two-sided interval of a difference by Student's t, in the metric's unit."""
    from scipy import stats

    reach = stats.t.ppf((1 + confidence) / 2, of.freedom) * of.error
    return of.effect - reach, of.effect + reach


def t_p(of: Difference) -> Any:
    """The two-sided p value of a difference by Student's t; the error must not be 0."""
    from scipy import stats

    return 2 * stats.t.sf(np.abs(of.effect / of.error), of.freedom)


def sign_p(n: int) -> float:
    """The two-sided p value of n differences of one sign: `2 / 2^n`, which needs no spread."""
    return 2.0 ** (1 - n)


def separation_p(n_a: int, n_b: int) -> float:
    """The two-sided p value of two groups of which one lies wholly above the other: `2 / C(na + nb, na)`."""
    return min(1.0, 2 / comb(n_a + n_b, n_a))


def mcnemar_p(only_a: int, only_b: int) -> float:
    """The p value of McNemar (1947) of two classifiers on the same rows.

    Below 25 discordant rows it is the exact binomial one, else that of the chi-square with Edwards' continuity
    correction, `(|b - c| - 1)^2 / (b + c)`.

    Args:
        only_a: rows that only the first one has right.
        only_b: rows that only the second one has right.
    """
    from scipy import stats

    discordant = only_a + only_b
    if discordant == 0:
        return 1.0
    if discordant < _EXACT_BELOW:
        return float(stats.binomtest(only_a, discordant).pvalue)
    return float(stats.chi2.sf(max(0, abs(only_a - only_b) - 1) ** 2 / discordant, 1))


def mcnemar_interval(only_a: int, only_b: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the difference of two paired shares, by Wald after half a row more in each of four cells.

    That keeps its level with few rows, too (Agresti & Min 2005, Statistics in Medicine 24).
    """
    from scipy import stats

    b, c, n = only_a + 0.5, only_b + 0.5, rows + 2
    centre = (b - c) / n
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * float(np.sqrt((b + c - (b - c) ** 2 / n) / n**2))
    return max(-1.0, centre - reach), min(1.0, centre + reach)


def shares_interval(
    right_a: int, rows_a: int, right_b: int, rows_b: int, confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of the difference of two independent shares, by Wald after one right and one wrong row more in each.

    That keeps its level with few rows, and where a share is 0 or 1 (Agresti & Caffo 2000, The American Statistician 54).
    """
    from scipy import stats

    a, b = (right_a + 1) / (rows_a + 2), (right_b + 1) / (rows_b + 2)
    error = np.sqrt(a * (1 - a) / (rows_a + 2) + b * (1 - b) / (rows_b + 2))
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * float(error)
    return max(-1.0, a - b - reach), min(1.0, a - b + reach)


def bootstrap(
    sums: NDArray[np.float64], counts: NDArray[np.float64], confidence: float = 0.95, seed: int = 0
) -> tuple[tuple[float, float], float, str]:
    """The interval and p value of a mean difference over rows, resampling whole units (Efron 1979, 1987).

    A unit is a row, or all rows of a group: rows of one group are no independent ones. Up to 2,000 units the
    interval is the bias-corrected and accelerated one (BCa), above it the percentile one, from which BCa hardly
    differs there. The p value is twice the smaller share of resamples on one side of 0. Both are expanded as
    Hesterberg (2015, The American Statistician 69) does, by `sqrt(n / (n - 1))` and from the normal to Student's t
    of n - 1: without it, a bootstrap of few units promises too much.

    Args:
        sums: the sum of the differences of each unit; they must not be constant.
        counts: the rows of each unit.
        seed: makes the answer the same each time.

    Returns:
        The interval in the metric's unit, the p value, and `BCa` or `percentile`.
    """
    from scipy import stats

    units = len(sums)
    widening = np.sqrt(units / (units - 1))
    reach = stats.t.ppf((1 + confidence) / 2, units - 1) * widening
    method = "BCa" if len(sums) <= _JACKKNIFE_UP_TO else "percentile"
    mean: Callable[..., Any] = lambda s, c, axis=-1: s.sum(axis) / c.sum(axis)  # noqa: E731
    found = stats.bootstrap(
        (sums, counts),
        mean,
        n_resamples=_RESAMPLES,
        batch=max(1, _BATCH_VALUES // len(sums)),
        vectorized=True,
        paired=True,
        confidence_level=min(1 - 2 * float(stats.norm.sf(reach)), 1 - 1e-9),
        method=method,
        rng=np.random.default_rng(seed),
    )
    drawn = found.bootstrap_distribution
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    away = max(0.0, float(stats.norm.isf((beyond + 1) / (_RESAMPLES + 1))))
    p = 2 * float(stats.t.sf(away / widening, units - 1))
    return (float(found.confidence_interval.low), float(found.confidence_interval.high)), p, method


class Ranks(NamedTuple):
    """Friedman's test over datasets: mean rank of each group (1 is the best), statistics, p values."""

    mean_ranks: NDArray[np.float64]
    chi_square: float
    f: float
    p: float
    pairwise_p: NDArray[np.float64]


def friedman(table: ArrayLike, higher_is_better: bool) -> Ranks:
    """Whether groups differ over datasets, and which: Friedman with Nemenyi's post-hoc test (Demsar 2006).

    `chi^2 = 12 N / (k (k + 1)) * (sum R_j^2 - k (k + 1)^2 / 4)`, and of it the F of Iman & Davenport,
    `(N - 1) chi^2 / (N (k - 1) - chi^2)`. With few datasets F promises more than the ranks can hold, so p is
    never below that of full agreement, `k!^(1 - N)`. Nemenyi's p is that of the studentized range of
    `|R_i - R_j| / sqrt(k (k + 1) / (6 N)) * sqrt(2)`: it is corrected for all pairs.

    Args:
        table: the metric, `(datasets, groups)`, with at least 2 of each.
    """
    from scipy import stats

    values = np.asarray(table, float)
    datasets, groups = values.shape
    ranks = stats.rankdata(-values if higher_is_better else values, axis=1).mean(0)
    chi_square = 12 * datasets / (groups * (groups + 1)) * ((ranks**2).sum() - groups * (groups + 1) ** 2 / 4)
    left = datasets * (groups - 1) - chi_square
    f = float((datasets - 1) * chi_square / left) if left > 1e-9 else float("inf")
    least = exp((1 - datasets) * lgamma(groups + 1))
    p = max(float(stats.f.sf(f, groups - 1, (groups - 1) * (datasets - 1))), least)
    apart = np.abs(ranks[:, None] - ranks[None, :]) / np.sqrt(groups * (groups + 1) / (6 * datasets))
    # Each is an integral, and most distances occur several times.
    distances, place = np.unique(apart.round(12), return_inverse=True)
    integrals = np.asarray(stats.studentized_range.sf(distances * np.sqrt(2), groups, np.inf))
    pairwise = integrals[place].reshape(apart.shape)
    return Ranks(ranks, max(0.0, float(chi_square)), f, p, np.clip(pairwise, 0, 1))


def holm(ps: Sequence[float]) -> list[float]:
    """P values corrected for being several, in the same order (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    steps = np.minimum(1.0, np.asarray(ps)[order] * np.arange(len(ps), 0, -1))
    corrected = np.empty(len(ps))
    corrected[order] = np.maximum.accumulate(steps)
    return corrected.tolist()


def pairs_for_power(
    standardized: float, test_to_train: float = 0.0, power: float = 0.8, level: float = 0.05
) -> int | None:
    """The pairs that a two-sided paired t-test needs, by the noncentral t; None for an effect of 0 or too many.

    Over folds the variance has a part that more folds never take away, so that there may be no such number.

    Args:
        standardized: the mean of the differences over their standard deviation.
    """

    def reached(n: int) -> float:
        return _power(abs(standardized) / np.sqrt(1 / n + test_to_train), n - 1, level)

    return _smallest(reached, power) if standardized else None


def runs_for_power(
    effect: float, variance_a: float, variance_b: float, power: float = 0.8, level: float = 0.05
) -> int | None:
    """The runs of each group that a two-sided Welch test needs; None for an effect of 0 or above 10,000.

    Args:
        effect: the difference of means in the metric's unit.
        variance_a, variance_b: the variances of the runs, in that unit squared; one at least is not 0.
    """
    total = variance_a + variance_b
    ratio = total**2 / (variance_a**2 + variance_b**2)

    def reached(n: int) -> float:
        return _power(abs(effect) / np.sqrt(total / n), (n - 1) * ratio, level)

    return _smallest(reached, power) if effect else None


def _power(shift: float, freedom: float, level: float) -> float:
    from scipy import stats

    shift = min(float(shift), _LARGEST_SHIFT)
    bound = stats.t.ppf(1 - level / 2, freedom)
    return float(stats.nct.sf(bound, freedom, shift) + stats.nct.cdf(-bound, freedom, shift))


def _smallest(reached: Callable[[int], float], power: float) -> int | None:
    """The smallest n from 2 with that power, by doubling and halving: power grows with n."""
    low, high = 1, 2
    while reached(high) < power:
        low, high = high, 2 * high
        if low >= MOST_RUNS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= power else (middle, high)
    return high if high <= MOST_RUNS else None


def expected_maximum(candidates: int) -> float:
    """The expected largest of so many independent standard normal values: 0 for one, 1.867 for twenty."""
    from scipy import stats

    x = np.linspace(-10, 10, 4001)
    density = candidates * stats.norm.pdf(x) * np.exp((candidates - 1) * stats.norm.logcdf(x))
    return float(np.trapezoid(x * density, x))
