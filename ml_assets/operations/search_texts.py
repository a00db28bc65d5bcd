"""Documents and runs by words and by meaning.

Both are tables of vectors with their texts: chunks of documents, cards of runs. Each way of searching gives a ranked list
of them, and the lists are fused by their scores. Whatever ranks, PostgreSQL says what a filter lets through and what is
known of a hit, so that every store gives the same answer. What belongs here: those lists. What does not: what a word is
(lib/search_words.py), how lists are fused (lib/ranking.py), the index of words (search_words.py).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract, tables
from ml_assets.errors import Refusal, missing_table
from ml_assets.lib.chunking import embedding_text
from ml_assets.lib.filters.fields import DOCUMENT
from ml_assets.lib.filters.parse import parse_filter
from ml_assets.lib.filters.postgres import DocumentCompiler
from ml_assets.lib.ranking import WORDS_SHARE, Listed, Ranked, best_of_each, fuse
from ml_assets.lib.run_selectors import require_text
from ml_assets.lib.search_setup import VectorIndex
from ml_assets.lib.search_words import places, words_of
from ml_assets.lib.sql import quote_identifier
from ml_assets.operations.run_conditions import missing_relation
from ml_assets.operations.run_search import Search as RunSearch
from ml_assets.operations.search_words import table_version, word_index
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.postgres_table.vector_indexes import distance_sql, options_of
from ml_assets.stores.registry import stores
from ml_assets.stores.vectors import VectorStore

if TYPE_CHECKING:
    import numpy as np
    import psycopg

    from ml_assets.embedders import Embedder
    from ml_assets.embedders.rerank import Reranker
    from ml_assets.resources.postgres import PostgresResource

LONGEST = 20_000
"""Characters of a text to look for: some pages. A model reads much less of it."""

MOST = 1_000
"""Hits of one answer; pgvector's list of candidates is as long at most."""

FEW = 5_000
"""Texts that are compared one by one: that takes less time than to find the way through an index past all others."""

_DEEP = 100
"""Hits of each list that are fused, at least."""

_RERANKED = 50
"""Hits that a cross-encoder puts in order, at least."""

MODES = ("hybrid", "dense", "words")
PLACES = ("postgres", "chroma", "qdrant")


@dataclass(frozen=True)
class Subject:
    """What is searched.

    Args:
        table: with the vectors, in PostgreSQL.
        collection: with the same ones, in Chroma.
        key: column that tells texts apart.
        owner: column of what they are parts of.
        id: what a hit calls the owner.
    """

    table: str
    collection: str
    key: str
    owner: str
    id: str

    @property
    def asset(self) -> str:
        """Key of the table's asset."""
        return f"postgres/{self.table}"

    def sql(self, name: str, condition: str = "", order: str = "") -> bytes:
        """A statement of sql/postgres/search about this table."""
        text = read_sql(f"postgres/search/{name}.sql")
        named = {"table": self.table, "key": self.key, "owner": self.owner}
        quoted = {name: quote_identifier(each) for name, each in named.items()}
        return text.format(**quoted, condition=condition or "true", order=order).encode()


DOCUMENTS = Subject("document_embeddings", "document_index", "id", "document_id", "document_id")
RUNS = Subject("experiment_embeddings", "experiment_index", "run_id", "run_id", "run_id")


@dataclass(frozen=True)
class _Asked:
    """One question, once it is judged.

    Args:
        words: of the text.
        vector: of the text; None where meaning is not asked for.
        condition, bound: the filter in SQL over `entry`, and its values.
        parts: of one owner that are hits of their own, at most.
        wanted: hits of each list.
        few: owners by key of what the filter lets through, if it is few; None if not, or without a filter.
    """

    subject: Subject
    words: Sequence[str]
    vector: "np.ndarray | None"
    condition: str
    bound: Mapping[str, Any]
    parts: int
    wanted: int
    few: Mapping[str, str] | None = None


@dataclass(frozen=True)
class AskedOf:
    """A table of texts with vectors, whether it is served or not.

    Args:
        subject: the table, and how its columns are called.
        embedder: what made the vectors.
        options: how the index is asked.
        contract: of the table, if it is none of the graph.
        by_index: whether the index is asked even of a table so small that a search reads all of it.
        texts_of: a table that has the same texts, whose words are asked in place of this one's.
    """

    subject: Subject
    embedder: "Embedder"
    options: VectorIndex
    contract: Contract | None = None
    by_index: bool = False
    texts_of: Subject | None = None


@dataclass
class Searcher:
    """Searches the tables of one home.

    Args:
        settings: where the stores are, and which cross-encoder.
        resources: by store name.
    """

    settings: Settings
    resources: Mapping[str, Any]
    _contracts: dict[str, Contract] = field(default_factory=dict)
    _models: dict[str, tuple[str, set[str]]] = field(default_factory=dict)

    @property
    def _postgres(self) -> "PostgresResource":
        return self.resources["postgres"]

    def find(
        self,
        subject: Subject,
        text: str,
        k: int,
        filter: str,
        mode: str,
        store: str,
        parts: int,
        rerank: bool | None,
    ) -> list[dict[str, Any]]:
        """See `Search.documents` and `Search.runs`."""
        _judge(k, mode, store, parts)
        text = judged_text(text)
        while True:
            embedder = None if mode == "words" else self.resources["embedder"].get()
            try:
                return self._find(subject, text, k, filter, mode, store, parts, rerank, embedder)
            except _OtherModel:
                # Another model may have taken its place since; if not, it is as it is.
                if embedder is None or self.resources["embedder"].get().name == embedder.name:
                    raise

    def _find(
        self,
        subject: Subject,
        text: str,
        k: int,
        filter: str,
        mode: str,
        store: str,
        parts: int,
        rerank: bool | None,
        embedder: "Embedder | None",
    ) -> list[dict[str, Any]]:
        from psycopg.errors import UndefinedTable

        words = words_of(text)
        reranker = self._reranker(rerank)
        if mode == "words" and not words:
            raise Refusal(
                f"There is no word in {text.strip()[:40]!r} to look for: search by meaning (dense)."
            )
        condition, bound = self._condition(subject, filter)
        wanted = max(_DEEP, 2 * k) if mode == "hybrid" else k
        hits = max(_RERANKED, k) if reranker else k
        try:
            vector = None if embedder is None else embedder.embed([text])[0]
            with self._postgres.connect() as connection:
                # What ranks and what is told of it are of one state.
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                if embedder is not None:
                    self._require_vectors(connection, subject, embedder)
                few = _few(connection, subject, condition, bound) if filter.strip() else None
                asked = _Asked(subject, words, vector, condition, bound, parts, max(wanted, hits), few)
                lists: list[Listed] = []
                if mode != "dense":
                    lists.append(self._by_words(connection, asked))
                if embedder is not None:
                    near = self._by_meaning(connection, asked, embedder, store)
                    lists.append(_listed_by_meaning(near))
                found = self._hits(connection, asked, mode, lists, hits)
        except UndefinedTable as fault:
            raise missing_relation(fault, subject.table) from fault
        if reranker and found:
            _rerank(found, text, reranker)
        asked_for = set(words)
        return [hit | {"places": places(hit["passage"], asked_for)} for hit in found[:k]]

    def owners(self, subject: Subject) -> set[str]:
        """What can be found at all: documents, or runs.

        Raises:
            StoreUnavailable: nothing was embedded yet.
        """
        from psycopg.errors import UndefinedTable

        try:
            with self._postgres.connect() as connection:
                return {owner for (owner,) in connection.execute(subject.sql("owners")).fetchall()}
        except UndefinedTable as fault:
            raise missing_relation(fault, subject.table) from fault

    def each_way(self, subject: Subject, texts: Sequence[str], k: int) -> Iterator[dict[str, list[str]]]:
        """What `find` finds of every text by words, by meaning and by both, as owners, best first.

        All is asked of one state of PostgreSQL.
        """
        embedder = self.resources["embedder"].get()
        vectors = embedder.embed(list(texts))
        with self._postgres.connect() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._require_vectors(connection, subject, embedder)
            options = options_of(connection)
            for text, vector in zip(texts, vectors, strict=True):
                asked = _Asked(subject, words_of(judged_text(text)), vector, "", {}, 1, max(_DEEP, 2 * k))
                words = self._by_words(connection, asked)
                near = _nearest(connection, asked, embedder.name, options)
                both = fuse([words, _listed_by_meaning(near)])
                lists = {"words": words.found, "dense": near, "hybrid": both}
                yield {way: [each.owner for each in found[:k]] for way, found in lists.items()}

    def hybrid_of(
        self, connection: "psycopg.Connection", asked_of: "AskedOf", texts: Sequence[str], k: int
    ) -> Iterator[list[str]]:
        """What is found of every text by words and by meaning in any table of texts with vectors, as owners, best first.

        Args:
            connection: in a transaction with one snapshot.
        """
        self._table(DOCUMENTS)  # those of the graph are known from here on
        if asked_of.contract is not None:
            self._contracts[asked_of.subject.asset] = asked_of.contract
        vectors = asked_of.embedder.embed(list(texts))
        if asked_of.by_index:
            _by_index(connection, True)
        for text, vector in zip(texts, vectors, strict=True):
            asked = _Asked(
                asked_of.subject, words_of(judged_text(text)), vector, "", {}, 1, max(_DEEP, 2 * k)
            )
            words = self._by_words(connection, replace(asked, subject=asked_of.texts_of or asked_of.subject))
            near = _nearest(connection, asked, asked_of.embedder.name, asked_of.options)
            yield [each.owner for each in fuse([words, _listed_by_meaning(near)])[:k]]
        if asked_of.by_index:
            _by_index(connection, False)

    def index_recall(self, subject: Subject, texts: Sequence[str], k: int) -> float:
        """The share of the k passages nearest to each text that pgvector's index finds, ties being as good."""
        embedder = self.resources["embedder"].get()
        with self._postgres.connect() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            asked_of = AskedOf(subject, embedder, options_of(connection))
            found = list(recalls(connection, asked_of, texts, k))
        there = sum(exact for _, exact in found)
        return sum(near for near, _ in found) / there if there else 1.0

    def _reranker(self, rerank: bool | None) -> "Reranker | None":
        from ml_assets.embedders.rerank import make_reranker

        found = None if rerank is False else make_reranker(self.settings)
        if rerank and found is None:
            raise Refusal("No cross-encoder is configured: set ML_ASSETS_RERANK_URL, or leave rerank out.")
        return found

    def _condition(self, subject: Subject, filter: str) -> tuple[str, dict[str, Any]]:
        if not filter.strip():
            return "", {}
        if subject is RUNS:
            search = RunSearch(self._postgres, lambda: self.resources["lake"], filter)
            condition, bound = search.condition("run")
            return f"entry.run_id IN (SELECT run.id FROM ml_experiments AS run WHERE {condition})", bound
        compiler = DocumentCompiler()
        tree = parse_filter(filter, datetime.now(UTC), DOCUMENT)
        return compiler.condition(tree, "entry"), compiler.bound.values

    def _table(self, subject: Subject) -> tuple[Contract, str, str]:
        """Contract, key and name of a table."""
        if not self._contracts:
            self._contracts |= tables(self.settings)
        return self._contracts[subject.asset], quote_identifier(subject.key), quote_identifier(subject.table)

    def _require_vectors(
        self, connection: "psycopg.Connection", subject: Subject, embedder: "Embedder"
    ) -> None:
        """Raises: StoreUnavailable, Refusal: there are no vectors, or some of another model."""
        version = table_version(connection, *self._table(subject))
        known, models = self._models.get(subject.table, ("", set[str]()))
        if known != version:  # the whole table is read for it
            models = {name for (name,) in connection.execute(subject.sql("models")).fetchall()}
            self._models[subject.table] = version, models
        if not models:
            raise missing_table(subject.asset)
        if others := sorted(models - {embedder.name}):
            raise _OtherModel(
                f"{subject.asset} was embedded by {', '.join(others)}, and the settings name {embedder.name}: run "
                "'ml-assets embeddings repair', which embeds it anew, or set ML_ASSETS_EMBEDDER as it was. Words alone "
                "can be searched meanwhile."
            )

    def _by_words(self, connection: "psycopg.Connection", asked: _Asked) -> Listed:
        subject = asked.subject
        if not asked.words:
            return Listed([], 0.0, 1.0, WORDS_SHARE, whole=True)
        index = word_index(connection, self.settings.home, *self._table(subject))
        if asked.few is not None:
            few = asked.few
            scored = index.best(asked.words, len(few), few) if few else []
            ranked = [Ranked(key, few[key], score) for key, score in scored]
            found = best_of_each(ranked, asked.parts)[: asked.wanted]
        else:
            found = _enough(
                asked, lambda most: _let_through(connection, asked, index.best(asked.words, most), most)
            )
        return Listed(found, 0.0, index.most(asked.words), WORDS_SHARE, whole=len(found) < asked.wanted)

    def _by_meaning(
        self, connection: "psycopg.Connection", asked: _Asked, embedder: "Embedder", store: str
    ) -> list[Ranked]:
        if store == "postgres":
            return _nearest(connection, asked, embedder.name, options_of(connection))
        index = next((each for each in stores(self.resources) if each.name == store), None)
        if not isinstance(index, VectorStore):
            raise Refusal(f"There is no {store} to be searched: set ML_ASSETS_{store.upper()}_URL.")
        _require_that_indexes_follow(connection, store)
        assert asked.vector is not None  # noqa: S101 - whoever asks for meaning has embedded the text
        vector = asked.vector.tolist()
        keys = None if asked.few is None else list(asked.few)
        if keys == []:
            return []

        def found(most: int) -> tuple[list[Ranked], bool]:
            similar = index.query_similar(asked.subject.collection, vector, most, keys=keys)
            scored = [(each.id.rpartition(":")[0], 1 - each.distance) for each in similar]
            return _let_through(connection, asked, scored, most)

        return _enough(asked, found)

    def _hits(
        self,
        connection: "psycopg.Connection",
        asked: _Asked,
        mode: str,
        lists: Sequence[Listed],
        most: int,
    ) -> list[dict[str, Any]]:
        fused = fuse(lists, asked.parts)[:most]
        # The score of one list alone is its own.
        own = {each.key: each.score for each in lists[0].found} if len(lists) == 1 else {}
        rows = _rows(connection, asked.subject, [each.key for each in fused])
        ways = {"words": ("word_rank",), "dense": ("meaning_rank",)}.get(mode, ("word_rank", "meaning_rank"))
        hits = []
        for each in fused:
            ranks = {"word_rank": None, "meaning_rank": None, **dict(zip(ways, each.ranks, strict=True))}
            score = own.get(each.key, each.score)
            hits.append(_hit(asked.subject, rows[each.key], score) | ranks)
        return hits


def _listed_by_meaning(found: list[Ranked]) -> Listed:
    """What is nearest, by its cosine."""
    return Listed(found, -1.0, 1.0, 1 - WORDS_SHARE)


def _rerank(hits: list[dict[str, Any]], text: str, reranker: "Reranker") -> None:
    """Put hits in the order of a cross-encoder, whose score becomes theirs."""
    texts = [embedding_text(hit["title"], hit["passage"]) for hit in hits]
    for hit, score in zip(hits, reranker.scores(text, texts), strict=True):
        hit["score"] = score
    hits.sort(key=lambda hit: -hit["score"])


def judged_text(text: str) -> str:
    """A text to look for.

    Raises:
        Refusal: there is nothing in it to look for, or too much.
    """
    if not text.strip():
        raise Refusal("There is nothing to look for in an empty text: say in words what is to be found.")
    if len(text) > LONGEST:
        raise Refusal(
            f"The text to look for has {len(text):,} characters, and {LONGEST:,} are the most: ask for "
            "what matters in it."
        )
    return require_text(text, "a text to look for")


def _judge(k: int, mode: str, store: str, parts: int) -> None:
    if not 1 <= k <= MOST:
        raise Refusal(f"{k:,} hits cannot be asked for: ask for 1 to {MOST:,}.")
    if not 1 <= parts <= MOST:
        raise Refusal(f"{parts:,} passages of a document cannot be asked for: ask for 1 to {MOST:,}.")
    if mode not in MODES:
        raise Refusal(f"There is no mode {mode!r}: it is one of {', '.join(MODES)}.")
    if store not in PLACES:
        raise Refusal(f"The vectors of {store!r} cannot be searched: it is one of {', '.join(PLACES)}.")


def _few(
    connection: "psycopg.Connection", subject: Subject, condition: str, bound: Mapping[str, Any]
) -> dict[str, str] | None:
    """Owners by key of what a filter lets through; None if that is not few."""
    given = {**bound, "most": FEW + 1}
    found = connection.execute(subject.sql("few", condition), given, prepare=False).fetchall()
    return dict(found) if len(found) <= FEW else None


def _enough(asked: _Asked, found: Callable[[int], tuple[list[Ranked], bool]]) -> list[Ranked]:
    """Ask for more and more, until enough owners are found or there is no more.

    Args:
        found: gives what is found when so many are asked for, and whether there may be more.
    """
    most = asked.wanted if asked.few is not None or not asked.condition else 4 * asked.wanted
    while True:
        ranked, more = found(most)
        kept = best_of_each(ranked, asked.parts)
        if len(kept) >= asked.wanted or not more:
            return kept[: asked.wanted]
        most *= 4


def _let_through(
    connection: "psycopg.Connection", asked: _Asked, scored: Sequence[tuple[str, float]], most: int
) -> tuple[list[Ranked], bool]:
    """Those of some keys that are there and that the filter lets through; and whether there may be more."""
    given = {**asked.bound, "keys": [key for key, _ in scored]}
    statement = asked.subject.sql("of_keys", asked.condition)
    owners = dict(connection.execute(statement, given, prepare=False).fetchall())
    return [Ranked(key, owners[key], score) for key, score in scored if key in owners], len(scored) == most


def _nearest(
    connection: "psycopg.Connection", asked: _Asked, embedder: str, options: VectorIndex
) -> list[Ranked]:
    """The texts of PostgreSQL whose vectors are nearest."""
    assert asked.vector is not None  # noqa: S101 - whoever asks for meaning has embedded the text
    vector = f"[{','.join(map(repr, asked.vector.tolist()))}]"
    given = {**asked.bound, "vector": vector, "embedder": embedder}
    order = distance_sql("entry.embedding", "%(vector)s", len(asked.vector), options)
    # The index finds candidates first and filters then: without going on it gives fewer than there are.
    connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")

    def found(most: int) -> tuple[list[Ranked], bool]:
        if asked.few is not None:
            given["keys"] = list(asked.few)
            rows = _ranked(connection, asked.subject.sql("nearest_of_few"), {**given, "most": most})
            return rows, len(rows) == most
        statement = asked.subject.sql("nearest", asked.condition, order)
        candidates = options.candidates(most, MOST)
        connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(candidates)])
        rows = _ranked(connection, statement, {**given, "most": most})
        if len(rows) < most:
            # The index gives up after hnsw.max_scan_tuples: what is left is found by comparing all.
            connection.execute("SET LOCAL enable_indexscan = off")
            rows = _ranked(connection, statement, {**given, "most": most})
            connection.execute("SET LOCAL enable_indexscan = on")
        return rows, len(rows) == most

    return _enough(asked, found)


def recalls(
    connection: "psycopg.Connection", asked_of: AskedOf, texts: Sequence[str], k: int
) -> Iterator[tuple[int, int]]:
    """Of the k passages nearest to each text, how many the index finds and how many there are; ties are as good."""
    for vector in asked_of.embedder.embed(list(texts)):
        # Every passage is a hit of its own.
        asked = _Asked(asked_of.subject, [], vector, "", {}, k, k)
        _by_index(connection, True)
        near = _nearest(connection, asked, asked_of.embedder.name, asked_of.options)
        _by_index(connection, False)
        connection.execute("SET LOCAL enable_indexscan = off")
        # By all of their bits, whatever the index has of them.
        exact = _nearest(connection, asked, asked_of.embedder.name, VectorIndex())
        connection.execute("SET LOCAL enable_indexscan = on")
        yield sum(each.score >= exact[-1].score - 1e-6 for each in near[: len(exact)]), len(exact)


def _by_index(connection: "psycopg.Connection", only: bool) -> None:
    """Have the index of vectors asked, even of a table so small that a search reads and sorts all of it."""
    allowed = b"off" if only else b"on"
    connection.execute(b"SET LOCAL enable_seqscan = %b; SET LOCAL enable_sort = %b" % (allowed, allowed))


def _ranked(connection: "psycopg.Connection", statement: bytes, given: Mapping[str, Any]) -> list[Ranked]:
    return [Ranked(*row) for row in connection.execute(statement, given, prepare=False).fetchall()]


def _rows(
    connection: "psycopg.Connection", subject: Subject, keys: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The rows of hits, by key."""
    rows = dict(connection.execute(subject.sql("hits"), {"keys": list(keys)}).fetchall())
    if subject is RUNS:
        statement = read_sql("postgres/search/hits_of_runs.sql")
        cursor = connection.execute(statement, {"ids": list(keys)})
        names = [column.name for column in cursor.description or ()]
        for run in cursor.fetchall():
            rows[run[0]] |= dict(zip(names[1:], run[1:], strict=True))
    return rows


def _hit(subject: Subject, row: Mapping[str, Any], score: float) -> dict[str, Any]:
    """What is told of a hit."""
    metadata = row["metadata"] if isinstance(row["metadata"], dict) else {}
    told = {subject.id: row[subject.owner], "score": score, "passage": row["text"], "title": row["title"]}
    if subject is RUNS:
        known = {name: row.get(name) for name in ("experiment", "model_name", "dataset", "status")}
        return told | known | {"metadata": metadata, "created_at": _moment(row["created_at"])}
    # Where a chunk stands in its document, once chunks tell.
    offsets = {name: row[name] for name in ("start_offset", "end_offset", "section") if name in row}
    return {
        **told,
        "chunk_id": row["id"],
        "source": metadata.get("source"),
        **offsets,
        "metadata": metadata,
        "updated_at": _moment(row["created_at"]),
    }


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class _OtherModel(Refusal):
    """The vectors are of another model than the one that was to search them."""


def _require_that_indexes_follow(connection: "psycopg.Connection", store: str) -> None:
    if connection.execute("SELECT to_regclass('search_model')").fetchone() == (None,):
        return
    row = connection.execute(read_sql("postgres/search_model/served.sql")).fetchone()
    if row is not None and not row[3]:
        still = f"vectors of {row[2]}, and {row[0]} is served"
        if row[2] == row[0]:
            still = "the passages that were served before, and others are served now"
        raise Refusal(
            f"{store} still holds {still}: run 'ml-assets search-switch', which goes on where it ended, or ask "
            "PostgreSQL."
        )
