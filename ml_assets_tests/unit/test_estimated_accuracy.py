from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.naive_bayes import GaussianNB

from ml_assets.lib.estimated_accuracy import Answers, calibrate, estimate


def answers(seed, model):
    """A real model, its answers to inputs of the same kind, and to inputs of which most are hard."""
    made: Any = make_classification(
        12_000, 12, n_informative=5, n_redundant=3, class_sep=0.8, flip_y=0.05, random_state=seed
    )
    x, y = made
    fitted = model.fit(x[:3000], y[:3000])

    def asked(rows):
        shares = fitted.predict_proba(x[rows])
        return shares.max(axis=1), shares.argmax(axis=1) == y[rows]

    reference = np.arange(3000, 7000)
    later = np.arange(7000, 12_000)
    # Inputs shift, and what is true of an input does not: those far out on one side come more often.
    far = np.exp(0.8 * (x[later, 0] - x[:, 0].mean()) / x[:, 0].std())
    shifted = np.random.default_rng(seed).choice(later, 4000, p=far / far.sum())
    return asked(reference), asked(shifted)


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(max_iter=60, learning_rate=0.05, random_state=0),
        RandomForestClassifier(60, min_samples_leaf=3, random_state=0),
    ],
)
def test_the_estimate_is_what_labels_say_later_when_only_inputs_shift(model):
    errors, within = [], 0
    for seed in range(3):
        (confidence, correct), (later, truth) = answers(seed, model)
        found = estimate(
            calibrate(Answers(confidence[:2000], correct[:2000])),
            Answers(later),
            Answers(confidence[2000:], correct[2000:]),
        )
        assert found.state == "estimated" and found.accuracy is not None, found.reason
        errors.append(abs(found.accuracy - truth.mean()))
        within += (found.low or 0) <= truth.mean() <= (found.high or 1)
    print(f"{type(model).__name__}: off by {np.mean(errors):.4f} at the mean, {max(errors):.4f} at most")
    assert np.mean(errors) < 0.02
    assert within >= 2


def test_a_model_whose_confidence_does_not_bear_a_shift_is_told_by_the_first_labels():
    """Naive Bayes is sure where it has seen nothing: its estimates are wrong until somebody looks."""
    told = 0
    for seed in range(6):
        (confidence, correct), (later, truth) = answers(seed, GaussianNB())
        calibration = calibrate(Answers(confidence, correct))
        unchecked = estimate(calibration, Answers(later)).accuracy or 0
        found = estimate(calibration, Answers(later[1000:]), Answers(later[:1000], truth[:1000]))
        told += found.state == "not applicable"
        assert found.state == "not applicable" or abs(unchecked - truth.mean()) < 0.06
    assert told


def test_a_calibration_that_is_lost_is_told():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 4000)
    correct = rng.random(4000) < confidence
    calibration = calibrate(Answers(confidence, correct))
    # What is true has changed: the model is as sure as before, and right less often.
    wrong = rng.random(1000) < confidence[:1000] - 0.15
    answers, held = Answers(confidence), Answers(confidence[:1000], correct[:1000])
    found = estimate(calibration, answers, held, Answers(confidence[:1000], wrong))
    assert (found.state, found.accuracy) == ("not applicable", None)
    assert "were right, where their confidence promised" in found.reason
    kept = estimate(calibration, answers, held)
    assert kept.state == "estimated" and kept.accuracy == pytest.approx(0.75, abs=0.02)


def test_answers_that_are_counted_say_what_they_say_one_by_one():
    rng = np.random.default_rng(2)
    confidence = rng.integers(50, 101, 3000) / 100
    correct = rng.random(3000) < confidence
    at, place = np.unique(confidence, return_inverse=True)
    counts = np.bincount(place)
    counted = Answers(at, np.bincount(place, weights=correct) / counts, counts)
    single = Answers(confidence, correct)
    one, other = (estimate(calibrate(each), each, each) for each in (single, counted))
    assert one.reason == other.reason and one.count == other.count == 3000
    assert (one.accuracy, one.low, one.high) == pytest.approx(
        (other.accuracy, other.low, other.high), abs=1e-12
    )


def test_what_says_too_little_gives_no_estimate():
    assert calibrate(Answers([0.9] * 99, [True] * 99)) is None
    few = estimate(None, Answers([0.9]))
    assert (few.state, few.reason) == (
        "not applicable",
        "Fewer than 100 answers of the reference have a known truth.",
    )
    calibration = calibrate(Answers([0.9, 0.6] * 100, [True, False] * 100))
    assert estimate(calibration, Answers([np.nan])).reason == "No answer has a confidence."
    assert estimate(calibration, Answers([0.9, np.nan, 0.9])).count == 2
    with pytest.raises(ValueError, match="2 confidences and 1 answers"):
        calibrate(Answers([0.1, 0.2], [True]))
    with pytest.raises(ValueError, match="2 confidences and 1 counts"):
        estimate(calibration, Answers([0.1, 0.2], counts=[3]))


def test_a_confidence_that_tells_nothing_gives_no_estimate():
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.3, 1, 1000)
    for given, correct, told in (
        ([0.7] * 200, [True, False] * 100, "The confidence is 0.7 in all answers of the reference"),
        (confidence, [True] * 1000, "All of the 1,000 answers of the reference were right"),
        (
            confidence,
            rng.permutation(rng.random(1000) < confidence),
            "right answers have no higher confidence",
        ),
    ):
        found = estimate(calibrate(Answers(given, correct)), Answers(confidence))
        assert found.state == "not applicable"
        assert told in found.reason
