"""Tables in Qdrant: its engine within this process, and the client of its server in the mode that needs none.

The latter answers in plain Python and keeps nothing, so that it shows that our calls are the client's, and no more. There
is no server to be tested on here.
"""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation, DamagedCollection, StoreBusy, StoreUnavailable
from ml_assets.io_managers.qdrant import QdrantIOManager
from ml_assets.resources.qdrant import _ENGINE, QdrantResource
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.qdrant import QdrantStore
from ml_assets.stores.qdrant.collections import point_id
from ml_assets.stores.qdrant.maintenance import forget
from ml_assets.stores.vectors.repair import restore
from ml_assets.tables.staging import stage
from ml_assets.tables.store import StoreHealth
from ml_assets.tables.validation import WHOLE

ROWS = 300
SPAWN = multiprocessing.get_context("spawn")

CONTRACT = Contract(
    "qdrant/passages",
    "",
    (
        Column("id", "string", nullable=False),
        Column("text", "string", nullable=False),
        Column("embedding", "vector", nullable=False, dimension=8),
        Column("page", "int64"),
        Column("weight", "float64"),
        Column("metadata", "json"),
    ),
    key=("id",),
)

VECTORS = np.random.default_rng(7).normal(size=(ROWS, 8)).astype(np.float32)


def rows(version: int = 0, contract: Contract = CONTRACT) -> pa.Table:
    table = pa.table(
        {
            "id": [f"p{n:05}" for n in range(ROWS)],
            "text": [f"passage {n} 🚀" for n in range(ROWS)],
            "embedding": pa.array(VECTORS.tolist(), pa.list_(pa.float32())),
            "page": [n + version * (n < 10) for n in range(ROWS)],
            "weight": [None if n == 1 else 0.1 + n for n in range(ROWS)],
            "metadata": [f'{{"kind":"{"ab"[n % 2]}","n":{n}}}' for n in range(ROWS)],
        }
    )
    return table.select(list(contract.names))


class InMemory:
    """Qdrant as the client of a server has it without one."""

    def __init__(self) -> None:
        from qdrant_client import QdrantClient

        self._client = QdrantClient(":memory:")

    @contextmanager
    def opened(self, write: bool = False) -> Iterator[Any]:
        from ml_assets.stores.qdrant.server import ServerPoints

        yield ServerPoints(self._client, f"{id(self)}")

    def data_folder(self) -> None:
        return None

    def is_configured(self) -> bool:
        return True

    def health(self) -> StoreHealth:
        return StoreHealth("healthy")


@pytest.fixture
def edge(tmp_path: Path) -> QdrantResource:
    return QdrantResource(url=f"edge://{tmp_path / 'shards'}", lock_timeout_s=20)


@pytest.fixture(params=["edge", "client"])
def store(request: pytest.FixtureRequest, postgres) -> QdrantStore:
    return QdrantStore(request.getfixturevalue("edge") if request.param == "edge" else InMemory(), postgres)


@pytest.fixture
def embedded(edge: QdrantResource, postgres) -> QdrantStore:
    return QdrantStore(edge, postgres)


def written(store: QdrantStore, version: int = 0, contract: Contract = CONTRACT) -> bool:
    with stage(rows(version, contract), contract, store.limits) as staged:
        return store.write(contract, staged).changed


def require_sound(store: QdrantStore, version: int = 0) -> None:
    assert store.damage(CONTRACT) == ""
    found = store.read(CONTRACT, CONTRACT.names, WHOLE).read_all().sort_by("id")
    assert found.equals(rows(version).cast(found.schema))
    assert store.ledger_state(CONTRACT) == store.live_state(CONTRACT)
    assert store.keys(CONTRACT) == set(rows()["id"].to_pylist())
    for n in range(0, ROWS, 40):
        assert store.query_similar("passages", VECTORS[n].tolist(), top_k=1)[0].document == f"passage {n} 🚀"


def test_rows_come_back_and_are_found(store):
    assert written(store)
    assert not written(store)
    require_sound(store)
    assert written(store, version=1)
    require_sound(store, version=1)

    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    cosine = units @ units[5]
    near = store.query_similar("passages", (3 * VECTORS[5]).tolist(), top_k=10)
    assert [each.id.partition(":")[0] for each in near] == [f"p{n:05}" for n in np.argsort(-cosine)[:10]]
    assert [1 - each.distance for each in near] == pytest.approx(np.sort(cosine)[::-1][:10], abs=1e-5)
    assert near[0].metadata["metadata.kind"] == "b"
    assert near[0].metadata["page"] == 6

    def asked(where: dict[str, Any]) -> set[int]:
        found = store.query_similar("passages", VECTORS[0].tolist(), top_k=ROWS, where=where)
        return {int(each.id[1:6]) for each in found}

    assert asked({"metadata.kind": "a"}) == set(range(0, ROWS, 2))
    assert asked({"metadata.kind": "a", "page": {"$lt": 20, "$gte": 12}}) == {12, 14, 16, 18}
    assert asked({"metadata.n": {"$in": [3, 4]}}) == {3, 4}
    assert asked({"weight": 7.1}) == {7}
    assert asked({"metadata.kind": {"$ne": "a"}}) == set(range(1, ROWS, 2))
    with pytest.raises(ValueError, match=r"no operator '\$regex'"):
        asked({"page": {"$regex": "x"}})
    some = store.query_similar("passages", VECTORS[0].tolist(), top_k=5, keys=["p00003", "p00004", "none"])
    assert {each.id[:6] for each in some} == {"p00003", "p00004"}
    with pytest.raises(ValueError, match="have 8 numbers, and the one that was asked for has 2"):
        store.query_similar("passages", [1.0, 0.0])
    with pytest.raises(StoreUnavailable, match="qdrant/nothing"):
        store.query_similar("nothing", [1.0, 0.0])


def test_an_upsert_keeps_what_it_is_not_given(store):
    contract = replace(CONTRACT, mode="upsert")
    written(store)
    part = rows(version=1).slice(0, 20)
    with stage(part, contract, store.limits) as staged:
        assert store.write(contract, staged).changed
    require_sound(store, version=1)


def test_what_is_lost_or_changed_by_hand_is_named_and_mended(store, postgres):
    source = replace(CONTRACT, asset="postgres/passage_vectors")
    with stage(rows(), source, PostgresStore.limits) as staged:
        PostgresStore(postgres).write(source, staged)
    written(store)
    entries = sorted(each.id for each in store.query_similar("passages", VECTORS[0].tolist(), top_k=ROWS))
    with store.qdrant.opened(write=True) as points:
        points.delete("passages", [point_id(entry) for entry in entries[:30]])
    assert "30 of 300 entries are not there, 'p00000:" in store.damage(CONTRACT)
    with pytest.raises(DamagedCollection, match=r"of Qdrant is damaged .30 of 300 entries"):
        store.query_similar("passages", VECTORS[0].tolist())
    done, left = restore(store, CONTRACT, source)
    assert (done, left) == (["30 entries of passages, out of postgres/passage_vectors"], "")
    require_sound(store)

    with store.qdrant.opened(write=True) as points:
        (point,) = points.get("passages", [point_id(entries[7])], True, False)
        points.put("passages", [point.id], -VECTORS[7:8], [point.payload])
        points.put("passages", [point_id("alien")], VECTORS[:1], [{"whose": "another's"}])
    assert "other vectors than were written for 1 entries, 'p00007:" in store.damage(CONTRACT)
    done, left = restore(store, CONTRACT, None)
    assert left == ""
    assert done[0] == "1 entries of passages"
    assert done[1].startswith("the index of passages, which was made anew")
    require_sound(store)

    with store.qdrant.opened(write=True) as points:
        points.drop("passages")
    assert restore(store, CONTRACT, source)[0] == ["300 entries of passages, out of postgres/passage_vectors"]
    require_sound(store)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no configuration": lambda shard: (shard / "edge_config.json").unlink(),
    # Of segments alone the engine makes new ones, out of its log.
    "no segments and no log": lambda shard: [shutil.rmtree(shard / each) for each in ("segments", "wal")],
    "a segment without its state": lambda shard: [
        each.unlink() for each in shard.glob("segments/*/segment.json")
    ],
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_shard_is_made_anew(embedded, postgres, how):
    source = replace(CONTRACT, asset="postgres/passage_vectors")
    with stage(rows(), source, PostgresStore.limits) as staged:
        PostgresStore(postgres).write(source, staged)
    written(embedded)
    folder = embedded.qdrant.data_folder()
    assert folder is not None
    with _ENGINE.at_rest(folder, 10):  # one that is open would not look at its files again
        DAMAGES[how](folder / "passages")
    with pytest.raises(DamagedCollection):
        embedded.query_similar("passages", VECTORS[0].tolist())
    done, left = restore(embedded, CONTRACT, source)
    assert left == "", done
    require_sound(embedded)


def hold(url: str, pipe: Any) -> None:
    with QdrantResource(url=url).opened() as points:
        pipe.send(sorted(points.names()))
        pipe.recv()


def test_another_process_waits_for_the_embedded_engine(embedded, edge):
    written(embedded)
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=hold, args=(edge.url, theirs))
    holder.start()
    try:
        assert ours.poll(60)
        assert ours.recv() == ["passages"]
        hasty = edge.model_copy(update={"lock_timeout_s": 0.2})
        with (
            pytest.raises(StoreBusy, match=r"Embedded Qdrant .* held by process \d+ .*ML_ASSETS_QDRANT_URL"),
            hasty.opened(),
        ):
            pass
        holder.kill()
        holder.join()
        require_sound(embedded)
    finally:
        holder.kill()
        holder.join()


def test_another_dimension_makes_way_when_it_is_told_to(embedded, edge, postgres):
    written(embedded)
    columns = tuple(replace(c, dimension=4) if c.type == "vector" else c for c in CONTRACT.columns)
    shorter = replace(CONTRACT, columns=columns)
    short = rows().set_column(2, "embedding", pa.array(VECTORS[:, :4].tolist(), pa.list_(pa.float32())))
    with stage(short, shorter, embedded.limits) as staged:
        with pytest.raises(ContractViolation, match=r"ml_assets.stores.qdrant.maintenance.forget\(qdrant"):
            embedded.write(shorter, staged)
        require_sound(embedded)
        forget(edge, postgres, shorter)
        assert embedded.write(shorter, staged).changed
    assert embedded.damage(shorter) == ""


def test_without_a_url_there_is_no_qdrant():
    resource = QdrantResource()
    assert not resource.is_configured()
    assert not QdrantStore.is_used({"qdrant": resource})
    with pytest.raises(StoreUnavailable, match="set ML_ASSETS_QDRANT_URL"), resource.opened():
        pass
    with pytest.raises(StoreUnavailable, match="edge:///absolute/folder"):
        QdrantResource(url="edge://host/folder").data_folder()
    told = QdrantResource(url="http://:s3cret@127.0.0.1:9").health()
    assert told.state == "down"
    assert "s3cret" not in told.detail
    assert "check that Qdrant runs there" in told.detail


def test_an_asset_is_written_by_the_io_manager(edge, postgres):
    import dagster as dg

    @dg.asset(key=["qdrant", "points"], metadata={"key": ["id"]}, io_manager_key="io")
    def points() -> pa.Table:
        return rows().select(["id", "embedding", "text"])

    manager = QdrantIOManager(qdrant=edge, postgres=postgres)
    assert dg.materialize([points], resources={"io": manager}).success
    (near,) = manager.query_similar("qdrant/points", VECTORS[9].tolist(), top_k=1)
    assert near.document == "passage 9 🚀"
