"""Curves: what a picture keeps of the points, smoothing, groups, drawings."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.lib.curves import aligned, band, drawn, smoothed
from ml_assets.operations.run_curves import grouped, pixels_of, traces_of

BEGAN = datetime(2026, 3, 1, 8, tzinfo=UTC)


def logged(values, run_id="r1", key="loss", first=0, every_s=1.0, steps=None) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run_id,
            "key": key,
            "step": first + place if steps is None else steps[place],
            "value": value,
            "timestamp": BEGAN + timedelta(seconds=place * every_s),
        }
        for place, value in enumerate(values)
    ]


@pytest.fixture(scope="module")
def engine():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1; CREATE SCHEMA raw")
        connection.execute(
            "CREATE TABLE raw.raw_metrics (run_id VARCHAR, key VARCHAR, step BIGINT, value DOUBLE, timestamp TIMESTAMPTZ)"
        )
        yield connection


def pixels(engine, rows, x="step", points=10, smoothing=0.0, keys=None):
    schema = pa.schema(
        [
            ("run_id", pa.string()),
            ("key", pa.string()),
            ("step", pa.int64()),
            ("value", pa.float64()),
            ("timestamp", pa.timestamp("us", "UTC")),
        ]
    )
    engine.register("arriving", pa.Table.from_pylist(rows, schema))
    engine.execute("DELETE FROM raw.raw_metrics; INSERT INTO raw.raw_metrics FROM arriving")
    runs = {row["run_id"]: BEGAN for row in rows}
    return pixels_of(engine, runs, keys or sorted({row["key"] for row in rows}), x, points, smoothing)


def curve(engine, rows, x="step", points=10, smoothing=0.0, keys=None):
    found = traces_of(pixels(engine, rows, x, points, smoothing, keys), smoothing)
    return list(zip(found["x"].to_pylist(), found["value"].to_pylist(), strict=True))


def tensorboard(values, weight):
    """Its own loop, after `resmoothDataset` of its line chart."""
    last, seen, result = 0.0, 0, []
    for value in values:
        if math.isfinite(value):
            last = last * weight + (1 - weight) * value
            seen += 1
            result.append(last / (1 - weight**seen))
        else:
            result.append(value)
    return result


def test_a_short_curve_is_returned_whole(engine):
    values = [3.0, math.nan, 1.0, math.inf, 0.5]
    assert str(curve(engine, logged(values, steps=[0, 1, 2, 3, 1000]))) == str(
        list(zip([0.0, 1.0, 2.0, 3.0, 1000.0], values, strict=True))
    )


def test_the_newest_of_a_repeated_step_stands(engine):
    rows = [*logged([5.0, 4.0, 3.0]), *logged([2.0, 1.0], first=1, every_s=60)]
    # The first repetition was logged at the moment of step 0.
    rows[-2]["timestamp"] = BEGAN + timedelta(seconds=1, microseconds=1)
    assert curve(engine, rows) == [(0.0, 5.0), (1.0, 2.0), (2.0, 1.0)]


def test_by_time_every_point_counts(engine):
    rows = logged([5.0, 4.0, 3.0], steps=[0, 0, 0], every_s=0.5)
    assert curve(engine, rows, x="time") == [(0.0, 5.0), (0.5, 4.0), (1.0, 3.0)]


def test_by_another_metric_points_join_at_their_step(engine):
    rows = [
        *logged([5.0, 4.0, 3.0, 2.0]),
        *logged([0.25, 0.5, math.nan], key="epoch", first=1),
        *logged([9.0], run_id="r2", key="epoch"),
    ]
    assert curve(engine, rows, x="metric:epoch", keys=["loss"]) == [(0.25, 4.0), (0.5, 3.0)]
    assert curve(engine, rows, x="metric:epoch", keys=["epoch"]) == [(0.25, 0.25), (0.5, 0.5), (9.0, 9.0)]


LATTICE = st.one_of(
    st.integers(-3, 3).map(float), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308])
)


@settings(deadline=None, max_examples=60)  # a query each, on machines that do other things as well
@given(values=st.lists(LATTICE, min_size=1, max_size=60), points=st.integers(2, 12))
def test_no_spike_and_no_gap_is_lost(engine, values, points):
    kept = curve(engine, logged(values), points=points)
    width = max(len(values) - 1, 1)

    def by_pixel(curve):
        found: dict[int, list[float]] = {}
        for x, value in curve:
            found.setdefault(min(int(x / width * points), points - 1), []).append(value)
        return found

    def shown(values):
        finite = [value for value in values if math.isfinite(value)]
        broken = {str(value) for value in values if not math.isfinite(value)}
        return str(values[0]), str(values[-1]), min(finite, default=None), max(finite, default=None), broken

    all_points = list(enumerate(values))
    assert {(x, str(value)) for x, value in kept} <= {(float(x), str(value)) for x, value in all_points}
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    before, after = by_pixel(all_points), by_pixel(kept)
    assert {pixel: shown(each) for pixel, each in before.items()} == {
        pixel: shown(each) for pixel, each in after.items()
    }
    assert all(len(each) <= 7 for each in after.values()) or len(values) <= points


def test_each_metric_has_its_own_span_and_each_run_shares_it(engine):
    rows = [
        *logged(range(100)),
        *logged(range(10), run_id="r2"),
        *logged(range(100), key="other", steps=range(0, 100_000, 1000)),
    ]
    found = pixels(engine, rows, points=10).to_pylist()
    places: dict[tuple[str, str], set[int]] = {}
    for row in found:
        places.setdefault((row["run_id"], row["key"]), set()).add(row["pixel"])
    assert places == {("r1", "loss"): set(range(10)), ("r2", "loss"): {0}, ("r1", "other"): set(range(10))}


@pytest.mark.parametrize("weight", [0.3, 0.9, 0.999])
def test_smoothing_is_that_of_tensorboard(engine, weight):
    values = [2.0, 7.0, math.nan, -1.0, math.inf, 4.0]
    found = traces_of(pixels(engine, logged(values), smoothing=weight), weight)
    assert found["smoothed"].to_pylist() == pytest.approx(tensorboard(values, weight), nan_ok=True)


def test_a_thinned_curve_is_smoothed_over_all_its_points(engine):
    random = np.random.default_rng(1)
    values = random.normal(0, 1, 1000).tolist()
    values[500] = math.nan
    found = traces_of(pixels(engine, logged(values), smoothing=0.97, points=20), 0.97)
    exact = tensorboard(values, 0.97)
    rows = found.to_pylist()
    last = rows[-1]
    assert (last["x"], last["smoothed"]) == (999.0, pytest.approx(exact[-1]))
    # The points of a pixel share the average at its end, which is its last point.
    ends = {min(int(row["x"] / 999 * 20), 19): row["x"] for row in rows}
    for row in rows:
        if math.isfinite(row["value"]):
            end = ends[min(int(row["x"] / 999 * 20), 19)]
            assert row["smoothed"] == pytest.approx(exact[int(end)])
    assert [row["x"] for row in rows if math.isnan(row["smoothed"])] == [500.0]


def test_large_values_do_not_overflow_in_smoothing():
    assert smoothed([0.1 * 1.7e308] * 3, [1, 1, 1], 0.9).tolist() == pytest.approx([1.7e308] * 3)


def test_a_band_is_the_mean_with_its_t_interval():
    found = band(np.array([[1.0, 5.0, np.nan], [2.0, np.inf, np.nan], [3.0, np.nan, np.nan]]))
    assert found.n.tolist() == [3, 1, 0]
    assert found.mean.tolist() == pytest.approx([2.0, 5.0, math.nan], nan_ok=True)
    # 4.302653 is Student's t of two degrees of freedom at 97.5 %.
    margin = 4.302653 / math.sqrt(3)
    assert found.low.tolist() == pytest.approx([2 - margin, math.nan, math.nan], nan_ok=True)
    assert found.high.tolist() == pytest.approx([2 + margin, math.nan, math.nan], nan_ok=True)


def test_a_curve_is_there_between_its_points_and_nowhere_else():
    xs = [2.5 * place for place in range(10)]
    # Its own x may lie a little aside, as a place is a pixel.
    found = aligned([2, 4, 6, 8], [5.1, 10.1, 15.1, 20.1], [1.0, 3.0, math.inf, 2.0], range(10), xs)
    expected = [math.nan, math.nan, 1.0, 1.96, 3.0, math.nan, math.nan, math.nan, 2.0, math.nan]
    assert found.tolist() == pytest.approx(expected, nan_ok=True)


def test_groups_have_a_mean_beside_the_traces(engine):
    rows = [
        *logged([1.0, 2.0, 3.0], run_id="a1"),
        *logged([3.0, 5.0], run_id="a2", steps=[0, 2]),
        *logged([7.0], run_id="b1"),
    ]
    found = pixels(engine, rows)
    table = grouped(traces_of(found, 0.0), found, {"a1": "a", "a2": "a", "b1": None}, 0.0)
    traces = [row for row in table.to_pylist() if row["run_id"] is not None]
    means = [row for row in table.to_pylist() if row["run_id"] is None]
    assert [(row["group"], row["run_id"], row["x"], row["value"]) for row in traces] == [
        ("a", "a1", 0.0, 1.0),
        ("a", "a1", 1.0, 2.0),
        ("a", "a1", 2.0, 3.0),
        ("a", "a2", 0.0, 3.0),
        ("a", "a2", 2.0, 5.0),
        (None, "b1", 0.0, 7.0),
    ]
    assert [(row["group"], row["x"], row["mean"], row["n"]) for row in means] == [
        (None, 0.0, 7.0, 1),
        ("a", 0.0, 2.0, 2),
        ("a", 1.0, 3.0, 2),
        ("a", 2.0, 4.0, 2),
    ]
    assert [(row["low"] is None, row["smoothed"]) for row in means] == [
        (True, 7.0),
        (False, 2.0),
        (False, 3.0),
        (False, 4.0),
    ]


def test_curves_without_any_number(engine):
    rows = [*logged([math.nan] * 30, run_id="a"), *logged([5.0] * 30, run_id="b", steps=[7] * 30)]
    found = pixels(engine, rows, smoothing=0.5)
    table = grouped(traces_of(found, 0.5), found, {"a": "a", "b": "b"}, 0.5).to_pylist()
    assert [(row["x"], row["value"]) for row in table if row["run_id"] == "b"] == [(7.0, 5.0)]
    assert {str(row["smoothed"]) for row in table if row["run_id"] == "a"} == {"nan"}
    assert [(row["group"], row["mean"], row["n"]) for row in table if row["run_id"] is None] == [
        ("b", 5.0, 1)
    ]
    nothing = pixels(engine, [], keys=["loss"], smoothing=0.5)
    assert grouped(traces_of(nothing, 0.5), nothing, {}, 0.5).num_rows == 0


@pytest.mark.parametrize("key", ["val/loss", "it's {x} $1 %s", "größe \u2211", "k" * 500, "a b\nc"])
def test_a_key_may_be_any_text(engine, key):
    rows = [*logged([1.0, 2.0], run_id="it's", key=key), *logged([1.0, 2.0], run_id="it's", key="other")]
    assert curve(engine, rows, keys=[key]) == [(0.0, 1.0), (1.0, 2.0)]
    assert curve(engine, rows, keys=["other"], x=f"metric:{key}") == [(1.0, 1.0), (2.0, 2.0)]


def test_a_drawing_shows_the_course_and_what_is_broken():
    assert drawn([0, 1, 2, 3], [0.0, 1.0, 2.0, 3.0], width=2, height=1) == ["⡠⠊"]
    assert drawn([0, 1, 2, 3], [3.0, 3.0, 3.0, 3.0], width=2, height=1) == ["⣀⣀"]
    assert drawn([0, 1, 2, 3], [0.0, 1.0, math.nan, 3.0], width=2, height=1) == ["⡠✗"]
    assert drawn([5], [math.nan], width=3, height=2) == ["✗\u2800\u2800", "\u2800" * 3]
    up, down = drawn([0, 1], [-1.7e308, 1.7e308], width=3, height=2)
    assert up != "\u2800" * 3 != down


def test_a_curve_between_limits_has_gaps_without_a_mark():
    lines = drawn([0, 1, 2, 3], [1.0, math.nan, 1.0, 1.0], width=4, height=2, limits=(0.0, 2.0), broken="")
    assert [line[1] for line in lines] == ["\N{BRAILLE PATTERN BLANK}"] * 2
    assert {len(line) for line in lines} == {4}
    low = drawn([0, 1], [0.0, 0.0], width=4, height=2, limits=(0.0, 2.0), broken="")
    assert set(low[0]) == {"\N{BRAILLE PATTERN BLANK}"} != set(low[1])
