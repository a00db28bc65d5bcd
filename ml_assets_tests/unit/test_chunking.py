"""Splitting documents into passages."""

import random
import re
import tracemalloc
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import Refusal
from ml_assets.lib import text_blocks
from ml_assets.lib.chunking import SECTION, Chunk, chunk_document, content_hash, context_of, embedding_text
from ml_assets.lib.passages import BATCH_ROWS, SCHEMA, chunk_documents
from ml_assets.lib.search_setup import Passages
from ml_assets.lib.text_blocks import FORMATS, LOOKED_AT, blocks, format_of


class Words:
    """A model whose tokens are words."""

    name, dimension, estimates_tokens = "words@1", 2, False

    def __init__(self, max_tokens: int = 1_000) -> None:
        self.max_tokens = max_tokens

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    most_tokens = count_tokens


class Letters(Words):
    """A model whose tokens are characters but white space."""

    def count_tokens(self, texts):
        return [len("".join(text.split())) for text in texts]

    most_tokens = count_tokens


def chunks(text, max_tokens=200, overlap_tokens=0, title="T", model=None, **more) -> list[Chunk]:
    model = model or Words()
    return list(
        chunk_document(
            "doc", title, text, model, max_tokens=max_tokens, overlap_tokens=overlap_tokens, **more
        )
    )


def passages(text, max_tokens, overlap_tokens=0, **more):
    return [c.text for c in chunks(text, max_tokens, overlap_tokens, **more)]


def test_a_short_text_is_one_passage_with_a_key_of_all_that_its_vector_depends_on():
    (chunk,) = chunks("  One sentence. \n", title="Title")
    hashed = content_hash("Title", "One sentence.", "words@1", 2)
    assert (chunk.chunk_id, chunk.document_id, chunk.index) == (f"doc#{hashed[:16]}", "doc", 0)
    assert (chunk.text, chunk.start, chunk.end, chunk.token_count) == ("One sentence.", 2, 15, 2)
    assert (chunk.format, chunk.section, chunk.context, chunk.content_hash) == ("plain", "", "Title", hashed)
    others = [("T", "One sentence.", "words@1", 2), ("Title", "One.", "words@1", 2)]
    others += [("Title", "One sentence.", "words@2", 2), ("Title", "One sentence.", "words@1", 3)]
    assert hashed not in {content_hash(*each) for each in others}


def test_paragraphs_are_kept_together_and_packed():
    assert passages("a b\n\nc d\n\ne f", 4) == ["a b\n\nc d", "e f"]


def test_a_long_paragraph_is_cut_at_its_sentences():
    assert passages('He said "a b." Then c d! And e f?', 4) == ['He said "a b."', "Then c d!", "And e f?"]


def test_sentences_without_spaces_end_at_their_marks():
    text = "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002\u6211\u4eec\u53bb\u516c\u56ed\u3002"
    assert passages(text, 8, model=Letters()) == [text[:7], text[7:]]


def test_a_long_sentence_is_cut_between_words():
    assert passages("a b c d e", 2) == ["a b", "c d", "e"]


def test_a_word_of_too_many_tokens_is_cut_in_halves():
    assert passages("abcdefgh", 3, model=Letters()) == ["ab", "cd", "ef", "gh"]


def test_no_letter_loses_its_accent_and_no_emoji_is_cut():
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    found = passages("e\u0301" * 8 + family * 4, 6, model=Letters())
    assert "".join(found) == "e\u0301" * 8 + family * 4
    assert not any(each[0] in "\u0301\u200d" or each.endswith("\u200d") for each in found)


def test_a_passage_starts_with_the_tail_of_the_one_before():
    assert passages("a b c d e f", 3, overlap_tokens=1) == ["a b c", "c d e", "e f"]


def test_the_overlap_gives_way_to_a_piece_that_needs_the_room():
    assert passages("a\n\nb c d\n\ne", 3, overlap_tokens=2) == ["a", "b c d", "e"]


@pytest.mark.parametrize("text", ["", " \n\n\t", "<p> </p><script>x = 1</script>", "\u3000\u00a0"])
def test_what_holds_nothing_to_read_has_no_passage(text):
    assert passages(text, 3) == []


def test_a_title_precedes_its_text_for_the_model():
    assert embedding_text("Title", "Text") == "Title\nText"
    assert embedding_text(None, "Text") == "Text"


MARKDOWN = """---
title: Guide
---
# Guide

Intro.

## Setup

Run it:

```sh
# no heading
make

make test
```

- one
- two
  goes on

|a|b|
|-|-|
|1|2|

Advanced
--------

The end.
"""


def test_markdown_is_cut_by_its_headings_and_keeps_fences_lists_and_tables_together():
    found = chunks(MARKDOWN, 12, title="Guide")
    assert {chunk.format for chunk in found} == {"markdown"}
    assert [(chunk.section, chunk.text) for chunk in found] == [
        ("", "---\ntitle: Guide\n---"),
        ("Guide", "# Guide\n\nIntro."),
        ("Guide > Setup", "## Setup\n\nRun it:\n\n```sh\n# no heading\nmake\n\nmake test\n```"),
        ("Guide > Setup", "- one\n- two\n  goes on\n\n|a|b|\n|-|-|\n|1|2|"),
        ("Guide > Advanced", "Advanced\n--------\n\nThe end."),
    ]
    assert all(MARKDOWN[chunk.start : chunk.end] == chunk.text for chunk in found)
    assert [chunk.context for chunk in found][-1] == "Guide\nAdvanced"


def test_a_heading_stands_with_what_follows_and_alone_if_nothing_does():
    assert [(c.section, c.text) for c in chunks("# A\n\n## B\n\nx y\n\n# C\n", 6)] == [
        ("A > B", "# A\n\n## B\n\nx y"),
        ("C", "# C"),
    ]


RST = """=====
Title
=====

Parameters
----------
depth : int
    How deep.

Example::

    >>> fit(x)

    >>> fit(y)

.. note::

   Mind this.

===== =====
a     b
===== =====
1     2
===== =====

See Also
--------
- :class:`Tree`
"""


def test_restructured_text_is_cut_by_its_titles_and_keeps_literal_blocks_and_tables_together():
    found = chunks(RST, 12)
    assert {chunk.format for chunk in found} == {"rst"}
    assert [(chunk.section, chunk.text) for chunk in found] == [
        (
            "Title > Parameters",
            "=====\nTitle\n=====\n\nParameters\n----------\ndepth : int\n    How deep.\n\nExample::",
        ),
        ("Title > Parameters", ">>> fit(x)\n\n    >>> fit(y)\n\n.. note::\n\n   Mind this."),
        ("Title > Parameters", "===== =====\na     b\n===== =====\n1     2\n===== ====="),
        ("Title > See Also", "See Also\n--------\n- :class:`Tree`"),
    ]
    assert all(RST[chunk.start : chunk.end] == chunk.text for chunk in found)


HTML = """<!DOCTYPE html>
<html><head><title>Page</title><style>p { color: red }</style></head>
<body><h1>Fish &amp; <em>chips</em></h1>
<p>Salt
   &lt;and&gt; vinegar.<script>alert("no")</script></p>
<table><tr><td>a</td><td>b</td></tr><tr><td>1</td><td>2</td></tr></table>
<h2>Code</h2><pre>
if x:
    y()  # of course
</pre><!-- hidden --><p>x < y
</body></html>
"""


def test_html_is_what_is_read_of_it_with_its_place_in_the_source():
    found = chunks(HTML, 8)
    assert [(chunk.format, chunk.section, chunk.text) for chunk in found] == [
        ("html", "Fish & chips", "Fish & chips\n\nSalt <and> vinegar."),
        ("html", "Fish & chips", "a b\n1 2"),
        ("html", "Fish & chips > Code", "Code\n\n\nif x:\n    y()  # of course"),
        ("html", "Fish & chips > Code", "x < y"),
    ]
    assert [HTML[chunk.start : chunk.end] for chunk in found] == [
        "Fish &amp; <em>chips</em></h1>\n<p>Salt\n   &lt;and&gt; vinegar.",
        "a</td><td>b</td></tr><tr><td>1</td><td>2",
        "Code</h2><pre>\nif x:\n    y()  # of course",
        "x < y",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<p>a",
        "a</p>",
        "<![x[y]]><p>z</p>",
        "<p>&bogus; &#xZZ; &#0; &",
        "<p><b>a<!-- never closed",
        "<p>x</p><",
    ],
)
def test_broken_html_is_read_as_browsers_do(text):
    for chunk in chunks(text, 3, format="html"):
        assert 0 <= chunk.start < chunk.end <= len(text)


def test_a_drawing_that_is_never_closed_hides_no_block_behind_it():
    page = "<p>before</p><svg><title>axis</title><text>17</text><p>behind</p><svg><text>18</text></svg><h2>End</h2>"
    assert " ".join(chunk.text for chunk in chunks(page, 50, format="html")).split() == [
        "before",
        "behind",
        "End",
    ]


@pytest.mark.parametrize("part", ["<", "<a ", "<!--", "</a", "<![x", "&", "<?", "<p", "<script>", "<a b='"])
def test_a_page_of_marks_that_never_end_takes_no_more_time_than_its_length(part):
    assert len(chunks(part * 100_000, format="html")) <= 501


def test_lines_of_marks_that_never_end_take_no_more_time_than_their_length():
    for part in ("[", "[a](", " ", ":", ":a", "---|", "== ", "+-"):
        for _ in range(5):
            assert format_of(part * (LOOKED_AT // len(part)), {}) in FORMATS
    for line in ("# a" + " " * 1_900 + "b\n", "+" + "-=" * 950 + "b\n"):
        assert len(list(blocks(line * 1_500, "markdown"))) in (1, 1_500)
        assert len(list(blocks(line * 1_500, "rst"))) == 1


@pytest.mark.parametrize("title", ["A", "Another  title", "words " * 200, None])
def test_what_stands_before_a_passage_is_known_from_its_title_and_section(title):
    text = "# A\n\nx\n\n## B  c\n\ny\n\n### " + "long " * 60 + "\n\nz"
    for chunk in chunks(text, title=title, format="markdown"):
        assert chunk.context == context_of(title, chunk.section.split(SECTION), Words())


@pytest.mark.parametrize(
    ("line", "title"),
    [("#", ""), ("# a #", "a"), ("## a#", "a#"), ("# ##", ""), ("#\ta b ## \r", "a b"), ("# a # b", "a # b")],
)
def test_the_marks_that_close_a_heading_are_none_of_it(line, title):
    (block,) = blocks(f"{line}\n", "markdown")
    assert (block.kind, block.headings) == ("heading", (title,))


@pytest.mark.parametrize(
    ("text", "metadata", "names", "format"),
    [
        ("# A", {"format": "plain"}, ("a.md",), "plain"),
        ("x", {"content_type": "text/html; charset=utf-8"}, (), "html"),
        ("x", {"format": "PDF"}, ("a.rst",), "rst"),
        ("x", {"format": 3}, ("guides/a.md", "guides/a"), "markdown"),
        ("see [here](b.md)", {}, (None, "a"), "markdown"),
        ("Title\n=====\n\n.. note:: x", {}, (), "rst"),
        ("<div>x</div>", {}, (), "html"),
        (" <!DOCTYPE html>\n# A\n## B", {}, (), "html"),
        ("# A\n\n<p align='center'>x</p>\n\n## B\n\n```\nVec<T>\n```", {}, (), "markdown"),
        ("<p>see [here](b.md)</p><p>x</p>", {}, (), "html"),
        ("a < b and c > d", {}, ("rest", "md"), "plain"),
    ],
)
def test_the_format_is_told_by_metadata_then_by_names_then_by_the_text(text, metadata, names, format):
    assert format_of(text, metadata, *names) == format


def test_a_passage_keeps_its_key_wherever_it_moves_and_equal_ones_are_told_apart():
    text = "# A\n\none\n\n# B\n\ntwo\n\n# A\n\none\n\n# A\n\none"
    before = [chunk.chunk_id for chunk in chunks(text)]
    assert len(set(before)) == 4 and before[2:] == [f"{before[0]}-2", f"{before[0]}-3"]
    moved = chunks("# New\n\nhere\n\n" + text)
    assert [chunk.chunk_id for chunk in moved[1:]] == before
    assert [chunk.start for chunk in moved[1:]] == [chunk.start + 13 for chunk in chunks(text)]


def test_title_and_headings_count_and_long_ones_are_shortened():
    title, heading = " ".join(f"t{n}" for n in range(500)), " ".join(f"h{n}" for n in range(500))
    model = Words(60)
    for chunk in chunks(f"# {heading}\n\n" + "word " * 300, title=title, model=model):
        assert model.count_tokens([embedding_text(chunk.context, chunk.text)])[0] <= 60
        assert 0 < len(chunk.context.split()) <= 12 and chunk.title == title


@pytest.mark.parametrize(("text", "title"), [("a \ud800 b", "t"), ("a", "t\udfff")])
def test_half_a_character_is_said(text, title):
    with pytest.raises(
        Refusal, match=r"document 'doc' has a lone surrogate \(U\+D[8F].* Write the text as UTF-8"
    ):
        chunks(text, title=title)


def test_a_word_of_ten_megabytes_is_cut():
    found = chunks("x" * 10_000_000)
    assert len(found) == 2_500 and max(len(chunk.text) for chunk in found) <= 4_000
    assert sum(len(chunk.text) for chunk in found) == 10_000_000


RAW = ("document_id", "title", "text", "source", "metadata", "updated_at")


def documents(texts: dict[str, str]) -> pa.RecordBatchReader:
    schema = pa.schema([(name, SCHEMA.field(name).type) for name in RAW])
    rows = [dict.fromkeys(RAW) | {"document_id": id, "text": text} for id, text in texts.items()]
    return pa.Table.from_pylist(rows, schema).to_reader(2)


def test_only_documents_that_changed_are_cut_again():
    class Counting(Words):
        def count_tokens(self, texts):
            seen.update(word for text in texts for word in text.split() if word.startswith("in-"))
            return super().count_tokens(texts)

        most_tokens = count_tokens

    texts = {id: f"# One\n\nfirst in-{id}\n\n# Two\n\nsecond in-{id}" for id in "abcde"} | {"empty": " "}
    asked: list[str] = []

    def before(hashes):
        asked.extend(hashes)
        return held.filter(pc.field("document_hash").isin(hashes)).to_batches()

    def cut(passages=None):
        seen.clear()
        return chunk_documents(documents(texts), Counting(), passages, before).read_all().sort_by("chunk_id")

    seen: set[str] = set()
    held = SCHEMA.empty_table()
    held = cut()
    assert seen == {f"in-{id}" for id in "abcde"} and held.num_rows == 10

    texts |= {"b": texts["b"].replace("second", "other"), "f": "new in-f"}
    del texts["c"]
    again = cut()
    assert seen == {"in-b", "in-f"} and len(set(asked[-6:]) - set(asked[:6])) == 2
    assert again.equals(chunk_documents(documents(texts), Words()).read_all().sort_by("chunk_id"))

    held = again
    cut(Passages(tokens=16, overlap_tokens=0))
    assert seen == {f"in-{id}" for id in "abdef"}, "what is cut for something else is cut anew"

    # A server's model has the same name when a setting says that it reads less.
    texts = {"long": " ".join(f"word{n}" for n in range(100))}
    for max_tokens in (1_000, 30):
        model = Words(max_tokens=max_tokens)
        held = chunk_documents(documents(texts), model, None, before).read_all()
    assert held.num_rows == chunk_documents(documents(texts), Words(max_tokens=30)).read_all().num_rows > 1


def test_a_document_of_100_000_passages_comes_in_batches_with_a_key_for_each():
    text = "\n\n".join(f"Part {n // 2} of it" for n in range(100_000))
    keys, rows = set(), 0
    for batch in chunk_documents(documents({"d": text}), Words(max_tokens=7)):
        assert batch.num_rows <= BATCH_ROWS
        keys.update(batch["chunk_id"].to_pylist())
        rows += batch.num_rows
    assert len(keys) == rows == 100_000


@pytest.mark.parametrize("format", ["markdown", "rst", "plain"])
def test_passages_of_a_long_document_take_no_memory_beside_its_text(format):
    text = "\n\n".join(f"Paragraph {n} of some length." for n in range(2_000))
    one_block = "word " * 10_000
    for each in (text, one_block):
        tracemalloc.start()
        count = sum(
            1 for _ in chunk_document("d", "t", each, Words(), format, max_tokens=5, overlap_tokens=0)
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 2_000 and peak < 500_000, (count, peak)


ALPHABET = st.sampled_from(
    ["a", "b.", "! ", " ", "\n", "\n\n", "# ", "- ", "```\n", "|", "==\n", "::\n\n", "    ", "<p>", "</p>"]
)


@given(
    st.lists(ALPHABET, max_size=60).map("".join),
    st.sampled_from(["markdown", "rst", "plain"]),
    st.integers(1, 9),
)
def test_no_word_is_lost_and_no_passage_is_too_long(text, format, max_tokens):
    for overlap in (0, 3):
        found = chunks(text, max_tokens, overlap, format=format)
        assert all(len(c.text.split()) == c.token_count <= max_tokens for c in found)
        assert all(text[c.start : c.end] == c.text for c in found)
        covered = {at for c in found for at in range(c.start, c.end)}
        assert not re.search(r"\S", "".join(each for at, each in enumerate(text) if at not in covered))
    spans = [(block.start, block.end) for block in blocks(text, format)]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


@given(st.lists(ALPHABET, max_size=60).map("".join))
def test_the_place_of_a_passage_of_html_holds_its_words(text):
    for chunk in chunks(text, 4, format="html"):
        source = text[chunk.start : chunk.end]
        assert re.sub(r"\s|<p>|</p>", "", source) == re.sub(r"\s", "", chunk.text)


def test_the_table_of_passages_is_that_of_the_contract():
    from ml_assets.contracts import tables
    from ml_assets.settings import Settings

    assert SCHEMA.names == list(tables(Settings())["duckdb/document_chunks"].names)


@pytest.mark.parametrize("pattern", text_blocks._NEEDS, ids=lambda pattern: pattern.pattern[:12])
def test_no_mark_of_a_format_is_without_what_is_looked_for_first(pattern: re.Pattern[str]) -> None:
    chance = random.Random(20)  # noqa: S311 - nothing secret
    parts = [
        "</p>",
        "</h1 >",
        "#",
        " ",
        "\n",
        "a",
        "``",
        "`",
        "~",
        "[",
        "](",
        ")",
        "-",
        "|",
        ":",
        "..",
        "=",
        "_",
        "^",
        '"',
        "'",
        "*",
        "+",
    ]
    found = 0
    for _ in range(20_000):
        text = "".join(chance.choices(parts, k=chance.randint(3, 14)))
        if pattern.search(text):
            found += 1
            assert any(part in text for part in text_blocks._NEEDS[pattern]), text
    assert found > 200
