"""Whether a home is one that the demo may be made in unasked: one with nothing in it that is not the demo's."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ml_assets.demo.manifest import Manifest
from ml_assets.errors import Refusal
from ml_assets.settings import STORES, Settings

_OTHERS_RUN = """
SELECT run_uuid FROM runs
WHERE lifecycle_stage = 'active' AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'replayed')
LIMIT 1
"""
"""A run of the embedded MLflow store that is not the demo's, which tags all of its runs when it creates them."""


def why_uninvited(settings: Settings) -> str | None:
    """Why the demo is not to be made unasked, as a clause; None if it may be. Starts and changes nothing.

    Raises:
        Refusal: the manifest or MLflow's file cannot be read.
    """
    if by_url := [store for store in STORES if settings.mode(store) == "server"]:
        return f"{', '.join(by_url)} {'is' if len(by_url) == 1 else 'are'} set by URL"
    if "://" in (settings.lake_data or ""):
        return "the files of the lake are set by URL"
    manifest = Manifest.read(settings.home)
    if manifest and manifest.leaving:
        return "it is being taken out (finish that with `ml-assets demo --remove`)"
    if file := next(_others_files(settings, manifest), None):
        return f"{settings.landing / file} is not the demo's"
    if run := _others_run(settings):
        return f"run {run} in the home's MLflow is not the demo's"
    set_up = (settings.home / "services" / "postgres" / "data").exists()
    if set_up and not Manifest.folder(settings.home).exists():
        return f"{settings.home} was set up without it"
    return None


def _others_files(settings: Settings, manifest: Manifest | None) -> Iterator[str]:
    """Landing files that the demo did not write, relative to the landing folder."""
    known: set[str] | None = None
    for name in _landing_files(settings.landing):
        if known is None:  # most homes have no file yet
            known = {*manifest.former, *manifest.written()} if manifest else set()
        if name.removesuffix(".partial") not in known:
            yield name


def _landing_files(landing: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(landing):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):  # as intake leaves them out
                yield (Path(folder) / name).relative_to(landing).as_posix()


def _others_run(settings: Settings) -> str | None:
    file = Path(settings.embedded_mlflow_uri.removeprefix("sqlite:///"))
    if not file.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            made = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('runs', 'tags')")
            if made.fetchone() != (2,):  # MLflow was killed while it made its tables
                return None
            found = connection.execute(_OTHERS_RUN).fetchone()
    except sqlite3.Error as error:
        raise Refusal(f"{file}, the home's MLflow, cannot be read ({error}): restore or move it.") from error
    return found[0] if found else None
