"""The ways out of quarantine, and withdrawal."""

import json
from datetime import timedelta

import pytest

from ml_assets.lib.intake import quarantine, raw
from ml_assets.lib.intake.judge import Bounds

RUN = {"run_id": "r1", "experiment": "e", "status": "completed", "created_at": "2026-05-01T10:00:00Z"}
TOMORROW = {**RUN, "run_id": "r2", "created_at": "2026-07-01T10:00:00Z"}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_it_is_listed_and_exported(room, tmp_path):
    room.put("runs", "a.jsonl", lines(RUN, TOMORROW, {"experiment": "e"}))
    room.take_in("runs")
    table = quarantine.quarantined(room.lake, room.postgres, "runs")
    assert [(row["unit"], row["line"], row["text"]) for row in table.to_pylist()] == [
        ("a.jsonl", 2, json.dumps(TOMORROW)),
        ("a.jsonl", 3, '{"experiment": "e"}'),
    ]
    assert quarantine.quarantined(room.lake, room.postgres, "runs", limit=1).num_rows == 1
    assert quarantine.export_rows(table, tmp_path / "out.jsonl") == 2
    exported = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert exported[1]["reason"] == "a.jsonl line 3: run_id is missing; every row must have it."


def test_a_mended_file_needs_no_retry(room):
    room.put("runs", "a.jsonl", lines({**RUN, "status": "done"}))
    room.take_in("runs")
    room.put("runs", "a.jsonl", lines(RUN))
    room.take_in("runs")
    assert quarantine.quarantined(room.lake, room.postgres, "runs").num_rows == 0
    assert room.raw("runs", "run_id") == ["r1"]


def test_a_retry_reads_unchanged_files_again(room):
    room.put("runs", "a.jsonl", lines(RUN, TOMORROW))
    room.put("runs", "good.jsonl", lines({**RUN, "run_id": "r3"}))
    room.put("runs", "gone.jsonl", lines({**TOMORROW, "run_id": "r4"})).unlink()
    room.take_in("runs")
    assert room.take_in("runs").ingest_id == ""

    room.bounds, before = Bounds(room.bounds.first_day, room.bounds.now + timedelta(days=1)), room.bounds
    try:
        assert quarantine.reopen(room.postgres, "runs", room.folder / "landing", {}) == 1
        assert room.raw("runs", "run_id") == ["r3"]
        report = room.take_in("runs")
    finally:
        room.bounds = before

    assert (report.rows_read, report.rows_quarantined) == (2, 0)
    assert room.raw("runs", "run_id") == ["r1", "r2", "r3"]
    assert raw.unbalanced_intake(room.postgres, room.lake, "runs") == []
    assert len(room.intake("runs", "line")) == 3


def test_a_file_that_is_gone_keeps_its_good_rows_at_a_retry(room):
    path = room.put("runs", "a.jsonl", lines(RUN, TOMORROW))
    room.take_in("runs")
    path.unlink()
    assert quarantine.reopen(room.postgres, "runs", room.folder / "landing", {}) == 0
    assert room.raw("runs", "run_id") == ["r1"]


def test_a_retired_file_stays_out_until_it_changes(room):
    room.put("runs", "a.jsonl", lines(RUN))
    room.put("runs", "b.jsonl", lines({**RUN, "run_id": "r2"}))
    room.take_in("runs")
    room.settle("runs")

    report = quarantine.retire_file("runs", "a.jsonl", room.lake, room.postgres, room.bounds)
    assert report.retired == 1
    assert room.due("runs") == ["2026-05-01"]
    room.put("runs", "a.jsonl", lines(RUN))  # touched, not changed
    assert room.take_in("runs").contents == 0
    assert room.raw("runs", "run_id") == ["r2"]

    room.put("runs", "a.jsonl", lines(RUN) + "\n")
    room.take_in("runs")
    assert room.raw("runs", "run_id") == ["r1", "r2"]


def test_a_file_that_was_never_taken_in_cannot_be_retired(room):
    with pytest.raises(quarantine.NotTakenIn, match=r"no file 'x\.csv' was taken in for runs: name it as"):
        quarantine.retire_file("runs", "x.csv", room.lake, room.postgres, room.bounds)
