"""Clusters of vectors, and a map of them: which belong together, what each cluster is about, where each point lies.

Both are stable when vectors come and go: a cluster keeps its id, and a point stays about where it was. All of it is
deterministic. What belongs here: vectors and words in, clusters and places out. What does not: reading them.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ml_assets.lib.search_words import Words, words_of

if TYPE_CHECKING:
    import numpy as np

VERSION = "clusters 1"
"""Changes with what the same vectors give."""

NOISE = -1
"""The cluster of what belongs to none."""

DIMENSIONS = 20
"""Main directions of the vectors that are kept: beyond them the vectors of a model hold little that clusters share."""

SMALLEST = 5
"""Vectors of a cluster, at least; of many vectors more."""

CLUSTERED = 20_000
"""Vectors that are clustered among themselves, which takes the square of their number; others join their nearest."""

MAPPED = 5_000
"""Vectors that the map is made of; others are put among those that are nearest to them."""

_NEIGHBOURS = 5
_PERPLEXITY = 30
_FIRST_STEPS, _STEPS, _FURTHER_STEPS = 250, 400, 100
_TERMS = 3
_OWN = 0.5
"""How much larger the share of the texts with a word must be than in another cluster, to tell the two apart."""


@dataclass(frozen=True)
class Former:
    """The clusters and the map as they were.

    Args:
        ids: of the vectors.
        cluster: of each.
        place: x and y of each.
    """

    ids: "Sequence[str]"
    cluster: "np.ndarray"
    place: "np.ndarray"


@dataclass(frozen=True)
class Found:
    """Clusters and map, in the order of the vectors.

    Args:
        cluster: of each vector, -1 for those that belong to none.
        certainty: how surely it belongs there, from 0 to 1.
        place: x and y of each.
    """

    cluster: "np.ndarray"
    certainty: "np.ndarray"
    place: "np.ndarray"


def find_clusters(ids: Sequence[str], vectors: "np.ndarray", former: Former | None = None) -> Found:
    """Cluster vectors, and draw a map of them.

    Vectors that are equal are one point: it lies once on the map, and its copies are no reason for a cluster unless
    they are as many as a cluster has at least.

    Args:
        ids: of the vectors, each once.
        vectors: one a row, float32.
        former: what was found before, whose clusters keep their ids and whose points stay about where they were.

    Raises:
        ValueError: a vector is not finite.
    """
    import numpy as np

    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(f"the vector of {ids[row]!r} is not finite: embed it anew")
    if not ids:
        return Found(np.empty(0, np.int64), np.empty(0), np.empty((0, 2)))
    first, twin = _distinct(vectors)
    points = _reduced(vectors[first])
    copies = np.bincount(twin)
    own = [ids[n] for n in first]
    # What is chosen among many depends on ids alone, so that it stays the same when others come and go.
    digests = [hashlib.blake2b(id.encode(errors="replace"), digest_size=8).digest() for id in own]
    order = np.argsort(digests, kind="stable")
    cluster, certainty = _clusters(points, order, copies, len(ids))
    cluster = _kept_ids(ids, cluster[twin], former)
    place = _map(points, order, _former_places(own, former))
    return Found(cluster, certainty[twin], place[twin])


def name_clusters(texts: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Name clusters by the words that tell them apart (class-based tf-idf), strongest first.

    Args:
        texts: cluster and text of each member. Texts of no cluster count as what is common.
    """
    within: dict[int, Counter[str]] = {}
    sizes: Counter[int] = Counter()
    known = Words()
    for cluster, text in texts:
        sizes[cluster] += 1
        # Each text counts a word once: a long one would name the whole cluster otherwise.
        within.setdefault(cluster, Counter()).update(filter(_tells, set(words_of(text, known))))
    everywhere: Counter[str] = Counter()
    for counts in within.values():
        everywhere.update(counts)
    usual = sum(everywhere.values()) / max(1, len(within))

    def terms(cluster: int) -> list[str]:
        counts, size = within[cluster], sizes[cluster]
        # Of a word that stands in one text of many nobody would say that the cluster is about it.
        scores = {
            word: n / size * math.log1p(usual / everywhere[word])
            for word, n in counts.items()
            if n > 1 or size == 1
        }
        best: dict[tuple[int, int], str] = {}
        for word in sorted(scores, key=lambda word: (-scores[word], word)):
            # Words that are always together, such as those of a name, say one thing.
            best.setdefault((counts[word], everywhere[word]), word)
        return list(best.values())[:_TERMS]

    named = {cluster: terms(cluster) for cluster in sorted(within) if cluster != NOISE}
    alike: dict[frozenset[str], list[int]] = {}
    for cluster, words in named.items():
        alike.setdefault(frozenset(words), []).append(cluster)
    for group in alike.values():
        for cluster in group if len(group) > 1 else ():
            # What tells it from those of the same name takes the place of the weakest word.
            others = [each for each in group if each != cluster]
            own = {
                word: n / sizes[cluster] - max(within[each][word] / sizes[each] for each in others)
                for word, n in within[cluster].items()
            }
            word = min(own, key=lambda word: (-own[word], word), default="")
            if word and own[word] > _OWN:
                named[cluster] = [*named[cluster][: _TERMS - 1], word]
    return {cluster: ", ".join(words) for cluster, words in named.items()}


def _tells(word: str) -> bool:
    return len(word) > 1 and not word.isdigit() and word not in _common_words()


@cache
def _common_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS


def _distinct(vectors: "np.ndarray") -> "tuple[list[int], np.ndarray]":
    """The rows of the first of equal vectors, and for each vector which of those it equals."""
    import numpy as np

    known: dict[bytes, int] = {}
    first, twin = list[int](), np.empty(len(vectors), np.int64)
    for n, vector in enumerate(vectors):
        digest = hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
        if (place := known.setdefault(digest, len(first))) == len(first):
            first.append(n)
        twin[n] = place
    return first, twin


def _reduced(vectors: "np.ndarray") -> "np.ndarray":
    """The vectors in their main directions (PCA)."""
    import numpy as np

    mean = vectors.mean(axis=0, dtype=np.float64)
    square = np.zeros((vectors.shape[1],) * 2)
    for start in range(0, len(vectors), 10_000):
        part = vectors[start : start + 10_000] - mean
        square += part.T @ part
    _, directions = np.linalg.eigh(square)
    directions = directions[:, ::-1][:, :DIMENSIONS]
    # A direction is as good as its opposite: the larger side is made the positive one.
    larger = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    directions = directions * np.where(larger < 0, -1.0, 1.0)
    return np.vstack(
        [(vectors[start : start + 10_000] - mean) @ directions for start in range(0, len(vectors), 10_000)]
    )


def _clusters(
    points: "np.ndarray", order: "np.ndarray", copies: "np.ndarray", count: int
) -> "tuple[np.ndarray, np.ndarray]":
    """Cluster and certainty of each point.

    Args:
        order: in which points are taken, if there are too many.
        copies: vectors that each point stands for.
        count: of all vectors.
    """
    import numpy as np

    smallest = max(SMALLEST, round(math.sqrt(count) / 4))
    cluster, certainty = np.full(len(points), NOISE), np.zeros(len(points))
    taken = order[:CLUSTERED]
    if len(taken) >= 2 * smallest:
        from sklearn.cluster import HDBSCAN

        # Its types know no boolean for `copy`, whose default changes with scikit-learn 1.10.
        model = HDBSCAN(smallest, min_samples=3, algorithm="kd_tree", copy=True)  # pyright: ignore[reportArgumentType]
        model.fit(points[taken])
        cluster[taken], certainty[taken] = model.labels_, model.probabilities_
    rest = order[CLUSTERED:]
    if len(rest):
        _, nearest = _nearest(points[taken], points[rest], 1)
        cluster[rest], certainty[rest] = cluster[taken][nearest[:, 0]], certainty[taken][nearest[:, 0]]
    # Copies by the dozen are a cluster of their own where they are in no other.
    for n in np.flatnonzero((cluster == NOISE) & (copies >= smallest)):
        cluster[n], certainty[n] = cluster.max() + 1, 1.0
    return cluster, certainty


def _kept_ids(ids: Sequence[str], cluster: "np.ndarray", former: Former | None) -> "np.ndarray":
    """Clusters by the ids of the former ones of which they hold the most; the largest first where there are none."""
    import numpy as np

    found, sizes = np.unique(cluster[cluster != NOISE], return_counts=True)
    largest_first = found[np.argsort(-sizes, kind="stable")]
    was = dict(zip(former.ids, former.cluster.tolist(), strict=True)) if former else {}
    before = sorted({each for each in was.values() if each != NOISE})
    chosen = {}
    if len(found) and before:
        from scipy.optimize import linear_sum_assignment

        shared = np.zeros((len(found), len(before)))
        row, column = ({each: n for n, each in enumerate(side)} for side in (found.tolist(), before))
        for id, now in zip(ids, cluster.tolist(), strict=True):
            then = was.get(id, NOISE)
            if now != NOISE and then != NOISE:
                shared[row[now], column[then]] += 1
        # A few strays do not make one cluster another's heir: half of the smaller one is asked for.
        older = Counter(was.values())
        least = np.minimum.outer(sizes, [older[each] for each in before]) / 2
        shared[shared < least] = 0
        for n, m in zip(*linear_sum_assignment(shared, maximize=True), strict=True):
            if shared[n, m]:
                chosen[int(found[n])] = before[m]
    free = max(before, default=-1) + 1
    for each in largest_first.tolist():
        if each not in chosen:
            chosen[each], free = free, free + 1
    chosen[NOISE] = NOISE
    return np.array([chosen[each] for each in cluster.tolist()], np.int64)


def _former_places(ids: Sequence[str], former: Former | None) -> "np.ndarray | None":
    """Where points were on the former map, NaN for new ones; None if most are new."""
    import numpy as np

    if former is None:
        return None
    known = dict(zip(former.ids, former.place, strict=True))
    places = np.array([known.get(id, (np.nan, np.nan)) for id in ids])
    return places if 2 * np.isfinite(places[:, 0]).sum() >= len(ids) else None


def _map(points: "np.ndarray", order: "np.ndarray", former: "np.ndarray | None") -> "np.ndarray":
    """Places of points on a map on which neighbours are neighbours (t-SNE)."""
    import numpy as np

    taken = np.sort(order[:MAPPED])
    place = np.empty((len(points), 2))
    place[taken] = _drawn(points[taken], None if former is None else former[taken])
    rest = order[MAPPED:]
    if len(rest):
        place[rest] = _among(points[taken], place[taken], points[rest])
    return place


def _drawn(points: "np.ndarray", former: "np.ndarray | None") -> "np.ndarray":
    import numpy as np

    main = np.zeros((len(points), 2))
    main[:, : points.shape[1]] = points[:, :2]
    if len(points) < 2 * _NEIGHBOURS:
        return main
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    perplexity = min(_PERPLEXITY, (len(points) - 1) // 3)
    # One thread: more of them wait for each other in a loop where a processor is busy otherwise.
    near = PerplexityBasedNN(points, perplexity, method="exact", n_jobs=1, random_state=0)
    if former is None:
        start = main / main[:, 0].std() * 1e-4
    else:
        start, new = former.copy(), ~np.isfinite(former[:, 0])
        if new.any():
            start[new] = _among(points[~new], former[~new], points[new])
    drawn = TSNEEmbedding(start, near, negative_gradient_method="bh", n_jobs=1, random_state=0)
    if former is None:
        drawn = drawn.optimize(_FIRST_STEPS, exaggeration=12, momentum=0.5).optimize(_STEPS, momentum=0.8)
    else:
        drawn = drawn.optimize(_FURTHER_STEPS, momentum=0.5)
    place = np.asarray(drawn)
    return place if former is None else _turned(place, former)


def _turned(place: "np.ndarray", former: "np.ndarray") -> "np.ndarray":
    """The map turned and moved as a whole, so that points lie where they lay, as far as that goes."""
    import numpy as np
    from scipy.linalg import orthogonal_procrustes

    known = np.isfinite(former[:, 0])
    now, then = place[known].mean(axis=0), former[known].mean(axis=0)
    turn, _ = orthogonal_procrustes(place[known] - now, former[known] - then)
    return (place - now) @ turn + then


def _among(points: "np.ndarray", place: "np.ndarray", others: "np.ndarray") -> "np.ndarray":
    """Places of other points: among the nearest of those that are on the map, and nearer to the nearer ones."""
    import numpy as np

    distance, nearest = _nearest(points, others, min(_NEIGHBOURS, len(points)))
    weight = 1 / np.maximum(distance, 1e-9) ** 2
    return (place[nearest] * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1)[:, None]


def _nearest(points: "np.ndarray", others: "np.ndarray", k: int) -> "tuple[np.ndarray, np.ndarray]":
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(points).kneighbors(others)
