"""What becomes of a step whose worker is silent, without any worker: time and answers are the test's."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from celery.exceptions import TaskRevokedError, WorkerLostError

from ml_assets.errors import Refusal
from ml_assets.executors import celery
from ml_assets.settings import Settings


@dataclass
class Clock:
    now: float = 1_000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Broker:
    """Stands for the application: who answers now, with which queues, and what each executes."""

    answers: dict[str, list[str]] = field(default_factory=dict)
    executed: dict[str, list[str]] = field(default_factory=dict)
    fetched: dict[str, list[str]] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    is_down: bool = False
    recoverable_connection_errors: tuple[type[Exception], ...] = (ConnectionError,)
    channel_errors: tuple[type[Exception], ...] = (LookupError,)

    def connection_for_read(self) -> "Broker":
        return self

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def default_channel(self) -> "Broker":
        return self

    @property
    def message_count(self) -> int:
        return self.count

    def queue_declare(self, queue: str, passive: bool) -> "Broker":
        self.count = self.queues[queue]
        return self

    @property
    def control(self) -> "Broker":
        return self

    def broadcast(
        self, command: str, reply: bool, timeout: float
    ) -> list[dict[str, dict[str, list[str]]]] | None:
        self.asked += 1
        if self.is_down:
            raise ConnectionError("refused")
        told = [
            {name: {"queues": queues, "steps": self.executed.get(name, []) + self.fetched.get(name, [])}}
            for name, queues in self.answers.items()
        ]
        return [*told, {"confused": {"error": ["whatever it raised"]}}] if told else None


@dataclass
class Result:
    """Stands for a Celery result."""

    id: str
    state: str = "PENDING"
    value: Any = None
    revoked: bool = False

    def _get_task_meta(self) -> dict[str, Any]:
        return {"status": self.state, "result": self.value}

    def get(self) -> Any:
        return self.value

    def revoke(self) -> None:
        self.revoked = True


@dataclass
class World:
    clock: Clock
    broker: Broker = field(default_factory=Broker)
    submitted: list[Result] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def submit(self) -> Any:
        self.submitted.append(Result(f"task-{len(self.submitted)}"))
        return self.submitted[-1]

    def step(self) -> celery.Step:
        workers = celery.Workers(10.0).of(self.broker)  # type: ignore[arg-type]
        return celery.Step(self.submit, workers, "raw_runs", "dagster", self.warnings.append)

    def wait(self, step: celery.Step, seconds: int) -> bool:
        """Look at the step once a second, as the run does; whether it got ready."""
        for _ in range(seconds):
            self.clock.now += 1
            if step.ready():
                return True
        return False


@pytest.fixture
def world(monkeypatch) -> World:
    clock = Clock()
    monkeypatch.setattr(celery, "time", clock)
    return World(clock)


def begun(world: World, worker: str) -> None:
    world.submitted[-1].state, world.submitted[-1].value = "STARTED", {"hostname": worker, "pid": 1}
    world.broker.executed.setdefault(worker, []).append(world.submitted[-1].id)


def test_a_step_of_a_living_worker_may_take_as_long_as_it_takes(world):
    step = world.step()
    world.broker.answers = {"b@host": ["dagster"]}
    begun(world, "b@host")
    assert not world.wait(step, 3_600)
    assert len(world.submitted) == 1
    world.submitted[0].state, world.submitted[0].value = "SUCCESS", ["event"]
    assert step.ready()
    assert step.get() == ["event"]


def test_short_steps_are_not_asked_about(world):
    step = world.step()
    begun(world, "b@host")
    assert not world.wait(step, 2)
    assert world.broker.asked == 0


def test_a_step_of_a_silent_worker_is_given_to_another_one(world):
    step = world.step()
    world.broker.answers = {"a@host": ["dagster"], "b@host": ["dagster"]}
    begun(world, "b@host")
    assert not world.wait(step, 60)
    del world.broker.answers["b@host"]
    assert not world.wait(step, 15)
    assert len(world.submitted) == 2
    assert world.warnings == [
        "Step raw_runs is given to another worker, because worker b@host does not answer any more, "
        "or was started anew."
    ]
    begun(world, "a@host")
    assert not world.wait(step, 60)
    assert len(world.submitted) == 2


def test_a_step_of_a_worker_that_was_started_anew_is_given_to_another_one(world):
    step = world.step()
    world.broker.answers = {"b@host": ["dagster"]}
    begun(world, "b@host")
    assert not world.wait(step, 60)
    del world.broker.executed["b@host"]  # killed, and back under its name before anybody asked
    assert not world.wait(step, 15)
    assert len(world.submitted) == 2
    begun(world, "b@host")
    assert not world.wait(step, 60)
    assert len(world.submitted) == 2


def test_one_missed_answer_is_no_loss(world):
    step = world.step()
    world.broker.answers = {"b@host": ["dagster"]}
    begun(world, "b@host")
    for _ in range(20):
        answers, world.broker.answers = world.broker.answers, {}
        assert not world.wait(step, 3)
        world.broker.answers = answers
        assert not world.wait(step, 7)
    assert len(world.submitted) == 1


def test_a_step_whose_process_was_killed_is_given_to_another_one(world):
    step = world.step()
    world.submitted[0].state, world.submitted[0].value = "FAILURE", WorkerLostError("signal 9 (SIGKILL)")
    assert not step.ready()
    assert len(world.submitted) == 2
    assert "signal 9 (SIGKILL)" in world.warnings[0]


def test_a_step_that_kills_its_workers_ends(world):
    step, ready = world.step(), False
    for _ in range(celery.MOST_LOSSES):
        world.submitted[-1].state, world.submitted[-1].value = "FAILURE", WorkerLostError("signal 9")
        ready = step.ready()
    assert ready
    assert len(world.submitted) == celery.MOST_LOSSES
    with pytest.raises(Refusal, match="Step raw_runs was given out 3 times, and each time it was lost"):
        step.get()


def test_a_fault_of_the_step_itself_is_no_loss(world):
    step = world.step()
    world.submitted[0].state, world.submitted[0].value = "FAILURE", ValueError("no such table")
    assert step.ready()
    assert len(world.submitted) == 1


def test_a_queue_that_nobody_takes_from_is_told(world):
    step = world.step()
    world.broker.answers = {"a@host": ["home"]}
    assert world.wait(step, 15)
    assert world.submitted[0].revoked
    with pytest.raises(Refusal, match="`ml-assets worker --queue dagster`"):
        step.get()


def test_a_lost_step_of_a_cancelled_run_is_given_to_nobody(world):
    step = world.step()
    world.broker.answers = {"a@host": ["dagster"], "b@host": ["dagster"]}
    begun(world, "b@host")
    step.revoke()
    del world.broker.answers["b@host"]
    assert world.wait(step, 30)
    assert len(world.submitted) == 1
    with pytest.raises(TaskRevokedError, match="raw_runs"):
        step.get()


def test_a_step_waits_for_a_busy_worker(world):
    step = world.step()
    world.broker.answers = {"a@host": ["dagster"]}
    world.broker.queues = {"dagster": 1}
    assert not world.wait(step, 3_600)
    assert len(world.submitted) == 1


@pytest.mark.parametrize("emptied", [{"dagster": 0}, {}])
def test_a_step_that_the_broker_has_lost_is_given_out_again(world, emptied):
    step = world.step()
    world.broker.answers = {"a@host": ["dagster"]}
    world.broker.queues = {"dagster": 1}
    assert not world.wait(step, 600)
    world.broker.queues = emptied
    assert not world.wait(step, 60)
    assert len(world.submitted) == 1, "a worker that was killed as it fetched it may still have kept it"
    assert not world.wait(step, 20)
    assert len(world.submitted) == 2
    assert world.warnings == [
        "Step raw_runs is given to another worker, because the broker has lost it out of the queue 'dagster'."
    ]
    world.broker.queues = {"dagster": 1}
    assert not world.wait(step, 600)
    assert len(world.submitted) == 2


@pytest.mark.parametrize("kind", ["executed", "fetched"])
def test_a_step_that_a_worker_has_without_a_word_is_not_lost(world, kind):
    step = world.step()
    world.broker.answers, world.broker.queues = {"a@host": ["dagster"]}, {"dagster": 0}
    # The backend lost that it began, or the worker has fetched it and executes another one.
    setattr(world.broker, kind, {"a@host": [world.submitted[0].id]})
    assert not world.wait(step, 3_600)
    assert len(world.submitted) == 1


def test_a_broker_that_does_not_answer_is_no_lost_worker(world):
    step = world.step()
    world.broker.answers = {"a@host": ["dagster"]}
    begun(world, "a@host")
    assert not world.wait(step, 30)
    world.broker.is_down = True
    assert not world.wait(step, 600)
    world.broker.is_down, answers, world.broker.answers = False, world.broker.answers, {}
    assert not world.wait(step, 8)  # it has not found the broker again yet
    world.broker.answers = answers
    assert not world.wait(step, 60)
    assert len(world.submitted) == 1


def test_a_run_that_was_held_up_itself_loses_no_worker(world):
    step = world.step()
    world.broker.answers = {"a@host": ["dagster"]}
    begun(world, "a@host")
    assert not world.wait(step, 30)
    world.clock.now += 3_600
    answers, world.broker.answers = world.broker.answers, {}
    assert not world.wait(step, 3)
    world.broker.answers = answers
    assert not world.wait(step, 60)
    assert len(world.submitted) == 1


def test_what_waited_for_a_run_that_is_over_is_not_begun(tmp_path: Path):
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
    from dagster._grpc.types import ExecuteStepArgs
    from dagster._serdes import pack_value

    class Begun(celery.StepOfRun):
        def run(self, *args: Any, **kwargs: Any) -> list[str]:
            return ["event"]

    assert isinstance(celery.worker_app(Settings(home=tmp_path)).tasks["execute_plan"], celery.StepOfRun)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    pointer = ModuleCodePointer("ml_assets.definitions", "defs")
    origin = JobPythonOrigin("job", RepositoryPythonOrigin("python", pointer))
    status, told = dg.DagsterRunStatus, {}
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        for each in (status.STARTED, status.CANCELING, status.CANCELED, status.FAILURE):
            run = instance.add_run(dg.DagsterRun("job", status=each))
            step = ExecuteStepArgs(origin, run.run_id, ["raw_runs"], instance.get_ref())
            told[each] = Begun()(execute_step_args_packed=pack_value(step), executable_dict={})
    assert told == {
        status.STARTED: ["event"],
        status.CANCELING: [],
        status.CANCELED: [],
        status.FAILURE: [],
    }
