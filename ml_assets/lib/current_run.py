"""The run on whose behalf something is done, so that stores' logs and ledgers can tell it."""

from contextvars import ContextVar

run_id: ContextVar[str | None] = ContextVar("run_id", default=None)
"""Dagster's id of the run; None outside of any. IO managers set it for each step that they serve."""


def label() -> str:
    """What a store's own log shows of a connection: `ml-assets`, with the run where there is one."""
    current = run_id.get()
    return f"ml-assets run {current}" if current else "ml-assets"
