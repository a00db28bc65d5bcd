"""Different rows have different hashes, in whichever columns they differ."""

from collections.abc import Sequence
from itertools import product

import duckdb

from ml_assets.contracts import Column
from ml_assets.tables.hashing import row_hash_sql


def hashes(names: list[str], values: Sequence[tuple[int | None, ...]]) -> list[int]:
    columns = [Column(name, "int64") for name in names]
    with duckdb.connect() as connection:
        rows = ", ".join(
            f"({', '.join('NULL' if v is None else f'{v}::BIGINT' for v in row)})" for row in values
        )
        return [
            number
            for (number,) in connection.execute(
                f"SELECT {row_hash_sql(columns)} FROM (VALUES {rows}) AS given ({', '.join(names)})"
            ).fetchall()
        ]


def test_each_row_has_a_hash_of_its_own():
    """Also where columns hold the same value, or change places."""
    rows = list(product([None, 0, 1, 2], repeat=4))
    assert len(set(hashes(["a", "b", "c", "d"], rows))) == len(rows)


def test_neither_the_order_of_columns_nor_a_null_counts():
    one, other = hashes(["a", "b"], [(1, 2), (3, None)]), hashes(["b", "a"], [(2, 1), (None, 3)])
    assert one == other
    assert hashes(["a", "c", "b"], [(1, None, 2)]) == one[:1]


def test_known_values():
    """Where these change, `HASH_VERSION` is to change."""
    assert hashes(["a", "b"], [(1, 2), (3, None)]) == [18281595373407420705, 372367969749588344]
