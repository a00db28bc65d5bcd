"""The raw tables depend on the rows, not on the files that they came in."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

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
