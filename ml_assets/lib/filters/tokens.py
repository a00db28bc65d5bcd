"""Where the next page of a search begins, as a text that people carry from one call to the next.

A token is no secret. It is bound to its search by a checksum over all that is in it, so that another search, or a text
that was cut while it was copied, is told and not answered with the wrong runs.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime

from ml_assets.errors import Refusal
from ml_assets.lib.filters.postgres import Cursor

_CHECK_BYTES = 12


def token(search: Sequence[str], now: datetime, cursor: Cursor) -> str:
    """The token of the page after a run.

    Args:
        search: filter and order, as they were written.
        now: what the times of the filter are counted from, on all pages.
        cursor: the last run of the page before.
    """
    values = [{"t": each.isoformat()} if isinstance(each, datetime) else each for each in cursor.values]
    packed = json.dumps([now.isoformat(), values, cursor.id]).encode()
    return base64.urlsafe_b64encode(_check(search, packed) + packed).decode().rstrip("=")


def read_token(text: str, search: Sequence[str]) -> tuple[datetime, Cursor]:
    """What `token` was made of.

    Raises:
        Refusal: it is none, or one of another search.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:  # also of characters that are not in ASCII
        raw = b""
    check, packed = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    if not packed or check != _check(search, packed):
        raise Refusal(
            "The page token is none of this search: give the filter and the order that the page before had, and the "
            "token whole, or leave it out to begin with the first page."
        )
    now, values, id = json.loads(packed)
    values = [datetime.fromisoformat(each["t"]) if isinstance(each, dict) else each for each in values]
    return datetime.fromisoformat(now), Cursor(tuple(values), id)


def _check(search: Sequence[str], packed: bytes) -> bytes:
    return hashlib.sha256(json.dumps(list(search)).encode() + packed).digest()[:_CHECK_BYTES]
