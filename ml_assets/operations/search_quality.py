"""How well searches find what was judged: words, vectors and both, and what the index of vectors misses.

What belongs here: the judged questions and what the stores answer. What does not: the measures and verdicts
(lib/retrieval.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal, TableUnavailable
from ml_assets.lib.retrieval import DEPTH, MEASURES, Question, Values, compared, measured
from ml_assets.lib.significance import Verdict
from ml_assets.lib.words import counted
from ml_assets.operations.search_texts import DOCUMENTS, LONGEST, Searcher
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    from ml_assets.resources.duckdb import DuckLakeResource

WAYS = ("words", "dense", "hybrid")

MOST_QUESTIONS = 1_000
"""Questions that are asked, at most: of more, those whose hashes are smallest."""

EXACT_QUESTIONS = 100
"""Questions whose vectors are compared with all others, which takes long in a large table."""


@dataclass(frozen=True)
class Quality:
    """What a judged set tells of searches.

    Attributes:
        questions: as they were asked.
        values: by way (words, dense, hybrid) and measure a value for every question.
        verdict: of hybrid against the better of words and dense, by nDCG@10; None without questions.
        index_recall: the share of the ten nearest passages that the index finds; None if nothing was asked.
        indexed: questions that it was measured with.
        left_out: what was not asked, and why.
    """

    questions: Sequence[Question]
    values: Mapping[str, Values] = field(default_factory=dict)
    verdict: Verdict | None = None
    index_recall: float | None = None
    indexed: int = 0
    left_out: Sequence[str] = ()

    @property
    def hybrid_is_worse(self) -> bool:
        """Whether hybrid is shown to be worse than the better of words and dense."""
        return self.verdict is not None and self.verdict.better is False

    def rows(self) -> list[dict[str, Any]]:
        """A row for each set and way, and for all sets (`all`) if there are several: means of the measures."""
        names = list(dict.fromkeys(question.set_name for question in self.questions))
        sets: list[tuple[str, list[int]]] = [
            (name, [n for n, each in enumerate(self.questions) if each.set_name == name]) for name in names
        ]
        if len(sets) > 1:
            sets.append(("all", list(range(len(self.questions)))))
        return [
            {
                "set": name,
                "questions": len(chosen),
                "way": way,
                **{m: sum(values[m][n] for n in chosen) / len(chosen) for m in MEASURES},
            }
            for name, chosen in sets
            for way, values in self.values.items()
        ]

    def as_json(self) -> dict[str, Any]:
        """All of it but the single values."""
        return {
            "questions": len(self.questions),
            "measures": self.rows(),
            "verdict": self.verdict.as_json() if self.verdict else None,
            "index_recall": self.index_recall,
            "index_recall_questions": self.indexed,
            "left_out": list(self.left_out),
        }


def quality(searcher: Searcher, lake: "DuckLakeResource", set_name: str | None = None) -> Quality:
    """Ask the judged questions in every way; see `Search.quality`."""
    questions, left_out = judged(lake, searcher.owners(DOCUMENTS), set_name)
    if not questions:
        return Quality([], left_out=left_out)
    texts = [question.text for question in questions]
    found: dict[str, list[list[str]]] = {way: [] for way in WAYS}
    for lists in searcher.each_way(DOCUMENTS, texts, DEPTH):
        for way in WAYS:
            found[way].append(lists[way])
    values = {way: measured(questions, found[way]) for way in WAYS}
    better = max(("words", "dense"), key=lambda way: sum(values[way]["ndcg"]))
    verdict = compared("hybrid", better, values["hybrid"]["ndcg"], values[better]["ndcg"])
    recall = searcher.index_recall(DOCUMENTS, texts[:EXACT_QUESTIONS], DEPTH)
    return Quality(questions, values, verdict, recall, len(texts[:EXACT_QUESTIONS]), left_out)


def judged(
    lake: "DuckLakeResource", there: set[str], set_name: str | None = None
) -> tuple[list[Question], list[str]]:
    """The judged questions that can be asked, and in sentences what was left out.

    Args:
        there: the documents that can be found. Judgments of others say nothing about a search.
        set_name: only this set.

    Raises:
        Refusal: no such set was judged.
    """
    import hashlib

    import duckdb

    try:
        with lake.get_connection() as connection:
            rows = connection.execute(read_sql("duckdb/quality/judgments.sql")).fetchall()
    except (duckdb.CatalogException, TableUnavailable):
        rows = []  # nothing was ever landed
    if set_name is not None and rows:
        names = sorted({row[0] for row in rows})
        if set_name not in names:
            raise Refusal(f"No set {set_name!r} was judged: there are {', '.join(names)}.")
        rows = [row for row in rows if row[0] == set_name]
    questions, unanswered, unaskable, gone = [], 0, 0, 0
    for name, id, text, documents, relevances in rows:
        known = {d: r for d, r in zip(documents, relevances, strict=True) if d in there}
        gone += len(documents) - len(known)
        if not text.strip() or len(text) > LONGEST:
            unaskable += 1
        elif not any(known.values()):
            unanswered += 1
        else:
            questions.append(Question(name, id, text, known))
    left_out = []
    if gone:
        left_out.append(f"{counted(gone, 'judgment')} of documents that are not there.")
    if unanswered:
        left_out.append(f"{counted(unanswered, 'question')} without a document that is an answer.")
    if unaskable:
        left_out.append(
            f"{counted(unaskable, 'question')} that are empty or longer than {LONGEST:,} characters."
        )
    if len(questions) > MOST_QUESTIONS:
        left_out.append(f"{counted(len(questions) - MOST_QUESTIONS, 'question')} beyond {MOST_QUESTIONS:,}.")

    def drawn(question: Question) -> bytes:
        return hashlib.sha256(f"{question.set_name}\0{question.id}".encode()).digest()

    return sorted(questions, key=drawn)[:MOST_QUESTIONS], left_out
