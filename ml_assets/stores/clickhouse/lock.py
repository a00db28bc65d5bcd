"""One writer at a time on a ClickHouse table, by a table that only one can create.

ClickHouse has no locks of its own, but CREATE TABLE succeeds for one of many. The writer of `t` creates
`t__lock`, whose comment says who it is, renews the comment as long as it lives, and drops the table at the
end. A lock that nobody renews, or whose process has died where we can see it, is taken over by renaming it to
`t__lock__<its uuid>`: that name is free once only, so of many who try it for the same lock one succeeds, and
none of them ever takes away a lock that came later.

What belongs here: this protocol. What does not: what is written meanwhile.
"""

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import copy_context
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ml_assets.errors import WriteBusy
from ml_assets.lib.sql import quote_identifier, quote_json
from ml_assets.stores.clickhouse.cluster import on_cluster

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ml_assets.stores.clickhouse import ClickHouse

RENEWED_S = 10.0
"""How often a writer says that it is alive."""

STALE_S = 60
"""Age at which a lock is taken for a dead writer's."""

IS_LOCK = "engine = 'Memory' AND JSONHas(comment, 'pid')"
"""What makes a row of system.tables a lock and no table of somebody who happened to choose such a name."""

_HELD: set[str] = set()
"""The locks that this process holds."""

_GUARD = threading.Lock()

_UNKNOWN_TABLE = 60
_TABLE_EXISTS = 57

_LOG = logging.getLogger(__name__)


def lock_name(table: str) -> str:
    """Name of the table that stands for the right to write."""
    return f"{table}__lock"


@contextmanager
def writing(clickhouse: "ClickHouse", table: str) -> "Iterator[Client]":
    """A client for the one who may write to a table now.

    Raises:
        WriteBusy: somebody else has been writing to it for longer than a write may take.
    """
    with (
        clickhouse.client(write=True) as client,
        locked(lambda: clickhouse.client(write=True), client, table, clickhouse.write_timeout_s),
    ):
        yield client


@contextmanager
def locked(
    clients: Callable[[], "AbstractContextManager[Client]"], client: "Client", table: str, timeout_s: float
) -> Iterator[None]:
    """Be the only writer of a table.

    Args:
        clients: opens a further client, for the sign of life of a long write.
        client: the writer's.
        table: name of the table.
        timeout_s: how long to wait for another writer.

    Raises:
        WriteBusy: another one was not done by then, and it says who; or a table that is no lock has its name.
    """
    from clickhouse_connect.driver.exceptions import Error

    identity = _acquire(client, table, timeout_s)
    done = threading.Event()
    # In this context, so that its clients tell the run, too.
    renewing = _renew, clients, table, identity, done
    pulse = threading.Thread(target=copy_context().run, args=renewing, daemon=True)
    pulse.start()
    try:
        yield
    except BaseException:
        # Without a server there is nothing to release; the first fault is the one to tell.
        with suppress(Error):
            _release(client, table, identity)
        raise
    else:
        _release(client, table, identity)
    finally:
        done.set()
        pulse.join()
        _HELD.discard(identity)


def require_held(client: "Client", table: str) -> None:
    """See that the lock is still this process's: one that was stopped for a while is taken for dead.

    Asked right before a commit. What was staged holds rows of before, and would take away those of whoever came since.

    Raises:
        WriteBusy: another writer has taken it over.
    """
    held = _holder(client, table)
    if held is None or held[0] not in _HELD:
        raise WriteBusy(
            f"ClickHouse table {table} was taken over by another writer, since this one had given no sign of life for "
            f"{STALE_S} s: run it again. Nothing was written."
        )


def _release(client: "Client", table: str, identity: str) -> None:
    held = _holder(client, table)
    if held and held[0] == identity:
        client.command(f"DROP TABLE IF EXISTS {quote_identifier(lock_name(table))}{on_cluster(client)} SYNC")


def _acquire(client: "Client", table: str, timeout_s: float) -> str:
    """Create the lock, waiting for others and taking over from dead ones; returns its uuid."""
    from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential_jitter

    tries = Retrying(
        retry=retry_if_result(lambda identity: not identity),
        stop=stop_after_delay(timeout_s),
        wait=wait_exponential_jitter(multiplier=0.02, max=1.0, jitter=0.1),
    )
    try:
        return tries(_create, client, table)
    except RetryError:
        held = _holder(client, table)
        who = "pid {pid} on {host}".format(**held[1]) if held else "another writer"
        raise WriteBusy(
            f"ClickHouse table {table} has been written to by {who} for more than {timeout_s:g} s: wait for it to "
            f"end and run this again, or, if it hangs, end it. Nothing was written."
        ) from None


def _create(client: "Client", table: str) -> str:
    """The new lock's uuid, or "" if there is one already."""
    from clickhouse_connect.driver.exceptions import DatabaseError

    lock = quote_identifier(lock_name(table))
    # Other threads must not find a lock of this process that is not yet known to be held.
    with _GUARD:
        try:
            client.command(
                f"CREATE TABLE {lock}{on_cluster(client)} (nothing UInt8) ENGINE = Memory COMMENT {_comment()}"
            )
        except DatabaseError as fault:
            if fault.code != _TABLE_EXISTS:
                raise
            _take_over_from_the_dead(client, table)
            return ""
        held = _holder(client, table)
        identity = held[0] if held else ""
        _HELD.add(identity)
        return identity


def _comment() -> str:
    """Who we are, for people and for whoever asks whether we live; see `_is_dead`."""
    pid = os.getpid()
    return quote_json({"host": socket.gethostname(), "pid": pid, "where": _where(), "since": _since(pid)})


@cache
def _where() -> str:
    """The boot and the name space in which a process number means something: containers may share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex  # whether another process is dead, only time can tell then


def _since(pid: int) -> str:
    """When a process began, in the kernel's ticks since the boot; "" if that cannot be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _is_dead(holder: dict, identity: str) -> bool:
    """Whether the holder is a process that we could see if it lived, and do not."""
    if holder.get("where") != _where():
        return False
    pid = holder["pid"]
    if pid == os.getpid() and holder["since"] == _since(pid):
        # One of this process that is not held was left when the connection broke.
        return identity not in _HELD
    return not psutil.pid_exists(pid) or _since(pid) not in ("", holder["since"])


def _take_over_from_the_dead(client: "Client", table: str) -> None:
    from clickhouse_connect.driver.exceptions import DatabaseError

    held = _holder(client, table)
    if held is None:
        _refuse_another_table(client, table)
        return
    identity, holder, age_s = held
    if age_s < STALE_S and not _is_dead(holder, identity):
        return
    lock = lock_name(table)
    try:
        client.command(
            f"RENAME TABLE {quote_identifier(lock)} TO {quote_identifier(f'{lock}__{identity}')}{on_cluster(client)}"
        )
    except DatabaseError as fault:
        # Somebody else was faster, or it was released after all: look again.
        if fault.code not in (_TABLE_EXISTS, _UNKNOWN_TABLE):
            raise


def _refuse_another_table(client: "Client", table: str) -> None:
    """Waiting would not help if the name is that of a table which is no lock, and such a table is not ours to move."""
    found = client.query(
        "SELECT engine FROM system.tables "
        f"WHERE database = currentDatabase() AND name = {{name:String}} AND NOT ({IS_LOCK})",
        parameters={"name": lock_name(table)},
    ).result_rows
    if found:
        raise WriteBusy(
            f"ClickHouse table {table} cannot be written: its lock would be called {lock_name(table)}, and that is "
            f"another table ({found[0][0]}): rename that one and run this again. Nothing was written."
        )


def _holder(client: "Client", table: str) -> tuple[str, dict, float] | None:
    """The lock's uuid, who holds it, and seconds since they said so. None if nobody does."""
    rows = client.query(
        "SELECT replaceAll(toString(uuid), '-', ''), comment, "
        "toUnixTimestamp(now()) - toUnixTimestamp(metadata_modification_time) FROM system.tables "
        f"WHERE database = currentDatabase() AND name = {{name:String}} AND {IS_LOCK}",
        parameters={"name": lock_name(table)},
    ).result_rows
    return (rows[0][0], json.loads(rows[0][1]), rows[0][2]) if rows else None


def _renew(
    clients: Callable[[], "AbstractContextManager[Client]"],
    table: str,
    identity: str,
    done: threading.Event,
) -> None:
    while not done.wait(RENEWED_S):
        try:
            with clients() as client:
                held = _holder(client, table)
                if held and held[0] == identity:
                    lock = quote_identifier(lock_name(table))
                    client.command(f"ALTER TABLE {lock}{on_cluster(client)} MODIFY COMMENT {_comment()}")
        except Exception as fault:  # noqa: BLE001 - the next try may succeed; a server that is gone the write tells
            _LOG.warning("The lock on ClickHouse table %s could not be renewed: %s", table, fault)
