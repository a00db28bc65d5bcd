"""Runs with their metrics and parameters in PostgreSQL: recorded by applications, changed by many, found by indexes."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_assets.contracts import tables
from ml_assets.contracts.experiments import RUN_METRICS, RUN_PARAMS, RUNS
from ml_assets.contracts.text import contract_of_text, contract_text
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stores.postgres_table import ensure_table

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def rows(postgres: PostgresResource, query: str) -> list[tuple[Any, ...]]:
    with postgres.connect() as connection:
        return connection.execute(query.encode()).fetchall()


METRICS = "SELECT key, last, best, min, max, mean, count, last_step FROM ml_run_metrics ORDER BY key"
PARAMS = "SELECT key, text, number FROM ml_run_params ORDER BY key"


def test_each_change_of_a_metric_is_one_more_point(postgres: PostgresResource) -> None:
    made = postgres.create_experiment("iris", metrics={"loss": 3.0, "accuracy": 0.5}, created_at=NOON)
    postgres.update_experiment(made, metrics={"loss": 1.0, "nan": "NaN", "words": "good"}, status="running")
    postgres.complete_experiment(made, {"loss": 2.0, "accuracy": 0.25, "far": "Infinity"})
    *others, (nan, last, *statistics) = rows(postgres, METRICS)
    assert others == [
        ("accuracy", 0.25, 0.5, 0.25, 0.5, 0.375, 2, None),
        ("far", math.inf, math.inf, math.inf, math.inf, math.inf, 1, None),
        ("loss", 2.0, 1.0, 1.0, 3.0, 2.0, 3, None),
    ]
    assert (nan, math.isnan(last), statistics) == ("nan", True, [None, None, None, None, 0, None])
    told = rows(postgres, "SELECT DISTINCT origin, created_at, first_nan_at IS NULL FROM ml_run_metrics")
    assert sorted(told) == [("api", NOON, False), ("api", NOON, True)]


def test_the_best_of_a_recorded_metric_goes_by_the_settings(postgres: PostgresResource) -> None:
    told = {"metric_directions": {"time_s": "min"}, "metric_synonyms": {"q": "log_loss"}}
    ruled = postgres.model_copy(update=told)
    made = ruled.create_experiment("iris", metrics={"time_s": 3.0, "q": 1.0, "auc": 0.5})
    ruled.update_experiment(made, metrics={"time_s": 5.0, "q": 2.0, "auc": 0.75})
    assert rows(postgres, "SELECT key, best FROM ml_run_metrics ORDER BY key") == [
        ("auc", 0.75),
        ("q", 1.0),
        ("time_s", 3.0),
    ]


def test_parameters_are_kept_as_text_and_number(postgres: PostgresResource) -> None:
    made = postgres.create_experiment(
        "iris", parameters={"lr": 0.1, "depth": "3", "name": "adam", "gone": 1, "null": None}
    )
    postgres.update_experiment(made, parameters={"lr": 1e-3, "gone": None, "layers": [1, 2]})
    assert rows(postgres, PARAMS) == [
        ("depth", "3", 3.0),
        ("layers", "[1,2]", None),
        ("lr", "0.001", 0.001),
        ("name", "adam", None),
    ]


def test_metrics_and_parameters_move_with_their_run(postgres: PostgresResource) -> None:
    made = postgres.create_experiment("iris", metrics={"a": 1}, parameters={"b": 1}, created_at=NOON)
    later = NOON + timedelta(days=1)
    postgres.update_experiment(made, created_at=later, metrics={"c": 1})
    assert rows(
        postgres,
        "SELECT key, created_at FROM ml_run_metrics UNION ALL SELECT key, created_at FROM ml_run_params",
    ) == [(key, later) for key in "acb"]


def test_nothing_is_recorded_of_a_change_that_is_refused(postgres: PostgresResource) -> None:
    made = postgres.create_experiment("iris", metrics={"a": 1})
    with pytest.raises(ValueError, match="cannot become created"):
        postgres.update_experiment(made, status="running")
        postgres.update_experiment(made, status="created", metrics={"a": 2, "b": 1})
    with pytest.raises(ValueError, match="there is an experiment"):
        postgres.create_experiment("iris", id=made, metrics={"b": 1})
    assert rows(postgres, "SELECT key, count FROM ml_run_metrics") == [("a", 1)]


LONG = "\U0001f600" * 500


def test_keys_of_any_kind(postgres: PostgresResource) -> None:
    keys = ["a/b", "two words", "\u00fcn\u00ef", LONG, "quo'te\"", "", "%s", "a.b"]
    made = postgres.create_experiment(
        "iris", metrics=dict.fromkeys(keys, 1), parameters=dict.fromkeys(keys, LONG)
    )
    postgres.update_experiment(
        made, metrics=dict.fromkeys(keys, 2), parameters=dict.fromkeys(keys, "x" * 9_999)
    )
    assert {key for (key,) in rows(postgres, "SELECT key FROM ml_run_metrics WHERE count = 2")} == set(keys)
    assert {key for (key,) in rows(postgres, "SELECT key FROM ml_run_params")} == set(keys)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"metrics": {"k" * 2_001: 1}},
            "the key 'kkk.* of metrics has more than 2,000 bytes, which no index holds",
        ),
        ({"parameters": {LONG + "x": 1}}, "of parameters has more than 2,000 bytes"),
        (
            {"id": "i" * 1_000, "metrics": {"k" * 1_501: 1}},
            "has more than 1,500 bytes.*beside the id; shorten it",
        ),
        ({"metrics": [1, 2]}, r"metrics \[1, 2\] is no mapping from keys to values"),
        ({"metrics": {"a\0b": 1}}, "U\\+0000"),
        (
            {"completed_at": NOON},
            "is the end of an experiment, which is created; give its status, too: completed, ",
        ),
    ],
)
def test_what_no_row_can_hold_is_refused(
    postgres: PostgresResource, columns: dict[str, Any], said: str
) -> None:
    made = postgres.create_experiment("iris")
    with pytest.raises(ValueError, match=said):
        postgres.create_experiment("iris", **columns)
    if "id" not in columns:
        with pytest.raises(ValueError, match=said):
            postgres.update_experiment(made, **columns)
    assert rows(postgres, "SELECT count(*) FROM ml_experiments") == [(1,)]


def test_a_run_with_ten_thousand_metrics(postgres: PostgresResource) -> None:
    many = {f"m{n}": n for n in range(10_000)}
    made = postgres.create_experiment("iris", metrics=many, parameters=many)
    postgres.update_experiment(made, metrics=many)
    assert rows(postgres, "SELECT count(*), sum(last), sum(count) FROM ml_run_metrics") == [
        (10_000, 49_995_000.0, 20_000)
    ]
    assert rows(postgres, "SELECT count(*), sum(number) FROM ml_run_params") == [(10_000, 49_995_000.0)]


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_nothing_leaves_an_end(postgres: PostgresResource, end: str) -> None:
    made = postgres.create_experiment("iris")
    postgres.update_experiment(made, status=end)
    row = postgres.get_experiment(made)
    assert row is not None
    assert datetime.now(UTC) - row["completed_at"] < timedelta(minutes=1)
    changes: list[Callable[[], None]] = [
        lambda: postgres.update_experiment(made, status="running"),
        lambda: postgres.update_experiment(made, metrics={"a": 1}),
        lambda: postgres.complete_experiment(made),
    ]
    for change in changes:
        with pytest.raises(ValueError, match=f"experiment '{made}' has ended at .* can no longer be changed"):
            change()
    assert postgres.get_experiment(made) == row


def test_a_run_never_goes_back(postgres: PostgresResource) -> None:
    made = postgres.create_experiment("iris", status="running")
    postgres.update_experiment(made, status="running")
    said = f"'{made}' is running and cannot become created: a run is created, then running, then completed, failed or"
    with pytest.raises(ValueError, match=said):
        postgres.update_experiment(made, status="created")
    with pytest.raises(ValueError, match="which is running; give its status"):
        postgres.complete_experiment(made, status="running")


def test_changes_at_once_lose_nothing(postgres: PostgresResource) -> None:
    """On an empty database, so that they make the tables at once, too."""

    def record(n: int) -> None:
        postgres.create_experiment("iris", id=f"run {n}", metrics={"a": n})

    def merge(n: int) -> None:
        postgres.update_experiment(
            "shared", metrics={f"m{n}": n, "all": n}, parameters={f"p{n}": n}, tags={f"t{n}": "x"}
        )

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(record, range(20)))
        postgres.create_experiment("iris", id="shared")
        list(pool.map(merge, range(20)))
    row = postgres.get_experiment("shared")
    assert row is not None
    assert {key: value for key, value in row["metrics"].items() if key != "all"} == {
        f"m{n}": n for n in range(20)
    }
    assert row["parameters"] == {f"p{n}": n for n in range(20)}
    assert len(row["tags"]) == 20
    assert rows(
        postgres, "SELECT min, max, mean, count FROM ml_run_metrics WHERE run_id = 'shared' AND key = 'all'"
    ) == [(0.0, 19.0, pytest.approx(9.5), 20)]
    assert rows(postgres, "SELECT count(*) FROM ml_run_metrics") == [(41,)]
    assert rows(postgres, "SELECT count(*) FROM ml_run_params") == [(20,)]


def test_one_of_many_ends_a_run(postgres: PostgresResource) -> None:
    made = postgres.create_experiment("iris")

    def end(status: str) -> str:
        try:
            postgres.complete_experiment(made, {status: 1.0}, status)
        except ValueError as fault:
            assert "has ended at" in str(fault)
            return ""
        return status

    with ThreadPoolExecutor(9) as pool:
        [won] = filter(None, pool.map(end, ["completed", "failed", "cancelled"] * 3))
    row = postgres.get_experiment(made)
    assert row is not None
    assert (row["status"], row["metrics"]) == (won, {won: 1.0})


def refresh(postgres: PostgresResource, **directions: str) -> int:
    ruled = postgres.model_copy(update={"metric_directions": directions})
    return ruled.refresh_recorded_runs(NOON - timedelta(hours=12), NOON + timedelta(hours=12))


def test_runs_of_before_there_were_such_tables_get_their_rows(postgres: PostgresResource) -> None:
    """And those of other days do not; a key that no index holds stays in the JSON alone."""
    postgres.create_experiment(
        "iris", id="old", metrics={"loss": 2.0}, parameters={"lr": 1e-4}, created_at=NOON
    )
    postgres.create_experiment("iris", id="next", metrics={"loss": 2.0}, created_at=NOON + timedelta(days=1))
    postgres.create_experiment("iris", id="bare", created_at=NOON)
    postgres.create_experiment("iris", id="runs", metrics={"loss": 2.0, "a": 1}, parameters={"lr": 1})
    with postgres.connect(write=True) as connection:
        connection.execute(
            "UPDATE ml_experiments SET metrics = metrics || jsonb_build_object(repeat('k', 2001), 1); "
            "DROP TABLE ml_run_metrics; DROP TABLE ml_run_params"
        )
    assert (refresh(postgres), refresh(postgres)) == (1, 0)
    assert rows(
        postgres, "SELECT run_id, key, last, best, count, created_at, origin FROM ml_run_metrics"
    ) == [("old", "loss", 2.0, 2.0, 1, NOON, "api")]
    assert rows(postgres, "SELECT run_id, key, text, number FROM ml_run_params") == [
        ("old", "lr", "0.0001", 1e-4)
    ]
    postgres.update_experiment("runs", metrics={"loss": 1.0})
    assert rows(
        postgres, "SELECT key, best, count FROM ml_run_metrics WHERE run_id = 'runs' ORDER BY key"
    ) == [("a", 1.0, 1), ("loss", 1.0, 2)]
    assert rows(postgres, "SELECT number FROM ml_run_params WHERE run_id = 'runs'") == [(1.0,)]


def test_another_direction_turns_what_is_best(postgres: PostgresResource) -> None:
    made = postgres.create_experiment("iris", metrics={"a": 1, "loss": 1, "n": "NaN"}, created_at=NOON)
    postgres.update_experiment(made, metrics={"a": 2, "loss": 2})
    assert (refresh(postgres), refresh(postgres, a="min"), refresh(postgres, a="min")) == (0, 1, 0)
    assert rows(postgres, "SELECT key, best FROM ml_run_metrics ORDER BY key") == [
        ("a", 1.0),
        ("loss", 1.0),
        ("n", None),
    ]


N_RUNS = 20_000

FILL = f"""
INSERT INTO ml_experiments (id, experiment, model_name, model_type, dataset, status, parameters, metrics, tags,
    created_at, origin)
SELECT 'run ' || n, 'experiment ' || n % 500, 'model ' || n % 500, 'type ' || n % 500, 'data ' || n % 500,
    CASE n % 1000 WHEN 0 THEN 'running' ELSE 'completed' END, jsonb_build_object('lr', n % 500),
    jsonb_build_object('loss', n % 500), jsonb_build_object('owner', 'o' || n % 500),
    '2026-01-01Z'::timestamptz + n * interval '1 min', 'graph'
FROM generate_series(1, {N_RUNS}) AS n;
INSERT INTO ml_run_metrics (run_id, key, last, best, min, max, mean, count, created_at, origin)
SELECT 'run ' || n, key, v, v, v, v, v, 1, '2026-01-01Z'::timestamptz + n * interval '1 min', 'graph'
FROM generate_series(1, {N_RUNS}) AS n, unnest(ARRAY['loss', 'accuracy', 'a/b']) AS key,
    LATERAL (SELECT n / 20000.0) AS _(v);
INSERT INTO ml_run_params (run_id, key, text, number, created_at, origin)
SELECT 'run ' || n, key, (n % 5000)::text, n % 5000, '2026-01-01Z'::timestamptz + n * interval '1 min', 'graph'
FROM generate_series(1, {N_RUNS}) AS n, unnest(ARRAY['lr', 'depth', 'name']) AS key;
ANALYZE ml_experiments; ANALYZE ml_run_metrics; ANALYZE ml_run_params
"""

QUESTIONS = {
    **{
        f"SELECT run_id FROM ml_run_metrics WHERE key = 'loss' AND {name} < 0.001": f"ml_run_metrics_key_{name}"
        for name in ("best", "last", "min", "max", "mean")
    },
    "SELECT run_id FROM ml_run_metrics WHERE key = 'loss' ORDER BY best LIMIT 10": "ml_run_metrics_key_best",
    "SELECT run_id FROM ml_run_metrics WHERE key = 'loss' ORDER BY best DESC LIMIT 10": "ml_run_metrics_key_best",
    "SELECT * FROM ml_run_metrics WHERE run_id = 'run 7'": "ml_run_metrics_pkey",
    "SELECT run_id FROM ml_run_params WHERE key = 'lr' AND number > 4990": "ml_run_params_key_number",
    "SELECT run_id FROM ml_run_params WHERE key = 'lr' AND number BETWEEN 1 AND 2": "ml_run_params_key_number",
    "SELECT run_id FROM ml_run_params WHERE key = 'lr' AND left(text, 100) = left('7', 100) AND text = '7'": (
        "ml_run_params_key_text"
    ),
    "SELECT id FROM ml_experiments ORDER BY created_at DESC, id DESC LIMIT 10": "ml_experiments_created_at_id",
    "SELECT id FROM ml_experiments WHERE (created_at, id) < ('2026-01-02Z', 'run 7') "
    "ORDER BY created_at DESC, id DESC LIMIT 10": "ml_experiments_created_at_id",
    "SELECT id FROM ml_experiments WHERE created_at > '2026-01-14 21:00Z'": "ml_experiments_created_at_id",
    "SELECT id FROM ml_experiments WHERE experiment = 'experiment 7' ORDER BY created_at DESC LIMIT 5": (
        "ml_experiments_experiment_created_at"
    ),
    **{
        f"SELECT id FROM ml_experiments WHERE {column} = '{value}'": f"ml_experiments_{column}"
        for column, value in (
            ("status", "running"),
            ("dataset", "data 7"),
            ("model_name", "model 7"),
            ("model_type", "type 7"),
        )
    },
    """SELECT id FROM ml_experiments WHERE parameters @> '{"lr": 7}'""": "ml_experiments_parameters",
    """SELECT id FROM ml_experiments WHERE metrics @> '{"loss": 7}'""": "ml_experiments_metrics",
    """SELECT id FROM ml_experiments WHERE tags @> '{"owner": "o7"}'""": "ml_experiments_tags",
    "SELECT id FROM ml_experiments JOIN ml_run_metrics AS m ON m.run_id = id WHERE m.key = 'loss' AND m.best < 0.001": (
        "ml_run_metrics_key_best"
    ),
}


def test_each_kind_of_question_is_answered_by_an_index(postgres: PostgresResource) -> None:
    """In tables that were made before their contracts named the indexes, too."""
    with postgres.connect(write=True) as connection:
        for contract in (RUNS, RUN_METRICS, RUN_PARAMS):
            ensure_table(connection, replace(contract, indexes=()))
            ensure_table(connection, contract)
        connection.execute(FILL.encode())
        plans = {
            question: "\n".join(line for (line,) in connection.execute(f"EXPLAIN {question}".encode()))
            for question in QUESTIONS
        }
    unserved = {
        question: plans[question]
        for question, index in QUESTIONS.items()
        if index not in plans[question] or "Seq Scan" in plans[question]
    }
    assert unserved == {}


def test_a_contract_with_indexes_of_several_columns_is_remembered_as_it_is() -> None:
    for contract in tables(Settings()).values():
        assert contract_of_text(contract_text(contract)) == contract
