"""`ml-assets features ...`: the commands on features. What they print lies in modules of its own, what they do in
operations/."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ml_assets.cli.command import Csv, Json, command, form, settings_of_home

features = typer.Typer(help="Features: which there are, and their values at any time.", no_args_is_help=True)


@partial(command, group=features, name="list")
def list_views(as_json: Json = False, as_csv: Csv = False) -> None:
    """List the feature views: of what, when, how long values hold, and what they are about."""
    from ml_assets.cli.feature_views import list_views

    list_views(settings_of_home(), form(as_json, as_csv))


@partial(command, group=features, name="as-of")
def as_of(
    table: Annotated[str, typer.Argument(help="a table of the lake, such as run_features")],
    time: Annotated[str, typer.Argument(help="with its zone: 2026-11-29T13:00:00Z")],
    out: Annotated[Path, typer.Option("--out", help="file to write: .parquet, .csv or .duckdb")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write the rows of a table as they stood at a time to a file."""
    from ml_assets.cli.feature_pins import as_of

    as_of(settings_of_home(), table, time, out, overwrite)


@partial(command, group=features)
def pin(
    name: Annotated[str, typer.Argument(help="by which the lake of now is kept")],
    table: Annotated[
        list[str] | None, typer.Option("--table", help="whose hash is noted; may be given again; all if none")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", help="the run it is for; MLflow's gets a tag")
    ] = None,
    as_json: Json = False,
) -> None:
    """Keep the lake as it stands now, whatever maintenance does."""
    from ml_assets.cli.feature_pins import pin

    pin(settings_of_home(), name, table, run_id, as_json)


@partial(command, group=features)
def pins(as_json: Json = False, as_csv: Csv = False) -> None:
    """List the pins, the oldest version first."""
    from ml_assets.cli.data import print_table
    from ml_assets.stack import Stack

    print_table(Stack(settings_of_home()).features.pins(), form(as_json, as_csv))


@partial(command, group=features)
def unpin(name: Annotated[str, typer.Argument(help="of the pin")]) -> None:
    """Let a pin go: its version stays as long as any other one."""
    from ml_assets.stack import Stack

    Stack(settings_of_home()).features.unpin(name)
    print(f"The pin {name} is gone; the next maintenance may remove its version.")


@partial(command, group=features)
def rebuild(
    name: Annotated[str, typer.Argument(help="of the pin", metavar="PIN")],
    table: Annotated[
        str | None, typer.Option("--table", help="a feature table; training_set if none")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="file to write: .parquet, .csv or .duckdb")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Make a table again from what a pin keeps, and compare. Exit status 1 if a row differs."""
    from ml_assets.cli.feature_pins import rebuild

    if not rebuild(settings_of_home(), name, table, out, overwrite, as_json):
        raise typer.Exit(1)


@partial(command, group=features)
def describe(
    view: Annotated[str, typer.Argument(help="the view's name")], as_json: Json = False, as_csv: Csv = False
) -> None:
    """Show the columns of a view: type, what they are, and which columns they are made of."""
    from ml_assets.cli.data import print_table
    from ml_assets.stack import Stack

    print_table(Stack(settings_of_home()).features.describe(view), form(as_json, as_csv))


@partial(command, group=features)
def get(
    features: Annotated[
        list[str], typer.Option("--features", help="VIEW:FEATURE,... or VIEW:*; may be given again")
    ],
    entities: Annotated[
        str | None,
        typer.Option(
            help="the labels: a Parquet or CSV file, or a SELECT over the lake; all entities if none"
        ),
    ] = None,
    time_column: Annotated[
        str, typer.Option(help="column of the labels' times, with a time zone")
    ] = "event_timestamp",
    start: Annotated[str | None, typer.Option(help="without labels: from when, such as 2026-01-31")] = None,
    end: Annotated[
        str | None, typer.Option(help="without labels: until when, not included; now if none")
    ] = None,
    full_names: Annotated[bool, typer.Option("--full-names", help="Call features VIEW__FEATURE.")] = False,
    times: Annotated[
        bool, typer.Option("--times", help="Add the times of the rows that values are of.")
    ] = False,
    allow_duplicates: Annotated[
        bool, typer.Option("--allow-duplicates", help="Take labels of the same entity at the same time.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="write to this file: .parquet, .csv or .duckdb")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Look features up as they were known at the times of labels (docs/features.md)."""
    from ml_assets.cli.feature_retrieval import get

    asked = {
        "time_column": time_column,
        "start": start,
        "end": end,
        "full_feature_names": full_names,
        "times": times,
        "allow_duplicates": allow_duplicates,
    }
    names = [name.strip() for several in features for name in several.split(",") if name.strip()]
    get(settings_of_home(), entities, names, asked, out, overwrite, form(as_json, as_csv))


@partial(command, group=features)
def verify(
    frame: Annotated[
        str, typer.Argument(help="a Parquet or CSV file, or a feature table such as training_set")
    ],
    feature: Annotated[
        list[str] | None,
        typer.Option(help="view:feature or view:*, may be given again; by their names if left out"),
    ] = None,
    test_frame: Annotated[
        Path | None, typer.Option(help="what the model is tested on, if it is a file of its own")
    ] = None,
    label_time: Annotated[str | None, typer.Option(help="column of the label's time")] = None,
    label: Annotated[list[str] | None, typer.Option(help="column of the label, may be given again")] = None,
    entity: Annotated[
        list[str] | None, typer.Option(help="column of what a row is about, may be given again")
    ] = None,
    entities_recur: Annotated[
        bool, typer.Option("--entities-recur", help="entities are meant to be in both train and test")
    ] = False,
    split: Annotated[str | None, typer.Option(help="column that says train or test")] = None,
    train: Annotated[str | None, typer.Option(help="its value for train; train if left out")] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="its value for test, may be given again; test and the like if left out"),
    ] = None,
    embargo: Annotated[str | None, typer.Option(help="least time between train and test, such as 7d")] = None,
    horizon: Annotated[
        str | None,
        typer.Option(help="how long a label takes to be known, such as 28d, or the column that says when"),
    ] = None,
    near_duplicates: Annotated[
        bool, typer.Option(help="look for rows of test that are nearly rows of train")
    ] = True,
    as_json: Json = False,
) -> None:
    """Say whether a training set leaks: values of the future, values too old, and what train and test share."""
    from ml_assets.cli.feature_leaks import verify

    asked = {
        "features": feature,
        "test_frame": test_frame,
        "label_time": label_time,
        "label": label,
        "entity": entity,
        "entities_recur": entities_recur,
        "split": split,
        "train": train,
        "test": test,
        "embargo": embargo,
        "horizon": horizon,
        "near_duplicates": near_duplicates,
    }
    verify(settings_of_home(), frame, asked, as_json)


@partial(command, group=features)
def online(
    entity: Annotated[
        list[str], typer.Option("--entity", help="COLUMN=VALUE, separated by commas; give it again for more.")
    ],
    view: Annotated[list[str], typer.Option("--view", help="VIEW, or VIEW:FEATURE; give it again for more.")],
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Show what is served of entities just now, from where, and how old it is."""
    from ml_assets.cli.feature_online import online

    online(settings_of_home(), entity, view, form(as_json, as_csv))
