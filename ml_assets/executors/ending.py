"""A worker of Celery that was told to stop ends its steps first, and goes on to say which.

Celery closes a worker's ear before it waits for what is being executed, so that a step longer than
`celery_lost_after_s` would be taken for lost: given to another worker as well, or told as one that nobody takes.
"""

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from celery.signals import worker_shutting_down
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from celery import Celery

_LISTENED_S = 1.0


def answer_to_the_end(app: "Celery") -> None:
    """Have a worker answer what it executes until its process ends.

    Args:
        app: of the worker that this process is about to become.
    """

    def begin(sender: str, **_: Any) -> None:
        # Another name: one that is started meanwhile may well have that of this worker.
        name = f"ending-{os.getpid()}.{sender}"
        threading.Thread(target=_answer, args=(app, name), name="ending", daemon=True).start()

    worker_shutting_down.connect(begin, weak=False, dispatch_uid="answer_to_the_end")


def _answer(app: "Celery", name: str) -> None:
    log = get_logger(__name__)
    log.info("Told to stop: no more steps are taken, and those that were begun are ended.")
    node = app.control.mailbox.Node(
        name, handlers={"active": _active, "reserved": _none, "active_queues": _none}, state=None
    )
    unreachable = (OperationalError, *app.connection_for_read().recoverable_connection_errors)
    while True:
        try:
            # A connection of its own: the worker's is closed.
            with app.connection_for_read() as connection:
                node.channel = connection.default_channel
                node.listen(callback=lambda body, message: _handled(node, body, message))
                while True:
                    try:
                        connection.drain_events(timeout=_LISTENED_S)
                    except TimeoutError:
                        continue
        except unreachable as fault:
            log.warning("The broker does not answer (%s): trying again.", fault)
            time.sleep(_LISTENED_S)


def _handled(node: Any, body: Any, message: Any) -> None:
    # Anything else that workers are asked is nothing for one that ends.
    if body.get("method") in node.handlers:
        node.handle_message(body, message)


def _active(state: None, safe: bool = False, **_: Any) -> list[dict[str, Any]]:
    """The steps that are being executed, as Celery's own `active` tells them."""
    from celery.worker.state import active_requests

    return [request.info(safe=safe) for request in set(active_requests)]


def _none(state: None, **_: Any) -> list[Any]:
    """No step is fetched and no queue taken from any more."""
    return []
