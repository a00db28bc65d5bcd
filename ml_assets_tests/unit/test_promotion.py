"""What each check of the gate says of figures, and the SQL that gets them."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import duckdb
import pytest
from pydantic import ValidationError

from ml_assets.contracts import tables
from ml_assets.defs.quality import promotion_gate
from ml_assets.errors import Refusal
from ml_assets.lib.hypothesis_tests import shares_interval
from ml_assets.lib.promotion import (
    CHECKS,
    Check,
    Decision,
    Parity,
    Scored,
    decided,
    drift_check,
    floor_check,
    leakage_check,
    parity_check,
    quality_check,
    regression_check,
    unjudged,
)
from ml_assets.settings import Settings, read_settings
from ml_assets.sql_files import read_sql

DAY = date(2026, 3, 10)


def verdict(feature: str, state: str, slice_: str = "all", ks: float | None = 0.3) -> dict[str, Any]:
    return {
        "day": DAY,
        "feature": feature,
        "slice": slice_,
        "state": state,
        "ks": ks,
        "psi": 0.4,
        "threshold": 0.1,
    }


def test_drift_of_an_input_refuses_and_says_by_how_much():
    found = drift_check([verdict("a", "none"), verdict("b", "drift"), verdict("c", "drift", ks=None)])
    assert (found.passed, found.judged, found.value, found.threshold) == (False, True, 0.4, 0.1)
    assert found.sentence == (
        "2 of 3 inputs drifted on 2026-03-10: c (PSI 0.4, 0.3 over its threshold), b (KS 0.3, 0.2 over its threshold)."
    )
    assert drift_check([verdict("a", "none")]).passed
    # What the version itself was asked counts before what all versions were.
    assert drift_check([verdict("a", "drift"), verdict("a", "none", "model_version")]).passed
    few = drift_check([verdict("a", "too few"), verdict("b", "not judged")])
    assert not few.judged and "too few inputs" in few.sentence
    assert not drift_check([]).judged
    episode = {"opened_at": datetime(2026, 3, 9, tzinfo=UTC), "description": "Two inputs shifted."}
    goes_on = drift_check([verdict("a", "none")], [episode])
    assert not goes_on.passed and "goes on since 2026-03-09: Two inputs shifted." in goes_on.sentence


def test_a_regression_counts_from_when_the_version_answers():
    episode = {
        "metric": "accuracy",
        "slice": "dataset",
        "slice_value": "digits",
        "opened_at": datetime(2026, 3, 9, tzinfo=UTC),
        "last_seen_at": datetime(2026, 3, 10, tzinfo=UTC),
        "before": 0.95,
        "after": 0.8,
        "change": -0.158,
    }
    found = regression_check([episode], DAY)
    assert not found.passed
    assert found.sentence == (
        "1 regression is open: accuracy (dataset digits) from 0.95 to 0.8 (-15.8%) since 2026-03-09."
    )
    later = regression_check([episode], DAY + timedelta(days=1))
    assert later.passed and "1 episode of versions before it" in later.sentence
    assert regression_check([], DAY).passed
    assert not regression_check([], None).judged


def test_a_version_that_is_worse_is_refused_with_its_interval():
    def days(correct: int, n: int = 100, start: int = 0) -> dict[date, Scored]:
        return {DAY + timedelta(days=start + k): Scored(n, correct) for k in range(3)}

    worse = quality_check(days(80), days(95), "2", "champion", "1")
    assert not worse.passed and worse.value == pytest.approx(-0.15)
    assert "on the 3 days that both have answered: it is worse by 0.09" in worse.sentence
    same = quality_check(days(93), days(95), "2", "champion", "1")
    assert same.passed and "95 % interval -0.0" in same.sentence
    strict = quality_check(days(93), days(95), "2", "champion", "1", margin=0.01)
    assert not strict.passed and "more labels would tell" in strict.sentence
    assert quality_check(days(97), days(95), "2", "champion", "1", margin=0.05).passed
    apart = quality_check(days(93), days(95, start=30), "2", "champion", "1")
    assert apart.passed and "on days of their own" in apart.sentence
    assert quality_check(days(1), {}, "2", "champion", None).passed
    assert quality_check(days(1), {}, "2", "champion", "2").passed
    few = quality_check(days(9, n=9), days(95), "2", "champion", "1")
    assert not few.judged and "version 2 has 27 answers with a known truth, and 30 are needed" in few.sentence
    assert not quality_check(days(9), {}, "2", "champion", "1").judged
    assert not quality_check({}, days(9), "2", "champion", "1").judged


@pytest.mark.parametrize(
    ("p", "q", "n", "m"), [(0.95, 0.9, 60, 200), (0.99, 0.99, 40, 40), (0.5, 0.6, 30, 30)]
)
def test_the_interval_of_two_shares_keeps_its_level(p, q, n, m):
    import numpy as np

    rng = np.random.default_rng(1)
    drawn = zip(rng.binomial(n, p, 2000).tolist(), rng.binomial(m, q, 2000).tolist(), strict=True)
    inside = [low <= p - q <= high for a, b in drawn for low, high in [shares_interval(a, n, b, m)]]
    print(f"{p} of {n}, {q} of {m}: {np.mean(inside):.3f} of the intervals hold the difference")
    assert np.mean(inside) >= 0.94


def test_floors_of_all_models_and_of_one():
    floors = {"*": {"all": 0.9}, "m": {"all": 0.8, "confidence=0.9-1.0": 0.97}}
    found = {("all", ""): Scored(100, 85), ("confidence", "0.9-1.0"): Scored(50, 48)}
    refused = floor_check(found, "m", floors)
    assert (refused.passed, refused.value, refused.threshold) == (False, 0.96, 0.97)
    assert "confidence=0.9-1.0 is 0.9600 (50 answers), 0.0100 below its floor of 0.97" in refused.sentence
    assert not floor_check(found, "other", floors).passed
    assert floor_check(found, "m", {"m": {"all": 0.8}}).passed
    assert floor_check(found, "m", {}).passed
    unknown = floor_check({}, "m", floors)
    assert not unknown.judged and "all has 0 answers with a known truth" in unknown.sentence


def test_leaks_and_what_is_served_otherwise():
    assert leakage_check(10, [], "Nothing leaks.").passed
    assert not leakage_check(10, ["A leak."], "1 leak.").passed
    assert not leakage_check(0, [], "").judged
    assert parity_check(Parity(10, 0, views=1), Parity()).passed
    found = parity_check(Parity(10, 1, "x is 1 online and 2 in the lake.", 1), Parity(5, 0))
    assert not found.passed and found.value == pytest.approx(1 / 15) and "x is 1 online" in found.sentence
    assert not parity_check(Parity(), Parity()).judged


def test_what_cannot_be_judged_refuses_unless_it_may_be_missing():
    good = [Check(name, True, True, None, None, "Good.") for name in CHECKS if name != "drift"]
    missing = unjudged("drift", "nothing was compared.")
    promotable, checks = decided([missing, *good])
    assert not promotable
    told = str(Decision("m", "2", promotable, checks))
    assert told == "Version 2 of m is refused by drift. This cannot be judged: nothing was compared."
    promotable, checks = decided([missing, *good], ["drift"])
    assert promotable and "It may be missing, as the settings say." in checks[0].sentence
    bad = Check("drift", False, True, None, None, "It drifted.")
    assert not decided([bad, *good], ["drift"])[0]


def test_settings_of_the_gate(monkeypatch):
    monkeypatch.setenv("ML_ASSETS_PROMOTION_FLOORS", '{"all": 0.9, "m": {"confidence=0.9-1.0": 0.97}}')
    monkeypatch.setenv("ML_ASSETS_PROMOTION_MAY_MISS", "drift, parity")
    settings = Settings()
    assert settings.promotion_floors == {"*": {"all": 0.9}, "m": {"confidence=0.9-1.0": 0.97}}
    assert settings.promotion_may_miss == ("drift", "parity")
    for floors, told in (
        ('{"alll": 0.9}', "'alll' is no slice"),
        ('{"all": 90}', "the floor of all"),
        ("0.9", "PROMOTION_FLOORS"),
        ("{", "PROMOTION_FLOORS cannot be read"),
    ):
        monkeypatch.setenv("ML_ASSETS_PROMOTION_FLOORS", floors)
        with pytest.raises(Refusal, match=told):
            read_settings()
    monkeypatch.delenv("ML_ASSETS_PROMOTION_FLOORS")
    monkeypatch.setenv("ML_ASSETS_PROMOTION_MAY_MISS", "luck")
    with pytest.raises(ValidationError, match="slice_floors"):
        Settings()


def test_the_gate_blocks_what_follows_once_an_alias_is_set_to_move():
    for alias, checks in ((None, []), ("champion", [("promotable", True)])):
        settings = Settings(promotion_alias=alias)
        [asset] = promotion_gate.build(settings, tables(settings)).assets or []
        assert isinstance(asset, dg.AssetsDefinition)
        found = [(spec.name, spec.blocking) for spec in asset.check_specs]
        assert found == checks


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE SCHEMA features; CREATE SCHEMA raw; "
            "CREATE TABLE raw.raw_runs (model_name VARCHAR, model_version VARCHAR, run_id VARCHAR, status VARCHAR, "
            "created_at TIMESTAMPTZ, completed_at TIMESTAMPTZ); "
            "CREATE TABLE features.ml_predictions (model_name VARCHAR, model_version VARCHAR, run_id VARCHAR, "
            "confidence DOUBLE, is_correct BOOLEAN, created_at TIMESTAMPTZ)"
        )
        yield connection


def test_versions_in_the_order_in_which_they_came(connection):
    connection.execute(
        "INSERT INTO raw.raw_runs VALUES "
        "('m', '9', 'r9', 'completed', '2026-03-01 10:00:00Z', '2026-03-01 11:00:00Z'), "
        "('m', '10', 'r10', 'completed', '2026-03-02 10:00:00Z', NULL), "
        "('m', '11', 'r11', 'failed', '2026-03-03 10:00:00Z', NULL), "
        "('m', NULL, 'r12', 'completed', '2026-03-03 10:00:00Z', NULL)"
    )
    connection.execute(
        "INSERT INTO features.ml_predictions VALUES ('m', '9', 'r9', 0.9, true, '2026-03-05 10:00:00Z'), "
        "('other', 'a', NULL, NULL, NULL, '2026-03-05 10:00:00Z')"
    )
    sql = read_sql("duckdb/promotion/versions.sql")
    rows = connection.execute(sql, {"models": None}).fetchall()
    assert [row[:2] + row[3:5] for row in rows] == [
        ("m", "9", "r9", 1),
        ("m", "10", "r10", 0),
        ("other", "a", None, 1),
    ]
    assert [row[1] for row in connection.execute(sql, {"models": ["other"]}).fetchall()] == ["a"]
    assert connection.execute(sql, {"models": ["none"]}).fetchall() == []


def test_the_slices_of_floors_are_those_of_prediction_quality(connection):
    connection.execute(
        "INSERT INTO features.ml_predictions "
        "SELECT 'm', '1', NULL, i / 40, i % 3 > 0, TIMESTAMPTZ '2026-03-01 10:00:00Z' FROM range(41) AS r(i)"
    )
    ours = connection.execute(
        read_sql("duckdb/promotion/answers.sql"), {"model": "m", "versions": ["1"]}
    ).to_arrow_table()
    start = datetime(2026, 3, 1, tzinfo=UTC)
    theirs = connection.execute(
        read_sql("duckdb/features/prediction_quality.sql"), {"start": start, "end": start + timedelta(days=1)}
    ).to_arrow_table()
    wanted = {
        (row["slice"], row["slice_value"] or ""): (row["labelled_count"], row["accuracy"])
        for row in theirs.to_pylist()
        if row["slice"] != "model_version"
    }
    found = {
        (row["slice"], row["slice_value"]): (row["labelled"], row["correct"] / row["labelled"])
        for row in ours.to_pylist()
    }
    assert found == wanted and len(found) == 5
