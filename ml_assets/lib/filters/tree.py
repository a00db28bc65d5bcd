"""The tree that a filter is. Each of its leaves asks one thing of one field."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ml_assets.lib.filters.fields import Field

Value = str | float | datetime
"""Text, a number, or a moment with a time zone. A leaf's values are of one kind."""

Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Compare:
    """A field against a value."""

    field: Field
    operator: Operator
    value: Value


@dataclass(frozen=True)
class Between:
    """A field within two values, both included; outside of them if `negated`."""

    field: Field
    low: Value
    high: Value
    negated: bool = False


@dataclass(frozen=True)
class In:
    """A field is one of several values; it is there and none of them if `negated`."""

    field: Field
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True)
class Like:
    """A text matches a pattern, in which % is any text, _ any character and a backslash takes the next as it is."""

    field: Field
    pattern: str
    ignore_case: bool = False
    negated: bool = False


@dataclass(frozen=True)
class Fuzzy:
    """A text holds all words, accents and case ignored.

    Args:
        words: in the normal form of `normal.py`.
    """

    field: Field
    words: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class IsNull:
    """A run does not have the field. A metric that is NaN is not there."""

    field: Field


@dataclass(frozen=True)
class Not:
    """What its part is not."""

    part: "Node"


@dataclass(frozen=True)
class And:
    """All parts hold; without parts, every run."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True)
class Or:
    """At least one part holds."""

    parts: "tuple[Node, ...]"


Leaf = Compare | Between | In | Like | Fuzzy | IsNull
Node = Leaf | Not | And | Or

EVERYTHING = And(())


@dataclass(frozen=True)
class Order:
    """One term of an order: runs without the field come last, whichever way."""

    field: Field
    descending: bool = False


def leaves(node: Node) -> Iterator[Leaf]:
    """All leaves below a node, from left to right."""
    if isinstance(node, And | Or):
        for part in node.parts:
            yield from leaves(part)
    elif isinstance(node, Not):
        yield from leaves(node.part)
    else:
        yield node


def values(leaf: Leaf) -> tuple[Value, ...]:
    """What a leaf's field is compared with, if it is compared as text, number or moment."""
    if isinstance(leaf, Compare):
        return (leaf.value,)
    if isinstance(leaf, Between):
        return (leaf.low, leaf.high)
    return leaf.values if isinstance(leaf, In) else ()


def by_number(leaf: Leaf) -> bool:
    """Whether a leaf compares numbers. A text that is none is then as if it were not there."""
    return bool(found := values(leaf)) and isinstance(found[0], float)
