"""Dagster's history and what grows beside the stores: old things go, and nobody takes a partition for missing."""

import logging
import os
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from sqlalchemy import text

from benchmarks import limits
from benchmarks.soak import Pace, soak
from ml_assets import services
from ml_assets.automation import PARTITIONED, WHOLE
from ml_assets.maintenance.history import DagsterHistory, forget_runs
from ml_assets.maintenance.home_parts import MLflowTraces, ServerLogs
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.tables.store import Retention

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_offset=1)
AT_ONCE = Retention(versions=timedelta(days=7), grace=timedelta(seconds=-60))


@dg.asset(partitions_def=DAYS, check_specs=[dg.AssetCheckSpec("whole", asset=["first"])])
def first():
    yield dg.Output(1, metadata={"rows": 3})
    yield dg.AssetCheckResult(passed=True)


@dg.asset(deps=[first], automation_condition=WHOLE)
def whole(): ...


@dg.asset(deps=[first], partitions_def=DAYS, automation_condition=PARTITIONED)
def by_day(): ...


DEFS = dg.Definitions(assets=[first, whole, by_day])


def instance_of(settings: Settings, storage: str = "") -> dg.DagsterInstance:
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{storage}")
    return dg.DagsterInstance.from_config(str(settings.dagster_home))


def materialized(instance: dg.DagsterInstance, *days: str) -> list[str]:
    """Run ids, one a day."""
    logging.getLogger("dagster").setLevel(logging.WARNING)
    made = {"io_manager": dg.mem_io_manager}
    return [
        dg.materialize([first, whole, by_day], partition_key=day, instance=instance, resources=made).run_id
        for day in days
    ]


def evaluated(instance: dg.DagsterInstance, cursor: Any = None) -> dg.EvaluateAutomationConditionsResult:
    return dg.evaluate_automation_conditions(DEFS, instance, dg.AssetSelection.all(), cursor=cursor)


def known(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What is known of the assets without their runs."""
    names = [dg.AssetKey(name) for name in ("first", "by_day", "whole")]
    latest: list[Any] = [instance.get_latest_materialization_event(name) for name in names]
    return {
        "days": [instance.get_materialized_partitions(name) for name in names[:2]],
        "latest": [each and each.run_id for each in latest],
        "metadata": latest[0] and latest[0].asset_materialization.metadata,
    }


def checked(instance: dg.DagsterInstance) -> set[str]:
    """Runs that results of checks are known of."""
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        return {run_id for (run_id,) in connection.execute(text("SELECT run_id FROM asset_check_executions"))}


def old_runs_go(instance: dg.DagsterInstance) -> None:
    ids = materialized(instance, "2026-01-01", "2026-01-02", "2026-01-01", "2026-01-03")
    before = known(instance)
    asked = evaluated(instance)
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert forget_runs(instance, later - timedelta(days=1), date(2026, 1, 1)) == 0
    assert forget_runs(instance, later, date(2026, 1, 1)) == 3
    assert instance.get_run_ids() == ids[-1:]
    assert known(instance) == before
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        left = connection.execute(
            text('SELECT asset_key, "partition", run_id FROM event_logs WHERE run_id <> :last ORDER BY id'),
            {"last": ids[-1]},
        ).fetchall()
    # The second run of the first day has replaced the first run, and the last one the asset without days.
    assert {(key, day, run_id) for key, day, run_id in left} == {
        (f'["{name}"]', day, run_id)
        for name in ("first", "by_day")
        for day, run_id in (("2026-01-02", ids[1]), ("2026-01-01", ids[2]))
    }
    assert len(left) == 4
    again = evaluated(instance, asked.cursor)
    assert again.total_requested == 0
    instance.report_runless_asset_event(dg.AssetMaterialization("first", partition="2026-01-02"))
    assert evaluated(instance, again.cursor).total_requested == 2
    assert instance.get_runs_count(dg.RunsFilter(statuses=list(FINISHED_STATUSES))) == 1


def test_old_runs_go_and_partitions_stay(tmp_path: Path):
    settings = Settings(home=tmp_path)
    with instance_of(settings) as instance:
        old_runs_go(instance)
        history = DagsterHistory(settings, instance)
        files = set((settings.dagster_home / "history" / "runs").glob("*-*.db"))
        assert len(files) == 4  # Dagster leaves those of deleted runs
        before = history.size()
        assert any("3 files" in done for done in history.maintain(AT_ONCE))
        assert {each.stem for each in files if each.exists()} == set(instance.get_run_ids())
        assert history.size() < before - 3 * 100_000
        assert {each.name for each in (settings.dagster_home / "storage").iterdir()} == set(
            instance.get_run_ids()
        )


def test_old_runs_go_from_postgresql(tmp_path: Path, postgres):
    storage = f"storage: {{postgres: {{postgres_url: '{postgres.url}'}}}}\n"
    settings = Settings(home=tmp_path)
    with instance_of(settings, storage) as instance:
        old_runs_go(instance)
        assert DagsterHistory(settings, instance).size() > 2**20
        assert list(DagsterHistory(settings, instance).maintain(AT_ONCE)) == []


def test_tags_of_many_events_are_not_looked_up_row_by_row(tmp_path: Path, postgres):
    with instance_of(
        Settings(home=tmp_path), f"storage: {{postgres: {{postgres_url: '{postgres.url}'}}}}\n"
    ) as instance:
        storage: Any = instance.event_log_storage
        with storage.index_connection() as connection, connection.begin():
            for statement in (
                "INSERT INTO event_logs (event) SELECT '' FROM generate_series(1, 10000)",
                "INSERT INTO asset_event_tags (event_id, asset_key, key) SELECT id, '', '' FROM event_logs",
                "ANALYZE event_logs, asset_event_tags",
                "SET LOCAL work_mem = '64kB'",  # these are to it as a year's are to what a server has
            ):
                connection.execute(text(statement))
            plan = connection.execute(text(f"EXPLAIN {read_sql('dagster/forget_tags.sql')}")).fetchall()
    assert "SubPlan" not in str(plan), plan


def test_days_before_the_first_partition_go_with_their_run(tmp_path: Path):
    with instance_of(Settings(home=tmp_path)) as instance:
        materialized(instance, "2026-01-01", "2026-01-02", "2026-01-03")
        assert forget_runs(instance, datetime.now(UTC) + timedelta(minutes=1), date(2026, 1, 2)) == 2
        assert known(instance)["days"] == [{"2026-01-02", "2026-01-03"}] * 2
        assert checked(instance) == set(instance.get_run_ids())


def test_days_go_with_the_first_partition_though_their_run_is_gone_before(tmp_path: Path):
    later = datetime.now(UTC) + timedelta(minutes=1)
    with instance_of(Settings(home=tmp_path)) as instance:
        instance.report_runless_asset_event(dg.AssetObservation("first", partition="2026-01-01"))
        ids = materialized(instance, "2026-01-01", "2026-01-02", "2026-01-03")
        assert forget_runs(instance, later, date(2026, 1, 1)) == 2
        assert known(instance)["days"] == [{"2026-01-01", "2026-01-02", "2026-01-03"}] * 2
        assert forget_runs(instance, later, date(2026, 1, 2)) == 0
        assert known(instance)["days"] == [{"2026-01-02", "2026-01-03"}] * 2
        assert len(instance.fetch_observations(dg.AssetKey("first"), limit=9).records) == 1, (
            "what is of no run stays"
        )
        assert checked(instance) == {ids[2]}


def test_a_young_file_of_an_unknown_run_stays(tmp_path: Path):
    settings = Settings(home=tmp_path)
    with instance_of(settings) as instance:
        (run_id,) = materialized(instance, "2026-01-01")
        young = (
            settings.dagster_home
            / "history"
            / "runs"
            / f"{run_id[:-1]}{'0' if run_id[-1] != '0' else '1'}.db"
        )
        young.touch()
        grace = Retention(versions=timedelta(days=7))
        assert not any("not known" in done for done in DagsterHistory(settings, instance).maintain(grace))
        assert young.exists()
        old = time.time() - 2 * 86_400
        os.utime(young, (old, old))
        assert any("not known" in done for done in DagsterHistory(settings, instance).maintain(grace))
        assert not young.exists()


def test_files_of_another_instance_stay(tmp_path: Path):
    settings = Settings(home=tmp_path)
    with instance_of(settings) as instance:
        (run_id,) = materialized(instance, "2026-01-01")
    with dg.DagsterInstance.ephemeral() as another:  # as `dagster.materialize` has it
        assert not any(
            "not known any more" in done for done in DagsterHistory(settings, another).maintain(AT_ONCE)
        )
    assert (settings.dagster_home / "history" / "runs" / f"{run_id}.db").exists()
    assert (settings.dagster_home / "storage" / run_id).exists()


def test_a_large_log_of_a_server_is_emptied_and_its_end_kept(tmp_path: Path):
    settings = Settings(home=tmp_path, server_log_mb=1)
    log = services.describe(tmp_path)["redis"].log
    log.parent.mkdir(parents=True)
    with log.open("ab") as server:
        server.write(b"old line\n" * 200_000 + b"last line\n")
        server.flush()
        assert len(list(ServerLogs(settings).maintain(AT_ONCE))) == 1
        server.write(b"next line\n")  # as a server does that has it open
    assert log.read_bytes() == b"next line\n"
    kept = log.with_suffix(".log.old").read_bytes()
    assert kept.endswith(b"last line\n")
    assert len(kept) <= 2**20
    assert list(ServerLogs(settings).maintain(AT_ONCE)) == []


def test_old_traces_go_if_a_setting_says_so(tmp_path: Path, mlflow):
    # In a process of its own, since where traces go is one for all of a process.
    tracing = "import mlflow\nfor _ in range(2):\n    with mlflow.start_span('asked'): pass\n"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.tracking_uri()}
    (tmp_path / "mlflow").mkdir()
    subprocess.run(
        [sys.executable, "-c", f"{tracing}mlflow.flush_trace_async_logging()"],
        check=True,
        env=environment,
        cwd=tmp_path,  # artifacts of the default experiment lie in the working folder
    )
    client = mlflow.client()
    kept = Settings(home=Path(mlflow.home))
    assert list(MLflowTraces(kept, mlflow).maintain(AT_ONCE)) == []
    assert len(client.search_traces(locations=["0"])) == 2
    part = MLflowTraces(kept.model_copy(update={"mlflow_trace_days": 1}), mlflow)
    assert list(part.maintain(AT_ONCE)) == []
    part._days = -1
    assert any("2 traces" in done for done in part.maintain(AT_ONCE))
    assert client.search_traces(locations=["0"]) == []


def test_days_pass_and_nothing_grows(tmp_path: Path, monkeypatch):
    """`make soak`, small."""
    monkeypatch.setattr(limits, "_missed", [])
    try:
        pace = Pace(live=2, history=2, versions=1, share=0.1)
        soak(tmp_path / "home", ["sqlite"], days=8, every=4, pace=pace)
    finally:
        services.stop_all(tmp_path / "home")
    assert limits._missed == []
