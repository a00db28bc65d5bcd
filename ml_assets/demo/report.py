"""What a demo holds, added up."""

from dataclasses import dataclass, field
from datetime import date

from ml_assets.demo.manifest import Manifest


@dataclass(frozen=True)
class DemoReport:
    """What the demo holds.

    Args:
        start, end: first and last replayed day, UTC.
        trained: False if everything was there already.
        runs: training runs, in MLflow and in landing files; `failed` of them failed.
        events, predictions, documents, judgments: rows in landing files.
        seconds: wall time by phase, of the calls that made it.
    """

    start: date
    end: date
    trained: bool
    runs: int = 0
    failed: int = 0
    events: int = 0
    predictions: int = 0
    documents: int = 0
    judgments: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, trained: bool) -> "DemoReport":
        """The sum over the manifest's days."""
        counts: dict[str, int] = {}
        seconds: dict[str, float] = {}
        for day in manifest.finished.values():
            for name, value in day.counts.items():
                counts[name] = counts.get(name, 0) + value
            for name, value in day.seconds.items():
                seconds[name] = round(seconds.get(name, 0.0) + value, 3)
        return cls(manifest.start, manifest.end, trained, seconds=seconds, **counts)
