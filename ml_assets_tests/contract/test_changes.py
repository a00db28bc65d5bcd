"""Contracts change, rows move, other people own rows and columns, somebody tampers."""

import re
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from typing import get_args

import duckdb
import pyarrow as pa
import pytest

from ml_assets.contracts import Column, ColumnType, ForeignKey
from ml_assets.errors import ContractViolation
from ml_assets.stores.redis.lookup import lookup

FIRST = date(2026, 1, 1)
SECOND = date(2026, 1, 2)
NEW = Column("added", "string")


@pytest.mark.embedded
def test_a_new_nullable_column_is_added(case, row):
    case.write(case.table(row("one")))
    case.change(columns=(*case.contract.columns, NEW))
    case.write(case.table(row("two", day=1, added="x")), first=SECOND)
    found = {r["id"]: r["added"] for r in case.read(columns=["id", "added"]).to_pylist()}
    assert found == {"one": None, "two": "x"}
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


ADDED = (
    *(Column(f"new_{kind}", kind) for kind in get_args(ColumnType) if kind != "vector"),
    Column("new_vector", "vector", dimension=2),
)


def test_columns_that_the_table_does_not_have_yet_are_read_as_null(case, row):
    case.write(case.table(row("one")))
    added = ADDED if case.manager.limits.null_vector else ADDED[:-1]
    case.change(columns=(*case.contract.columns, *added))
    names = [column.name for column in added]
    assert case.read().equals(case.table(row("one")))
    assert case.read(columns=["id", *names], day=FIRST).to_pylist() == [{"id": "one", **dict.fromkeys(names)}]
    assert case.read(columns=names[:1]).to_pylist() == [{names[0]: None}]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_a_relation_has_nulls_of_a_column_that_the_table_does_not_have_yet(case, row):
    case.write(case.table(row("one")))
    case.change(columns=(*case.contract.columns, Column("count_of_days", "int64")))
    relation = case.read(duckdb.DuckDBPyRelation, columns=["id", "count_of_days"], day=FIRST)
    assert [str(kind) for kind in relation.types] == ["VARCHAR", "BIGINT"]
    assert relation.fetchall() == [("one", None)]


@pytest.mark.parametrize("case", ["serving"], indirect=True)
def test_a_column_that_the_table_does_not_have_yet_is_looked_up_as_null(case, row):
    case.write(case.table(row("one")))
    case.change(columns=(*case.contract.columns, NEW))
    with case.manager.redis.client() as cache:
        for place in (cache, None):
            found = lookup(place, case.manager.postgres, case.contract, "one")
            assert found is not None
            assert (found["amount"], found["added"]) == (1.5, None)


def test_a_column_that_may_not_be_null_and_is_not_there_yet_is_a_sentence(case, row):
    case.write(case.table(row("one")))
    case.change(columns=(*case.contract.columns, Column("added", "string", nullable=False)))
    with pytest.raises(ContractViolation, match=f"{case.contract.asset}: .*'added'.*null"):
        case.read()
    assert case.ids() == ["one"]


def test_a_new_column_has_nothing_of_a_document_that_has_its_name_within(case, row):
    case.write(case.table(row("old", document='{"accuracy":0.9,"amount":7,"grade":"x"}')))
    new = Column("accuracy", "float64"), Column("grade", "int64")
    case.change(columns=(*case.contract.columns, *new))
    case.write(case.table(row("new", day=1, accuracy=0.5, grade=1)), first=SECOND)
    found = case.read(columns=["id", "accuracy", "grade", "amount"]).sort_by("id").to_pylist()
    assert found == [
        {"id": "new", "accuracy": 0.5, "grade": 1, "amount": 1.5},
        {"id": "old", "accuracy": None, "grade": None, "amount": 1.5},
    ]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def test_any_other_change_is_refused_with_the_way_out(case, row):
    case.write(case.table(row("one")))
    table, columns = case.table(row("two")), case.contract.columns
    required = Column("added", "string", nullable=False)
    other_type = tuple(Column("amount", "string") if c.name == "amount" else c for c in columns)
    changes = [
        ({"columns": (*columns, required)}, table.append_column("added", pa.array(["x"])), "'added'"),
        ({"columns": other_type}, table.set_column(4, "amount", pa.array(["x"])), "'amount'"),
        ({"columns": columns[:-1]}, table.drop_columns(["kind"]), "'kind'"),
        ({"key": ("text",)}, table, "key was ('id',)"),
    ]
    original = case.contract
    for change, data, words in changes:
        case.change(**change)
        with pytest.raises(ContractViolation) as caught:
            case.write(data)
        message = str(caught.value)
        assert words in message
        assert "; run " in message or "make it nullable" in message
        case.change(columns=original.columns, key=original.key)
    assert case.ids() == ["one"]


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_a_key_of_the_lake_may_gain_columns_that_may_be_null(case, row):
    """What was unique by fewer columns is so by more of them."""
    case.write(case.table(row("one")))
    case.change(key=("id", "amount"), nullable_key=("amount",))
    assert case.ids() == ["one"]
    rows = [row("one", day=1, amount=amount) for amount in (1.5, None, float("nan"), float("inf"))]
    case.write(case.table(*rows), first=SECOND)
    assert case.ids() == ["one"] * 5
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
    with pytest.raises(ContractViolation, match="key id, amount is not unique"):
        case.write(case.table(*rows[1:2] * 2), first=SECOND)
    case.change(key=("id",), nullable_key=())
    with pytest.raises(ContractViolation, match=r"key was \('id', 'amount'\)"):
        case.write(case.table(row("two")))


CHANGES = {
    "a column that may not be null": lambda columns: (*columns, Column("added", "string", nullable=False)),
    "another type": lambda columns: _replaced(columns, Column("count", "float64")),
    "no longer null": lambda columns: _replaced(columns, Column("text", "string")),
    "a column less": lambda columns: tuple(c for c in columns if c.name != "kind"),
}


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_a_null_in_a_column_that_may_not_be_null_any_more(case, row):
    case.write(case.table(row("one", amount=None)))
    case.change(columns=_replaced(case.contract.columns, Column("amount", "float64", nullable=False)))
    new = case.table(row("two", day=1))
    with pytest.raises(ContractViolation, match="column 'amount' holds nulls in the lake") as refused:
        case.write(new, first=SECOND)
    (printed,) = re.findall(r"; run (.*), or undo", str(refused.value))
    execute(case, printed.replace("= ...", "= 0.5"))
    case.write(new, first=SECOND)
    assert sorted(case.read(columns=["amount"])["amount"].to_pylist()) == [0.5, 1.5]


@pytest.mark.parametrize("case", ["postgres", "serving"], indirect=True)
def test_two_assets_never_share_a_table(case, row, monkeypatch):
    case.change(unique_across_days=True)
    data, first = case.table(row("one")), case.contract.asset
    second = {"postgres/events": "serving/events", "serving/events": "postgres/events"}[first]
    case.contracts[second] = case.contract
    case.write(data)
    case.change(asset=second)
    with pytest.raises(
        ContractViolation, match=f'{second}: the table "public"."events" is that of {first}; '
    ):
        case.write(data)
    execute(case, 'DROP TABLE "public"."events"')
    case.write(data)
    case.change(asset=first)
    with pytest.raises(ContractViolation, match=f"is that of {second}; "):
        case.write(data)


def _replaced(columns, new):
    return tuple(new if c.name == new.name else c for c in columns)


@pytest.mark.parametrize("change", CHANGES)
def test_the_printed_migration_runs_and_the_next_write_succeeds(case, row, change):
    case.write(case.table(row("one")))
    case.change(columns=CHANGES[change](case.contract.columns))
    data = case.table(row("two", added="x")).select(case.contract.names)
    try:
        case.write(data)
    except ContractViolation as refused:
        migrate(case, str(refused))
        case.write(data)
    assert case.ids() == ["two"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


IDENTITIES = {
    "another dimension": lambda contract: {
        "columns": _replaced(contract.columns, Column("vector", "vector", nullable=False, dimension=2))
    },
    "another key": lambda _: {"key": ("text",)},
    "keys across days": lambda _: {"unique_across_days": True},
    "another order": lambda _: {"order_by": ("text", "id")},
}


BY_DAY = ("duckdb", "postgres", "clickhouse-server", "chroma", "sqlite")
"""Stores in which a key may stand on two days."""
WHERE = {
    "another dimension": (*BY_DAY, "serving"),
    "another key": (*BY_DAY, "serving"),
    "keys across days": BY_DAY,
    "another order": ("clickhouse-server",),  # elsewhere rows do not lie in that order
}


@pytest.mark.parametrize(
    ("change", "case"),
    [(change, store) for change, stores in WHERE.items() for store in stores],
    indirect=["case"],
)
def test_what_identifies_or_places_a_row_is_changed_with_a_new_table(case, row, change):
    case.write(case.table(row("one"), row("old", day=1)), days=2)
    case.change(**IDENTITIES[change](case.contract))
    vector = [0.5] * (case.contract.by_name["vector"].dimension or 0)
    data = case.table(row("two", text="two", vector=vector), row("new", day=1, text="new", vector=vector))
    with pytest.raises(ContractViolation, match=r"; run .*Nothing was written") as refused:
        case.write(data, days=2)
    assert case.store.ledger_state(case.contract).rows == 2
    migrate(case, str(refused.value))
    case.write(data, days=2)
    assert case.ids() == ["new", "two"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", ["chroma"], indirect=True)
def test_a_column_that_may_not_be_null_any_more_needs_new_entries(case, row):
    case.write(case.table(row("one", amount=None)))
    case.change(columns=_replaced(case.contract.columns, Column("amount", "float64", nullable=False)))
    with pytest.raises(
        ContractViolation, match="'amount' may be null in the collection's entries"
    ) as refused:
        case.write(case.table(row("two", day=1)), first=SECOND)
    migrate(case, str(refused.value))
    case.write(case.table(row("two", day=1)), first=SECOND)
    assert case.ids() == ["two"]


@pytest.mark.parametrize("longer", [True, False])
def test_partitions_of_another_length_are_stored_in_a_new_table(case, row, longer):
    daily, day, hour = case.partitions, SECOND, datetime(2026, 1, 2, 9)
    case.hourly()
    kinds = [(case.partitions, hour), (daily, day)]
    (case.partitions, first), (then, second) = kinds if longer else reversed(kinds)
    case.write(case.table(row("old", day=1)), first=first)
    case.partitions = then
    data = case.table(row("new", day=1))
    with pytest.raises(ContractViolation, match=r"a stored partition was as long as 1.* and is") as refused:
        case.write(data, first=second)
    assert case.ids() == ["old"]
    migrate(case, str(refused.value))
    case.write(data, first=second)
    assert case.ids() == ["new"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


FORMER = {
    "duckdb": "UPDATE lake.ledger.writes SET hash_version = '1' WHERE \"partition\" = '2026-01-02'",
    "postgres": "UPDATE ledger.writes SET hash_version = '1' WHERE partition = '2026-01-02'",
    "clickhouse": "ALTER TABLE write_ledger UPDATE hash_version = '1' WHERE partition = '2026-01-02' "
    "SETTINGS mutations_sync = 1",
    "sqlite": "UPDATE ml_assets_writes SET hash_version = '1' WHERE partition = '2026-01-02'",
}


@pytest.mark.parametrize("case", ["duckdb", "postgres", "clickhouse-server", "sqlite"], indirect=True)
def test_what_was_hashed_in_another_way_is_known_and_not_held_against_what_is_there(case, row):
    case.write(case.table(row("one"), row("two", day=1)), days=2)
    execute(case, FORMER[case.name])
    assert case.store.ledger_state(case.contract).rows == 1
    assert case.store.ledger_state(case.contract, any_version=True).rows == 2
    case.write(case.table(row("one"), row("two", day=1)), days=2)
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def migrate(case, said):
    """Run what the sentence says, with a value where it leaves one open."""
    if "forget(chroma, postgres, contract)" in said:
        from ml_assets.stores.chroma.maintenance import forget

        return forget(case.manager.chroma, case.manager.postgres, case.contract)
    if case.name == "chroma":
        pytest.skip(f"there is no statement for this: {said}")
    (printed,) = re.findall(r"; run (.*?)(?: and materialize all|, (?:or|make|materialize))", said)
    values = {"DEFAULT ...": "DEFAULT 'x'", "USING ...": 'USING "count"::double precision'}
    for open_end, value in values.items():
        printed = printed.replace(open_end, value)
    for statement in printed.split(" and "):
        execute(case, statement)
    return None


def execute(case, statement):
    if case.name == "clickhouse":
        with case.manager.clickhouse.client(write=True) as client:
            return client.command(statement)
    with connection_of(case) as connection:
        return connection.execute(statement)


def test_rows_that_somebody_changed_by_hand_are_mended_by_the_next_write(case, row):
    table = case.table(row("one"), row("two"))
    case.write(table)
    tamper(case)
    assert case.store.ledger_state(case.contract) != case.store.live_state(case.contract)
    case.write(table)
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
    assert case.read().sort_by("id").to_pylist() == table.to_pylist()


def test_verify_looks_at_the_tables_of_others_too(case, row):
    """All that a store was written is known there, so that `status --verify` needs no list of them."""
    assert case.store.contracts() == []
    case.write(case.table(row("one"), row("two")))
    (known,) = case.store.contracts()
    assert known.columns == case.contract.columns
    assert case.store.ledger_state(known) == case.store.live_state(known)


def tamper(case):
    """Change a value, or where a store's rows cannot be changed, delete one."""
    manager = case.manager
    match case.name:
        case "duckdb":
            with manager.lake.get_connection(write=True) as connection:
                connection.execute("UPDATE features.events SET amount = 7 WHERE id = 'one'")
        case "postgres" | "serving":
            with manager.postgres.connect(write=True) as connection:
                connection.execute("UPDATE events SET amount = 7 WHERE id = 'one'")
        case "clickhouse":
            with manager.clickhouse.client(write=True) as client:
                client.command(
                    "ALTER TABLE events UPDATE amount = 7 WHERE id = 'one' SETTINGS mutations_sync = 2"
                )
        case "sqlite":
            with manager.sqlite.connect(write=True) as connection:
                connection.execute("UPDATE events SET amount = 7 WHERE id = 'one'")
        case "chroma":
            collection = manager.chroma.client().get_collection("events", embedding_function=None)
            (entry,) = [i for i in collection.get(include=[])["ids"] if " one:" in i]
            collection.update(ids=[entry], metadatas=[{"amount": 7.0}])


@pytest.mark.parametrize("case", ["postgres", "sqlite", "serving"], indirect=True)
@pytest.mark.parametrize("mode", ["overwrite", "upsert_delete"])
def test_a_row_whose_day_changes_leaves_its_old_day(case, row, mode):
    case.change(mode=mode, unique_across_days=True)
    case.write(case.table(row("moves"), row("stays"), row("other", day=1)), days=2)
    case.write(case.table(row("moves", day=1), row("other", day=1)), first=SECOND)
    assert case.ids() == ["moves", "other", "stays"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", ["postgres", "sqlite", "duckdb", "serving"], indirect=True)
def test_an_upsert_leaves_the_columns_of_others_alone(case, row):
    case.change(mode="upsert", unique_across_days=True)
    case.write(case.table(row("one")))
    add_column_of_others(case)
    case.write(case.table(row("one", amount=9.0)))
    assert column_of_others(case) == [("one", "theirs", 9.0)]


def add_column_of_others(case):
    table = "features.events" if case.name == "duckdb" else "events"
    with connection_of(case) as connection:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN note TEXT")
        connection.execute(f"UPDATE {table} SET note = 'theirs'")


def column_of_others(case):
    table = "features.events" if case.name == "duckdb" else "events"
    with connection_of(case) as connection:
        return connection.execute(f"SELECT id, note, amount FROM {table}").fetchall()


def connection_of(case):
    manager = case.manager
    if case.name == "duckdb":
        return manager.lake.get_connection(write=True)
    return (manager.sqlite if case.name == "sqlite" else manager.postgres).connect(write=True)


@pytest.mark.parametrize("case", ["postgres"], indirect=True)
def test_rows_outside_the_scope_are_never_touched(case, row):
    case.change(mode="upsert_delete", scope=(("kind", "a"),), unique_across_days=True)
    case.write(case.table(row("ours")))
    with connection_of(case) as connection:
        connection.execute(
            "INSERT INTO events (id, happened_at, text, vector, kind) "
            "VALUES ('theirs', '2026-01-01 10:00Z', 'x', '[1,2,3]', 'b')"
        )
    case.write(case.table(row("new")))
    assert case.ids() == ["new", "theirs"]
    assert case.store.ledger_state(case.contract).rows == 1
    with pytest.raises(
        ContractViolation, match="'theirs' belongs to a row that was not written by this asset"
    ):
        case.write(case.table(row("theirs")))
    assert case.ids() == ["new", "theirs"]
    with pytest.raises(ContractViolation, match="but only rows with 'a' may be written"):
        case.write(case.table(row("bad", kind="b")))


@pytest.mark.parametrize("case", ["sqlite"], indirect=True)
def test_a_foreign_key_that_points_nowhere_is_refused(case, row, monkeypatch):
    from ml_assets.contracts import ForeignKey

    case.change(mode="upsert_delete", unique_across_days=True)
    case.write(case.table(row("parent")))
    parent = case.contract
    child = type(parent)(
        "sqlite/children",
        "",
        (Column("id", "string"), Column("parent", "string")),
        key=("id",),
        foreign_keys=(ForeignKey("parent", "events", "id"),),
    )
    case.contracts[child.asset] = child
    case.contract = child
    case.write(case.table({"id": "a", "parent": "parent"}), first=None)
    with pytest.raises(ContractViolation, match="holds 'nobody', which events"):
        case.write(case.table({"id": "b", "parent": "nobody"}), first=None)
    assert case.ids() == ["a"]


@pytest.mark.parametrize("case", ["postgres", "sqlite"], indirect=True)
def test_a_foreign_key_that_a_contract_gains_holds_for_old_rows_and_new_ones(case, monkeypatch):
    identity, parent = Column("id", "int64", nullable=False), Column("parent", "int64")
    case.change(columns=(identity,), key=("id",), partition_column=None, mode="upsert_delete")
    case.write(case.table({"id": 1}, {"id": 2}), first=None)
    case.contract = replace(case.contract, asset=f"{case.name}/children", columns=(identity, parent))
    case.write = partial(case.write, first=None)
    case.contracts[case.contract.asset] = case.contract
    case.write(case.table({"id": 1, "parent": 99}, {"id": 2, "parent": 1}))
    case.change(foreign_keys=(ForeignKey("parent", "events", "id"),))
    for rows in ([{"id": 1, "parent": 99}, {"id": 2, "parent": 1}], [{"id": 3, "parent": 98}]):
        with pytest.raises(ContractViolation, match=f"{case.contract.asset}: .*9[89].*events"):
            case.write(case.table(*rows))
    mended = case.table({"id": 1, "parent": 2}, {"id": 2, "parent": None})
    case.write(mended)
    with pytest.raises(ContractViolation, match=f"{case.contract.asset}: .*97.*events"):
        case.write(case.table({"id": 3, "parent": 97}))
    assert case.read().sort_by("id").equals(mended)


@pytest.mark.parametrize("case", ["postgres"], indirect=True)
def test_a_vector_that_is_added_later_has_its_index_too(case, row):
    case.write(case.table(row("one")))
    case.change(columns=(*case.contract.columns, Column("late", "vector", dimension=2)))
    case.write(case.table(row("two", late=[1.0, 2.0])))
    with connection_of(case) as connection:
        indexes = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'events' AND indexdef LIKE '%hnsw%' ORDER BY 1"
        ).fetchall()
    assert [re.findall(r"hnsw \((\w+)", definition) for (definition,) in indexes] == [["late"], ["vector"]]


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_tables_that_differ_in_upper_and_lower_case_only(case, row, monkeypatch):
    case.write(case.table(row("one")))
    other = replace(case.contract, asset="duckdb/Events")
    case.contracts[other.asset] = other
    case.contract = other
    with pytest.raises(ContractViolation, match="duckdb/Events: the lake has a table 'events'") as refused:
        case.write(case.table(row("two")))
    (printed,) = re.findall(r"; .*run (.*) if the other", str(refused.value))
    execute(case, printed)
    case.write(case.table(row("two")))
    assert case.ids() == ["two"]


@pytest.mark.parametrize("case", ["postgres", "duckdb"], indirect=True)
@pytest.mark.parametrize("partitioned", [True, False])
def test_an_upsert_that_changes_nothing_counts_the_rows_of_others(case, row, partitioned):
    case.change(mode="upsert", **({} if partitioned else {"partition_column": None}))
    first = FIRST if partitioned else None
    case.write(case.table(row("one")), first=first)
    table = "features.events" if case.name == "duckdb" else "events"
    execute(
        case,
        f"INSERT INTO {table} (id, happened_at, text, vector) "
        "VALUES ('theirs', '2026-01-01 10:00:00+00', 'x', '[1,2,3]')",
    )
    result = case.write(case.table(row("one")), first=first)
    (event,) = result.get_asset_materialization_events()
    found = event.materialization.metadata
    count = found["dagster/partition_row_count" if partitioned else "dagster/row_count"].value
    assert (count, found["written"].value) == (2, False)
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
