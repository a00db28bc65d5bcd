"""Asset checks, made from contracts: rules of single rows, unique keys, agreement with the table upstream.

A check reads the table where it lies, in the store's own SQL, after each write and from the UI at any time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import date
from typing import Any, Protocol

import dagster as dg

from ml_assets.contracts import Contract, Tables
from ml_assets.defs.options import key, queue
from ml_assets.operations.agreements import AGREEMENTS, Agreement
from ml_assets.operations.reconcile import Comparison, Fetch, compare
from ml_assets.stores.registry import kind_of
from ml_assets.tables.contract_sql import count_broken, doubled_keys, rules


class Answers(Protocol):
    """A resource that answers SQL with rows."""

    def asking(self) -> AbstractContextManager[Callable[[str], Sequence[Sequence[Any]]]]:
        """A function from a statement to its rows, good for the length of the block."""
        ...


def table_checks(tables: Tables, asset: str) -> dg.AssetChecksDefinition:
    """All checks of one table, in one step: `contract`, `unique_key` if it has a key, and one per agreement."""
    contract = tables[asset]
    agreements = AGREEMENTS.get(asset, ())
    prefixes = {contract.store, *(agreement.parent.split("/")[0] for agreement in agreements)}
    stores = [kind_of(prefix) for prefix in sorted(prefixes)]
    pool = next((store.pool for store in stores if store.pool), None)
    sql = kind_of(contract.store).checks
    unique = dg.AssetCheckSpec(
        "unique_key",
        asset=key(asset),
        description=f"{', '.join(contract.key)} stands once{_scope(contract)}.",
    )
    specs = [
        dg.AssetCheckSpec("contract", asset=key(asset), description="Every row keeps the contract."),
        *([unique] if contract.key else []),
        *(
            dg.AssetCheckSpec(
                _agreement_name(agreement),
                asset=key(asset),
                additional_deps=[key(agreement.parent)],
                description=agreement.text,
            )
            for agreement in agreements
        ),
    ]

    @dg.multi_asset_check(
        name=f"check_{asset.replace('/', '__')}",
        specs=specs,
        # Without it the UI offers no button that runs a check by itself.
        can_subset=True,
        required_resource_keys={store.asks for store in stores if store.asks},
        pool=pool,
        op_tags=queue(pool, at_home=any(store.at_home for store in stores)),
    )
    def checks(context: dg.AssetCheckExecutionContext):
        days = checked_days(context) if contract.partition_column else None
        wanted = {check.name for check in context.selected_asset_check_keys}
        with fetching(context.resources) as fetch:
            if "contract" in wanted:
                yield _contract_result(contract, fetch(contract.store, count_broken(sql, contract))[0])
            if "unique_key" in wanted:
                yield _unique_result(contract, fetch(contract.store, doubled_keys(sql, contract, days=days)))
            for agreement in agreements:
                if _agreement_name(agreement) in wanted:
                    found = compare(tables, asset, agreement, fetch, days)
                    yield _agreement_result(agreement, found, days)

    return checks


@contextmanager
def fetching(resources: object) -> Iterator[Fetch]:
    """A function that answers SQL from the named store, over one connection a store."""
    with ExitStack() as stack:
        answering: dict[str, Callable[[str], Sequence[Sequence[Any]]]] = {}

        def fetch(store: str, statement: str) -> Sequence[Sequence[Any]]:
            name = kind_of(store).asks
            if name is None:
                raise TypeError(f"{store} answers no SQL")
            if name not in answering:
                resource: Answers = getattr(resources, name)
                answering[name] = stack.enter_context(resource.asking())
            return answering[name](statement)

        yield fetch


def _contract_result(contract: Contract, counts: Sequence[Any]) -> dg.AssetCheckResult:
    row_count, *broken = (int(count) for count in counts)
    found = {rule.text: n for rule, n in zip(rules(contract), broken, strict=True) if n}
    told = "; ".join(f"{n:,} rows break '{text}'" for text, n in found.items())
    return dg.AssetCheckResult(
        asset_key=key(contract.asset),
        check_name="contract",
        passed=not found,
        metadata={"rows": row_count, "rules": len(broken), "broken": found},
        description=told or f"{row_count:,} rows keep {len(broken)} rules.",
    )


def _agreement_result(
    agreement: Agreement, found: Comparison, days: tuple[date, date] | None
) -> dg.AssetCheckResult:
    # Numbers are plotted from one evaluation to the next; those of a few days would be drawn as a fall of the table.
    of_days = f" rows on {days[0]} to {days[1]}" if days else ""
    rows = {found.asset: found.actual, found.parent: found.expected}
    return dg.AssetCheckResult(
        asset_key=key(found.asset),
        check_name=_agreement_name(agreement),
        passed=found.agrees,
        metadata={name: f"{count:,}{of_days}" if of_days else count for name, count in rows.items()},
        description=found.told,
    )


def _unique_result(contract: Contract, doubled: Sequence[Sequence[Any]]) -> dg.AssetCheckResult:
    told = "; ".join(f"{', '.join(map(str, row[:-1]))} stands {row[-1]} times" for row in doubled)
    return dg.AssetCheckResult(
        asset_key=key(contract.asset),
        check_name="unique_key",
        passed=not doubled,
        metadata={"examples": [[str(value) for value in row] for row in doubled]},
        description=told or f"{', '.join(contract.key)} is unique{_scope(contract)}.",
    )


def checked_days(context: dg.AssetCheckExecutionContext) -> tuple[date, date] | None:
    """The days of the run that this check belongs to; None if it is run by itself, for the whole table."""
    tags = context.run.tags
    one = tags.get("dagster/partition")
    first = tags.get("dagster/asset_partition_range_start", one)
    last = tags.get("dagster/asset_partition_range_end", one)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None


def _agreement_name(agreement: Agreement) -> str:
    return f"agrees_with_{agreement.parent.replace('/', '_')}"


def _scope(contract: Contract) -> str:
    return " within a day" if contract.partition_column and not contract.unique_across_days else ""
