"""The demo: models that are really trained, so that there is something true to look at.

Scikit-learn models are trained on the datasets that ship with scikit-learn, as if day by day over the last
fortnight: day k trains on the rows that had arrived by day k, and day k's models are judged on the rows of
day k+1. Only the stamps are replayed (tag `replayed=true`); metrics, predictions, failures, times and memory
are what happened. From day 10 the digits come from a scanner whose lamp fails: their inputs really change.

Runs go into the embedded MLflow store and, for a team that has no MLflow, into landing files; events,
predictions and documents into landing files.
"""

from collections.abc import Callable

from ml_assets.demo.manifest import Day, Manifest
from ml_assets.demo.plan import Plan
from ml_assets.demo.report import DemoReport
from ml_assets.settings import Settings

__all__ = ["Day", "DemoReport", "Manifest", "Plan", "make_demo"]

Progress = Callable[[str, int, int], None]
"""Told how far a phase is: (phase, done, total)."""


def make_demo(settings: Settings, progress: Progress | None = None, plan: Plan | None = None) -> DemoReport:
    """Make the demo's input under `settings.home`, or what an earlier call left undone of it.

    A complete demo is left alone, unless `settings.demo_end` asks for another fortnight. A call that was
    killed goes on: finished days stay as they are, the unfinished one is cleaned up and redone.

    Args:
        settings: home, embedded MLflow store, and the last replayed day (yesterday, UTC, if None).
        progress: told after every model that was trained.
        plan: what to train; everything if None.

    Raises:
        Refusal: the manifest cannot be read, or the fortnight does not lie in the past.
    """
    manifest = Manifest.read(settings.home)
    if manifest and not manifest.leaving and manifest.complete and settings.demo_end in (None, manifest.end):
        return DemoReport.of(manifest, trained=False)
    # Only here: scikit-learn and MLflow take seconds to import.
    from ml_assets.demo.replay import replay

    return replay(settings, progress or (lambda phase, done, total: None), plan or Plan())
