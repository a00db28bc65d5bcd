"""Do the stores agree? Compares what AGREEMENTS says of neighbouring tables, over the whole tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from ml_assets.agreements import AGREEMENTS, Agreement
from ml_assets.contracts import TABLES
from ml_assets.lib.contract_sql import count, present_tables

Fetch = Callable[[str, str], Sequence[Sequence[Any]]]
"""(store, statement) -> rows."""


@dataclass(frozen=True)
class Comparison:
    """The same number from two tables."""

    asset: str
    parent: str
    here: int
    there: int

    @property
    def agrees(self) -> bool:
        """Whether both tables give the same number."""
        return self.here == self.there


def compare(
    asset: str, agreement: Agreement, fetch: Fetch, days: tuple[date, date] | None = None
) -> Comparison:
    """Ask both stores; `days` narrows it to some days where both tables are daily.

    Of the table downstream those rows count that were made from the one upstream, and upstream every row
    counts, whoever wrote it: whatever is read is carried on.
    """
    child, parent = TABLES[asset], TABLES[agreement.parent]
    if not (child.partition_column and parent.partition_column):
        days = None
    here = fetch(child.store, count(child, agreement.here, agreement.where_here, days, owned=True))[0][0]
    there = fetch(parent.store, count(parent, agreement.there, agreement.where_there, days))[0][0]
    return Comparison(asset, agreement.parent, int(here or 0), int(there or 0))


def compare_all(fetch: Fetch, agreements: Mapping[str, Sequence[Agreement]] = AGREEMENTS) -> list[Comparison]:
    """Every agreement between tables that are there, over whole tables."""
    pairs = [(asset, one) for asset, several in agreements.items() for one in several]
    stores = {TABLES[name].store for asset, one in pairs for name in (asset, one.parent)}
    present = {(store, row[0]) for store in stores for row in fetch(store, present_tables(store))}
    return [
        compare(asset, one, fetch)
        for asset, one in pairs
        if all((TABLES[name].store, TABLES[name].table) in present for name in (asset, one.parent))
    ]
