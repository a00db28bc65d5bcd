"""Contracts for assets that have none: what is inferred, and what is refused with the way out."""

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.tables.arrow_types import conform
from ml_assets.tables.inference import inferred_contract


def types_of(data, last=None, **metadata) -> dict[str, str]:
    return {c.name: c.type for c in inferred(data, last, **metadata).columns}


def inferred(data, last=None, **metadata) -> Contract:
    return inferred_contract("sqlite/t", metadata, data, last)


def test_a_partition_column_that_is_no_time_is_refused():
    rows = pa.table({"id": [1], "day": ["2026-01-01"]})
    with pytest.raises(
        ContractViolation, match=r"sqlite/t: the partition column 'day' is string; a timestamp .* or a date"
    ):
        inferred(rows, partition_column="day")


EMPTY = pd.DataFrame(columns=["id", "amount"])


@pytest.mark.parametrize(
    "data", [EMPTY, pd.DataFrame({"id": [None, None]}), pa.table({"id": pa.nulls(2)}), pa.table({"id": []})]
)
def test_a_column_without_values_and_type_is_refused_at_first(data):
    with pytest.raises(
        ContractViolation, match=r"sqlite/t: column 'id' has no values and no type.*give it a type"
    ):
        inferred(data)


def test_a_column_without_values_is_what_it_is_declared_or_was_before():
    schema = dg.TableSchema([dg.TableColumn("id", "int64"), dg.TableColumn("amount", "float64")])
    declared = {"id": "int64", "amount": "float64"}
    assert types_of(EMPTY, **{"dagster/column_schema": schema}) == declared
    assert types_of(EMPTY.astype({"id": "int64", "amount": "float64"})) == declared
    assert types_of(EMPTY, inferred(pd.DataFrame({"id": [1], "amount": [0.5]}))) == declared
    assert types_of(pd.DataFrame({"name": pd.Series(dtype="str")})) == {"name": "string"}


MAP = pa.map_(pa.string(), pa.int64())


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([{"b": 1, "a": None}, None]), ['{"a":null,"b":1}', None]),
        (pa.array([[{"a": 0.5}], []]), ['[{"a":0.5}]', "[]"]),
        (pa.array([[("b", 1), ("a", 2)], []], MAP), ['{"a":2,"b":1}', "{}"]),
        (pa.array([{"in": {"a": [1]}}]), ['{"in":{"a":[1]}}']),
    ],
)
def test_structs_and_maps_are_documents(values, texts):
    rows = pa.table({"document": values})
    frame = pd.DataFrame({"document": values.to_pylist(maps_as_pydicts="strict")}, dtype=object)
    for data in (rows, rows.to_reader(), rows.to_pandas(types_mapper=pd.ArrowDtype), frame):
        contract = inferred(data)
        assert [column.type for column in contract.columns] == ["json"]
        (batch,) = conform(data, contract)
        assert batch["document"].to_pylist() == texts


def test_a_map_that_names_a_key_twice_and_a_struct_with_a_time_are_refused():
    for values in (
        pa.array([[("a", 1), ("a", 2)]], MAP),
        pa.array([{"at": pd.Timestamp("2026-01-01")}]),
    ):
        rows = pa.table({"document": values})
        with pytest.raises(ContractViolation, match="column 'document'"):
            list(conform(rows, inferred(rows)))


def bad_text(kind: str) -> pa.Array:
    """Text whose second value is no UTF-8, as a writer in another language may hand it over."""
    storage, text = {
        "large": (pa.large_binary(), pa.large_string()),
        "view": (pa.binary_view(), pa.string_view()),
    }.get(kind, (pa.binary(), pa.string()))
    plain = pa.array([b"good", b"\xff bad", None], storage)
    plain = pa.Array.from_buffers(text, 3, plain.buffers())
    match kind:
        case "dictionary":
            return pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), plain)
        case "struct":
            return pa.StructArray.from_arrays([plain], ["x"])
        case "dictionary in a struct":
            return pa.StructArray.from_arrays([bad_text("dictionary")], ["x"])
        case "map":
            keys = pa.array(["k"] * 3)
            return pa.MapArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), keys, plain)
        case "list":
            return pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), bad_text("struct"))
    return plain


@pytest.mark.parametrize(
    "kind",
    ["plain", "large", "view", "dictionary", "struct", "dictionary in a struct", "map", "list"],
)
@pytest.mark.parametrize("before", [0, 70_000])
def test_text_that_is_no_utf8_is_refused_with_its_row(kind, before):
    """Arrow takes it for text without a look."""
    bad = bad_text(kind)
    rows = pa.table({"text": pa.chunked_array([pa.nulls(before, bad.type), bad])})
    said = rf"sqlite/t: column 'text' is .* \(.*Invalid UTF8 sequence.*; row {before + 1:,}, counted from 0\)"
    with pytest.raises(ContractViolation, match=said):
        list(conform(rows, inferred(rows)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2**70], r"1180591620717411303424 in row 1, counted from 0 \(Python int too large"),
        ([1, 2**63], r"9223372036854775808 in row 1, counted from 0"),
        ([1 + 2j], r"\(1\+2j\) in row 0, counted from 0"),
        (["good", "\ud800"], r"'\\ud800' in row 1, counted from 0 \('utf-8' codec can't encode"),
        ([1, "a"], r"'a' in row 1, counted from 0"),
        ([{"a": 1}, {"a": {1}}], r"row 1, counted from 0\); it holds {'a': \{1\}}"),
        ([[1.0], ["a"]], r"\['a'\] in row 1, counted from 0"),
    ],
    ids=["70 bits", "64 bits", "complex", "surrogate", "two kinds", "set", "vector"],
)
def test_what_conversion_raises_is_a_sentence_with_column_and_row(values, said):
    rows = pd.DataFrame({"value": pd.Series(values, dtype=object)})
    with pytest.raises(ContractViolation, match=f"sqlite/t: column 'value'.*{said}"):
        list(conform(rows, inferred(rows)))


def test_a_column_of_complex_numbers_is_refused():
    rows = pd.DataFrame({"value": [1 + 2j]})
    with pytest.raises(ContractViolation, match=r"column 'value' holds .*, \(1\+2j\) in row 0.*numpy type"):
        inferred(rows)
    contract = Contract("sqlite/t", "", (Column("value", "float64"),), ())
    with pytest.raises(ContractViolation, match=r"column 'value' is complex128 and does not fit float64"):
        list(conform(rows, contract))


def test_a_column_whose_name_is_a_number_may_hold_vectors():
    assert types_of(pd.DataFrame({0: [[0.5, 1.0]], 1: [2]})) == {"0": "vector", "1": "int64"}
