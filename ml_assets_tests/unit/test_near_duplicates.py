"""Near-duplicates: copies are found whatever their number, and what chance makes is not called one."""

import time

import numpy as np
import pytest

from ml_assets.lib.near_duplicates import near_rows, near_texts
from ml_assets_tests.scale import examples


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_single_copy_among_rows_of_five_features_is_found(random):
    train, test = random.normal(size=(500, 5)), random.normal(size=(100, 5))
    test[7] = train[123] + 1e-4
    found = near_rows(train, test)
    assert found.pairs == [(7, 123)]
    assert found.by_chance < 1e-6


def test_pairs_are_those_of_a_plain_comparison(random):
    train, test = random.normal(size=(400, 3)), random.normal(size=(400, 3))
    near = random.integers(0, 400, 60)
    test[:60] = train[near] + random.uniform(-2e-3, 2e-3, (60, 3))
    both = np.concatenate([train, test])
    scale = np.diff(np.quantile(both, [0.1, 0.9], axis=0), axis=0) / 2.563
    farthest = (np.abs(test[:, None] - train[None]) / scale).max(axis=2)
    found = near_rows(train, test)
    assert {row for row, _ in found.pairs} == set(np.flatnonzero((farthest <= 1e-3).any(axis=1)))
    assert all(farthest[row, other] <= 1e-3 for row, other in found.pairs)
    assert 0 < len(found.pairs) < 60


@pytest.mark.parametrize("missing", [0.0, 0.02])
def test_missing_infinite_and_coarse_values_are_compared(random, missing):
    train = np.column_stack([random.normal(size=(300, 4)), random.integers(0, 2, 300)])
    test = np.column_stack([random.normal(size=(90, 4)), random.integers(0, 2, 90)])
    for rows in (train, test):
        rows[random.random(rows.shape) < missing] = np.nan
    train[5, 0], train[5, 1:4] = np.inf, [0.1, 0.2, 0.3]
    test[4] = train[5]
    assert near_rows(train, test).pairs == [(4, 5)]
    test[4, 4] = 1 - test[4, 4]
    assert near_rows(train, test).pairs == []


CLEAN = {
    "one number": lambda random, n: random.normal(size=(n, 1)),
    "two numbers": lambda random, n: random.normal(size=(n, 2)),
    "numbers of one another": lambda random, n: np.sin(random.normal(size=(n, 1)) * np.arange(1, 6)),
    "yes or no": lambda random, n: random.integers(0, 2, (n, 5)).astype(float),
    "rounded": lambda random, n: random.normal(0.9, 0.05, (n, 3)).round(2),
    "counts": lambda random, n: random.poisson(3.0, (n, 4)).astype(float),
    "heavy tails": lambda random, n: random.standard_cauchy((n, 3)),
    "mostly missing": lambda random, n: np.where(
        random.random((n, 4)) < 0.8, np.nan, random.normal(size=(n, 4))
    ),
    "not yet known": lambda random, n: np.where(
        random.random((n, 1)) < 0.03, [[0.0, *[np.nan] * 5]], random.normal(size=(n, 6))
    ),
    "one value": lambda random, n: np.ones((n, 2)),
    "groups": lambda random, n: random.integers(0, 9, (n, 1)) + random.normal(0, 0.01, (n, 3)),
}


@pytest.mark.parametrize("kind", CLEAN)
def test_chance_makes_no_copies(kind):
    for seed in range(examples(10)):
        random = np.random.default_rng(seed)
        sizes = random.integers(1, 500, 2)
        found = near_rows(*(CLEAN[kind](random, int(size)) for size in sizes))
        assert found.pairs == [], (seed, sizes, found.by_chance, found.seen)


def test_it_takes_no_square_of_the_rows(random):
    train, test = random.normal(size=(50_000, 8)), random.normal(size=(20_000, 8))
    test[:3] = train[:3]
    started = time.perf_counter()
    assert near_rows(train, test).pairs == [(0, 0), (1, 1), (2, 2)]
    # All pairs would be a thousand million.
    assert time.perf_counter() - started < 20


WORDS = [f"word{n}" for n in range(3000)]


def test_texts_that_were_edited_are_found(random):
    texts = [" ".join(random.choice(WORDS, 60)) for _ in range(100)]
    train, test = texts[:80], texts[80:]
    test[3] = train[20].upper().replace(" ", ",  ", 7)
    words = train[50].split()
    words[30] = "another"
    test[9] = " ".join(words)
    test[11] = " ".join([*train[60].split()[:30], *test[11].split()[:30]])
    assert near_texts([*train, None, "short"], [*test, None, "short"]).pairs == [(3, 20), (9, 50)]


def test_texts_of_one_form_are_no_copies_unless_they_are_equal(random):
    form = "The model {} was trained on the dataset of that day, as it is every day, by a run at night, and ended well."
    texts = [form.format(n) for n in range(200)]
    assert near_texts(texts[:150], texts[150:]).pairs == []
    assert near_texts(texts[:150], [*texts[150:], texts[0]]).pairs == [(50, 0)]
    usual = [texts[n] for n in random.integers(0, 5, 100)]
    assert near_texts(usual[:70], usual[70:]).pairs == []


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_any_cell_are_compared(random):
    train, test = random.normal(size=(300, 4)), random.normal(size=(90, 4))
    train[5, 0], test[7] = 1e300, [-1e300, 1e300, 0, 0]
    test[4] = train[5]
    assert near_rows(train, test).pairs == [(4, 5)]
