"""The house as its imports show it: which room may use which, and what a room never does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ml_assets"

ROOMS = (
    "cli",
    "definitions",
    "components",
    "build",
    "executors",
    "defs",
    "demo",
    "stack",
    "operations",
    "maintenance",
    "intake",
    "io_managers",
    "resources",
    "stores",
    "tables",
    "services",
    "embedders",
    "metadata",
    "contracts",
    "partitions",
    "automation",
    "sql_files",
    "settings",
    "home",
    "lib",
    "errors",
)
"""From the top down, as docs/architecture.md lists them; a room imports only rooms below it."""

DRIVERS = {
    "duckdb",
    "psycopg",
    "sqlite3",
    "clickhouse_connect",
    "chdb",
    "chromadb",
    "qdrant_client",
    "qdrant_edge",
    "redis",
    "mlflow",
    "httpx",
}
OPENING = {
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "connect",
    "urlopen",
    "unlink",
    "mkdir",
}


def modules(room: str = "") -> Iterator[tuple[str, ast.Module]]:
    """Dotted name below the package, and the parsed source."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and (not room or parts[0] == room):
            yield name, ast.parse(path.read_text())


def imports(tree: ast.Module) -> set[str]:
    """All that a module imports, wherever in it: `ml_assets.lib.sql`, `dagster`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_no_import_runs_upwards():
    upwards = []
    for name, tree in modules():
        room = name.split(".")[0]
        for each in imports(tree):
            parts = each.split(".")
            if parts[0] == "ml_assets" and len(parts) > 1 and ROOMS.index(parts[1]) < ROOMS.index(room):
                upwards.append(f"{name} imports {each}")
    assert not upwards


def test_errors_imports_nothing_of_ours():
    ((_, tree),) = modules("errors")
    assert not imports(tree)


@pytest.mark.parametrize("room", ["lib", "tables", "stores", "intake", "operations"])
def test_these_rooms_know_no_dagster(room):
    assert not [
        name for name, tree in modules(room) if any(i.split(".")[0] == "dagster" for i in imports(tree))
    ]


def test_lib_is_pure():
    """It imports no driver, opens no file and no connection."""
    found = []
    for name, tree in modules("lib"):
        found += [f"{name} imports {i}" for i in imports(tree) if i.split(".")[0] in DRIVERS]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("open", "os.open") or called.rpartition(".")[2] in OPENING:
                    found.append(f"{name}:{node.lineno} calls {called}")
    assert not found


@pytest.mark.parametrize("room", ["stores", "io_managers", "resources", "services"])
def test_no_store_imports_another(room):
    stores = {"postgres", "duckdb", "clickhouse", "chroma", "qdrant", "sqlite", "redis", "mlflow"}
    across = []
    for name, tree in modules(room):
        own = name.split(".")[1] if "." in name else ""
        for each in imports(tree):
            parts = each.split(".")
            if own in stores and parts[:2] == ["ml_assets", room] and parts[2] in stores - {own}:
                across.append(f"{name} imports {each}")
    assert not across
