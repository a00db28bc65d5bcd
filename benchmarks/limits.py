"""Limits of benchmarks: what a missed one prints, and how it ends the run. No benchmark itself."""

import sys

_missed: list[str] = []


def within(what: str, value: float, limit: float, at_least: bool = False) -> bool:
    """Whether a measurement keeps its limit; a missed one is remembered for `finish`.

    Args:
        what: names the measurement in the last line.
        at_least: the limit is the least that is wanted, not the most.
    """
    kept = value >= limit if at_least else value <= limit
    if not kept:
        _missed.append(f"{what} ({value:.3g}, {'at least' if at_least else 'at most'} {limit:.3g})")
    return kept


def verdict(what: str, value: float, limit: float) -> str:
    """`within` or `ABOVE`, for a table."""
    return "within" if within(what, value, limit) else "ABOVE"


def finish() -> None:
    """End with exit status 1 if a limit was missed; to be called after all measurements."""
    if _missed:
        sys.exit(f"Missed: {'; '.join(_missed)}.")
