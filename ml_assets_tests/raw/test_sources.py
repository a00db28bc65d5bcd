"""Foreign files by one SELECT: the three that ship, and what a new one takes."""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.errors import SourceError
from ml_assets.intake import files
from ml_assets.intake.files import glob_free, pending_files, take_in_files
from ml_assets.intake.readers import without_guesses
from ml_assets.intake.sources import Source, left_alone, list_source, read_source, sources, stream_listings
from ml_assets.stores.duckdb import extensions

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
    ((item_name, _, reason),) = room.quarantine("performance")
    assert item_name == "timm/benchmark-infer-amp-nhwc-pt999-cu117-rtx3090.csv"
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
    example = re.findall(r"```sql\n(.*?)```", (DOCS / "sources.md").read_text(), re.DOTALL)[0]
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
    ((item_name, line, reason),) = room.quarantine("performance")
    assert (item_name, line) == ("mine/deep [1]/a'b.csv", 2)
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
    ((item_name, line, reason),) = room.quarantine("performance")
    assert (item_name, line) == ("mine/a.csv", 1)
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
    assert [file.item_name for file in list_source(write(tmp_path, MINE), folder).files] == ["mine/a.csv"]


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
    assert [file.item_name for file in listing.files] == ["mine/a.csv"]
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
    assert [file.item_name for file in list_source(elsewhere, tmp_path).files] == [f"{folder}/link.csv"]


def test_what_is_left_alone_is_told_by_its_place(room):
    put(room, "performance/notes.txt", "x")
    put(room, "nab/a.csv.partial", "x")
    listings = stream_listings("performance", room.folder / "landing", {"nab": "nab/*"})
    assert left_alone("performance", {root: each.skipped for root, each in listings.items()}) == {
        "performance/notes.txt": "its name ends in none of .jsonl, .csv, .parquet (or these with .gz or .zst); rename it",
        "source:nab/nab/a.csv.partial": "unfinished by its name; rename it when it is complete",
    }


# --- what readers guess -----------------------------------------------------------------------------


def run(sql: str, file: Path) -> list[tuple]:
    """Rows of a source's query, of a DuckDB of its own."""
    query = without_guesses(sql)
    values = {"file": str(file), "file_pattern": glob_free(str(file))}
    with duckdb.connect() as connection:
        return connection.execute(query.sql, {name: values[name] for name in query.parameters}).fetchall()


LATE_CSV = "a,b\n" + "1,0.5\n" * 30_000 + "1.5,1\n"
LATE_JSON = '{"a": 0.5, "b": 1}\n' * 30_000 + '{"a": true, "b": 1.5, "late": "x"}\n'


@pytest.mark.parametrize(
    ("name", "content", "sql", "last"),
    [
        # A folder that is called like a column says nothing about it.
        ("a=folder/x.csv", "a,b\nfile,1\n", "SELECT a FROM read_csv($file)", ("file",)),
        ("a=folder/x.json", '{"a": "file"}', "SELECT a FROM read_json($file)", ("file",)),
        ("a=folder/x.json", '{"a": "file"}', "FROM read_json_objects($file)", ('{"a": "file"}',)),
        # Lines and characters of the file are data.
        ("x.csv", "a,b\n1,#2\n#3,4\n", "FROM read_csv($file, all_varchar = true)", ("#3", "4")),
        ("x.csv", "a,b\n'x',2\n'y',4\n", "SELECT a FROM read_csv($file, header = true)", ("'y'",)),
        ("x.csv", "a,b\nc,d\n", "FROM read_csv($file, names = ['x', 'y']) LIMIT 1", ("a", "b")),
        # Types fit all rows.
        ("x.csv", LATE_CSV, "SELECT a FROM read_csv($file)", (1.5,)),
        ("x.json", LATE_JSON, "SELECT a, b, late FROM read_json($file)", ("true", 1.5, "x")),
        # What is asked for is given.
        ("a=folder/x.csv", "a,b\nf,1\n", "SELECT a FROM read_csv($file, hive_partitioning := true)", ("folder",)),
        ("x.csv", "a,b\n1,2\n#3,4\n", """SELECT a FROM "read_csv" ($file, COMMENT = '#')""", (1,)),
        ("x.csv", "a,b\n'1',2\n", """SELECT a FROM read_csv($file, quote = '''') -- read_csv(""", (1,)),
        # The path is a pattern for readers alone.
        ("[1]*.csv", "a\n1\n", "SELECT parse_filename($file) FROM read_csv($file -- it\n)", ("[1]*.csv",)),
        ("x.csv", "é\n1\n", "SELECT é, '$file', $$ $file $$ FROM read_csv($file)", (1, "$file", " $file ")),
    ],
)  # fmt: skip
def test_readers_guess_nothing_that_nobody_asked_for(tmp_path, name, content, sql, last):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    assert run(sql, file)[-1] == last


def test_a_reader_of_parquet_takes_no_columns_from_folders(tmp_path):
    file = tmp_path / "a=folder" / "x.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"a": ["file"], "b": [1]}), file)
    assert run("FROM read_parquet($file)", file) == [("file", 1)]
    assert run("FROM parquet_scan([$file], hive_partitioning => 1::BOOL)", file) == [("folder", 1)]


def test_an_empty_row_of_a_sheet_is_no_end():
    assert (
        without_guesses("FROM read_xlsx($file)").sql == "FROM read_xlsx($file_pattern, stop_at_empty = false)"
    )


JSON = """-- stream: performance
-- glob: mine/*.json
SELECT id AS event_id, 'inference' AS kind, time AS timestamp, 'm' AS model_name, accuracy, batch_size
FROM read_json($file)
"""


def test_values_of_a_json_source_are_judged_as_if_they_had_landed(room, tmp_path):
    event = {"id": "a", "time": "2026-05-01T10:00:00.123456789Z", "accuracy": 0.5, "batch_size": 1}
    rows = [
        event,
        *[{**event, "id": f"b{n}"} for n in range(20_500)],
        {**event, "id": "c", "accuracy": True},
        {**event, "id": "d", "batch_size": 1.5},
        {**event, "id": 7, "accuracy": "0.25"},
    ]
    put(room, "mine/a.json", "\n".join(map(json.dumps, rows)))
    # The same with Z behind a time that DuckDB knows, which it takes off.
    put(room, "mine/b.json", json.dumps({**event, "id": "e", "time": "2026-05-01T10:00:00Z"}))
    report = take_in(room, write(tmp_path, JSON))
    assert (report.rows_read, report.rows_quarantined) == (len(rows) + 1, 3)
    assert room.intake("performance", "event_id, accuracy", "event_id IN ('a', '7')") == [
        ("a", 0.5),
        ("7", 0.25),
    ]
    told = {
        (item_name, line): reason.partition(": ")[2]
        for item_name, line, reason in room.quarantine("performance")
    }
    assert told == {
        ("mine/a.json", 20_502): "accuracy is 'true', not a number; correct it.",
        ("mine/a.json", 20_503): "batch_size is '1.5', not a whole number; correct it.",
        (
            "mine/b.json",
            1,
        ): "timestamp is '2026-05-01 10:00:00', to which the query or its reader gave the type "
        "TIMESTAMP, which has no time zone whatever the file says; state the type in the query: VARCHAR if the file "
        "names a zone, or, if it is UTC, write AT TIME ZONE 'UTC' behind it.",
    }


# --- what a content is ------------------------------------------------------------------------------


BY_PATH = """-- stream: runs
-- glob: mine/*/run.csv
SELECT parse_path($file)[-2] AS run_id, 'e' AS experiment, 'completed' AS status, time AS created_at
FROM read_csv($file, all_varchar = true)
"""


def test_files_of_equal_bytes_whose_paths_tell_them_apart_are_all_read(room, tmp_path, monkeypatch):
    for run_id in ("a", "b"):
        put(room, f"mine/{run_id}/run.csv", "time\n2026-05-01T10:00:00Z\n")
    source = write(tmp_path, BY_PATH)

    # As it was before paths counted: a ledger in which the second file has the first one's content.
    with monkeypatch.context() as before:
        key = f"{source.name}\0{source.version}\0\0"
        before.setattr(
            Source, "content_hash", lambda _, sha, item_name: hashlib.sha256((key + sha).encode()).hexdigest()
        )
        assert take_in(room, source).contents == 1
    assert room.raw("runs", "run_id") == ["a"]

    listing = list_source(source, room.folder / "landing")
    assert [f.item_name for f in pending_files("runs", listing, room.postgres, source.root)] == [
        "mine/b/run.csv"
    ]
    assert take_in(room, source).contents == 1
    assert room.raw("runs", "run_id") == ["a", "b"]
    assert take_in(room, source).ingest_id == ""
    # What the ledger knows by its former content is read once more when it is touched, and stands there once.
    for run_id in ("a", "b"):
        room.age(room.folder / "landing" / "mine" / run_id / "run.csv")
    assert take_in(room, source).contents == 1
    assert room.raw("runs", "run_id") == ["a", "b"]


# --- SQLite -----------------------------------------------------------------------------------------


DATABASE = """-- stream: performance
-- glob: mine/*
SELECT id AS event_id, 'inference' AS kind, time AS timestamp, 'm' AS model_name
FROM sqlite_scan($file, 'events')
"""


@pytest.mark.parametrize("large", [False, True])
def test_a_sqlite_file_that_is_in_use(room, tmp_path, monkeypatch, large):
    monkeypatch.setattr(files, "LARGE_BYTES", -1 if large else files.LARGE_BYTES)
    path = put(room, "mine/a [1].db", "")
    source = write(tmp_path, DATABASE)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE events (id TEXT, time TEXT)")
        for key in ("a", "b"):
            # What is written stands in the log, and the file itself does not change.
            database.execute("INSERT INTO events VALUES (?, '2026-05-01T10:00:00Z')", [key])
            for each in path.parent.iterdir():
                room.age(each)
            report = take_in(room, source)
            assert (report.contents, report.rows_quarantined) == (1, 0)
            assert sorted(report.skipped) == ["mine/a [1].db-shm", "mine/a [1].db-wal"]
        assert take_in(room, source).ingest_id == ""
    room.age(path)
    assert take_in(room, source).contents == 1  # the log has gone into the file
    assert room.raw("performance", "event_id") == ["a", "b"]


def test_bytes_in_a_sqlite_file_that_are_no_text(room, tmp_path):
    path = put(room, "mine/a.db", "")
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE events (id TEXT, time TEXT)")
        database.execute("INSERT INTO events VALUES (x'ff', '2026-05-01T10:00:00Z')")
        database.commit()
    room.age(path)
    take_in(room, write(tmp_path, DATABASE))
    ((item_name, line, reason),) = room.quarantine("performance")
    assert (item_name, line) == ("mine/a.db", 1)
    assert "cannot be read as the query mine (Mismatch Type Error: Invalid type in column" in reason
    assert "\\xff" in reason


WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("CREATE TABLE events (id TEXT, time TEXT)")
database.execute("BEGIN EXCLUSIVE")
print(flush=True)
sys.stdin.read()
"""


def test_a_sqlite_file_that_is_locked_is_left_for_the_next_time(room, tmp_path):
    path = put(room, "mine/a.db", "")
    source = write(tmp_path, DATABASE)
    # A process of its own: locks do not hold against the process that has them.
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout and writer.stdout.readline()
        room.age(path)
        report = take_in(room, source)
        writer.communicate()
    assert report.skipped == {"mine/a.db": "it is being written to; it is read once it is quiet"}
    assert take_in(room, source).contents == 1
    assert room.quarantine("performance") == []


@pytest.mark.parametrize("large", [False, True])
def test_an_extension_that_is_not_there_is_named_with_its_package(room, tmp_path, monkeypatch, large):
    monkeypatch.setattr(files, "LARGE_BYTES", -1 if large else files.LARGE_BYTES)
    monkeypatch.setattr(extensions, "extension_file", lambda name: tmp_path / name)
    put(room, "mine/a.xlsx", "x")
    source = write(tmp_path, DATABASE.replace("sqlite_scan($file, 'events')", "read_xlsx($file)"))
    for _ in range(2):  # left alone until it is there, not entered as broken
        assert take_in(room, source).skipped == {
            "mine/a.xlsx": "DuckDB's extension excel is not installed: run 'pip install "
            f"duckdb-extension-excel=={duckdb.__version__}'"
        }
    assert room.quarantine("performance") == []
