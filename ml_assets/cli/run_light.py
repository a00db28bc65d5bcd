"""What `ml-assets runs adopt` and `ml-assets runs keep` print."""

import sys
from typing import TYPE_CHECKING, Any

import typer

from ml_assets.cli.command import Form
from ml_assets.errors import Refusal
from ml_assets.lib.words import counted
from ml_assets.operations.light import LightStack
from ml_assets.operations.run_retention import Candidate, Retention, best_runs
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.resources.postgres import PostgresResource

_GRAPH_RUNS = (
    "Runs of the graph are not looked at: they go where they came from, with 'ml-assets retire' for landing files, "
    "or in MLflow."
)


def adopt(settings: Settings, as_json: bool) -> None:
    """Hand the light registry to the graph, and say what that was.

    Raises:
        Refusal: files of runs are gone; everything else was handed over.
    """
    told = LightStack(settings).adopt()
    if as_json:
        import orjson

        print(orjson.dumps({**vars(told), "folder": str(told.folder)}).decode())
    else:
        print(
            f"{counted(told.runs, 'run')} with {counted(told.artifacts, 'file')} and "
            f"{counted(told.training_data, 'dataset')}: {counted(told.files_changed, 'landing file')} in {told.folder} "
            f"new or changed."
        )
        if told.files_changed:
            print("'ml-assets refresh' takes them in; so do the sensors, while 'ml-assets up' runs.")
    if told.lost:
        raise Refusal(
            f"The content of {counted(len(told.lost), 'file')} is gone ({', '.join(told.lost[:5])}): add them again, or "
            "put back their contents from a copy, then adopt again. Their runs were handed over without them."
        )


def keep(settings: Settings, best: int, by: str, metric: str | None, yes: bool, form: Form) -> None:
    """Show what would go, and remove it once that is agreed to.

    Raises:
        Refusal: nobody is there to be asked, and --yes was not given.
    """
    from ml_assets import services

    with services.only_running():
        postgres, remark = _postgres(settings)
        found = best_runs(LightStack(settings), postgres, best, by, metric)
        removed = yes and bool(found.going)
        if form != "table":
            if removed:
                found.remove()
            _print_rows(found, form, removed)
            return
        _print_rows(found, form, removed)
        print(_GRAPH_RUNS + remark)
        if not found.going:
            print("Nothing is to be removed.")
            return
        going = (
            f"{counted(len(found.going), 'run')} with {counted(sum(c.files for c in found.going), 'file')}"
        )
        size = f"{sum(each.bytes for each in found.going):,} bytes"
        if not yes:
            if not sys.stdin.isatty():
                raise Refusal(
                    f"{going} ({size}) would be removed, and nothing was: give --yes to remove them."
                )
            typer.confirm(f"Remove {going} ({size})?", abort=True)
        told = found.remove()
        print(f"Removed {counted(told.runs, 'run')}, {counted(told.files, 'file')} and {told.bytes:,} bytes.")
        if any(each.place == "light" for each in found.going):
            print(
                "Files that another run or the graph names stay. 'ml-assets runs adopt' lets the graph follow."
            )


def _postgres(settings: Settings) -> "tuple[PostgresResource | None, str]":
    """PostgreSQL if it answers without being started; else None, and what that leaves out."""
    embedded = settings.mode("postgres") == "embedded"
    if embedded and not (settings.home / "services" / "postgres").exists():
        return None, ""
    from ml_assets.resources import store_resources

    resource = store_resources(settings)["postgres"]
    if (health := resource.health()).state == "healthy":
        return resource, ""
    return None, f" PostgreSQL is {health.state}, so runs that were recorded there are not looked at either."


def _print_rows(found: Retention, form: Form, removed: bool) -> None:
    if form == "json":
        import orjson

        rows = [{**_row(each, removed), **_run(each)} for each in found.candidates]
        print(orjson.dumps(rows, default=str).decode())
        return
    import pyarrow as pa

    from ml_assets.cli.data import print_table

    numbers = {"value": pa.float64(), "files": pa.int64(), "bytes": pa.int64()}
    columns = ("run_id", "where", "group", "metric", "value", "state", "why", "files", "bytes")
    schema = pa.schema([(name, numbers.get(name, pa.string())) for name in columns])
    rows = [_row(each, removed) for each in found.candidates]
    print_table(pa.Table.from_pylist(rows, schema), form)


def _row(each: Candidate, removed: bool) -> dict[str, Any]:
    return {
        "run_id": each.run_id,
        "where": each.place,
        "group": each.ranked.group,
        "metric": each.ranked.metric,
        "value": each.ranked.value,
        "state": "stays" if each.ranked.stays else "removed" if removed else "goes",
        "why": each.ranked.why,
        "files": each.files,
        "bytes": each.bytes,
    }


def _run(each: Candidate) -> dict[str, Any]:
    names = ("experiment", "model_name", "status", "metrics", "parameters")
    return {name: each.ranked.run[name] for name in names}
