"""`ml-assets sql` and `ml-assets export`: what they print. What they do is in stack.py."""

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

from ml_assets.errors import Refusal
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def sql(settings: Settings, store: str, query: str, form: Literal["table", "json", "csv"]) -> None:
    """Print what a store answers.

    Args:
        form: a table for people, a JSON array with an object a row, or CSV with a header.
    """
    answer = Stack(settings).sql(store, query)
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
        Console().print(table, f"{answer.num_rows:,} {'row' if answer.num_rows == 1 else 'rows'}")


def export(settings: Settings, table: str, path: Path, overwrite: bool) -> str:
    """Write a table to a file, and say so."""
    return f"{Stack(settings).export(table, path, overwrite):,} rows written to {path}."
