"""What `ml-assets status` tells: each store's health, and the rows and content hash of each table.

Asking has no side effects: an embedded server that does not run is reported as down, not started.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ml_assets import services
from ml_assets.build import store_resources
from ml_assets.contracts import TABLES, Contract
from ml_assets.resources.base import StoreUnavailable, one_sentence
from ml_assets.settings import STORES, Settings, redact_url

RESOURCES = {"duckdb": "lake"}
"""Resource key of a store where it is not the store's own name."""

HOLDERS = {
    "postgres": ("postgres",),
    "duckdb": ("lake",),
    "clickhouse": ("clickhouse",),
    "chroma": ("chroma", "postgres"),
    "sqlite": ("sqlite",),
    "redis": ("postgres",),
}
"""Resources that tell what a store's tables hold; Chroma and Redis keep their books in PostgreSQL."""

WHERE: dict[str, Callable[[Any], object]] = {
    "postgres": lambda resource: resource.connection_url(),
    "duckdb": lambda resource: resource.resolved_catalog_url(),
    "clickhouse": lambda resource: resource.connection_url(),
    "chroma": lambda resource: resource.server_url(),
    "sqlite": lambda resource: f"sqlite:///{resource.path}",
    "redis": lambda resource: resource.server_url() or "",
    "mlflow": lambda resource: resource.tracking_uri(),
}
"""URL of a store that answers."""

NOT_RUNNING = "The embedded server does not run; `ml-assets refresh` or `make up` starts it."


@dataclass(frozen=True)
class Difference:
    """A table whose content is not what was recorded when it was written."""

    store: str
    table: str
    recorded: str
    measured: str


def tables_of(store: str) -> list[Contract]:
    """Contracts of the tables that a store holds; the online features lie in PostgreSQL and in Redis."""
    asset_store = {"redis": "serving"}.get(store, store)
    found = [c for c in TABLES.values() if c.store == asset_store and c.schema != "intake"]
    return found + ([c for c in TABLES.values() if c.store == "serving"] if store == "postgres" else [])


def stores_status(settings: Settings, verify: bool = False) -> tuple[dict[str, Any], list[Difference]]:
    """Status of all stores by name, in the form of `ml-assets status --json`.

    Args:
        settings: which stores.
        verify: recompute every content hash from the store and compare it with the recorded one.

    Returns:
        the status, and with `verify` the tables that differ.
    """
    resources = store_resources(settings)
    running = {name: state.state == "running" for name, state in services.describe(settings.home).items()}
    differences: list[Difference] = []
    status = {}
    for store in STORES:
        status[store] = _one(settings, store, resources[RESOURCES.get(store, store)], running)
        if status[store]["state"] == "healthy":
            _add_tables(status[store], store, resources, verify, differences)
    return status, differences


def _one(settings: Settings, store: str, resource: Any, running: dict[str, bool]) -> dict[str, Any]:
    mode = settings.mode(store)
    server = {"duckdb": "postgres"}.get(store, store)
    answer: dict[str, Any] = {"url": "", "mode": mode, "version": "", "latency_ms": 0.0, "tables": {}}
    if mode == "embedded" and server in running and not running[server]:
        if store == "redis" and not services.available("redis"):
            detail = "No Redis for this Python is in the registries; PostgreSQL alone serves online features."
            return {**answer, "state": "healthy", "detail": detail}
        return {**answer, "state": "down", "detail": NOT_RUNNING}
    health = resource.health()
    answer |= {
        "url": redact_url(str(WHERE[store](resource)))
        if health.state != "down"
        else _configured(settings, store),
        "version": health.version,
        "state": health.state,
        "detail": health.detail,
        "latency_ms": round(health.latency_ms, 1),
    }
    if store == "postgres":
        answer["extensions"] = list(health.extensions)
    return answer


def _configured(settings: Settings, store: str) -> str:
    # The catalog follows PostgreSQL unless it has a URL of its own.
    url = (
        settings.lake_url or settings.postgres_url if store == "duckdb" else getattr(settings, f"{store}_url")
    )
    return redact_url(url) if url else ""


def _add_tables(
    answer: dict[str, Any], store: str, resources: dict[str, Any], verify: bool, found: list[Difference]
) -> None:
    holders = [resources[name] for name in HOLDERS.get(store, ())]
    for contract in tables_of(store):
        module = _io_module(store)
        table = module.recorded(*holders, contract)
        answer["tables"][contract.table] = {"rows": table.rows, "content_hash": table.content_hash}
        if verify:
            measured = _measured_hash(module, holders, contract)
            if measured != table.content_hash:
                found.append(Difference(store, contract.table, table.content_hash, measured))


def _measured_hash(module: Any, holders: list[Any], contract: Contract) -> str:
    """Content hash of what the store holds; instead of it, why the table cannot be read."""
    try:
        return module.measured(*holders, contract).content_hash
    except StoreUnavailable:
        raise  # says by itself what to do
    except Exception as fault:  # noqa: BLE001 - what was tampered with fails in as many ways as there are drivers
        return f"nothing that can be read ({one_sentence(fault)})"


def _io_module(store: str) -> Any:
    """The IO manager's module of a store, which knows how its tables were written."""
    return importlib.import_module(f"ml_assets.io_managers.{store}")
