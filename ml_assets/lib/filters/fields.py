"""What a filter can ask for of a run, a document or an entry of a collection, by the names that people write."""

import re
from collections.abc import Mapping
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

Room = Literal["attributes", "metrics", "params", "tags", "metadata"]

PREFIXES: dict[str, Room] = {
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


DOCUMENT_ATTRIBUTES: dict[str, Kind] = {
    "document_id": "text",
    "title": "text",
    "source": "text",
    "updated_at": "time",
}
"""What is known of a document besides its metadata."""

ENTRY_ATTRIBUTES: dict[str, Kind] = {"entry_id": "text", "text": "text"}
"""What is known of an entry of a collection besides its metadata."""


@dataclass(frozen=True)
class Subject:
    """What a filter is asked of.

    Args:
        name: one of them, with its article.
        attributes: by name, what their values are.
        aliases: other names of attributes.
        prefixes: of names that stand behind a dot, what they are.
        example: fields, for people.
        rest: a sentence on what stands behind a prefix.
    """

    name: str
    attributes: Mapping[str, Kind]
    aliases: Mapping[str, str]
    prefixes: Mapping[str, Room]
    example: str
    rest: str


RUN = Subject(
    "a run",
    ATTRIBUTES,
    ALIASES,
    PREFIXES,
    "metrics.loss.best, params.lr, tags.team or status",
    "Metrics, parameters and tags begin with metrics., params. and tags.",
)
_ATTRIBUTES_AND_METADATA: dict[str, Room] = {
    **{name: room for name, room in PREFIXES.items() if room == "attributes" and name != "run"},
    "metadata": "metadata",
    "meta": "metadata",
}
DOCUMENT = Subject(
    "a document",
    DOCUMENT_ATTRIBUTES,
    {"id": "document_id"},
    {**_ATTRIBUTES_AND_METADATA, "document": "attributes"},
    "metadata.language, title, source or updated_at",
    "What a document's metadata hold begins with metadata.",
)
ENTRY = Subject(
    "an entry",
    ENTRY_ATTRIBUTES,
    {"id": "entry_id", "document": "text"},
    {**_ATTRIBUTES_AND_METADATA, "entry": "attributes"},
    "metadata.language, id or text",
    "What an entry's metadata hold begins with metadata.",
)


@dataclass(frozen=True)
class Attribute:
    """A column of the run, or of the document or entry.

    Args:
        name: of `ATTRIBUTES`, `DOCUMENT_ATTRIBUTES` or `ENTRY_ATTRIBUTES`.
    """

    name: str

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return ATTRIBUTES.get(self.name) or DOCUMENT_ATTRIBUTES.get(self.name) or ENTRY_ATTRIBUTES[self.name]

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


@dataclass(frozen=True)
class Metadata:
    """A value of a document's metadata: a text, and a number where the text is one."""

    key: str

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return "text"

    def __str__(self) -> str:
        return f"metadata.{quoted_key(self.key)}"


Field = Attribute | Metric | Param | Tag | Metadata


def quoted_key(key: str) -> str:
    """A key as it can stand in a filter, whatever is in it."""
    doubled = key.replace('"', '""')
    return key if re.fullmatch(r"[\w/:@+%-]+", key) else f'"{doubled}"'
