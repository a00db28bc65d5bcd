"""The command line: `ml-assets up | demo | refresh | status | doctor | sql | export | recover | quarantine | ...`.

What belongs here: options, progress, tables, exit status. What a command does lies in a module of its own.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ml_assets.cli.command import Csv, Json, command, form, settings_of_home
from ml_assets.cli.runs_app import runs
from ml_assets.errors import Refusal
from ml_assets.settings import read_settings

app = typer.Typer(
    help="The whole ML database stack as one Dagster asset graph.",
    no_args_is_help=True,
    # Plain tracebacks: pretty ones show locals, which may hold passwords, and hang on a cycle of causes.
    pretty_exceptions_enable=False,
)

quarantine = typer.Typer(help="Rows that break their contract, and the ways out.", no_args_is_help=True)
app.add_typer(quarantine, name="quarantine")
app.add_typer(runs, name="runs")

Stream = Annotated[str, typer.Argument(help="runs, metrics, performance, predictions or documents")]


_TAKEN_IN = ("postgres", "duckdb")
"""Stores that know what was taken in."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("ml-assets"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """The whole ML database stack as one Dagster asset graph."""


@partial(command, group=app)
def up(
    empty: Annotated[bool, typer.Option("--empty", help="Make no demo: for data of your own.")] = False,
) -> None:
    """Serve the UI, sensors and schedules until Ctrl-C; in a home without other data, make the demo before."""
    from ml_assets.cli import serve

    raise typer.Exit(serve.up(settings_of_home(), empty))


@partial(command, group=app)
def demo(
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the demo out of every store; what is your own stays.")
    ] = False,
) -> None:
    """Train the demo models, materialize the whole graph and print a summary. Twice changes nothing."""
    from ml_assets.cli.demo import remove_demo, run_demo
    from ml_assets.cli.report import print_summary, progress_bars

    settings = settings_of_home()
    if remove:
        with progress_bars() as bars:
            told = remove_demo(settings, bars)
        print("\n".join(told))
        return
    with progress_bars() as bars:
        report = run_demo(settings, bars)
    print_summary(settings, report)


@partial(command, group=app)
def refresh(as_json: Json = False) -> None:
    """Take in what is new in the landing folders and MLflow, and rebuild what it touches."""
    from ml_assets.cli.refresh import refresh_graph
    from ml_assets.cli.report import progress_bars

    settings = settings_of_home()
    with progress_bars(quiet=as_json) as bars:
        report = refresh_graph(settings, bars)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        from ml_assets.cli.report import print_refresh

        print_refresh(report)


@partial(command, group=app)
def status(
    as_json: Json = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute content hashes from the stores.")
    ] = False,
    slow: Annotated[
        bool, typer.Option("--slow", help="Tell which statements take PostgreSQL the most time.")
    ] = False,
    number: Annotated[int | None, typer.Argument(help="with --slow: how many statements; 10 if none")] = None,
) -> None:
    """Each store's health, tables, rows and content hashes. Exit status 1 if a store is down or differs."""
    from ml_assets.cli.report import print_slow_statements, print_status
    from ml_assets.maintenance.status import quarantined_rows, slow_status, status_json, stores_status

    if number is not None and not slow:
        raise Refusal(f"{number} is how many statements --slow tells: give --slow as well.")
    settings = settings_of_home()
    stores, differences = stores_status(settings, verify)
    quarantined = quarantined_rows(settings, stores)
    statements = slow_status(settings, stores, number) if slow else None
    if as_json:
        told = status_json(settings, stores, quarantined, differences if verify else None)
        if statements is not None:
            told |= {"slow_statements": statements.statements, "slow_statements_detail": statements.detail}
        print(json.dumps(told))
    else:
        print_status(settings, stores, quarantined)
        if statements is not None:
            print_slow_statements(statements)
    for difference in differences:
        print(
            f"{difference.store}/{difference.table} holds {difference.measured}, but {difference.recorded} "
            f"was written: rows were changed by hand; {difference.remedy}.",
            file=sys.stderr,
        )
    if differences or any(store["state"] == "down" for store in stores.values()):
        raise typer.Exit(1)


@partial(command, group=app)
def sql(
    store: Annotated[str, typer.Argument(help="postgres, duckdb, clickhouse or sqlite")],
    query: Annotated[str, typer.Argument(help="one SELECT in the store's own SQL; nothing can be changed")],
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Ask a store in SQL."""
    from ml_assets.cli import data

    data.sql(settings_of_home(), store, query, form(as_json, as_csv))


@partial(command, group=app, name="export")
def export_table(
    table: Annotated[str, typer.Argument(help="store/table, or the name alone if it is the only one")],
    path: Annotated[Path, typer.Argument(help="file to write: .parquet, .csv or .duckdb")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a table to a Parquet, CSV or DuckDB file."""
    from ml_assets.cli import data

    print(data.export(settings_of_home(), table, path, overwrite))


@partial(command, group=app)
def recover(as_json: Json = False) -> None:
    """Finish or undo writes that were killed, in every store. Exit status 1 if that was not possible everywhere."""
    from ml_assets.cli.report import print_recovery
    from ml_assets.contracts import tables
    from ml_assets.maintenance.recovery import recover_all
    from ml_assets.resources import store_resources

    settings = settings_of_home()
    found = recover_all(store_resources(settings), tables(settings))
    if as_json:
        print(json.dumps({"stores": {each.store: {**vars(each)} for each in found}}))
    else:
        print_recovery(found)
    if any(each.state in ("down", "failed") for each in found):
        raise typer.Exit(1)


@partial(command, group=app)
def doctor(as_json: Json = False) -> None:
    """Look for what keeps this home from working, and say what to do. Exit status 1 if there is an error."""
    from ml_assets.cli import doctor

    if not doctor.doctor(read_settings(), as_json):
        raise typer.Exit(1)


@partial(command, group=app)
def down() -> None:
    """Stop the UI and daemon of `up`, then the embedded services of this home; the data stay."""
    from ml_assets import services
    from ml_assets.cli import session

    home = settings_of_home().home
    # Before the stores, which a sensor would start again; told at once, whatever becomes of the stores.
    if served := session.stop(home):
        print(f"Stopped {served}.", flush=True)
    stopped = services.stop_all(home)
    print(f"Stopped {', '.join(stopped)}." if stopped else "No embedded service was running.")


@partial(command, group=app)
def retire(
    file: Annotated[
        list[str],
        typer.Argument(
            metavar="[STREAM] FILE",
            help="as it lies below the landing folder (runs/my.csv), below its stream's (runs my.csv), or a whole path",
        ),
    ],
) -> None:
    """Withdraw the rows of a file. It is not taken in again before it changes."""
    from ml_assets.cli import quarantine

    if len(file) > 2:
        raise Refusal(f"One file at a time: {len(file)} words were given. Quote a name with spaces.")
    print(quarantine.retire(settings_of_home(_TAKEN_IN), *([""] * (2 - len(file))), *file))


@partial(command, group=quarantine, name="list")
def list_quarantined(
    stream: Annotated[str, typer.Argument(help="one stream; all if none is named")] = "",
    limit: Annotated[int | None, typer.Option(help="single rows: so many of a stream, newest first")] = None,
    every: Annotated[bool, typer.Option("--all", help="single rows: all of them, newest first")] = False,
    as_json: Json = False,
) -> None:
    """Show why rows are in quarantine: how many for each reason, with an example. --limit and --all show single rows.

    --json prints single rows, 20 of a stream unless told otherwise.
    """
    from ml_assets.cli import quarantine

    quarantine.show(settings_of_home(_TAKEN_IN), stream, limit, every, as_json)


@partial(command, group=quarantine)
def export(stream: Stream, file: Annotated[Path, typer.Argument(help="JSON lines file to write")]) -> None:
    """Write all quarantined rows of a stream to a file."""
    from ml_assets.cli import quarantine

    print(quarantine.export(settings_of_home(_TAKEN_IN), stream, file))


@partial(command, group=quarantine)
def retry(stream: Annotated[str, typer.Argument(help="one stream; all if none is named")] = "") -> None:
    """Have unchanged files that hold quarantined rows judged again by the next refresh."""
    from ml_assets.cli import quarantine

    print(quarantine.retry(settings_of_home(_TAKEN_IN), stream))
