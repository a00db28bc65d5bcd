"""What workers of Celery say of themselves, and that one which was told to stop says it to the end.

Celery closes a worker's ear before it waits for what is being executed, so that a step longer than
`celery_lost_after_s` would be taken for lost: given to another worker as well, or told as one that nobody takes.
"""

import itertools
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from celery.signals import worker_shutdown, worker_shutting_down
from celery.utils.log import get_logger
from celery.worker import state as of_worker
from celery.worker.control import inspect_command

if TYPE_CHECKING:
    from celery import Celery

COMMAND = "ml_assets_steps"
"""The question that a worker answers with its queues, and with the ids of the steps that it has."""

_LISTENED_S = 1.0
_CLOSED_S = 5.0


@inspect_command(name=COMMAND)
def _steps(state: Any) -> dict[str, list[str]]:
    """Queues that this worker takes from, and steps that it executes or has fetched."""
    taken = state.consumer.task_consumer
    return {
        "queues": [queue.name for queue in taken.queues] if taken else [],
        # Both, though what is executed was fetched: a lost connection empties the list of what was.
        "steps": _ids(of_worker.reserved_requests) + _ids(of_worker.active_requests),
    }


def _steps_that_are_ended(state: None) -> dict[str, list[str]]:
    """The same of a worker that takes nothing any more."""
    return {"queues": [], "steps": _ids(of_worker.active_requests)}


def _ids(requests: Iterable[Any]) -> list[str]:
    while True:
        try:
            return [str(request.id) for request in requests]
        except RuntimeError:  # another thread has begun or ended one meanwhile
            continue


def answer_to_the_end(app: "Celery") -> None:
    """Have a worker say which steps it executes until its process ends.

    Args:
        app: of the worker that this process is about to become.
    """
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    def begin(sender: str, how: str, **_: Any) -> None:
        if how != "Warm":  # what was begun is not ended
            is_over.set()
        elif not threads:  # Celery tells of each signal, and a second one changes nothing
            threads.append(
                threading.Thread(target=_answer, args=(app, sender, is_over), name="ending", daemon=True)
            )
            threads[0].start()

    def close(**_: Any) -> None:
        is_over.set()
        for thread in threads:
            thread.join(_CLOSED_S)

    worker_shutting_down.connect(begin, weak=False, dispatch_uid="say which steps are ended")
    worker_shutdown.connect(close, weak=False, dispatch_uid="no more steps are ended")


def _answer(app: "Celery", worker: str, is_over: threading.Event) -> None:
    log = get_logger(__name__)
    log.info("Told to stop: no more steps are taken, and those that were begun are ended.")
    for attempt in itertools.count():
        # Another name: one that is started meanwhile may well have that of this worker, and a broker may hold the
        # mailbox of a connection that was cut.
        name = f"ending-{os.getpid()}-{attempt}.{worker}"
        node = app.control.mailbox.Node(name, handlers={COMMAND: _steps_that_are_ended}, state=None)
        try:
            # A connection of its own: the worker's is closed.
            with app.connection_for_read() as connection:
                node.channel = connection.default_channel
                node.listen(callback=lambda body, message, to=node: _handle(to, body, message))
                while not is_over.is_set():
                    try:
                        connection.drain_events(timeout=_LISTENED_S)
                    except TimeoutError:
                        continue
            return
        except Exception as fault:  # noqa: BLE001 - whatever the broker's client raises: silence would lose the steps
            log.warning("What is being ended cannot be told (%s): trying again.", fault)
            if is_over.wait(_LISTENED_S):
                return


def _handle(node: Any, body: Any, message: Any) -> None:
    # Anything else that workers are asked is nothing for one that ends.
    if body.get("method") == COMMAND:
        node.handle_message(body, message)
