"""Accuracy while labels are missing: what a model's confidence says of it, once the confidence has been checked.

What belongs here: confidence and right answers in, estimates out. The idea is that of confidence-based performance
estimation (CBPE): where a confidence of 0.8 is right four times in five, the mean confidence of answers is their
expected accuracy, whatever inputs they are to. So the confidence is calibrated first, by isotonic regression (Zadrozny
& Elkan 2002) on answers whose truth is known; and where the latest answers with a known truth show that this does not
hold any more, there is no estimate. A shift of the inputs alone leaves it in place for models whose confidence is right
for each kind of input, and a change of what is true for none; neither shows before the first labels come.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST = 100
"""Answers with a known truth that a calibration takes."""

TOLERANCE = 0.02
"""Difference between the accuracy that is expected and the one that is seen which is let pass beyond chance."""

CONFIDENT = 0.9
"""Share of answers that have to have a confidence, for what is estimated of these to be said of all."""

_DEVIATIONS = 2.5758
"""Of a normal distribution on both sides of which 1 % lies."""


_CHANCE = 0.01
"""Level at which a confidence tells right answers from wrong ones."""


@dataclass(frozen=True)
class Calibration:
    """How often an answer of a confidence is right.

    Args:
        confidences: ascending, from the lowest that was seen to the highest.
        rates: how often answers of each were right; never falling.
        count: answers that it is made of.
        fault: why nothing can be estimated by it, in a sentence; "" if something can.
    """

    confidences: NDArray[np.float64]
    rates: NDArray[np.float64]
    count: int
    fault: str = ""

    def rate(self, confidences: ArrayLike) -> NDArray[np.float64]:
        """How often answers of these confidences are right; between two that are known in a straight line."""
        return np.interp(np.asarray(confidences, float), self.confidences, self.rates)


@dataclass(frozen=True)
class Answers:
    """Answers of a model, one by one or counted by their confidence.

    Args:
        confidences: 0 to 1; those that are not finite are left out.
        correct: the share of right ones among the answers of each confidence: 1 and 0 for one answer. Empty where no
            truth is known.
        counts: how many answers each stands for; one each if None.

    Raises:
        ValueError: they are not as long as each other.
    """

    confidences: ArrayLike = ()
    correct: ArrayLike = ()
    counts: ArrayLike | None = None

    def known(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Confidence, share of right ones and count of what has all of them."""
        given, right = np.asarray(self.confidences, float), np.asarray(self.correct, float)
        if given.shape != right.shape:
            raise ValueError(f"{len(given)} confidences and {len(right)} answers; give one each")
        counts = self._counts(given)
        kept = np.isfinite(given) & np.isfinite(right) & (counts > 0)
        return given[kept], right[kept], counts[kept]

    def given(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Confidence and count, whether the truth is known or not."""
        given = np.asarray(self.confidences, float)
        counts = self._counts(given)
        kept = np.isfinite(given) & (counts > 0)
        return given[kept], counts[kept]

    def count(self) -> int:
        """How many there are, with a confidence or without."""
        return round(float(self._counts(np.asarray(self.confidences, float)).sum()))

    def _counts(self, given: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = np.ones(given.shape) if self.counts is None else np.asarray(self.counts, float)
        if counts.shape != given.shape:
            raise ValueError(f"{len(given)} confidences and {len(counts)} counts; give one each")
        return counts


@dataclass(frozen=True)
class Estimate:
    """An accuracy that nobody has seen yet.

    Args:
        state: `estimated`; or `not applicable`, where nothing can be said.
        accuracy: the share of right answers that is expected; None if not applicable.
        low, high: its 95 % interval, by the spread of right and wrong answers and of the calibration.
        count: answers that it is of.
        reason: why it can be believed or not, in a sentence.
    """

    state: Literal["estimated", "not applicable"]
    accuracy: float | None
    low: float | None
    high: float | None
    count: int
    reason: str


def calibrate(reference: Answers) -> Calibration | None:
    """Learn how often answers are right, by their confidence; None if fewer than `LEAST` say so.

    Args:
        reference: answers whose truth is known.
    """
    from scipy.optimize import isotonic_regression

    given, right, counts = reference.known()
    count = round(float(counts.sum()))
    if count < LEAST:
        return None
    at, place = np.unique(given, return_inverse=True)
    correct, all_of_them = (
        np.bincount(place, weights=each).astype(float) for each in (counts * right, counts)
    )
    fitted: Any = isotonic_regression(correct / all_of_them, weights=all_of_them)
    return Calibration(at, np.clip(fitted.x, 0, 1), count, _fault(at, correct, all_of_them - correct))


def estimate(calibration: Calibration | None, answers: Answers, *checks: Answers) -> Estimate:
    """The accuracy of answers whose truth is not known.

    Args:
        calibration: see `calibrate`.
        answers: those that are asked about.
        checks: the latest answers whose truth has become known since, by each group of which the calibration is held to
            account.
    """
    given, counts = answers.given()
    count = round(float(counts.sum()))
    if calibration is None:
        return _none(count, f"Fewer than {LEAST} answers of the reference have a known truth.")
    if calibration.fault:
        return _none(count, calibration.fault)
    if not count:
        return _none(0, "No answer has a confidence.")
    asked = answers.count()
    if count < CONFIDENT * asked:
        return _none(
            count, f"Only {count:,} of {asked:,} answers have a confidence, which says nothing of the others."
        )
    checked = 0
    for check in checks:
        recent, right, weights = check.known()
        seen_count = round(float(weights.sum()))
        if not seen_count:
            continue
        checked = max(checked, seen_count)
        rates = calibration.rate(recent)
        expected, seen = float(np.average(rates, weights=weights)), float(np.average(right, weights=weights))
        chance = _DEVIATIONS * math.sqrt(_variance(rates, weights) + 0.25 / calibration.count)
        if abs(expected - seen) > TOLERANCE + chance:
            return _none(
                count,
                f"Of the latest {seen_count:,} answers with a known truth {seen:.1%} were right, where their "
                f"confidence promised {expected:.1%}.",
            )
    rates = calibration.rate(given)
    accuracy = float(np.average(rates, weights=counts))
    spread = 1.96 * math.sqrt(_variance(rates, counts) + accuracy * (1 - accuracy) / calibration.count)
    told = f"checked by {checked:,} answers since" if checked else "not checked since, for want of labels"
    return Estimate(
        "estimated",
        accuracy,
        max(accuracy - spread, 0.0),
        min(accuracy + spread, 1.0),
        count,
        f"Calibrated on {calibration.count:,} answers with a known truth; {told}.",
    )


def _fault(at: NDArray[np.float64], right: NDArray[np.float64], wrong: NDArray[np.float64]) -> str:
    """Why confidence does not tell right answers from wrong ones, in a sentence; "" if it does.

    Args:
        at: distinct confidences, ascending.
        right, wrong: how many answers of each were right and wrong.
    """
    if len(at) == 1:
        return f"The confidence is {at[0]:g} in all answers of the reference, and tells nothing."
    if not right.any() or not wrong.any():
        return (
            f"All of the {(right + wrong).sum():,.0f} answers of the reference were "
            f"{'right' if right.any() else 'wrong'}: what another confidence would mean was never seen."
        )
    p = _rank_p(right, wrong)
    if p > _CHANCE:
        return f"In the reference, right answers have no higher confidence than wrong ones (p {p:.2g}): it tells nothing."
    return ""


def _rank_p(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    """The one-sided p value of Mann & Whitney (1947), with ties, that right ones are not higher than wrong ones.

    Args:
        right, wrong: counts over the same ascending values.
    """
    from scipy.stats import norm

    both, n_right, n_wrong = right + wrong, right.sum(), wrong.sum()
    u = float(np.sum(right * (np.cumsum(wrong) - wrong / 2)))
    n = n_right + n_wrong
    spread = n_right * n_wrong / 12 * ((n + 1) - np.sum(both**3 - both) / (n * (n - 1)))
    return float(norm.sf((u - n_right * n_wrong / 2) / math.sqrt(spread))) if spread > 0 else 1.0


def _variance(rates: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Of the share of right answers, each of which is right by its own chance."""
    return float(np.sum(counts * rates * (1 - rates))) / float(counts.sum()) ** 2


def _none(count: int, reason: str) -> Estimate:
    return Estimate("not applicable", None, None, None, count, reason)
