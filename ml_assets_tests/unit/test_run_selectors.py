"""What selectors of runs mean, and what cannot be one. That they find the runs is shown on the real store."""

import pytest

from ml_assets.errors import Refusal
from ml_assets.lib.run_selectors import conditions, label, parse_selector, run_field, told


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("model_name=cats", {"model_name": "cats"}),
        (" model_name = cats , params.lr = 0.1 ", {"model_name": "cats", "params.lr": "0.1"}),
        ("""name='a, "b" = c',tags."with spaces"=x""", {"name": 'a, "b" = c', 'tags."with spaces"': "x"}),
        ('name="a=o\'b"', {"name": "a=o'b"}),
        ("dataset=", {"dataset": ""}),
    ],
)
def test_selectors_are_read(text, meant):
    assert parse_selector(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cats",
        "=cats",
        "name=a=b",
        "name = a AND dataset = b",
        "name = a\n, b",
        "params.lr >= 1",
        "model_name=cats,,",
        "model_name=cats,dogs",
        "name='a",
    ],
)
def test_what_is_no_selector_is_refused_with_the_form_of_one(text):
    with pytest.raises(Refusal, match="write FIELD=VALUE"):
        conditions(parse_selector(text), {})


def test_a_field_is_given_once():
    with pytest.raises(Refusal, match="gives name twice"):
        parse_selector("name=a,name=b")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("modelname", "did you mean model_name"),
        ("params.", "no field 'params.'"),
        ("id; DROP TABLE x", "no field"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_one(name, sentence):
    with pytest.raises(Refusal, match=sentence):
        run_field(name)


def test_no_text_of_a_person_stands_in_the_statement():
    bound = {}
    wanted = {"model_name": "o'brien", "params.l'r; --": "0.1", 'tags."a b"': None, "dataset": None}
    sql = conditions(wanted, bound)
    assert "'" not in sql and ";" not in sql and '"' not in sql
    assert {"o'brien", "l'r; --", "a b"} <= {each for each in bound.values() if isinstance(each, str)}
    assert conditions({}, {}) == "TRUE"


@pytest.mark.parametrize("value", ["a\0b", "\ud800", b"cats", ["cats"], {}])
def test_a_value_that_no_field_can_have_is_refused(value):
    with pytest.raises(Refusal, match="cannot be"):
        conditions({"params.lr": value}, {})


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("0.10", "0.1"),
        ("1e-1", "0.1"),
        ("3.0", "3"),
        ("+3", "3"),
        ("1e999", "1e999"),
        ("adam", "adam"),
        (None, None),
    ],
)
def test_values_of_one_number_have_one_label(text, one):
    assert label(text) == one


def test_a_selector_is_told_as_people_write_it():
    assert told({"model_name": "cats", "params.lr": 0.1}) == "model_name=cats, params.lr=0.1"
