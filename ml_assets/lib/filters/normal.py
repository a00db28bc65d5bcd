"""When texts are alike: the same in Python and in every store's SQL."""

import re
import unicodedata

MARKS = "\u0300-\u036f"
"""Combining marks that accents are, as a range in a regular expression."""

_MARKS = re.compile(f"[{MARKS}]")


def lowered(text: str) -> str:
    """Text in small letters, each by itself: a character stays one, and none looks at its neighbours."""
    return "".join(small if len(small := each.lower()) == 1 else small[0] for each in text)


def without_accents(text: str) -> str:
    """Text as `~` compares it: taken apart (NFKD), without combining marks, in small letters."""
    return lowered(_MARKS.sub("", unicodedata.normalize("NFKD", text)))


def like_pattern(pattern: str) -> str:
    """A pattern of LIKE as a regular expression of Python that the whole text has to match, with DOTALL."""
    parts, escaped = [], False
    for each in pattern:
        if escaped:
            parts.append(re.escape(each))
            escaped = False
        elif each == "\\":
            escaped = True
        else:
            parts.append({"%": ".*", "_": "."}.get(each) or re.escape(each))
    return "".join(parts)
