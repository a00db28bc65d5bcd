"""What a SELECT file reads, told by the parser of the engine that runs it.

What belongs here: the file's syntax tree. sqlglot, which takes a fifth of a second to import, is left to column
lineage (lib/feature_sql.py), which is asked for when a table is built and not when the definitions load.
"""

import json
from collections.abc import Iterator
from typing import Any

from ml_assets.lib.feature_sql import FeatureSQL, described
from ml_assets.lib.sql import quote_literal


def parse_feature(name: str, text: str) -> FeatureSQL:
    """Parse one SELECT file.

    Args:
        name: the file's name without its ending.
        text: what it holds.

    Raises:
        ValueError: the file is not one SELECT that DuckDB can parse; the message has its line and column.
    """
    import duckdb

    # As a literal: the driver imports pandas to bind a value.
    with duckdb.connect() as connection:
        row = connection.execute(f"SELECT json_serialize_sql({quote_literal(text)})").fetchone()
    answer: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if answer["error"]:
        raise ValueError(f"{name}.sql is not one SELECT that can be parsed: {_reason(answer, text)}")
    if len(answer["statements"]) != 1:
        raise ValueError(f"{name}.sql is not one SELECT: it has {len(answer['statements'])} statements")
    nodes = list(_nodes(answer))
    tables = {(node["schema_name"], node["table_name"]) for node in nodes if node.get("type") == "BASE_TABLE"}
    parameters = {node["identifier"] for node in nodes if node.get("class") == "PARAMETER"}
    return described(name, text, tables, parameters)


def _reason(answer: dict[str, Any], text: str) -> str:
    """The parser's message and where in the file it stands."""
    reason = answer.get("error_message", "no answer")
    if (position := answer.get("position")) is None:
        return reason
    before = text.encode()[: int(position)].decode(errors="ignore")
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    return f"{reason} (line {line}, column {column})"


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All nodes of a syntax tree."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _nodes(branch)
