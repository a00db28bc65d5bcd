"""`ml-assets embeddings ...`: which models made the vectors, and making anew what another one made."""

from functools import partial

import typer

from ml_assets.cli.command import Csv, Json, command, form, settings_of_home, told_in_words

embeddings_app = typer.Typer(help="Which models made the vectors of texts; embed anew what another one made.")


def list_models(context: typer.Context, as_json: Json = False, as_csv: Csv = False) -> None:
    """List the tables of vectors with the models that made them. Exit status 1 if one is not that of the settings."""
    if context.invoked_subcommand is not None:
        return
    import pyarrow as pa

    from ml_assets.cli.data import print_table
    from ml_assets.stack import Stack

    found = Stack(settings_of_home(["postgres"])).search.embeddings()
    schema = pa.schema(
        [
            ("table", pa.string()),
            ("model", pa.string()),
            ("dimension", pa.int64()),
            ("vectors", pa.int64()),
            ("current", pa.bool_()),
        ]
    )
    print_table(pa.Table.from_pylist(found, schema), form(as_json, as_csv))
    if not all(each["current"] for each in found):
        raise typer.Exit(1)


embeddings_app.callback(invoke_without_command=True)(told_in_words(list_models))


@partial(command, group=embeddings_app)
def repair() -> None:
    """Embed anew what another model than that of the settings made, indexes included. Twice changes nothing."""
    from ml_assets.build import build_defs
    from ml_assets.cli.instance import open_instance
    from ml_assets.cli.refresh import Refresher
    from ml_assets.cli.report import progress_bars
    from ml_assets.operations.search_models import make_way, to_repair
    from ml_assets.resources import store_resources

    settings = settings_of_home(["postgres"])
    resources = store_resources(settings)
    embedder = resources["embedder"].get()
    found = to_repair(settings, resources["postgres"], embedder)
    if not found:
        print(f"All vectors are of {embedder.name}.")
        return
    for asset, anew in found.items():
        if anew:
            make_way(settings, resources, asset)
    with open_instance(settings) as instance, progress_bars() as bars:
        refresher = Refresher(settings, build_defs(settings), instance, bars)
        refresher.run("embedding anew", refresher.around(found), {})
    print(f"Embedded anew by {embedder.name}: {', '.join(sorted(found))}.")
