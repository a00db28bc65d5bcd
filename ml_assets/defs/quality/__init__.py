"""Quality: what spans the stores."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dagster as dg

from ml_assets.automation import HOURLY
from ml_assets.contracts import INDEXED, Tables
from ml_assets.defs.checks import fetching
from ml_assets.defs.options import OWNERS, code_version, key, queue
from ml_assets.defs.quality import (
    engines,
    leaks,
    maintenance,
    openlineage,
    promotion_gate,
    retrieval_quality,
    slow_statements,
)
from ml_assets.operations.agreements import AGREEMENTS
from ml_assets.operations.carried import CARRIED, MADE, Sources
from ml_assets.operations.reconcile import (
    Comparison,
    Fetch,
    Listed,
    compare_all,
    compare_sides,
    compare_values,
    short,
    stored_keys,
)
from ml_assets.settings import Settings
from ml_assets.stores.registry import needed_pool, needed_resources, stores
from ml_assets.tables.store import TableStore

RECONCILIATION = "quality/reconciliation"


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The reconciliation across the stores, and their maintenance."""

    @dg.asset(
        key=key(RECONCILIATION),
        group_name="quality",
        owners=OWNERS,
        kinds={"sql"},
        description=(
            "Compares the same rows in every store that they were carried to, value by value: intake and raw, raw and "
            "PostgreSQL, PostgreSQL and SQLite, the lake and ClickHouse, pgvector and its indexes, PostgreSQL and Redis. "
            "Of tables that hold something else than the one upstream the keys are compared, and which of their values "
            "are there. A row that got lost between two stores, stands in one of them twice, or says something else, "
            "shows here with its key, its column and both values.\n\nIt writes no table: the comparison is the "
            "metadata of its materialization."
        ),
        code_version=code_version(repr((AGREEMENTS, CARRIED, [*MADE], INDEXED))),
        deps=[
            key(asset)
            for asset in dict.fromkeys([*AGREEMENTS, *CARRIED, *MADE, *INDEXED])
            # What an index of no store would be is none.
            if asset in tables or asset not in INDEXED
        ],
        required_resource_keys=needed_resources(),
        check_specs=[
            dg.AssetCheckSpec(
                "stores_agree",
                asset=key(RECONCILIATION),
                description="No comparison differs.",
                blocking=settings.reconciliation_blocks,
            )
        ],
        pool=needed_pool(),
        op_tags=queue(needed_pool(), at_home=True),
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=HOURLY,
    )
    def reconciliation(context: dg.AssetExecutionContext):
        held = stores({name: getattr(context.resources, name) for name in needed_resources()})
        sources = Sources(
            {store.prefix: store for store in held},
            context.resources.lake,
            context.resources.postgres,
            settings.metric_rules,
        )
        found = compare_values(sources, tables)
        valued = {comparison.asset for comparison in found}
        others = {asset: several for asset, several in AGREEMENTS.items() if asset not in valued}
        with fetching(context.resources) as fetch:
            found += [*compare_all(tables, fetch, others), *_indexed(tables, held, fetch)]
        differing = [comparison for comparison in found if not comparison.agrees]
        yield dg.AssetCheckResult(
            asset_key=key(RECONCILIATION),
            check_name="stores_agree",
            passed=not differing,
            description="; ".join(f"{c.asset}: {c.told}" for c in differing)
            or f"{len(found)} comparisons agree.",
        )
        yield dg.MaterializeResult(metadata=_told(found))

    return dg.Definitions.merge(
        dg.Definitions(assets=[reconciliation]),
        maintenance.build(settings),
        slow_statements.build(settings),
        openlineage.build(settings, tables),
        promotion_gate.build(settings, tables),
        retrieval_quality.build(settings, tables),
        *(
            # Without a pin nobody knows which columns the events have in the lake.
            [
                dg.Definitions(
                    asset_checks=[engines.same_rollup(tables["clickhouse/ml_model_performance"].kept_days)]
                )
            ]
            if "duckdb/model_performance_events" in tables
            else []
        ),
        # No run may have made the table yet whose contract this would be.
        dg.Definitions(asset_checks=[leaks.nothing_leaks(settings)] if leaks.TRAINING_SET in tables else []),
    )


def _told(found: Sequence[Comparison]) -> dict[str, Any]:
    """What the page of the asset shows: all comparisons, and the first values of each that differ."""
    records = [
        dg.TableRecord(
            {
                "table": comparison.asset,
                "rows": comparison.actual,
                "upstream": comparison.parent,
                "rows_upstream": comparison.expected,
                "agrees": comparison.agrees,
                "differences": " ".join(comparison.differences),
            }
        )
        for comparison in found
    ]
    cells = [
        dg.TableRecord(
            {
                "table": comparison.asset,
                "upstream": comparison.parent,
                "key": cell.key,
                # Of a row that is on one side only, how often it stands.
                "column": cell.column or "(whole row)",
                "here": short(cell.here),
                "there": short(cell.there),
            }
        )
        for comparison in found
        for cell in comparison.cells
    ]
    return {
        "comparisons": dg.MetadataValue.table(records),
        "compared": len(found),
        "differing": sum(not comparison.agrees for comparison in found),
        **({"values": dg.MetadataValue.table(cells)} if cells else {}),
    }


def _indexed(tables: Tables, held: Iterable[TableStore], fetch: Fetch) -> Iterator[Comparison]:
    """The keys that searches of an index can find, which its entries do not prove."""
    for store in held:
        for asset, parent in INDEXED.items():
            contract = tables.get(asset)
            if (
                contract is not None
                and contract.store == store.prefix
                and (keys := store.keys(contract)) is not None
            ):
                yield compare_sides(asset, parent, Listed(keys), stored_keys(fetch, tables[parent]))
