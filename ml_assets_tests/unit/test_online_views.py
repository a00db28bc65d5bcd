"""Which rows are served online: those that a join at this time would find."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ml_assets.contracts import Column, Contract, tables
from ml_assets.defs.serving import views
from ml_assets.lib.feature_header import FeatureHeader, parse_header
from ml_assets.operations.online_views import newest_sql
from ml_assets.operations.served_features import comparable, when_served
from ml_assets.settings import Settings

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def contract(kind: Any) -> Contract:
    return Contract(
        "duckdb/quality",
        "",
        (
            Column("model", "string"),
            Column("fold", "int64"),
            Column("at", kind),
            Column("known", "timestamp"),
            Column("slice", "string"),
            Column("value", "float64"),
        ),
        key=("model", "fold", "at", "slice"),
    )


def header(ttl: str = "") -> FeatureHeader:
    lines = ["-- entity: model, fold", "-- event_time: at", "-- known_time: known"]
    return parse_header("quality", "\n".join([*lines, *([f"-- ttl: {ttl}"] if ttl else []), "SELECT 1"]))


def served(kind: str, rows: list[tuple[Any, ...]], ttl: str = "") -> list[tuple[Any, ...]]:
    """The values that are served, by entity."""
    sql, values = newest_sql(contract(kind), header(ttl), NOW, table="rows")
    with table_of(kind, rows) as connection:
        return connection.execute(f"SELECT model, fold, value FROM ({sql}) ORDER BY ALL", values).fetchall()


@contextmanager
def table_of(kind: str, rows: list[tuple[Any, ...]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the rows of a view."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f'CREATE TABLE rows (model TEXT, fold BIGINT, "at" {"TIMESTAMPTZ" if kind == "timestamp" else "DATE"}, '
            "known TIMESTAMPTZ, slice TEXT, value DOUBLE)"
        )
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", rows)
        yield connection


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def test_the_newest_row_that_is_known_counts():
    rows = [
        ("cats", 1, ago(9), ago(8), "x", 1.0),
        ("cats", 1, ago(5), ago(4), "x", 2.0),
        ("cats", 1, ago(3), ago(-1), "x", 3.0),  # not known yet
        ("cats", 1, ago(-1), ago(-1), "x", 4.0),  # not happened yet
        ("cats", 2, ago(9), ago(9), "x", 5.0),
        (None, 1, ago(9), ago(9), "x", 6.0),
        ("dogs", None, ago(9), ago(9), "x", 7.0),
        ("mice", 1, None, ago(9), "x", 8.0),
    ]
    assert served("timestamp", rows) == [("cats", 1, 2.0), ("cats", 2, 5.0)]


def test_of_one_event_time_the_row_that_was_known_last_counts_and_then_the_greatest():
    rows = [
        ("cats", 1, ago(5), ago(4), "x", 1.0),
        ("cats", 1, ago(5), ago(3), "a", 2.0),
        ("cats", 1, ago(5), ago(3), "b", 3.0),
        ("cats", 1, ago(5), ago(3), None, 4.0),
    ]
    assert served("timestamp", rows) == [("cats", 1, 3.0)]


@pytest.mark.parametrize(
    ("at", "counts"), [(ago(6), True), (ago(6) - timedelta(microseconds=1), False), (NOW, True)]
)
def test_a_row_may_be_as_old_as_its_ttl(at: datetime, counts: bool):
    assert bool(served("timestamp", [("cats", 1, at, at, "x", 1.0)], ttl="6h")) == counts


@pytest.mark.parametrize(
    ("day", "counts"), [(date(2026, 1, 31), True), (date(2026, 1, 30), False), (date(2026, 2, 1), False)]
)
def test_a_day_begins_at_midnight_utc(day: date, counts: bool):
    # At noon, the midnight of the day before is 36 hours ago.
    assert bool(served("date", [("cats", 1, day, ago(0), "x", 1.0)], ttl="35h")) == counts


FILES = {
    "quality": "-- entity: model\n-- event_time: at\n-- online: yes\nSELECT model, at FROM raw.raw_runs",
    "no_entity": "-- event_time: at\n-- online: yes\nSELECT model, at FROM raw.raw_runs",
    "online_features": "-- entity: model\n-- event_time: at\n-- online: yes\nSELECT model, at FROM raw.raw_runs",
    "run_leaderboard": "-- entity: model\n-- event_time: at\n-- online: yes\nSELECT model, at FROM raw.raw_runs",
    "offline": "-- entity: model\n-- event_time: at\nSELECT model, at FROM raw.raw_runs",
}


def test_what_is_online_is_an_asset_and_what_cannot_be_fails_alone(tmp_path: Path):
    for name, text in FILES.items():
        (tmp_path / f"{name}.sql").write_text(text)
    settings = Settings(home=tmp_path / "home", feature_folders=(tmp_path,))
    defs: Any = views.build(settings, tables(settings))
    specs = {spec.key.to_user_string(): spec for asset in defs.assets for spec in asset.specs}
    assert set(specs) == {
        "serving/model_daily_features",  # which ships
        "serving/quality",
        "serving/no_entity",
        "serving/online_features_of_file",
        "serving/run_leaderboard",
    }
    assert [dep.asset_key.to_user_string() for dep in specs["serving/quality"].deps] == ["duckdb/quality"]
    told = {
        spec.key.path[-1]: spec.description
        for spec in specs.values()
        if "not served" in (spec.description or "")
    }
    assert "its header names no entity" in (told["no_entity"] or "")
    assert "since serving/online_features has the same table" in (told["online_features_of_file"] or "")
    assert "since postgres/run_leaderboard has the same table" in (told["run_leaderboard"] or "")


@pytest.mark.parametrize("kind", ["timestamp", "date"])
@pytest.mark.parametrize("ttl", ["", "30h"])
def test_what_was_served_is_looked_up_as_it_is_served(kind: str, ttl: str):
    """The check's join at a time finds the rows that a materialization at that time brings online."""
    chance = random.Random(7)  # noqa: S311 - the same each time
    moments = [ago(hours) for hours in (0, 6, 12, 24, 30, 36, 48, 60)]

    def when() -> Any:
        moment = chance.choice([*moments, None])
        return moment.date() if moment and kind == "date" else moment

    rows = [
        (
            chance.choice(["cats", "dogs", None]),
            chance.choice([1, 2, None]),
            when(),
            chance.choice([*moments, None]),
            chance.choice(["a", "b", None]),
            float(number),
        )
        for number in range(300)
    ]
    rows = list({(row[0], row[1], row[2], row[4]): row for row in rows}.values())  # by the key
    asked = [
        {"served_at": moment, "entity": {"model": model, "fold": fold}}
        for moment in moments
        for model in ("cats", "dogs", "unknown")
        for fold in (1, 2)
    ]
    sql, logged = when_served(contract(kind), header(ttl), asked, ["value"], table="rows")
    with table_of(kind, rows) as connection:
        connection.register("logged", logged)
        found = connection.execute(sql).to_arrow_table().to_pylist()
        then = {row["__logged_number"]: row["value"] for row in found}
        for number, one in enumerate(asked):
            select, values = newest_sql(contract(kind), header(ttl), one["served_at"], table="rows")
            entity = one["entity"]
            [expected] = connection.execute(
                f"SELECT max(value) FROM ({select}) WHERE model = $model AND fold = $fold",
                {**values, "model": entity["model"], "fold": entity["fold"]},
            ).fetchall()
            assert then.get(number) == expected[0], one
    assert len(then) > 10


def test_what_the_view_has_no_more_is_not_compared():
    def line(**entity: str) -> dict[str, Any]:
        return {"served_at": NOW, "entity": entity, "features": {"value": 1.0, "gone": 2.0}}

    before = [
        line(model="cats"),
        line(model="cats", fold="1", dataset="a"),
        line(model="cats", fold="first"),
        line(model="cats", fold=str(2**63)),
    ]
    found = comparable(contract("date"), header(), [*before, line(model="cats", fold="1")])
    assert found == [{"served_at": NOW, "entity": {"model": "cats", "fold": 1}, "features": {"value": 1.0}}]


def test_a_feature_may_have_the_name_of_a_column_of_the_log():
    names = ["number", "served_at", "entity_0"]
    columns = (
        Column("model", "string"),
        Column("at", "timestamp"),
        *(Column(name, "int64") for name in names),
    )
    numbered = Contract("duckdb/quality", "", columns, key=("model", "at"))
    lines = parse_header("quality", "-- entity: model\n-- event_time: at\nSELECT 1")
    asked = [{"served_at": NOW, "entity": {"model": name}} for name in ("unknown", "cats")]
    sql, logged = when_served(numbered, lines, asked, names, table="rows")
    with duckdb.connect() as connection:
        connection.execute(
            """CREATE TABLE rows AS SELECT 'cats' AS model, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS at,
            7 AS number, 8 AS served_at, 9 AS entity_0"""
        )
        connection.register("logged", logged)
        [row] = connection.execute(sql).to_arrow_table().to_pylist()
    assert row == {"__logged_number": 1, "number": 7, "served_at": 8, "entity_0": 9, "at": row["at"]}
