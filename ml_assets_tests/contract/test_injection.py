"""Names and values from files are data: none of them ends a statement, a string or a name, in any store."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import STREAMS
from ml_assets.intake.files import take_in_files
from ml_assets.intake.input_files import list_files
from ml_assets.intake.judge import Bounds
from ml_assets.lib.sql import quote_identifier, quote_json, quote_literal
from ml_assets_tests.scale import LONG, examples

HOSTILE = (
    "'; DROP TABLE canary; --",
    '"; DROP TABLE canary; --',
    "\\'; DROP TABLE canary; --",
    "') ; DROP TABLE canary; SELECT ('",
    "$$; DROP TABLE canary; $$",
    "%s %(x)s %% ? :x $1 {x:String}",
    "${HOME} $HOME `id` $(id)",
    "{{ 7*7 }} {% raw %} {x} {0}",
    "\u02bc; DROP TABLE canary; --\u2019\uff07\uff1b",  # quotes that fold to '
    "a\u202e\u200b\ufeff\u0301",
    "\r\nSET x 1\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    "../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "-- /* */ E'\\x27'",
    "\x1b[2J\x07",
    "a\\",
    "'",
)
PIECES = (
    "'",
    '"',
    "\\",
    ";",
    "--",
    "/*",
    "*/",
    "$$",
    "${",
    "{{",
    "}}",
    "`",
    "\n",
    "%",
    "?",
    ":",
    "\uff07",
    "x",
    " ",
    "`",
)
texts = st.sampled_from(HOSTILE) | st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join)
few = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
)


def test_values_come_back_and_the_table_beside_them_stays(case):
    """All that is hostile at once, then mixtures of it: as keys, texts and documents."""
    contract = case.contract
    canary = [{"id": "canary", **_rest()}]

    @settings(few, max_examples=20 if LONG else 1)
    @given(st.lists(texts, min_size=1, max_size=8, unique=True))
    @example(list(HOSTILE))
    def holds(values: list[str]) -> None:
        rows = [
            {"id": value, **_rest(), "text": value, "document": json.dumps({value: [value]})}
            for value in values
        ]
        case.write(case.table(*rows, *canary))
        read = case.read().to_pylist()
        assert sorted(row["id"] for row in read) == sorted([*values, "canary"])
        assert all(row["text"] == row["id"] for row in read if row["id"] != "canary")
        assert all(
            json.loads(row["document"]) == {row["id"]: [row["id"]]} for row in read if row["id"] != "canary"
        )
        assert case.store.ledger_state(contract).rows == len(values) + 1

    holds()


def _rest() -> dict[str, Any]:
    return {
        "happened_at": datetime(2026, 1, 1, 9, tzinfo=UTC),
        "text": "",
        "vector": [0.5, 0.25, 1.0],
        "kind": "a",
    }


Answer = Callable[[str], Sequence[Sequence[Any]]]


def names_and_literals(answer: Answer) -> None:
    """Whatever text: a literal is that text, and a name is that column's."""

    @settings(few, max_examples=examples(60))
    @given(texts)
    def holds(text: str) -> None:
        assert [list(row) for row in answer(f"SELECT {quote_literal(text)}")] == [[text]]
        if "\\" in text:
            with pytest.raises(ValueError, match="cannot be the name"):
                quote_identifier(text)
        else:
            name = quote_identifier(text)
            assert [list(row) for row in answer(f"SELECT {name} FROM (SELECT 1 AS {name}) AS t")] == [[1]]

    holds()
    for refused in (quote_literal, quote_identifier):
        with pytest.raises(ValueError, match=r"NUL|cannot be the name"):
            refused("a\0'")


def test_quoting_holds_in_sqlite():
    connection = sqlite3.connect(":memory:")
    names_and_literals(lambda statement: connection.execute(statement).fetchall())


def test_quoting_holds_in_duckdb():
    connection = duckdb.connect()
    names_and_literals(lambda statement: connection.execute(statement).fetchall())


def test_quoting_holds_in_postgresql(postgres):
    with postgres.asking() as ask:
        names_and_literals(ask)


def test_quoting_holds_in_clickhouse(clickhouse):
    """It alone reads backslashes as escapes: a text with one goes there as JSON, or bound."""
    with clickhouse.client() as client:

        @settings(few, max_examples=examples(60))
        @given(texts)
        def holds(text: str) -> None:
            [[read]] = client.query(f"SELECT {quote_json(text)}").result_rows
            assert json.loads(read) == text
            bound = client.query("SELECT {given:String}", parameters={"given": text}).result_rows
            assert bound == [(text,)]
            if "\\" not in text:
                name = quote_identifier(text)
                assert client.query(f"SELECT {name} FROM (SELECT 1 AS {name})").result_rows == [(1,)]

        holds()


def test_files_of_any_name_are_taken_in_row_by_row(shared_lake, postgres, tmp_path):
    folder = tmp_path / "landing" / "runs"
    folder.mkdir(parents=True)
    rows = {}
    for number, text in enumerate(HOSTILE):
        name = text.replace("/", "_").replace("\0", "")
        run = {
            "run_id": f"{number} {text}",
            "experiment": text,
            "status": "completed",
            "created_at": "2026-05-01T10:00:00Z",
        }
        rows[run["run_id"]] = text
        (folder / f"{number} {name}.jsonl").write_text(json.dumps({**run, "parameters": {text: text}}) + "\n")
    zero = {"run_id": "zero", "experiment": "a\0'; DROP TABLE x", "status": "completed"}
    (folder / "zero.jsonl").write_text(json.dumps({**zero, "created_at": "2026-05-01T10:00:00Z"}) + "\n")
    bounds = Bounds(datetime(2014, 1, 1).date(), datetime(2026, 6, 30, tzinfo=UTC))
    report = take_in_files(
        "runs", list_files(folder, STREAMS["runs"].whole_files), shared_lake, postgres, bounds
    )
    assert (report.rows_read, report.rows_quarantined) == (len(rows) + 1, 1)
    with shared_lake.get_connection() as connection:
        read = connection.execute(
            "SELECT run_id, experiment, parameters, quarantine_reason FROM intake.intake_runs"
        ).fetchall()
    held = {
        run_id: (experiment, json.loads(parameters))
        for run_id, experiment, parameters, why in read
        if why is None
    }
    assert held == {run_id: (text, {text: text}) for run_id, text in rows.items()}
