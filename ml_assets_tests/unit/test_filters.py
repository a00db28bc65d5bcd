"""The filter language: text to tree, what it means in Python, and the sentence for text that is none."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from ml_assets.contracts import INDEXED_CHARACTERS
from ml_assets.contracts.experiments import RUN_METRICS, RUN_PARAMS, RUNS
from ml_assets.errors import Refusal
from ml_assets.lib.filters.evaluate import matches
from ml_assets.lib.filters.fields import (
    ATTRIBUTES,
    DOCUMENT,
    ENTRY,
    STATISTICS,
    Attribute,
    Metric,
    Param,
    Tag,
)
from ml_assets.lib.filters.fields import RUN as RUN_SUBJECT
from ml_assets.lib.filters.normal import without_accents
from ml_assets.lib.filters.parse import parse_filter, parse_order
from ml_assets.lib.filters.postgres import BEGINNING, METRICS, PARAMS
from ml_assets.lib.filters.postgres import RUNS as RUNS_TABLE
from ml_assets.lib.filters.tree import (
    EVERYTHING,
    And,
    Compare,
    In,
    IsNull,
    Not,
    Or,
    Order,
    leaves,
)
from ml_assets.lib.run_values import number_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)

RUN = {
    "run_id": "r1",
    "experiment": "mine",
    "name": "Été à Zürich, Straße 5",
    "model_version": "12",
    "status": "completed",
    "created_at": NOW - timedelta(days=2),
    "completed_at": NOW - timedelta(days=2) + timedelta(seconds=90),
    "metrics": {
        "loss": {"last": 0.5, "best": 0.25, "count": 4, "first_nan_at": NOW, "steps": {100: 0.75}},
        "accuracy": 0.9,
        "broken": float("nan"),
        "eval/f1 é": 0.3,
    },
    "parameters": {"lr": 0.001, "depth": "auto", "layers": [1, 2], "on": True, "text": "1e-3"},
    "tags": {"team a": "it's", "n": 3},
}


def asked(text: str) -> bool:
    return matches(parse_filter(text, NOW), RUN)


def test_a_filter_is_a_tree():
    text = (
        "status = 'a' AND (metrics.loss.best < 1e-1 OR NOT params.lr IN (1, 2)) and tags.\"a b\" is not null"
    )
    assert parse_filter(text, NOW) == And(
        (
            Compare(Attribute("status"), "=", "a"),
            Or((Compare(Metric("loss", "best"), "<", 0.1), Not(In(Param("lr"), (1.0, 2.0))))),
            Not(IsNull(Tag("a b"))),
        )
    )
    assert parse_filter(" \n", NOW) == EVERYTHING == And(())


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("metrics.loss", Metric("loss")),
        ("METRIC.loss.MIN", Metric("loss", "min")),
        ("metrics.eval/loss-2.best", Metric("eval/loss-2", "best")),
        ("metrics.best", Metric("best")),
        ("metrics.val.loss", Metric("val.loss")),
        ('metrics.val."best"', Metric("val.best")),
        ('metrics.`a "b.c`.mean', Metric('a "b.c', "mean")),
        ('metrics."a ""b"""', Metric('a "b"')),
        ("metrics.loss.at(-5)", Metric("loss", step=-5)),
        ("metrics.größe 2".replace(" ", ""), Metric("größe2")),
        ("metrics." + "k" * 500, Metric("k" * 500)),
        ('metrics."' + "é " * 250 + '"', Metric("é " * 250)),
        ("params.0", Param("0")),
        ("parameters.`x`", Param("x")),
        ("tags.mlflow.user", Tag("mlflow.user")),
        ("attributes.status", Attribute("status")),
        ("Start_Time", Attribute("created_at")),
        ("not_", None),
    ],
)
def test_a_field_has_many_names(text, field):
    if field is None:
        with pytest.raises(Refusal, match="do you mean notes"):
            parse_filter(f"{text} IS NULL", NOW)
        return
    assert parse_filter(f"{text} IS NULL", NOW) == IsNull(field)
    if not isinstance(field, Attribute):  # what a field is called in sentences and orders can be read again
        assert parse_filter(f"{field} IS NULL", NOW) == IsNull(field)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "experiment = 'mine' AND status != 'failed'",
        "name ~ 'ete ZURICH'",
        "name ~ 'strasse' OR name ~ 'straße'",
        "name !~ 'nantes'",
        "name LIKE '%Stra_e 5'",
        "name ILIKE 'ÉTÉ%'",
        "name NOT LIKE 'x%' AND name NOT ILIKE '%Q%'",
        "model_version > 9 AND model_version < '9'",
        "model_version BETWEEN 12 AND 12",
        "model_version NOT BETWEEN 13 AND 20",
        "created_at > 3d ago AND created_at < 36 h ago AND created_at <= now",
        "created_at BETWEEN 2026-02-01 AND '2026-02-27T00:00:00Z'",
        "created_at = 2026-02-27T01:00:00+01:00",
        "start_time > 1664067852747",
        "duration_s = 90",
        "metrics.loss.best = .25 AND metrics.loss > 0.4 AND metrics.loss.count >= 4",
        "metrics.loss.at(100) = 0.75 AND metrics.loss.at(101) IS NULL",
        "metrics.loss.first_nan_at <= now",
        "metrics.accuracy.best IN (0.9, 1)",
        "metrics.accuracy NOT IN (0.8)",
        "metrics.broken IS NULL AND NOT metrics.broken > 0 AND NOT metrics.broken != 0",
        'metrics."eval/f1 é" < 1',
        "params.lr = 0.001 AND params.lr = '0.001' AND params.text = 0.001 AND params.text != '0.001'",
        "params.on = 'true' AND params.layers = '[1,2]'",
        "params.depth = 'auto' AND NOT params.depth > 3 AND NOT params.depth != 3",
        'tags."team a" = \'it\'\'s\' AND tags."team a" = "it\'s" AND tags.n = 3',
        "NOT tags.none = 'x' AND NOT tags.none != 'x' AND NOT tags.none NOT IN ('x')",
        "error IS NULL AND notes is null and NOT notes NOT LIKE 'x'",
    ],
)
def test_a_filter_holds(text):
    assert asked(text)
    assert not text or not asked(f"NOT ({text})")


def test_or_binds_less_than_and():
    assert asked("status = 'completed' OR status = 'x' AND status = 'y'")
    assert not asked("(status = 'completed' OR status = 'x') AND status = 'y'")


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("statu = 'x'", 1, "no attribute 'statu' (do you mean status?)"),
        ("metrcs.loss > 1", 1, "only metrics, params, tags and attributes (do you mean metrics?)"),
        ("metrics > 1", 1, "comes a dot and a name, as in metrics.loss"),
        ('metrics."" > 1', 1, "no name"),
        ("status LIK 'x'", 8, "'LIK' cannot stand here (do you mean LIKE?)"),
        ("status = 'a' AD status = 'b'", 14, "(do you mean AND?); expected is AND, OR or the end"),
        ("status = completed", 10, "a text stands in quotes, 'completed'"),
        ("status = 'x", 10, "never closed"),
        ("tags.\"x = 'y'", 5, "after this dot comes a name"),
        ("status", 7, "the text ends; expected is a comparison"),
        ("(status = 'x'", 14, "expected is )"),
        ("status = 'x')", 13, "')' cannot stand here"),
        ("metrics.loss > 'x'", 16, "metrics.loss.last is a number, and this is none"),
        ("metrics.loss > 7d ago", 16, "is a number"),
        ("metrics.loss > 1e999", 16, "the greatest that 64 bits hold"),
        ("metrics.loss < -" + "9" * 400, 16, "the greatest that 64 bits hold"),
        ("metrics.loss ~ 'x'", 1, "looks into texts"),
        ("metrics.loss.at(1.5) > 1", 17, "a whole number"),
        ("metrics.loss.at(1e3) > 1", 17, "a whole number"),
        ("metrics.loss.ad(1) > 1", 17, "a step stands after at"),
        ("status(1) = 'x'", 7, "only metrics have values at steps"),
        ("params.lr IN (1, 'a')", 18, "ask for each with OR"),
        ("params.lr > 7d ago", 13, "is a text"),
        ("name LIKE 5", 11, "a text in quotes"),
        ("name LIKE 'x\\'", 11, "ends in a backslash"),
        ("name ~ ' '", 8, "looks for words"),
        ("created_at > 7y ago", 14, "y is no unit of time"),
        ("created_at > 'yesterday'", 14, "this is no time"),
        ("created_at > 2026-02-30", 14, "this is no time"),
        ("created_at > 1e300", 14, "before the year 1 or after 9999"),
        ("created_at > 99999999d ago", 14, "before the year 1 or after 9999"),
        ("name = 'a\0b'", 10, "a NUL"),
        ("name = '\ud800'", 9, "a lone surrogate"),
        ("(" * 10_000 + "status = 'x'" + ")" * 10_000, 101, "101 within others, and 100 are the most"),
        ("NOT (" * 10_000 + "status = 'x'" + ")" * 10_000, 505, "101 within others"),
    ],
)
def test_what_is_no_filter_is_told_with_the_place(text, place, told):
    with pytest.raises(Refusal) as refused:
        parse_filter(text, NOW)
    first, line, caret = str(refused.value).split("\n")
    assert first.startswith(f"The filter is wrong at character {place}: ")
    assert told in first
    assert len(line) < 120
    shown = text.replace("\0", " ").replace("\ud800", " ")
    if len(text) < 100:
        assert line == f"  {shown}"
        assert caret == " " * (place + 1) + "^"
    elif place <= len(text):
        assert line[caret.index("^")] == shown[place - 1]


def test_what_is_long_is_no_fault():
    assert parse_filter("NOT " * 10_000 + "status = 'x'", NOW) == Compare(Attribute("status"), "=", "x")
    flat = parse_filter(" OR ".join(["status = 'x'"] * 1000), NOW)
    assert isinstance(flat, Or)
    many = parse_filter("run_id IN (" + ", ".join(repr(str(n)) for n in range(5_000)) + ")", NOW)
    assert isinstance(many, In)
    assert len(many.values) == 5_000
    with pytest.raises(Refusal, match="has 1,001 comparisons, and 1,000 are the most"):
        parse_filter(" OR ".join(["status = 'x'"] * 1001), NOW)
    with pytest.raises(Refusal, match="has 100,001 characters, and 100,000 are the most"):
        parse_filter(" " * 100_000 + "x", NOW)


def test_an_order_is_terms():
    assert parse_order(("created_at DESC, metrics.loss.best", "params.x asc")) == (
        Order(Attribute("created_at"), True),
        Order(Metric("loss", "best")),
        Order(Param("x")),
    )
    assert parse_order("") == parse_order(()) == ()
    assert parse_order(("run_id", "run_id DESC")) == (Order(Attribute("run_id")),)
    with pytest.raises(Refusal, match=r"order is wrong at character 12: 'DSC' .* mean DESC\?"):
        parse_order("created_at DSC")
    with pytest.raises(Refusal, match="20 are the most"):
        parse_order([f"params.p{n}" for n in range(21)])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1.0),
        ("-1.5e3", -1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("0e99999", 0.0),
        ("1e999", math.inf),
        ("-" + "9" * 400, -math.inf),
        ("1e-999", 0.0),
        ("Infinity", math.inf),
        ("-inf", -math.inf),
        ("nan", None),
        ("infinit", None),
        ("0x10", None),
        ("1_0", None),
        (" 1", None),
        ("1\n", None),
        ("٣", None),
        ("", None),
    ],
)
def test_a_text_is_a_number_or_none(text, number):
    assert number_of(text) == number


def test_accents_and_case_are_ignored():
    assert without_accents("ÀÉÎõüŃ ﬁ İЁ") == "aeioun fi i\u0435"


def test_attributes_are_the_columns_of_runs():
    kinds = {"string": "text", "timestamp": "time"}
    columns = {column.name: kinds.get(column.type) for column in RUNS.columns if column.type != "json"}
    columns["run_id"] = columns.pop("id")
    assert dict(ATTRIBUTES) == {**columns, "duration_s": "number"}


def test_statistics_and_tables_are_those_of_the_contracts():
    kinds = {"float64": "number", "int64": "number", "timestamp": "time"}
    others = ("run_id", "key", "created_at", "origin")
    assert dict(STATISTICS) == {c.name: kinds[c.type] for c in RUN_METRICS.columns if c.name not in others}
    assert (RUNS.table, RUN_METRICS.table, RUN_PARAMS.table) == (RUNS_TABLE, METRICS, PARAMS)
    assert BEGINNING == INDEXED_CHARACTERS


def test_documents_have_fields_of_their_own():
    text = "source = 'wiki' AND metadata.year >= 2020 OR updated_at > 7d ago AND meta.\"a b\" IS NULL"
    document = {
        "document_id": "d",
        "source": "web",
        "title": None,
        "updated_at": NOW - timedelta(days=1),
        "metadata": {"year": 2021, "tags": ["x"]},
    }
    tree = parse_filter(text, NOW, DOCUMENT)
    assert [str(leaf.field) for leaf in leaves(tree)] == [
        "source",
        "metadata.year",
        "updated_at",
        'metadata."a b"',
    ]
    assert matches(tree, document)
    assert not matches(parse_filter("title IS NOT NULL OR metadata.year < 2021", NOW, DOCUMENT), document)
    assert matches(parse_filter("metadata.tags = '[\"x\"]' AND id = 'd'", NOW, DOCUMENT), document)


@pytest.mark.parametrize(
    ("subject", "text", "told"),
    [
        (
            DOCUMENT,
            "titel = 'x'",
            r"a document has no attribute 'titel' \(do you mean title\?\); there are document_id",
        ),
        (DOCUMENT, "metrics.loss < 1", "nothing called 'metrics', only metadata and attributes"),
        (DOCUMENT, "run_id = 'x'", "a document has no attribute 'run_id'"),
        (DOCUMENT, "metadata = 'x'", r"as in metadata.language"),
        (DOCUMENT, "title = 7d ago", "such as updated_at"),
        (DOCUMENT, "= 1", "a field such as metadata.language, title"),
        (DOCUMENT, "metadata.year.at(3) = 1", "a step stands after at"),
        (ENTRY, "updated_at > now", "an entry has no attribute 'updated_at'"),
        (RUN_SUBJECT, "metadata.year = 1", "nothing called 'metadata', only metrics"),
    ],
)
def test_what_is_no_filter_of_documents_is_told(subject, text, told):
    with pytest.raises(Refusal, match=told):
        parse_filter(text, NOW, subject)
