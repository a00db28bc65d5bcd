import json
import math
from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest

from ml_assets.contracts import tables
from ml_assets.intake.raw import looked_back_on
from ml_assets.lib.metric_rules import MetricRules, PrimaryMetric
from ml_assets.lib.sql import quote_literal
from ml_assets.settings import SQL_DIR, Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb.select_file import parse_feature
from ml_assets.tables.arrow_types import arrow_schema

TABLES = tables(Settings())

FEATURES = sorted((SQL_DIR / "duckdb" / "features").glob("*.sql"))


@pytest.mark.parametrize("file", FEATURES, ids=lambda file: file.stem)
def test_every_feature_file_has_a_contract_and_known_parents(file):
    feature = parse_feature(file.stem, file.read_text())
    assert f"duckdb/{feature.name}" in TABLES
    assert feature.parents and set(feature.parents) <= TABLES.keys()
    assert feature.description


def test_parents_and_parameters_come_from_the_sql(tmp_path):
    file = tmp_path / "demo.sql"
    file.write_text(
        "-- One row\n-- a run.\nWITH own AS (SELECT 1)\nSELECT r.run_id FROM raw.raw_runs r, own "
        "WHERE r.created_at >= $start"
    )
    feature = parse_feature(file.stem, file.read_text())
    assert feature.parents == ("duckdb/raw_runs",)
    assert feature.parameters == {"start"}
    assert feature.description == "One row a run."


def test_sql_that_cannot_be_parsed_names_its_file(tmp_path):
    file = tmp_path / "broken.sql"
    file.write_text("-- Broken.\nSELECT FROM WHERE (")
    with pytest.raises(ValueError, match=r"broken\.sql.*line 2, column 13"):
        parse_feature(file.stem, file.read_text())


@pytest.mark.parametrize("text", ["SELECT 1; SELECT 2", "CREATE TABLE t (a INT)", "-- nothing"])
def test_a_file_that_is_not_one_select_names_its_file(text):
    with pytest.raises(ValueError, match=r"other\.sql is not one SELECT"):
        parse_feature("other", text)


PLAIN = MetricRules()


def run_of(n, **columns):
    at = datetime(2026, 3, n, 8, tzinfo=UTC)
    base = {"run_id": f"r{n}", "experiment": "mine", "model_name": "dogs", "status": "completed"}
    return {**base, "created_at": at, "completed_at": at + timedelta(hours=1), **columns}


def point_of(n, key, value, step=0, hour=8):
    at = datetime(2026, 3, n, hour, 30, tzinfo=UTC)
    return {"run_id": f"r{n}", "key": key, "step": step, "value": value, "timestamp": at}


class Lake:
    """Builds the features of runs and points in a database of its own, and answers what is asked of it."""

    def __init__(self, connection):
        self.connection = connection
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw; CREATE SCHEMA features")

    def build(self, runs, points, rules=PLAIN):
        for table, rows in {"raw_runs": runs, "raw_metrics": points}.items():
            contract = TABLES[f"duckdb/{table}"]
            self.keep(f"raw.{table}", contract, pa.Table.from_pylist(rows, arrow_schema(contract)))
        window = {"start": datetime(2026, 3, 1, tzinfo=UTC), "end": datetime(2026, 3, 8, tzinfo=UTC)}
        keys = self.connection.execute(read_sql("duckdb/operations/metric_keys.sql"), window).fetchall()
        self.connection.register("metric_rules", rules.table(key for (key,) in keys))
        select = read_sql("duckdb/features/run_features.sql")
        found = self.connection.execute(select, window).to_arrow_table()
        contract = TABLES["duckdb/run_features"]
        assert set(found.column_names) == set(contract.names)
        self.keep("features.run_features", contract, found)
        return self.ask("FROM features.run_features ORDER BY created_at")

    def keep(self, table, contract, rows):
        self.connection.register("rows", rows)
        typed = [
            f"{column.name}::JSON AS {column.name}" for column in contract.columns if column.type == "json"
        ]
        self.connection.execute(f"CREATE TABLE {table} AS SELECT * REPLACE ({', '.join(typed)}) FROM rows")

    def ask(self, sql):
        return self.connection.execute(sql).to_arrow_table().to_pylist()


@pytest.fixture
def lake():
    with duckdb.connect() as connection:
        yield Lake(connection)


def test_a_diverged_run_is_never_the_best(lake):
    runs = [
        run_of(1, metrics='{"accuracy":0.7}'),
        run_of(2, metrics='{"accuracy":"NaN"}'),
        run_of(3),
        run_of(4, metrics='{"accuracy":0.6}'),
    ]
    rows = lake.build(runs, [point_of(3, "accuracy", float("inf"))])
    for best in ("previous_best_accuracy", "previous_best_primary_value"):
        assert [row[best] for row in rows] == [None, 0.7, 0.7, 0.7]
    # What the last one reached is told as it was.
    assert math.isnan(rows[2]["previous_accuracy"]) and math.isinf(rows[3]["previous_accuracy"])
    assert math.isnan(rows[1]["primary_value"])
    [served] = lake.ask(read_sql("duckdb/serving/online_features.sql"))
    assert (served["run_id"], served["previous_best_accuracy"]) == ("r4", 0.7)


def judged(row):
    return tuple(row[f"primary_{name}"] for name in ("metric", "metric_key", "value", "higher_is_better"))


def test_a_run_that_has_rmse_alone_is_as_much_as_any_other(lake):
    runs = [
        run_of(1, metrics='{"rmse":3.0}'),
        run_of(2),
        run_of(3, metrics='{"rmse":2.5,"epoch":"7"}', dataset="d"),
    ]
    points = [
        point_of(2, "val_rmse", 2.0),
        # Known when the run ended, and not.
        point_of(2, "val_rmse", 1.0, step=1, hour=20),
    ]
    first, second, third = lake.build(runs, points)
    assert judged(first) == ("rmse", "rmse", 3.0, False)
    assert judged(second) == ("rmse", "val_rmse", 1.0, False)
    assert (second["primary_change"], third["previous_primary_value"]) == (-2.0, 2.0)
    assert (third["previous_best_primary_value"], third["primary_change"]) == (2.0, 0.5)
    assert (third["accuracy"], third["previous_accuracy"], third["previous_runs"]) == (None, None, 2)
    assert [row["metrics"] for row in (first, second, third)] == [
        '{"rmse":3.0}',
        '{"val_rmse":1.0}',
        '{"rmse":2.5,"epoch":"7"}',
    ]
    served = lake.ask(read_sql("duckdb/serving/online_features.sql"))
    assert served[0]["run_id"] == "r3" and served[0]["primary_metric"] == "rmse"
    assert set(served[0]) == set(TABLES["serving/online_features"].names)
    cards = lake.ask(f"FROM ({read_sql('duckdb/features/experiment_cards.sql')}) ORDER BY created_at")
    assert cards[2]["text"].splitlines()[3:] == [
        "Status completed.",
        "Primary metric rmse 2.5; lower is better.",
        "Rmse worsened by 0.5 against the run before.",
        "Metrics epoch=7, rmse=2.5.",
    ]
    assert (
        "Primary metric rmse 1, logged as val_rmse; lower is better.\nRmse improved by 2 against"
        in cards[1]["text"]
    )
    assert json.loads(cards[2]["metadata"])["primary_value"] == 2.5


def test_a_run_with_a_point_after_its_end_is_not_known_before_that_point(lake):
    runs = [run_of(1), run_of(2), run_of(3, status="running", completed_at=None), run_of(4)]
    points = [
        point_of(1, "loss", 2.0),
        point_of(2, "loss", 2.0),
        point_of(2, "loss", 1.0, step=1, hour=20),
        point_of(2, "accuracy", 0.5),
        point_of(3, "loss", 1.0),
    ]
    rows = lake.build(runs, points)
    assert [row["loss"] for row in rows] == [2.0, 1.0, 1.0, None]
    assert [row["loss_slope"] for row in rows] == [None, -1.0, None, None]  # one step has no slope
    end = [datetime(2026, 3, n, 9, tzinfo=UTC) for n in range(1, 5)]
    assert [row["known_at"] for row in rows] == [
        end[0],
        datetime(2026, 3, 2, 20, 30, tzinfo=UTC),
        None,
        end[3],
    ]


def test_every_statement_judges_by_the_rules_that_it_is_given(lake):
    """As `MetricRules.primary` does of the same runs."""
    rules = MetricRules(
        synonyms={"score": "accuracy"},
        of_dataset={"speech": PrimaryMetric("wer", "min"), "pets": PrimaryMetric("loss")},
        of_experiment={"other": PrimaryMetric("eval/f1")},
    )
    given = [
        {"metrics": {"accuracy": 0.9, "wer": 3.0}, "dataset": "speech"},
        {"metrics": {"accuracy": 0.9, "loss": 0.1}, "dataset": "speech"},
        {"metrics": {"acc": 0.8, "val_acc": 0.7, "f1": None, "eval_loss": 0.3, "train_loss": 0.1}},
        {
            "metrics": {"score": 0.4, "f1": "0.6", "auc": "NaN", "on": True, "name": "x"},
            "experiment": "other",
        },
        {"metrics": {"loss": 0.3, "eval/f1": 0.2}, "experiment": "other", "dataset": "pets"},
        {"metrics": {"seconds": 3.0}},
    ]
    runs = [run_of(n, **{**row, "metrics": json.dumps(row["metrics"])}) for n, row in enumerate(given, 1)]
    rows = lake.build(runs, [], rules)
    # A column is filled by the metric of its name, else by the first of its synonyms.
    assert [(row["accuracy"], row["f1_score"], row["loss"]) for row in rows[2:5]] == [
        (0.7, None, 0.3),
        (0.4, 0.6, None),
        (None, 0.2, 0.3),
    ]
    for row, told in zip(given, rows, strict=True):
        wanted = rules.primary(row["metrics"], row.get("experiment", "mine"), row.get("dataset"))
        assert judged(told)[1:] == (wanted or (None, None, None))


@pytest.mark.parametrize(
    ("coming", "days"),
    [
        ([point_of(1, "rmse", 2.5), point_of(1, "mae", 1.0)], {3, 4}),
        ([point_of(1, "rmse", 3.0), point_of(1, "mae", 1.0), point_of(1, "val_accuracy", 0.5)], {3, 4}),
        ([point_of(1, "mae", 1.0)], {3, 4}),
        # Nobody looks back on these: another metric, what was logged after the end, the same once more.
        ([point_of(1, "rmse", 3.0), point_of(1, "mae", 7.0)], set()),
        (
            [point_of(1, "rmse", 3.0), point_of(1, "mae", 1.0), point_of(1, "rmse", 1.0, step=9, hour=20)],
            set(),
        ),
        ([point_of(1, "rmse", 3.0), point_of(1, "mae", 1.0)], set()),
    ],
)
def test_runs_that_look_back_on_a_metric_that_changes_are_found(lake, coming, days):
    standing = [point_of(1, "rmse", 3.0), point_of(1, "mae", 1.0)]
    lake.build([run_of(1), run_of(3), run_of(4), run_of(5, model_name="cats")], standing)
    connection = lake.connection
    connection.register("arriving", pa.Table.from_pylist(coming))
    connection.execute(
        "CREATE SCHEMA intake; CREATE TABLE intake.intake_metrics AS SELECT *, timestamp::DATE AS day, "
        "NULL AS quarantine_reason, 'u' AS unit_hash FROM arriving; CREATE TABLE live AS SELECT 'u' AS unit_hash"
    )
    window = {"first": date(2026, 3, 1), "last": date(2026, 3, 1)}
    logged = connection.execute(read_sql("duckdb/raw/logged_keys.sql"), window).fetchall()
    keys = looked_back_on(logged, PLAIN)
    statement = read_sql("duckdb/raw/followers_of_metrics.sql").replace("{arriving}", "FROM arriving")
    found = connection.execute(statement.replace("{keys}", ", ".join(map(quote_literal, keys))), window)
    assert {day.day for (day,) in found.fetchall()} == days
