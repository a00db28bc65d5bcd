"""Short names for the columns that contracts are made of."""

from collections.abc import Sequence
from typing import Any

from ml_assets.contracts.model import Column

INDEXED_BYTES = 2_500
"""Longest text that rows are looked up by, in UTF-8. PostgreSQL's index entries hold 2,704 bytes, with what stands
beside it."""

INDEXED_CHARACTERS = 100
"""Of a text of any length in an index of several columns; whoever looks it up compares these and the whole text."""


def text(name: str, description: str = "", **more: Any) -> Column:
    return Column(name, "string", description=description, **more)


def need(name: str, description: str = "", **more: Any) -> Column:
    return Column(name, "string", nullable=False, description=description, **more)


def time(name: str, description: str = "", nullable: bool = False) -> Column:
    return Column(name, "timestamp", nullable=nullable, description=description)


def json_column(name: str, description: str = "") -> Column:
    return Column(name, "json", description=description)


def number(name: str, description: str = "", **more: Any) -> Column:
    return Column(name, "float64", description=description, **more)


def count(name: str, description: str = "", nullable: bool = False) -> Column:
    return Column(name, "int64", nullable=nullable, minimum=0, description=description)


def share(name: str, description: str = "", nullable: bool = True) -> Column:
    return Column(name, "float64", nullable=nullable, minimum=0.0, maximum=1.0, description=description)


def vector(name: str, dimension: int) -> Column:
    """A vector of unit length."""
    return Column(name, "vector", nullable=False, dimension=dimension, description="unit-length vector")


def without(columns: Sequence[Column], *names: str) -> tuple[Column, ...]:
    """The columns but for some."""
    return tuple(column for column in columns if column.name not in names)


def named(columns: Sequence[Column], name: str) -> Column:
    """The column of this name."""
    return next(column for column in columns if column.name == name)
