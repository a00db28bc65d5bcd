"""The leaderboard: models of each dataset with their intervals, as a query and as an asset."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from scipy import stats

from ml_assets.build import build_defs
from ml_assets.lib.metric_rules import MetricRules, PrimaryMetric
from ml_assets.operations.leaderboard import leaderboard, leaders, write_page
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCORES = {
    ("digits", "forest"): [0.90, 0.92, 0.94],
    ("digits", "lucky"): [0.99, 0.70],
    ("digits", "once"): [0.91],
    ("wine", "forest"): [0.5, 0.5],
    ("wine", "tree"): [0.5],
}


@pytest.fixture
def filled(postgres: PostgresResource) -> PostgresResource:
    """Scored runs, and some that do not count."""
    for (dataset, model), values in SCORES.items():
        for n, value in enumerate(values):
            run = postgres.create_experiment(
                "e", id=f"{dataset}-{model}-{n}", dataset=dataset, model_name=model, created_at=NOON
            )
            postgres.complete_experiment(run, {"accuracy": value, "loss": 1 - value})
    for n, metrics in enumerate(({"accuracy": "NaN"}, {"accuracy": 1e300}, {"loss": 0.1}, None)):
        run = postgres.create_experiment("e", id=f"odd-{n}", dataset="odd", model_name="x", created_at=NOON)
        postgres.complete_experiment(run, metrics)
    postgres.complete_experiment(postgres.create_experiment("e"), {"accuracy": 1.0})
    running = postgres.create_experiment("e", dataset="digits", model_name="running")
    postgres.update_experiment(running, status="running", metrics={"accuracy": 1.0})
    return postgres


def test_models_are_ranked_by_the_mean_of_their_runs(filled: PostgresResource) -> None:
    board = leaderboard(filled, MetricRules()).to_pylist()
    assert {row["metric"] for row in board} == {"accuracy"}
    assert [(row["dataset"], row["rank"], row["model"], row["runs"]) for row in board] == [
        ("digits", 1, "forest", 3),
        ("digits", 2, "once", 1),
        ("digits", 3, "lucky", 2),
        ("wine", 1, "forest", 2),
        ("wine", 1, "tree", 1),
    ]
    forest, once, lucky, equal, _ = board
    assert (forest["mean"], forest["deviation"]) == pytest.approx((0.92, 0.02))
    expected = stats.t.interval(0.95, 2, 0.92, 0.02 / 3**0.5)
    assert (forest["low"], forest["high"]) == pytest.approx(expected)
    assert (once["low"], once["high"], once["deviation"]) == (None, None, None)
    assert (lucky["best"], lucky["best_run_id"]) == (0.99, "digits-lucky-0")
    assert (equal["low"], equal["high"], equal["deviation"]) == (0.5, 0.5, 0)


def test_a_falling_metric_is_best_where_it_is_least(filled: PostgresResource) -> None:
    board = leaderboard(filled, MetricRules(of_dataset={"digits": PrimaryMetric("loss")}))
    first = next(row for row in board.to_pylist() if row["dataset"] == "digits")
    assert (first["model"], first["best_run_id"], first["best"]) == (
        "forest",
        "digits-forest-2",
        pytest.approx(0.06),
    )


def test_the_best_of_every_dataset_come_before_the_second_of_any(filled: PostgresResource) -> None:
    board = leaderboard(filled, MetricRules())
    assert leaders(board, 3) == ["digits-forest-2", "wine-forest-0", "wine-tree-0"]
    assert len(leaders(board, 1_000)) == 5


def test_the_asset_writes_the_table_and_a_page(
    filled: PostgresResource, lake: DuckLakeResource, tmp_path: Path
) -> None:
    settings = Settings(
        home=tmp_path / "home", postgres_url=filled.url, lake_url=lake.catalog_url, lake_data=lake.data_path
    )
    graph = build_defs(settings).resolve_implicit_global_asset_job_def()
    asset = dg.AssetKey(["postgres", "run_leaderboard"])
    with dg.DagsterInstance.ephemeral() as instance:
        done = graph.execute_in_process(instance=instance, asset_selection=[asset])
    [event] = done.get_asset_materialization_events()
    told = event.materialization.metadata
    assert told["dagster/row_count"].value == 5
    assert "forest" in str(told["leaders"].value)
    page = Path(str(told["comparison"].value))
    assert page == settings.reports / "leaderboard.html"
    assert "The best runs of each dataset" in page.read_text()
    checks = {check.check_name: check.passed for check in done.get_asset_check_evaluations()}
    assert checks == {"contract": True, "unique_key": True}
    with filled.asking() as ask:
        assert ask("SELECT count(*) FROM run_leaderboard WHERE rank = 1") == [(3,)]
    nobody = leaderboard(filled, MetricRules()).slice(0, 0)
    assert write_page(filled, lake, MetricRules(), nobody, settings.reports) is None
    assert list(settings.reports.iterdir()) == []
