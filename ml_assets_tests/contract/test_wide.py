"""Tables of a thousand columns, and those that are too wide for their store; columns called as words of SQL are."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from ml_assets.contracts import Column
from ml_assets.errors import ContractViolation
from ml_assets.tables.staging import stage

KEY = Column("id", "string", nullable=False)


def wide(case, count):
    """A table without partitions of so many columns, and two rows of it."""
    columns = (KEY, *(Column(f"c{n}", "float64") for n in range(count - 1)))
    case.change(columns=columns, key=("id",), partition_column=None)
    row = dict.fromkeys((column.name for column in columns[1:]), 0.5)
    return case.table({"id": "a", **row}, {"id": "b", **row})


@pytest.mark.parametrize("case", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mode", ["overwrite", "upsert"])
def test_a_thousand_columns(case, mode):
    """Their conditions, one within the other, would be deeper than any of the engines allows."""
    rows = wide(case, 1_100)
    case.change(mode=mode)
    case.write(rows, first=None)
    rows = rows.set_column(1_099, "c1098", pa.array([0.5, 1.5]))
    case.write(rows, first=None)
    assert case.read().sort_by("id").equals(rows)
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_an_upsert_of_a_thousand_columns(case):
    rows = wide(case, 1_100)
    case.change(mode="upsert")
    case.write(rows, first=None)
    assert case.read().sort_by("id").equals(rows)


@pytest.mark.parametrize(
    ("case", "count", "said"),
    [
        ("sqlite", 2_001, "has 2,001 columns, and a table of SQLite has 2,000 at most"),
        ("postgres", 1_601, "has 1,601 columns, and a table of PostgreSQL has 1,600 at most"),
        ("postgres", 1_600, r"its 1,600 columns are too many for PostgreSQL.*maximum size 8160"),
    ],
    indirect=["case"],
)
def test_what_is_too_wide_for_its_store_is_refused_with_the_number(case, count, said):
    rows = wide(case, count)
    limits = case.manager.limits
    with (
        pytest.raises(ContractViolation, match=f"{case.name}/events.* {said}.*Nothing was written"),
        stage(rows, case.contract, limits) as staged,
    ):
        case.manager.table_store().write(case.contract, staged)
    assert case.store.ledger_state(case.contract).rows == 0


def test_a_definition_that_clickhouse_could_not_read_again_is_refused():
    from ml_assets.contracts import Contract
    from ml_assets.stores.clickhouse.ddl import refuse_too_wide

    def contract(length):
        columns = (KEY, *(Column(f"c{n}".ljust(length, "x"), "float64") for n in range(2_000)))
        return Contract("clickhouse/events", "", columns, key=("id",))

    refuse_too_wide(contract(60))
    with pytest.raises(
        ContractViolation, match=r"its 2,001 columns make .* and ClickHouse reads 262,144 at most"
    ):
        refuse_too_wide(contract(120))


WORDS = (
    "True", "false", "NULL", "rowid", "oid", "old", "new", "excluded", "held", "stage", "bucket", "place", "key_day",
    "part", "chunk", "key_hash", "staged_rows", "_partition_id", "_part", "filename", "file_row_number", "snapshot_id",
    "current_date", "count", "rows", "value", "complete", "now", "epoch", "date", "timestamp", "events",
)  # fmt: skip
HOUR = datetime(2026, 1, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize("mode", ["overwrite", "upsert"])
@pytest.mark.parametrize("names", [("True", "bucket"), ("key_day", "place")], ids=" and ".join)
def test_columns_called_as_words_of_sql(case, mode, names):
    """SQLite would take `true` for the column, ClickHouse `_partition_id`, and values of ours have names, too."""
    key, at = names
    others = [column for column in case.contract.columns if column.type == "vector" or column.name == "text"]
    words = [Column(word, "int64") for word in WORDS if word not in names]
    columns = (
        Column(key, "string", nullable=False),
        Column(at, "timestamp", nullable=False),
        *others,
        *words,
    )
    case.hourly()
    case.change(columns=columns, key=(key,), partition_column=at, mode=mode)

    def row(identity, hour, number):
        given = dict.fromkeys((column.name for column in words), number)
        when = HOUR + timedelta(hours=hour)
        return {key: identity, at: when, "text": "t", "vector": [1.0, 2.0, 3.0], **given}

    first, hours = datetime(2026, 1, 1, 9), 2
    case.write(case.table(row("one", 0, 0), row("two", 0, 0), row("three", 1, 0)), first=first, days=hours)
    case.write(case.table(row("two", 1, 0), row("three", 1, 1)), first=first, days=hours)
    kept = [row("one", 0, 0)] if mode == "upsert" else []
    found = case.read().to_pylist()
    assert sorted(found, key=lambda r: r[key]) == [*kept, row("three", 1, 1), row("two", 1, 0)]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
