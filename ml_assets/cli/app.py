"""The command line: `ml-assets up | demo | refresh | status | doctor | sql | export | recover | quarantine | ...`.

What belongs here: options, progress, tables, exit status. What a command does lies in a module of its own.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ml_assets.cli import trend_app
from ml_assets.cli.command import Csv, Json, command, form, settings_of_home
from ml_assets.cli.embeddings import embeddings_app
from ml_assets.cli.features_app import features
from ml_assets.cli.performance_alerts import alerts
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
app.add_typer(features, name="features")
app.add_typer(alerts, name="alerts")
app.add_typer(embeddings_app, name="embeddings")

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
def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            help="A queue to take steps from, several times for several; home, dagster, clickhouse if none.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Steps at a time.")] = 1,
    name: Annotated[
        str, typer.Option("--name", help="What tells it from other workers of this machine.")
    ] = "worker",
) -> None:
    """Execute steps of runs on this machine until Ctrl-C, where ML_ASSETS_EXECUTOR=celery (docs/servers.md)."""
    from ml_assets.cli.worker import work

    raise typer.Exit(work(settings_of_home(), queue or (), concurrency, name))


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
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Print figures for Prometheus and nothing else.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="with --prometheus: a file .prom to write, whole or not at all"),
    ] = None,
) -> None:
    """Each store's health, tables, rows and content hashes. Exit status 1 if a store is down or differs."""
    if prometheus or output is not None:
        from ml_assets.cli import figures

        if as_json or verify or slow or not prometheus:
            raise Refusal("--output and --prometheus go together, and with no other option of status.")
        figures.tell(settings_of_home(), output)
        return
    from ml_assets.cli.report import print_slow_statements, print_status
    from ml_assets.maintenance.disk import disk_use
    from ml_assets.maintenance.status import quarantined_rows, slow_status, status_json, stores_status

    if number is not None and not slow:
        raise Refusal(f"{number} is how many statements --slow tells: give --slow as well.")
    settings = settings_of_home()
    stores, differences = stores_status(settings, verify)
    quarantined = quarantined_rows(settings, stores)
    disk = disk_use(settings, stores, lambda fault: print(fault, file=sys.stderr))
    statements = slow_status(settings, stores, number) if slow else None
    if as_json:
        told = status_json(settings, stores, quarantined, differences if verify else None, disk)
        if statements is not None:
            told |= {"slow_statements": statements.statements, "slow_statements_detail": statements.detail}
        print(json.dumps(told))
    else:
        print_status(settings, stores, quarantined, disk)
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
def maintenance(as_json: Json = False) -> None:
    """Keep every store, Dagster's history and the logs small, as every night. Exit status 1 if a part could not be."""
    from ml_assets.cli.upkeep import maintenance

    if not maintenance(settings_of_home(), as_json):
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

    home = settings_of_home(upgrade=False).home
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


@partial(command, group=features)
@partial(command, group=app)
def lineage(
    column: Annotated[
        str, typer.Argument(help="store/table.column; table.column or column where that is one alone")
    ] = "",
    downstream: Annotated[
        bool, typer.Option("--downstream", help="What is made of it, and breaks if it goes.")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page of the whole graph.")] = None,
    as_json: Json = False,
) -> None:
    """Show where a column comes from, over all stores."""
    from ml_assets.cli import lineage

    if html is None and not column:
        raise Refusal("Name a column, or --html FILE for a page of the whole graph.")
    if html is not None and (downstream or as_json):
        raise Refusal(
            "--html writes a page of both ways: leave out --downstream and --json, or ask again without --html."
        )
    if html is not None:
        lineage.page(settings_of_home(), html, column)
    else:
        lineage.tree(read_settings(), column, downstream, as_json)


trend_app.register(app)


@partial(command, group=app)
def accuracy(
    model: Annotated[str, typer.Argument(help="the model")],
    days: Annotated[int, typer.Option(help="how many days")] = 30,
    until: Annotated[
        str | None, typer.Option(help="the last of them, such as 2026-11-29; today if none")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Show how right a model was by the day: measured, or estimated by its confidence where labels are missing."""
    from ml_assets.cli.performance_accuracy import accuracy

    accuracy(settings_of_home(), model, days, until, form(as_json, as_csv))


@partial(command, group=app)
def slow(
    model: Annotated[str | None, typer.Argument(help="one model; all if none is named")] = None,
    window: Annotated[str, typer.Option("--window", help="how far to look back: 24h, 30d")] = "7d",
    limit: Annotated[int, typer.Option("--limit", help="How many requests, at most.")] = 20,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """List the slowest single requests, and how far each is from what is usual for its model."""
    from ml_assets.cli.performance_slow import slow

    slow(settings_of_home(["clickhouse"]), model, window, limit, form(as_json, as_csv))


@partial(command, group=app)
def drift(
    model: Annotated[str | None, typer.Argument(help="the model; all models if none is named")] = None,
    day: Annotated[str | None, typer.Option("--day", help="UTC, 2026-11-12; the last one if none")] = None,
    window: Annotated[
        str | None, typer.Option("--window", help="FIRST:LAST, days taken together in place of one")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="FIRST:LAST, days to compare with instead of the baseline"),
    ] = None,
    mode: Annotated[str, typer.Option("--mode", help="exact, or evidently for its conventions")] = "exact",
    slice: Annotated[str | None, typer.Option("--slice", help="all or model_version")] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Show how far what a model is asked and answers lies from its baseline, feature by feature."""
    from ml_assets.cli.performance_drift import drift

    drift(settings_of_home(), model, day, window, reference, mode, slice, form(as_json, as_csv))


@partial(command, group=app)
def gate(
    model: Annotated[str, typer.Argument(help="the model")],
    version: Annotated[str | None, typer.Argument(help="its version; the newest if none")] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Note the decision, and on a yes move the alias if one is set to move."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say whether a version of a model may be promoted, and why. Exit status 1 if it is refused."""
    from ml_assets.cli.performance_gate import gate

    if not gate(settings_of_home(), model, version, record, as_json):
        raise typer.Exit(1)


@partial(command, group=app)
def report(
    model: Annotated[str, typer.Argument(help="the model's name")],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="File to write; reports/model-NAME.html of the home if none is named."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model's page: quality, latency, drift, calibration, episodes, versions, the gate's verdict."""
    from ml_assets.cli import performance_report

    performance_report.report(settings_of_home(), model, output, show, as_json)


@partial(command, group=app)
def search(
    text: Annotated[str, typer.Argument(help="what to look for")],
    where: Annotated[str, typer.Option("--in", help="documents or runs")] = "documents",
    filter: Annotated[
        str, typer.Option("--filter", help="such as \"source = 'wiki' AND metadata.year >= 2020\"")
    ] = "",
    k: Annotated[int, typer.Option("-k", help="how many, at most")] = 10,
    mode: Annotated[str, typer.Option("--mode", help="hybrid, words or dense")] = "hybrid",
    store: Annotated[
        str, typer.Option("--store", help="whose vectors: postgres, chroma or qdrant")
    ] = "postgres",
    passages: Annotated[int, typer.Option("--passages", help="of a document, at most")] = 1,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Find documents or runs, by words and by meaning (docs/search.md)."""
    from ml_assets.cli.search import search

    asked = {"k": k, "filter": filter, "mode": mode, "store": store, "passages": passages}
    search(settings_of_home(["postgres"]), text, where, form(as_json, as_csv), **asked)


@partial(command, group=app)
def why(
    model: Annotated[str, typer.Argument(help="the model's name")],
    day: Annotated[
        str | None, typer.Argument(help="UTC, on which it was worse, such as 2026-11-24; now if none")
    ] = None,
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown and nothing else.")] = False,
) -> None:
    """Say why a model became worse: likely causes, and the facts with the rows they rest on."""
    from ml_assets.cli.why import why

    if as_json and as_markdown:
        raise Refusal("The answer is printed once: give either --json or --markdown.")
    why(settings_of_home(), model, day, as_json, as_markdown)


@partial(command, group=app, name="metrics-server")
def metrics_server(
    port: Annotated[int, typer.Option(help="0 for one that is free", min=0, max=65535)] = 9464,
    every: Annotated[float, typer.Option(help="seconds for which figures are told again", min=0)] = 15.0,
    host: Annotated[
        str, typer.Option(help="address to listen on; by default this machine alone can ask")
    ] = "127.0.0.1",
) -> None:
    """Tell Prometheus the figures of `status --prometheus` over HTTP until Ctrl-C."""
    from ml_assets.cli import figures

    figures.serve(settings_of_home(), port, every, host)


@partial(command, group=app)
def search_quality(
    judged_set: Annotated[
        str | None, typer.Option("--set", help="a judged set; all if none is named")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Measure how well documents are found, by judgments. Exit status 1 if hybrid is worse than words or vectors."""
    from ml_assets.cli.search_quality import search_quality

    if not search_quality(settings_of_home(["postgres"]), judged_set, form(as_json, as_csv)):
        raise typer.Exit(1)


@partial(command, group=app)
def search_switch(
    embedder: Annotated[
        str | None,
        typer.Argument(
            help="as ML_ASSETS_EMBEDDER has it: minilm, minilm-int8, or ollama or openai with the model that "
            "ML_ASSETS_OLLAMA_MODEL or ML_ASSETS_OPENAI_MODEL names"
        ),
    ] = None,
    passage_tokens: Annotated[
        int | None, typer.Option("--passage-tokens", help="of a passage of a document, at most")
    ] = None,
    overlap_tokens: Annotated[
        int | None, typer.Option("--overlap-tokens", help="of the passage before, at most")
    ] = None,
    m: Annotated[
        int | None, typer.Option("--m", help="neighbours of a vector in pgvector's HNSW index")
    ] = None,
    ef_construction: Annotated[
        int | None, typer.Option("--ef-construction", help="candidates when a vector is let in")
    ] = None,
    ef_search: Annotated[
        int | None, typer.Option("--ef-search", help="candidates for an answer; 0: as at first")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="full, or half: 16 bits of each number are indexed")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Whatever the judgments say.")] = False,
    as_json: Json = False,
) -> None:
    """Serve searches by another model, cut of documents or index, if it is not worse. What is not named stays.

    Exit status 1 if it is worse, or nobody can tell.
    """
    from ml_assets.cli.search_switch import search_switch

    changes = {
        "passage_tokens": passage_tokens,
        "overlap_tokens": overlap_tokens,
        "m": m,
        "ef_construction": ef_construction,
        "ef_search": ef_search,
        "precision": precision,
    }
    if not search_switch(settings_of_home(["postgres"]), embedder, changes, force, as_json):
        raise typer.Exit(1)


@partial(command, group=app)
def backup(
    folder: Annotated[Path, typer.Argument(help="of backups; made if it does not exist", metavar="DIR")],
    keep: Annotated[
        int | None, typer.Option("--keep", help="Keep so many backups, and remove older.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Make none: say whether those that are there are whole.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="Make none: list those that are there.")] = False,
    at: Annotated[
        str | None, typer.Option("--at", help="with --verify: the backup whose id begins so")
    ] = None,
    as_json: Json = False,
) -> None:
    """Back up the whole home while everything runs. Exit status 1 if --verify finds damage (docs/backup.md)."""
    from ml_assets.cli import backup

    if verify + listed > 1 or ((verify or listed) and keep is not None) or (at is not None and not verify):
        raise Refusal("Give one of --verify (with --at, or for all), --list and --keep.")
    if listed:
        backup.listed(folder, as_json)
    elif verify:
        if not backup.verify(folder, at, as_json):
            raise typer.Exit(1)
    else:
        # As it is: whoever backs a home up before it is upgraded has a backup of before.
        backup.make(settings_of_home(upgrade=False), folder, keep, as_json)


@partial(command, group=app)
def restore(
    folder: Annotated[Path, typer.Argument(help="of backups", metavar="DIR")],
    at: Annotated[
        str | None, typer.Option("--at", help="the backup whose id begins so; else the newest")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a home out of a backup, where ML_ASSETS_HOME says and nothing is yet."""
    from ml_assets.cli import backup

    backup.bring_back(settings_of_home(upgrade=False), folder, at, as_json)


@partial(command, group=app)
def upgrade(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do nothing: list what was done and what is due.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a home of a former release to this one's format, as every command does when it opens it (docs/upgrade.md)."""
    from ml_assets.cli.upgrade import upgrade

    upgrade(settings_of_home(upgrade=False), dry_run, as_json)


@partial(command, group=app, name="map")
def map_(
    where: Annotated[str, typer.Option("--in", help="documents or runs")] = "documents",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="File to write; reports/map-documents.html of the home if none is named."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write a page with the map of documents or runs: which are alike, and which clusters there are."""
    from ml_assets.cli.search import draw_map

    draw_map(settings_of_home(["postgres"]), where, output, show, as_json)
