"""The raw tables depend on the rows, not on the files that they came in."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import STREAMS
from ml_assets.intake import quarantine
from ml_assets_tests.scale import examples

MOMENTS = [(datetime(2026, 5, day, hour, tzinfo=UTC)).isoformat() for day in (1, 2, 3) for hour in (3, 15)]
DAY = datetime(2026, 5, 1, tzinfo=UTC)

moments = st.sampled_from(MOMENTS)
few = st.sampled_from(["a", "b", "c"])
share = st.floats(0, 1)
objects = st.dictionaries(few, st.integers(0, 2))

ROWS = {
    "runs": st.fixed_dictionaries(
        {
            "run_id": few,
            "experiment": few,
            "status": st.sampled_from(["created", "running", "completed", "failed"]),
            "created_at": moments,
        },
        optional={"completed_at": moments, "notes": few, "parameters": objects},
    ),
    "metrics": st.fixed_dictionaries(
        {"run_id": few, "key": few, "step": st.integers(0, 1), "timestamp": moments, "value": share}
    ),
    "performance": st.fixed_dictionaries(
        {"event_id": few, "kind": st.just("inference"), "timestamp": moments, "model_name": few},
        optional={"accuracy": share, "batch_size": st.integers(0, 9)},
    ),
    "predictions": st.fixed_dictionaries(
        {"prediction_id": few, "model_name": few, "created_at": moments},
        optional={"label": few, "confidence": share, "input_features": objects},
    ),
    "documents": st.fixed_dictionaries(
        {"document_id": few, "text": few, "updated_at": moments}, optional={"title": few, "metadata": objects}
    ),
    "judgments": st.fixed_dictionaries(
        {
            "set_name": few,
            "query_id": few,
            "query": few,
            "document_id": few,
            "relevance": st.integers(0, 3),
            "judged_at": moments,
        }
    ),
}
JSON_COLUMNS = {"parameters", "input_features", "metadata"}
TIME_COLUMNS = {"created_at", "completed_at", "timestamp", "updated_at", "judged_at"}


def text(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv(rows):
    out = io.StringIO()
    names = sorted({name for row in rows for name in row})
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows({k: json.dumps(v) if k in JSON_COLUMNS else v for k, v in row.items()} for row in rows)
    return out.getvalue()


def as_parquet(rows):
    names = sorted({name for row in rows for name in row})

    def cell(name, value):
        if value is None:
            return None
        if name in JSON_COLUMNS:
            return json.dumps(value)
        return datetime.fromisoformat(value) if name in TIME_COLUMNS else value

    table = pa.table({name: [cell(name, row.get(name)) for row in rows] for name in names})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


FILES = {"a.jsonl": text, "b.csv": as_csv, "c.parquet": as_parquet, "sub/d.jsonl": text}


@st.composite
def arrivals(draw, of):
    """A few ingests, each of some files that are new or changed, or of one that is retired."""
    rows = draw(st.lists(of, min_size=4, max_size=14))
    some = st.lists(st.sampled_from(rows), min_size=1, max_size=8)
    delivery = st.dictionaries(st.sampled_from(sorted(FILES)), some, min_size=1, max_size=3)
    return [(draw(delivery), draw(st.sampled_from([None, *FILES]))) for _ in range(2)]


@pytest.mark.parametrize("stream", ROWS)
@settings(
    max_examples=examples(2),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_split_order_and_repetition_gives_the_same_tables(room, stream, data):
    """In any formats, over files that change and are retired, with only those days rebuilt that are due."""
    room.empty()
    live = {}
    for delivered, retired in data.draw(arrivals(ROWS[stream])):
        for name, rows in delivered.items():
            content = FILES[name](rows)
            room.put(stream, name, content)
            if name not in live or live[name][0] != content:  # what is retired stays so until it changes
                live[name] = (content, rows)
        room.take_in(stream)
        if retired in live:
            file = quarantine.LedgerFile(stream, quarantine.LANDING_ROOT, retired)
            quarantine.retire_file(file, room.lake, room.postgres, room.bounds)
            live[retired] = (live[retired][0], [])
        room.rebuild(stream)
    assert room.quarantine(stream) == []
    tables = room.table(stream)
    assert tables == room.raw(stream)
    left = [row for _, rows in live.values() for row in rows]

    room.empty()
    room.put(stream, "all.jsonl", text(left[::-1]))
    room.take_in(stream)
    assert room.raw(stream) == tables


LATER = [
    ("runs", {"status": "created"}, {"status": "running"}),
    ("runs", {"status": "running"}, {"status": "failed"}),
    ("runs", {"status": "running", "notes": "long"}, {"status": "completed"}),
    ("runs", {"status": "failed"}, {"status": "failed", "error": "out of memory"}),
    ("runs", {"status": "running"}, {"status": "completed", "completed_at": MOMENTS[1]}),
    (
        "runs",
        {"status": "completed", "completed_at": MOMENTS[1]},
        {"status": "running", "created_at": MOMENTS[2]},
    ),
    ("predictions", {"confidence": 0.5}, {"confidence": 0.5, "label": "a"}),
    ("predictions", {"confidence": 0.5, "model_version": "1"}, {"label": "a"}),
    ("performance", {"accuracy": 0.5}, {"accuracy": 0.5, "f1_score": 0.4}),
]
NEEDED = {
    "runs": {"run_id": "r", "experiment": "e", "created_at": MOMENTS[0]},
    "predictions": {"prediction_id": "p", "model_name": "m", "created_at": MOMENTS[0]},
    "performance": {"event_id": "e", "kind": "inference", "model_name": "m", "timestamp": MOMENTS[0]},
}


def test_what_is_learnt_later_wins_in_any_order(room):
    for number, (stream, *rows) in enumerate(LATER):
        key = STREAMS[stream].key[0]
        for order in (1, -1):
            named = [{**NEEDED[stream], **row, key: f"{number} {order}"} for row in rows]
            room.put(stream, f"{number} {order}.jsonl", text(named[::order]))
    for stream in NEEDED:
        room.take_in(stream)
        names = [column.name for column in STREAMS[stream].columns]
        stand = {row[0]: dict(zip(names, row, strict=True)) for row in room.raw(stream)}
        for number, (_, _, later) in ((n, each) for n, each in enumerate(LATER) if each[0] == stream):
            for order in (1, -1):
                found = stand[f"{number} {order}"]
                wanted = {k: v for k, v in later.items() if k not in TIME_COLUMNS}
                assert {k: found[k] for k in wanted} == wanted, LATER[number]


def test_the_latest_update_wins_and_ties_are_broken_by_content(room):
    row = {"run_id": "r", "experiment": "e", "status": "running", "created_at": DAY.isoformat()}
    ended = {**row, "status": "completed", "completed_at": (DAY + timedelta(hours=1)).isoformat()}
    later = {**ended, "completed_at": (DAY + timedelta(hours=2)).isoformat(), "notes": "second"}
    room.put("runs", "a.jsonl", text([later, ended, row]))
    room.take_in("runs")
    assert room.raw("runs", "status", "notes") == [("completed", "second")]

    tied = [{**later, "notes": note} for note in ("x", "y", "z")]
    winners = set()
    for order in (tied, tied[::-1]):
        room.empty()
        for number, one in enumerate(order):
            room.put("runs", f"{number}.jsonl", text([one]))
        room.take_in("runs")
        winners.add(tuple(room.raw("runs", "notes")))
    assert len(winners) == 1


RUN = {"run_id": "r", "experiment": "e", "status": "completed", "created_at": "2026-05-01T10:00:00Z"}
MOVED = {**RUN, "created_at": "2026-05-03T10:00:00Z", "completed_at": "2026-05-03T11:00:00Z"}
METRIC = {"run_id": "r", "key": "loss", "step": 0, "value": 0.5, "timestamp": "2026-05-09T10:00:00Z"}


@pytest.mark.parametrize("name", ["a.jsonl", "other.jsonl"])
def test_a_content_that_comes_back_touches_the_days_that_its_runs_leave(room, name):
    room.put("runs", "a.jsonl", text([MOVED]))
    room.put("runs", "b.jsonl", text([RUN]))
    room.take_in("runs")
    room.put("runs", "a.jsonl", text([{**MOVED, "run_id": "another"}]))
    room.take_in("runs")
    room.settle("runs")
    assert [at.day for at in room.raw("runs", "created_at")] == [1, 3]

    room.put("runs", name, text([MOVED]))
    assert room.take_in("runs").contents == 0

    assert {"2026-05-01", "2026-05-03"} <= set(room.due("runs"))


def test_a_metric_that_comes_back_touches_its_runs_day(room):
    room.put("runs", "a.jsonl", text([RUN]))
    room.take_in("runs")
    room.put("metrics", "a.jsonl", text([METRIC]))
    room.take_in("metrics")
    room.put("metrics", "a.jsonl", text([{**METRIC, "run_id": "another"}]))
    room.take_in("metrics")
    for stream in ("runs", "metrics"):
        room.settle(stream)

    room.put("metrics", "a.jsonl", text([METRIC]))
    assert room.take_in("metrics").contents == 0

    assert (room.due("runs"), room.due("metrics")) == (["2026-05-01"], ["2026-05-09"])


def test_the_same_content_once_more_touches_nothing(room):
    room.put("runs", "a.jsonl", text([RUN]))
    room.take_in("runs")
    room.settle("runs")
    room.put("runs", "copy.jsonl", text([RUN]))
    room.take_in("runs")
    assert room.due("runs") == []
