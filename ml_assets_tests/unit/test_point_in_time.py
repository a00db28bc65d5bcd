"""The newest row known at a label's time, held against a plain loop over all rows."""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ml_assets.lib.point_in_time import (
    Keyed,
    Part,
    Span,
    View,
    count_statement,
    entities_statement,
    found_statement,
    joined_statement,
    keyed_statement,
)

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENTITIES = 60
"""Each is a case of its own, of a few rows and labels at few times, so that ties and edges are frequent."""


@pytest.fixture(scope="module")
def engine():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
        yield connection


def microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def times(random_: random.Random, count: int, unit: timedelta, nulls: float) -> list[datetime | None]:
    return [None if random_.random() < nulls else FIRST + random_.randrange(8) * unit for _ in range(count)]


def rows_of(random_: random.Random, is_unique: bool, is_daily: bool) -> list[dict[str, Any]]:
    rows, unit = [], timedelta(days=1) if is_daily else HOUR
    for entity in range(ENTITIES):
        count = random_.randrange(7)
        events = times(random_, count, unit, 0.05)
        if is_unique:
            events = list(dict.fromkeys(events))
        rows += [
            {
                "a": None if random_.random() < 0.05 else f"a{entity}",
                "b": None if random_.random() < 0.05 else random_.randrange(2),
                "event": event.date() if event and is_daily else event,
                "known": known,
                "rest": random_.choice([None, 1.0, 2.0, math.nan]),
                "value": random_.choice([None, len(rows) + place, len(rows) + place, len(rows) + place]),
                "other": f"{entity} {place}",
            }
            for place, (event, known) in enumerate(
                zip(events, times(random_, len(events), unit, 0.1), strict=True)
            )
        ]
    random_.shuffle(rows)
    if is_unique:
        return list({(row["a"], row["b"], row["event"]): row for row in rows}.values())
    keys = ("a", "b", "event", "known", "rest")
    return list({tuple(str(row[key]) for key in keys): row for row in rows}.values())


ROWS = pa.schema(
    [
        ("a", pa.string()),
        ("b", pa.int64()),
        ("known", pa.timestamp("us", "UTC")),
        ("rest", pa.float64()),
        ("value", pa.int64()),
        ("other", pa.string()),
    ]
)
LABELS = pa.schema(
    [
        ("number", pa.int64()),
        ("moment", pa.timestamp("us", "UTC")),
        ("entity_0", pa.int64()),
        ("entity_1", pa.string()),
    ]
)


def slowly(view: View, rows: list[dict[str, Any]], label: dict[str, Any]) -> dict[str, Any] | None:
    """The row that is right, as one would say it."""

    def moment(value: Any) -> datetime | None:
        if value is None or isinstance(value, datetime):
            return value
        return datetime(value.year, value.month, value.day, tzinfo=UTC)

    def order(row: dict[str, Any]) -> Any:
        rest = row["rest"] if view.rest else None
        known = moment(row[view.known_time]) if view.known_time else FIRST
        return (
            moment(row[view.event_time]),
            known,
            rest is not None,
            rest is not None and math.isnan(rest),
            0 if rest is None or math.isnan(rest) else rest,
            row["other"] if view.rest else "",
        )

    given = {"a": label["entity_1"], "b": label["entity_0"]}
    counting = []
    for row in rows:
        event = moment(row[view.event_time])
        if any(row[name] is None or row[name] != given[name] for name in view.entity):
            continue
        if event is None or event > label["moment"]:
            continue
        if view.ttl is not None and label["moment"] - event > view.ttl:
            continue
        if view.known_time and ((known := moment(row[view.known_time])) is None or known > label["moment"]):
            continue
        counting.append(row)
    return max(counting, key=order, default=None)


@pytest.mark.parametrize("entity", [("a",), ("a", "b")])
@pytest.mark.parametrize("known_time", [None, "known"])
@pytest.mark.parametrize("is_unique", [False, True])
@pytest.mark.parametrize("ttl", [None, 2 * HOUR, timedelta(days=2)])
@pytest.mark.parametrize("is_daily", [False, True])
def test_each_label_gets_the_row_that_a_plain_loop_finds(
    engine, entity, known_time, is_unique, ttl, is_daily
):
    random_ = random.Random(f"{entity} {known_time} {is_unique} {ttl} {is_daily}")  # noqa: S311 - no secret
    # Rows are told apart by (a, b, event): by (a, event) alone they are not.
    rest = () if is_unique and len(entity) == 2 else ("rest", "other")
    types = {"event": "DATE" if is_daily else "TIMESTAMP WITH TIME ZONE"}
    view = View("v", "rows", entity, "event", known_time, ttl, rest, types)
    rows = rows_of(random_, is_unique, is_daily)
    event = pa.field("event", pa.date32() if is_daily else pa.timestamp("us", "UTC"))
    labels = [
        {"number": number, "moment": moment, "entity_0": random_.choice([None, 0, 1, 1]), "entity_1": name}
        for number, (name, moment) in enumerate(
            (None if random_.random() < 0.05 else f"a{entity}", moment)
            for entity in range(ENTITIES)
            # Some twice, in no order of time.
            for moment in random_.choices(times(random_, 3, timedelta(days=1) if is_daily else HOUR, 0), k=3)
        )
    ]
    random_.shuffle(labels)
    engine.register("arriving", pa.Table.from_pylist(rows, ROWS.append(event)))
    engine.execute("CREATE OR REPLACE TEMP TABLE rows AS FROM arriving")
    engine.register("given", pa.Table.from_pylist(labels, LABELS))
    engine.execute("CREATE OR REPLACE TEMP TABLE labels AS FROM given")
    moments = [microseconds(label["moment"]) for label in labels]
    span = Span(min(moments), max(moments))
    places = [{"a": 1, "b": 0}[name] for name in entity]
    engine.execute(f"CREATE OR REPLACE TEMP TABLE entities AS {entities_statement(places)}")
    engine.execute(f"CREATE OR REPLACE TEMP TABLE keyed AS {keyed_statement(places, 'entities')}")
    keyed = Keyed("entities", "keyed")
    parts = [None] if ttl else [Part(number, 3) for number in range(3)]
    engine.execute("CREATE OR REPLACE TEMP TABLE found (number BIGINT, value_0 BIGINT, value_1 VARCHAR)")
    for part in parts:
        sql, values = found_statement(view, ["value", "other"], keyed, span, part)
        engine.execute(f"INSERT INTO found {sql}", values)
    found = engine.execute(joined_statement([["value", "other"]], ["found"])).fetchall()
    by_a: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        by_a.setdefault(row["a"], []).append(row)
    expected = []
    for label in sorted(labels, key=lambda label: label["number"]):
        right = slowly(view, by_a.get(label["entity_1"], []), label) or {"value": None, "other": None}
        expected.append((right["value"], right["other"]))
    assert found == expected
    assert engine.execute(*count_statement(view, span)).fetchone()[0] <= len(rows)
