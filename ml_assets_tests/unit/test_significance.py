"""Is it really better: textbook cases, what must not be answered, and simulations that can fail."""

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ml_assets.lib import hypothesis_tests as tests
from ml_assets.lib.significance import Rows, Sample, better_of, is_better

SLEEP_A = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
SLEEP_B = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)
"""Student's own example (1908): hours of sleep that ten patients gained by each of two drugs."""

DEMSAR = {
    "C4.5": "763 599 954 628 882 936 661 583 775 1000 940 619 972 957",
    "C4.5+m": "768 591 971 661 888 931 668 583 838 1000 962 666 981 978",
    "C4.5+cf": "771 590 968 654 886 916 609 563 866 1000 965 614 975.1 946",
    "C4.5+m+cf": "798 569 967 657 898 931 685 625 875 1000 962 669 975 970",
}
"""Table 6 of Demsar (2006): AUC of four learners on 14 datasets, in thousandths.

Of the two 0.975 on one dataset the paper ranks C4.5+cf first, from digits that it does not print.
"""


def of(name: str, values, **more) -> Sample:
    return Sample(name, values, **more)


def test_runs_of_the_same_seeds_are_compared_pair_by_pair():
    seeds = range(10)
    # The second group's runs come in another order.
    b = of("b", SLEEP_B[::-1], seeds=list(seeds)[::-1])
    verdict = is_better(of("a", SLEEP_A, seeds=seeds), b, higher_is_better=True)
    assert (verdict.test, verdict.n, verdict.unit) == ("paired t", (10, 10), "pairs")
    assert verdict.better is False
    assert verdict.effect == pytest.approx(-1.58)
    assert verdict.p == pytest.approx(0.002833, abs=1e-6)
    assert verdict.interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert "same 10 seeds" in verdict.reason
    assert verdict.needed == 0
    assert is_better(of("a", SLEEP_A, seeds=seeds), b, higher_is_better=False).better is True


def test_independent_groups_are_compared_by_welch():
    verdict = is_better(of("a", SLEEP_A), of("b", SLEEP_B), higher_is_better=True)
    assert (verdict.test, verdict.better) == ("Welch t", None)
    assert verdict.p == pytest.approx(0.07939, abs=1e-5)
    assert verdict.interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert "independent" in verdict.reason


def test_welch_agrees_with_scipy_for_groups_of_unlike_size_and_spread():
    random = np.random.default_rng(1)
    a, b = random.normal(0, 1, 4), random.normal(1, 5, 9)
    verdict = is_better(of("a", a), of("b", b), higher_is_better=True)
    theirs: Any = stats.ttest_ind(a, b, equal_var=False)
    assert verdict.p == pytest.approx(theirs.pvalue)
    assert verdict.interval == pytest.approx(tuple(theirs.confidence_interval()))


def test_groups_with_other_seeds_are_not_paired():
    a, b = of("a", SLEEP_A, seeds=range(10)), of("b", SLEEP_B, seeds=range(10, 20))
    assert is_better(a, b, higher_is_better=True).test == "Welch t"


def test_runs_without_a_partner_are_left_out_and_counted():
    a = of("a", (*SLEEP_A, 9.0), seeds=range(11))
    verdict = is_better(a, of("b", SLEEP_B, seeds=range(10)), higher_is_better=True)
    assert verdict.n == (10, 10)
    assert "without a partner left out: 1 of a, 0 of b" in verdict.reason


def test_folds_are_corrected_for_their_shared_training_rows():
    """By hand: mean 3, variance 2.5, (1/5 + (1/5)/(4/5)) * 2.5 = 1.125, t = 3 / 1.0607 = 2 * sqrt(2)."""
    a, b = of("a", (1, 2, 3, 4, 5), splits=range(5)), of("b", (0, 0, 0, 0, 0), splits=range(5))
    verdict = is_better(a, b, higher_is_better=True)
    assert (verdict.test, verdict.unit) == ("corrected resampled t", "folds")
    assert verdict.p == pytest.approx(2 * stats.t.sf(2 * math.sqrt(2), 4))
    low, high = verdict.interval or (0, 0)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 4) * math.sqrt(1.125))
    half = of("a", (1, 2, 3, 4, 5), splits=range(5), test_fraction=0.5)
    assert (is_better(half, b, higher_is_better=True).p or 0) > (verdict.p or 1)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        pytest.param(121, 59, 5.450094825427117e-06, id="chi-square 20.672"),
        pytest.param(6, 16, 0.052479, id="exact"),
        pytest.param(0, 0, 1.0, id="no discordant row"),
        pytest.param(13, 12, 1.0, id="even"),
    ],
)
def test_right_and_wrong_on_the_same_rows_is_mcnemars_test(only_a, only_b, p):
    a = [1] * 30 + [1] * only_a + [0] * only_b + [0] * 20
    b = [1] * 30 + [0] * only_a + [1] * only_b + [0] * 20
    verdict = is_better(of("a", (0.8,), rows=Rows(a)), of("b", (0.7,), rows=Rows(b)), higher_is_better=True)
    assert (verdict.test, verdict.unit, verdict.n) == ("McNemar", "rows", (len(a), len(a)))
    assert verdict.effect == pytest.approx((only_a - only_b) / len(a))
    assert verdict.p == pytest.approx(p, rel=1e-4)


def test_the_interval_of_mcnemar_is_that_of_the_textbook():
    """Agresti's two surveys of 1,600 voters: 150 and 86 changed their minds; 0.02 to 0.06."""
    assert tests.mcnemar_interval(150, 86, 1600) == pytest.approx((0.02, 0.06), abs=0.002)


def test_rows_are_matched_by_their_ids():
    a = Rows([1, 1, 0, 1], ids=["p", "q", "r", "only a"])
    b = Rows([0, 1, 1], ids=["r", "q", "p"])
    verdict = is_better(Sample("a", rows=a), Sample("b", rows=b), higher_is_better=True)
    assert (verdict.n, verdict.effect, verdict.p) == ((3, 3), 0.0, 1.0)
    verdict = is_better(Sample("a", rows=a), Sample("b", rows=Rows(b.scores)), higher_is_better=True)
    assert (verdict.p, verdict.test) == (None, None)
    assert "give ids" in verdict.reason


def test_real_losses_are_resampled_in_pairs():
    random = np.random.default_rng(2)
    common = random.normal(5, 3, 300)
    a, b = common + random.normal(0, 1, 300), common + random.normal(0.3, 1, 300)
    verdict = is_better(
        Sample("a", rows=Rows(a.tolist())), Sample("b", rows=Rows(b.tolist())), higher_is_better=False
    )
    assert (verdict.test, verdict.better) == ("paired bootstrap (BCa)", True)
    theirs: Any = stats.ttest_rel(a, b)
    assert verdict.interval == pytest.approx(tuple(theirs.confidence_interval()), abs=0.02)
    assert verdict.p == pytest.approx(theirs.pvalue, abs=0.005)


def test_rows_of_one_group_are_resampled_together():
    random = np.random.default_rng(3)
    patients = np.repeat(np.arange(20), 15)
    a = (random.normal(0.2, 1, 20)[patients] + random.normal(0, 0.2, 300)).tolist()
    plain = is_better(Sample("a", rows=Rows(a)), Sample("b", rows=Rows([0.0] * 300)), higher_is_better=True)
    grouped = is_better(
        Sample("a", rows=Rows(a, groups=patients.tolist())),
        Sample("b", rows=Rows([0.0] * 300)),
        higher_is_better=True,
    )
    assert grouped.test == "clustered paired bootstrap (BCa)"
    assert grouped.interval is not None and plain.interval is not None
    wider = (grouped.interval[1] - grouped.interval[0]) / (plain.interval[1] - plain.interval[0])
    assert 3 < wider < 4.5  # sqrt(15) for rows that tell the same


def test_two_groups_of_rows_prove_little_however_many_rows_they_have():
    a = Rows(np.linspace(1, 2, 400).tolist(), groups=[0] * 200 + [1] * 200)
    verdict = is_better(Sample("a", rows=a), Sample("b", rows=Rows([0.0] * 400)), higher_is_better=True)
    assert (verdict.better, verdict.p) == (None, pytest.approx(0.24, abs=0.02))
    one = is_better(
        Sample("a", rows=Rows(a.scores, groups=[0] * 400)),
        Sample("b", rows=Rows([0.0] * 400)),
        higher_is_better=True,
    )
    assert (one.p, one.test) == (None, None) and "one observation" in one.reason


def test_right_and_wrong_of_grouped_rows_is_not_mcnemars():
    a, b = Rows([1, 1, 1, 0] * 10, groups=[*range(20)] * 2), Rows([0, 1, 0, 1] * 10)
    verdict = is_better(Sample("a", rows=a), Sample("b", rows=b), higher_is_better=True)
    assert (verdict.test or "").startswith("clustered")


def demsar() -> list[Sample]:
    return [
        of(name, [float(auc) / 1000 for auc in row.split()], datasets=range(14))
        for name, row in DEMSAR.items()
    ]


def test_friedman_and_nemenyi_are_those_of_demsar():
    groups = demsar()
    ranks = tests.friedman(np.array([group.values for group in groups]).T, higher_is_better=True)
    assert ranks.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=0.001)
    assert ranks.chi_square == pytest.approx(9.28, abs=0.02)
    assert ranks.f == pytest.approx(3.69, abs=0.01)
    assert 0.01 < ranks.p < 0.05
    verdicts = {(v.a, v.b): v for v in better_of(*groups, higher_is_better=True)}
    # The critical difference is 1.25: no pair is that far apart, though the closest is 1.18.
    assert all(v.better is None and v.test == "Friedman, Nemenyi" for v in verdicts.values())
    assert verdicts["C4.5", "C4.5+m+cf"].p == pytest.approx(0.074, abs=0.01)
    assert stats.studentized_range.sf(2.569 * math.sqrt(2), 4, np.inf) == pytest.approx(0.05, abs=1e-3)


def test_two_groups_on_several_datasets_are_compared_dataset_by_dataset():
    a, b = demsar()[:2]
    verdict = is_better(a, b, higher_is_better=True)
    assert (verdict.test, verdict.n) == ("paired t over datasets", (14, 14))
    assert verdict.p == pytest.approx(stats.ttest_rel(a.values, b.values).pvalue)


def test_few_datasets_in_full_agreement_do_not_prove_much():
    table = [[1, 2, 3], [1, 2, 3]]
    assert tests.friedman(table, higher_is_better=True).p == pytest.approx(1 / 6)
    assert tests.friedman([[1, 1, 1]] * 6, higher_is_better=True).p == 1.0


def test_several_comparisons_are_corrected_by_holm():
    assert tests.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    random = np.random.default_rng(4)
    groups = [of(name, random.normal(mean, 1, 8)) for name, mean in (("a", 0), ("b", 0.9), ("c", 3))]
    verdicts = better_of(*groups, higher_is_better=True)
    alone = [
        is_better(groups[i], groups[j], higher_is_better=True).p or 0.0 for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert [v.p for v in verdicts] == pytest.approx(tests.holm(alone))
    assert [(v.a, v.b) for v in verdicts] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all("3 comparisons (Holm)" in v.reason for v in verdicts)
    with pytest.raises(ValueError, match="names of their own"):
        better_of(groups[0], groups[0], higher_is_better=True)


@pytest.mark.parametrize(("effect", "runs", "pairs"), [(0.5, 64, 34), (0.8, 26, 15), (50.0, 2, 2)])
def test_runs_for_power_are_those_of_cohens_tables(effect, runs, pairs):
    assert tests.runs_for_power(effect, 1, 1) == runs
    assert tests.pairs_for_power(-effect) == pairs


def test_no_number_of_runs_is_told_where_there_is_none():
    assert tests.runs_for_power(0, 1, 1) is None
    assert tests.runs_for_power(0.001, 1, 1) is None
    assert tests.pairs_for_power(0.5, test_to_train=0.25) is None  # More folds do not make more rows.


@pytest.mark.parametrize(("candidates", "expected"), [(1, 0), (2, 0.5642), (3, 0.8463), (20, 1.8675)])
def test_the_expected_best_of_several_is_that_of_order_statistics(candidates, expected):
    assert tests.expected_maximum(candidates) == pytest.approx(expected, abs=1e-4)


def test_what_was_selected_is_told_with_its_luck():
    a, b = (0.90, 0.92, 0.94, 0.96), (0.88, 0.90, 0.92, 0.93)
    verdict = is_better(of("a", a, candidates=20), of("b", b), higher_is_better=True)
    assert verdict.selected and verdict.better is None
    assert verdict.selection_bias == pytest.approx(1.8675 * np.std(a, ddof=1) / 2, abs=1e-5)
    assert "best of 20 candidates" in verdict.reason and "fresh seeds" in verdict.reason
    # What leads here is not what was selected.
    assert not is_better(of("a", b, candidates=20), of("b", a), higher_is_better=True).selected


@pytest.mark.parametrize(
    ("a", "told"),
    [
        pytest.param((0.9,), "1 of a and 3 of b", id="one run"),
        pytest.param((), "0 of a and 3 of b", id="none"),
        pytest.param((0.9, math.nan, None, math.inf), "3 runs of a without a finite value", id="one is left"),
        pytest.param((math.nan, math.nan), "2 runs of a without a finite value", id="all are NaN"),
    ],
)
def test_too_few_runs_give_no_number(a, told):
    verdict = is_better(of("a", a), of("b", (0.8, 0.7, 0.9)), higher_is_better=True)
    numbers = (verdict.effect, verdict.standardized, verdict.p, verdict.interval, verdict.needed)
    assert (verdict.better, *numbers) == (None,) * 6
    assert "Not enough runs" in verdict.reason and told in verdict.reason


@pytest.mark.parametrize("seeds", [None, (1, 2, 3)])
@pytest.mark.filterwarnings("error")
def test_the_same_values_differ_in_nothing(seeds):
    verdict = is_better(
        of("a", (0.5, 0.5, 0.5), seeds=seeds), of("b", (0.5, 0.5, 0.5), seeds=seeds), higher_is_better=True
    )
    assert (verdict.effect, verdict.p, verdict.better, verdict.needed) == (0.0, 1.0, None, None)
    assert "no difference" in verdict.reason


@pytest.mark.filterwarnings("error")
def test_a_difference_without_spread_is_judged_by_its_sign():
    a, b = (0.7, 0.8, 0.9), (0.6, 0.7, 0.8)  # 0.1 each, but for rounding
    pairs = is_better(of("a", a, seeds=(1, 2, 3)), of("b", b, seeds=(1, 2, 3)), higher_is_better=True)
    assert (pairs.p, pairs.better, pairs.interval) == (0.25, None, None)
    assert "the same in each pair" in pairs.reason
    groups = is_better(of("a", (0.7,) * 5), of("b", (0.6,) * 5), higher_is_better=True)
    assert (groups.p, groups.better) == (pytest.approx(2 / 252), True)
    one_varies = is_better(of("a", (0.7,) * 5), of("b", (0.5, 0.6, 0.7, 0.6, 0.6)), higher_is_better=True)
    theirs: Any = stats.ttest_1samp((0.5, 0.6, 0.7, 0.6, 0.6), 0.7)
    assert one_varies.p == pytest.approx(theirs.pvalue)


def test_datasets_that_are_not_shared_are_left_out_or_warned_of():
    a = of("a", (1.0, 2.0, 3.0, 99.0), seeds=(1, 2, 3, 1), datasets=("iris", "iris", "iris", "wine"))
    b = of("b", (1.1, 2.3, 3.1), seeds=(1, 2, 3), datasets=("iris",) * 3)
    verdict = is_better(a, b, higher_is_better=True)
    assert (verdict.n, "1 run of a on datasets of its own" in verdict.reason) == ((3, 3), True)
    apart = is_better(a, of("b", (1.1, 2.3), datasets=("digits",) * 2), higher_is_better=True)
    assert "share no dataset" in apart.reason and apart.test == "Welch t"


def test_labels_that_are_not_as_many_as_the_values_are_refused():
    with pytest.raises(ValueError, match="2 values and 1 seeds"):
        of("a", (1.0, 2.0), seeds=(1,))
    with pytest.raises(ValueError, match="above 0 and below 1"):
        of("a", (1.0, 2.0), test_fraction=1.0)


def test_tests_keep_their_level_where_there_is_no_difference():
    random = np.random.default_rng(5)
    a, b = random.normal(0, 1, (2, 20_000, 5))
    assert 0.03 < (tests.t_p(tests.welch(a, b)) < 0.05).mean() < 0.056
    assert 0.045 < (tests.t_p(tests.paired(a - b)) < 0.05).mean() < 0.055
    # Differences over ten folds, correlated as Nadeau & Bengio take them to be.
    folds = math.sqrt(0.1) * a[:, :1] + math.sqrt(0.9) * random.normal(0, 1, (20_000, 10))
    assert (tests.t_p(tests.paired(folds)) < 0.05).mean() > 0.12
    assert 0.04 < (tests.t_p(tests.paired(folds, 1 / 9)) < 0.05).mean() < 0.06


def told(a, b, higher_is_better=True) -> str:
    verdict = is_better(of("cats", a), of("dogs", b), higher_is_better)
    return str(replace(verdict, metric="accuracy"))


def test_a_verdict_is_a_sentence():
    better = r"is better than (cats|dogs) at accuracy by 0\.09667 \(95 % interval 0\.06\d+ to 0\.1\d+, p = .*, Welch"
    assert re.match(f"cats {better} t over 3 and 3 runs", told((0.9, 0.91, 0.92), (0.8, 0.81, 0.83)))
    assert re.match(f"cats {better}", told((0.8, 0.81, 0.83), (0.9, 0.91, 0.92), False))
    assert re.match(f"dogs {better}", told((0.8, 0.81, 0.83), (0.9, 0.91, 0.92)))
    near = told((0.9, 0.8, 0.7), (0.79, 0.78, 0.77))
    assert near.startswith(
        "Neither of cats and dogs is shown to be better at accuracy: cats less dogs is +0.02 (95 %"
    )
    assert near.endswith("more runs of each.")
    same = told((0.5, 0.5), (0.5, 0.5))
    assert "cats less dogs is +0 (p = 1, Welch t over 2 and 2 runs). " in same and same.endswith(
        "no difference in any run."
    )
    one = told((0.9,), (0.8, 0.81))
    assert one == (
        "Whether cats is better than dogs at accuracy cannot be said. Not enough runs: 1 of cats and 2 of dogs; two of "
        "each are the least."
    )


def test_a_verdict_is_json():
    verdict = is_better(of("a", SLEEP_A), of("b", SLEEP_B), higher_is_better=True)
    known = json.loads(json.dumps(verdict.as_json()))
    assert known["interval"] == list(verdict.interval or ())
    assert (known["n"], known["test"], known["sentence"]) == ([10, 10], "Welch t", str(verdict))
