"""Indexes of vectors whose writers and server are killed: what they lose is named, and comes back without a model.

Chroma may count and list entries after a kill that no search comes to (chroma#7678), so every entry is searched by its
own vector after each kill, by Chroma's and Qdrant's own calls and not by what is tested. Either each is found before all
others, but for those that are as near; or `status --verify` says that the collection is damaged, and `recover` brings it
back out of PostgreSQL.
"""

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets import services
from ml_assets.contracts import tables
from ml_assets.maintenance.recovery import recover_all
from ml_assets.maintenance.status import stores_status
from ml_assets.resources import store_resources
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stores import registry
from ml_assets.stores.postgres import PostgresStore
from ml_assets.stores.qdrant.collections import point_id
from ml_assets.stores.vectors import VectorStore, manifest
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE
from ml_assets_tests.scale import KILLS, LONG

pytestmark = pytest.mark.embedded_only("starts, stops or kills servers of its own")

ROWS = 1_200
"""Of fewer than 1,000 Chroma keeps no index on disk."""

SOURCE = "postgres/document_embeddings"
SAME = 1e-5
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    ["ml_assets.stores.registry", "ml_assets.tables.staging", "chromadb", "psycopg", "mlflow"]
    + [
        f"ml_assets.resources.{name}"
        for name in (
            "postgres",
            "duckdb",
            "clickhouse",
            "chroma",
            "sqlite",
            "redis",
            "mlflow",
            "qdrant",
            "embedder",
        )
    ]
)


def rows(settings: Settings, asset: str, version: int) -> pa.Table:
    """The rows of a version: a third of the texts and vectors of each are other ones than those of the one before."""
    contract = tables(settings)[asset]
    made = [version - (version - n) % 3 for n in range(ROWS)]
    vectors = [
        np.random.default_rng((n, m + 3)).normal(size=settings.embedding_dimension).round(3).tolist()
        for n, m in enumerate(made)
    ]
    columns = {
        "id": [f"d{n:05}#0" for n in range(ROWS)],
        "document_id": [f"d{n:05}" for n in range(ROWS)],
        "embedding": vectors,
        "model_name": ["none"] * ROWS,
        "content_hash": [str(m) for m in made],
        "title": ["t"] * ROWS,
        "text": [f"text {n} of {m}" for n, m in enumerate(made)],
        "metadata": ["{}"] * ROWS,
        "created_at": pa.array([0] * ROWS, pa.timestamp("us", "UTC")),
        **{name: [0] * ROWS for name in ("chunk_index", "start_offset", "end_offset")},
        **{name: ["plain"] * ROWS for name in ("section", "format")},
    }
    schema = arrow_schema(contract)
    return pa.table({name: columns[name] for name in schema.names}, schema)


def write(settings: Settings, resources: dict[str, Any], asset: str, version: int) -> None:
    contract = tables(settings)[asset]
    store = registry.kind_of(contract.store)
    made = store(*(resources[name] for name in store.resources))
    with stage(rows(settings, asset, version), contract, store.limits) as staged:
        made.write(contract, staged)


def write_until_killed(settings: Settings, asset: str, first: int, pipe: Any) -> None:
    """Carry one version after the other from PostgreSQL to the index, as the graph does; says when a write begins."""
    resources = store_resources(settings)
    try:
        for version in itertools.count(first):
            write(settings, resources, SOURCE, version)
            pipe.send(("begin", version))
            begin = time.monotonic()
            write(settings, resources, asset, version)
            pipe.send(("end", time.monotonic() - begin))
    except Exception as fault:
        pipe.send(("died", f"{type(fault).__name__}: {fault}"))


@dataclass
class Index:
    """An index under fire.

    Args:
        victims: what is killed in turn: the writer, or its server.
        kills: how often.
        nearest: ids and distances of what the store finds nearest to each vector.
    """

    settings: Settings
    asset: str
    store: VectorStore
    victims: tuple[str, ...]
    kills: int
    nearest: Callable[[list[Any], int], list[list[tuple[str, float]]]]

    def lost(self) -> list[str]:
        """Live entries that a search by their own vectors does not find before all others that are not as near."""
        wanted: dict[str, Any] = {}
        with self.store.postgres.connect() as connection:
            for lines in manifest.vectors(connection, self.store.listed("document_index")):
                wanted |= {entry: np.frombuffer(bits, dtype=np.float32) for entry, bits in lines.items()}
        found = self.nearest(list(wanted.values()), 5)
        return [
            entry
            for entry, near in zip(wanted, found, strict=True)
            if entry not in [id for id, distance in near if distance <= near[0][1] + SAME]
        ]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Home of a Chroma of its own, which may be killed."""
    home = tmp_path_factory.mktemp("k")
    yield home
    services.stop_all(home)


@pytest.fixture(params=["chroma", "qdrant"])
def index(request: pytest.FixtureRequest, home: Path, postgres: PostgresResource) -> Index:
    # A short model: the point is the index, and its size what its file takes.
    settings = Settings(
        home=home,
        postgres_url=postgres.url,
        qdrant_url=f"edge://{home / 'shards'}",
        embedder="ollama",
        ollama_dimension=16,
    )
    resources = store_resources(settings)
    (store,) = [each for each in registry.stores(resources) if each.name == request.param]
    assert isinstance(store, VectorStore)

    def in_chroma(vectors: list[Any], most: int) -> list[list[tuple[str, float]]]:
        with resources["chroma"].client() as client:
            held = client.get_collection("document_index", embedding_function=None)
            found = held.query(query_embeddings=vectors, n_results=most, include=["distances"])
        return [
            list(zip(*each, strict=True)) for each in zip(found["ids"], found["distances"] or [], strict=True)
        ]

    def in_qdrant(vectors: list[Any], most: int) -> list[list[tuple[str, float]]]:
        with resources["qdrant"].opened() as points:
            found = points.search("document_index", vectors, most, True)
        assert all(each.id == point_id(each.payload["_entry"]) for near in found for each in near)
        return [[(each.payload["_entry"], 1 - each.score) for each in near] for near in found]

    chroma = request.param == "chroma"
    return Index(
        settings,
        f"{request.param}/document_index",
        store,
        ("writer", "server") if chroma else ("writer",),
        (KILLS if chroma else KILLS // 4) if LONG else 2,  # each takes ten seconds and more
        in_chroma if chroma else in_qdrant,
    )


@dataclass
class Killed:
    """A kill.

    Args:
        begun: the last version that the writer began to carry.
        inside: whether it was not done with it.
        usual: seconds that a whole write took.
    """

    begun: int
    inside: bool
    usual: float


def kill_one(index: Index, victim: str, first: int, share: float, usual: float) -> Killed:
    """Kill a writer, or its server, in its first write or, if nobody knows yet how long one takes, in its second."""
    ours, theirs = FORK.Pipe()
    writer = FORK.Process(target=write_until_killed, args=(index.settings, index.asset, first, theirs))
    writer.start()
    theirs.close()
    begun, ended = first, True
    try:
        while ended or not usual:
            assert ours.poll(120), "the writer says nothing"
            kind, what = ours.recv()
            assert kind != "died", what
            if kind == "begin":
                begun, ended = what, False
            else:
                usual, ended = what, True
        time.sleep(share * usual)
        if victim == "server":
            pid = services.describe(index.settings.home)["chroma"].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            # It gives up, or starts the server anew and goes on.
            assert ours.poll(120), "the writer waits for a server that is dead"
    finally:
        writer.kill()
        writer.join()
    with suppress(EOFError, OSError):  # the last message may be cut off
        while ours.poll(0):
            kind, what = ours.recv()
            begun, ended = (what, False) if kind == "begin" else (begun, ended or kind == "end")
    return Killed(begun, not ended, usual)


@pytest.mark.timeout(300 + 30 * KILLS)
def test_every_entry_is_found_after_a_kill_or_its_loss_is_named_and_mended(
    index: Index, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    kind = registry.kind_of(index.store.prefix)
    monkeypatch.setattr(registry, "STORES", [PostgresStore, kind])
    rng = random.Random(7678)  # noqa: S311
    version = inside = damaged = 0
    usual = 0.0
    contracts = tables(index.settings)
    for _, victim in zip(range(index.kills), itertools.cycle(index.victims), strict=False):
        killed = kill_one(index, victim, version + 1, rng.random(), usual)
        inside, version, usual = inside + killed.inside, killed.begun, killed.usual
        lost: list[str] | str
        try:
            lost = index.lost()
        except Exception as fault:  # an index that answers nothing has lost all
            lost = f"{fault}"
        _, differences = stores_status(index.settings, verify=True, start=True)
        named = [each for each in differences if each.store == index.store.name]
        assert named or not lost, f"{lost} is not found, and nobody says so"
        if named:
            damaged += 1
            told = recover_all(store_resources(index.settings), contracts)[-1]
            assert (told.store, told.state) == (index.store.name, "recovered"), told
            assert index.lost() == []
            assert index.store.damage(contracts[index.asset]) == ""
    resources = store_resources(index.settings)
    write(index.settings, resources, SOURCE, version + 1)
    write(index.settings, resources, index.asset, version + 1)
    assert index.lost() == []
    found = index.store.read(contracts[index.asset], ["id", "text"], WHOLE).read_all().sort_by("id")
    expected = rows(index.settings, index.asset, version + 1).select(["id", "text"])
    assert found.equals(expected.cast(found.schema))
    record_property(
        "kills", f"{inside} of {index.kills} inside the write, {damaged} damages named and mended"
    )
