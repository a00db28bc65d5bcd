"""The text of an HTML page that a reader sees, with its blocks and where in the source each character stands."""

import re
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser

from ml_assets.lib.text_blocks import Block, Headings, Kind

_UNSEEN = frozenset(("script", "style", "template", "title", "svg", "noscript", "iframe"))
_BLOCKS = frozenset(
    (
        *(
            "address",
            "article",
            "aside",
            "blockquote",
            "body",
            "caption",
            "center",
            "dd",
            "details",
            "dialog",
        ),
        *(
            "dir",
            "div",
            "dl",
            "dt",
            "fieldset",
            "figcaption",
            "figure",
            "footer",
            "form",
            "header",
            "hr",
            "html",
        ),
        *(
            "legend",
            "li",
            "main",
            "menu",
            "nav",
            "ol",
            "option",
            "p",
            "search",
            "section",
            "select",
            "summary",
            "ul",
        ),
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = frozenset(("td", "th"))

_RUN = re.compile(r"\S+(?: \S+)*")
_REFERENCE = re.compile(r"&#?\w+;?")


@dataclass(frozen=True)
class Page:
    """What can be read of a page.

    Args:
        text: without tags, scripts and styles.
        blocks: of the text.
    """

    text: str
    blocks: list[Block]
    _at: "array[int]"
    _sources: "array[int]"
    _ends: "array[int]"

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where in the source the characters of `text` from `start` to `end` stand, as offsets."""
        first, last = bisect_right(self._at, start) - 1, bisect_right(self._at, end - 1) - 1
        return self._place(first, start, self._sources[first]), self._place(last, end, self._ends[last])

    def _place(self, run: int, offset: int, reference: int) -> int:
        """Offset in the source within a run that stands there as it is; a reference (`&amp;`) is taken as a whole."""
        after = self._at[run + 1] if run + 1 < len(self._at) else len(self.text)
        source, end = self._sources[run], self._ends[run]
        exact = end - source == after - self._at[run]
        return min(source + offset - self._at[run], end) if exact else reference


def page_of(source: str) -> Page:
    """Read a page. What is no HTML in it is text, as browsers have it."""
    reader = _Reader(source)
    # A comment that is never closed reaches to the end; the parser would look for its end again and again.
    last = source.rfind("-->")
    opened = source.find("<!--", last + 1 if last >= 0 else 0)
    body = source[:opened] if opened >= 0 else source
    # What is behind the last tag can hold none.
    cut = body.rfind(">") + 1
    reader.feed(body[:cut])
    reader.close()
    reader.add_tail(body, cut)
    return reader.page()


class _Reader(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=False)
        self._source = source
        self._line_starts = array("q", [0, *(found.end() for found in re.finditer("\n", source))])
        self._parts: list[str] = []
        self._length = 0
        self._at, self._sources, self._ends = array("q"), array("q"), array("q")
        self._blocks: list[Block] = []
        self._headings = Headings()
        self._start = 0  # of the block in the text
        self._unseen: list[str] = []
        self._as_is = 0  # <pre> that are open
        self._tables = 0
        self._heading: int | None = None
        self._heading_parts: list[str] = []
        self._gap = ""  # white space that is due before the next word

    def page(self) -> Page:
        self._end_block()
        return Page("".join(self._parts), self._blocks, self._at, self._sources, self._ends)

    # What the parser calls.

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if (
            self._unseen
            and self._unseen[-1] == "svg"
            and (tag in _BLOCKS or tag in _HEADINGS or tag in ("pre", "table"))
        ):
            # A drawing that was never closed ends where a block of the page begins, as browsers have it.
            self._unseen.clear()
        if self._unseen:
            if tag == self._unseen[-1]:
                self._unseen.append(tag)
        elif tag in _UNSEEN:
            self._unseen.append(tag)
        elif tag in _HEADINGS:
            self._end_block()
            self._heading = _HEADINGS[tag]
        elif tag in ("pre", "table"):
            if not self._tables and not self._as_is:
                self._end_block()
            self._tables += tag == "table"
            self._as_is += tag == "pre"
        elif tag in ("tr", "br") or (tag in _BLOCKS and self._lines):
            self._gap = "\n"
        elif tag in _CELLS:
            self._gap = self._gap or " "
        elif tag in _BLOCKS:
            self._end_block()

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if tag not in _UNSEEN:  # <script/> holds nothing
            self.handle_starttag(tag, attrs)
            if tag not in _BLOCKS and tag != "br":
                self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag == self._unseen[-1]:
                self._unseen.pop()
        elif tag in ("pre", "table"):
            before = self._lines
            if tag == "table":
                self._tables = max(0, self._tables - 1)
            else:
                self._as_is = max(0, self._as_is - 1)
            if before and not self._lines:
                self._end_block("lines")
        elif tag in _HEADINGS or (tag in _BLOCKS and not self._lines):
            self._end_block()
        elif tag in _BLOCKS:
            self._gap = "\n"

    def handle_data(self, data: str) -> None:
        self._add(data, self._offset())

    def handle_entityref(self, name: str) -> None:
        self._refer()

    def handle_charref(self, name: str) -> None:
        self._refer()

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        # The parser asserts that it knows the section; a browser takes it for a comment.
        end = self.rawdata.find(">", i)
        return end + 1 if end >= 0 else -1

    # How the text is put together.

    @property
    def _lines(self) -> bool:
        return bool(self._tables or self._as_is)

    def _offset(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column

    def add_tail(self, body: str, cut: int) -> None:
        """Add what is behind the last tag."""
        if not self.cdata_elem:
            self._add(body[cut:], cut)

    def _refer(self) -> None:
        start = self._offset()
        found = _REFERENCE.match(self._source, start)
        end = found.end() if found else start + 1
        meant = unescape(self._source[start:end])
        if self._unseen:
            return
        if meant.isspace() and not self._as_is:
            self._gap = self._gap or " "
        else:
            self._put(meant, start, end)

    def _add(self, data: str, offset: int) -> None:
        if self._unseen or not data:
            return
        if self._as_is:
            self._put(data, offset, offset + len(data))
            return
        end = 0
        for run in _RUN.finditer(data):
            if run.start() > 0:
                self._gap = self._gap or " "
            self._put(run[0], offset + run.start(), offset + run.end())
            end = run.end()
        if end < len(data):
            self._gap = self._gap or " "

    def _put(self, text: str, source: int, end: int) -> None:
        if self._gap and self._length > self._start:
            self._note(self._gap, source, source)
            text_before = " "
        else:
            text_before = ""
        self._gap = ""
        self._note(text, source, end)
        if self._heading is not None:
            self._heading_parts.append(text_before + text)

    def _note(self, text: str, source: int, end: int) -> None:
        self._at.append(self._length)
        self._sources.append(source)
        self._ends.append(end)
        self._parts.append(text)
        self._length += len(text)

    def _end_block(self, kind: Kind = "text") -> None:
        if self._length > self._start:
            if self._heading is not None:
                kind = "heading"
                self._headings.enter(self._heading, " ".join("".join(self._heading_parts).split()))
            elif self._lines:
                kind = "lines"
            self._blocks.append(Block(self._start, self._length, kind, self._headings.path))
            self._note("\n\n", self._ends[-1], self._ends[-1])
            self._start = self._length
        self._heading = None
        self._heading_parts.clear()
        self._gap = ""
