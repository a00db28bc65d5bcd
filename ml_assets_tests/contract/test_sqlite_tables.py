"""What is peculiar to SQLite: it guesses what a name means, and looks at temporary tables first."""

import re
import sqlite3
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract, ForeignKey
from ml_assets.errors import ContractViolation
from ml_assets.io_managers.sqlite import SQLiteIOManager
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE, Window

ID, AT, V = (
    Column("id", "string", nullable=False),
    Column("at", "timestamp", nullable=False),
    Column("v", "int64"),
)
DAY = timedelta(days=1)
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def contract(table: str, *columns: Column, **changes: Any) -> Contract:
    return Contract(f"sqlite/{table}", "", columns or (ID, V), key=("id",), **changes)


def daily(table: str, **changes: Any) -> Contract:
    return contract(table, ID, AT, V, partition_column="at", **changes)


@pytest.fixture
def file(sqlite):
    """The IO manager without Dagster: `write` and `read` for rows as dicts."""
    return File(SQLiteIOManager(sqlite=sqlite))


class File:
    def __init__(self, manager: SQLiteIOManager) -> None:
        self.manager = manager

    def write(self, table: Contract, *rows: dict[str, Any], window: Window = WHOLE) -> dict[int, int]:
        """Writes; returns how many rows its partitions hold then, by the manager's account."""
        given = pa.Table.from_pylist(list(rows), pa.schema([(c.name, ARROW[c.type]) for c in table.columns]))
        with stage(given, table, self.manager.limits, window) as staged:
            written = self.manager.table_store().write(table, staged)
            return {bucket: state.rows for bucket, state in written.held.items()}

    def read(self, table: Contract, columns: tuple[str, ...] = (), window: Window = WHOLE) -> list[Any]:
        rows = self.manager.table_store().read(table, columns or table.names, window).read_all().to_pylist()
        return sorted((tuple(row.values()) for row in rows), key=str)

    def run(self, statement: str) -> list[Any]:
        with self.manager.sqlite.connect(write=True) as connection:
            return connection.execute(statement).fetchall()

    def is_as_recorded(self, table: Contract) -> bool:
        store = self.manager.table_store()
        return store.ledger_state(table) == store.live_state(table)


ARROW = {
    "string": pa.string(),
    "int64": pa.int64(),
    "timestamp": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}


@pytest.mark.parametrize("mode", ["overwrite", "upsert", "upsert_delete"])
@pytest.mark.parametrize("name", ["stage", "old", "new", "excluded", "held", "temp", "main"])
def test_a_table_may_be_called_like_those_in_our_statements(file, name, mode):
    table = daily(name, mode=mode, unique_across_days=True, indexes=("v",))
    file.write(table, *({"id": n, "at": FIRST, "v": 1} for n in "ab"))
    file.write(table, {"id": "a", "at": FIRST + DAY, "v": 2}, {"id": "b", "at": FIRST, "v": 1})
    assert file.read(table) == [("a", FIRST + DAY, 2), ("b", FIRST, 1)]
    assert file.is_as_recorded(table)
    made = file.run("SELECT count(*) FROM main.sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    assert made == [(2,)]


def test_a_foreign_key_leads_to_a_table_called_stage(file):
    parent = contract("stage")
    child = contract("child", ID, foreign_keys=(ForeignKey("id", "stage", "id"),), mode="upsert")
    file.write(parent, {"id": "a", "v": 1})
    file.write(child, {"id": "a"})
    with pytest.raises(ContractViolation, match=r"holds 'b', which stage\.id does not have"):
        file.write(child, {"id": "b"})


def test_a_column_that_was_not_written_yet_is_null(file):
    """SQLite takes the name of a column that is not there for a text."""
    table = contract("gained")
    file.write(table, {"id": "a", "v": 1})
    more = replace(table, columns=(*table.columns, Column("note", "string"), Column("due", "date")))
    assert file.read(more) == [("a", 1, None, None)]
    assert file.read(more, columns=("note", "id")) == [(None, "a")]
    assert file.manager.table_store().live_state(more).rows == 1
    file.write(more, {"id": "a", "v": 1, "note": "x", "due": date(2026, 1, 1)})
    assert file.read(more) == [("a", 1, "x", date(2026, 1, 1))]


@pytest.mark.parametrize("mode", ["overwrite", "upsert"])
def test_a_column_that_somebody_dropped_is_written_again(file, mode):
    table = daily("dropped", mode=mode)
    row = {"id": "a", "at": FIRST, "v": 1}
    file.write(table, row)
    file.run("ALTER TABLE dropped DROP COLUMN v")
    assert file.read(table) == [("a", FIRST, None)]
    assert not file.is_as_recorded(table)
    file.write(table, row)
    assert file.read(table) == [("a", FIRST, 1)]
    assert file.is_as_recorded(table)


@pytest.mark.parametrize("missing", ["v", "at"])
def test_a_missing_column_that_may_not_be_null_is_told_with_the_way_out(file, missing):
    table = replace(daily("required"), columns=(ID, AT, replace(V, nullable=False)))
    row = {"id": "a", "at": FIRST, "v": 1}
    file.write(table, row)
    file.run(f'ALTER TABLE required RENAME COLUMN "{missing}" TO gone')
    window = Window(FIRST, FIRST + DAY)
    for read in (
        lambda: file.read(table),
        lambda: file.read(table, columns=("id", missing), window=window),
        lambda: file.manager.table_store().live_state(table),
    ):
        with pytest.raises(ContractViolation, match=f"has no column '{missing}', which the contract") as told:
            read()
    (printed,) = re.findall("; run (.*), materialize again, or undo the change", str(told.value))
    for statement in printed.split(" and "):
        file.run(statement)
    file.write(table, row)
    assert file.read(table) == [("a", FIRST, 1)]


def test_a_column_in_another_case_is_read_and_its_renaming_told(file):
    table, other = contract("spelled"), contract("spelled", ID, Column("V", "int64"))
    file.write(table, {"id": "a", "v": 1})
    assert file.read(other) == [("a", 1)]
    with pytest.raises(ContractViolation, match="column 'V' is 'v' in the file") as told:
        file.write(other, {"id": "a", "V": 2})
    (printed,) = re.findall("; run (.*), or undo", str(told.value))
    file.run(printed)
    file.write(other, {"id": "a", "V": 2})
    assert file.read(other) == [("a", 2)]


@pytest.mark.parametrize(("first", "second"), [("Orders", "orders"), ("orders", "ORDERS")])
def test_a_name_in_another_case_is_another_asset(file, first, second):
    file.write(contract(first), {"id": "a", "v": 1})
    with pytest.raises(LookupError, match=f"sqlite/{second} has never been written here"):
        file.read(contract(second))
    assert file.manager.table_store().live_state(contract(second)).rows == 0
    with pytest.raises(ContractViolation, match=f"the file has a table '{first}', so a table '{second}'"):
        file.write(contract(second), {"id": "b", "v": 2})
    assert file.read(contract(first)) == [("a", 1)]
    file.write(contract("Äpfel"), {"id": "a", "v": 1})
    file.write(contract("äpfel"), {"id": "b", "v": 2})  # SQLite folds ASCII alone
    assert file.read(contract("Äpfel")) == [("a", 1)]


@pytest.mark.parametrize(
    "name", ["sqlite_orders", "SQLite_orders", "ml_assets_writes", "ML_Assets_Contracts"]
)
def test_a_name_that_is_taken_is_refused(file, name):
    with pytest.raises(ContractViolation, match=f"'{name}'.* give the asset another name"):
        file.write(contract(name), {"id": "a", "v": 1})


def test_a_view_is_read_and_not_written(file):
    file.write(contract("below"), {"id": "a", "v": 1})
    file.run("CREATE VIEW above AS SELECT * FROM below")
    assert file.read(contract("above")) == [("a", 1)]
    with pytest.raises(ContractViolation, match="the file has a view 'above'"):
        file.write(contract("above"), {"id": "b", "v": 2})


@pytest.mark.parametrize("backwards", [False, True])
def test_an_index_takes_no_table_its_name(file, backwards):
    names = ["orders", "orders_key", "orders_at", "orders_v", "orders_v_id"]
    for name in reversed(names) if backwards else names:
        file.write(daily(name, indexes=("v", "id", ("v", "id"))), {"id": "a", "at": FIRST, "v": 1})
    for name in names:
        assert file.read(daily(name)) == [("a", FIRST, 1)]


def test_a_column_called_key_leaves_the_key_its_index(file):
    table = replace(daily("orders"), columns=(ID, AT, V, Column("key", "string")), indexes=("key",))
    file.write(table, {"id": "a", "at": FIRST, "v": 1})
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        file.run("INSERT INTO orders SELECT * FROM orders")


def test_indexes_of_an_older_file_stay_the_only_ones(file):
    table = daily("orders", mode="upsert", indexes=("v",))
    file.run("CREATE TABLE orders (id TEXT NOT NULL, at TEXT NOT NULL, v INTEGER)")
    file.run('CREATE UNIQUE INDEX "orders_key" ON "orders" ("id", substr("at", 1, 10))')
    file.run('CREATE INDEX "orders_at" ON "orders" ("at")')
    for v in (1, 2):
        file.write(table, {"id": "a", "at": FIRST, "v": v})
    assert file.read(table) == [("a", FIRST, 2)]
    made = file.run("SELECT name FROM sqlite_master WHERE tbl_name = 'orders' AND type = 'index' ORDER BY 1")
    assert made == [("orders.v",), ("orders_at",), ("orders_key",)]
    with pytest.raises(ContractViolation, match="an index 'orders_key' of table 'orders'") as told:
        file.write(contract("orders_key"), {"id": "a", "v": 1})
    (printed,) = re.findall("run (DROP .*) if it is needed no more", str(told.value))
    file.run(printed)
    file.write(contract("orders_key"), {"id": "a", "v": 1})
    file.write(table, {"id": "a", "at": FIRST, "v": 3})
    assert file.read(table) == [("a", FIRST, 3)]
    with pytest.raises(ContractViolation) as told:
        file.write(
            replace(table, columns=(ID, AT, Column("v", "string"))), {"id": "a", "at": FIRST, "v": "x"}
        )
    for name in ("orders.(key)", "orders_at", "orders.v"):
        assert f' and DROP INDEX IF EXISTS "{name}"' in str(told.value)


@pytest.mark.parametrize("mode", ["overwrite", "upsert", "upsert_delete"])
def test_thousands_of_days_that_are_no_neighbours(file, mode):
    table = daily("sparse", mode=mode, unique_across_days=mode == "upsert_delete")
    moments = [FIRST + 2 * n * DAY for n in range(3_000)]
    window = Window(FIRST, FIRST + 6_000 * DAY)
    for v in (1, 2):
        rows = ({"id": str(n), "at": moment, "v": v} for n, moment in enumerate(moments))
        assert len(file.write(table, *rows, window=window)) == 3_000
        assert {row[2] for row in file.read(table)} == {v}
    assert file.is_as_recorded(table)


@pytest.mark.parametrize("kind", ["timestamp", "date"])
@pytest.mark.parametrize("mode", ["overwrite", "upsert", "upsert_delete"])
@pytest.mark.parametrize("year", [1, 99, 999])
def test_years_of_less_than_four_digits(file, year, mode, kind):
    table = replace(daily("ancient", mode=mode), columns=(ID, Column("at", kind, nullable=False), V))
    early = datetime(year, 3, 1, tzinfo=UTC)
    moments = [early, FIRST] if kind == "timestamp" else [early.date(), FIRST.date()]
    for v in (1, 2):
        rows = [{"id": "a", "at": moment, "v": v} for moment in moments]
        assert sum(file.write(table, *rows).values()) == 2
        assert sorted(file.read(table), key=lambda row: row[1]) == [("a", moment, v) for moment in moments]
    assert file.read(table, window=Window(early, early + DAY)) == [("a", moments[0], 2)]
    assert file.is_as_recorded(table)
    names = file.run("SELECT partition FROM ml_assets_writes ORDER BY 1")
    assert names == [(f"{year:04d}-03-01",), ("2026-01-01",)]


def test_a_ledger_with_a_short_year_is_read_and_mended(file):
    table = daily("ancient")
    early = datetime(999, 3, 1, tzinfo=UTC)
    file.write(table, {"id": "a", "at": early, "v": 1})
    file.run("UPDATE ml_assets_writes SET partition = '999-03-01'")
    assert file.is_as_recorded(table)
    file.write(table, {"id": "a", "at": early, "v": 2}, window=Window(early, early + DAY))
    assert file.run("SELECT partition FROM ml_assets_writes") == [("0999-03-01",)]
    assert file.is_as_recorded(table)


def test_the_last_microsecond_of_a_day_belongs_to_it(file):
    """SQLite's unixepoch() rounds it up, to the next day."""
    table = daily("late", mode="upsert", unique_across_days=True)
    late = FIRST + DAY - datetime.resolution
    file.write(table, {"id": "a", "at": late, "v": 1})
    file.write(table, {"id": "a", "at": FIRST + DAY, "v": 1})
    assert file.read(table) == [("a", FIRST + DAY, 1)]
    assert file.is_as_recorded(table)


@pytest.mark.parametrize("mode", ["overwrite", "upsert", "upsert_delete"])
def test_the_last_day_that_there_is(file, mode):
    """Partitions end where the next one begins, and there is none."""
    table = daily("forever", mode=mode)
    last = datetime.max.replace(tzinfo=UTC)
    for v in (1, 2):
        file.write(table, {"id": "a", "at": FIRST, "v": v}, {"id": "a", "at": last, "v": v})
        assert file.read(table) == [("a", FIRST, v), ("a", last, v)]
        assert file.is_as_recorded(table)


def test_a_write_after_a_run_is_not_told_as_the_runs(file: File):
    """Nor one after a run that failed; a notebook or a test may do both in one process."""

    @dg.asset(key=["sqlite", "labelled"], io_manager_key="io", metadata={"key": "id"})
    def labelled(context: dg.AssetExecutionContext) -> pa.Table:
        rows = [{"id": "a", "v": None if context.run.tags.get("fails") else 1}]
        return pa.Table.from_pylist(rows, pa.schema([("id", pa.string()), ("v", pa.int64())]))

    table = contract("labelled", ID, replace(V, nullable=False))
    manager = SQLiteIOManager(sqlite=file.manager.sqlite, contracts={table.asset: table})
    io = dg.IOManagerDefinition.hardcoded_io_manager(manager)
    told = "SELECT run_id FROM ml_assets_writes WHERE table_name = 'labelled'"
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([labelled], resources={"io": io}, instance=instance)
        assert file.run(told) == [(run.run_id,)]
        file.write(table, {"id": "a", "v": 2})
        assert file.run(told) == [(None,)]
        failed = dg.materialize(
            [labelled], resources={"io": io}, instance=instance, tags={"fails": "1"}, raise_on_error=False
        )
        assert not failed.success
        file.write(table, {"id": "a", "v": 3})
        assert file.run(told) == [(None,)]
