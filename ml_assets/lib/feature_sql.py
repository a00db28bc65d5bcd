"""Feature tables are SELECT files; this reads from the SQL itself what they depend on.

What belongs here: parsing of the files in sql/duckdb. Which Dagster assets they become is decided in defs/.
"""

from dataclasses import dataclass
from pathlib import Path
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


def read_feature(path: Path) -> FeatureSQL:
    """Parse one SELECT file.

    Raises:
        ValueError: if the file is not one statement that DuckDB's dialect can parse.
    """
    import sqlglot
    from sqlglot import expressions as exp
    from sqlglot.errors import ParseError

    text = path.read_text(encoding="utf-8")
    try:
        statement = sqlglot.parse_one(text, dialect="duckdb")
    except ParseError as error:
        raise ValueError(f"{path.name} is not one SELECT that can be parsed: {error}") from error
    parents = {f"duckdb/{table.name}" for table in statement.find_all(exp.Table) if table.db in LAKE_SCHEMAS}
    parameters = frozenset(str(found.this) for found in statement.find_all(exp.Placeholder) if found.this)
    return FeatureSQL(path.stem, text, _header(text), tuple(sorted(parents)), parameters)


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
    import sqlglot
    from sqlglot import MappingSchema
    from sqlglot import expressions as exp
    from sqlglot.lineage import lineage
    from sqlglot.optimizer import qualify

    schema: dict[str, Any] = {}
    for key in feature.parents:
        table = key.removeprefix("duckdb/")
        prefix = table.split("_", 1)[0]
        database = prefix if prefix in ("intake", "raw") else "features"
        schema.setdefault(database, {})[table] = columns[key]

    statement: Any = qualify.qualify(
        sqlglot.parse_one(feature.text, dialect="duckdb"),
        schema=MappingSchema(schema, dialect="duckdb"),
        dialect="duckdb",
        validate_qualify_columns=False,
    )
    result: dict[str, list[tuple[str, str]]] = {}
    for projection in statement.selects:
        node = lineage(projection.alias_or_name, statement.copy(), schema=schema, dialect="duckdb")
        leaves = {
            (f"duckdb/{leaf.expression.name}", leaf.name.rpartition(".")[2].strip('"'))
            for leaf in node.walk()
            if isinstance(leaf.expression, exp.Table) and leaf.expression.db in LAKE_SCHEMAS
        }
        result[projection.alias_or_name] = sorted(leaves)
    return result
