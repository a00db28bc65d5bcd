"""Features by `connect().features` and by `ml-assets features`, out of a lake."""

import io
import json
from contextlib import chdir
from datetime import UTC, datetime

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets import connect
from ml_assets.contracts.feature_files import feature_files
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.operations import feature_retrieval
from ml_assets.operations.feature_frames import frame_of
from ml_assets.resources.duckdb import DuckLakeResource

DAILY = """-- How a model did on a day.
-- entity: model_name
-- event_time: day
-- known_time: known_at
-- key: model_name, day
-- ttl: 4d
SELECT model_name, day, known_at, sum(hits) / sum(asked) AS accuracy, sum(asked) AS requests
FROM features.steps GROUP BY ALL
"""
MODELS = """-- What a model is.
-- entity: model_name, dataset
-- event_time: since
SELECT model_name, dataset, since, owner, accuracy FROM raw.raw_models
"""
STEPS = """-- What a model served.
-- entity: model_name
-- event_time: moment
-- key: model_name, moment
SELECT model_name, moment, requests FROM raw.raw_days
"""
BARE = """-- When a model was made.
-- entity: model_name
-- event_time: since
SELECT model_name, since FROM raw.raw_models
"""
NUMBERED = """-- What a model is called by number, with columns called as times are.
-- entity: model_name
-- event_time: since
SELECT model_name, since, numbered__event_at FROM raw.raw_models
"""
TABLES = """
CREATE TABLE features.bare (model_name VARCHAR, since TIMESTAMPTZ);
CREATE TABLE features.numbered (model_name BIGINT, since TIMESTAMPTZ, "Numbered__Event_at" DOUBLE);
CREATE TABLE features.daily (model_name VARCHAR, day DATE, known_at TIMESTAMPTZ, accuracy DOUBLE, requests BIGINT);
INSERT INTO features.daily VALUES
    ('cats', '2026-03-01', '2026-03-02 01:00:00Z', 0.1, 1),
    ('cats', '2026-03-02', '2026-03-03 01:00:00Z', 0.2, 2),
    ('cats', '2026-03-03', '2026-03-06 01:00:00Z', 0.3, 3),
    ('dogs', '2026-03-01', NULL, 0.9, 9);
CREATE TABLE features.models
    (model_name VARCHAR, dataset VARCHAR, since TIMESTAMPTZ, owner VARCHAR, accuracy DOUBLE);
INSERT INTO features.models VALUES
    ('cats', 'pets', '2026-01-01', 'ann', 0.5), ('cats', 'pets', '2026-03-03 12:00:00Z', 'bob', NULL);
"""


@pytest.fixture
def stack(settings, tmp_path):
    folder = tmp_path / "team"
    folder.mkdir()
    for name, text in (
        ("daily", DAILY),
        ("models", MODELS),
        ("steps", STEPS),
        ("bare", BARE),
        ("numbered", NUMBERED),
        ("plain", "-- No view.\nSELECT 1 AS one"),
    ):
        (folder / f"{name}.sql").write_text(text)
    (folder / "broken.sql").write_text("-- ttl: 0d\nSELECT 1 AS one")
    (folder / "unmade.sql").write_text("-- entity: a\n-- event_time: b\nSELECT 1 AS a, now() AS b")
    settings.landing.mkdir(parents=True)
    made = connect(settings=settings.model_copy(update={"feature_folders": (folder,)}))
    with made._resources["lake"].get_connection(write=True) as connection:
        connection.execute(TABLES)
    return made


def at(text):
    return pd.Timestamp(text, tz="UTC")


def test_features_of_labels(stack, cli, environment, tmp_path, monkeypatch):
    features = stack.features
    frame = pd.DataFrame(
        {
            "label": [1.5, 2.5, 3.5, 4.5, 5.5],
            "model_name": pd.Categorical(["cats", "cats", "dogs", None, "cats"]),
            "dataset": ["pets"] * 5,
            # In nanoseconds and of another zone, out of order.
            "event_timestamp": pd.to_datetime(
                ["2026-03-06T00:59", "2026-03-03T01:00", "2026-03-03T00:00", "2026-03-03T00:00", "2026-03-06T01:00"]
            ).tz_localize("UTC").tz_convert("Asia/Tokyo"),
        },
        index=[7, 7, 3, 1, 0],
    )  # fmt: skip
    asked = ["daily:accuracy", "models:owner", "daily:requests"]
    found = features.historical(frame, asked)
    table = found.table()
    assert table.schema == found.schema
    assert table.select(frame.columns.tolist()).to_pandas().equals(frame.reset_index(drop=True))
    assert table.select(["accuracy", "requests", "owner"]).to_pydict() == {
        # Known late is not known; what is known of 2026-03-02 on 2026-03-06 00:59 is older than four days.
        "accuracy": [None, 0.2, None, None, 0.3],
        "requests": [None, 2, None, None, 3],
        "owner": ["bob", "ann", None, None, "bob"],
    }

    # However it is given, and however few rows are looked up at once.
    plain = pa.table(frame.astype({"model_name": "str"}).reset_index(drop=True))
    pq.write_table(plain, tmp_path / "labels.parquet")
    frame.to_csv(tmp_path / "labels.csv", index=False, date_format="%Y-%m-%dT%H:%M:%S%z")
    stack_sql = f"SELECT * FROM '{tmp_path / 'labels.parquet'}'"
    monkeypatch.setattr(feature_retrieval, "PART_ROWS", 2)
    monkeypatch.setattr(feature_retrieval, "MOST_CELLS", 5)
    for given in (
        plain,
        plain.to_reader(max_chunksize=3),
        tmp_path / "labels.parquet",
        str(tmp_path / "labels.csv"),
        stack_sql,
    ):
        again = features.historical(given, asked)
        assert [again.table()[name] for name in ("accuracy", "owner")] == [table["accuracy"], table["owner"]]
        assert again.pandas()["requests"].tolist()[1::3] == [2, 3]

    every = features.historical(frame, ["daily:*", "models:*"], times=True).table()
    assert every.column_names[4:] == [
        "daily__accuracy", "requests", "daily__event_at", "daily__known_at",
        "owner", "models__accuracy", "models__event_at", "models__known_at",
    ]  # fmt: skip
    assert every["daily__known_at"][1].as_py() == datetime(2026, 3, 3, 1, tzinfo=UTC)
    assert (
        features.historical(frame, "models:owner", full_feature_names=True).schema.names[-1]
        == "models__owner"
    )
    assert features.historical(plain.slice(0, 0), asked).table().num_rows == 0

    target = tmp_path / "found.parquet"
    assert found.to_parquet(target) == 5
    assert pq.read_table(target)["accuracy"] == table["accuracy"]
    assert duckdb.sql("SELECT count(*) FROM found").fetchone() == (5,)

    # All that was known from 2026-03-03 on, and before 2026-03-07.
    moments = features.historical(
        None, "daily:requests", start="2026-03-03", end="2026-03-07T00:00:00Z"
    ).table()
    assert moments.to_pylist() == [
        {"model_name": "cats", "event_timestamp": datetime(2026, 3, 3, 1, tzinfo=UTC), "requests": 2},
        {"model_name": "cats", "event_timestamp": datetime(2026, 3, 6, 1, tzinfo=UTC), "requests": 3},
    ]

    environment |= {"ML_ASSETS_FEATURE_FOLDERS": str(tmp_path / "team")}
    arguments = [
        "features",
        "get",
        "--entities",
        str(tmp_path / "labels.csv"),
        "--features",
        "daily:accuracy,models:owner",
    ]
    with stack._resources["lake"].get_connection(write=True) as connection:
        connection.execute(
            "CREATE TABLE features.steps (model_name VARCHAR, day DATE, hits BIGINT, asked BIGINT)"
        )
    shown = cli(stack.home, *arguments, "--csv", **environment)
    assert shown.returncode == 0, shown.stderr
    assert pd.read_csv(io.StringIO(shown.stdout))["owner"].tolist()[:2] == ["bob", "ann"]
    written = cli(stack.home, *arguments, "--out", str(tmp_path / "out.parquet"), **environment)
    assert written.stdout == f"5 rows written to {tmp_path / 'out.parquet'}.\n"
    listed = json.loads(cli(stack.home, "features", "list", "--json", **environment).stdout)
    assert {"daily", "models"} < {view["view"] for view in listed}
    told = cli(stack.home, "features", "describe", "daily", "--json", **environment)
    assert told.returncode == 0, told.stderr
    assert [(column["column"], column["role"], column["sources"]) for column in json.loads(told.stdout)][
        :4
    ] == [
        ("model_name", "entity", ["duckdb/steps.model_name"]),
        ("day", "event time", ["duckdb/steps.day"]),
        ("known_at", "known time", []),
        ("accuracy", "feature", ["duckdb/steps.asked", "duckdb/steps.hits"]),
    ]


def test_what_cannot_be_looked_up_is_told(stack, tmp_path):
    frame = pd.DataFrame(
        {"model_name": ["a", "b"], "event_timestamp": [at("2026-03-01"), at("2026-03-02")]},
    )
    twice = frame.iloc[[0, 1, 0]]
    for given, asked, told, more in [
        (frame, "dayly:accuracy", "There is no view 'dayly': do you mean 'daily'", {}),
        (frame, "daily:acuracy", "'daily' has no feature 'acuracy': do you mean 'accuracy'", {}),
        (frame, "plain:one", "'plain' is a table, but no view", {}),
        (frame, "broken:one", "'broken' cannot be used: broken.sql, line 1: ttl", {}),
        (frame, [], "No feature is asked for", {}),
        (frame, "daily:", "names no feature: write VIEW:FEATURE", {}),
        (frame, "models:owner", "no column 'dataset', by which the view 'models'", {}),
        (frame.set_index("model_name"), "daily:accuracy", r"the index is called so: frame.reset_index\(\)", {}),
        (frame, "daily:accuracy", "no column 'at' with the labels' times", {"time_column": "at"}),
        (frame.assign(event_timestamp=["2026-03-01"] * 2), "daily:accuracy", r"pd.to_datetime\(frame", {}),
        (frame.assign(event_timestamp=frame.event_timestamp.dt.tz_localize(None)), "daily:accuracy",
         r"without a zone: .*tz_localize\('UTC'\)", {}),
        (frame.assign(event_timestamp=[frame.event_timestamp[0], pd.NaT]), "daily:accuracy",
         r"1 row .* has no time in 'event_timestamp' \(row 1, counted from 0\)", {}),
        (twice, "daily:accuracy", r"Rows 0 and 2 .* same time \(model_name 'a', 2026-03-01 .*allow_duplicates", {}),
        (frame.assign(accuracy=1), "daily:accuracy", "has a column 'accuracy' already", {}),
        (frame.assign(model_name=[1, 2]), "daily:accuracy", "'model_name' of the entity frame is int64, .* text", {}),
        (frame.assign(model_name=["a", 2]), "daily:accuracy", "values of several kinds, row 1 has 2", {}),
        (3, "daily:accuracy", "The entity frame cannot be int", {}),
        ("nowhere.parquet", "daily:accuracy", "There is no file nowhere.parquet", {}),
        ("SELECT 1; SELECT 2", "daily:accuracy", "is only read here", {}),
        ("SELECT nothing", "daily:accuracy", "cannot answer this", {}),
        (frame, "daily:accuracy", "either the frame, or start and end", {"start": "2026-01-01"}),
        (None, ["daily:accuracy", "models:owner"], "of the same entity", {}),
        (None, ["daily:accuracy", "numbered:*"], "'model_name' is VARCHAR in 'daily' and BIGINT in 'numbered'", {}),
        (frame, "bare:*", "'bare' has no features but its entity and times: .* bare:since", {}),
        (frame.assign(model_name=[1, 2]), "numbered:*", "2 columns .* called 'Numbered__Event_at'", {"times": True}),
        (None, "daily:accuracy", "start cannot be 'yesterday'", {"start": "yesterday"}),
        (None, "daily:accuracy", "without a time zone", {"start": "2026-01-01T00:00"}),
        (None, "daily:accuracy", "There is no time from", {"start": "2026-01-01", "end": "2026-01-01"}),
    ]:  # fmt: skip
        with pytest.raises(Refusal, match=told):
            stack.features.historical(given, asked, **more)
    with pytest.raises(StoreUnavailable, match="duckdb/unmade does not exist yet"):
        stack.features.historical(frame, "unmade:a")
    assert stack.features.historical(twice, "daily:accuracy", allow_duplicates=True).table().num_rows == 3
    used = stack.features.historical(frame, "daily:accuracy").reader()
    used.read_all()
    with pytest.raises(Refusal, match="read from already"):
        stack.features.historical(used, "daily:accuracy")


def test_many_labels_take_neither_time_nor_memory(stack, monkeypatch):
    """They are not joined row by row, which would be 40 thousand million pairs, and no part is kept."""
    lake = DuckLakeResource(**{**stack._resources["lake"].model_dump(), "write_timeout_s": 10})
    moment = "TIMESTAMPTZ '2026-01-02 {hour}:00:00Z' + to_days((i // 1000)::INTEGER)"
    with lake.get_connection(write=True) as connection:
        connection.execute(
            f"CREATE TABLE features.steps AS SELECT 'm' || i % 1000 AS model_name, i AS requests, "
            f"{moment.format(hour='00')} AS moment FROM range(200_000) AS numbers (i)"
        )
    labels = (
        f"SELECT 'm' || i % 1000 AS model_name, i AS label, {moment.format(hour='12')} AS event_timestamp "
        "FROM range(200_000) AS numbers (i)"
    )
    files = feature_files(stack.settings)
    asked = feature_retrieval.historical(lake, files, labels, "steps:requests", "event_timestamp")
    found = asked.table()
    assert found["requests"].equals(found["label"])

    held, load = [], feature_retrieval.load_labels

    def noting(connection, *given):
        spent = "sum(memory_usage_bytes + temporary_storage_bytes)"
        size = f"SELECT {spent} FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"
        held.extend(connection.execute(size).fetchall()[0])
        load(connection, *given)

    monkeypatch.setattr(feature_retrieval, "PART_ROWS", 40_000)
    monkeypatch.setattr(feature_retrieval, "load_labels", noting)
    assert asked.table()["requests"].equals(found["label"])
    assert len(held) == 5
    assert max(held) < 1 << 20, held


def test_files_are_told_from_queries_and_labels_leave_none_behind(tmp_path):
    class Lake(DuckLakeResource):
        """Tells the query that it is asked."""

        def question(self, query):
            return pa.table({"query": [query] * 3}).to_reader(max_chunksize=1)

    lake, rows = Lake(home=str(tmp_path / "home")), pa.table({"a": [1, 2]})
    with chdir(tmp_path):
        for name in (
            "with_labels.parquet",
            "select_x.parquet",
            "from.parquet",
            "(1) x.parquet",
            "from-[ab]*.parquet",
        ):
            pq.write_table(rows, name)
            assert frame_of(name, lake).schema == rows.schema
        for name in ("with_labels.csv", "select_x.csv", "from.csv"):
            with pytest.raises(Refusal, match="There is no file"):
                frame_of(name, lake)
        for query in (
            "SELECT 1",
            "from x",
            "\n(SELECT 1)",
            "WITH a AS (FROM x) FROM a",
            "FROM'x'",
            "FROM x" + " " * 5_000,
        ):
            frame = frame_of(query, lake)
            assert [batch["query"].to_pylist() for batch in frame.reader(["query"])] == [[query]] * 3
    # One reading does not disturb another.
    one, other = frame.reader(["query"]), frame.reader(["query"])
    assert one.read_next_batch() == other.read_next_batch() == one.read_next_batch()
    assert len(other.read_all()) == 2
    # Not even while they are read, so that a killed process leaves nothing either.
    assert {each.name for each in (tmp_path / "home").rglob("*")} == {"format.json", "tmp"}
