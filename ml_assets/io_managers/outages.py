"""A full disk, a server that is not there, goes away or fails: told in a sentence that names the table.

What belongs here: what is said, for all stores at one place. What does not: how such a fault is recognised
(lib/faults.py), and every other fault, which passes as it is: it says itself what is wrong, or it is a bug.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ml_assets.errors import StoreUnavailable, TableUnavailable
from ml_assets.lib.faults import chain, failed_server, full_disk, lost_server, one_sentence
from ml_assets.resources.base import without_password

GATHERED = "its rows were being gathered"
WRITTEN = "it was being written"
READ = "it was being read"

_STATE = {
    GATHERED: " Nothing was written.",
    WRITTEN: " Its rows are the old ones or, if the write was just being committed, the new ones.",
    READ: "",
}
_LONGEST_CAUSE = 300
"""Characters of a driver's message; DuckDB's holds whole statements, and the reason at its end."""


@contextmanager
def explain_outages(asset: str, when: str, urls: Iterable[str]) -> Iterator[None]:
    """Turn a fault that lies outside into a sentence.

    Args:
        asset: the table.
        when: one of `GATHERED`, `WRITTEN`, `READ`.
        urls: of the servers; none of their passwords will be shown.

    Raises:
        TableUnavailable: instead of a driver's exception, or of one that names the server alone.
    """
    from ml_assets.errors import ContractViolation, WriteBusy

    try:
        yield
    except (ContractViolation, WriteBusy, TableUnavailable):
        raise  # sentences already; the last one of another table, whose rows these were to become
    except Exception as fault:
        said = _sentence(asset, when, fault)
        if said is None:
            raise
        # A driver's message with a password in it may not be shown as the cause either.
        secret = any(_masked(str(cause), urls) != str(cause) for cause in chain(fault))
        raise TableUnavailable(_masked(said, urls)) from (None if secret else fault)


def _sentence(asset: str, when: str, fault: Exception) -> str | None:
    if full := full_disk(fault):
        what, cause, remedy = (
            "there was no space left",
            full,
            "make room on that disk, restart its server if that hangs",
        )
    elif isinstance(fault, StoreUnavailable):
        return f"{asset}: {fault}{_STATE[when]}"
    elif lost := lost_server(fault):
        what, cause, remedy = "a server went away", lost, "see with 'ml-assets status' which one, start it"
    elif failed := failed_server(fault):
        what, cause, remedy = (
            "a server failed",
            failed,
            "see its log, and that its disk has space left, restart it",
        )
    else:
        return None
    words = one_sentence(cause).rstrip(".")
    if len(words) > _LONGEST_CAUSE:
        words = f"{words[: _LONGEST_CAUSE // 3]} ... {words[-_LONGEST_CAUSE * 2 // 3 :]}"
    return f"{asset}: {what} while {when} ({words}): {remedy} and run this again.{_STATE[when]}"


def _masked(text: str, urls: Iterable[str]) -> str:
    for url in urls:
        text = without_password(text, url)
    return text
