"""Work that a request leaves behind: done by one thread, in the order in which it was left, off the request's path."""

import atexit
import logging
import queue
import threading
from collections.abc import Callable

_MOST = 1_000
"""Pieces of work that wait; what comes then is counted and dropped, since a request never waits."""

_END_S = 5.0
"""How long the end of the process waits for what was left."""

_log = logging.getLogger(__name__)


class Background:
    """A thread that starts with the first piece of work and ends with the process."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Callable[[], object]] = queue.Queue(_MOST)
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def leave(self, work: Callable[[], object]) -> bool:
        """Have something done later, unless too much waits; whether it will be.

        A fault in it is logged, and nothing else comes of it.
        """
        if not self.runs:
            self._begin()
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def finish(self, timeout_s: float = _END_S) -> bool:
        """Wait until all that was left is done; whether it is."""
        done = threading.Event()
        if not self.runs:
            return True
        try:
            self._waiting.put(done.set, timeout=timeout_s)
        except queue.Full:
            return False
        return done.wait(timeout_s)

    @property
    def runs(self) -> bool:
        """Whether anybody does what was left. In a process that was forked, the thread of the parent does not run."""
        return self._thread is not None and self._thread.is_alive()

    def _begin(self) -> None:
        with self._start:
            if not self.runs:
                self._thread = threading.Thread(target=self._run, name="ml-assets online", daemon=True)
                self._thread.start()
                atexit.register(self.finish)

    def _run(self) -> None:
        while True:
            work = self._waiting.get()
            try:
                work()
            except Exception:  # noqa: BLE001 - logged; the next piece of work is another one
                _log.warning("What a request had left to be done failed", exc_info=True)
