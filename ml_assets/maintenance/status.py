"""What `ml-assets status` tells: each store's health, and the rows and content hash of each table.

Asking has no side effects: an embedded server that does not run is reported as down, not started, and what was
never written is not made. The tables of `intake` are left out as the ledgers are: rows are only ever appended to
them, so no write records a hash of the whole table, and what they lead to is in `raw`.
"""

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from ml_assets import services
from ml_assets.contracts import Contract, Tables, tables
from ml_assets.errors import DamagedCollection, StoreBusy, StoreUnavailable
from ml_assets.intake import quarantine
from ml_assets.lib.faults import one_sentence
from ml_assets.maintenance.slow_statements import SHOWN, SlowStatements, slow_statements
from ml_assets.resources import store_resources
from ml_assets.resources.base import BUSY_TIMEOUT_S
from ml_assets.settings import Settings, redact_url
from ml_assets.stores.registry import stores
from ml_assets.tables.staging import TableState, bucket_start
from ml_assets.tables.store import StoreHealth, TableStore


@dataclass(frozen=True)
class Difference:
    """A table whose content is not what was recorded when it was written."""

    store: str
    table: str
    recorded: str
    measured: str

    recoverable: bool = False
    """Whether `ml-assets recover` brings it back."""

    @property
    def remedy(self) -> str:
        """What mends it."""
        recover = "run 'ml-assets recover', or " if self.recoverable else ""
        return f"{recover}rebuild the table from the UI"


def tables_of(store: TableStore, tables: Tables) -> list[Contract]:
    """Contracts of the tables that a store holds, whoever's they are: this project's, and those that were written.

    Args:
        tables: this project's.
    """
    foreign = [each for each in store.contracts() if each.asset not in tables]
    found = [each for each in (*tables.values(), *foreign) if each.schema != "intake"]
    return [each for prefix in (store.prefix, *store.also_holds) for each in found if each.store == prefix]


def status_json(
    settings: Settings,
    stores: dict[str, Any],
    quarantined: dict[str, int] | None,
    differences: list[Difference] | None,
    disk: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What `ml-assets status --json` prints.

    Args:
        stores: as `stores_status` gives them.
        quarantined: as `quarantined_rows` gives them.
        differences: None if nothing was verified.
        disk: bytes by part, as `disk.disk_use` gives them; None if that was not asked.
    """
    told: dict[str, Any] = {"home": str(settings.home), "stores": stores, "quarantined": quarantined}
    if disk is not None:
        told["disk"] = dict(disk)
    return told if differences is None else {**told, "differences": [vars(each) for each in differences]}


def stores_status(
    settings: Settings, verify: bool = False, start: bool = False
) -> tuple[dict[str, Any], list[Difference]]:
    """Status of all stores by name, in the form of `ml-assets status --json`.

    Args:
        settings: which stores.
        verify: recompute every content hash from the store and compare it with the recorded one.
        start: start embedded servers that do not run, in place of reporting them as down.

    Returns:
        the status, and with `verify` the tables that differ.
    """
    # As long as the health check waits, and no longer, for a store that was free a moment ago.
    hasty = settings.model_copy(update={"lock_timeout_s": BUSY_TIMEOUT_S})
    made, contracts = store_resources(hasty), tables(settings)
    held = stores(made)
    resources = {store.name: made[store.resources[0]] for store in held} | {"mlflow": made["mlflow"]}
    differences: list[Difference] = []
    with nullcontext() if start else services.only_running():
        health = {name: resource.health() for name, resource in resources.items()}
        status = {name: _told(settings, name, resources[name], health[name]) for name in resources}
        for store in held:
            if health[store.name].state == "healthy" and not health[store.name].unwritten:
                _add_tables(status, store, contracts, verify, differences)
    for answer in status.values():
        answer["detail"] = settings.masked(answer["detail"])
    return status, differences


def quarantined_rows(settings: Settings, status: Mapping[str, Any]) -> dict[str, int] | None:
    """Rows in quarantine by stream, of those that have any; None if PostgreSQL, where the ledger is, does not answer.

    Args:
        settings: which stores.
        status: what `stores_status` has just told.
    """
    if status["postgres"]["state"] != "healthy":
        return None
    try:
        with services.only_running():
            return quarantine.counts(store_resources(settings)["postgres"])
    except StoreUnavailable:  # it has gone since
        return None


def slow_status(settings: Settings, status: Mapping[str, Any], limit: int | None = None) -> SlowStatements:
    """The statements of ours that take PostgreSQL the most time; it is not started for that.

    Args:
        settings: which stores.
        status: what `stores_status` has just told.
        limit: how many; None for the usual number.

    Raises:
        Refusal: fewer than one is asked for.
    """
    if (state := status["postgres"]["state"]) != "healthy":
        return SlowStatements(None, f"PostgreSQL is {state}, so its statements are not known.")
    resources, embedded = store_resources(settings), settings.mode("postgres") == "embedded"
    try:
        with services.only_running():
            return slow_statements(
                resources["postgres"], resources["lake"], embedded, SHOWN if limit is None else limit
            )
    except StoreUnavailable as fault:  # it has gone since
        return SlowStatements(None, str(fault))


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
    if health.extensions:
        answer["extensions"] = list(health.extensions)
    return answer


def _where(settings: Settings, store: str, resource: Any, health: StoreHealth) -> str:
    with suppress(StoreUnavailable):  # it may have gone since it was asked
        if health.state != "down":
            return str(resource.location())
    return settings.url_of(store)


def _add_tables(
    status: dict[str, dict[str, Any]],
    store: TableStore,
    contracts: Tables,
    verify: bool,
    found: list[Difference],
) -> None:
    """What the store's tables hold, if the store that keeps its ledger answers, too; else why not."""
    answer = status[store.name]
    if store.books and (state := status[store.books]["state"]) != "healthy":
        why = f"Its tables are not listed: {store.books}, which records what they hold, is {state}."
        answer["detail"] = " ".join(filter(None, (answer["detail"], why)))
        return
    listed: dict[str, Any] = {}
    differences: list[Difference] = []
    remarks, former = [answer["detail"]], []
    try:
        # Not where whole tables are hashed: others get their turn between two of them.
        with nullcontext() if verify else store.opened():
            for contract in tables_of(store, contracts):
                table = store.ledger_state(contract)
                if (noted := store.ledger_state(contract, any_version=True)).rows != table.rows:
                    # Hashes of a former version of this project cannot be held against what is there.
                    listed[contract.table] = _listed(contract, noted) | {"content_hash": ""}
                    former.append(contract.table)
                    continue
                listed[contract.table] = _listed(contract, table)
                if verify:
                    live = _live_hash(store, contract)
                    if live is None:
                        remarks.append(f"{contract.table} is not cached now: PostgreSQL answers.")
                    elif live != table.content_hash:
                        differences.append(
                            Difference(
                                store.name, contract.table, table.content_hash, live, bool(store.books)
                            )
                        )
    except Exception as fault:  # noqa: BLE001 - as a health check: whatever it is, the other stores are told of
        answer["state"] = "busy" if isinstance(fault, StoreBusy) else "down"
        answer["detail"] = f"Its tables cannot be listed: {one_sentence(fault)}"
        return
    if former:
        remarks.append(
            f"Not hashed since an update, until 'ml-assets refresh' writes them: {', '.join(former)}."
        )
    answer["tables"] = listed
    answer["detail"] = " ".join(filter(None, remarks))
    found += differences


def _listed(contract: Contract, noted: TableState) -> dict[str, Any]:
    """What is told of a table. The bytes are those of the values; times are UTC."""
    newest = None if contract.partition_column is None else noted.newest
    return {
        "asset": contract.asset,
        "rows": noted.rows,
        "content_hash": noted.content_hash,
        "bytes": noted.bytes,
        "newest": None if newest is None else bucket_start(newest).isoformat(),
        "written_at": noted.written_at and noted.written_at.astimezone(UTC).isoformat(),
    }


def _live_hash(store: TableStore, contract: Contract) -> str | None:
    """Content hash of what the store holds; instead of it, why that cannot be read. None if it holds no copy."""
    try:
        if damage := store.damage(contract):
            return f"rows that do not agree with themselves ({damage})"
        state = store.live_state(contract)
        return state and state.content_hash
    except DamagedCollection as fault:
        return f"nothing that can be read ({fault})"
    except StoreUnavailable:
        raise  # not the table's fault, but the store's
    except Exception as fault:  # noqa: BLE001 - what was tampered with fails in as many ways as there are drivers
        return f"nothing that can be read ({one_sentence(fault)})"
