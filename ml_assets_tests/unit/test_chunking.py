"""Splitting documents into passages."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.lib.chunking import chunk_document, content_hash, embedding_text


def words(texts):
    return [len(text.split()) for text in texts]


def passages(text, max_tokens, overlap_tokens=0):
    return [c.text for c in chunk_document("doc", "T", text, words, max_tokens, overlap_tokens)]


def test_a_short_text_is_one_passage_with_a_stable_identity():
    (chunk,) = chunk_document("doc", "Title", "  One sentence. \n", words)
    assert (chunk.chunk_id, chunk.document_id, chunk.index) == ("doc#0", "doc", 0)
    assert (chunk.text, chunk.token_count) == ("One sentence.", 2)
    assert chunk.content_hash == hashlib.sha256(b"Title\0One sentence.").hexdigest()


def test_paragraphs_are_kept_together_and_packed():
    assert passages("a b\n\nc d\n\ne f", 4) == ["a b\n\nc d", "e f"]


def test_a_long_paragraph_is_cut_at_its_sentences():
    assert passages('He said "a b." Then c d! And e f?', 4) == [
        'He said "a b."',
        "Then c d!",
        "And e f?",
    ]


def test_a_long_sentence_is_cut_between_words():
    assert passages("a b c d e", 2) == ["a b", "c d", "e"]


def test_a_word_of_too_many_tokens_is_cut_in_halves():
    chunks = chunk_document("doc", None, "abcdefgh", lambda texts: [len(t) for t in texts], 3, 0)
    assert [c.text for c in chunks] == ["abcd"[:2], "cd", "ef", "gh"]


def test_a_passage_starts_with_the_tail_of_the_one_before():
    assert passages("a b c d e f", 3, overlap_tokens=1) == ["a b c", "c d e", "e f"]


def test_the_overlap_gives_way_to_a_piece_that_needs_the_room():
    assert passages("a\n\nb c d\n\ne", 3, overlap_tokens=2) == ["a", "b c d", "e"]


def test_white_space_has_no_passage():
    assert passages(" \n\n\t", 3) == []


@pytest.mark.parametrize(("left", "right"), [(("a", "bc"), ("ab", "c")), (("", "a"), ("a", ""))])
def test_the_hash_tells_title_from_text(left, right):
    assert content_hash(*left) != content_hash(*right)


def test_a_title_precedes_its_text_for_the_model():
    assert embedding_text("Title", "Text") == "Title\nText"
    assert embedding_text(None, "Text") == "Text"


@given(st.text(alphabet='ab.! \n")', max_size=300), st.integers(1, 9), st.integers(0, 4))
def test_no_word_is_lost_and_no_passage_is_too_long(text, max_tokens, overlap):
    chunks = chunk_document("doc", "T", text, words, max_tokens, overlap)
    assert all(len(c.text.split()) == c.token_count <= max_tokens for c in chunks)
    rest = text
    for chunk in chunk_document("doc", "T", text, words, max_tokens, 0):
        before, found, rest = rest.partition(chunk.text)
        assert found and not before.strip()
    assert not re.search(r"\S", rest)
