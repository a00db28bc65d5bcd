"""What `ml-assets runs curves` prints."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.lib.curves import drawn
from ml_assets.settings import Settings
from ml_assets.stack import Stack

if TYPE_CHECKING:
    from rich.text import Text

_TALL, _FLAT = 4, 1
"""Lines of a drawing, and of one among many."""

_FEW = 8
"""Curves that are drawn tall: more do not fit on a screen."""

_WIDEST = 100
"""Characters of a drawing, at most."""


def curves(
    settings: Settings, run_ids: Sequence[str], keys: Sequence[str], asked: Mapping[str, Any], form: Form
) -> None:
    """Print curves: drawn for people, else point by point.

    Args:
        settings, run_ids, keys: whose.
        asked: other arguments of `Experiments.curves`.
        form: of the answer.
    """
    found = Stack(settings).experiments.curves(run_ids, keys, **asked)
    if form != "table":
        print_table(found, form)
        return
    from rich.console import Console

    console = Console()
    traces: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found.to_pylist():
        traces.setdefault((_title(row), row["key"]), []).append(row)
    height = _TALL if len(traces) <= _FEW else _FLAT
    for (title, key), rows in traces.items():
        console.print(_summary(title, key, rows), highlight=False, soft_wrap=True)
        shown = [row["smoothed"] for row in rows]
        for line in drawn([row["x"] for row in rows], shown, min(console.width, _WIDEST), height):
            console.print(line, highlight=False, markup=False)
    if not traces:
        console.print("These runs have logged no such points.")


def _title(row: Mapping[str, Any]) -> str:
    if "group" not in row or row["run_id"] is not None:
        return str(row["run_id"])
    return f"mean of {'no group' if row['group'] is None else row['group']}"


def _summary(title: str, key: str, rows: Sequence[Mapping[str, Any]]) -> "Text":
    from rich.text import Text

    values = [row["value"] if row["value"] is not None else row["mean"] for row in rows]
    finite = [value for value in values if math.isfinite(value)]
    figures = [f"last {values[-1]:.4g}"]
    if finite:
        figures += [f"min {min(finite):.4g}", f"max {max(finite):.4g}"]
    if (most := max((row.get("n") or 0 for row in rows), default=0)) > 0:
        figures.append(f"n {most}")
    broken = sorted({str(value) for value in values if not math.isfinite(value)})
    told = Text.assemble(
        (title, "bold"), f"  {key}  {'  '.join(figures)}  x {rows[0]['x']:g} to {rows[-1]['x']:g}"
    )
    if broken:
        told.append(f"  holds {', '.join(broken)} (✗)", style="red")
    return told
