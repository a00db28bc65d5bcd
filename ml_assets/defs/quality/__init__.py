"""Quality: what spans the stores."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_assets.automation import HOURLY
from ml_assets.contracts import INDEXED, Tables
from ml_assets.defs.checks import fetching
from ml_assets.defs.options import OWNERS, code_version, key
from ml_assets.defs.quality import maintenance, slow_statements
from ml_assets.operations.agreements import AGREEMENTS
from ml_assets.operations.reconcile import Comparison, Fetch, Listed, compare_all, compare_sides, stored_keys
from ml_assets.settings import Settings
from ml_assets.stores.registry import needed_pool, needed_resources, stores

RECONCILIATION = "quality/reconciliation"

ONLINE = "serving/online_features"


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The reconciliation across the stores, and their maintenance."""

    @dg.asset(
        key=key(RECONCILIATION),
        group_name="quality",
        owners=OWNERS,
        kinds={"sql"},
        description=(
            "Compares the same rows in every store they were carried to, by their keys and by which of their "
            "values are there. A row that got lost between two stores, stands in one of them twice, or has lost "
            "what it said, shows here as a difference.\n\nIt writes no "
            "table: the comparison is the metadata of its materialization."
        ),
        code_version=code_version(repr((AGREEMENTS, INDEXED, ONLINE))),
        deps=[key(asset) for asset in [*AGREEMENTS, *INDEXED]],
        required_resource_keys=needed_resources(),
        check_specs=[
            dg.AssetCheckSpec("stores_agree", asset=key(RECONCILIATION), description="No comparison differs.")
        ],
        pool=needed_pool(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=HOURLY,
    )
    def reconciliation(context: dg.AssetExecutionContext):
        with fetching(context.resources) as fetch:
            found = [*compare_all(tables, fetch), *_beside_sql(tables, context.resources, fetch)]
        differing = [comparison for comparison in found if not comparison.agrees]
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
        yield dg.AssetCheckResult(
            asset_key=key(RECONCILIATION),
            check_name="stores_agree",
            passed=not differing,
            description="; ".join(f"{c.asset}: {c.told}" for c in differing)
            or f"{len(found)} comparisons agree.",
        )
        yield dg.MaterializeResult(
            metadata={
                "comparisons": dg.MetadataValue.table(records),
                "compared": len(found),
                "differing": len(differing),
            }
        )

    return dg.Definitions.merge(
        dg.Definitions(assets=[reconciliation]), maintenance.build(settings), slow_statements.build(settings)
    )


def _beside_sql(tables: Tables, resources: Any, fetch: Fetch) -> Iterator[Comparison]:
    """What cannot be asked in SQL: the entries of an index, and what a cache answers with."""
    copies = {**INDEXED, ONLINE: ONLINE}
    for store in stores({name: getattr(resources, name) for name in needed_resources()}):
        for asset, parent in copies.items():
            contract = tables[asset]
            if contract.store == store.prefix and (keys := store.keys(contract)) is not None:
                name = f"{store.name}/{contract.table}"
                yield compare_sides(name, parent, Listed(keys), stored_keys(fetch, tables[parent]))
