"""The runs of each dataset with the metric that judges them, for statements that go on from there."""

from typing import TYPE_CHECKING, Any, LiteralString

from ml_assets.contracts.experiments import RUNS
from ml_assets.errors import missing_table
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    from ml_assets.resources.postgres import PostgresResource


def judged_runs_sql(statement: LiteralString) -> LiteralString:
    """A statement that selects from `({judged_runs})`, whole."""
    # Not by format: the SQL has braces of its own.
    return statement.replace("{judged_runs}", read_sql("postgres/judged_runs.sql"))


def of_judged_runs(
    postgres: "PostgresResource", rules: MetricRules, statement: str, **bound: Any
) -> list[dict[str, Any]]:
    """What a statement on judged runs answers, a dict a row.

    Args:
        rules: which metric judges runs.
        statement: file in `sql/` that selects from `({judged_runs})`; see sql/postgres/judged_runs.sql.
        bound: what else it binds.

    Raises:
        StoreUnavailable: PostgreSQL does not answer, or there is no table of runs yet.
    """
    from psycopg.errors import UndefinedTable
    from psycopg.rows import dict_row

    asked = judged_runs_sql(read_sql(statement))
    try:
        with postgres.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            keys = connection.execute(read_sql("postgres/metric_keys.sql").encode()).fetchall()
            ranking = rules.ranking(key for (key,) in keys)
            return cursor.execute(
                asked.encode(),
                {
                    "keys": [ranked.key for ranked in ranking],
                    "names": [ranked.name for ranked in ranking],
                    "datasets": [ranked.dataset for ranked in ranking],
                    "experiments": [ranked.experiment for ranked in ranking],
                    "rising": [ranked.higher_is_better for ranked in ranking],
                    **bound,
                },
            ).fetchall()
    except UndefinedTable as fault:
        raise missing_table(RUNS.asset) from fault
