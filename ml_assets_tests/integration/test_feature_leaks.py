"""Leaks in a real lake: a team's own view, a frame in a file, and what the command line says of it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.contracts.feature_files import feature_files
from ml_assets.defs.quality.leaks import nothing_leaks
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.settings import Settings
from ml_assets.stack import Stack

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VIEW = """-- How a user was, by day.
-- entity: user_id
-- event_time: day
-- known_time: known_at
-- ttl: 7d
SELECT user_id, day, known_at, score FROM raw.users
"""
DAILY = """-- How a model was, by day.
-- entity: model_name
-- event_time: day
-- known_time: known_at
-- ttl: 7d
SELECT model_name, day, known_at, avg_accuracy_7d, request_count_7d FROM raw.days
"""
MADE = f"""
CREATE TABLE features.model_daily_features AS
SELECT 'm' || (n % 6) AS model_name, TIMESTAMPTZ '{FIRST}' + to_days((n // 6)::INT) AS day,
    day + INTERVAL 1 DAY AS known_at, hash(n) / 2e19 AS avg_accuracy_7d, (hash(n, 1) % 5000)::BIGINT AS request_count_7d
FROM range(360) AS rows(n);
CREATE TABLE features.training_set AS
WITH runs AS (
    SELECT 'r' || n AS run_id, 'm' || (n % 6) AS model_name,
        TIMESTAMPTZ '{FIRST + 2 * DAY}' + to_seconds(n * 16000) AS created_at,
        created_at + INTERVAL 1 HOUR AS label_known_at, created_at - INTERVAL 1 HOUR AS run_features__known_at,
        hash(n, 2) / 2e19 AS label, hash(n, 3) / 2e19 AS previous_accuracy
    FROM range(300) AS rows(n)
)
SELECT runs.*, label AS label_accuracy, 'accuracy' AS label_metric, TRUE AS label_higher_is_better,
    CASE WHEN created_at >= '{FIRST + 45 * DAY}' THEN 'test'
        WHEN label_known_at <= '{FIRST + 44 * DAY}' THEN 'train' ELSE 'embargo' END AS split,
    avg_accuracy_7d, request_count_7d, day AS model_daily_features__event_time, known_at AS model_daily_features__known_at
FROM runs ASOF JOIN features.model_daily_features AS daily
    ON runs.model_name = daily.model_name AND runs.created_at >= daily.known_at;
"""
PLANTED = """
UPDATE features.training_set AS leaky
SET avg_accuracy_7d = daily.avg_accuracy_7d, request_count_7d = daily.request_count_7d
FROM features.model_daily_features AS daily
WHERE leaky.run_id IN ('r30', 'r40', 'r50') AND daily.model_name = leaky.model_name
    AND daily.day = leaky.model_daily_features__event_time + INTERVAL 2 DAYS
"""


@pytest.fixture
def stack(settings: Settings, tmp_path: Path) -> Stack:
    """A lake with the table of a view of our own: 20 users, 30 days, known a day later."""
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "users_daily.sql").write_text(VIEW)
    stack = Stack(settings.model_copy(update={"feature_folders": (folder,)}))
    settings.landing.mkdir(parents=True)  # which makes it a home
    with stack._resources["lake"].get_connection(write=True) as connection:
        connection.execute(
            "CREATE TABLE features.users_daily AS SELECT 'u' || (n % 20) AS user_id, "
            "$1 + to_days((n // 20)::INT) AS day, day + INTERVAL 1 DAY AS known_at, "
            "(hash(n) % 1000000)::DOUBLE AS score FROM range(600) AS rows(n)",
            [FIRST],
        )
    return stack


def frame(stack: Stack, shift: timedelta) -> pa.Table:
    """A label at noon of each of ten days, with the values of the newest day that was known after a while."""
    with stack._resources["lake"].get_connection() as connection:
        return connection.execute(
            "SELECT user_id, day + $1 AS event_timestamp, score AS users_daily__score FROM features.users_daily "
            "WHERE day < $2 ORDER BY ALL",
            [timedelta(hours=36) - shift, FIRST + 10 * DAY],
        ).to_arrow_table()


def test_a_frame_is_held_against_the_lake(stack: Stack, tmp_path: Path, cli, environment) -> None:
    clean, leaky = tmp_path / "clean.parquet", tmp_path / "leaky.parquet"
    pq.write_table(frame(stack, timedelta()), clean)
    pq.write_table(frame(stack, DAY), leaky)
    assert stack.features.verify(clean).ok
    verdict = stack.features.verify(frame(stack, DAY).to_pandas(), ["users_daily:score"])
    assert [(each.kind, each.where, each.count) for each in verdict.findings] == [
        ("future", "users_daily:score", 200)
    ]
    first = verdict.findings[0].examples[0]
    assert first["known_at"] - first["event_timestamp"] == timedelta(hours=12)

    given = {**environment, "ML_ASSETS_FEATURE_FOLDERS": str(tmp_path / "features")}
    home = Path(given.pop("ML_ASSETS_HOME"))
    sides = ["--split", "user_id", "--train", "u1", "--test", "u2", "--test", "u3"]
    done = cli(home, "features", "verify", str(clean), *sides, **given)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing leaks: 200 rows, 10 of train and 20 of test, with 1 feature;" in done.stdout
    done = cli(home, "features", "verify", str(leaky), "--json", **given)
    assert done.returncode == 1
    (told,) = json.loads(done.stdout)
    assert told["findings"][0]["count"] == 200
    done = cli(home, "features", "verify", str(leaky), **given)
    assert done.returncode == 1
    assert "200 rows of 200 with the feature users_daily:score hold values" in " ".join(done.stdout.split())

    # What was retrieved says itself what its columns are.
    asked = frame(stack, timedelta()).select(["user_id", "event_timestamp"])
    retrieved = stack.features.historical(asked, ["users_daily:score"], times=True)
    assert retrieved.features == {"users_daily:score": "score"}
    verdict = stack.features.verify(retrieved)
    assert verdict.ok
    assert verdict.examined["future"].startswith(
        "1 feature of users_daily in 200 rows; the times in users_daily__"
    )
    assert verdict.examined["expired"] == "users_daily, ttl 1w; the times in users_daily__event_at"

    with pytest.raises(Refusal, match="There is no view 'user_daily': do you mean 'users_daily'"):
        stack.features.verify(frame(stack, DAY), ["user_daily:score"])
    with pytest.raises(StoreUnavailable, match=r"The table of duckdb/run_features does not exist yet"):
        stack.features.verify("run_features", label_time="created_at")


def result(
    check: dg.AssetChecksDefinition, lake: DuckLakeResource
) -> tuple[bool | None, str, dict[str, Any]]:
    """Whether a check passed, what it says, and its metadata."""
    found = check(lake=lake)
    assert isinstance(found, dg.AssetCheckResult)
    values = {
        name: value.records if isinstance(value, dg.TableMetadataValue) else getattr(value, "value", value)
        for name, value in found.metadata.items()
    }
    return found.passed, found.description or "", values


def test_a_training_set_that_leaks_is_blocked(settings: Settings, tmp_path: Path) -> None:
    if "model_daily_features" not in {file.name for file in feature_files(settings)}:
        (tmp_path / "model_daily_features.sql").write_text(DAILY)
        settings = settings.model_copy(update={"feature_folders": (tmp_path,)})
    check = nothing_leaks(settings)
    assert [spec.blocking for spec in check.check_specs] == [True]
    lake = Stack(settings)._resources["lake"]
    with lake.get_connection(write=True) as connection:
        connection.execute(MADE)
    passed, told, noted = result(check, lake)
    assert passed, told
    assert (noted["rows"], noted["features"], noted["leaking_rows"]) == (300, 3, 0)
    assert noted["rows_of_train"] + noted["rows_of_test"] < 300
    with lake.get_connection(write=True) as connection:
        connection.execute(PLANTED)
    passed, told, noted = result(check, lake)
    assert not passed
    assert noted["leaking_rows"] == 3
    assert [record.data["leak"] for record in noted["findings"]] == ["future"] * 3
    assert "became known only after the label's time" in told
