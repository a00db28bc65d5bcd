"""Steps by Celery: dagster-celery's executor, and one thing besides, that a worker may be lost.

dagster-celery waits for ever for a step whose worker was killed or cut off, or whose queue no worker takes from. Here
each step that waits is looked after: workers are asked what they execute, a step that none of them names is given to
another one, and a queue that nobody takes from is told in a sentence. A step may so be executed twice at once, if
its worker lives but cannot be reached; every write of the stores is one transaction that replaces days or rows, under
the lock of its table, so that is the same as once.

Broker and backend come from the environment of each process and stand in no run's configuration.
"""

import time
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from celery import Celery, Task
from celery.exceptions import TaskRevokedError, WorkerLostError
from celery.result import AsyncResult
from celery.states import READY_STATES
from celery.utils.log import get_task_logger
from dagster_celery.config import DEFAULT_CONFIG
from dagster_celery.core_execution_loop import core_celery_execution_loop
from dagster_celery.executor import CELERY_CONFIG, CeleryExecutor, _submit_task
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task
from kombu.exceptions import OperationalError

from ml_assets.errors import Refusal
from ml_assets.executors.ending import COMMAND, answer_to_the_end
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanOrchestrationContext

MOST_LOSSES = 3
"""As many workers may be lost with one step; a step that kills each one is not given to a fourth."""

_ANSWER_S = 1.0
"""How long workers have to answer once asked; they are asked several times before one is given up."""

_REDELIVERED_S = 60
"""A step that a worker had fetched and not begun when it was killed is another one's after this time.

Redis keeps it aside until then. It can be short, since what has begun is not kept there any more, whatever it takes.
"""


def options(settings: Settings) -> dict[str, Any]:
    """Arguments of the Celery application, the same for whoever hands steps out and for whoever executes them."""
    backend = {} if settings.celery_results_url is None else {"backend": settings.celery_results_url}
    config = {
        **DEFAULT_CONFIG,
        # The name of the worker that executes a step stands beside it.
        "task_track_started": True,
        # A step waits in the queue, where any worker can take it, and not behind a long one.
        "worker_disable_prefetch": True,
        "broker_connection_retry_on_startup": True,
        "result_expires": 24 * 3600,
        # A backend that is started anew loses nobody's result: it is asked and told again, for five minutes or so.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 40,
        "broker_transport_options": {
            **DEFAULT_CONFIG["broker_transport_options"],
            "visibility_timeout": _REDELIVERED_S,
            # What is due is looked for every 10 s, and not every 100.
            "unacked_restore_throttle": 1,
        },
    }
    return {"broker": settings.celery_broker_url, **backend, "config_source": config}


def worker_app(settings: Settings) -> Celery:
    """The application that `ml-assets worker` runs."""
    app = make_app(options(settings))
    create_task(app, base=StepOfRun)
    answer_to_the_end(app)
    return app


class StepOfRun(Task):
    """dagster-celery's task, which leaves what waited in the queue for a run that is over meanwhile.

    Workers forget which tasks were revoked when they are started anew, and nobody revokes those of a killed run.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from dagster._grpc.types import ExecuteStepArgs  # what the task takes; it has no public name
        from dagster._serdes import unpack_value

        step = unpack_value(kwargs["execute_step_args_packed"], as_type=ExecuteStepArgs)
        instance_ref: Any = step.instance_ref  # handed out with each step
        with dg.DagsterInstance.from_ref(instance_ref) as instance:
            run = instance.get_run_by_id(step.run_id)
        if run is None or run.is_finished or run.status is dg.DagsterRunStatus.CANCELING:
            told = "gone" if run is None else run.status.value.lower()
            get_task_logger(__name__).warning(
                "Not begun: %s, since run %s is %s.", step.step_keys_to_execute, step.run_id, told
            )
            return []
        return self.run(*args, **kwargs)


def celery_steps(settings: Settings) -> dg.ExecutorDefinition:
    """The executor; its configuration has nothing but retries."""

    @dg.executor(
        name="celery",
        config_schema={"retries": CELERY_CONFIG["retries"]},
        requirements=dg.multiple_process_executor_requirements(),
    )
    def celery(init_context: dg.InitExecutorContext) -> "WatchedCeleryExecutor":
        from dagster._core.execution.retries import RetryMode  # what the base takes; it has no public name

        given: Any = init_context.executor_config
        return WatchedCeleryExecutor(settings, RetryMode.from_config(given["retries"]))

    return celery


class WatchedCeleryExecutor(CeleryExecutor):
    """dagster-celery's executor, whose steps outlive their workers.

    Args:
        settings: broker, backend, and how long a worker may be silent.
        retries: of steps that fail.
    """

    def __init__(self, settings: Settings, retries: Any) -> None:
        given = options(settings)
        super().__init__(retries, given["broker"], given.get("backend"), None, given["config_source"])
        self._lost_after_s = settings.celery_lost_after_s

    def execute(
        self, plan_context: "PlanOrchestrationContext", execution_plan: Any
    ) -> Generator[Any, Any, None]:
        """The events of the steps, as they end."""
        workers = Workers(self._lost_after_s)
        # dagster-celery makes its task anew for each step, and Celery warns that it has it.
        warnings.filterwarnings("ignore", message="Task name 'execute_plan' is already registered")

        def submit(app: Celery, context: Any, step: Any, queue: str, priority: int, state: Any) -> "Step":
            return Step(
                lambda: _submit_task(app, context, step, queue, priority, state),
                workers.of(app),
                step.key,
                queue,
                context.log.warning,
            )

        return core_celery_execution_loop(plan_context, execution_plan, step_execution_fn=submit)


class Workers:
    """Who of the workers answers, asked at most a few times within the time in which one is given up.

    Args:
        lost_after_s: how long one may be silent.
    """

    def __init__(self, lost_after_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._asked_at = self._blind_until = -lost_after_s
        self._executed: dict[str, float] = {}
        self._queues: dict[str, float] = {}
        self._filled: dict[str, float] = {}
        self._app: Celery | None = None
        self._unreachable: tuple[type[Exception], ...] = ()

    def of(self, app: Celery) -> "Workers":
        """The same, asked over this application's broker."""
        self._app = app
        self._unreachable = (OperationalError, *app.connection_for_read().recoverable_connection_errors)
        return self

    def lost(self, task: str, since: float) -> bool:
        """Whether no worker has said for too long that it executes a task.

        That a worker of its name answers is not enough: one that was killed is often started anew, under the same name.

        Args:
            task: Celery's id.
            since: when it was known to be executed, if nobody has ever said so.
        """
        self._ask(since)
        return self._is_over(self._executed.get(task, since))

    def deserted(self, queue: str, since: float) -> bool:
        """Whether nobody has taken from a queue for too long, as in `lost`."""
        self._ask(since)
        return self._is_over(self._queues.get(queue, since))

    def vanished(self, task: str, queue: str, since: float) -> bool:
        """Whether a task that nobody has begun is not in its queue any more, which was empty for too long.

        A broker that was started anew, without what it kept, has no step that waited.
        """
        self._filled.setdefault(queue, since)
        self._ask(since)
        heard = max(self._filled[queue], self._executed.get(task, since))
        # What a killed worker had fetched is back in the queue after a while.
        return self._is_over(heard, self._lost_after_s + _REDELIVERED_S)

    def _is_over(self, heard: float, after_s: float | None = None) -> bool:
        # Only what questions have found counts, and not the time in which nobody was asked.
        return self._asked_at - max(heard, self._blind_until) >= (after_s or self._lost_after_s)

    def _ask(self, since: float) -> None:
        # Waiting for answers holds the run up for a second, so short steps are not asked about.
        if self._app is None or time.monotonic() - max(since, self._asked_at) < self._lost_after_s / 5:
            return
        asked_at = time.monotonic()
        if asked_at - self._asked_at > self._lost_after_s:
            self._blind_until = asked_at
        try:
            answers = self._app.control.broadcast(COMMAND, reply=True, timeout=_ANSWER_S) or []
            filled = [queue for queue in self._filled if self._messages(queue)]
        except self._unreachable:
            # A broker that cannot be asked says nothing about workers, which have to find it again, too.
            self._blind_until = time.monotonic()
            return
        # A question shows silence until it is put; how long the answers take shows nothing.
        self._asked_at, heard_at = asked_at, time.monotonic()
        # What a worker could not answer has other keys.
        for answer in (answer for told in answers for answer in told.values()):
            self._queues |= dict.fromkeys(answer.get("queues", ()), heard_at)
            self._executed |= dict.fromkeys(answer.get("steps", ()), heard_at)
        self._filled |= dict.fromkeys(filled, heard_at)

    def _messages(self, queue: str) -> int:
        """How many steps wait in a queue."""
        if self._app is None:
            return 0
        with self._app.connection_for_read() as connection:
            try:
                return connection.default_channel.queue_declare(queue, passive=True).message_count
            except connection.channel_errors:  # there is no such queue, until somebody takes or gives a step
                return 0


class Step:
    """What dagster-celery holds in place of a Celery result: the same answers, of whichever worker gave them.

    Args:
        submit: gives the step to Celery.
        workers: who is asked about them.
        key: of the step.
        queue: that it goes to.
        warn: is told of losses.
    """

    def __init__(
        self,
        submit: Callable[[], AsyncResult],
        workers: Workers,
        key: str,
        queue: str,
        warn: Callable[[str], object],
    ) -> None:
        self._submit, self._workers, self._key, self._queue, self._warn = submit, workers, key, queue, warn
        self._losses = 0
        self._is_revoked = False
        self._fault: Exception | None = None
        self._begin()

    def _begin(self) -> None:
        self._result = self._submit()
        self._since = time.monotonic()
        self._worker: str | None = None

    def ready(self) -> bool:
        """Whether there is something to `get`."""
        if self._fault is not None:
            return True
        known = self._result._get_task_meta()  # state and value of one answer; its public names ask for each
        state, value = known["status"], known["result"]
        if state == "FAILURE" and isinstance(value, WorkerLostError):
            self._lost(f"the process that executed it was killed ({value})")
        elif state == "STARTED":
            self._look_after(value["hostname"])
        elif state == "PENDING":
            self._look_for_takers()
        else:
            return state in READY_STATES
        return self._fault is not None

    def _look_after(self, worker: str) -> None:
        if worker != self._worker:
            self._worker, self._since = worker, time.monotonic()
        if self._workers.lost(str(self._result.id), self._since):
            # Should it be alive after all, it may end what it does.
            self._lost(f"worker {worker} does not answer any more, or was started anew")

    def _look_for_takers(self) -> None:
        if self._workers.vanished(str(self._result.id), self._queue, self._since):
            self._lost(f"the broker has lost it out of the queue {self._queue!r}")
            return
        if self._workers.deserted(self._queue, self._since):
            self._result.revoke()
            self._fault = self._revoked() or Refusal(
                f"No Celery worker takes steps from the queue {self._queue!r}: start one with `ml-assets worker "
                f"--queue {self._queue}`, on a machine with the same broker, and launch the run again."
            )

    def _lost(self, why: str) -> None:
        if fault := self._revoked():
            self._fault = fault
            return
        self._losses += 1
        if self._losses >= MOST_LOSSES:
            self._fault = Refusal(
                f"Step {self._key} was given out {self._losses} times, and each time it was lost, last because "
                f"{why}: see what the step needs (memory, most often), then launch the run again."
            )
            return
        self._warn(f"Step {self._key} is given to another worker, because {why}.")
        self._begin()

    def _revoked(self) -> TaskRevokedError | None:
        """What is told of a step of a cancelled run, which nobody is given any more."""
        return (
            TaskRevokedError(f"step {self._key} was revoked, and nobody executes it")
            if self._is_revoked
            else None
        )

    def get(self) -> Sequence[str]:
        """The step's events.

        Raises:
            Refusal: nobody executes it.
            TaskRevokedError: and nobody shall.
            Exception: what the worker raised.
        """
        if self._fault is not None:
            raise self._fault
        return self._result.get() or ()

    def revoke(self) -> None:
        """Have nobody begin it any more."""
        self._is_revoked = True
        self._result.revoke()
