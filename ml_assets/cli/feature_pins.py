"""What `ml-assets features as-of`, `pin` and `rebuild` print."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ml_assets.lib.versions import shown
from ml_assets.lib.words import counted
from ml_assets.operations.feature_pins import has_run
from ml_assets.resources import store_resources
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def as_of(settings: Settings, table: str, time: str, out: Path, overwrite: bool) -> None:
    """Write a table as it stood at a time to a file, and say how many rows there were."""
    from ml_assets.tables.export import export

    features, name = Stack(settings).features, table.rpartition("/")[2].rpartition(".")[2]
    rows = export(lambda: features.as_of(table, time), name, out, overwrite)
    print(f"{counted(rows, 'row')} of {table} as of {time} written to {out}.")


def pin(
    settings: Settings, name: str, tables: Sequence[str] | None, run_id: str | None, as_json: bool
) -> None:
    """Pin the lake, and say what is kept."""
    made = Stack(settings).features.pin(name, tables, run_id)
    if as_json:
        told = asdict(made) | {"written_at": str(made.written_at), "pinned_at": str(made.pinned_at)}
        print(json.dumps({key: value for key, value in told.items() if key not in ("files", "settings")}))
        return
    since = "" if made.written_at is None else f" of {shown(made.written_at)}"
    print(
        f"Version {made.version}{since} is kept as {name}: {counted(len(made.tables), 'table')} with "
        f"{counted(sum(state.rows for state in made.tables.values()), 'row')}, "
        f"{counted(len(made.files), 'feature file')}."
    )
    if run_id is not None and not has_run(store_resources(settings)["mlflow"], run_id):
        print(f"{run_id} is no run of MLflow: no tag.")


def rebuild(
    settings: Settings, name: str, table: str | None, out: Path | None, overwrite: bool, as_json: bool
) -> bool:
    """Rebuild a table of a pin, and say whether it is equal.

    Returns:
        whether it is.
    """
    found = Stack(settings).features.rebuild(name, table, out, overwrite)
    if as_json:
        print(json.dumps({**asdict(found), "equal": found.equal}))
    else:
        print(found)
        if out is not None:
            print(f"{counted(found.made.rows, 'row')} written to {out}.")
    return found.equal
