"""One writer at a time on a ClickHouse table, and nobody waits for the dead."""

import json
import multiprocessing
import os
import re
import socket
import threading

import pytest

from ml_assets.lib.clickhouse_lock import WriteBusy, lock_name, locked
from ml_assets.lib.sql import quote_literal


@pytest.fixture
def clients(clickhouse_server):
    return lambda: clickhouse_server.client(write=True)


def held_by(client, pid: int, host: str) -> None:
    comment = quote_literal(json.dumps({"host": host, "pid": pid}))
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


def test_a_dead_writers_lock_is_taken_over(clients):
    process = multiprocessing.get_context("spawn").Process()
    process.start()
    process.join()
    with clients() as client:
        held_by(client, process.pid or 0, socket.gethostname())
        with locked(clients, client, "t", 5):
            taken = locks(client)
            assert lock_name("t") in taken
            assert [name for name in taken if re.fullmatch("t__lock__[0-9a-f]{32}", name)]
            with pytest.raises(WriteBusy, match=f"pid {os.getpid()} on "), locked(clients, client, "t", 0.2):
                pass


def test_a_lock_that_nobody_renews_is_taken_over(clients, monkeypatch):
    monkeypatch.setattr("ml_assets.lib.clickhouse_lock.STALE_S", 1)
    with clients() as client:
        held_by(client, 4711, "elsewhere")
        with locked(clients, client, "t", 10):
            assert len(locks(client)) == 2


def test_a_long_write_keeps_its_lock(clients, monkeypatch):
    monkeypatch.setattr("ml_assets.lib.clickhouse_lock.STALE_S", 3)
    monkeypatch.setattr("ml_assets.lib.clickhouse_lock.RENEWED_S", 0.5)
    with (
        clients() as client,
        locked(clients, client, "t", 1),
        pytest.raises(WriteBusy),
        clients() as other,
        locked(clients, other, "t", 6),
    ):
        pass


def test_a_failed_write_leaves_no_lock(clients):
    with clients() as client:
        with pytest.raises(ZeroDivisionError), locked(clients, client, "t", 1):
            raise ZeroDivisionError
        assert locks(client) == []
