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
    identity: str
    made: float


_kept: dict[Hashable, _Kept] = {}
"""By what the instance was made of, the newest last."""

_lock = threading.Lock()


def connection(
    key: Hashable,
    make: "Callable[[], duckdb.DuckDBPyConnection]",
    identify: "Callable[[duckdb.DuckDBPyConnection], str]",
) -> "duckdb.DuckDBPyConnection":
    """A connection to the instance that goes by this key.

    Args:
        make: makes the instance; what it raises is raised.
        identify: reads the identity of the lake from its catalog. An instance is given up if that fails, as after
            a restart of the catalog's server, or if it has changed: what it remembers is of another lake.
    """
    import duckdb

    kept = _kept.get(key)
    if kept is not None and time.monotonic() - kept.made < _KEPT_S:
        lent = kept.instance.cursor()
        with suppress(duckdb.Error):  # `make` will tell what is wrong, if it still is
            if identify(lent) == kept.identity:
                return lent
        close(lent)
    instance = make()
    _keep(key, _Kept(instance, identify(instance), time.monotonic()))
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


def _keep(key: Hashable, kept: _Kept) -> None:
    """Keep it, in place of the oldest one if there are too many. Who still uses that one may go on."""
    with _lock:
        _kept.pop(key, None)
        while len(_kept) >= _KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = kept


def _never_collect(connection: "duckdb.DuckDBPyConnection") -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _disown() -> None:
    """In a fork: DuckDB's threads have not come along, and whoever closed an instance would wait for them."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    for kept in _kept.values():
        _never_collect(kept.instance)
    _kept.clear()


os.register_at_fork(after_in_child=_disown)
# Not while the interpreter is taken to pieces.
atexit.register(_kept.clear)
