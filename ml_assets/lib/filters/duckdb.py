"""Comparisons of a metric at a step in DuckDB's SQL: the histories of metrics lie in the lake."""

from typing import Any

from ml_assets.lib.filters.fields import Metric
from ml_assets.lib.filters.tree import Between, Compare, In, IsNull, Leaf, Node, leaves

_VALUES = """
    SELECT run_id, arg_max(value, (timestamp, value)) AS value
    FROM raw.raw_metrics
    WHERE key = $key AND step = $step AND value IS NOT NULL
    GROUP BY run_id
"""
"""Of several values of one step the one that was logged last."""


def values_at_step(metric: Metric) -> tuple[str, dict[str, Any]]:
    """The SELECT of run_id and value of the runs that have a value at a metric's step; NaN is none."""
    return f"SELECT run_id, value FROM ({_VALUES}) WHERE NOT isnan(value)", _step(metric)


def asked_at_steps(tree: Node) -> list[Leaf]:
    """The leaves of a tree that ask for a metric at a step, each once."""
    found = (leaf for leaf in leaves(tree) if isinstance(leaf.field, Metric) and leaf.field.step is not None)
    return list(dict.fromkeys(found))


def runs_at_step(leaf: Leaf) -> tuple[str, dict[str, Any]]:
    """The SELECT of the ids of the runs for which a leaf holds; for IsNull of those that have a value.

    NaN is as if it were not there.

    Args:
        leaf: one of `asked_at_steps`.
    """
    condition, bound = _condition(leaf)
    if not isinstance(leaf.field, Metric):
        raise TypeError(f"{leaf.field} is no metric at a step")
    return f"SELECT run_id FROM ({_VALUES}) WHERE NOT isnan(value) AND {condition}", _step(leaf.field) | bound


def _step(metric: Metric) -> dict[str, Any]:
    return {"key": metric.key, "step": metric.step}


def _condition(leaf: Leaf) -> tuple[str, dict[str, Any]]:
    if isinstance(leaf, IsNull):
        return "true", {}
    if isinstance(leaf, Compare):
        return f"value {leaf.operator} $a", {"a": leaf.value}
    no = "NOT " if getattr(leaf, "negated", False) else ""
    if isinstance(leaf, Between):
        return f"{no}(value BETWEEN $a AND $b)", {"a": leaf.low, "b": leaf.high}
    if isinstance(leaf, In):
        return f"{no}list_contains($a::DOUBLE[], value)", {"a": list(leaf.values)}
    raise TypeError(f"{leaf} is no condition on a number")
