"""Large files are read in bulk, and nobody can tell from the rows: what is odd is read with care after all."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.intake import files, input_files, raw

EVENT = {"event_id": "e", "kind": "inference", "timestamp": "2026-05-01T10:00:00Z", "model_name": "m"}


def lines(*rows) -> str:
    return "".join(json.dumps({**EVENT, **row}) + "\n" for row in rows)


def csv(*rows, head="event_id,kind,timestamp,model_name,accuracy") -> str:
    return "\n".join([head, *rows]) + "\n"


GOOD = lines({"event_id": "a", "accuracy": 1.0, "batch_size": 3}, {"event_id": "b", "accuracy": "0.5"})
ROW = "{},inference,2026-05-01T10:00:00Z,m,{}"


def parquet(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    if columns:
        pq.write_table(pa.table({**{name: [value] for name, value in EVENT.items()}, **columns}), sink)
        return sink.getvalue().to_pybytes()
    stamps = pa.array([1_777_629_600, None], pa.timestamp("s", "UTC"))
    pq.write_table(pa.table({"event_id": ["p", "q"], "kind": ["inference"] * 2, "timestamp": stamps}), sink)
    return sink.getvalue().to_pybytes()


CONTENTS = {
    "good.jsonl": GOOD,
    "no_end.jsonl": lines({"event_id": "n"}).rstrip("\n"),
    "bad_row.jsonl": GOOD + lines({"event_id": "c", "accuracy": 2}),
    "half.jsonl": GOOD + '{"event_id": "d',
    "blank.jsonl": "\n" + lines({"event_id": "f"}) + "\n\n" + lines({"event_id": "g"}),
    "true.jsonl": lines({"event_id": "h", "accuracy": True}),
    "true_as_text.jsonl": lines({"event_id": "true", "accuracy": 1}),
    "two.jsonl": json.dumps({**EVENT, "event_id": "i"}) + json.dumps({**EVENT, "event_id": "j"}) + "\n",
    "nan.jsonl": lines({"event_id": "k", "inference_time_ms": float("nan")}),
    "utf16.jsonl": lines({"event_id": "l"}).encode("utf-16"),
    "nulls.jsonl": lines({"event_id": "r", "accuracy": None}).replace('": ', '" : '),
    "unknown.jsonl": lines({"event_id": "s", "colour": None}, {"event_id": "t", "colour": "x"}),
    "spaced.jsonl": lines({"event_id": "u", "colour": '":'}).replace('": ', '"\t: '),
    "comma.jsonl": lines({"event_id": "o"}).replace("}", ",}"),
    "nul.jsonl": lines({"event_id": "m\0"}),
    "good.csv": csv(ROW.format("aa", "0.5"), ROW.format("bb", "")),
    "crlf.csv": csv(ROW.format("cc", "0.5")).replace("\n", "\r\n"),
    "quoted.csv": csv(ROW.format('"d\nd"', "0.5"), ROW.format('"e ""e"""', "0.5")),
    "ragged.csv": csv(ROW.format("ff", "0.5"), "gg,inference"),
    "semicolon.csv": csv(ROW.format("hh", "0.5")).replace(",", ";"),
    "header.csv": csv(ROW.format("ii", "0.5"), head="what,is,this,all,about"),
    "only_header.csv": csv(),
    "empty.csv": "",
    "unknown.csv": csv(
        ROW.format("jj", "0.5") + ",x", head="event_id,kind,timestamp,model_name,accuracy,colour"
    ),
    # The name of a folder is no column.
    "accuracy=0.9/good.jsonl": lines({"event_id": "v", "accuracy": 0.5}),
    "accuracy=0.9/good.csv": csv(ROW.format("kk", "0.5")),
    "accuracy=0.9/good.parquet": parquet(event_id=["r"], accuracy=[0.5]),
    "model_name=x/none.parquet": parquet(event_id=["s"], model_name=pa.nulls(1)),
    "good.parquet": parquet(),
    "cut.parquet": parquet()[:-20],
}


@pytest.mark.parametrize("way", ["with care", "by way of memory", "by way of a table"])
def test_every_content_gives_the_same_rows_in_bulk(room, monkeypatch, way):
    if way != "with care":
        monkeypatch.setattr(files, "LARGE_BYTES", -1)
    if way == "by way of a table":
        monkeypatch.setattr(files, "_IN_MEMORY_BYTES", -1)
    for name, content in CONTENTS.items():
        room.put("performance", name, content)
    room.take_in("performance")

    rows = room.intake("performance", "unit, line, event_id, accuracy, day, quarantine_reason, raw_text")
    found = {
        name: [
            (line, key, share, reason, text)
            for item_name, line, key, share, _, reason, text in rows
            if item_name == name
        ]
        for name in CONTENTS
    }
    good = {name: [row[:3] for row in of if row[3] is None] for name, of in found.items()}
    bad = {name: [(row[0], row[4]) for row in of if row[3] is not None] for name, of in found.items()}
    pair = [(1, "a", 1.0), (2, "b", 0.5)]
    assert {name: of for name, of in good.items() if of} == {
        "good.jsonl": pair,
        "no_end.jsonl": [(1, "n", None)],
        "bad_row.jsonl": pair,
        "half.jsonl": pair,
        "blank.jsonl": [(2, "f", None), (5, "g", None)],
        "true_as_text.jsonl": [(1, "true", 1.0)],
        "utf16.jsonl": [(1, "l", None)],
        "nulls.jsonl": [(1, "r", None)],
        "unknown.jsonl": [(1, "s", None), (2, "t", None)],
        "spaced.jsonl": [(1, "u", None)],
        "comma.jsonl": [(1, "o", None)],
        "good.csv": [(2, "aa", 0.5), (3, "bb", None)],
        "crlf.csv": [(2, "cc", 0.5)],
        "quoted.csv": [(2, "d\nd", 0.5), (4, 'e "e"', 0.5)],
        "ragged.csv": [(2, "ff", 0.5)],
        "semicolon.csv": [(2, "hh", 0.5)],
        "unknown.csv": [(2, "jj", 0.5)],
        "accuracy=0.9/good.jsonl": [(1, "v", 0.5)],
        "accuracy=0.9/good.csv": [(2, "kk", 0.5)],
        "accuracy=0.9/good.parquet": [(1, "r", 0.5)],
    }
    assert {name: [line for line, _ in of] for name, of in bad.items() if of} == {
        "bad_row.jsonl": [3],
        "half.jsonl": [3],
        "true.jsonl": [1],
        "two.jsonl": [1],
        "nan.jsonl": [1],
        "nul.jsonl": [1],
        "ragged.csv": [3],
        "header.csv": [1],
        "model_name=x/none.parquet": [1],
        "good.parquet": [1, 2],
        "cut.parquet": [1],
    }
    assert room.intake("performance", "unit, extras", "extras IS NOT NULL") == [
        ("spaced.jsonl", '{"colour":"\\":"}'),
        ("unknown.csv", '{"colour":"x"}'),
        ("unknown.jsonl", '{"colour":"x"}'),
    ]
    (missing,) = [row[3] for row in found["model_name=x/none.parquet"]]
    assert missing.endswith(
        "model_name is missing; every row must have it (the name of a folder is no column: have a source read the "
        "file with hive_partitioning = true)."
    )
    assert bad["half.jsonl"] == [(3, '{"event_id": "d')]
    assert raw.unbalanced_intake(room.postgres, room.lake, "performance") == []


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b'{"a":1,"b":{"c":"x"}}\n{"a": 2}\n', 4),
        (b'{"a":"\\":"}', 2),  # one too many, which costs a closer look
        (b'{"a" :1}', None),
        (b'{"a"\t:1}', None),
        (b"", 0),
    ],
)
def test_keys_are_counted_whatever_the_pieces_in_which_they_come(tmp_path, monkeypatch, content, keys):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    lines = len(content.splitlines())
    for part in (5, 12, 1 << 20):
        monkeypatch.setattr(input_files, "_PART", part)
        hashes = set()
        for size in (1, 2, 3, 1 << 20):
            monkeypatch.setattr(input_files, "_CHUNK", size)
            found = input_files.scan_file(path, count_lines=True, count_keys=True)
            assert (found.keys, found.lines) == (keys, lines)
            hashes.add(found.sha256)
        # The parts' bounds tell, and nothing else.
        assert len(hashes) == 1
