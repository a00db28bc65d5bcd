"""A run's metrics and parameters as the rows of their own that questions are asked of.

What belongs here: what a value is as a number, and what one more point makes of a metric's row. What does not: the
statements that do the same for the graph's runs (sql/duckdb/experiments).
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ml_assets.lib.canonical_json import canonical

NUMBER = r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)"
"""Texts that are numbers, as a regular expression of Python, of RE2 and of PostgreSQL."""

_NUMBER = re.compile(NUMBER)


def number_of(text: str) -> float | None:
    """The number that a text is, an infinity where it is beyond all doubles; None if it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def text_of(value: Any) -> str:
    """A value of a JSON document as text: text as it is, anything else as JSON, in which DuckDB writes 1e22."""
    if isinstance(value, str):
        return value
    return canonical(value).replace("e+", "e") if isinstance(value, float) else canonical(value)


def parameter_rows(document: str) -> dict[str, tuple[str, float | None] | None]:
    """Text and number of each parameter; None for those that are null.

    Args:
        document: canonical JSON, an object.
    """
    texts = {key: None if value is None else text_of(value) for key, value in _entries(document).items()}
    return {key: None if text is None else (text, number_of(text)) for key, text in texts.items()}


def metric_values(document: str) -> dict[str, float]:
    """The value of each metric that has one: numbers, and texts that are numbers or NaN.

    Args:
        document: canonical JSON, an object.
    """
    values = {key: _metric_value(value) for key, value in _entries(document).items()}
    return {key: value for key, value in values.items() if value is not None}


def _entries(document: str) -> Mapping[str, Any]:
    entries = json.loads(document)
    return entries if isinstance(entries, dict) else {}


def _metric_value(value: Any) -> float | None:
    if isinstance(value, str):
        return math.nan if value.lower() == "nan" else number_of(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class MetricRow:
    """A metric of a run over all its points; the columns of `ml_run_metrics`."""

    last: float = math.nan
    best: float | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    count: int = 0
    last_step: int | None = None
    first_nan_at: datetime | None = None

    def after(self, value: float, at: datetime, higher_is_better: bool) -> "MetricRow":
        """The row with one more point, the last one.

        Args:
            value: of the point; NaN counts for nothing but the time of the first one.
            at: when it was logged, with a time zone.
            higher_is_better: of the metric.
        """
        if math.isnan(value):
            return replace(self, last=value, first_nan_at=self.first_nan_at or at)
        low = value if self.min is None else min(self.min, value)
        high = value if self.max is None else max(self.max, value)
        return replace(
            self,
            last=value,
            best=high if higher_is_better else low,
            min=low,
            max=high,
            mean=self._mean_with(value),
            count=self.count + 1,
        )

    def _mean_with(self, value: float) -> float | None:
        count = self.count + 1
        if count == 1:
            return value
        if self.mean is None:
            return None
        if math.isinf(self.mean):
            return self.mean if math.isfinite(value) or value == self.mean else None
        return self.mean + (value / count - self.mean / count)
