"""Which model is best on each dataset, with how sure that is.

Models are ranked by the mean over all of their runs on a dataset, and not by the best one: of many tries the best is
lucky, and the more tries the luckier. The interval says what the mean of further such runs may be (Student's t).
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.experiments import LEADERBOARD
from ml_assets.lib.comparison import MOST_RUNS
from ml_assets.lib.hypothesis_tests import Difference, t_interval
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.operations.judged_runs import of_judged_runs
from ml_assets.operations.run_comparison import compared

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

MOST_MODELS = 100
"""Of a dataset."""


def leaderboard(postgres: "PostgresResource", rules: MetricRules) -> "pa.Table":
    """The models of each dataset by the mean of the metric that judges its completed runs, best first.

    Args:
        rules: which metric that is; docs/metrics.md states them.

    Returns:
        The columns of `postgres/run_leaderboard`. A model of one run has neither deviation nor interval.

    Raises:
        StoreUnavailable: PostgreSQL does not answer, or there is no table of runs yet.
    """
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema

    found = of_judged_runs(postgres, rules, "postgres/run_leaderboard.sql", models=MOST_MODELS)
    return pa.Table.from_pylist([{**row, **_interval(row)} for row in found], arrow_schema(LEADERBOARD))


def leaders(board: "pa.Table", most: int) -> list[str]:
    """The best runs of the best models of each dataset: as many models of each as leave at most so many runs."""
    rows = sorted(board.to_pylist(), key=lambda row: row["rank"])
    chosen = rows[:most]
    chosen.sort(key=lambda row: (row["dataset"], row["rank"], row["model"]))
    return list(dict.fromkeys(row["best_run_id"] for row in chosen))


def write_page(
    postgres: "PostgresResource",
    lake: "DuckLakeResource",
    rules: MetricRules,
    board: "pa.Table",
    folder: Path,
) -> Path | None:
    """Write a page that compares the best runs of a leaderboard; remove the former one where there are none.

    Returns:
        The file, in the folder; None if no model is on the board.

    Raises:
        StoreUnavailable: a store does not answer.
    """
    path = folder / "leaderboard.html"
    # A run that was withdrawn since the board was read is left out, and is off the board of the next run.
    rows = postgres.experiments_of(leaders(board, MOST_RUNS))
    if not rows:
        path.unlink(missing_ok=True)
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return compared(rows, lake, rules).write_html(path, "The best runs of each dataset")


def _interval(row: dict[str, Any]) -> dict[str, float | None]:
    if row["runs"] < 2:
        return {"low": None, "high": None}
    error = row["deviation"] / math.sqrt(row["runs"])
    low, high = t_interval(Difference(row["mean"], error, row["runs"] - 1))
    return {"low": float(low), "high": float(high)}
