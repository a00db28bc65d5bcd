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


# By process, since DuckDB's threads do not come along with a fork, and by what the instance was made of.
_kept: dict[tuple[int, Hashable], _Kept] = {}
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

    own = (os.getpid(), key)
    kept = _kept.get(own)
    if kept is not None and time.monotonic() - kept.made < _KEPT_S:
        lent = kept.instance.cursor()
        with suppress(duckdb.Error):  # `make` will tell what is wrong, if it still is
            if identify(lent) == kept.identity:
                return lent
        close(lent)
    instance = make()
    _keep(own, _Kept(instance, identify(instance), time.monotonic()))
    return instance.cursor()


def close(connection: "duckdb.DuckDBPyConnection") -> None:
    """Give a connection back; what it has not committed is rolled back."""
    import duckdb

    try:
        connection.rollback()
    except duckdb.FatalException:
        # DuckDB has given the instance up, as it does when the catalog's server goes away at a certain moment, and
        # would abort the whole process if this connection were closed or collected.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        return
    except duckdb.Error:
        pass  # no transaction is open
    connection.close()


def _keep(own: tuple[int, Hashable], kept: _Kept) -> None:
    """Keep it, in place of the oldest one if there are too many. Who still uses that one may go on."""
    with _lock:
        _kept.pop(own, None)
        ours = [key for key in _kept if key[0] == own[0]]
        for key in ours[: len(ours) + 1 - _KEPT]:
            del _kept[key]
        _kept[own] = kept


# Not while the interpreter is taken to pieces.
@atexit.register
def _forget() -> None:
    with _lock:
        for key in [key for key in _kept if key[0] == os.getpid()]:
            del _kept[key]
