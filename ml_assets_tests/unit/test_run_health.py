"""What is wrong with a run, from its points to the sentence."""

import math
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest

from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.run_health import findings, loss_of
from ml_assets.operations.run_watch import metrics_of

BEGAN = datetime(2026, 3, 1, 8, tzinfo=UTC)
FALLING = [2.0 / (step + 1) for step in range(40)]
SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("key", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("timestamp", pa.timestamp("us", "UTC")),
    ]
)


@pytest.fixture(scope="module")
def engine():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
        yield connection


@pytest.fixture
def found(engine):
    """What is found of a run by its curves, and each with what it says."""

    def ask(status="running", hours=1.0, times=None, metrics=None, rules=None, **curves):
        rows = [
            {
                "run_id": "r",
                "key": key,
                "step": step,
                "value": value,
                "timestamp": BEGAN + timedelta(seconds=step if times is None else times[step]),
            }
            for key, values in curves.items()
            for step, value in enumerate(values)
        ]
        engine.register("arriving", pa.Table.from_pylist(rows, SCHEMA))
        engine.execute("CREATE OR REPLACE TABLE raw.raw_metrics AS FROM arriving")
        logged = {key: metric for _, key, metric in metrics_of(engine, ["r"])}
        run = {"run_id": "r", "status": status, "created_at": BEGAN, "metrics": metrics}
        now = BEGAN + timedelta(hours=hours)
        told = list(findings(run, logged, rules or MetricRules(), now))
        assert {finding.run_id for finding in told} <= {"r"}
        return {finding.kind: (finding.since - BEGAN, finding.evidence) for finding in told}

    return ask


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def test_nothing_is_wrong_with_a_run_that_learns(found):
    assert found(loss=FALLING, accuracy=[step / 40 for step in range(40)]) == {}
    assert found(loss=FALLING, status="completed", hours=1000) == {}
    assert found() == {}


def test_a_loss_that_rises_far_above_its_best_has_diverged(found):
    assert found(loss=[2.3, 1.0, 0.3, 2.0, 5.0, 5.0, 6.0])["diverged"] == (
        s(2),
        "loss is 5, after it had begun at 2.3 and come down to 0.3.",
    )
    assert "diverged" in found(loss=[1.0, 2.0, 4.0, 4.0, 4.0], status="failed")
    assert "diverged" in found(loss=[-5.0, -7.0, 20.0, 20.0])


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param([2.3, 1.0, 0.3, 0.9, 1.2, 1.4], id="overfitting"),
        pytest.param([0.7, 0.001, 0.2, 0.3, 0.3], id="noise above almost nothing"),
        pytest.param([2.0, 1.0, 0.5, 0.4, 90.0], id="one outlier"),
        pytest.param([0.0, 0.0, 0.0, 0.0], id="all equal"),
        pytest.param([5.0], id="one point"),
        pytest.param([1.7e308, -1.7e308, 1.7e308, 1.7e308], id="no number is large enough"),
    ],
)
def test_what_is_not_divergence(found, loss):
    assert "diverged" not in found(loss=loss)


def test_an_infinite_loss_has_diverged_since_it_became_so(found):
    assert found(loss=[1.0, 2.0, math.inf, math.inf]) == {
        "diverged": (s(2), "loss is infinite after 4 points.")
    }
    assert found(loss=[1.0, math.inf, 0.5]) == {}
    assert found(metrics={"loss": "Infinity"}) == {"diverged": (s(0), "loss is infinite.")}


def test_which_metric_falls_is_a_setting():
    assert loss_of(["val_loss", "loss", "mae"], MetricRules()) == "loss"
    assert loss_of(["val_loss", "mae", "accuracy", "mse_s"], MetricRules()) == "mae"
    assert loss_of(["accuracy"], MetricRules()) is None
    assert loss_of(["energy", "loss"], MetricRules({"energy": "min", "loss": "max"})) == "energy"


def test_a_metric_that_ends_in_nan(found):
    assert found(loss=[1.0, math.nan, math.nan], status="completed") == {"nan": (s(1), "loss is NaN.")}
    assert found(f1=[math.nan] * 3, auc=[0.5, 0.6, math.nan])["nan"] == (s(0), "auc, f1 are NaN.")
    assert found(loss=[math.nan, 1.0, 0.5]) == {}
    assert found(metrics={"accuracy": "NaN", "f1": 0.5}) == {"nan": (s(0), "accuracy is NaN.")}
    # What was logged step by step is newer than what the run once reported.
    assert found(loss=[0.5, 0.4], metrics={"loss": "NaN"}) == {}


def test_a_run_that_logs_nothing_any_more_has_stalled(found):
    assert found(loss=FALLING, hours=8)["stalled"] == (s(39), "Nothing was logged for 8.0 hours.")
    assert found(loss=FALLING, hours=5) == {}
    assert found(loss=FALLING, hours=8, status="completed") == {}


def test_a_run_whose_last_half_brings_nothing_better_has_stalled(found):
    flat = [*FALLING[:20], *[0.1] * 20]
    assert found(loss=flat) == {
        "stalled": (s(19), "The last half of 40 points of loss brought nothing better than 0.1.")
    }
    assert found(loss=flat[:10] + flat[-9:]) == {}  # too few to tell
    assert found(loss=flat, status="completed") == {}
    rising = [*[0.1 * step for step in range(10)], *[0.5] * 10]
    assert found(accuracy=rising)["stalled"][0] == s(9)
    assert found(accuracy=[step / 20 for step in range(20)]) == {}
    assert found(lr=[0.1] * 40) == {}  # which measures nothing that could get better


def test_a_run_that_takes_longer_for_a_step_is_slow(found):
    times = [10.0 * step for step in range(30)] + [290.0 + 30.0 * step for step in range(1, 11)]
    assert found(loss=FALLING, times=times) == {
        "slow": (s(320), "0.0333 steps a second in the last quarter of loss, 0.1 before.")
    }
    assert found(loss=FALLING, times=[time / 10 for time in times]) == {}  # over in half a minute
    # One long step, as for a validation, is not the speed.
    assert found(loss=FALLING, times=[10.0 * step + (50.0 if step > 35 else 0.0) for step in range(40)]) == {}
    assert found(loss=FALLING, times=[0.0] * 40) == {}  # logged all at once


def test_a_run_that_is_running_for_over_a_day(found):
    told = found(hours=25)
    assert told == {"long": (s(0), "It is said to be running for 25.0 hours; it has logged no points.")}
    told = found(loss=FALLING, hours=72)
    assert set(told) == {"stalled", "long"}
    assert told["long"][1].startswith(
        "It is said to be running for 3.0 days; its last point is of 2026-03-01 08:00"
    )
    assert found(hours=25, status="completed") == {}
