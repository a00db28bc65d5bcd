"""Intake and raw: each stream as it came, and typed and deduplicated."""

from collections.abc import Iterable

from ml_assets.contracts.columns import (
    need,
    text,
)
from ml_assets.contracts.model import Column, Contract
from ml_assets.contracts.streams import STREAMS, Stream

INTAKE_COLUMNS = (
    need("unit", "file below landing/<stream>, or MLflow run id: what is loaded and retired as one"),
    need("unit_hash", "SHA-256 of the unit's content; the ledger tells when and from where it was taken in"),
    Column("line", "int64", nullable=False, description="line or row number within the unit, from 1"),
    Column("day", "date", description="UTC day of the row; null for documents and quarantined rows"),
    text("quarantine_reason", "why the row breaks its contract; null if it keeps it"),
    text("raw_text", "the row as it came, kept only for quarantined rows"),
)


def _loose(columns: Iterable[Column]) -> tuple[Column, ...]:
    """The same columns, all nullable and without ranges: intake also holds rows that break the contract."""
    return tuple(Column(c.name, c.type, description=c.description) for c in columns)


def intake_table(stream: Stream) -> Contract:
    """The table of a stream's rows as they arrived."""
    return Contract(
        f"duckdb/intake_{stream.name}",
        f"{stream.description}, as it arrived; the same one may arrive again",
        (*INTAKE_COLUMNS, *_loose(stream.columns)),
        key=("unit", "unit_hash", "line"),
        order_by=("day",),
    )


def raw_table(stream: Stream) -> Contract:
    """The table of a stream's rows, typed and deduplicated."""
    return Contract(
        f"duckdb/raw_{stream.name}",
        f"{stream.description}, typed and deduplicated",
        stream.columns,
        key=(*stream.key, *stream.mlflow_key),
        partition_column=stream.day_column,
        unique_across_days=stream.unique_across_days,
        nullable_key=stream.mlflow_key,
    )


def tables() -> Iterable[Contract]:
    """The tables of the room."""
    for stream in STREAMS.values():
        yield intake_table(stream)
        yield raw_table(stream)
