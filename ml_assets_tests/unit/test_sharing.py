"""Threads that share an iterator take each item once, hold no more than one each, and end together."""

import threading
from collections.abc import Iterator

import pytest

from ml_assets.lib.current_run import label, run_id
from ml_assets.lib.sharing import share_out


def test_each_item_is_taken_once_and_none_in_advance():
    taken: list[int] = []
    alive, most = set[int](), [0]

    def items() -> Iterator[int]:
        for number in range(200):
            alive.add(number)
            most[0] = max(most[0], len(alive))
            yield number

    def work(shared: Iterator[int]) -> None:
        for number in shared:
            taken.append(number)
            alive.discard(number)

    share_out(items(), work, 3)
    assert sorted(taken) == list(range(200))
    assert most[0] <= 3


def test_items_are_worked_on_at_the_same_time():
    both = threading.Barrier(2, timeout=30)

    def work(shared: Iterator[int]) -> None:
        for _ in shared:
            both.wait()

    share_out(range(2), work, 2)


def test_each_thread_knows_the_run_that_it_works_for():
    labels: list[str] = []
    token = run_id.set("abc")
    try:
        share_out(range(2), lambda shared: labels.extend(label() for _ in shared), 2)
    finally:
        run_id.reset(token)
    assert labels == ["ml-assets run abc"] * 2


def test_a_failure_ends_the_others_and_is_raised():
    begun, failed = threading.Event(), threading.Event()
    finished: list[int] = []

    def work(shared: Iterator[int]) -> None:
        for number in shared:
            if number == 1:
                begun.wait(30)
                failed.set()
                raise ValueError("item 1")
            begun.set()
            assert failed.wait(30)
            finished.append(number)

    with pytest.raises(ValueError, match="item 1"):
        share_out(iter(range(1_000_000)), work, 2)
    assert len(finished) < 1_000_000


def test_a_failing_iterator_is_told():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        share_out(items(), lambda shared: [None for _ in shared].clear(), 2)
