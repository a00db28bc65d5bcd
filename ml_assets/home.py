"""Where the home is: the folder of everything that is kept. The command line, `dg` and `ml_assets.connect()` find it
alike, by this rule, which is said here and in docs/home.md:

1. `ML_ASSETS_HOME` in the environment.
2. Else the nearest `.env`, from the working directory upwards, that names `ML_ASSETS_HOME`. A relative value counts
   from the folder of the `.env`; its other `ML_ASSETS_` variables count too, where the environment has none.
3. Else `data` in the nearest folder upwards that is a project: `data/dagster` or `data/landing` lies in it, or its
   `pyproject.toml` is that of `ml-assets`.
4. Else `data` in the checkout that the package runs from; an installed package has the user's data folder, as
   platformdirs names it (`~/.local/share/ml-assets` on Linux).

What belongs here: steps 2 to 4, and telling whether a home is there. Nothing here makes a folder.
"""

import io
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ml_assets.errors import Refusal

_NAME = "ML_ASSETS_HOME"
_PREFIX = "ML_ASSETS_"
_PROJECT = "ml-assets"
_TRACES = ("dagster", "landing", "light", "services", "sqlite")
"""Folders of a home, one of which is there as soon as anything was kept."""


@dataclass(frozen=True)
class Found:
    """A home that was looked for.

    Args:
        folder: absolute path; nothing need be there yet.
        variables: what the `.env` that names it says, by the names of the environment; none without a `.env`.
    """

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


def find_home(start: Path, checkout: Path | None) -> Found:
    """The home where the environment names none: see the rule above.

    Args:
        start: absolute path of the folder from which to look upwards.
        checkout: folder of the checkout that the package runs from; None for an installed package.
    """
    folders = (start, *start.parents)
    for folder in folders:
        if variables := _named(folder / ".env"):
            home = os.path.abspath(folder / Path(variables[_NAME]).expanduser())
            return Found(Path(home), {**variables, _NAME: home})
    for folder in folders:
        if _is_project(folder):
            return Found(folder / "data")
    if checkout is not None:
        return Found(checkout / "data")
    from platformdirs import user_data_path

    return Found(user_data_path(_PROJECT, appauthor=False))


def is_home(folder: Path) -> bool:
    """Whether something was ever kept there."""
    return any(_is_folder(folder / name) for name in _TRACES)


def is_kept(folder: Path) -> bool:
    """Whether a release has ever kept something there; files may have been put into its landing folders before."""
    return any(_is_folder(folder / name) for name in _TRACES if name != "landing")


def no_home(folder: Path) -> Refusal:
    """The refusal to read a home that does not exist."""
    return Refusal(
        f"There is no home at {folder}, so there is nothing to read: 'ml-assets refresh' or 'ml-assets demo' makes one, "
        f"or name another in {_NAME}, which comes first; after it a .env that names it and then a project's folder are "
        "looked for from the working directory upwards, and last the checkout's data or, for an installed package, the "
        "user's data folder."
    )


def _named(file: Path) -> dict[str, str]:
    """The variables of ours in a `.env` that names a home; none of any other file, nor of one that may not be read."""
    if not _is_readable(file):
        return {}
    text = file.read_text(errors="replace")
    if _NAME not in text.upper():  # somebody else's, of which the parser might complain
        return {}
    from dotenv import dotenv_values

    values = {name.upper(): value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value}
    ours = {name: value for name, value in values.items() if name.startswith(_PREFIX) and value.strip()}
    return ours if _NAME in ours else {}


def _is_project(folder: Path) -> bool:
    if any(_is_folder(folder / "data" / name) for name in ("dagster", "landing")):
        return True
    file = folder / "pyproject.toml"
    if not _is_readable(file):
        return False
    try:
        told = tomllib.loads(file.read_text(errors="replace"))
    except tomllib.TOMLDecodeError:  # whosever it is, it does not say that it is ours
        return False
    project = told.get("project")
    return isinstance(project, dict) and project.get("name") == _PROJECT


# os.path's functions say no where one may not look, on the way up, and Path's raise.


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def _is_readable(file: Path) -> bool:
    return os.path.isfile(file) and os.access(file, os.R_OK)  # noqa: PTH113
