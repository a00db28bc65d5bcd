"""Foreign files by one SELECT: the three that ship, and what a new one takes."""

import shutil
from pathlib import Path

import pytest

from ml_assets.lib.intake.files import take_in_files
from ml_assets.lib.intake.sources import SourceError, list_source, read_source, sources

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not there: {DATA}")


def take_in(room, source):
    listing = list_source(source, room.folder / "landing")
    return take_in_files(source.stream, listing, room.lake, room.postgres, room.bounds, source)


def shipped(name: str, glob: str):
    (source,) = [
        s for s in sources("runs", {name: glob}) + sources("performance", {name: glob}) if s.name == name
    ]
    return source


@needs_data
def test_automl_benchmark(room):
    report = take_in(room, shipped("automl", f"{DATA}/automlbenchmark/*.csv"))
    assert (report.contents, report.rows_read, report.rows_quarantined) == (6, 3872, 0)
    runs = room.raw("runs", "run_id", "status", "error", "metrics", "parameters")
    assert len(runs) == 3872
    failed = [run for run in runs if run[1] == "failed"]
    assert len(failed) == 412
    assert all(error for _, _, error, _, _ in failed)
    (first,) = [
        r for r in runs if r[0] == "automl/Airlines/autosklearn/1/aws.docker/stable/2019-04-19T01:38:55"
    ]
    assert first[3] == '{"accuracy":0.672519,"auc":0.729177,"models":10.0,"result":0.729177}'
    assert first[4] == '{"_n_jobs":4,"fold":1,"mode":"aws.docker","seed":2737798690}'


@needs_data
def test_timm_across_pytorch_versions(room):
    report = take_in(room, shipped("timm", f"{DATA}/timm/benchmark-infer-*.csv"))
    assert (report.contents, report.rows_quarantined) == (3, 0)
    rows = room.raw("performance", "model_version", "inference_time_ms", "batch_size", "model_name")
    assert len(rows) == report.rows_read
    tiny = [row[:3] for row in rows if row[3] == "tinynet_e"]
    assert tiny[:2] == [("pytorch 113", 14.068, 1024), ("pytorch 210", 13.591, 1024)]


@needs_data
def test_nab_series(room):
    report = take_in(room, shipped("nab", f"{DATA}/nab/*.csv"))
    assert (report.contents, report.rows_quarantined) == (4, 0)
    rows = room.raw("performance", "timestamp", "inference_time_ms", "model_name")
    first = min(row for row in rows if row[2] == "cpu_utilization_asg_misconfiguration")
    assert (first[0].isoformat(), first[1]) == ("2014-05-14T01:14:00+00:00", 85.835)


def write(folder: Path, text: str):
    path = folder / "mine.sql"
    path.write_text(text)
    return read_source(path)


MINE = """-- stream: performance
-- glob: mine/**/*.csv
SELECT id AS event_id, 'inference' AS kind, time AS timestamp, 'm' AS model_name, ms AS inference_time_ms
FROM read_csv($file, all_varchar = true)
"""


def test_a_new_source_is_one_file(room, tmp_path):
    source = write(tmp_path, MINE)
    folder = room.folder / "landing" / "mine" / "deep [1]"
    folder.mkdir(parents=True)
    (folder / "a'b.csv").write_text("id,time,ms\n1,2026-05-01T00:00:00Z,3\n2,2026-05-01T00:00:00,4\n")
    room.age(folder / "a'b.csv")

    report = take_in(room, source)

    assert (report.rows_read, report.rows_quarantined) == (2, 1)
    assert room.raw("performance", "event_id", "inference_time_ms") == [("1", 3.0)]
    ((unit, line, reason),) = room.quarantine("performance")
    assert (unit, line) == ("deep [1]/a'b.csv", 2)
    assert "without a time zone" in reason
    assert take_in(room, source).ingest_id == ""


def test_a_changed_query_reads_its_files_again(room, tmp_path):
    folder = room.folder / "landing" / "mine"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("id,time,ms\n1,2026-05-01T00:00:00Z,3\n")
    room.age(folder / "a.csv")
    take_in(room, write(tmp_path, MINE))
    take_in(room, write(tmp_path, MINE.replace("ms AS", "ms::DOUBLE * 1000 AS")))
    assert room.raw("performance", "event_id", "inference_time_ms") == [("1", 3000.0)]


def test_a_file_that_the_query_cannot_read_is_quarantined_whole(room, tmp_path):
    folder = room.folder / "landing" / "mine"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("other,columns\n1,2\n")
    (folder / "b.csv").write_text("id,time,ms\n1,2026-05-01T00:00:00Z,3\n")
    for name in ("a.csv", "b.csv"):
        room.age(folder / name)
    report = take_in(room, write(tmp_path, MINE))
    assert (report.rows_read, report.rows_quarantined) == (2, 1)
    ((unit, line, reason),) = room.quarantine("performance")
    assert (unit, line) == ("a.csv", 1)
    assert reason.startswith("a.csv line 1: cannot be read as the query mine (Binder Error: ")
    assert room.raw("performance", "event_id") == ["1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINE.replace("-- stream: performance\n", ""), "mine.sql names no stream; begin it with the comment"),
        (MINE.replace("-- glob", "-- glop"), "mine.sql names no glob"),
        (MINE.replace("performance", "events"), "mine.sql names the stream 'events'; name one of runs, "),
        (MINE.replace("$file", "'a.csv'"), "mine.sql does not use $file"),
    ],
)
def test_what_is_no_source(tmp_path, text, message):
    with pytest.raises(SourceError, match=message.replace("$", r"\$")):
        write(tmp_path, text)


def test_globs_of_the_settings_take_precedence(tmp_path):
    shutil.copy(write(tmp_path, MINE) and tmp_path / "mine.sql", tmp_path / "other.sql")
    found = {s.name: s.glob for s in sources("performance", {"other": "/elsewhere/*.csv"}, tmp_path)}
    assert found == {"mine": "mine/**/*.csv", "other": "/elsewhere/*.csv"}
