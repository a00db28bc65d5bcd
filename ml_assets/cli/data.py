"""`ml-assets sql` and `ml-assets export`: what they print; and how any rows are. What they do is in stack.py."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.cli.command import Form
from ml_assets.errors import Refusal
from ml_assets.lib.words import counted
from ml_assets.settings import Settings
from ml_assets.stack import Stack

if TYPE_CHECKING:
    import pyarrow as pa


def sql(settings: Settings, store: str, query: str, form: Form) -> None:
    """Print what a store answers."""
    print_table(Stack(settings).sql(store, query), form)


def print_table(answer: "pa.Table", form: Form) -> None:
    """Print rows.

    Raises:
        Refusal: JSON is asked for, and several columns have one name.
    """
    if form == "csv":
        import pyarrow as pa

        from ml_assets.tables.export import csv_writer

        text = pa.BufferOutputStream()
        with csv_writer(text, answer.schema) as write:
            for batch in answer.to_batches():
                write(batch)
        sys.stdout.write(text.getvalue().to_pybytes().decode())
    elif form == "json":
        import orjson

        if doubled := [name for name, count in Counter(answer.schema.names).items() if count > 1]:
            raise Refusal(
                f"JSON has a name once, and {doubled[0]!r} is several columns: name them apart with AS."
            )
        print(orjson.dumps(answer.to_pylist(), default=str).decode())
    else:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        table = Table(*(escape(name) for name in answer.schema.names))
        for row in zip(*(column.to_pylist() for column in answer.columns), strict=True):
            # Text, since rows may well hold what looks like markup.
            table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
        Console().print(table, counted(answer.num_rows, "row"))


def export(settings: Settings, table: str, path: Path, overwrite: bool) -> str:
    """Write a table to a file, and say so."""
    return f"{Stack(settings).export(table, path, overwrite):,} rows written to {path}."
