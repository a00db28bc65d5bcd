"""Drift: how far a sample lies from its reference, and whether that is more than chance and more than nothing.

What belongs here: distances and p values from counts, and the verdict on them. What does not: counting, which the engine
does (sql/duckdb/drift). Sources:

| distance | definition |
|---|---|
| Kolmogorov-Smirnov | largest difference of the cumulative shares; p from Kolmogorov's distribution (Hodges 1958) |
| Wasserstein | area between the cumulative shares, in the unit of the values |
| population stability index | sum of (c - r) ln(c / r) over bins; shares of 0 are taken for 0.0001 |
| Jensen-Shannon | square root of the mean divergence from the mixture, natural logarithms (Endres & Schindelin 2003) |
| chi-squared | Pearson's test of homogeneity of two rows of counts |

The functions named `evidently_...` follow the conventions of Evidently 0.7, so that figures of both can be laid side by
side: Sturges' bins over both samples together where the reference has more than 20 distinct values, the values themselves
where it has not; of the stability index a share of 0 is a millionth of the sample's least share where that is 0.0001 or
less; Wasserstein divided by the reference's standard deviation, 0.001 at least.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

ZERO_SHARE = 1e-4
"""Taken for a share of nothing, of which there is no logarithm."""

_EVIDENTLY_DISTINCT = 20
"""Distinct values of a reference up to which Evidently takes each value for a bin."""

_EVIDENTLY_DEVIATION = 1e-3

Kind = Literal["number", "category", "list"]


class Outcome(NamedTuple):
    """A test's statistic and its p value."""

    statistic: float
    p: float


@dataclass(frozen=True)
class Threshold:
    """What counts as drift: more than chance would bring about, and more than nobody would mind.

    Args:
        level: of the p values after they were corrected for their number.
        ks: least Kolmogorov-Smirnov distance of numbers, a share.
        psi: least population stability index; 0.1 is taken for a moderate shift and 0.25 for a large one.
        least: values that either sample has to have.
    """

    level: float = 0.01
    ks: float = 0.1
    psi: float = 0.1
    least: int = 50


@dataclass(frozen=True)
class Measured:
    """Distances of one feature in one slice.

    Args:
        feature, slice: of what.
        kind: `number`, `category`, or `list`, which is not judged.
        reference_count, current_count: values that were compared.
        p: of Kolmogorov-Smirnov or chi-squared.
        psi, jensen_shannon: over bins or categories.
        ks, wasserstein: of numbers; None of categories.
        chi_squared: of categories; None of numbers.
        reference_lacking, current_lacking: predictions that have no such value; among categories, one of these.
        lacking_p: of numbers, that they lack as often as before.
        unjudged: why the feature cannot be judged, a sentence; empty if it can.
    """

    feature: str
    slice: str
    kind: Kind
    reference_count: int
    current_count: int
    p: float
    psi: float
    jensen_shannon: float
    ks: float | None = None
    wasserstein: float | None = None
    chi_squared: float | None = None
    reference_lacking: int = 0
    current_lacking: int = 0
    lacking_p: float = 1.0
    unjudged: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the distances of a feature mean.

    Args:
        measured: the distances.
        corrected_p: its p value after Benjamini and Hochberg's correction for all that were asked together.
        state: `drift`, `none`, `too few` values for either, or `not judged`.
        reason: why, in a sentence.
        threshold: the least distance that counts, of `ks` or `psi`.
    """

    measured: Measured
    corrected_p: float
    state: Literal["drift", "none", "too few", "not judged"]
    reason: str
    threshold: float


def ks_p(distance: float, reference_count: int, current_count: int) -> float:
    """The p value of a Kolmogorov-Smirnov distance between two samples, as scipy's `ks_2samp(method='asymp')` has it."""
    from scipy.stats import distributions

    larger, smaller = max(reference_count, current_count), min(reference_count, current_count)
    effective = larger * smaller / (larger + smaller)
    return float(np.clip(distributions.kstwo.sf(distance, np.round(effective)), 0.0, 1.0))


def ks_ps(
    distances: ArrayLike, reference_counts: ArrayLike, current_counts: ArrayLike
) -> NDArray[np.float64]:
    """The p values of many Kolmogorov-Smirnov distances at once; see `ks_p`."""
    from scipy.stats import distributions

    r, c = np.asarray(reference_counts, float), np.asarray(current_counts, float)
    larger, smaller = np.maximum(r, c), np.minimum(r, c)
    effective = larger * smaller / (larger + smaller)
    found = distributions.kstwo.sf(np.asarray(distances, float), np.round(effective))
    return np.clip(found, 0.0, 1.0)


def chi_squared_ps(statistics: ArrayLike, categories: ArrayLike) -> NDArray[np.float64]:
    """The p values of many statistics of `chi_squared` at once, by the number of categories that either sample has."""
    from scipy.stats import chi2

    freedom = np.asarray(categories, float) - 1
    return np.where(freedom > 0, chi2.sf(np.asarray(statistics, float), np.maximum(freedom, 1)), 1.0)


def lacking_ps(reference: ArrayLike, current: ArrayLike) -> NDArray[np.float64]:
    """The p values that two samples lack values as often, Pearson's chi-squared of two by two.

    Args:
        reference, current: of each feature, how many values there are and how many lack, an array of two columns.
    """
    r, c = np.asarray(reference, float).reshape(-1, 2), np.asarray(current, float).reshape(-1, 2)
    both = r + c
    total = both.sum(axis=1, keepdims=True)
    possible = (both > 0).all(axis=1) & (r.sum(axis=1) > 0) & (c.sum(axis=1) > 0)
    statistic = np.zeros(len(r))
    for side in (r, c):
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = both * side.sum(axis=1, keepdims=True) / total
            statistic += np.where(possible, ((side - expected) ** 2 / expected).sum(axis=1), 0.0)
    return chi_squared_ps(statistic, np.where(possible, 2, 1))


def psi(reference: ArrayLike, current: ArrayLike) -> float:
    """The population stability index of two rows of counts over the same bins.

    Raises:
        ValueError: the rows are not as long as each other, or one has no count.
    """
    return _psi(*_shares(reference, current), ZERO_SHARE, ZERO_SHARE)


def _psi(r: NDArray[np.float64], c: NDArray[np.float64], of_r: float, of_c: float) -> float:
    """Of shares, with what is taken for a share of 0 on either side."""
    r, c = np.where(r == 0, of_r, r), np.where(c == 0, of_c, c)
    return float(np.sum((c - r) * np.log(c / r)))


def jensen_shannon(reference: ArrayLike, current: ArrayLike) -> float:
    """The Jensen-Shannon distance of two rows of counts over the same bins: 0 to sqrt(ln 2).

    Raises:
        ValueError: as `psi`.
    """
    r, c = _shares(reference, current)
    middle = (r + c) / 2
    # 0 ln 0 is 0: what a sample does not have adds nothing to its side.
    divergence = sum(
        float(np.sum(side[side > 0] * np.log(side[side > 0] / middle[side > 0]))) for side in (r, c)
    )
    return math.sqrt(max(divergence, 0.0) / 2)


def chi_squared(reference: ArrayLike, current: ArrayLike) -> Outcome:
    """Pearson's test that two rows of counts come from the same shares, as `chi2_contingency(correction=False)`.

    Raises:
        ValueError: as `psi`.
    """
    from scipy.stats import chi2

    r, c = _counts(reference, current)
    there = (r + c) > 0
    r, c = r[there], c[there]
    if len(r) == 1:
        return Outcome(0.0, 1.0)  # one category alone is the same in both
    total = r.sum() + c.sum()
    statistic = sum(
        float(np.sum((side - expected) ** 2 / expected))
        for side in (r, c)
        for expected in [(r + c) * side.sum() / total]
    )
    return Outcome(statistic, float(chi2.sf(statistic, len(r) - 1)))


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """The p values corrected so that of what is below a level no more than that share is expected to be false
    (Benjamini & Hochberg 1995)."""
    order = np.argsort(ps)[::-1]
    ranks = np.arange(len(ps), 0, -1)
    corrected = np.empty(len(ps))
    corrected[order] = np.minimum.accumulate(np.asarray(ps, float)[order] * len(ps) / ranks).clip(max=1.0)
    return corrected.tolist()


def verdicts(measured: Sequence[Measured], threshold: Threshold | None = None) -> list[Verdict]:
    """What the distances of several features mean together.

    A p value alone makes everything a drift once there are rows enough, and a distance alone anything while there are
    few: both have to speak. Numbers that lack more often than before are a drift as well.
    """
    limits = threshold or Threshold()
    far = [not each.unjudged and not _too_few(each, limits) for each in measured]
    gone = [not each.unjudged and not _too_few_predictions(each, limits) for each in measured]
    ps = [each.p for each, judged in zip(measured, far, strict=True) if judged]
    lacking = [
        each.lacking_p for each, judged in zip(measured, gone, strict=True) if judged and _may_lack(each)
    ]
    corrected = iter(benjamini_hochberg([*ps, *lacking]) if ps or lacking else ())
    of_values = [next(corrected) if judged else None for judged in far]
    of_lacking = [
        next(corrected) if judged and _may_lack(each) else None
        for each, judged in zip(measured, gone, strict=True)
    ]
    return [
        _verdict(each, p, lack, limits) for each, p, lack in zip(measured, of_values, of_lacking, strict=True)
    ]


def _may_lack(measured: Measured) -> bool:
    return measured.kind == "number" and bool(measured.reference_lacking or measured.current_lacking)


def _too_few(measured: Measured, limits: Threshold) -> bool:
    if measured.kind == "category":
        return _too_few_predictions(measured, limits)
    return min(measured.reference_count, measured.current_count) < limits.least


def _too_few_predictions(measured: Measured, limits: Threshold) -> bool:
    reference = measured.reference_count + measured.reference_lacking
    return min(reference, measured.current_count + measured.current_lacking) < limits.least


def _verdict(measured: Measured, p: float | None, lacking_p: float | None, limits: Threshold) -> Verdict:
    name, distance, least = (
        ("PSI", measured.psi, limits.psi)
        if measured.kind == "category"
        else ("KS", measured.ks or 0.0, limits.ks)
    )
    if measured.unjudged:
        return Verdict(measured, 1.0, "not judged", measured.unjudged, least)
    if lacking_p is not None and lacking_p < limits.level:
        before, now = _lacking_shares(measured)
        if abs(now - before) >= limits.ks:
            told = (
                f"{before:.1%} of the predictions lacked it, and {now:.1%} do; corrected p {lacking_p:.2g}."
            )
            return Verdict(measured, min(lacking_p, 1.0 if p is None else p), "drift", told, least)
    if p is None:
        told = f"{measured.reference_count:,} and {measured.current_count:,} values; {limits.least} each are needed."
        return Verdict(measured, 1.0, "too few", told, least)
    far = distance >= least
    certain = p < limits.level
    told = f"{name} {distance:.3g} ({'at least' if far else 'below'} {least:g}), corrected p {p:.2g}"
    if far and certain:
        return Verdict(measured, p, "drift", f"{told}.", least)
    why = "chance may do that" if far else "too small to matter" if certain else "nothing to be seen"
    return Verdict(measured, p, "none", f"{told}: {why}.", least)


def _lacking_shares(measured: Measured) -> tuple[float, float]:
    before = measured.reference_lacking / (measured.reference_count + measured.reference_lacking)
    return before, measured.current_lacking / (measured.current_count + measured.current_lacking)


def evidently_shares(
    values: ArrayLike, reference: ArrayLike, current: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of both samples by Evidently's bins.

    Args:
        values: distinct values, ascending.
        reference, current: how often each stands in either sample.
    """
    at = np.asarray(values, float)
    r, c = _counts(reference, current)
    if np.count_nonzero(r) > _EVIDENTLY_DISTINCT:
        # NumPy's own rule, which asks the values for their number and range only, as it rounds.
        extent = at[-1] - at[0]
        bins = math.ceil(extent / (extent / (math.log2(r.sum() + c.sum()) + 1)))
        edges = np.histogram_bin_edges(at, bins=bins)
        r, c = (np.histogram(at, bins=edges, weights=side)[0] for side in (r, c))
    return r / r.sum(), c / c.sum()


def evidently_psi(values: ArrayLike, reference: ArrayLike, current: ArrayLike) -> float:
    """The population stability index by Evidently's bins; see `evidently_shares`."""
    return _evidently_psi(*evidently_shares(values, reference, current))


def evidently_psi_of_categories(reference: ArrayLike, current: ArrayLike) -> float:
    """The population stability index of counts by category, with what Evidently takes for a share of 0.

    Raises:
        ValueError: as `psi`.
    """
    return _evidently_psi(*_shares(reference, current))


def _evidently_psi(r: NDArray[np.float64], c: NDArray[np.float64]) -> float:
    least = [float(share[share > 0].min()) for share in (r, c)]
    return _psi(r, c, *(share / 1e6 if share <= ZERO_SHARE else ZERO_SHARE for share in least))


def evidently_jensen_shannon(values: ArrayLike, reference: ArrayLike, current: ArrayLike) -> float:
    """The Jensen-Shannon distance by Evidently's bins; see `evidently_shares`."""
    return jensen_shannon(*evidently_shares(values, reference, current))


def evidently_ks_p(values: ArrayLike, reference: ArrayLike, current: ArrayLike) -> float:
    """The p value of the Kolmogorov-Smirnov test, exact up to scipy's 10,000 values a sample; see `evidently_shares`."""
    from scipy.stats import ks_2samp

    r, c = (np.repeat(np.asarray(values, float), np.asarray(side, int)) for side in (reference, current))
    outcome: Any = ks_2samp(r, c)
    return float(outcome.pvalue)


def evidently_chi_squared_p(reference: ArrayLike, current: ArrayLike) -> float:
    """The p value that the current counts have the reference's shares, as if those were no sample of their own.

    Args:
        reference, current: counts by category.
    """
    from scipy.stats import chi2

    r, c = _counts(reference, current)
    expected = r * c.sum() / r.sum()
    if np.any((expected == 0) & (c > 0)):
        return 0.0  # what the reference does not have cannot come from it
    there = expected > 0
    statistic = float(np.sum((c[there] - expected[there]) ** 2 / expected[there]))
    return float(chi2.sf(statistic, there.sum() - 1)) if there.sum() > 1 else 1.0


def evidently_wasserstein(wasserstein: float, reference_deviation: float) -> float:
    """The Wasserstein distance in standard deviations of the reference.

    Args:
        reference_deviation: with n in the denominator.
    """
    return wasserstein / max(reference_deviation, _EVIDENTLY_DEVIATION)


def _counts(reference: ArrayLike, current: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r, c = np.asarray(reference, float), np.asarray(current, float)
    if r.shape != c.shape:
        raise ValueError(f"the samples are counted over {len(r)} and {len(c)} bins; count both over the same")
    if not r.sum() or not c.sum():
        raise ValueError("a sample is empty, and nothing can be said of its distance; give one with values")
    return r, c


def _shares(reference: ArrayLike, current: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r, c = _counts(reference, current)
    return r / r.sum(), c / c.sum()


class Segments(NamedTuple):
    """Two samples, cut into segments that do not overlap, ascending; a segment is a value, or several together.

    Args:
        low, high: lowest and highest value of each.
        r, c: how many values of the reference and of the current sample are in it.
        r_sum, c_sum: the sums of their distances from one point; of no use where low is high.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    r: NDArray[np.float64]
    c: NDArray[np.float64]
    r_sum: NDArray[np.float64]
    c_sum: NDArray[np.float64]

    def chosen(self, which: NDArray[np.bool_]) -> "Segments":
        """Some of them."""
        return Segments(*(column[which] for column in self))

    def merged(self, more: "Segments") -> "Segments":
        """These and others, ascending."""
        order = np.argsort(np.concatenate([self.low, more.low]), kind="stable")
        return Segments(*(np.concatenate(pair)[order] for pair in zip(self, more, strict=True)))


class Distances(NamedTuple):
    """How far two samples of numbers lie apart; see the top of the module."""

    ks: float
    wasserstein: float
    psi: float
    jensen_shannon: float


def unresolved(segments: Segments, bins: int) -> NDArray[np.bool_]:
    """The segments whose values have to be known one by one, for all distances to be exact.

    Of a segment the gap between the cumulative shares is known at both ends, and that it moves between them by no more
    than the shares in it. So a segment may be left as it is if the gap cannot change its sign within it (the area under
    it then follows from the sums), cannot become the largest, and no edge of a bin lies in it.
    """
    n, m = segments.r.sum(), segments.c.sum()
    r_until, c_until = np.cumsum(segments.r), np.cumsum(segments.c)
    after = r_until / n - c_until / m
    p, q = segments.r / n, segments.c / m
    before = after - p + q
    turns = (before - q < 0) & (before + p > 0)
    largest = np.maximum(np.abs(before + p), np.abs(before - q)) > np.abs(after).max()
    edge = r_until * bins // n != (r_until - segments.r) * bins // n
    vast = ~np.isfinite(segments.r_sum) | ~np.isfinite(segments.c_sum)
    return (segments.low < segments.high) & (turns | largest | edge | vast)


def distances(segments: Segments, bins: int, origin: float) -> Distances:
    """The distances of two samples of which no segment is `unresolved`, as sql/duckdb/drift/numbers.sql has them.

    Args:
        bins: that hold as much of the reference each, as far as values that repeat allow.
        origin: the point from which the sums of the segments are counted.
    """
    low, high, r, c, r_sum, c_sum = segments
    n, m = r.sum(), c.sum()
    r_until, c_until = np.cumsum(r), np.cumsum(c)
    after = r_until / n - c_until / m
    between = float(np.sum(np.abs(after[:-1]) * (low[1:] - high[:-1])))
    several = low < high
    # Each value adds its share from itself up to the end of the segment.
    top = high - origin
    inside = (
        ((r_until - r) / n - (c_until - c) / m) * (high - low) + (r * top - r_sum) / n - (c * top - c_sum) / m
    )
    heavy = (r * bins > n) & ~several
    place = np.minimum(bins - 1, r_until * bins // n)
    groups = np.stack([place, np.cumsum(heavy), heavy])
    starts = np.flatnonzero(np.append(True, np.any(np.diff(groups, axis=1) != 0, axis=0)))
    r_bins, c_bins = (np.add.reduceat(side, starts) for side in (r, c))
    return Distances(
        float(np.abs(after).max()),
        between + float(np.sum(np.abs(inside[several]))),
        psi(r_bins, c_bins),
        jensen_shannon(r_bins, c_bins),
    )
