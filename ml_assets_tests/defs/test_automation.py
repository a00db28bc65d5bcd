"""What the automation conditions ask for, evaluated by Dagster on small graphs and a real instance."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pytest

from ml_assets.automation import HOURLY, PARTITIONED, WHOLE
from ml_assets.partitions import daily_partitions

DAYS = daily_partitions(date(2026, 1, 1))


@dg.asset(partitions_def=DAYS)
def parent() -> None: ...


@dg.asset(partitions_def=DAYS)
def other_parent() -> None: ...


@dg.asset(partitions_def=DAYS, deps=[parent, other_parent], automation_condition=PARTITIONED)
def child() -> None: ...


@dg.asset(deps=[child], automation_condition=WHOLE)
def whole() -> None: ...


@dg.asset(deps=[whole], automation_condition=WHOLE)
def last() -> None: ...


DEFS = dg.Definitions(assets=[parent, other_parent, child, whole, last])


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def materialized(instance: dg.DagsterInstance, key: str, *days: str) -> None:
    for day in days or (None,):
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day))


def evaluate(instance: dg.DagsterInstance, cursor: Any = None) -> dg.EvaluateAutomationConditionsResult:
    return dg.evaluate_automation_conditions(DEFS, instance, dg.AssetSelection.all(), cursor=cursor)


def requested(result: dg.EvaluateAutomationConditionsResult, key: str) -> set[str]:
    return {day for day in result.get_requested_partitions(dg.AssetKey(key)) if day is not None}


def test_late_days_are_followed_however_old(instance):
    first = evaluate(instance)
    materialized(instance, "parent", "2026-01-05", "2026-02-01", "2026-02-20")
    second = evaluate(instance, first.cursor)
    # The other parent lacks these days, and does not hold them up.
    assert requested(second, "child") == {"2026-01-05", "2026-02-01", "2026-02-20"}


def test_what_was_rebuilt_by_hand_is_not_asked_for_again(instance):
    first = evaluate(instance)
    for key in ("parent", "child"):
        materialized(instance, key, "2026-01-05")
    materialized(instance, "whole")
    materialized(instance, "last")
    second = evaluate(instance, first.cursor)
    assert second.total_requested == 0


def test_a_missing_day_cannot_freeze_the_whole_tables(instance):
    first = evaluate(instance)
    materialized(instance, "child", "2026-01-05")
    second = evaluate(instance, first.cursor)
    assert second.get_num_requested(dg.AssetKey("whole")) == 1
    assert second.get_num_requested(dg.AssetKey("last")) == 1


def test_nothing_new_asks_for_nothing(instance):
    first = evaluate(instance)
    second = evaluate(instance, first.cursor)
    assert (first.total_requested, second.total_requested) == (0, 0)


def test_a_change_is_asked_for_once(instance):
    first = evaluate(instance)
    materialized(instance, "parent", "2026-01-05")
    second = evaluate(instance, first.cursor)
    third = evaluate(instance, second.cursor)
    assert requested(second, "child") == {"2026-01-05"}
    assert requested(third, "child") == set()


def test_a_check_of_days_is_asked_for_once_an_hour(instance):
    @dg.asset_check(asset=parent, automation_condition=HOURLY)
    def healthy() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    defs = dg.Definitions(assets=[parent], asset_checks=[healthy])
    asked, cursor = [], None
    for hour, minute in [(8, 5), (8, 25), (8, 26), (9, 19), (9, 21)]:
        at = datetime(2026, 3, 1, hour, minute, tzinfo=UTC)
        found = dg.evaluate_automation_conditions(
            defs, instance, dg.AssetSelection.all(), cursor=cursor, evaluation_time=at
        )
        cursor = found.cursor
        asked.append(found.total_requested)
    assert asked == [0, 1, 0, 0, 1]
