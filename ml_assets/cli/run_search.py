"""What `ml-assets runs search` prints."""

import math
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.lib.filters.fields import Attribute, Field, Metric, Param
from ml_assets.lib.words import counted
from ml_assets.settings import Settings
from ml_assets.stack import Stack

_ALWAYS = ("run_id", "experiment", "model_name", "dataset", "status", "created_at")


def search(
    settings: Settings, filter: str, order_by: Sequence[str], limit: int, page_token: str | None, form: Form
) -> None:
    """Print one page of the runs that a filter lets through."""
    page = Stack(settings).experiments.search(filter, order_by, limit, page_token)
    more = f"There are more: add --page {page.next_page_token}" if page.next_page_token else ""
    if form == "json":
        import orjson

        runs = [
            run | {"values": {key: _in_json(each) for key, each in run["values"].items()}} for run in page
        ]
        print(orjson.dumps(runs, default=str).decode())
    elif form == "csv":
        print_table(page.to_columns(), "csv")
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        asked = [each for each in page.fields if not (isinstance(each, Attribute) and each.name in _ALWAYS)]
        # A step's value stays in the lake, which was asked for the runs alone.
        asked = [each for each in asked if not (isinstance(each, Metric) and each.step is not None)]
        table = Table()
        for name in (*_ALWAYS, *map(str, asked)):
            table.add_column(Text(name), overflow="fold")
        for run in page:
            cells = [*(run[name] for name in _ALWAYS), *(_value(run, each) for each in asked)]
            # Text, since a run may well hold what looks like markup.
            table.add_row(*(Text(_told(cell)) for cell in cells))
        Console().print(table, Text(counted(len(page), "run")))
    for told in (*page.notes, *([more] if more else [])):
        print(told, file=sys.stderr)


def _in_json(value: Any) -> Any:
    """A value as JSON can hold it: NaN and the infinities are text, as among the metrics."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _value(run: dict[str, Any], field: Field) -> Any:
    if isinstance(field, Metric):
        return run["values"].get(str(field))
    if isinstance(field, Attribute):
        if field.name == "duration_s":
            return (run["completed_at"] - run["created_at"]).total_seconds() if run["completed_at"] else None
        return run[field.name]
    return run["parameters" if isinstance(field, Param) else "tags"].get(field.key)


def _told(cell: Any) -> str:
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M:%S}"
    if isinstance(cell, float):
        return f"{cell:.6g}"
    return "" if cell is None else str(cell)
