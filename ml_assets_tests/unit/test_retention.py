"""Which runs stay when the best of each group are kept."""

from typing import Any

import pytest

from ml_assets.errors import Refusal
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.retention import best_of_each

RULES = MetricRules()


def run(
    run_id: str,
    value: object = None,
    dataset: str | None = "d",
    status: str = "completed",
    parent: str | None = None,
    key: str = "accuracy",
    created_at: int = 0,
) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "parent_run_id": parent,
        "status": status,
        "experiment": "e",
        "dataset": dataset,
        "metrics": None if value is None else {key: value},
        "created_at": created_at,
    }


def kept(
    runs: list[dict[str, Any]], best: int = 1, by: str = "dataset", metric: str | None = "accuracy"
) -> set[str]:
    return {each.run["run_id"] for each in best_of_each(runs, best, by, metric, RULES) if each.stays}


def test_the_best_of_each_group_stay_in_the_direction_of_the_metric():
    runs = [
        run("a", 0.9),
        run("b", 0.8),
        run("c", 0.7),
        run("d", 0.1, dataset="e"),
        run("e", 0.2, dataset=None),
    ]
    assert kept(runs, 2) == {"a", "b", "d", "e"}
    runs = [run("a", 0.9, key="val_loss"), run("b", 0.8, key="val_loss")]
    assert kept(runs, metric="val_loss") == {"b"}


def test_of_equal_values_the_first_stays():
    assert kept([run("a", 1, created_at=2), run("b", 1.0, created_at=1), run("c", 1, created_at=1)]) == {"b"}


@pytest.mark.parametrize("odd", [None, "NaN", True, float("nan"), float("inf"), "0.99"])
def test_what_is_no_finite_number_is_last(odd):
    assert kept([run("a", odd), run("b", 0.1)]) == {"b"}


def test_runs_that_have_not_ended_stay_and_take_no_place():
    runs = [run("a", 0.9, status="running"), run("b", 0.5), run("c", 0.4), run("d", status="created")]
    assert kept(runs) == {"a", "b", "d"}


def test_a_group_that_cannot_be_ranked_stays():
    assert kept([run("a", 3, key="rmse"), run("b"), run("c", 0.5, dataset="e")]) == {"a", "b", "c"}


def test_the_runs_that_a_kept_one_is_nested_in_stay():
    runs = [run("root", dataset="x"), run("sweep", 0.1, parent="root"), run("best", 0.9, parent="sweep")]
    assert kept([*runs, run("y", 0.2, dataset="x")]) == {"root", "sweep", "best", "y"}
    circle = [run("a", 0.9, parent="b"), run("b", 0.8, parent="a")]
    assert kept(circle) == {"a", "b"}


def test_without_a_metric_the_one_that_judges_the_runs_counts():
    assert kept([run("a", 0.9, key="val_acc"), run("b", 0.8), run("c", 0.95, key="acc")], metric=None) == {
        "c"
    }
    assert kept([run("a"), run("b")], metric=None) == {"a", "b"}
    several = [run("a", 0.9), run("b", 0.8, key="rmse")]
    with pytest.raises(Refusal, match=r"judged by several metrics \(accuracy, rmse\)"):
        kept(several, metric=None)
    apart = [run("a", 0.9), run("b", 0.8, key="rmse", dataset="e"), run("c", 0.7, key="rmse", dataset="e")]
    assert kept(apart, metric=None) == {"a", "c"}
    running = [run("a", 0.9), run("b", 0.8, key="rmse", status="running")]
    assert kept(running, metric=None) == {"a", "b"}


def test_a_column_that_is_none_and_a_number_that_keeps_nothing():
    with pytest.raises(Refusal, match="name one of dataset, experiment"):
        kept([], by="colour")
    with pytest.raises(Refusal, match="At least one run"):
        kept([], best=0)
