"""Maintenance: what keeps the stores small without anybody noticing; what recovers them, and how they do.

How a store is kept small is in stores/<store>/maintenance.py. Run by the asset `quality/maintenance` every night,
and safe at any time, from any number of processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_assets.lib.faults import one_sentence
from ml_assets.maintenance.leftovers import TemporaryFiles
from ml_assets.stores.registry import stores
from ml_assets.tables.pause import writing
from ml_assets.tables.store import Maintained, Retention


@dataclass(frozen=True)
class MaintenanceReport:
    """What was done for one store.

    Args:
        store: its name.
        bytes_before, bytes_after: what it takes on disk (Redis: in memory), None where that cannot be asked.
        done: sentences about what was done or left for the next time.
        fault: why it was not, or not all of it, done; "" if all was.
    """

    store: str
    bytes_before: int | None
    bytes_after: int | None
    done: tuple[str, ...] = ()
    fault: str = ""


def maintain(
    resources: Mapping[str, Any],
    retention: Retention,
    first: Sequence[Maintained] = (),
    last: Sequence[Maintained] | None = None,
) -> list[MaintenanceReport]:
    """Keep every store small. One that is down does not keep the others from it; its fault is told.

    Args:
        resources: as `resources.store_resources` gives them.
        retention: how long things are kept.
        first: what is kept small before the stores, in which it frees space.
        last: what is kept small after them; temporary files if None.
    """
    # PostgreSQL last: the others free rows there, whose space is given back at once.
    parts = [part for store in reversed(stores(resources)) for part in store.maintained()]
    reports = []
    for part in [*first, *parts, *([TemporaryFiles(resources["lake"].home)] if last is None else last)]:
        with writing(resources["lake"].home):  # no backup takes its state in the midst of it
            reports.append(run(part, retention))
    return reports


def run(part: Maintained, retention: Retention) -> MaintenanceReport:
    """Keep one store small; whatever goes wrong is part of the answer."""
    before: int | None = None
    done: list[str] = []
    try:
        before = part.size()
        done += part.maintain(retention)
        return MaintenanceReport(part.name, before, part.size(), tuple(done))
    except Exception as fault:  # noqa: BLE001 - told to whoever reads the report; the other stores go on
        return MaintenanceReport(part.name, before, None, tuple(done), one_sentence(fault))
