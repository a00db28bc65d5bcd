"""Runs as samples: which values count, what is left out and said so, what runs share."""

import math

import pytest

from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.run_samples import (
    SCORES,
    LoggedRun,
    leader,
    metric_value,
    sample,
    was_best,
    with_states,
)
from ml_assets.lib.significance import Sample


def run(run_id: str, value: object, **columns) -> LoggedRun:
    absent = dict.fromkeys(("parent_run_id", "dataset", "label", "seed", "split", "test_fraction", "digest"))
    return LoggedRun(
        **{"experiment": "e", "status": "completed", **absent, **columns}, run_id=run_id, value=value
    )


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5),
        (3, 3.0),
        ("Infinity", math.inf),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        *((value, None) for value in ("good", None, True, {}, [], "0.5")),
    ],
)
def test_a_metric_is_a_number(value, number):
    assert metric_value(value) == number


def test_nan_is_a_value_that_is_missing_and_not_an_unknown_one():
    assert math.isnan(metric_value("NaN") or 0)


def test_what_is_left_out_is_said():
    runs = [
        run("1", 0.5, seed="1", split="None", dataset="pets", test_fraction="0.2"),
        run("2", 0.6, seed="1.0", split="a", dataset="pets", test_fraction="0.2"),
        run("3", None),
        run("4", 0.7, status="failed"),
    ]
    made, told = sample("cats", runs)
    assert (made.values, made.seeds, made.splits, made.test_fraction) == (
        [0.5, 0.6],
        ["1", "1"],
        [None, "a"],
        0.2,
    )
    assert told == "1 run of cats that has not completed left out. 1 run of cats without the metric left out."
    made, told = sample("cats", runs, only_completed=False)
    assert made.values == [0.5, 0.6, 0.7]
    assert made.test_fraction is None


def test_states_of_a_dataset_are_told_apart_where_there_are_several():
    first, second = (
        run("1", 1, dataset="pets", digest="x"),
        run("2", 1, dataset="pets", digest="y", split="3"),
    )
    other, unknown = run("3", 1, dataset="birds", digest="x"), run("4", 1, dataset="pets")
    found = with_states({"a": [first, other], "b": [second, unknown]})
    assert [each.split for each in found["a"]] == [" x", None]
    assert [each.split for each in found["b"]] == ["3 y", None]


@pytest.mark.parametrize(
    ("value", "rivals", "rising", "count"),
    [
        (0.9, [0.9, 0.8, None, math.nan], True, 2),
        (0.8, [0.9, 0.8], True, 1),
        (0.8, [0.9, 0.8], False, 2),
        (math.nan, [math.nan], True, 1),
        (0.9, [], True, 1),
    ],
)
def test_the_winner_of_a_sweep_is_known_by_its_rivals(value, rivals, rising, count):
    assert was_best(value, rivals, rising) == count


def test_the_leader_has_the_best_mean_of_its_finite_values():
    groups = [Sample("a", [0.9, math.nan]), Sample("b", [0.5, 0.7]), Sample("c", [math.inf])]
    assert (leader(groups, True), leader(groups, False)) == ("a", "b")
    assert leader([Sample("c", [math.nan])], True) is None


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        ("accuracy", "right"),
        ("val/acc", "right"),
        ("test_error_rate", "wrong"),
        ("eval-MSE", "squared error"),
        ("mean_absolute_error", "absolute error"),
        *((metric, None) for metric in ("rmse", "f1", "train_accuracy", "balanced_accuracy_loss", "")),
    ],
)
def test_only_some_metrics_are_means_over_rows(metric, score):
    assert SCORES.get(MetricRules().canonical(metric)) == score
