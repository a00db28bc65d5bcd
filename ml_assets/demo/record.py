"""A training run as it is written down, whether into MLflow or into landing files.

Imports scikit-learn: import it where the demo is made and nowhere else.
"""

import io
import traceback
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import joblib

from ml_assets.demo.models import Curve

MEGABYTE = 2**20


@dataclass(frozen=True)
class DataUse:
    """A dataset that a run used.

    Args:
        context: training or validation.
        source: the loader that made it, and which of its rows.
    """

    name: str
    digest: str
    context: str
    rows: int
    features: int
    source: dict[str, Any]


@dataclass
class RunRecord:
    """One run, complete.

    Args:
        key: what identifies it over all days and attempts.
        created_at: replayed start, UTC. The end is as much later as the training really took.
        error: last line of the traceback of a run that failed.
        files: artifacts by name.
    """

    key: str
    name: str
    experiment: str
    dataset: str
    model_type: str
    role: str
    created_at: datetime
    seconds: float
    curve: Curve
    model_name: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    error: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    data: list[DataUse] = field(default_factory=list)
    parent_run_id: str | None = None

    @property
    def completed_at(self) -> datetime:
        """End of the run, UTC, to the millisecond that MLflow keeps."""
        return self.created_at + timedelta(milliseconds=max(1, round(self.seconds * 1000)))

    @property
    def status(self) -> str:
        """completed or failed."""
        return "failed" if self.error else "completed"

    def time_of(self, elapsed_s: float) -> datetime:
        """Replayed time of a point of the curve, UTC."""
        return self.created_at + timedelta(milliseconds=round(elapsed_s * 1000))


def last_line(error: BaseException) -> str:
    """The last line of a traceback: kind of the error and the first line of what it says."""
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[0]


def dump(model: Any) -> bytes:
    """A fitted model as a joblib file. Written for whoever trusts it; nothing here ever loads one."""
    buffer = io.BytesIO()
    joblib.dump(model, buffer, compress=3)
    return buffer.getvalue()


def resident_mb() -> float:
    """Memory of this process in megabytes."""
    import psutil

    return psutil.Process().memory_info().rss / MEGABYTE
