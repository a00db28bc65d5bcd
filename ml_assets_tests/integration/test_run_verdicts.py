"""Is it really better: runs in a real PostgreSQL, predictions in a real lake."""

import csv
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets import connect
from ml_assets.contracts import tables
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.settings import Settings
from ml_assets.stack import Stack

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def stack(settings: Settings) -> Stack:
    """A stack on empty stores."""
    return connect(settings=settings)


def logged(stack: Stack, run_id: str, accuracy: Any, status: str = "completed", **columns: Any) -> str:
    """A run that is there, with its accuracy if that is not None."""
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return stack.experiments.create(
        "mine", id=run_id, status=status, created_at=NOON, **{"metrics": metrics, **columns}
    )


def seeded(stack: Stack, model: str, accuracies: Iterable[Any], **columns: Any) -> None:
    """Runs of a model on one dataset with seeds 0, 1, 2 ..."""
    for seed, accuracy in enumerate(accuracies):
        parameters = {"seed": seed, **columns.get("parameters", {})}
        kept = {"dataset": "pets", **columns, "parameters": parameters}
        logged(stack, f"{model}-{seed}", accuracy, model_name=model, **kept)


def predictions(stack: Stack, rows: list[dict[str, Any]]) -> None:
    """Rows of raw_predictions, as the graph writes them."""
    from ml_assets.tables.arrow_types import arrow_schema

    contract = tables(stack.settings)["duckdb/raw_predictions"]
    base = {"model_name": "m", "created_at": NOON, "extras": "{}"}
    made = pa.Table.from_pylist([{**base, **row} for row in rows], arrow_schema(contract))
    (stack.home / "landing").mkdir(parents=True)  # which makes it a home
    with stack._resources["lake"].get_connection(write=True) as connection:
        connection.register("made", made)
        connection.execute("CREATE SCHEMA IF NOT EXISTS raw")
        connection.execute(
            "CREATE TABLE raw.raw_predictions AS "
            "SELECT * REPLACE (input_features::JSON AS input_features, prediction::JSON AS prediction, "
            "extras::JSON AS extras) FROM made"
        )


def test_groups_and_single_runs_are_compared(stack: Stack, cli: Any, environment: dict[str, str]) -> None:
    experiments = stack.experiments
    with pytest.raises(StoreUnavailable, match="ml_experiments does not exist yet"):
        experiments.is_better("a", "b", "accuracy")
    cats, dogs = (0.91, 0.92, 0.94, 0.93), (0.81, 0.83, 0.84, "NaN")
    seeded(stack, "cats", cats, parameters={"lr": 0.1})
    seeded(stack, "dogs", dogs, parameters={"lr": "0.10"})
    logged(stack, "failed", 0.1, "failed", model_name="cats", dataset="pets")
    logged(stack, "elsewhere", 0.99, model_name="dogs", dataset="birds")
    logged(stack, "bare", None, model_name="cats", dataset="pets")

    verdict = experiments.is_better(
        "model_name=cats", {"model_name": "dogs", "params.lr": 0.1}, "accuracy", dataset="pets"
    )
    assert (verdict.better, verdict.test, verdict.n, verdict.metric) == (True, "paired t", (3, 3), "accuracy")
    assert verdict.effect == pytest.approx(np.mean([0.10, 0.09, 0.10]))
    assert "1 run of model_name=cats that has not completed left out." in verdict.reason
    assert "1 run of model_name=cats without the metric left out." in verdict.reason
    assert "1 run of model_name=dogs, params.lr=0.1 without a finite value left out." in verdict.reason
    assert (
        experiments.is_better(
            "model_name=cats", "model_name=dogs", "accuracy", dataset="pets", higher_is_better=False
        ).better
        is False
    )

    filtered = experiments.is_better(
        "model_name LIKE 'ca%' AND NOT run_id = 'cats-0'",
        "model_name IN ('dogs') AND params.seed > 0",
        "accuracy",
    )
    assert (filtered.n, filtered.better, filtered.test) == ((2, 2), True, "paired t")
    assert filtered.a == "model_name LIKE 'ca%' AND NOT run_id = 'cats-0'"

    one = experiments.is_better("cats-0", "dogs-0", "accuracy")
    assert (one.better, one.effect, one.p, one.interval, one.needed) == (None,) * 5
    assert "Not enough runs: 1 of cats-0 and 1 of dogs-0" in str(one)
    picked = experiments.is_better("cats-2", "dogs-2", "accuracy", candidates=4)
    assert picked.selected and "best of 4 candidates" in picked.reason
    nan = experiments.is_better("cats-0", "dogs-3", "accuracy")
    assert nan.p is None and "1 run of dogs-3 without a finite value left out" in nan.reason
    listed = experiments.is_better(["cats-0", "cats-1"], ["dogs-0", "dogs-1", "elsewhere"], "accuracy")
    assert (listed.test, listed.n) == ("paired t", (2, 2))

    (by_name,) = experiments.best_of("model_name", "accuracy", dataset="pets")
    assert (by_name.a, by_name.b, by_name.better) == ("cats", "dogs", True)
    with pytest.raises(Refusal, match="did you mean dataset=pets"):
        experiments.best_of("model_name", "accuracy", dataset="pet")
    with pytest.raises(Refusal, match=r"with accuracy have one params.lr, params.lr=0.1"):
        experiments.best_of("params.lr", "accuracy")
    seeded(stack, "cows", (0.90, 0.92, 0.93, 0.94))
    seeds = experiments.best_of("params.seed", "accuracy", dataset="pets")
    assert [(each.a, each.b) for each in seeds[:2]] == [
        ("params.seed=0", "params.seed=1"),
        ("params.seed=0", "params.seed=2"),
    ]
    three = experiments.best_of("model_name", "accuracy", where="experiment=mine,dataset=pets")
    assert [(each.a, each.b) for each in three] == [("cats", "cows"), ("cats", "dogs"), ("cows", "dogs")]
    assert all("Holm" in each.reason for each in three)
    assert [each.selected for each in three] == [True, True, False]
    assert three == experiments.better_of(
        {name: {"model_name": name} for name in ("cats", "cows", "dogs")}, "accuracy", dataset="pets"
    )

    def run(*arguments: str) -> Any:
        done = cli(stack.home, "runs", "better", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (told,) = json.loads(
        run("cats-0,cats-1,cats-2", "dogs-0,dogs-1,dogs-2", "--metric", "accuracy", "--json")
    )
    assert (told["better"], told["n"], told["metric"], told["unit"]) == (True, [3, 3], "accuracy", "pairs")
    assert told["sentence"].startswith("cats-0, cats-1, cats-2 is better")
    rows = list(
        csv.DictReader(
            io.StringIO(run("--by", "model_name", "--metric", "accuracy", "--dataset", "pets", "--csv"))
        )
    )
    assert [(row["a"], row["b"], row["n_a"]) for row in rows][2] == ("cows", "dogs", "3")
    assert "p = " in run("model_name=cats", "model_name=dogs", "--metric", "accuracy", "--direction", "min")


def test_what_cannot_be_compared_is_said(stack: Stack) -> None:
    experiments = stack.experiments
    seeded(stack, "cats", (0.5, 0.5, 0.5))
    seeded(stack, "dogs", (0.5, 0.5, 0.5))
    seeded(stack, "birds", ("NaN", "Infinity", None), dataset="sky")
    equal = experiments.is_better("model_name=cats", "model_name=dogs", "accuracy")
    assert (equal.effect, equal.p, equal.better) == (0.0, 1.0, None)
    assert "no difference" in str(equal)
    nothing = experiments.is_better("model_name=cats", "model_name=birds", "accuracy")
    assert nothing.p is None and "0 of model_name=birds" in str(nothing)

    def refused(sentence: str, a: Any, b: Any, metric: str = "accuracy", **more: Any) -> None:
        with pytest.raises(Refusal, match=sentence):
            experiments.is_better(a, b, metric, **more)

    refused("did you mean model_name=cats", "model_name=cat", "model_name=dogs")
    refused("model_name LIKE", "model_name LIKE", "model_name=dogs")
    refused("modelname", "modelname=cats", "model_name=dogs")
    refused("No run has model_name = 'x' OR name = 'y'", "model_name = 'x' OR name = 'y'", "model_name=dogs")
    refused("dataset is pets, sky of those there are", "model_name=cats", "model_name=dogs", dataset="zzz")
    refused("no run 'cats-9'", ["cats-0", "cats-9"], "dogs-0")
    refused("did you mean 'accuracy'", "cats-0", "dogs-0", "acuracy")
    refused("cannot be compared with itself", "cats-0", "cats-0")
    with pytest.raises(Refusal, match="name another one"):
        experiments.better_of(["cats-0"], "accuracy")
    refused("is in both", "cats-0", "model_name=cats")
    refused("names no run", [], "cats-0")
    refused("is all runs", {}, "cats-0")
    refused("holds a NUL", "a\0", "cats-0")
    refused("holds a NUL", "cats-0", "dogs-0", "a\0")
    refused("No run of cats-0 is on the dataset sky", "cats-0", "birds-0", dataset="sky")
    refused(
        "None of 2 runs has a metric 'x' * 500".replace("'x' * 500", "'" + "x" * 500),
        "cats-0",
        "dogs-0",
        "x" * 500,
    )


def test_the_winner_of_a_sweep_is_known_as_selected(stack: Stack) -> None:
    logged(stack, "sweep", None)
    for n in range(8):
        logged(stack, f"trial-{n}", 0.8 + n / 100, parent_run_id="sweep", parameters={"depth": n})
    logged(stack, "plain", 0.8)
    won, other = (stack.experiments.is_better(f"trial-{n}", "plain", "accuracy") for n in (7, 3))
    assert won.selected and "trial-7 was selected as the best of 8 candidates" in won.reason
    assert not other.selected


def test_two_runs_that_predicted_the_same_rows_are_compared_row_by_row(stack: Stack) -> None:
    for run_id in ("a", "b", "c"):
        logged(stack, run_id, 0.9, dataset="pets")
    logged(stack, "lr", None, metrics={"mse": 1.0})
    logged(stack, "tree", None, metrics={"mse": 2.0})

    def row(run_id: str, n: int, answer: Any, label: str | None, **columns: Any) -> dict[str, Any]:
        made = {"prediction_id": f"{run_id}:{n}", "run_id": run_id, "input_features": f'{{"x":{n}}}'}
        return {**made, "prediction": json.dumps(answer), "label": label, **columns}

    rows = [row("a", n, "cat", "cat") for n in range(100)]
    rows += [row("b", n, "dog" if n % 4 == 0 else "cat", "cat") for n in range(120)]
    # An earlier answer to the same row does not count, nor does one whose truth is not known.
    rows += [row("a", 3, "dog", "cat", prediction_id="early", created_at=datetime(2026, 1, 1, tzinfo=UTC))]
    rows += [row("a", 300, "dog", None), row("b", 300, "cat", None)]
    rows += [row(run, n, float(n % 7 + off), "3", extras=json.dumps({"row_id": n, "group": n // 5}))
             for run, off in (("lr", 0.0), ("tree", 1.5)) for n in range(60)]  # fmt: skip
    predictions(stack, rows)
    verdict = stack.experiments.is_better("a", "b", "accuracy")
    assert (verdict.test, verdict.n, verdict.unit, verdict.better) == ("McNemar", (100, 100), "rows", True)
    assert verdict.effect == pytest.approx(0.25)
    clustered = stack.experiments.is_better("lr", "tree", "mse")
    assert (clustered.test or "").startswith("clustered paired bootstrap")
    assert (clustered.n, clustered.better) == ((60, 60), True)
    assert stack.experiments.is_better("a", "c", "accuracy").test is None
    assert len(stack.experiments.better_of(["a", "b", "c"], "accuracy")) == 3
