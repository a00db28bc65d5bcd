"""The one `ml-assets up` of a home: who it is, where it serves, and every process that works for it.

`home/up.lock` is a record lock, as those of the embedded servers are: the kernel names its holder and drops it
with the process, however that ends, so no pid file can lie. `home/up.json` says the address and the mark, which
all processes of the session inherit in their environment; by it they are found again after `up` and its keeper
were both killed, whatever became of their pids.
"""

import errno
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ml_assets.errors import Refusal
from ml_assets.services.home import private_home

if TYPE_CHECKING:
    import psutil

MARK = "ML_ASSETS_SESSION"
"""Environment variable of the mark."""

STOP_SECONDS = 20.0
"""How long UI and daemon get to end by themselves; a code server takes a few seconds."""

UP_STOP_SECONDS = 2 * STOP_SECONDS
"""How long `up` gets: it waits for UI and daemon, and then for what outlived them."""


@contextmanager
def held(home: Path, url: str) -> Iterator[str]:
    """Be the `up` of the home; the mark for all that is started.

    What is left of an `up` that was killed with its keeper is ended first, what is left of this one last.

    Raises:
        Refusal: another one holds it, or a process of an earlier one cannot be killed.
    """
    lock = _acquired(home)
    try:
        if former := _recorded(home):
            end(former["mark"])
        mark = uuid4().hex
        _record(home, {"pid": os.getpid(), "url": url, "mark": mark, "lock": _identity(home)})
        try:
            yield mark
        finally:
            end(mark)
            _file(home).unlink(missing_ok=True)
    finally:
        os.close(lock)


def stop(home: Path) -> str | None:
    """Stop the `up` of the home and all that works for it; what that was in words, None if nothing ran.

    Raises:
        Refusal: a process cannot be killed.
        ServiceError: `up` runs in another container.
    """
    from ml_assets.services.server import signal_process

    pid, record = _holder(home), _recorded(home)
    served = bool(record) and bool(members(record["mark"]))
    if pid is not None:
        signal_process(pid, signal.SIGTERM)
        if not _left(home, pid, UP_STOP_SECONDS):
            signal_process(pid, signal.SIGKILL)
            if not _left(home, pid, STOP_SECONDS):
                raise Refusal(f"`ml-assets up` (process {pid}) cannot be killed: see to it.")
    served = (bool(record) and end(record["mark"])) or served
    if _holder(home) is None:  # else another `up` has begun
        _file(home).unlink(missing_ok=True)
    servers = f"UI at {record['url']}, daemon and code server" if served else ""
    if pid is not None:
        return f"`ml-assets up` (process {pid}){f' with {servers}' if servers else ''}"
    return f"{servers} of an `ml-assets up` that was killed" if servers else None


def end(mark: str, ask: bool = True) -> bool:
    """End the processes with the mark, but for this one; whether there were any.

    Args:
        ask: signal them to end by themselves, rather than wait for those that are about to.

    Raises:
        Refusal: one cannot be killed.
    """
    import psutil

    found = members(mark)
    if not found:
        return False
    for process in found if ask else ():
        _send(process, signal.SIGTERM)
    psutil.wait_procs(found, timeout=STOP_SECONDS if ask else STOP_SECONDS / 2)
    deadline = time.monotonic() + STOP_SECONDS
    while left := members(mark):  # what they have started meanwhile as well
        if time.monotonic() > deadline:
            raise Refusal(f"Process {left[0].pid} of Dagster cannot be killed: see to it.")
        for process in left:
            _send(process, signal.SIGKILL)
        psutil.wait_procs(left, timeout=1)
    return True


def members(mark: str) -> list["psutil.Process"]:
    """The processes with the mark, but for this one."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or somebody else's
    return found


def _send(process: "psutil.Process", number: int) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):  # gone, as was wanted
        process.send_signal(number)


def _acquired(home: Path) -> int:
    """Descriptor of the lock, which is held until it is closed; no other one of this file may be closed here."""
    private_home(home)
    while True:
        descriptor = os.open(_lock(home), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        else:
            return descriptor
        if (pid := _holder(home)) is not None:  # else it has just gone
            url = _recorded(home).get("url")
            raise Refusal(
                f"`ml-assets up` runs on {home} already (process {pid}{f', {url}' if url else ''}): use that one, "
                "or stop it with `ml-assets down`, which stops the stores as well."
            )


def _left(home: Path, pid: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while _holder(home) == pid:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _holder(home: Path) -> int | None:
    from ml_assets.services.server import holder

    return holder(_lock(home))


def _lock(home: Path) -> Path:
    return home / "up.lock"


def _file(home: Path) -> Path:
    return home / "up.json"


def _recorded(home: Path) -> dict[str, Any]:
    try:
        record = json.loads(_file(home).read_bytes())
    except (FileNotFoundError, ValueError):  # a power cut can leave an empty file, and no process
        return {}
    # Of a home that was copied, it tells of the original's processes, which are none of ours.
    return record if record.get("lock") == _identity(home) else {}


def _identity(home: Path) -> list[int] | None:
    """What tells the lock of this home from the lock of a copy, and stays the same if the home is moved."""
    try:
        status = _lock(home).stat()
    except FileNotFoundError:
        return None
    return [status.st_dev, status.st_ino]


def _record(home: Path, record: dict[str, Any]) -> None:
    draft = _file(home).with_suffix(".new")
    draft.write_text(json.dumps(record))
    draft.replace(_file(home))
