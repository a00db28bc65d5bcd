"""Which faults lie outside: a full disk, a server that went away or failed, a time-out. They need a person.

What belongs here: how the drivers of all stores tell of these. They are told apart by the driver's own codes
and types where it has some, and by the words of the engine where it has none. What does not: what is said of
them, and other faults.
"""

import errno
import sys
from collections.abc import Iterator

FULL_DISK = (
    "no space left on device",
    "disk is full",
    "disk full",
    "could not extend file",
    "enospc",
    "not enough space",
    "unable to persist to disk",
)
"""What engines write when a disk is full."""

_LOST = (
    ("httpx", "TransportError"),
    ("redis.exceptions", "ConnectionError"),
    ("redis.exceptions", "TimeoutError"),
    ("clickhouse_connect.driver.exceptions", "OperationalError"),
    ("clickhouse_connect.driver.exceptions", "StreamFailureError"),
    ("urllib3.exceptions", "HTTPError"),
    ("requests.exceptions", "ConnectionError"),
    ("requests.exceptions", "Timeout"),
    ("requests.exceptions", "RetryError"),
    ("builtins", "ConnectionError"),
)
"""Types by which a driver says that the other side is gone, or does not answer."""

_LOST_WORDS = (
    "server closed the connection",
    "no connection to the server",
    "could not connect to server",
    "unable to connect to postgres",
)
"""The same in the words of libpq, which is all that DuckDB passes on."""

_FAILED = (
    ("chromadb.errors", "InternalError"),
    ("duckdb", "InternalException"),
    ("duckdb", "FatalException"),
)
"""Types by which a server or an engine says that it could not go on. Chroma keeps the reason, such as a full disk, to
itself; DuckDB stumbles over a catalog that goes away at certain moments."""

_FAILED_WORDS = ("failed to execute query", "failed to prepare", "current transaction is aborted")
"""How DuckDB tells of a catalog that did not answer a statement of its own, with or without the reason."""

_CANCELED = "57014"
"""PostgreSQL's code for a statement that ran into its time-out."""

_CLICKHOUSE_TIMEOUT = 159

_FULL_SQLSTATES = ("53100",)
_LOST_SQLSTATES = ("08", "57P")
"""Beginnings of PostgreSQL's codes for a broken connection and for a server that is shut down or has crashed."""

_FAILED_SQLSTATES = ("58", "XX")
"""The same for files that it cannot use, and for data that it finds damaged."""


class StatementTimeout(TimeoutError):
    """A statement was interrupted by us, where the engine has no time-out of its own."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that caused it, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def one_sentence(fault: BaseException) -> str:
    """A fault's message on one line, without the addresses that DuckDB adds to faults of its own."""
    return one_line(str(fault)) or type(fault).__name__


def one_line(message: str) -> str:
    """A message on one line, without the addresses that DuckDB adds."""
    return " ".join(message.partition("\nStack Trace")[0].split())


def full_disk(error: BaseException) -> BaseException | None:
    """The fault that tells of a full disk, if there is one among the error and its causes."""
    return next((cause for cause in chain(error) if _is_full(cause)), None)


def lost_server(error: BaseException) -> BaseException | None:
    """The fault that tells of a server that went away, if there is one among the error and its causes."""
    return next((cause for cause in chain(error) if _is_lost(cause)), None)


def failed_server(error: BaseException) -> BaseException | None:
    """The fault that tells of a server that could not go on, if there is one among the error and its causes."""
    return next((cause for cause in chain(error) if _is_failed(cause)), None)


def timed_out(error: BaseException) -> BaseException | None:
    """The fault that tells of a statement that took too long, if there is one among the error and its causes."""
    return next((cause for cause in chain(error) if _is_timeout(cause)), None)


def _is_timeout(cause: BaseException) -> bool:
    if isinstance(cause, StatementTimeout):
        return True
    if _is_of(cause, "sqlite3", "OperationalError"):
        return str(cause) == "interrupted"
    if _is_of(cause, "clickhouse_connect.driver.exceptions", "DatabaseError"):
        return getattr(cause, "code", None) == _CLICKHOUSE_TIMEOUT
    return getattr(cause, "sqlstate", None) == _CANCELED


def _is_full(cause: BaseException) -> bool:
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if sqlstate := getattr(cause, "sqlstate", None):
        return sqlstate in _FULL_SQLSTATES
    # A row that holds such words is no full disk: what quotes rows is a ValueError or a LookupError.
    text = str(cause).lower()
    return not isinstance(cause, ValueError | LookupError) and any(mark in text for mark in FULL_DISK)


def _is_lost(cause: BaseException) -> bool:
    if _is_of(cause, "psycopg", "OperationalError"):
        sqlstate = getattr(cause, "sqlstate", None)
        return sqlstate is None or sqlstate.startswith(_LOST_SQLSTATES)
    if any(_is_of(cause, *kind) for kind in _LOST):
        return True
    return _says(cause, _LOST_WORDS)


def _is_failed(cause: BaseException) -> bool:
    sqlstate = getattr(cause, "sqlstate", None) or ""
    if sqlstate.startswith(_FAILED_SQLSTATES) or any(_is_of(cause, *kind) for kind in _FAILED):
        return True
    return _says(cause, _FAILED_WORDS)


def _says(cause: BaseException, phrases: tuple[str, ...]) -> bool:
    text = str(cause).lower()
    return _is_of(cause, "duckdb", "Error") and any(phrase in text for phrase in phrases)


def _is_of(cause: BaseException, module: str, name: str) -> bool:
    """Whether it is of a type of a library, which is not imported for that: whoever raised it has done so."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(cause, kind)
