"""The page of a model from real stores: odd models, and what was never made."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.contracts import tables
from ml_assets.errors import Refusal
from ml_assets.lib.days import DayRange
from ml_assets.lib.model_page.facts import ModelFacts
from ml_assets.operations.performance_pictures import model_pictures
from ml_assets.operations.performance_report import facts_of, file_name
from ml_assets.resources import store_resources
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stack import Stack
from ml_assets.stores.clickhouse.ddl import ensure_table

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
EVIL = 'a/b\\<script>alert("it\'s")</script> {x:String} %(y)s $z'
EVENTS = """
INSERT INTO ml_model_performance (event_id, kind, timestamp, model_name, model_version, accuracy, f1_score,
    inference_time_ms, batch_size)
SELECT concat('{name}', toString(number)), if(number % 2 = 0, 'evaluation', 'inference'),
    toDateTime64('2026-03-01 00:00:00', 6, 'UTC') + toIntervalHour(number * {hours}), {{name:String}},
    {version}, {accuracy}, NULL, {latency}, 50
FROM numbers({count})
"""
STEADY = ["steady", 6, "toString(intDiv(number, 40))", "if(number % 2 = 0, 0.9, NULL)", "5.0", 80]
MODELS = [
    STEADY,
    [EVIL, 1, "'1'", "0.5", "1.5", 1],
    ["nulls", 12, "NULL", "NULL", "NULL", 20],
    ["gap", 24 * 31, "'1'", "0.75", "number + 1.0", 3],
    ["skewed", 24 * 365 * 20, "'1'", "0.75", "2.0", 2],
]
PREDICTIONS = """
CREATE TABLE features.ml_predictions AS
SELECT 'p' || n AS id, CASE WHEN n % 5 = 0 THEN 'only predicts' ELSE 'steady' END AS model_name,
    TIMESTAMPTZ '2026-03-01 00:00:00+00' + to_hours(n::INT) AS created_at,
    CASE WHEN n % 10 = 1 THEN NULL ELSE 0.8::DOUBLE END AS confidence, n % 5 < 4 AS is_correct
FROM range(480) AS rows(n);
CREATE TABLE features.prediction_quality AS
SELECT model_name, date_trunc('day', created_at) AS day, 'all' AS slice, count(*) AS prediction_count,
    count(is_correct) AS labelled_count, avg(is_correct::INT) AS accuracy, avg(confidence) AS avg_confidence,
    0.1::DOUBLE AS calibration_error
FROM features.ml_predictions GROUP BY ALL
"""


@pytest.fixture
def known(settings: Settings) -> Iterator[Settings]:
    """A home with events and predictions, and nothing else; its ClickHouse stays open, which takes a second to open."""
    stores = store_resources(settings)
    with stores["clickhouse"].client(write=True) as client:
        ensure_table(client, tables(settings)["clickhouse/ml_model_performance"])
        for name, hours, version, accuracy, latency, count in MODELS:
            client.command(
                EVENTS.format(
                    name=len(name),
                    hours=hours,
                    version=version,
                    accuracy=accuracy,
                    latency=latency,
                    count=count,
                ),
                parameters={"name": name},
            )
        with stores["lake"].get_connection(write=True) as connection:
            for statement in PREDICTIONS.split(";"):
                connection.execute(statement)
        yield settings


def facts(settings: Settings, model_name: str) -> ModelFacts:
    stores = store_resources(settings)
    return facts_of(stores["clickhouse"], stores["lake"], stores["postgres"], model_name, NOW)


@pytest.mark.embedded_only("reads a home, which only embedded stores make")
def test_odd_models_have_pages(known: Settings, tmp_path: Path, cli, environment) -> None:
    one = facts(known, EVIL)
    assert (one.days, len(one.daily), one.daily[0]["avg_accuracy"]) == (
        DayRange(date(2026, 3, 1), date(2026, 3, 1)),
        1,
        0.5,
    )
    nulls = facts(known, "nulls")
    assert (
        {row["avg_accuracy"] for row in nulls.daily}
        == {row["p99_inference_time_ms"] for row in nulls.daily}
        == {None}
    )
    gap = facts(known, "gap")
    assert (gap.days.last, [row["day"].month for row in gap.daily]) == (date(2026, 5, 2), [3, 4, 5])
    skewed = facts(known, "skewed")
    assert (skewed.days.last, skewed.later_events) == (date(2026, 3, 1), 1)
    predicted = facts(known, "only predicts")
    assert (predicted.daily, predicted.versions, predicted.days.last) == ([], [], date(2026, 3, 20))

    steady = facts(known, "steady")
    assert [row["model_version"] for row in steady.versions] == ["1", "0"]
    assert steady.baseline == DayRange(date(2026, 3, 1), date(2026, 3, 7))
    first = steady.daily[0]
    assert (first["evaluation_count"], first["request_count"], first["answer_count"]) == (2, 2, 100)
    assert steady.reliability
    assert [each.name for each in steady.reliability] == ["baseline", "last 7 days"]
    labelled = steady.reliability[0]
    assert labelled.count == sum(n % 5 != 0 and n % 10 != 1 for n in range(24 * 7))
    assert (steady.drift, steady.estimates, steady.episodes, steady.decision) == (None, None, None, None)

    stack = Stack(known)
    for name in ("steady", EVIL, "nulls", "gap", "skewed", "only predicts"):
        path = stack.performance.report(name)
        assert path == known.reports / file_name(name)
        page = path.read_text(encoding="utf-8")
        assert "<script>alert" not in page
        assert "nan" not in page.split("<style>")[0] + page.split("</style>")[1].split("<script")[0].lower()
    with pytest.raises(Refusal, match="of a model 'stedy': did you mean 'steady'"):
        stack.performance.report("stedy", tmp_path / "page.html")
    with pytest.raises(Refusal, match="of a model '': there are "):
        stack.performance.report("", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()

    told = cli(known.home, "report", "steady", "--output", str(tmp_path / "x.html"), "--json", **environment)
    assert json.loads(told.stdout) == {"model_name": "steady", "path": str(tmp_path / "x.html")}


@pytest.mark.embedded_only("reads a home, which only embedded stores make")
def test_tables_of_others_are_read_as_their_contracts_have_them(known: Settings) -> None:
    day = datetime(2026, 3, 5, tzinfo=UTC)
    shared = {"model_name": "steady", "slice": "all", "slice_value": ""}
    fell = {
        **shared,
        "metric": "accuracy",
        "kind": "quality",
        "change": -0.2,
        "confidence": 0.99,
        "description": "It fell.",
    }
    long_ago = {**fell, "opened_at": day - timedelta(days=400), "closed_at": day - timedelta(days=390)}
    drifted = {"feature": "x", "subject": "input", "kind": "number", "ks": 0.5, "psi": 0.9, "threshold": 0.1}
    rows = {
        "performance_regressions": [
            {**fell, "opened_at": day, "began_at": day, "low": -0.3, "high": -0.1},
            long_ago,
        ],
        "alerts": [
            {**fell, "alert_id": "a", "source": "regression", "opened_at": day, "state": "acknowledged"},
            {
                **shared,
                "alert_id": "b",
                "source": "drift",
                "metric": "drift",
                "kind": "drift",
                "opened_at": day,
            },
            {
                **shared,
                "alert_id": "c",
                "source": "drift",
                "metric": "drift",
                "opened_at": day,
                "withdrawn": True,
            },
        ],
        "feature_drift": [{**shared, **drifted, "day": day, "state": "drift", "reason": "KS 0.5, far."}],
        "estimated_accuracy": [
            {**shared, "day": day, "applicable": True, "estimated_accuracy": 0.8, "low": 0.7, "high": 0.9},
            {**shared, "day": day + timedelta(days=1), "applicable": False, "reason": "There are no labels."},
        ],
    }
    stores = store_resources(known)
    with stores["clickhouse"].client(write=True) as client:
        for table, found in rows.items():
            ensure_table(client, tables(known)[f"clickhouse/{table}"])
            for row in found:
                client.insert(table, [list(row.values())], column_names=list(row))
    with stores["postgres"].connect(write=True) as connection:
        connection.execute(read_sql("postgres/promotions/schema.sql"))
        connection.execute(
            "INSERT INTO ml_promotions (decided_by, model_name, model_version, promotable, checks, evidence) "
            "VALUES ('me', 'steady', '1', FALSE, %s, '{}')",
            [json.dumps([{"name": "drift", "passed": False, "judged": True, "sentence": "x is far."}])],
        )
        # Somebody has let the drift be since the table of alerts was built.
        connection.execute(read_sql("postgres/alerts/schema.sql"))
        connection.execute(
            "INSERT INTO ml_alerts (alert_id, source, model_name, metric, kind, slice, slice_value, direction, severity, "
            "began_at, opened_at, last_seen_at, description, snoozed_until) "
            "VALUES ('b', 'drift', 'steady', 'drift', 'drift', 'all', '', '', 'warn', %(day)s, %(day)s, %(day)s, '', "
            "'2026-05-03Z')",
            {"day": day},
        )
    known_now = facts(known, "steady")
    assert known_now.episodes
    assert [(row["metric"], row.get("state"), row.get("low")) for row in known_now.episodes] == [
        ("accuracy", "acknowledged", -0.3),
        ("drift", "snoozed", None),
    ]
    page = Stack(known).performance.report("steady").read_text(encoding="utf-8")
    for told in (
        "2026-03-05, x: KS 0.5, far.",
        "No estimate on 2026-03-06: There are no labels.",
        "Version 1 is refused",
        "x is far.",
        "It fell.",
        'id="chart-estimates"',
    ):
        assert told in page, told
    assert "never materialized" not in page


@pytest.mark.embedded_only("reads a home, which only embedded stores make")
def test_days_whose_events_expired_are_those_of_the_rollup(known: Settings) -> None:
    with store_resources(known)["clickhouse"].client(write=True) as client:
        ensure_table(client, tables(known)["clickhouse/performance_daily"])
        client.command(
            "INSERT INTO performance_daily (day, model_name, evaluation_count, request_count, avg_accuracy, "
            "p99_inference_time_ms) VALUES ('2026-02-10', 'steady', 2, 3, 0.7, 9.0), "
            "('2026-03-01', 'steady', 9, 9, 0.1, 1.0), ('2026-02-10', 'expired', 2, 3, NULL, NULL)"
        )
    steady = facts(known, "steady")
    assert (steady.all_days and steady.all_days.first, steady.baseline.first) == (date(2026, 2, 10),) * 2
    first, second = steady.daily[:2]
    assert (first["day"], first["avg_accuracy"], first["p99_inference_time_ms"]) == (
        date(2026, 2, 10),
        0.7,
        9.0,
    )
    # The events tell more where they are there.
    assert (second["day"], second["evaluation_count"], second["answer_count"]) == (date(2026, 3, 1), 2, 100)
    assert [row["request_count"] for row in steady.baseline_daily] == [3]
    expired = facts(known, "expired")
    assert (expired.days.last, expired.later_events, len(expired.daily)) == (date(2026, 2, 10), 0, 1)
    assert "2026-02-10" in Stack(known).performance.report("expired").read_text(encoding="utf-8")


def test_pictures_are_of_models_in_trouble_and_of_the_busiest(known: Settings) -> None:
    opened = datetime(2026, 3, 1, tzinfo=UTC)
    episodes = [
        {"model_name": name, "kind": "latency", "opened_at": opened, "began_at": opened, "closed_at": closed}
        for name, closed in (("nulls", opened), (EVIL, None), ("gone", None))
    ]
    with store_resources(known)["clickhouse"].client(write=True) as client:
        ensure_table(client, tables(known)["clickhouse/performance_hourly"])
        assert model_pictures(client, episodes) == {}
        client.command(
            "INSERT INTO performance_hourly (hour, model_name, evaluation_count, request_count) "
            "SELECT toStartOfHour(timestamp), model_name, countIf(kind = 'evaluation'), countIf(kind = 'inference') "
            "FROM ml_model_performance WHERE model_name != 'skewed' GROUP BY ALL"
        )
        found = model_pictures(client, episodes)
    # The last days are those of `gap`, which is the only one with events in them.
    assert list(found) == [EVIL, "gone", "gap"]
    above, below = found["gap"].axes
    assert [len(axes.lines) for axes in (above, below)] == [1, 3]
    assert found["gap"].axes[0].get_title() == "gap"


def test_names_of_files_tell_models_apart() -> None:
    assert file_name("digits-random_forest") == "model-digits-random_forest.html"
    assert len({file_name(name) for name in ("a/b", "a-b", "a b", "..", "", "é")}) == 6
    assert all(
        "/" not in file_name(name) and len(file_name(name)) < 120 for name in (EVIL, "x" * 500, "../../etc")
    )
