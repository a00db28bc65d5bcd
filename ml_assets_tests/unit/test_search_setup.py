"""How documents are cut and vectors indexed, as plain numbers."""

import pytest

from ml_assets.errors import Refusal
from ml_assets.lib.retrieval import inferiority
from ml_assets.lib.search_setup import (
    Passages,
    VectorIndex,
    as_settings,
    index_of,
    passages_of,
    with_changes,
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"passage_tokens": 15}, "15 tokens, which is not possible: give a number from 16 to 8,192"),
        ({"passage_tokens": 60}, "A passage of 60 tokens begins with 32 of the one before.* from 0 to 30"),
        ({"overlap_tokens": -1}, "begins with -1"),
        ({"m": 1}, "has m 1, which is not possible: give a number from 2 to 100"),
        ({"m": 33}, "ef_construction is 64, and with m 33 pgvector asks for at least 66"),
        ({"ef_construction": 1_001}, "from 4 to 1,000"),
        ({"ef_search": -1}, "ef_search -1, .* from 1 to 1,000"),
        ({"precision": "double"}, "no precision 'double': it is one of full, half"),
    ],
)
def test_what_cannot_be_is_refused(changes, told):
    with pytest.raises(Refusal, match=told):
        with_changes(Passages(), VectorIndex(), changes)


def test_what_is_not_named_stays_and_the_alias_gives_back_what_it_was_given():
    changes = {"passage_tokens": 120, "overlap_tokens": None, "m": 8, "ef_search": 40, "precision": "half"}
    passages, index = with_changes(Passages(), VectorIndex(), changes)
    assert (passages, index) == (Passages(120, 32), VectorIndex(8, 64, 40, "half"))
    kept = {"embedder": "minilm", **as_settings(passages, index)}
    assert (passages_of(kept), index_of(kept)) == (passages, index)
    assert with_changes(passages, index, {"ef_search": 0})[1].ef_search is None
    # A row of before these were kept.
    assert (passages_of({"embedder": "minilm"}), index_of({})) == (Passages(), VectorIndex())


@pytest.mark.parametrize(
    ("ef_search", "most", "looked_at"),
    [(None, 10, 400), (None, 150, 600), (None, 900, 1_000), (40, 10, 40), (40, 100, 100), (1_000, 10, 1_000)],
)
def test_an_index_looks_at_no_fewer_candidates_than_it_has_to_give(ef_search, most, looked_at):
    assert VectorIndex(ef_search=ef_search).candidates(most, 1_000) == looked_at


def test_what_is_judged_is_named():
    told = str(inferiority([1.0] * 20, [1.0] * 20, what="new index", measure="its recall@10"))
    assert told.startswith(
        "The new index is not worse by more than 0.01 (its recall@10 +0.0000 over 20 questions"
    )
