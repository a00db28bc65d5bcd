"""Charts over days as HTML that needs no script: lines, bands, episodes and marks in inline SVG.

What belongs here: numbers in, markup out. What does not: style, and the script that reads out the day below the pointer.

The drawing stretches to the width that it is given, while its text does not: lines are SVG whose strokes do not scale,
and the words stand beside it as HTML. So a page is read on a telephone and printed on paper alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from html import escape
from itertools import pairwise
from statistics import median
from typing import Any

from ml_assets.lib.days import DayRange, bridge

Values = Sequence[float | None]
"""One a day; None where nothing is known."""

_SIDE = 1000
"""Units of the drawing, either way."""
_ROOM = 0.08
"""Share of the height that is left free above and below the values."""
_WIDE = 20.0
"""Largest over smallest value from which a linear axis would hide the small ones."""
_LEAST_REACH = 0.04
"""Of an axis of shares: less is noise, which a chart must not blow up."""
_MOST_MARKS = 8
"""That are named; of more the reader is told where the pointer is."""


@dataclass(frozen=True)
class Line:
    """A value a day, or points where `joined` is False.

    Args:
        name: as the legend has it.
        style: CSS class.
        values: by day.
        joined: whether neighbours are joined; a gap is never bridged.
    """

    name: str
    style: str
    values: Values
    joined: bool = True


@dataclass(frozen=True)
class Band:
    """An area between two values a day."""

    name: str
    style: str
    low: Values
    high: Values


@dataclass(frozen=True)
class Span:
    """Days that are marked from top to bottom.

    Args:
        first, last: both included; those out of the chart are cut off.
        text: what was then.
    """

    first: date
    last: date
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart over days.

    Args:
        name: identifier within the page.
        title: above it.
        days: from left to right.
        lines, bands: what is drawn.
        unit: behind each number; `%` takes shares and shows percents.
        spans: episodes.
        marks: days on which something happened, and what.
        level: what the values are held against, and its name.
    """

    name: str
    title: str
    days: DayRange
    lines: Sequence[Line]
    bands: Sequence[Band] = ()
    unit: str = ""
    spans: Sequence[Span] = ()
    marks: Sequence[tuple[date, str]] = ()
    level: tuple[str, float] | None = None
    axis: "Axis" = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _axis(self))

    @property
    def is_empty(self) -> bool:
        """Whether there is no value at all."""
        return not any(value is not None for line in self.lines for value in line.values)


@dataclass(frozen=True)
class Axis:
    """The vertical axis.

    Args:
        low, high: its ends.
        log: whether it is logarithmic.
        ticks: where it is labelled.
    """

    low: float
    high: float
    log: bool
    ticks: Sequence[float]

    def place(self, value: float) -> float:
        """From 0 at the top to 1 at the bottom; what lies outside is put at the end."""
        low, high, at = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return min(1.0, max(0.0, (high - at) / (high - low)))


def shown(value: float | None, unit: str = "") -> str:
    """A number as a person reads it: three digits, percents of shares, a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001 - a dash
    if unit == "%":
        return f"{value * 100:.1f} %"
    size = abs(value)
    if size >= 100 or (value == int(value) and size < 1e6):
        text = f"{value:,.0f}" if size < 1e7 else f"{value:.2e}".replace("e+0", "e").replace("e+", "e")
    else:
        text = f"{value:.3g}".replace("e-0", "e-")
    return f"{text} {unit}".strip()


def drawn(chart: Chart) -> str:
    """The chart as HTML; a sentence in its place where there is nothing to draw."""
    if chart.is_empty:
        return f'<p class="nothing">{escape(chart.title)}: nothing was measured in these days.</p>'
    picture = "".join(
        [
            *(_span(chart, each) for each in _covered(chart)),
            *(_rule(chart, tick) for tick in chart.axis.ticks),
            *(_band(chart, each) for each in chart.bands),
            _level(chart),
            *(_mark(chart, day) for day, _ in chart.marks),
            *(_line(chart, each) for each in chart.lines),
        ]
    )
    ys = "".join(
        f'<span style="top:{chart.axis.place(tick) * 100:.2f}%">{escape(shown(tick, chart.unit))}</span>'
        for tick in chart.axis.ticks
    )
    xs = "".join(
        f'<span style="left:{_x(chart, day) / _SIDE * 100:.2f}%">{escape(_day(day))}</span>'
        for day in _labelled(chart.days)
    )
    few = chart.marks if len(chart.marks) <= _MOST_MARKS else ()
    flags = "".join(
        f'<span style="left:{_x(chart, day) / _SIDE * 100:.2f}%" title="{escape(text)}">{escape(text)}</span>'
        for day, text in few
    )
    flags = f'<div class="flags" aria-hidden="true">{flags}</div>' if flags else ""
    return (
        f'<figure class="days"><figcaption><b>{escape(chart.title)}</b>{_legend(chart)}</figcaption>'
        f'<div class="frame{" flagged" if flags else ""}">{flags}<div class="ys" aria-hidden="true">{ys}</div>'
        f'<div class="plot" id="{escape(chart.name)}" tabindex="0" role="img" '
        f'aria-label="{escape(told(chart))}">'
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none" aria-hidden="true">{picture}</svg></div>'
        f'<div class="xs" aria-hidden="true">{xs}</div></div></figure>'
    )


def told(chart: Chart) -> str:
    """The chart in a few words, for who cannot see it."""
    parts = []
    for line in chart.lines:
        known = [
            (value, day)
            for value, day in zip(line.values, chart.days.days(), strict=True)
            if value is not None
        ]
        if not known:
            continue
        (low, low_day), (high, high_day) = min(known), max(known)
        parts.append(
            f"{line.name}: {shown(known[0][0], chart.unit)} on {_day(known[0][1])}, "
            f"{shown(known[-1][0], chart.unit)} on {_day(known[-1][1])}, "
            f"lowest {shown(low, chart.unit)} on {_day(low_day)}, "
            f"highest {shown(high, chart.unit)} on {_day(high_day)}"
        )
    parts += [f"marked from {_day(each.first)} to {_day(each.last)}: {each.text}" for each in chart.spans]
    return f"{chart.title}, by day. " + "; ".join(parts) + "."


def readout(chart: Chart) -> dict[str, Any]:
    """What the script tells of each day: names, styles and texts."""
    rows = [
        {
            "name": line.name,
            "style": line.style,
            "values": [None if each is None else shown(each, chart.unit) for each in line.values],
        }
        for line in chart.lines
    ]
    rows += [
        {
            "name": band.name,
            "style": band.style,
            "values": [
                None
                if low is None or high is None
                else f"{shown(low, chart.unit)} to {shown(high, chart.unit)}"
                for low, high in zip(band.low, band.high, strict=True)
            ],
        }
        for band in chart.bands
    ]
    days = chart.days.days()
    notes: list[list[str]] = [[] for _ in days]
    for i, day in enumerate(days):
        notes[i] += [each.text for each in chart.spans if each.first <= day <= each.last]
        notes[i] += [text for marked, text in chart.marks if marked == day]
    return {"name": chart.name, "days": [day.isoformat() for day in days], "rows": rows, "notes": notes}


def _day(day: date) -> str:
    return f"{day:%b} {day.day}"


def _labelled(days: DayRange) -> list[date]:
    """At most eight days that are labelled, at equal distances, the last one among them."""
    step = next((each for each in (1, 2, 7, 14, 28, 56, 91, 182, 364) if len(days) / each <= 8), len(days))
    return days.days()[::-1][::step][::-1]


def _x(chart: Chart, day: date) -> float:
    """The middle of a day."""
    return ((day - chart.days.first).days + 0.5) / len(chart.days) * _SIDE


def _y(chart: Chart, value: float) -> float:
    return chart.axis.place(value) * _SIDE


def _axis(chart: Chart) -> Axis:
    rows = [line.values for line in chart.lines] + [
        side for band in chart.bands for side in (band.low, band.high)
    ]
    values = [float(each) for row in rows for each in row if each is not None and math.isfinite(each)]
    if chart.level:
        values.append(chart.level[1])
    if not values:
        return Axis(0.0, 1.0, False, ())
    low, high = min(values), max(values)
    if chart.unit == "%":
        return _shares(low, high)
    if low > 0 and high / low > _WIDE:
        factor = (high / low) ** _ROOM
        return Axis(low / factor, high * factor, True, _powers(low, high))
    reach = (high - low) or abs(high) or 1.0
    bottom = 0.0 if 0 <= low < high * 0.5 or low == high else low - reach * _ROOM
    if low < 0 <= bottom:
        bottom = low - reach * _ROOM
    top = high + reach * _ROOM
    return Axis(bottom, top, False, _round(bottom, top))


def _shares(low: float, high: float) -> Axis:
    missing = max(0.0, _LEAST_REACH - (high - low)) / 2
    reach = max(high - low, _LEAST_REACH)
    bottom, top = max(0.0, low - missing - reach * _ROOM), min(1.0, high + missing + reach * _ROOM)
    return Axis(bottom, top, False, _round(bottom, top))


def _round(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    found = [
        part * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for part in (1, 2, 5)
        if low <= part * 10.0**power <= high
    ]
    if len(found) > 5:
        whole = [each for each in found if math.log10(each) == round(math.log10(each))]
        found = whole if len(whole) >= 2 else found
    return found[:: math.ceil(len(found) / 5)] if found else []


def _spacing(values: Values) -> int:
    """Days that two neighbours may lie apart and be joined: a series by the week has no gaps."""
    known = [i for i, value in enumerate(values) if value is not None]
    return max(1, 2 * round(median(b - a for a, b in pairwise(known))) - 1) if len(known) > 2 else 1


def _runs(values: Values) -> list[list[int]]:
    """Places of values that are joined."""
    most = _spacing(values)
    found: list[list[int]] = []
    for i, value in enumerate(values):
        if value is None:
            continue
        if found and i - found[-1][-1] <= most:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def _line(chart: Chart, line: Line) -> str:
    def at(i: int) -> str:
        value = line.values[i]
        return f"{(i + 0.5) / len(chart.days) * _SIDE:.1f},{_y(chart, value or 0.0):.1f}"

    runs = _runs(line.values)
    path = "".join("M" + "L".join(map(at, run)) for run in runs if line.joined and len(run) > 1)
    # A line of no length with round ends is a dot that no stretching makes an ellipse.
    few = len(chart.days) <= 45 or not line.joined
    dots = "".join(f"M{at(i)}h0" for run in runs if few or len(run) == 1 for i in run)
    drawn = f'<path class="line {line.style}" d="{path}"/>' if path else ""
    return drawn + (f'<path class="dot {line.style}" d="{dots}"/>' if dots else "")


def _band(chart: Chart, band: Band) -> str:
    both = [
        low if low is not None and high is not None else None
        for low, high in zip(band.low, band.high, strict=True)
    ]
    half = 0.5 / len(chart.days) * _SIDE

    def at(i: int, value: float | None, shift: float = 0.0) -> str:
        return f"{(i + 0.5) / len(chart.days) * _SIDE + shift:.1f},{_y(chart, value or 0.0):.1f}"

    path = ""
    for run in _runs(both):
        if len(run) == 1:  # as wide as a bar, so that it is seen
            i = run[0]
            corners = [at(i, side, shift) for side, shift in _corners(band.low[i], band.high[i], half * 0.3)]
        else:
            corners = [at(i, band.high[i]) for i in run] + [at(i, band.low[i]) for i in reversed(run)]
        path += "M" + "L".join(corners) + "Z"
    return f'<path class="band {band.style}" d="{path}"/>' if path else ""


def _corners(low: float | None, high: float | None, reach: float) -> list[tuple[float | None, float]]:
    return [(high, -reach), (high, reach), (low, reach), (low, -reach)]


def _covered(chart: Chart) -> Sequence[DayRange]:
    """The days of all spans, each once: four episodes at a time are no darker than one."""
    shown = [
        DayRange(max(each.first, chart.days.first), min(each.last, chart.days.last)) for each in chart.spans
    ]
    return bridge((day for each in shown if each.first <= each.last for day in each.days()), max_gap=0)


def _span(chart: Chart, days: DayRange) -> str:
    half = 0.5 / len(chart.days) * _SIDE
    left, right = _x(chart, days.first) - half, _x(chart, days.last) + half
    return (
        f'<rect class="span" x="{left:.1f}" y="0" width="{right - left:.1f}" height="{_SIDE}"/>'
        f'<path class="edge" d="M{left:.1f},0V{_SIDE}"/>'
    )


def _rule(chart: Chart, tick: float) -> str:
    return f'<path class="rule" d="M0,{_y(chart, tick):.1f}H{_SIDE}"/>'


def _level(chart: Chart) -> str:
    if not chart.level:
        return ""
    return f'<path class="level" d="M0,{_y(chart, chart.level[1]):.1f}H{_SIDE}"/>'


def _mark(chart: Chart, day: date) -> str:
    """A line from top to bottom; a short one above where there are too many to be named."""
    end = _SIDE if len(chart.marks) <= _MOST_MARKS else _SIDE // 25
    return f'<path class="mark" d="M{_x(chart, day):.1f},0V{end}"/>'


def _legend(chart: Chart) -> str:
    named = [(line.name, line.style, "line" if line.joined else "dot") for line in chart.lines]
    named += [(band.name, band.style, "area") for band in chart.bands]
    if chart.level:
        named.append((chart.level[0], "level", "dashes"))
    if chart.spans:
        named.append(("episode", "span", "area"))
    items = "".join(
        f'<span><i class="{kind} {style}"></i>{escape(name)}</span>' for name, style, kind in named
    )
    log = "<span>logarithmic</span>" if chart.axis.log else ""
    return f'<span class="legend">{items}{log}</span>'
