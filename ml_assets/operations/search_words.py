"""The index of words: BM25 over all texts of a table with vectors, kept below the home.

An index is a folder `search/words/<table>-<state>`, which is made beside its place and then renamed into it, so that any
number of processes may make and read it. The state is the content hash of the table, as the ledger has it: an index is
never changed, and another state of the table has another one. What belongs here: those folders.
"""

import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.lib.search_words import Words, words_of
from ml_assets.sql_files import read_sql
from ml_assets.stores import postgres_table
from ml_assets.tables.staging import table_state

if TYPE_CHECKING:
    import psycopg

_VERSION = 1
"""Counted up when words are told in another way: indexes of the former one are made anew."""

_K1, _B, _TITLE = 0.9, 0.4, 2
"""Of BM25, as Anserini has them for passages, and how often a title's words count; measured in docs/search.md."""

_MAKING = ".making-"
_ABANDONED_S = 86_400
"""After which an index that is being made was left by a process that was killed."""

_FETCHED = 2_000
"""Texts that are read at once."""


class WordIndex:
    """An index that lies in a folder; opened, and never changed.

    Args:
        folder: made by `word_index`.
    """

    def __init__(self, folder: Path) -> None:
        import bm25s
        import numpy as np

        self._keys: Any = np.load(folder / "keys.npy")
        # Without texts there is no index.
        self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False) if len(self._keys) else None

    def best(
        self, words: Sequence[str], most: int, among: Collection[str] | None = None
    ) -> list[tuple[str, float]]:
        """The keys of the texts that hold some of the words, with their scores, best first; ties are ordered by key.

        Args:
            words: as `words_of` gives them; one that is given twice counts twice.
            most: how many, at most.
            among: only those of these keys.
        """
        import numpy as np

        if self._index is None:
            return []
        known = [self._index.vocab_dict[word] for word in words if word in self._index.vocab_dict]
        if not known:
            return []
        scores = self._index.get_scores_from_ids(known)
        found = np.flatnonzero(scores > 0)
        if among is not None:
            found = found[np.isin(self._keys[found], list(among))]
        if len(found) > most:
            # All that are as good as the last one, so that it is their keys that decide.
            least = np.partition(scores[found], len(found) - most)[len(found) - most]
            found = found[scores[found] >= least]
        # The keys are in order.
        order = found[np.lexsort((found, -scores[found]))][:most]
        return [(str(self._keys[n]), float(scores[n])) for n in order]

    def most(self, words: Sequence[str]) -> float:
        """The score of a text that has all these words, each as weighty as in the text where it weighs most.

        A word that no text has counts as the rarest: what is asked for with it, words do not find.
        """
        if self._index is None:
            return 1.0
        known, scores = self._index.vocab_dict, self._index.scores
        ends = scores["indptr"]
        unknown = math.log(2 * len(self._keys) + 2)
        weights = (
            float(scores["data"][ends[known[word]] : ends[known[word] + 1]].max(initial=0.0))
            if word in known
            else unknown
            for word in words
        )
        return sum(weights) or 1.0


def word_index(
    connection: "psycopg.Connection", home: Path, contract: Contract, key: str, relation: str
) -> WordIndex:
    """The index of a table as the connection's transaction sees it; it is made if there is none.

    Args:
        connection: in a transaction with one snapshot.
        home: below which indexes lie.
        contract: of the table.
        key: its key, as an identifier.
        relation: the table, as an identifier.
    """
    state = f"{_VERSION}-{table_version(connection, contract, key, relation)}"
    place = home / "search" / "words" / f"{contract.table}-{state}"
    while True:
        if not place.is_dir():
            _make(connection, place, key, relation)
            _remove_others(place, contract.table)
        try:
            return _opened(place)
        except FileNotFoundError:
            # Another process, which sees another state, has removed it since.
            if place.is_dir():
                raise


@lru_cache(maxsize=4)
def _opened(place: Path) -> WordIndex:
    return WordIndex(place)


def table_version(connection: "psycopg.Connection", contract: Contract, key: str, relation: str) -> str:
    """A name of what a table holds, as the ledger has it; see `word_index`."""
    noted = table_state(postgres_table.ledger_buckets(connection, contract))
    if noted.rows and noted.content_hash:
        return hashlib.sha256(noted.content_hash.encode()).hexdigest()[:24]
    statement = read_sql("postgres/search/state.sql").format(table=relation, key=key).encode()
    return hashlib.sha256(repr(connection.execute(statement).fetchone()).encode()).hexdigest()[:24]


def _make(connection: "psycopg.Connection", place: Path, key: str, relation: str) -> None:
    import bm25s
    import numpy as np

    statement = read_sql("postgres/search/texts.sql").format(table=relation, key=key).encode()
    known, vocabulary = Words(), dict[str, int]()
    keys, texts = list[str](), list[Any]()
    with connection.cursor(name="texts_of_words") as cursor:
        cursor.execute(statement)
        while rows := cursor.fetchmany(_FETCHED):
            for id, title, text in rows:
                words = words_of("\n".join([*[title or ""] * _TITLE, text]), known)
                keys.append(id)
                texts.append(
                    np.fromiter(
                        (vocabulary.setdefault(word, len(vocabulary)) for word in words), np.int32, len(words)
                    )
                )
    order = sorted(range(len(keys)), key=keys.__getitem__)
    place.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=_MAKING, dir=place.parent))
    try:
        np.save(made / "keys.npy", np.array([keys[n] for n in order], dtype=np.str_))
        if keys:
            index = bm25s.BM25(method="lucene", k1=_K1, b=_B)
            index.index(([texts[n].tolist() for n in order], vocabulary), show_progress=False)
            index.save(made, show_progress=False)
        for file in made.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():  # another process has made the same one meanwhile
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _remove_others(place: Path, table: str) -> None:
    """Remove the indexes of other states. Who has one open keeps its files until they are closed."""
    for other in place.parent.glob(f"{table}-*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    for left in place.parent.glob(f"{_MAKING}*"):
        with suppress(FileNotFoundError):  # another process is done with it
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
