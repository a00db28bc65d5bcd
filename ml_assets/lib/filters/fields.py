"""What a filter can ask for of a run, by the names that people write."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "number", "time"]

ATTRIBUTES: dict[str, Kind] = {
    "run_id": "text",
    "parent_run_id": "text",
    "experiment": "text",
    "name": "text",
    "model_name": "text",
    "model_version": "text",
    "model_type": "text",
    "dataset": "text",
    "status": "text",
    "origin": "text",
    "notes": "text",
    "error": "text",
    "artifact_uri": "text",
    "created_at": "time",
    "completed_at": "time",
    "duration_s": "number",
}
"""Columns of a run, and `duration_s`, the seconds from its start to its end."""

ALIASES = {
    "id": "run_id",
    "run_name": "name",
    "experiment_name": "experiment",
    "start_time": "created_at",
    "end_time": "completed_at",
    "duration": "duration_s",
}
"""What others call them, MLflow above all."""

STATISTICS: dict[str, Kind] = {
    "last": "number",
    "best": "number",
    "min": "number",
    "max": "number",
    "mean": "number",
    "count": "number",
    "last_step": "number",
    "first_nan_at": "time",
}
"""What is known of a metric's values over a run."""

PREFIXES: dict[str, Literal["attributes", "metrics", "params", "tags"]] = {
    "attributes": "attributes",
    "attribute": "attributes",
    "attr": "attributes",
    "run": "attributes",
    "metrics": "metrics",
    "metric": "metrics",
    "params": "params",
    "param": "params",
    "parameters": "params",
    "parameter": "params",
    "tags": "tags",
    "tag": "tags",
}


@dataclass(frozen=True)
class Attribute:
    """A column of the run.

    Args:
        name: of `ATTRIBUTES`.
    """

    name: str

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return ATTRIBUTES[self.name]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Metric:
    """A number that stands for the values of a metric.

    Args:
        key: name of the metric.
        statistic: of `STATISTICS`.
        step: the training step whose value is meant, in place of a statistic.
    """

    key: str
    statistic: str = "last"
    step: int | None = None

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return "number" if self.step is not None else STATISTICS[self.statistic]

    def __str__(self) -> str:
        last = self.statistic if self.step is None else f"at({self.step})"
        return f"metrics.{quoted_key(self.key)}.{last}"


@dataclass(frozen=True)
class Param:
    """A parameter: a text, and a number where the text is one."""

    key: str

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return "text"

    def __str__(self) -> str:
        return f"params.{quoted_key(self.key)}"


@dataclass(frozen=True)
class Tag:
    """A tag: a text, and a number where the text is one."""

    key: str

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return "text"

    def __str__(self) -> str:
        return f"tags.{quoted_key(self.key)}"


Field = Attribute | Metric | Param | Tag


def quoted_key(key: str) -> str:
    """A key as it can stand in a filter, whatever is in it."""
    doubled = key.replace('"', '""')
    return key if re.fullmatch(r"[\w/:@+%-]+", key) else f'"{doubled}"'
