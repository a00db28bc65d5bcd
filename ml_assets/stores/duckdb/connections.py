"""DuckDB instances that a process keeps with the lake attached.

What belongs here: how long they are kept, and lending connections of them. What does not: how one is made, or
what is done with a connection; that is duckdb.py's.

Attaching a lake and reading its catalog for the first time takes about 100 ms, a connection to an instance that
has done so about 5. Connections share the instance's memory and threads; transactions, settings of the session,
temporary tables and registered rows are each one's own.
"""

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import duckdb

_KEPT_S = 600.0
"""Every version of the lake's schema that an instance has seen stays in its memory: it is made anew in time."""

_KEPT = 4
"""Most instances of a process; a run has two, for reading and for writing."""


class _Kept(NamedTuple):
    instance: "duckdb.DuckDBPyConnection"
    landmark: tuple[object, ...] | None
    made: float


_kept: dict[Hashable, _Kept] = {}
"""By what the instance was made of, the one that was used last at the end."""

_lock = threading.Lock()


def connection(
    key: Hashable,
    make: "Callable[[], duckdb.DuckDBPyConnection]",
    landmark: "Callable[[duckdb.DuckDBPyConnection, tuple[object, ...] | None], tuple[object, ...] | None]",
) -> "duckdb.DuckDBPyConnection":
    """A connection to the instance that goes by this key.

    Args:
        make: makes the instance; what it raises is raised.
        landmark: reads from the catalog which lake this is and how far it has come; None if the landmark of the
            connection before, which it is given, is not there any more. Then the catalog was replaced or restored, and
            an instance that remembers another one is given up; so it is if the catalog does not answer.
    """
    import duckdb

    kept = _kept.get(key)
    if kept is not None and time.monotonic() - kept.made < _KEPT_S:
        lent = kept.instance.cursor()
        with suppress(duckdb.Error):  # `make` will tell what is wrong, if it still is
            if (newer := landmark(lent, kept.landmark)) is not None:
                _keep(key, kept._replace(landmark=newer))
                return lent
        close(lent)
        _give_up(key, kept)
    instance = make()
    try:
        first = landmark(instance, None)
    except BaseException:
        close(instance)
        raise
    _keep(key, _Kept(instance, first, time.monotonic()))
    return instance.cursor()


def close(connection: "duckdb.DuckDBPyConnection") -> None:
    """Give a connection back; what it has not committed is rolled back."""
    import duckdb

    try:
        connection.rollback()
    except duckdb.FatalException:
        # DuckDB has given the instance up, as it does when the catalog's server goes away at a certain moment, and
        # would abort the whole process if this connection were closed or collected.
        _never_collect(connection)
        return
    except duckdb.Error:
        pass  # no transaction is open
    connection.close()


def forget_all() -> None:
    """Give every instance up; who uses one may go on."""
    with _lock:
        _kept.clear()


def _keep(key: Hashable, kept: _Kept) -> None:
    """Keep it, in place of the one that was not used for longest if there are too many; who has that one may go on."""
    with _lock:
        _kept.pop(key, None)
        while len(_kept) >= _KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = kept


def _give_up(key: Hashable, kept: _Kept) -> None:
    with _lock:
        if (now := _kept.get(key)) is not None and now.instance is kept.instance:
            del _kept[key]


def _never_collect(connection: "duckdb.DuckDBPyConnection") -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _disown() -> None:
    """In a fork: DuckDB's threads have not come along, and whoever closed an instance would wait for them."""
    for kept in _kept.values():
        _never_collect(kept.instance)
    _kept.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_child=_disown, after_in_parent=_lock.release)
# Not while the interpreter is taken to pieces.
atexit.register(_kept.clear)
