"""ml-assets: the whole ML database stack as one Dagster asset graph.

How to begin, in a notebook or a script:

    import ml_assets

    stack = ml_assets.connect()      # the home that the command line uses; connect("folder") for another one
    stack.status()                   # each store's health, tables and rows
    stack.tables().to_pandas()       # all tables

    stack.sql("postgres", "SELECT * FROM ml_experiments LIMIT 10").to_pandas()
    stack.sql("duckdb", "SELECT model_name, count(*) FROM features.run_features GROUP BY ALL")
    stack.export("duckdb/run_features", "runs.parquet")      # or .csv, or .duckdb

    light = ml_assets.connect(light=True)                    # a registry in one file, without any server
    run_id = light.experiments.create("cats", model_name="resnet", parameters={"lr": 0.1})
    light.artifacts.add(run_id, "model.onnx")
    light.experiments.complete(run_id, {"accuracy": 0.9})
    light.adopt()                                            # for the graph, with its next refresh

Asking with `stack.sql` and `stack.export` changes no store. If there is no home yet, `ml-assets demo` makes one with an
example in it, and `ml-assets refresh` takes in runs of your own. docs/home.md says which home is found.
"""

from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    from pathlib import Path

    from ml_assets.operations.light import LightStack
    from ml_assets.settings import Settings
    from ml_assets.stack import Stack

__all__ = ["connect"]


@overload
def connect(
    home: "Path | str | None" = None,
    settings: "Settings | None" = None,
    light: Literal[False] = False,
    read_only: bool = False,
) -> "Stack": ...


@overload
def connect(
    home: "Path | str | None" = None, settings: "Settings | None" = None, *, light: Literal[True]
) -> "LightStack": ...


def connect(
    home: "Path | str | None" = None,
    settings: "Settings | None" = None,
    light: bool = False,
    read_only: bool = False,
) -> "Stack | LightStack":
    """The stack of a home, to be asked: `status`, `tables`, `sql` and `export`. It opens, starts and makes nothing yet.

    Args:
        home: its folder; if None, it is found as the command line does.
        settings: an `ml_assets.settings.Settings` of your own, in place of the environment.
        light: only the registry of runs that is one SQLite file of the home and needs no server: `experiments`,
            `artifacts`, `training_data` and `adopt`.
        read_only: let PostgreSQL, the lake, ClickHouse and SQLite refuse every change, and open them as the users who
            read, where the settings name such (docs/servers.md).

    Raises:
        ml_assets.errors.Refusal: a setting cannot be read; the message says which. Or the light registry, which is there
            to be written, is asked for with `read_only`.
    """
    from ml_assets.errors import Refusal
    from ml_assets.stack import connect, connect_light

    if light and read_only:
        raise Refusal("The light registry is there to be written: connect with read_only or with light.")
    return connect_light(home, settings) if light else connect(home, settings, read_only)
