"""The cache of a process's connections to the lake: DuckDB instances that have it attached.

What belongs here: how long they are kept, and lending connections of them. What does not: how one is made, or
what is done with a connection; that is resources/duckdb.py's.

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

from ml_assets.stores.duckdb.inlining import METADATA

if TYPE_CHECKING:
    import duckdb

_CACHED_S = 600.0
"""Every version of the lake's schema that an instance has seen stays in its memory: it is made anew in time."""

_MOST_INSTANCES = 4
"""Most instances of a process; a run has two, for reading and for writing."""


class CatalogVersion(NamedTuple):
    """How far a catalog has come.

    Args:
        lake: the catalog's own identity.
        newest: number of its newest version.
        at: when that was written. A catalog that was restored has versions of the same numbers, written at other times.
    """

    lake: str
    newest: int
    at: str


class _Cached(NamedTuple):
    instance: "duckdb.DuckDBPyConnection"
    version: CatalogVersion | None
    made: float


_cache: dict[Hashable, _Cached] = {}
"""By what the instance was made of, the one that was used last at the end."""

_lock = threading.Lock()


def connection(key: Hashable, make: "Callable[[], duckdb.DuckDBPyConnection]") -> "duckdb.DuckDBPyConnection":
    """A connection to the instance that goes by this key.

    An instance is given up if the catalog does not have the version any more that it had when it was lent before: it
    was replaced or restored, and the instance remembers another one. So it is if the catalog does not answer.

    Args:
        make: makes the instance; what it raises is raised.
    """
    import duckdb

    cached = _cache.get(key)
    if cached is not None and time.monotonic() - cached.made < _CACHED_S:
        lent = cached.instance.cursor()
        with suppress(duckdb.Error):  # `make` will tell what is wrong, if it still is
            if (newer := catalog_version(lent, cached.version)) is not None:
                _keep(key, cached._replace(version=newer))
                return lent
        close(lent)
        _give_up(key, cached)
    instance = make()
    try:
        first = catalog_version(instance)
    except BaseException:
        close(instance)
        raise
    _keep(key, _Cached(instance, first, time.monotonic()))
    return instance.cursor()


def catalog_version(
    connection: "duckdb.DuckDBPyConnection", before: CatalogVersion | None = None
) -> CatalogVersion | None:
    """The catalog's newest version; None if it does not have the one from before."""
    version = before.newest if before else 0
    question = (
        "SELECT (SELECT schema_uuid::text FROM public.ducklake_schema WHERE schema_name = 'main' LIMIT 1) AS lake, "
        "snapshot_id AS newest, snapshot_time::text AS at, "
        f"(SELECT snapshot_time::text FROM public.ducklake_snapshot WHERE snapshot_id = {version}) AS before "
        "FROM public.ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1"
    )
    found = connection.execute("FROM postgres_query(?, ?)", [METADATA, question]).fetchall()
    if not found:
        return None
    lake, newest, at, then = found[0]
    if before is not None and (lake, then) != (before.lake, before.at):
        return None
    return CatalogVersion(lake, newest, at)


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
        _cache.clear()


def _keep(key: Hashable, cached: _Cached) -> None:
    """Keep it, in place of the one that was not used for longest if there are too many; who has that one may go on."""
    with _lock:
        _cache.pop(key, None)
        while len(_cache) >= _MOST_INSTANCES:
            del _cache[next(iter(_cache))]
        _cache[key] = cached


def _give_up(key: Hashable, cached: _Cached) -> None:
    with _lock:
        if (now := _cache.get(key)) is not None and now.instance is cached.instance:
            del _cache[key]


def _never_collect(connection: "duckdb.DuckDBPyConnection") -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _disown() -> None:
    """In a fork: DuckDB's threads have not come along, and whoever closed an instance would wait for them."""
    for cached in _cache.values():
        _never_collect(cached.instance)
    _cache.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_child=_disown, after_in_parent=_lock.release)
# Not while the interpreter is taken to pieces.
atexit.register(_cache.clear)
