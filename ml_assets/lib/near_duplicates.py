"""Rows of a test set that almost stand in its training set.

What belongs here: plain arrays in, indices out. Pairs are looked for in hash buckets, never row by row, and a pair is
told only where the features are fine and many enough that chance does not make it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Largest difference between two near-duplicates in any one feature, in standard deviations of the feature."""
JACCARD = 0.8
"""Least share of common 8-byte grams of two texts that are near-duplicates."""
CHANCE = 1e-4
"""Largest probability of as many pairs by chance at which pairs are told."""

_ABSENT, _INFINITE = 1e9, 2e9
"""Where a missing and an infinite value lie, in tolerances: far from every number, and on themselves."""
_PROJECTIONS = 3
_BUCKET = 64
"""Rows of one bucket that are looked at."""
_EVIDENCE, _RARE, _FEW = 2, 0.01, 3
"""Rare values that a row must have, the share of rows up to which a value is rare, and how many rows are always few."""
_SAMPLED = 1_000
_CLOSE, _WIDE = 0.01, 0.1
"""Shares of the sampled pairs between which the dimension of the rows is measured."""
_GRAM = 8
_HASHES, _BANDS = 64, 16
_AT_ONCE = 4_096
_TEXTS = 60

Pairs = list[tuple[int, int]]
"""Row of the test set, row of the training set; each row of the test set once at most, in order."""


@dataclass(frozen=True)
class Near:
    """What was found.

    Attributes:
        pairs: those that are told; none where chance makes as many.
        by_chance: how many rows of the test set would be near one of the training set by chance alone.
        seen: rows of the test set that are near one of the training set, told or not.
    """

    pairs: Pairs
    by_chance: float
    seen: int


def near_rows(train: NDArray[np.float64], test: NDArray[np.float64]) -> Near:
    """The rows of two sets that agree within the tolerance in every feature.

    How many pairs chance makes is extrapolated from the distances within each set, by their correlation dimension
    (Grassberger and Procaccia 1983). So one copied row is told among rows of five independent features, and none among
    rows of three yes-or-no ones, which agree anyway. A row with fewer than two values that are rare in their features is
    never told: rows that know nothing yet, all missing values and zeros, are alike without being copies.

    Args:
        train, test: one row a row and one column a feature; NaN where a value is missing.
    """
    if not train.size or not test.size:
        return Near([], 0.0, 0)
    both = np.concatenate([train, test])
    units = TOLERANCE * np.array([_scale(column) for column in both.T])
    scaled = both / units
    scaled[np.isnan(both)] = _ABSENT
    scaled[np.isposinf(both)], scaled[np.isneginf(both)] = _INFINITE, -_INFINITE
    scaled += 0.0  # -0.0 and 0.0 are one value, and would have two hashes
    left, right = scaled[: len(train)], scaled[len(train) :]
    found = _equal_rows(left, right)
    found |= _close_rows(left, right, [row for row in range(len(right)) if row not in found])
    by_chance = _pairs_by_chance(left, right)
    telling = np.flatnonzero(_rare_values(scaled, right) >= _EVIDENCE)
    pairs = sorted((row, found[row]) for row in found.keys() & set(telling.tolist()))
    return Near(pairs if _surprising(len(pairs), by_chance) else [], by_chance, len(found))


def near_texts(train: Sequence[str | None], test: Sequence[str | None]) -> Near:
    """The texts of two sets that share `JACCARD` of their 8-byte grams, once case, punctuation and spaces are evened out.

    MinHash (Broder 1997) in 16 bands of 4 names the candidates: of the pairs at the threshold it finds 99.98 %. Their
    true overlap decides. Where texts of one set are alike among themselves, as filled-in forms are, only equal ones
    count.
    """
    left, right = [_grams(text) for text in train], [_grams(text) for text in test]
    equal: dict[bytes, int] = {}
    for row, grams in enumerate(left):
        if grams is not None:
            equal.setdefault(grams.tobytes(), row)
    found = {
        row: equal[grams.tobytes()]
        for row, grams in enumerate(right)
        if grams is not None and grams.tobytes() in equal
    }
    alike = _alike(left, right)
    if alike < _CLOSE:
        found |= _overlapping(left, right, found)
    else:
        alike = _equal(left, right)
    by_chance = min(1.0, alike * len(left)) * len(right)
    pairs = sorted(found.items()) if _surprising(len(found), by_chance) else []
    return Near(pairs, by_chance, len(found))


def _surprising(seen: int, by_chance: float) -> bool:
    from scipy.special import pdtrc

    return seen > 0 and float(pdtrc(seen - 1, max(by_chance, 1e-300))) < CHANCE


def _scale(column: NDArray[np.float64]) -> float:
    """The standard deviation of the middle of a column, which outliers do not stretch; 1 for a column of one value."""
    finite = column[np.isfinite(column)]
    if not finite.size:
        return 1.0
    low, high = np.quantile(finite, [0.1, 0.9])
    # Of the normal distribution 80 % lie within 2.563 standard deviations.
    return float((high - low) / 2.563 or np.std(finite) or max(abs(float(finite[0])), 1.0))


def _equal_rows(train: NDArray[np.float64], test: NDArray[np.float64]) -> dict[int, int]:
    first: dict[bytes, int] = {}
    for row, values in enumerate(train):
        first.setdefault(values.tobytes(), row)
    return {row: first[key] for row, values in enumerate(test) if (key := values.tobytes()) in first}


def _rare_values(both: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """By row, how many of its values few rows have within the tolerance."""
    most = max(_FEW, _RARE * len(both))
    rare = np.zeros(len(rows), dtype=np.int64)
    for values, own in zip(np.sort(both, axis=0).T, rows.T, strict=True):
        alike = np.searchsorted(values, own + 1, "right") - np.searchsorted(values, own - 1, "left")
        rare += (alike <= most) & (own != _ABSENT)
    return rare


def _close_rows(train: NDArray[np.float64], test: NDArray[np.float64], rows: Sequence[int]) -> dict[int, int]:
    """The pairs within 1 in every column, of some rows of the test set.

    Two such rows differ by at most the sum of the weights in any weighted sum. So in one of two grids of twice that
    width, half a cell apart, they share a cell; three sums make a bucket of a few rows.
    """
    weights = np.random.default_rng(0).uniform(0.5, 1.0, (train.shape[1], _PROJECTIONS))
    weights *= np.random.default_rng(1).choice([-1.0, 1.0], weights.shape)
    width = 2 * np.abs(weights).sum(axis=0)
    left, right = train @ weights / width, test @ weights / width
    found: dict[int, int] = {}
    for shifts in np.ndindex(*(2,) * _PROJECTIONS):
        open_rows = np.array([row for row in rows if row not in found], dtype=np.int64)
        shift = np.array(shifts) / 2
        keys, asked = _keys(left + shift), _keys(right[open_rows] + shift)
        order = np.argsort(keys, kind="stable")
        begin = np.searchsorted(keys[order], asked, "left")
        ends = np.minimum(np.searchsorted(keys[order], asked, "right"), begin + _BUCKET)
        for offset in range(int((ends - begin).max(initial=0))):
            here = np.flatnonzero(begin + offset < ends)
            there = order[begin[here] + offset]
            near = np.abs(test[open_rows[here]] - train[there]).max(axis=1) <= 1
            for row, other in zip(open_rows[here[near]].tolist(), there[near].tolist(), strict=True):
                found.setdefault(row, other)
    return found


def _keys(cells: NDArray[np.float64]) -> NDArray[np.uint64]:
    """One number a row for its cell in each grid; two cells of one number cost a comparison, no more."""
    # Cells beyond what an integer holds are one cell: rows there cost a comparison.
    whole = np.floor(np.clip(cells, -(2.0**62), 2.0**62)).astype(np.int64).astype(np.uint64)
    mixed = np.zeros(len(whole), dtype=np.uint64)
    for column in whole.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _pairs_by_chance(train: NDArray[np.float64], test: NDArray[np.float64]) -> float:
    """How many pairs of the two sets chance puts within the tolerance, or within the grain of coarser features."""
    random = np.random.default_rng(0)
    samples = [each[random.permutation(len(each))[:_SAMPLED]] for each in (train, test)]
    grains = [_grain(column) for column in np.concatenate(samples).T]
    distances = np.concatenate([_distances(each, grains) for each in samples])
    if not distances.size:  # a row each: nothing is known of what is usual
        return float(len(train) * len(test))
    close, wide = np.quantile(distances, [_CLOSE, _WIDE])
    if close <= 1:
        share = float(np.mean(distances < 1))
    else:
        dimension = np.log(_WIDE / _CLOSE) / max(
            np.log(wide / close), np.log(_WIDE / _CLOSE) / train.shape[1]
        )
        share = float(_CLOSE * close ** -max(dimension, 1.0))
    return len(train) * len(test) * share


def _grain(column: NDArray[np.float64]) -> float:
    """How far apart values are that the feature does not tell apart: 1 if it is finer than the tolerance.

    A feature of few values has the least step between them. One that is rounded agrees in as many pairs as a
    continuous one does within this distance.
    """
    values, counts = np.unique(column, return_counts=True)
    if len(values) < 2:
        return 1.0
    rows = len(column)
    equal = float((counts * (counts - 1.0)).sum() / (rows * (rows - 1.0)))
    step = float(np.diff(values).min())
    if equal >= 0.25 or equal == 0.0:
        return max(1.0, step) if equal else 1.0
    shuffled = np.abs(column - np.roll(column[np.random.default_rng(0).permutation(rows)], 1))
    quarter = float(np.quantile(shuffled, 0.25))
    return max(1.0, quarter * equal / 0.25)


def _distances(rows: NDArray[np.float64], grains: Sequence[float]) -> NDArray[np.float64]:
    """The distance of each pair: the largest difference of any feature, in grains."""
    farthest = np.zeros((len(rows), len(rows)))
    for column, grain in zip(rows.T, grains, strict=True):
        np.maximum(farthest, np.abs(column[:, None] - column[None, :]) / grain, out=farthest)
    return farthest[np.triu_indices(len(rows), 1)]


def _grams(text: str | None) -> NDArray[np.uint64] | None:
    """The different 8-byte grams of a text, as numbers in order; None if it has none."""
    if text is None:
        return None
    words = "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
    data = np.frombuffer(" ".join(words).encode("utf-8", "surrogatepass"), dtype=np.uint8)
    if len(data) < _GRAM:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(data, _GRAM)
    return np.unique(np.ascontiguousarray(windows).view(np.uint64).ravel())


_Grams = Sequence[NDArray[np.uint64] | None]


def _overlap(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _alike(train: _Grams, test: _Grams) -> float:
    """The share of near pairs among sampled pairs within each set."""
    near = pairs = 0
    for side in (train, test):
        held = [grams for grams in side if grams is not None]
        few = [held[row] for row in np.random.default_rng(0).permutation(len(held))[:_TEXTS]]
        for row, grams in enumerate(few):
            pairs += row
            near += sum(_overlap(grams, other) >= JACCARD for other in few[:row])
    return near / pairs if pairs else 0.0


def _equal(train: _Grams, test: _Grams) -> float:
    """The share of equal texts among all pairs within each set."""
    equal = pairs = 0
    for side in (train, test):
        counts = Counter(grams.tobytes() for grams in side if grams is not None)
        total = counts.total()
        pairs += total * (total - 1) // 2
        equal += sum(count * (count - 1) // 2 for count in counts.values())
    return equal / pairs if pairs else 0.0


def _overlapping(train: _Grams, test: _Grams, known: dict[int, int]) -> dict[int, int]:
    buckets: dict[Any, list[int]] = {}
    for row, grams in enumerate(train):
        if grams is not None:
            for band in _band_keys(grams):
                buckets.setdefault(band, []).append(row)
    found: dict[int, int] = {}
    for row, grams in enumerate(test):
        if grams is None or row in known:
            continue
        candidates = dict.fromkeys(
            other for band in _band_keys(grams) for other in buckets.get(band, ())[:_BUCKET]
        )
        for other in candidates:
            held = train[other]
            if held is not None and _overlap(grams, held) >= JACCARD:
                found[row] = other
                break
    return found


_FACTORS = np.random.default_rng(0).integers(1, 2**63, _HASHES, dtype=np.uint64) | np.uint64(1)
_TERMS = np.random.default_rng(1).integers(0, 2**63, _HASHES, dtype=np.uint64)


def _band_keys(grams: NDArray[np.uint64]) -> Iterator[tuple[int, bytes]]:
    least = np.full(_HASHES, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(grams), _AT_ONCE):
        some = grams[start : start + _AT_ONCE, None]
        mixed = (some ^ (some >> np.uint64(33))) * _FACTORS + _TERMS
        np.minimum(least, (mixed ^ (mixed >> np.uint64(31))).min(axis=0), out=least)
    for band, part in enumerate(np.split(least, _BANDS)):
        yield band, part.tobytes()
