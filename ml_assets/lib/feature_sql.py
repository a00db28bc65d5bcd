"""Feature tables are SELECT files; this says what they depend on, from the SQL itself.

What belongs here: what a file's text and syntax tree tell. Which column comes from which is in lib/lineage.py; which
Dagster assets the files become is decided in defs/; the engine that parses them is in stores/duckdb/select_file.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ml_assets.lib.feature_header import parse_header

LAKE_SCHEMAS = ("intake", "raw", "features")

METRIC_RULES = "metric_rules"
"""The relation in which a file finds the ranking of the metrics."""


WINDOW_PARAMETERS: tuple[str, ...] = ("start", "end", "lookback_start")
"""Parameters of a file that is built by day."""


@dataclass(frozen=True)
class Reference:
    """One place in which a file names a table.

    Args:
        schema: as it is written; "" if none is.
        table: its name.
        line, column: of the place, from 1; 0 where the engine does not tell.
        starred: whether all its columns are taken there, by a star.
    """

    schema: str
    table: str
    line: int = 0
    column: int = 0
    starred: bool = False


@dataclass(frozen=True)
class FeatureSQL:
    """One SELECT file.

    Args:
        name: file name without the ending; the table it makes.
        text: the statement.
        description: the prose at the top of the file.
        parents: lake tables that it reads, as `duckdb/<table>` asset keys, sorted.
        parameters: named parameters that it binds ($start and $end where it is built by day).
        is_judged: whether it reads `metric_rules`, the ranking of the metrics (lib/metric_rules.py).
        references: every place in which it names a table, in its order; those of its own WITH are none.
    """

    name: str
    text: str
    description: str
    parents: tuple[str, ...]
    parameters: frozenset[str]
    is_judged: bool = False
    references: tuple[Reference, ...] = ()


def described(name: str, text: str, references: Iterable[Reference], parameters: Iterable[str]) -> FeatureSQL:
    """A SELECT file by what its syntax tree names.

    Args:
        name: the file's name without its ending.
        text: what it holds.
        references: the tables that it reads.
        parameters: names of the parameters that it binds.

    Raises:
        ValueError: the comment at its top cannot be read.
    """
    references = tuple(references)
    tables = {(each.schema, each.table) for each in references}
    parents = {f"duckdb/{table}" for schema, table in tables if schema in LAKE_SCHEMAS}
    judged = ("", METRIC_RULES) in tables
    header = parse_header(name, text)
    reads, binds = tuple(sorted(parents)), frozenset(parameters)
    return FeatureSQL(name, text, header.description, reads, binds, judged, references)
