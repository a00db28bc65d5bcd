"""Whatever can be wrong with a file: its good rows get in, its bad rows are told apart with a reason."""

import gzip
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

RUN = '{"run_id": "%s", "experiment": "e", "status": "completed", "created_at": "2026-05-01T10:00:00Z"}\n'
HEADER = "run_id,experiment,status,created_at\n"
ROW = "%s,e,completed,2026-05-01T10:00:00Z\n"
EVENT = '{"event_id": "%s", "kind": "inference", "timestamp": %s, "model_name": "m", "accuracy": %s}\n'
TIME = '"2026-05-01T10:00:00Z"'


def event(name: str, time: str = TIME, accuracy: str = "0.5") -> str:
    return EVENT % (name, time, accuracy)


def parquet(**columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


# name: (content, keys of the rows that get in, (line, part of the reason) of those that do not)
RUNS = {
    "good.jsonl": (RUN % "good", ["good"], []),
    "half_line.jsonl": (
        (RUN % "half 1") + '{"run_id": "half 2", "exper',
        ["half 1"],
        [(2, "is no JSON object")],
    ),
    "array.jsonl": ("[1, 2]\n" + RUN % "array", ["array"], [(1, "is no JSON object")]),
    "truncated.jsonl.gz": (
        gzip.compress((RUN % "cut 1" + RUN % "cut 2" * 20_000).encode(), mtime=0)[:300],
        ["cut 1", *["cut 2"]],
        [("last", "the gzip file is cut off here; deliver the whole file again")],
    ),
    "truncated.jsonl.zst": (
        zstd((RUN % "zstd 1" + RUN % "zstd 2" * 20_000).encode())[:-4],
        ["zstd 1", "zstd 2"],
        [("last", "the zstd file is damaged or cut off")],
    ),
    "no_gzip.jsonl.gz": (b"this is no gzip", [], [(1, "the gzip file is damaged")]),
    "ragged.csv": (
        HEADER
        + ROW % "ragged 1"
        + "ragged 2,e,completed\n"
        + ROW % "ragged 3"
        + ROW[:-1] % "ragged 4"
        + ",more\n",
        ["ragged 1", "ragged 3"],
        [(3, "has 3 fields where the header has 4"), (5, "has 5 fields where the header has 4")],
    ),
    "semicolon.csv": ((HEADER + ROW % "semicolon").replace(",", ";"), ["semicolon"], []),
    "wrong_delimiter.csv": (
        (HEADER + ROW % "colon").replace(",", "~"),
        [],
        [(1, "none of the columns run_id~experiment~status~created_at is one of run_id, ")],
    ),
    "double_header.csv": (
        "run_id,run_id,experiment,status,created_at\na,b,e,completed,2026-05-01T10:00:00Z\n",
        [],
        [(1, "the header names run_id twice")],
    ),
    "header_again.csv": (
        HEADER + ROW % "again 1" + HEADER + ROW % "again 2",
        ["again 1", "again 2"],
        [(3, "is the header again")],
    ),
    "open_quote.csv": (
        HEADER + '"quote 1,e,completed,2026-05-01T10:00:00Z\n' + ROW % "quote 2",
        ["quote 2"],
        [(2, "cannot be read as CSV")],
    ),
    "quoted_lines.csv": (
        "run_id,notes,experiment,status,created_at\n"
        '"two\nlines","a ""b"", c",e,completed,2026-05-01T10:00:00Z\n' + "x\n",
        ["two\nlines"],
        [(4, "has 1 fields where the header has 5")],
    ),
    "bom.csv": (b"\xef\xbb\xbf" + (HEADER + ROW % "bom").encode(), ["bom"], []),
    "bom.jsonl": (b"\xef\xbb\xbf" + (RUN % "bom 2").encode(), ["bom 2"], []),
    "utf16.csv": ((HEADER + ROW % "utf16 ü").encode("utf-16"), ["utf16 ü"], []),
    "utf16.jsonl": ((RUN % "utf16 le").encode("utf-16"), ["utf16 le"], []),
    "nul_bytes.jsonl": (
        (RUN % "nul 1").encode() + b'{"run_id": "a\0b"}\n' + (RUN % "nul 2").encode(),
        ["nul 1", "nul 2"],
        [(2, "the line holds NUL bytes")],
    ),
    "nul_escape.jsonl": (RUN % "a\\u0000b", [], [(1, "run_id holds the character U+0000")]),
    "bad_utf8.jsonl": (
        (RUN % "utf8 1").encode() + b'{"run_id": "\xff\xfe"}\n' + (RUN % "utf8 2").encode(),
        ["utf8 1", "utf8 2"],
        [(2, "no UTF-8; save the file as UTF-8")],
    ),
    "bad_utf8.csv": (
        (HEADER + ROW % "utf8 3").encode() + b"\xe9t\xe9,e,completed,2026-05-01T10:00:00Z\n",
        ["utf8 3"],
        [(3, "no UTF-8; save the file as UTF-8")],
    ),
    "long_line.jsonl": (
        RUN % "long 1" + (RUN % ("x" * 50_000_000)) + RUN % "long 2",
        ["long 1", "long 2"],
        [(2, "the line has 50,000,094 bytes, more than 16,777,216")],
    ),
    "cut.parquet": (
        parquet(run_id=["a"], experiment=["e"])[:200],
        [],
        [(1, "cannot be read as Parquet (Invalid Input Error: No magic bytes found at end of file")],
    ),
    "naive.parquet": (
        parquet(
            run_id=["naive"],
            experiment=["e"],
            status=["completed"],
            created_at=pa.array([1_777_000_000], pa.timestamp("s")),
        ),
        [],
        [(1, "created_at is '2026-04-24 03:06:40', without a time zone; add Z to it if it is UTC")],
    ),
    "empty.jsonl": ("", [], []),
    "empty.csv": ("", [], []),
    "only_header.csv": (HEADER, [], []),
    "blank_lines.jsonl": ("\n\n" + RUN % "blank" + "\r\n  \n{}\n", ["blank"], [(6, "run_id is missing")]),
    "no_key.jsonl": ('{"experiment": "e"}\n', [], [(1, "run_id is missing; every row must have it")]),
    "bad_status.jsonl": (
        (RUN % "status").replace("completed", "done"),
        [],
        [(1, "status is 'done'; write one of created, running, completed, failed, cancelled")],
    ),
    "nan_in_json.jsonl": (
        (RUN % "nan").replace("}", ', "metrics": {"loss": NaN}}'),
        [],
        [(1, "metrics is '{\"loss\":NaN}', not a JSON object that every store can hold")],
    ),
    "list_for_object.jsonl": (
        (RUN % "list").replace("}", ', "parameters": [1]}'),
        [],
        [(1, "parameters is '[1]', not a JSON object")],
    ),
    "python_dict.csv": (
        "run_id,experiment,status,created_at,parameters\nd,e,completed,2026-05-01T10:00:00Z,{'a': 1}\n",
        [],
        [(2, "parameters is '{'a': 1}', not a JSON object")],
    ),
    "odd 'name\" ü [1]*?.jsonl": (RUN % "odd name", ["odd name"], []),
    "odd 'dir' [2]/odd ü.parquet": (
        parquet(
            run_id=["odd dir"],
            experiment=["e"],
            status=["failed"],
            created_at=pa.array([1_777_000_000], pa.timestamp("s", "UTC")),
        ),
        ["odd dir"],
        [],
    ),
}

EVENTS = {
    "times.jsonl": (
        event("seconds", "1777629600")
        + event("millis", "1777629600000")
        + event("micros", "1777629600000000")
        + event("nanos", "1777629600000000000")
        + event("seconds as text", '"1777629600.25"')
        + event("offset", '"2026-05-01 12:00:00.000001+02:00"')
        + event("no zone", '"2026-05-01T10:00:00"')
        + event("no time", '"2026-05-01"')
        + event("future", '"2026-07-01T00:00:00Z"')
        + event("before", '"2013-12-31T23:59:59.999999Z"')
        + event("no date", '"2026-02-30T00:00:00Z"')
        + event("words", '"yesterday"')
        + event("tiny", "17"),
        ["micros", "millis", "nanos", "offset", "seconds", "seconds as text"],
        [
            (7, "timestamp is '2026-05-01T10:00:00', without a time zone; add Z to it if it is UTC"),
            (8, "timestamp is '2026-05-01', without a time zone"),
            (9, "timestamp is '2026-07-01T00:00:00Z', in the future"),
            (10, "before the first daily partition; correct it, or set ML_ASSETS_PARTITIONS_START"),
            (11, "timestamp is '2026-02-30T00:00:00Z', not a time; write it like 2026-01-31T09:30:00Z"),
            (12, "timestamp is 'yesterday', not a time"),
            (13, "timestamp is '17', not a time"),
        ],
    ),
    "numbers.jsonl": (
        event("text", accuracy='"0.25"')
        + event("null", accuracy="null")
        + event("word", accuracy='"high"')
        + event("true", accuracy="true")
        + event("more", accuracy="1.01")
        + event("less", accuracy="-0.01")
        + event("nan", accuracy="NaN")
        + event("infinite", accuracy="Infinity")
        + event("whole", accuracy='1, "batch_size": 1024.0')
        + event("part", accuracy='1, "batch_size": 1.5')
        + event("negative", accuracy='1, "batch_size": -1')
        + event("endless", accuracy='1, "inference_time_ms": Infinity'),
        ["null", "text", "whole"],
        [
            (3, "accuracy is 'high', not a number"),
            (4, "accuracy is 'true', not a number"),
            (5, "accuracy is '1.01'; write a number from 0 to 1"),
            (6, "accuracy is '-0.01'; write a number from 0 to 1"),
            (7, "accuracy is 'NaN', no finite number"),
            (8, "accuracy is 'Infinity', no finite number"),
            (10, "batch_size is '1.5', not a whole number"),
            (11, "batch_size is '-1'; write a number at least 0"),
            (12, "inference_time_ms is 'Infinity', no finite number"),
        ],
    ),
    "types.parquet": (
        parquet(
            event_id=pa.array([1, 2], pa.int32()),
            kind=["inference", None],
            timestamp=pa.array([1_777_629_600_000_000_001] * 2, pa.timestamp("ns", "UTC")),
            model_name=["m", "m"],
            batch_size=pa.array([8.0, 8.0], pa.float32()),
            accuracy=pa.array(["0.5", "0.5"]),
        ),
        ["1"],
        [(2, "kind is missing")],
    ),
}


@pytest.fixture(scope="module")
def taken_in(shared_room):
    """Every file of this page put in at once."""
    for stream, files in (("runs", RUNS), ("performance", EVENTS)):
        for name, (content, _, _) in files.items():
            shared_room.put(stream, name, content)
        shared_room.take_in(stream)
    return {
        stream: shared_room.intake(stream, f"unit, line, {key}, quarantine_reason, raw_text")
        for stream, key in (("runs", "run_id"), ("performance", "event_id"))
    }


@pytest.mark.parametrize(
    ("stream", "name"), [("runs", name) for name in RUNS] + [("performance", name) for name in EVENTS]
)
def test_good_rows_get_in_and_bad_ones_are_told_apart(taken_in, stream, name):
    _, keys, faults = (RUNS | EVENTS)[name]
    rows = [row for row in taken_in[stream] if row[0] == name]
    assert sorted({key for _, _, key, reason, _ in rows if reason is None}) == sorted(keys)
    bad = [(line, reason, text) for _, line, _, reason, text in rows if reason is not None]
    assert len(bad) == len(faults)
    for (line, part), (found_line, reason, _) in zip(faults, bad, strict=True):
        if line != "last":
            assert found_line == line
        assert reason.startswith(f"{name} line {found_line}: ")
        assert part in reason


def test_quarantined_text_is_kept_as_it_came(taken_in):
    texts = {(row[0], row[1]): row[4] for row in taken_in["runs"] if row[3]}
    assert texts["half_line.jsonl", 2] == '{"run_id": "half 2", "exper'
    assert texts["ragged.csv", 3] == "ragged 2,e,completed"
    assert texts["nul_bytes.jsonl", 2] == '{"run_id": "a\\x00b"}'
    assert texts["bad_utf8.csv", 3] == "\\xe9t\\xe9,e,completed,2026-05-01T10:00:00Z"
    assert texts["long_line.jsonl", 2] == RUN[:-1] % ("x" * 50_000_000)


def test_every_row_is_accounted_for(taken_in, shared_room):
    from ml_assets.lib.intake import raw

    for stream in taken_in:
        assert raw.unbalanced_intake(shared_room.postgres, shared_room.lake, stream) == []


def test_times_are_read_exactly(taken_in, shared_room):
    times = dict(
        shared_room.intake("performance", "event_id, strftime(timestamp, '%H:%M:%S.%f')", "day IS NOT NULL")
    )
    assert times["seconds as text"] == "10:00:00.250000"
    assert times["offset"] == "10:00:00.000001"
    assert {times[name] for name in ("seconds", "millis", "micros", "nanos")} == {"10:00:00.000000"}


def test_nan_and_infinities_are_lawful_values_of_a_metric(room):
    point = '{"run_id": "r", "key": "k", "step": %d, "value": %s, "timestamp": "2026-05-01T10:00:00Z"}\n'
    room.put("metrics", "a.jsonl", point % (1, "NaN") + point % (2, "-Infinity") + point % (3, '"inf"'))
    assert room.take_in("metrics").rows_quarantined == 0
    assert [str(value) for value in room.raw("metrics", "value")] == ["-inf", "inf", "nan"]


def test_a_file_that_is_gone_before_it_is_read(room):
    from ml_assets.lib.intake.files import take_in_files
    from ml_assets.lib.intake.landing import list_files

    room.put("runs", "a.jsonl", RUN % "a")
    room.put("runs", "b.jsonl", RUN % "b")
    listing = list_files(room.landing("runs"))
    (room.landing("runs") / "a.jsonl").unlink()
    report = take_in_files("runs", listing, room.lake, room.postgres, room.bounds)
    assert report.skipped == {"a.jsonl": "gone before it could be read"}
    assert room.raw("runs", "run_id") == ["b"]


def test_a_directory_named_like_a_file_is_a_folder(room):
    room.put("runs", "folder.csv/a.jsonl", RUN % "a")
    assert room.take_in("runs").skipped == {}
    assert room.raw("runs", "run_id") == ["a"]


def test_links_out_of_the_landing_folder_are_refused(room, tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text(RUN % "secret")
    room.put("runs", "a.jsonl", RUN % "a")
    (room.landing("runs") / "link.jsonl").symlink_to(secret)
    (room.landing("runs") / "folder").symlink_to(tmp_path)
    (room.landing("runs") / "inside.jsonl").symlink_to("a.jsonl")
    (room.landing("runs") / "nowhere.jsonl").symlink_to("nothing.jsonl")
    report = room.take_in("runs")
    assert room.raw("runs", "run_id") == ["a"]
    assert report.skipped == {
        "folder": "a linked folder is not followed; put the files themselves here",
        "link.jsonl": "a link that leads out of the landing folder is refused; copy the file here",
        "nowhere.jsonl": "gone before it could be read",
    }


def test_a_name_that_is_no_text(room):
    path = room.put("runs", "a.jsonl", RUN % "a")
    path.rename(path.with_name(os.fsdecode(b"\xff.jsonl")))
    room.take_in("runs")
    assert room.intake("runs", "unit, run_id") == [("\\xff.jsonl", "a")]


def test_an_unreadable_file_stops_no_other(room):
    room.put("runs", "a.jsonl", RUN % "a")
    room.put("runs", "b.jsonl", RUN % "b").chmod(0)
    report = room.take_in("runs")
    if os.geteuid() == 0:
        assert report.rows_read == 2  # root reads everything
    else:
        assert report.skipped == {"b.jsonl": "cannot be read (Permission denied); check its permissions"}
        assert room.raw("runs", "run_id") == ["a"]
