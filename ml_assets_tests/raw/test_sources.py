"""Foreign files by one SELECT: the three that ship, and what a new one takes."""

import os
import re
import shutil
from pathlib import Path

import pytest

from ml_assets.lib.intake.files import take_in_files
from ml_assets.lib.intake.sources import (
    SourceError,
    left_alone,
    list_source,
    read_source,
    sources,
    stream_listings,
)

DOCS = Path(__file__).parents[2] / "docs"

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not there: {DATA}")


def take_in(room, source):
    listing = list_source(source, room.folder / "landing")
    return take_in_files(source.stream, listing, room.lake, room.postgres, room.bounds, source)


def shipped(name: str, glob: str):
    (source,) = [
        s for stream in ("runs", "performance") for s in sources(stream, {name: glob})[0] if s.name == name
    ]
    return source


# The layouts of the real data, a few rows each, for where it is not.
AUTOML = """\
id,task,framework,fold,result,mode,version,params,tag,utc,duration,models,seed,info,acc,auc,logloss
o/t/1,Airlines,autosklearn,1,0.73,aws.docker,0.5.1,{'_n_jobs': 4},stable,2019-04-19T01:38:55,14398.7,9,27,,0.67,0.73,
o/t/2,Helena,H2OAutoML,0,,aws.docker,3.24,,stable,2019-04-25T16:48:13,3631.0,,18,Error: no model in time.,,,
"""
AUTOML_WITHOUT_PARAMS = """\
id,task,framework,fold,result,mode,version,tag,utc,duration,models,seed,info,acc,auc,logloss
o/t/3,dresses-sales,oboe,3,0.440066,aws.docker,latest,stable,2019-02-22T03:39:57,143.3,2,39,,0.48,0.440066,
"""
_TIMM_LATER = "model,infer_img_size,infer_batch_size,infer_step_time\ntinynet_e,106,1024.0,13.591\n"
# Two have the same content: what a query reads of their names tells them apart.
TIMM = {
    "113": "model,infer_step_time,infer_batch_size,infer_img_size\ntinynet_e,14.068,1024,106\n",
    "210": _TIMM_LATER,
    "999": _TIMM_LATER,
}
NAB = "timestamp,value\n2014-05-14 01:14:00,85.835\n2014-05-14 01:19:00,88.167\n"


def test_the_layout_of_the_automl_benchmark(room):
    put(room, "automlbenchmark/large.csv", AUTOML)
    put(room, "automlbenchmark/valid.csv", AUTOML_WITHOUT_PARAMS)
    report = take_in(room, shipped("automl", "automlbenchmark/*.csv"))
    assert (report.contents, report.rows_read, report.rows_quarantined) == (2, 3, 0)
    assert room.raw("runs", "model_name", "status", "error", "metrics", "parameters") == [
        (
            "H2OAutoML",
            "failed",
            "Error: no model in time.",
            "{}",
            '{"fold":0,"mode":"aws.docker","seed":18}',
        ),
        (
            "autosklearn",
            "completed",
            None,
            '{"accuracy":0.67,"auc":0.73,"models":9.0,"result":0.73}',
            '{"_n_jobs":4,"fold":1,"mode":"aws.docker","seed":27}',
        ),
        (
            "oboe",
            "completed",
            None,
            '{"accuracy":0.48,"auc":0.440066,"models":2.0,"result":0.440066}',
            '{"fold":3,"mode":"aws.docker","seed":39}',
        ),
    ]


def test_the_layout_of_timm(room):
    for pytorch, content in TIMM.items():
        put(room, f"timm/benchmark-infer-amp-nhwc-pt{pytorch}-cu117-rtx3090.csv", content)
    take_in(room, shipped("timm", "timm/benchmark-infer-*.csv"))
    columns = ("model_name", "model_version", "inference_time_ms", "batch_size")
    assert room.raw("performance", *columns) == [
        ("tinynet_e", "pytorch 113", 14.068, 1024),
        ("tinynet_e", "pytorch 210", 13.591, 1024),
    ]
    ((unit, _, reason),) = room.quarantine("performance")
    assert unit == "timm/benchmark-infer-amp-nhwc-pt999-cu117-rtx3090.csv"
    assert "timestamp is missing" in reason


def test_the_layout_of_nab(room):
    put(room, "nab/cpu.csv", NAB)
    take_in(room, shipped("nab", "nab/*.csv"))
    rows = room.raw("performance", "model_name", "inference_time_ms", "timestamp")
    assert [(name, ms, when.isoformat()) for name, ms, when in rows] == [
        ("cpu", 85.835, "2014-05-14T01:14:00+00:00"),
        ("cpu", 88.167, "2014-05-14T01:19:00+00:00"),
    ]


def test_the_example_of_the_docs(room, tmp_path):
    (example,) = re.findall(r"```sql\n(.*?)```", (DOCS / "sources.md").read_text(), re.DOTALL)
    put(room, "bench/today.csv", "host,started,model,latency_s\na,2026-05-01 10:00:00,cats,0.25\n")
    take_in(room, write(tmp_path, example.replace("\n   ", "\n").strip()))
    rows = room.raw("performance", "event_id", "timestamp", "model_name", "inference_time_ms")
    assert [(key, when.isoformat(), *rest) for key, when, *rest in rows] == [
        ("bench/a/2026-05-01 10:00:00", "2026-05-01T10:00:00+00:00", "cats", 250.0)
    ]


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


def put(room, name: str, content: str) -> Path:
    path = room.folder / "landing" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    room.age(path)
    return path


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
    assert (unit, line) == ("mine/deep [1]/a'b.csv", 2)
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
    assert (unit, line) == ("mine/a.csv", 1)
    assert reason.startswith("mine/a.csv line 1: cannot be read as the query mine (Binder Error: ")
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
    found, _ = sources("performance", {"other": "/elsewhere/*.csv"}, tmp_path)
    assert {s.name: s.glob for s in found} == {"mine": "mine/**/*.csv", "other": "/elsewhere/*.csv"}
    told = "ML_ASSETS_SOURCES names 'othr', but there is no othr.sql in sql/duckdb/sources; name one of mine, other"
    with pytest.raises(SourceError, match=told):
        sources("performance", {"othr": "/elsewhere/*.csv"}, tmp_path)


def test_what_is_no_source_stops_no_other(tmp_path):
    (tmp_path / "good.sql").write_text(MINE)
    (tmp_path / "bad.sql").write_text(MINE.replace("$file", "'a.csv'"))
    (tmp_path / "lost.sql").write_text("SELECT 1")
    (tmp_path / "odd.sql").write_bytes(b"\xff")
    found, refused = sources("performance", {}, tmp_path)
    assert [s.name for s in found] == ["good"]
    assert sorted(refused) == ["bad.sql", "lost.sql", "odd.sql"]
    assert refused["bad.sql"].startswith("bad.sql does not use $file")
    # Of those that name no stream every stream tells, of others their own.
    assert sorted(sources("runs", {}, tmp_path)[1]) == ["lost.sql", "odd.sql"]


ROW = "id,time,ms\n{},2026-05-01T00:00:00Z,3\n"


def test_a_query_that_ends_in_a_comment(room, tmp_path):
    put(room, "mine/a.csv", ROW.format(1))
    report = take_in(room, write(tmp_path, MINE.rstrip() + "  -- all text"))
    assert (report.rows_read, report.rows_quarantined) == (1, 0)


def test_a_file_whose_name_is_a_pattern_is_read_alone(room, tmp_path):
    put(room, "mine/*.csv", ROW.format(1))
    put(room, "mine/b.csv", ROW.format(2))
    report = take_in(room, write(tmp_path, MINE))
    assert (report.contents, report.rows_read) == (2, 2)
    assert room.intake("performance", "unit, event_id") == [("mine/*.csv", "1"), ("mine/b.csv", "2")]


def test_a_landing_folder_whose_name_is_a_pattern(tmp_path):
    folder = tmp_path / "home [x]*" / "landing"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "a.csv").write_text(ROW.format(1))
    assert [file.unit for file in list_source(write(tmp_path, MINE), folder).files] == ["mine/a.csv"]


def test_a_name_that_is_no_text(room, tmp_path):
    path = put(room, "mine/a.csv", ROW.format(1))
    path.rename(path.with_name(os.fsdecode(b"\xff [1].csv")))
    take_in(room, write(tmp_path, MINE))
    assert room.raw("performance", "event_id") == ["1"]


@pytest.mark.parametrize("name", ["unit", "unit_hash", "line", "broken", "reason", "raw_text", "v_kind"])
def test_columns_that_are_called_as_those_of_intake(room, tmp_path, name):
    put(room, "mine/a.csv", ROW.format(1) + "2,2026-05-01T00:00:00,4\n")
    take_in(room, write(tmp_path, MINE.replace("id AS", f"'x' AS {name}, id AS")))
    assert room.raw("performance", "event_id", "extras") == [("1", f'{{"{name}":"x"}}')]
    assert [line for _, line, _ in room.quarantine("performance")] == [2]


def test_another_folder_in_the_glob_takes_nothing_from_the_former(room, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(ROW.format(folder))
        room.age(tmp_path / folder / "a.csv")
        take_in(room, write(tmp_path, MINE.replace("mine/**/*.csv", f"{tmp_path}/{folder}/*.csv")))
    # The header stands in the query's file, but it is not what the query is.
    assert room.raw("performance", "event_id") == ["one", "two"]


def test_sources_leave_alone_what_landing_folders_do(room, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text(ROW.format("secret"))
    put(room, "mine/a.csv", ROW.format(1))
    folder = put(room, "mine/b.csv.partial", ROW.format(2)).parent
    (folder / "link.csv").symlink_to(secret)
    (folder / "self.csv").symlink_to("self.csv")
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.csv")
    source = write(tmp_path, MINE.replace("*.csv", "*"))
    listing = list_source(source, room.folder / "landing")
    assert [file.unit for file in listing.files] == ["mine/a.csv"]
    refused = "a link that leads out of the landing folder is refused; copy the file here"
    assert listing.skipped == {
        "mine/b.csv.partial": "unfinished by its name; rename it when it is complete",
        "mine/link.csv": refused,
        "mine/linked/mine.sql": refused,
        "mine/linked/secret.csv": refused,
        "mine/pipe.csv": "a pipe, socket or device is not read; write a file here",
        "mine/self.csv": "cannot be read (Too many levels of symbolic links); check its permissions",
    }
    # Where a glob of the settings leads, links are what the team makes of them.
    elsewhere = write(tmp_path, MINE.replace("mine/**/*.csv", f"{folder}/link.csv"))
    assert [file.unit for file in list_source(elsewhere, tmp_path).files] == [f"{folder}/link.csv"]


def test_what_is_left_alone_is_told_by_its_place(room):
    put(room, "performance/notes.txt", "x")
    put(room, "nab/a.csv.partial", "x")
    listings = stream_listings("performance", room.folder / "landing", {"nab": "nab/*"})
    assert left_alone("performance", {root: each.skipped for root, each in listings.items()}) == {
        "performance/notes.txt": "its name ends in none of .jsonl, .csv, .parquet (or these with .gz or .zst); rename it",
        "source:nab/nab/a.csv.partial": "unfinished by its name; rename it when it is complete",
    }
