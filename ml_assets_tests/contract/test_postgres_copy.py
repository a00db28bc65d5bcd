"""COPY in binary, of tables with vectors, puts the same rows in place as COPY of text."""

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa

from ml_assets.contracts import Column, Contract
from ml_assets.stores.postgres_table.ddl import sql_type
from ml_assets.stores.postgres_table.rows import copy_in, copy_staged
from ml_assets.tables.arrow_types import arrow_schema

AT = datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)
ROWS = [
    ("a", -(2**63), 1.5, True, AT, date(1, 1, 1), '{"n": 1.0}', [0.1, -0.0, 3e-42]),
    (
        'b,"c\n\t\\N',
        2**63 - 1,
        -math.inf,
        False,
        AT + timedelta(days=99_999),
        date(9999, 12, 31),
        "[]",
        [2.0],
    ),
    ("ü€\U0001f600", 0, math.pi, None, datetime(2000, 1, 1, tzinfo=UTC), date(2000, 1, 1), "null", [1.0]),
    ("", None, None, True, None, None, None, None),
]
KINDS = ("string", "int64", "float64", "bool", "timestamp", "date", "json", "vector")


def test_rows_are_the_same_by_text_and_in_binary(postgres):
    columns = tuple(Column(f"{kind}_column", kind) for kind in KINDS)
    contract = Contract("postgres/copied", "", columns, key=("string_column",), mode="upsert")
    rng = np.random.default_rng(1)
    rows = ROWS + [
        (f"r{n}", n, n / 3, n % 2 == 0, AT, AT.date(), f'"{n}"', rng.normal(size=5).tolist())
        for n in range(99)
    ]
    table = pa.Table.from_pylist(
        [dict(zip(contract.names, row, strict=True)) for row in rows], arrow_schema(contract)
    )
    # Parts of a batch begin in the middle of its vectors.
    batches = [batch.slice(n, 7) for batch in table.to_batches() for n in range(0, batch.num_rows, 7)]
    with postgres.connect(write=True) as connection:
        for name, copy in (("by_text", copy_in), ("in_binary", copy_staged)):
            made = ", ".join(f"{column.name} {sql_type(column)}" for column in columns)
            connection.execute(f"CREATE TABLE {name} ({made})".encode())
            copy(connection, name, contract, batches)
        only_one = connection.execute(
            "(TABLE by_text EXCEPT ALL TABLE in_binary) UNION ALL (TABLE in_binary EXCEPT ALL TABLE by_text)"
        ).fetchall()
        counted = connection.execute("SELECT count(*) FROM in_binary").fetchone()
    assert (only_one, counted) == ([], (len(rows),))
