"""The best model of each dataset, by the metric that judges its runs."""

from typing import TYPE_CHECKING

from ml_assets.lib.metric_rules import MetricRules
from ml_assets.operations.judged_runs import of_judged_runs

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.postgres import PostgresResource


def best_models(postgres: "PostgresResource", rules: MetricRules) -> "pa.Table":
    """See `Experiments.best_models`."""
    import pyarrow as pa

    fields = [
        ("dataset", pa.string()),
        ("runs", pa.int64()),
        ("model_name", pa.string()),
        ("run_id", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("higher_is_better", pa.bool_()),
    ]
    return pa.Table.from_pylist(
        of_judged_runs(postgres, rules, "postgres/best_models.sql"), pa.schema(fields)
    )
