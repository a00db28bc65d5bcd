"""Rollups, sketches and trends on the engine that makes them, beside numpy's own figures."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.cli.performance_trend import nothing_to_compare_with
from ml_assets.contracts import tables
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.lib.days import DayRange
from ml_assets.lib.leaks import span_of
from ml_assets.operations.performance import Performance
from ml_assets.operations.performance_baselines import Baseline, pin
from ml_assets.operations.performance_pictures import numbers_of_days
from ml_assets.operations.performance_proof import prove
from ml_assets.operations.performance_rollups import (
    DAILY,
    EVENTS,
    HOURLY,
    SKETCHES,
    TRENDS,
    microseconds,
    rollup_sql,
)
from ml_assets.operations.performance_trend import Grid, grid, trend
from ml_assets.operations.performance_trends import trends as performance_trends
from ml_assets.operations.performance_versions import compare_versions
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import Settings
from ml_assets.stores.clickhouse.ddl import create_statement

TABLES = tables(Settings())
START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
DAYS = 24
END = START + timedelta(days=DAYS)
SILENT = range(9, 12)
"""Days on which the model `skewed` is not asked."""

BIN = 0.01
ALPHA = (np.exp(BIN) - 1) / (np.exp(BIN) + 1)


def events() -> pa.Table:
    """Requests of two models with skewed latencies, evaluations with a drop, one event alone, constants, nulls."""
    rng = np.random.default_rng(18)
    rows: list[dict[str, Any]] = []

    def add(model: str, at: datetime, **values: Any) -> None:
        kind = "evaluation" if "accuracy" in values else "inference"
        rows.append(
            {"event_id": str(len(rows)), "kind": kind, "timestamp": at, "model_name": model, **values}
        )

    for day in range(DAYS):
        if day in SILENT:
            continue
        version = "1" if day < 14 else "2"
        for n in range(96):
            at = START + timedelta(days=day, minutes=15 * n, seconds=7)
            latency = rng.lognormal(3 + 0.3 * (version == "2"), 1.2)
            dataset = "digits" if n % 2 else None
            add("skewed", at, model_version=version, dataset=dataset, inference_time_ms=latency)
            add("heavy", at, inference_time_ms=1 + rng.pareto(1.5), memory_usage_mb=float(n))
        for n in range(6):
            score = rng.normal(0.9 - 0.1 * (version == "2"), 0.02)
            at = START + timedelta(days=day, hours=4 * n)
            add("skewed", at, model_version=version, accuracy=float(np.clip(score, 0, 1)), f1_score=0.5)
    add("once", START + timedelta(hours=3), inference_time_ms=5.0)
    for n in range(5):
        add("constant", START + timedelta(hours=n), accuracy=0.5, inference_time_ms=0.0)
        add("unknown", START + timedelta(hours=n))
    schema = {
        "event_id": pa.string(),
        "kind": pa.string(),
        "timestamp": pa.timestamp("us", "UTC"),
        **dict.fromkeys(("model_name", "model_version", "dataset"), pa.string()),
        **dict.fromkeys(("accuracy", "f1_score", "inference_time_ms", "memory_usage_mb"), pa.float64()),
    }
    return pa.Table.from_pylist(rows, pa.schema(list(schema.items())))


@pytest.fixture(scope="module")
def recorded() -> pa.Table:
    return events()


@pytest.fixture(scope="module")
def rolled_up(tmp_path_factory: pytest.TempPathFactory, recorded: pa.Table) -> ClickHouseResource:
    """All tables, made of the events by the assets' own statements."""
    resource = ClickHouseResource(home=str(tmp_path_factory.mktemp("rollups")))
    whole = DayRange(START.date(), END.date() - timedelta(days=1))
    with resource.client(write=True) as client:
        for asset in (EVENTS, HOURLY, DAILY, SKETCHES, TRENDS):
            client.command(create_statement(TABLES[asset]))
        many = {"max_partitions_per_insert_block": 0}
        client.insert_arrow("ml_model_performance", recorded, settings=many)
        for asset in (HOURLY, DAILY, SKETCHES):
            rows = client.query_arrow(rollup_sql(asset), microseconds(whole), use_strings=True)
            client.insert_arrow(TABLES[asset].table, rows, settings=many)
    return resource


@pytest.fixture
def client(rolled_up: ClickHouseResource) -> Iterator[Any]:
    with rolled_up.client() as client:
        yield client


def latencies(recorded: pa.Table, model: str, start: datetime, end: datetime) -> np.ndarray:
    """The wall times of a model's events in [start, end)."""
    frame = recorded.to_pandas()
    inside = (frame.model_name == model) & (frame.timestamp >= start) & (frame.timestamp < end)
    return frame[inside].inference_time_ms.dropna().to_numpy()


def close(value: Any) -> Any:
    """The same value, but for the order in which floats were added up."""
    return pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value


def test_a_trend_has_exact_quantiles_and_gaps_as_gaps(client, recorded):
    rows = trend(client, "skewed", grid("24d", "1d", END), None, False).to_pylist()
    assert [row["bucket"] for row in rows] == [START + timedelta(days=n) for n in range(DAYS)]
    for day, row in enumerate(rows):
        at = START + timedelta(days=day)
        assert (row["method"], row["model_name"]) == ("exact", "skewed")
        if day in SILENT:
            assert (row["request_count"], row["evaluation_count"], row["until"]) == (0, 0, None)
            assert {row[f"p{n}_inference_time_ms"] for n in (50, 95, 99)} == {row["avg_accuracy"]} == {None}
            continue
        found = [row[f"p{n}_inference_time_ms"] for n in (50, 95, 99)]
        wanted = np.quantile(latencies(recorded, "skewed", at, at + timedelta(days=1)), (0.5, 0.95, 0.99))
        assert found == pytest.approx(wanted, rel=1e-12)
        assert (row["request_count"], row["evaluation_count"]) == (96, 6)
        assert row["until"] == at + timedelta(hours=23, minutes=45, seconds=7)


@pytest.mark.parametrize(("window", "bucket"), [("2d", "1h"), ("90m", "15m"), ("21d", "7d"), ("1h", "1d")])
def test_buckets_are_whole_and_counted_from_midnight_and_monday(client, window, bucket):
    until = END - timedelta(days=2, hours=3, minutes=10)
    cells = grid(window, bucket, until)
    rows = trend(client, "skewed", cells, None, True).to_pylist()
    assert [row["bucket"] for row in rows] == cells.starts
    assert all((row["bucket"] - START) % cells.bucket == timedelta(0) for row in rows)
    assert rows[-1]["bucket"] <= until < rows[-1]["bucket"] + cells.bucket
    assert {row["method"] for row in rows} == {"exact"}


@pytest.mark.parametrize("model", ["skewed", "heavy"])
@pytest.mark.parametrize("bucket", ["6h", "7d", "28d"])
def test_sketches_add_up_to_half_a_percent(client, recorded, model, bucket):
    """Against exact quantiles, interpolated as those are, of lognormal and Pareto latencies; sums stay exact."""
    cells = grid("28d", bucket, END)
    approximate = trend(client, model, cells, None, False)
    exact = trend(client, model, cells, None, True)
    assert set(approximate["method"].to_pylist()) == {"approx"}
    assert approximate.num_rows == exact.num_rows
    worst = 0.0
    for name in exact.column_names[2:]:
        ours, theirs = approximate[name].to_pylist(), exact[name].to_pylist()
        if name == "method":
            continue
        if name.startswith("p"):
            for a, b in zip(ours, theirs, strict=True):
                assert (a is None) == (b is None)
                worst = max(worst, abs(a / b - 1) if b else 0.0)
        elif name == "until":
            assert ours == theirs
        else:
            assert ours == [close(value) for value in theirs]
    print(f"{model} by {bucket}: quantiles off by {worst:.3%} at most")
    assert worst <= ALPHA * (1 + 1e-9) <= 0.01


def test_versions_and_datasets_are_told_apart(client, recorded):
    rows = trend(client, "skewed", grid("24d", "24d", END), "version", True).to_pylist()
    assert {row["model_version"] for row in rows} == {"1", "2"}
    by_dataset = trend(client, "skewed", grid("7d", "7d", END), "dataset", False)
    assert by_dataset.column_names[2] == "dataset"
    counts = dict(
        zip(by_dataset["dataset"].to_pylist(), by_dataset["request_count"].to_pylist(), strict=True)
    )
    assert counts["digits"] == counts[""] > 0


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("once", {"request_count": 1, "p99_inference_time_ms": 5.0, "std_accuracy": None}),
        ("constant", {"avg_accuracy": 0.5, "std_accuracy": 0.0, "p50_inference_time_ms": 0.0}),
        ("unknown", {"request_count": 5, "p50_inference_time_ms": None, "avg_inference_time_ms": None}),
    ],
)
def test_one_event_constants_and_nulls(client, model, wanted):
    for bucket, exact in (("1d", False), ("6h", False), ("6h", True)):
        rows = trend(client, model, grid("1d", bucket, START + timedelta(days=1)), None, exact).to_pylist()
        assert {name: rows[0][name] for name in wanted} == wanted, bucket


def test_a_model_that_nobody_knows_is_answered_with_the_nearest(client):
    for bucket, exact in (("1d", False), ("7d", False), ("15m", False)):
        with pytest.raises(Refusal, match="did you mean 'skewed'"):
            trend(client, "skewd", grid("1d", bucket, END), None, exact)
    with pytest.raises(Refusal, match="did you mean 'heavy'"):
        compare_versions(client, "heavvy", None, grid("1d", "1h", END))
    assert trend(client, "once", grid("1d", "1d", END), None, False)["request_count"].to_pylist() == [0]


def test_the_page_of_a_day_looks_at_the_events_of_that_day_alone(client, recorded):
    last = END.date() - timedelta(days=1)
    whole = numbers_of_days(client, DayRange(START.date(), last))
    alone = numbers_of_days(client, DayRange(last, last))
    assert [table.num_rows for table in whole] == [21, 21 + 1, 2 * 21 + 2]
    assert alone[0].to_pylist() == [each for each in whole[0].to_pylist() if each["day"] == last]
    for of_events, of_rollups in zip(whole[1:], alone[1:], strict=True):
        for one, other in zip(of_events.to_pylist(), of_rollups.to_pylist(), strict=True):
            assert other == {name: close(value) for name, value in one.items()}
    frame = recorded.to_pandas()
    for row in alone[1].to_pylist():
        if row["dataset"] == "skewed" and row["day"] == last:
            own = frame[(frame.model_name == "skewed") & (frame.timestamp.dt.date == last)]
            assert row["accuracy"] == close(own.accuracy.mean())


def test_before_anything_is_rolled_up_the_table_is_named(clickhouse: ClickHouseResource):
    with clickhouse.client() as client:
        for bucket, asset in (("1d", DAILY), ("1h", HOURLY), ("2h", SKETCHES), ("1m", EVENTS)):
            with pytest.raises(StoreUnavailable, match=f"The table of {asset} does not exist yet"):
                trend(client, "x", grid("1d", bucket, END), None, False)


def test_versions_are_compared_with_the_one_before(client, recorded):
    old, new = compare_versions(client, "skewed", None, grid("24d", "1h", END)).to_pylist()
    assert (old["model_version"], new["model_version"]) == ("1", "2")
    assert (old["compared_with"], new["compared_with"]) == (None, "1")
    assert new["first_hour"] == START + timedelta(days=14)
    frame = recorded.to_pandas()
    scores = [frame[(frame.model_version == v)].accuracy.dropna() for v in ("1", "2")]
    from scipy import stats

    p = cast("Any", stats.ttest_ind(scores[1], scores[0], equal_var=False)).pvalue
    assert new["accuracy_difference"] == pytest.approx(scores[1].mean() - scores[0].mean(), rel=1e-9)
    assert p <= new["accuracy_p"] <= 3 * p * (1 + 1e-6)
    interval = stats.t.interval(0.95, len(scores[1]) - 1, scores[1].mean(), stats.sem(scores[1]))
    assert (new["accuracy_low"], new["accuracy_high"]) == pytest.approx(interval, rel=1e-9)
    assert "accuracy" in new["differs"]
    assert "f1_score" not in new["differs"]
    (alone,) = compare_versions(client, "skewed", "2", grid("24d", "1h", END)).to_pylist()
    assert (alone["model_version"], alone["compared_with"]) == ("2", None)
    with pytest.raises(Refusal, match="no events of a version '12'"):
        compare_versions(client, "skewed", "12", grid("24d", "1h", END))
    with pytest.raises(Refusal, match="no events of a version '3'"):
        compare_versions(client, "skewed", ["3"], grid("24d", "1h", END))


def trends(client: Any, first: date, last: date, pins: dict[str, tuple[date, date]]) -> list[dict[str, Any]]:
    """The rows of performance_trends of some days."""
    pinned = {name: Baseline(name, DayRange(*days)) for name, days in pins.items()}
    return performance_trends(client, pinned, DayRange(first, last)).to_pylist()


def test_each_week_stands_beside_the_one_before_and_the_baseline(client, recorded):
    day = START.date() + timedelta(days=20)
    found = {(row["model_name"], row["metric"]): row for row in trends(client, day, day, {})}
    row = found["skewed", "p95_inference_time_ms"]
    spans = [(14, 21), (7, 14), (0, 7)]
    wanted = [
        np.quantile(latencies(recorded, "skewed", *(START + timedelta(days=n) for n in span)), 0.95)
        for span in spans
    ]
    values = [row["value"], row["previous_value"], row["baseline_value"]]
    assert values == pytest.approx(wanted, rel=ALPHA)
    assert row["previous_change"] == pytest.approx(values[0] / values[1] - 1)
    assert row["baseline_change"] == pytest.approx(values[0] / values[2] - 1)
    assert [row["value_count"], row["previous_count"], row["baseline_count"]] == [7 * 96, 4 * 96, 7 * 96]
    requests = found["skewed", "request_count"]
    assert (requests["value"], requests["previous_value"]) == (96, 4 * 96 / 7)
    assert found["skewed", "accuracy"]["baseline_change"] == pytest.approx(-0.1 / 0.9, abs=0.02)
    assert ("once", "request_count") not in found  # 20 days ago


def test_a_pinned_baseline_counts_in_place_of_the_first_week_once_it_is_over(client):
    pins = {"skewed": (date(2026, 3, 4), date(2026, 3, 5))}
    last = START.date() + timedelta(days=5)
    rows = [row for row in trends(client, START.date(), last, pins) if row["metric"] == "accuracy"]
    own = [row for row in rows if row["model_name"] == "skewed"]
    assert [row["baseline_value"] is not None for row in own] == [False, False, False, True, True, True]
    assert {(row["baseline_first"], row["baseline_last"], row["baseline_pinned"]) for row in own} == {
        (*pins["skewed"], True)
    }
    other = next(row for row in rows if row["model_name"] == "constant")
    assert (other["baseline_last"], other["baseline_pinned"]) == (date(2026, 3, 8), False)
    assert own[0]["previous_value"] is None


def test_a_day_built_alone_is_as_of_many_built_at_once(client):
    """What a late row makes anew are the days that look back on it, whatever else is built with them."""
    first, last = START.date(), END.date() + timedelta(days=13)
    at_once = trends(client, first, last, {})
    for n in (6, 20, DAYS + 12):
        day = first + timedelta(n)
        alone = [{name: close(value) for name, value in row.items()} for row in trends(client, day, day, {})]
        assert alone == [row for row in at_once if row["day"] == day]
    silent = [row for row in at_once if row["model_name"] == "skewed" and row["metric"] == "request_count"]
    assert silent[-1]["day"] == END.date() + timedelta(days=12)
    assert (silent[-1]["value"], silent[-1]["previous_change"]) == (0, -1)


def test_a_window_that_is_none_is_refused():
    window: Any
    for window, bucket, told in (
        ("soon", "1d", "window"),
        ("1d", "0h", "longer"),
        ("900d", "1m", "wider"),
        (7, "1d", "The window is 7: give a timedelta"),
        ("60000d", "1d", "not within the years 1970 to 2299"),
        ("30d", "200000d", "A bucket of 200000 days.* is too long"),
    ):
        with pytest.raises(Refusal, match=told):
            grid(cast("Any", window), bucket, END)
    with pytest.raises(Refusal, match="not within the years"):
        grid("1d", "1h", datetime.max.replace(tzinfo=UTC))
    with pytest.raises(Refusal, match="no time zone"):
        grid("1d", "1h", END.replace(tzinfo=None))


def test_events_that_have_expired_are_no_gap(client):
    """Rollups of the same days are there, and are answered with."""
    kept_days = (datetime.now(UTC) - END).days + 1
    for bucket, exact in (("15m", False), ("7d", True)):
        for days, told in (
            (2, None),
            (24, "ask for buckets of whole hours without exact, or for a window from"),
        ):
            cells = Grid(END - timedelta(days=days), timedelta(days=1), days)
            asked = (client, "skewed", replace(cells, bucket=span_of(bucket)), None, exact)
            if told is None:
                assert trend(*asked, kept_days=kept_days + 2).num_rows
            else:
                with pytest.raises(Refusal, match=told):
                    trend(*asked, kept_days=kept_days)
    for bucket in ("1h", "1d", "7d"):
        assert trend(client, "skewed", grid("24d", bucket, END), None, False, kept_days=1).num_rows


@pytest.mark.parametrize(
    ("model", "first", "days", "told"),
    [
        ("skewed", START.date(), 7, ""),
        (
            "skewed",
            START.date() + timedelta(days=SILENT[0]),
            len(SILENT),
            "No event of it is known on these days",
        ),
        ("skewd", START.date(), 7, "did you mean 'skewed'"),
    ],
)
def test_a_baseline_without_events_is_told(rolled_up: ClickHouseResource, model, first, days, told):
    performance = Performance(Settings(home=Path(rolled_up.home)), {"clickhouse": rolled_up})
    baseline = Baseline(model, DayRange(first, first + timedelta(days=days - 1)))
    found = nothing_to_compare_with(performance, baseline)
    assert told in found
    assert bool(found) == bool(told)


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        (
            date(2026, 3, 2),
            date(2026, 3, 1),
            "A baseline ends after it begins: 2026-03-01 is before 2026-03-02",
        ),
        (date(1800, 1, 1), date.max, "366 days at most, and 1800-01-01 to 9999-12-31 are 2,994,988"),
    ],
)
def test_days_that_are_no_baseline_are_refused(first, last, told):
    with pytest.raises(Refusal, match=told):
        pin(cast("Any", None), "skewed", DayRange(first, last))


def test_a_trend_is_drawn_within_a_screen_with_its_gap(rolled_up: ClickHouseResource, cli):
    asked = ("--window", "24d", "--until", END.isoformat())
    done = cli(Path(rolled_up.home), "trend", "skewed", *asked, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("skewed  exact, newest event 2026-03-25 23:45 UTC")
    assert "p50 " in done.stdout
    assert "2,016 in all" in done.stdout
    silent = slice(10 + 70 * 10 // DAYS, 10 + 70 * 11 // DAYS)  # the middle one of three days
    drawing = [line for line in lines if any("\u2800" < each <= "\u28ff" for each in line)]
    assert {line[silent].strip("\u2800 ") for line in drawing} == {""}
    done = cli(Path(rolled_up.home), "trend", "skewed", "--metric", "accuracy", "--json", *asked)
    assert done.stdout.count('"avg_accuracy":null') == len(SILENT)
    done = cli(Path(rolled_up.home), "versions", "skewed", "--window", "4000d", COLUMNS="80")
    assert "2 differs from 1: accuracy -0.1" in done.stdout
    assert "Not tested, for fewer than two values or all alike" not in done.stdout
    done = cli(Path(rolled_up.home), "slow", "heavy", "--window", "4000d", "--limit", "3", COLUMNS="80")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert re.search(
        r"│ 2026-03-\d\d \d\d:\d\d:07 │ heavy +│ +[\d,.]+ │ +[\d,.]+ │ +100 │\n│ +│ \d+ +│", done.stdout
    )
    done = cli(Path(rolled_up.home), "trend", "skewed", "--metric", "acuracy", *asked)
    assert done.stderr == "A trend has no metric 'acuracy': did you mean accuracy?\n"
    done = cli(Path(rolled_up.home), "trend", "skewd", *asked)
    assert (done.returncode, done.stderr) == (
        1,
        "No event of a model 'skewd' is rolled up: did you mean 'skewed'?\n",
    )


def test_rollups_are_proved_by_the_events_and_a_late_one_is_named(rolled_up: ClickHouseResource):
    """It comes for one hour of one model: that hour, and the day of the model, and no other, are not as it says."""
    late = START + timedelta(days=3, hours=5, minutes=1)
    days = DayRange(late.date(), late.date())
    with rolled_up.client(write=True) as client:
        for asset in (HOURLY, DAILY, SKETCHES):
            whole = prove(client, TABLES[asset], None)
            assert (whole.differing, whole.told) == (0, ())
            assert whole.rows > 40
        event = {"event_id": "late", "kind": "inference", "model_name": "heavy", "inference_time_ms": 1e4}
        client.insert_arrow("ml_model_performance", pa.Table.from_pylist([{**event, "timestamp": late}]))
        for asset, when in ((HOURLY, "2026-03-05 05:00"), (DAILY, "2026-03-05"), (SKETCHES, "2026-03-05")):
            found = prove(client, TABLES[asset], None)
            assert found.differing == 1
            assert found.told[0].startswith(f"heavy at {when}: request_count ")
            assert "p99_inference_time_ms" in found.told[0]
            assert prove(client, TABLES[asset], days).differing == 1
            assert prove(client, TABLES[asset], DayRange(START.date(), START.date())).differing == 0
            # Of a table by the month the day is a part of a partition.
            gone = f"DELETE WHERE toYYYYMMDD({TABLES[asset].partition_column}) = 20260305"
            client.command(f"ALTER TABLE {TABLES[asset].table} {gone} SETTINGS mutations_sync = 2")
            assert "heavy at 2026-03-05" in " ".join(prove(client, TABLES[asset], days).told)
            rows = client.query_arrow(rollup_sql(asset), microseconds(days), use_strings=True)
            client.insert_arrow(TABLES[asset].table, rows)
            assert prove(client, TABLES[asset], None).differing == 0
        client.command("ALTER TABLE ml_model_performance DROP PARTITION '20260305'")
        told = prove(client, TABLES[DAILY], days).told
        assert set(told) == {
            f"{model} at 2026-03-05: no event is behind the row" for model in ("heavy", "skewed")
        }


def test_ten_thousand_models_and_a_gap_of_a_month(clickhouse: ClickHouseResource):
    """Each has its rows, whether somebody has pinned days for it or not."""
    first, last = date(2026, 3, 2), date(2026, 4, 10)
    with clickhouse.client(write=True) as client:
        for asset in (EVENTS, DAILY, SKETCHES):
            client.command(create_statement(TABLES[asset]))
        for day in (first, last):
            client.command(
                "INSERT INTO ml_model_performance (event_id, kind, timestamp, model_name, inference_time_ms) "
                f"SELECT toString(number), 'inference', toDateTime64('{day} 12:00:00', 6, 'UTC'), "
                "concat('model ', toString(number)), number FROM numbers(10000)"
            )
            for asset in (DAILY, SKETCHES):
                names = ", ".join(TABLES[asset].names)
                insert = f"INSERT INTO {TABLES[asset].table} ({names}) {rollup_sql(asset)}"
                client.command(insert, microseconds(DayRange(day, day)))
        pins = {f"model {n}": (first, first) for n in range(5_000)}
        rows = performance_trends(
            client,
            {name: Baseline(name, DayRange(*days)) for name, days in pins.items()},
            DayRange(last, last),
        )
        assert rows.num_rows == 4 * 10_000  # three quantiles and the requests
        frame = rows.to_pandas().set_index(["model_name", "metric"])
        assert frame.loc[("model 7", "request_count"), "baseline_value"] == 1
        assert frame.loc[("model 7777", "request_count"), "baseline_value"] == 1 / 7
        assert frame.loc[("model 77", "p95_inference_time_ms"), "value"] == 77
        assert frame.baseline_pinned.sum() == 4 * 5_000
        assert not frame.previous_count.any()
        found = trend(client, "model 77", grid("40d", "1d", datetime(2026, 4, 11, tzinfo=UTC)), None, False)
        assert found["request_count"].to_pylist() == [1, *[0] * 38, 1]
