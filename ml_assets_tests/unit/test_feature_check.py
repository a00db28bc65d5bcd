"""What is wrong with a feature file is told while the definitions load, with its line."""

import json
import re
from pathlib import Path

import pytest

from ml_assets.contracts import tables
from ml_assets.contracts.feature_files import SHIPPED, every_file, feature_files, pin, pin_of, read_files
from ml_assets.contracts.text import pinned_contract
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.sql_text import column_comments, place_of_byte, with_values
from ml_assets.settings import Settings
from ml_assets.stores.duckdb import feature_check
from ml_assets.stores.duckdb.feature_check import check_files

SHIPPED_TABLES = tables(Settings())


def check(folder: Path, **texts: str):
    """The files of a folder, checked with the tables of the graph, by name."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.sql").write_text(text)
    files = read_files(sorted(folder.glob("*.sql")))
    pinned = {file.asset: file.contract for file in files if file.contract}
    return {one.file.name: one for one in check_files(files, SHIPPED_TABLES | pinned)}


def fault(folder: Path, text: str) -> str:
    return check(folder, mine=text)["mine"].fault


def test_no_shipped_file_has_a_fault():
    checked = check_files(feature_files(Settings()), SHIPPED_TABLES)
    assert {one.file.name: one.fault for one in checked if one.fault} == {}
    assert all(one.is_pinned and one.contract == SHIPPED_TABLES[one.file.asset] for one in checked)


DAILY = """-- How often each model was right on a day.
-- entity: model_name
-- event_time: day
SELECT
    model_name,  -- the model
    date_trunc('day', created_at) AS day,
    count(*) AS predictions,  /* all of them */
    avg(confidence) AS confidence, any_value(to_json({'a': label})) AS example  -- one of them
    -- not this
FROM raw.raw_predictions
WHERE created_at >= $start AND created_at < $end AND model_name IS DISTINCT FROM 'x'
GROUP BY ALL;
"""


def test_a_new_file_has_the_contract_that_its_select_and_header_make(tmp_path):
    [checked] = check(tmp_path, daily=DAILY).values()
    contract = checked.contract
    assert (checked.fault, checked.is_pinned) == ("", False)
    assert contract is not None
    assert {column.name: column.type for column in contract.columns} == {
        "model_name": "string",
        "day": "timestamp",
        "predictions": "int64",
        "confidence": "float64",
        "example": "json",
    }
    assert [column.nullable for column in contract.columns] == [False, False, True, True, True]
    assert [column.description for column in contract.columns] == [
        "the model",
        "",
        "all of them",
        "",
        "one of them",
    ]
    assert (contract.key, contract.partition_column) == (("model_name", "day"), "day")
    assert contract.description == "How often each model was right on a day."


def test_the_contract_is_pinned_whole(tmp_path):
    [checked] = check(tmp_path, daily=DAILY).values()
    assert checked.contract is not None
    path = pin(checked.file.path, checked.contract)
    assert pinned_contract("duckdb/daily", path.read_text()) == checked.contract
    assert sorted(file.name for file in tmp_path.iterdir()) == ["daily.contract.json", "daily.sql"]
    [again] = check(tmp_path).values()
    assert (again.fault, again.is_pinned, again.contract) == ("", True, checked.contract)


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("avg(confidence)", "max(label)", "column 'confidence' is string and was float64"),
        ("count(*) AS predictions", "count(*) AS n", "column 'n' is new; column 'predictions' is gone"),
        ("-- event_time: day", "-- event_time: day\n-- key: model_name", r"key is \('model_name',\) and was"),
        (
            "-- event_time: day",
            "-- event_time: day\n-- unique: yes",
            "unique_across_days is True and was False",
        ),
    ],
)
def test_a_change_of_what_is_pinned_is_refused(tmp_path, was, now, told):
    [checked] = check(tmp_path, daily=DAILY).values()
    assert checked.contract is not None
    pin(checked.file.path, checked.contract)
    [changed] = check(tmp_path, daily=DAILY.replace(was, now)).values()
    way_out = f"change {re.escape(str(pin_of(checked.file.path)))} alike"
    assert re.search(
        rf"daily\.sql is not as daily\.contract\.json beside it promises: {told}.*{way_out}", changed.fault
    )
    pin_of(checked.file.path).unlink()
    assert check(tmp_path)["daily"].fault == ""


def test_whole_numbers_may_be_kept_as_floats(tmp_path):
    [checked] = check(tmp_path, daily=DAILY).values()
    assert checked.contract is not None
    path = pin(checked.file.path, checked.contract)
    path.write_text(path.read_text().replace('"int64"', '"float64"'))
    assert check(tmp_path)["daily"].fault == ""


HEADER = "-- One row a run.\n-- entity: run_id\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SELECT run_id FROM\nWHERE (", r"mine\.sql .*: line 4, column 1: syntax error at or near \"WHERE\""),
        (
            "SELECT 1 AS run_id;\n-- and\nSELECT 2",
            r"has 2 statements, of which the second begins in line 5, column 1",
        ),
        ("CREATE TABLE runs (run_id TEXT)", r"line 3, column 1: .* made by a SELECT, and this is CREATE"),
        ("DROP TABLE raw.raw_runs", r"this is DROP"),
        ("", "it has no statement"),
        (
            "SELECT run_id\nFROM raw.raw_runz",
            r"mine\.sql, line 4, column 6: .*raw_runz; did you mean raw\.raw_runs\?",
        ),
        ("SELECT run_id FROM raw_runs", r"line 3, column 20: .*raw_runs; did you mean raw\.raw_runs\?"),
        ("SELECT run_id FROM postgres.public.ml_experiments", r"no table postgres\.public\.ml_experiments"),
        ("SELECT run_id FROM RAW.RAW_RUNS", r"no table RAW\.RAW_RUNS; did you mean raw\.raw_runs\?"),
        (
            "SELECT run_id FROM lake.raw.raw_runs",
            r"no table lake\.raw\.raw_runs; did you mean raw\.raw_runs\?",
        ),
        (
            "SELECT run_id FROM query_table('raw.raw_runs')",
            r"query_table\(\) reads a table that only the engine sees",
        ),
        (
            "PIVOT raw.raw_runs ON status USING count(*)",
            "the columns of a PIVOT depend on the rows; name the values",
        ),
        ("SELECT 'a\0' AS run_id", r"mine\.sql, line 3, column 10: a NUL"),
        (f"SELECT {'+'.join(['1'] * 5000)} AS run_id", "can be parsed: Max expression depth limit"),
        (f"SELECT {'+'.join(['1'] * 990)} AS run_id", "lie too deep within each other"),
        (
            "SELECT run_id\nFROM raw.raw_runs AS a, raw.raw_metrics AS b",
            r"mine\.sql, line 3, column 8: Ambiguous reference to column name \"run_id\"",
        ),
        (
            "SELECT run_id, f1\nFROM features.run_features",
            r"line 3, column 16: .*\"f1\" not found.*\"f1_score\"",
        ),
        ("SELECT run_id, upper(1, 2) AS x FROM raw.raw_runs", r"line 3, column 16: No function matches"),
        (
            "SELECT 'r' AS run_id FROM read_csv('/etc/passwd')",
            r"line 3, column \d+: .*file system operations",
        ),
        ("SELECT run_id, count(*) FROM raw.raw_runs GROUP BY 1", r"a column count_star\(\); give it a name"),
        (
            "SELECT run_id, created_at::TIMESTAMP AS at FROM raw.raw_runs",
            r"'at' is TIMESTAMP.*AT TIME ZONE 'UTC'",
        ),
        ("SELECT run_id, [1.0::FLOAT] AS v FROM raw.raw_runs", r"'v' is FLOAT\[\].*FLOAT\[384\]"),
        ("SELECT run_id, name AS run_id FROM raw.raw_runs", "a column name stands twice"),
        (
            "SELECT name FROM raw.raw_runs",
            r"mine\.sql, line 2: entity names 'run_id', and the SELECT has no such column",
        ),
        (
            "-- event_time: created\nSELECT run_id, created_at FROM raw.raw_runs",
            r"mine\.sql, line 3: event_time names 'created'.*did you mean created_at\?",
        ),
        ("-- event_time: name\nSELECT run_id, name FROM raw.raw_runs", r"line 3: .* 'name', which is string"),
        ("-- key: id\nSELECT run_id FROM raw.raw_runs", r"mine\.sql, line 3: key names 'id'"),
        ("-- ttl: 0d\nSELECT run_id FROM raw.raw_runs", r"mine\.sql, line 3: ttl is '0d'"),
        (
            "-- entitiy: run_id\nSELECT run_id FROM raw.raw_runs",
            r"line 3: there is no 'entitiy', but 'entity'",
        ),
        ("-- owner: vision\nSELECT run_id FROM raw.raw_runs", r"line 3: owner is 'vision'; .*team:NAME"),
        ("\n  -- owner : vision\nSELECT run_id FROM raw.raw_runs", r"line 4: owner is 'vision'"),
        ("-- tags: two words\nSELECT run_id FROM raw.raw_runs", r"line 3: 'two words' is no tag"),
        (
            "SELECT run_id FROM raw.raw_runs\nWHERE created_at > $begin",
            r"line 4, column 20: nothing binds \$begin",
        ),
        ("SELECT run_id FROM raw.raw_runs WHERE created_at > $start", "its header names no event_time"),
        (
            "-- lookback: 2d\nSELECT run_id FROM raw.raw_runs",
            r"mine\.sql, line 3: lookback is of a table by day",
        ),
        (
            "-- partition: created_at\nSELECT run_id, created_at FROM raw.raw_runs",
            r"mine\.sql, line 3: partition is of a table by day",
        ),
        (
            "-- known_time: completed_at\nSELECT run_id, completed_at FROM raw.raw_runs",
            r"mine\.sql, line 3: known_time .* there is none; add '-- event_time: COLUMN'",
        ),
        ("-- ttl: 3d\nSELECT run_id FROM raw.raw_runs", r"mine\.sql, line 3: ttl .* there is no event_time"),
        (
            "SELECT run_id FROM raw.raw_metrics\nSEMI JOIN metric_rules USING (key)",
            r"mine\.sql, line 4, column 11: metric_rules are those of the days that are built; bind \$start",
        ),
        ("SELECT run_id FROM features.raw_run", r"no table features\.raw_run; did you mean raw\.raw_runs\?"),
        ("SELECT run_id FROM features.nowhere", r"no table features\.nowhere; there are features\."),
        ("SELECT run_id FROM features.mine", r"features\.mine reads features\.mine"),
    ],
)
def test_a_wrong_file_says_where_and_why(tmp_path, text, told):
    assert re.search(told, fault(tmp_path, HEADER + text), re.DOTALL)


def test_rules_of_metrics_are_bound_with_the_columns_that_they_have():
    names = [name for name, *_ in map(str.split, feature_check.RULES.split(", "))]
    assert names == MetricRules().table([]).column_names


def test_each_file_of_a_cycle_names_it(tmp_path):
    def reading(other: str) -> str:
        return f"{HEADER}SELECT run_id FROM features.{other}"

    found = check(
        tmp_path, a=reading("b"), b=reading("c"), c=reading("a"), d=reading("a"), e=reading("run_features")
    )
    assert "a.sql: features.a reads features.b reads features.c reads features.a, and so" in found["a"].fault
    assert "b.sql: features.b reads features.c reads features.a reads features.b, and so" in found["b"].fault
    assert "c.sql: features.c" in found["c"].fault
    assert "d.sql: it reads features.a, whose columns are not known" in found["d"].fault
    assert found["e"].fault == ""


def test_a_star_is_for_tables_whose_columns_are_pinned(tmp_path):
    files = {
        "base": f"{HEADER}SELECT run_id, status FROM raw.raw_runs",
        "all_of_it": f"{HEADER}SELECT name, base.*\nFROM raw.raw_runs AS run JOIN features.base AS base USING (run_id)",
        "counted": f"{HEADER}SELECT run_id, count(*) AS n FROM features.base GROUP BY ALL",
        "shipped": f"{HEADER}SELECT * EXCLUDE (name) FROM features.run_features",
    }
    found = check(tmp_path, **files)
    assert {name for name, one in found.items() if one.fault} == {"all_of_it"}
    assert re.search(r"all_of_it\.sql, line 3, column 14: a star .* features\.base", found["all_of_it"].fault)
    assert found["base"].contract
    pin(tmp_path / "base.sql", found["base"].contract)
    found = check(tmp_path)
    made = found["all_of_it"]
    assert made.contract
    assert (made.fault, made.contract.names) == ("", ("name", "run_id", "status"))
    pin(tmp_path / "all_of_it.sql", made.contract)
    # What the table below gains is not taken without a word.
    found = check(tmp_path, base=files["base"].replace("status", "status, dataset"))
    assert "column 'dataset' is new" in found["base"].fault
    pin_of(tmp_path / "base.sql").unlink()
    found = check(tmp_path)
    assert found["base"].fault == ""
    assert found["base"].contract
    pin(tmp_path / "base.sql", found["base"].contract)
    assert "column 'dataset' is new" in check(tmp_path)["all_of_it"].fault


def test_a_name_belongs_to_one_file(tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "daily.sql").write_text(DAILY)
    (mine / "run_features.sql").write_text(DAILY)
    (mine / "document_chunks.sql").write_text(DAILY)
    (mine / "raw_runs.sql").write_text(DAILY)
    (mine / "My-Table.sql").write_text(DAILY)
    settings = Settings(home=tmp_path, feature_folders=(mine, theirs, mine))
    checked = check_files(every_file(settings), tables(settings))
    named = {file.name: file.path.parent for file in feature_files(settings)}
    assert (named["run_features"], named["daily"], len(named)) == (
        SHIPPED,
        mine,
        len(feature_files(settings)),
    )
    told = {str(one.file.path.relative_to(tmp_path)): one.fault for one in checked if one.is_taken}
    assert set(told) == {
        "theirs/daily.sql",
        "mine/run_features.sql",
        "mine/document_chunks.sql",
        "mine/raw_runs.sql",
        "mine/My-Table.sql",
    }
    assert told["theirs/daily.sql"].startswith(f"daily.sql lies in {mine} and in {theirs}")
    assert str(SHIPPED) in told["mine/run_features.sql"]
    assert "the lake has a table document_chunks that is made otherwise" in told["mine/document_chunks.sql"]
    assert "neither raw_ nor intake_" in told["mine/raw_runs.sql"]
    assert "a table cannot have this name" in told["mine/My-Table.sql"]
    assert tables(settings) == SHIPPED_TABLES


def test_who_reads_a_table_does_not_read_a_file_that_took_its_name(tmp_path):
    found = check(
        tmp_path,
        document_chunks="-- Chunks.\nSELECT text FROM features.long",
        long="-- Long ones.\nSELECT * FROM features.document_chunks WHERE token_count > 100",
    )
    assert found["document_chunks"].is_taken
    assert found["long"].fault == ""


def test_a_file_that_cannot_be_read_takes_nothing_else_down(tmp_path):
    (tmp_path / "latin.sql").write_bytes("-- Größe\n-- Maß\nSELECT 1".encode("latin-1"))
    (tmp_path / "gone.sql").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".#latin.sql").symlink_to(tmp_path / "nowhere")  # the lock of an editor
    latin, gone = sorted(read_files(tmp_path.glob("*.sql")), key=lambda file: file.name, reverse=True)
    assert latin.fault == "latin.sql, line 1: byte 0xf6 is no UTF-8; save the file as UTF-8"
    assert "gone.sql cannot be read (No such file or directory)" in gone.fault


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"columns": 3}, "columns is 3"),
        (
            {"columns": [{"name": "run_id", "type": "text"}]},
            "columns.0.type is 'text': Input should be 'string', 'int64'",
        ),
        ({"columns": [{"name": "run_id", "type": "string", "minimum": "a"}]}, "columns.0.minimum is 'a'"),
        ({"columns": [{"name": "run_id", "type": "string", "choices": "ab"}]}, "columns.0.choices is 'ab'"),
        ({"columns": [{"name": "run_id", "type": "string", "nullable": "no"}]}, "columns.0.nullable is 'no'"),
        ({"columns": [{"name": "run_id", "type": "string", "unit": "s"}]}, "'unit'"),
        ({"key": "run_id"}, "key is 'run_id'"),
        ({"key": ["id"]}, "no column 'id' among"),
        ({"description": 3}, "description is 3"),
        ({"keys": ["run_id"]}, "'keys'"),
    ],
)
def test_a_pin_that_is_no_contract_is_told(tmp_path, change, told):
    pinned = {
        "description": "",
        "key": ["run_id"],
        "columns": [{"name": "run_id", "type": "string"}],
        **change,
    }
    pin_of(tmp_path / "mine.sql").write_text(json.dumps(pinned))
    found = fault(tmp_path, f"{HEADER}SELECT run_id FROM raw.raw_runs")
    assert "mine.contract.json cannot be read" in found
    assert told in found
    assert "delete it" in found


def test_comments_belong_to_the_column_that_ends_in_their_line():
    text = """-- Header.
    WITH a AS (SELECT x /* within */, y -- within
        FROM t)
    SELECT DISTINCT
        a.x,  -- first
        -- about the code
        CASE WHEN y = '--no' THEN 1 -- within
        END AS "A b", -- second
        coalesce(y, [1, 2][1]) AS c /* third, in
            two lines */,
        x IS DISTINCT FROM y AS d -- last
        -- no more
    FROM a -- of the table
    """
    assert column_comments(text) == {
        "x": "first",
        "a b": "second",
        "c": "third, in two lines",
        "d": "last",
    }
    assert column_comments("FROM t SELECT a -- the a") == {"a": "the a"}


def test_places_are_counted_in_characters():
    text = "-- é\nSELECT 'ü', x"
    assert place_of_byte(text, text.encode().index(b"x")) == (2, 13)


def test_values_take_the_place_of_parameters_alone():
    text = "SELECT '$start', \"$start\", $start, $$ $start $$, $startle -- $start"
    assert (
        with_values(text, {"start": "1"})
        == "SELECT '$start', \"$start\", 1, $$ $start $$, $startle -- $start"
    )
