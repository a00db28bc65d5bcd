"""Search as `ml_assets.connect().search` has it: documents and runs, and collections of your own.

What belongs here: one thin method an operation, with the docstring that `help()` shows. How an operation works lies in
the modules search_<subject>.py beside this one.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.embedders import Embedder
    from ml_assets.operations.search_quality import Quality
    from ml_assets.operations.search_switch import Switched
    from ml_assets.operations.search_texts import Searcher

Mode = Literal["hybrid", "dense", "words"]
Place = Literal["postgres", "chroma", "qdrant"]


class Search:
    """What is found by words and by meaning in one home.

    Args:
        settings: where the stores are.
        resources: by store name, as `ml_assets.resources.store_resources` makes them.
    """

    def __init__(self, settings: Settings, resources: Mapping[str, Any]) -> None:
        self._settings = settings
        self._resources = resources

    @cached_property
    def _searcher(self) -> "Searcher":
        from ml_assets.operations.search_texts import Searcher

        self._settings.require_home("postgres")
        return Searcher(self._settings, self._resources)

    @property
    def _embedder(self) -> "Callable[[], Embedder]":
        return self._resources["embedder"].get

    def documents(
        self,
        text: str,
        k: int = 10,
        filter: str = "",
        mode: Mode = "hybrid",
        store: Place = "postgres",
        passages: int = 1,
        rerank: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Find documents, best first; docs/search.md says how.

        Args:
            text: what to look for, in words.
            k: how many documents, from 1 to 1,000.
            filter: as that of runs (docs/experiments.md), over document_id, title, source, updated_at and
                `metadata.KEY`; all documents if it is empty.
            mode: `words` (BM25), `dense` (nearest vectors) or `hybrid` (both, fused by their scores).
            store: whose vectors are asked; all hold the same, and give the same answer but for what an index misses.
            passages: the best so many of a document, each as a hit of its own; k counts hits then.
            rerank: whether a cross-encoder puts the best in order; None where one is configured.

        Returns:
            A dictionary a hit: document_id, chunk_id, score, passage, title, source, metadata, updated_at, word_rank and
            meaning_rank (from 1; None if it was not found so), and places, which are the words that were asked for in the
            passage, as pairs of offsets.

        Raises:
            Refusal: there is nothing to look for in the text, the filter is wrong, or k is.
            StoreUnavailable: a store does not answer, or nothing was embedded yet.
        """
        from ml_assets.operations.search_texts import DOCUMENTS

        return self._searcher.find(DOCUMENTS, text, k, filter, mode, store, passages, rerank)

    def runs(
        self,
        text: str,
        k: int = 10,
        filter: str = "",
        mode: Mode = "hybrid",
        store: Place = "postgres",
        rerank: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Find runs by what their cards say, best first; as `documents`, with the filter of `experiments.search`.

        Returns:
            A dictionary a hit: run_id, score, passage (the card), title, experiment, model_name, dataset, status,
            metadata, created_at, word_rank, meaning_rank and places.

        Raises:
            Refusal, StoreUnavailable: as `documents`.
        """
        from ml_assets.operations.search_texts import RUNS

        return self._searcher.find(RUNS, text, k, filter, mode, store, 1, rerank)

    def create_collection(self, name: str, dimension: int | None = None) -> str:
        """Make a collection of your own in Chroma, for cosine distance, beside those of the graph.

        Args:
            dimension: of its vectors; if None, it is that of the home's embedder, whose texts can be added then.

        Returns:
            The collection's id.

        Raises:
            Refusal: there is one of this name already, the graph has it, or Chroma takes no such name or dimension.
            StoreUnavailable: Chroma does not answer.
        """
        from ml_assets.operations.search_collections import create_collection

        return create_collection(self._resources["chroma"], self._embedder, name, dimension)

    def add(
        self,
        collection: str,
        ids: Sequence[str],
        texts: Sequence[str] | None = None,
        vectors: Sequence[Sequence[float]] | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Put entries into a collection of your own; those whose ids are there are replaced.

        Args:
            ids, texts, vectors, metadatas: one each for every entry. Of texts without vectors the home's embedder makes
                them. Values of metadata are texts, numbers and booleans.

        Raises:
            Refusal: neither texts nor vectors, lengths or dimensions that differ, a vector without a direction, or texts
                for a collection of another model.
            StoreUnavailable: Chroma does not answer, or has no such collection.
        """
        from ml_assets.operations.search_collections import add

        add(self._resources["chroma"], self._embedder, collection, ids, texts, vectors, metadatas)

    def query_similar(
        self,
        collection: str,
        text: str | None = None,
        vector: Sequence[float] | None = None,
        k: int = 10,
        filter: str = "",
    ) -> list[dict[str, Any]]:
        """The entries of a collection of your own that are nearest to a text or a vector, nearest first.

        Args:
            filter: as that of documents, over `id`, `text` and `metadata.KEY`.

        Returns:
            A dictionary an entry: id, score (cosine, from -1 to 1), text and metadata.

        Raises:
            Refusal: as `add`, or the filter or k is wrong.
            StoreUnavailable: as `add`.
        """
        from ml_assets.operations.search_collections import query_similar

        return query_similar(self._resources["chroma"], self._embedder, collection, text, vector, k, filter)

    def embeddings(self) -> list[dict[str, Any]]:
        """Which models made the vectors that are searched.

        Returns:
            A dictionary a table and model: table (its asset), model (name, start of the weights' hash and pooling; of a
            server the name), dimension, vectors (how many), and current, which is whether that model is the one in use.
            A table that was not written yet is left out.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        from ml_assets.operations.search_models import embeddings

        self._settings.require_home("postgres")
        return embeddings(self._settings, self._resources["postgres"], self._embedder())

    def quality(self, judged_set: str | None = None) -> "Quality":
        """How well documents are found, by the judgments that were landed; docs/search.md says how.

        Args:
            judged_set: only this set; all of them if None.

        Returns:
            Measures by set and way (words, dense, hybrid), the verdict on hybrid, and the recall of the index.

        Raises:
            Refusal: no such set was judged.
            StoreUnavailable: a store does not answer, or nothing was embedded yet.
        """
        from ml_assets.operations.search_quality import quality

        return quality(self._searcher, self._resources["lake"], judged_set)

    def switch(
        self,
        embedder: str | None = None,
        force: bool = False,
        progress: Callable[[str], None] = lambda told: None,
        *,
        passage_tokens: int | None = None,
        overlap_tokens: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        ef_search: int | None = None,
        precision: Literal["full", "half"] | None = None,
    ) -> "Switched":
        """Let another model, cut of the documents or index take the place of what is served, if it is not worse.

        It is built beside what is served, and judged by what was landed in landing/judgments; docs/search.md says how. A
        call that was killed is made again, and goes on where it ended; one that changes nothing ends what was left.

        Args:
            embedder: as ML_ASSETS_EMBEDDER has it; a server and its model as the settings have them. If it, or one of the
                following, is None, it stays as it is.
            force: move whatever the judgments say.
            progress: is told in words how far it is.
            passage_tokens, overlap_tokens: of a passage at most, and of the one before that it begins with.
            m, ef_construction: of pgvector's HNSW index.
            ef_search: candidates that it looks at for an answer; 0 for four a hit, and at least 400, as at first.
            precision: `half` indexes 16 bits of each number.

        Raises:
            Refusal: there is no such embedder, passages or an index cannot be like that, the tables hold vectors of
                several models, or another process switches.
            StoreUnavailable: a store does not answer, or nothing was embedded yet.
        """
        from ml_assets.operations.search_switch import switch

        self._settings.require_home("postgres")
        changes = {
            "passage_tokens": passage_tokens,
            "overlap_tokens": overlap_tokens,
            "m": m,
            "ef_construction": ef_construction,
            "ef_search": ef_search,
            "precision": precision,
        }
        return switch(self._settings, self._resources, embedder, changes, force, progress)

    def clusters(self, subject: Literal["documents", "runs"] = "documents") -> list[dict[str, Any]]:
        """Which documents, or runs, belong together by meaning: the clusters that the graph found, largest first.

        Returns:
            A dictionary a cluster: cluster (its id, which it keeps), label (words that tell it from others), size and
            examples (titles). What belongs to no cluster comes last, as cluster -1.

        Raises:
            Refusal: there is no such subject.
            StoreUnavailable: PostgreSQL does not answer, or nothing was clustered yet.
        """
        from ml_assets.operations.search_clusters import clusters

        self._settings.require_home("postgres")
        return clusters(self._resources["postgres"], subject)

    def map(
        self, subject: Literal["documents", "runs"] = "documents", path: Path | str | None = None
    ) -> Path:
        """Write the map of documents, or runs, as a page in one file that asks nothing of any network.

            stack.search.map("runs", "runs.html")

        Args:
            path: of the file, in place of one that is there; `reports/map-SUBJECT.html` of the home if None.

        Returns:
            The file.

        Raises:
            Refusal: there is no such subject, or the file cannot be a page.
            StoreUnavailable: as `clusters`.
        """
        from ml_assets.operations.search_clusters import write_map

        self._settings.require_home("postgres")
        return write_map(self._resources["postgres"], subject, path, self._settings.reports)
