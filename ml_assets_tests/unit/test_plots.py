"""Pictures show the rows that they are given, and stay small."""

import math
from datetime import UTC, date, datetime, timedelta
from io import BytesIO

import pyarrow as pa
import pytest
from matplotlib.dates import date2num
from PIL import Image

from ml_assets.lib.plots import learning_curves, model_trend, performance_trend, png

CURVES = pa.table(
    {
        "run": ["cats", "cats", "cats", "cats", "dogs"],
        "key": ["loss", "loss", "val_loss", "val_loss", "loss"],
        "step": [0, 5, 0, 5, 2],
        "value": [1.0, 0.5, 1.1, 0.7, 0.9],
    }
)
DAYS = [date(2026, 3, 1) + timedelta(days=n) for n in range(3)]
LATENCIES = pa.table(
    {
        "model_name": ["cats", "cats", "cats", "dogs"],
        "day": [*DAYS, DAYS[0]],
        "p50_inference_time_ms": [1.0, None, 3.0, 5.0],
        "p95_inference_time_ms": [2.0, None, 9.0, 6.0],
    }
)
ACCURACIES = pa.table(
    {"dataset": ["digits", "digits", "iris"], "day": [DAYS[0], DAYS[2], DAYS[1]], "accuracy": [0.9, 0.4, 1.0]}
)


def drawn(axes):
    return [line.get_xydata().tolist() for line in axes.lines]


def test_learning_curves_draws_each_run_in_its_colour():
    (axes,) = learning_curves(CURVES).axes
    assert drawn(axes) == [[[0, 1.0], [5, 0.5]], [[0, 1.1], [5, 0.7]], [[2, 0.9]]]
    assert [line.get_color() for line in axes.lines] == ["C0", "C0", "C1"]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--", "-"]
    assert axes.get_legend_handles_labels()[1] == ["cats", "dogs"]


def test_a_wide_spread_of_losses_gets_a_logarithmic_axis():
    wide = CURVES.set_column(3, "value", pa.array([1000.0, 500.0, 1.1, 0.7, 0.9]))
    figure = learning_curves(wide)
    assert figure.axes[0].get_yscale() == "log"
    figure.canvas.draw()
    told = {label.get_text() for label in figure.axes[0].yaxis.get_ticklabels(which="both")}
    assert {"0.1", "1"} <= told and not any("10^" in each for each in told)
    assert learning_curves(CURVES).axes[0].get_yscale() == "linear"


def test_performance_trend_leaves_unknown_days_out():
    above, below = performance_trend(ACCURACIES, LATENCIES).axes
    first, second, third = date2num(DAYS)
    assert drawn(above) == [[[first, 0.9], [third, 0.4]], [[second, 1.0]]]
    assert drawn(below) == [
        [[first, 1.0], [third, 3.0]],
        [[first, 2.0], [third, 9.0]],
        [[first, 5.0]],
        [[first, 6.0]],
    ]
    assert [line.get_color() for line in below.lines] == ["C0", "C0", "C1", "C1"]
    assert below.get_legend_handles_labels()[1] == ["cats", "dogs"]
    assert above.get_xlim() == below.get_xlim()


EPISODES = [
    {"kind": "quality", "began_at": datetime(2026, 3, 3, 4, tzinfo=UTC), "closed_at": None},
    {
        "kind": "latency",
        "began_at": datetime(2026, 2, 1, tzinfo=UTC),
        "closed_at": datetime(2026, 3, 1, tzinfo=UTC),
    },
    {
        "kind": "latency",
        "began_at": datetime(2026, 1, 1, tzinfo=UTC),
        "closed_at": datetime(2026, 2, 1, tzinfo=UTC),
    },
    {"kind": "memory", "began_at": datetime(2026, 3, 1, tzinfo=UTC), "closed_at": None},
]


def model_days(*accuracies):
    return [
        {"day": day, "avg_accuracy": accuracy, **{f"p{n}_inference_time_ms": n * 1.0 for n in (50, 95, 99)}}
        for day, accuracy in zip(DAYS, accuracies, strict=True)
        if accuracy is not None
    ]


def test_model_trend_marks_episodes_and_leaves_gaps():
    above, below = model_trend("$a_{$", model_days(0.9, None, 0.4), EPISODES).axes
    first, second, third = date2num(DAYS)
    (line,) = drawn(above)
    assert (line[0], line[2]) == ([first, 0.9], [third, 0.4])
    assert math.isnan(line[1][1])
    assert spans(above) == [[third - 0.5, third + 0.5]]
    assert spans(below) == [[first - 0.5, first + 0.5]]
    assert below.get_legend_handles_labels()[1] == ["p50", "p95", "p99", "episode"]
    assert second < third


def spans(axes):
    return [[patch.get_x(), patch.get_x() + patch.get_width()] for patch in axes.patches]


@pytest.mark.parametrize(
    "days", [[], model_days(0.5, None, None), [dict.fromkeys(model_days(1, 1, 1)[0]) | {"day": DAYS[0]}]]
)
def test_model_trend_of_next_to_nothing(days):
    assert png(model_trend("x" * 500, days, EPISODES)).startswith(b"\x89PNG")


def test_days_without_evaluations_still_show_their_latency():
    above, below = performance_trend(ACCURACIES.slice(0, 0), LATENCIES).axes
    assert drawn(above) == []
    assert len(drawn(below)) == 4


def test_png_is_a_small_picture():
    figures = (
        learning_curves(CURVES),
        performance_trend(ACCURACIES, LATENCIES),
        model_trend("$cats$", model_days(0.9, 0.8, 0.4), EPISODES),
    )
    for figure in figures:
        picture = png(figure)
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(picture) < 60_000
        with Image.open(BytesIO(picture)) as image:
            image.load()
            assert image.width == 800
            assert len(image.getcolors() or ()) > 8  # not an empty canvas
