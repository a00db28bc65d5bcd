"""One writer at a time on a ClickHouse table, and nobody waits for the dead."""

import multiprocessing
import os
import re
import socket
import threading
import time

import pytest

from ml_assets.lib.sql import quote_json
from ml_assets.stores.clickhouse import lock
from ml_assets.stores.clickhouse.lock import WriteBusy, lock_name, locked


@pytest.fixture
def clients(clickhouse_server):
    return lambda: clickhouse_server.client(write=True)


def held_by(client, pid: int, host: str, where: str = "", since: str = "") -> None:
    comment = quote_json({"host": host, "pid": pid, "where": where, "since": since})
    client.command(f"CREATE TABLE {lock_name('t')} (nothing UInt8) ENGINE = Memory COMMENT {comment}")


def locks(client) -> list[str]:
    rows = client.query("SELECT name FROM system.tables WHERE name LIKE 't\\_\\_lock%'").result_rows
    return [name for (name,) in rows]


def test_writers_take_turns(clients):
    inside, most = [], []

    def write() -> None:
        with clients() as client, locked(clients, client, "t", 30):
            inside.append(1)
            most.append(len(inside))
            client.query("SELECT count() FROM numbers(1000000)")
            inside.pop()

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    with clients() as client:
        assert locks(client) == []


def test_a_writer_that_waits_too_long_is_told_for_whom(clients):
    with clients() as client:
        held_by(client, 4711, "elsewhere")
        told = r"pid 4711 on elsewhere for more than 0\.3 s: wait for it"
        with pytest.raises(WriteBusy, match=told), locked(clients, client, "t", 0.3):
            pass
        assert locks(client) == [lock_name("t")]


@pytest.fixture
def dead() -> int:
    """Number of a process that is no more."""
    process = multiprocessing.get_context("spawn").Process()
    process.start()
    process.join()
    return process.pid or 0


def test_a_dead_writers_lock_is_taken_over(clients, dead):
    with clients() as client:
        held_by(client, dead, socket.gethostname(), lock._where())
        with locked(clients, client, "t", 5):
            taken = locks(client)
            assert lock_name("t") in taken
            assert [name for name in taken if re.fullmatch("t__lock__[0-9a-f]{32}", name)]
            with pytest.raises(WriteBusy, match=f"pid {os.getpid()} on "), locked(clients, client, "t", 0.2):
                pass


def test_a_number_that_another_process_has_now_is_no_sign_of_life(clients):
    with clients() as client:
        held_by(client, os.getppid(), socket.gethostname(), lock._where(), since="1")
        with locked(clients, client, "t", 5):
            pass


def test_a_writer_in_another_container_is_not_dead_because_it_cannot_be_seen(clients, dead):
    """Containers may share a host name, and in each of them process numbers begin with 1."""
    with clients() as client:
        for pid in (dead, os.getpid()):
            held_by(client, pid, socket.gethostname(), "same boot, other name space")
            with pytest.raises(WriteBusy), locked(clients, client, "t", 0.3):
                pass
            client.command(f"DROP TABLE {lock_name('t')} SYNC")


def test_a_lock_that_nobody_renews_is_taken_over(clients, monkeypatch):
    monkeypatch.setattr("ml_assets.stores.clickhouse.lock.STALE_S", 1)
    with clients() as client:
        held_by(client, 4711, "elsewhere")
        with locked(clients, client, "t", 10):
            assert len(locks(client)) == 2


def test_a_long_write_keeps_its_lock(clients, monkeypatch):
    monkeypatch.setattr("ml_assets.stores.clickhouse.lock.STALE_S", 3)
    monkeypatch.setattr("ml_assets.stores.clickhouse.lock.RENEWED_S", 0.5)
    with (
        clients() as client,
        locked(clients, client, "t", 1),
        pytest.raises(WriteBusy),
        clients() as other,
        locked(clients, other, "t", 6),
    ):
        pass


def test_a_fault_does_not_end_the_signs_of_life(clients, monkeypatch, caplog):
    monkeypatch.setattr("ml_assets.stores.clickhouse.lock.RENEWED_S", 0.1)
    tried = []

    def shaky():
        tried.append(1)
        if len(tried) == 1:
            raise ConnectionError("for a moment")
        return clients()

    with clients() as client, locked(shaky, client, "t", 1):
        begun = _touched(client)
        deadline = time.monotonic() + 20
        while _touched(client) == begun:
            assert time.monotonic() < deadline, "nobody has renewed the lock"
            time.sleep(0.1)
    assert "could not be renewed: for a moment" in caplog.text


def _touched(client) -> str:
    return client.command(
        "SELECT toString(metadata_modification_time) FROM system.tables "
        f"WHERE database = currentDatabase() AND name = '{lock_name('t')}'"
    )


def test_a_writer_that_was_overtaken_does_not_renew_the_lock_of_another(clients, monkeypatch):
    monkeypatch.setattr("ml_assets.stores.clickhouse.lock.RENEWED_S", 0.05)
    renewals = threading.Semaphore(0)

    def counted():
        renewals.release()
        return clients()

    with clients() as client, locked(counted, client, "t", 1):
        client.command(f"RENAME TABLE {lock_name('t')} TO {lock_name('t')}__{'0' * 32}")
        held_by(client, 4711, "elsewhere")
        for _ in range(5):  # each begins when the one before has ended
            assert renewals.acquire(timeout=20)
        held = lock._holder(client, "t")
        assert held is not None
        assert held[1]["pid"] == 4711


def test_a_failed_write_leaves_no_lock(clients):
    with clients() as client:
        with pytest.raises(ZeroDivisionError), locked(clients, client, "t", 1):
            raise ZeroDivisionError
        assert locks(client) == []
