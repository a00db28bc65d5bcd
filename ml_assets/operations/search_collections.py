"""Collections of your own in Chroma: made, filled and searched, with the home's embedder or vectors of your own.

A collection's metadata say which dimension its vectors have, and of which model they are where texts were added. What
belongs here: what is checked before Chroma is asked, and the filter. What does not: Chroma itself (resources/chroma.py).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import INDEXED
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.lib.filters.evaluate import matches
from ml_assets.lib.filters.fields import ENTRY, Attribute
from ml_assets.lib.filters.parse import parse_filter
from ml_assets.lib.filters.tree import Node, leaves
from ml_assets.lib.run_selectors import require_text
from ml_assets.operations.search_texts import MOST, judged_text
from ml_assets.stores.chroma.collections import open_collection
from ml_assets.stores.vectors.port import BATCH

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

    from ml_assets.embedders import Embedder
    from ml_assets.resources.chroma import ChromaResource

_DIMENSION, _MODEL = "dimension", "embedder"
_LARGEST = 16_000
_WAY_OUT = {
    "document_index": "search it with stack.search.documents(store='chroma')",
    "experiment_index": "search it with stack.search.runs(store='chroma')",
}


def create_collection(
    chroma: "ChromaResource", embedder: "Callable[[], Embedder]", name: str, dimension: int | None
) -> str:
    """See `Search.create_collection`."""
    from chromadb.errors import ChromaError

    _refuse_the_graph_s(name)
    if dimension is not None and not 1 <= dimension <= _LARGEST:
        raise Refusal(f"Vectors cannot have {dimension:,} numbers: give a dimension from 1 to {_LARGEST:,}.")
    if dimension is None:
        model = embedder()
        told: dict[str, Any] = {_DIMENSION: model.dimension, _MODEL: model.name}
    else:
        told = {_DIMENSION: dimension}
    try:
        return chroma.create_collection(name, told)
    except (ValueError, ChromaError) as fault:
        raise Refusal(f"The collection {name!r} cannot be made: {fault}.") from fault


def add(
    chroma: "ChromaResource",
    embedder: "Callable[[], Embedder]",
    collection: str,
    ids: Sequence[str],
    texts: Sequence[str] | None,
    vectors: Sequence[Sequence[float]] | None,
    metadatas: Sequence[Mapping[str, Any]] | None,
) -> None:
    """See `Search.add`."""
    _refuse_the_graph_s(collection)
    if texts is None and vectors is None:
        raise Refusal("Give either texts, which are embedded, or vectors; or both.")
    for name, given in (("texts", texts), ("vectors", vectors), ("metadatas", metadatas)):
        if given is not None and len(given) != len(ids):
            raise Refusal(f"There are {len(ids)} ids and {len(given)} {name}: give one for every entry.")
    for each in (*ids, *(texts or ())):
        require_text(each, "an id or a text of a collection")
    if len(set(ids)) < len(ids):
        twice = next(each for n, each in enumerate(ids) if each in ids[:n])
        raise Refusal(f"The id {twice!r} is given twice, and an entry is there once: give each its own.")
    with _opened(chroma, collection) as held:
        known = dict(held.metadata or {})
    if not ids:
        return
    if vectors is None:
        vectors = _embedded(known, embedder, collection, list(texts or ()))
    checked = [
        _vector(each, known.get(_DIMENSION), f"the vector of {id!r}")
        for id, each in zip(ids, vectors, strict=True)
    ]
    try:
        # Chroma refuses metadata that hold nothing.
        told = None if metadatas is None or not any(metadatas) else [dict(each) or None for each in metadatas]
        chroma.add_embeddings(collection, ids, checked, texts, told)  # pyright: ignore[reportArgumentType]
    except ValueError as fault:
        raise Refusal(f"Chroma took no entry: {fault}") from fault


def query_similar(
    chroma: "ChromaResource",
    embedder: "Callable[[], Embedder]",
    collection: str,
    text: str | None,
    vector: Sequence[float] | None,
    k: int,
    filter: str,
) -> list[dict[str, Any]]:
    """See `Search.query_similar`."""
    _refuse_the_graph_s(collection)
    if (text is None) == (vector is None):
        raise Refusal("Similar to what? Give either a text or a vector.")
    if not 1 <= k <= MOST:
        raise Refusal(f"{k:,} entries cannot be asked for: ask for 1 to {MOST:,}.")
    tree = parse_filter(filter, datetime.now(UTC), ENTRY)
    with _opened(chroma, collection) as held:
        known = dict(held.metadata or {})
        if text is not None:
            (vector,) = _embedded(known, embedder, collection, [judged_text(text)])
        checked = _vector(vector or (), known.get(_DIMENSION), "the vector")
        ids = list(_let_through(held, tree)) if filter.strip() else None
        if ids == []:
            return []
        most = min(k, held.count() if ids is None else len(ids))
        if not most:
            return []
    found = chroma.query_similar(collection, checked, most, ids=ids)
    return [
        {"id": each.id, "score": 1 - each.distance, "text": each.document, "metadata": each.metadata}
        for each in found
    ]


def _let_through(held: "Collection", tree: Node) -> Iterator[str]:
    """The ids of the entries that a filter lets through.

    Chroma's own conditions are not asked: they know no order of texts and no accents, and tell numbers from texts.
    """
    texts = any(leaf.field == Attribute("text") for leaf in leaves(tree))
    for start in range(0, held.count(), BATCH):
        page = held.get(limit=BATCH, offset=start, include=["metadatas", *(["documents"] if texts else [])])  # pyright: ignore[reportArgumentType]
        ids = page["ids"]
        documents = page["documents"] or [None] * len(ids)
        for id, metadata, document in zip(
            ids, page["metadatas"] or [None] * len(ids), documents, strict=True
        ):
            if matches(tree, {"entry_id": id, "text": document, "metadata": metadata or {}}):
                yield id


@contextmanager
def _opened(chroma: "ChromaResource", name: str) -> "Iterator[Collection]":
    from chromadb.errors import ChromaError, NotFoundError

    with chroma.client() as client:
        try:
            held = open_collection(client, name)
        except NotFoundError as fault:
            raise StoreUnavailable(
                f"Chroma has no collection {name!r}: make it with create_collection."
            ) from fault
        except (ValueError, ChromaError) as fault:
            raise Refusal(f"No collection can be called {name!r}: {fault}.") from fault
        yield held


def _embedded(
    known: Mapping[str, Any], embedder: "Callable[[], Embedder]", collection: str, texts: list[str]
) -> list[list[float]]:
    model = embedder()
    if known.get(_MODEL) != model.name:
        made = f"of the model {known[_MODEL]}" if _MODEL in known else "of vectors of your own"
        raise Refusal(
            f"The collection {collection!r} is {made}, and the settings name {model.name}: give vectors, or make another "
            "collection without a dimension."
        )
    return model.embed(texts).tolist()


def _vector(vector: Sequence[float], dimension: Any, what: str) -> list[float]:
    numbers = [float(each) for each in vector]
    if dimension is not None and len(numbers) != dimension:
        raise Refusal(f"The collection's vectors have {dimension} numbers, and {what} has {len(numbers)}.")
    if not all(map(math.isfinite, numbers)):
        raise Refusal(f"There is a number in {what} that is NaN or infinite: it has no direction.")
    if not any(numbers):
        raise Refusal(f"All numbers of {what} are 0: it has no direction.")
    return numbers


def _refuse_the_graph_s(name: str) -> None:
    if f"chroma/{name}" in INDEXED:
        raise Refusal(
            f"The collection {name!r} is the graph's: {_WAY_OUT.get(name, 'it is filled by refresh')}."
        )
