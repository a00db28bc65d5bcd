"""What a SELECT file reads, told by the parser of the engine that runs it.

What belongs here: the file's syntax tree. Whether its columns and types fit together is found out in feature_check.py.
sqlglot, which takes a fifth of a second to import, is left to column lineage (lib/lineage.py), which is asked for
when a table is built and not when the definitions load.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ml_assets.lib.feature_sql import FeatureSQL, Reference, described
from ml_assets.lib.sql import quote_literal
from ml_assets.lib.sql_text import place, place_of_byte, statement_ends, tokens

if TYPE_CHECKING:
    import duckdb

_NOWHERE = 2**64 - 1
"""Place of a node that has none."""


@contextmanager
def parser() -> "Iterator[duckdb.DuckDBPyConnection]":
    """An engine without data that reads no file, and whose errors tell their place."""
    import duckdb

    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET enable_external_access = false; SET errors_as_json = true")
        yield connection


def parse_feature(name: str, text: str, connection: "duckdb.DuckDBPyConnection | None" = None) -> FeatureSQL:
    """Parse one SELECT file.

    Args:
        name: the file's name without its ending.
        text: what it holds. A semicolon at its end is left out.
        connection: what `parser` gives; a new one by default.

    Raises:
        ValueError: the file is not one SELECT that DuckDB can parse; the message has its line and column.
    """
    if connection is None:
        with parser() as fresh:
            return parse_feature(name, text, fresh)
    if "\0" in text:
        line, column = place(text, text.index("\0"))
        raise ValueError(f"{name}.sql, line {line}, column {column}: a NUL cannot stand in SQL; take it out")
    text = _one_select(name, text, connection)
    # As a literal: the driver imports pandas to bind a value.
    row = connection.execute(f"SELECT json_serialize_sql({quote_literal(text)})").fetchone()
    try:
        answer: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    except RecursionError:
        raise ValueError(
            f"{name}.sql: its expressions lie too deep within each other; split them up"
        ) from None
    if answer["error"]:
        reason = answer.get("error_message", "the parser gives no reason")
        raise ValueError(f"{name}.sql is not one SELECT that can be parsed: {reason}")
    nodes = list(_nodes(answer))
    for node in nodes:
        function = (
            (node.get("function") or {}).get("function_name")
            if node.get("type") == "TABLE_FUNCTION"
            else None
        )
        if function in ("query", "query_table"):
            raise ValueError(
                f"{name}.sql: {function}() reads a table that only the engine sees, and not what the asset depends on; "
                "name the table in FROM"
            )
    parameters = {node["identifier"] for node in nodes if node.get("class") == "PARAMETER"}
    return described(name, text, _references(nodes, text), parameters)


def told(fault: Exception) -> tuple[str, int | None]:
    """The first sentences of an error of an engine that `parser` gave, and its place in bytes."""
    message, brace, rest = str(fault).partition("{")
    try:
        said: dict[str, str] = json.loads(brace + rest)
    except ValueError:  # one that is no JSON in spite of the setting
        return message.strip() + brace + rest, None
    first, *more = said["exception_message"].splitlines() or [""]
    # Of tables it would name those of its own.
    hints = [line for line in more if line.startswith(("Did you mean", "Candidate bindings"))]
    hints = [] if said.get("type") == "Table" else hints
    return "; ".join([first.rstrip(".!"), *hints]), int(said["position"]) if "position" in said else None


def _one_select(name: str, text: str, connection: "duckdb.DuckDBPyConnection") -> str:
    """The text without a semicolon behind it.

    Raises:
        ValueError: it is no SELECT, or more than one statement.
    """
    import duckdb

    try:
        kinds = [statement.type for statement in connection.extract_statements(text)]
    except duckdb.ParserException as fault:
        reason, position = told(fault)
        where = "line {}, column {}: ".format(*place_of_byte(text, position)) if position is not None else ""
        raise ValueError(f"{name}.sql is not one SELECT that can be parsed: {where}{reason}") from None
    ends = statement_ends(text)
    if len(kinds) > 1:
        behind = tokens(text[ends[0] + 1 :]) if ends else iter(())
        second = next(
            (token.start for token in behind if token.kind != "comment" and token.text != ";"), None
        )
        if second is None:
            raise ValueError(
                f"{name}.sql is not one SELECT: the columns of a PIVOT depend on the rows; name the values: ON column IN "
                "('a', 'b')"
            )
        line, column = place(text, ends[0] + 1 + second)
        raise ValueError(
            f"{name}.sql is not one SELECT: it has {len(kinds)} statements, of which the second begins in line {line}, "
            f"column {column}; give it a file of its own"
        )
    if not kinds:
        raise ValueError(f"{name}.sql is not one SELECT: it has no statement")
    if kinds[0] != duckdb.StatementType.SELECT:
        first = next(token.start for token in tokens(text) if token.kind != "comment")
        line, column = place(text, first)
        raise ValueError(
            f"{name}.sql is not one SELECT: line {line}, column {column}: a feature table is made by a SELECT, and this "
            f"is {kinds[0].name}"
        )
    return text[: ends[0]] + " " + text[ends[0] + 1 :] if ends else text


def _references(nodes: list[dict[str, Any]], text: str) -> Iterator[Reference]:
    own = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())}
    starred: dict[int, int] = {}
    for node in nodes:
        if "select_list" in node:
            starred |= _starred(node)
    for node in nodes:
        if node.get("type") != "BASE_TABLE":
            continue
        schema, table = node["schema_name"], node["table_name"]
        if node["catalog_name"]:
            schema = f"{node['catalog_name']}.{schema}"
        if not schema and table.lower() in own:
            continue
        at: int = starred[id(node)] if id(node) in starred else node["query_location"]
        line, column = (0, 0) if at == _NOWHERE else place_of_byte(text, at)
        yield Reference(schema, table, line, column, id(node) in starred)


def _starred(select: dict[str, Any]) -> dict[int, int]:
    """The tables of a SELECT of which it takes all columns, and the places of the stars."""
    found: dict[int, int] = {}
    stars = [
        node for part in select["select_list"] for node in _expressions(part) if node.get("class") == "STAR"
    ]
    for table in _joined(select.get("from_table")):
        for star in stars:
            if star["relation_name"].lower() in ("", (table["alias"] or table["table_name"]).lower()):
                found[id(table)] = star["query_location"]
    return found


def _expressions(node: Any) -> Iterator[dict[str, Any]]:
    """An expression and those within it, but not those of other SELECTs."""
    yield from _nodes(node, lambda inner: "select_list" not in inner)


def _joined(node: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The tables that a FROM names itself."""
    if not node:
        return
    if node.get("type") == "BASE_TABLE":
        yield node
    for side in ("left", "right"):
        if isinstance(node.get(side), dict):
            yield from _joined(node[side])


def _nodes(
    tree: Any, enter: Callable[[dict[str, Any]], bool] = lambda node: True
) -> Iterator[dict[str, Any]]:
    """All nodes of a syntax tree in their order, but those that are not entered, and what lies below them."""
    waiting = [tree]
    while waiting:
        branch = waiting.pop()
        if isinstance(branch, dict):
            if not enter(branch):
                continue
            yield branch
            branch = list(branch.values())
        if isinstance(branch, list):
            waiting += reversed(branch)
