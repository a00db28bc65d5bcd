"""What is known of a model, and what several parts of its page ask of that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from statistics import median
from typing import Any

from ml_assets.lib.day_chart import Values
from ml_assets.lib.days import DayRange
from ml_assets.lib.hypothesis_tests import Difference, t_interval

Row = Mapping[str, Any]
Rows = Sequence[Row]

RECENT_DAYS = 7
"""Last days that the figures at the top are of."""


@dataclass(frozen=True)
class Reliability:
    """How often a model was right, by how sure it was.

    Args:
        name: which predictions these are.
        bins: rows (bin from 1 to 15, predictions, certainty: sum of confidences, hits: right ones).
    """

    name: str
    bins: Rows

    @property
    def count(self) -> int:
        """Predictions whose truth is known."""
        return sum(row["predictions"] for row in self.bins)

    @property
    def error(self) -> float | None:
        """Expected calibration error (Guo et al. 2017); None without predictions."""
        if not self.count:
            return None
        return sum(abs(row["hits"] - row["certainty"]) for row in self.bins) / self.count


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model.

    Args:
        model_name: the model.
        days: that the page shows.
        baseline: days that it is compared with.
        pinned: whether somebody has pinned them.
        made_at: when all this was read, UTC.
        daily: a row a day with events: day, evaluation_count, request_count, accuracy_count, answer_count (of the
            evaluations; None if one does not tell), avg_accuracy, std_accuracy, avg_f1_score, p50_, p95_ and
            p99_inference_time_ms.
        baseline_daily: the same of the days of the baseline.
        versions: a row a version, the newest first: model_version, first_at, last_at and what `daily` has.
        served: a row a day of predictions: day, prediction_count, labelled_count, accuracy, avg_confidence,
            calibration_error. None if the table was never made.
        reliability: of the baseline and of the last days; None if there is no table of predictions.
        drift: rows of clickhouse/feature_drift; None as above.
        estimates: rows of clickhouse/estimated_accuracy; None as above.
        episodes: rows of clickhouse/performance_regressions, and of clickhouse/alerts where those tell more; None as
            above.
        decision: the newest decision of the gate; None if there is none.
        gate_known: whether the gate has ever judged anything.
        all_days: since when and until when the model is known.
        later_events: events that claim to be of a time to come, which are not shown.
    """

    model_name: str
    days: DayRange
    baseline: DayRange
    pinned: bool
    made_at: datetime
    daily: Rows = ()
    baseline_daily: Rows = ()
    versions: Rows = ()
    served: Rows | None = None
    reliability: Sequence[Reliability] | None = None
    drift: Rows | None = None
    estimates: Rows | None = None
    episodes: Rows | None = None
    decision: Row | None = None
    gate_known: bool = False
    all_days: DayRange | None = None
    later_events: int = 0

    @property
    def version_count(self) -> int:
        """How many versions there are in these days."""
        return len(self.versions)


def day_of(value: date | datetime) -> date:
    """The day of a time, or of a day, which stores tell as either."""
    return value.date() if isinstance(value, datetime) else value


def by_day(facts: ModelFacts, rows: Rows, name: str) -> Values:
    """A column by the days of the page; None where there is no row."""
    found = {day_of(row["day"]): row[name] for row in rows}
    return [found.get(day) for day in facts.days.days()]


def share_interval(row: Row) -> tuple[float | None, float | None]:
    """95 % interval of a mean accuracy: by the spread of evaluations, or of the answers of the only one.

    Unknown for a single evaluation of which nobody has said how many answers it is of.
    """
    mean, deviation, count = row["avg_accuracy"], row["std_accuracy"], row["accuracy_count"]
    if count > 1 and deviation is not None:
        low, high = t_interval(Difference(mean, deviation / math.sqrt(count), count - 1))
        return max(float(low), 0.0), min(float(high), 1.0)
    if count == 1 and row["answer_count"]:
        return _wilson(mean, row["answer_count"])
    return None, None


def _wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of right answers (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def mean_accuracy(rows: Rows) -> float | None:
    """Mean accuracy of all evaluations of these days."""
    known = [(row["avg_accuracy"], row["accuracy_count"]) for row in rows if row["avg_accuracy"] is not None]
    count = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / count if count else None


def middle(rows: Rows, name: str) -> float | None:
    """Median of what is known of a column."""
    known = [row[name] for row in rows if row[name] is not None]
    return median(known) if known else None
