"""Words of texts, their places, and the fusion of ranked lists."""

import pytest

from ml_assets.cli.search import print_hits
from ml_assets.lib.ranking import WORDS_SHARE, Listed, Ranked, best_of_each, fuse
from ml_assets.lib.search_words import LONGEST_WORD, places, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t", []),
        ("--- !?", []),
        ("The Learning_rate is 0.1.", ["the", "learning", "rate", "is", "0", "1"]),
        ("Été à ZÜRICH, Straße; ﬁne", ["ete", "a", "zurich", "strasse", "fine"]),
        ("e\u0301te\u0301", ["ete"]),
        ("東京都", ["東", "京", "都", "東京", "京都"]),
        ("GPUで学習", ["gpu", "で", "学", "習", "で学", "学習"]),
        ("한국어 모델", ["한국어", "모델"]),
        ("שָׁלוֹם עולם", ["שלום", "עולם"]),
        ("مُحَمَّد كتـاب", ["محمد", "كتاب"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("🚀 up 👩‍🔬", ["🚀", "up", "👩", "🔬"]),
        ("x" * 10_000_000, ["x" * LONGEST_WORD]),
        ("a\ud800b", ["a", "b"]),
    ],
)
def test_the_words_of_a_text(text, words):
    assert words_of(text) == words


def test_the_words_that_were_asked_for_have_places_in_the_text():
    text = "Größe der Modelle: GRÖSSE_X, 東京都と京都 🚀"
    found = places(text, words_of("grosse 京都 🚀"))
    assert [text[start:end] for start, end in found] == ["Größe", "GRÖSSE", "京都", "京都", "🚀"]
    assert places(text, []) == places("", ["x"]) == []


def test_no_document_commands_the_terminal_that_shows_it(capsys: pytest.CaptureFixture[str]):
    hit = {
        "document_id": "d\x1b[2J",
        "title": "T\x1b]0;owned\x07",
        "passage": "one\ntwo\x1b[31m three\x9b1m",
        "places": [(4, 7)],
        "score": 0.5,
        "word_rank": 1,
        "meaning_rank": None,
    }
    print_hits([hit], "document_id")
    shown = capsys.readouterr().out
    assert "one two [31m three 1m" in shown and "1. T ]0;owned" in shown
    assert all(each.isprintable() for each in shown.replace("\n", ""))


def found(*keys: str, share: float = 0.5, whole: bool = False) -> Listed:
    """A list whose first has all that was asked for, and each further one a tenth less."""
    return Listed([Ranked(key, key[0], 1 - n / 10) for n, key in enumerate(keys)], 0.0, 1.0, share, whole)


def test_lists_are_fused_by_their_scores():
    fused = fuse([found("a1", "b1", "c1"), found("b2", "d1", "a2")])
    assert [(each.owner, each.ranks) for each in fused] == [
        ("b", (2, 1)),
        ("a", (1, 3)),
        ("d", (None, 2)),
        ("c", (3, None)),
    ]
    # What a cut list does not hold may have as much as its last.
    assert [each.score for each in fused] == pytest.approx([0.95, 0.9, 0.85, 0.8])
    # The part is that of the list in which its owner stands higher.
    assert [each.key for each in fused] == ["b2", "a1", "d1", "c1"]
    assert fuse([]) == fuse([found(), found()]) == []
    whole = fuse([found("a1", "b1", whole=True), found("d1", share=0.5, whole=True)])
    assert [(each.owner, each.score) for each in whole] == [("a", 0.5), ("d", 0.5), ("b", 0.45)]


def test_texts_that_are_alike_in_one_list_do_not_outdo_the_right_one_of_the_other():
    words = [Ranked("right", "right", 7.1), *(Ranked(f"n{n}", f"n{n}", 5.5 - n / 10) for n in range(20))]
    alike = [*(Ranked(f"n{n}", f"n{n}", 0.59 - n / 1000) for n in range(20)), Ranked("right", "right", 0.56)]
    fused = fuse([Listed(words, 0.0, 7.3, WORDS_SHARE), Listed(alike, -1.0, 1.0, 1 - WORDS_SHARE)])
    assert (fused[0].key, fused[0].ranks) == ("right", (1, 21))


def test_parts_of_one_owner_are_counted():
    listed = found("a1", "a2", "b1", "a3")
    assert [each.key for each in best_of_each(listed.found, 2)] == ["a1", "a2", "b1"]
    assert [each.key for each in fuse([listed, found("a3", whole=True)], parts=2)] == ["a3", "a1", "b1"]
