"""What is left of a collection of Chroma whose folder or entries were damaged, and how it comes back."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_assets import services
from ml_assets.contracts import Column, Contract
from ml_assets.errors import ContractViolation, DamagedCollection
from ml_assets.io_managers.chroma import ChromaIOManager
from ml_assets.maintenance.recovery import recover_all
from ml_assets.maintenance.status import stores_status
from ml_assets.resources import store_resources
from ml_assets.resources.chroma import ChromaResource
from ml_assets.settings import Settings
from ml_assets.stores.chroma.collections import add_entries
from ml_assets.stores.chroma.index import index_folder
from ml_assets.stores.chroma.maintenance import rebuild
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.vectors.repair import restore
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE

pytestmark = pytest.mark.embedded_only("starts, stops or kills servers of its own")

ROWS = 1_500
"""Of fewer than 1,000 Chroma keeps no index on disk."""

CONTRACT = Contract(
    "chroma/passages",
    "",
    (
        Column("id", "string", nullable=False),
        Column("text", "string", nullable=False),
        Column("embedding", "vector", nullable=False, dimension=4),
        Column("page", "int64"),
    ),
    key=("id",),
)


def rows(version: int = 0) -> pa.Table:
    vectors = np.random.default_rng(7).normal(size=(ROWS, 4)).astype(np.float32)
    return pa.table(
        {
            "id": [f"p{n:05}" for n in range(ROWS)],
            "text": [f"passage {n}" for n in range(ROWS)],
            "embedding": pa.array(vectors.tolist(), pa.list_(pa.float32())),
            "page": [n + version * (n < 10) for n in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Home of a server of its own."""
    home = tmp_path_factory.mktemp("chroma")
    yield home
    services.stop_all(home)


@pytest.fixture
def manager(whole: Path, postgres) -> ChromaIOManager:
    made = ChromaIOManager(chroma=ChromaResource(home=str(whole)), postgres=postgres)
    with made.chroma.client() as client:
        for collection in client.list_collections():
            client.delete_collection(collection.name)
    assert written(made)
    return made


def written(manager: ChromaIOManager, version: int = 0) -> bool:
    with stage(rows(version), CONTRACT, manager.limits) as staged:
        return manager.table_store().write(CONTRACT, staged).changed


def read(manager: ChromaIOManager) -> pa.Table:
    return manager.table_store().read(CONTRACT, CONTRACT.names, WHOLE).read_all().sort_by("id")


def restored(manager: ChromaIOManager, source: Contract | None = None) -> tuple[list[str], str]:
    return restore(manager.table_store(), CONTRACT, source)


def require_sound(manager: ChromaIOManager, version: int = 0) -> None:
    assert manager.table_store().damage(CONTRACT) == ""
    assert read(manager).equals(rows(version).cast(read(manager).schema))
    store = manager.table_store()
    assert store.ledger_state(CONTRACT) == store.live_state(CONTRACT)
    wanted = rows()["embedding"][42].as_py()
    assert manager.query_similar("passages", wanted, top_k=1)[0].document == "passage 42"


def removed(name: str):
    return lambda index: (index / name).unlink()


def truncated(index: Path) -> None:
    file = index / "data_level0.bin"
    os.truncate(file, file.stat().st_size // 2)


def scrambled(index: Path) -> None:
    """Links that lead nowhere: the server dies over a search."""
    file = index / "data_level0.bin"
    held = bytearray(file.read_bytes())
    middle = len(held) // 2
    held[middle : middle + 4000] = b"\xfb" * 4000
    file.write_bytes(held)


DAMAGES = {
    "no header": removed("header.bin"),
    "no metadata": removed("index_metadata.pickle"),
    "half the vectors": truncated,
    "no lengths": lambda index: os.truncate(index / "length.bin", 0),
    "no folder": shutil.rmtree,
    "scrambled": scrambled,
}


def damage(manager: ChromaIOManager, how) -> None:
    services.stop_all(Path(manager.chroma.home))
    index = index_folder(manager.chroma.data_folder(), "passages")
    assert index is not None
    how(index)


@pytest.mark.parametrize("how", ["no header", "half the vectors", "no lengths"])
def test_a_damaged_index_is_made_anew_by_the_next_write(manager, how):
    damage(manager, DAMAGES[how])
    with pytest.raises(
        DamagedCollection, match=r"'passages' of Chroma is damaged .*: run 'ml-assets recover'"
    ):
        read(manager)
    with pytest.raises(DamagedCollection):
        manager.query_similar("passages", [1.0, 0.0, 0.0, 0.0], top_k=20)
    # Most entries are listed, so that only their index tells that they are not there.
    assert written(manager, version=1)
    require_sound(manager, version=1)


@pytest.mark.parametrize("how", ["no metadata", "no folder", "scrambled"])
def test_a_damaged_index_is_made_anew_by_recover_without_any_source(manager, how):
    damage(manager, DAMAGES[how])
    done, left = restored(manager)
    assert (len(done), left) == (1, "")
    assert "the index of passages, which was made anew" in done[0]
    require_sound(manager)
    assert restored(manager) == ([], "")


def test_an_index_of_somebody_elses_server_is_made_anew_by_the_next_write(manager):
    """Whose documents cannot be read, so that only the rows of a write or of another table bring them back."""
    damage(manager, DAMAGES["no header"])
    foreign = manager.model_copy(
        update={"chroma": ChromaResource(url=services.ensure("chroma", Path(manager.chroma.home)))}
    )
    done, left = restored(foreign)
    assert len(done) == 1
    assert "1,500 of 1,500 entries are not there" in left
    assert written(foreign)
    require_sound(foreign)


def deleted(manager: ChromaIOManager, count: int) -> None:
    """Entries that somebody takes away behind the manifest's back."""
    with manager.chroma.client() as client:
        collection = client.get_collection("passages", embedding_function=None)
        collection.delete(ids=sorted(collection.get(include=[])["ids"])[:count])


@pytest.mark.parametrize("also_other", [False, True])
def test_entries_that_were_deleted_are_missed(manager, also_other):
    deleted(manager, 30)
    if also_other:  # so that their number is right
        with manager.chroma.client() as client:
            others = {"ids": [f"x{n}" for n in range(31)], "embeddings": [[0.5] * 4] * 31}
            client.get_collection("passages", embedding_function=None).add(**others)
    with pytest.raises(DamagedCollection, match="30 of 1,500 entries are not there"):
        manager.query_similar("passages", [1.0, 0.0, 0.0, 0.0], top_k=1)
    assert "30 of 1,500 entries are not there" in manager.table_store().damage(CONTRACT)
    _, left = restored(manager)  # a foreign table, whose rows nobody else has
    assert "30 of 1,500 entries are not there" in left
    assert "materialize it again" in left
    assert written(manager)
    require_sound(manager)


def test_lost_rows_are_carried_over_again_by_recover(manager, postgres):
    """Out of the table with their vectors, without a model."""
    source = replace(CONTRACT, asset="postgres/passage_vectors")
    with stage(rows(), source, PostgresStore.limits) as staged:
        PostgresStore(postgres).write(source, staged)
    deleted(manager, 30)
    done, left = restored(manager, source)
    assert (done, left) == (["30 entries of passages, out of postgres/passage_vectors"], "")
    require_sound(manager)
    with manager.chroma.client() as client:
        client.delete_collection("passages")
    assert restored(manager, source) == (["1,500 entries of passages, out of postgres/passage_vectors"], "")
    require_sound(manager)


def test_an_upsert_beside_lost_rows_does_not_hide_them(manager):
    contract = replace(CONTRACT, mode="upsert")
    deleted(manager, 30)
    before = manager.table_store().ledger_state(contract)
    for part in (rows().slice(0, 10), rows().slice(10, 20)):
        with pytest.raises(DamagedCollection):
            read(manager)
        with stage(part, contract, manager.limits) as staged:
            assert manager.table_store().write(contract, staged).changed
        assert manager.table_store().ledger_state(contract) == before
    require_sound(manager)


def test_an_upsert_into_a_damaged_index_makes_it_anew(manager):
    """Also if none of its rows was there before."""
    contract = replace(CONTRACT, mode="upsert")
    damage(manager, DAMAGES["no lengths"])
    more = rows().slice(0, 1).set_column(0, "id", pa.array(["another"]))
    with stage(more, contract, manager.limits) as staged:
        assert manager.table_store().write(contract, staged).changed
    assert manager.table_store().damage(contract) == ""
    assert read(manager).num_rows == ROWS + 1


def test_recover_and_verify_tell_of_every_collection(manager, postgres, tmp_path):
    settings = Settings(home=tmp_path, postgres_url=postgres.url, chroma_url=manager.chroma.server_url())
    resources = {**store_resources(settings), "chroma": manager.chroma}
    deleted(manager, 30)
    _, differences = stores_status(settings, verify=True)
    (found,) = [each for each in differences if each.store == "chroma"]
    assert found.table == "passages"
    assert "30 of 1,500 entries are not there" in found.measured
    (told,) = [each for each in recover_all(resources, {}) if each.store == "chroma"]
    assert told.state == "failed"
    assert "chroma/passages: 30 of 1,500 entries are not there" in told.detail


def test_control_characters_take_six_bytes_of_a_request(manager):
    documents = ["\x01" * 10_000] * 750
    data = rows().slice(0, len(documents)).set_column(1, "text", pa.array(documents))
    with stage(data, CONTRACT, manager.limits) as staged:
        assert manager.table_store().write(CONTRACT, staged).changed
    assert rebuild(manager.chroma, manager.postgres, CONTRACT) == len(documents)
    assert read(manager)["text"].to_pylist() == documents


@pytest.mark.parametrize(
    ("entries", "dimension", "document", "requests"),
    [
        (0, 4, "", []),
        (5_461, 4, "x", [5_461]),
        (5_462, 4, "x", [5_461, 1]),
        (3, 4, "x" * 9_000_000, [1, 1, 1]),
        (3, 4, "x" * 7_000_000, [2, 1]),
        (1_000, 4, "\x01" * 10_000, [279, 279, 279, 163]),
        (2_000, 3_072, "x", [909, 909, 182]),
    ],
)
def test_requests_are_as_large_as_chroma_takes(entries, dimension, document, requests):
    sent = []
    ids, vectors = [f"{n:06}" for n in range(entries)], np.ones((entries, dimension), dtype=np.float32)
    add_entries(lambda **given: sent.append(given), ids, vectors, [document] * entries, [None] * entries)
    assert [len(given["ids"]) for given in sent] == requests
    assert [entry for given in sent for entry in given["ids"]] == ids
    for given in sent:
        assert {len(values) for values in given.values()} == {len(given["ids"])}


def test_an_entry_that_no_request_can_carry_is_refused(manager):
    data = rows()
    for document in ("x" * 45_000_000, "\x01" * 8_000_000):
        large = data.slice(1).set_column(1, "text", pa.array([document] + ["x"] * (ROWS - 2)))
        with (
            stage(large, CONTRACT, manager.limits) as staged,
            pytest.raises(
                ContractViolation, match=r"row of key 'p00001' takes 4.* column 'text'.*Nothing was written"
            ),
        ):
            manager.table_store().write(CONTRACT, staged)
    require_sound(manager)
    manager.chroma.create_collection("mine")
    with pytest.raises(ValueError, match=r"entry 'b' takes 45,.* Nothing was added"):
        manager.chroma.add_embeddings("mine", ["a", "b"], [[1.0], [2.0]], ["", "x" * 45_000_000])
