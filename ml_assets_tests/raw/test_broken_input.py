"""Whatever can be wrong with a file: its good rows get in, its bad rows are told apart with a reason."""

import errno
import gzip
import io
import os
import zipfile
from base64 import b64encode
from hashlib import shake_256

import duckdb
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


def deep_list(levels: int) -> str:
    return "[" * levels + "1" + "]" * levels


def xlsx() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "\r".join(f"<v>{n}</v>" for n in range(5_000)))
    return packed.getvalue()


def parquet(**columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def noise(length: int) -> str:
    """Text that an index cannot pack, other than repetitions."""
    return b64encode(shake_256(str(length).encode()).digest(length), b"-_").decode()[:length]


# name: (content, keys of the rows that get in, (line, part of the reason) of those that do not)
RUNS = {
    "good.jsonl": (RUN % "good", ["good"], []),
    "half_line.jsonl": (
        (RUN % "half 1") + '{"run_id": "half 2", "exper',
        ["half 1"],
        [(2, "is no JSON object")],
    ),
    "array.jsonl": ("[1, 2]\n" + RUN % "array", ["array"], [(1, "is no JSON object")]),
    "long_ids.jsonl": (
        (RUN % noise(3_008)) + (RUN % noise(2_500)) + (RUN % ("\u00e4" * 1_251)) + RUN % "neighbour",
        [noise(2_500), "neighbour"],
        [
            (1, f"run_id begins with '{noise(3_008)[:60]}' and has more than 2,500 bytes"),
            (3, "has more than 2,500 bytes, which no index holds; shorten it"),
        ],
    ),
    "long_names.csv": (
        HEADER.replace("\n", ",model_name,model_type,dataset,name\n")
        + "".join(
            f"long {n},e,completed,2026-05-01T10:00:00Z,{','.join(names)}\n"
            for n, names in enumerate(
                (
                    (noise(2_501), "t", "d", "n"),
                    ("m", noise(2_501), "d", "n"),
                    ("m", "t", noise(2_501), "n"),
                    ("m", "t", "d", noise(2_501)),
                )
            )
        )
        + (ROW[:-1] % "long e").replace(",e,", f",{noise(2_501)},")
        + ",m,t,d,n\n",
        ["long 3"],
        [
            (2, "model_name begins with '"),
            (3, "model_type begins with '"),
            (4, "dataset begins with '"),
            (6, "experiment begins with '"),
        ],
    ),
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
    "mac.csv": ((HEADER + ROW % "mac 1" + ROW % "mac 2").replace("\n", "\r"), ["mac 1", "mac 2"], []),
    "crlf.csv": ((HEADER + ROW % "crlf 1" + ROW % "crlf 2").replace("\n", "\r\n"), ["crlf 1", "crlf 2"], []),
    "excel.csv": (xlsx(), [], [(1, "the line holds NUL bytes")]),
    "mixed_ends.csv": (
        HEADER + ROW % "ends 1" + 'ends\r2,e,"completed\n' + ROW % "ends 3",
        ["ends 1", "ends 3"],
        [(3, "cannot be read as CSV (new-line character seen in unquoted field")],
    ),
    "index.csv": (
        "," + HEADER + "0," + ROW % "index 1" + "1," + ROW % "index 2",
        ["index 1", "index 2"],
        [],
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
        [
            (
                1,
                "created_at is '2026-04-24 03:06:40', of a column of type TIMESTAMP, which has no time zone; if it is "
                "UTC, write the column with that zone (dt.tz_localize('UTC') in pandas, timestamp('us', 'UTC') in "
                "Arrow), or, if all times of runs without one are UTC, name runs in ML_ASSETS_NAIVE_TIMES_UTC and retry",
            )
        ],
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
    "deep.jsonl": (
        (RUN % "deep 1").replace("}", ', "unknown": ' + deep_list(3_000) + "}")
        + (RUN % "deep 2").replace("}", ', "parameters": {"a": ' + deep_list(3_000) + "}}")
        + (RUN % "deep 3").replace("}", ', "unknown": ' + deep_list(990) + "}")
        + RUN % "deep 4",
        ["deep 4"],
        [
            (
                1,
                "tags cannot take up the unknown columns; they hold U+0000, an integer beyond 64 bits or JSON",
            ),
            (2, "not a JSON object that every store can hold"),
            (3, "tags cannot take up the unknown columns"),
        ],
    ),
    "endless_integer.jsonl": (
        (RUN % "endless").replace("}", f', "unknown": {"9" * 5_000}}}'),
        [],
        [(1, "tags cannot take up the unknown columns")],
    ),
    "comma_at_the_end.jsonl": ((RUN % "comma").replace("}", ', "unknown": 1,}'), ["comma"], []),
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
        + event("tiny", "17")
        + event("minutes", '"2026-05-01T10:00Z"')
        + event("minutes of a zone", '"2026-05-01 12:00+02:00"')
        + event("minutes of a short zone", '"2026-05-01 12:00+02"')
        + event("minutes, UTC", '"2026-05-01 10:00 UTC"')
        + event("no minute", '"2026-05-01T25:00Z"'),
        [
            "micros",
            "millis",
            "minutes",
            "minutes of a short zone",
            "minutes of a zone",
            "minutes, UTC",
            "nanos",
            "offset",
            "seconds",
            "seconds as text",
        ],
        [
            (
                7,
                "timestamp is '2026-05-01T10:00:00', without a time zone; add Z to it if it is UTC, or, if all",
            ),
            (8, "timestamp is '2026-05-01', without time and zone; write it like 2026-01-31T00:00:00Z"),
            (9, "timestamp is '2026-07-01T00:00:00Z', in the future"),
            (10, "before the first daily partition; correct it, or set ML_ASSETS_PARTITIONS_START"),
            (11, "timestamp is '2026-02-30T00:00:00Z', not a time; write it like 2026-01-31T09:30:00Z"),
            (12, "timestamp is 'yesterday', not a time"),
            (13, "timestamp is '17', not a time"),
            (18, "timestamp is '2026-05-01T25:00Z', not a time"),
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
            (5, "accuracy is '1.01'; write a finite number from 0 to 1"),
            (6, "accuracy is '-0.01'; write a finite number from 0 to 1"),
            (7, "accuracy is 'NaN'; write a finite number"),
            (8, "accuracy is 'Infinity'; write a finite number"),
            (10, "batch_size is '1.5', not a whole number"),
            (11, "batch_size is '-1'; write a number at least 0"),
            (12, "inference_time_ms is 'Infinity'; write a finite number at least 0"),
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
    "bytes.parquet": (
        parquet(
            event_id=[b"caf\xc3\xa9", b"caf\xe9"],
            kind=["inference"] * 2,
            timestamp=pa.array([1_777_629_600] * 2, pa.timestamp("s", "UTC")),
            model_name=["m"] * 2,
        ),
        ["café"],
        [(2, "event_id is 'caf\\xE9', bytes that are no UTF-8; write text")],
    ),
    "nested.parquet": (
        parquet(
            event_id=[["a", "b"]],
            kind=["inference"],
            timestamp=pa.array([1_777_629_600], pa.timestamp("s", "UTC")),
            model_name=["m"],
        ),
        ['["a","b"]'],
        [],
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
    from ml_assets.intake import raw

    for stream in taken_in:
        assert raw.unbalanced_intake(shared_room.postgres, shared_room.lake, stream) == []


def test_times_are_read_exactly(taken_in, shared_room):
    times = dict(
        shared_room.intake("performance", "event_id, strftime(timestamp, '%H:%M:%S.%f')", "day IS NOT NULL")
    )
    assert times["seconds as text"] == "10:00:00.250000"
    assert times["offset"] == "10:00:00.000001"
    whole = ("seconds", "millis", "micros", "nanos", *(name for name in times if name.startswith("minutes")))
    assert {times[name] for name in whole} == {"10:00:00.000000"}


def test_unknown_columns_are_kept_however_they_are_written(taken_in, shared_room):
    where = "unit IN ('comma_at_the_end.jsonl', 'index.csv') AND quarantine_reason IS NULL"
    assert shared_room.intake("runs", "unit, tags", where) == [
        ("comma_at_the_end.jsonl", '{"unknown":1}'),
        ("index.csv", '{"column_1":"0"}'),
        ("index.csv", '{"column_1":"1"}'),
    ]


def test_nan_and_infinities_are_lawful_values_of_a_metric(room):
    point = '{"run_id": "r", "key": "k", "step": %d, "value": %s, "timestamp": "2026-05-01T10:00:00Z"}\n'
    room.put("metrics", "a.jsonl", point % (1, "NaN") + point % (2, "-Infinity") + point % (3, '"inf"'))
    assert room.take_in("metrics").rows_quarantined == 0
    assert [str(value) for value in room.raw("metrics", "value")] == ["-inf", "inf", "nan"]


def test_a_file_that_is_gone_before_it_is_read(room):
    from ml_assets.intake.files import take_in_files
    from ml_assets.intake.input_files import list_files

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


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("jsonl", event("a")),
        ("csv", f"event_id,kind,timestamp,model_name\na,inference,{TIME},m\n"),
        (
            "parquet",
            parquet(
                event_id=["a"],
                kind=["inference"],
                timestamp=pa.array([1_777_000_000], pa.timestamp("s", "UTC")),
                model_name=["m"],
            ),
        ),
    ],
)
def test_a_name_that_is_no_text(room, monkeypatch, ending, content, large):
    from ml_assets.intake import files

    if large:
        monkeypatch.setattr(files, "LARGE_BYTES", -1)
    path = room.put("performance", "a", content)
    path.rename(path.with_name(os.fsdecode(b"\xff\xe9 [1]." + ending.encode())))
    room.take_in("performance")
    rows = room.intake("performance", "unit, event_id, quarantine_reason")
    assert rows == [(f"\\xff\\xe9 [1].{ending}", "a", None)]


# What intake calls its own columns, and columns beside those of the file's.
OWN_NAMES = [
    "unit",
    "UNIT_HASH",
    "line",
    "broken",
    "day",
    "reason",
    "quarantine_reason",
    "raw_text",
    "row",
    "unknown",
    "unknown 0",
    "object",
    "fields",
    "v_event_id",
    "file_row_number",
    "filename",
    "column",
]
TAKEN = {
    "jsonl": lambda name: (
        event("a")[:-2] + f', "{name}": "x"}}\n' + event("b", accuracy="2")[:-2] + f', "{name}": null}}\n'
    ),
    "csv": lambda name: (
        f"event_id,kind,timestamp,model_name,accuracy,{name}\n"
        "a,inference,2026-05-01T10:00:00Z,m,0.5,x\nb,inference,2026-05-01T10:00:00Z,m,2,\n"
    ),
    "parquet": lambda name: parquet(
        event_id=["a", "b"],
        kind=["inference"] * 2,
        timestamp=pa.array([1_777_000_000] * 2, pa.timestamp("s", "UTC")),
        model_name=["m"] * 2,
        accuracy=[0.5, 2],
        **{name: ["x", None]},
    ),
}


@pytest.mark.parametrize("large", [False, True])
def test_columns_that_are_called_as_those_of_intake(room, monkeypatch, large):
    from ml_assets.intake import files

    if large:
        monkeypatch.setattr(files, "LARGE_BYTES", -1)
    for name in OWN_NAMES:
        for ending, content in TAKEN.items():
            room.put("performance", f"{name}.{ending}", content(name))
    room.take_in("performance")
    rows = room.intake("performance", "unit, line, event_id, extras", "quarantine_reason IS NULL")
    assert {item_name: rest for item_name, *rest in rows} == {
        f"{name}.{ending}": [1 + (ending == "csv"), "a", f'{{"{name}":"x"}}']
        for name in OWN_NAMES
        for ending in TAKEN
    }
    bad = room.quarantine("performance")
    assert len(bad) == len(OWN_NAMES) * len(TAKEN)
    assert all(f"line {line}: accuracy is '2" in reason for _, line, reason in bad)


def test_unknown_columns_hold_whatever_a_table_may_hold(room):
    stamps = pa.array([1_777_000_000] * 2, pa.timestamp("s", "UTC"))
    given = {"event_id": ["a", "b"], "kind": ["inference"] * 2, "timestamp": stamps, "model_name": ["m"] * 2}
    odd = pa.array([{"x": [float("-inf"), 1.5]}, None])
    room.put("performance", "a.parquet", parquet(**given, loss=[float("nan"), float("inf")], odd=odd))
    room.take_in("performance")
    assert room.raw("performance", "event_id", "extras") == [
        ("a", '{"loss":"NaN","odd":{"x":["-Infinity",1.5]}}'),
        ("b", '{"loss":"Infinity"}'),
    ]


# --- faults that are not the file's ---


def broken_reader(monkeypatch, module, name, fault):
    """A function that raises."""

    def raising(*_, **__):
        raise fault

    monkeypatch.setattr(module, name, raising)


def test_a_disk_that_fails_while_a_file_is_read_leaves_it_for_the_next_time(room, monkeypatch):
    from ml_assets.intake import splitter

    def failing(path):
        yield (RUN % "a").encode()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    room.put("runs", "a.jsonl", RUN % "a" + RUN % "b")
    room.put("runs", "c.jsonl.zst", zstd((RUN % "c").encode()))
    with monkeypatch.context() as patch:
        patch.setattr(splitter, "read_chunks", failing)
        report = room.take_in("runs")
    assert report.skipped == {"a.jsonl": "cannot be read (Input/output error); check its permissions"}
    assert room.raw("runs", "run_id") == ["c"]
    room.take_in("runs")
    assert room.raw("runs", "run_id") == ["a", "b", "c"]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate"),
        duckdb.IOException('IO Error: Could not write file "x": No space left on device'),
        duckdb.Error("IO Error: Failed to execute query: server closed the connection unexpectedly"),
        duckdb.TransactionException("TransactionContext Error: Failed to commit"),
    ],
    ids=["full temporary disk", "memory", "full disk", "catalog", "transaction"],
)
def test_a_good_file_is_not_blamed_for_what_fails_around_it(room, monkeypatch, fault, large):
    from ml_assets.intake import files

    if large:
        monkeypatch.setattr(files, "LARGE_BYTES", -1)
    given = {"run_id": ["a"], "experiment": ["e"], "status": ["failed"]}
    room.put("runs", "a.parquet.gz", gzip.compress(parquet(**given, created_at=["2026-05-01T10:00:00Z"])))
    with monkeypatch.context() as patch:
        broken_reader(patch, files._Files, "_insert_table", fault)
        with pytest.raises(type(fault)):
            room.take_in("runs")
    assert room.take_in("runs").rows_quarantined == 0
    assert room.raw("runs", "run_id") == ["a"]


def test_a_packed_table_that_is_cut_off(room):
    room.put("runs", "a.parquet.gz", gzip.compress(parquet(run_id=["a"]))[:-20])
    room.take_in("runs")
    ((_, _, reason),) = room.quarantine("runs")
    assert "cannot be read as Parquet (the gzip file is cut off)" in reason


def test_a_wrong_ending_is_mended_by_renaming_the_file(room):
    path = room.put("runs", "data.csv", RUN % "a" + RUN % "b")
    room.put("runs", "other.csv", RUN % "c")
    room.take_in("runs")
    assert len(room.quarantine("runs")) == 2

    path.rename(path.with_name("data.jsonl"))
    report = room.take_in("runs")

    assert (report.rows_read, report.retired) == (2, 1)
    assert room.raw("runs", "run_id") == ["a", "b"]
    assert [row["unit"] for row in room.shown_quarantine("runs")] == ["other.csv"]


def test_a_small_packed_file_is_unpacked_piece_by_piece(tmp_path):
    from ml_assets.intake import splitter

    path = tmp_path / "a.gz"
    content = os.urandom(1_000) + b"\n" * (5 << 20) + b"end"
    path.write_bytes(gzip.compress(content) + gzip.compress(b"more") + gzip.compress(b"\n" * (3 << 20)))
    pieces = [piece for piece in splitter.unpacked(path, "gzip") if isinstance(piece, bytes)]
    assert b"".join(pieces) == content + b"more" + b"\n" * (3 << 20)
    assert max(map(len, pieces)) <= 1 << 20


def test_a_line_that_is_too_long_to_be_kept_whole_says_so(room, monkeypatch):
    from ml_assets.intake import splitter

    monkeypatch.setattr(splitter, "MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr(splitter, "KEPT_LINE_BYTES", 2_000)
    room.put("runs", "a.jsonl", RUN % ("x" * 3_000))
    room.take_in("runs")
    ((_, _, reason),) = room.quarantine("runs")
    assert "the line has 3,094 bytes (the first 2,000 are kept here), more than 1,000" in reason


def test_an_unreadable_file_stops_no_other(room):
    room.put("runs", "a.jsonl", RUN % "a")
    room.put("runs", "b.jsonl", RUN % "b").chmod(0)
    report = room.take_in("runs")
    if os.geteuid() == 0:
        assert report.rows_read == 2  # root reads everything
    else:
        assert report.skipped == {"b.jsonl": "cannot be read (Permission denied); check its permissions"}
        assert room.raw("runs", "run_id") == ["a"]
