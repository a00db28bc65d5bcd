"""`ml-assets quarantine` and `ml-assets retire`: what they print. The verbs are in intake/quarantine.py."""

import json
from datetime import UTC, datetime
from pathlib import Path

from ml_assets.contracts import STREAMS
from ml_assets.errors import Refusal
from ml_assets.intake import quarantine
from ml_assets.intake.judge import Bounds
from ml_assets.resources import store_resources
from ml_assets.settings import Settings, redact_url


def show(settings: Settings, stream: str, limit: int, as_json: bool) -> None:
    """Print quarantined rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stores = store_resources(settings)
    rows = [
        row
        for name in _streams(stream)
        for row in quarantine.quarantined(stores["lake"], stores["postgres"], name, limit).to_pylist()
    ]
    if as_json:
        print(json.dumps(rows, default=str))
        return
    table = Table("stream", "reason", "row")
    for row in rows:
        # Text, since rows may well hold what looks like markup.
        table.add_row(*(Text(cell) for cell in (row["stream"], row["reason"], (row["text"] or "")[:200])))
    Console().print(table if rows else "Nothing is in quarantine.")


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
    for known in found:
        counted, elsewhere = quarantine.retire_file(known, stores["lake"], stores["postgres"], bounds)
        what = f"{known.unit} ({known.stream})"
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
