"""What `ml-assets status` tells: each store's health, and the rows and content hash of each table.

Asking has no side effects: an embedded server that does not run is reported as down, not started, and what was
never written is not made. The tables of `intake` are left out as the ledgers are: rows are only ever appended to
them, so no write records a hash of the whole table, and what they lead to is in `raw`.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ml_assets import services
from ml_assets.contracts import TABLES, Contract
from ml_assets.errors import DamagedCollection, StoreBusy, StoreUnavailable
from ml_assets.lib.faults import one_sentence
from ml_assets.resources import store_resources
from ml_assets.resources.base import BUSY_TIMEOUT_S
from ml_assets.settings import STORES, Settings, redact_url
from ml_assets.tables.store import StoreHealth

RESOURCES = {"duckdb": "lake"}
"""Resource key of a store where it is not the store's own name."""

HOLDERS = {
    "postgres": ("postgres",),
    "duckdb": ("duckdb",),
    "clickhouse": ("clickhouse",),
    "chroma": ("chroma", "postgres"),
    "sqlite": ("sqlite",),
    "redis": ("postgres",),
}
"""Stores that tell what a store's tables hold; Chroma and Redis keep their books in PostgreSQL."""

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


@dataclass(frozen=True)
class Difference:
    """A table whose content is not what was recorded when it was written."""

    store: str
    table: str
    recorded: str
    measured: str

    @property
    def remedy(self) -> str:
        """What mends it."""
        if self.store in ("redis", "chroma"):
            return "run 'ml-assets recover', or rebuild the table from the UI"
        return "rebuild the table from the UI"


def tables_of(store: str, known: Iterable[Contract]) -> list[Contract]:
    """Contracts of the tables that a store holds; the online features lie in PostgreSQL and in Redis.

    Args:
        known: of the tables that were written there, whoever's they are.
    """
    asset_stores = {"redis": ["serving"], "postgres": ["postgres", "serving"]}.get(store, [store])
    foreign = [each for each in known if each.asset not in TABLES]
    found = [each for each in (*TABLES.values(), *foreign) if each.schema != "intake"]
    return [each for asset_store in asset_stores for each in found if each.store == asset_store]


def stores_status(settings: Settings, verify: bool = False) -> tuple[dict[str, Any], list[Difference]]:
    """Status of all stores by name, in the form of `ml-assets status --json`.

    Args:
        settings: which stores.
        verify: recompute every content hash from the store and compare it with the recorded one.

    Returns:
        the status, and with `verify` the tables that differ.
    """
    # As long as the health check waits, and no longer, for a store that was free a moment ago.
    hasty = settings.model_copy(update={"lock_timeout_s": BUSY_TIMEOUT_S})
    made = store_resources(hasty)
    resources = {store: made[RESOURCES.get(store, store)] for store in STORES}
    differences: list[Difference] = []
    with services.only_running():
        health = {store: resource.health() for store, resource in resources.items()}
        status = {store: _told(settings, store, resources[store], health[store]) for store in STORES}
        for store in HOLDERS:
            if health[store].state == "healthy" and not health[store].unwritten:
                _add_tables(status, store, resources, verify, differences)
    for answer in status.values():
        answer["detail"] = settings.masked(answer["detail"])
    return status, differences


def _told(settings: Settings, store: str, resource: Any, health: StoreHealth) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "url": redact_url(_where(settings, store, resource, health)),
        "mode": settings.mode(store),
        "version": health.version,
        "state": health.state,
        "detail": health.detail,
        "latency_ms": round(health.latency_ms, 1),
        "tables": {},
    }
    if store == "postgres":
        answer["extensions"] = list(health.extensions)
    return answer


def _where(settings: Settings, store: str, resource: Any, health: StoreHealth) -> str:
    with suppress(StoreUnavailable):  # it may have gone since it was asked
        if health.state != "down":
            return str(WHERE[store](resource))
    return _configured(settings, store)


def _configured(settings: Settings, store: str) -> str:
    # The catalog follows PostgreSQL unless it has a URL of its own.
    urls = (
        (settings.lake_url, settings.postgres_url)
        if store == "duckdb"
        else (getattr(settings, f"{store}_url"),)
    )
    return next((url for url in urls if url), "")


def _add_tables(
    status: dict[str, dict[str, Any]],
    store: str,
    resources: Mapping[str, Any],
    verify: bool,
    found: list[Difference],
) -> None:
    """What the store's tables hold, if everybody who has to be asked for it answers; else why not."""
    answer = status[store]
    for holder in HOLDERS[store]:
        if (state := status[holder]["state"]) != "healthy":
            why = f"Its tables are not listed: {holder}, which records what they hold, is {state}."
            answer["detail"] = " ".join(filter(None, (answer["detail"], why)))
            return
    tables: dict[str, Any] = {}
    differences: list[Difference] = []
    remarks, former = [answer["detail"]], []
    try:
        module, holders = _io_module(store), [resources[holder] for holder in HOLDERS[store]]
        for contract in tables_of(store, module.known(*holders)):
            table = module.recorded(*holders, contract)
            if (noted := module.recorded(*holders, contract, any_version=True)).rows != table.rows:
                # Hashes of a former version of this project cannot be held against what is there.
                tables[contract.table] = {"rows": noted.rows, "content_hash": ""}
                former.append(contract.table)
                continue
            tables[contract.table] = {"rows": table.rows, "content_hash": table.content_hash}
            if verify:
                measured = _measured_hash(store, module, resources, contract)
                if measured is None:
                    remarks.append(f"{contract.table} is not cached now: PostgreSQL answers.")
                elif measured != table.content_hash:
                    differences.append(Difference(store, contract.table, table.content_hash, measured))
    except Exception as fault:  # noqa: BLE001 - as a health check: whatever it is, the other stores are told of
        answer["state"] = "busy" if isinstance(fault, StoreBusy) else "down"
        answer["detail"] = f"Its tables cannot be listed: {one_sentence(fault)}"
        return
    if former:
        remarks.append(
            f"Not hashed since an update, until 'ml-assets refresh' writes them: {', '.join(former)}."
        )
    answer["tables"] = tables
    answer["detail"] = " ".join(filter(None, remarks))
    found += differences


def _measured_hash(store: str, module: Any, resources: Mapping[str, Any], contract: Contract) -> str | None:
    """Content hash of what the store holds; instead of it, why that cannot be read. None if Redis holds no copy."""
    try:
        look_at, holders = getattr(module, "damage", None), [resources[holder] for holder in HOLDERS[store]]
        if look_at and (damage := look_at(*holders, contract)):
            return f"rows that do not agree with themselves ({damage})"
        if store == "redis":  # the truth is PostgreSQL's, which is measured there
            copy = module.cached(resources["redis"], contract)
            return copy and copy.content_hash
        return module.measured(*holders, contract).content_hash
    except DamagedCollection as fault:
        return f"nothing that can be read ({fault})"
    except StoreUnavailable:
        raise  # not the table's fault, but the store's
    except Exception as fault:  # noqa: BLE001 - what was tampered with fails in as many ways as there are drivers
        return f"nothing that can be read ({one_sentence(fault)})"


def _io_module(store: str) -> Any:
    """The IO manager's module of a store, which knows how its tables were written."""
    return importlib.import_module(f"ml_assets.io_managers.{store}")
