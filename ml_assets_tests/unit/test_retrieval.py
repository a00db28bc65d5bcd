"""How well searches find what was judged."""

from math import log2

import numpy as np
import pytest

from ml_assets.lib.retrieval import MARGIN, Question, compared, inferiority, measured


def test_measures_are_those_of_their_definitions():
    questions = [
        Question("s", "graded", "q", {"a": 3, "b": 1, "c": 0}),
        Question("s", "nothing found", "q", {"a": 1}),
        Question("s", "beyond ten", "q", {"a": 1}),
        Question("s", "first", "q", {"z": 2, "y": 2}),
    ]
    values = measured(questions, [["c", "b", "a"], [], [*"bcdefghijk", "a"], ["z", "x"]])
    best = 3 + 1 / log2(3)
    assert values["ndcg"] == pytest.approx([(1 / log2(3) + 3 / 2) / best, 0, 0, 1 / (1 + 1 / log2(3))])
    assert values["recall"] == [1, 0, 0, 0.5]
    assert values["reciprocal_rank"] == [0.5, 0, 0, 1]


def test_the_order_of_what_was_found_counts_and_no_other():
    """Whatever the names of documents are."""
    question = Question("s", "q", "q", {"b": 1})
    for found, rank in ((["a", "b", "c"], 2), (["c", "b", "a"], 2), (["b", "c", "a"], 1)):
        assert measured([question], [found])["reciprocal_rank"] == [1 / rank]


def test_two_ways_are_compared_question_by_question():
    random = np.random.default_rng(1)
    words = random.uniform(0.5, 1, 80)
    verdict = compared("hybrid", "words", list(words - 0.2 + random.normal(0, 0.05, 80)), list(words))
    assert verdict.better is False
    assert "words is better than hybrid at nDCG@10" in str(verdict) and "80 questions" in str(verdict)
    same = compared("hybrid", "words", [1.0, 0.5], [1.0, 0.5])
    assert same.better is None and same.p == 1


@pytest.mark.parametrize(
    ("n", "change", "spread", "answer"),
    [
        (200, 0.0, 0.0, "no"),
        (200, 0.05, 0.1, "no"),
        (200, -0.1, 0.1, "yes"),
        (200, -0.01, 0.2, "undecidable"),
        (3, 0.0, 0.0, "undecidable"),  # however good, three questions prove nothing
        (0, 0.0, 0.0, "undecidable"),
    ],
)
def test_what_is_new_is_inferior_or_not_or_nobody_can_tell(n, change, spread, answer):
    random = np.random.default_rng(2)
    old = random.uniform(0, 1, n)
    found = inferiority(list(old + change + random.normal(0, spread, n)), list(old))
    assert found.answer == answer
    assert (found.n, str(found).count("nDCG@10")) == (n, 1)


def test_a_model_that_is_worse_by_just_the_margin_passes_once_in_twenty_times():
    random = np.random.default_rng(3)
    passed = [
        inferiority(random.normal(-MARGIN, 0.3, 60).tolist(), [0.0] * 60).answer == "no" for _ in range(200)
    ]
    assert 0.01 <= np.mean(passed) <= 0.1
