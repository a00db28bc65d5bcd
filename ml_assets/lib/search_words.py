"""The words of a text as searches by words compare them, and the places of a question's words in a text.

What belongs here: one rule for what a word is, the same for what is searched and for what is asked. Accents and case are
ignored. Scripts that put no space between words (Chinese, Japanese, Thai and others) are taken by characters and pairs
of them, as whose words nobody can tell without a dictionary. Words are not stemmed, since nobody says in which language a
text is. An emoji is a word.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

LONGEST_WORD = 64
"""Characters of a word that count. What is longer is no word, and would be kept by every index."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Scripts that put no space between words, as a range in a regular expression."""

_DROPPED = re.compile("[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0640]")
"""Accents of Latin, Greek and Cyrillic, points of Hebrew and Arabic: people write them or leave them out."""

_PICTURES = "\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"


@cache
def _word() -> re.Pattern[str]:
    """What is looked at together: a run of letters, digits and their marks; a run without spaces; a picture."""
    # \w knows no marks, which are a part of every second letter in India.
    marks = "".join(chr(code) for code in range(0x300, 0x20D0) if unicodedata.category(chr(code))[0] == "M")
    marks += "\u3099\u309a"
    letters = f"[^\\W_{_UNSPACED}]"
    return re.compile(f"[{_UNSPACED}]+|{letters}+(?:[{marks}]+{letters}*)*|[{marks}]+|[{_PICTURES}]")


_IS_UNSPACED = re.compile(f"[{_UNSPACED}]+")


def folded(text: str) -> str:
    """Text without accents, in small letters, each letter as one character where it can be (NFC of NFKD)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", _DROPPED.sub("", unicodedata.normalize("NFKD", text))).casefold()


class Words(dict[str, tuple[str, ...]]):
    """By what was found in a text, the words that it is; kept, since texts repeat their words."""

    def __missing__(self, found: str) -> tuple[str, ...]:
        if _IS_UNSPACED.fullmatch(found):
            plain = folded(found)
            pairs = (plain[n : n + 2] for n in range(len(plain) - 1))
            words = (*plain, *pairs)
        else:
            plain = folded(found[: 4 * LONGEST_WORD])[:LONGEST_WORD]
            words = (plain,) if plain else ()
        if len(found) <= LONGEST_WORD:
            self[found] = words
        return words


def words_of(text: str, known: Words | None = None) -> list[str]:
    """The words of a text, in their order.

    Args:
        known: what was found in other texts.
    """
    known = Words() if known is None else known
    return [word for found in _word().findall(text) for word in known[found]]


def places(text: str, asked: Iterable[str]) -> list[tuple[int, int]]:
    """Where the words that were asked for stand in a text: first character and the one after the last, in order.

    Args:
        asked: words as `words_of` gives them.
    """
    wanted, known, found = set(asked), Words(), list[tuple[int, int]]()
    if not wanted:
        return found
    for match in _word().finditer(text):
        start, end = match.span()
        if not _IS_UNSPACED.fullmatch(match[0]):
            if wanted.intersection(known[match[0]]):
                found.append((start, end))
            continue
        for n in range(start, end):
            # A pair where there is one: single characters are in every other text.
            for length in (2, 1):
                if n + length <= end and folded(text[n : n + length]) in wanted:
                    if found and found[-1][1] >= n:
                        found[-1] = (found[-1][0], max(found[-1][1], n + length))
                    else:
                        found.append((n, n + length))
                    break
    return found
