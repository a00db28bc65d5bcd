"""The ways out of quarantine, and withdrawal."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.contracts import STREAMS
from ml_assets.defs.raw.checks import nothing_quarantined
from ml_assets.intake import files, ledger, quarantine, raw
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.intake.sources import list_source, sources
from ml_assets.resources import store_resources

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


def test_old_texts_go_and_the_accounts_still_add_up(room):
    room.put("runs", "a.jsonl", lines(RUN, TOMORROW, {"experiment": "e"}))
    room.take_in("runs")
    now = datetime.now(UTC)
    assert quarantine.forget_texts(room.lake, room.postgres, "runs", now - timedelta(days=1)) == 0
    before = quarantine.quarantined(room.lake, room.postgres, "runs").drop_columns("text")
    assert quarantine.forget_texts(room.lake, room.postgres, "runs", now + timedelta(minutes=1)) == 2
    assert quarantine.forget_texts(room.lake, room.postgres, "runs", now + timedelta(minutes=1)) == 0
    left = quarantine.quarantined(room.lake, room.postgres, "runs")
    assert left["text"].to_pylist() == [None, None]
    assert left.drop_columns("text") == before
    assert raw.unbalanced_contents(room.postgres, room.lake, "runs") == {}
    assert quarantine.counts(room.postgres) == {"runs": 2}


def test_no_file_of_the_newest_version_has_an_old_text(room):
    room.put("runs", "a.jsonl", lines(*({**RUN, "run_id": f"r{n}"} for n in range(9)), {"experiment": "e"}))
    room.take_in("runs")
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert quarantine.forget_texts(room.lake, room.postgres, "runs", later) == 1
    with room.lake.get_connection() as connection:
        files = connection.execute(
            "SELECT data_file FROM ducklake_list_files('lake', 'intake_runs', schema => 'intake')"
        ).fetchall()
        texts = connection.execute(
            "SELECT raw_text FROM read_parquet($1)", [[name for (name,) in files]]
        ).fetchall()
        count = connection.execute("SELECT count(*) FROM intake.intake_runs").fetchone()
    assert '{"experiment": "e"}' not in str(texts)
    assert count == (len(texts),) == (10,)
    assert raw.unbalanced_contents(room.postgres, room.lake, "runs") == {}


def test_rows_are_grouped_by_reason_whatever_value_file_and_line(room):
    room.put(
        "runs",
        "a.jsonl",
        lines({**RUN, "status": "o'k, "}, {**RUN, "status": "it's, so;"}, {"experiment": "e"}),
    )
    room.put("runs", "b.jsonl", lines(RUN, {**RUN, "status": "done"}))
    room.put("runs", "c.csv", "run_id,experiment\n1,2,3\n1\n")
    room.put("metrics", "m.jsonl", lines({"run_id": "r1"}))
    assert quarantine.counts(room.postgres) == {}
    room.take_in("runs")
    room.take_in("metrics")

    told = quarantine.reasons(room.lake, room.postgres, "runs").to_pylist()

    assert [(row["rows"], row["files"], row["reason"]) for row in told] == [
        (3, 2, "status is ...; write one of created, running, completed, failed, cancelled."),
        (2, 1, "has ... fields where the header has 2; quote the fields that hold ','."),
        (1, 1, "run_id is missing; every row must have it."),
    ]
    assert (told[2]["unit"], told[2]["line"], told[2]["text"]) == ("a.jsonl", 3, '{"experiment": "e"}')
    assert quarantine.counts(room.postgres) == {"metrics": 1, "runs": 6}


def test_a_check_warns_while_rows_are_in_quarantine(room):
    def checked() -> dg.AssetCheckEvaluation:
        defs = dg.Definitions(
            asset_checks=[nothing_quarantined("runs")],
            jobs=[dg.define_asset_job("checks", selection=dg.AssetSelection.all_asset_checks())],
            resources={"lake": room.lake, "postgres": room.postgres},
        )
        with dg.DagsterInstance.ephemeral() as instance:
            done = defs.resolve_job_def("checks").execute_in_process(instance=instance)
        return done.get_asset_check_evaluations()[0]

    assert checked().passed
    room.put("runs", "a.jsonl", lines(RUN, {**RUN, "status": "done"}))
    room.take_in("runs")
    found = checked()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == (
        "Rows in quarantine: 1. `ml-assets quarantine list runs` shows them. 1 times: status is ...; write one of "
        "created, running, completed, failed, cancelled."
    )


def test_times_without_a_zone_are_utc_where_the_streams_setting_says_so(room, monkeypatch):
    noon = datetime(2026, 5, 1, 12)
    naive = [
        "2026-05-01T12:00:00",
        "2026-05-01 12:00",
        "2026-05-01",
        "2026-05-01T14:00:00+02:00",
        "noon",
        "infinity",
    ]
    rows = [{**RUN, "run_id": f"t{n}", "created_at": written} for n, written in enumerate(naive)]
    room.put("runs", "a.jsonl", lines(*rows))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{**RUN, "run_id": "p", "created_at": noon}]), sink)
    room.put("runs", "b.parquet", sink.getvalue().to_pybytes())
    room.take_in("runs")
    assert room.raw("runs", "run_id") == ["t3"]
    assert all(
        "name runs in ML_ASSETS_NAIVE_TIMES_UTC and retry" in room.quarantine("runs")[n][2] for n in (0, 1, 2)
    )

    monkeypatch.setattr(room, "bounds", replace(room.bounds, naive_utc=("runs",)))
    assert reopen(room) == 2
    room.take_in("runs")

    at = noon.replace(tzinfo=UTC)
    found = [("p", at), ("t0", at), ("t1", at), ("t2", at.replace(hour=0)), ("t3", at)]
    assert room.raw("runs", "run_id", "created_at") == found
    assert [line for _, line, _ in room.quarantine("runs")] == [5, 6]


def test_a_mended_file_needs_no_retry(room):
    room.put("runs", "a.jsonl", lines({**RUN, "status": "done"}))
    room.take_in("runs")
    room.put("runs", "a.jsonl", lines(RUN))
    room.take_in("runs")
    assert quarantine.quarantined(room.lake, room.postgres, "runs").num_rows == 0
    assert room.raw("runs", "run_id") == ["r1"]


def reopen(room, stream="runs", tracking_root=None):
    return quarantine.reopen(room.postgres, room.lake, stream, room.folder / "landing", {}, tracking_root)


def retire(room, file):
    (found,) = quarantine.find_file(file, room.postgres, room.folder / "landing", {}, STREAMS)
    return quarantine.retire_file(found, room.lake, room.postgres, room.bounds)


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

    assert retire(room, "a.jsonl") == (True, [])
    assert retire(room, "runs/a.jsonl") == (False, [])
    assert room.due("runs") == ["2026-05-01"]
    room.put("runs", "a.jsonl", lines(RUN))  # touched, not changed
    assert room.take_in("runs").contents == 0
    assert room.raw("runs", "run_id") == ["r2"]

    room.put("runs", "a.jsonl", lines(RUN) + "\n")
    room.take_in("runs")
    assert room.raw("runs", "run_id") == ["r1", "r2"]


def test_a_file_that_was_never_taken_in_cannot_be_retired(room):
    with pytest.raises(
        quarantine.NotTakenIn, match=r"no file 'x\.csv' was taken in: name it as it lies below"
    ):
        retire(room, "x.csv")
    room.put("metrics", "x.csv", "run_id,key\n")
    room.take_in("metrics")
    with pytest.raises(quarantine.NotTakenIn):
        retire(room, "runs/x.csv")
    room.put("runs", "x.csv", "run_id\n")
    room.take_in("runs")
    with pytest.raises(
        quarantine.NotTakenIn, match=r"may be a file of runs or metrics: name the stream as well"
    ):
        retire(room, "x.csv")


def test_what_lies_elsewhere_too_is_named(room):
    for name in ("a.jsonl", "sub/b.jsonl"):
        room.put("runs", name, lines(RUN))
    room.take_in("runs")
    assert retire(room, "a.jsonl") == (True, ["sub/b.jsonl"])
    assert room.raw("runs", "run_id") == ["r1"]
    assert retire(room, str(room.landing("runs") / "sub" / "b.jsonl")) == (True, [])
    assert room.raw("runs", "run_id") == []


def test_a_sources_file_is_retired_by_either_path(room):
    (source,) = [each for each in sources("performance", {})[0] if each.name == "nab"]
    for number, name in enumerate(("nab/a.csv", "nab/b.csv")):
        path = room.folder / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"timestamp,value\n2014-04-01 00:00:00,{number}\n")
        room.age(path)
    listing = list_source(source, room.folder / "landing")
    files.take_in_files("performance", listing, room.lake, room.postgres, room.bounds, source)
    assert retire(room, "nab/a.csv") == (True, [])
    assert retire(room, str(room.folder / "landing" / "nab" / "b.csv"))[0]


@pytest.fixture
def told(cli, settings, environment, room):
    """What `ml-assets ARGS` prints on a home with files of good and bad runs, as text; refusals as well."""
    stores = store_resources(settings)
    for name, rows in {
        "a.jsonl": [RUN, {**RUN, "status": "done"}],
        "b.jsonl": [RUN],
        "c.jsonl": [RUN],
    }.items():
        path = settings.landing / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines(*rows))
        room.age(path)
    listing = list_files(settings.landing / "runs")
    files.take_in_files("runs", listing, stores["lake"], stores["postgres"], room.bounds)
    given = {name: value for name, value in environment.items() if name != "ML_ASSETS_HOME"}

    def run(*arguments: str, status: int | None = 0) -> str:
        done = cli(settings.home, *arguments, **given)
        assert status is None or done.returncode == status, done.stderr
        return (done.stderr if status else done.stdout).strip()

    return run


def test_the_command_line(told, settings, tmp_path):
    reason = "a.jsonl line 2: status is 'done'; write one of"
    (row,) = json.loads(told("quarantine", "list", "runs", "--json"))
    assert (row["stream"], row["unit"], row["line"]) == ("runs", "a.jsonl", 2)
    assert row["reason"].startswith(reason)
    assert "a.jsonl line 2" in told("quarantine", "list", "--all")
    assert "a.jsonl line 2" in told("quarantine", "list", "--limit", "1")
    assert "status is ..." in told("quarantine", "list")
    # Its exit status is of servers that do not run here.
    assert json.loads(told("status", "--json", status=None))["quarantined"] == {"runs": 1}
    assert told("quarantine", "list", "metrics") == "Nothing is in quarantine."
    assert told("quarantine", "list", "cats", status=1).startswith(
        "There is no stream 'cats': name one of runs,"
    )

    out = tmp_path / "bad.jsonl"
    assert told("quarantine", "export", "runs", str(out)) == f"1 rows written to {out}."
    assert json.loads(out.read_text())["text"] == lines({**RUN, "status": "done"}).strip()
    assert (
        told("quarantine", "retry", "runs")
        == "1 files or runs are read again by the next `ml-assets refresh`."
    )

    withdrawn = "is withdrawn; `ml-assets refresh` rebuilds the days that it touched."
    assert told("retire", "runs/a.jsonl") == f"a.jsonl (runs) {withdrawn}"
    assert told("retire", "runs", "a.jsonl") == "a.jsonl (runs) was withdrawn before."
    assert told("retire", str(settings.landing / "runs" / "b.jsonl")) == (
        "b.jsonl (runs) is withdrawn, but its rows stay: the same content lies at c.jsonl, too; retire that as well."
    )
    assert told("retire", "c.jsonl") == f"c.jsonl (runs) {withdrawn}"
    assert told("retire", "runs/d.jsonl", status=1).startswith(
        "no file 'runs/d.jsonl' was taken in: name it as"
    )
