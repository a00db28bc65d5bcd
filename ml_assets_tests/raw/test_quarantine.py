"""The ways out of quarantine, and withdrawal."""

import json
from datetime import timedelta

import psycopg
import pytest

from ml_assets.lib.intake import files, ledger, quarantine, raw
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


def reopen(room, stream="runs", tracking_root=None):
    return quarantine.reopen(room.postgres, room.lake, stream, room.folder / "landing", {}, tracking_root)


@pytest.fixture
def next_day(room, monkeypatch):
    """Make it the day on which a run of tomorrow is one of today."""
    later = Bounds(room.bounds.first_day, room.bounds.now + timedelta(days=1))
    return lambda: monkeypatch.setattr(room, "bounds", later)


@pytest.mark.parametrize("large", [False, True])
def test_a_retry_reads_unchanged_files_again(room, next_day, monkeypatch, large):
    if large:
        monkeypatch.setattr(files, "LARGE_BYTES", 10)
    room.put("runs", "a.jsonl", lines(RUN, TOMORROW))
    room.put("runs", "good.jsonl", lines({**RUN, "run_id": "r3"}))
    room.put("runs", "gone.jsonl", lines({**TOMORROW, "run_id": "r4"})).unlink()
    room.take_in("runs")
    assert room.take_in("runs").ingest_id == ""
    room.settle("runs")

    next_day()
    assert reopen(room) == 1
    # Nothing is missing meanwhile.
    assert room.raw("runs", "run_id") == ["r1", "r3"]
    report = room.take_in("runs")

    assert (report.rows_read, report.rows_quarantined) == (2, 0)
    assert room.raw("runs", "run_id") == ["r1", "r2", "r3"]
    assert room.due("runs") == ["2026-05-01", "2026-07-01"]
    room.settle("runs")
    found = raw.account(room.postgres, [report.ingest_id])["runs"]
    assert found == {"read": 2, "loaded": 2, "superseded": 0, "quarantined": 0}
    assert raw.unbalanced_intake(room.postgres, room.lake, "runs") == []
    assert len(room.intake("runs", "line")) == 3
    assert room.take_in("runs").ingest_id == ""


def test_a_file_that_goes_after_a_retry_stays_loaded(room):
    path = room.put("runs", "a.jsonl", lines(RUN, TOMORROW))
    room.take_in("runs")
    assert reopen(room) == 1
    path.unlink()
    room.put("runs", "b.jsonl", lines({**RUN, "run_id": "r3"}))
    room.take_in("runs")
    assert room.raw("runs", "run_id") == ["r1", "r3"]
    assert len(room.intake("runs", "line")) == 3
    assert raw.unbalanced_intake(room.postgres, room.lake, "runs") == []


def test_of_two_places_of_a_content_one_is_read_again(room, next_day):
    room.put("runs", "a.jsonl", lines(RUN, TOMORROW))
    room.put("runs", "b.jsonl", lines(RUN, TOMORROW))
    room.take_in("runs")
    next_day()
    assert reopen(room) == 1
    (room.landing("runs") / "b.jsonl").unlink()
    assert room.take_in("runs").rows_read == 2
    assert room.raw("runs", "run_id") == ["r1", "r2"]
    with room.postgres.connect() as connection:
        assert ledger.reopened(connection) == set()


def test_a_retry_that_is_killed_between_lake_and_ledger_is_done_again(room, next_day):
    room.put("runs", "a.jsonl", lines(RUN, TOMORROW))
    room.take_in("runs")
    room.settle("runs")
    next_day()
    reopen(room)
    with room.postgres.connect(write=True) as connection:
        connection.execute("ALTER TABLE ledger.unit_days ADD CONSTRAINT broken CHECK (day < '2026-06-01')")
    with pytest.raises(psycopg.errors.CheckViolation):
        room.take_in("runs")
    with room.postgres.connect(write=True) as connection:
        connection.execute("ALTER TABLE ledger.unit_days DROP CONSTRAINT broken")

    room.take_in("runs")

    assert room.raw("runs", "run_id") == ["r1", "r2"]
    assert room.due("runs") == ["2026-05-01", "2026-07-01"]
    assert raw.unbalanced_intake(room.postgres, room.lake, "runs") == []
    assert len(room.intake("runs", "line")) == 2


def test_a_file_that_is_gone_keeps_its_good_rows_at_a_retry(room):
    path = room.put("runs", "a.jsonl", lines(RUN, TOMORROW))
    room.take_in("runs")
    path.unlink()
    assert reopen(room) == 0
    assert room.raw("runs", "run_id") == ["r1"]


def test_a_retry_mends_accounts_that_do_not_add_up(room):
    room.put("runs", "a.jsonl", lines(RUN, {**RUN, "run_id": "r2"}))
    room.put("runs", "b.jsonl", lines({**RUN, "run_id": "r3"}))
    room.take_in("runs")
    room.put("runs", "b.jsonl", lines({**RUN, "run_id": "r4"}))
    room.take_in("runs")
    with room.lake.get_connection(write=True) as connection:
        connection.execute("DELETE FROM intake.intake_runs WHERE run_id IN ('r2', 'r3')")
    assert len(raw.unbalanced_intake(room.postgres, room.lake, "runs")) == 2

    assert reopen(room) == 2  # of the former content of b.jsonl there is nothing left
    room.take_in("runs")

    assert raw.unbalanced_intake(room.postgres, room.lake, "runs") == []
    assert room.raw("runs", "run_id") == ["r1", "r2", "r4"]


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
