"""Baselines: the days that a model's quality, latency and inputs are compared with.

What belongs here: the days that somebody has pinned, kept in PostgreSQL, and those that count where nobody has. What is
compared with them is said by whoever compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from ml_assets.errors import Refusal
from ml_assets.lib.days import DayRange
from ml_assets.sql_files import read_sql
from ml_assets.stores.touched_days import ensure_tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.postgres import PostgresResource

FIRST_DAYS = 7
"""Days from a model's first one on that are its baseline unless others are pinned."""

_MOST_DAYS = 366
"""All days of all baselines are read whenever something is compared with them."""


@dataclass(frozen=True)
class Baseline:
    """What a model is compared with.

    Args:
        model_name: the model.
        days: first and last day, UTC.
        pinned_at: when somebody pinned it; None if these are the model's first days.
        note: why, in the words of whoever pinned it.
    """

    model_name: str
    days: DayRange
    pinned_at: datetime | None = None
    note: str = ""


def ensure_schema(postgres: "PostgresResource") -> None:
    """Create the table of baselines; one cheap look if it is there."""
    ensure_tables(postgres, "ml_performance_baselines", "postgres/baselines/schema.sql")


def pin(postgres: "PostgresResource", model_name: str, days: DayRange, note: str = "") -> Baseline:
    """Compare a model with these days from now on; what is compared already is compared anew when it is rebuilt.

    Raises:
        Refusal: the model has no name, the last day is before the first, or there are more than a year of them.
    """
    if not model_name:
        raise Refusal("A baseline is a model's: name the model.")
    if days.last < days.first:
        raise Refusal(f"A baseline ends after it begins: {days.last} is before {days.first}.")
    if len(days) > _MOST_DAYS:
        raise Refusal(
            f"A baseline has {_MOST_DAYS} days at most, and {days.first} to {days.last} are {len(days):,}: pin fewer."
        )
    ensure_schema(postgres)
    values = {
        "model_name": model_name,
        "start_day": days.first,
        "end_day": days.last + timedelta(days=1),
        "note": note,
    }
    with postgres.connect(write=True) as connection:
        connection.execute(read_sql("postgres/baselines/pin.sql"), values)
    return pinned(postgres)[model_name]


def unpin(postgres: "PostgresResource", model_name: str) -> None:
    """Compare a model with its first days again.

    Raises:
        Refusal: no baseline is pinned for it.
    """
    ensure_schema(postgres)
    with postgres.connect(write=True) as connection:
        row = connection.execute(
            read_sql("postgres/baselines/unpin.sql"), {"model_name": model_name}
        ).fetchone()
    if row is None:
        known = ", ".join(pinned(postgres)) or "none is pinned"
        raise Refusal(f"No baseline is pinned for the model {model_name!r}: name one that has one ({known}).")


def pinned(postgres: "PostgresResource") -> dict[str, Baseline]:
    """The pinned baselines, by model."""
    ensure_schema(postgres)
    with postgres.connect() as connection:
        rows = connection.execute(read_sql("postgres/baselines/all.sql")).fetchall()
    return {
        name: Baseline(name, DayRange(start, end - timedelta(days=1)), pinned_at, note)
        for name, start, end, note, pinned_at in rows
    }


def baselines(postgres: "PostgresResource", first_days: Mapping[str, date]) -> dict[str, Baseline]:
    """The baseline of each model: the pinned one, or its first days.

    Args:
        first_days: the first day of each model that there is anything of.
    """
    usual = {name: Baseline(name, first_week(day)) for name, day in first_days.items()}
    return usual | {name: each for name, each in pinned(postgres).items() if name in first_days}


def first_week(day: date) -> DayRange:
    """The days that a model is compared with unless others are pinned."""
    return DayRange(day, day + timedelta(days=FIRST_DAYS - 1))


def baseline_table(postgres: "PostgresResource", first_days: Mapping[str, date]) -> "pa.Table":
    """The baselines of all models that have one or will have, by model.

    Args:
        first_days: as `baselines`.
    """
    import pyarrow as pa

    found = pinned(postgres) | baselines(postgres, first_days)
    columns: dict[str, pa.DataType] = {
        "model_name": pa.string(),
        "first": pa.date32(),
        "last": pa.date32(),
        "pinned": pa.bool_(),
        "pinned_at": pa.timestamp("us", "UTC"),
        "note": pa.string(),
    }
    rows = [
        (name, each.days.first, each.days.last, each.pinned_at is not None, each.pinned_at, each.note)
        for name, each in sorted(found.items())
    ]
    rows = [dict(zip(columns, row, strict=True)) for row in rows]
    return pa.Table.from_pylist(rows, pa.schema(list(columns.items())))
