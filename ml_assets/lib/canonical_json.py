"""One text for one JSON document: sorted keys, no white space, one form of each number.

PostgreSQL's JSONB keeps a document, not its text: it sorts keys and writes 1e18 as 1000000000000000000. So
that a document is the same, hash for hash, in every store, each is brought to the form below before it is
written and after it is read.

Numbers are 64-bit integers or IEEE doubles. Whole doubles between 1e16 and 2^64 are written as integers and
-0.0 as 0.0, because that is what JSONB makes of them. Integers beyond 64 bits, NaN, infinities, lone
surrogates and U+0000 are refused: some store would bend or refuse them.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

# Texts that may hold a number whose form has to be looked at: an exponent, a negative zero, many digits.
_ODD_NUMBER = re.compile(rb"[0-9][eE]|-0[.,\]}\s]|-0$|[0-9]{16}")
_NUL = b"\\u0000"
_OPTIONS = orjson.OPT_SORT_KEYS


class JSONError(ValueError):
    """The text is no JSON document that every store can hold."""


def canonical(value: Any) -> str:
    """A document in canonical form.

    Args:
        value: JSON text, or dict, list, number, bool or None, or numpy's arrays and scalars, also within. A str
            is read as JSON text.

    Raises:
        JSONError: no JSON, a value that JSON has no form for, or a number or character that some store cannot
            hold.
    """
    try:
        given = value if isinstance(value, str) else json.dumps(value, default=_plain, allow_nan=False)
        text = given.encode()
        document = orjson.loads(text)
        if _ODD_NUMBER.search(text):
            document = _mend(json.loads(text, parse_int=_integer))
        packed = orjson.dumps(document, option=_OPTIONS)
    except RecursionError as fault:
        raise JSONError("the document is nested too deeply for every store to hold it") from fault
    except (ValueError, TypeError) as fault:
        raise JSONError(f"{_short(value)} is no JSON that every store can hold ({fault})") from fault
    if _NUL in packed and _holds_nul(document):
        raise JSONError(f"{_short(value)} holds the character U+0000, which JSONB cannot hold")
    return packed.decode()


def canonical_all(values: Iterable[Any]) -> list[str | None]:
    """`canonical` of each value; None stays None."""
    return [None if value is None else canonical(value) for value in values]


def restored(text: str) -> str:
    """A canonical document that JSONB has kept, in canonical form again."""
    return orjson.dumps(orjson.loads(text), option=_OPTIONS).decode()


def restored_all(texts: Iterable[str | None]) -> list[str | None]:
    """`restored` of each text; None stays None."""
    return [None if text is None else restored(text) for text in texts]


def _plain(value: Any) -> Any:
    """What Python's json cannot write, as something that it can, unless that would change the value."""
    import numpy as np

    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"JSON has no form for {_short(value)}, a {type(value).__name__}")


def _integer(digits: str) -> int:
    number = int(digits)
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"the integer {_short(digits)} does not fit into 64 bits")
    return number


def _mend(document: Any) -> Any:
    if isinstance(document, float):
        if document == 0.0:
            return 0.0
        whole = document.is_integer() and abs(document) >= 1e16
        return int(document) if whole and -(2**63) <= document < 2**64 else document
    if isinstance(document, dict):
        return {key: _mend(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_mend(value) for value in document]
    return document


def _holds_nul(document: Any) -> bool:
    if isinstance(document, str):
        return "\0" in document
    if isinstance(document, dict):
        return any("\0" in str(key) or _holds_nul(value) for key, value in document.items())
    return isinstance(document, list) and any(map(_holds_nul, document))


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
