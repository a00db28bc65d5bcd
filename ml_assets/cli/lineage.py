"""What `ml-assets lineage` prints, and what Dagster's history tells the page of the whole graph."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.home import is_home
from ml_assets.lib.lineage import ColumnRef, Step, downstream, upstream
from ml_assets.lib.lineage_page import TableFacts
from ml_assets.operations.lineage import ColumnLineage, graph_lineage, page_of_graph, the_column
from ml_assets.operations.page_file import write_page
from ml_assets.settings import Settings
from ml_assets.stack import Stack

if TYPE_CHECKING:
    from dagster import AssetCheckKey, DagsterInstance, EventLogEntry
    from rich.tree import Tree


def tree(settings: Settings, name: str, later: bool, as_json: bool) -> None:
    """Print what a column comes from, or what is made of it."""
    if as_json:
        import orjson

        print(orjson.dumps(Stack(settings).lineage(name, later).to_pylist()).decode())
        return
    from rich.console import Console

    graph = graph_lineage(settings)
    column = the_column(graph, name)
    steps = list((downstream if later else upstream)(graph.whole(), column))
    Console(soft_wrap=True).print(_tree(graph, column, steps, later))


def _tree(graph: ColumnLineage, start: ColumnRef, steps: list[Step], later: bool) -> "Tree":
    from rich.text import Text
    from rich.tree import Tree

    below: dict[ColumnRef, list[Step]] = defaultdict(list)
    for step in steps:
        above = step.source if later else step.column
        below[above if above.column or later else start].append(step)
    shown: set[ColumnRef] = set()

    def named(column: ColumnRef) -> Text:
        store, _, table = column.asset.rpartition("/")
        return Text.assemble(
            (f"{store}/", "dim"), table, (f".{column.column}", "bold") if column.column else ""
        )

    def grow(branch: Tree, column: ColumnRef) -> None:
        for step in below.get(column, ()):
            other = step.column if later else step.source
            if step.how == "rows":
                continue
            if other in shown and below.get(other):
                branch.add(named(other) + Text("  (as above)", "dim"))
                continue
            shown.add(other)
            grow(branch.add(named(other)), other)
        rows = [step for step in below.get(column, ()) if step.how == "rows"]
        if later:
            for step in rows:
                again = step.column in shown and bool(below.get(step.column))
                twig = branch.add(Text(_broken(step) + ("  (as above)" if again else ""), "dim"))
                if not again:
                    shown.add(step.column)
                    grow(twig, step.column)
        elif rows:
            named_rows = ", ".join(str(step.source) for step in rows)
            branch.add(Text(f"rows of {rows[0].column.asset} also depend on {named_rows}", "dim"))
        origins = graph.of(column.asset)
        if not later and origins and (why := origins.made.get(column.column)):
            branch.add(Text(why, "italic dim"))

    root = Tree(named(start))
    grow(root, start)
    if not root.children:
        root.add(Text("Nothing is made of it." if later else "It comes from outside.", "dim"))
    return root


def _broken(step: Step) -> str:
    """Why a table cannot be built when a column goes that none of its values need be made of."""
    return f"{step.column.asset}: {'filters, joins or orders by it' if step.source.column else 'made of that table'}"


def page(settings: Settings, path: Path, name: str) -> None:
    """Write the page of the whole graph, and say so."""
    graph = graph_lineage(settings)
    chosen = the_column(graph, name) if name else None
    write_page(path, lambda: page_of_graph(graph, table_facts(settings), chosen))
    print(f"{path} shows {len(graph.columns()):,} tables and where their columns come from.")


def table_facts(settings: Settings) -> dict[str, TableFacts]:
    """What the stores and Dagster's history know of the tables; nothing where there is no home yet."""
    if not is_home(settings.home):
        return {}
    from ml_assets.build import build_defs
    from ml_assets.cli.instance import open_instance
    from ml_assets.maintenance.status import stores_status

    rows: dict[str, int] = {}
    status, _ = stores_status(settings, start=True)
    for store, told in status.items():
        if told["state"] != "healthy":
            print(
                f"The rows of {store}, which is {told['state']}, are not told: {told['detail']}",
                file=sys.stderr,
            )
        rows |= {held["asset"]: held["rows"] for held in told["tables"].values()}
    assets = build_defs(settings).resolve_asset_graph()
    keys = assets.materializable_asset_keys
    with open_instance(settings) as instance:
        events = instance.get_latest_materialization_events(keys)
        failed = failed_checks(instance, list(assets.asset_check_keys))
    return {
        asset: _facts(rows.get(asset), events.get(key), failed.get(asset, ()))
        for key in keys
        for asset in (key.to_user_string(),)
    }


def failed_checks(instance: "DagsterInstance", keys: "Sequence[AssetCheckKey]") -> dict[str, list[str]]:
    """Names of the checks that did not pass when they ran last, by asset; one that crashed did not pass."""
    from dagster import DagsterRunStatus, RunsFilter
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

    ran = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    # What crashed stays planned for ever; its run tells, as in Dagster's UI.
    planned = {record.run_id for record in ran.values() if record.status == Status.PLANNED}
    crashed: set[str] = set()
    if planned:
        of_failed = RunsFilter(run_ids=list(planned), statuses=[DagsterRunStatus.FAILURE])
        crashed = {run.run_id for run in instance.get_runs(of_failed)}
    found: dict[str, list[str]] = defaultdict(list)
    for check, record in ran.items():
        if record.status == Status.FAILED or (record.status == Status.PLANNED and record.run_id in crashed):
            found[check.asset_key.to_user_string()].append(check.name)
    return {asset: sorted(names) for asset, names in found.items()}


def _facts(rows: int | None, event: "EventLogEntry | None", failed: Sequence[str]) -> TableFacts:
    """
    Args:
        rows: as the store has them; the tables of intake tell theirs in their event.
        event: the newest materialization.
        failed: names of the checks that did not pass.
    """
    made = event.asset_materialization if event else None
    if rows is None and made and (counted := made.metadata.get("dagster/row_count")):
        rows = int(str(counted.value))
    written = datetime.fromtimestamp(event.timestamp, UTC) if event else None
    return TableFacts(rows if made else None, written, failed)
