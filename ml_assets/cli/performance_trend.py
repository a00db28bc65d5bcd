"""What `ml-assets trend` and `ml-assets versions` print."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.lib.curves import drawn
from ml_assets.lib.version_comparison import TEST
from ml_assets.settings import Settings
from ml_assets.stack import Stack

if TYPE_CHECKING:
    from rich.text import Text

    from ml_assets.operations.performance import Performance
    from ml_assets.operations.performance_baselines import Baseline

QUALITY = {"avg_accuracy": "green"}
LATENCY = {
    "p50_inference_time_ms": "green",
    "p95_inference_time_ms": "yellow",
    "p99_inference_time_ms": "red",
}
"""What is drawn together, and the colour of each; the later one is on top."""

_MARGIN = 9
"""Characters left of a drawing, for the values at its top and bottom."""

_WIDEST, _HEIGHT = 100, 5
_BLANK = "\N{BRAILLE PATTERN BLANK}"
_BARS = " ▁▂▃▄▅▆▇█"


def trend(
    settings: Settings, model_name: str, metric: str | None, asked: Mapping[str, Any], form: Form
) -> None:
    """Print how a model did: drawn for people, else a row a bucket.

    Args:
        settings, model_name: whose.
        metric: the only column that is drawn or printed beside the bucket; all if None.
        asked: other arguments of `Performance.trend`.
        form: of the answer.

    Raises:
        Refusal: a trend has no such column.
    """
    found = Stack(settings).performance.trend(model_name, **asked)
    if metric is not None:
        found = found.select([*_places(found.column_names), _measure(metric), "method", "until"])
    if form != "table":
        print_table(found, form)
        return
    from rich.console import Console

    console = Console()
    width = max(10, min(console.width, _WIDEST) - _MARGIN - 1)
    for name, rows in groupby(found.to_pylist(), _slice):
        for line in _lines(model_name, name, list(rows), width, metric):
            console.print(line, highlight=False, soft_wrap=True)
    if not found.num_rows:
        console.print(f"{model_name} has no events in this window.", highlight=False)


def _measure(metric: str) -> str:
    """A trend's column by its name, or by that of what it is the mean of."""
    from difflib import get_close_matches

    from ml_assets.operations.performance_trend import MEASURES

    for name in (metric, f"avg_{metric}"):
        if name in MEASURES:
            return name
    near = get_close_matches(metric, [*MEASURES, *(name.removeprefix("avg_") for name in MEASURES)], 1)
    instead = f"did you mean {near[0]}?" if near else f"name one of {', '.join(MEASURES)}."
    raise Refusal(f"A trend has no metric {metric!r}: {instead}")


def _places(names: Sequence[str]) -> list[str]:
    return [name for name in ("bucket", "model_name", "model_version", "dataset") if name in names]


def _slice(row: Mapping[str, Any]) -> str:
    for kind in ("model_version", "dataset"):
        if kind in row:
            return f"{kind.removeprefix('model_')} {row[kind] or 'unknown'}"
    return ""


def _lines(
    model_name: str, name: str, rows: list[dict[str, Any]], width: int, metric: str | None
) -> "list[Text]":
    from rich.text import Text

    newest = max((row["until"] for row in rows if row["until"] is not None), default=None)
    until = f"newest event {_minute(newest)} UTC" if newest else "no events"
    method = "exact" if rows[0]["method"] == "exact" else "quantiles within 0.5 %"
    lines = [Text.assemble((f"{model_name} {name}".rstrip(), "bold"), f"  {method}, {until}")]
    if metric is not None:
        lines += _panel(rows, {_measure(metric): "green"}, width)
    else:
        lines += _panel(rows, QUALITY, width)
        lines += _panel(rows, LATENCY, width)
        lines += _bars(rows, "request_count", width)
    first, last = (_start(rows[at]["bucket"], rows) for at in (0, -1))
    lines.append(Text(f"{'':{_MARGIN}} {first}{last:>{max(0, width - len(first))}}", "dim"))
    return lines


def _panel(rows: list[dict[str, Any]], colours: Mapping[str, str], width: int) -> "list[Text]":
    """Curves over each other, between their common least and greatest value; a gap where there is nothing."""
    from rich.text import Text

    curves = {name: [math.nan if row[name] is None else float(row[name]) for row in rows] for name in colours}
    values = [each for curve in curves.values() for each in curve if math.isfinite(each)]
    title = Text(f"{'':{_MARGIN}} ")
    # Curves of the same thing tell its name once: 80 characters are few.
    several = len(curves) > 1
    for name, curve in curves.items():
        last = next((each for each in reversed(curve) if math.isfinite(each)), None)
        title.append(f"{name.partition('_')[0] if several else name} ", colours[name])
        title.append("-  " if last is None else f"{last:.4g}  ")
    if several:
        title.append("inference_time_ms")
    if not values:
        return [title]
    limits = (min(values), max(values))
    layers = [
        (drawn(range(len(rows)), curve, width, _HEIGHT, limits, broken=""), colours[name])
        for name, curve in curves.items()
    ]
    lines = [title]
    for at in range(_HEIGHT):
        shown = {0: limits[1], _HEIGHT - 1: limits[0]}.get(at)
        line = Text(f"{'' if shown is None else f'{shown:.4g}':>{_MARGIN}} ", "dim")
        for place in range(width):
            dots, colour = 0, ""
            for layer, own in layers:
                if layer[at][place] != _BLANK:
                    dots, colour = dots | ord(layer[at][place]), own
            line.append(chr(dots) if dots else " ", colour)
        lines.append(line)
    return lines


def _bars(rows: list[dict[str, Any]], name: str, width: int) -> "list[Text]":
    """A line of bars from 0, the sum of the buckets that fall on each."""
    from rich.text import Text

    counts = [0] * width
    # As many characters for each bucket as there are, or several buckets on one.
    for at in range(max(width, len(rows))):
        place, row = at * width // max(width, len(rows)), at * len(rows) // max(width, len(rows))
        counts[place] = counts[place] + rows[row][name] if len(rows) > width else rows[row][name]
    most = max(counts)
    bars = "".join(_BARS[-(-8 * count // most)] if most else " " for count in counts)
    total = sum(row[name] for row in rows)
    return [
        Text.assemble(f"{'':{_MARGIN}} ", (name, "blue"), f" {total:,} in all"),
        Text.assemble((f"{most:>{_MARGIN},} ", "dim"), (bars, "blue")),
    ]


def _start(bucket: datetime, rows: list[dict[str, Any]]) -> str:
    whole = all(row["bucket"].hour == row["bucket"].minute == 0 for row in rows)
    return f"{bucket:%Y-%m-%d}" if whole else _minute(bucket)


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def nothing_to_compare_with(performance: "Performance", baseline: "Baseline") -> str:
    """A sentence where a baseline holds no event: its model may be misspelt, or its days. Empty where it does."""
    days = baseline.days
    try:
        rows = performance.trend(baseline.model_name, timedelta(days=len(days)), "1d", until=days.end)
    except (Refusal, StoreUnavailable) as fault:
        return str(fault)
    if any(sum(rows[name].to_pylist()) for name in ("evaluation_count", "request_count")):
        return ""
    return (
        f"No event of it is known on these days: see 'ml-assets trend {baseline.model_name}', and pin others."
    )


def versions(
    settings: Settings, model_name: str, names: Sequence[str] | None, window: str, form: Form
) -> None:
    """Print the versions of a model side by side."""
    found = Stack(settings).performance.compare_versions(model_name, names, window)
    if form != "table":
        print_table(found, form)
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    right = {"justify": "right", "no_wrap": True}
    table = Table(
        Column("version"),
        *(
            Column(name, **right)
            for name in ("requests", "evaluated", "accuracy", "p50 ms", "p95 ms", "p99 ms")
        ),
    )
    console, told = Console(), []
    for row in found.to_pylist():
        cells = [
            row["model_version"] or "unknown",
            f"{row['request_count']:,}",
            f"{row['evaluation_count']:,}",
        ]
        cells.append(_with_interval(row["avg_accuracy"], row["accuracy_low"], row["accuracy_high"]))
        cells += [_figure(row[f"p{n}_inference_time_ms"]) for n in (50, 95, 99)]
        table.add_row(*(Text(cell) for cell in cells))
        told += _verdict(row)
    console.print(table)
    for line in [*told, *_untested(found.to_pylist())]:
        console.print(line, highlight=False, markup=False)
    if found.num_rows > 1:
        console.print(f"Each beside the one before: {TEST}.", highlight=False)
    elif not found.num_rows:
        console.print(f"{model_name} has no events in this window.", highlight=False)


def _verdict(row: Mapping[str, Any]) -> list[str]:
    """In what a version differs from the one before it, if in anything."""
    told = [
        f"{name} {row[f'{name}_difference']:+.4g} (p = {row[f'{name}_p']:.2g})" for name in row["differs"]
    ]
    if not told:
        return []
    own, other = (name or "unknown" for name in (row["model_version"], row["compared_with"]))
    return [f"{own} differs from {other}: {', '.join(told)}"]


def _untested(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which differences nobody can judge: that no line tells of them does not mean that there are none."""
    told = []
    for name in ("accuracy", "f1_score", "inference_time_ms"):
        seen = [row for row in rows if row[f"{name}_difference"] is not None]
        count = sum(row[f"{name}_p"] is None for row in seen)
        if count:
            told.append(f"{name} ({count} of {len(seen)})")
    return [f"Not tested, for fewer than two values or all alike: {', '.join(told)}."] if told else []


def _with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.4f}" if low is None or high is None else f"{mean:.4f} ±{(high - low) / 2:.4f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
