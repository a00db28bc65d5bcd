"""What the graph promises before anything runs: edges, what every asset tells, and the rules of the house."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.contracts import STREAMS, tables
from ml_assets.defs.raw.sensors import with_following
from ml_assets.settings import PROJECT_ROOT, Settings

TABLES = tables(Settings())

PACKAGE = PROJECT_ROOT / "ml_assets"

# The house's edges, as ARCHITECTURE names them: child, parents.
EDGES = {
    **{
        f"duckdb/intake_{name}": [f"landing/{name}", *(["mlflow/runs"] if stream.from_mlflow else [])]
        for name, stream in STREAMS.items()
    },
    **{f"duckdb/raw_{name}": [f"duckdb/intake_{name}"] for name in STREAMS},
    "postgres/ml_experiments": ["duckdb/raw_runs", "duckdb/raw_metrics"],
    "postgres/ml_run_metrics": ["duckdb/raw_runs", "duckdb/raw_metrics"],
    "postgres/ml_run_params": ["duckdb/raw_runs"],
    "postgres/run_leaderboard": ["postgres/ml_experiments"],
    "sqlite/ml_experiments": ["postgres/ml_experiments"],
    "sqlite/ml_model_artifacts": ["postgres/ml_experiments"],
    "sqlite/ml_training_data": ["postgres/ml_experiments"],
    "duckdb/run_features": ["duckdb/raw_runs", "duckdb/raw_metrics"],
    "duckdb/experiment_cards": ["duckdb/run_features"],
    "postgres/experiment_embeddings": ["duckdb/experiment_cards"],
    "chroma/experiment_index": ["postgres/experiment_embeddings"],
    "duckdb/model_performance_events": ["duckdb/raw_performance", "duckdb/run_features"],
    "clickhouse/ml_model_performance": ["duckdb/model_performance_events"],
    "clickhouse/performance_hourly": ["clickhouse/ml_model_performance"],
    "clickhouse/alerts": ["clickhouse/performance_regressions", "clickhouse/feature_drift"],
    "clickhouse/performance_daily": ["clickhouse/ml_model_performance"],
    "clickhouse/performance_sketches": ["clickhouse/ml_model_performance"],
    "clickhouse/performance_trends": ["clickhouse/performance_daily", "clickhouse/performance_sketches"],
    "clickhouse/performance_regressions": [
        "clickhouse/ml_model_performance",
        "clickhouse/performance_hourly",
    ],
    "duckdb/ml_predictions": ["duckdb/raw_predictions"],
    "clickhouse/feature_drift": ["duckdb/ml_predictions"],
    "duckdb/ml_experiment_results": ["duckdb/run_features", "duckdb/model_performance_events"],
    "duckdb/model_performance_analysis": ["duckdb/ml_experiment_results"],
    "duckdb/learning_curves": ["duckdb/raw_runs", "duckdb/raw_metrics"],
    "duckdb/model_daily_features": ["duckdb/model_performance_events"],
    "duckdb/prediction_quality": ["duckdb/ml_predictions"],
    "duckdb/training_set": ["duckdb/run_features", "duckdb/model_daily_features"],
    "duckdb/document_chunks": ["duckdb/raw_documents"],
    "postgres/document_embeddings": ["duckdb/document_chunks"],
    "chroma/document_index": ["postgres/document_embeddings"],
    "quality/retrieval_quality": ["duckdb/raw_judgments", "postgres/document_embeddings"],
    "postgres/document_clusters": ["postgres/document_embeddings"],
    "postgres/experiment_clusters": ["postgres/experiment_embeddings"],
    "serving/online_features": ["duckdb/run_features"],
    "serving/model_daily_features": ["duckdb/model_daily_features"],
}

DRIVERS = {"psycopg", "psycopg2", "duckdb", "clickhouse_connect", "chdb", "chromadb", "redis", "sqlite3"}

# What Dagster marks as beta or preview and this project has decided to use; pyproject.toml has the same list.
STRICT = """
import warnings
import dagster as dg
warnings.filterwarnings("error", message=".*will be removed in version", category=DeprecationWarning)
for category in (dg.SupersessionWarning, dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("error", category=category)
for parameter in ("backfill_policy", "allow_nonexistent_upstream_partitions"):
    warnings.filterwarnings("ignore", message=f".*{parameter}.*", category=dg.BetaWarning)
from ml_assets.definitions import defs
defs().resolve_asset_graph()
defs().resolve_implicit_global_asset_job_def()
"""


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    """The graph on stores that nobody opens."""
    return build_defs(Settings(home=tmp_path_factory.mktemp("graph") / "home"))


@pytest.fixture(scope="module")
def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    """All assets by `store/table`."""
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_every_edge_is_there(defs, specs):
    graph = defs.resolve_asset_graph()
    missing = [
        (parent, child)
        for child, parents in EDGES.items()
        for parent in parents
        if dg.AssetKey.from_user_string(parent)
        not in graph.get(dg.AssetKey.from_user_string(child)).parent_keys
    ]
    assert missing == []
    assert set(EDGES) <= set(specs)


def test_data_moves_downwards_only(defs):
    graph = defs.resolve_asset_graph()
    rooms = ["raw", "experiments", "features", "performance", "embeddings", "serving", "quality"]
    upwards = [
        (parent.to_user_string(), asset.to_user_string())
        for asset in graph.get_all_asset_keys()
        for parent in graph.get(asset).parent_keys
        if rooms.index(graph.get(parent).group_name) > rooms.index(graph.get(asset).group_name)
    ]
    assert upwards == []


def test_every_asset_tells_what_it_is(specs):
    for asset, spec in specs.items():
        assert spec.group_name not in (None, "default"), asset
        assert spec.owners, asset
        assert spec.kinds, asset
        assert len(spec.description or "") > 80, asset


def test_every_asset_that_is_built_is_versioned_and_takes_ranges_in_one_run(defs):
    for assets in defs.resolve_asset_graph().assets_defs:
        if not assets.is_executable or not assets.keys:
            continue  # external, or checks alone
        for spec in assets.specs:
            assert spec.code_version, spec.key
        assert assets.backfill_policy == dg.BackfillPolicy.single_run(), assets.keys


def versions(defs: dg.Definitions) -> dict[str, str | None]:
    """The code version of every asset."""
    return {spec.key.to_user_string(): spec.code_version for spec in defs.resolve_all_asset_specs()}


def test_another_embedder_outdates_what_the_former_one_made(defs, tmp_path):
    """And nothing else: indexes follow the vectors that they hold."""
    before, after = versions(defs), versions(build_defs(Settings(home=tmp_path, embedder="ollama")))
    assert {asset for asset in before if before[asset] != after[asset]} == {
        "duckdb/document_chunks",
        "postgres/document_embeddings",
        "postgres/experiment_embeddings",
    }


def test_another_direction_of_a_metric_outdates_what_is_best(specs, tmp_path):
    turned = build_defs(Settings(home=tmp_path, metric_directions={"time_s": "min"}))
    after = {spec.key.to_user_string(): spec.code_version for spec in turned.resolve_all_asset_specs()}
    changed = {asset for asset, spec in specs.items() if spec.code_version != after[asset]}
    assert "postgres/ml_run_metrics" in changed
    assert "postgres/ml_run_params" not in changed


def test_another_rule_for_metrics_outdates_what_the_former_one_judged(tmp_path):
    (home := tmp_path / "home").mkdir()
    before = versions(build_defs(Settings(home=home)))
    (home / "ml_assets.toml").write_text('metric_synonyms = { score = "accuracy" }\n')
    after = versions(build_defs(Settings(home=home)))
    # What reads them is rebuilt after them.
    assert {asset for asset in before if before[asset] != after[asset]} == {
        "duckdb/learning_curves",
        "duckdb/run_features",
        "postgres/ml_run_metrics",
        "postgres/run_leaderboard",
    }


def test_every_table_shows_the_columns_of_its_contract(specs):
    tables = {asset: spec for asset, spec in specs.items() if asset in TABLES}
    assert set(tables) == set(TABLES)
    for asset, spec in tables.items():
        schema = spec.metadata["dagster/column_schema"]
        assert [column.name for column in schema.columns] == list(TABLES[asset].names), asset
        assert spec.metadata["dagster/table_name"].endswith(TABLES[asset].table), asset


def test_every_table_is_checked(defs):
    checked: dict[str, set[str]] = {}
    for check in defs.resolve_asset_graph().asset_check_keys:
        checked.setdefault(check.asset_key.to_user_string(), set()).add(check.name)
    # Intake holds what came, lawful or not, and has accounts in place of a contract; Chroma can be asked by
    # neighbourhood only, so its rows are counted against the ledger of its writes.
    judged = {
        asset for asset, table in TABLES.items() if table.schema != "intake" and table.store != "chroma"
    }
    assert {asset for asset, names in checked.items() if {"contract", "unique_key"} <= names} == judged
    assert {asset for asset in TABLES if not checked.get(asset)} == set()


def test_tables_that_should_be_fresh_say_so(specs):
    fresh = {asset for asset, spec in specs.items() if spec.freshness_policy is not None}
    assert {"clickhouse/ml_model_performance", "clickhouse/performance_hourly"} <= fresh


def test_sensors_and_schedules_run_from_the_start(defs):
    sensors = {sensor.name: sensor.default_status for sensor in defs.sensors or []}
    schedules = {schedule.name: schedule.default_status for schedule in defs.schedules or []}
    assert set(sensors) == {"landing_sensor", "mlflow_sensor", "touched_days_sensor", "follow_parents"}
    assert set(sensors.values()) == {dg.DefaultSensorStatus.RUNNING}
    assert set(schedules) == {"hourly_rollup_schedule", "nightly_maintenance_schedule"}
    assert set(schedules.values()) == {dg.DefaultScheduleStatus.RUNNING}


@pytest.mark.parametrize(("hour", "day"), [(0, "2026-03-01"), (1, "2026-03-02"), (23, "2026-03-02")])
def test_the_hourly_schedule_rebuilds_the_day_of_the_last_full_hour(defs, hour, day):
    schedule = defs.resolve_schedule_def("hourly_rollup_schedule")
    at = datetime(2026, 3, 2, hour, 5, tzinfo=UTC)
    repository = defs.get_repository_def()
    with dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository) as context:
        [request] = schedule.evaluate_tick(context).run_requests
    assert request.partition_key == day


def test_the_hourly_schedule_may_come_before_the_first_event(tmp_path):
    job = build_defs(Settings(home=tmp_path)).resolve_job_def("hourly_rollups")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(partition_key="2026-03-01", instance=instance)
    events = result.get_asset_materialization_events()
    rollups = {event.asset_key.to_user_string() if event.asset_key else None for event in events}
    assert rollups == {f"clickhouse/performance_{name}" for name in ("hourly", "daily", "sketches")}
    counts = [event.materialization.metadata["dagster/partition_row_count"].value for event in events]
    assert counts == [0, 0, 0]


def test_what_follows_from_intake_follows_by_itself(specs):
    left_to_sensors = {f"duckdb/{room}_{name}" for name in STREAMS for room in ("intake", "raw")}
    automated = {asset for asset, spec in specs.items() if spec.automation_condition is not None}
    external = {f"landing/{name}" for name in STREAMS} | {"mlflow/runs"}
    scheduled = {"quality/maintenance", "quality/slow_statements"}
    assert automated == set(specs) - left_to_sensors - external - scheduled


def test_every_step_that_opens_embedded_clickhouse_waits_for_its_pool(defs):
    graph = defs.resolve_asset_graph()
    steps = [*graph.assets_defs, *(defs.asset_checks or [])]
    found = {step.op.name: step.op.pool for step in steps if step.is_executable}
    users = {
        step.op.name
        for step in steps
        if step.is_executable and {"clickhouse", "clickhouse_io"} & set(step.required_resource_keys)
    }
    assert len(users) >= 5
    assert {name for name, pool in found.items() if pool == "clickhouse"} == users


def run(*command: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
    environment |= {"ML_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home), "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_nothing_that_dagster_will_take_away_is_used(tmp_path):
    done = run(sys.executable, "-c", STRICT, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_dg_check_and_dg_list(tmp_path, specs):
    checked = run("dg", "check", "defs", home=tmp_path)
    assert checked.returncode == 0, checked.stderr
    listed = run("dg", "list", "defs", "--json", home=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert {asset["asset_key"] for asset in json.loads(listed.stdout)["assets"]} == set(specs)


def modules(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    """Path within the package, and syntax tree, of every module below a folder."""
    for file in sorted(folder.rglob("*.py")):
        yield str(file.relative_to(PACKAGE)), ast.parse(file.read_text())


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of all modules that a tree imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def roots(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imported(tree)}


def test_assets_open_no_connections():
    opened = [(path, roots(tree) & DRIVERS) for path, tree in modules(PACKAGE / "defs")]
    assert [found for found in opened if found[1]] == []


def asks_the_environment(node: ast.AST) -> bool:
    """Whether this looks a variable up by its name; handing the environment on to a child does not."""
    if isinstance(node, ast.Subscript):
        asked, name = node.value, node.slice
    elif isinstance(node, ast.Call) and node.args:
        asked, name = node.func, node.args[0]
    else:
        return False
    by_name = isinstance(name, ast.Constant) and isinstance(name.value, str)
    return by_name and ast.unparse(asked) in ("os.environ", "os.environ.get", "os.environ.pop", "os.getenv")


def test_settings_alone_read_the_environment():
    readers = [path for path, tree in modules(PACKAGE) if any(map(asks_the_environment, ast.walk(tree)))]
    assert set(readers) <= {"settings.py"}


def test_tests_import_no_tests():
    """Shared code lies in conftest.py and in fixtures."""
    crossed = [
        (file.name, name)
        for file in (PROJECT_ROOT / "ml_assets_tests").rglob("test_*.py")
        for name in imported(ast.parse(file.read_text()))
        if name.split(".")[-1].startswith("test_") and name.startswith(("ml_assets_tests", "test_"))
    ]
    assert crossed == []


def test_what_follows_from_raw_tables_is_rebuilt_in_their_run(defs):
    repository = defs.get_repository_def()
    raw = dg.AssetKey(["duckdb", "raw_predictions"])
    following = [
        dg.AssetKey(key.split("/"))
        for key in (
            "duckdb/ml_predictions",
            "clickhouse/feature_drift",
            "duckdb/prediction_quality",
            "clickhouse/alerts",
        )
    ]
    assert with_following(repository, [raw], whole=True) == [raw, *following]
    runs = dg.AssetKey(["duckdb", "raw_runs"])
    several = {each.to_user_string() for each in with_following(repository, [runs], whole=False)}
    every = {each.to_user_string() for each in with_following(repository, [runs], whole=True)}
    assert {"postgres/ml_experiments", "sqlite/ml_experiments", "clickhouse/performance_hourly"} <= several
    whole = {"duckdb/experiment_cards", "postgres/experiment_embeddings", "chroma/experiment_index"}
    assert whole <= every - several
    assert not {"quality/reconciliation", "duckdb/intake_runs"} & every  # which have times of their own
