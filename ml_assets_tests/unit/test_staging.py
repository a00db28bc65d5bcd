"""Rows beyond what is kept in memory are checked and given back like the others."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import NEVER, quote_literal, utc_text
from ml_assets.tables import staging
from ml_assets.tables.arrow_types import BATCH_BYTES, arrow_schema, stream
from ml_assets.tables.staging import (
    HOUR_US,
    bucket_name,
    bucket_of_name,
    spans_of,
    stage,
    windows_sql,
)
from ml_assets.tables.validation import Limits, micros

CONTRACT = Contract("duckdb/t", "", (Column("id", "string", nullable=False), Column("n", "int64")), ("id",))


@pytest.fixture(params=["in memory", "in files"])
def kept(request, monkeypatch):
    if request.param == "in files":
        monkeypatch.setattr(staging, "_MEMORY_KEYS", 1_000)
        monkeypatch.setattr(staging, "_MEMORY_BYTES", 10_000)
        monkeypatch.setattr(staging, "_CHUNK_BATCHES", 1)


def batches(ids: list[str], n: int | None = None) -> pa.RecordBatchReader:
    rows = pa.table({"id": ids, "n": list(range(len(ids))) if n is None else [n] * len(ids)})
    return pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=300))


def test_all_rows_come_back_in_order(kept):
    ids = [f"key {n}" for n in range(5_000)]
    with stage(batches(ids), CONTRACT, Limits("")) as staged:
        assert staged.rows == 5_000
        assert staged.reader().read_all()["id"].to_pylist() == ids


@pytest.mark.parametrize("kind", ["reader", "table", "pandas"])
def test_long_rows_are_taken_in_small_batches(kind):
    """A chunk of 65,536 vectors of 1,536 numbers would be 400 MB, and four of them are checked at once."""
    vector = Column("vector", "vector", nullable=False, dimension=1_536)
    contract = replace(CONTRACT, columns=(*CONTRACT.columns[:1], vector))
    ids = [str(n) for n in range(8_000)]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(8_000 * 1_536, np.float32)), 1_536)
    rows = pa.table({"id": ids, "vector": vectors})
    data = {"reader": rows.to_reader(), "table": rows, "pandas": rows.to_pandas()}[kind]
    with stage(data, contract, Limits("")) as staged:
        assert max(batch.nbytes for batch in staged.batches()) <= BATCH_BYTES
        assert staged.reader().read_all()["id"].to_pylist() == ids


def test_large_batches_are_checked_by_themselves():
    rows = pa.record_batch({"id": ["x" * 2**20] * 40, "n": [1] * 40})
    chunks = list(staging.chunked(iter([rows] * 4)))
    assert [len(chunk) for chunk in chunks] == [2, 2]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (pa.array(["x", None, "y", "z", "w"]), "is string and does not fit int64; it holds 'x', 'y', 'z': "),
        (
            pa.array([1.0, 2.5, None, 3.5]),
            "is double and does not fit int64 (.*); it holds 2.5, 3.5: convert",
        ),
        (pa.array([True]), "is bool and does not fit int64; it holds True: convert it upstream"),
    ],
)
def test_a_wrong_type_is_refused_with_the_first_values_that_do_not_fit(given, told):
    rows = pa.table({"id": [str(n) for n in range(len(given))], "n": given})
    with pytest.raises(ContractViolation) as caught:
        stage(rows, CONTRACT, Limits(""))
    assert re.search(re.escape(told).replace(r"\.\*", ".*"), str(caught.value))


def test_a_count_of_a_part_of_the_rows_says_so(monkeypatch):
    monkeypatch.setattr(staging, "_CHUNK_BATCHES", 1)
    for ids, told in ((["a"] * 300 + ["b"] * 300, "at least 300 rows"), (["a"], "at least 1 row,")):
        with pytest.raises(ContractViolation, match=f"column 'n' holds 7 in {told}"):
            stage(batches(ids, n=7), small(), Limits(""))
    monkeypatch.setattr(staging, "_CHUNK_BATCHES", 4)
    with pytest.raises(ContractViolation, match="column 'n' holds 7 in 600 rows,"):
        stage(batches(["a"] * 300 + ["b"] * 300, n=7), small(), Limits(""))


def small() -> Contract:
    """Numbers up to 6 and no key."""
    return Contract("duckdb/t", "", (Column("id", "string"), Column("n", "int64", maximum=6)), ())


@pytest.mark.parametrize("distance", [1, 700, 4_000])
def test_a_key_that_stands_twice_is_found_wherever_it_stands(kept, distance):
    ids = [f"key {n}" for n in range(5_000)]
    ids[900 + distance] = ids[900]
    with pytest.raises(ContractViolation, match=r"key id is not unique: 'key 900' \(2 times\)"):
        stage(batches(ids), CONTRACT, Limits(""))


def test_nothing_is_left_in_the_temporary_folder(kept, monkeypatch, tmp_path):
    monkeypatch.setattr(staging.tempfile, "tempdir", str(tmp_path))
    rows = batches([f"key {n}" for n in range(4_800)])

    def watched():
        for batch in rows:
            assert list(tmp_path.iterdir()) == [], "whoever is killed now would leave it"
            yield batch

    with stage(pa.RecordBatchReader.from_batches(rows.schema, watched()), CONTRACT, Limits("")) as staged:
        assert list(tmp_path.iterdir()) == []
        assert staged.rows == 4_800
    with pytest.raises(ContractViolation):
        stage(batches(["same"] * 5_000), CONTRACT, Limits(""))
    assert list(tmp_path.iterdir()) == []


BY_TIME = Contract("duckdb/t", "", (Column("at", "timestamp", nullable=False),), (), partition_column="at")
BY_HOUR = replace(BY_TIME, partition_us=HOUR_US)


@pytest.mark.parametrize("year", [1, 99, 999, 1969, 1970, 2026, 9999])
def test_a_partition_is_found_by_its_name(year):
    start = datetime(year, 3, 1, 9, tzinfo=UTC)
    hour, day = micros(start), micros(start.replace(hour=0))
    assert bucket_name(hour, BY_HOUR) == f"{year:04d}-03-01-09:00"
    assert bucket_name(day, BY_TIME) == f"{year:04d}-03-01"
    for contract, bucket in ((BY_HOUR, hour), (BY_TIME, day)):
        name = bucket_name(bucket, contract)
        assert bucket_of_name(name) == bucket
        assert bucket_of_name(name.lstrip("0")) == bucket, "which is how it once was written"


def test_text_of_times_is_in_their_order():
    moments = [datetime(year, 3, 1, microsecond=5, tzinfo=UTC) for year in (1, 99, 999, 1969, 2026, 9999)]
    texts = [utc_text(moment) for moment in moments]
    assert texts == sorted(texts)
    assert texts[2] == "0999-03-01T00:00:00.000005Z"
    assert utc_text(datetime.fromisoformat("2026-01-01T01:30:00+02:00")) == "2025-12-31T23:30:00.000000Z"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5_000])
def test_a_condition_for_many_windows_is_not_deep(count):
    """SQLite refuses an expression that is deeper than 1,000."""
    first = datetime(2000, 1, 1, tzinfo=UTC)
    days = [first + timedelta(days=2 * n) for n in range(count)]
    condition = windows_sql(
        BY_TIME, spans_of(map(micros, days), BY_TIME), lambda moment: quote_literal(utc_text(moment))
    )
    for day in days:
        assert condition.count(f">= '{utc_text(day)}'") == 1
    depths = np.cumsum([{"(": 1, ")": -1}.get(sign, 0) for sign in condition])
    assert depths[-1] == 0
    assert depths.max() <= 15
    assert not re.search(r"\) OR \([^()]*\) OR ", condition)
    assert (condition == NEVER) == (count == 0)


@pytest.mark.parametrize("placed", [True, False])
@pytest.mark.parametrize(
    ("kind", "number"),
    [("date", 2**31 - 1), ("date", -(2**31)), ("timestamp", -(2**63)), ("timestamp", 2**62)],
)
def test_a_time_beyond_all_years_is_refused_in_a_sentence(kind, number, placed):
    """The start of its partition has more than 64 bits."""
    numbers = pa.array([number], pa.int32() if kind == "date" else pa.int64())
    contract = Contract("duckdb/t", "", (Column("at", kind),), (), partition_column="at" if placed else None)
    rows = pa.table({"at": numbers.cast(arrow_schema(contract).field("at").type)})
    with pytest.raises(
        ContractViolation, match=r"column 'at' holds .+ in 1 row, outside the years 1 to 9999"
    ):
        stage(rows, contract, Limits("X"))


@pytest.mark.parametrize("part", [True, False])
@pytest.mark.parametrize("kind", ["ours", "ipc", "staged before"])
def test_a_reader_that_was_read_is_not_taken_for_an_empty_one(kind, part):
    """It would empty the table."""
    rows = pa.table({"id": ["a", "b"], "n": [1, 2]})
    batches = rows.to_batches(max_chunksize=1)
    reader = rows.to_reader()
    if kind == "ours":
        reader = stream(rows.schema, iter(batches))
    elif kind == "ipc":
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=1)
        reader = pa.ipc.open_stream(sink.getvalue())
    if kind == "staged before":  # two outputs of one asset
        stage(reader, CONTRACT, Limits("")).close()
    elif part:
        reader.read_next_batch()
    else:
        reader.read_all()
    with pytest.raises(
        ContractViolation, match="a pyarrow RecordBatchReader that has been read from already"
    ):
        stage(reader, CONTRACT, Limits(""))


def test_an_empty_reader_is_one():
    schema = pa.schema({"id": pa.string(), "n": pa.int64()})
    for reader in (stream(schema, iter([])), schema.empty_table().to_reader()):
        with stage(reader, CONTRACT, Limits("")) as staged:
            assert staged.rows == 0


def test_a_reader_that_is_dropped_ends_what_it_reads_from():
    ended = []

    def batches():
        try:
            yield from pa.table({"id": ["a", "b"]}).to_batches(max_chunksize=1)
        finally:
            ended.append(True)

    reader = stream(pa.schema({"id": pa.string()}), batches())
    reader.read_next_batch()
    del reader
    assert ended
