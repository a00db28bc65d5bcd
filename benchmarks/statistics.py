"""Whether verdicts keep their word: coverage of 95 % intervals, false alarms, power at the runs recommended.

Repeat with `python -m benchmarks statistics`: thousands of simulated experiments with a known truth. Intervals must
hold the true difference in 93 to 97 % of them, at most 6 % of experiments without a difference may show one, and at
the number of runs that was recommended for the true difference 75 to 85 % must find it.
"""

import math
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.limits import finish, within
from ml_assets.lib import hypothesis_tests as tests
from ml_assets.lib.significance import Rows, Sample, is_better

EXPERIMENTS = 100_000
BY_ROWS = 400
"""Experiments over rows, which are resampled one by one."""
COVERAGE, FALSE_ALARMS, POWER = (0.93, 0.97), 0.06, (0.75, 0.85)
LIMIT_S = 60.0
FOLDS = 10

Values = NDArray[np.float64]


def main() -> None:
    """Simulate, compare with the truth, print."""
    start = time.perf_counter()
    random = np.random.default_rng(0)
    report = Table("what", "test", "runs", "measured", "limit", "")
    for n in (3, 5, 10):
        for spread in (1.0, 3.0):
            a, b = random.normal(1, 1, (EXPERIMENTS, n)), random.normal(0, spread, (EXPERIMENTS, n))
            _intervals(report, f"Welch, spread 1:{spread:.0f}", n, tests.welch(a, b))
        common = random.normal(0, 2, (EXPERIMENTS, n))
        differences = (1 + common + random.normal(0, 1, common.shape)) - common
        _intervals(report, "paired", n, tests.paired(differences))
    # Differences over folds are correlated by the share of rows in a test (Nadeau & Bengio 2003).
    own, shared = random.normal(0, 1, (EXPERIMENTS, FOLDS)), random.normal(0, 1, (EXPERIMENTS, 1))
    folds = 1 + math.sqrt(1 / FOLDS) * shared + math.sqrt(1 - 1 / FOLDS) * own
    _intervals(report, "corrected resampled t", FOLDS, tests.paired(folds, 1 / (FOLDS - 1)))
    for effect in (0.5, 1.0, 1.5):
        for spread in (1.0, 3.0):
            n = tests.runs_for_power(effect, 1, spread**2)
            assert n is not None
            a, b = random.normal(effect, 1, (20_000, n)), random.normal(0, spread, (20_000, n))
            found = _share(tests.t_p(tests.welch(a, b)) <= 0.05)
            _between(report, "power", f"Welch, {effect} of spread 1:{spread:.0f}", n, found, POWER)
        n = tests.pairs_for_power(effect)
        assert n is not None
        found = _share(tests.t_p(tests.paired(random.normal(effect, 1, (20_000, n)))) <= 0.05)
        _between(report, "power", f"paired, {effect}", n, found, POWER)
    _rows(report, random)
    seconds = time.perf_counter() - start
    told = "within" if within("simulation", seconds, LIMIT_S) else "ABOVE"
    report.add_row("time", "all of it", "", f"{seconds:.1f} s", f"{LIMIT_S:.0f} s", told)
    Console(width=110).print(report)


def _intervals(report: Table, test: str, n: int, found: tests.Difference) -> None:
    """Coverage of a true difference of 1; false alarms after that 1 is taken away."""
    low, high = tests.t_interval(found)
    _between(report, "coverage", test, n, _share((low <= 1) & (high >= 1)), COVERAGE)
    alarms = _share(tests.t_p(found._replace(effect=found.effect - 1)) <= 0.05)
    _at_most(report, test, n, alarms, FALSE_ALARMS)


def _rows(report: Table, random: np.random.Generator) -> None:
    """Rows by the whole way through a verdict: right and wrong, real losses, losses of 30 and of 10 patients."""
    of_30, of_10 = np.repeat(np.arange(30), 5), np.repeat(np.arange(10), 15)
    alarms = dict.fromkeys(("McNemar", "bootstrap", "bootstrap, 30 groups", "bootstrap, 10 groups"), 0)
    for _ in range(BY_ROWS):
        hard = random.uniform(0, 1, 150)
        losses = [random.normal(hard, 1) for _ in "ab"]
        scores = (
            [(random.uniform(0, 1, 150) < hard).astype(float) for _ in "ab"],
            losses,
            [random.normal(0, 1, 30)[of_30] + loss for loss in losses],
            [random.normal(0, 1, 10)[of_10] + loss for loss in losses],
        )
        for name, pair, groups in zip(alarms, scores, (None, None, of_30, of_10), strict=True):
            of = None if groups is None else groups.tolist()
            a, b = (Sample(x, rows=Rows(s.tolist(), groups=of)) for x, s in zip("ab", pair, strict=True))
            alarms[name] += is_better(a, b, higher_is_better=True).better is not None
    for name, count in alarms.items():
        # So many experiments measure 5 % with an error of 1.1 %.
        _at_most(report, name, 150, count / BY_ROWS, FALSE_ALARMS + 2 * math.sqrt(0.05 * 0.95 / BY_ROWS))


def _between(
    report: Table, what: str, test: str, n: int, measured: float, limits: tuple[float, float]
) -> None:
    least, most = limits
    kept = [
        within(f"{what} of {test}, n={n}", measured, least, at_least=True),
        within(f"{what} of {test}, n={n}", measured, most),
    ]
    told = "within" if all(kept) else "MISSED"
    report.add_row(what, test, f"{n}", f"{measured:.1%}", f"{least:.0%} to {most:.0%}", told)


def _at_most(report: Table, test: str, n: int, measured: float, limit: float) -> None:
    told = "within" if within(f"false alarms of {test}, n={n}", measured, limit) else "ABOVE"
    report.add_row("false alarms", test, f"{n}", f"{measured:.1%}", f"{limit:.1%}", told)


def _share(hits: Values) -> float:
    return float(np.mean(hits))


if __name__ == "__main__":
    main()
    finish()
