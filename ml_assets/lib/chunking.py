"""Documents into passages that fit the embedding model, the same way every time.

A passage is a slice of the document's text. It ends at a paragraph where that is possible, else at a
sentence, else between two words.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MAX_TOKENS = 200
"""Leaves room for the title within the 256 tokens that the model reads."""

OVERLAP_TOKENS = 32
"""A passage starts with up to this much of the one before, so that no thought is cut in two."""

CountTokens = Callable[[Sequence[str]], list[int]]
"""Tokens of each text; additive over white space."""

# The group is the white space that the boundary drops.
_PARAGRAPH = re.compile(r"(\n[ \t]*\n\s*)")
_SENTENCE = re.compile(r"[.!?][\"')\]]*(\s+)")
_WORD = re.compile(r"(\s+)")


@dataclass(frozen=True)
class Chunk:
    """A passage of a document.

    Args:
        chunk_id: `<document_id>#<index>`.
        index: from 0.
        content_hash: of title and text.
    """

    chunk_id: str
    document_id: str
    index: int
    title: str | None
    text: str
    token_count: int
    content_hash: str


@dataclass(frozen=True)
class _Piece:
    start: int
    end: int
    tokens: int


def content_hash(title: str | None, text: str) -> str:
    """SHA-256 of title and text; equal hashes need no new embedding."""
    # NUL cannot stand in either, so no two pairs run together.
    return hashlib.sha256(f"{title or ''}\0{text}".encode()).hexdigest()


def embedding_text(title: str | None, text: str) -> str:
    """What the embedding model is given for a title and a text."""
    return f"{title}\n{text}" if title else text


def chunk_document(
    document_id: str,
    title: str | None,
    text: str,
    count_tokens: CountTokens,
    max_tokens: int = MAX_TOKENS,
    overlap_tokens: int = OVERLAP_TOKENS,
) -> list[Chunk]:
    """Split a document into passages of at most `max_tokens`; none if it holds nothing but white space."""
    pieces = list(_pieces(text, count_tokens, max_tokens))
    return [
        Chunk(
            chunk_id=f"{document_id}#{index}",
            document_id=document_id,
            index=index,
            title=title,
            text=(passage := text[group[0].start : group[-1].end]),
            token_count=sum(piece.tokens for piece in group),
            content_hash=content_hash(title, passage),
        )
        for index, group in enumerate(_groups(pieces, max_tokens, overlap_tokens))
    ]


def _groups(pieces: list[_Piece], max_tokens: int, overlap_tokens: int) -> Iterator[list[_Piece]]:
    """Fill passages greedily, each starting with the tail of the one before."""
    group: list[_Piece] = []
    for piece in pieces:
        if group and sum(p.tokens for p in group) + piece.tokens > max_tokens:
            yield group
            group = _tail(group, min(overlap_tokens, max_tokens - piece.tokens))
        group.append(piece)
    if group:
        yield group


def _tail(group: list[_Piece], budget: int) -> list[_Piece]:
    """The last pieces that fit the budget."""
    size = 0
    for taken, piece in enumerate(reversed(group)):
        size += piece.tokens
        if size > budget:
            return group[len(group) - taken :]
    return group


def _pieces(text: str, count_tokens: CountTokens, max_tokens: int) -> Iterator[_Piece]:
    """Paragraphs; of those too long the sentences; of those too long the words; of those too long halves."""
    spans = _split(text, 0, len(text), _PARAGRAPH)
    yield from _refine(text, spans, (_SENTENCE, _WORD), count_tokens, max_tokens)


def _refine(
    text: str,
    spans: list[tuple[int, int]],
    finer: tuple[re.Pattern[str], ...],
    count_tokens: CountTokens,
    max_tokens: int,
) -> Iterator[_Piece]:
    for (start, end), tokens in zip(spans, count_tokens([text[a:b] for a, b in spans]), strict=True):
        if tokens <= max_tokens or end - start == 1:
            yield _Piece(start, end, tokens)
        elif finer:
            inner = _split(text, start, end, finer[0])
            yield from _refine(text, inner, finer[1:], count_tokens, max_tokens)
        else:
            middle = (start + end) // 2
            halves = [(start, middle), (middle, end)]
            yield from _refine(text, halves, (), count_tokens, max_tokens)


def _split(text: str, start: int, end: int, boundary: re.Pattern[str]) -> list[tuple[int, int]]:
    """Spans between the boundaries, without surrounding white space and without empty ones."""
    cuts = [
        start,
        *(cut for match in boundary.finditer(text, start, end) for cut in match.span(1)),
        end,
    ]
    spans = []
    for a, b in zip(cuts[::2], cuts[1::2], strict=True):
        inner = text[a:b]
        lead = len(inner) - len(inner.lstrip())
        if stripped := inner.strip():
            spans.append((a + lead, a + lead + len(stripped)))
    return spans
