"""Dagster on PostgreSQL, in the processes of the server stack: runs, code server and daemon are killed.

A code location of its own, whose asset holds a pool and waits while it is told to, stands for the graph: what is
looked at is Dagster, by the configuration and the variables that this project gives it.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psutil
import psycopg
import pytest
import yaml

from ml_assets import services
from ml_assets.resources.base import with_database
from ml_assets.settings import DAGSTER_EVENTS, PROJECT_ROOT
from ml_assets_tests.scale import LONG

PATIENCE_S = 600
"""Processes of Dagster that start on a loaded machine."""

DAYS = [f"2026-01-{day:02}" for day in range(1, 31)]

CODE = '''
import json, logging, os, signal, time
from pathlib import Path

import dagster as dg

HERE = Path(__file__).parent


@dg.asset(
    pool="guarded",
    partitions_def=dg.DailyPartitionsDefinition("2026-01-01"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def days(context: dg.AssetExecutionContext) -> None:
    with (HERE / "begun").open("a") as begun:
        begun.write(f"{context.run_id} {os.getpid()}\\n")
    while (HERE / "hold").exists():
        time.sleep(0.05)


class Killer(logging.Handler):
    """Kills the run's process while the materializations of its days are told, one after the other."""

    told = 0

    def emit(self, record):
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is None or event.event_type_value != "ASSET_MATERIALIZATION":
            return
        self.told += 1
        if self.told == 20 and (HERE / "kill").exists():
            (HERE / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)


@dg.logger
def killer(context):
    logger = logging.Logger("killer")
    logger.addHandler(Killer())
    return logger


@dg.sensor(target=[days], minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def wanted(context):
    """Asks for all of them each time: that none is run twice is Dagster's, by the run's key."""
    for file in sorted(HERE.glob("*.wanted")):
        yield dg.RunRequest(
            run_key=file.stem, tags=json.loads(file.read_text()), run_config={"loggers": {"killer": {}}}
        )


defs = dg.Definitions(
    assets=[days], sensors=[wanted], loggers={"killer": killer}, executor=dg.in_process_executor
)
'''


@dataclass
class Stack:
    """Code server, daemon and web servers on one history in PostgreSQL.

    Args:
        folder: the code, DAGSTER_HOME and what the asset is told by.
        environment: of its processes.
        port: of the code server.
    """

    folder: Path
    environment: dict[str, str]
    port: int
    instance: dg.DagsterInstance
    running: dict[str, psutil.Popen] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> None:
        """Start a program of Dagster's under a name."""
        with (self.folder / "log").open("a") as log:
            self.running[name] = psutil.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start_all(self) -> None:
        """As the services dagster-code and dagster-daemon do."""
        port = str(self.port)
        self.start("code", "dagster", "code-server", "start", "--port", port, "--python-file", "location.py")
        self.until(lambda: listening(self.port))
        self.start("daemon", "dagster._daemon", "run", "--workspace", "workspace.yaml")

    def kill(self, *names: str, but: int = 0) -> None:
        """Kill -9 programs and what they have started, but for one process of a run."""
        family = [
            process
            for name in names
            for process in (*self.running[name].children(recursive=True), self.running.pop(name))
            if process.pid != but
        ]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=60)

    def want(self, name: str, **tags: str) -> None:
        """Have the sensor ask for a run over all days."""
        edges = {"start": DAYS[0], "end": DAYS[-1]}
        tags |= {f"dagster/asset_partition_range_{edge}": day for edge, day in edges.items()}
        draft = self.folder / "draft"
        draft.write_text(json.dumps(tags))
        draft.replace(self.folder / f"{name}.wanted")

    def runs(self, name: str) -> list[dg.DagsterRun]:
        """Runs that the sensor's request led to, oldest first; retries among them."""
        found = self.instance.get_run_records(dg.RunsFilter(tags={"dagster/run_key": name}), ascending=True)
        return [record.dagster_run for record in found]

    def statuses(self, name: str) -> list[str]:
        """Of these runs."""
        return [run.status.value for run in self.runs(name)]

    def begun(self) -> dict[str, int]:
        """Process of each run whose asset has begun; it must not begin twice."""
        file = self.folder / "begun"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        assert len({run for run, _ in lines}) == len(lines), lines
        return {run: int(process) for run, process in lines}

    def materialized(self, run: dg.DagsterRun) -> list[str]:
        """Days that the history has as materialized by a run, sorted."""
        told = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        return sorted(str(entry.get_dagster_event().partition) for entry in told)

    def slots(self) -> int:
        """Slots of the pool that are taken."""
        return self.instance.event_log_storage.get_concurrency_info("guarded").active_slot_count

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the running programs bring about."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} ended: {self.log()}"
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.3)

    def log(self) -> str:
        """The last words of its programs."""
        return (self.folder / "log").read_text()[-6000:]


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def stack(service_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With code server and daemon; its dagster.yaml is that of the servers, but that it looks every second."""
    folder, port = tmp_path_factory.mktemp("stack"), free_port()
    url = services.ensure("postgres", service_home)
    with psycopg.connect(with_database(url, "postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS killed_dagster WITH (FORCE)")
        connection.execute("CREATE DATABASE killed_dagster")
    configuration = yaml.safe_load((PROJECT_ROOT / "deploy" / "dagster.yaml").read_text())
    configuration["run_monitoring"] |= {"poll_interval_seconds": 1, "free_slots_after_run_end_seconds": 1}
    configuration["concurrency"]["runs"]["max_concurrent_runs"] = 1
    (folder / "dagster.yaml").write_text(yaml.safe_dump(configuration))
    server = {"host": "127.0.0.1", "port": port, "location_name": "code"}
    (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    (folder / "location.py").write_text(CODE)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
    given = {"DAGSTER_HOME": str(folder), "DAGSTER_POSTGRES_URL": with_database(url, "killed_dagster")}
    with ExitStack() as ending, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_POSTGRES_URL", given["DAGSTER_POSTGRES_URL"])
        instance = ending.enter_context(dg.DagsterInstance.from_config(str(folder)))
        stack = Stack(folder, {**inherited, **given, **DAGSTER_EVENTS}, port, instance)
        ending.callback(lambda: kill_all_of(folder))
        stack.start_all()
        yield stack


def kill_all_of(folder: Path) -> None:
    """Kill whatever has this DAGSTER_HOME, also what lost its parent."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("DAGSTER_HOME") == str(folder):
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone meanwhile, or somebody else's


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_is_made_again_and_lacks_no_event(stack: Stack) -> None:
    """Killed while its materializations wait to be written as one batch, holding the only slot of its pool."""
    (stack.folder / "kill").touch()
    stack.want("killed")
    stack.until(lambda: stack.statuses("killed") == ["FAILURE", "SUCCESS"])
    killed, again = stack.runs("killed")
    assert again.parent_run_id == killed.run_id
    assert "(SIGKILL)" in str([entry.message for entry in stack.instance.all_logs(killed.run_id)])
    assert (stack.materialized(killed), stack.materialized(again)) == ([], DAYS)
    assert stack.begun().keys() == {killed.run_id, again.run_id}
    stack.until(lambda: stack.slots() == 0)


@pytest.mark.skipif(not LONG, reason="starts Dagster anew: make test-all")
@pytest.mark.timeout(1800)
def test_the_queue_goes_on_after_daemon_and_code_server_were_killed(stack: Stack) -> None:
    """The run under way outlives its code server and ends by itself; what was asked for is run once."""
    (stack.folder / "hold").touch()
    stack.want("under way")
    stack.until(lambda: stack.statuses("under way") == ["STARTED"] and bool(begun_of(stack, "under way")))
    stack.want("waiting")
    stack.until(lambda: stack.statuses("waiting") == ["QUEUED"])
    stack.kill("code", "daemon", but=begun_of(stack, "under way")[0])
    stack.start_all()
    (stack.folder / "hold").unlink()
    for name in ("under way", "waiting"):
        stack.until(lambda name=name: stack.statuses(name) == ["SUCCESS"])
        assert stack.materialized(stack.runs(name)[0]) == DAYS
        assert len(begun_of(stack, name)) == 1
    stack.until(lambda: stack.slots() == 0)


@pytest.mark.skipif(not LONG, reason="starts Dagster anew: make test-all")
@pytest.mark.timeout(1800)
def test_a_run_that_was_killed_with_its_code_server_ends_by_its_longest_time(stack: Stack) -> None:
    """Nobody is left who saw it die, so nothing but the longest time of a run tells that it is lost."""
    (stack.folder / "hold").touch()
    stack.want("lost", **{"dagster/max_runtime": "45"})
    stack.until(lambda: bool(begun_of(stack, "lost")))
    stack.kill("code", "daemon")
    kill_all_of(stack.folder)
    assert stack.statuses("lost") == ["STARTED"]
    assert stack.slots() == 1
    (stack.folder / "hold").unlink()
    stack.start_all()
    stack.until(lambda: stack.statuses("lost") == ["FAILURE", "SUCCESS"])
    lost, again = stack.runs("lost")
    assert (again.parent_run_id, stack.materialized(again)) == (lost.run_id, DAYS)
    stack.until(lambda: stack.slots() == 0)


@pytest.mark.skipif(not LONG, reason="starts Dagster anew: make test-all")
@pytest.mark.timeout(1800)
def test_two_web_servers_and_a_daemon_share_one_history(stack: Stack) -> None:
    """Runs launched at the same time through both are each run once, and both tell the same."""
    ports = {"web 1": free_port(), "web 2": free_port()}
    for name, port in ports.items():
        stack.start(name, "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), "-w", "workspace.yaml")
    for port in ports.values():
        stack.until(lambda port=port: listening(port))
    launched = [launch(port) for _ in range(3) for port in ports.values()]
    assert len(set(launched)) == 6
    for port in ports.values():
        stack.until(lambda port=port: Counter(told_by(port, launched)) == {"SUCCESS": 6})
    assert set(launched) <= stack.begun().keys()
    for run_id in launched:
        run = stack.instance.get_run_by_id(run_id)
        assert run is not None
        assert stack.materialized(run) == DAYS


def begun_of(stack: Stack, name: str) -> list[int]:
    """Processes in which runs of this request have begun."""
    of = {run.run_id for run in stack.runs(name)}
    return [process for run, process in stack.begun().items() if run in of]


def asked(port: int, query: str, **variables: Any) -> dict[str, Any]:
    """Answer of a web server."""
    answer = httpx.post(
        f"http://127.0.0.1:{port}/graphql", json={"query": query, "variables": variables}, timeout=120
    ).json()
    assert "errors" not in answer, answer
    return answer["data"]


def launch(port: int) -> str:
    """Have a web server launch a run over all days; its id."""
    edges = {"start": DAYS[0], "end": DAYS[-1]}
    given = {
        "selector": {
            "repositoryLocationName": "code",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": ["days"]}],
        },
        "executionMetadata": {
            "tags": [
                {"key": f"dagster/asset_partition_range_{edge}", "value": day} for edge, day in edges.items()
            ]
        },
    }
    question = """mutation($given: ExecutionParams!) { launchRun(executionParams: $given) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message stack } } }"""
    answer = asked(port, question, given=given)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def told_by(port: int, runs: list[str]) -> list[str]:
    """Statuses that a web server tells of runs."""
    question = "query($ids: [String!]) { runsOrError(filter: {runIds: $ids}) { ... on Runs { results { status } } } }"
    return [run["status"] for run in asked(port, question, ids=runs)["runsOrError"]["results"]]
