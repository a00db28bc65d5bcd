"""Documents into passages that fit the embedding model, the same way every time.

A passage is a slice of the document's text under one heading. It ends where a block of the format does if that is
possible (a paragraph, an item of a list, a table, a fence of code), else at a sentence or a line, else between two words.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ml_assets.errors import Refusal
from ml_assets.lib.html_text import page_of
from ml_assets.lib.reader import Reader
from ml_assets.lib.text_blocks import Block, Kind, TextFormat, blocks, format_of

VERSION = 2
"""Raise this when documents are cut otherwise, or when the model is given something else of them."""

MAX_TOKENS = 200
"""Of a passage; leaves room for title and headings within the 256 tokens that the default model reads."""

OVERLAP_TOKENS = 32
"""A passage starts with up to this much of the one before, so that no thought is cut in two."""

MAX_CHARACTERS = 4_000
"""Of a passage: a word of any length may be one token, and nobody finds anything in a passage that is one word."""

CONTEXT_SHARE = 5
"""Title and headings take up to one part in so many of what the model reads; what is more of them is left out."""

CONTEXT_CHARACTERS = 400
"""Of title and headings together that are looked at for that."""

SECTION = " > "
"""Between the headings of a section."""


@dataclass(frozen=True)
class Chunk:
    """A passage of a document.

    Args:
        chunk_id: `<document_id>#<16 digits of content_hash>`, with `-2` for the second of the kind, and so on.
        index: from 0.
        text: `text[start:end]` of the document; of HTML what can be read of that.
        section: the headings that it stands under, the outermost first, with ` > ` between them.
        format: that the document was taken for.
        context: what the model is given before the text.
        content_hash: of all that its vector depends on.
    """

    chunk_id: str
    document_id: str
    index: int
    title: str | None
    text: str
    start: int
    end: int
    section: str
    format: TextFormat
    context: str
    token_count: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a text that is not cut any further.

    Args:
        tokens: as the model counts them.
        most: how many they are at most.
        glued: whether no white space stands before it, so that tokens may run over its start.
    """

    start: int
    end: int
    tokens: int
    most: int
    kind: Kind
    headings: tuple[str, ...]
    glued: bool = False


def content_hash(context: str, text: str, model: str, dimension: int) -> str:
    """SHA-256 of all that a vector depends on; equal hashes need no new embedding."""
    # NUL can stand in none of them, so no two run together.
    parts = (context, text, f"chunker {VERSION}", model, str(dimension))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def embedding_text(context: str | None, text: str) -> str:
    """What the embedding model is given for a text and what stands before it: its title, or title and headings."""
    return f"{context}\n{text}" if context else text


def context_of(title: str | None, headings: Sequence[str], model: Reader) -> str:
    """Title and headings as a model is given them: words from the end are left out until they fit.

    Args:
        headings: the outermost first.
    """
    title = " ".join((title or "")[: 2 * CONTEXT_CHARACTERS].split())
    path = [" ".join(each.split()) for each in headings]
    if path and path[0] == title:
        path = path[1:]
    # The innermost headings say most.
    section = SECTION.join(path)[-CONTEXT_CHARACTERS // 2 :]
    context = "\n".join(filter(None, (title[: CONTEXT_CHARACTERS - len(section)], section)))
    allowed = model.max_tokens // CONTEXT_SHARE
    while context and model.most_tokens([context])[0] > allowed:
        shorter = context[: len(context) * 3 // 4]
        context = shorter[: shorter.rfind(" ")] if " " in shorter.strip() else shorter
        context = context.strip()
    return context


def chunk_document(
    document_id: str,
    title: str | None,
    text: str,
    model: Reader,
    format: TextFormat | None = None,
    metadata: Mapping[str, Any] | None = None,
    source: str | None = None,
    max_tokens: int = MAX_TOKENS,
    overlap_tokens: int = OVERLAP_TOKENS,
) -> Iterator[Chunk]:
    """Split a document into passages of at most `max_tokens`; none if there is nothing to read in it.

    What the model is given of a passage (title and headings, shortened if they are long, and the passage) never has more
    than `model.max_tokens`. Passages come one by one, and take no memory beside the text.

    Args:
        format: of the text; found out by `format_of` if None.
        metadata, source: of the document, which may tell its format.

    Raises:
        Refusal: a lone surrogate stands in the text or title, which no model can be given.
    """
    for what, each in (("text", text), ("title", title or "")):
        if found := _SURROGATE.search(each):
            raise Refusal(
                f"The {what} of the document {document_id!r} has a lone surrogate (U+{ord(found[0]):04X}) at character "
                f"{found.start():,}: it is half a character. Write the text as UTF-8 anew."
            )
    format = format or format_of(text, metadata or {}, source, document_id)
    page = page_of(text) if format == "html" else None
    cutter = _Cutter(page.text if page else text, title, model, max_tokens, overlap_tokens)
    seen = Counter[str]()
    parts: Iterable[Block] = page.blocks if page else blocks(text, format)
    for index, (context, group) in enumerate(cutter.groups(parts)):
        start, end = group[0].start, group[-1].end
        passage = cutter.text[start:end]
        hashed = content_hash(context, passage, model.name, model.dimension)
        short = hashed[:16]
        seen[short] += 1
        again = f"-{seen[short]}" if seen[short] > 1 else ""
        start, end = page.span(start, end) if page else (start, end)
        yield Chunk(
            chunk_id=f"{document_id}#{short}{again}",
            document_id=document_id,
            index=index,
            title=title,
            text=passage,
            start=start,
            end=end,
            section=SECTION.join(group[-1].headings),
            format=format,
            context=context,
            token_count=sum(piece.tokens for piece in group),
            content_hash=hashed,
        )


_SURROGATE = re.compile("[\ud800-\udfff]")


class _Cutter:
    """Cuts one text for one model."""

    def __init__(
        self, text: str, title: str | None, model: Reader, max_tokens: int, overlap_tokens: int
    ) -> None:
        self.text = text
        self._title = title
        self._model = model
        self._max_tokens, self._overlap = max_tokens, overlap_tokens
        # Room that a passage has whatever stands before it, and whatever glued pieces become together.
        self._most = max(1, model.max_tokens - model.max_tokens // CONTEXT_SHARE - _MARGIN)

    def groups(self, parts: Iterable[Block]) -> Iterator[tuple[str, list[_Piece]]]:
        """Context and pieces of each passage."""
        context, headings = "", None
        for group in self._filled(self._pieces(parts)):
            if group[-1].headings != headings:
                headings = group[-1].headings
                context = context_of(self._title, headings, self._model)
            for kept in self._read_whole(context, group):
                yield context, kept

    def _read_whole(self, context: str, group: list[_Piece]) -> Iterator[list[_Piece]]:
        """The passage, or parts of it where its pieces have more tokens together than apart."""
        if len(group) > 1 and (self._model.estimates_tokens or any(piece.glued for piece in group[1:])):
            whole = embedding_text(context, self.text[group[0].start : group[-1].end])
            if self._model.most_tokens([whole])[0] > self._model.max_tokens:
                half = len(group) // 2
                yield from self._read_whole(context, group[:half])
                yield from self._read_whole(context, group[half:])
                return
        yield group

    def _filled(self, pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
        """Fill passages greedily within a section, each starting with the tail of the one before."""
        group: list[_Piece] = []
        tokens = most = 0
        leads = True  # whether there are only headings, which stand with what follows
        for piece in pieces:
            fits = not group or (
                tokens + piece.tokens <= self._max_tokens
                and most + piece.most <= self._most
                and piece.end - group[0].start <= MAX_CHARACTERS
            )
            section = not leads and (piece.kind == "heading" or piece.headings != group[-1].headings)
            if section or not fits:
                yield group
                group = [] if section or leads else self._tail(group, piece)
                tokens, most = sum(each.tokens for each in group), sum(each.most for each in group)
                leads = True
            group.append(piece)
            tokens, most = tokens + piece.tokens, most + piece.most
            leads = leads and piece.kind == "heading"
        if group:
            yield group

    def _tail(self, group: list[_Piece], piece: _Piece) -> list[_Piece]:
        """The last pieces of a passage that may stand before a piece once more."""
        most = piece.most
        tokens = taken = 0
        for each in reversed(group[1:]):
            tokens, most = tokens + each.tokens, most + each.most
            if (
                each.kind == "heading"
                or tokens > min(self._overlap, self._max_tokens - piece.tokens)
                or most > self._most
                or piece.end - each.start > MAX_CHARACTERS
            ):
                break
            taken += 1
        return group[len(group) - taken :]

    def _pieces(self, parts: Iterable[Block]) -> Iterator[_Piece]:
        """Blocks; of those too long the sentences or lines; of those too long the words; of those too long halves."""
        spans: Iterator[tuple[int, int, Kind, tuple[str, ...]]] = (
            (span[0], span[1], part.kind, part.headings)
            for part in parts
            if (span := _stripped(self.text, part.start, part.end))
        )
        for start, end, kind, headings, tokens, most in self._counted(spans):
            if tokens is not None and self._small(start, end, tokens, most):
                yield _Piece(start, end, tokens, most, kind, headings, self._glued(start))
            else:
                yield from self._refined(start, end, kind, headings, _FINER[kind])

    def _refined(
        self,
        start: int,
        end: int,
        kind: Kind,
        headings: tuple[str, ...],
        finer: tuple[re.Pattern[str], ...],
    ) -> Iterator[_Piece]:
        cut = _split(self.text, start, end, finer[0]) if finer else _halved(self.text, start, end)
        for a, b, _, _, tokens, most in self._counted((a, b, kind, headings) for a, b in cut):
            if (tokens is not None and self._small(a, b, tokens, most)) or b - a == 1:
                yield _Piece(a, b, tokens or 0, most, kind, headings, self._glued(a))
            else:
                yield from self._refined(a, b, kind, headings, finer[1:])

    def _small(self, start: int, end: int, tokens: int, most: int) -> bool:
        return tokens <= self._max_tokens and most <= self._most and end - start <= MAX_CHARACTERS

    def _glued(self, start: int) -> bool:
        return start > 0 and self.text[start - 1] not in " \t\n\r"

    def _counted(
        self, spans: Iterable[tuple[int, int, Kind, tuple[str, ...]]]
    ) -> Iterator[tuple[int, int, Kind, tuple[str, ...], int | None, int]]:
        """Spans with their tokens, counted in batches; None where it is too long to be asked."""
        spans = iter(spans)
        while batch := list(islice(spans, _BATCH)):
            asked = [self.text[a:b] for a, b, _, _ in batch if b - a <= MAX_CHARACTERS]
            counts = self._model.count_tokens(asked)
            mosts = self._model.most_tokens(asked) if self._model.estimates_tokens else counts
            found = iter(zip(counts, mosts, strict=True))
            for start, end, kind, headings in batch:
                tokens, most = next(found) if end - start <= MAX_CHARACTERS else (None, 0)
                yield start, end, kind, headings, tokens, most


_BATCH = 128
"""Spans that are counted at once."""

_MARGIN = 2

# The group is the white space that the boundary drops. The marks are Latin, Arabic, Urdu, Hindi, Chinese and Japanese.
_SENTENCE = re.compile(
    r"[.!?\u061f\u06d4\u0964][\"')\]]*(\s+)|[\u3002\uff01\uff1f\uff0e][\"'\u300d\u300f\uff09]*(\s*)"
)
_LINE = re.compile(r"(\n)")
_WORD = re.compile(r"(\s+)")
_FINER: dict[Kind, tuple[re.Pattern[str], ...]] = {
    "text": (_SENTENCE, _WORD),
    "heading": (_SENTENCE, _WORD),
    "lines": (_LINE, _WORD),
}


def _split(text: str, start: int, end: int, boundary: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Spans between the boundaries, without surrounding white space and without empty ones."""
    at = start
    for match in boundary.finditer(text, start, end):
        a, b = match.span(match.lastindex or 0)
        if span := _stripped(text, at, a):
            yield span
        at = b
    if span := _stripped(text, at, end):
        yield span


_SPACE = re.compile(r"\s*")
_END = 1_024


def _stripped(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span without white space around it; None if it holds nothing else."""
    found = _SPACE.match(text, start, end)
    start = found.end() if found else start
    while end > start:
        part = text[max(start, end - _END) : end]
        kept = len(part.rstrip())
        end -= len(part) - kept
        if kept:
            return start, end
    return None


def _halved(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Two halves of a word, or more if it is very long; not between a letter and its accent, or within an emoji."""
    parts = max(2, -(-(end - start) // MAX_CHARACTERS))
    at = start
    for n in range(1, parts):
        cut = start + (end - start) * n // parts
        whole = next((c for c in range(cut, min(cut + _JOINED, end)) if not _joined(text, c)), cut)
        if at < whole:
            yield at, whole
            at = whole
    yield at, end


_JOINED = 32
"""Characters of what is read as one that are looked at. More than that is no accent."""


def _joined(text: str, at: int) -> bool:
    return unicodedata.combining(text[at]) > 0 or text[at] in "\u200d\ufe0f" or text[at - 1] == "\u200d"
