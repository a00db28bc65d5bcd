"""Whether one version of a model does better than the one before it, from counts, means and deviations alone.

What belongs here: intervals and tests on moments. What does not: where the moments come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite, sqrt

from ml_assets.lib.hypothesis_tests import Difference, holm, t_interval, t_p, welch_of_moments

TEST = "Welch t, Holm over versions and metrics"
LEVEL = 0.05


@dataclass(frozen=True)
class Moments:
    """What is known of one metric of one version.

    Args:
        count: number of values.
        mean: of them; None without any.
        deviation: sample standard deviation; None for fewer than two values.
    """

    count: int
    mean: float | None
    deviation: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean by Student's t; None for fewer than two finite values."""
        if self.mean is None or self.deviation is None or not isfinite(self.deviation):
            return None
        low, high = t_interval(Difference(self.mean, self.deviation / sqrt(self.count), self.count - 1))
        return float(low), float(high)


@dataclass(frozen=True)
class Compared:
    """One version beside the one before it.

    Args:
        differences: of the means, by metric, this version's less the other's; None where one of them has no values.
        ps: corrected p values, by metric; None where nothing could be tested.
        differs: metrics in which the two differ at 5 %.
        note: why something was not tested, or "".
    """

    differences: Mapping[str, float | None] = field(default_factory=dict)
    ps: Mapping[str, float | None] = field(default_factory=dict)
    differs: tuple[str, ...] = ()
    note: str = ""


def each_with_the_one_before(versions: Sequence[Mapping[str, Moments]]) -> list[Compared]:
    """Compare each version with the one before it, p values corrected for all that is tested.

    Args:
        versions: the metrics of each, the oldest version first.

    Returns:
        One for each version; that of the first is empty.
    """
    raw: dict[tuple[int, str], float] = {}
    found: list[tuple[dict[str, float | None], list[str]]] = []
    for number, (old, new) in enumerate(pairwise(versions)):
        differences: dict[str, float | None] = {}
        notes = []
        for metric in new:
            a, b = new[metric], old[metric]
            differences[metric] = None if a.mean is None or b.mean is None else a.mean - b.mean
            p = _p(a, b)
            if p is not None:
                raw[number, metric] = p
            elif a.count or b.count:
                notes.append(
                    f"{metric} is not tested: {a.count:,} values and {b.count:,} before, and two of each that "
                    "are not all alike are the least"
                )
        found.append((differences, notes))
    corrected = dict(zip(raw, holm(list(raw.values())), strict=True)) if raw else {}
    compared = [Compared()] if versions else []
    for number, (differences, notes) in enumerate(found):
        ps = {metric: corrected.get((number, metric)) for metric in differences}
        differs = tuple(metric for metric, p in ps.items() if p is not None and p <= LEVEL)
        compared.append(Compared(differences, ps, differs, "; ".join(notes)))
    return compared


def _p(a: Moments, b: Moments) -> float | None:
    """The p value of two means; None where they cannot be tested."""
    if a.mean is None or b.mean is None or a.deviation is None or b.deviation is None:
        return None
    difference = welch_of_moments((a.mean, a.deviation**2, a.count), (b.mean, b.deviation**2, b.count))
    if not isfinite(float(difference.error)):
        return None
    if float(difference.error) == 0.0:
        return 1.0 if difference.effect == 0.0 else None
    return float(t_p(difference))
