"""Feature tables are SELECT files; this reads from the SQL itself what they depend on.

What belongs here: parsing of the files in sql/duckdb. Which Dagster assets they become is decided in defs/.
"""

from dataclasses import dataclass
from typing import Any

LAKE_SCHEMAS = ("intake", "raw", "features")


@dataclass(frozen=True)
class FeatureSQL:
    """One SELECT file.

    Args:
        name: file name without the ending; the table it makes.
        text: the statement.
        description: the comment at the top of the file.
        parents: lake tables that it reads, as `duckdb/<table>` asset keys, sorted.
        parameters: named parameters that it binds ($start and $end where it is built by day).
    """

    name: str
    text: str
    description: str
    parents: tuple[str, ...]
    parameters: frozenset[str]


def parse_feature(name: str, text: str) -> FeatureSQL:
    """Parse one SELECT file.

    Args:
        name: the file's name without its ending.
        text: what it holds.

    Raises:
        ValueError: if the file is not one statement that DuckDB's dialect can parse.
    """
    import sqlglot
    from sqlglot import expressions as exp
    from sqlglot.errors import ParseError

    try:
        statement = sqlglot.parse_one(text, dialect="duckdb")
    except ParseError as error:
        raise ValueError(f"{name}.sql is not one SELECT that can be parsed: {error}") from error
    parents = {f"duckdb/{table.name}" for table in statement.find_all(exp.Table) if table.db in LAKE_SCHEMAS}
    parameters = frozenset(str(found.this) for found in statement.find_all(exp.Placeholder) if found.this)
    return FeatureSQL(name, text, _header(text), tuple(sorted(parents)), parameters)


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
