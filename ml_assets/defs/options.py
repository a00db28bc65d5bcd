"""What every asset of the graph has in common, derived from its contract."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from ml_assets import automation, metadata
from ml_assets.contracts import INHERITED, Contract
from ml_assets.partitions import daily_partitions
from ml_assets.settings import Settings
from ml_assets.stores.registry import kind_of

OWNERS = ["team:ml-assets"]

QUEUE = "dagster-celery/queue"
"""Tag of the queue that Celery puts a step into; without it that is `dagster`."""

HOME_QUEUE = "home"
"""Queue of the steps that need files of the home: landing files, SQLite, reports."""

FAULT, FEATURE_FILE = "ml_assets/fault", "ml_assets/feature_file"
"""Metadata of an asset that only fails: why, and the file that cannot be used."""


def code_version(*texts: str) -> str:
    """Version of an asset's logic: a hash of the texts (SQL, contract) that decide about its rows."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def key(asset: str) -> dg.AssetKey:
    """`store/table` as an asset key."""
    return dg.AssetKey(asset.split("/"))


def queue(pool: str | None, at_home: bool = False) -> dict[str, str]:
    """Tags of a step for Celery: the queue is the home's, or is named like the pool (docs/servers.md).

    Args:
        pool: of the step.
        at_home: whether it needs files of the home.
    """
    name = HOME_QUEUE if at_home else pool
    return {QUEUE: name} if name else {}


def options(
    settings: Settings,
    contract: Contract,
    *,
    group: str,
    description: str,
    logic: Iterable[str] = (),
    kinds: Iterable[str] = (),
    fresh: bool = False,
    automated: bool = True,
    owners: Sequence[str] = (),
    tags: Iterable[str] = (),
    lookback_days: int = 0,
    at_home: bool = False,
) -> dict[str, Any]:
    """Keyword arguments of `dg.asset` for a table of the graph.

    Args:
        settings: for the first day of the partitions.
        contract: of the table.
        group: the room.
        description: what the table teaches its reader; the contract's row description follows it.
        logic: texts besides the contract that decide about the rows (SQL, a version of the Python code).
        kinds: tags besides the store's.
        fresh: whether it should be rebuilt every day.
        automated: whether it follows its parents by itself.
        owners: who is asked about the table, if not the project.
        tags: words to find it by.
        lookback_days: how many days before its own a row reads; `partitions.looking_back` maps the parents so.
        at_home: whether the body reads or writes files of the home.
    """
    store = kind_of(contract.store)
    # The contract of a file whose header was all that was said of it says the same.
    one_row = [] if contract.description in description else [f"One row is {contract.description}."]
    daily = contract.partition_column is not None
    by_day = automation.WINDOWED if lookback_days else automation.PARTITIONED
    condition = by_day if daily else automation.WHOLE
    return {
        "key": key(contract.asset),
        "group_name": group,
        "owners": list(owners) or OWNERS,
        "tags": dict.fromkeys(tags, ""),
        "kinds": {store.name, store.kind} | set(kinds),
        "description": "\n\n".join([description, *one_row]),
        "code_version": code_version(repr(contract), *logic),
        "metadata": metadata.table_metadata(
            contract, store.kind, store.table_name(contract), inherited=INHERITED
        ),
        "io_manager_key": f"{store.name}_io",
        "partitions_def": daily_partitions(settings.partitions_start) if daily else None,
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "pool": store.pool,
        "op_tags": queue(store.pool, at_home=at_home or store.at_home),
        "freshness_policy": automation.FRESH_WITHIN_A_DAY if fresh else None,
        "automation_condition": condition if automated else None,
    }


def table_asset(
    settings: Settings,
    contract: Contract,
    *,
    ins: Mapping[str, dg.AssetIn] | None = None,
    deps: Iterable[Any] = (),
    **more: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset` for a table of the graph.

    Args:
        settings, contract, more: see `options`.
        ins: inputs that the IO managers load.
        deps: keys of what the body reads by itself.
    """
    given = options(settings, contract, **more)
    return dg.asset(ins=ins, deps=list(deps), **given)
