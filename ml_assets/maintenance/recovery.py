"""What `ml-assets recover` does: finish or undo what killed writers have left, in every store, now.

What keeps its books in another store is held against them: Chroma's collections and Redis' copies, whoever's table it
is. What they have lost is brought back.

Nobody has to run it: whoever writes to a table next does the same for that table, and an embedded ClickHouse
does it whenever it is opened. It is for whoever wants to be sure after a crash or before a backup.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ml_assets.contracts import Tables
from ml_assets.lib.faults import one_sentence
from ml_assets.stores.registry import stores
from ml_assets.tables.pause import writing
from ml_assets.tables.store import Recovery, TableStore


def recover_all(
    resources: Mapping[str, Any], tables: Tables, only: Collection[str] | None = None
) -> list[Recovery]:
    """Look at every store; one that is down does not keep the others from being looked at.

    Args:
        resources: as `resources.store_resources` gives them.
        tables: this project's contracts, for what can be brought back from another table.
        only: names of the stores; all of them if None.
    """
    with writing(resources["lake"].home):
        return [_recover(store, tables) for store in stores(resources) if only is None or store.name in only]


def _recover(store: TableStore, tables: Tables) -> Recovery:
    try:
        return store.recover(tables)
    except Exception as fault:  # noqa: BLE001 - told; the other stores are looked at all the same
        return Recovery(store.name, "down", one_sentence(fault))
