"""Recording events: what is accepted, when it lands, and what a killed process leaves."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.errors import Refusal
from ml_assets.intake.due import land_abandoned
from ml_assets.intake.input_files import list_files
from ml_assets.operations.performance_record import Recorder
from ml_assets.settings import Settings
from ml_assets.stack import connect
from ml_assets.tables import spool

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def event(number: int = 0, **columns: Any) -> dict[str, Any]:
    at = NOON + timedelta(milliseconds=number)
    return {"kind": "inference", "timestamp": at, "model_name": "forest", "inference_time_ms": 1.5, **columns}


def landed(folder: Path) -> list[dict[str, Any]]:
    """The events in the landing files, as intake lists them."""
    files = list_files(folder / "performance").files
    return [orjson.loads(line) for file in files for line in Path(file.path).read_bytes().splitlines()]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def test_events_lie_on_disk_at_once_and_land_together(tmp_path, recorder):
    assert recorder.flush() is None
    assert recorder.record(event(1)) == 1
    assert recorder.record([event(2), event(3, event_id="mine")]) == 2
    (open_spool,) = (tmp_path / "performance" / spool.FOLDER).glob("*.jsonl")
    assert open_spool.read_bytes().count(b"\n") == 3
    assert spool.land_abandoned(tmp_path / "performance") == []  # its owner lives
    assert landed(tmp_path) == []
    file = recorder.flush()
    assert file is not None
    assert [each["event_id"] == "mine" for each in landed(tmp_path)] == [False, False, True]
    assert list((tmp_path / "performance" / spool.FOLDER).iterdir()) == []
    assert recorder.flush() is None


def test_an_event_that_is_sent_again_has_the_same_id_and_its_equal_another(tmp_path, recorder):
    plus_two = NOON.astimezone(timezone(timedelta(hours=2)))
    for batch in ([event(), event()], [event(), event()], [event(), event(timestamp=plus_two)]):
        recorder.record(batch)
    recorder.flush()
    ids = [each["event_id"] for each in landed(tmp_path)]
    assert ids[:2] == ids[2:4] == ids[4:]
    assert ids[0] != ids[1]


def test_many_events_and_old_ones_land_by_themselves(tmp_path):
    many = Recorder(tmp_path, max_events=100)
    threads = [threading.Thread(target=record_each, args=(many, n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(landed(tmp_path)) == 1_000 - 1_000 % 100
    old = Recorder(tmp_path, max_seconds=0.05)
    old.record(event(5_000))
    wait_until(lambda: len(landed(tmp_path)) == 1_001)
    assert len({each["event_id"] for each in landed(tmp_path)}) == 1_001


def record_each(recorder: Recorder, thread: int) -> None:
    for n in range(250):
        recorder.record(event(thread * 250 + n))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


BAD = [
    ({"timestamp": None}, r"Event 2 has the timestamp None: give the time at which it happened"),
    ({"timestamp": "yesterday"}, r"Event 2 has the timestamp 'yesterday': give the time"),
    ({"timestamp": NOON.replace(tzinfo=None)}, r"2026-01-31T12:00:00: it has no time zone"),
    ({"timestamp": datetime.now(UTC) + timedelta(days=2)}, r"more than a day ahead of this clock"),
    ({"kind": "guess"}, r"Event 2 has the kind 'guess': give evaluation or inference"),
    ({"model_name": ""}, r"Event 2 has the model_name '': name the model"),
    ({"event_id": 7}, r"Event 2 has the event_id 7: give text"),
    ({"note": object()}, r"Event 2 has a value that is no JSON"),
]


@pytest.mark.parametrize(("columns", "told"), BAD)
def test_a_bad_event_refuses_its_batch_in_a_sentence(tmp_path, recorder, columns, told):
    with pytest.raises(Refusal, match=f"{told}.*None of the batch was recorded"):
        recorder.record([event(1), event(2, **columns)])
    assert recorder.flush() is None


@pytest.mark.parametrize(("columns", "told"), [each for each in BAD if each[0].keys() - {"event_id", "note"}])
def test_a_bad_event_among_columns_is_told_in_the_same_way(tmp_path, recorder, columns, told):
    rows = [event(n) for n in range(10_000)]
    rows[1] = event(1, **columns)
    if isinstance(columns.get("timestamp"), str) or getattr(columns.get("timestamp"), "tzinfo", 1) is None:
        rows, told = (
            [{**row, "timestamp": str(row["timestamp"])} for row in rows],
            "The column timestamp is string",
        )
    with pytest.raises(Refusal, match=told):
        recorder.record(pa.Table.from_pylist(rows))
    assert landed(tmp_path) == []


def test_columns_are_landed_as_such_and_get_ids_where_they_have_none(tmp_path, recorder):
    rows = [event(n, event_id=None if n % 2 else f"e{n}") for n in range(10_000)]
    for form in (pa.Table.from_pylist(rows), pa.Table.from_pylist([event(n) for n in range(10_000)])):
        assert recorder.record(form) == recorder.record(form) == 10_000
    files = sorted((tmp_path / "performance").glob("*.parquet"))
    ids = [pq.read_table(file)["event_id"].to_pylist() for file in files]
    assert sorted(map(len, map(set, ids))) == [10_000] * 4
    assert (
        len(set().union(*ids)) == 15_000
    )  # of the second table those of the first that had no id are the same
    assert recorder.record(pa.RecordBatch.from_pylist(rows[:10])) == 10  # few of them are spooled
    assert recorder.flush() is not None


def test_a_batch_has_the_same_ids_in_whatever_form_it_comes(tmp_path, recorder):
    rows = [event(n, accuracy=None, batch_size=n % 3) for n in range(10)]
    table = pa.Table.from_pylist(rows)
    nanoseconds = table.set_column(1, "timestamp", table["timestamp"].cast(pa.timestamp("ns", "UTC")))
    frame = nanoseconds.to_pandas()
    for form in (rows, table, nanoseconds, frame, frame.to_dict("records")):
        assert recorder.record(form) == 10
    assert not list((tmp_path / "performance").glob("*.parquet"))  # few events make no file of their own
    recorder.flush()
    wanted = [each["event_id"] for each in landed(tmp_path)]
    # As columns, which many events or a reader of any number are.
    for form in (
        nanoseconds,
        table.append_column("event_id", pa.array([""] * 10)),
        table.append_column("event_id", pa.nulls(10)),
    ):
        assert recorder.record(form.to_reader()) == 10
    assert wanted == wanted[:10] * 5
    assert len(set(wanted)) == 10
    files = list((tmp_path / "performance").glob("*.parquet"))
    assert [pq.read_table(file)["event_id"].to_pylist() for file in files] == [wanted[:10]] * 3


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (None, "Events are mappings of columns to values, or anything Arrow, and not None"),
        ("abc", "and not 'abc'"),
        (["abc"], "Event 1 is 'abc': give a mapping"),
        (
            pa.Table.from_pylist([event(n, event_id=n) for n in range(3)]).to_reader(),
            "The column event_id is int64: give text",
        ),
    ],
)
def test_what_is_no_event_is_told(recorder, events, told):
    with pytest.raises(Refusal, match=told):
        recorder.record(events)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_that_never_comes_is_refused(tmp_path, seconds):
    with pytest.raises(Refusal, match="some time"):
        Recorder(tmp_path, max_seconds=seconds)


def test_numbers_that_json_has_not_are_kept(tmp_path, recorder):
    recorder.record(
        [event(1, accuracy=float("nan"), batch_size=np.int32(3), extra={"b": 1, "a": np.inf and 2})]
    )
    recorder.record([event(2, accuracy=np.float32("nan"), inference_time_ms=np.float64(2.5))])
    recorder.flush()
    first, second = landed(tmp_path)
    assert (first["accuracy"], first["batch_size"], first["extra"]) == ("nan", 3, '{"a":2,"b":1}')
    assert (second["accuracy"], second["inference_time_ms"]) == ("nan", 2.5)


def test_a_full_disk_accepts_none_of_a_batch(tmp_path, recorder):
    recorder.record([event(n) for n in range(10)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            recorder.record([event(n) for n in range(100, 200)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    recorder.record(event(11))
    recorder.flush()
    assert len(landed(tmp_path)) == 11


PROGRAM = """
import os, sys, threading
from datetime import UTC, datetime, timedelta
from ml_assets.stack import connect

performance = connect(sys.argv[1]).performance
noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
size, count, end = map(str, sys.argv[2:])
for number in range(int(count)):
    batch = [
        {"kind": "inference", "timestamp": noon + timedelta(microseconds=number * int(size) + n), "model_name": "forest"}
        for n in range(int(size))
    ]
    performance.record(batch)
    print((number + 1) * int(size), flush=True)
if end == "fork":
    if os.fork() == 0:
        performance.record({"kind": "inference", "timestamp": noon, "model_name": "child"})
        performance.flush()
        os._exit(0)
    os.wait()
"""


def start(home: Path, *args: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(home), *map(str, args)], stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "landing").mkdir()
    return tmp_path


def test_a_process_that_ends_has_landed_everything_and_so_has_its_child(home):
    with start(home, 10, 5, "fork") as program:
        program.communicate(timeout=120)
    assert program.returncode == 0
    assert sorted(each["model_name"] for each in landed(home / "landing")) == ["child", *["forest"] * 50]


def test_what_a_killed_process_had_recorded_is_landed_and_counted(home, record_property):
    """Whatever `record` has returned for is there, and the rest of the batch that was being written is told of."""
    with start(home, 1_000, 10**9, "kill") as program:
        assert program.stdout is not None
        told = [program.stdout.readline() for _ in range(20)]
        program.send_signal(signal.SIGKILL)
        accepted = max(map(int, [*told, *program.stdout.read().split()]))
    settings = Settings(home=home)
    (told,) = land_abandoned(settings)
    rows = landed(home / "landing")
    (entry,) = spool.abandoned(settings.landing / "performance")
    assert len(rows) >= accepted
    assert entry["rows"] == len(rows)
    assert entry["rows"] + entry["lost"] in (accepted, accepted + 1_000)
    assert f"{len(rows):,} performance events that a process had recorded when it was killed" in told
    assert land_abandoned(settings) == []
    record_property("kills", f"{len(rows):,} rows landed, {entry['lost']:,} lost")


def test_a_torn_line_is_counted_and_told_of_by_whoever_records_next(home, caplog):
    folder = home / "landing" / "performance"
    whole = b"".join(orjson.dumps({**event(n), "event_id": f"e{n}"}) + b"\n" for n in range(3))
    left(folder, whole + b'{"event_id":"e3","ki', begun=10)
    left(folder, b'{"event_', begun=0)
    left(folder, b"", begun=0)
    connect(home).performance.record(event(4, event_id="e4"))  # landed with the stack, which nobody keeps
    assert [(each["rows"], each["lost"]) for each in spool.abandoned(folder)] in (
        [(3, 7), (0, 1)],
        [(0, 1), (3, 7)],
    )
    assert sorted(each["event_id"] for each in landed(home / "landing")) == ["e0", "e1", "e2", "e4"]
    assert "1 performance event that a killed process was about to write is lost" in caplog.text
    assert "3 performance events" in caplog.text
    assert "7 that it was about to write are lost: record its last batch again" in caplog.text


def left(folder: Path, content: bytes, begun: int) -> None:
    """What a process leaves that is killed while it writes."""
    (folder / spool.FOLDER).mkdir(parents=True, exist_ok=True)
    path = folder / spool.FOLDER / f"{dead()}-{os.urandom(16).hex()}.jsonl"
    path.with_name(f"{path.name}.count").write_bytes(b"%020d" % begun)
    path.write_bytes(content)


def dead() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid
