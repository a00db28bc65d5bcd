"""Feature views on the real servers: what is written, what is served, and what becomes of it when Redis goes."""

import json
import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from ml_assets import services
from ml_assets.cli.refresh import QUIET
from ml_assets.contracts import Column, Contract, tables
from ml_assets.defs.serving import views
from ml_assets.errors import Refusal
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.io_managers.redis import RedisIOManager
from ml_assets.operations import feature_online
from ml_assets.operations.feature_online import Online
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.settings import Settings
from ml_assets.stack import Stack
from ml_assets.stores.redis import RedisStore, copies, pointer
from ml_assets.stores.redis import entities as entities_module
from ml_assets.stores.redis.background import Background
from ml_assets.stores.redis.entities import PREFIX
from ml_assets.stores.redis.lookup import lookup
from ml_assets.stores.redis.served import Line, ServedLog, served_since
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

QUALITY = Contract(
    "serving/run_quality",
    "how a model does",
    (
        Column("model_name", "string", nullable=False),
        Column("accuracy", "float64"),
        Column("runs", "int64"),
        Column("last_run", "timestamp"),
        Column("event_timestamp", "timestamp", nullable=False),
    ),
    key=("model_name",),
    mode="upsert_delete",
    event_time="event_timestamp",
    ttl_s=30 * 86_400,
)

LATENCY = Contract(
    "serving/latency",
    "how long a model takes on a day",
    (
        Column("model_name", "string", nullable=False),
        Column("accuracy", "float64"),
        Column("day", "date", nullable=False),
    ),
    key=("model_name",),
    mode="upsert_delete",
    event_time="day",
)

BY_DATASET = Contract(
    "serving/by_dataset",
    "how a model does on a dataset",
    (
        Column("fold", "int64", nullable=False),
        Column("dataset", "string", nullable=False),
        Column("score", "float64"),
        Column("at", "timestamp", nullable=False),
    ),
    key=("fold", "dataset"),
    mode="upsert_delete",
    event_time="at",
)

OF_RUNS = (
    Column("runs", "int64", nullable=False),
    Column("score", "float64"),
    Column("at", "timestamp", nullable=False),
)


@dataclass
class Serving:
    """Views on a PostgreSQL and a Redis of the test's own databases."""

    redis: RedisResource
    postgres: PostgresResource
    known: tuple[str, ...] = ("run_quality", "new_one")

    @property
    def store(self) -> RedisStore:
        return RedisStore(self.redis, self.postgres)

    def online(self) -> Online:
        return Online(self.redis, self.postgres, lambda: self.known)

    def cache(self) -> Any:
        """A client of the Redis."""
        return self.redis.client()

    def settings(self, folder: Path) -> Settings:
        """Settings that lead to these two servers, with feature files in a folder."""
        home = folder / "home"
        home.mkdir()
        return Settings(
            home=home, redis_url=self.redis.url, postgres_url=self.postgres.url, feature_folders=(folder,)
        )

    def write(self, contract: Contract, *rows: dict[str, Any]) -> dict[str, int]:
        """Write a view; what its run would tell."""
        table = pa.Table.from_pylist(list(rows), arrow_schema(contract))
        with stage(table, contract, RedisStore.limits, WHOLE) as staged:
            told = self.store.write(contract, staged).told
        return {name.removeprefix("entities_"): count for name, count in told.items() if count}


@pytest.fixture
def serving(redis: RedisResource, postgres: PostgresResource) -> Serving:
    return Serving(redis, postgres)


def quality(name: str, accuracy: float | None = 0.9, age: timedelta = DAY, **more: Any) -> dict[str, Any]:
    return {"model_name": name, "accuracy": accuracy, "runs": 3, "event_timestamp": NOW - age, **more}


def entities(*names: str) -> list[dict[str, str]]:
    return [{"model_name": name} for name in names]


def origins(rows: Any, view: str = "run_quality") -> list[str]:
    return [row.views[view].served_from for row in rows]


def test_views_of_one_entity_are_answered_together(serving: Serving):
    serving.write(QUALITY, quality("cats", float("nan"), last_run=NOW), quality("döge's"))
    serving.write(LATENCY, {"model_name": "cats", "accuracy": 1.0, "day": date(2026, 1, 31)})
    serving.write(BY_DATASET, {"fold": 7, "dataset": "a", "score": 0.5, "at": NOW})
    asked = [{"model_name": name, "fold": 7, "dataset": "a"} for name in ("cats", "döge's", "unknown")]

    rows = serving.online().read(asked, ["run_quality", "latency:accuracy", "by_dataset:*"])

    assert [row.entity for row in rows] == asked
    cats, dogs, unknown = (row.values for row in rows)
    assert str(cats.pop("run_quality__accuracy")) == "nan"
    assert cats == {"runs": 3, "last_run": NOW, "latency__accuracy": 1.0, "score": 0.5}
    assert dogs["run_quality__accuracy"] == 0.9
    assert dogs["latency__accuracy"] is dogs["last_run"] is None
    assert unknown == dict.fromkeys(unknown) | {"score": 0.5}
    assert origins(rows) == ["redis", "redis", "none"]
    assert origins(rows, "latency") == ["redis", "none", "none"]
    assert origins(rows, "by_dataset") == ["redis"] * 3
    told = rows[0].views
    assert told["run_quality"].event_timestamp == NOW - DAY
    age = datetime.now(UTC) - (NOW - DAY)
    assert told["run_quality"].age_s == pytest.approx(age.total_seconds(), abs=60)
    assert told["latency"].event_timestamp == datetime(2026, 1, 31, tzinfo=UTC)
    flat = serving.online().read({"model_name": ["cats", "dogs"]}, "latency").to_arrow().to_pylist()
    assert [row["latency__served_from"] for row in flat] == ["redis", "none"]
    with serving.cache() as cache:
        assert cache.hkeys('ml-assets:entity:{"model_name":"cats"}') == [b"run_quality", b"latency"]


def test_only_what_has_changed_is_written(serving: Serving):
    first = [quality(f"m{n}") for n in range(5)]
    assert serving.write(QUALITY, *first) == {"written": 5}
    assert serving.write(QUALITY, *first) == {"unchanged": 5}
    second = [*first[:3], quality("m3", 0.1), quality("new", age=40 * DAY)]
    assert serving.write(QUALITY, *second) == {"written": 1, "unchanged": 3, "expired": 1, "removed": 1}
    rows = serving.online().read(entities("m2", "m3", "m4", "new"), "run_quality")
    assert [row.values["accuracy"] for row in rows] == [0.9, 0.1, None, None]
    assert origins(rows) == ["redis", "redis", "none", "none"]


def test_a_view_that_has_changed_is_noticed(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    serving.write(QUALITY, quality("cats"))
    online = serving.online()
    asked = entities("cats")
    assert set(online.read(asked, "run_quality")[0].values) == {"accuracy", "runs", "last_run"}
    more = replace(QUALITY, columns=(*QUALITY.columns, Column("loss", "float64")), ttl_s=3_600)
    assert serving.write(more, quality("cats", age=timedelta(), loss=0.5)) == {"written": 1}
    assert online.read(asked, "run_quality:loss")[0].values == {"loss": 0.5}  # looked for at once
    assert serving.write(more, quality("cats", loss=0.5)) == {"expired": 1}
    monkeypatch.setattr("ml_assets.operations.feature_online._LOOKED_S", 0.0)
    online.read(asked, "run_quality")
    assert online.settle()
    assert origins(online.read(asked, "run_quality")) == ["none"]


def test_a_refill_of_a_reader_with_an_old_contract_keeps_new_columns(serving: Serving):
    serving.write(QUALITY, quality("cats"))
    old = serving.online()
    assert origins(old.read(entities("cats"), "run_quality")) == ["redis"]
    more = replace(QUALITY, columns=(*QUALITY.columns, Column("loss", "float64")))
    serving.write(more, quality("cats", loss=0.5))
    with serving.cache() as cache:
        cache.delete(pointer.pointer_of(more))  # as a writer that died has left it
    assert origins(old.read(entities("cats"), "run_quality")) == ["postgres"]
    assert old.settle()
    [row] = serving.online().read(entities("cats"), "run_quality:loss")
    assert (row.values, origins([row])) == ({"loss": 0.5}, ["redis"])


def test_a_recovery_with_an_old_contract_keeps_new_columns(serving: Serving):
    old = replace(QUALITY, asset="serving/plain", event_time=None, ttl_s=None)
    more = replace(old, columns=(*old.columns, Column("loss", "float64")))
    serving.write(old, quality("cats"))
    serving.write(more, quality("cats", loss=0.5))
    with serving.cache() as cache:
        cache.delete(*cache.keys("ml-assets:serving/plain*"))
        assert copies.refresh(cache, serving.postgres, old)
        row = lookup(cache, PostgresResource(url="postgresql://127.0.0.1:9/none"), more, "cats")
    assert row is not None
    assert row["loss"] == 0.5


def test_more_threads_than_the_drivers_pool_holds_read_from_redis(serving: Serving):
    pool = serving.redis.pool(lambda connection: connection.on_connect(), 1.0)
    assert pool is not None
    try:
        assert len({id(pool.get_connection()) for _ in range(101)}) == 101
    finally:
        pool.disconnect()


def test_a_request_that_meets_new_contracts_is_made_ready_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
):
    serving.write(QUALITY, quality("cats"))
    online, wanted = serving.online(), feature_online._wanted
    more = replace(QUALITY, columns=(*QUALITY.columns, Column("loss", "float64")))

    def meanwhile(*given: Any) -> Any:
        yield from wanted(*given)
        serving.write(more, quality("cats", loss=0.5))
        online._learn()  # as another thread does

    online.read([], "run_quality:runs")
    with monkeypatch.context() as patched:
        patched.setattr(feature_online, "_wanted", meanwhile)
        assert "loss" not in online.read(entities("cats"), "run_quality")[0].values
    assert online.read(entities("cats"), "run_quality")[0].values["loss"] == 0.5


def test_names_that_stand_for_two_things_are_told_apart(serving: Serving):
    serving.write(QUALITY, quality("cats"))
    of_runs = replace(BY_DATASET, asset="serving/of_runs", key=("runs",), columns=OF_RUNS)
    serving.write(of_runs, {"runs": 3, "score": 0.5, "at": NOW})
    online, asked = serving.online(), [{"model_name": "cats", "runs": 3, "loss": 1.0}]
    [flat] = online.read(asked, ["run_quality:runs", "of_runs"]).dicts()
    assert (flat["runs"], flat["run_quality__runs"], flat["score"], flat["loss"]) == (3, 3, 0.5, 1.0)
    with pytest.raises(
        Refusal, match="'runs' twice, as a column of the entities and as a feature: ask without"
    ):
        online.read(asked, "run_quality:runs").to_arrow()
    asked = [{"model_name": "cats", "run_quality__age_s": 1.0}]
    with pytest.raises(
        Refusal, match="'run_quality__age_s' twice, as a column of the entities and as what is told"
    ):
        online.read(asked, "run_quality").dicts()


def test_a_row_expires_by_its_event_time(serving: Serving):
    contract, key = replace(QUALITY, ttl_s=1), 'ml-assets:entity:{"model_name":"%s"}'
    now = datetime.now(UTC)
    dogs = quality("dogs", age=-DAY)
    serving.write(contract, quality("cats", age=NOW - now), dogs)
    with serving.cache() as cache:
        expires = cache.execute_command("HPEXPIRETIME", key % "dogs", "FIELDS", 1, "run_quality")
        assert expires == [int((NOW + DAY).timestamp() * 1000) + 1_001]
        while cache.exists(key % "cats"):  # by the server's own clock
            assert datetime.now(UTC) < now + timedelta(seconds=30)
        assert serving.store.live_state(contract) is None  # a part of it is gone as it should be
    # PostgreSQL has the row yet, which is as old.
    assert origins(serving.online().read(entities("cats", "dogs"), "run_quality")) == ["none", "redis"]
    assert lookup(None, serving.postgres, contract, {"model_name": "cats"}) is None
    assert lookup(None, serving.postgres, contract, "dogs") == {**dogs, "last_run": None}
    assert serving.write(contract, dogs) == {"unchanged": 1, "expired": 1}


def test_a_server_that_expires_no_fields_has_a_key_a_view(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    serving.write(QUALITY, quality("cats"))
    whole = pointer.ask
    monkeypatch.setattr(pointer, "ask", lambda connection: replace(whole(connection), expires_fields=False))
    monkeypatch.setattr("ml_assets.stores.redis.online.ask", pointer.ask)
    assert serving.write(QUALITY, quality("cats", 0.1), quality("dogs")) == {"written": 2}
    with serving.cache() as cache:
        keys = {key for key in cache.keys("ml-assets:entity:*") if cache.pttl(key) > 0}
    assert keys == {b'ml-assets:entity:{"model_name":"%s"}:run_quality' % name for name in (b"cats", b"dogs")}
    rows = serving.online().read(entities("cats", "mice", "dogs"), "run_quality:accuracy")
    assert [row.values["accuracy"] for row in rows] == [0.1, None, 0.9]
    assert origins(rows) == ["redis", "none", "redis"]
    assert serving.write(QUALITY, quality("dogs")) == {"unchanged": 1, "removed": 1}


FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["dagster", "duckdb", "psycopg", "redis", "ml_assets.tables.staging", __name__])

MANY = 2_500


def rewrite(redis_url: str, postgres_url: str, accuracy: float, begins: Any) -> None:
    """Write another version of a view, in a process of its own."""
    table = [quality(f"m{n}", accuracy) for n in range(MANY)]
    serving = Serving(RedisResource(url=redis_url), PostgresResource(url=postgres_url))
    serving.write(LATENCY)  # connections, imports
    begins.set()
    serving.write(QUALITY, *table)


def test_a_writer_that_is_killed_leaves_each_row_old_or_new(serving: Serving, record_property: Any):
    serving.write(QUALITY, *(quality(f"m{n}", 0.0) for n in range(MANY)))
    names, chance, inside = entities(*(f"m{n}" for n in range(0, MANY, 7))), random.Random(7), 0  # noqa: S311 - the same each time
    there = {0.0}
    for version in (1.0, 2.0, 3.0):
        begins = FORK.Event()
        writer = FORK.Process(target=rewrite, args=(serving.redis.url, serving.postgres.url, version, begins))
        writer.start()
        assert begins.wait(60)
        writer.join(chance.uniform(0.05, 0.6))
        inside += writer.exitcode is None
        writer.kill()
        writer.join()
        online = serving.online()
        rows = online.read(names, "run_quality")
        assert {row.values["accuracy"] for row in rows} <= there | {version}
        assert online.settle()
        rows = online.read(names, "run_quality")
        assert set(origins(rows)) == {"redis"}
        there = {row.values["accuracy"] for row in rows}
        assert len(there) == 1
        assert serving.store.live_state(QUALITY) == serving.store.ledger_state(QUALITY)
    record_property("kills", f"{inside} of 3 kills fell inside a write")


def test_a_copy_that_is_half_written_does_not_count(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    serving.write(QUALITY, quality("cats"), quality("dogs"))
    monkeypatch.setattr("ml_assets.stores.redis.entities._ROWS", 1)
    put, puts = entities_module._Copy.put, []

    def dying(copy: Any, rows: Any) -> None:
        puts.append(rows)
        if len(puts) == 2:
            raise KeyboardInterrupt
        put(copy, rows)

    with monkeypatch.context() as patched:
        patched.setattr(entities_module._Copy, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            serving.write(QUALITY, quality("cats", 0.2), quality("dogs", 0.2), quality("mice", 0.2))
    online = serving.online()
    rows = online.read(entities("cats", "dogs", "mice"), "run_quality")
    assert [row.values["accuracy"] for row in rows] == [0.2] * 3
    assert origins(rows) == ["postgres"] * 3
    assert online.settle()
    assert origins(online.read(entities("cats", "dogs", "mice"), "run_quality")) == ["redis"] * 3


def test_what_somebody_changes_in_redis_is_mended(serving: Serving):
    serving.write(QUALITY, quality("cats"), quality("dogs"))
    store = serving.store
    assert store.live_state(QUALITY) == store.ledger_state(QUALITY)
    assert store.keys(QUALITY) == {'{"model_name":"cats"}', '{"model_name":"dogs"}'}
    with serving.cache() as cache:
        cache.hset('ml-assets:entity:{"model_name":"cats"}', "run_quality", '{"accuracy": 1}')
        assert store.live_state(QUALITY) != store.ledger_state(QUALITY)
        assert store.recover({}).dealt_with == ("serving/run_quality",)
    assert store.live_state(QUALITY) == store.ledger_state(QUALITY)
    assert store.recover({}).state == "clean"


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, RedisResource]]:
    """A server of the test's own, which it may stop."""
    home = tmp_path_factory.mktemp("own")
    yield home, RedisResource(home=str(home), url=services.ensure("redis", home))
    services.stop_all(home)


@pytest.mark.embedded_only("starts, stops or kills servers of its own")
def test_without_redis_it_is_slower_and_then_filled_again(
    own_redis: tuple[Path, RedisResource], postgres: PostgresResource
):
    home, redis = own_redis
    serving = Serving(redis, postgres)
    online = serving.online()
    serving.write(QUALITY, quality("cats"), quality("dogs"))
    asked = entities("cats", "dogs", "unknown")
    assert origins(online.read(asked, "run_quality")) == ["redis", "redis", "none"]

    services.stop_all(home)
    rows = online.read(asked, "run_quality")
    assert origins(rows) == ["postgres", "postgres", "none"]
    assert [row.values["accuracy"] for row in rows] == [0.9, 0.9, None]
    assert online.settle()

    services.ensure("redis", home)
    deadline = time.monotonic() + 30
    while origins(rows := online.read(asked, "run_quality"))[0] != "redis":
        assert rows[0].values["accuracy"] == 0.9
        assert time.monotonic() < deadline
        online.settle()
    assert serving.write(QUALITY, quality("cats", 0.5)) == {"written": 1, "removed": 1}
    assert origins(online.read(asked, "run_quality")) == ["redis", "none", "none"]


WRONG = {
    "run_qualty": "There is no view 'run_qualty' online: did you mean run_quality?",
    "run_quality:acuracy": "The view run_quality has no feature 'acuracy': did you mean accuracy?",
    "run_quality:": "'run_quality:' names no feature",
    "new_one": "The view new_one was not brought online yet: materialize serving/new_one",
}


def test_what_cannot_be_is_a_sentence(serving: Serving):
    serving.write(QUALITY, quality("cats"))
    serving.write(BY_DATASET, {"fold": 7, "dataset": "a", "score": 0.5, "at": NOW})
    online = serving.online()
    for name, sentence in WRONG.items():
        with pytest.raises(Refusal) as told:
            online.read(entities("cats"), ["run_quality", name])
        assert str(told.value).startswith(sentence)
    for entity, sentence in (
        (
            {"model": "cats"},
            "serving/run_quality is looked up by model_name, and the entity .* has no 'model_name'",
        ),
        ({"model_name": 7}, "serving/run_quality: its key 'model_name' is string, and 7 is no such value"),
        ({"model_name": None}, "its key 'model_name' is string, and None is no such value"),
        ("cats", "Entity 0 is 'cats': give each as a dict"),
    ):
        with pytest.raises(Refusal, match=sentence):
            online.read([entity], "run_quality")
    with pytest.raises(Refusal, match="'fold' is int64, and 'x' is no such value"):
        online.read([{"fold": "x", "dataset": "a"}], "by_dataset")
    with pytest.raises(Refusal, match="equally long, and a has 2, b has 1"):
        online.read({"a": [1, 2], "b": [1]}, "run_quality")
    assert online.read([], "run_quality") == []


def test_the_command_and_the_stack_show_what_is_served(serving: Serving, tmp_path: Path, cli: Any):
    settings = serving.settings(tmp_path)
    serving.write(QUALITY, quality("cats", 0.25), quality("a,b"))
    shown = Stack(settings).features.online(entities("cats"), ["run_quality:accuracy"])
    assert shown[0].values == {"accuracy": 0.25}
    urls = {
        "ML_ASSETS_REDIS_URL": settings.redis_url or "",
        "ML_ASSETS_POSTGRES_URL": settings.postgres_url or "",
    }
    command = ("features", "online", "--entity", "model_name=cats", "--entity", "model_name=a,b")
    told = cli(settings.home, *command, "--view", "run_quality", "--json", **urls)
    assert [row["accuracy"] for row in json.loads(told.stdout)] == [0.25, 0.9], told.stderr
    told = cli(settings.home, *command, "--view", "run_quality:runs", **urls)
    assert [word in told.stdout for word in ("model_name=a,b", "redis", "runs")] == [True] * 3, told.stderr
    told = cli(settings.home, "features", "online", "--entity", "cats", "--view", "run_quality", **urls)
    assert told.stderr == "'cats' names no entity: write COLUMN=VALUE, such as model_name=cats.\n"


def test_a_log_whose_thread_had_too_much_to_do_goes_on(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ml_assets.stores.redis.background._MOST", 1)
    background, busy, go_on = Background(), threading.Event(), threading.Event()
    log = ServedLog(serving.postgres, background)

    def line(number: int) -> Line:
        return Line(NOW.timestamp(), "log", PREFIX + b'{"model_name":"cats"}', {"n": number}, "redis", NOW)

    assert background.leave(lambda: busy.set() or go_on.wait(30))
    assert busy.wait(30)
    assert background.leave(lambda: None)
    log.take([line(1)])
    assert background.dropped == 1
    go_on.set()
    assert background.finish()
    log.take([line(2)])
    assert background.finish()
    assert sorted(
        row["features"]["n"] for part in served_since(serving.postgres, "log", NOW, 1) for row in part
    ) == [1, 2]


def compared(verdict: Any) -> tuple[bool, Any, Any]:
    return verdict.passed, verdict.metadata["served"].value, verdict.metadata["equal"].value


FILE = """-- How a model does.
-- entity: model_name
-- event_time: at
-- known_time: known_at
-- key: model_name, at
-- ttl: 30d
-- online: yes
SELECT * FROM nowhere
"""


def test_a_file_that_is_online_is_served_from_its_first_run_on(
    serving: Serving, shared_lake: DuckLakeResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "model_quality.sql").write_text(FILE)
    # What is noted of one call in a hundred would be compared with what comes later.
    given = serving.settings(tmp_path).model_copy(update={"serving_log_share": 0.0})
    redis, postgres = serving.redis, serving.postgres
    rows: list[dict[str, Any]] = [
        {
            "model_name": "cats",
            "at": NOW - age * DAY,
            "known_at": NOW - age * DAY,
            "extra": '{"a":1}',
            "score": score,
        }
        for age, score in ((9, 0.1), (3, 0.2), (-1, 0.3))
    ]
    rows.append({**rows[0], "model_name": "old", "at": NOW - 31 * DAY})
    moment = pa.timestamp("us", "UTC")
    schema = pa.schema(
        [
            ("model_name", pa.string()),
            ("at", moment),
            ("known_at", moment),
            ("extra", pa.json_()),
            ("score", pa.float64()),
        ]
    )

    @dg.asset(
        key=["duckdb", "model_quality"], metadata={"key": ["model_name", "at"]}, io_manager_key="duckdb_io"
    )
    def table() -> pa.Table:
        plain = pa.schema(
            [field.with_type(pa.string()) if field.name == "extra" else field for field in schema]
        )
        return pa.Table.from_pylist(rows, plain).cast(schema)

    built: Any = views.build(given, tables(given))
    key = dg.AssetKey(["serving", "model_quality"])
    [served] = [asset for asset in built.assets if asset.key == key]
    [check] = [each for each in built.asset_checks if next(iter(each.check_keys)).asset_key == key]
    resources = {
        "lake": shared_lake,
        "postgres": postgres,
        "duckdb_io": DuckLakeIOManager(lake=shared_lake),
        "redis_io": RedisIOManager(redis=redis, postgres=postgres),
    }
    given_to: dict[str, Any] = {
        "resources": resources,
        "instance": dg.DagsterInstance.ephemeral(),
        "run_config": QUIET,
    }
    done = dg.materialize([table, served], **given_to)
    told = done.asset_materializations_for_node("serving__model_quality")[0].metadata
    assert (told["entities_written"].value, told["dagster/row_count"].value) == (1, 1)
    [row] = Stack(given).features.online({"model_name": ["cats"]}, "model_quality")
    assert row.values == {"known_at": NOW - 3 * DAY, "extra": '{"a":1}', "score": 0.2}
    rows.append({**rows[0], "at": NOW - 2 * DAY, "score": 0.4})
    done = dg.materialize([table, served], **given_to)
    told = done.asset_materializations_for_node("serving__model_quality")[0].metadata
    assert (told["entities_written"].value, told["entities_unchanged"].value) == (1, 0)
    [row] = Stack(given).features.online({"model_name": ["cats"]}, "model_quality:score")
    assert row.values == {"score": 0.4}
    assert row.views["model_quality"].served_from == "redis"
    given = given.model_copy(update={"serving_log_share": 1.0})
    features = Stack(given).features
    features.online(entities("cats", "unknown", "old"), "model_quality")
    assert features._online.settle()
    assert compared(check(lake=shared_lake, postgres=postgres)) == (True, 3, 3)
    # Of cats, a value is served that nobody would be trained on; of mice, a row is not online yet.
    features.online(entities("cats", "mice"), "model_quality:score")
    rows[-1]["score"] = 0.5
    rows.append({**rows[0], "model_name": "mice", "known_at": NOW, "at": NOW})
    dg.materialize([table], **given_to)
    assert features._online.settle()
    monkeypatch.setattr("ml_assets.operations.served_features._AT_ONCE", 2)  # three joins
    result: Any = check(lake=shared_lake, postgres=postgres)
    assert compared(result) == (False, 5, 2)
    told = [record.data for record in result.metadata["differences"].value.records]
    shown = {(one["entity"], one["feature"], one["served"], one["expected"], one["newer"]) for one in told}
    assert shown == {
        ("{'model_name': 'cats'}", "score", "0.4", "0.5", "False"),
        ("{'model_name': 'mice'}", "score", "None", "0.1", "True"),
    }
    assert sorted(one["served_from"] for one in told) == ["none", "redis", "redis"]
