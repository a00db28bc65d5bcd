"""Pictures for asset pages: rows in, a small PNG out.

What belongs here: drawing. What does not: reading stores, and Dagster's metadata. Each picture is made in two
steps, a figure and its PNG, so that a test can ask a figure what it shows.
"""

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 100
_WIDTH_INCHES = 8.0
_COLOURS = 64
"""Enough for a line chart with smoothed edges; a fifth of the bytes of true colour."""
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


def _xy(rows: Iterable[Mapping[str, Any]], x: str, y: str) -> tuple[list[Any], list[Any]]:
    """Two columns as lists, without the rows where y is unknown."""
    known = [row for row in rows if row[y] is not None]
    return [row[x] for row in known], [row[y] for row in known]


def _scale(axes: "Axes") -> None:
    """A logarithmic axis where the lines would hide each other otherwise."""
    import numpy as np

    values = [float(value) for line in axes.lines for value in np.asarray(line.get_ydata(), dtype=float)]
    if values and min(values) > 0 and max(values) / min(values) > _LOG_SPREAD:
        axes.set_yscale("log")


def _date_axis(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
