"""Two who write the same table: trying again, and giving up in a sentence.

What belongs here: how often a conflict is tried again, and the error for whoever has waited long enough. What
does not: locks, and which of a store's errors are conflicts; each store knows its own.
"""

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from ml_assets.errors import WriteBusy

TRIES = 5

_T = TypeVar("_T")


def retried(
    asset: str,
    is_conflict: Callable[[BaseException], bool],
    write: Callable[[], _T],
    is_about_others: Callable[[BaseException], bool] = lambda fault: False,
) -> _T:
    """What `write` returns, which is called again if it met a conflict: up to five times within some seconds.

    Args:
        asset: for the sentence.
        is_conflict: whether an error says that somebody else changed something at the same time.
        write: writes everything in one transaction, so that nothing is left of a failed attempt. It ends by itself
            when it has taken longer than a write may.
        is_about_others: whether such an error is about other things than the table's rows. It is tried again as often
            as it comes, since nobody competes for the rows.

    Raises:
        WriteBusy: five attempts met a conflict about the table's rows.
    """
    met = 0

    def enough(state: RetryCallState) -> bool:
        nonlocal met
        fault = state.outcome and state.outcome.exception()
        met += fault is not None and not is_about_others(fault)
        return met >= TRIES

    tries = Retrying(
        retry=retry_if_exception(is_conflict),
        stop=enough,
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
