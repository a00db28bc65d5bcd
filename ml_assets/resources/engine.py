"""An engine within this process that lets in one process only: chDB, Qdrant Edge. A file lock keeps the others out.

What belongs here: who may open it. What does not: the engine.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ml_assets.errors import StoreBusy, StoreUnavailable
from ml_assets.resources.base import unavailable
from ml_assets.stores.holder import holder_file, holder_of, note_holder

if TYPE_CHECKING:
    from filelock import FileLock

LINGERS_S = 20.0
"""How long an engine stays open after its last use: longer than between two questions of a monitor."""

_ASKED_S = 0.05
"""How often whoever has the engine open without using it looks whether somebody waits, and whoever waits says so."""

_CLOSING_S = 1.0
"""How long a fork, or the end of the interpreter, waits for a thread that is just opening or closing the engine."""


class Closable(Protocol):
    """What is open as long as the engine is."""

    def close(self) -> None:
        """Close it."""
        ...


Opened = TypeVar("Opened", bound=Closable)


class EmbeddedEngine(Generic[Opened]):
    """The one engine of its kind in this process: which path it has open, for how many users, and the lock on it.

    Without users it stays open for a while, and is closed as soon as another process waits for it (a file beside it
    says so), this process opens another path, forks or ends.

    Args:
        title: as sentences name it.
        scheme: of the URL of a folder.
        variable: that names a server in its place.
        lingers_s: how long it stays open without users.
    """

    def __init__(self, title: str, scheme: str, variable: str, lingers_s: float = LINGERS_S) -> None:
        self._title, self._scheme, self._variable, self._lingers_s = title, scheme, variable, lingers_s
        self._changed = threading.Condition()
        self._pid = 0
        self._path: Path | None = None
        self._users = 0
        self._idle_since = 0.0
        self._folder: int | None = None
        self._lock: FileLock | None = None
        self._kept: Opened | None = None
        self._watching = self._ending = False
        self.finished: list[str] = []
        atexit.register(self._end)
        # A forked child would keep the engine's own lock for as long as it lives.
        os.register_at_fork(before=self.close_if_idle)

    @contextmanager
    def opened(
        self,
        path: Path,
        timeout_s: float,
        purpose: str,
        connect: Callable[[], Opened],
        first: Callable[[], list[str]] = list,
    ) -> Iterator[Opened]:
        """Hold the right to have clients on `path`, within this process and among all processes.

        Args:
            connect: what keeps the engine open, and is given to the block.
            first: done before anybody else may, when nobody was using it; what it returns is kept in `finished`.
        """
        kept = self._enter(path, timeout_s, purpose, connect, first)
        try:
            yield kept
        finally:
            self._leave()

    def _enter(
        self,
        path: Path,
        timeout_s: float,
        purpose: str,
        connect: Callable[[], Opened],
        first: Callable[[], list[str]],
    ) -> Opened:
        if self._is_inherited():
            raise StoreUnavailable(
                f"{self._title} was used by the process that this one was forked from and cannot be used in it: "
                f"start processes by spawn, or set {self._variable} to a server."
            )
        deadline = time.monotonic() + timeout_s
        if not self._changed.acquire(timeout=timeout_s):
            raise self._busy(path, timeout_s)
        try:
            free = self._changed.wait_for(lambda: not self._users or self._path == path, timeout_s)
            if not free:
                raise StoreBusy(
                    f"{self._title} has {self._path} open in this process for more than "
                    f"{timeout_s:g} s: close it before opening {path}."
                )
            if self._path != path or not self._is_there():
                self._close()
                self._acquire(path, max(0.0, deadline - time.monotonic()), timeout_s)
            kept = self._kept
            if not self._users or kept is None:
                kept = self._begin(path, purpose, connect, first)
            self._users += 1
            return kept
        finally:
            self._changed.release()

    def _is_inherited(self) -> bool:
        """Whether it was opened by the process that this one was forked from, whose it stays."""
        return self._pid not in (0, os.getpid())

    def _is_there(self) -> bool:
        """Whether the folder is still the one that was opened, and not removed or made anew."""
        if self._users or self._path is None:
            return self._users > 0
        if self._folder is None:  # some engine makes it at the first write
            self._folder = _held(self._path)
            return True
        try:
            return os.path.samestat(os.fstat(self._folder), self._path.stat())
        except FileNotFoundError:
            return False

    def _begin(
        self, path: Path, purpose: str, connect: Callable[[], Opened], first: Callable[[], list[str]]
    ) -> Opened:
        """The first use after none: the lock on the path is this process's."""
        self._path, self._pid = path, os.getpid()
        try:
            note_holder(path, purpose)
            kept = self._kept
            if kept is None:
                kept = self._kept = connect()
                self._folder = _held(path)
            self.finished = first()
        except BaseException:
            self._close()
            raise
        return kept

    def _acquire(self, path: Path, remaining_s: float, timeout_s: float) -> None:
        from filelock import FileLock, Timeout

        deadline = time.monotonic() + remaining_s
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whoever uses it last closes it, in a thread of its own.
            lock = FileLock(f"{path}.lock", mode=0o644, thread_local=False)
            while True:
                try:
                    lock.acquire(timeout=_ASKED_S, poll_interval=_ASKED_S / 5)
                    break
                except Timeout:
                    if time.monotonic() > deadline:
                        raise self._busy(path, timeout_s) from None
                    _wanted(path).touch()
            # Our own, or that of one that is gone; whoever else waits says so again.
            _wanted(path).unlink(missing_ok=True)
        except OSError as fault:
            raise unavailable(
                self._title,
                f"{self._scheme}://{path}",
                fault,
                "check that you may write to that folder",
            ) from fault
        self._lock = lock

    def _leave(self) -> None:
        if self._is_inherited():
            return
        with self._changed:
            self._users -= 1
            if self._users or self._path is None:
                return
            self._idle_since = time.monotonic()
            with suppress(FileNotFoundError):
                holder_file(self._path).unlink()
            self._changed.notify_all()
            if self._ending or _wanted(self._path).exists():
                self._close()
            elif not self._watching:
                self._begin_watching()

    def _begin_watching(self) -> None:
        watcher = threading.Thread(target=self._watch, name=f"idle {self._title}", daemon=True)
        self._watching = True
        try:
            watcher.start()
        except RuntimeError:  # the process has no thread left for it
            self._watching = False
            self._close()

    def _watch(self) -> None:
        """Close the engine once somebody waits for it or nobody has used it for a while."""
        with self._changed:
            try:
                while self._path is not None:
                    idle_s = time.monotonic() - self._idle_since
                    if not self._users and (idle_s > self._lingers_s or _wanted(self._path).exists()):
                        self._close()
                    else:
                        self._changed.wait(_ASKED_S)
            finally:
                self._watching = False

    def _close(self) -> None:
        """Let others have it; the condition's lock is held."""
        try:
            if self._kept is not None:
                self._kept.close()
        finally:
            if self._path and self._lock:
                for note in (holder_file(self._path), _wanted(self._path)):
                    with suppress(FileNotFoundError):
                        note.unlink()
                self._lock.release()
            if self._folder is not None:
                os.close(self._folder)
            self._path = self._lock = self._kept = self._folder = None
            self._changed.notify_all()

    def _end(self) -> None:
        """Close it before the interpreter ends, or with its last user: a thread that begins later never gets anywhere."""
        self._ending = True
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close it before this process forks or ends; not while somebody is opening or using it."""
        if not self._is_inherited() and self._changed.acquire(timeout=_CLOSING_S):
            try:
                if not self._users:
                    self._close()
            finally:
                self._changed.release()

    @contextmanager
    def at_rest(self, path: Path, timeout_s: float) -> Iterator[None]:
        """Keep the engine closed, here and in all other processes, so that its files are whole.

        Raises:
            StoreBusy: somebody, maybe this process, has it open.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            if not self._changed.wait_for(lambda: not self._users, timeout_s):
                raise self._busy(path, timeout_s)
            self._close()
            self._acquire(path, max(0.0, deadline - time.monotonic()), timeout_s)
            lock, self._lock = self._lock, None
        try:
            yield
        finally:
            if lock is not None:
                with suppress(FileNotFoundError):
                    _wanted(path).unlink()
                lock.release()

    def _busy(self, path: Path, timeout_s: float) -> StoreBusy:
        return StoreBusy(
            f"{self._title} at {path} has been held by {holder_of(path)} for more than {timeout_s:g} s: wait for it to "
            f"end, raise ML_ASSETS_LOCK_TIMEOUT_S, or set {self._variable} to a server."
        )


def _held(path: Path) -> int | None:
    """The folder, opened: as long as it is, none that is made in its place has its number. None if it is not there."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _wanted(path: Path) -> Path:
    """What a process that waits for the engine in folder `path` touches. The lock does not depend on it."""
    return path.with_name(f"{path.name}.wanted")
