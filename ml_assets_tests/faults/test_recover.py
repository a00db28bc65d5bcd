"""After a crash: `ml-assets recover` in the two stores that stage apart, and a Redis that has forgotten."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ml_assets import services
from ml_assets.contracts import Column, Contract
from ml_assets.io_managers.redis import RedisIOManager
from ml_assets.resources import store_resources
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.settings import Settings
from ml_assets.stores.redis.copies import refresh
from ml_assets.stores.redis.lookup import lookup
from ml_assets.tables.staging import stage

WRITER = """
import os, signal, sys
import pyarrow as pa
from ml_assets.build import store_resources
from ml_assets.contracts import Column, Contract
from ml_assets.io_managers import chroma, clickhouse
from ml_assets.stores.clickhouse import write as clickhouse_write
from ml_assets.stores.vectors import manifest
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE
from ml_assets.settings import Settings

store, version, dies = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if dies:
    place = {"chroma": (manifest, "flip"), "clickhouse": (clickhouse_write, "publish")}[store]
    setattr(*place, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
columns = (
    Column("id", "string", nullable=False),
    Column("version", "int64", nullable=False),
    Column("vector", "vector", nullable=False, dimension=2),
)
contract = Contract(f"{store}/attacked", "", columns, key=("id",))
resources = store_resources(Settings())
manager = {
    "chroma": lambda: chroma.ChromaIOManager(chroma=resources["chroma"], postgres=resources["postgres"]),
    "clickhouse": lambda: clickhouse.ClickHouseIOManager(clickhouse=resources["clickhouse"]),
}[store]()
rows = [{"id": str(n), "version": version, "vector": [1.0, float(version)]} for n in range(10)]
with stage(pa.Table.from_pylist(rows, arrow_schema(contract)), contract, manager.limits) as staged:
    manager.table_store().write(contract, staged)
print(*set(manager.table_store().read(contract, ["version"], WHOLE).read_all()["version"].to_pylist()))
"""


@pytest.fixture
def places(environment, shared_clickhouse_server) -> dict[str, str]:
    """A home whose ClickHouse is a server: an embedded one recovers by itself when it is opened."""
    return {**environment, "ML_ASSETS_CLICKHOUSE_URL": shared_clickhouse_server.url}


def written(places: dict[str, str], store: str, version: int, dies: bool) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITER, store, str(version), "dies" if dies else ""]
    return subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, check=False)


def held(settings: Settings, places: dict[str, str], store: str) -> list[int]:
    """Versions of everything that the store itself holds, whether anybody may see it or not."""
    changed = settings.model_copy(update={"clickhouse_url": places["ML_ASSETS_CLICKHOUSE_URL"]})
    resources = store_resources(changed)
    if store == "chroma":
        with resources["chroma"].client() as client:
            entries = client.get_collection("attacked", embedding_function=None).get(include=["metadatas"])
        return sorted({int(one["version"]) for one in entries["metadatas"]})
    with resources["clickhouse"].client() as client:
        tables = client.query("SELECT name FROM system.tables WHERE database = 'ml_metrics'").result_rows
        names = [name for (name,) in tables if name.startswith("attacked") and "__lock" not in name]
        found = [client.query(f"SELECT DISTINCT version FROM {name}").result_rows for name in names]
    return sorted({row[0] for rows in found for row in rows})


@pytest.mark.parametrize(("store", "survivor"), [("chroma", 1), ("clickhouse", 2)])
def test_recover_after_a_killed_write(store, survivor, places, settings, cli):
    """Chroma's manifest was not changed yet, so what was added goes; ClickHouse's write was committed, so it is ended."""
    assert written(places, store, 1, dies=False).stdout == "1\n"
    assert written(places, store, 2, dies=True).returncode == -signal.SIGKILL
    assert held(settings, places, store) == [1, 2]
    environment = {name: value for name, value in places.items() if name != "ML_ASSETS_HOME"}
    done = cli(settings.home, "recover", "--json", **environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["stores"][store]
    assert told["state"] == "recovered"
    assert any("attacked" in name for name in told["dealt_with"])
    assert held(settings, places, store) == [survivor]
    again = cli(settings.home, "recover", "--json", **environment)
    assert {each["state"] for each in json.loads(again.stdout)["stores"].values()} == {"clean"}


@pytest.mark.embedded_only("looks at ClickHouse's engine within the process")
def test_recover_tells_what_opening_the_embedded_engine_finished(environment, settings, cli):
    assert written(environment, "clickhouse", 1, dies=False).stdout == "1\n"
    assert written(environment, "clickhouse", 2, dies=True).returncode == -signal.SIGKILL
    others = {name: value for name, value in environment.items() if name != "ML_ASSETS_HOME"}
    told = json.loads(cli(settings.home, "recover", "--json", **others).stdout)["stores"]["clickhouse"]
    assert told["state"] == "recovered"
    assert any(name.startswith("attacked__ready__") for name in told["dealt_with"])
    with store_resources(settings)["clickhouse"].client() as client:
        assert client.query("SELECT DISTINCT version FROM attacked").result_rows == [(2,)]


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_a_redis_that_comes_back_with_an_old_state_is_not_believed(
    tmp_path: Path, postgres: PostgresResource
):
    """As after a power cut, which takes the last second from the file, or with a server that keeps snapshots only."""
    columns = Column("id", "string", nullable=False), Column("version", "int64")
    contract = Contract("serving/limits", "", columns, key=("id",))
    redis = RedisResource(home=str(tmp_path))
    manager = RedisIOManager(redis=redis, postgres=postgres)
    nowhere = PostgresResource(url="postgresql://127.0.0.1:9/none")
    data = services.describe(tmp_path)["redis"].data

    def written(version: int) -> None:
        rows = pa.table({"id": ["a"], "version": [version]})
        with stage(rows, contract, manager.limits) as staged:
            assert manager.table_store().write(contract, staged)

    try:
        written(1)
        services.stop_all(tmp_path)
        shutil.copytree(data, tmp_path / "old")
        written(2)
        services.stop_all(tmp_path)
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "old", data)
        cache = redis.client()
        assert cache is not None
        with cache:
            assert len(list(cache.scan_iter("ml-assets:*"))) == 2, "the pointer and the rows of version 1"
            assert lookup(cache, postgres, contract, "a") == {"id": "a", "version": 2}
            assert refresh(cache, postgres, contract)
            assert lookup(cache, nowhere, contract, "a") == {"id": "a", "version": 2}
    finally:
        services.stop_all(tmp_path)


def test_a_copy_in_redis_that_somebody_changed_is_made_again_by_recover(
    redis: RedisResource, postgres: PostgresResource
):
    """Of any table: the version that it names is the right one, so that lookups would believe it for ever."""
    columns = Column("id", "string", nullable=False), Column("version", "int64")
    contract = Contract("serving/foreign_limits", "", columns, key=("id",))
    manager = RedisIOManager(redis=redis, postgres=postgres)
    with stage(pa.table({"id": ["a", "b"], "version": [1, 2]}), contract, manager.limits) as staged:
        assert manager.table_store().write(contract, staged)
    assert manager.table_store().recover({}).dealt_with == ()
    for spoilt in ('{"id": "a", "version": 9}', "not a row"):
        cache = redis.client()
        assert cache is not None
        with cache:
            (name,) = cache.scan_iter("ml-assets:serving/foreign_limits:*")
            cache.hset(name, "a", spoilt)
        assert manager.table_store().recover({}).dealt_with == ("serving/foreign_limits",)
        assert manager.lookup("serving/foreign_limits", "a") == {"id": "a", "version": 1}
        assert manager.table_store().recover({}).dealt_with == ()
