"""Charts over days: gaps stay gaps, axes fit what is drawn, and odd series draw too."""

import math
from datetime import date, timedelta

import pytest

from ml_assets.lib.day_chart import Band, Chart, Line, Span, drawn, readout, shown, told
from ml_assets.lib.days import DayRange

FIRST = date(2026, 3, 1)


def chart(*values: float | None, unit: str = "", **more) -> Chart:
    days = DayRange(FIRST, FIRST + timedelta(days=len(values) - 1))
    return Chart("c", "Speed", days, [Line("speed", "c0", values)], unit=unit, **more)


def path(html: str, style: str) -> str:
    return html.split(f'class="{style}" d="')[1].split('"', maxsplit=1)[0]


def test_a_gap_is_no_line():
    line = path(drawn(chart(1.0, 2.0, 3.0, *[None] * 30, 4.0, 5.0)), "line c0")
    assert line.count("M") == 2
    assert line.count("L") == 3


def test_a_series_by_the_week_has_no_gaps():
    values = [float(i) if i % 7 == 0 else None for i in range(60)]
    assert path(drawn(chart(*values)), "line c0").count("M") == 1


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-12, 1e12])
@pytest.mark.parametrize("unit", ["", "ms"])
def test_one_value_or_the_same_over_and_over_stands_inside(value, unit):
    for found in (chart(value, unit=unit), chart(value, value, value, unit=unit)):
        assert found.axis.low < found.axis.high
        assert 0.0 <= found.axis.place(value) <= 1.0
        assert "nan" not in drawn(found)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_shares_never_leave_0_to_1_and_noise_is_not_blown_up(value):
    axis = chart(value, value, unit="%").axis
    assert 0.0 <= axis.low < axis.high <= 1.0
    assert axis.high - axis.low >= 0.02


def test_values_far_apart_get_a_logarithmic_axis():
    found = chart(1.0, 1000.0)
    assert found.axis.log
    assert "logarithmic" in drawn(found)
    assert [tick for tick in found.axis.ticks if tick in (1.0, 10.0, 100.0, 1000.0)] == list(found.axis.ticks)
    assert not chart(0.0, 1000.0).axis.log


def test_nothing_measured_is_a_sentence():
    assert drawn(chart(None, None)) == '<p class="nothing">Speed: nothing was measured in these days.</p>'
    assert chart(None).is_empty


def test_words_of_others_are_text():
    evil = "</svg><script>alert(1)</script>"
    found = chart(1.0, 2.0, spans=[Span(FIRST, FIRST, evil)], marks=[(FIRST, evil)], level=(evil, 1.5))
    assert "<script>" not in drawn(found)


def test_an_episode_is_cut_to_the_days_that_are_shown():
    inside = chart(1.0, 2.0, spans=[Span(FIRST - timedelta(days=9), FIRST, "bad")])
    assert 'x="0.0" y="0" width="500.0"' in drawn(inside)
    outside = chart(1.0, 2.0, spans=[Span(FIRST - timedelta(days=9), FIRST - timedelta(days=2), "bad")])
    assert "<rect" not in drawn(outside)


def test_episodes_at_the_same_time_are_marked_once():
    days = [FIRST + timedelta(days=n) for n in range(6)]
    spans = [
        Span(days[1], days[3], "slow"),
        Span(days[0], days[1], "wrong"),
        Span(days[5], days[5], "slow again"),
    ]
    found = drawn(chart(*map(float, range(6)), spans=spans))
    assert found.count('class="span"') == 2
    assert 'x="0.0" y="0" width="666.7"' in found


def test_it_is_told_to_who_cannot_see_it_and_read_out_by_day():
    days = DayRange(FIRST, FIRST + timedelta(days=2))
    found = Chart(
        "c",
        "Speed",
        days,
        [Line("p50", "c0", [1.0, None, 3.0])],
        [Band("spread", "c1", [0.5, None, 2.0], [2.0, None, 4.0])],
        "ms",
        marks=[(FIRST, "version 2")],
    )
    assert told(found) == (
        "Speed, by day. p50: 1 ms on Mar 1, 3 ms on Mar 3, lowest 1 ms on Mar 1, highest 3 ms on Mar 3."
    )
    assert readout(found) == {
        "name": "c",
        "days": ["2026-03-01", "2026-03-02", "2026-03-03"],
        "rows": [
            {"name": "p50", "style": "c0", "values": ["1 ms", None, "3 ms"]},
            {"name": "spread", "style": "c1", "values": ["0.5 ms to 2 ms", None, "2 ms to 4 ms"]},
        ],
        "notes": [["version 2"], [], []],
    }


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "–"),  # noqa: RUF001
        (math.nan, "", "–"),  # noqa: RUF001
        (0.12345, "%", "12.3 %"),
        (0.0, "", "0"),
        (0.12345, "ms", "0.123 ms"),
        (12.345, "", "12.3"),
        (1234.5, "ms", "1,234 ms"),
        (3.2e9, "", "3.20e9"),
        (0.0000123, "", "1.23e-5"),
    ],
)
def test_numbers_are_shown_as_people_read_them(value, unit, text):
    assert shown(value, unit) == text
