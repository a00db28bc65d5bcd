"""Documents are kept as what they are, or refused."""

import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.canonical_json import JSONError, canonical
from ml_assets.tables.arrow_types import conform


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64(5), "5"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (np.bool_(True), "true"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.1), "0.10000000149011612"),  # the number that it is
        (np.array([[1, 2], [3, 4]]), "[[1,2],[3,4]]"),
        (np.array([0.5, -1.0], np.float32), "[0.5,-1.0]"),
        (np.array(["a", None], object), '["a",null]'),
        ((1, "a"), '[1,"a"]'),
    ],
)
def test_values_of_numpy_are_numbers_and_lists(value, text):
    assert canonical({"a": [value]}) == f'{{"a":[{text}]}}'


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({1, 2}, "set"),
        (datetime(2026, 1, 1, tzinfo=UTC), "datetime"),
        (date(2026, 1, 1), "date"),
        (pd.Timestamp("2026-01-01"), "Timestamp"),
        (np.datetime64("2026-01-01"), "date"),
        (Decimal("0.1"), "Decimal"),
        (uuid.UUID(int=1), "UUID"),
        (b"a", "bytes"),
        (np.complex128(1j), "complex"),
        (pd.NA, "NAType"),
        (pd.Series([1, 2]), "Series"),
        (object, "type"),
    ],
)
def test_what_json_has_no_form_for_is_refused_by_name(value, kind):
    with pytest.raises(JSONError, match=f"JSON has no form for .*, a {kind}"):
        canonical({"a": [value]})


@pytest.mark.parametrize("value", [np.nan, np.float32("inf"), np.array([1.0, np.nan])])
def test_what_is_no_number_is_refused_in_numpy_too(value):
    with pytest.raises(JSONError, match="is no JSON"):
        canonical({"a": value})


def test_a_frame_with_such_a_document_is_refused_by_column_and_value():
    contract = Contract("sqlite/t", "", (Column("id", "int64"), Column("document", "json")), ())
    frame = pd.DataFrame({"id": [1, 2], "document": [{"a": np.int64(1)}, {"a": {"odd"}}]})
    with pytest.raises(
        ContractViolation, match=r"sqlite/t: column 'document' .*JSON has no form for \{'odd'\}, a set"
    ):
        list(conform(frame, contract))
    (batch,) = conform(frame[:1], contract)
    assert batch["document"].to_pylist() == ['{"a":1}']
