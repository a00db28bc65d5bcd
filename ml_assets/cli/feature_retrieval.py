"""What `ml-assets features get` prints or writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.errors import Refusal
from ml_assets.lib.words import counted
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def get(
    settings: Settings,
    entities: str | None,
    features: Sequence[str],
    asked: Mapping[str, Any],
    out: Path | None,
    overwrite: bool,
    form: Form,
) -> None:
    """Print features of labels, or write them to a file and say so.

    Args:
        settings, entities, features: of what.
        asked: other arguments of `Features.historical`.
        out: the file; None for the screen.
        overwrite: replace the file.
        form: of what is printed.

    Raises:
        Refusal: both a file and a form for the screen are asked for.
    """
    if out is not None and form != "table":
        raise Refusal(f"The answer is given once: either to {out}, or as --{form}.")
    found = Stack(settings).features.historical(entities, features, **asked)
    if out is None:
        print_table(found.table(), form)
    else:
        print(f"{counted(found.export(out, overwrite), 'row')} written to {out}.")
