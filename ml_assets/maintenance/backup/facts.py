"""What the ledgers say that each table holds, as a backup notes it and a restored home is held against."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from ml_assets.contracts import Tables
from ml_assets.lib.backup import TableFact
from ml_assets.maintenance.status import tables_of
from ml_assets.stores.duckdb import pins
from ml_assets.tables.store import TableStore

LAKE, DUMPED = "duckdb", "postgres"
"""Stores whose rows, or whose catalog, are in a dump of PostgreSQL."""


def of_store(store: TableStore, resources: Mapping[str, Any], tables: Tables) -> dict[str, TableFact]:
    """What a store's tables hold, by `store/table`."""
    found: dict[str, TableFact] = {}
    # An engine that is opened for each question takes half a second for it.
    with resources[store.asks].asking() if store.asks else nullcontext():
        for contract in tables_of(store, tables):
            state = store.ledger_state(contract, any_version=True)
            found[named(store.name, contract.asset)] = TableFact(state.rows, state.content_hash)
    return found


def of_lake(lake: Any, version: int) -> dict[str, TableFact]:
    """What the lake's tables held at a version."""
    return {
        named(LAKE, asset): TableFact(state.rows, state.content_hash)
        for asset, state in pins.contents(lake.at(version)).items()
    }


def of_status(status: Mapping[str, Any]) -> dict[str, TableFact]:
    """The same of what `stores_status` tells."""
    return {
        named(store, held["asset"]): TableFact(held["rows"], held["content_hash"])
        for store, told in status.items()
        for held in told["tables"].values()
    }


def named(store: str, asset: str) -> str:
    """`store/table`; of a table of another store's asset, such as Redis' copy, with both names."""
    return asset if asset.startswith(f"{store}/") else f"{store}/{asset}"
