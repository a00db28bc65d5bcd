"""`ml-assets quarantine` and `ml-assets retire`: what they print. The verbs are in intake/quarantine.py."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.contracts import STREAMS
from ml_assets.errors import Refusal
from ml_assets.intake import quarantine
from ml_assets.intake.judge import Bounds
from ml_assets.resources import store_resources
from ml_assets.settings import Settings, redact_url

if TYPE_CHECKING:
    from rich.table import Table


_ROWS = 20
_CHARACTERS = 200


def show(settings: Settings, stream: str, limit: int | None, every: bool, as_json: bool) -> None:
    """Print why rows are in quarantine, or the rows.

    Args:
        settings: which stores.
        stream: one, or "" for all.
        limit: single rows, so many of a stream; None for the reasons, or for 20 if `as_json`.
        every: single rows, all of them.
        as_json: single rows as JSON.
    """
    from rich.console import Console

    stores = store_resources(settings)
    lake, postgres = stores["lake"], stores["postgres"]
    single = every or as_json or limit is not None
    most = None if every else _ROWS if limit is None else limit
    rows = [
        row
        for name in _streams(stream)
        for row in (
            quarantine.quarantined(lake, postgres, name, most)
            if single
            else quarantine.reasons(lake, postgres, name)
        ).to_pylist()
    ]
    if as_json:
        print(json.dumps(rows, default=str))
        return
    if not rows:
        print("Nothing is in quarantine.")
    elif single:
        table = _table("stream", "reason", "row")
        for row in rows:
            _add(table, row["stream"], row["reason"], (row["text"] or "")[:_CHARACTERS])
        Console().print(table)
    else:
        table = _table("stream", "rows", "files", "reason", "example")
        for row in rows:
            example = f"{row['unit']} line {row['line']}: {row['text'][:_CHARACTERS]}"
            _add(table, row["stream"], f"{row['rows']:,}", f"{row['files']:,}", row["reason"], example)
        Console().print(table)
        print("`ml-assets quarantine list --all` shows the rows, `quarantine export` writes them to a file.")


def _table(*names: str) -> "Table":
    from rich.table import Column, Table

    # Folded, since the name of a setting that is cut off is of no use.
    return Table(*(Column(name, overflow="fold") for name in names))


def _add(table: "Table", *cells: str) -> None:
    from rich.text import Text

    # Text, since rows may well hold what looks like markup.
    table.add_row(*map(Text, cells))


def export(settings: Settings, stream: str, file: Path) -> str:
    """Write all quarantined rows of a stream to a JSON lines file."""
    stores = store_resources(settings)
    (name,) = _streams(stream)
    count = quarantine.export_rows(quarantine.quarantined(stores["lake"], stores["postgres"], name), file)
    return f"{count:,} rows written to {file}."


def retry(settings: Settings, stream: str) -> str:
    """Have files and runs with quarantined rows judged again."""
    stores = store_resources(settings)
    root = redact_url(stores["mlflow"].tracking_uri())
    count = sum(
        quarantine.reopen(stores["postgres"], stores["lake"], name, settings.landing, settings.sources, root)
        for name in _streams(stream)
    )
    return f"{count:,} files or runs are read again by the next `ml-assets refresh`."


def retire(settings: Settings, stream: str, file: str) -> str:
    """Withdraw a file."""
    stores = store_resources(settings)
    bounds = Bounds(settings.partitions_start, datetime.now(UTC))
    told = []
    found = quarantine.find_file(
        file, stores["postgres"], settings.landing, settings.sources, _streams(stream)
    )
    for each in found:
        counted, elsewhere = quarantine.retire_file(each, stores["lake"], stores["postgres"], bounds)
        what = f"{each.item_name} ({each.stream})"
        if not counted:
            told.append(f"{what} was withdrawn before.")
        elif elsewhere:
            told.append(
                f"{what} is withdrawn, but its rows stay: the same content lies at {', '.join(elsewhere)}, too; "
                "retire that as well."
            )
        else:
            told.append(f"{what} is withdrawn; `ml-assets refresh` rebuilds the days that it touched.")
    return "\n".join(told)


def _streams(stream: str) -> list[str]:
    if stream and stream not in STREAMS:
        raise Refusal(f"There is no stream {stream!r}: name one of {', '.join(STREAMS)}.")
    return [stream] if stream else list(STREAMS)
