"""Leaks: each kind is planted and found, and clean frames raise no alarm. A lake in memory is enough."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.contracts.feature_files import SHIPPED, read_files
from ml_assets.errors import Refusal
from ml_assets.lib.leaks import LeaksFound, View
from ml_assets.operations.feature_leaks import Question, verify, view_of
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets_tests.scale import examples

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TTL = timedelta(days=7)
MODELS, DAYS = 40, 60
DAILY = View("daily", "daily", ("model_name",), "day", "known_at", TTL)
NUMBERS = ["accuracy", "latency", "requests"]
QUESTION = Question(label="label", split="split", embargo="3d", horizon="1d", entities_recur=True)


def lake(random: np.random.Generator) -> duckdb.DuckDBPyConnection:
    """A view with a row a model and day, known an hour after the day's end."""
    days = pd.date_range(FIRST, periods=DAYS, freq="D")
    rows = pd.DataFrame(
        {
            "model_name": np.repeat([f"m{n}" for n in range(MODELS)], DAYS),
            "day": np.tile(days, MODELS),
            "accuracy": random.normal(0.9, 0.05, MODELS * DAYS),
            "latency": random.gamma(2.0, 30.0, MODELS * DAYS),
            "requests": random.integers(0, 500, MODELS * DAYS),
        }
    )
    rows["known_at"] = rows["day"] + pd.Timedelta(hours=25)
    rows.loc[random.random(len(rows)) < 0.05, "accuracy"] = None
    rows = rows[random.random(len(rows)) > 0.1]
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("given", rows)
    connection.execute("CREATE TABLE daily AS FROM given")
    return connection


def clean(
    connection: duckdb.DuckDBPyConnection, random: np.random.Generator, rows: int = 400
) -> pd.DataFrame:
    """Labels split by time with an embargo, each with what was known then."""
    frame = pd.DataFrame(
        {
            "model_name": random.choice([f"m{n}" for n in range(MODELS)], rows),
            "event_timestamp": [FIRST + DAY * float(at) for at in random.uniform(3, DAYS - 1, rows)],
            "label": random.normal(size=rows),
        }
    )
    frame["event_timestamp"] = frame["event_timestamp"].dt.floor("s").astype("datetime64[us, UTC]")
    cut = FIRST + 45 * DAY
    frame["split"] = np.where(
        frame["event_timestamp"] >= cut,
        "test",
        np.where(frame["event_timestamp"] + 4 * DAY <= cut, "train", "embargo"),
    )
    connection.register("asked", frame)
    joined = connection.execute(
        """
        SELECT asked.*, accuracy, latency, requests FROM asked LEFT JOIN LATERAL (
            FROM daily
            WHERE daily.model_name = asked.model_name AND known_at <= event_timestamp
                AND day >= event_timestamp - INTERVAL 7 DAYS
            ORDER BY day DESC LIMIT 1
        ) AS daily ON TRUE
        """
    )
    return joined.to_arrow_table().to_pandas()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def daily():
    with lake(np.random.default_rng(7)) as connection:
        yield connection


@pytest.fixture(scope="module")
def made(daily) -> pd.DataFrame:
    return clean(daily, np.random.default_rng(7))


@pytest.fixture
def frame(made):
    return made.copy()


def kinds(verdict) -> list[str]:
    return [finding.kind for finding in verdict.findings]


def row_of(connection, model: str, day: datetime) -> dict:
    rows = connection.execute(
        "FROM daily WHERE model_name = $1 AND day > $2 ORDER BY day LIMIT 1", [model, day]
    )
    return dict(zip([column[0] for column in rows.description], rows.fetchone(), strict=True))


def plant(frame: pd.DataFrame, connection, rows, shift: timedelta) -> None:
    """Give some rows the values of another day."""
    for row in rows:
        values = row_of(connection, frame.at[row, "model_name"], frame.at[row, "event_timestamp"] + shift)
        frame.loc[row, NUMBERS] = [values[name] for name in NUMBERS]


def test_a_clean_frame_raises_no_alarm(daily, frame):
    verdict = verify(daily, [DAILY], frame, QUESTION)
    assert verdict.ok, verdict
    assert not verdict.notes or all(
        "neither side" in note or "entities_recur" in note for note in verdict.notes
    )
    assert set(verdict.features) == set(NUMBERS)
    assert {*verdict.examined} == {"future", "expired", "near duplicate", "no embargo", "label"}
    verdict.raise_for_leaks()
    assert verdict.headline.startswith("Nothing leaks: 400 rows, ")


def test_values_of_the_future_are_found(daily, frame):
    plant(frame, daily, [3, 50, 77], 2 * DAY)
    verdict = verify(daily, [DAILY], frame, QUESTION)
    assert kinds(verdict) == ["future"]
    (finding,) = verdict.findings
    assert (finding.where, finding.count) == ("daily", 3)
    first = finding.examples[0]
    assert first["known_at"] > first["event_timestamp"]
    assert "historical" in finding.way_out
    with pytest.raises(LeaksFound, match="became known only after the label's time"):
        verdict.raise_for_leaks()


def test_a_row_that_had_begun_but_was_not_yet_known_is_of_the_future(daily, frame):
    row = 10
    held = row_of(daily, frame.at[row, "model_name"], FIRST + 20 * DAY)
    frame.loc[row, NUMBERS] = [held[name] for name in NUMBERS]
    frame.loc[row, "event_timestamp"] = held["known_at"] - timedelta(seconds=1)
    assert kinds(verify(daily, [DAILY], frame[[*frame.columns.drop("split")]], Question(label="label"))) == [
        "future"
    ]
    frame.loc[row, "event_timestamp"] = held["known_at"]
    assert not kinds(verify(daily, [DAILY], frame[[*frame.columns.drop("split")]], Question(label="label")))


def test_one_column_of_the_future_among_right_ones_is_found(daily, frame):
    for row in (3, 50):
        values = row_of(daily, frame.at[row, "model_name"], frame.at[row, "event_timestamp"] + DAY)
        frame.loc[row, "latency"] = values["latency"]
    (finding,) = verify(daily, [DAILY], frame, QUESTION).findings
    assert (finding.kind, finding.where, finding.count) == ("future", "daily:latency", 2)


def test_values_older_than_the_ttl_are_found(daily, frame):
    late = frame.index[frame["event_timestamp"] > FIRST + 30 * DAY][:4]
    plant(frame, daily, late, -12 * DAY)
    (finding,) = verify(daily, [DAILY], frame, QUESTION).findings
    assert (finding.kind, finding.where, finding.count) == ("expired", "daily", 4)
    assert "ttl of 1w" in finding.told


def test_a_value_is_young_enough_at_the_very_end_of_its_ttl(daily, frame):
    held = row_of(daily, "m1", FIRST + 20 * DAY)
    one = pd.DataFrame(
        [{"model_name": "m1", "event_timestamp": held["day"] + TTL, "latency": held["latency"]}]
    )
    assert verify(daily, [DAILY], one, Question()).ok
    one["event_timestamp"] += timedelta(microseconds=1)
    assert kinds(verify(daily, [DAILY], one, Question())) == ["expired"]


def test_times_that_the_frame_notes_are_compared(daily, frame):
    frame["other__known_at"] = frame["event_timestamp"]
    assert verify(daily, [DAILY], frame, QUESTION).ok
    frame.loc[5, "other__known_at"] += timedelta(microseconds=1)
    (finding,) = verify(daily, [DAILY], frame, QUESTION).findings
    assert (finding.kind, finding.where, finding.count) == ("future", "other__known_at", 1)


def test_an_entity_on_both_sides_is_found(daily, frame):
    frame["user"] = [f"u{n}" for n in range(len(frame))]
    asked = Question(label="label", split="split", entity="user")
    assert verify(daily, [DAILY], frame, asked).ok
    train, test = (frame.index[frame["split"] == side][:2] for side in ("train", "test"))
    frame.loc[test, "user"] = frame.loc[train, "user"].to_numpy()
    (finding,) = verify(daily, [DAILY], frame, asked).findings
    assert (finding.kind, finding.where, finding.count) == ("shared entity", "user", 2)
    assert finding.examples[0] == {"user": frame.at[train[0], "user"], "in_train": 1, "in_test": 1}


def test_near_duplicates_are_found(daily, frame, random):
    train, test = (frame.index[frame["split"] == side][5:8] for side in ("train", "test"))
    spread = frame[NUMBERS].std()
    copied = frame.loc[train, NUMBERS] + 2e-4 * random.normal(size=(3, 3)) * spread.to_numpy()
    frame = frame.astype(dict.fromkeys(NUMBERS, "float64"))
    frame.loc[test, NUMBERS] = copied.to_numpy()
    asked = Question(
        label="label", split="split", embargo="3d", entity="model_name", entities_recur=True, features=()
    )
    (finding,) = verify(daily, [DAILY], frame, asked).findings
    assert (finding.kind, finding.count) == ("near duplicate", 3)
    assert {each["train latency"] for each in finding.examples} == set(frame.loc[train, "latency"])


def test_texts_that_were_edited_are_found(daily, frame, random):
    words = [f"word{n}" for n in range(2000)]
    frame["note"] = [" ".join(random.choice(words, 20)) for _ in range(len(frame))]
    frame["parameters"] = [
        f'{{"rate": {rate:.1f}, "layers": [64, 32]}}' for rate in random.random(len(frame))
    ]
    assert verify(daily, [DAILY], frame, QUESTION).ok
    train, test = (frame.index[frame["split"] == side][0] for side in ("train", "test"))
    frame.loc[test, "note"] = frame.at[train, "note"].title() + "!"
    (finding,) = verify(daily, [DAILY], frame, QUESTION).findings
    assert (finding.kind, finding.where, finding.count) == ("near duplicate", "note", 1)
    assert "share 80% of their text or more (note)" in finding.told


def test_missing_embargo_is_found(daily, frame):
    assert verify(daily, [DAILY], frame, Question(split="split", entities_recur=True, embargo="3d")).ok
    verdict = verify(daily, [DAILY], frame, Question(split="split", entities_recur=True, embargo="14d"))
    assert kinds(verdict) == ["no embargo"]
    assert "embargo of 2w" in verdict.findings[0].told
    assert kinds(
        verify(daily, [DAILY], frame, Question(split="split", entities_recur=True, horizon="20d"))
    ) == ["no embargo"]
    frame["labelled_at"] = frame["event_timestamp"] + 20 * DAY
    asked = Question(split="split", entities_recur=True, horizon="labelled_at")
    assert kinds(verify(daily, [DAILY], frame, asked)) == ["no embargo"]


def test_a_feature_that_is_the_label_is_found(daily, frame):
    frame["score"] = 3 - 2 * frame["label"]
    (finding,) = verify(daily, [DAILY], frame, QUESTION).findings
    assert (finding.kind, finding.where, finding.count) == ("label", "score", len(frame))
    del frame["score"]
    frame["label"] = np.where(frame["label"] > 0, "good", "bad")
    frame["code"] = (frame["label"] == "good").astype(int)
    assert [each.where for each in verify(daily, [DAILY], frame, QUESTION).findings] == ["code"]


def test_two_frames_are_two_sides(daily, frame):
    sides = [frame[frame["split"] == side].drop(columns="split") for side in ("train", "test")]
    asked = Question(label="label", embargo="3d")
    verdict = verify(daily, [DAILY], pa.Table.from_pandas(sides[0]), asked, sides[1])
    assert kinds(verdict) == ["shared entity"]
    assert verdict.splits == {"train": len(sides[0]), "test": len(sides[1])}


@pytest.mark.parametrize("seed", range(examples(20)))
def test_random_clean_frames_raise_no_alarm(seed, daily):
    random = np.random.default_rng(seed)
    with daily.cursor() as connection:
        frame = clean(connection, random, int(random.integers(0, 800)))
        frame["flag"] = random.random(len(frame)) < 0.3
        frame["kind"] = random.choice(np.array(["a", "b", None]), len(frame))
        frame["rounded"] = random.normal(size=len(frame)).round(2)
        frame["same"] = frame["latency"] ** 2
        few = list(random.permutation([*NUMBERS, "flag", "kind", "rounded", "same"])[: random.integers(1, 8)])
        kept = frame[["model_name", "event_timestamp", "label", "split", *few]]
        asked = Question(label="label", split="split", entities_recur=True, embargo="3d", horizon="1d")
        verdict = verify(connection, [DAILY], kept, asked)
    assert verdict.ok, verdict


BAD = [
    (Question(label_time="at"), "has no column 'at'"),
    (Question(label="labl"), "has no column 'labl': do you mean 'label'"),
    (Question(split="label", entities_recur=True), "No row of the frame is train or test: label is"),
    (Question(features=["dayly:latency"]), "There is no view 'dayly': do you mean 'daily'"),
    (Question(features=["daily:latancy"]), "has no feature 'latancy': do you mean 'latency'"),
    (Question(split="split", embargo="soon"), "'soon' is no length of time"),
    (Question(embargo="junk"), "'junk' is no length of time"),
    (Question(embargo=-DAY), "embargo= cannot be -1 day"),
    (Question(split="split", horizon="flag"), "has no column 'flag'"),
]


@pytest.mark.parametrize(("asked", "told"), BAD)
def test_wrong_questions_are_told(daily, frame, asked, told):
    with pytest.raises(Refusal, match=told):
        verify(daily, [DAILY], frame, asked)


def test_frames_without_times_are_told(daily, frame, tmp_path):
    naive = frame.assign(event_timestamp=frame["event_timestamp"].dt.tz_localize(None))
    with pytest.raises(Refusal, match="names no time zone: make its times UTC"):
        verify(daily, [DAILY], naive, Question())
    frame.loc[3, "event_timestamp"] = None
    with pytest.raises(Refusal, match="1 row of the frame has no event_timestamp"):
        verify(daily, [DAILY], frame, Question())
    with pytest.raises(Refusal, match="There is no file"):
        verify(daily, [DAILY], tmp_path / "none.parquet", Question())
    with pytest.raises(Refusal, match="dict is no frame"):
        verify(daily, [DAILY], {}, Question())


def test_a_verdict_can_be_looked_at(daily, frame):
    plant(frame, daily, [3], 2 * DAY)
    verdict = verify(daily, [DAILY], frame, QUESTION)
    assert "| features that were known only after the label's time |" in verdict.markdown()
    assert "<table>" in verdict._repr_html_()
    told = verdict.as_json()
    assert not told["ok"]
    assert told["findings"][0]["examples"][0]["known_at"].endswith("Z")


@pytest.fixture(scope="module")
def shipped():
    """The shipped views as their headers and contracts have them, and two rows of each table that matters."""
    files = [file for file in read_files(SHIPPED.glob("*.sql")) if file.is_view]
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA features")
        for file in files:
            assert file.contract
            connection.register("given", arrow_schema(file.contract).empty_table())
            connection.execute(f"CREATE TABLE features.{file.name} AS FROM given")
        connection.execute(
            "INSERT INTO features.model_daily_features BY NAME SELECT 'm' AS model_name, $1 + to_days(n::INT) AS day, "
            "day + INTERVAL 1 DAY AS known_at, 0.5 + n / 100 AS avg_accuracy_7d FROM range(30) AS rows(n)",
            [FIRST],
        )
        for table, known in (("run_features", "known_at"), ("training_set", "label_known_at")):
            more = ", 0.59 AS avg_accuracy_7d" if table == "training_set" else ""
            connection.execute(
                f"INSERT INTO features.{table} BY NAME SELECT 'r' AS run_id, 'm' AS model_name, $1 AS created_at, "
                f"$1 + INTERVAL 1 HOUR AS {known}, 0.4 AS previous_accuracy{more}",
                [FIRST + 10 * DAY],
            )
        yield connection, [view_of(file) for file in files]


def test_what_a_training_set_repeats_is_held_against_its_source(shipped):
    connection, views = shipped
    frame = pd.DataFrame(
        {
            "run_id": ["r"],
            "model_name": ["m"],
            "event_timestamp": [FIRST + 10 * DAY],
            "avg_accuracy_7d": [0.59],
        }
    )
    verdict = verify(connection, views, frame, Question())
    assert verdict.ok
    assert verdict.examined["future"] == "1 feature of model_daily_features in 1 row"
    verdict = verify(connection, views, frame.assign(avg_accuracy_7d=0.66), Question())
    assert [(each.kind, each.where) for each in verdict.findings] == [
        ("future", "model_daily_features:avg_accuracy_7d")
    ]
    # It is in the row of the run itself, which is known when the run has ended.
    unclear = (
        "run_features and training_set have columns of these names, .*: previous_accuracy. Name the view"
    )
    verdict = verify(connection, views, frame.assign(previous_accuracy=0.4), Question())
    assert verdict.ok
    assert any(re.search(unclear, note) for note in verdict.notes)
    verdict = verify(connection, views, frame.drop(columns="model_name"), Question())
    assert verdict.ok
    assert any("model_daily_features and training_set have columns" in note for note in verdict.notes)
    verdict = verify(connection, views, frame.drop(columns=["model_name", "run_id"]), Question())
    assert "view model_daily_features, since the frame has no model_name: avg_accuracy_7d." in str(verdict)


def test_of_several_views_with_a_feature_any_may_explain_it(daily, frame):
    with daily.cursor() as connection:
        connection.execute(
            "CREATE TEMP TABLE late AS SELECT * REPLACE (known_at + INTERVAL 90 DAYS AS known_at) FROM daily"
        )
        views = [DAILY, replace(DAILY, name="late", relation="late", ttl=None)]
        verdict = verify(connection, views, frame, QUESTION)
        assert verdict.ok, verdict
        assert "accuracy of daily and late in 383 rows" in verdict.examined["future"]
        plant(frame, daily, [3, 50, 77], 2 * DAY)
        verdict = verify(connection, views, frame, QUESTION)
        found = {finding.where: finding for finding in verdict.findings}
        assert {"latency"} <= {*found} <= {*NUMBERS}
        assert found["latency"].count == 3
        assert "the feature latency of daily and late hold values that became known" in found["latency"].told


def test_columns_may_have_the_names_that_are_used_within(daily, frame):
    plant(frame, daily, [3], 2 * DAY)
    verdict = verify(daily, [DAILY], frame.assign(origin="shop", known=True, at=1, __known=1), QUESTION)
    assert "future" in kinds(verdict)


def test_frames_that_cannot_be_read_are_told(daily, frame):
    for given, told in (
        (
            frame.assign(mixed=[1, "a"] * (len(frame) // 2)),
            "Column 'mixed' of the frame has values of several kinds, row 1",
        ),
        (pd.concat([frame, frame[["accuracy"]]], axis=1), "The frame has several columns 'accuracy'"),
    ):
        with pytest.raises(Refusal, match=told):
            verify(daily, [DAILY], given, Question())


def test_a_stream_that_was_read_is_refused(daily, frame):
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    reader = pa.ipc.open_stream(sink.getvalue())
    reader.read_all()
    with pytest.raises(Refusal, match="The frame is a RecordBatchReader that has been read from already"):
        verify(daily, [DAILY], reader, Question())
    reader = table.to_reader()
    assert verify(daily, [DAILY], reader, QUESTION).rows == len(frame)
    with pytest.raises(Refusal, match="a RecordBatchReader without a row, as one is that was read already"):
        verify(daily, [DAILY], reader, QUESTION)


def test_sides_of_unlike_types_are_refused(daily, frame):
    naive = frame.assign(event_timestamp=frame["event_timestamp"].dt.tz_localize(None))
    with pytest.raises(
        Refusal, match="event_timestamp is TIMESTAMP WITH TIME ZONE in the frame and TIMESTAMP in the test"
    ):
        verify(daily, [DAILY], frame, Question(), naive)
    rounded = frame.assign(requests=frame["requests"].fillna(0).astype("int32"))
    assert verify(daily, [DAILY], frame, Question(), rounded.assign(accuracy=None)).splits


def test_times_as_historical_notes_them_are_compared(daily, frame, tmp_path):
    frame["daily__event_at"] = frame["event_timestamp"] - 2 * DAY
    frame.loc[[4, 9], "daily__event_at"] -= 20 * DAY
    verdict = verify(daily, [DAILY], frame, QUESTION)
    assert [(each.kind, each.where, each.count) for each in verdict.findings] == [
        ("expired", "daily__event_at", 2)
    ]
    path = tmp_path / "set[1]*.csv"
    frame.drop(columns="daily__event_at").assign(daily__known_at=None).to_csv(path, index=False)
    (tmp_path / "set1.csv").write_text("another\n1\n")
    assert verify(daily, [DAILY], path, QUESTION).rows == len(frame)
    frame["daily__known_at"] = frame["event_timestamp"]
    assert verify(daily, [DAILY], frame.drop(columns="daily__event_at"), Question(), path).splits


def test_all_of_a_view_leaves_the_label_out(daily, frame):
    label = frame.drop(columns="label")
    verdict = verify(daily, [DAILY], label, replace(QUESTION, label="accuracy", features="daily:*"))
    assert "2 features of daily in" in verdict.examined["future"]
    verdict = verify(daily, [DAILY], label, replace(QUESTION, label="accuracy", features="daily:latency"))
    assert "1 feature of daily in" in verdict.examined["future"]
