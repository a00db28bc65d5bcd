"""The metrics and parameters of runs as tables made for questions: a row a run and key, read from the lake.

What belongs here: the rows that the graph writes. What an application records is written with its run
(resources/recorded_runs.py).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.lib.days import DayRange
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.run_values import NUMBER
from ml_assets.sql_files import read_sql
from ml_assets.tables.arrow_types import stream

if TYPE_CHECKING:
    from ml_assets.resources.duckdb import DuckLakeResource

METRICS_SQL = "duckdb/experiments/ml_run_metrics.sql"
PARAMS_SQL = "duckdb/experiments/ml_run_params.sql"


def run_metrics(
    lake: "DuckLakeResource", days: DayRange, rules: MetricRules, bulk: bool = False
) -> pa.RecordBatchReader:
    """The rows of `ml_run_metrics` for the runs of some days.

    Args:
        lake: holds raw_runs and raw_metrics.
        days: first to last, UTC.
        rules: which way a metric is better. They are asked here, of each key, so that SQL holds no second rule.
        bulk: take as much time as a bulk write may.
    """
    rows = lake.reader(read_sql(METRICS_SQL), {"start": days.start, "end": days.end}, bulk=bulk)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            yield with_best(batch, rules)

    return stream(rows.schema.append(pa.field("best", pa.float64())), batches())


def with_best(batch: pa.RecordBatch, rules: MetricRules) -> pa.RecordBatch:
    """Rows of metrics with the column `best`: `max` or `min` of each, as the rules say of its `key`."""
    keys = batch.column("key").dictionary_encode()
    rising = pa.array([rules.higher_is_better(key) for key in keys.dictionary.to_pylist()], pa.bool_())
    choices = [rising.take(keys.indices), batch.column("max"), batch.column("min")]
    best = pc.call_function("if_else", choices)
    return batch.append_column("best", best)


def run_params(lake: "DuckLakeResource", days: DayRange, bulk: bool = False) -> pa.RecordBatchReader:
    """The rows of `ml_run_params` for the runs of some days.

    Args:
        lake: holds raw_runs.
        days: first to last, UTC.
        bulk: take as much time as a bulk write may.
    """
    parameters = {"start": days.start, "end": days.end, "number": NUMBER}
    return lake.reader(read_sql(PARAMS_SQL), parameters, bulk=bulk)
