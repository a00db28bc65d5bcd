"""What `ml-assets recover` does: finish or undo what killed writers have left, in every store, now.

What keeps its books in another store is held against them: Chroma's collections and Redis' copies, whoever's table it
is. What they have lost is brought back.

Nobody has to run it: whoever writes to a table next does the same for that table, and an embedded ClickHouse
does it whenever it is opened. It is for whoever wants to be sure after a crash or before a backup.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

_ONE_TRANSACTION = (
    "A write is one transaction, so there is nothing to finish: what was not committed never was."
)


@dataclass(frozen=True)
class Recovery:
    """What was found in one store.

    Args:
        store: its name.
        state: `clean`, `recovered` if something was finished or undone, `failed` if something could not be
            and was set aside, `down` if that could not be seen.
        detail: one sentence.
        dealt_with: names of what was finished or undone.
    """

    store: str
    state: Literal["clean", "recovered", "failed", "down"]
    detail: str
    dealt_with: tuple[str, ...] = ()


def recover_all(resources: Mapping[str, Any]) -> list[Recovery]:
    """Look at every store; one that is down does not keep the others from being looked at.

    Args:
        resources: as `build.store_resources` gives them.
    """
    postgres, clickhouse, chroma, redis = (
        resources[name] for name in ("postgres", "clickhouse", "chroma", "redis")
    )
    return [
        _one_transaction("postgres", postgres),
        _one_transaction("duckdb", resources["lake"]),
        _clickhouse(clickhouse),
        _chroma(chroma, postgres),
        _one_transaction("sqlite", resources["sqlite"]),
        _looked_at(
            "redis", lambda: _redis(redis, postgres), "Redis serves what PostgreSQL holds, or nothing."
        ),
    ]


def _one_transaction(store: str, resource: Any) -> Recovery:
    """A store that recovers by itself as soon as it is opened, which asking for its health does."""
    health = resource.health()
    if health.state == "healthy":
        return Recovery(store, "clean", _ONE_TRANSACTION)
    return Recovery(store, "down", health.detail)


def _looked_at(store: str, look: Callable[[], list[str]], clean: str) -> Recovery:
    from ml_assets.lib.faults import one_sentence

    try:
        found = look()
    except Exception as fault:  # noqa: BLE001 - told; the other stores are looked at all the same
        return Recovery(store, "down", one_sentence(fault))
    if not found:
        return Recovery(store, "clean", clean)
    return Recovery(store, "recovered", "Finished or undone what killed writers left.", tuple(found))


def _clickhouse(clickhouse: Any) -> Recovery:
    from ml_assets.io_managers.clickhouse import finish_writes, set_aside
    from ml_assets.stores.clickhouse.redo import failed_sentence

    aside: list[str] = []

    def look() -> list[str]:
        finished = finish_writes(clickhouse)
        aside.extend(set_aside(clickhouse))
        return finished

    found = _looked_at("clickhouse", look, "No write was interrupted.")
    return replace(found, state="failed", detail=failed_sentence(aside)) if aside else found


def _chroma(chroma: Any, postgres: Any) -> Recovery:
    """Every collection, whoever made it; one that cannot be mended does not keep the others from it."""
    from ml_assets.contracts import INDEXED, TABLES
    from ml_assets.errors import ContractViolation, DamagedCollection
    from ml_assets.io_managers.chroma import restore
    from ml_assets.stores.postgres_table import known_contracts

    faults: list[str] = []

    def look() -> list[str]:
        with postgres.connect() as connection:
            contracts = known_contracts(connection, "chroma")
        dealt_with = []
        for contract in contracts:
            source = TABLES.get(INDEXED.get(contract.asset, ""))
            try:
                done, fault = restore(chroma, postgres, contract, source)
            except (ContractViolation, DamagedCollection) as left:
                done, fault = [], str(left)
            dealt_with += done
            faults.extend(filter(None, [fault]))
        return dealt_with

    found = _looked_at("chroma", look, "Every entry is one that the manifest names, and can be found.")
    return replace(found, state="failed", detail=" ".join(faults)) if faults else found


def _redis(redis: Any, postgres: Any) -> list[str]:
    from ml_assets.io_managers.redis import drop_bent, refresh
    from ml_assets.stores.postgres_table import known_contracts

    client = redis.client()
    if client is None:
        return []
    with postgres.connect() as connection:
        contracts = known_contracts(connection, "serving")
    with client:
        for contract in contracts:
            drop_bent(client, redis, postgres, contract)
        return [contract.asset for contract in contracts if refresh(client, postgres, contract)]
