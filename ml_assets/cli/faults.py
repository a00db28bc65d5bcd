"""Faults that a person can mend, told in one sentence: used by the command line at its edge."""

import errno
import os
import shutil
from pathlib import Path

from ml_assets.errors import Refusal
from ml_assets.lib.faults import chain, failed_server, full_disk, lost_server, timed_out
from ml_assets.settings import LONGEST_HOME

_ROOM_MB = 64
"""With more than this free it is not the disk of the home that is full, but a server's; PostgreSQL asks for 16."""


_AGAIN = "then run the same command again, which goes on where this one ended."


def interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: Dagster and DuckDB make exceptions of their own of it."""
    return any(
        isinstance(cause, KeyboardInterrupt)
        or type(cause).__name__ == "DagsterExecutionInterruptedError"
        or (isinstance(cause, RuntimeError) and str(cause) == "Query interrupted")
        for cause in chain(error)
    )


def sentence(error: BaseException, home: Path) -> str | None:
    """What to tell a person of a fault that is not a bug of ours; None if it may well be one."""
    from ml_assets.errors import ContractViolation, ServiceError, StoreUnavailable, WriteBusy
    from ml_assets.lib.faults import one_sentence

    sentences = (Refusal, StoreUnavailable, ServiceError, WriteBusy, ContractViolation)
    causes = list(chain(error))
    if full_disk(error):
        free = shutil.disk_usage(_existing(home)).free // 2**20
        elsewhere = [str(cause) for cause in causes if isinstance(cause, StoreUnavailable)]
        if elsewhere and free > _ROOM_MB:
            return elsewhere[0]
        return (
            f"The disk that holds {home} is full ({free} MB free): make room or set ML_ASSETS_HOME to a "
            "folder on another disk, then run the same command again; what was written before is intact."
        )
    for cause in causes:
        if isinstance(cause, sentences):
            return str(cause)
    for cause in causes:
        if isinstance(cause, PermissionError) or (
            isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.ENOTDIR)
        ):
            return _unwritable(cause.filename or home, cause.strerror)
        if isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG:
            return f"The path {home} is longer than this system allows: set ML_ASSETS_HOME to a shorter one."
    if late := timed_out(error):
        return (
            f"A statement took longer than it may ({one_sentence(late).rstrip('.')}): see what keeps the store busy, "
            f"or raise ML_ASSETS_QUERY_TIMEOUT_S or ML_ASSETS_WRITE_TIMEOUT_S; {_AGAIN}"
        )
    if gone := lost_server(error) or failed_server(error):
        return (
            f"A server went away or failed ({one_sentence(gone).rstrip('.')}): see with 'ml-assets status' which "
            f"one, start it; {_AGAIN}"
        )
    return None


def require_home(home: Path) -> None:
    """Refuse a home in which nothing could work, before anything is started there.

    Raises:
        Refusal: the path is too long, leads through something that is not a folder, or may not be written.
    """
    length = len(os.fsencode(home))
    if length > LONGEST_HOME:
        raise Refusal(
            f"The path of the home is too long ({length} bytes; SQLite opens no file beyond 511): set "
            f"ML_ASSETS_HOME to a path of at most {LONGEST_HOME} bytes."
        )
    if not (place := _existing(home)).is_dir():
        raise Refusal(
            f"{place} is not a folder, so nothing can be kept in {home}: set ML_ASSETS_HOME to another path."
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise Refusal(_unwritable(home, os.strerror(errno.EACCES)))


def _unwritable(place: object, why: str | None) -> str:
    return (
        f"{place} cannot be written ({why}): set ML_ASSETS_HOME to a folder that you may write, or change who "
        "may write this one."
    )


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
