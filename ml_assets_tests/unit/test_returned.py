"""What an asset may return: tables of any library, whole; what would lose a part of itself is refused."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.tables.arrow_types import conform, tabular
from ml_assets.tables.inference import inferred_contract


class Foreign:
    """A table of a library that we do not know; polars' DataFrame shows no more of itself."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._data.__arrow_c_stream__(requested_schema)


class LazyFrame:
    def collect(self) -> Foreign:
        return Foreign(pa.table({"x": [1]}))


def rows_of(data: Any, last: Contract | None = None) -> list[dict[str, Any]]:
    given = tabular(data, "sqlite/t")
    contract = inferred_contract("sqlite/t", {}, given, last)
    return [row for batch in conform(given, contract) for row in batch.to_pylist()]


FRAME = pd.DataFrame({"k": ["a", "b", "c"], "x": [1, 2, 3]})
ROWS = FRAME.to_dict("records")


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (Foreign(pa.Table.from_pandas(FRAME)), ROWS),
        (FRAME["x"], [{"x": 1}, {"x": 2}, {"x": 3}]),
        (FRAME.tail(2), ROWS[1:]),
        (FRAME.set_axis([0, 1, 2]), ROWS),
        (FRAME[FRAME["x"] > 7], []),
        (type("Derived", (pd.DataFrame,), {})(FRAME), ROWS),
    ],
    ids=["stream", "series", "tail", "numbered", "nothing", "derived"],
)
def test_a_table_is_taken_whole(data: Any, rows: list[dict[str, Any]]):
    assert rows_of(data) == rows


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (FRAME.groupby("k").mean(), r"has the index 'k' \('a', 'b', 'c', ...\).*reset_index\(\) to keep"),
        (FRAME.set_index(["k", "x"])[[]].assign(y=1), "has the index 'k', 'x'"),
        (FRAME.set_axis(["p", "q", "r"]), r"has an index of its own \('p', 'q', 'r', ...\)"),
        (FRAME.set_axis([10, 20, 30]), r"has an index of its own \(10, 20, 30, ...\)"),
        (FRAME.rename_axis("n"), r"has the index 'n' \(0, 1, 2, ...\)"),
        (FRAME.groupby("k")["x"].sum(), "has the index 'k'"),
        (pd.Series([1, 2]), "a pandas Series without a name"),
        (LazyFrame(), r"test_returned.LazyFrame, which is yet to be computed: return what its collect\(\)"),
        (Foreign(pa.chunked_array([[1, 2]])), "test_returned.Foreign, which is no table"),
        ([{"x": 1}], "returned list; return a pandas or polars DataFrame"),
        (None, "returned NoneType; return"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_would_lose_a_part_of_itself_is_refused(data: Any, said: str):
    with pytest.raises(ContractViolation, match=f"sqlite/t: the .*{said}.* Nothing was written"):
        rows_of(data)


STORAGE = pa.array(['{"b":1, "a":2}', None])
PAIRS = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4], pa.float32()), 2)
MONEY = pa.field("value", pa.int64(), metadata={b"ARROW:extension:name": b"bank.money"})


def stored(kind: Any, values: pa.Array) -> pa.Table:
    return pa.table({"value": pa.ExtensionArray.from_storage(kind, values)})


@pytest.mark.parametrize(
    ("data", "kind", "values"),
    [
        (stored(pa.json_(), STORAGE), "json", ['{"a":2,"b":1}', None]),
        (stored(pa.bool8(), pa.array([1, 0, None], pa.int8())), "bool", [True, False, None]),
        (stored(pa.fixed_shape_tensor(pa.float32(), (2,)), PAIRS), "vector", [[1.0, 2.0], [3.0, 4.0]]),
    ],
    ids=["json", "bool8", "tensor"],
)
def test_an_extension_type_that_is_known_keeps_its_meaning(data: pa.Table, kind: str, values: list[Any]):
    contract = inferred_contract("sqlite/t", {}, data)
    assert [column.type for column in contract.columns] == [kind]
    assert [row["value"] for row in rows_of(data)] == values


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (pd.DataFrame({"value": pd.interval_range(0, 2, closed="left")}), "pandas.interval"),
        (pa.table({"value": pa.array(pd.interval_range(0, 2))}), "pandas.interval"),
        (pd.DataFrame({"value": pd.period_range("2026-01", periods=2, freq="M")}), "pandas.period"),
        (stored(pa.fixed_shape_tensor(pa.float32(), (2, 1)), PAIRS), "arrow.fixed_shape_tensor"),
        (pa.table([pa.array([1])], schema=pa.schema([MONEY])), "bank.money"),
        (pa.table({"value": pa.StructArray.from_arrays([pa.array([1])], fields=[MONEY])}), "bank.money"),
        (pa.table({"value": pa.array([[1]], pa.list_(MONEY))}), "bank.money"),
    ],
    ids=["frame", "table", "period", "matrix", "unknown", "struct", "list"],
)
def test_any_other_extension_type_is_refused(data: Any, name: str):
    """Stored as what it is made of, an interval would lose which of its ends belong to it."""
    with pytest.raises(ContractViolation, match=f"sqlite/t: column 'value' .*extension type '{name}'"):
        rows_of(data)
    contract = inferred_contract("sqlite/t", {}, pa.table({"value": [1]}))
    with pytest.raises(ContractViolation, match=f"sqlite/t: column 'value' .*extension type '{name}'"):
        list(conform(data, contract))


@pytest.mark.parametrize("encode", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_text_of_a_dictionary(encode: pa.DataType):
    values = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 0], pa.uint32()), pa.array(["a", "b"], encode)
    )
    assert [row["kind"] for row in rows_of(pa.table({"kind": values}))] == ["a", "b", None, "a"]


FLOATS, WHOLE = {"n": [3.0, None]}, {"n": [1, 2]}
TEXT, DOCUMENTS = {"n": ['{"a": 1}', "[2]"]}, {"n": [{"a": 1}, {"a": 3}]}


@pytest.mark.parametrize("make", [pa.table, lambda columns: pa.table(columns).to_reader(), pd.DataFrame])
@pytest.mark.parametrize(
    ("before", "given", "values"),
    [
        (FLOATS, WHOLE, [1.0, 2.0]),
        (WHOLE, FLOATS, [3, None]),
        (DOCUMENTS, TEXT, ['{"a":1}', "[2]"]),
        (DOCUMENTS, {"n": [[1], [2, 3]]}, ["[1]", "[2,3]"]),
        (TEXT, {"n": [None, None]}, [None, None]),
    ],
    ids=["whole", "floats", "text", "lists", "nulls"],
)
def test_values_that_fit_the_stored_type_are_stored_in_it(
    make: Callable[[Any], Any], before: Any, given: Any, values: list[Any]
):
    last = inferred_contract("sqlite/t", {}, pa.table(before))
    found = [row["n"] for row in rows_of(make(given), last)]
    assert (found, list(map(type, found))) == (values, list(map(type, values)))


def test_values_that_do_not_fit_the_stored_type_are_refused_with_the_way_out():
    last = inferred_contract("sqlite/t", {}, pa.table(WHOLE))
    with pytest.raises(
        ContractViolation, match=r"'n' is double and does not fit int64.*it holds 2.5: convert"
    ):
        rows_of(pa.table({"n": [2.0, 2.5]}), last)
    with pytest.raises(
        ContractViolation, match=r"'n' is int64 and does not fit float64.*it holds 9007199254740993"
    ):
        rows_of(pa.table({"n": [2**53 + 1]}), inferred_contract("sqlite/t", {}, pa.table(FLOATS)))
