"""`ml-assets accuracy`: what it prints."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.errors import Refusal
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def accuracy(settings: Settings, model: str, days: int, until: str | None, form: Form) -> None:
    """Print the accuracy of a model by the day: all that is known, or for people what fits a screen."""
    if days < 1:
        raise Refusal(f"--days is {days}: give 1 or more.")
    try:
        last = date.fromisoformat(until) if until else datetime.now(UTC).date()
    except ValueError:
        raise Refusal(f"--until is {until!r}: give a day such as 2026-11-29.") from None
    found = Stack(settings).performance.estimated_accuracy(model, last - timedelta(days=days - 1), last)
    if form != "table":
        print_table(found, form)
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    rows = found.to_pylist()
    numbers = ("answers", "labelled", "estimated", "95 %", "measured")
    table = Table(
        Column("day", no_wrap=True),
        *(Column(each, justify="right", no_wrap=True) for each in numbers),
        Column("source", no_wrap=True),
    )
    reasons: dict[str, list[str]] = {}
    for row in (each for each in rows if each["slice"] == "all"):
        day = str(row["day"])
        if not row["applicable"]:
            reasons.setdefault(row["reason"], []).append(day)
        estimate = _share(row["estimated_accuracy"]) if row["applicable"] else "-"
        interval = f"{_share(row['low'])}-{_share(row['high'])}" if row["applicable"] else ""
        cells = (
            day,
            f"{row['prediction_count']:,}",
            f"{row['labelled_count']:,}",
            estimate,
            interval,
            _share(row["measured_accuracy"]),
            row["source"] or "",
        )
        table.add_row(*map(Text, cells))
    console = Console()
    console.print(table)
    last_row = rows[-1]
    pinned = ", which are pinned" if last_row["reference_pinned"] else ""
    told = f"Calibrated on the days {last_row['reference_first']} to {last_row['reference_last']}{pinned}."
    console.print(Text(told))
    for reason, of_days in reasons.items():
        console.print(Text(f"Not applicable on {_listed(of_days)}: {reason}"))


def _share(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def _listed(days: list[str]) -> str:
    return days[0] if len(days) == 1 else f"{len(days)} days from {days[0]} to {days[-1]}"
