"""The pause in which a backup sees every store at one moment: writers wait for it, and it waits for writers.

A write takes part in `writing`, any number at a time. A backup is `paused` alone, for as long as it takes to begin
PostgreSQL's dump and to link the files of the others. Both are locks that the kernel keeps on two files of the home, so
they hold among all processes of one machine and end with the process that has them. Whoever wants to write passes the
turnstile first, which a backup that waits keeps closed: constant writers do not keep it waiting for ever.

What is written in one transaction of one store needs none of this; its state is whole at any moment. It is for what
changes several stores, or files and the store that names them, and for whatever removes files.
"""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_assets.errors import Refusal

TURNSTILE, GATE = "pause.turn", "pause.lock"
"""Names of the two files in the home."""

_POLL_S = 0.01

_held: dict[str, int] = {}
"""Writes that this process has under way, by home: within one, another one passes without the turnstile."""

_guard = threading.Lock()


@contextmanager
def writing(home: str | Path, first: bool = False) -> Iterator[None]:
    """Write beside other writers; waits while a backup takes its state.

    Where there is no home, or it cannot be written, nobody can make a backup of it, and there is nothing to wait for.

    Args:
        first: go before a backup that is waiting. For a short write under a lock that others wait for within theirs:
            those would wait for this one, which would wait for the backup, which waits for them.

    Raises:
        Refusal: the files of the pause are somebody else's, who lets nobody open them.
    """
    folder = os.path.abspath(home)
    with _guard:
        # What waited here for a backup that waits for the write around it would wait for ever.
        at_once = first or _held.get(folder, 0) > 0
    turnstile = None if at_once else _shared(folder, TURNSTILE)
    try:
        gate = _shared(folder, GATE)
    finally:
        _close(turnstile)
    try:
        with _guard:
            _held[folder] = _held.get(folder, 0) + 1
        try:
            yield
        finally:
            with _guard:
                _held[folder] -= 1
    finally:
        _close(gate)


def _shared(folder: str, name: str) -> int | None:
    """The file, held with all other writers."""
    file = _opened(folder, name)
    if file is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        except BaseException:  # whoever waits is ended
            os.close(file)
            raise
    return file


def _close(file: int | None) -> None:
    if file is not None:
        os.close(file)


@contextmanager
def paused(home: str | Path, timeout_s: float) -> Iterator[None]:
    """Keep all writers of the home away.

    Args:
        timeout_s: how long to wait for writes that are under way.

    Raises:
        Refusal: one was not done by then, or the home cannot be written.
    """
    folder = os.path.abspath(home)
    deadline = time.monotonic() + timeout_s
    files = []
    try:
        for name in (TURNSTILE, GATE):
            file = _opened(folder, name)
            if file is None:
                raise Refusal(
                    f"{folder} cannot be written, so writers cannot be told to wait: make it writable."
                )
            files.append(file)
            while not _taken(file):
                if time.monotonic() > deadline:
                    raise Refusal(
                        f"Something has been writing to {folder} for more than {timeout_s:g} s, so there was no moment "
                        "for a backup: wait for it to end, or end it, and run this again."
                    )
                time.sleep(_POLL_S)
        yield
    finally:
        for file in files:
            os.close(file)


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _opened(folder: str, name: str) -> int | None:
    """The file, made if need be; None where there is no home, or it cannot be written.

    Raises:
        Refusal: it is there, and cannot be opened.
    """
    file, flags = f"{folder}/{name}", os.O_CLOEXEC
    try:
        return os.open(file, flags | os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        return None
    except OSError as fault:
        if fault.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise
    # Made by somebody else, such as root for a backup by cron: a lock of it is one all the same.
    try:
        return os.open(file, flags | os.O_RDONLY)
    except OSError as fault:
        if fault.errno == errno.EACCES and os.path.lexists(file):
            raise Refusal(
                f"{file} cannot be opened, so it is not known whether a backup is being made: give it to the owner of "
                "the home, or let others read it."
            ) from fault
        return None
