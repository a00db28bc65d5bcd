"""Events that expire: what stays of them, and what is compared."""

from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from ml_assets.contracts import tables
from ml_assets.lib.days import DayRange
from ml_assets.operations.agreements import AGREEMENTS
from ml_assets.operations.performance_retention import kept_of, with_expired
from ml_assets.operations.performance_rollups import EVENTS, HOURLY, microseconds, rollup_sql
from ml_assets.operations.reconcile import compare
from ml_assets.settings import Settings
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.store import Retention
from ml_assets.tables.validation import Window

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
KEPT = 3
DAYS = DayRange((TODAY - timedelta(days=6)).date(), (TODAY - timedelta(days=1)).date())


def test_rollups_outlive_their_events_and_nothing_is_told_as_damaged(clickhouse):
    contracts = tables(Settings(performance_ttl_days=KEPT))
    assert contracts[EVENTS].kept_days == KEPT
    store, events, hourly = ClickHouseStore(clickhouse), contracts[EVENTS], contracts[HOURLY]
    rows = [
        {
            "event_id": f"e{n}",
            "kind": "inference",
            "timestamp": TODAY - timedelta(days=n, hours=-1),
            "model_name": "m",
        }
        for n in range(1, 7)
    ]

    def put(contract, data, days=DAYS):
        with closing(stage(data, contract, store.limits, Window(days.start, days.end))) as staged:
            store.write(contract, staged)

    def rebuilt(days=DAYS):
        with clickhouse.client() as client:
            made = client.query_arrow(rollup_sql(HOURLY), microseconds(days), use_strings=True)
        return with_expired(clickhouse, hourly, events, made, days)

    def compared():
        fetch = lambda _, statement: clickhouse.answer(statement).to_pylist()  # noqa: E731
        rows = lambda s, statement: [tuple(row.values()) for row in fetch(s, statement)]  # noqa: E731
        (agreement,) = [each for each in AGREEMENTS[HOURLY] if each.parent == EVENTS]
        return compare(contracts, HOURLY, agreement, rows)

    put(events, pa.Table.from_pylist(rows, arrow_schema(events)))
    put(hourly, rebuilt())
    before = store.live_state(hourly)
    assert rebuilt().num_rows == 6
    told = list(store.maintain(Retention(timedelta(days=7), kept_days={EVENTS: KEPT})))
    assert told[0] == f"Dropped 3 partitions of ml_model_performance with 3 rows: older than {KEPT} days."
    assert store.live_state(events) == store.ledger_state(events)
    assert store.live_state(events).rows == KEPT
    put(hourly, rebuilt())
    assert store.live_state(hourly) == before
    assert not compared().differences
    # A day that is written again is rolled up from its events.
    late = {**rows[-1], "event_id": "late"}
    first = DayRange(DAYS.first, DAYS.first)
    put(events, pa.Table.from_pylist([rows[-1], late], arrow_schema(events)), first)
    put(hourly, rebuilt(first), first)
    assert rebuilt().sort_by("hour")["request_count"].to_pylist() == [2, 1, 1, 1, 1, 1]


def test_only_days_that_are_kept_are_compared_with_their_events():
    kept = tables(Settings(performance_ttl_days=KEPT))[EVENTS]
    end = TODAY.date()
    first = end - timedelta(days=KEPT)
    assert kept_of(kept, None) == (first, end)
    assert kept_of(kept, (date(2020, 1, 1), date(2020, 1, 3))) == (first, first)
    assert kept_of(kept, (end, end)) == (end, end)
    assert kept_of(tables(Settings())[EVENTS], None) is None
