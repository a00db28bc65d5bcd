"""How a row that was made again differs from the one that was there."""

import duckdb

from ml_assets.contracts import Column, Contract
from ml_assets.operations.feature_rebuild import changed, first_row, row_told
from ml_assets.tables.staging import PartitionState

TABLE = Contract(
    "duckdb/t", "", (Column("id", "string"), *(Column(f"c{n}", "int64") for n in range(8))), ("id",)
)
ROW = {"id": "r1", **{f"c{n}": n for n in range(8)}}
NOTHING = dict.fromkeys(ROW)


def test_partitions_that_differ_are_told_in_order():
    one, other = PartitionState(1, 8, "a"), PartitionState(1, 9, "b")
    assert changed({1: one, 2: one, 4: one}, {1: one, 2: other, 3: one}) == [2, 3, 4]


def test_a_row_is_named_by_its_key_with_the_columns_that_differ():
    assert row_told(TABLE, ROW, ROW | {"c3": 9}) == "The first row is id 'r1': c3 is 3 in place of 9."
    told = row_told(TABLE, ROW, {"id": "r1", **{f"c{n}": None if n else 7 for n in range(8)}})
    assert told.endswith("c4 is 4 in place of None, and 3 more columns.")


def test_a_row_that_is_new_or_gone():
    assert row_told(TABLE, ROW, NOTHING) == "The first row is id 'r1', which was not there."
    assert row_told(TABLE, NOTHING, ROW) == "The first row is id 'r1', which is not made any more."


def test_nan_is_as_it_was():
    nan = float("nan")
    assert row_told(TABLE, ROW | {"c1": nan, "c3": 9}, ROW | {"c1": -nan}).endswith(
        "'r1': c3 is 9 in place of 3."
    )


def test_rows_without_a_key_may_stand_there_more_often():
    keyless = Contract("duckdb/t", "", (Column("a", "int64"), Column("b", "float64")), ())
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE held AS FROM (VALUES (1, 'nan'::DOUBLE), (1, 'nan'), (2, NULL)) AS rows (a, b)"
        )
        connection.execute("CREATE VIEW made AS SELECT DISTINCT * FROM held")
        assert first_row(connection, keyless) == "The rows are the same, but do not stand there as often."
        connection.execute("INSERT INTO held VALUES (3, 0)")
        connection.execute("CREATE OR REPLACE VIEW made AS SELECT DISTINCT * FROM held WHERE a < 3")
        assert first_row(connection, keyless) == "The first row is a 3, b 0.0, which is not made any more."
