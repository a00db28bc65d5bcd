"""Rows beyond what is kept in memory are checked and given back like the others."""

import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.lib import staging
from ml_assets.lib.arrow_types import ContractViolation
from ml_assets.lib.staging import stage
from ml_assets.lib.validation import Limits

CONTRACT = Contract("duckdb/t", "", (Column("id", "string", nullable=False), Column("n", "int64")), ("id",))


@pytest.fixture(params=["in memory", "in files"])
def kept(request, monkeypatch):
    if request.param == "in files":
        monkeypatch.setattr(staging, "_MEMORY_KEYS", 1_000)
        monkeypatch.setattr(staging, "_MEMORY_BYTES", 10_000)
        monkeypatch.setattr(staging, "_CHUNK_BATCHES", 1)


def batches(ids: list[str]) -> pa.RecordBatchReader:
    rows = pa.table({"id": ids, "n": list(range(len(ids)))})
    return pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=300))


def test_all_rows_come_back_in_order(kept):
    ids = [f"key {n}" for n in range(5_000)]
    with stage(batches(ids), CONTRACT, Limits("")) as staged:
        assert staged.rows == 5_000
        assert staged.reader().read_all()["id"].to_pylist() == ids


@pytest.mark.parametrize("distance", [1, 700, 4_000])
def test_a_key_that_stands_twice_is_found_wherever_it_stands(kept, distance):
    ids = [f"key {n}" for n in range(5_000)]
    ids[900 + distance] = ids[900]
    with pytest.raises(ContractViolation, match=r"key id is not unique: 'key 900' \(2 times\)"):
        stage(batches(ids), CONTRACT, Limits(""))


def test_nothing_is_left_in_the_temporary_folder(kept, monkeypatch, tmp_path):
    monkeypatch.setattr(staging.tempfile, "tempdir", str(tmp_path))
    with stage(batches([f"key {n}" for n in range(5_000)]), CONTRACT, Limits("")):
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ContractViolation):
        stage(batches(["same"] * 5_000), CONTRACT, Limits(""))
    assert list(tmp_path.iterdir()) == []
