"""Clusters and the map of vectors: few, equal, many; and what stays when vectors come and go."""

import numpy as np
import pytest

from ml_assets.lib import clusters
from ml_assets.lib.clusters import NOISE, Former, Found, find_clusters, name_clusters


def blobs(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Unit vectors around as many centres as there are sizes; those of the same seed are the same centres."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((len(sizes), 48))
    found = np.vstack(
        [c + 0.3 * chance.standard_normal((n, 48)) for c, n in zip(centres, sizes, strict=True)]
    )
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def names(count: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


def former(ids: list[str], found: Found) -> Former:
    return Former(ids, found.cluster, found.place)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 9, 10])
def test_few_vectors_are_no_cluster_and_have_a_place_each(count: int) -> None:
    found = find_clusters(names(count), blobs([count]))
    assert found.cluster.tolist() == [NOISE] * count
    assert found.place.shape == (count, 2)
    assert np.isfinite(found.place).all()


@pytest.mark.parametrize(("count", "cluster"), [(1, NOISE), (4, NOISE), (5, 0), (60, 0)])
def test_equal_vectors_are_one_cluster_if_they_are_enough(count: int, cluster: int) -> None:
    found = find_clusters(names(count), np.tile(blobs([1]), (count, 1)))
    assert found.cluster.tolist() == [cluster] * count
    assert np.array_equal(found.place, np.zeros((count, 2)))


def test_blobs_are_clusters_the_largest_first_and_lie_apart() -> None:
    vectors = blobs([20, 30, 40])
    found = find_clusters(names(90), vectors)
    assert [set(part.tolist()) for part in np.split(found.cluster, [20, 50])] == [{2}, {1}, {0}]
    centres = np.array([found.place[found.cluster == n].mean(axis=0) for n in range(3)])
    own = np.linalg.norm(found.place[:, None] - centres, axis=2).argmin(axis=1)
    assert own.tolist() == found.cluster.tolist()
    assert ((found.certainty > 0) & (found.certainty <= 1)).all()


def test_the_same_vectors_give_the_same_to_a_bit() -> None:
    vectors = blobs([30, 30])
    first, second = (find_clusters(names(60), vectors) for _ in range(2))
    assert np.array_equal(first.place, second.place)
    assert np.array_equal(first.cluster, second.cluster)


def test_copies_lie_in_one_place_and_make_no_cluster_of_a_part() -> None:
    vectors = blobs([20, 30])
    copied = np.vstack([vectors, np.tile(vectors[:1], (50, 1))])
    found = find_clusters(names(100), copied)
    assert len(set(found.cluster[[*range(20), *range(50, 100)]].tolist())) == 1
    assert len(np.unique(found.place[50:], axis=0)) == 1


def test_a_refresh_keeps_ids_and_places() -> None:
    vectors = blobs([20, 30, 40])
    ids = names(90)
    before = find_clusters(ids, vectors)
    # The largest one goes but for a stray, others come, and a fourth one.
    more = blobs([20, 30, 40, 25], seed=5)
    kept = [*range(50), 89]
    now_ids = [ids[n] for n in kept] + names(25, "new")
    found = find_clusters(now_ids, np.vstack([vectors[kept], more[90:]]), former(ids, before))
    assert found.cluster[:50].tolist() == before.cluster[:50].tolist()
    assert set(found.cluster[51:].tolist()) == {3}
    spread = np.ptp(before.place, axis=0).max()
    moved = np.linalg.norm(found.place[:50] - before.place[:50], axis=1)
    assert np.median(moved) < 0.2 * spread


def test_a_refresh_of_nothing_new_moves_little() -> None:
    vectors, ids = blobs([20, 30, 40]), names(90)
    before = find_clusters(ids, vectors)
    found = find_clusters(ids, vectors, former(ids, before))
    assert found.cluster.tolist() == before.cluster.tolist()
    moved = np.linalg.norm(found.place - before.place, axis=1)
    assert np.median(moved) < 0.05 * np.ptp(before.place, axis=0).max()


def test_beyond_what_is_compared_vectors_join_their_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_clusters(names(90), blobs([20, 30, 40]))
    monkeypatch.setattr(clusters, "CLUSTERED", 70)
    monkeypatch.setattr(clusters, "MAPPED", 60)
    found = find_clusters(names(90), blobs([20, 30, 40]))
    assert found.cluster.tolist() == whole.cluster.tolist()
    assert np.isfinite(found.place).all()


def test_vectors_that_are_not_finite_are_named() -> None:
    vectors = blobs([6])
    vectors[4, 2] = np.nan
    with pytest.raises(ValueError, match="the vector of 'd4' is not finite"):
        find_clusters(names(6), vectors)


def test_clusters_are_named_by_what_tells_them_apart() -> None:
    texts = [(0, f"The trees of forest number {n} and a boosted forest") for n in range(5)]
    texts += [(1, f"The kittens and cats, notes of run {n}") for n in range(5)] + [(1, "zebra zebra zebra")]
    texts += [(NOISE, "kittens"), (2, "\u732b\u306e\u5199\u771f"), (3, "42 7 the")]
    named = name_clusters(texts)
    # Of words that are always together, the first one.
    assert named[0] == "boosted"
    assert "cats" in named[1]
    assert "zebra" not in named[1]
    assert named[2]
    assert named[3] == ""
    assert set(named) == {0, 1, 2, 3}


def test_clusters_of_the_same_name_are_told_apart() -> None:
    texts = [
        (cluster, f"Random forest of depth {n} on {dataset}, held out rows")
        for cluster, dataset in enumerate(("wine", "iris", "digits"))
        for n in range(5)
    ]
    texts += [(3, f"Kittens, photo {n} of wine and iris and digits") for n in range(40)]
    named = name_clusters(texts)
    assert [named[n].rpartition(", ")[2] for n in range(3)] == ["wine", "iris", "digits"]
