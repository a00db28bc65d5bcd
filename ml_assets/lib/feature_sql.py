"""Feature tables are SELECT files; this says what they depend on, from the SQL itself.

What belongs here: what a file's text and syntax tree tell, and column lineage. Which Dagster assets the files become is
decided in defs/; the engine that parses them is in stores/duckdb/select_file.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LAKE_SCHEMAS = ("intake", "raw", "features")

METRIC_RULES = "metric_rules"
"""The relation in which a file finds the ranking of the metrics."""


@dataclass(frozen=True)
class FeatureSQL:
    """One SELECT file.

    Args:
        name: file name without the ending; the table it makes.
        text: the statement.
        description: the comment at the top of the file.
        parents: lake tables that it reads, as `duckdb/<table>` asset keys, sorted.
        parameters: named parameters that it binds ($start and $end where it is built by day).
        is_judged: whether it reads `metric_rules`, the ranking of the metrics (lib/metric_rules.py).
    """

    name: str
    text: str
    description: str
    parents: tuple[str, ...]
    parameters: frozenset[str]
    is_judged: bool = False


def described(
    name: str, text: str, tables: Iterable[tuple[str, str]], parameters: Iterable[str]
) -> FeatureSQL:
    """A SELECT file by what its syntax tree names.

    Args:
        name: the file's name without its ending.
        text: what it holds.
        tables: schema and name of every table that it reads.
        parameters: names of the parameters that it binds.
    """
    tables = set(tables)
    parents = {f"duckdb/{table}" for schema, table in tables if schema in LAKE_SCHEMAS}
    judged = ("", METRIC_RULES) in tables
    return FeatureSQL(name, text, _header(text), tuple(sorted(parents)), frozenset(parameters), judged)


def _header(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return " ".join(lines)


def column_lineage(
    feature: FeatureSQL, columns: dict[str, dict[str, str]]
) -> dict[str, list[tuple[str, str]]]:
    """Which columns of which parents every output column comes from.

    Args:
        feature: the parsed SELECT.
        columns: for each parent's asset key, its column names (and any type as text).

    Returns:
        output column -> sorted list of (parent asset key, parent column).
    """
    from sqlglot import expressions as exp
    from sqlglot.lineage import lineage

    schema: dict[str, Any] = {}
    for key in feature.parents:
        table = key.removeprefix("duckdb/")
        prefix = table.split("_", 1)[0]
        database = prefix if prefix in ("intake", "raw") else "features"
        schema.setdefault(database, {})[table] = columns[key]

    # All columns at once, which qualifies the statement once.
    nodes: Any = lineage(None, feature.text, schema=schema, dialect="duckdb")
    return {
        column: sorted(
            {
                (f"duckdb/{leaf.expression.name}", leaf.name.rpartition(".")[2].strip('"'))
                for leaf in node.walk()
                if isinstance(leaf.expression, exp.Table) and leaf.expression.db in LAKE_SCHEMAS
            }
        )
        for column, node in nodes.items()
    }
