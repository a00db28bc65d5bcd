"""The parts of a text as its format has them: headings, paragraphs, list items, tables, code.

What belongs here: which lines belong together, and under which headings they stand, line by line, so that a text of any
length takes no memory beside itself. What does not: how much of it a model reads (chunking.py).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

TextFormat = Literal["markdown", "html", "rst", "plain"]
FORMATS: tuple[TextFormat, ...] = get_args(TextFormat)

Kind = Literal["heading", "text", "lines"]
"""`lines` are code and tables, which are cut between lines where they do not fit; `text` is cut between sentences."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text.

    Args:
        start, end: offsets in characters.
        headings: those that it stands under, the outermost first; a heading stands under itself.
    """

    start: int
    end: int
    kind: Kind
    headings: tuple[str, ...] = ()


_SAID: dict[str, TextFormat] = {
    "markdown": "markdown",
    "md": "markdown",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "gfm": "markdown",
    "commonmark": "markdown",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "rst": "rst",
    "rest": "rst",
    "restructuredtext": "rst",
    "text/x-rst": "rst",
    "text/prs.fallenstein.rst": "rst",
    "plain": "plain",
    "text": "plain",
    "txt": "plain",
    "text/plain": "plain",
}
_ENDINGS: dict[str, TextFormat] = {
    "md": "markdown",
    "markdown": "markdown",
    "mdown": "markdown",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "rst": "rst",
    "rest": "rst",
    "txt": "plain",
}
_KEYS = ("format", "content_type", "media_type", "mime_type")

LOOKED_AT = 64 * 1024
"""Characters at the beginning of a text that tell its format."""

# None of these, nor of those below, looks at a part of a line again from each of its characters.
_PAGE = re.compile(r"\s*(?:<!doctype html|<html\b|<\?xml[^>]*>\s*<html\b)", re.I)
_HTML = re.compile(r"</(?:p|div|body|h[1-6]|table|ul|ol|section|article)\s*>", re.I)
_MARKDOWN = re.compile(
    r"^ {0,3}#{1,6} +\S|^ {0,3}(?:```|~~~)|\[[^\[\]\n]+\]\([^)\s]{1,999}\)"
    r"|^(?: *\|)?(?: *:?-{3,}:? *\|)+ *(?::?-{3,}:? *)?$",
    re.M,
)
_RST = re.compile(
    r"^\.\. +[\w-]+::|:[\w:+-]{1,60}:`[^`\n]+`|^\.\. _[^:\n]+:|``[^`\n]+``"
    r"|^\S.*\n(?P<mark>[=\-~^\"'*+#])(?P=mark){2,}[ \t]*$"
    r"|^={2,}(?: +={2,})+ *$",
    re.M,
)

_NEEDS: Mapping[re.Pattern[str], tuple[str, ...]] = {
    _HTML: ("</",),
    _MARKDOWN: ("#", "```", "~~~", "](", "---"),
    _RST: (".. ", "`", "==", *(3 * mark for mark in "-~^\"'*+#")),
}
"""Of these each mark has one: to look for them takes a tenth of the time."""


def format_of(text: str, metadata: Mapping[str, Any], *names: str | None) -> TextFormat:
    """The format of a text: as its metadata say, else as the ending of a name does, else as it looks.

    Args:
        metadata: `format`, `content_type`, `media_type` or `mime_type` of it may name one; others are no format's.
        names: such as a path that it was read from.
    """
    for key in _KEYS:
        if isinstance(said := metadata.get(key), str):
            plain = said.partition(";")[0].strip().lower()
            if plain in _SAID:
                return _SAID[plain]
    for name in names:
        _, dot, ending = (name or "").lower().rpartition(".")
        if dot and ending in _ENDINGS:  # a source called "rest" has no ending
            return _ENDINGS[ending]
    head = text[:LOOKED_AT]
    if _PAGE.match(head):
        return "html"
    # The one with most marks: Markdown may hold some HTML, and a page of HTML some Markdown.
    marks: dict[TextFormat, re.Pattern[str]] = {"html": _HTML, "markdown": _MARKDOWN, "rst": _RST}
    count: int = 0
    found: TextFormat = "plain"
    for format, mark in marks.items():
        if not any(part in head for part in _NEEDS[mark]):
            continue
        if (seen := sum(1 for _ in mark.finditer(head))) > count:
            count, found = seen, format
    return found


def blocks(text: str, format: TextFormat) -> Iterator[Block]:
    """The blocks of a text in their order, none of which overlap; what lies between them is white space or a mark of the
    format. Of HTML, give the text that can be read and the blocks that `html_text.py` finds."""
    if format == "markdown":
        return _markdown(text)
    if format == "rst":
        return _rst(text)
    return _paragraphs(text)


@dataclass(slots=True)
class _Line:
    start: int
    end: int
    text: str

    @property
    def blank(self) -> bool:
        return not self.text or self.text.isspace()

    @property
    def indent(self) -> int:
        return len(self.text) - len(self.text.lstrip())


_LINE = re.compile(r"[^\n]*\n?")

LONGEST_LINE = 2_000
"""Characters of a line that are looked at to see what it is. Longer lines are no marks of a format."""


def _lines(text: str) -> Iterator[_Line]:
    for found in _LINE.finditer(text):
        if found.start() == found.end():
            return
        yield _Line(
            found.start(), found.end(), text[found.start() : min(found.end(), found.start() + LONGEST_LINE)]
        )


class Headings:
    """The headings that a place stands under."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> tuple[str, ...]:
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, title))
        return self.path

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._open)


def _paragraphs(text: str) -> Iterator[Block]:
    start = end = -1
    for line in _lines(text):
        if line.blank:
            if start >= 0:
                yield Block(start, end, "text")
            start = -1
        else:
            start = line.start if start < 0 else start
            end = line.end
    if start >= 0:
        yield Block(start, end, "text")


_FENCE = re.compile(r"\s*(?:[-*+]\s+|\d{1,9}[.)]\s+)?(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+([^\n]*))?\r?\n?\Z")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*\r?\n?\Z")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_DELIMITERS = re.compile(
    r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?[ \t]*\r?\n?\Z|[ ]{0,3}\|[ \t]*:?-+:?[ \t]*\|[ \t]*\r?\n?\Z"
)
_FRONT = re.compile(r"---[ \t]*\r?\n?\Z")
_FRONT_END = re.compile(r"(?:---|\.\.\.)[ \t]*\r?\n?\Z")
_QUOTE = re.compile(r" {0,3}>")


def _markdown(text: str) -> Iterator[Block]:
    """Blocks of Markdown: front matter, fences, headings of both kinds, tables, list items, paragraphs."""
    headings = Headings()
    held: list[_Line] = []  # lines of a paragraph or an item
    kind: Kind = "text"

    def flushed() -> Iterator[Block]:
        nonlocal kind
        if held:
            yield Block(held[0].start, held[-1].end, kind, headings.path)
        held.clear()
        kind = "text"

    fence = ""
    front = False
    for line in _lines(text):
        if fence or front:
            held.append(line)
            closing = line.text.strip()
            over = (
                _FRONT_END.fullmatch(line.text)
                if front
                else (len(closing) >= len(fence) and set(closing) == {fence[0]})
            )
            if over:
                yield from flushed()
                fence, front = "", False
            _shorten(held)
        elif line.start == 0 and _FRONT.fullmatch(line.text):
            held.append(line)
            kind, front = "lines", True
        elif line.blank:
            yield from flushed()
        elif found := _FENCE.match(line.text):
            yield from flushed()
            held.append(line)
            kind, fence = "lines", found[1]
        elif found := _ATX.fullmatch(line.text):
            yield from flushed()
            path = headings.enter(len(found[1]), _without_closing(found[2] or ""))
            yield Block(line.start, line.end, "heading", path)
        elif (
            kind == "text"
            and len(held) == 1
            and not _ITEM.match(held[0].text)
            and not _QUOTE.match(held[0].text)
            and (found := _SETEXT.fullmatch(line.text))
        ):
            path = headings.enter(1 if found[1][0] == "=" else 2, held[0].text.strip())
            yield Block(held[0].start, line.end, "heading", path)
            held.clear()
        elif kind == "text" and held and "|" in held[-1].text and _DELIMITERS.fullmatch(line.text):
            head = held.pop()
            yield from flushed()
            held[:] = [head, line]
            kind = "lines"
        elif _ITEM.match(line.text) and kind != "lines":
            yield from flushed()
            held.append(line)
        else:
            held.append(line)
            _shorten(held)
    yield from flushed()


def _without_closing(title: str) -> str:
    """The title of an ATX heading, without the marks that may close it."""
    title = title.strip()
    open_end = title.rstrip("#")
    return open_end.strip() if not open_end or open_end[-1] in " \t" else title


def _shorten(held: list[_Line]) -> None:
    """Forget the lines in between, of which only first and last are asked: a block of any length takes no memory."""
    if len(held) > 3:
        del held[1:-2]


_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*\r?\n?\Z")
_DIRECTIVE = re.compile(r"\s*\.\. ")
_RST_TABLE = re.compile(r"\s*(?:\+[-=]{2}[-=+]*(?<=\+)|={2,}(?: +={2,})+)[ \t]*\r?\n?\Z")
_RST_ITEM = re.compile(r"\s*(?:[-*+•]|#\.|\(?(?:\d{1,9}|[a-zA-Z])[.)])[ \t]+\S")


def _rst(text: str) -> Iterator[Block]:
    """Blocks of reStructuredText: titles with and without overlines, literal blocks, directives, tables, items."""
    headings = Headings()
    levels: list[str] = []  # kinds of adornment in the order in which they were first seen

    def entered(style: str, title: str) -> tuple[str, ...]:
        if style not in levels:
            levels.append(style)
        return headings.enter(levels.index(style), title.strip())

    held: list[_Line] = []
    kind: Kind = "text"
    literal = -1  # indentation of what a literal block or a directive stands under
    gap: list[_Line] = []  # blank lines within one
    table = False

    def flushed() -> Iterator[Block]:
        nonlocal kind, literal, table
        if held:
            yield Block(held[0].start, held[-1].end, kind, headings.path)
        held.clear()
        gap.clear()
        kind, literal, table = "text", -1, False

    for line in _lines(text):
        if literal >= 0:
            if line.blank:
                gap.append(line)
                del gap[1:]
                continue
            if line.indent > literal:
                if not held:
                    kind = "lines"
                held.append(line)
                _shorten(held)
                continue
            yield from flushed()
        if line.blank:
            ends_literal = bool(held) and held[-1].text.rstrip().endswith("::") and not table
            indent = held[-1].indent if held else 0
            yield from flushed()
            if ends_literal:
                literal = indent
        elif (
            len(held) == 2
            and _ADORNMENT.fullmatch(held[0].text)
            and _ADORNMENT.fullmatch(line.text)
            and held[0].text.strip() == line.text.strip()
            and not _ADORNMENT.fullmatch(held[1].text)
        ):
            path = entered(held[0].text[:1] * 2, held[1].text)
            yield Block(held[0].start, line.end, "heading", path)
            held.clear()
        elif (
            len(held) == 1
            and kind == "text"
            and _ADORNMENT.fullmatch(line.text)
            and not _ADORNMENT.fullmatch(held[0].text)
            and not held[0].indent
            and len(line.text.rstrip()) >= min(4, len(held[0].text.strip()))
        ):
            path = entered(line.text[:1], held[0].text)
            yield Block(held[0].start, line.end, "heading", path)
            held.clear()
        elif _RST_TABLE.fullmatch(line.text) and not table:
            yield from flushed()
            held.append(line)
            kind, table = "lines", True
        elif table:
            held.append(line)
            _shorten(held)
        elif _DIRECTIVE.match(line.text):
            yield from flushed()
            held.append(line)
            kind, literal = "lines", line.indent
        elif _RST_ITEM.match(line.text):
            yield from flushed()
            held.append(line)
        else:
            held.append(line)
            _shorten(held)
    yield from flushed()
