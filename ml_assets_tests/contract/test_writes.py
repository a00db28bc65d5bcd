"""What every IO manager promises about a write, in all six stores."""

from datetime import date

import dagster as dg
import psutil
import pyarrow as pa
import pytest

from ml_assets.contracts import Column
from ml_assets.errors import ContractViolation

FIRST, SECOND = date(2026, 1, 1), date(2026, 1, 2)


@pytest.mark.embedded
def test_rows_come_back_as_they_were_written(case, row):
    given = case.table(
        row("one"), row("two", amount=None, count=None, flag=None, due=None, document=None, kind=None)
    )
    case.write(given)
    assert case.read().sort_by("id").to_pylist() == given.to_pylist()
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
    assert case.store.ledger_state(case.contract).rows == 2


def test_columns_in_another_order_are_mapped_by_name(case, row):
    """`text` and `kind`, `amount` and `count` are of one type or nearly: by position they would change places."""
    given = case.table(row("one", text="b", kind="a", amount=2.0, count=7))
    case.write(given.select(given.column_names[::-1]))
    case.write(case.table(row("two", day=1)).to_pandas().sort_index(axis="columns"), first=SECOND)
    assert case.read().sort_by("id").to_pylist() == [*given.to_pylist(), row("two", day=1)]


def test_overwriting_one_day_leaves_the_other(case, row):
    case.write(case.table(row("one"), row("two", day=1)), days=2)
    case.write(case.table(row("three", day=1)), first=SECOND)
    assert case.ids() == ["one", "three"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def test_an_empty_result_empties_the_partition(case, row):
    case.write(case.table(row("one"), row("two", day=1)), days=2)
    case.write(case.table(), first=SECOND)
    assert case.ids() == ["one"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


WRONG_COLUMNS = [
    (lambda table: table.drop_columns(["amount"]), "misses 'amount'"),
    (lambda table: table.append_column("odd", pa.array([1] * table.num_rows)), "does not know 'odd'"),
    (
        lambda table: table.set_column(4, "amount", pa.array(["x"] * table.num_rows)),
        "'amount' is string and does not fit float64; it holds 'x'",
    ),
]


def test_wrong_columns_are_refused_and_old_rows_stay(case, row):
    case.write(case.table(row("old")))
    for change, words in WRONG_COLUMNS:
        with pytest.raises(Exception) as caught:
            case.write(change(case.table(row("new"))))
        assert words in str(caught.value)
    assert case.ids() == ["old"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", ["sqlite"], indirect=True)
@pytest.mark.parametrize("partition_column", [None, "happened_at"])
def test_partitions_that_are_not_of_time_are_refused(case, row, partition_column):
    case.change(partition_column=partition_column)

    @dg.asset(key=case.key, io_manager_key="io", partitions_def=dg.StaticPartitionsDefinition(["eu", "us"]))
    def table():
        return case.table(row("one"))

    with pytest.raises(
        TypeError, match="sqlite/events has partitions of StaticPartitionsDefinition, and only"
    ):
        dg.materialize([table], resources={"io": case.manager}, partition_key="eu", instance=case.instance)


WRONG_VALUES = [
    ({"id": None}, "column 'id' holds None in 1 row, but may not be null"),
    ({"count": -1}, "column 'count' holds -1 in 1 row, outside the range 0 to"),
    ({"kind": "c"}, "column 'kind' holds 'c' in 1 row, but only a, b are allowed"),
    ({"vector": [1.0]}, "whose length is not 3"),
    ({"vector": [1.0, 2.0, float("nan")]}, "finite numbers only"),
    ({"day": 1}, "outside the partitions being written"),
    ({"id": "new"}, ": 'new' (2 times); deduplicate upstream"),
    ({"document": "{"}, "column 'document'"),
]


def test_wrong_values_are_refused_and_old_rows_stay(case, row):
    case.write(case.table(row("old")))
    for wrong, words in WRONG_VALUES:
        bad = row("bad", wrong.get("day", 0)) | {k: v for k, v in wrong.items() if k != "day"}
        with pytest.raises(ContractViolation) as caught:
            case.write(case.table(row("new"), bad))
        assert words in str(caught.value)
        assert str(caught.value).startswith(f"{case.contract.asset}: ")
    assert case.ids() == ["old"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.embedded
def test_unchanged_content_is_not_written_again(case, row):
    table = case.table(row("one"), row("two"))
    assert _written(case.write(table), case) is True
    assert _written(case.write(table.take([1, 0])), case) is False
    assert _written(case.write(case.table(row("one"))), case) is True


@pytest.mark.embedded
def test_a_whole_table_is_replaced(case, row):
    case.change(partition_column=None)
    case.write(case.table(row("one"), row("two", day=1)), first=None)
    case.write(case.table(row("two", day=1), row("three")), first=None)
    assert case.ids() == ["three", "two"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("mode", ["overwrite", "upsert_delete"])
def test_a_run_without_partitions_keeps_the_days_that_have_not_changed(case, row, mode):
    case.change(mode=mode)
    case.write(case.table(row("one"), row("two", day=1), row("gone", day=2)), first=None)
    case.write(case.table(row("one"), row("two", day=1, amount=9.0)), first=None)
    found = {r["id"]: r["amount"] for r in case.read(columns=["id", "amount"]).to_pylist()}
    assert found == {"one": 1.5, "two": 9.0}
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)
    assert (
        _written(case.write(case.table(row("one"), row("two", day=1, amount=9.0)), first=None), case) is False
    )


def test_rows_may_be_ordered_by_what_may_be_null(case, row):
    case.change(order_by=("kind", "amount", "due"))
    given = case.table(row("none", kind=None, amount=None, due=None), row("some"))
    case.write(case.table(row("old")))
    case.write(given)
    assert case.read().sort_by("id").to_pylist() == given.to_pylist()


@pytest.mark.parametrize(
    "given", [{"text": "b", "kind": "a"}, {"text": "b", "kind": "b"}], ids=["swap", "same"]
)
def test_values_that_change_in_two_columns_at_once_are_written(case, row, given):
    """Of which a hash that adds up its columns would not know."""
    before = {"text": "a", "kind": "b"} if given["kind"] == "a" else {"text": "a", "kind": "a"}
    case.write(case.table(row("one", **before)))
    assert _written(case.write(case.table(row("one", **given))), case) is True
    assert case.read().to_pylist() == [row("one", **given)]


def test_upsert_delete_ends_in_the_given_rows(case, row):
    case.change(mode="upsert_delete")
    case.write(case.table(row("one"), row("two"), row("far", day=1)), days=2)
    case.write(case.table(row("two", amount=9.0), row("three")))
    assert case.ids() == ["far", "three", "two"]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize(
    "case", ["duckdb", "postgres", "clickhouse", "clickhouse-server", "chroma", "sqlite"], indirect=True
)
def test_upsert_delete_deletes_a_key_that_vanished_on_one_of_its_days(case, row):
    case.change(mode="upsert_delete")
    case.write(case.table(row("one"), row("one", day=1), row("two", day=1)), days=2)
    case.write(case.table(row("two"), row("one", day=1, amount=9.0)), days=2)
    found = case.read(columns=["id", "amount"]).to_pylist()
    assert sorted((r["id"], r["amount"]) for r in found) == [("one", 9.0), ("two", 1.5)]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("first", [FIRST, None])
def test_an_unchanged_upsert_is_not_written_again(case, row, first):
    case.change(mode="upsert", partition_column="happened_at" if first else None)
    case.write(case.table(row("one"), row("two")), first=first)
    assert _written(case.write(case.table(row("two")), first=first), case) is False
    assert _written(case.write(case.table(row("two", amount=9.0)), first=first), case) is True
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.embedded
def test_upsert_deletes_nothing(case, row):
    case.change(mode="upsert", unique_across_days=True)
    case.write(case.table(row("one"), row("two")))
    case.write(case.table(row("two", amount=9.0), row("three")))
    found = {r["id"]: r["amount"] for r in case.read(columns=["id", "amount"]).to_pylist()}
    assert found == {"one": 1.5, "two": 9.0, "three": 1.5}
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def test_an_upsert_of_scattered_days(case, row):
    case.change(mode="upsert")
    every = [row(f"{day}", day) for day in range(10)]
    case.write(case.table(*every), days=10)
    odd = [row(f"{day}", day, amount=2.0) for day in range(1, 10, 2)]
    assert _written(case.write(case.table(*odd), days=10), case) is True
    assert _written(case.write(case.table(*odd), days=10), case) is False
    found = {r["id"]: r["amount"] for r in case.read(columns=["id", "amount"]).to_pylist()}
    assert found == {f"{day}": 1.0 + day % 2 if day % 2 else 1.5 for day in range(10)}
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def _written(result, case):
    events = [e for e in result.get_asset_materialization_events() if e.asset_key == case.key]
    (written,) = {
        event.materialization.metadata["written"].value for event in events
    }  # of all its partitions
    return written


@pytest.mark.parametrize("case", ["serving"], indirect=True)
def test_lookup_sees_what_was_overwritten_and_deleted(case, row):
    """From Redis itself: what is asked of PostgreSQL instead would be right as well."""
    case.write(case.table(row("one"), row("two"), row("far", day=1)), days=2)
    case.write(case.table(row("one", amount=9.0)))
    assert found_in_redis(case, "one") == row("one", amount=9.0)
    assert found_in_redis(case, "two") is None
    assert found_in_redis(case, "far") == row("far", day=1)
    case.write(case.table(), days=2)
    assert found_in_redis(case, "one") is None
    assert found_in_redis(case, "far") is None


@pytest.mark.parametrize("case", ["serving"], indirect=True)
def test_lookup_after_a_column_was_added(case, row):
    case.write(case.table(row("one")))
    case.change(columns=(*case.contract.columns, Column("added", "string")))
    case.write(case.table(row("one")))
    assert found_in_redis(case, "one") == row("one", added=None)


@pytest.mark.parametrize("case", ["serving"], indirect=True)
def test_lookup_by_a_key_that_may_stand_on_two_days_is_refused(case, row):
    case.change(unique_across_days=False)
    with pytest.raises(ContractViolation, match="a row is looked up by its key alone: name the metadata"):
        case.write(case.table(row("one"), row("one", day=1)), days=2)
    case.change(partition_column=None)
    case.write(case.table(row("one")), first=None)
    assert case.ids() == ["one"]


@pytest.mark.parametrize("case", ["serving"], indirect=True)
def test_the_client_of_redis_is_closed_when_a_write_fails(case, row, monkeypatch):
    from redis import Redis

    closed, original = [], Redis.close
    monkeypatch.setattr(Redis, "close", lambda self: closed.append(self) or original(self))
    case.write(case.table(row("one")))
    assert len(closed) == 1
    with case.manager.postgres.connect(write=True) as connection:
        connection.execute("ALTER TABLE events DROP COLUMN kind, ADD COLUMN kind bigint")
    with pytest.raises(ContractViolation, match="column 'kind' is bigint in the database"):
        case.write(case.table(row("two")))
    assert len(closed) == 2


def found_in_redis(case, entity):
    """What `lookup` gives, which must be the same without PostgreSQL wherever Redis has the row."""
    from ml_assets.resources.postgres import PostgresResource
    from ml_assets.stores.redis.lookup import lookup

    found = case.manager.lookup(case.contract.asset, entity)
    if found is not None:
        nowhere = PostgresResource(url="postgresql://127.0.0.1:9/none")
        with case.manager.redis.client() as cache:
            assert lookup(cache, nowhere, case.contract, entity) == found
    return found


def test_nothing_stays_open(case, row):
    """Sockets and files of a hundred writes in one process would add up."""

    def written_and_read(version: int) -> int:
        case.write(case.table(row("one", count=version)))
        case.read()
        return psutil.Process().num_fds()

    if case.name == "clickhouse":
        pytest.skip("chDB leaves threads with open files behind, and raises the limit on files for it")
    # The first ones open what a process keeps: the engine in it, a pool of connections.
    opened = [written_and_read(version) for version in range(5)]
    assert opened[-1] <= opened[2], opened
