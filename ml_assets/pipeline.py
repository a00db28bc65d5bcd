"""The two things that the command line does with the graph: refresh it, and make the demo.

Both run in this process, against the instance under `ML_ASSETS_HOME`, and both can be killed at any time:
the next one goes on.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from ml_assets import services
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.demo import Plan

Progress = Callable[[str, int, int], None]
"""Told how far a phase is: (phase, done, total); total 0 while it is unknown."""


@dataclass
class Report:
    """What a refresh or a demo did.

    Args:
        streams: per stream, rows read = loaded + superseded + quarantined.
        days: days that were rebuilt, ISO dates.
        runs: Dagster run ids.
        left_alone: reason by path for files that were not read.
        phases: wall time in seconds by phase.
    """

    streams: dict[str, dict[str, int]] = field(default_factory=dict)
    days: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    left_alone: dict[str, str] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall time of all phases."""
        return round(sum(self.phases.values()), 2)

    def as_json(self) -> dict[str, Any]:
        """The form of `ml-assets refresh --json`."""
        return {
            "streams": self.streams,
            "days": self.days,
            "runs": self.runs,
            "left_alone": self.left_alone,
            "seconds": self.seconds,
        }


def run_demo(settings: Settings, progress: Progress, plan: "Plan | None" = None) -> Report:
    """Start the services, train what the demo still lacks, and bring the graph up to date with it.

    Args:
        plan: what to train; everything if None.
    """
    from ml_assets.build import store_resources
    from ml_assets.instance import prepare_home

    prepare_home(settings)
    report = Report()
    with _phase(report, "services"):
        start_services(settings, progress)
    with _phase(report, "training"):
        from ml_assets.demo import make_demo

        make_demo(settings, progress, plan)
    with _phase(report, "intake"):
        from ml_assets.demo.withdrawal import retire_former

        stores = store_resources(settings)
        retire_former(settings, stores["lake"], stores["postgres"])
    return refresh_graph(settings, progress, report)


def start_services(settings: Settings, progress: Progress) -> None:
    """Start the embedded servers that the settings leave to us, side by side."""
    names = [
        name for name in services.SERVERS if settings.mode(name) == "embedded" and services.available(name)
    ]
    progress("services", 0, len(names))
    with ThreadPoolExecutor(len(names) or 1) as pool:
        for done, _ in enumerate(pool.map(lambda name: services.ensure(name, settings.home), names), 1):
            progress("services", done, len(names))


def refresh_graph(settings: Settings, progress: Progress, report: Report | None = None) -> Report:
    """Take in what is new, rebuild the days and the whole tables that it touches."""
    from ml_assets.build import build_defs
    from ml_assets.instance import open_instance
    from ml_assets.refresh import Refresher

    report = report or Report()
    with open_instance(settings) as instance:
        with _phase(report, "intake"):
            refresher = Refresher(settings, build_defs(settings), instance, progress)
            ingests = refresher.take_in()
        with _phase(report, "daily tables"):
            refresher.run_due_days()
        with _phase(report, "whole tables"):
            refresher.run_whole()
    report.streams = refresher.account(ingests)
    report.days = [day.isoformat() for day in sorted(refresher.days)]
    report.runs = refresher.runs
    report.left_alone = dict(sorted(refresher.left_alone.items()))
    return report


class _phase:
    """Adds the wall time of its block to a report."""

    def __init__(self, report: Report, name: str) -> None:
        self._report, self._name = report, name

    def __enter__(self) -> None:
        self._start = monotonic()

    def __exit__(self, *_: object) -> None:
        before = self._report.phases.get(self._name, 0.0)
        self._report.phases[self._name] = round(before + monotonic() - self._start, 2)
