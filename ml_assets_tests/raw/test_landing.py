"""Files in the landing folders: formats, repetition, change, withdrawal, days."""

import gzip
import hashlib
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import shake_256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.contracts import STREAMS
from ml_assets.intake import files, sources, splitter
from ml_assets.intake.artifacts import FileRules
from ml_assets.intake.input_files import list_files
from ml_assets.stores import touched_days
from ml_assets.tables.arrow_types import stream
from ml_assets.tables.land import land

RUN = {"run_id": "r1", "experiment": "iris", "status": "completed", "created_at": "2026-05-01T10:00:00Z"}
EVENT = {
    "event_id": "e1",
    "kind": "inference",
    "timestamp": "2026-05-01T10:00:00.123456Z",
    "model_name": "m",
    "inference_time_ms": 1.5,
    "batch_size": 8,
}


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def csv(*rows: dict[str, Any]) -> str:
    names = list(rows[0])
    return "\n".join([",".join(names), *(",".join(str(row[n]) for n in names) for row in rows)]) + "\n"


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def parquet(*rows: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(
        [{**row, "timestamp": datetime.fromisoformat(row["timestamp"])} for row in rows]
    )
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", lines(EVENT).encode()), ("a.csv", csv(EVENT).encode()), ("a.parquet", parquet(EVENT))],
)
def test_every_format_gives_the_same_row(room, name, content, packed):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[packed]
    room.put("performance", f"sub/folder/{name}{packed}", pack(content))

    report = room.take_in("performance")

    assert (report.rows_read, report.rows_quarantined, report.skipped) == (1, 0, {})
    columns = ("event_id", "kind", "timestamp", "model_name", "inference_time_ms", "batch_size", "accuracy")
    when = datetime(2026, 5, 1, 10, 0, 0, 123456, tzinfo=UTC)
    assert room.raw("performance", *columns) == [("e1", "inference", when, "m", 1.5, 8, None)]


def test_the_same_content_is_read_once_under_any_name(room):
    room.put("runs", "a.jsonl", lines(RUN))
    assert room.take_in("runs").rows_read == 1
    assert room.take_in("runs").ingest_id == ""

    room.put("runs", "copy.jsonl", lines(RUN))
    room.put("runs", "a.jsonl", lines(RUN))  # touched, not changed
    again = room.take_in("runs")

    assert (again.contents, again.rows_read) == (0, 0)
    assert room.take_in("runs").ingest_id == ""
    assert room.raw("runs", "run_id") == ["r1"]


def test_two_new_files_of_the_same_content_are_read_once(room):
    room.put("runs", "a.jsonl", lines(RUN))
    room.put("runs", "b.jsonl", lines(RUN))
    assert room.take_in("runs").rows_read == 1
    assert room.take_in("runs").ingest_id == ""


def test_what_a_changed_file_no_longer_holds_is_retired(room):
    room.put("runs", "a.jsonl", lines(RUN, {**RUN, "run_id": "r2"}))
    room.take_in("runs")
    room.settle("runs")

    room.put("runs", "a.jsonl", lines({**RUN, "run_id": "r2", "status": "failed"}))
    room.take_in("runs")

    assert room.raw("runs", "run_id", "status") == [("r2", "failed")]
    assert room.due("runs") == ["2026-05-01"]


def test_a_content_that_lies_elsewhere_too_stays_when_one_place_changes(room):
    room.put("runs", "a.jsonl", lines(RUN))
    room.put("runs", "b.jsonl", lines(RUN))
    room.take_in("runs")

    room.put("runs", "a.jsonl", lines({**RUN, "run_id": "r2"}))
    room.take_in("runs")
    assert room.raw("runs", "run_id") == ["r1", "r2"]

    room.put("runs", "b.jsonl", lines({**RUN, "run_id": "r3"}))
    room.take_in("runs")
    assert room.raw("runs", "run_id") == ["r2", "r3"]


def test_a_file_that_changes_back_is_not_read_again(room):
    room.put("runs", "a.jsonl", lines(RUN))
    room.take_in("runs")
    room.put("runs", "a.jsonl", lines({**RUN, "run_id": "r2"}))
    room.take_in("runs")
    room.settle("runs")

    room.put("runs", "a.jsonl", lines(RUN))
    assert room.take_in("runs").rows_read == 0

    assert room.raw("runs", "run_id") == ["r1"]
    assert room.due("runs") == ["2026-05-01"]


def test_a_removed_file_stays_loaded(room):
    room.put("runs", "a.jsonl", lines(RUN)).unlink()
    room.put("runs", "b.jsonl", lines(RUN))
    room.take_in("runs")
    (room.landing("runs") / "b.jsonl").unlink()
    assert room.take_in("runs").ingest_id == ""
    assert room.raw("runs", "run_id") == ["r1"]


def test_unfinished_and_foreign_names_are_left_alone(room):
    for name in ("a.jsonl.tmp", "b.csv.partial", "notes.txt", ".hidden.jsonl"):
        room.put("runs", name, lines(RUN))
    report = room.take_in("runs")
    assert report.rows_read == 0
    assert sorted(report.skipped) == ["a.jsonl.tmp", "b.csv.partial", "notes.txt"]
    assert "rename it" in report.skipped["notes.txt"]


def test_what_is_no_file_is_left_alone(room):
    room.put("runs", "a.jsonl", lines(RUN))
    folder = room.landing("runs")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "self.jsonl").symlink_to("self.jsonl")
    report = room.take_in("runs")
    assert report.rows_read == 1
    assert report.skipped == {
        "pipe.jsonl": "a pipe, socket or device is not read; write a file here",
        "self.jsonl": "cannot be read (Too many levels of symbolic links); check its permissions",
    }


def test_a_path_that_the_ledger_cannot_look_up_is_left_alone(room):
    """Its name would stand in an index that holds 2,704 bytes, and stop every other file."""
    folders = [f"{n}{shake_256(bytes([n])).hexdigest(100)}" for n in range(11)]
    for run, above in (("too deep", folders), ("deep", folders[:9]), ("beside", [])):
        room.put("runs", "/".join([*above, "deep.jsonl"]), lines(RUN | {"run_id": run}))
    report = room.take_in("runs")
    assert {name[-10:]: why for name, why in report.skipped.items()} == {
        "deep.jsonl": "its path has more than 2,000 bytes; shorten the names of its folders"
    }
    assert room.raw("runs", "run_id") == ["beside", "deep"]


def test_what_may_not_be_read_is_told_and_asks_for_nothing():
    with TemporaryDirectory() as name:  # that of pytest is closed to others
        folder = Path(name)
        (folder / "closed").mkdir()
        for path in (folder / "a.jsonl", folder / "closed" / "b.jsonl"):
            path.write_text(lines(RUN))
        folder.chmod(0o755)
        (folder / "a.jsonl").chmod(0)
        (folder / "closed").chmod(0)
        told = as_nobody(list_files, folder)
        (folder / "closed").chmod(0o755)
    why = "cannot be read (Permission denied); check its permissions"
    assert (told.files, told.skipped) == ([], {"a.jsonl": why, "closed": why})


def as_nobody(function, *arguments):
    """Call it without root's rights, if the tests have them."""
    if os.geteuid():
        return function(*arguments)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _become_nobody) as pool:
        return pool.submit(function, *arguments).result()


def _become_nobody() -> None:
    os.setgid(65534)
    os.setuid(65534)


def test_a_time_in_the_future_tells_nothing_so_growth_is_waited_for(room):
    path = room.put("runs", "a.jsonl", lines(RUN))
    soon = time.time() + 3_600
    os.utime(path, (soon, soon))
    before = time.time()
    assert room.take_in("runs").rows_read == 1
    assert time.time() - before >= 1.0


def test_a_file_that_grows_while_it_is_read_is_left_for_the_next_time(room):
    path = room.put("runs", "a.jsonl", lines(RUN))
    listing = list_files(room.landing("runs"))
    with path.open("a") as writer:
        writer.write('{"run_id": "r2", "exper')

    from ml_assets.intake.files import take_in_files

    report = take_in_files("runs", listing, room.lake, room.postgres, room.bounds)
    assert (report.rows_read, report.skipped) == (
        0,
        {"a.jsonl": "it is being written to; it is read once it is quiet"},
    )

    room.put("runs", "a.jsonl", lines(RUN, {**RUN, "run_id": "r2"}))
    assert room.take_in("runs").rows_read == 2


def test_a_fresh_file_is_taken_in_once_it_has_been_quiet(room):
    path = room.put("runs", "a.jsonl", lines(RUN))
    now = time.time()
    os.utime(path, (now, now))
    assert room.take_in("runs").rows_read == 1
    assert time.time() - now >= 1.0


def test_a_run_that_moves_touches_both_days_and_stands_on_the_later(room):
    room.put("runs", "a.jsonl", lines(RUN))
    room.take_in("runs")
    room.settle("runs")

    moved = {**RUN, "created_at": "2026-05-03T10:00:00Z", "completed_at": "2026-05-03T11:00:00Z"}
    room.put("runs", "b.jsonl", lines(moved))
    room.take_in("runs")

    assert room.due("runs") == ["2026-05-01", "2026-05-03"]
    assert [day.isoformat()[:10] for day in room.raw("runs", "created_at")] == ["2026-05-03"]


def test_a_late_metric_touches_its_own_day_and_its_runs(room):
    room.put("runs", "a.jsonl", lines(RUN))
    room.take_in("runs")
    room.settle("runs")

    late = {"run_id": "r1", "key": "loss", "step": 3, "value": 0.5, "timestamp": "2026-05-09T00:00:00Z"}
    room.put("metrics", "late.jsonl", lines(late))
    room.take_in("metrics")

    assert room.due("metrics") == ["2026-05-09"]
    assert room.due("runs") == ["2026-05-01"]


def test_a_day_touched_while_it_is_rebuilt_stays_due(room):
    from datetime import date

    from ml_assets.intake import raw

    room.put("runs", "a.jsonl", lines(RUN))
    room.take_in("runs")
    inputs = raw.raw_inputs(room.postgres, "runs", date(2026, 5, 1), date(2026, 5, 1))
    room.put("runs", "b.jsonl", lines({**RUN, "run_id": "r2"}))
    room.take_in("runs")

    raw.settle(room.postgres, room.lake, inputs)
    assert room.due("runs") == ["2026-05-01"]
    room.settle("runs")
    assert room.due("runs") == []


def test_unknown_columns_of_runs_and_documents_are_kept(room):
    room.put("runs", "a.jsonl", lines({**RUN, "gpu": "A100", "tags": {"team": "x"}, "nothing": None}))
    room.put("runs", "b.csv", csv({**RUN, "run_id": "r2", "gpu": "H100"}))
    room.take_in("runs")
    assert room.raw("runs", "run_id", "tags") == [
        ("r1", '{"gpu":"A100","team":"x"}'),
        ("r2", '{"gpu":"H100"}'),
    ]


@pytest.mark.parametrize(
    ("stream", "row"),
    [
        ("metrics", {"run_id": "r", "key": "k", "step": 1, "timestamp": "2026-05-01T10:00:00Z"}),
        ("performance", EVENT),
        ("predictions", {"prediction_id": "p", "model_name": "m", "created_at": "2026-05-01T10:00:00Z"}),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_unknown_columns_of_other_streams_are_kept_too(room, monkeypatch, stream, row, large):
    if large:
        monkeypatch.setattr(files, "LARGE_BYTES", -1)
    key = STREAMS[stream].key[-2 if stream == "metrics" else 0]
    rows = [{**row, key: n} for n in range(200)]
    # The unknown column comes late: nobody finds it by a look at the first rows.
    room.put(stream, "a.jsonl", lines(*rows, {**row, key: 201, "gpu": {"name": "A100"}, "extras": {"a": 1}}))
    room.put(stream, "b.csv", csv({**row, key: 202, "gpu": "H100"}))
    table = pa.Table.from_pylist([{**row, key: 203, "gpu": 3, "colour": None}])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    room.put(stream, "c.parquet", sink.getvalue().to_pybytes())
    room.take_in(stream)
    assert room.quarantine(stream) == []
    assert [(int(k), extras) for k, extras in room.raw(stream, key, "extras") if extras] == [
        (201, '{"a":1,"gpu":{"name":"A100"}}'),
        (202, '{"gpu":"H100"}'),
        (203, '{"gpu":3}'),
    ]
    assert len(room.raw(stream, key)) == 203


def test_accounts_of_an_ingest(room):
    room.put("runs", "a.jsonl", lines(RUN, RUN, {**RUN, "run_id": "r2"}, {**RUN, "status": "done"}))
    report = room.take_in("runs")
    room.settle("runs")

    from ml_assets.intake import raw

    found = raw.account(room.postgres, [report.ingest_id])["runs"]
    assert found == {"read": 4, "loaded": 2, "superseded": 1, "quarantined": 1}
    assert raw.unbalanced_intake(room.postgres, room.lake, "runs") == []


def test_a_row_that_vanished_from_intake_is_found(room):
    from ml_assets.intake import raw

    room.put("runs", "a.jsonl", lines(RUN, {**RUN, "run_id": "r2"}))
    room.take_in("runs")
    with room.lake.get_connection(write=True) as connection:
        connection.execute("DELETE FROM intake.intake_runs WHERE run_id = 'r2'")
    (fault,) = raw.unbalanced_intake(room.postgres, room.lake, "runs")
    assert fault.startswith(
        "a.jsonl: 2 rows were read, 2 taken in and 0 quarantined, but intake holds 1 and 0"
    )


def test_documents_are_one_piece(room):
    row = {"document_id": "d1", "text": "old", "updated_at": "2026-05-01T00:00:00Z"}
    room.put("documents", "a.jsonl", lines({**row, "text": "new", "updated_at": "2026-05-02T00:00:00Z"}))
    room.put("documents", "b.jsonl", lines(row))
    room.take_in("documents")
    assert room.raw("documents", "document_id", "text") == [("d1", "new")]
    assert room.due("documents") == [touched_days.WHOLE.isoformat()]
    room.settle("documents")
    assert room.due("documents") == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([RUN, RUN | {"tags": 2**70}], "tags 1180591620717411303424 has no JSON"),
        ([RUN | {"tags": 1j}], "tags 1j has no JSON"),
        (
            pa.table(
                {"run_id": pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())}
            ),
            "run_id cannot be landed .*Invalid UTF8",
        ),
    ],
    ids=["70 bits", "complex", "text"],
)
def test_what_nobody_could_read_is_not_landed(tmp_path, rows, said):
    with pytest.raises(ValueError, match=said):
        land(tmp_path, "runs", rows)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_reader_that_was_read_is_not_landed(tmp_path):
    reader = pa.table({"run_id": ["r"]}).to_reader()
    land(tmp_path, "runs", stream(reader.schema, iter(reader)))
    reader = stream(reader.schema, iter(pa.table({"run_id": ["r"]}).to_batches()))
    reader.read_all()
    with pytest.raises(ValueError, match="has been read from already"):
        land(tmp_path, "runs", reader)


def test_files_of_a_row_are_listed_once_and_only_where_that_is_allowed(room, tmp_path):
    folder = room.folder / "landing" / "files" / "r"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"12345")
    kept = {"ml_assets.artifacts": [{"path": "made up"}], "team": "blue"}
    rows = [
        {"run_id": "a", "artifact_uri": folder.as_uri(), "tags": kept, "colour": "red"},
        {"run_id": "b", "artifact_uri": "file:///proc/self"},
        {"run_id": "c", "artifact_uri": str(tmp_path)},
        {"run_id": "d", "artifact_uri": "s3://bucket/d"},
        {"run_id": "e", "artifact_uri": "file://["},
        {"run_id": "f"},
    ]
    room.put("runs", "a.jsonl", lines(*({**RUN, **each} for each in rows)))
    table = pa.Table.from_pylist([{**RUN, "run_id": "g", "artifact_uri": str(folder)}])
    pq.write_table(table, room.landing("runs") / "b.parquet")
    room.age(room.landing("runs") / "b.parquet")
    listing = list_files(room.landing("runs"))
    bounds = replace(room.bounds, files=FileRules((room.folder / "landing",)))
    report = files.take_in_files("runs", listing, room.lake, room.postgres, bounds)
    assert (report.rows_read, report.rows_quarantined) == (7, 0)

    tags = {run_id: json.loads(text or "{}") for run_id, text in room.raw("runs", "run_id", "tags")}
    listed = {run_id: each.pop("ml_assets.artifacts", None) for run_id, each in tags.items()}
    model = {"path": "model.onnx", "size_bytes": 5, "sha256": hashlib.sha256(b"12345").hexdigest()}
    assert listed["a"] == listed["g"] == [model]
    for refused in "bc":
        (told,) = listed[refused]
        assert told["reason"].startswith("not looked at: the folder lies outside")
        assert len(told) == 1
    assert [listed[run_id] for run_id in "def"] == [None] * 3
    assert tags["a"] == {"colour": "red", "team": "blue"}


@pytest.fixture
def texts(room, monkeypatch):
    """The room on a day after the times of its files, which are those of texts."""
    monkeypatch.setattr(room, "bounds", replace(room.bounds, now=datetime.now(UTC)))
    return room


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_a_text_is_a_document(texts, monkeypatch, packed, large):
    if large:
        monkeypatch.setattr(files, "LARGE_BYTES", 10)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[packed]
    written = "Intro.\r\n\n## Größe ##\n\n# Other\n"
    path = texts.put("documents", f"guides/v1.2/size.md{packed}", pack(written.encode()))
    texts.put("documents", f"plain.TXT{packed}", pack(b"# no heading"))
    texts.put("documents", "blank.md", "\ufeff \n")

    report = texts.take_in("documents")

    assert (report.contents, report.rows_read, report.rows_quarantined, report.skipped) == (3, 2, 0, {})
    rows = texts.raw("documents", "document_id", "title", "text", "source", "updated_at")
    changed = datetime.fromtimestamp(path.stat().st_mtime_ns // 1000 / 1e6, UTC)
    assert rows[0] == ("guides/v1.2/size", "Größe", written, f"guides/v1.2/size.md{packed}", changed)
    assert rows[1][:4] == ("plain", "plain", "# no heading", f"plain.TXT{packed}")
    assert texts.take_in("documents").ingest_id == ""


def test_a_changed_text_is_the_next_version_and_one_that_is_gone_stays(texts):
    texts.put("documents", "a.md", "# One")
    texts.put("documents", "copy.md", "# One")
    texts.take_in("documents")
    assert texts.raw("documents", "document_id", "title") == [("a", "One"), ("copy", "One")]

    texts.put("documents", "a.md", "# Two")
    (texts.landing("documents") / "copy.md").unlink()
    texts.take_in("documents")
    assert texts.raw("documents", "document_id", "title") == [("a", "Two"), ("copy", "One")]
    texts.put("documents", "a.md", "# One")
    texts.take_in("documents")
    assert texts.raw("documents", "document_id", "title") == [("a", "One"), ("copy", "One")]

    path = texts.landing("documents") / "a.md"
    path.rename(path.with_suffix(".txt"))
    texts.take_in("documents")
    assert texts.raw("documents", "document_id", "title") == [("a", "a"), ("copy", "One")]


def test_what_is_no_text_is_quarantined_with_the_reason(texts, monkeypatch):
    monkeypatch.setattr(splitter, "MAX_LINE_BYTES", 1_000)
    texts.put("documents", "cut.txt.gz", gzip.compress(b"cut off" * 100)[:20])
    texts.put("documents", "latin.md", "# Größe".encode("latin-1"))
    texts.put("documents", "long.txt", "x" * 1_001)
    texts.put("documents", "nul.txt", "a\0b")
    texts.put("documents", "utf16.txt", "Größe".encode("utf-16"))
    assert texts.take_in("documents").rows_quarantined == 4
    assert texts.raw("documents", "document_id", "text") == [("utf16", "Größe")]
    assert [reason for *_, reason in texts.quarantine("documents")] == [
        "cut.txt.gz line 1: the gzip file is cut off; deliver the whole file again.",
        "latin.md line 1: the bytes from 5 on are no UTF-8; save the file as UTF-8.",
        "long.txt line 1: the file has more than 1,000 bytes; split it into several documents.",
        "nul.txt line 1: the file holds NUL bytes; write it again without them.",
    ]


def test_other_streams_leave_texts_alone(room):
    room.put("runs", "notes.md", "# Notes")
    assert list(room.take_in("runs").skipped) == ["notes.md"]


def test_a_text_that_a_source_reads_is_not_a_document_by_itself(room, tmp_path, monkeypatch):
    query = "-- stream: documents\n-- glob: documents/notes/*.md\nSELECT content FROM read_text($file)"
    (tmp_path / "notes.sql").write_text(query)
    monkeypatch.setattr(sources.sources, "__defaults__", (tmp_path,))
    room.put("documents", "notes/a.md", "# A")
    room.put("documents", "b.md", "# B")
    listings = sources.stream_listings("documents", room.folder / "landing", {})
    found = {root: [file.item_name for file in each.files] for root, each in listings.items()}
    assert found == {"": ["b.md"], "source:notes": ["documents/notes/a.md"], sources.REFUSED: []}
