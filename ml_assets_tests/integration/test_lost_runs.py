"""Runs that were killed together with their code server: `ml-assets up` ends them before it serves."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from ml_assets.cli.instance import open_instance
from ml_assets.cli.lost_runs import PROCESS, end_killed_refreshes, fail_lost_runs
from ml_assets.settings import Settings

SERVED = RemoteJobOrigin(
    RemoteRepositoryOrigin(
        ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="ml_assets.definitions")),
        "__repository__",
    ),
    "__ASSET_JOB",
)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = Settings(home=tmp_path)
    for name in settings.child_environment():  # so that what opening an instance sets is taken away again
        monkeypatch.setenv(name, settings.child_environment()[name])
    return settings


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with open_instance(settings) as instance:
        yield instance


def begun(instance: dg.DagsterInstance, origin: RemoteJobOrigin | None, status: dg.DagsterRunStatus) -> str:
    """A run that was begun, by a code server or by none."""
    run = dg.DagsterRun("__ASSET_JOB", remote_job_origin=origin, status=status)
    return instance.add_run(run).run_id


def test_a_lost_run_is_failed_so_that_it_is_made_again(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    """One that waits in the queue, one that ended and one of `ml-assets refresh` stay as they are."""
    status = dg.DagsterRunStatus
    lost = begun(instance, SERVED, status.STARTED)
    others = {
        begun(instance, SERVED, status.QUEUED): status.QUEUED,
        begun(instance, SERVED, status.SUCCESS): status.SUCCESS,
        begun(instance, None, status.STARTED): status.STARTED,
    }
    [told] = fail_lost_runs(settings)
    assert lost[:8] in told
    run = instance.get_run_by_id(lost)
    assert run is not None
    assert (run.status, run.tags["dagster/will_retry"]) == (status.FAILURE, "true")
    assert {run_id: instance.get_run_by_id(run_id).status for run_id in others} == others  # pyright: ignore[reportOptionalMemberAccess]
    assert fail_lost_runs(settings) == []


def test_nothing_is_lost_while_another_process_of_dagster_has_the_home(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    run_id = begun(instance, SERVED, dg.DagsterRunStatus.STARTED)
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "dagster"],
        env=settings.child_environment(),
        stdin=subprocess.PIPE,
    ) as other:
        [told] = fail_lost_runs(settings)
        other.communicate(b"\n")
    assert f"Process {other.pid} of Dagster" in told
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.STARTED


def test_runs_of_a_history_that_lies_elsewhere_are_let_be(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may be working at them."""
    with dg.DagsterInstance.ephemeral() as elsewhere:
        run = begun(elsewhere, SERVED, dg.DagsterRunStatus.STARTED)
        monkeypatch.setattr("ml_assets.cli.instance.open_instance", lambda _: nullcontext(elsewhere))
        assert fail_lost_runs(settings) == []
        (found,) = elsewhere.get_runs(dg.RunsFilter(run_ids=[run]))
        assert found.status is dg.DagsterRunStatus.STARTED


WORKER = """
import sys
import dagster as dg
from ml_assets.cli.instance import open_instance
from ml_assets.cli.lost_runs import PROCESS, this_process
from ml_assets.settings import Settings

with open_instance(Settings(home=sys.argv[1])) as instance:
    tags = {PROCESS: this_process()}
    run = instance.add_run(dg.DagsterRun("__ASSET_JOB", status=dg.DagsterRunStatus.STARTED, tags=tags))
    instance.event_log_storage.initialize_concurrency_limit_to_default("clickhouse")
    claim = instance.event_log_storage.claim_concurrency_slot("clickhouse", run.run_id, "step")
    print(run.run_id, claim.is_claimed, flush=True)
    input()
"""


def test_a_killed_refresh_gives_back_its_place_in_the_pool(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    """The next one would wait for it for ever. One that goes on keeps it."""
    status = dg.DagsterRunStatus
    elsewhere = dg.DagsterRun("__ASSET_JOB", status=status.STARTED, tags={PROCESS: "another-machine 1 0.00"})
    instance.add_run(elsewhere)
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(settings.home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        run_id, claimed = worker.stdout.readline().split()
        assert claimed == "True"
        storage = instance.event_log_storage
        assert end_killed_refreshes(instance) == []
        assert not storage.claim_concurrency_slot("clickhouse", "next", "step").is_claimed
        worker.kill()
        worker.wait()
    [told] = end_killed_refreshes(instance)
    assert run_id[:8] in told
    assert storage.claim_concurrency_slot("clickhouse", "next", "step").is_claimed
    found = {run.run_id: run.status for run in instance.get_runs()}
    assert found == {run_id: status.FAILURE, elsewhere.run_id: status.STARTED}
    assert end_killed_refreshes(instance) == []
