"""A judged set over the demo's documents: questions whose answers are known, because they are how documents are built.

Three sets. `titles`: a title, whose answers are the documents that bear it. `headings`: the heading of a section, such as
the name of a parameter, whose answers are the documents that have such a section. `see-also`: what a class says of itself
in its first line; its answers are the estimators whose "See also" links to it, and, before them, its own document.

Imports scikit-learn: import it where the demo is made and nowhere else.
"""

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from sklearn import datasets

from ml_assets.demo.documents import DATASETS, ESTIMATORS, note_id, note_title
from ml_assets.demo.record import RunRecord

LINKED, RIGHT, ITSELF = 1, 2, 3
"""Relevance of a document that links to the answer, of one that is an answer, and of the one that is the very answer."""

_HEADING = re.compile(r"^([^\n]+)\n[-=~]{4,}$", re.MULTILINE)
_FIELD = re.compile(r"^([A-Za-z_]\w*) : ", re.MULTILINE)
_LINK = re.compile(r"^(?::class:`~)?([\w.]+)`? ?: ", re.MULTILINE)
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_+")


def note_judgments(records: Iterable[tuple[str, RunRecord]]) -> Iterator[dict]:
    """That the notes of a run are an answer to their title."""
    for _, record in records:
        yield _judgment("titles", note_title(record), note_id(record), RIGHT, record.completed_at)


def library_judgments(judged_at: datetime) -> Iterator[dict]:
    """Titles, headings and links of the documents about datasets and estimators."""
    for name in DATASETS:
        document = f"dataset:{name}"
        yield _judgment("titles", f"The {name} dataset", document, RIGHT, judged_at)
        for heading in _HEADING.findall(getattr(datasets, f"load_{name}")().DESCR):
            yield _judgment("headings", heading, document, RIGHT, judged_at)
    for estimator in ESTIMATORS:
        document = _document(estimator)
        text = inspect.getdoc(estimator) or ""
        yield _judgment("titles", estimator.__name__, document, RIGHT, judged_at)
        fields = _FIELD.findall(_section(text, "Parameters") + _section(text, "Attributes"))
        # Two names may have the same words, such as `coef_` and `coef`.
        for words in dict.fromkeys(_WORD_ENDS.sub(" ", field).strip() for field in fields):
            yield _judgment("headings", words, document, RIGHT, judged_at)
        for linked in dict.fromkeys(_links(estimator, text)):
            yield _judgment("see-also", _first_line(linked), document, LINKED, judged_at)
            if linked in ESTIMATORS:
                yield _judgment("see-also", _first_line(linked), _document(linked), ITSELF, judged_at)


def _document(estimator: type) -> str:
    return f"estimator:{estimator.__name__}"


def _section(text: str, heading: str) -> str:
    """What stands below a heading of a docstring, up to the next one."""
    found = re.search(rf"^{heading}\n-+\n(.*?)(?=^[^\n]+\n---+$|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _links(estimator: type, text: str) -> Iterator[type]:
    """The classes that the "See also" of an estimator names."""
    package = ".".join(estimator.__module__.split(".")[:2])
    for name in _LINK.findall(_section(text, "See Also")):
        module, _, plain = name.rpartition(".")
        if found := getattr(importlib.import_module(module or package), plain, None):
            yield found


def _first_line(linked: type) -> str:
    return " ".join((inspect.getdoc(linked) or "").partition("\n\n")[0].split())


def _judgment(set_name: str, query: str, document_id: str, relevance: int, judged_at: Any) -> dict:
    return {
        "set_name": set_name,
        "query_id": query,
        "query": query,
        "document_id": document_id,
        "relevance": relevance,
        "judged_at": judged_at,
    }
