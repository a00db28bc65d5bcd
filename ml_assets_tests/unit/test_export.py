"""A table's rows in a file: what each format makes of the types, and that a file is whole or not there."""

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.errors import Refusal
from ml_assets.tables.arrow_types import ARROW_TYPES
from ml_assets.tables.export import WRITERS, export

AT = datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)
ROWS = [
    {
        "string": 'a "quoted", text\nof two lines',
        "int64": 2**60,
        "float64": 0.1,
        "bool": True,
        "timestamp": AT,
        "date": date(2026, 3, 1),
        "json": '{"lr":0.1}',
        "vector": [0.5, 0.1, -2.0],
    },
    dict.fromkeys(ARROW_TYPES),
    {**dict.fromkeys(ARROW_TYPES), "string": "", "vector": []},
]
SCHEMA = pa.schema(list(ARROW_TYPES.items()))
TABLE = pa.Table.from_pylist(ROWS, SCHEMA)


def rows() -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(SCHEMA, TABLE.to_batches(max_chunksize=1))


def test_parquet_holds_the_same_table(tmp_path):
    assert export(rows, "runs", tmp_path / "x.parquet") == 3
    assert pq.read_table(tmp_path / "x.parquet").equals(TABLE)


def test_a_duckdb_file_holds_a_table_of_the_same_name(tmp_path):
    assert export(rows, "order", tmp_path / "x.duckdb") == 3
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        assert connection.execute('FROM "order"').to_arrow_table().cast(SCHEMA).equals(TABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["x.duckdb"]


def test_csv_has_vectors_and_json_as_text(tmp_path):
    assert export(rows, "runs", tmp_path / "x.CSV") == 3
    with (tmp_path / "x.CSV").open(newline="") as file:
        first, nothing, empty = csv.DictReader(file)
    assert first["string"] == ROWS[0]["string"]
    assert (first["int64"], first["float64"], first["bool"]) == (str(2**60), "0.1", "true")
    assert first["timestamp"] == "2026-03-01 10:00:00.250000Z"
    assert (first["json"], first["vector"]) == ('{"lr":0.1}', "[0.5,0.1,-2]")
    assert set(nothing.values()) == {""}
    assert empty["vector"] == "[]"


@pytest.mark.parametrize("ending", WRITERS)
def test_an_empty_table_keeps_its_columns(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    assert export(lambda: pa.RecordBatchReader.from_batches(SCHEMA, []), "runs", path) == 0
    with duckdb.connect(str(path) if ending == ".duckdb" else ":memory:") as connection:
        source = "runs" if ending == ".duckdb" else f"'{path}'"
        assert connection.execute(f"FROM {source}").to_arrow_table().column_names == SCHEMA.names


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_that_is_there_is_replaced_as_a_whole_or_not_at_all(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    path.write_text("before")

    def broken() -> pa.RecordBatchReader:
        def batches() -> Iterator[pa.RecordBatch]:
            yield from TABLE.to_batches()
            raise ConnectionError("the store went away")

        return pa.RecordBatchReader.from_batches(SCHEMA, batches())

    with pytest.raises(Refusal, match=r"is there already: .*overwrite"):
        export(rows, "runs", path)
    with pytest.raises(ConnectionError):
        export(broken, "runs", path, overwrite=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "before")]
    assert export(rows, "runs", path, overwrite=True) == 3
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() != b"before"


def test_what_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    def never() -> pa.RecordBatchReader:
        raise AssertionError

    for path, told in (
        (tmp_path / "x.xlsx", r"ends in \.parquet, \.csv, \.duckdb"),
        (tmp_path / "nowhere" / "x.csv", "There is no folder"),
        (Path("x"), "no kind that can be written"),
    ):
        with pytest.raises(Refusal, match=told):
            export(never, "runs", path)
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(Refusal, match="is there already"):
        export(never, "runs", tmp_path / "x.csv", overwrite=True)
