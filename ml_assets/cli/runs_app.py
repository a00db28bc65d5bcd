"""`ml-assets runs ...`: the commands on runs. What they print lies in modules of its own, what they do in operations/."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ml_assets.cli.command import Csv, Json, command, form, settings_of_home
from ml_assets.lib.metric_rules import Direction

runs = typer.Typer(help="Runs: find them, look at them, compare them.", no_args_is_help=True)


@partial(command, group=runs)
def show(run_id: Annotated[str, typer.Argument(help="the run's id")], as_json: Json = False) -> None:
    """Show one run: its columns, parameters, metrics and tags. --json prints an array of one object."""
    from ml_assets.cli.run_page import show

    show(settings_of_home(), run_id, as_json)


@partial(command, group=runs)
def best(as_json: Json = False, as_csv: Csv = False) -> None:
    """Show the best model of each dataset, by the metric that judges its runs (docs/metrics.md)."""
    from ml_assets.cli.data import print_table
    from ml_assets.stack import Stack

    print_table(Stack(settings_of_home()).experiments.best_models(), form(as_json, as_csv))


@partial(command, group=runs)
def search(
    filter: Annotated[str, typer.Argument(help='such as "metrics.loss.best < 0.1"; all runs if empty')] = "",
    order_by: Annotated[
        list[str] | None, typer.Option(help='such as "metrics.loss.best"; may be given again')
    ] = None,
    limit: Annotated[int, typer.Option(help="runs of a page")] = 100,
    page: Annotated[str | None, typer.Option(help="token of the page, which the page before names")] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Find runs of all experiments by a filter (docs/experiments.md), the newest first unless another order is given."""
    from ml_assets.cli.run_search import search

    search(settings_of_home(), filter, order_by or ["created_at DESC"], limit, page, form(as_json, as_csv))


@partial(command, group=runs)
def compare(
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="ids of the runs, up to 1,000", metavar="RUN_ID...")
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help="those that a search finds, such as 'params.lr > 1e-3'")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="the metric that parameters are weighed by")] = None,
    baseline: Annotated[str | None, typer.Option(help="the run that differences are counted from")] = None,
    html: Annotated[Path | None, typer.Option(help="write a page to look at, in one file")] = None,
    part: Annotated[
        Literal["runs", "parameters", "metrics", "importance"],
        typer.Option(help="what --json and --csv print"),
    ] = "runs",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Compare runs: what differs, which is best by what, and what the metric went with."""
    from ml_assets.cli.run_comparison import compare

    compare(settings_of_home(), run_ids or [], filter, metric, baseline, html, part, form(as_json, as_csv))


@partial(command, group=runs)
def curves(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN_ID...", help="ids of runs")],
    key: Annotated[list[str], typer.Option("--key", help="A metric; give it again for more.")],
    x: Annotated[
        str, typer.Option("--x", help="step, time (seconds since it began) or metric:KEY.")
    ] = "step",
    points: Annotated[int, typer.Option("--points", help="Width in pixels, for --json and --csv.")] = 1000,
    smoothing: Annotated[
        float, typer.Option("--smoothing", help="0 (none) to below 1, as TensorBoard has it.")
    ] = 0.0,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="Means over a column of runs, params.KEY or tags.KEY.")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Show the learning curves of runs, with their last, least and greatest values."""
    from ml_assets.cli.run_curves import curves

    asked = {"x": x, "points": points, "smoothing": smoothing, "group_by": group_by}
    curves(settings_of_home(), run_ids, key, asked, form(as_json, as_csv))


@partial(command, group=runs)
def better(
    groups: Annotated[
        list[str] | None,
        typer.Argument(
            help="two groups or more, each run ids with commas, FIELD=VALUE,... such as model_name=cats, or a filter"
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="key of the metric")] = "",
    by: Annotated[
        str | None, typer.Option(help="in place of groups: the field that makes them, such as model_name")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="only runs on it")] = None,
    where: Annotated[
        str | None, typer.Option(help="with --by, only runs with FIELD=VALUE,... or a filter")
    ] = None,
    direction: Annotated[
        Direction | None, typer.Option(help="whether the largest value is the best or the smallest")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="from how many the first group was selected")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Say whether runs are really better than others, or were lucky: effect, interval, p, the test and why."""
    from ml_assets.cli.run_verdicts import better

    asked = form(as_json, as_csv)
    better(settings_of_home(), groups or [], metric, by, dataset, where, direction, candidates, asked)


@partial(command, group=runs)
def similar(
    run_id: Annotated[str | None, typer.Argument(help="the run's id")] = None,
    text: Annotated[str | None, typer.Option(help="words, in place of a run")] = None,
    k: Annotated[int, typer.Option("-k", help="how many runs")] = 10,
    where: Annotated[str | None, typer.Option(help="only runs with FIELD=VALUE,... or a filter")] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """List the runs whose cards are nearest in meaning to a run, or to words."""
    from ml_assets.cli.run_similar import similar

    similar(settings_of_home(), run_id, text, k, where, form(as_json, as_csv))


@partial(command, group=runs)
def check(
    everything: Annotated[
        bool, typer.Option("--all", help="Show what was told before, too, if it still holds.")
    ] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Tell what is wrong with runs, each time once; exit status 1 if there is something new."""
    from ml_assets.cli.run_watch import check

    if check(settings_of_home(), everything, form(as_json, as_csv)):
        raise typer.Exit(1)


@partial(command, group=runs)
def adopt(as_json: Json = False) -> None:
    """Hand the runs of the light registry to the graph, which takes them in with the next refresh."""
    from ml_assets.cli.run_light import adopt

    adopt(settings_of_home(), as_json)


@partial(command, group=runs)
def keep(
    best: Annotated[int, typer.Option("--best", help="how many runs of each group stay")],
    by: Annotated[
        str, typer.Option("--by", help="dataset, experiment, model_name, model_type or model_version")
    ] = "dataset",
    metric: Annotated[
        str | None, typer.Option("--metric", help="by which they are ranked; as docs/metrics.md says if none")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Keep the best recorded runs of each group; show the rest, ask, and remove them with their files."""
    from ml_assets.cli.run_light import keep

    keep(settings_of_home(), best, by, metric, yes, form(as_json, as_csv))
