"""Rows as Redis holds them: fields of a hash, named by their keys, with JSON in them."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from ml_assets.contracts import Column, Contract
from ml_assets.lib.canonical_json import canonical

_WANTED = {
    "string": "text",
    "int64": "an integer of 64 bits, such as 7 or '7'",
    "float64": "a number, such as 0.5 or '0.5'",
    "bool": "true or false",
    "timestamp": "a time with its time zone, such as '2026-01-31T09:30:00+00:00'",
    "date": "a date, such as '2026-01-31'",
    "json": "a JSON document as text",
}
"""Values of a key, for the sentence."""

_INT64 = range(-(2**63), 2**63)


def field_name(value: Any, column: Column) -> str:
    """A key's value as the name of a row's field in Redis, which PostgreSQL reads as the same value.

    Text and JSON are themselves; numbers are as Python writes them, booleans `true` and `false`, dates and times
    ISO 8601, these in UTC.
    """
    match column.type:
        case "bool":
            return "true" if value else "false"
        case "float64":
            return repr(value + 0.0)  # -0.0 counts as 0.0
        case "timestamp" | "date":
            return _json_time(value)
    return str(value)


def field_of(contract: Contract, entity: Any) -> str:
    """The field of the row that somebody looks up.

    Raises:
        ValueError: the key cannot hold such a value.
    """
    column = contract.by_name[contract.key[0]]
    return text_of(contract, column, entity)


def text_of(contract: Contract, column: Column, entity: Any) -> str:
    """The value of one column of the key that somebody looks up by, as `field_name` writes it.

    Raises:
        ValueError: the column cannot hold such a value.
    """
    try:
        return field_name(fitting(entity, column), column)
    except (ValueError, KeyError, OverflowError) as fault:
        raise ValueError(
            f"{contract.asset}: its key {column.name!r} is {column.type}, and {entity!r} is no such value: look up "
            f"{_WANTED[column.type]}."
        ) from fault


def fitting(entity: Any, column: Column) -> Any:
    """The value of a key's column that somebody names: as itself, as a scalar of NumPy or as text.

    Raises:
        ValueError, KeyError: the column cannot hold it.
    """
    if callable(item := getattr(entity, "item", None)):  # NumPy writes its numbers as np.float64(0.5)
        entity = item()
    value = value_of(entity, column) if isinstance(entity, str) else entity
    if not _fits(value, column):
        raise ValueError(f"{value!r} is no {column.type}")
    return value


def value_of(text: str, column: Column) -> Any:
    """The value of a key's column that a text stands for.

    Raises:
        ValueError, KeyError: it stands for none.
    """
    parsers: dict[str, Callable[[str], Any]] = {
        "int64": int,
        "float64": float,
        "bool": lambda text: {"true": True, "false": False}[text.lower()],
        "timestamp": datetime.fromisoformat,
        "date": date.fromisoformat,
        "json": canonical,
    }
    return parsers.get(column.type, str)(text)


def _fits(value: Any, column: Column) -> bool:
    """Whether a value is one of the column's type."""
    match column.type:
        case "bool":
            return isinstance(value, bool)
        case "int64":
            return isinstance(value, int) and not isinstance(value, bool) and value in _INT64
        case "float64":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "timestamp":
            return isinstance(value, datetime) and value.tzinfo is not None
        case "date":
            return isinstance(value, date) and not isinstance(value, datetime)
    return isinstance(value, str)


def _json_time(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in Redis")


def packed(row: dict[str, Any]) -> str:
    """A row as JSON."""
    return json.dumps(row, default=_json_time)


def unpacked(text: bytes, contract: Contract) -> dict[str, Any]:
    """The row that `packed` has made.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    row: dict[str, Any] = json.loads(text)
    for column in contract.columns:
        # A column that is new since then changes no hash where it is null.
        value = row.setdefault(column.name)
        if value is not None and column.type == "timestamp":
            row[column.name] = datetime.fromisoformat(value)
        elif value is not None and column.type == "date":
            row[column.name] = date.fromisoformat(value)
    return row
