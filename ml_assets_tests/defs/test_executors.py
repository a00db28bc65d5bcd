"""Which executor the settings lead to, and which steps Celery gives to which machines."""

import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.build import build_defs
from ml_assets.cli.worker import QUEUES, work
from ml_assets.defs.options import HOME_QUEUE, QUEUE
from ml_assets.errors import Refusal
from ml_assets.executors import executor_of
from ml_assets.settings import Settings
from ml_assets.stores.registry import STORES

BROKER = "redis://:S3CRETpass@queue:6379/1"
SERVERS: dict[str, Any] = {
    "postgres_url": "postgresql://u:p@db/ml_dev",
    "clickhouse_url": "clickhouse://u:p@ch:8123/ml_metrics",
    "chroma_url": "http://chroma:8000",
    "redis_url": "redis://:p@cache:6379/0",
    "lake_data": "s3://lake/data",
}


def settings(home: Path, **more: Any) -> Settings:
    return Settings(home=home, **{**SERVERS, "executor": "celery", "celery_broker_url": BROKER, **more})


def test_celery_executes_the_steps_and_its_broker_stands_in_no_configuration(tmp_path):
    executor = build_defs(settings(tmp_path)).resolve_implicit_global_asset_job_def().executor_def
    assert executor.name == "celery"
    taken: Any = executor.config_schema.config_type
    assert set(taken.fields) == {"retries"}
    assert "S3CRET" not in repr(settings(tmp_path))
    assert "S3CRET" not in settings(tmp_path).masked(f"cannot reach {BROKER}")


@pytest.mark.parametrize(
    ("store", "named"),
    [
        ("postgres_url", "ML_ASSETS_POSTGRES_URL"),
        ("clickhouse_url", "ML_ASSETS_CLICKHOUSE_URL"),
        ("chroma_url", "ML_ASSETS_CHROMA_URL"),
        ("redis_url", "ML_ASSETS_REDIS_URL"),
        ("lake_data", "ML_ASSETS_LAKE_DATA"),
    ],
)
@pytest.mark.parametrize("executor", ["celery", "kubernetes"])
def test_a_store_that_each_machine_would_have_for_itself_is_refused(tmp_path, executor, store, named):
    with pytest.raises(Refusal, match=f"set {named} to what all of them reach"):
        executor_of(settings(tmp_path, executor=executor, **{store: None}))


def test_a_missing_broker_or_package_is_told(tmp_path, monkeypatch):
    with pytest.raises(Refusal, match="set ML_ASSETS_CELERY_BROKER_URL"):
        executor_of(settings(tmp_path, celery_broker_url=None))
    with pytest.raises(Refusal, match="set ML_ASSETS_CELERY_BACKEND_URL"):
        executor_of(settings(tmp_path, celery_broker_url="amqp://u:p@rabbit//"))
    monkeypatch.setitem(sys.modules, "dagster_celery", None)
    with pytest.raises(Refusal, match=r"pip install 'ml-assets\[celery\]'"):
        executor_of(settings(tmp_path))
    with pytest.raises(Refusal, match=r"pip install 'ml-assets\[celery\]'"):
        work(settings(tmp_path), (), 1, "w")
    monkeypatch.setitem(sys.modules, "dagster_k8s", None)
    with pytest.raises(Refusal, match=r"pip install 'ml-assets\[kubernetes\]'"):
        executor_of(settings(tmp_path, executor="kubernetes"))


def test_steps_go_where_their_files_are_and_else_to_the_queue_of_their_pool(tmp_path):
    defs = build_defs(settings(tmp_path))
    job = defs.resolve_implicit_global_asset_job_def()
    at_home = {name for store in STORES if store.at_home for name in (*store.resources, f"{store.name}_io")}
    assert "sqlite" in at_home
    wrong, seen = [], set()
    for node in job.nodes:
        step: Any = node.definition
        queue = step.tags.get(QUEUE, "dagster")
        seen.add(queue)
        opens = set(step.required_resource_keys) | {out.io_manager_key for out in step.output_defs}
        # MLflow may be a file of the home, and so is the landing folder of those that read it.
        expected = HOME_QUEUE if opens & (at_home | {"mlflow"}) else step.pool or "dagster"
        if queue != expected and node.name != "postgres__run_leaderboard":
            wrong.append(f"{node.name}: {queue}, not {expected}")
    assert not wrong
    assert seen == set(QUEUES)


def test_a_step_that_writes_a_page_into_the_home_goes_there(tmp_path):
    job = build_defs(settings(tmp_path)).resolve_implicit_global_asset_job_def()
    (leaderboard,) = (node.definition for node in job.nodes if node.name == "postgres__run_leaderboard")
    assert leaderboard.tags[QUEUE] == HOME_QUEUE


def test_the_instances_of_servers_differ_in_files_and_runs_alone():
    from yaml import safe_load

    from ml_assets.settings import PROJECT_ROOT

    one, many = (
        safe_load((PROJECT_ROOT / "deploy" / name).read_text())
        for name in ("dagster.yaml", "dagster-celery.yaml")
    )
    own = {"local_artifact_storage", "compute_logs"}
    assert many.keys() - one.keys() == own
    assert {k for k in one if one[k] != many[k]} == {"concurrency"}
    assert one["concurrency"]["pools"] == many["concurrency"]["pools"]


def test_each_machine_keeps_files_in_its_own_home(tmp_path, monkeypatch):
    """What is handed on with a step names a variable and no path, nor a password."""
    import shutil

    from ml_assets.settings import PROJECT_ROOT

    shutil.copy(PROJECT_ROOT / "deploy" / "dagster-celery.yaml", tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://u:S3CRETpass@db/dagster")
    from dagster._core.instance.ref import InstanceRef

    handed_on = dg.serialize_value(InstanceRef.from_dir(str(tmp_path)))
    assert "S3CRET" not in handed_on
    assert "DAGSTER_HOME" in handed_on
