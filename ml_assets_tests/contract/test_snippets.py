"""The definitions of docs/io_managers.md, each as a Dagster project that has nothing else of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_assets.settings import PROJECT_ROOT

SECTIONS = (PROJECT_ROOT / "docs" / "io_managers.md").read_text().split("\n## ")[1:]
SNIPPETS = {
    section.partition("\n")[0]: section.partition("```python\n")[2].partition("```")[0]
    for section in SECTIONS
    if "```python" in section
}

DRIVE = """
import json
import sys

import dagster as dg
import pyarrow as pa
from definitions import defs

assert not {"ml_assets.build", "ml_assets.definitions", "ml_assets.cli.refresh"} & set(sys.modules)
partitions = {"orders": ["2026-01-01", "2026-01-02"], "events": ["2026-01-01", "2026-01-02"]}


def run(instance):
    told = []
    for asset in defs.resolve_asset_graph().toposorted_asset_keys:
        for partition in partitions.get(asset.to_user_string(), [None]):
            job = defs.resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(asset_selection=[asset], partition_key=partition, instance=instance)
            for event in result.get_asset_materialization_events():
                metadata = event.materialization.metadata
                plain = {k: v.value for k, v in metadata.items() if k != "dagster/column_schema"}
                told.append([asset.to_user_string(), plain])
    return told


with dg.DagsterInstance.ephemeral() as instance:
    told = [run(instance), run(instance)]
    with defs.get_asset_value_loader(instance) as loader:
        rows = {
            name: loader.load_asset_value(name, python_type=pa.Table).to_pylist()
            for name, metadata in told[0]
            if "dagster/table_name" in metadata
        }
manager = defs.resources["io_manager"]
looked_up = manager.lookup("limits", "c1") if hasattr(manager, "lookup") else None
print(json.dumps({"told": told, "rows": rows, "looked_up": looked_up}, default=str))
"""

EXPECTED: dict[str, dict[str, list[dict[str, Any]]]] = {
    "DuckLake": {
        "orders": [
            {"order_id": order, "at": f"2026-01-0{day} 00:00:00+00:00", "amount": amount}
            for day in (1, 2)
            for order, amount in ((1, 9.5), (2, 8.0))
        ],
    },
    "PostgreSQL": {
        "customers": [
            {"customer_id": "c1", "name": "Ada", "visits": 3},
            {"customer_id": "c2", "name": "Grace", "visits": 5},
        ],
    },
    "ClickHouse": {
        "events": [{"id": "a", "at": f"2026-01-0{day} 00:00:00+00:00", "ms": 12.5} for day in (1, 2)],
    },
    "Chroma": {
        "passages": [
            {"id": "p1", "embedding": [0.6, 0.8], "text": "one", "page": 7},
        ]
    },
    "SQLite": {
        "products": [
            {"sku": "a", "price": 1.5, "tags": '{"new":true}'},
            {"sku": "b", "price": 2.5, "tags": "{}"},
        ],
    },
    "Redis": {
        "limits": [{"customer_id": "c1", "credit": 100.0}, {"customer_id": "c2", "credit": 250.5}],
    },
}
EXPECTED["Types in and out"] = {**EXPECTED["PostgreSQL"], "visits": [{"visits": 8}]}
BEFORE = {"Types in and out": "PostgreSQL"}
"""The example that one goes on from."""


@pytest.fixture
def environment(
    tmp_path: Path, _database: str, _catalog: str, request: pytest.FixtureRequest
) -> dict[str, str]:
    """The variables that the page names, and none of ours."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
    chroma = request.getfixturevalue("chroma")
    return {
        **inherited,
        "LAKE_CATALOG_URL": _catalog,
        "POSTGRES_URL": _database,
        "CLICKHOUSE_URL": request.getfixturevalue("clickhouse").url or f"chdb://{tmp_path}/clickhouse",
        "CHROMA_URL": chroma.server_url(),
        "REDIS_URL": request.getfixturevalue("redis").url,
    }


@pytest.mark.parametrize("store", EXPECTED)
def test_a_snippet_is_a_project_of_its_own(store: str, tmp_path: Path, environment: dict[str, str]) -> None:
    project = tmp_path / "project"
    project.mkdir()
    before = SNIPPETS[BEFORE[store]] if store in BEFORE else ""
    (project / "definitions.py").write_text(before + SNIPPETS[store])
    done = subprocess.run(
        [sys.executable, "-c", DRIVE],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: sorted(rows, key=repr) for name, rows in found["rows"].items()} == {
        name: sorted(map(_as_float32, rows), key=repr) for name, rows in EXPECTED[store].items()
    }
    first, second = found["told"]
    tables = [(name, metadata["written"]) for name, metadata in first if "written" in metadata]
    assert all(written for _, written in tables)
    assert [(n, m["written"]) for n, m in second if "written" in m] == [(n, False) for n, _ in tables]
    assert found["looked_up"] == ({"customer_id": "c1", "credit": 100.0} if store == "Redis" else None)


def _as_float32(row: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    return {k: np.asarray(v, np.float32).tolist() if isinstance(v, list) else v for k, v in row.items()}


def test_every_io_manager_has_its_snippet_of_ten_lines() -> None:
    assert list(SNIPPETS) == list(EXPECTED)
    for name, code in SNIPPETS.items():
        lines = [line for line in code.splitlines() if line.strip()]
        assert len(lines) <= 10, name
