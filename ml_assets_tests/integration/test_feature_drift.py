"""Drift in the real stores: from the predictions in the lake to the table, the operation and the command."""

import json
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.errors import Refusal
from ml_assets.lib.days import DayRange
from ml_assets.settings import Settings
from ml_assets.stack import Stack
from ml_assets.stores import touched_days

FIRST, SHIFTED, LAST = date(2026, 3, 1), date(2026, 3, 11), date(2026, 3, 14)
MADE = """
CREATE TABLE features.ml_predictions AS
SELECT
    'p' || n AS id, 'r' AS run_id, model AS model_name, '1' AS model_version,
    json_object(
        'x', hash(n, model) % 1000 / 10 + if(model = 'cats' AND day >= 10, 30, 0),
        'colour', if(hash(n, model, 2) % 2 = 0, 'red', 'green')
    )::JSON AS input_features,
    '"yes"'::JSON AS prediction, hash(n, model, 3) % 1000 / 1000 AS confidence, NULL::VARCHAR AS label,
    NULL::BOOLEAN AS is_correct, $first::TIMESTAMPTZ + to_days(day::INT) + to_minutes(n::INT) AS created_at
FROM (VALUES ('cats'), ('dogs')) AS models(model), range(14) AS days(day), range(200) AS rows(n)
"""


@pytest.fixture
def stack(settings: Settings) -> Stack:
    """A lake with the predictions of two models over two weeks; the inputs of one are another from its tenth day on."""
    settings.landing.mkdir(parents=True)  # which makes it a home
    stack = Stack(settings)
    with stack._resources["lake"].get_connection(write=True) as connection:
        connection.execute(MADE, {"first": datetime(2026, 3, 1, tzinfo=UTC)})
    return stack


def materialize(settings: Settings, first: date, last: date) -> dg.AssetMaterialization:
    """The last day's materialization."""
    job = build_defs(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(["clickhouse", "feature_drift"])],
            tags=DayRange(first, last).tags,
        )
        assert all(each.passed for each in done.get_asset_check_evaluations())
        return done.get_asset_materialization_events()[-1].materialization


def test_drift_from_the_lake_to_the_command(stack, settings, cli, environment):
    told = materialize(settings, FIRST, LAST).metadata
    assert (told["drifted_features"].value, told["drifted_models"].value, told["days_due"].value) == (4, 1, 0)
    assert "cats" in str(told["worst"].value)
    drifted = [
        (row["day"].date(), row["model_name"], row["feature"])
        for day in DayRange(FIRST, LAST).days()
        for row in stack.performance.drift(day=day, slice="all").to_pylist()
        if row["state"] == "drift"
    ]
    assert drifted == [(SHIFTED + timedelta(days=n), "cats", "x") for n in range(4)]

    # Measured now, it is what the table has; other windows and conventions are measured only now.
    stored = stack.performance.drift("cats", LAST)
    again = stack.performance.drift("cats", window=(LAST, LAST))
    names = ["feature", "slice", "ks", "wasserstein", "psi", "jensen_shannon", "p", "reference_content"]
    assert again.select(names) == stored.select(names)
    assert stack.performance.drift("cats") == stored  # its last day
    later = stack.performance.drift("cats", window=(date(2026, 3, 12), LAST), reference=(SHIFTED, SHIFTED))
    assert set(later["state"].to_pylist()) == {"none"} and later["current_count"][0].as_py() == 600
    theirs = stack.performance.drift("cats", LAST, mode="evidently", slice="all").to_pylist()
    assert {row["feature"] for row in theirs} == {"x", "colour", "prediction", "confidence"}
    with pytest.raises(Refusal, match="no predictions of the model 'cat': do you mean 'cats'"):
        stack.performance.drift("cat", window=(LAST, LAST))
    with pytest.raises(Refusal, match="from 2026-05-01 to 2026-05-01: choose days that have some"):
        stack.performance.drift("dogs", date(2026, 5, 1))

    shown = cli(settings.home, "drift", "cats", "--day", "2026-03-14", COLUMNS="80", **environment)
    assert shown.returncode == 0, shown.stderr
    assert "cats on 2026-03-14, against 2026-03-01 to 2026-03-07" in shown.stdout
    assert "4 features: 1 drift, 3 none." in shown.stdout
    rows = json.loads(cli(settings.home, "drift", "--json", **environment).stdout)
    assert {(row["model_name"], row["state"]) for row in rows if row["feature"] == "x"} == {
        ("cats", "drift"), ("dogs", "none"),
    }  # fmt: skip
    wrong = cli(settings.home, "drift", "cats", "--day", "yesterday", **environment)
    assert (wrong.returncode, wrong.stderr) == (1, "'yesterday' is no day: write it as 2026-11-12.\n")

    # Another baseline makes the days due that were held against the former one.
    stack.performance.pin_baseline("cats", SHIFTED, SHIFTED + timedelta(days=1), "a new camera")
    assert materialize(settings, LAST, LAST).metadata["days_due"].value == 13
    states = {row["state"] for row in stack.performance.drift("cats", LAST).to_pylist()}
    assert states == {"none"}
    with stack._resources["postgres"].connect() as connection:
        due = touched_days.due_days(connection, "predictions")
    assert due == DayRange(FIRST, date(2026, 3, 13)).days()
