"""Finishing what killed writers have left in any table of a ClickHouse, and telling of it."""

from typing import TYPE_CHECKING

from ml_assets.lib.faults import one_sentence
from ml_assets.stores.clickhouse.lock import writing
from ml_assets.stores.clickhouse.redo import failed, failed_sentence, interrupted, recover
from ml_assets.tables.store import Recovery

if TYPE_CHECKING:
    from ml_assets.stores.clickhouse import ClickHouse

_STORE = "clickhouse"


def recover_all(clickhouse: "ClickHouse") -> Recovery:
    """Finish every interrupted write, and say what was set aside because it could not be finished."""
    try:
        finished, aside = tuple(finish_writes(clickhouse)), set_aside(clickhouse)
    except Exception as fault:  # noqa: BLE001 - told; the other stores are looked at all the same
        return Recovery(_STORE, "down", one_sentence(fault))
    if aside:
        return Recovery(_STORE, "failed", failed_sentence(aside), finished)
    if finished:
        return Recovery(_STORE, "recovered", "Finished or undone what killed writers left.", finished)
    return Recovery(_STORE, "clean", "No write was interrupted.")


def finish_writes(clickhouse: "ClickHouse") -> list[str]:
    """Finish what killed writers had committed and drop what else they left; returns the tables dealt with.

    An embedded engine does it when it is opened; that counts, too.

    Raises:
        Exception: the first fault at a table, once the others have been looked after.
    """
    with clickhouse.client(write=True) as client:
        dealt_with, faults = clickhouse.finished_when_opened(), []
        for table in interrupted(client):
            try:
                with writing(clickhouse, table) as writer:
                    dealt_with += recover(writer, table)
            except Exception as fault:  # noqa: BLE001 - told once the other tables have been looked after
                faults.append(fault)
    if faults:
        raise faults[0]
    return dealt_with


def set_aside(clickhouse: "ClickHouse") -> list[str]:
    """Names of tables with the rows of killed writes that could not be finished."""
    with clickhouse.client() as client:
        return failed(client)
