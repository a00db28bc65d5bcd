"""What Dagster and a refresh ask for where tables look back on earlier days: exactly the days that read a late row."""

from collections.abc import Iterable, Set
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from ml_assets.automation import PARTITIONED, WHOLE, WINDOWED
from ml_assets.build import build_defs
from ml_assets.cli.refresh import Refresher
from ml_assets.defs.raw.sensors import with_following
from ml_assets.lib.days import DayRange
from ml_assets.lib.windows import outrun, reached, reaches
from ml_assets.operations.performance_trends import LOOKBACK_DAYS
from ml_assets.partitions import daily_partitions, lookback_days, looking_back
from ml_assets.settings import Settings

DAYS = daily_partitions(date(2026, 1, 1))


def daily(name: str, parents: dict[str, int], condition: Any = PARTITIONED) -> dg.AssetsDefinition:
    """A table that looks back on each parent by so many days."""

    @dg.asset(
        name=name,
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=condition,
        deps=[dg.AssetDep(parent, partition_mapping=looking_back(days)) for parent, days in parents.items()],
        code_version="1",
    )
    def table() -> None: ...

    return table


@dg.asset(deps=["high"], automation_condition=WHOLE)
def whole() -> None: ...


DEFS = dg.Definitions(
    assets=[
        daily("raw", {}, None),
        daily("scored", {"raw": 0}),
        daily("low", {"raw": 2}, WINDOWED),
        daily("middle", {"low": 5}, WINDOWED),
        daily("joined", {"scored": 0, "middle": 0}),
        daily("high", {"joined": 9, "low": 11}, WINDOWED),
        whole,
    ],
    resources={"postgres": object(), "mlflow": object()},
)

DAY = date(2026, 3, 1)
REACH = {"raw": 0, "scored": 0, "low": 2, "middle": 7, "joined": 7, "high": 16}


def after(days: int, day: date = DAY) -> set[str]:
    """A day and so many after it."""
    return {(day + timedelta(days=n)).isoformat() for n in range(days + 1)}


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def report(instance: dg.DagsterInstance, key: str, days: Iterable[str | None]) -> None:
    for day in sorted(days, key=str):
        tags = {"dagster/code_version": "1"}
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day, tags=tags))


class Daemon:
    """Evaluates the conditions again and again, and reports what is asked for as built."""

    def __init__(self, instance: dg.DagsterInstance, now: datetime) -> None:
        self.instance, self.now, self._cursor = instance, now, None

    def tick(self) -> dict[str, Set[str | None]]:
        result = dg.evaluate_automation_conditions(
            DEFS, self.instance, dg.AssetSelection.all(), cursor=self._cursor, evaluation_time=self.now
        )
        self._cursor = result.cursor
        self.now += timedelta(seconds=15)
        found = {k: result.get_requested_partitions(dg.AssetKey(k)) for k in (*REACH, "whole")}
        return {k: days for k, days in found.items() if days}

    def follow(self) -> dict[str, set[str | None]]:
        """All that is asked for until nothing is."""
        asked: dict[str, set[str | None]] = {}
        for _ in range(12):
            found = self.tick()
            if not found:
                return asked
            for table, days in found.items():
                asked.setdefault(table, set()).update(days)
                report(self.instance, table, days)
        raise AssertionError(f"it never ends: {asked}")


def test_windows_add_up_along_the_graph(instance):
    daemon = Daemon(instance, datetime(2026, 9, 1, 12, tzinfo=UTC))
    daemon.tick()
    report(instance, "raw", [DAY.isoformat()])
    asked = daemon.follow()
    assert asked.pop("whole") == {None}
    assert asked == {table: after(days) for table, days in REACH.items() if table != "raw"}


def test_no_day_after_today_is_asked_for(instance):
    daemon = Daemon(instance, datetime(2026, 3, 4, 12, tzinfo=UTC))
    daemon.tick()
    report(instance, "raw", [DAY.isoformat()])
    asked = daemon.follow()
    assert asked["scored"] == after(0)
    assert asked["low"] == after(2)
    assert asked["middle"] == asked["high"] == after(3)


def test_a_new_day_is_built_though_no_row_came(instance):
    daemon = Daemon(instance, datetime(2026, 3, 1, 23, 59, tzinfo=UTC))
    daemon.tick()
    report(instance, "raw", [DAY.isoformat()])
    daemon.follow()
    daemon.now = datetime(2026, 3, 2, 0, 1, tzinfo=UTC)
    assert daemon.follow()["low"] == {"2026-03-02"}


def test_a_run_over_a_parent_and_its_window_leaves_the_days_after_it_due(instance):
    now = datetime.now(UTC)
    today = now.date()
    daemon = Daemon(instance, now)
    daemon.tick()
    late = today - timedelta(days=10)
    job = DEFS.resolve_implicit_global_asset_job_def()
    selection = [dg.AssetKey(k) for k in ("raw", "low")]
    assert job.execute_in_process(
        instance=instance, asset_selection=selection, partition_key=late.isoformat()
    ).success
    asked = daemon.follow()
    assert after(2, late) - after(0, late) <= asked["low"] <= after(2, late)
    assert asked["middle"] == after(7, late)


def test_tables_that_look_back_are_left_out_of_the_run_of_what_came_in():
    raw = dg.AssetKey("raw")
    found = with_following(DEFS.get_repository_def(), [raw], whole=True)
    assert found == [raw, dg.AssetKey("scored")]
    # There are no later days than today.
    found = with_following(DEFS.get_repository_def(), [raw], whole=True, to_today=True)
    assert {k.to_user_string() for k in found} == {*REACH, "whole"}


def test_a_run_to_today_over_all_tables_leaves_nothing_due(instance):
    now = datetime.now(UTC)
    daemon = Daemon(instance, now)
    daemon.tick()
    tables = [dg.AssetKey(k) for k in (*REACH, "whole")]
    first, today = now.date() - timedelta(days=3), now.date()
    done = DEFS.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=tables, tags=DayRange(first, today).tags
    )
    assert done.success
    assert daemon.tick() == {}


@pytest.fixture
def refresher(tmp_path, instance):
    refresher = Refresher(Settings(home=tmp_path), DEFS, instance, lambda phase, done, total: None)
    assert [k.to_user_string() for k in refresher.day_by_day] == ["raw", "scored"]
    return refresher


def stale(refresher: Refresher) -> dict[str, set[str]]:
    return {
        k.to_user_string(): {day.isoformat() for day in days} for k, days in refresher.stale_windows().items()
    }


def test_a_refresh_finds_the_same_days(refresher, instance):
    assert stale(refresher) == {}
    for table, days in REACH.items():
        report(instance, table, after(days))
    assert refresher.stale_days() == set()
    assert stale(refresher) == {}
    report(instance, "raw", [DAY.isoformat()])
    assert refresher.stale_days() == {DAY}  # scored's
    report(instance, "scored", [DAY.isoformat()])
    assert refresher.stale_days() == set()
    asked = stale(refresher)
    assert asked == {table: after(days) for table, days in REACH.items() if days}
    for table, days in asked.items():
        report(instance, table, days)
    assert stale(refresher) == {}


def test_a_refresh_builds_the_days_that_a_window_reaches_and_no_row_came_for(refresher, instance):
    report(instance, "raw", [DAY.isoformat()])
    report(instance, "low", [DAY.isoformat()])
    assert stale(refresher)["low"] == after(2) - after(0)


def test_a_refresh_builds_each_table_on_its_own_days_in_few_runs(refresher, instance, monkeypatch):
    built = []

    def run(purpose: str, selection: Iterable[dg.AssetKey], tags: dict[str, str]) -> None:
        first, last = tags.values()
        days = (date.fromisoformat(last) - date.fromisoformat(first)).days
        built.append(([k.to_user_string() for k in selection], first, days))

    monkeypatch.setattr(refresher, "run", run)
    report(instance, "raw", [DAY.isoformat()])
    refresher.run_windows()
    first = DAY.isoformat()
    assert built == [(["low"], first, 2), (["middle", "joined"], first, 7), (["high"], first, 16)]


def test_other_logic_makes_the_days_stale_that_were_built_by_it_and_what_looks_back_on_them(
    refresher, instance
):
    for table, days in REACH.items():
        report(instance, table, after(days))
    event = dg.AssetMaterialization("low", partition=DAY.isoformat(), tags={"dagster/code_version": "before"})
    instance.report_runless_asset_event(event)
    asked = stale(refresher)
    assert asked["low"] == after(2)
    assert asked["middle"] == after(7)


def test_what_other_logic_built_stays_due_though_a_newer_day_was_built_since(refresher, instance):
    low = dg.AssetKey("low")
    for table, days in REACH.items():
        report(instance, table, after(days))
    event = dg.AssetMaterialization("low", partition=DAY.isoformat(), tags={"dagster/code_version": "before"})
    instance.report_runless_asset_event(event)
    before = refresher._remembered()
    assert before == {low: {DAY + timedelta(days=days) for days in range(3)}}
    report(instance, "low", after(2) - after(1))
    assert low not in refresher.stale_windows()
    assert refresher.stale_windows(before)[low] == before[low]


def test_days_end_with_the_last_one():
    assert reached([DAY], 2, DAY + timedelta(days=1)) == {DAY, DAY + timedelta(days=1)}
    assert reached([DAY], 0, DAY - timedelta(days=1)) == set()


def test_the_longest_way_counts():
    graph = {"a": {}, "b": {"a": 6}, "c": {"a": 27}, "d": {"b": 27, "c": 0}, "e": {"d": 0}}
    assert reaches(graph) == {"a": 0, "b": 6, "c": 27, "d": 33, "e": 33}


def test_a_table_is_outrun_by_what_is_newer_and_where_it_is_missing():
    one, two, three = (DAY + timedelta(days=n) for n in range(3))
    assert outrun({one: 5, two: 5}, {one: 4}, 1, three) == set()
    assert outrun({one: 5}, {one: 4}, 1, three) == {two}
    assert outrun({one: 5, two: 5, three: 9}, {one: 6, two: 3}, 2, three) == {one, two}


def test_a_late_day_of_sketches_rebuilds_the_trends_that_look_back_on_it(tmp_path):
    graph = build_defs(Settings(home=tmp_path)).resolve_asset_graph()
    rollups, trends = (dg.AssetKey(["clickhouse", f"performance_{name}"]) for name in ("sketches", "trends"))
    mapping = graph.get_partition_mapping(trends, parent_asset_key=rollups)
    assert lookback_days(mapping) == LOOKBACK_DAYS == 13
    for name in ("hourly", "daily", "sketches"):
        key = dg.AssetKey(["clickhouse", f"performance_{name}"])
        (parent,) = graph.get(key).parent_keys
        assert lookback_days(graph.get_partition_mapping(key, parent_asset_key=parent)) == 0
