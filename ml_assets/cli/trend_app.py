"""`ml-assets trend`, `versions` and `baseline ...`: what they print lies in modules of their own."""

from datetime import date, datetime
from functools import partial
from typing import Annotated

import typer

from ml_assets.cli.command import Csv, Json, command, form, settings_of_home
from ml_assets.errors import Refusal

baseline = typer.Typer(help="The days that models are compared with.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="the model's name", metavar="MODEL")]
Window = Annotated[str, typer.Option(help="how far to look back: 24h, 30d")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(baseline, name="baseline")
    for each in (trend, versions):
        command(each, app)


def trend(
    model: Model,
    window: Window = "30d",
    bucket: Annotated[str, typer.Option(help="length of a bucket: 15m, 1h, 6h, 1d, 7d")] = "1d",
    metric: Annotated[
        str | None, typer.Option(help="one alone, such as p95_inference_time_ms or accuracy")
    ] = None,
    by: Annotated[str | None, typer.Option(help="version or dataset: a trend of each")] = None,
    until: Annotated[
        str | None, typer.Option(help="end of the window with its zone: 2026-11-29T13:00:00Z; now if none")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Read the events where the rollups have estimates only.")
    ] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Draw how a model did: accuracy, p50, p95 and p99, requests. Gaps are gaps."""
    from ml_assets.cli.performance_trend import trend

    asked = {"window": window, "bucket": bucket, "by": by, "until": _time(until), "exact": exact}
    trend(settings_of_home(), model, metric, asked, form(as_json, as_csv))


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(f"{text!r} is no time: write it such as 2026-11-29T13:00:00Z.") from None


def versions(
    model: Model,
    version: Annotated[
        list[str] | None, typer.Option(help="compared ones, may be given again; all if none")
    ] = None,
    window: Window = "30d",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Show a model's versions side by side, and whether each differs from the one before it."""
    from ml_assets.cli.performance_trend import versions

    versions(settings_of_home(), model, version or None, window, form(as_json, as_csv))


@partial(command, group=baseline)
def pin(
    model: Model,
    first: Annotated[str, typer.Argument(help="first day, UTC: 2026-11-02")],
    last: Annotated[str, typer.Argument(help="last day, included")],
    note: Annotated[str, typer.Option(help="why")] = "",
) -> None:
    """Compare a model with these days from now on, in place of its first week."""
    from ml_assets.cli.performance_trend import nothing_to_compare_with
    from ml_assets.stack import Stack

    performance = Stack(settings_of_home()).performance
    found = performance.pin_baseline(model, _day(first), _day(last), note)
    print(f"{model} is compared with {found.days.first} to {found.days.last} when it is built next.")
    if warning := nothing_to_compare_with(performance, found):
        print(warning)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Refusal(f"{text!r} is no day: write it such as 2026-11-02.") from None


@partial(command, group=baseline)
def unpin(model: Model) -> None:
    """Compare a model with its first week again."""
    from ml_assets.stack import Stack

    Stack(settings_of_home()).performance.unpin_baseline(model)
    print(f"{model} is compared with its first week when it is built next.")


@partial(command, group=baseline, name="list")
def list_baselines(as_json: Json = False, as_csv: Csv = False) -> None:
    """List the days that each model is compared with."""
    from ml_assets.cli.data import print_table
    from ml_assets.stack import Stack

    print_table(Stack(settings_of_home()).performance.baselines(), form(as_json, as_csv))
