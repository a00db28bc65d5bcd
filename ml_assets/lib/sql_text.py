"""The text of a SQL file: where something stands, which comment belongs to which column, values for parameters.

What belongs here: what a scanner can tell of DuckDB's SQL in microseconds. What does not: syntax; the engine parses.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<text>[eE]'(?:\\.|''|[^'\\])*'|'(?:''|[^'])*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<name>"(?:""|[^"])*")
    | (?P<parameter>\$\w+)
    | (?P<word>[^\W\d]\w*)
    | (?P<number>\d[\w.]*)
    | (?P<sign>\S)
    """,
    re.VERBOSE | re.DOTALL,
)

_AFTER_THE_LIST = {
    *("FROM", "WHERE", "GROUP", "HAVING", "WINDOW", "QUALIFY", "ORDER", "LIMIT", "OFFSET", "USING"),
    *("UNION", "EXCEPT", "INTERSECT"),
}
"""Words that end the list of columns."""


class Token(NamedTuple):
    """A word, name, number, text, parameter, sign or comment.

    Args:
        kind: one of these.
        text: as it stands in the file.
        start: its place, in characters.
    """

    kind: str
    text: str
    start: int


def tokens(text: str) -> Iterator[Token]:
    """All tokens of a SQL text, comments among them."""
    for found in _TOKEN.finditer(text):
        yield Token(str(found.lastgroup if found.lastgroup != "tag" else "text"), found[0], found.start())


def place(text: str, start: int) -> tuple[int, int]:
    """Line and column of a character, both from 1."""
    before = text[:start]
    return before.count("\n") + 1, start - before.rfind("\n")


def place_of_byte(text: str, offset: int) -> tuple[int, int]:
    """Line and column of a byte of the text in UTF-8, which is how DuckDB counts."""
    return place(text, len(text.encode()[:offset].decode(errors="ignore")))


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The text with SQL expressions in place of parameters.

    Args:
        text: a statement.
        values: by the name of a parameter (`start` of `$start`), an expression. Other parameters stay.
    """
    parts, done = [], 0
    for token in tokens(text):
        if token.kind == "parameter" and token.text[1:] in values:
            parts += [text[done : token.start], values[token.text[1:]]]
            done = token.start + len(token.text)
    return "".join([*parts, text[done:]])


def statement_ends(text: str) -> list[int]:
    """Places of the semicolons between and behind statements."""
    return [token.start for token in tokens(text) if token.text == ";"] if ";" in text else []


@lru_cache(maxsize=1024)
def column_comments(text: str) -> Mapping[str, str]:
    """The comments that stand behind the columns of the outermost SELECT, on the line on which a column ends.

    Args:
        text: one SELECT; of several that are united, the first one names the columns.

    Returns:
        comment by column, in lower case. What stands behind an expression without a name is by its last word, which
        need not be a column.
    """
    found: dict[str, str] = {}
    depth, listing, name, end, before = 0, False, "", 0, ""
    for token in tokens(text):
        word = token.text.upper() if token.kind == "word" else ""
        if token.kind == "comment":
            if name and "\n" not in text[end : token.start]:
                found.setdefault(name, _said(token.text))
            continue
        if token.text in ("(", "[", "{"):
            depth += 1
        elif token.text in (")", "]", "}"):
            depth -= 1
        if depth == 0 and listing and word in _AFTER_THE_LIST and before != "DISTINCT":
            break
        if depth == 0 and not listing:
            listing = word == "SELECT"
            continue
        before = word
        if listing:
            if depth or token.text != ",":  # behind a comma stands what is said of the column before it
                name = _name(token) if depth == 0 else ""
            end = token.start + len(token.text)
    return {column: comment for column, comment in found.items() if comment}


def _name(token: Token) -> str:
    if token.kind == "name":
        return token.text[1:-1].replace('""', '"').lower()
    return token.text.lower() if token.kind == "word" else ""


def _said(comment: str) -> str:
    inner = comment[2:].removesuffix("*/") if comment.startswith("/*") else comment.lstrip("-")
    return " ".join(inner.split())
