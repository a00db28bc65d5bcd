"""What a store cannot hold for its length or size is refused in a sentence, before anything is written."""

from base64 import b64encode
from dataclasses import replace
from hashlib import shake_256

import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.stores.redis import copies
from ml_assets.tables.arrow_types import BATCH_BYTES
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import Limits

IN_POSTGRES = ("postgres", "chroma", "serving")


def noise(length: int) -> str:
    """Text that cannot be packed: of repetitions an index of PostgreSQL holds more."""
    return b64encode(shake_256(str(length).encode()).digest(length), b"-_").decode()[:length]


def test_a_long_key_is_kept_or_refused(case, row):
    """PostgreSQL's index entries hold 2,704 bytes, a third of a page; the other stores have no such limit."""
    case.write(case.table(row("old")))
    rows = case.table(row("new"), row(noise(3_008)))
    if case.name in IN_POSTGRES:
        said = r"column 'id' with 3,008 bytes \('.{55,60}\.\.\.?\) is beyond what PostgreSQL can hold \(index row size"
        with pytest.raises(ContractViolation, match=said):
            case.write(rows)
        assert case.ids() == ["old"]
        rows = case.table(row("new"), row(noise(2_500)))
    case.write(rows)
    assert case.read().sort_by("id").equals(rows.sort_by("id"))


@pytest.mark.parametrize("case", ["postgres"], indirect=True)
def test_keys_and_indexes_of_several_columns(case, row):
    """Together they are too long; a column with an index is by itself; and no index has more than 32 columns."""
    case.change(key=("id", "text"), indexes=("kind",))
    case.write(case.table(row("old")))
    with pytest.raises(
        ContractViolation, match=r"columns 'id', 'text' with 3,200 bytes \('.*, '.*\) is beyond"
    ):
        case.write(case.table(row(noise(1_600), text=noise(1_600)[::-1])))
    case.change(columns=tuple(replace(column, choices=()) for column in case.contract.columns))
    with pytest.raises(ContractViolation, match=r"column 'kind' with 3,008 bytes .*index row size"):
        case.write(case.table(row("new", kind=noise(3_008))))
    assert case.ids() == ["old"]
    names = tuple(f"k{n}" for n in range(33))
    case.change(
        asset="postgres/wide",
        columns=tuple(Column(n, "int64") for n in names),
        key=names,
        indexes=(),
        partition_column=None,
    )
    with pytest.raises(
        ContractViolation, match=r"postgres/wide: the table is .* \(cannot use more than 32 columns"
    ):
        case.write(case.table(dict.fromkeys(names, 1)), first=None)


@pytest.mark.parametrize("case", ["serving"], indirect=True)
def test_a_row_that_redis_cannot_hold_leaves_the_old_ones(case, row, monkeypatch):
    """Packed as JSON it may be six times as long as it is in PostgreSQL."""
    case.write(case.table(row("old")))
    monkeypatch.setattr(copies, "_LONGEST", 5_000)
    with pytest.raises(
        ContractViolation, match=r"the row with id 'new' has 6,\d\d\d bytes as JSON, and Redis holds 5,000"
    ):
        case.write(case.table(row("new", text="\x01" * 1_000)))
    assert case.ids() == ["old"]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_row_that_is_larger_than_the_store_holds(rows):
    columns = (Column("id", "int64"), Column("text", "string"))
    contract = Contract("duckdb/t", "", columns, ("id",))
    texts = ["x" * (BATCH_BYTES + 2**20), *["y"] * (rows - 1)]
    data = pa.table({"id": list(range(rows)), "text": texts})
    limits = Limits("X", row_bytes=BATCH_BYTES + 2**19)
    with pytest.raises(
        ContractViolation, match=r"a row \(key 0\) has 17,8.* bytes, .* in column 'text', and X holds"
    ):
        stage(data, contract, limits)
    stage(data, contract, replace(limits, row_bytes=BATCH_BYTES + 2**21)).close()
