"""How long online features take: 10 entities of 3 views at a time, beside a bare pipeline of HMGET on the same server.

    bare    redis-py's pipeline of one HMGET an entity on the same hashes; nothing is made of what comes back
    ours    `stack.features.online`: names to values, with where they come from and how old they are
    Feast   its Redis online store on the same server, with the same values, in an environment of its own

Bare and ours are asked by turns, each time for other entities, and Feast after them for the same ones. The server is the
embedded one, in a home of its own.

ML_ASSETS_BENCH_REQUESTS sets the requests of each (2,000 by default), ML_ASSETS_BENCH_ENTITIES how many entities there
are (1,000). ML_ASSETS_BENCH_FEAST is a Python that has Feast; an environment is made if it is not set, and Feast is left
out if it is `no`. The exit status is 1 if the limit is missed.
"""

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from benchmarks.limits import finish, verdict
from ml_assets import services
from ml_assets.contracts import Column, Contract
from ml_assets.settings import Settings
from ml_assets.stack import Stack
from ml_assets.stores.redis import RedisStore
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE

REQUESTS = int(os.environ.get("ML_ASSETS_BENCH_REQUESTS", "2000"))
ENTITIES = int(os.environ.get("ML_ASSETS_BENCH_ENTITIES", "1000"))
AT_ONCE = 10
FEATURES = 5
VIEWS = ("quality", "latency", "usage")
LIMIT = 1.5
"""Our 99th percentile to that of the bare pipeline."""

FEAST = "feast[redis]==0.67.0"
"""Pinned: unpinned, a resolver may fall back to a version of years ago."""

_FEAST_RUN = """
import json, sys, time, warnings
from datetime import timedelta
from pathlib import Path

import pandas as pd

warnings.filterwarnings("ignore")
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

folder, socket, given = Path(sys.argv[1]), sys.argv[2], json.load(sys.stdin)
store = FeatureStore(config=RepoConfig(
    project="bench", provider="local", registry=str(folder / "registry.db"), entity_key_serialization_version=3,
    online_store={"type": "redis", "connection_string": f"localhost:1,unix_socket_path={socket}"},
    offline_store={"type": "file"},
))
model = Entity(name="model", join_keys=["model_name"], value_type=ValueType.STRING)
views = []
for name, path in given["files"].items():
    fields = [Field(name=f"{name}_{n}", dtype=Float64) for n in range(given["features"])]
    source = FileSource(path=path, timestamp_field="event_timestamp")
    views.append(FeatureView(name=name, entities=[model], ttl=timedelta(days=30), schema=fields, source=source))
store.apply([model, *views])
for name, path in given["files"].items():
    store.write_to_online_store(name, pd.read_parquet(path))
wanted = [f"{name}:{name}_{n}" for name in given["files"] for n in range(given["features"])]

def ask(names):
    return store.get_online_features(features=wanted, entity_rows=[{"model_name": name} for name in names]).to_dict()

for names in given["requests"][:50]:
    ask(names)
took = []
for names in given["requests"]:
    start = time.perf_counter()
    ask(names)
    took.append(time.perf_counter() - start)
json.dump({"took": took, "values": ask(given["requests"][0])}, sys.stdout)
"""


def contract(view: str) -> Contract:
    """A view of some numbers of a model."""
    numbers = (Column(f"{view}_{n}", "float64") for n in range(FEATURES))
    return Contract(
        f"serving/{view}",
        "numbers of a model",
        (
            Column("model_name", "string", nullable=False),
            *numbers,
            Column("event_timestamp", "timestamp", nullable=False),
        ),
        key=("model_name",),
        mode="upsert_delete",
        event_time="event_timestamp",
        ttl_s=30 * 86_400,
    )


def rows(view: str, now: datetime) -> pa.Table:
    """The rows of a view, the same in each run."""
    chance = np.random.default_rng(7)
    names = [f"model_{n}" for n in range(ENTITIES)]
    numbers = {f"{view}_{n}": chance.random(ENTITIES) for n in range(FEATURES)}
    return pa.table(
        {"model_name": names, **numbers, "event_timestamp": [now] * ENTITIES}, arrow_schema(contract(view))
    )


def main() -> None:
    """Measure, and compare with the limit."""
    home = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        run(home)
    finally:
        services.stop_all(home)
        shutil.rmtree(home, ignore_errors=True)


def run(home: Path) -> None:
    """Write the views into a new home, ask for them, and tell."""
    stack = Stack(Settings(home=home, serving_log_share=0.0))
    store = RedisStore(stack._resources["redis"], stack._resources["postgres"])
    now = datetime.now(UTC)
    for view in VIEWS:
        with stage(rows(view, now), contract(view), RedisStore.limits, WHOLE) as staged:
            store.write(contract(view), staged)
    cache = stack._resources["redis"].client()
    features = stack.features
    chance = random.Random(7)  # noqa: S311 - the same in each run
    requests = [[f"model_{chance.randrange(ENTITIES)}" for _ in range(AT_ONCE)] for _ in range(REQUESTS)]

    def bare(names: Sequence[str]) -> None:
        with cache.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(f'ml-assets:entity:{{"model_name":"{name}"}}', VIEWS)
            pipe.execute()

    def ours(names: Sequence[str]) -> None:
        found = features.online([{"model_name": name} for name in names], VIEWS)
        if found[0].views["usage"].served_from != "redis":
            raise RuntimeError("it was not Redis that answered")

    took = by_turns({"bare": bare, "ours": ours}, requests)
    values = [row.values for row in features.online([{"model_name": name} for name in requests[0]], VIEWS)]
    if (other := os.environ.get("ML_ASSETS_BENCH_FEAST", "")) != "no":
        told = feast(home, Path(other) if other else environment(home), now, requests)
        took["Feast"] = told["took"]
        for number, row in enumerate(values):
            if row != {name: told["values"][name][number] for name in row}:
                raise RuntimeError(f"Feast serves other values of {requests[0][number]}")
    show(took)
    finish()


def show(took: dict[str, list[float]]) -> None:
    """Print percentiles, and each way's to the bare pipeline's."""
    title = f"{AT_ONCE} entities of {len(VIEWS)} views, {REQUESTS:,} requests of each"
    table = Table("", "median ms", "p99 ms", "median to bare", "p99 to bare", "limit", title=title)
    bare = np.percentile(took["bare"], [50, 99])
    for name, times in took.items():
        found = np.percentile(times, [50, 99])
        to_bare = found / bare
        limit = verdict("p99 to a bare pipeline", float(to_bare[1]), LIMIT) if name == "ours" else ""
        table.add_row(
            name, *(f"{1000 * value:.3f}" for value in found), *(f"{value:.2f}" for value in to_bare), limit
        )
    Console().print(table)


def environment(home: Path) -> Path:
    """A Python of its own with Feast."""
    folder = home / "feast-environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", FEAST], check=True)
    return folder / "bin" / "python"


def feast(home: Path, python: Path, now: datetime, requests: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Seconds of each request in Feast, and the values of the first one.

    Args:
        python: that has Feast.
        requests: names of entities.
    """
    folder = home / "feast"
    folder.mkdir()
    files = {view: folder / f"{view}.parquet" for view in VIEWS}
    for view, file in files.items():
        pyarrow.parquet.write_table(rows(view, now), file)
    given = {
        "files": {view: str(file) for view, file in files.items()},
        "features": FEATURES,
        "requests": requests,
    }
    socket = urlsplit(services.ensure("redis", home)).path
    done = subprocess.run(
        [python, "-c", _FEAST_RUN, folder, socket],
        input=json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "FEAST_USAGE": "False"},
    )
    return json.loads(done.stdout)


def by_turns(
    ways: dict[str, Callable[[Sequence[str]], Any]], requests: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """Seconds of each request in each way. What disturbs the machine disturbs all."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for names in requests[:50]:
        for ask in ways.values():
            ask(names)
    gc.collect()
    for names in requests:
        for name, ask in ways.items():
            start = time.perf_counter()
            ask(names)
            took[name].append(time.perf_counter() - start)
    return took


if __name__ == "__main__":
    main()
