"""The tree in plain Python: what a filter means, and what every store's compiler has to agree with."""

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from typing import Any

from ml_assets.lib.filters.fields import Attribute, Field, Metadata, Metric, Param
from ml_assets.lib.filters.normal import like_pattern, lowered, without_accents
from ml_assets.lib.filters.tree import (
    And,
    Between,
    Compare,
    Fuzzy,
    In,
    IsNull,
    Like,
    Node,
    Not,
    Or,
    Order,
    Value,
    by_number,
)
from ml_assets.lib.run_values import number_of, text_of

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matches(node: Node, run: Mapping[str, Any]) -> bool:
    """Whether a run is what a filter asks for; or a document, which has attributes and the mapping `metadata`.

    Args:
        run: attributes by name, and the mappings `metrics`, `parameters` and `tags`. A metric is its last value, or a
            mapping of its statistics by name and of its values by step under `steps`.
    """
    if isinstance(node, And):
        return all(matches(part, run) for part in node.parts)
    if isinstance(node, Or):
        return any(matches(part, run) for part in node.parts)
    if isinstance(node, Not):
        return not matches(node.part, run)
    value = _value(run, node.field, by_number(node))
    if isinstance(node, IsNull):
        return value is None
    return value is not None and _holds(node, value)


def ordered(runs: Iterable[Mapping[str, Any]], order: Sequence[Order]) -> list[Mapping[str, Any]]:
    """Runs in an order: numbers before other texts, runs without the field last, ties by id."""
    found = sorted(runs, key=lambda run: run["run_id"])
    for term in reversed(order):
        loose = term.field.kind == "text" and not isinstance(term.field, Attribute)
        for as_number in (False, True) if loose else (False,):
            values: list[tuple[Any, Mapping[str, Any]]] = [
                (_value(run, term.field, as_number), run) for run in found
            ]
            there = [each for each in values if each[0] is not None]
            there.sort(key=itemgetter(0), reverse=term.descending)
            found = [run for _, run in there] + [run for value, run in values if value is None]
    return found


def _holds(leaf: Compare | Between | In | Like | Fuzzy, value: Value) -> bool:
    """Whether a value that is there is what a leaf asks for."""
    if isinstance(leaf, Compare):
        return _OPERATORS[leaf.operator](value, leaf.value)
    if isinstance(leaf, Between):
        low, high = _OPERATORS["<="](leaf.low, value), _OPERATORS["<="](value, leaf.high)
        return (low and high) != leaf.negated
    if isinstance(leaf, In):
        return (value in leaf.values) != leaf.negated
    text = str(value)
    if isinstance(leaf, Fuzzy):
        plain = without_accents(text)
        return all(word in plain for word in leaf.words) != leaf.negated
    pattern = lowered(leaf.pattern) if leaf.ignore_case else leaf.pattern
    found = re.fullmatch(like_pattern(pattern), lowered(text) if leaf.ignore_case else text, re.DOTALL)
    return (found is not None) != leaf.negated


def _value(run: Mapping[str, Any], field: Field, as_number: bool) -> Value | None:
    """What a run has of a field, None if it is not there."""
    if isinstance(field, Metric):
        return _of_metric((run.get("metrics") or {}).get(field.key), field)
    if isinstance(field, Attribute):
        text = _attribute(run, field.name)
        if field.kind != "text":
            return text
    elif isinstance(field, Param):
        value = (run.get("parameters") or {}).get(field.key)
        text = None if value is None else text_of(value)
    else:
        room = "metadata" if isinstance(field, Metadata) else "tags"
        text = tag_text((run.get(room) or {}).get(field.key))
    return number_of(text) if as_number and text is not None else text


def _attribute(run: Mapping[str, Any], name: str) -> Any:
    if name != "duration_s":
        return run.get(name)
    start, end = run.get("created_at"), run.get("completed_at")
    return (end - start).total_seconds() if start is not None and end is not None else None


def _of_metric(kept: Any, field: Metric) -> Value | None:
    if isinstance(kept, Mapping):
        value = kept.get(field.statistic) if field.step is None else kept.get("steps", {}).get(field.step)
    else:
        value = (
            kept if field.step is None and field.statistic in ("last", "best", "min", "max", "mean") else None
        )
    if value is None or isinstance(value, datetime):
        return value
    number = float(value)
    return None if math.isnan(number) else number


def tag_text(value: Any) -> str | None:
    """A tag as text, as JSONB writes it; None for null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return format(Decimal(repr(value)), "f")
    return json.dumps(value, ensure_ascii=False)
