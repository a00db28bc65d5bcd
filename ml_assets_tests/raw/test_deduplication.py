"""The raw tables depend on the rows, not on the files that they came in."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DAY = datetime(2026, 5, 1, tzinfo=UTC)

moments = st.integers(0, 5 * 86_400).map(lambda s: (DAY + timedelta(seconds=s)).isoformat())
few = st.sampled_from(["a", "b", "c"])
runs = st.fixed_dictionaries(
    {"run_id": few, "experiment": few, "status": st.sampled_from(["running", "completed"])},
    optional={"completed_at": moments, "notes": few, "parameters": st.dictionaries(few, st.integers(0, 2))},
).flatmap(lambda row: moments.map(lambda moment: {**row, "created_at": moment}))
metrics = st.fixed_dictionaries(
    {"run_id": few, "key": few, "step": st.integers(0, 1), "timestamp": moments, "value": st.floats(0, 1)}
)
streams = {"runs": runs, "metrics": metrics}


@st.composite
def arrivals(draw):
    """Rows of each stream, and one way in which they may arrive: files, visits, repetitions, orders."""
    rows = {name: draw(st.lists(each, min_size=1, max_size=12)) for name, each in streams.items()}

    def arrangement(of):
        arranged = draw(st.permutations(of + draw(st.lists(st.sampled_from(of), max_size=4))))
        cuts = sorted(draw(st.lists(st.integers(0, len(arranged)), max_size=3)))
        return [arranged[a:b] for a, b in pairwise([0, *cuts, len(arranged)])]

    return rows, {name: arrangement(of) for name, of in rows.items()}


def text(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(arrivals())
def test_any_split_order_and_repetition_gives_the_same_tables(room, arrival):
    rows, arranged = arrival
    tables = []
    for number, files in enumerate([{name: [of] for name, of in rows.items()}, arranged]):
        room.empty()
        for name, parts in files.items():
            for part, some in enumerate(parts):
                room.put(name, f"{number}/{part}.jsonl", text(some))
                if part == 1:
                    room.take_in(name)
            room.take_in(name)
        tables.append({name: room.raw(name) for name in files})
    assert tables[1] == tables[0]
    assert {row[0] for row in tables[0]["runs"]} == {row["run_id"] for row in rows["runs"]}


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
