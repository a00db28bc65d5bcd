"""Pictures for asset pages: rows in, a small PNG out.

What belongs here: drawing. What does not: reading stores, and Dagster's metadata. Each picture is made in two
steps, a figure and its PNG, so that a test can ask a figure what it shows.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ml_assets.lib.days import DayRange, bridge

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

_DPI = 100
_WIDTH_INCHES = 8.0
_COLOURS = 64
"""Enough for a line chart with smoothed edges; a fifth of the bytes of true colour."""
_NAMED_CLUSTERS = 12
_LOG_SPREAD = 10.0
"""Largest over smallest value from which a linear axis would hide the small curves."""


def learning_curves(points: "pa.Table") -> "Figure":
    """Loss over training step, one colour a run; training loss solid, validation loss dashed.

    Args:
        points: rows (run, key, step, value) with key `loss` or `val_loss`, ordered by run, key, step.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _figure(rows=1, height=4.2)
    runs: dict[str, str] = {}
    for (run, key), curve in _groups(points, "run", "key").items():
        colour = runs.setdefault(run, f"C{len(runs)}")
        style, label = ("-", run) if key == "loss" else ("--", "_")
        marker = "o" if len(curve) == 1 else ""
        axes.plot(
            *_xy(curve, "step", "value"), style, marker=marker, color=colour, label=label, linewidth=1.4
        )
    _scale(axes)
    axes.set(title="Learning curves: loss (solid), validation loss (dashed)", xlabel="step", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return figure


def performance_trend(accuracies: "pa.Table", latencies: "pa.Table") -> "Figure":
    """Accuracy of each dataset above, latency of each model below, over the same days.

    Args:
        accuracies: rows (dataset, day, accuracy), ordered by dataset and day.
        latencies: rows (model_name, day, p50_inference_time_ms, p95_inference_time_ms), ordered by model and day.
    """
    figure, (above, below) = _figure(rows=2, height=5.6)
    for (dataset,), line in _groups(accuracies, "dataset").items():
        above.plot(*_xy(line, "day", "accuracy"), marker=".", label=dataset, linewidth=1.4)
    above.set(title="Accuracy of the day's evaluations", ylabel="accuracy", ylim=(-0.03, 1.03))
    for number, ((model,), line) in enumerate(_groups(latencies, "model_name").items()):
        for quantile, style, label in (("p50", "-", model), ("p95", "--", "_")):
            drawn = _xy(line, "day", f"{quantile}_inference_time_ms")
            below.plot(*drawn, style, marker=".", color=f"C{number}", label=label, linewidth=1.4)
    below.set(title="Time of a batch: median (solid), 95th percentile (dashed)", ylabel="milliseconds")
    _scale(below)
    below.sharex(above)
    _date_axis(below)
    above.tick_params(labelbottom=False)
    _legend(above)
    _legend(below)
    return figure


def model_trend(
    name: str, days: Sequence[Mapping[str, Any]], episodes: Sequence[Mapping[str, Any]]
) -> "Figure":
    """Accuracy of a model above, its latency with bands between p50, p95 and p99 below; episodes are marked.

    Args:
        name: of the model.
        days: rows (day, avg_accuracy, p50_, p95_ and p99_inference_time_ms), ordered by day.
        episodes: rows (kind, began_at, closed_at); one that is open lasts to the end.
    """
    figure, (above, below) = _figure(rows=2, height=4.6)
    above.plot(
        *_xy(_unbroken(days), "day", "avg_accuracy", gaps=True), marker=".", label="accuracy", linewidth=1.4
    )
    above.set(ylabel="accuracy")
    # Neither is a name mathematics, nor longer than the picture.
    above.set_title(name if len(name) <= 80 else f"{name[:79]}…", parse_math=False)
    rows = _unbroken(days)
    lines = {part: _xy(rows, "day", f"{part}_inference_time_ms", gaps=True) for part in ("p50", "p95", "p99")}
    for colour, (part, (at, values)) in zip(("C2", "C0", "C1"), lines.items(), strict=True):
        below.plot(at, values, marker=".", color=colour, label=part, linewidth=1.2)
    for colour, low, high in (("C0", "p50", "p95"), ("C1", "p95", "p99")):
        below.fill_between(
            lines[low][0], lines[low][1], lines[high][1], color=colour, alpha=0.15, linewidth=0
        )
    below.set(ylabel="milliseconds")
    _scale(below)
    below.sharex(above)
    _mark_episodes(above, below, rows, episodes)
    _date_axis(below)
    above.tick_params(labelbottom=False)
    _legend(above)
    _legend(below)
    return figure


def _unbroken(days: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The rows with one of nothing for each day between them, so that a gap is no line."""
    known = {row["day"]: row for row in days}
    if not known:
        return ()
    first, last = min(known), max(known)
    return [
        known.get(day, defaultdict(lambda: None, day=day))
        for n in range((last - first).days + 1)
        for day in [first + timedelta(days=n)]
    ]


def _mark_episodes(
    above: "Axes", below: "Axes", days: Sequence[Mapping[str, Any]], episodes: Sequence[Mapping[str, Any]]
) -> None:
    """Mark the days of episodes of quality above and of latency below, each once."""
    from matplotlib.dates import date2num

    if not days:
        return
    whole = DayRange(days[0]["day"], days[-1]["day"])
    for axes, kind in ((above, "quality"), (below, "latency")):
        shown = [
            day
            for day in whole.days()
            for episode in episodes
            if episode["kind"] == kind and episode["began_at"].date() <= day
            if episode["closed_at"] is None or day <= episode["closed_at"].date()
        ]
        for n, span in enumerate(bridge(shown, max_gap=0)):
            first, last = float(date2num(span.first)) - 0.5, float(date2num(span.last)) + 0.5
            axes.axvspan(first, last, color="C3", alpha=0.15, linewidth=0, label="_" if n else "episode")
    above.set_xlim(float(date2num(whole.first)) - 0.5, float(date2num(whole.last)) + 0.5)


def cluster_map(points: "pa.Table", title: str) -> "Figure":
    """Points on a map, each cluster in a colour, with the labels of the largest ones.

    Args:
        points: rows (cluster, label, x, y); those of cluster -1 belong to none.
    """
    figure, (axes,) = _figure(rows=1, height=6.0)
    axes.set_title(title)
    axes.set_axis_off()
    clusters: dict[Any, list[Mapping[str, Any]]] = {
        cluster: rows for (cluster,), rows in _groups(points, "cluster").items()
    }
    axes.scatter(*_xy(clusters.pop(-1, ()), "x", "y"), s=6, color="0.75", linewidths=0)
    largest = sorted(clusters, key=lambda cluster: (-len(clusters[cluster]), cluster))
    for cluster in largest:
        x, y = _xy(clusters[cluster], "x", "y")
        axes.scatter(x, y, s=10, color=f"C{cluster % 10}", linewidths=0)
    for cluster in largest[:_NAMED_CLUSTERS]:
        x, y = _xy(clusters[cluster], "x", "y")
        axes.annotate(
            clusters[cluster][0]["label"] or f"cluster {cluster}",
            (sum(x) / len(x), sum(y) / len(y)),
            ha="center",
            fontsize="small",
            parse_math=False,
        )
    return figure


def png(figure: "Figure") -> bytes:
    """The figure as a PNG of few colours, about 800 pixels wide."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    small = BytesIO()
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(_COLOURS).save(small, format="png", optimize=True)
    return small.getvalue()


def _figure(rows: int, height: float) -> "tuple[Figure, Sequence[Axes]]":
    # Not pyplot: it keeps every figure alive and belongs to one thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for one in axes:
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _groups(table: "pa.Table", *names: str) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _xy(rows: Iterable[Mapping[str, Any]], x: str, y: str, gaps: bool = False) -> tuple[list[Any], list[Any]]:
    """Two columns as lists, without the rows where y is unknown; with NaN there if gaps are to stay gaps."""
    if gaps:
        return _xy([{x: row[x], y: math.nan if row[y] is None else row[y]} for row in rows], x, y)
    known = [row for row in rows if row[y] is not None]
    return [row[x] for row in known], [row[y] for row in known]


def _scale(axes: "Axes") -> None:
    """A logarithmic axis where the lines would hide each other otherwise."""
    import numpy as np

    drawn = (np.asarray(line.get_ydata(), dtype=float) for line in axes.lines)
    values = [float(value) for line in drawn for value in line[np.isfinite(line)]]
    if values and min(values) > 0 and max(values) / min(values) > _LOG_SPREAD:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain_numbers())
        axes.yaxis.set_minor_formatter(_plain_numbers())


def _plain_numbers() -> "LogFormatter":
    """0.6 in place of 6 x 10^-1, at the ticks that matplotlib has labels for."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    return Plain(minor_thresholds=(2, 0.8))


def _date_axis(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[1]:
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name with dollar signs is a name
