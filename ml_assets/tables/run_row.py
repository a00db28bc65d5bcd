"""The row of a run that a program records itself, in PostgreSQL or in the light registry, judged by the contract of
the runs before any store sees it."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from ml_assets.contracts import INDEXED_BYTES
from ml_assets.contracts.experiments import KEY_BYTES, RUNS
from ml_assets.lib.canonical_json import canonical

_KEYED = ("parameters", "metrics")
"""Documents whose entries have rows of their own."""


def run_row(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Every column of the runs' contract but `origin`; None where nothing is given, JSON as canonical text.

    Raises:
        ValueError: no such column, or a value that the contract refuses.
    """
    row: dict[str, Any] = dict.fromkeys(name for name in RUNS.names if name != "origin")
    for name, value in columns.items():
        if name not in row:
            raise ValueError(f"experiments have no column {name!r}; there are {', '.join(row)}")
        column = RUNS.by_name[name]
        if value is not None and column.choices and value not in column.choices:
            raise ValueError(f"{name} cannot be {value!r}; it is one of {', '.join(column.choices)}")
        if isinstance(value, str) and len(value.encode()) > (column.max_bytes or math.inf):
            raise ValueError(
                f"{name} {value[:60]!r}... has more than {column.max_bytes:,} bytes, which no index holds; shorten it"
            )
        if isinstance(value, datetime) and value.tzinfo is None:
            raise ValueError(f"{name} {value.isoformat()} has no time zone; give an aware datetime")
        row[name] = canonical(value) if column.type == "json" and value is not None else value
    for name in _KEYED:
        _refuse_keys(name, row[name], row["id"] or "")
    return row


def key_room(id: str) -> int:
    """Bytes of a key of a metric or parameter that stands in an index beside the run's id."""
    return min(KEY_BYTES, INDEXED_BYTES - len(id.encode()))


def _refuse_keys(name: str, document: str | None, id: str) -> None:
    entries = json.loads(document) if document is not None else {}
    if not isinstance(entries, dict):
        raise ValueError(f"{name} {entries!r:.60} is no mapping from keys to values; give one")
    room = key_room(id)
    for key in entries:
        if len(key.encode()) > room:
            raise ValueError(
                f"the key {key[:60]!r}... of {name} has more than {room:,} bytes, which no index holds beside the id; "
                "shorten it"
            )


def known_day(created_at: datetime, first: date) -> date:
    """The UTC day of a run, which the graph's tables must have.

    Args:
        first: first day of the graph's tables.

    Raises:
        ValueError: they do not have it.
    """
    day, today = created_at.astimezone(UTC).date(), datetime.now(UTC).date()
    if not first <= day <= today:
        raise ValueError(
            f"created_at {created_at.isoformat()} is on a day that the graph does not have; give one from "
            f"{first} to today, {today} (UTC)"
        )
    return day
