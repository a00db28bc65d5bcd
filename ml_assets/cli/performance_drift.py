"""`ml-assets drift`: what it prints."""

from collections import Counter
from datetime import date
from itertools import groupby
from typing import Any, cast

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.errors import Refusal
from ml_assets.lib.words import counted
from ml_assets.settings import Settings
from ml_assets.stack import Stack

_ORDER = ("drift", "none", "too few", "not judged")

MODELS, WORST = 20, 10
"""Models, and features of each, that are shown; all of them are in --json and --csv."""


def drift(
    settings: Settings,
    model: str | None,
    day: str | None,
    window: str | None,
    reference: str | None,
    mode: str,
    slice: str | None,
    form: Form,
) -> None:
    """Print the drift of a model, or of all; for people the worst of it, and no slices unless they ask for them."""
    found = Stack(settings).performance.drift(
        model,
        _day(day) if day else None,
        _days(window) if window else None,
        _days(reference) if reference else None,
        cast("Any", mode),
        slice or ("all" if form == "table" else None),
    )
    if form != "table":
        print_table(found, form)
    else:
        show(found.to_pylist(), model, window, slice)


def show(rows: list[dict[str, Any]], model: str | None, window: str | None, slice: str | None) -> None:
    """Print rows of clickhouse/feature_drift for people: a model a table, the worst first.

    Args:
        rows: what was found.
        model, window, slice: what was asked for.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    of_models = [
        list(some) for _, some in groupby(sorted(rows, key=_rank), key=lambda row: row["model_name"])
    ]
    told = of_models
    if model is None:  # of many models, those that drift, the worst first
        told = sorted(of_models, key=lambda some: (_ORDER.index(some[0]["state"]), _p(some[0])))[:MODELS]
    for some in told:
        shown = [row for row in some if row["state"] != "not judged"]
        if model is None:
            shown = [row for row in shown if row["state"] == "drift"]
        console.print(Text(_title(some[0], window), style="bold"))
        if shown:
            table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
            table.add_column("feature", overflow="fold")
            for heading in ("n", "KS", "Wasserstein", "PSI", "p"):
                table.add_column(heading, justify="right", no_wrap=True)
            table.add_column("verdict")
            for row in shown[:WORST]:
                numbers = (_number(row[each]) for each in ("ks", "wasserstein", "psi", "corrected_p"))
                counts = f"{row['reference_count']:,} / {row['current_count']:,}"
                cells = (_feature(row, slice), counts, *numbers, _verdict(row))
                style = "bold red" if row["state"] == "drift" else ""
                table.add_row(*(Text(cell, style=style) for cell in cells))
            console.print(table)
        states = Counter(row["state"] for row in some)
        counts = ", ".join(f"{states[state]:,} {state}" for state in _ORDER if states[state])
        hidden = f" {len(shown) - WORST:,} more: see --csv." if len(shown) > WORST else ""
        why = "" if shown else f" {some[0]['reason']}"
        console.print(Text(f"{counted(len(some), 'feature')}: {counts}.{hidden}{why}"))
    if len(of_models) > len(told):
        rest = len(of_models) - len(told)
        console.print(
            f"{rest:,} more {'model drifts' if rest == 1 else 'models drift'} less, or not: see --csv."
        )


def _title(row: dict[str, Any], window: str | None) -> str:
    on = f"from {' to '.join(map(str, _days(window)))}" if window else f"on {row['day']:%Y-%m-%d}"
    pinned = " (pinned)" if row["reference_pinned"] else ""
    return f"{row['model_name']} {on}, against {row['reference_first']} to {row['reference_last']}{pinned}"


def _verdict(row: dict[str, Any]) -> str:
    """The state, and of its reason what the row's numbers do not say."""
    state, reason = row["state"], row["reason"]
    if state == "too few":
        return f"{state}: {reason.rpartition('; ')[2].removesuffix('.')}"
    if not reason.startswith(("KS ", "PSI ")):
        return f"{state}: {reason}"
    if state == "drift":
        return f"{state}: {reason.split()[0]} ≥ {row['threshold']:g}"
    return f"{state}: {reason.rpartition(': ')[2].removesuffix('.')}"


def _rank(row: dict[str, Any]) -> tuple[Any, ...]:
    """By model, what drifted first, and there the most certain."""
    return (
        row["model_name"],
        _ORDER.index(row["state"]),
        _p(row),
        -(row["psi"] or 0),
        row["subject"],
        row["feature"],
    )


def _p(row: dict[str, Any]) -> float:
    return 1.0 if row["corrected_p"] is None else row["corrected_p"]


def _feature(row: dict[str, Any], slice: str | None) -> str:
    of = f" of version {row['slice_value'] or 'unknown'}" if slice == "model_version" else ""
    return f"{row['feature']}{of}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as fault:
        raise Refusal(f"{text!r} is no day: write it as 2026-11-12.") from fault


def _days(text: str) -> tuple[date, date]:
    first, _, last = text.partition(":")
    return _day(first), _day(last or first)
