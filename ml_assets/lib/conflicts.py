"""Two who write the same table: trying again, and giving up in a sentence.

What belongs here: how often a conflict is tried again, and the error for whoever has waited long enough. What
does not: locks, and which of a store's errors are conflicts; each store knows its own.
"""

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

TRIES = 5

_T = TypeVar("_T")


class WriteBusy(RuntimeError):
    """Somebody else kept writing to the same table for too long. One sentence: table, cause, way out."""


def retried(asset: str, is_conflict: Callable[[BaseException], bool], write: Callable[[], _T]) -> _T:
    """What `write` returns, which is called again if it met a conflict: up to five times within some seconds.

    Args:
        asset: for the sentence.
        is_conflict: whether an error says that somebody else changed the same thing at the same time.
        write: writes everything in one transaction, so that nothing is left of a failed attempt.

    Raises:
        WriteBusy: the last attempt met a conflict, too.
    """
    tries = Retrying(
        retry=retry_if_exception(is_conflict),
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.5),
        reraise=True,
    )
    try:
        return tries(write)
    except Exception as fault:
        if not is_conflict(fault):
            raise
        cause = " ".join(str(fault).split()).rstrip(".")
        raise WriteBusy(
            f"{asset}: somebody else changed the same rows during each of {TRIES} attempts to write them ({cause}): "
            "run it again when they are done. Nothing was written."
        ) from fault


def waited_too_long(asset: str) -> WriteBusy:
    """The error for a writer whose turn did not come within the time-out of a write."""
    return WriteBusy(
        f"{asset}: another process has been writing to it for longer than a write may take: wait for it to end and "
        "run this again, or, if it hangs, end it; ML_ASSETS_WRITE_TIMEOUT_S is the limit. Nothing was written."
    )
