"""How well searches find what was judged to be an answer, and whether one way of searching is worse than another.

What belongs here: plain questions and ranked lists in, measures and verdicts out. What does not: reading judgments,
asking the stores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_assets.lib.significance import Rows, Sample, Verdict, is_better
from ml_assets.lib.words import counted

DEPTH = 10
"""Hits that are judged."""

MEASURES = ("ndcg", "recall", "reciprocal_rank")
"""nDCG@10, recall@10 and the reciprocal rank of the first answer among ten; their means over the questions are told."""

MARGIN = 0.01
"""Of nDCG@10: what costs no more is not inferior."""

LEVEL = 0.05
_RESAMPLES = 9_999


@dataclass(frozen=True)
class Question:
    """A question with the documents that were judged for it.

    Args:
        set_name: the judged set.
        id: within its set.
        text: as somebody would type it.
        relevance: by document, from 0 to 3.
    """

    set_name: str
    id: str
    text: str
    relevance: Mapping[str, int]


Values = dict[str, list[float]]
"""By measure a value for every question, in their order."""


def measured(questions: Sequence[Question], lists: Sequence[Sequence[str]]) -> Values:
    """The measures of one way of searching, by ir-measures.

    Args:
        lists: for each question the documents that were found, best first.
    """
    import ir_measures
    from ir_measures import RR, R, nDCG

    measures = {nDCG @ DEPTH: "ndcg", R @ DEPTH: "recall", RR @ DEPTH: "reciprocal_rank"}
    values = {name: [0.0] * len(questions) for name in MEASURES}
    judged = {str(n): dict(question.relevance) for n, question in enumerate(questions)}
    # Ranks in place of scores: ir-measures orders equal scores in its own way.
    found = {
        str(n): {document: float(-rank) for rank, document in enumerate(each)} for n, each in enumerate(lists)
    }
    for each in ir_measures.iter_calc(list(measures), judged, found):
        values[measures[each.measure]][int(each.query_id)] = float(each.value)
    return values


def compared(
    a: str, b: str, of_a: Sequence[float], of_b: Sequence[float], metric: str = "nDCG@10"
) -> Verdict:
    """Whether one way is better than another, question by question."""
    verdict = is_better(Sample(a, rows=Rows(of_a)), Sample(b, rows=Rows(of_b)), higher_is_better=True)
    return replace(
        verdict,
        metric=metric,
        unit="questions" if verdict.unit == "rows" else verdict.unit,
        reason=f"Both were asked the same {counted(verdict.n[0], 'question')}, which are compared in pairs.",
    )


@dataclass(frozen=True)
class Inferiority:
    """Whether something new is worse than what it would replace by more than the margin.

    Attributes:
        answer: `no` (it is not inferior), `yes`, or `undecidable`: the questions are too few to tell.
        effect: mean of the new one less that of the old one.
        p_not: chance of a mean as good as this if the new one were inferior by just the margin.
        p_inferior: chance of one as bad as this then.
        n: how many questions.
        what: is judged, in words.
        measure: that it is judged by.
    """

    answer: str
    effect: float
    p_not: float
    p_inferior: float
    n: int
    what: str = "new model"
    measure: str = "nDCG@10"

    def as_json(self) -> dict[str, Any]:
        """All of it, and the sentence."""
        return {**asdict(self), "sentence": str(self)}

    def __str__(self) -> str:
        told = {
            "no": f"is not worse by more than {MARGIN}",
            "yes": f"is worse by more than {MARGIN}",
            "undecidable": f"may or may not be worse by more than {MARGIN}: that takes more judgments",
        }[self.answer]
        chance = self.p_inferior if self.answer == "yes" else self.p_not
        return (
            f"The {self.what} {told} ({self.measure} {self.effect:+.4f} over {counted(self.n, 'question')}, "
            f"p = {chance:.3g}, paired randomisation)."
        )


def inferiority(
    new: Sequence[float],
    old: Sequence[float],
    margin: float = MARGIN,
    what: str = "new model",
    measure: str = "nDCG@10",
) -> Inferiority:
    """Whether the new one is inferior, by paired randomisation.

    If the new one were worse by just the margin, each difference plus the margin would as well have the other sign. The
    share of random signs that give a mean as high as the one seen is the p value of being no worse (one-sided, at 0.05).

    Args:
        new, old: a value for every question, in the same order.
        what, measure: as the sentence has them.
    """
    import numpy as np

    differences = np.asarray(new, float) - np.asarray(old, float)
    n = len(differences)
    if not n:
        return Inferiority("undecidable", 0.0, 1.0, 1.0, 0, what, measure)
    shifted = differences + margin
    random = np.random.default_rng(0)
    as_high = as_low = 0
    seen = float(shifted.mean())
    for _ in range(0, _RESAMPLES, 999):
        means = (random.choice((-1.0, 1.0), (999, n)) * shifted).mean(axis=1)
        as_high += int((means >= seen - 1e-12).sum())
        as_low += int((means <= seen + 1e-12).sum())
    drawn = len(range(0, _RESAMPLES, 999)) * 999
    p_not, p_inferior = ((count + 1) / (drawn + 1) for count in (as_high, as_low))
    answer = "no" if p_not <= LEVEL else "yes" if p_inferior <= LEVEL else "undecidable"
    return Inferiority(answer, float(differences.mean()), p_not, p_inferior, n, what, measure)
