"""Contracts for assets that have none: what is inferred, and what is refused with the way out."""

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.contracts import Contract
from ml_assets.lib.arrow_types import ContractViolation, conform
from ml_assets.lib.inference import inferred_contract


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
