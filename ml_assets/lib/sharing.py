"""Work that several threads do together, taking its pieces from one iterator."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def share_out(items: Iterable[T], work: Callable[[Iterator[T]], None], threads: int) -> None:
    """Call `work` in several threads, each with the same iterator: whoever is ready takes the next item.

    Nothing is taken in advance, so that only `threads` items are in memory. Each thread has the context variables of
    this one, such as the run that it works for. When one thread fails, or this
    one is interrupted, the others end with the item that they have.

    Args:
        items: an iterator that need not be safe for threads.
        work: goes through the iterator that it is given until that ends.
        threads: how many.

    Raises:
        BaseException: what a thread raised, the first of them by number if several did.
    """
    shared = _Shared(iter(items))
    with ThreadPoolExecutor(threads) as pool:
        workers = [pool.submit(copy_context().run, work, shared) for _ in range(threads)]
        try:
            wait(workers, return_when=FIRST_EXCEPTION)
        finally:
            shared.end()
    for worker in workers:
        worker.result()


class _Shared(Iterator[T]):
    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._taking = threading.Lock()
        self._ended = False

    def __next__(self) -> T:
        with self._taking:
            if self._ended:
                raise StopIteration
            return next(self._items)

    def end(self) -> None:
        self._ended = True
