"""A stack that was opened for reading alone reads everything, and every store refuses to be changed."""

import pytest

import ml_assets
from benchmarks.maintenance import Site
from ml_assets.errors import Refusal
from ml_assets.resources import store_resources
from ml_assets.resources.base import plain
from ml_assets.settings import Settings
from ml_assets.stores.registry import stores

STORES = ("postgres", "duckdb", "clickhouse", "sqlite")


def test_every_store_is_read_and_refuses_changes(settings):
    written = store_resources(settings)
    for store in STORES:
        Site(store, written).write([0], 0)
    stack = ml_assets.connect(settings=settings, read_only=True)
    told = stack.status()["stores"]
    read = store_resources(stack.settings)
    for store in STORES:
        assert told[store]["tables"]["hourly"]["rows"] == 2_000, store
        [held] = [each for each in stores(read) if each.name == store]
        assert held.live_state(Site(store, read).contract) == held.ledger_state(Site(store, read).contract)
        schema = "features.hourly" if store == "duckdb" else "hourly"
        assert stack.sql(store, f"SELECT count(*) AS n FROM {schema}").to_pylist() == [{"n": 2_000}]
        with pytest.raises(Refusal, match="opened for reading alone"):
            Site(store, read).write([0], 1)
    for store in STORES:
        [held] = [each for each in stores(written) if each.name == store]
        assert held.ledger_state(Site(store, written).contract).rows == 2_000


def test_readers_urls_take_the_place_of_the_writers(monkeypatch, tmp_path):
    monkeypatch.setenv("ML_ASSETS_POSTGRES_URL", "postgresql://ml_writer:w@h/ml_dev")
    monkeypatch.setenv("ML_ASSETS_POSTGRES_READER_URL", "postgresql://ml_reader:s3cret@h/ml_dev")
    settings = Settings(home=tmp_path)
    assert plain(store_resources(settings)["postgres"].url) == "postgresql://ml_writer:w@h/ml_dev"
    monkeypatch.setenv("ML_ASSETS_READ_ONLY", "1")
    settings = Settings(home=tmp_path)
    reader = store_resources(settings)["postgres"]
    assert plain(reader.url) == "postgresql://ml_reader:s3cret@h/ml_dev" and reader.read_only
    assert settings.masked("it's s3cret") == "it's ***"
    assert "s3cret" not in repr(settings) + repr(settings.for_reading()) + repr(reader)
