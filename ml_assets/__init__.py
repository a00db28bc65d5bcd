"""ml-assets: the whole ML database stack as one Dagster asset graph.

How to begin, in a notebook or a script:

    import ml_assets

    stack = ml_assets.connect()      # the home that the command line uses; connect("folder") for another one
    stack.status()                   # each store's health, tables and rows
    stack.tables().to_pandas()       # all tables

    stack.sql("postgres", "SELECT * FROM ml_experiments LIMIT 10").to_pandas()
    stack.sql("duckdb", "SELECT model_name, count(*) FROM features.run_features GROUP BY ALL")
    stack.export("duckdb/run_features", "runs.parquet")      # or .csv, or .duckdb

Nothing of that changes a store. If there is no home yet, `ml-assets demo` makes one with an example in it, and
`ml-assets refresh` takes in runs of your own. docs/home.md says which home is found.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ml_assets.settings import Settings
    from ml_assets.stack import Stack

__all__ = ["connect"]


def connect(home: "Path | str | None" = None, settings: "Settings | None" = None) -> "Stack":
    """The stack of a home, to be asked: `status`, `tables`, `sql` and `export`. It opens, starts and makes nothing yet.

    Args:
        home: its folder; if None, it is found as the command line does.
        settings: an `ml_assets.settings.Settings` of your own, in place of the environment.

    Raises:
        ml_assets.errors.Refusal: a setting cannot be read; the message says which.
    """
    from ml_assets.stack import connect

    return connect(home, settings)
