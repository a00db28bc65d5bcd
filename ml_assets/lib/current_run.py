"""The run on whose behalf something is done, so that stores' logs and ledgers can tell it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

run_id: ContextVar[str | None] = ContextVar("run_id", default=None)
"""Dagster's id of the run; None outside of any. IO managers set it for each step that they serve."""


@contextmanager
def on_behalf_of(run: str) -> Iterator[None]:
    """Within, what is done is done for this run; afterwards for whom it was before, also after a failure."""
    token = run_id.set(run)
    try:
        yield
    finally:
        run_id.reset(token)


def label() -> str:
    """What a store's own log shows of a connection: `ml-assets`, with the run where there is one."""
    current = run_id.get()
    return f"ml-assets run {current}" if current else "ml-assets"
