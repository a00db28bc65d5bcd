"""The best model of each dataset, by the metric that judges its runs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.experiments import RUNS
from ml_assets.errors import missing_table
from ml_assets.lib.metric_rules import MetricRules, Ranked
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.postgres import PostgresResource


def best_models(postgres: "PostgresResource", rules: MetricRules) -> "pa.Table":
    """See `Experiments.best_models`."""
    import pyarrow as pa
    from psycopg.errors import UndefinedTable

    fields = [
        ("dataset", pa.string()),
        ("runs", pa.int64()),
        ("model_name", pa.string()),
        ("run_id", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("higher_is_better", pa.bool_()),
    ]
    try:
        with postgres.connect() as connection:
            keys = connection.execute(read_sql("postgres/metric_keys.sql").encode()).fetchall()
            ranking = rules.ranking(key for (key,) in keys)
            rows = connection.execute(
                read_sql("postgres/best_models.sql").encode(), _arrays(ranking)
            ).fetchall()
    except UndefinedTable as fault:
        raise missing_table(RUNS.asset) from fault
    names = [name for name, _ in fields]
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], pa.schema(fields))


def _arrays(ranking: Sequence[Ranked]) -> dict[str, list[Any]]:
    """The ranking as the statement takes it."""
    return {
        "keys": [ranked.key for ranked in ranking],
        "names": [ranked.name for ranked in ranking],
        "datasets": [ranked.dataset for ranked in ranking],
        "experiments": [ranked.experiment for ranked in ranking],
        "rising": [ranked.higher_is_better for ranked in ranking],
    }
