"""A table of ClickHouse that is written by the day and stored by the month: every rule of writing holds for its days."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import Column, Contract
from ml_assets.errors import WriteBusy
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.stores.clickhouse import ClickHouseStore, ledger
from ml_assets.stores.clickhouse.catalog import rows_by_partition
from ml_assets.stores.clickhouse.ddl import create_statement
from ml_assets.stores.clickhouse.lock import writing
from ml_assets.stores.clickhouse.redo import recover
from ml_assets.stores.clickhouse.rows import measured
from ml_assets.stores.clickhouse.write import write
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import bucket_name, stage
from ml_assets.tables.store import Retention
from ml_assets.tables.validation import WHOLE, Window
from ml_assets_tests.scale import LONG, examples

LIMITS = ClickHouseStore.limits
COLUMNS = (
    Column("day", "date", nullable=False),
    Column("id", "string", nullable=False),
    Column("version", "int64", nullable=False),
    Column("note", "string"),
)
MONTHS = Contract(
    "clickhouse/rollup",
    "",
    COLUMNS,
    key=("day", "id"),
    partition_column="day",
    unique_across_days=True,
    stored_by_month=True,
)
DAYS = replace(MONTHS, stored_by_month=False)
FIRST = date(2026, 1, 30)
"""The third day after is the second of February."""

Rows = dict[int, dict[str, int]]
"""Version by id, by number of the day."""


def moment(day: int) -> datetime:
    return datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC) + timedelta(days=day)


def table(rows: Rows, contract: Contract = MONTHS) -> pa.Table:
    whole_days = contract.by_name["day"].type == "date"
    given = [
        {"day": moment(day).date() if whole_days else moment(day), "id": name, "version": version}
        for day, ids in rows.items()
        for name, version in ids.items()
    ]
    return pa.Table.from_pylist(given, arrow_schema(contract))


def put(
    store: ClickHouseResource,
    rows: Rows,
    window: Window,
    contract: Contract = MONTHS,
    client: Client | None = None,
) -> bool:
    """Write some days; `client` writes instead of the lock's own."""
    with (
        writing(store, contract.table) as own,
        closing(stage(table(rows, contract), contract, LIMITS, window)) as staged,
    ):
        return write(store, client or own, contract, staged)


def days(first: int, last: int) -> Window:
    return Window(moment(first), moment(last + 1))


def held(client: Any, contract: Contract = MONTHS) -> Rows:
    """What a reader sees; the ledger says the same of each day, and a month lies in one part."""
    found: Rows = {}
    query = f"SELECT toDate32(day), id, version FROM {contract.table}"
    for day, name, version in client.query(query).result_rows:
        ids = found.setdefault((day - FIRST).days, {})
        assert name not in ids, "a row stands twice"
        ids[name] = version
    assert ledger.buckets(client, contract) == measured(client, contract, WHOLE)
    months = {f"{moment(day):%Y%m}" for day in found}
    assert rows_by_partition(client, contract.table).keys() == months
    return found


def leftovers(client: Any) -> int:
    query = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name LIKE '%\\_\\_%'"
    return int(client.query(query).result_rows[0][0])


@pytest.fixture(params=["clickhouse", "shared_clickhouse_server"])
def store(request: pytest.FixtureRequest) -> ClickHouseResource:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(("kind", "mode"), [("date", "overwrite"), ("timestamp", "upsert")])
def test_days_are_written_and_the_rest_of_their_months_stays(store, kind, mode):
    columns = (replace(COLUMNS[0], type=kind), *COLUMNS[1:])
    contract = replace(MONTHS, columns=columns, mode=mode)
    kept = {"b": 1} if mode == "upsert" else {}
    with store.client() as client:
        put(store, {day: {"a": 1, "b": 1} for day in range(4)}, days(0, 3), contract)
        # Two days of four, one of each month; both have a late row.
        assert put(store, {1: {"a": 2, "c": 2}, 2: {"a": 2}}, days(1, 2), contract)
        old = {"a": 1, "b": 1}
        expected = {0: old, 1: {**kept, "a": 2, "c": 2}, 2: {**kept, "a": 2}, 3: old}
        assert held(client, contract) == expected
        assert not put(store, {1: expected[1], 2: expected[2]}, days(1, 2), contract), "nothing was new"
        noted = client.query(
            "SELECT partition, count() FROM write_ledger GROUP BY partition ORDER BY partition"
        )
        assert [name for name, _ in noted.result_rows] == [f"{moment(day):%Y-%m-%d}" for day in range(4)]
        read = ClickHouseStore(store).read(contract, ["id"], days(3, 3)).read_all()
        assert sorted(read["id"].to_pylist()) == ["a", "b"], "a day is read by itself"
        assert leftovers(client) == 0
        parts = client.query("SELECT count() FROM system.parts WHERE table = 'rollup' AND active").result_rows
        assert parts == [(2,)], "a reader opens one part a month"


def test_a_day_without_rows_leaves_the_others_and_a_month_without_days_is_gone(clickhouse):
    with clickhouse.client() as client:
        put(clickhouse, {day: {"a": 1} for day in range(4)}, days(0, 3))
        assert put(clickhouse, {}, days(1, 1))
        assert held(client) == {0: {"a": 1}, 2: {"a": 1}, 3: {"a": 1}}
        assert put(clickhouse, {}, days(2, 3))
        assert held(client) == {0: {"a": 1}}
        assert put(clickhouse, {3: {"b": 1}}, WHOLE), "all of it: other days go"
        assert held(client) == {3: {"b": 1}}


def test_only_what_was_written_is_noted_and_a_tampered_day_stays_one(clickhouse):
    """Its rows are taken along as they are when another day of its month is written, and are told all the same."""
    with clickhouse.client(write=True) as client:
        put(clickhouse, {0: {"a": 1}, 1: {"a": 1}}, days(0, 1))
        client.command(
            "ALTER TABLE rollup UPDATE version = 7 WHERE day = '2026-01-30' SETTINGS mutations_sync = 2"
        )
        assert put(clickhouse, {1: {"a": 2}}, days(1, 1))
        live, noted = measured(client, MONTHS, WHOLE), ledger.buckets(client, MONTHS)
        assert [bucket_name(b, MONTHS) for b in noted if noted[b] != live[b]] == ["2026-01-30"]
        told = ClickHouseStore(clickhouse)
        assert told.live_state(MONTHS) != told.ledger_state(MONTHS)
        assert put(clickhouse, {0: {"a": 1}}, days(0, 0)), "the day is written again"
        assert held(client) == {0: {"a": 1}, 1: {"a": 2}}


def test_days_that_have_expired_go_by_themselves(clickhouse):
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    number = (today - moment(0)).days
    retention = Retention(timedelta(days=7), kept_days={MONTHS.asset: 3})
    with clickhouse.client() as client:
        put(clickhouse, {number - n: {"a": n} for n in range(1, 8)}, days(number - 7, number - 1))
        told = list(ClickHouseStore(clickhouse).maintain(retention))
        assert told[0] == "Dropped 4 partitions of rollup with 4 rows: older than 3 days."
        assert held(client) == {number - n: {"a": n} for n in range(1, 4)}


class Killed(BaseException):
    """What a killed writer meets at each statement that it does not come to."""


class Dying:
    """A client that changes nothing from its n-th change on, as that of a writer that was killed then."""

    def __init__(self, client: Client, nth: int) -> None:
        self._client, self._left = client, nth

    def _change(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise Killed

    def command(self, statement: str, *given: Any, **named: Any) -> Any:
        self._change()
        return self._client.command(statement, *given, **named)

    def insert_arrow(self, *given: Any, **named: Any) -> Any:
        self._change()
        return self._client.insert_arrow(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@contextmanager
def killed_at_each_change(store: ClickHouseResource) -> Iterator[Iterator[tuple[Client, Client]]]:
    """Clients of writers that are killed before their first, their second ... change, or before every third one."""
    with store.client(write=True) as client:
        yield ((cast(Client, Dying(client, nth)), client) for nth in range(1, 40, 1 if LONG else 3))


def test_a_killed_write_leaves_old_or_new_days(clickhouse):
    """Two months at once."""
    old = {day: {"a": 1, "b": 1} for day in range(4)}
    new = {0: old[0], 1: {"a": 2}, 2: {"c": 2}, 3: old[3]}
    seen = set()
    with killed_at_each_change(clickhouse) as writers:
        for dying, client in writers:
            put(clickhouse, old, days(0, 3))
            try:
                put(clickhouse, {1: new[1], 2: new[2]}, days(1, 2), client=dying)
            except Killed:
                recover(client, alone=True)
                assert leftovers(client) == 0
                found = held(client)
                assert found in (old, new)
                seen.add(found == new)
            else:
                break
    assert seen == {False, True}, "some were killed before their commit, and some after it"


@pytest.mark.parametrize("before", [MONTHS, DAYS], ids=["of the month", "of the table"])
def test_who_was_taken_for_dead_leaves_the_days_of_whoever_came_since(clickhouse, before):
    store, old = clickhouse, {0: {"a": 1}, 1: {"a": 1}}
    put(store, old, days(0, 1), before)
    with (
        writing(store, "rollup") as client,
        closing(stage(table({0: {"a": 2}}), MONTHS, LIMITS, days(0, 0))) as staged,
    ):
        client.command(f"RENAME TABLE rollup__lock TO rollup__lock__{'0' * 32}")
        with pytest.raises(WriteBusy, match=r"taken over by another writer.*Nothing was written"):
            write(store, client, MONTHS, staged)
        assert measured(client, MONTHS, WHOLE) == ledger.buckets(client, MONTHS)
        kept = {"202601"} if before is MONTHS else {"20260130", "20260131"}
        assert rows_by_partition(client, "rollup").keys() == kept


def test_a_table_by_the_day_becomes_one_by_the_month(store):
    rows = {day: {"a": 1, "b": day} for day in range(4)}
    with store.client() as client:
        put(store, rows, days(0, 3), DAYS)
        assert len(rows_by_partition(client, "rollup")) == 4
        before = ledger.buckets(client, DAYS)
        assert not put(store, {0: rows[0]}, days(0, 0)), "its rows are the same ones"
        assert held(client) == rows
        assert ledger.buckets(client, MONTHS) == before
        assert put(store, {0: {"a": 2}}, days(0, 0))
        assert held(client) == rows | {0: {"a": 2}}
        put(store, {0: rows[0]}, days(0, 0), DAYS)
        assert len(rows_by_partition(client, "rollup")) == 4, "and one by the day again"
        assert ledger.buckets(client, DAYS) == measured(client, DAYS, WHOLE) == before
        assert leftovers(client) == 0


def test_whoever_is_killed_meanwhile_leaves_all_rows(clickhouse):
    rows, new = {day: {"a": 1} for day in range(4)}, {"a": 2}
    with killed_at_each_change(clickhouse) as writers:
        for dying, client in writers:
            put(clickhouse, rows, days(0, 3), DAYS)
            try:
                put(clickhouse, {1: new}, days(1, 1), client=dying)
            except Killed:
                recover(client, alone=True)
                assert leftovers(client) == 0
                assert ledger.buckets(client, MONTHS) == measured(client, MONTHS, WHOLE)
                put(clickhouse, {1: new}, days(1, 1))
                assert held(client) == rows | {1: new}
            else:
                assert held(client) == rows | {1: new}
                break
        else:
            pytest.fail("a write of more than 40 statements")


def test_what_was_committed_by_the_day_is_finished_before_the_table_changes(clickhouse):
    """By a former version that was killed: its plan names days."""
    with clickhouse.client(write=True) as client:
        put(clickhouse, {0: {"a": 1}, 1: {"a": 1}}, days(0, 1), DAYS)
        for nth in range(1, 40):
            with pytest.raises(Killed):
                put(clickhouse, {1: {"a": 2}}, days(1, 1), DAYS, cast(Client, Dying(client, nth)))
            found = client.query("SELECT count() FROM system.tables WHERE name LIKE '%\\_\\_ready\\_\\_%'")
            if found.result_rows == [(1,)]:
                break
            recover(client, alone=True)
        assert put(clickhouse, {0: {"a": 3}}, days(0, 0))
        assert held(client) == {0: {"a": 3}, 1: {"a": 2}}


NUMBERS = st.integers(0, 5)
WRITES = st.tuples(
    st.sampled_from(["overwrite", "whole", "upsert"]),
    NUMBERS,
    NUMBERS,
    st.dictionaries(NUMBERS, st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), min_size=1)),
)


@given(st.lists(WRITES, min_size=1, max_size=5))
@settings(
    max_examples=examples(4), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_writes_end_in_the_rows_that_days_of_their_own_would_have(clickhouse, writes):
    expected: Rows = {}
    with clickhouse.client(write=True) as client:
        client.command("DROP TABLE IF EXISTS rollup SYNC")
        for mode, one, other, rows in writes:
            first, last = sorted((one, other))
            contract = replace(MONTHS, mode="upsert" if mode == "upsert" else "overwrite")
            inside = {day: ids for day, ids in rows.items() if first <= day <= last}
            if mode == "whole":
                expected = rows
                put(clickhouse, rows, WHOLE, contract)
            elif mode == "upsert":
                expected = expected | {day: expected.get(day, {}) | ids for day, ids in inside.items()}
                put(clickhouse, inside, days(first, last), contract)
            else:
                others = {day: ids for day, ids in expected.items() if not first <= day <= last}
                expected = others | inside
                put(clickhouse, inside, days(first, last), contract)
            assert held(client, contract) == expected


def test_the_statement_names_the_month():
    assert 'PARTITION BY toYYYYMM("day") ORDER BY' in create_statement(MONTHS)
    assert 'PARTITION BY toYYYYMMDD("day") ORDER BY' in create_statement(DAYS)


@pytest.mark.parametrize("changes", [{"asset": "sqlite/rollup"}, {"partition_column": None}])
def test_only_partitioned_tables_of_clickhouse_are_stored_by_month(changes):
    with pytest.raises(ValueError, match="stored_by_month is for partitioned tables of ClickHouse only"):
        replace(MONTHS, **changes)
